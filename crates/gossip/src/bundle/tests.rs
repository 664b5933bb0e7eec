use libp2p::identity::Keypair;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{Authenticity, Author, Topic, Validation};

fn author() -> (Keypair, PeerId) {
    let key = Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    (key, peer)
}

/// As it would arrive.
fn published(key: &Keypair, topic: &str, messages: &[&[u8]]) -> Message {
    let mut author = Author::new(Authenticity::Signed(key.clone()), 7);
    let topic = Topic::from(topic);
    let wire = author.compose_bundle(&topic, messages, &mut fastrand::Rng::with_seed(1)).unwrap();
    let claims = Validation::Strict.claims(&wire).unwrap();
    Message { source: claims.source, sequence: claims.sequence, topic, data: wire.data_bytes() }
}

/// The definition of RFC 6962, 2.1, word for word.
fn by_definition(messages: &[Vec<u8>]) -> Hash {
    match messages {
        [one] => leaf(one),
        many => {
            let k = (many.len() - 1).ilog2();
            let (left, right) = many.split_at(1 << k);
            node(&by_definition(left), &by_definition(right))
        }
    }
}

#[test]
fn what_was_written_down_still_holds() {
    // BUNDLE.md has these.
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let messages: [&[u8]; 3] = [b"a", b"", b"ccc"];
    assert_eq!(hex(&root(&messages)), ROOT);
    assert_eq!(hex(&encode(&[9; 2], &messages)), "ff62756e646c65010209090161000363 6363".replace(' ', ""));
    let statement = Statement::new("t", 258, &messages).to_bytes();
    assert_eq!(
        hex(&statement),
        format!("{}{}00000003{ROOT}74", hex(b"smidge-bundle-v1:"), "0000000000000102")
    );
}

const ROOT: &str = "4cd4b71058188e895aa92db4071cdc7ef83f90be4da21f402f30fb36c9121155";

#[test]
fn a_bundle_is_taken_from_its_author_in_its_topic_under_its_number_alone() {
    let (key, _) = author();
    let whole = published(&key, "t", &[b"one", b"two"]);
    let bundle = Bundle::of(&whole).unwrap().unwrap();
    assert_eq!(bundle.messages, [&b"one"[..], b"two"]);
    let (_, other) = author();
    for message in [
        Message { source: Some(other), ..whole.clone() },
        Message { topic: Topic::from("u"), ..whole.clone() },
        Message { sequence: Some(9), ..whole.clone() },
    ] {
        assert_eq!(Bundle::of(&message), Some(Err(BundleError::Signature)));
    }
    for message in [Message { source: None, ..whole.clone() }, Message { sequence: None, ..whole.clone() }] {
        assert_eq!(Bundle::of(&message), Some(Err(BundleError::Author)));
    }
    let plain = Message { data: Bytes::from_static(b"bundle"), ..whole };
    assert_eq!(Bundle::of(&plain), None);
}

#[test]
fn what_is_too_much_too_little_or_not_the_only_way_to_say_it_is_refused() {
    let decode = |data: Vec<u8>| Bundle::decode(&Bytes::from(data)).unwrap().map(|b| b.messages.len());
    let many = vec![&b""[..]; MOST + 1];
    assert_eq!(decode(encode(&[1; 64], &many[..MOST])), Ok(MOST));
    assert_eq!(decode(encode(&[1; 64], &many)), Err(BundleError::Count));
    assert_eq!(decode(encode(&[1; 64], &[])), Err(BundleError::Count));
    assert_eq!(decode(encode(&[1; LONGEST_SIGNATURE + 1], &[b"x"])), Err(BundleError::Length));
    assert_eq!(decode([&MAGIC[..], &[0, 0x80, 0]].concat()), Err(BundleError::Length));
    assert_eq!(decode([&MAGIC[..], &[0, 0xff, 0xff, 0xff, 0xff, 0xff]].concat()), Err(BundleError::Length));
    assert_eq!(decode([&MAGIC[..], &[0, 2, 1]].concat()), Err(BundleError::Short));
    assert_eq!(decode(MAGIC.to_vec()), Err(BundleError::Short));
}

#[test]
fn the_hash_of_a_node_is_no_message() {
    // Without prefixes, the two hashes of a level would be a message with the same root.
    let messages = [b"a".to_vec(), b"b".to_vec()];
    let forged = [leaf(b"a"), leaf(b"b")].concat();
    assert_ne!(root(&[forged]), root(&messages));
}

proptest! {
    #[test]
    fn what_was_put_in_comes_out_and_each_proves_itself_and_nothing_else(
        messages in vec(vec(any::<u8>(), 0..200), 1..40), other in vec(any::<u8>(), 0..200), at in any::<u32>()
    ) {
        let (key, peer) = author();
        let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let whole = published(&key, "t", &slices);
        let bundle = Bundle::of(&whole).unwrap().unwrap();
        prop_assert_eq!(&bundle.messages, &messages);
        prop_assert_eq!(root(&messages), by_definition(&messages));
        let (sequence, count) = (whole.sequence.unwrap(), messages.len() as u32);
        for (index, message) in messages.iter().enumerate() {
            let proof = bundle.proof(sequence, index as u32).unwrap();
            prop_assert_eq!(proof.verify(&peer, "t", message), Ok(()));
            if other != *message {
                prop_assert!(proof.verify(&peer, "t", &other).is_err());
            }
            prop_assert!(proof.verify(&peer, "u", message).is_err());
            let mut others = vec![
                Proof { sequence: sequence + 1, ..proof.clone() },
                Proof { count: count + 1, ..proof.clone() },
            ];
            let mut longer = proof.clone();
            longer.path.push([0; 32]);
            others.push(longer);
            if at != index as u32 {
                others.push(Proof { index: at, ..proof.clone() });
            }
            for other in others {
                prop_assert!(other.verify(&peer, "t", message).is_err());
            }
        }
        prop_assert_eq!(bundle.proof(sequence, count), None);
    }

    #[test]
    fn whatever_is_decoded_is_encoded_the_same(bytes in vec(any::<u8>(), 0..300)) {
        let data = Bytes::from([&MAGIC[..], &bytes].concat());
        if let Some(Ok(bundle)) = Bundle::decode(&data) {
            let messages: Vec<&[u8]> = bundle.messages.iter().map(|m| &m[..]).collect();
            prop_assert_eq!(&encode(&bundle.signature, &messages)[..], &data[..]);
        }
    }

    #[test]
    fn a_bundle_that_was_changed_anywhere_is_none(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (key, _) = author();
        let whole = published(&key, "t", &[b"one", b"two", b"three"]);
        let mut data = whole.data.to_vec();
        data[at.index(whole.data.len())] ^= 1_u8 << bit;
        let changed = Bundle::of(&Message { data: data.into(), ..whole });
        prop_assert!(!matches!(changed, Some(Ok(_))));
    }
}
