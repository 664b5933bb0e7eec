//! libp2p's `StreamMuxer` on Yamux. libp2p-yamux is not used because it keeps Yamux's own bound for what
//! a connection may hold, 1 GiB, to itself.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use futures::io::{AsyncRead, AsyncWrite};
use libp2p::{
    core::muxing::{StreamMuxer, StreamMuxerEvent},
    noise,
};
use multistream_select::Negotiated;
use smidge_runtime::TcpStream;

use super::{Error, linger::Lingering, transcript::Transcribed};
use crate::admission::ChannelBinding;

type Secured = Negotiated<noise::Output<Transcribed<Negotiated<Lingering<Box<dyn TcpStream>>>>>>;

/// Who waits for what. Yamux knows one task, and wakes only that; here any of them may be the one whose poll
/// moves the connection on.
#[derive(Debug, Default)]
struct Waiting {
    wakers: Mutex<[Option<Waker>; 3]>,
    /// Streams that exist.
    open: AtomicUsize,
}

/// What somebody waits for.
#[derive(Clone, Copy)]
enum For {
    Progress,
    Inbound,
    Outbound,
}

impl Waiting {
    fn register(&self, what: For, cx: &Context<'_>) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut wakers[what as usize] {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner).each_mut().map(Option::take);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// Counts a stream for as long as it exists.
#[derive(Debug)]
struct Counted(Arc<Waiting>);

impl Counted {
    fn new(waiting: &Arc<Waiting>) -> Self {
        waiting.open.fetch_add(1, Ordering::SeqCst);
        Self(waiting.clone())
    }
}

impl Drop for Counted {
    /// Yamux has woken the connection already; a reader that looked before this counted one too many.
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.wake_by_ref();
    }
}

/// A TCP connection that is authenticated, encrypted and multiplexed.
pub struct Connection {
    yamux: yamux::Connection<Secured>,
    remote: SocketAddr,
    /// Opened by the remote, and not taken yet. Each counts among Yamux's streams, so that they are
    /// bounded with them.
    incoming: VecDeque<Stream>,
    waiting: Arc<Waiting>,
    max_streams: usize,
    session: Session,
}

/// What the handshake has shown of this very session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) binding: Option<[u8; 32]>,
    pub(super) is_initiator: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(
        yamux: yamux::Connection<Secured>,
        session: Session,
        remote: SocketAddr,
        max_streams: usize,
    ) -> Self {
        Self { yamux, remote, incoming: VecDeque::new(), waiting: Arc::default(), max_streams, session }
    }

    fn lost(&self, source: yamux::ConnectionError) -> Error {
        Error::Lost { remote: self.remote, source }
    }

    /// Moves the connection on until it opens a stream, waits or ends. Whoever asks is woken when there is
    /// more to do.
    fn drive(&mut self, what: For, cx: &Context<'_>) -> Poll<Result<Stream, Error>> {
        self.waiting.register(what, cx);
        let waker = Waker::from(self.waiting.clone());
        match ready!(self.yamux.poll_next_inbound(&mut Context::from_waker(&waker))) {
            Some(Ok(inner)) => Poll::Ready(Ok(self.counted(inner))),
            Some(Err(error)) => Poll::Ready(Err(self.lost(error))),
            None => Poll::Ready(Err(self.lost(yamux::ConnectionError::Closed))),
        }
    }

    fn keep(&mut self, stream: Stream) {
        self.incoming.push_back(stream);
        // Somebody may wait for it, and there may be more.
        self.waiting.wake_by_ref();
    }

    fn counted(&self, inner: yamux::Stream) -> Stream {
        Stream { inner, _counted: Counted::new(&self.waiting) }
    }

    fn open_streams(&self) -> usize {
        self.waiting.open.load(Ordering::SeqCst)
    }
}

impl ChannelBinding for Connection {
    fn binding(&self) -> Option<[u8; 32]> {
        self.session.binding
    }

    fn is_initiator(&self) -> bool {
        self.session.is_initiator
    }
}

impl StreamMuxer for Connection {
    type Substream = Stream;
    type Error = Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        if let Some(stream) = self.incoming.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        self.drive(For::Inbound, cx)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        // Streams that were dropped meanwhile make room.
        if let Poll::Ready(stream) = self.drive(For::Outbound, cx) {
            self.keep(stream?);
            cx.waker().wake_by_ref();
        }
        // Yamux would end the connection over one too many. A stream that is gone wakes this task.
        if self.open_streams() >= self.max_streams {
            return Poll::Pending;
        }
        let waker = Waker::from(self.waiting.clone());
        match ready!(self.yamux.poll_new_outbound(&mut Context::from_waker(&waker))) {
            Ok(inner) => Poll::Ready(Ok(self.counted(inner))),
            Err(error) => Poll::Ready(Err(self.lost(error))),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.incoming.clear();
        let closed = ready!(self.yamux.poll_close(cx));
        Poll::Ready(closed.map_err(|error| self.lost(error)))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Error>> {
        let stream = ready!(self.drive(For::Progress, cx))?;
        // More may have arrived: after the others have had their turn.
        self.waiting.register(For::Progress, cx);
        self.keep(stream);
        Poll::Pending
    }
}

/// A stream of a [`Connection`]. Dropped before it is closed, it is reset.
#[derive(Debug)]
pub struct Stream {
    inner: yamux::Stream,
    /// Dropped after it: fields go in this order.
    _counted: Counted,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_room_is_woken_when_there_is_room_already() {
        /// Notes how many streams there are when it is woken.
        struct Looks(Arc<Waiting>, Mutex<Vec<usize>>);
        impl Wake for Looks {
            fn wake(self: Arc<Self>) {
                self.1.lock().unwrap().push(self.0.open.load(Ordering::SeqCst));
            }
        }
        let waiting = Arc::<Waiting>::default();
        let looks = Arc::new(Looks(waiting.clone(), Mutex::default()));
        let waker = Waker::from(looks.clone());
        let streams = [Counted::new(&waiting), Counted::new(&waiting)];
        for stream in streams {
            waiting.register(For::Outbound, &Context::from_waker(&waker));
            drop(stream);
        }
        assert_eq!(*looks.1.lock().unwrap(), [1, 0]);
    }
}
