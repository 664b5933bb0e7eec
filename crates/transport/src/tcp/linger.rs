//! A socket that is closed without losing what was written to it.
//!
//! The system answers whatever still arrives at a closed socket with a reset, and drops what it has not
//! sent yet (RFC 1122, section 4.2.2.13). Yamux sends credit for all that is read,
//! so that something nearly always arrives. A close therefore ends our half, and takes what comes, unread,
//! until the remote has ended its half, too, or has had [`LINGER`] to do so.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{
    FutureExt,
    io::{AsyncRead, AsyncWrite},
};
use smidge_runtime::{Handle, Sleep};

/// How long a close waits for the remote to end its half.
const LINGER: Duration = Duration::from_secs(2);
/// Reads of what nobody wants before others get their turn.
const AT_ONCE: usize = 16;

/// A byte stream whose close waits for the remote's.
#[derive(Debug)]
pub(super) struct Lingering<S> {
    inner: S,
    runtime: Handle,
    closing: Closing,
}

#[derive(Debug)]
enum Closing {
    Open,
    /// Our half has ended; how long the other one may last.
    Half(Sleep),
    Closed,
}

impl<S> Lingering<S> {
    pub(super) fn new(inner: S, runtime: Handle) -> Self {
        Self { inner, runtime, closing: Closing::Open }
    }
}

impl<S: AsyncRead + Unpin> Lingering<S> {
    /// Ready when the remote has ended its half.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut unread = [0; 2048];
        for _ in 0..AT_ONCE {
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut unread)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
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
        loop {
            match &mut self.closing {
                Closing::Open => {
                    ready!(Pin::new(&mut self.inner).poll_close(cx))?;
                    self.closing = Closing::Half(self.runtime.sleep(LINGER));
                }
                Closing::Half(limit) => {
                    if limit.poll_unpin(cx).is_pending() {
                        ready!(self.poll_end(cx));
                    }
                    self.closing = Closing::Closed;
                }
                Closing::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};

    use super::*;
    use smidge_runtime::{Executor, TcpOptions, TcpStream};

    async fn pair(rt: &Handle) -> [Box<dyn TcpStream>; 2] {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let listener = rt.bind_tcp(any, TcpOptions::default()).unwrap();
        let near = rt.connect_tcp(listener.local_addr(), TcpOptions::default()).await.unwrap();
        [near, poll_fn(|cx| listener.poll_accept(cx)).await.unwrap().0]
    }

    #[test]
    fn everything_written_before_a_close_arrives_although_the_remote_goes_on_talking() {
        // More than the system's buffers take: a reset would cut the rest off.
        const BYTES: usize = 16 << 20;
        let arrived = Executor::default().block_on(2, |rt| async move {
            let [near, mut far] = pair(&rt).await;
            let mut near = Lingering::new(near, rt.clone());
            let send = async move {
                near.write_all(&vec![7; BYTES]).await.unwrap();
                near.close().await.unwrap();
            };
            let receive = async {
                let (mut buf, mut got) = (vec![0; 64 << 10], 0);
                loop {
                    match far.read(&mut buf).await.unwrap() {
                        0 => break got,
                        n => got += n,
                    }
                    far.write_all(b"go on").await.unwrap();
                }
            };
            futures::join!(send, receive).1
        });
        assert_eq!(arrived.unwrap(), BYTES);
    }

    #[test]
    fn a_remote_that_never_ends_its_half_is_left_when_its_time_is_over() {
        let closed = Executor::default().block_on(1, |rt| async move {
            let [near, mut far] = pair(&rt).await;
            let mut near = Lingering::new(near, rt.clone());
            far.write_all(b"and another thing").await.unwrap();
            let closed = rt.timeout(10 * LINGER, near.close()).await;
            closed.expect("the close does not wait for ever").unwrap();
            assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
            near.close().await.unwrap();
        });
        closed.unwrap();
    }
}
