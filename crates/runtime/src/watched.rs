//! What tells when a socket can be read or written again: async-io's reactor, or the poller of the smol runtime. TCP and Unix
//! sockets are written against this, and know neither.

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    task::{Context, Poll},
};

use async_io::Async;

use super::Readable;

/// What can be watched. It must not block.
pub(super) trait Socket: AsFd + fmt::Debug + Send + Sync + 'static {}

impl<T: AsFd + fmt::Debug + Send + Sync + 'static> Socket for T {}

/// A socket that is watched for as long as this lives. One task waits to read and one to write: those that asked last.
pub(super) trait Watched<S>: fmt::Debug + Send + Sync + Unpin + 'static {
    fn socket(&self) -> &S;

    /// A read is about to be tried: only what arrives from here on is news.
    fn before_read(&self) {}

    /// Whether everything that arrives after [`before_read`](Self::before_read), and the other side's end, makes
    /// [`poll_readable`](Self::poll_readable) ready, even if no read has failed meanwhile.
    fn tells_of_arrivals(&self) -> bool {
        false
    }

    /// Ready when a read is worth another try.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when a write is worth another try; of a socket that connects, when it has, or has failed to.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// What watches sockets.
pub(super) trait Reactor: Clone + fmt::Debug + Send + Sync + 'static {
    type Watched<S: Socket>: Watched<S>;

    /// Watches `socket` from now on.
    fn watch<S: Socket>(&self, socket: S) -> io::Result<Self::Watched<S>>;
}

/// What only watches.
#[derive(Debug)]
struct Descriptor<W>(W);

impl<W: Watched<OwnedFd>> Readable for Descriptor<W> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(cx)
    }
}

/// Watches a descriptor that this process shares with others.
pub(super) fn readable(reactor: &impl Reactor, descriptor: OwnedFd) -> io::Result<Box<dyn Readable>> {
    Ok(Box::new(Descriptor(reactor.watch(descriptor)?)))
}

/// async-io's, with a thread of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct AsyncIo;

impl Reactor for AsyncIo {
    type Watched<S: Socket> = Async<S>;

    fn watch<S: Socket>(&self, socket: S) -> io::Result<Async<S>> {
        Async::new_nonblocking(socket)
    }
}

impl<S: Socket> Watched<S> for Async<S> {
    fn socket(&self) -> &S {
        self.get_ref()
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_readable(self, cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_writable(self, cx)
    }
}
