//! Frames out of a stream of bytes: each RPC behind its length, a varint.

use bytes::Bytes;

/// Bytes of the longest frame that is skipped: what announces more will not be over soon.
const MAX_SKIP: u64 = 17 * 1024 * 1024;

/// Bytes that are set aside for a frame of which nothing has come yet.
const FIRST: usize = 4096;

/// What a stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An RPC, in an allocation of its own.
    Rpc(Bytes),
    /// An RPC larger than the limit. It is skipped as it comes in; the next one follows.
    TooLarge {
        /// Bytes it says it has.
        bytes: u64,
    },
}

/// Why nothing sensible can follow in a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// A length that is no varint of at most ten bytes.
    #[error("the length of an RPC is no varint")]
    NoLength,
    /// A length beyond what is skipped.
    #[error("an RPC of {bytes} bytes, too many to skip")]
    Endless {
        /// Bytes it says it has.
        bytes: u64,
    },
}

/// Cuts a stream into frames. It holds one frame that is not complete yet, never more than its limit, and nothing
/// between two frames.
#[derive(Debug)]
pub struct Framer {
    limit: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Length { value: u64, shift: u32 },
    Body { len: usize, body: Vec<u8> },
    Skip { left: u64 },
    Broken(FramingError),
}

const BETWEEN: State = State::Length { value: 0, shift: 0 };

impl Framer {
    /// For frames of at most `limit` bytes, without their length.
    pub fn new(limit: usize) -> Self {
        // Places in a frame are kept in 32 bits.
        Self { limit: limit.min(u32::MAX as usize / 2), state: BETWEEN }
    }

    /// Takes bytes from the front of `input` until a frame is complete or nothing is left: call it until `Ok(None)`.
    ///
    /// # Errors
    /// When the stream makes no sense any more; it stays so.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FramingError> {
        loop {
            match &mut self.state {
                State::Length { value, shift } => {
                    let Some((byte, rest)) = input.split_first() else { return Ok(None) };
                    *input = rest;
                    if *shift == 63 && *byte > 1 {
                        return self.fail(FramingError::NoLength);
                    }
                    *value |= u64::from(byte & 0x7f) << *shift;
                    *shift += 7;
                    if *byte < 0x80 {
                        let bytes = *value;
                        if let Some(too_large) = self.begin(bytes)? {
                            return Ok(Some(too_large));
                        }
                    }
                }
                State::Body { len, body } => {
                    let len = *len;
                    if body.is_empty() && input.len() >= len {
                        let (frame, rest) = input.split_at(len);
                        *input = rest;
                        self.state = BETWEEN;
                        return Ok(Some(Frame::Rpc(Bytes::copy_from_slice(frame))));
                    }
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let (part, rest) = input.split_at(input.len().min(len - body.len()));
                    *input = rest;
                    append(body, part, len);
                    if body.len() == len {
                        let frame = std::mem::take(body).into();
                        self.state = BETWEEN;
                        return Ok(Some(Frame::Rpc(frame)));
                    }
                }
                State::Skip { left } => {
                    if *left == 0 {
                        self.state = BETWEEN;
                        continue;
                    }
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *input = &input[skipped..];
                    *left -= skipped as u64;
                }
                State::Broken(error) => return Err(error.clone()),
            }
        }
    }

    /// Frames that begin from now on may have so many bytes.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(u32::MAX as usize / 2);
    }

    /// Bytes of the frame that is not complete yet, once it is.
    pub fn begun(&self) -> usize {
        match &self.state {
            State::Body { len, .. } => *len,
            _ => 0,
        }
    }

    /// Whether the stream could end here without a frame being cut off.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Length { shift: 0, .. } | State::Skip { left: 0 })
    }

    /// Bytes it has allocated.
    pub fn buffered(&self) -> usize {
        match &self.state {
            State::Body { body, .. } => body.capacity(),
            _ => 0,
        }
    }

    fn begin(&mut self, bytes: u64) -> Result<Option<Frame>, FramingError> {
        match usize::try_from(bytes).ok().filter(|len| *len <= self.limit) {
            Some(len) => self.state = State::Body { len, body: Vec::new() },
            None if bytes > MAX_SKIP.max(self.limit as u64 * 2) => {
                return self.fail(FramingError::Endless { bytes });
            }
            None => {
                self.state = State::Skip { left: bytes };
                return Ok(Some(Frame::TooLarge { bytes }));
            }
        }
        Ok(None)
    }

    fn fail<T>(&mut self, error: FramingError) -> Result<T, FramingError> {
        self.state = State::Broken(error.clone());
        Err(error)
    }
}

/// Appends to a frame of `len` bytes. Memory is set aside as bytes come, and in the end it is exactly the frame's: who
/// announces much and sends nothing costs nothing.
fn append(body: &mut Vec<u8>, part: &[u8], len: usize) {
    let needed = body.len() + part.len();
    if needed > body.capacity() {
        let capacity = needed.max(body.capacity() * 2).max(FIRST).min(len);
        body.reserve_exact(capacity - body.len());
    }
    body.extend_from_slice(part);
}
