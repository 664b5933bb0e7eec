use libp2p::gossipsub;
use proptest::prelude::*;

use super::*;
use crate::Verifier;

fn wire<'a>(from: Option<&'a [u8]>, seqno: Option<&'a [u8]>, signature: Option<&'a [u8]>) -> WireMessage {
    WireMessage::new(&MessageParts { from, seqno, signature, topic: "t", ..MessageParts::default() })
}

#[test]
fn strict_wants_author_number_and_signature() {
    let peer = PeerId::random();
    let (from, seqno, signature) = (peer.to_bytes(), 7u64.to_be_bytes(), [1; 64]);
    let (from, seqno, signature) = (Some(&from[..]), Some(&seqno[..]), Some(&signature[..]));
    let claims = |from, seqno, signature| Validation::Strict.claims(&wire(from, seqno, signature));
    let all = Claims { source: Some(peer), sequence: Some(7), signed: true };
    assert_eq!(claims(from, seqno, signature), Ok(all));
    assert_eq!(claims(from, seqno, None), Err(Invalid::NoSignature));
    assert_eq!(claims(None, seqno, signature), Err(Invalid::NoSource));
    assert_eq!(claims(Some(&[]), seqno, signature), Err(Invalid::NoSource));
    assert_eq!(claims(Some(b"nobody"), seqno, signature), Err(Invalid::Source));
    assert_eq!(claims(from, None, signature), Err(Invalid::NoSequence));
    assert_eq!(claims(from, Some(b"7"), signature), Err(Invalid::Sequence));
    // Stock peers take no bytes for no number.
    assert_eq!(claims(from, Some(&[]), signature), Ok(Claims { sequence: None, ..all }));
}

#[test]
fn permissive_looks_at_what_is_there() {
    let peer = PeerId::random();
    let from = peer.to_bytes();
    let claims = |from, seqno, signature| Validation::Permissive.claims(&wire(from, seqno, signature));
    assert_eq!(claims(None, None, None), Ok(Claims { source: None, sequence: None, signed: false }));
    assert_eq!(
        claims(Some(&from), None, Some(b"s")),
        Ok(Claims { source: Some(peer), sequence: None, signed: true })
    );
    assert_eq!(claims(None, None, Some(b"s")), Err(Invalid::NoSource));
    assert_eq!(claims(Some(b"nobody"), None, None), Err(Invalid::Source));
    assert_eq!(claims(None, Some(b"7"), None), Err(Invalid::Sequence));
}

#[test]
fn anonymous_wants_nothing_of_it() {
    let claims = |from, seqno, signature| Validation::Anonymous.claims(&wire(from, seqno, signature));
    assert!(claims(None, None, None).is_ok());
    assert_eq!(claims(None, None, Some(b"s")), Err(Invalid::SignaturePresent));
    assert_eq!(claims(None, Some(b"7"), None), Err(Invalid::SequencePresent));
    assert_eq!(claims(Some(b"f"), None, None), Err(Invalid::SourcePresent));
}

#[test]
fn our_messages_are_what_their_kind_says() {
    let mut rng = fastrand::Rng::with_seed(1);
    let topic = Topic::from("t");
    let keypair = Keypair::generate_ed25519();
    let peer = keypair.public().to_peer_id();
    let mut author = Author::new(Authenticity::Signed(keypair), 41);
    assert_eq!(author.peer(), Some(peer));
    let message = author.compose(&topic, b"data", &mut rng).unwrap();
    let claims = Validation::Strict.claims(&message).unwrap();
    assert_eq!(claims, Claims { source: Some(peer), sequence: Some(42), signed: true });
    assert_eq!((message.topic(), message.data(), message.key()), ("t", &b"data"[..], None));
    assert!(Verifier::default().verify(&message));
    let next = author.compose(&topic, b"data", &mut rng).unwrap();
    assert_eq!(Validation::Strict.claims(&next).unwrap().sequence, Some(43));

    let mut author = Author::new(Authenticity::Author(peer), 0);
    let message = author.compose(&topic, b"data", &mut rng).unwrap();
    assert_eq!(Validation::Permissive.claims(&message).unwrap().source, Some(peer));
    let mut author = Author::new(Authenticity::RandomAuthor, 0);
    let sources: Vec<_> = (0..2)
        .map(|_| {
            let message = author.compose(&topic, b"data", &mut rng).unwrap();
            Validation::Permissive.claims(&message).unwrap().source.unwrap()
        })
        .collect();
    assert_ne!(sources[0], sources[1]);
    let mut author = Author::new(Authenticity::Anonymous, 0);
    let message = author.compose(&topic, b"data", &mut rng).unwrap();
    assert!(Validation::Anonymous.claims(&message).is_ok());
    assert_eq!(author.peer(), None);
}

proptest! {
    #[test]
    fn a_composed_message_reads_as_it_was_meant(
        topic in "[a-z/]{1,100}",
        data in prop::collection::vec(any::<u8>(), 0..2000),
        sequence in any::<u64>(),
    ) {
        let mut author = Author::new(Authenticity::Signed(Keypair::generate_ed25519()), sequence);
        let message = author.compose(&Topic::from(topic.as_str()), &data, &mut fastrand::Rng::with_seed(0)).unwrap();
        prop_assert_eq!(message.topic(), topic);
        prop_assert_eq!(message.data(), &data[..]);
        let again = WireMessage::new(&message.parts());
        prop_assert_eq!(again.encoded(), message.encoded());
        prop_assert!(Verifier::default().verify(&message));
    }
}

/// Stock's own words for the modes are the same four.
#[test]
fn there_are_as_many_modes_as_in_stock() {
    for (stock, ours) in [
        (gossipsub::ValidationMode::Strict, Validation::Strict),
        (gossipsub::ValidationMode::Permissive, Validation::Permissive),
        (gossipsub::ValidationMode::Anonymous, Validation::Anonymous),
        (gossipsub::ValidationMode::None, Validation::None),
    ] {
        assert_eq!(format!("{stock:?}"), format!("{ours:?}"));
    }
}
