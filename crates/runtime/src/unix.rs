//! Unix sockets for the real runtimes: access is decided by the file system.
//!
//! A file that is in the way is removed only when it is a socket without a listener.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net,
    },
    path::{Path, PathBuf},
    task::{Context, Poll, ready},
};

use async_io::Async;
use futures::future::{BoxFuture, FutureExt};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    ByteStream, UnixListener,
    stream::Stream,
    watched::{Reactor, Watched},
};

/// For this user's eyes only.
const MODE: u32 = 0o600;

#[derive(Debug)]
struct Listener<R: Reactor> {
    reactor: R,
    inner: R::Watched<net::UnixListener>,
    path: PathBuf,
    /// Device and inode of our file: another one at the same path is not ours to remove.
    file: (u64, u64),
}

pub(super) fn bind(reactor: impl Reactor, path: PathBuf) -> io::Result<Box<dyn UnixListener>> {
    clear(&path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux makes the file with the socket's own mode, so that there is no moment in which others
    // may open it. Where that has no effect, the mode is set a moment later.
    if let Err(e) = rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(MODE as _)) {
        log::debug!("{}: no mode before binding: {e}", path.display());
    }
    socket.bind(&SockAddr::unix(&path)?)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(MODE))?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    let inner = reactor.watch(net::UnixListener::from(socket))?;
    let file = identity(&path)?;
    Ok(Box::new(Listener { reactor, inner, path, file }))
}

/// Makes way for a socket at `path`.
fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something else than a socket is there",
            ));
        }
        Ok(_) => {}
    }
    match net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there")),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            log::info!(target: "smidge", "removing {}: nobody answers at this socket", path.display());
            fs::remove_file(path)
        }
        Err(e) => Err(e),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

impl<R: Reactor> Listener<R> {
    /// A connection that was accepted.
    fn stream(&self, stream: net::UnixStream) -> io::Result<Box<dyn ByteStream>> {
        stream.set_nonblocking(true)?;
        Ok(Box::new(Stream::new(self.reactor.watch(stream)?)))
    }
}

impl<R: Reactor> UnixListener for Listener<R> {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn ByteStream>>> {
        loop {
            self.inner.before_read();
            match self.inner.socket().accept() {
                Ok((stream, _)) => return Poll::Ready(self.stream(stream)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.inner.poll_readable(cx))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl<R: Reactor> Drop for Listener<R> {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file)
            && let Err(e) = fs::remove_file(&self.path)
        {
            log::debug!("{} stays behind: {e}", self.path.display());
        }
    }
}

pub(super) fn connect(
    reactor: impl Reactor,
    path: PathBuf,
) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
    async move {
        // Where the listener's queue is full, async-io waits for it.
        let stream = Async::<net::UnixStream>::connect(path).await?.into_inner()?;
        Ok(Box::new(Stream::new(reactor.watch(stream)?)) as _)
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};

    use super::*;
    use crate::watched::AsyncIo;

    #[test]
    fn a_socket_is_private_answers_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = bind(AsyncIo, path.clone()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        async_io::block_on(async {
            let mut near = connect(AsyncIo, path.clone()).await.unwrap();
            let mut far = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
            near.write_all(b"hello").await.unwrap();
            let mut buf = [0; 5];
            far.read_exact(&mut buf).await.unwrap();
            assert_eq!(&buf, b"hello");
            near.close().await.unwrap();
            assert_eq!(far.read(&mut buf).await.unwrap(), 0, "the other end sees a closed half");
        });
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_at_which_nobody_answers_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let live = net::UnixListener::bind(&path).unwrap();
        assert_eq!(bind(AsyncIo, path.clone()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live); // std leaves the file behind, as a killed process does
        assert!(path.exists());
        let replaced = bind(AsyncIo, path.clone()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(replaced);
        assert_eq!(bind(AsyncIo, path.clone()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
