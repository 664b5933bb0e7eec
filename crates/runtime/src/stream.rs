//! Byte streams of the operating system, whatever their address family and whatever watches them.

use std::{
    io::{self, IoSlice, Read, Write},
    marker::PhantomData,
    net::{Shutdown, SocketAddr, TcpStream as StdTcp},
    os::unix::net::UnixStream as StdUnix,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::io::{AsyncRead, AsyncWrite};

use super::{
    TcpStream,
    watched::{Socket, Watched},
};

/// A connected socket, of which one half can be closed.
pub(super) trait Duplex: Socket {
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize>;

    fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Tells the other side that nothing more will be written.
    fn close_write(&self) -> io::Result<()>;
}

macro_rules! duplex {
    ($socket:ty) => {
        impl Duplex for $socket {
            fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
                Read::read(&mut &*self, buf)
            }

            fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                match bufs {
                    [one] => Write::write(&mut &*self, one),
                    _ => Write::write_vectored(&mut &*self, bufs),
                }
            }

            fn close_write(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }
        }
    };
}

duplex!(StdTcp);
duplex!(StdUnix);

/// A stream whose close ends writing only: reading goes on.
#[derive(Debug)]
pub(super) struct Stream<S, W> {
    watched: W,
    /// The last read took all that had arrived.
    drained: bool,
    socket: PhantomData<fn() -> S>,
}

impl<S: Duplex, W: Watched<S>> Stream<S, W> {
    pub(super) fn new(watched: W) -> Self {
        Self { watched, drained: false, socket: PhantomData }
    }

    fn poll_send(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            match self.watched.socket().send(bufs) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                result => return Poll::Ready(result),
            }
            ready!(self.watched.poll_writable(cx))?;
        }
    }
}

impl<S: Duplex, W: Watched<S>> AsyncRead for Stream<S, W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.drained {
            ready!(this.watched.poll_readable(cx))?;
            this.drained = false;
        }
        loop {
            this.watched.before_read();
            match this.watched.socket().receive(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                result => {
                    // Less than there was room for: to ask once more would be for nothing.
                    let all = result.as_ref().is_ok_and(|n| (1..buf.len()).contains(n));
                    this.drained = all && this.watched.tells_of_arrivals();
                    return Poll::Ready(result);
                }
            }
            ready!(this.watched.poll_readable(cx))?;
        }
    }
}

impl<S: Duplex, W: Watched<S>> AsyncWrite for Stream<S, W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.watched.socket().close_write())
    }
}

impl<W: Watched<StdTcp>> TcpStream for Stream<StdTcp, W> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.watched.socket().peer_addr()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.watched.socket().local_addr()
    }
}
