//! A bidirectional stream as libp2p uses it.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::io::{AsyncRead, AsyncWrite};
use quinn_proto::{FinishError, ReadError, StreamId, VarInt, WriteError};

use super::state::Shared;

/// A stream of a [`Connection`](super::Connection).
///
/// Closing it finishes the send half; dropping it does the same, as in libp2p's own QUIC transport:
/// what was written is still delivered (kad drops a stream right after its answer). An unread receive
/// half is stopped.
pub struct Stream {
    shared: Arc<Shared>,
    id: StreamId,
    read: Read,
    write: Write,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Open,
    Eof,
    Reset(VarInt),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Open,
    Finished,
    Stopped(VarInt),
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.id)
    }
}

impl Stream {
    /// Takes over a stream that [`State`](super::state::State) has counted as unfinished.
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self { shared, id, read: Read::Open, write: Write::Open }
    }
}

fn reset_error(code: VarInt) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, format!("the remote reset the stream with code {code}"))
}

fn stopped_error(code: VarInt) -> io::Error {
    io::Error::new(
        io::ErrorKind::BrokenPipe,
        format!("the remote stopped reading the stream with code {code}"),
    )
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.read {
            Read::Open => {}
            Read::Eof => return Poll::Ready(Ok(0)),
            Read::Reset(code) => return Poll::Ready(Err(reset_error(code))),
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut state = this.shared.lock();
        let mut recv = state.quic.recv_stream(this.id);
        let Ok(mut chunks) = recv.read(true) else {
            // Only `Drop` stops a stream, and its end is remembered: it cannot be unknown.
            this.read = Read::Eof;
            return Poll::Ready(Ok(0));
        };
        let mut filled = 0;
        let mut blocked = false;
        while filled < buf.len() {
            match chunks.next(buf.len() - filled) {
                Ok(Some(chunk)) => {
                    let end = filled + chunk.bytes.len();
                    buf[filled..end].copy_from_slice(&chunk.bytes);
                    filled = end;
                }
                Ok(None) => {
                    this.read = Read::Eof;
                    break;
                }
                Err(ReadError::Reset(code)) => {
                    this.read = Read::Reset(code);
                    break;
                }
                Err(ReadError::Blocked) => {
                    blocked = true;
                    break;
                }
            }
        }
        if chunks.finalize().should_transmit() {
            state.wake_driver(&this.shared.mailbox);
        }
        if filled > 0 {
            return Poll::Ready(Ok(filled));
        }
        match this.read {
            Read::Eof => Poll::Ready(Ok(0)),
            Read::Reset(code) => Poll::Ready(Err(reset_error(code))),
            Read::Open => {
                debug_assert!(blocked);
                // What had arrived before the connection was lost has been read by now.
                if let Some(error) = state.lost_error() {
                    return Poll::Ready(Err(error));
                }
                state.readers.insert(this.id, cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.write {
            Write::Open => {}
            Write::Finished => {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::NotConnected,
                    "the send half of the stream is closed",
                )));
            }
            Write::Stopped(code) => return Poll::Ready(Err(stopped_error(code))),
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut state = this.shared.lock();
        if let Some(error) = state.lost_error() {
            return Poll::Ready(Err(error));
        }
        match state.quic.send_stream(this.id).write(buf) {
            Ok(written) => {
                state.wake_driver(&this.shared.mailbox);
                Poll::Ready(Ok(written))
            }
            Err(WriteError::Blocked) => {
                state.writers.insert(this.id, cx.waker().clone());
                Poll::Pending
            }
            Err(WriteError::Stopped(code)) => {
                this.write = Write::Stopped(code);
                // Nothing more can be finished: give the stream back.
                let _ = state.quic.send_stream(this.id).reset(code);
                state.unfinished = state.unfinished.saturating_sub(1);
                state.wake_driver(&this.shared.mailbox);
                Poll::Ready(Err(stopped_error(code)))
            }
            Err(WriteError::ClosedStream) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::NotConnected, "the stream is closed")))
            }
        }
    }

    /// Nothing is held back here: what was written is on its way as soon as the connection is driven.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Finishes the send half without waiting for the remote, as libp2p's own QUIC transport does.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.write != Write::Open {
            return Poll::Ready(Ok(()));
        }
        let mut state = this.shared.lock();
        if let Some(error) = state.lost_error() {
            return Poll::Ready(Err(error));
        }
        this.write = match state.quic.send_stream(this.id).finish() {
            Ok(()) | Err(FinishError::ClosedStream) => Write::Finished,
            // The remote has all it wants.
            Err(FinishError::Stopped(code)) => {
                let _ = state.quic.send_stream(this.id).reset(code);
                Write::Stopped(code)
            }
        };
        state.unfinished = state.unfinished.saturating_sub(1);
        state.writers.remove(&this.id);
        state.wake_driver(&this.shared.mailbox);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.readers.remove(&self.id);
        state.writers.remove(&self.id);
        if state.lost.is_some() {
            return;
        }
        let zero = VarInt::from_u32(0);
        if self.write == Write::Open {
            let mut send = state.quic.send_stream(self.id);
            if let Err(FinishError::Stopped(code)) = send.finish() {
                let _ = send.reset(code);
            }
            state.unfinished = state.unfinished.saturating_sub(1);
        }
        // Fails only for a half that is over already.
        if self.read == Read::Open {
            let _ = state.quic.recv_stream(self.id).stop(zero);
        }
        state.wake_driver(&self.shared.mailbox);
    }
}
