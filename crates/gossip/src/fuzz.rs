//! What the fuzz target `gossip` feeds: any bytes as what a peer sends.
//!
//! Only there under `--cfg fuzzing`, which cargo-fuzz sets, and in tests, which replay the corpus. It panics only when
//! a promise does not hold.

use bytes::Bytes;

use crate::{
    Frame, Framer, FramingError, Limits, Validation, Verifier, WireMessage,
    bundle::{Bundle, MAGIC, MOST, encode},
    decode,
};

/// Small enough that bytes which make sense reach every bound.
fn limits() -> Limits {
    Limits {
        frame: 4096,
        subscriptions: 4,
        messages: 4,
        ids: 8,
        topics: 3,
        peers: 2,
        topic: 16,
        id: 64,
        record: 64,
    }
}

/// A stream of frames, in blocks whose size the first byte says; and all of it as one RPC.
pub fn stream(bytes: &[u8]) {
    let Some((block, stream)) = bytes.split_first() else { return };
    let limits = limits();
    let mut framer = Framer::new(limits.frame);
    for mut block in stream.chunks(usize::from(*block).max(1)) {
        loop {
            match framer.next(&mut block) {
                Ok(Some(Frame::Rpc(frame))) => {
                    assert!(frame.len() <= limits.frame, "a frame beyond the limit");
                    rpc(&frame, &limits);
                }
                Ok(Some(Frame::TooLarge { bytes })) => assert!(bytes > limits.frame as u64),
                Ok(None) => break,
                Err(FramingError::NoLength | FramingError::Endless { .. }) => return,
            }
        }
        assert!(block.is_empty(), "bytes were left");
        assert!(framer.buffered() <= limits.frame, "more than a frame is held");
    }
    rpc(&Bytes::copy_from_slice(stream), &limits);
    bundle(stream);
}

/// A bundle that is decoded is encoded as the same, and each of its messages leads to its root.
fn bundle(bytes: &[u8]) {
    let payload = Bytes::from([&MAGIC[..], bytes].concat());
    let Some(Ok(bundle)) = Bundle::decode(&payload) else { return };
    assert!((1..=MOST).contains(&bundle.messages.len()), "{} messages", bundle.messages.len());
    let messages: Vec<&[u8]> = bundle.messages.iter().map(|message| &message[..]).collect();
    assert_eq!(encode(&bundle.signature, &messages), payload, "there is one way to write a bundle");
}

fn rpc(frame: &Bytes, limits: &Limits) {
    let Ok(mut rpc) = decode(frame, limits) else { return };
    let control = &rpc.control;
    assert!(rpc.subscriptions.len() <= limits.subscriptions && rpc.publish.len() <= limits.messages);
    assert!(control.iwant.len() <= limits.ids && control.idontwant.len() <= limits.ids);
    assert!(control.ihave.iter().map(|ihave| ihave.ids.len()).sum::<usize>() <= limits.ids);
    assert!(control.prune.iter().all(|prune| prune.peers.len() <= limits.peers));
    let mut verifier = Verifier::new(4);
    for message in &rpc.publish {
        let again = WireMessage::new(&message.parts());
        assert_eq!(again.signed(), message.signed(), "what is signed does not depend on how it came");
        assert!(message.encoded().len() <= frame.len(), "what is passed on is no larger than what came");
        let _ = Validation::Strict.claims(message);
        let _ = Validation::Permissive.claims(message);
        assert!(!verifier.verify(message) || message.signature().is_some_and(|s| !s.is_empty()));
        let mut kept = message.clone();
        kept.compact();
        assert_eq!(kept.encoded(), message.encoded());
    }
    // What was understood can be said, and is understood as the same.
    let mut said = Vec::new();
    rpc.ignored = 0;
    // A key that nobody needs is not passed on.
    rpc.publish.iter_mut().for_each(WireMessage::compact);
    rpc.encode(&mut said);
    let mut framer = Framer::new(usize::MAX);
    match framer.next(&mut &said[..]) {
        Ok(Some(Frame::Rpc(frame))) => {
            let again = decode(&frame, &Limits { frame: usize::MAX, ..limits.clone() });
            assert_eq!(again, Ok(rpc), "said again, it is another one");
        }
        other => panic!("no frame: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    /// The corpus is there in the repository, and not in the package.
    #[test]
    fn the_corpus_breaks_no_promise() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/gossip");
        let inputs: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(inputs.len() >= 5, "{inputs:?}");
        for input in inputs {
            super::stream(&std::fs::read(input).unwrap());
        }
    }
}
