//! libp2p's `StreamMuxer` on Yamux. libp2p-yamux is not used because it keeps Yamux's own bound for what
//! a connection may hold, 1 GiB, to itself.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker, ready},
};

use futures::io::{AsyncRead, AsyncWrite};
use libp2p::{
    core::muxing::{StreamMuxer, StreamMuxerEvent},
    noise,
};
use multistream_select::Negotiated;

use super::{Error, linger::Lingering, transcript::Transcribed};
use crate::{runtime::TcpStream, transport::admission::ChannelBinding};

type Secured = Negotiated<noise::Output<Transcribed<Negotiated<Lingering<Box<dyn TcpStream>>>>>>;

/// Who waits for what. Yamux knows one task, and wakes only that; here any of them may be the one whose poll
/// moves the connection on.
#[derive(Default)]
struct Waiting(Mutex<[Option<Waker>; 3]>);

/// What somebody waits for.
#[derive(Clone, Copy)]
enum For {
    Progress,
    Inbound,
    Outbound,
}

impl Waiting {
    fn register(&self, what: For, cx: &Context<'_>) {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut wakers[what as usize] {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        let wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner).each_mut().map(Option::take);
        wakers.into_iter().flatten().for_each(Waker::wake);
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
    /// Every stream holds a reference.
    open: Arc<()>,
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
        let open = Arc::new(());
        Self { yamux, remote, incoming: VecDeque::new(), waiting: Arc::default(), open, max_streams, session }
    }

    fn lost(&self, reason: yamux::ConnectionError) -> Error {
        Error::Lost { remote: self.remote, reason }
    }

    /// Moves the connection on until it opens a stream, waits or ends. Whoever asks is woken when there is
    /// more to do.
    fn drive(&mut self, what: For, cx: &Context<'_>) -> Poll<Result<Stream, Error>> {
        self.waiting.register(what, cx);
        let waker = Waker::from(self.waiting.clone());
        match ready!(self.yamux.poll_next_inbound(&mut Context::from_waker(&waker))) {
            Some(Ok(inner)) => Poll::Ready(Ok(Stream { inner, _open: self.open.clone() })),
            Some(Err(reason)) => Poll::Ready(Err(self.lost(reason))),
            None => Poll::Ready(Err(self.lost(yamux::ConnectionError::Closed))),
        }
    }

    fn keep(&mut self, stream: Stream) {
        self.incoming.push_back(stream);
        // Somebody may wait for it, and there may be more.
        self.waiting.clone().wake();
    }

    fn open_streams(&self) -> usize {
        Arc::strong_count(&self.open) - 1
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
        // Yamux would end the connection over one too many. A stream that goes wakes this task.
        if self.open_streams() >= self.max_streams {
            return Poll::Pending;
        }
        let waker = Waker::from(self.waiting.clone());
        match ready!(self.yamux.poll_new_outbound(&mut Context::from_waker(&waker))) {
            Ok(inner) => Poll::Ready(Ok(Stream { inner, _open: self.open.clone() })),
            Err(reason) => Poll::Ready(Err(self.lost(reason))),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.incoming.clear();
        let closed = ready!(self.yamux.poll_close(cx));
        Poll::Ready(closed.map_err(|reason| self.lost(reason)))
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
    _open: Arc<()>,
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
