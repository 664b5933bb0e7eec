//! The body of a message, by its length or in chunks (RFC 9112, sections 6 and 7), as it comes.

use super::{Framing, MAX_HEADERS, Wire, WireError};

/// Bytes of the headers that may follow the last chunk.
const MAX_TRAILERS: usize = 4096;
/// The longest line that tells the size of a chunk.
const MAX_CHUNK_LINE: usize = 256;

/// A body that is being read.
pub(crate) struct Body {
    part: Part,
    /// How many bytes it may have from here on.
    room: u64,
}

/// What comes next of a body, and how many bytes of it are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Length(u64),
    /// The line with a chunk's size.
    Size,
    Chunk(u64),
    Trailers,
    UntilClosed,
    Done,
}

impl Body {
    /// A body of at most `room` bytes.
    pub(crate) fn new(framing: Option<Framing>, room: u64) -> Self {
        let part = match framing {
            None => Part::Done,
            Some(Framing::Length(length)) => Part::Length(length),
            Some(Framing::Chunked) => Part::Size,
            Some(Framing::UntilClosed) => Part::UntilClosed,
        };
        Self { part, room }
    }

    fn left(&self) -> u64 {
        match self.part {
            Part::Length(left) | Part::Chunk(left) => left,
            _ => u64::MAX,
        }
    }

    fn took(&mut self, n: u64) {
        self.room -= n;
        match &mut self.part {
            Part::Length(left) | Part::Chunk(left) => *left -= n,
            _ => {}
        }
    }
}

impl Wire {
    /// The body of the message whose head was read last.
    pub(crate) async fn body(&mut self, framing: Framing, limit: usize) -> Result<Vec<u8>, WireError> {
        let (mut state, mut body) = (Body::new(Some(framing), limit as u64), Vec::new());
        while self.read_body(&mut state, &mut body).await? {}
        Ok(body)
    }

    /// Moves what has come of a body to the end of `into`, and waits only if that is nothing; `false` at its end. May be
    /// dropped and called again.
    pub(crate) async fn read_body(&mut self, body: &mut Body, into: &mut Vec<u8>) -> Result<bool, WireError> {
        let before = into.len();
        loop {
            let has_moved = self.advance(body, into)?;
            match (into.len() > before, has_moved) {
                (true, false) => return Ok(true),
                _ if body.part == Part::Done => return Ok(into.len() > before),
                (_, true) => {}
                (false, false) => match (self.fill().await?, body.part) {
                    (0, Part::UntilClosed) => body.part = Part::Done,
                    (0, _) => return Err(WireError::Ended(true)),
                    _ => {}
                },
            }
        }
    }

    /// One step through what was read; whether there was one.
    fn advance(&mut self, body: &mut Body, into: &mut Vec<u8>) -> Result<bool, WireError> {
        match body.part {
            Part::Done => return Ok(false),
            Part::Length(0) => body.part = Part::Done,
            Part::Length(left) if left > body.room => return Err(WireError::BodyTooLarge),
            Part::Chunk(0) => {
                if self.buf.len() < 2 {
                    return Ok(false);
                }
                if !self.buf.starts_with(b"\r\n") {
                    return Err(WireError::Malformed("a chunk longer than its size".into()));
                }
                self.buf.advance(2);
                body.part = Part::Size;
            }
            Part::Length(_) | Part::Chunk(_) | Part::UntilClosed => {
                let n = body.left().min(self.buf.len() as u64);
                if n == 0 {
                    return Ok(false);
                }
                if n > body.room {
                    return Err(WireError::BodyTooLarge);
                }
                into.extend_from_slice(&self.buf[..n as usize]);
                self.buf.advance(n as usize);
                body.took(n);
            }
            Part::Size => match httparse::parse_chunk_size(&self.buf) {
                Ok(httparse::Status::Complete((end, size))) => {
                    // httparse takes anything for an extension, also what another reader takes for a line's end.
                    let control = |b: &u8| b.is_ascii_control() && *b != b'\t';
                    if self.buf[..end - 2].iter().any(control) {
                        return Err(WireError::Malformed("a control character in a chunk's size".into()));
                    }
                    if size > body.room {
                        return Err(WireError::BodyTooLarge);
                    }
                    self.buf.advance(end);
                    body.part = if size == 0 { Part::Trailers } else { Part::Chunk(size) };
                }
                Ok(httparse::Status::Partial) if self.buf.len() <= MAX_CHUNK_LINE => return Ok(false),
                _ => return Err(WireError::Malformed("a chunk without a size".into())),
            },
            Part::Trailers => {
                let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
                match httparse::parse_headers(&self.buf, &mut headers)? {
                    httparse::Status::Complete((end, _)) => {
                        self.buf.advance(end);
                        body.part = Part::Done;
                    }
                    httparse::Status::Partial if self.buf.len() > MAX_TRAILERS => {
                        return Err(WireError::HeadTooLarge);
                    }
                    httparse::Status::Partial => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    /// Takes in what has been read of a body; whether it is at its end.
    pub(crate) fn decode(&mut self, body: &mut Body, into: &mut Vec<u8>) -> Result<bool, WireError> {
        while self.advance(body, into)? {}
        Ok(body.part == Part::Done)
    }
}
