//! libp2p's `StreamMuxer` on Yamux. libp2p-yamux is not used because it keeps Yamux's own bound for what
//! a connection may hold, 1 GiB, to itself.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use futures::io::{AsyncRead, AsyncWrite};
use libp2p::{
    core::muxing::{StreamMuxer, StreamMuxerEvent},
    noise,
};
use multistream_select::Negotiated;

use super::Error;
use crate::runtime::TcpStream;

type Secured = Negotiated<noise::Output<Negotiated<Box<dyn TcpStream>>>>;

/// A TCP connection that is authenticated, encrypted and multiplexed.
pub struct Connection {
    yamux: yamux::Connection<Secured>,
    remote: SocketAddr,
    /// Opened by the remote, and not taken yet. Each counts among Yamux's streams, so that they are
    /// bounded with them.
    incoming: VecDeque<Stream>,
    /// Who waits for one of them.
    waker: Option<Waker>,
    /// Every stream holds a reference.
    open: Arc<()>,
    max_streams: usize,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(yamux: yamux::Connection<Secured>, remote: SocketAddr, max_streams: usize) -> Self {
        let open = Arc::new(());
        Self { yamux, remote, incoming: VecDeque::new(), waker: None, open, max_streams }
    }

    fn lost(&self, reason: yamux::ConnectionError) -> Error {
        Error::Lost { remote: self.remote, reason }
    }

    /// Moves the connection on until it opens a stream, waits or ends.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        match ready!(self.yamux.poll_next_inbound(cx)) {
            Some(Ok(inner)) => Poll::Ready(Ok(Stream { inner, _open: self.open.clone() })),
            Some(Err(reason)) => Poll::Ready(Err(self.lost(reason))),
            None => Poll::Ready(Err(self.lost(yamux::ConnectionError::Closed))),
        }
    }

    fn keep(&mut self, stream: Stream) {
        self.incoming.push_back(stream);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn open_streams(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }
}

impl StreamMuxer for Connection {
    type Substream = Stream;
    type Error = Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        if let Some(stream) = self.incoming.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let polled = self.drive(cx);
        if polled.is_pending() {
            self.waker = Some(cx.waker().clone());
        }
        polled
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        // Streams that were dropped meanwhile make room.
        if let Poll::Ready(stream) = self.drive(cx) {
            self.keep(stream?);
            cx.waker().wake_by_ref();
        }
        // Yamux would end the connection over one too many. A stream that goes wakes this task.
        if self.open_streams() >= self.max_streams {
            return Poll::Pending;
        }
        match ready!(self.yamux.poll_new_outbound(cx)) {
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
        let stream = ready!(self.drive(cx))?;
        self.keep(stream);
        // More may have arrived: after the others have had their turn.
        cx.waker().wake_by_ref();
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
