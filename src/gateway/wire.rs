//! HTTP/1.1 messages (RFC 9112) on a stream of bytes: heads and bodies, for the API and for the verbs
//! that call it.
//!
//! httparse does the parsing. Everything read has a bound; nothing here waits by the clock or knows
//! what a request means.

use std::{
    io,
    pin::Pin,
    task::{Poll, ready},
};

use futures::{AsyncWriteExt, future::poll_fn};

use crate::runtime::ByteStream;

/// Headers of one message.
const MAX_HEADERS: usize = 64;
/// Bytes read at a time.
const CHUNK: usize = 16 << 10;
/// Bytes of the headers that may follow the last chunk.
const MAX_TRAILERS: usize = 4096;
/// The longest line that tells the size of a chunk.
const MAX_CHUNK_LINE: usize = 256;

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

/// The first line and the headers of a message. Has no `Debug`: a header may be a secret.
pub(crate) struct Head<Line> {
    pub(crate) line: Line,
    /// Whether the other side speaks HTTP/1.1 and not 1.0.
    pub(crate) is_11: bool,
    /// Names in small letters.
    headers: Vec<(String, String)>,
}

/// The first line of a request.
pub(crate) struct RequestLine {
    pub(crate) method: String,
    pub(crate) target: String,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    /// It ends with the connection; only responses do that.
    UntilClosed,
}

impl<Line> Head<Line> {
    fn new(line: Line, version: Option<u8>, raw: &[httparse::Header<'_>]) -> Result<Self, WireError> {
        let header = |h: &httparse::Header<'_>| {
            let value = std::str::from_utf8(h.value)
                .map_err(|_| WireError::Malformed(format!("the header {} is no UTF-8", h.name)))?;
            Ok((h.name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers = raw.iter().map(header).collect::<Result<_, WireError>>()?;
        Ok(Self { line, is_11: version == Some(1), headers })
    }

    pub(crate) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The only header of this name; several are refused.
    pub(crate) fn one(&self, name: &'static str) -> Result<Option<&str>, WireError> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (_, Some(_)) => Err(WireError::Malformed(format!("more than one header {name}"))),
            (first, None) => Ok(first),
        }
    }

    /// Whether the connection may carry another message after this one.
    pub(crate) fn keeps_alive(&self) -> bool {
        let has = |word: &str| self.all("connection").any(|v| v.to_ascii_lowercase().contains(word));
        if self.is_11 { !has("close") } else { has("keep-alive") }
    }

    /// How the body's end is known (RFC 9112, section 6.3); `None` if there is no body. What two
    /// readers might take differently is refused.
    pub(crate) fn framing(&self) -> Result<Option<Framing>, WireError> {
        let coding = self.one("transfer-encoding")?;
        let length = self.one("content-length")?;
        match (coding, length) {
            (Some(_), Some(_)) => {
                Err(WireError::Malformed("both Content-Length and Transfer-Encoding".into()))
            }
            (Some(_), None) if !self.is_11 => {
                Err(WireError::Malformed("Transfer-Encoding in HTTP/1.0".into()))
            }
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            (Some(_), None) => Err(WireError::Coding),
            (None, Some(length)) => {
                let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                match length.parse() {
                    Ok(length) if digits => Ok(Some(Framing::Length(length))),
                    _ => Err(WireError::Malformed("Content-Length is no number".into())),
                }
            }
            (None, None) => Ok(None),
        }
    }
}

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

/// A connection with what was read of it and not used yet.
pub(crate) struct Wire {
    stream: Box<dyn ByteStream>,
    buf: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: Box<dyn ByteStream>) -> Self {
        Self { stream, buf: Vec::new() }
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
            self.buf.extend_from_slice(&chunk[..n]);
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
                self.used(end);
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
                self.used(2);
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
                self.used(n as usize);
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
                    self.used(end);
                    body.part = if size == 0 { Part::Trailers } else { Part::Chunk(size) };
                }
                Ok(httparse::Status::Partial) if self.buf.len() <= MAX_CHUNK_LINE => return Ok(false),
                _ => return Err(WireError::Malformed("a chunk without a size".into())),
            },
            Part::Trailers => {
                let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
                match httparse::parse_headers(&self.buf, &mut headers)? {
                    httparse::Status::Complete((end, _)) => {
                        self.used(end);
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

    /// A line without its end, at most `limit` bytes long; `None` at the end. May be dropped and
    /// called again.
    pub(crate) async fn line(&mut self, limit: usize) -> Result<Option<String>, WireError> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.buf[seen..].iter().position(|b| *b == b'\n') {
                let line = String::from_utf8_lossy(&self.buf[..seen + at]).trim_end_matches('\r').to_owned();
                self.used(seen + at + 1);
                return Ok(Some(line));
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

    fn used(&mut self, n: usize) {
        self.buf.drain(..n);
        if self.buf.is_empty() {
            // An idle connection holds no memory for what it said before.
            self.buf = Vec::new();
        }
    }

    /// Takes in what has been read of a body; whether it is at its end.
    pub(crate) fn decode(&mut self, body: &mut Body, into: &mut Vec<u8>) -> Result<bool, WireError> {
        while self.advance(body, into)? {}
        Ok(body.part == Part::Done)
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
                        self.buf.extend_from_slice(&chunk[..n]);
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
mod tests {
    use futures::io::Cursor;

    use super::*;

    fn read<T>(bytes: &str, read: impl AsyncFnOnce(&mut Wire) -> T) -> T {
        let mut wire = Wire::new(Box::new(Cursor::new(bytes.as_bytes().to_vec())));
        futures::executor::block_on(read(&mut wire))
    }

    fn framing(headers: &str) -> Result<Option<Framing>, WireError> {
        let text = format!("POST / HTTP/1.1\r\n{headers}\r\n");
        read(&text, async |wire| wire.request(4096).await).and_then(|head| head.framing())
    }

    #[test]
    fn what_two_readers_might_take_differently_is_refused() {
        assert_eq!(framing("Content-Length: 3\r\n").unwrap(), Some(Framing::Length(3)));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n").unwrap(), Some(Framing::Chunked));
        assert_eq!(framing("").unwrap(), None);
        for bad in [
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: -1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length : 3\r\n",
            "Host: a\r\n folded\r\n",
        ] {
            assert!(matches!(framing(bad), Err(WireError::Malformed(_))), "{bad:?}");
        }
        assert!(matches!(framing("Transfer-Encoding: gzip, chunked\r\n"), Err(WireError::Coding)));
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        let old = read(old, async |wire| wire.request(4096).await).and_then(|head| head.framing());
        assert!(matches!(old, Err(WireError::Malformed(_))), "{old:?}");
    }

    #[test]
    fn chunks_are_joined_and_bounded() {
        let chunks = |text: &str| read(text, async |wire| wire.body(Framing::Chunked, 8).await);
        assert_eq!(chunks("3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\nA: b\r\n\r\n").unwrap(), b"abcdefgh");
        assert_eq!(chunks("0\r\n\r\n").unwrap(), b"");
        assert!(matches!(chunks("9\r\nabcdefghi\r\n0\r\n\r\n"), Err(WireError::BodyTooLarge)));
        assert!(matches!(chunks("ffffffffffffffff\r\n"), Err(WireError::BodyTooLarge)));
        assert!(matches!(chunks("3\r\nabcd\r\n0\r\n\r\n"), Err(WireError::Malformed(_))));
        for line in ["3;x\n\r\nabc", "3;a\nb=c\r\nabc", "3;\0\r\nabc", "3\n\r\nabc"] {
            let text = format!("{line}\r\n0\r\n\r\n");
            assert!(matches!(chunks(&text), Err(WireError::Malformed(_))), "{line:?}");
        }
        assert_eq!(chunks("3 ;x\r\nabc\r\n0\r\n\r\n").unwrap(), b"abc");
        assert!(matches!(chunks("x\r\n"), Err(WireError::Malformed(_))));
        assert!(matches!(chunks(&"1".repeat(600)), Err(WireError::Malformed(_))));
        assert!(matches!(chunks("3\r\nab"), Err(WireError::Ended(true))));
    }

    #[test]
    fn a_body_is_handed_on_as_it_comes_and_ends_where_it_ends() {
        let text = "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET";
        let (parts, rest) = read(text, async |wire| {
            let (mut body, mut parts) = (Body::new(Some(Framing::Chunked), u64::MAX), Vec::new());
            loop {
                let mut part = Vec::new();
                if !wire.read_body(&mut body, &mut part).await.unwrap() {
                    return (parts, wire.buf.clone());
                }
                parts.push(part);
            }
        });
        assert_eq!((parts.concat(), rest), (b"abcde".to_vec(), b"GET".to_vec()));
        let until_closed = |limit| read("abc", async |wire| wire.body(Framing::UntilClosed, limit).await);
        assert_eq!(until_closed(3).unwrap(), b"abc");
        assert!(matches!(until_closed(2), Err(WireError::BodyTooLarge)));
        let length = |n, limit| read("abcd", async |wire| wire.body(Framing::Length(n), limit).await);
        assert_eq!((length(3, 3).unwrap(), length(0, 0).unwrap()), (b"abc".to_vec(), vec![]));
        assert!(matches!(length(5, 8), Err(WireError::Ended(true))));
        assert!(matches!(length(5, 4), Err(WireError::BodyTooLarge)));
    }

    #[test]
    fn heads_are_bounded_and_name_what_is_too_long() {
        let head = |text: &str| read(text, async |wire| wire.request(64).await.map(|h| h.line.target));
        assert_eq!(head("GET /a HTTP/1.1\r\n\r\n").unwrap(), "/a");
        assert!(matches!(
            head(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(64))),
            Err(WireError::TargetTooLong)
        ));
        assert!(matches!(
            head(&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(64))),
            Err(WireError::HeadTooLarge)
        ));
        assert!(matches!(head("PRI * HTTP/2.0\r\n\r\n"), Err(WireError::Version)));
        assert!(matches!(head("\x16\x03\x01\x02\n"), Err(WireError::Malformed(_))));
        assert!(matches!(head(""), Err(WireError::Ended(false))));
        assert!(matches!(head("GET /"), Err(WireError::Ended(true))));
    }

    #[test]
    fn two_requests_on_one_connection_do_not_run_into_each_other() {
        let both = "PUT /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\n\r\n";
        read(both, async |wire| {
            let head = wire.request(64).await.unwrap();
            let body = wire.body(head.framing().unwrap().unwrap(), 8).await.unwrap();
            assert_eq!((head.line.target.as_str(), body.as_slice()), ("/1", &b"abc"[..]));
            assert_eq!(wire.request(64).await.unwrap().line.target, "/2");
        });
    }
}
