//! TCP for the real runtimes: listeners, and connections that may leave from a listener's port.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll, ready},
};

use futures::future::{BoxFuture, FutureExt, poll_fn};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::{
    KeepAlive, TcpListener, TcpOptions, TcpStream,
    stream::Stream,
    watched::{Reactor, Watched},
};

fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Lets others that ask for the same use the socket's address, too.
fn share(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

/// No waiting for more to send, and signs of life.
fn tune(socket: SockRef<'_>, keep_alive: Option<KeepAlive>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let Some(KeepAlive { after, lost_after }) = keep_alive else { return Ok(()) };
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(after).with_interval(after))?;
    // Ends a connection whose data, or whose probes, are not acknowledged (tcp(7)).
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(lost_after))?;
    #[cfg(not(target_os = "linux"))]
    let _ = lost_after;
    Ok(())
}

#[derive(Debug)]
struct Listener<R: Reactor> {
    reactor: R,
    inner: R::Watched<std::net::TcpListener>,
    local: SocketAddr,
    keep_alive: Option<KeepAlive>,
}

impl<R: Reactor> Listener<R> {
    /// A connection that was accepted.
    fn stream(&self, stream: std::net::TcpStream) -> io::Result<Box<dyn TcpStream>> {
        tune(SockRef::from(&stream), self.keep_alive)?;
        stream.set_nonblocking(true)?;
        Ok(Box::new(Stream::new(self.reactor.watch(stream)?)))
    }
}

impl<R: Reactor> TcpListener for Listener<R> {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn TcpStream>, SocketAddr)>> {
        loop {
            self.inner.before_read();
            match self.inner.socket().accept() {
                Ok((stream, remote)) => {
                    return Poll::Ready(self.stream(stream).map(|stream| (stream, remote)));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.inner.poll_readable(cx))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

pub(super) fn bind(
    reactor: impl Reactor,
    addr: SocketAddr,
    options: TcpOptions,
) -> io::Result<Box<dyn TcpListener>> {
    let listener = socket(addr)?;
    if options.share {
        if addr.port() != 0 {
            // Any process of this user could share the port, and take half of the connections. One
            // that listens there already is found out by not asking to share.
            socket(addr)?.bind(&addr.into())?;
        }
        share(&listener)?;
    }
    listener.bind(&addr.into())?;
    listener.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let inner = reactor.watch(std::net::TcpListener::from(listener))?;
    let local = inner.socket().local_addr()?;
    Ok(Box::new(Listener { reactor, inner, local, keep_alive: options.keep_alive }))
}

pub(super) fn connect(
    reactor: impl Reactor,
    addr: SocketAddr,
    options: TcpOptions,
) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
    async move {
        let socket = socket(addr)?;
        tune(SockRef::from(&socket), options.keep_alive)?;
        if let Some(from) = options.from {
            share(&socket)?;
            socket.bind(&from.into())?;
        }
        match socket.connect(&addr.into()) {
            Ok(()) => {}
            Err(e) if is_under_way(&e) => {}
            Err(e) => return Err(e),
        }
        let stream = reactor.watch(std::net::TcpStream::from(socket))?;
        poll_fn(|cx| stream.poll_writable(cx)).await?;
        match stream.socket().take_error()? {
            Some(e) => Err(e),
            None => Ok(Box::new(Stream::new(stream)) as _),
        }
    }
    .boxed()
}

fn is_under_way(e: &io::Error) -> bool {
    let in_progress = e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error());
    in_progress || e.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::watched::AsyncIo;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_closed_half_is_told_and_the_other_half_still_reads() {
        async_io::block_on(async {
            let listener = bind(AsyncIo, LOOPBACK, TcpOptions::default()).unwrap();
            let mut near = connect(AsyncIo, listener.local_addr(), TcpOptions::default()).await.unwrap();
            let (mut far, _) = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
            near.close().await.unwrap();
            assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
            far.write_all(b"still").await.unwrap();
            let mut buf = [0; 5];
            near.read_exact(&mut buf).await.unwrap();
            assert_eq!(&buf, b"still");
        });
    }

    #[test]
    fn a_connection_leaves_from_a_shared_listeners_port_and_only_once_to_one_place() {
        async_io::block_on(async {
            let shared = TcpOptions { share: true, ..TcpOptions::default() };
            let (own, there) =
                (bind(AsyncIo, LOOPBACK, shared).unwrap(), bind(AsyncIo, LOOPBACK, shared).unwrap());
            let from = TcpOptions { from: Some(own.local_addr()), ..TcpOptions::default() };
            let _near = connect(AsyncIo, there.local_addr(), from).await.unwrap();
            let (_far, remote) = poll_fn(|cx| there.poll_accept(cx)).await.unwrap();
            assert_eq!(remote, own.local_addr());
            let again = connect(AsyncIo, there.local_addr(), from).await.unwrap_err().kind();
            assert!(matches!(again, io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse), "{again}");
        });
    }

    #[test]
    fn a_port_that_is_shared_with_dials_is_not_shared_with_another_listener() {
        let shared = TcpOptions { share: true, ..TcpOptions::default() };
        let taken = bind(AsyncIo, LOOPBACK, shared).unwrap();
        let second = bind(AsyncIo, taken.local_addr(), shared).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        let addr = taken.local_addr();
        drop(taken);
        bind(AsyncIo, addr, shared).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn both_ends_of_a_connection_are_kept_alive_and_send_at_once() {
        async_io::block_on(async {
            let after = std::time::Duration::from_secs(7);
            let keep_alive = Some(KeepAlive { after, lost_after: 3 * after });
            let options = TcpOptions { keep_alive, ..TcpOptions::default() };
            let inner = socket(LOOPBACK).unwrap();
            tune(SockRef::from(&inner), keep_alive).unwrap();
            assert!(inner.keepalive().unwrap() && inner.tcp_nodelay().unwrap());
            assert_eq!(inner.tcp_keepalive_time().unwrap(), after);
            assert_eq!(inner.tcp_user_timeout().unwrap(), Some(3 * after));
            let listener = bind(AsyncIo, LOOPBACK, options).unwrap();
            let _near = connect(AsyncIo, listener.local_addr(), options).await.unwrap();
            poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        });
    }
}
