//! Timers, TCP and blocking files as async-io has them, shared by the real runtimes.
//!
//! smol and async-std both sit on async-io's reactor; what differs between them is who runs the
//! tasks. This file never spawns anything.

use std::{
    future::Future,
    io,
    net::{Shutdown, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use async_io::Async;
use futures::{
    future::{BoxFuture, FutureExt},
    io::{AsyncRead, AsyncWrite},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{TcpListener, TcpStream, Timer};

/// A timer on async-io's reactor.
///
/// Moving the alarm later costs nothing: the reactor is told only when the old alarm has rung
/// (connections push their idle deadline back with every packet).
#[derive(Debug)]
pub(super) struct ReactorTimer {
    inner: async_io::Timer,
    /// When `inner` rings, if it is set.
    armed: Option<Instant>,
    /// When the owner wants to be woken.
    wanted: Option<Instant>,
}

impl ReactorTimer {
    pub(super) fn boxed() -> Box<dyn Timer> {
        Box::new(Self { inner: async_io::Timer::never(), armed: None, wanted: None })
    }
}

impl Timer for ReactorTimer {
    fn set(&mut self, at: Option<Instant>) {
        self.wanted = at;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(wanted) = self.wanted else {
            return Poll::Pending;
        };
        loop {
            if self.armed.is_none_or(|armed| armed > wanted) {
                self.inner.set_at(wanted);
                self.armed = Some(wanted);
            }
            ready!(Pin::new(&mut self.inner).poll(cx));
            let rang = self.armed.take();
            if rang.is_some_and(|rang| rang >= wanted) || Instant::now() >= wanted {
                self.wanted = None;
                return Poll::Ready(());
            }
        }
    }
}

fn tcp_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[derive(Debug)]
struct ReactorTcpStream(Async<std::net::TcpStream>);

impl TcpStream for ReactorTcpStream {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().peer_addr()
    }
}

impl AsyncRead for ReactorTcpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ReactorTcpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    /// Tells the other side that nothing more will be written; reading goes on.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.get_ref().shutdown(Shutdown::Write))
    }
}

#[derive(Debug)]
struct ReactorTcpListener {
    inner: Async<std::net::TcpListener>,
    local: SocketAddr,
}

impl TcpListener for ReactorTcpListener {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn TcpStream>, SocketAddr)>> {
        loop {
            match self.inner.get_ref().accept() {
                Ok((stream, remote)) => {
                    let stream = Async::new(stream).and_then(|stream| {
                        stream.get_ref().set_nodelay(true)?;
                        Ok(stream)
                    });
                    return Poll::Ready(stream.map(|s| (Box::new(ReactorTcpStream(s)) as _, remote)));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.inner.poll_readable(cx))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

pub(super) fn bind_tcp(addr: SocketAddr) -> io::Result<Box<dyn TcpListener>> {
    let socket = tcp_socket(addr)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    let inner = Async::new(std::net::TcpListener::from(socket))?;
    let local = inner.get_ref().local_addr()?;
    Ok(Box::new(ReactorTcpListener { inner, local }))
}

pub(super) fn connect_tcp(addr: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
    async move {
        let stream = Async::<std::net::TcpStream>::connect(addr).await?;
        stream.get_ref().set_nodelay(true)?;
        Ok(Box::new(ReactorTcpStream(stream)) as _)
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_closed_half_is_told_and_the_other_half_still_reads() {
        use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};
        async_io::block_on(async {
            let listener = bind_tcp(([127, 0, 0, 1], 0).into()).unwrap();
            let mut near = connect_tcp(listener.local_addr()).await.unwrap();
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
    fn a_timer_moved_later_rings_once_and_not_before() {
        async_io::block_on(async {
            let start = Instant::now();
            let mut timer = ReactorTimer::boxed();
            timer.set(Some(start + Duration::from_millis(5)));
            futures::future::poll_fn(|cx| {
                // Armed at 5 ms, then pushed back to 30 ms.
                let polled = timer.poll(cx);
                timer.set(Some(start + Duration::from_millis(30)));
                assert!(polled.is_pending());
                Poll::Ready(())
            })
            .await;
            futures::future::poll_fn(|cx| timer.poll(cx)).await;
            assert!(start.elapsed() >= Duration::from_millis(30));
            futures::future::poll_fn(|cx| {
                assert!(timer.poll(cx).is_pending(), "an alarm that rang is off");
                Poll::Ready(())
            })
            .await;
        });
    }

    #[test]
    fn a_timer_switched_off_stays_silent_and_can_be_set_again() {
        async_io::block_on(async {
            let mut timer = ReactorTimer::boxed();
            timer.set(Some(Instant::now()));
            timer.set(None);
            futures::future::poll_fn(|cx| {
                assert!(timer.poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            timer.set(Some(Instant::now()));
            futures::future::poll_fn(|cx| timer.poll(cx)).await;
        });
    }
}
