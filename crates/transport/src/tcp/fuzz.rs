//! Handshakes as they are read along, in pieces of any size.

#![allow(clippy::unwrap_used, reason = "a broken promise is a panic")]

use futures::{AsyncReadExt, AsyncWriteExt, executor::block_on, io::Cursor};

use super::transcript::{End, Transcribed};

/// What the initiator and the responder said, either half of the bytes behind the first: both ends tell the
/// same of it, however it is cut into pieces of up to that first byte.
pub fn handshake(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let (sent, received) = bytes.split_at(bytes.len() / 2);
    let digest = |end, sent: &[u8], received: &[u8], piece: usize| {
        let (mut stream, transcript) = Transcribed::new(Cursor::new(received.to_vec()), end);
        let mut buf = vec![0; piece];
        while block_on(stream.read(&mut buf)).unwrap() > 0 {}
        for bytes in sent.chunks(piece) {
            block_on(stream.write_all(bytes)).unwrap();
        }
        transcript.digest()
    };
    let whole = digest(End::Initiator, sent, received, bytes.len() + 1);
    assert_eq!(whole, digest(End::Responder, received, sent, usize::from(*piece) + 1));
}
