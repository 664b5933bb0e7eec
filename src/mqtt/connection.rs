//! One client: its bytes to the broker, and the broker's to it.
//!
//! All that waits for a client is written in one go, and as much as there is is read: what MQTT costs is system calls. A
//! client that takes nothing for `mqtt.write_timeout` is let go.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt, task::AtomicWaker};
use smidge_mqtt::ConnectionId;

use super::{door::Door, shared::Shared};
use crate::runtime::{ByteStream, Sleep};

/// How long what a client still sends is taken in before its connection is closed: it would lose the last words otherwise.
const LINGER: Duration = Duration::from_secs(1);

/// Serves a client until one side closes.
pub(super) async fn serve(shared: Arc<Shared>, stream: Box<dyn ByteStream>, door: Arc<Door>) {
    let task = Arc::new(AtomicWaker::new());
    let Some(id) = shared.connect(&task) else { return };
    let Some(stream) = door.enter(&shared.runtime, stream).await else { return shared.closed(id) };
    drop(door);
    let mut connection =
        Connection { id, stream, task, out: Vec::new(), written: 0, ours: false, stall: None };
    // An error says that the client is gone, which `closed` says, too.
    let end = poll_fn(|cx| connection.poll(&shared, cx)).await;
    shared.closed(id);
    if let Ok(End::Ours) = end {
        let mut stream = connection.stream;
        let linger = async move {
            stream.close().await?;
            let mut rest = [0; 256];
            while stream.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = shared.runtime.timeout(LINGER, Box::pin(linger)).await;
    }
}

/// Who closes.
enum End {
    Ours,
    Theirs,
}

struct Connection {
    id: ConnectionId,
    stream: Box<dyn ByteStream>,
    task: Arc<AtomicWaker>,
    out: Vec<u8>,
    written: usize,
    /// Nothing comes behind `out`.
    ours: bool,
    /// Set while the client takes nothing.
    stall: Option<Sleep>,
}

impl Connection {
    fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<io::Result<End>> {
        self.task.register(cx.waker());
        match self.write(shared, cx) {
            Poll::Ready(Ok(())) if self.ours => return Poll::Ready(Ok(End::Ours)),
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        self.read(shared, cx)
    }

    /// Writes all that waits; pending while the client takes no more.
    fn write(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.out.len() && !self.ours {
                let output = shared.with(|state, now| state.broker.take(self.id, now));
                (self.out, self.written, self.ours) = (output.bytes, 0, output.close);
            }
            let mut stream = Pin::new(&mut self.stream);
            let ends = self.written == self.out.len();
            let written = if ends {
                // TLS holds what it could not write.
                stream.poll_flush(cx).map_ok(|()| 0)
            } else {
                stream.as_mut().poll_write(cx, &self.out[self.written..])
            };
            match written? {
                Poll::Ready(_) if ends => {
                    self.stall = None;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(n) => {
                    self.written += n;
                    self.stall = None;
                }
                Poll::Pending => {
                    let stall = self.stall.get_or_insert_with(|| shared.runtime.sleep(shared.write_timeout));
                    ready!(stall.poll_unpin(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }

    /// Reads what there is, once: others have their turn before there is more.
    fn read(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<io::Result<End>> {
        let now = shared.runtime.now();
        let mut state = shared.state();
        let state = &mut *state;
        let waits = state.broker.publishes(self.id) && state.mesh_is_full(&self.task);
        if waits || !state.broker.wants_more(self.id) {
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_read(cx, &mut state.buffer)? {
            Poll::Ready(0) => return Poll::Ready(Ok(End::Theirs)),
            Poll::Ready(n) => {
                state.broker.received(self.id, &state.buffer[..n], now);
                shared.act(state, now);
                cx.waker().wake_by_ref();
            }
            Poll::Pending => {}
        }
        Poll::Pending
    }
}
