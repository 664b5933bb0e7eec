//! What the fuzz target `catchup` feeds: any bytes as the frames of a peer, to either side of a session.
//!
//! Only there under `--cfg fuzzing`, which cargo-fuzz sets, and in tests, which replay the corpus. It panics only when a
//! promise does not hold.

use std::time::Instant;

use crate::{
    Id, Initiator, Item, Key, Limits, Output, Responder, Snapshot, Store,
    frame::{Frame, Span},
};

/// Nine messages, a second apart.
struct Nine;

impl Nine {
    fn snapshot() -> Snapshot {
        let items = (1..=9).map(|n| Item { time: 1000 * n, id: Id::of(&(1000 * n).to_le_bytes()) });
        Snapshot::of(Key::new([0; 16]), items.collect())
    }
}

impl Store for Nine {
    fn record(&self, item: &Item) -> Option<&[u8]> {
        item.time.is_multiple_of(2000).then_some(b"record")
    }

    fn item(&self, record: &[u8]) -> Option<Item> {
        let time = u64::from_le_bytes(*record.first_chunk()?);
        Some(Item { time, id: Id::of(record) })
    }
}

/// Frames, each behind its length in one byte.
pub fn frames(bytes: &[u8]) {
    if let Ok(keyed) = crate::Keyed::decode(bytes) {
        assert_eq!(keyed.encode(), bytes, "one encoding");
    }
    let span = Span { from: 1000, until: 20_000, messages: 9, record: 100, now: 0 };
    let now = Instant::now();
    let mut initiator = Initiator::new(b"t", [0; 16], span, Nine::snapshot(), Limits::default(), now);
    let Output::Send(greeting) = initiator.poll(&Nine, now) else { return };
    let Ok((mut responder, _)) = Responder::new(&greeting, Limits::default(), now) else { return };
    responder.welcome(span, Nine::snapshot());
    let mut later = now;
    let mut left = bytes;
    while let Some((length, rest)) = left.split_first() {
        let (frame, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        left = rest;
        if let Ok(decoded) = Frame::decode(frame, 1000) {
            assert_eq!(decoded.encode(1000), frame, "one encoding");
        }
        let _ = Responder::new(frame, Limits::default(), now);
        while let Output::Wait(until) = responder.poll(later) {
            if until > later + Limits::default().silence / 2 {
                break;
            }
            later = until;
        }
        let _ = responder.receive(frame, &Nine);
        if initiator.receive(frame, &Nine).is_ok() {
            let _ = initiator.poll(&Nine, later);
        }
        assert!(initiator.summary().given <= 9, "each of its messages once");
    }
}

#[cfg(test)]
mod tests {
    /// The corpus is there in the repository, and not in the package.
    #[test]
    fn the_corpus_breaks_no_promise() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/catchup");
        let inputs: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty());
        for input in inputs {
            eprintln!("{}", input.display());
            super::frames(&std::fs::read(&input).unwrap());
        }
    }
}
