//! hickory's traits for sockets, timers and tasks, on the runtime door.
//!
//! hickory's clock has no `self`, so the runtime cannot be handed to it: [`Scoped`] makes it
//! known for as long as one of hickory's futures is being polled.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{
    future::{BoxFuture, FutureExt},
    io::{AsyncRead, AsyncWrite},
};
use hickory_resolver::net::runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, Time};

use super::trace::{Replay, Trace};
use crate::runtime::{ByteStream, Handle, RecvMeta, TcpOptions, Transmit, UdpOptions, UdpSocket};

/// The largest datagram there is.
const MAX_DATAGRAM: usize = u16::MAX as usize;

thread_local! {
    static CURRENT: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// A future of hickory's, polled with the runtime known to [`Clock`].
pub(super) struct Scoped<F: Future> {
    runtime: Handle,
    inner: Pin<Box<F>>,
}

impl<F: Future> Scoped<F> {
    pub(super) fn new(runtime: Handle, inner: F) -> Self {
        Self { runtime, inner: Box::pin(inner) }
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        /// Puts back what was there, also when the poll unwinds.
        struct Restore(Option<Handle>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _restore = Restore(CURRENT.replace(Some(self.runtime.clone())));
        self.inner.as_mut().poll(cx)
    }
}

/// hickory's clock: that of the runtime whose [`Scoped`] future is being polled.
#[derive(Debug)]
pub(super) struct Clock;

impl Clock {
    fn runtime() -> Option<Handle> {
        let runtime = CURRENT.with_borrow(Clone::clone);
        debug_assert!(runtime.is_some(), "hickory's futures are only polled inside Scoped");
        runtime
    }
}

// hickory declares these methods with `async_trait`; written out, they need no macro.
impl Time for Clock {
    fn delay_for<'a>(duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>
    where
        Self: 'a,
    {
        match Self::runtime() {
            Some(runtime) => runtime.sleep(duration).boxed(),
            None => futures::future::ready(()).boxed(),
        }
    }

    fn timeout<'a, F>(
        duration: Duration,
        future: F,
    ) -> Pin<Box<dyn Future<Output = io::Result<F::Output>> + Send + 'a>>
    where
        F: 'static + Future + Send + 'a,
        Self: 'a,
    {
        let runtime = Self::runtime();
        async move {
            let late = |e: crate::runtime::Elapsed| io::Error::new(io::ErrorKind::TimedOut, e);
            match runtime {
                Some(runtime) => runtime.timeout(duration, Box::pin(future)).await.map_err(late),
                None => Err(late(crate::runtime::Elapsed(duration))),
            }
        }
        .boxed()
    }
}

/// The runtime door for questions to one server.
#[derive(Clone, Debug)]
pub(super) struct Door {
    runtime: Handle,
    /// hickory forgets the interface of a link-local server: packets go to this address.
    server: SocketAddr,
    trace: Trace,
}

impl Door {
    pub(super) fn new(runtime: Handle, server: SocketAddr) -> Self {
        Self { runtime, server, trace: Trace::default() }
    }

    pub(super) fn trace(&self) -> Trace {
        self.trace.clone()
    }
}

impl Spawn for Door {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(Scoped::new(self.runtime.clone(), future));
    }
}

impl RuntimeProvider for Door {
    type Handle = Self;
    type Timer = Clock;
    type Udp = Udp;
    type Tcp = Tcp;

    fn create_handle(&self) -> Self {
        self.clone()
    }

    fn connect_tcp(
        &self,
        _server: SocketAddr,
        _local: Option<SocketAddr>,
        limit: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Tcp>>>> {
        let Self { runtime, server, trace } = self.clone();
        async move {
            if let Some(answer) = trace.take_long() {
                return Ok(Tcp { stream: Mutex::new(Box::new(Replay::new(&answer))), trace });
            }
            let limit = limit.unwrap_or(Duration::from_secs(5));
            match runtime.timeout(limit, runtime.connect_tcp(server, TcpOptions::default())).await {
                Ok(Ok(stream)) => Ok(Tcp { stream: Mutex::new(Box::new(stream)), trace }),
                Ok(Err(e)) => {
                    trace.trouble(format!("{TOO_LONG}: {e}"));
                    Err(e)
                }
                Err(late) => {
                    trace.trouble(format!("{TOO_LONG} nobody answers within {limit:?}"));
                    Err(io::Error::new(io::ErrorKind::TimedOut, late))
                }
            }
        }
        .boxed()
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        _server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Udp>>>> {
        let socket = self.runtime.bind_udp(local, UdpOptions::default());
        let Self { server, trace, .. } = self.clone();
        async move {
            let socket = socket.inspect_err(|e| trace.trouble(e.to_string()))?;
            Ok(Udp { socket, server, trace, writable: Mutex::default(), inbox: Mutex::default() })
        }
        .boxed()
    }
}

/// A UDP socket for one exchange with one server.
pub(super) struct Udp {
    socket: Arc<dyn UdpSocket>,
    server: SocketAddr,
    trace: Trace,
    /// Set while the kernel's queue is full.
    writable: Mutex<Option<BoxFuture<'static, io::Result<()>>>>,
    inbox: Mutex<Inbox>,
}

/// Where datagrams are received: hickory's own buffer would cut those that are longer than it asked for.
#[derive(Default)]
struct Inbox {
    buf: Vec<u8>,
    /// Datagrams that were not handed on yet: the kernel may coalesce several.
    datagrams: VecDeque<(Vec<u8>, SocketAddr)>,
}

impl DnsUdpSocket for Udp {
    type Time = Clock;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let Inbox { buf: all, datagrams } = &mut *inbox;
        loop {
            while let Some((datagram, source)) = datagrams.pop_front() {
                let expected = source.ip().to_canonical() == self.server.ip().to_canonical()
                    && source.port() == self.server.port();
                let handed_on =
                    if expected { self.trace.answer(&datagram, buf.len()) } else { Some(datagram) };
                // One from elsewhere is hickory's to refuse.
                if let Some(datagram) = handed_on {
                    let len = datagram.len().min(buf.len());
                    buf[..len].copy_from_slice(&datagram[..len]);
                    return Poll::Ready(Ok((len, source)));
                }
            }
            all.resize(MAX_DATAGRAM, 0);
            let mut meta = [RecvMeta::default()];
            match self.socket.poll_recv(cx, &mut [IoSliceMut::new(all)], &mut meta) {
                Poll::Ready(received) => received?,
                Poll::Pending => {
                    // Nothing listens there, says the server's own host: no need to wait.
                    while let Some(report) = self.socket.take_error() {
                        if report.addr.is_some_and(|addr| addr.ip() == self.server.ip()) {
                            let error = io::Error::from_raw_os_error(report.raw_errno);
                            self.trace.trouble(error.to_string());
                            return Poll::Ready(Err(error));
                        }
                    }
                    return Poll::Pending;
                }
            };
            let [meta] = meta;
            let received = &all[..meta.len.min(MAX_DATAGRAM)];
            let stride = if meta.stride == 0 { MAX_DATAGRAM } else { meta.stride };
            datagrams.extend(received.chunks(stride).map(|datagram| (datagram.to_vec(), meta.addr)));
        }
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], _target: SocketAddr) -> Poll<io::Result<usize>> {
        self.trace.question(buf);
        let transmit =
            Transmit { destination: self.server, ecn: None, contents: buf, segment_size: None, src_ip: None };
        let mut writable = self.writable.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(wait) = writable.as_mut() {
                let ready = ready!(wait.as_mut().poll(cx));
                *writable = None;
                ready?;
            }
            match self.socket.try_send(&transmit) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    *writable = Some(self.socket.clone().writable());
                }
                Err(e) => {
                    self.trace.trouble(e.to_string());
                    return Poll::Ready(Err(e));
                }
                Ok(()) => return Poll::Ready(Ok(buf.len())),
            }
        }
    }
}

/// Why TCP is tried at all.
const TOO_LONG: &str = "the answer does not fit into a datagram, and over TCP";

/// A TCP connection. hickory asks for `Sync`, which the lock gives; it is never contended.
pub(super) struct Tcp {
    stream: Mutex<Box<dyn ByteStream>>,
    trace: Trace,
}

impl Tcp {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut Box<dyn ByteStream>> {
        Pin::new(self.get_mut().stream.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// A server that closes its side may be noticed by the next read or by the next write, as it happens.
    fn noted<T>(&self, result: io::Result<T>) -> Poll<io::Result<T>> {
        Poll::Ready(result.inspect_err(|e| self.trace.trouble(format!("{TOO_LONG}: {e}"))))
    }
}

impl DnsTcpStream for Tcp {
    type Time = Clock;
}

impl AsyncRead for Tcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(self.as_mut().stream().poll_read(cx, buf));
        if matches!(read, Ok(0)) {
            self.trace.trouble(format!("{TOO_LONG} the connection was closed"));
        }
        self.noted(read)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = ready!(self.as_mut().stream().poll_write(cx, buf));
        self.noted(wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(self.as_mut().stream().poll_flush(cx));
        self.noted(flushed)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A connection that the server has closed.
    struct Closed;

    impl AsyncRead for Closed {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(0))
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_closed_connection_is_noted_whether_a_read_or_a_write_finds_it() {
        let trace = Trace::default();
        let mut tcp = Tcp { stream: Mutex::new(Box::new(Closed)), trace: trace.clone() };
        futures::executor::block_on(async {
            assert!(tcp.write(b"question").await.is_err());
            assert!(trace.take_trouble().unwrap().starts_with(TOO_LONG));
            assert!(tcp.flush().await.is_err());
            assert!(trace.take_trouble().unwrap().starts_with(TOO_LONG));
            assert_eq!(tcp.read(&mut [0]).await.unwrap(), 0);
            assert!(trace.take_trouble().unwrap().starts_with(TOO_LONG));
        });
    }
}
