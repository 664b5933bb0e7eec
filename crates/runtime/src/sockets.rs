//! What a door opens: UDP and TCP sockets, Unix sockets, and how each is asked for. Traits and values alone; `udp.rs`,
//! `tcp.rs`, `unix.rs` and the simulated world implement them.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    future::{BoxFuture, poll_fn},
    io::{AsyncRead, AsyncWrite},
};
use quinn_udp::{RecvMeta, Transmit, TransportError};

/// A pipe, a terminal, or another descriptor that others may share, and that is watched without a change to it.
pub trait Readable: fmt::Debug + Send {
    /// Ready when more has arrived than there was before the last time, or the other side is gone: the descriptor is worth
    /// a look. Whether a read would block, only the kernel can say.
    ///
    /// # Errors
    /// It cannot be watched any more.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// How a UDP socket is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpOptions {
    /// `SO_SNDBUF` in bytes to ask for; `None` leaves the system's default.
    pub send_buffer: Option<usize>,
    /// `SO_RCVBUF` in bytes to ask for; `None` leaves the system's default.
    pub recv_buffer: Option<usize>,
    /// Share the address with other sockets that ask for the same (`SO_REUSEADDR`), as multicast needs.
    pub reuse: bool,
}

/// A UDP socket with what QUIC wants of one: ECN, segmentation offload, destination addresses.
pub trait UdpSocket: fmt::Debug + Send + Sync + 'static {
    /// The address the socket is bound to.
    fn local_addr(&self) -> SocketAddr;

    /// Sends one transmit, up to [`max_transmit_segments`](Self::max_transmit_segments) datagrams in one call.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when the kernel's queue is full: wait for
    /// [`writable`](Self::writable). Anything else is the fate of this transmit only.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()>;

    /// Receives up to `bufs.len()` buffers, each holding one or more datagrams ([`RecvMeta::stride`]).
    /// Only the task that polled last is woken.
    ///
    /// # Errors
    /// The socket is broken; errors that belong to one remote come from
    /// [`take_error`](Self::take_error) instead.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>>;

    /// Ready when sending is worth another try. Any number of tasks may wait.
    fn writable(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>>;

    /// One report, if there is one, that a remote could not be reached (ICMP). Its address is
    /// that of the host that reported, with port 0: a hint, never proof.
    fn take_error(&self) -> Option<TransportError> {
        None
    }

    /// Whether sending or receiving has met such a report since [`take_error`](Self::take_error) last
    /// found none: asking costs a system call.
    fn may_have_errors(&self) -> bool {
        true
    }

    /// Datagrams that one [`Transmit`] may carry (GSO); 1 without kernel support.
    fn max_transmit_segments(&self) -> usize {
        1
    }

    /// Datagrams that one receive buffer may hold (GRO); 1 without kernel support.
    fn max_receive_segments(&self) -> usize {
        1
    }

    /// Whether the network layer may fragment what is sent, so that the path MTU cannot be probed.
    fn may_fragment(&self) -> bool {
        true
    }

    /// `(SO_SNDBUF, SO_RCVBUF)` in bytes as the kernel granted them, if it tells.
    fn buffer_sizes(&self) -> Option<(usize, usize)> {
        None
    }
}

/// How a TCP socket is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Whether connections may leave from the address that a listener is bound to (`SO_REUSEPORT`).
    /// Another listener may not be there all the same.
    pub share: bool,
    /// Connections that wait for a listener to accept them; the system turns more away.
    pub backlog: u32,
    /// Where a connection leaves from: a listener's address that is shared. `None`: a port of its own.
    pub from: Option<SocketAddr>,
    /// How a connection that is silent is treated; `None` waits for ever.
    pub keep_alive: Option<KeepAlive>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { share: false, backlog: 1024, from: None, keep_alive: None }
    }
}

/// How the operating system detects that the other end of a TCP connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// A silent connection is probed after this, and again each time it passes; whole seconds.
    pub after: Duration,
    /// The connection is lost when nothing was acknowledged for this long. Linux only: elsewhere the
    /// system's own number of probes decides.
    pub lost_after: Duration,
}

/// A TCP connection.
pub trait TcpStream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static {
    /// The address of the other side.
    ///
    /// # Errors
    /// When the connection is gone.
    fn peer_addr(&self) -> io::Result<SocketAddr>;

    /// The address of this side.
    ///
    /// # Errors
    /// When the connection is gone.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A TCP socket that accepts connections.
pub trait TcpListener: fmt::Debug + Send + Sync + 'static {
    /// The address the listener is bound to.
    fn local_addr(&self) -> SocketAddr;

    /// The next connection. Only the task that polled last is woken.
    ///
    /// # Errors
    /// Errors of one connection (aborted) or of the host (out of descriptors): the listener lives on.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn TcpStream>, SocketAddr)>>;
}

/// Bytes in both directions, whatever carries them.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// A Unix socket that accepts connections.
pub trait UnixListener: fmt::Debug + Send + Sync + 'static {
    /// The next connection. Only the task that polled last is woken.
    ///
    /// # Errors
    /// As [`TcpListener::poll_accept`].
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn ByteStream>>>;
}

/// A listener of byte streams, for programs to which it is the same where callers come from.
#[derive(Debug)]
pub enum Listener {
    /// On a TCP address.
    Tcp(Box<dyn TcpListener>),
    /// On a Unix socket.
    Unix(Box<dyn UnixListener>),
}

impl Listener {
    /// The next connection.
    ///
    /// # Errors
    /// As [`TcpListener::poll_accept`].
    pub async fn accept(&self) -> io::Result<Box<dyn ByteStream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = poll_fn(|cx| listener.poll_accept(cx)).await?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener) => poll_fn(|cx| listener.poll_accept(cx)).await,
        }
    }
}
