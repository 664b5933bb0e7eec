//! The frames of a gossip stream, let through one at a time; one that is too large is skipped, and costs no
//! other.
//!
//! libp2p-gossipsub (0.50.1) holds everything that it has read against its limit, up to 8 KiB of the next frame
//! included, and ends the stream above it. Behind these frames it reads one frame and never more than that.
//! Knows lengths only: what a frame says is read elsewhere.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

/// Bytes of a length at most (unsigned-varint: 9; the tenth is for what is none).
const PREFIX: usize = 10;
/// Bytes skipped before others get their turn.
const STRIDE: usize = 64 << 10;

/// Frames that were skipped on one stream, and how large the last one was.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Skipped {
    fn count(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were since this was asked last, with the bytes of the last one.
    pub(super) fn take(&self) -> Option<(u64, u64)> {
        match self.frames.swap(0, Ordering::Relaxed) {
            0 => None,
            frames => Some((frames, self.bytes.load(Ordering::Relaxed))),
        }
    }
}

/// A stream of length-prefixed frames, read so that no read crosses the end of a frame.
#[derive(Debug)]
pub(crate) struct Frames<S> {
    inner: S,
    /// The largest frame that is let through, without its length.
    limit: usize,
    state: State,
    skipped: Arc<Skipped>,
}

#[derive(Debug)]
enum State {
    /// In a frame's length, of which so much is known.
    Length { prefix: [u8; PREFIX], known: usize },
    /// The length is known, and handed on before the frame.
    Found { prefix: [u8; PREFIX], known: usize, handed: usize, body: usize },
    /// In a frame, with so many bytes to come.
    Body { left: usize },
    /// In a frame that is too large, with so many bytes to come.
    Skip { left: u64 },
}

const START: State = State::Length { prefix: [0; PREFIX], known: 0 };

impl<S> Frames<S> {
    pub(super) fn new(inner: S, limit: usize, skipped: Arc<Skipped>) -> Self {
        Self { inner, limit, state: START, skipped }
    }

    /// The state after `left` more bytes of a frame are wanted.
    fn body(left: usize) -> State {
        if left == 0 { START } else { State::Body { left } }
    }

    /// The state after a byte of a length.
    fn length(&self, mut prefix: [u8; PREFIX], mut known: usize, byte: u8) -> io::Result<State> {
        prefix[known] = byte;
        known += 1;
        if byte & 0x80 == 0 {
            let length =
                prefix[..known].iter().rev().fold(0_u128, |sum, byte| sum << 7 | u128::from(byte & 0x7f));
            let Ok(length) = u64::try_from(length) else { return Err(bad_length()) };
            return Ok(match usize::try_from(length) {
                Ok(body) if body <= self.limit => State::Found { prefix, known, handed: 0, body },
                _ => {
                    self.skipped.count(length);
                    State::Skip { left: length }
                }
            });
        }
        if known == PREFIX {
            return Err(bad_length());
        }
        Ok(State::Length { prefix, known })
    }
}

fn bad_length() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the length of a frame is no unsigned-varint")
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut passed = 0;
        loop {
            match this.state {
                State::Length { prefix, known } => {
                    let mut byte = [0];
                    if ready!(Pin::new(&mut this.inner).poll_read(cx, &mut byte))? == 0 {
                        return Poll::Ready(Ok(0));
                    }
                    this.state = this.length(prefix, known, byte[0])?;
                }
                State::Found { prefix, known, handed, body } => {
                    let rest = &prefix[handed..known];
                    let n = rest.len().min(buf.len());
                    buf[..n].copy_from_slice(&rest[..n]);
                    if n < rest.len() {
                        this.state = State::Found { prefix, known, handed: handed + n, body };
                        return Poll::Ready(Ok(n));
                    }
                    this.state = Self::body(body);
                    let room = (buf.len() - n).min(body);
                    if room > 0
                        && let Poll::Ready(Ok(more)) =
                            Pin::new(&mut this.inner).poll_read(cx, &mut buf[n..n + room])
                    {
                        this.state = Self::body(body - more);
                        return Poll::Ready(Ok(n + more));
                    }
                    return Poll::Ready(Ok(n));
                }
                State::Body { left } => {
                    let room = buf.len().min(left);
                    let n = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buf[..room]))?;
                    this.state = Self::body(left - n);
                    return Poll::Ready(Ok(n));
                }
                State::Skip { left: 0 } => this.state = START,
                State::Skip { left } => {
                    if passed >= STRIDE {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    let room = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
                    let n = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buf[..room]))?;
                    if n == 0 {
                        return Poll::Ready(Ok(0));
                    }
                    passed += n;
                    this.state = State::Skip { left: left - n as u64 };
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, FutureExt, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    fn frame(length: usize) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), length);
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes.extend((0..length).map(|n| n as u8));
        bytes
    }

    /// A stream that gives so many bytes at a time, and nothing in between.
    struct Dripping(Cursor<Vec<u8>>, usize, bool);

    impl AsyncRead for Dripping {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.2 = !self.2;
            if self.2 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let n = buf.len().min(self.1);
            Pin::new(&mut self.0).poll_read(cx, &mut buf[..n])
        }
    }

    /// What is read, read by read.
    fn reads(bytes: Vec<u8>, limit: usize, drip: usize, room: usize) -> (Vec<Vec<u8>>, Arc<Skipped>) {
        let skipped = Arc::default();
        let mut frames = Frames::new(Dripping(Cursor::new(bytes), drip, false), limit, Arc::clone(&skipped));
        let mut reads = Vec::new();
        let mut buf = vec![0; room];
        loop {
            match futures::executor::block_on(frames.read(&mut buf)).unwrap() {
                0 => return (reads, skipped),
                n => reads.push(buf[..n].to_vec()),
            }
        }
    }

    proptest! {
        #[test]
        fn what_fits_passes_unchanged_and_what_does_not_is_skipped(
            lengths in prop::collection::vec(0..400_usize, 0..12),
            limit in 0..400_usize,
            drip in 1..300_usize,
            room in 1..300_usize,
        ) {
            let all = lengths.iter().flat_map(|n| frame(*n)).collect();
            let kept: Vec<_> = lengths.iter().filter(|n| **n <= limit).flat_map(|n| frame(*n)).collect();
            let (reads, skipped) = reads(all, limit, drip, room);
            prop_assert_eq!(reads.concat(), kept);
            let large: Vec<_> = lengths.iter().filter(|n| **n > limit).collect();
            let last = large.last().map(|n| (large.len() as u64, **n as u64));
            prop_assert_eq!(skipped.take(), last);
            prop_assert_eq!(skipped.take(), None);
        }

        #[test]
        fn no_read_crosses_the_end_of_a_frame(
            lengths in prop::collection::vec(0..400_usize, 1..12),
            drip in 1..300_usize,
        ) {
            let all = lengths.iter().flat_map(|n| frame(*n)).collect();
            let mut left = lengths.iter().map(|n| frame(*n).len());
            let mut in_frame = left.next().unwrap_or(0);
            for read in reads(all, 400, drip, 8192).0 {
                prop_assert!(read.len() <= in_frame, "{} bytes with {in_frame} left", read.len());
                in_frame -= read.len();
                if in_frame == 0 {
                    in_frame = left.next().unwrap_or(0);
                }
            }
        }

        #[test]
        fn nothing_that_comes_from_outside_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::new(Cursor::new(bytes), 50, Arc::default());
            let mut all = Vec::new();
            let _ = frames.read_to_end(&mut all).now_or_never();
        }
    }

    #[test]
    fn a_frame_of_any_length_is_skipped_without_room_for_it() {
        let mut bytes = vec![0xff; 8];
        bytes.push(0x7f); // 2^63 - 1
        bytes.extend([7; 100]);
        let (reads, skipped) = reads(bytes, 1 << 20, 8, 16);
        assert_eq!(reads, Vec::<Vec<u8>>::new());
        assert_eq!(skipped.take(), Some((1, (1 << 63) - 1)));
    }

    #[test]
    fn a_length_that_never_ends_is_an_error() {
        for bytes in [vec![0xff; 11], [vec![0xff; 9], vec![0x7f]].concat()] {
            let mut frames = Frames::new(Cursor::new(bytes), 50, Arc::default());
            let read = futures::executor::block_on(frames.read(&mut [0; 8]));
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
