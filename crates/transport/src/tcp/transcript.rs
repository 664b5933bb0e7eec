//! What a Noise handshake looks like on the wire, as a digest that both ends compute alike.
//!
//! libp2p-noise keeps the handshake hash of the Noise protocol to itself. All that goes into it is in the
//! three messages of the handshake: the ephemeral keys, the static keys and the signatures, encrypted as they
//! are sent. Their bytes are therefore as good a channel binding (Noise protocol framework, section 11.2):
//! two sessions never have the same, and somebody in the middle cannot make them the same.
//!
//! Reads along, and never changes or keeps a byte.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use futures::io::{AsyncRead, AsyncWrite};
use sha2::{Digest, Sha256};

/// What the digest begins with.
const LABEL: &[u8] = b"smidge-admission-noise-v1";
/// Messages of the handshake (libp2p/specs noise/README.md: `Noise_XX`), by who sends them.
const BY_INITIATOR: usize = 2;
const BY_RESPONDER: usize = 1;

/// Which end of the handshake this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Initiator,
    Responder,
}

/// The handshake messages of one direction, each after its length as two bytes, big-endian.
#[derive(Debug)]
struct Messages {
    digest: Sha256,
    left: usize,
    /// Bytes of the length that have passed, and of the message that have not.
    length: Vec<u8>,
    body: usize,
}

impl Messages {
    fn new(left: usize) -> Self {
        Self { digest: Sha256::new(), left, length: Vec::with_capacity(2), body: 0 }
    }

    /// Takes the next bytes of this direction. What comes after the last message is not looked at.
    fn pass(&mut self, mut bytes: &[u8]) {
        while self.left > 0 && !bytes.is_empty() {
            let wanted = if self.length.len() < 2 { 2 - self.length.len() } else { self.body };
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            self.digest.update(now);
            bytes = later;
            if self.length.len() == 2 {
                self.body -= now.len();
            } else {
                self.length.extend_from_slice(now);
                let [high, low] = self.length[..] else { continue };
                self.body = u16::from_be_bytes([high, low]).into();
            }
            if self.body == 0 {
                self.length.clear();
                self.left -= 1;
            }
        }
    }
}

/// Both directions of one handshake.
#[derive(Clone, Debug)]
pub(super) struct Transcript(Arc<Mutex<Both>>);

#[derive(Debug)]
struct Both {
    sent: Messages,
    received: Messages,
    end: End,
}

impl Transcript {
    fn lock(&self) -> MutexGuard<'_, Both> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SHA-256 over the label, the digest of what the initiator sent and that of what the responder sent.
    /// `None` before all of the handshake has passed.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        let both = self.lock();
        if both.sent.left + both.received.left > 0 {
            return None;
        }
        let [sent, received] = [&both.sent, &both.received].map(|side| side.digest.clone().finalize());
        let (first, second) = match both.end {
            End::Initiator => (sent, received),
            End::Responder => (received, sent),
        };
        Some(Sha256::new().chain_update(LABEL).chain_update(first).chain_update(second).finalize().into())
    }
}

/// A byte stream whose first messages are read along.
#[derive(Debug)]
pub(super) struct Transcribed<S> {
    inner: S,
    transcript: Transcript,
    done: bool,
}

impl<S> Transcribed<S> {
    /// Reads along as `end` of a handshake that begins with the next byte, either way.
    pub(super) fn new(inner: S, end: End) -> (Self, Transcript) {
        let (sent, received) = match end {
            End::Initiator => (BY_INITIATOR, BY_RESPONDER),
            End::Responder => (BY_RESPONDER, BY_INITIATOR),
        };
        let both = Both { sent: Messages::new(sent), received: Messages::new(received), end };
        let transcript = Transcript(Arc::new(Mutex::new(both)));
        (Self { inner, transcript: transcript.clone(), done: false }, transcript)
    }

    fn pass(&mut self, side: fn(&mut Both) -> &mut Messages, bytes: &[u8]) {
        if !self.done {
            let mut both = self.transcript.lock();
            side(&mut both).pass(bytes);
            self.done = both.sent.left + both.received.left == 0;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Transcribed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.pass(|both| &mut both.received, &buf[..n]);
        Poll::Ready(Ok(n))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Transcribed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.pass(|both| &mut both.sent, &buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        let mut left = n;
        for buf in bufs {
            let now = left.min(buf.len());
            self.pass(|both| &mut both.sent, &buf[..now]);
            left -= now;
        }
        Poll::Ready(Ok(n))
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
    use futures::{AsyncReadExt, AsyncWriteExt, executor::block_on, io::Cursor};

    use super::*;

    /// Two messages of the initiator and one of the responder, each with its length, and what follows.
    const BY_FIRST: &[u8] = &[0, 3, 1, 2, 3, 0, 2, 8, 9];
    const BY_SECOND: &[u8] = &[0, 4, 4, 5, 6, 7];
    const LATER: &[u8] = b"what is said afterwards";

    /// The digest at `end`, when bytes pass `piece` at a time.
    fn digest(end: End, sent: &[u8], received: &[u8], piece: usize) -> Option<[u8; 32]> {
        let (mut stream, transcript) = Transcribed::new(Cursor::new(received.to_vec()), end);
        block_on(async {
            for _ in 0..received.len().div_ceil(piece) {
                let _ = stream.read(&mut vec![0; piece]).await.unwrap();
            }
        });
        stream.inner = Cursor::new(Vec::new());
        for bytes in sent.chunks(piece) {
            block_on(stream.write_all(bytes)).unwrap();
        }
        assert_eq!(stream.inner.get_ref(), sent, "nothing is changed or kept");
        transcript.digest()
    }

    #[test]
    fn both_ends_see_the_same_handshake_however_it_is_cut_and_whatever_follows() {
        let expected = digest(End::Initiator, BY_FIRST, BY_SECOND, 100).expect("all has passed");
        for piece in 1..12 {
            for later in [&[][..], LATER] {
                let (first, second) = ([BY_FIRST, later].concat(), [BY_SECOND, later].concat());
                assert_eq!(digest(End::Initiator, &first, &second, piece), Some(expected), "{piece}");
                assert_eq!(digest(End::Responder, &second, &first, piece), Some(expected), "{piece}");
            }
        }
        let hex = data_encoding::HEXLOWER.encode(&expected);
        assert!(
            include_str!("../../../../docs/ADMISSION.md").contains(&hex),
            "{hex} is no vector of docs/ADMISSION.md"
        );
    }

    #[test]
    fn half_a_handshake_has_no_digest_and_another_one_has_another() {
        let whole = digest(End::Initiator, BY_FIRST, BY_SECOND, 100);
        for missing in 1..BY_FIRST.len() {
            assert_eq!(digest(End::Initiator, &BY_FIRST[..missing], BY_SECOND, 100), None, "{missing}");
        }
        for missing in 1..BY_SECOND.len() {
            assert_eq!(digest(End::Initiator, BY_FIRST, &BY_SECOND[..missing], 100), None, "{missing}");
        }
        for at in [2, 4, 7, 8] {
            let mut changed = BY_FIRST.to_vec();
            changed[at] ^= 1;
            assert_ne!(digest(End::Initiator, &changed, BY_SECOND, 100), whole, "{at}");
        }
        // The same bytes, but between other messages.
        let moved = [0, 2, 1, 2, 0, 3, 3, 8, 9];
        assert_ne!(digest(End::Initiator, &moved, BY_SECOND, 100), whole);
    }
}
