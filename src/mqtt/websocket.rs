//! The server's side of WebSocket (RFC 6455) as MQTT uses it: a stream of bytes in binary frames (MQTT 5, section 6).
//!
//! Where frames begin and end means nothing to MQTT, so that none is ever held as a whole: what is read is unmasked where it
//! lies, and only the head of a frame and a control frame are remembered. No extension is offered.

mod frames;
mod upgrade;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

pub(super) use upgrade::{Pages, upgrade};

use crate::runtime::ByteStream;
use frames::{Control, Frames};

/// The head of a binary frame that carries so many bytes.
fn put_head(out: &mut Vec<u8>, opcode: u8, length: usize) {
    out.push(0x80 | opcode);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// What a client says in binary frames, and what is said to it.
pub(super) struct WebSocket {
    stream: Box<dyn ByteStream>,
    frames: Frames,
    /// Heads and control frames that go out before anything else.
    head: Vec<u8>,
    /// Bytes that the frame which goes out still lacks.
    left: usize,
    /// An answer that waits for the end of that frame; only the last ping is answered (RFC 6455, 5.5.3).
    pong: Option<Vec<u8>>,
    /// The code of a close frame that is to be sent.
    close: Option<u16>,
    /// A close frame is sent, or on its way: nothing comes behind it.
    closing: bool,
    /// The other side has closed, or sent what is no WebSocket.
    ended: bool,
}

impl WebSocket {
    pub(super) fn new(stream: Box<dyn ByteStream>) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            head: Vec::new(),
            left: 0,
            pong: None,
            close: None,
            closing: false,
            ended: false,
        }
    }

    /// Puts control frames that wait where a frame may begin.
    fn queue_control(&mut self) {
        if self.left > 0 || self.closing {
            return;
        }
        if let Some(pong) = self.pong.take() {
            put_head(&mut self.head, 0xa, pong.len());
            self.head.extend_from_slice(&pong);
        }
        if let Some(code) = self.close.take() {
            put_head(&mut self.head, 0x8, 2);
            self.head.extend_from_slice(&code.to_be_bytes());
            self.closing = true;
        }
    }

    /// Writes what goes before data.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queue_control();
        while !self.head.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.head))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => drop(self.head.drain(..n)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes control frames if that can be done now; if not, they go before what is written next.
    fn try_control(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // In the middle of a frame, its owner goes on with it.
        if self.left == 0
            && let Poll::Ready(result) = self.poll_head(cx)
        {
            result?;
            if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_flush(cx) {
                result?;
            }
        }
        Ok(())
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            if this.ended || buf.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let n = ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            if n == 0 {
                this.ended = true;
                continue;
            }
            let taken = this.frames.take(&mut buf[..n]);
            let (length, control) = match taken {
                Ok(taken) => taken,
                Err(flaw) => {
                    this.ended = true;
                    this.close = Some(flaw.code());
                    this.try_control(cx)?;
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, flaw)));
                }
            };
            match control {
                Some(Control::Ping(data)) => {
                    this.pong = Some(data);
                    this.try_control(cx)?;
                }
                Some(Control::Close) => {
                    this.ended = true;
                    this.close = Some(1000);
                    this.try_control(cx)?;
                }
                None => {}
            }
            if length > 0 {
                return Poll::Ready(Ok(length));
            }
        }
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.left == 0 {
            this.queue_control();
            if this.closing {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            put_head(&mut this.head, 0x2, buf.len());
            this.left = buf.len();
        }
        // A caller that has changed its mind about how much it writes fills the frame with what it has.
        let data = &buf[..buf.len().min(this.left)];
        loop {
            let n = {
                let parts = [IoSlice::new(&this.head), IoSlice::new(data)];
                let parts = if this.head.is_empty() { &parts[1..] } else { &parts[..] };
                ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, parts))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = n.min(this.head.len());
            this.head.drain(..of_head);
            if n > of_head {
                this.left -= n - of_head;
                return Poll::Ready(Ok(n - of_head));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            ready!(self.poll_head(cx))?;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing && self.close.is_none() {
            self.close = Some(1000);
        }
        if self.left == 0 {
            ready!(self.poll_head(cx))?;
        }
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
