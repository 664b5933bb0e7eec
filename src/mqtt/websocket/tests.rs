use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures::{AsyncReadExt, AsyncWriteExt, executor::block_on};
use proptest::prelude::*;

use super::{
    frames::{Control, Flaw, Frames},
    *,
};

/// A client's frame.
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = Vec::new();
    put_head(&mut out, 0, payload.len());
    out[0] = first;
    out[1] |= 0x80;
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(n, byte)| byte ^ mask[n % 4]));
    out
}

/// All that some bytes say, cut like this.
fn read(bytes: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<Control>), Flaw> {
    let (mut frames, mut data, mut asked, mut rest) = (Frames::default(), Vec::new(), Vec::new(), bytes);
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let (part, behind) = rest.split_at((*cuts.next().unwrap()).clamp(1, rest.len()));
        rest = behind;
        let mut part = part.to_vec();
        let (length, control) = frames.take(&mut part)?;
        data.extend_from_slice(&part[..length]);
        asked.extend(control);
    }
    Ok((data, asked))
}

proptest! {
    #[test]
    fn data_is_the_same_however_frames_and_reads_are_cut(
        parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<[u8; 4]>()), 1..8),
        cuts in prop::collection::vec(1..200_usize, 1..10),
    ) {
        let mut bytes = Vec::new();
        for (n, (part, mask)) in parts.iter().enumerate() {
            let (begins, ends) = (n == 0, n + 1 == parts.len());
            bytes.extend(frame(if begins { 2 } else { 0 } | if ends { 0x80 } else { 0 }, part, *mask));
            bytes.extend(frame(0x8a, b"unasked", *mask));
        }
        let all: Vec<u8> = parts.iter().flat_map(|(part, _)| part.clone()).collect();
        prop_assert_eq!(read(&bytes, &cuts), Ok((all, vec![])));
    }

    #[test]
    fn no_bytes_make_more_of_themselves_or_panic(bytes: Vec<u8>, cut in 1..50_usize) {
        if let Ok((data, _)) = read(&bytes, &[cut]) {
            prop_assert!(data.len() <= bytes.len());
        }
    }
}

#[test]
fn what_rfc_6455_forbids_is_refused_with_its_code() {
    let mask = [1, 2, 3, 4];
    let mut long = frame(0x82, b"", mask);
    long.splice(1..2, [0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    for (bytes, flaw, code) in [
        (vec![0x82, 0x01], Flaw::NotMasked, 1002),
        (frame(0xc2, b"a", mask), Flaw::Reserved, 1002),
        (frame(0x81, b"a", mask), Flaw::Text, 1003),
        (frame(0x80, b"a", mask), Flaw::Order, 1002),
        ([frame(0x02, b"a", mask), frame(0x82, b"b", mask)].concat(), Flaw::Order, 1002),
        (frame(0x09, b"a", mask), Flaw::Control, 1002),
        (frame(0x89, &[0; 126], mask), Flaw::Control, 1002),
        (frame(0x83, b"a", mask), Flaw::Opcode, 1002),
        (long, Flaw::Length, 1002),
    ] {
        assert_eq!(read(&bytes, &[1]), Err(flaw));
        assert_eq!(flaw.code(), code);
    }
    let bytes = [frame(0x88, b"\x03\xe8", mask), frame(0x82, b"late", mask)].concat();
    assert_eq!(read(&bytes, &[100]), Ok((vec![], vec![Control::Close])));
}

/// Reads from one buffer, writes a few bytes at a time to another.
struct Slow(Vec<u8>, Arc<Mutex<Vec<u8>>>);

impl AsyncRead for Slow {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let n = buf.len().min(self.0.len()).min(7);
        buf[..n].copy_from_slice(&self.0[..n]);
        self.0.drain(..n);
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Slow {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = buf.len().min(3);
        self.1.lock().unwrap().extend_from_slice(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn pings_are_answered_between_frames_and_a_close_with_a_close() {
    let mask = [9, 8, 7, 6];
    let said = [
        frame(0x82, b"one", mask),
        frame(0x89, b"there?", mask),
        frame(0x82, &[7; 300], mask),
        frame(0x88, b"\x03\xe8", mask),
    ]
    .concat();
    let out = Arc::new(Mutex::new(Vec::new()));
    let mut socket = WebSocket::new(Box::new(Slow(said, out.clone())));
    block_on(async {
        socket.write_all(&[5; 126]).await.unwrap();
        let mut heard = Vec::new();
        socket.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [&b"one"[..], &[7; 300]].concat());
        assert!(socket.write_all(b"late").await.is_err(), "nothing comes behind a close frame");
    });
    let expected = [&[0x82, 126, 0, 126][..], &[5; 126], b"\x8a\x06there?", b"\x88\x02\x03\xe8"].concat();
    assert_eq!(*out.lock().unwrap(), expected);
}
