//! Byte streams of the operating system on async-io's reactor, whatever their address family.

use std::{
    io::{self, IoSlice, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream as StdTcp},
    pin::Pin,
    task::{Context, Poll},
};

use async_io::{Async, IoSafe};
use futures::io::{AsyncRead, AsyncWrite};

use super::TcpStream;

/// A connected socket, of which one half can be closed.
pub(super) trait Duplex: Read + Write + IoSafe {
    /// Tells the other side that nothing more will be written.
    fn close_write(&self) -> io::Result<()>;
}

impl Duplex for StdTcp {
    fn close_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Duplex for std::os::unix::net::UnixStream {
    fn close_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// A stream whose close ends writing only: reading goes on.
#[derive(Debug)]
pub(super) struct ReactorStream<T>(pub(super) Async<T>);

impl<T: Duplex> AsyncRead for ReactorStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: Duplex> AsyncWrite for ReactorStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.get_ref().close_write())
    }
}

impl TcpStream for ReactorStream<StdTcp> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().peer_addr()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }
}
