//! HTTP/1.1 messages (RFC 9112) on a stream of bytes: heads and bodies, for the API, the verbs that call it, and WebSocket's
//! first request.
//!
//! httparse does the parsing. Everything read has a bound; nothing here waits by the clock or knows
//! what a request means.

use std::{
    io,
    pin::Pin,
    task::{Poll, ready},
};

use futures::{AsyncWriteExt, future::poll_fn};

use self::unread::Unread;
pub(crate) use self::{
    body::Body,
    head::{Framing, Head, RequestLine},
    origin::{is_loopback, is_origin},
};
use crate::runtime::ByteStream;

mod body;
mod head;
mod origin;
mod unread;

/// Headers of one message.
const MAX_HEADERS: usize = 64;
/// Bytes read at a time.
const CHUNK: usize = 16 << 10;
/// Why a message could not be read.
#[derive(Debug)]
pub(crate) enum WireError {
    /// The connection broke.
    Io(io::Error),
    /// The other side closed it, in the middle of a message if `true`.
    Ended(bool),
    /// The first line is longer than a whole head may be.
    TargetTooLong,
    /// The head is larger than it may be, or has too many headers.
    HeadTooLarge,
    /// The body is larger than it may be.
    BodyTooLarge,
    /// This is not HTTP/1.1.
    Version,
    /// A transfer coding other than `chunked`.
    Coding,
    /// This is not HTTP, or no two readers would agree on what it says.
    Malformed(String),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A connection with what was read of it and not used yet.
pub(crate) struct Wire {
    stream: Box<dyn ByteStream>,
    buf: Unread,
}

impl Wire {
    pub(crate) fn new(stream: Box<dyn ByteStream>) -> Self {
        Self { stream, buf: Unread::default() }
    }

    /// The stream, and what was read of it and not used.
    pub(crate) fn into_parts(self) -> (Box<dyn ByteStream>, Vec<u8>) {
        (self.stream, self.buf.to_vec())
    }

    /// Whether anything of the next message is there.
    pub(crate) fn has_begun(&self) -> bool {
        !self.buf.is_empty()
    }

    /// Reads some more; 0 at the end. May be dropped and called again.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut chunk = [0; CHUNK];
            let n = ready!(Pin::new(&mut *self.stream).poll_read(cx, &mut chunk))?;
            self.buf.push(&chunk[..n]);
            Poll::Ready(Ok(n))
        })
        .await
    }

    /// Ready when the other side closes; what it sends instead is thrown away.
    pub(crate) async fn closed(&mut self) {
        while matches!(self.fill().await, Ok(1..)) {
            self.buf.clear();
        }
    }

    /// Takes in what the other side still sends, up to `limit` bytes, so that closing does not take
    /// the last answer away from it.
    pub(crate) async fn drain(&mut self, limit: usize) {
        let mut left = limit;
        while left > 0 {
            self.buf.clear();
            match self.fill().await {
                Ok(n @ 1..) => left = left.saturating_sub(n),
                _ => return,
            }
        }
    }

    /// The next request's head, of at most `limit` bytes. May be dropped and called again.
    pub(crate) async fn request(&mut self, limit: usize) -> Result<Head<RequestLine>, WireError> {
        self.head(limit, |bytes| {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            let httparse::Status::Complete(end) = request.parse(bytes)? else { return Ok(None) };
            let word = |word: Option<&str>| word.unwrap_or_default().to_owned();
            let line = RequestLine { method: word(request.method), target: word(request.path) };
            Ok(Some((end, Head::new(line, request.version, request.headers)?)))
        })
        .await
    }

    /// The next response's head: its status.
    pub(crate) async fn response(&mut self, limit: usize) -> Result<Head<u16>, WireError> {
        self.head(limit, |bytes| {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(end) = response.parse(bytes)? else { return Ok(None) };
            let status = response.code.unwrap_or_default();
            Ok(Some((end, Head::new(status, response.version, response.headers)?)))
        })
        .await
    }

    async fn head<Line>(
        &mut self,
        limit: usize,
        parse: impl Fn(&[u8]) -> Result<Option<(usize, Head<Line>)>, WireError>,
    ) -> Result<Head<Line>, WireError> {
        let mut seen = 0;
        loop {
            // Parsed anew only when another line is complete: a byte at a time costs its sender more.
            if self.buf[seen..].contains(&b'\n')
                && let Some((end, head)) = parse(&self.buf[..self.buf.len().min(limit)])?
            {
                self.buf.advance(end);
                return Ok(head);
            }
            if self.buf.len() >= limit {
                let line = self.buf[..limit].contains(&b'\n');
                return Err(if line { WireError::HeadTooLarge } else { WireError::TargetTooLong });
            }
            seen = self.buf.len();
            if self.fill().await? == 0 {
                return Err(WireError::Ended(self.has_begun()));
            }
        }
    }

    /// Hands the next line over without its end; it is at most `limit` bytes long. `None` at the end. May be dropped and
    /// called again.
    pub(crate) async fn line<T>(
        &mut self,
        limit: usize,
        take: impl FnOnce(&str) -> T,
    ) -> Result<Option<T>, WireError> {
        let mut seen = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buf[seen..]) {
                let line = &self.buf[..seen + at];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let taken = match std::str::from_utf8(line) {
                    Ok(line) => take(line),
                    Err(_) => take(&String::from_utf8_lossy(line)),
                };
                self.buf.advance(seen + at + 1);
                return Ok(Some(taken));
            }
            seen = self.buf.len();
            if seen > limit {
                return Err(WireError::BodyTooLarge);
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Writes some of `out` and reads what has come, whichever can be done. May be dropped and called again.
    pub(crate) async fn both_ways(&mut self, out: &mut Vec<u8>) -> Result<(), WireError> {
        poll_fn(|cx| {
            let mut chunk = [0; CHUNK];
            let read = Pin::new(&mut *self.stream).poll_read(cx, &mut chunk);
            if let Poll::Ready(n) = read {
                return Poll::Ready(match n? {
                    0 => Err(WireError::Ended(true)),
                    n => {
                        self.buf.push(&chunk[..n]);
                        Ok(())
                    }
                });
            }
            if out.is_empty() {
                return Poll::Pending;
            }
            let n = ready!(Pin::new(&mut *self.stream).poll_write(cx, out))?;
            out.drain(..n);
            Poll::Ready(if n > 0 { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero).into()) })
        })
        .await
    }

    /// Writes some of `bytes`.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            n => Ok(n),
        }
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Tells the other side that nothing more will be written.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.stream.close().await
    }
}

impl From<httparse::Error> for WireError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::HeadTooLarge,
            httparse::Error::Version => Self::Version,
            other => Self::Malformed(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
