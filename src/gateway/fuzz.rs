//! Requests to the API of a running node.

#![allow(clippy::unwrap_used, reason = "a broken promise is a panic")]

use std::{
    io,
    pin::Pin,
    sync::{Arc, LazyLock, mpsc},
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use futures::io::{AsyncRead, AsyncWrite, Cursor};

use super::{connection, context::Context};
use crate::{Config, Node, config::ApiListen, identity::Identity, runtime::Executor};

/// How long an answer is waited for: a publish may wait for peers, of which there are none.
const PATIENCE: Duration = Duration::from_millis(20);
/// Callers that may wait simultaneously.
const WAITING: usize = 4096;

/// A node without peers, and its API.
static NODE: LazyLock<Arc<Context>> = LazyLock::new(|| {
    let mut config = Config::default();
    config.listen.addresses = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
    config.api.listen = ApiListen::Tcp("127.0.0.1:4080".parse().unwrap());
    config.api.connections = WAITING;
    let runtime = Executor::default().start(1).unwrap();
    let client = Node::new(config.clone(), Identity::ephemeral().keypair().clone()).spawn(&runtime).unwrap();
    Arc::new(Context::new(client, &config, runtime, None, None))
});

/// A caller that says something, hangs up, and counts the bytes of the answer.
struct Caller {
    says: Cursor<Vec<u8>>,
    answered: usize,
    /// Dropped with the connection.
    _gone: mpsc::Sender<()>,
}

impl AsyncRead for Caller {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.says).poll_read(cx, buf)
    }
}

impl AsyncWrite for Caller {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.answered == 0 {
            assert!(buf.starts_with(b"HTTP/1.1 "), "{:?}", String::from_utf8_lossy(buf));
        }
        self.answered += buf.len();
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a caller sends until it hangs up. It is answered as HTTP, if at all, and the node lives on.
pub fn requests(bytes: &[u8]) {
    let (gone, ended) = mpsc::channel();
    let caller = Caller { says: Cursor::new(bytes.to_vec()), answered: 0, _gone: gone };
    connection::start(&NODE, Box::new(caller));
    let _ = ended.recv_timeout(PATIENCE);
    futures::executor::block_on(NODE.client.status()).expect("the node lives on");
}
