use curve25519_dalek::{EdwardsPoint, Scalar, constants::EIGHT_TORSION, edwards::CompressedEdwardsY};
use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey};
use proptest::prelude::*;
use sha2::{Digest, Sha512};

use super::{frequent::STANDING, *};
use crate::{Authenticity, Author, MessageParts, Topic};

/// What stock's `verify_signature` does, word for word: decode, compare, put together, ask libp2p-identity.
fn stock(message: &WireMessage) -> bool {
    let Some(source) = message.from().and_then(|from| PeerId::from_bytes(from).ok()) else { return false };
    let Some(signature) = message.signature() else { return false };
    let key = match message.key().map(PublicKey::try_decode_protobuf) {
        Some(Ok(key)) => key,
        _ => match PublicKey::try_decode_protobuf(&source.to_bytes()[2..]) {
            Ok(key) => key,
            Err(_) => return false,
        },
    };
    source == key.to_peer_id() && key.verify(&[SIGNING_PREFIX, message.signed()].concat(), signature)
}

fn author() -> Author {
    Author::new(Authenticity::Signed(Keypair::generate_ed25519()), 0)
}

fn say(author: &mut Author, data: &[u8]) -> WireMessage {
    author.compose(&Topic::from("topic"), data, &mut fastrand::Rng::with_seed(0)).unwrap()
}

/// The same message with another signature.
fn resigned(message: &WireMessage, signature: &[u8]) -> WireMessage {
    WireMessage::new(&MessageParts { signature: Some(signature), ..message.parts() })
}

/// A verifier to which each of `authors` is a frequent one.
fn acquainted(authors: &mut [Author]) -> Verifier {
    let mut verifier = Verifier::default();
    for author in authors {
        for _ in 0..STANDING {
            assert!(verifier.verify(&say(author, b"hello")));
        }
    }
    verifier
}

#[test]
fn a_message_holds_and_no_other_one_with_its_signature() {
    let mut verifier = Verifier::default();
    let message = say(&mut author(), b"data");
    assert!(verifier.verify(&message));
    let parts = message.parts();
    let other = say(&mut author(), b"data");
    for forged in [
        MessageParts { data: Some(b"Data"), ..parts },
        MessageParts { data: None, ..parts },
        MessageParts { topic: "other", ..parts },
        MessageParts { seqno: Some(&[0; 8]), ..parts },
        MessageParts { from: other.from(), ..parts },
        MessageParts { from: None, ..parts },
        MessageParts { from: Some(b"nobody"), ..parts },
        MessageParts { from: Some(&[]), ..parts },
        MessageParts { from: Some(&[0]), ..parts },
        MessageParts { signature: other.signature(), ..parts },
        MessageParts { signature: None, ..parts },
        MessageParts { signature: Some(&[]), ..parts },
        MessageParts { signature: Some(&[0; 64]), ..parts },
    ] {
        let forged = WireMessage::new(&forged);
        assert!(!verifier.verify(&forged), "{forged:?}");
        assert!(!stock(&forged));
    }
}

#[test]
fn a_key_that_comes_along_has_to_be_the_authors() {
    let keypair = Keypair::generate_ed25519();
    let own = keypair.public().encode_protobuf();
    let others = Keypair::generate_ed25519().public().encode_protobuf();
    let message = say(&mut Author::new(Authenticity::Signed(keypair), 0), b"data");
    let mut verifier = Verifier::default();
    // Not known yet, and then known.
    for _ in 0..2 {
        for (key, holds) in [(&own[..], true), (&others, false), (b"no key", true), (&[], true)] {
            let message = WireMessage::new(&MessageParts { key: Some(key), ..message.parts() });
            assert_eq!(stock(&message), holds);
            assert_eq!(verifier.verify(&message), holds, "with {key:?}");
            assert_eq!(verifier.verify_batch(&vec![message; 8]), vec![holds; 8]);
        }
        assert!(verifier.verify(&message));
    }
}

#[test]
fn inventing_authors_pushes_nobody_out() {
    let mut verifier = Verifier::new(4);
    let message = say(&mut author(), b"data");
    assert!(verifier.verify(&message));
    for _ in 0..100 {
        let from = PeerId::random().to_bytes();
        assert!(!verifier.verify(&WireMessage::new(&MessageParts { from: Some(&from), ..message.parts() })));
    }
    assert_eq!(verifier.authors.len(), 1);
    for _ in 0..100 {
        assert!(verifier.verify(&say(&mut author(), b"data")));
        assert!(verifier.authors.len() <= 4);
    }
}

/// A signature of a key's owner whose R or key has a component of small order, as only the owner can make it.
fn crooked(
    secret: Scalar,
    torsion_of_a: EdwardsPoint,
    torsion_of_r: EdwardsPoint,
    nonce: u64,
) -> WireMessage {
    let a = (EdwardsPoint::mul_base(&secret) + torsion_of_a).compress();
    let key = [&[8, 1, 18, 32][..], a.as_bytes()].concat();
    let from = [&[0, 36][..], &key].concat();
    let parts = MessageParts {
        from: Some(&from),
        data: Some(b"data"),
        seqno: Some(&nonce.to_be_bytes()),
        topic: "topic",
        ..MessageParts::default()
    };
    let unsigned = WireMessage::new(&parts);
    let r = Scalar::from(nonce);
    let encoded: CompressedEdwardsY = (EdwardsPoint::mul_base(&r) + torsion_of_r).compress();
    let mut hash = Sha512::new();
    hash.update(encoded.as_bytes());
    hash.update(a.as_bytes());
    hash.update(SIGNING_PREFIX);
    hash.update(unsigned.signed());
    let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
    let signature = [encoded.to_bytes(), (r + k * secret).to_bytes()].concat();
    resigned(&unsigned, &signature)
}

#[test]
fn the_verdict_on_components_of_small_order_is_that_of_a_single_check_at_every_try() {
    // Two of them cancel each other out in a sum: nothing is summed up.
    for (key, pair) in EIGHT_TORSION.iter().flat_map(|a| EIGHT_TORSION.iter().map(move |b| (*a, *b))) {
        let secret = Scalar::from(123_456_789u64);
        let mut verifier = Verifier::default();
        for nonce in 1..=1000 {
            if verifier.authors.len() > 0 && nonce > 20 * u64::from(STANDING) {
                break;
            }
            verifier.verify(&crooked(secret, key, EIGHT_TORSION[0], nonce));
        }
        let batch: Vec<_> = (2000..2016u64)
            .map(|nonce| match nonce % 8 {
                0 => crooked(secret, key, pair, nonce),
                1 => crooked(secret, key, -pair, nonce),
                _ => crooked(secret, key, EIGHT_TORSION[0], nonce),
            })
            .collect();
        let expected: Vec<bool> = batch.iter().map(stock).collect();
        assert_eq!(verifier.verify_batch(&batch), expected);
        assert_eq!(batch.iter().map(|message| verifier.verify(message)).collect::<Vec<_>>(), expected);
        assert_eq!(verifier.frequent.len(), 1, "none of these was checked the short way");
    }
}

#[test]
fn more_frequent_authors_than_there_is_room_for_are_checked_all_the_same() {
    let mut authors: Vec<Author> = (0..30).map(|_| author()).collect();
    let mut verifier = acquainted(&mut authors);
    for _ in 0..3 {
        let messages: Vec<_> = authors.iter_mut().map(|author| say(author, b"data")).collect();
        assert_eq!(verifier.verify_batch(&messages), vec![true; 30]);
        assert!((1..=8).contains(&verifier.frequent.len()));
    }
    // Whoever was silent for a while makes room.
    let late = &mut authors[29];
    for _ in 0..200 {
        assert!(verifier.verify(&say(late, b"data")));
    }
    assert!(verifier.frequent.has(&late.peer().unwrap().to_bytes()));
    verifier.rest();
    assert!(verifier.verify(&say(late, b"data")));
    assert_eq!(verifier.frequent.len(), 0, "one that says something now and then is checked as any other");
}

#[test]
fn a_key_of_mixed_order_is_judged_as_by_stock_peers() {
    // Whether such a signature holds depends on its hash: the verdict has to be stock's each time.
    let secret = Scalar::from(987_654_321u64);
    let mut verifier = Verifier::default();
    let messages: Vec<_> =
        (1..200u64).map(|nonce| crooked(secret, EIGHT_TORSION[1], EIGHT_TORSION[0], nonce)).collect();
    let expected: Vec<bool> = messages.iter().map(stock).collect();
    assert!(expected.contains(&true) && expected.contains(&false));
    for _ in 0..3 {
        assert_eq!(verifier.verify_batch(&messages), expected);
    }
}

#[test]
fn an_encoding_that_is_not_the_only_one_does_not_hold() {
    let mut authors = [author()];
    let mut verifier = acquainted(&mut authors);
    let message = say(&mut authors[0], b"data");
    let signature = message.signature().unwrap();
    let mut variants = Vec::new();
    // s and s + l are the same number.
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut more = signature.to_vec();
    let mut carry = 0;
    for (byte, add) in more[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + add + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    variants.push(more);
    // Coordinates of the point of order 1 and 2, and not below the prime.
    for (lowest, rest, highest) in
        [(1, 0, 0), (1, 0, 0x80), (0xec, 0xff, 0x7f), (0xee, 0xff, 0x7f), (0xff, 0xff, 0xff)]
    {
        let mut r = [rest; 32];
        (r[0], r[31]) = (lowest, highest);
        variants.push([&r[..], &signature[32..]].concat());
    }
    let messages: Vec<_> = variants.iter().map(|signature| resigned(&message, signature)).collect();
    assert_eq!(verifier.verify_batch(&messages), vec![false; messages.len()]);
    let mut among = messages.clone();
    among.extend((0..8).map(|_| say(&mut authors[0], b"true")));
    let expected: Vec<bool> = among.iter().map(stock).collect();
    assert_eq!(verifier.verify_batch(&among), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_says_what_single_checks_say(
        spoiled in prop::collection::vec((0usize..3, 0u8..12, any::<prop::sample::Index>()), 0..150),
    ) {
        let mut authors = [author(), author(), author()];
        let mut verifier = acquainted(&mut authors[..2]);
        let messages: Vec<_> = spoiled
            .into_iter()
            .map(|(who, how, at)| {
                let message = say(&mut authors[who], b"data");
                let mut signature = message.signature().unwrap().to_vec();
                match how {
                    0 => {
                        let at = at.index(signature.len());
                        signature[at] ^= 1;
                    }
                    1 => signature.truncate(at.index(64)),
                    _ => {}
                }
                resigned(&message, &signature)
            })
            .collect();
        let expected: Vec<bool> = messages.iter().map(stock).collect();
        prop_assert_eq!(verifier.verify_batch(&messages), expected);
    }
}
