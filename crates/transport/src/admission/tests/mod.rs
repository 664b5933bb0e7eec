//! Admission over real QUIC and TCP on loopback: who is let in, and everything that is not.

mod harness;
mod keys;

use std::{future::poll_fn, pin::Pin, time::Duration};

use futures::{FutureExt, StreamExt, future::join, stream::FuturesUnordered};
use libp2p::{
    PeerId,
    core::{muxing::StreamMuxer, transport::TransportEvent},
};

use super::{
    proof::{LENGTH, Role, Session, VERSION},
    *,
};
use harness::{Listens, PATIENCE, Raw, dial, run};

fn key() -> NetworkKey {
    NetworkKey::generate().unwrap()
}

fn ring(keys: &[&NetworkKey]) -> Keyring {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    let lines: Vec<_> = keys.iter().map(|key| key.encode().to_string()).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    Keyring::read(&file).unwrap()
}

fn rules(keys: Keyring) -> Rules {
    Rules { keys, timeout: PATIENCE, failures: 1000, forgive: Duration::from_secs(10), proving: 32 }
}

fn why<T, E: std::error::Error>(outcome: Result<T, Error<E>>) -> NotAdmitted {
    match outcome {
        Err(Error::NotAdmitted { source, .. }) => source,
        Err(e) => panic!("not this error: {e}"),
        Ok(_) => panic!("admitted"),
    }
}

#[test]
fn those_who_know_the_key_are_admitted_and_talk() {
    run(async |harness| {
        let key = key();
        let mut one = harness.admitted(rules(Keyring::new(key.clone())));
        let mut two = harness.admitted(rules(Keyring::new(key)));
        let at = one.listen("127.0.0.1").await;
        let (accepted, dialed) = join(one.accept(), dial(&mut two, &at)).await;
        let (_, accepted) = accepted.unwrap();
        let (_, dialed) = dialed.unwrap();
        let (mut a, mut b) = join(Raw::open(&harness, accepted, true), async {
            let mut raw = Raw::open(&harness, dialed, false).await;
            raw.say(b"hello").await;
            raw
        })
        .await;
        assert_eq!(a.hear().await, b"hello", "the first stream that is seen is not the exchange's");
        a.say(b"hello yourself").await;
        assert_eq!(b.hear().await, b"hello yourself");
    });
}

#[test]
fn keys_are_rotated_without_a_gap() {
    run(async |harness| {
        let (old, new) = (key(), key());
        type Row<'a> = (&'a [&'a NetworkKey], &'a [&'a NetworkKey], bool);
        let rows: &[Row<'_>] = &[
            // The dialer's keys, the listener's, and whether they meet.
            (&[&old], &[&old, &new], true),
            (&[&old, &new], &[&old], true),
            (&[&old, &new], &[&new, &old], true),
            (&[&new, &old], &[&old, &new], true),
            (&[&new, &old], &[&new], true),
            (&[&new], &[&new, &old], true),
            // A stage skipped: who has only the old key does not know the new one.
            (&[&new, &old], &[&old], false),
            (&[&old], &[&new], false),
        ];
        for (dialer, listener, meet) in rows {
            let mut one = harness.admitted(rules(ring(listener)));
            let mut two = harness.admitted(rules(ring(dialer)));
            let at = one.listen("127.0.0.1").await;
            let (accepted, dialed) = join(one.accept(), dial(&mut two, &at)).await;
            assert_eq!((accepted.is_ok(), dialed.is_ok()), (*meet, *meet), "{dialer:?} {listener:?}");
        }
        // In a running node.
        let ring_of_one = Keyring::new(old.clone());
        let (mut one, mut two) =
            (harness.admitted(rules(ring_of_one.clone())), harness.admitted(rules(ring(&[&new]))));
        let at = one.listen("127.0.0.1").await;
        let (_, refused) = join(one.accept(), dial(&mut two, &at)).await;
        why(refused);
        ring_of_one.replace(&ring(&[&old, &new]));
        let (accepted, dialed) = join(one.accept(), dial(&mut two, &at)).await;
        assert!(accepted.is_ok() && dialed.is_ok());
    });
}

#[test]
fn another_key_is_not_admitted_and_nothing_stays() {
    run(async |harness| {
        let mut one = harness.admitted(rules(Keyring::new(key())));
        let mut two = harness.admitted(rules(Keyring::new(key())));
        let at = one.listen("127.0.0.1").await;
        let (accepted, dialed) = join(one.accept(), dial(&mut two, &at)).await;
        assert_eq!(why(accepted), NotAdmitted::Unproven);
        assert_eq!(why(dialed), NotAdmitted::HungUp);
        harness.settled(&one).await;
        harness.settled(&two).await;
    });
}

#[test]
fn whatever_else_is_said_is_not_admitted_and_nothing_stays() {
    run(async |harness| {
        let multistream = b"\x13/multistream/1.0.0\n".to_vec();
        let rows = [
            ("no network key: libp2p's own first words", multistream, NotAdmitted::Unproven),
            ("an empty message", vec![], NotAdmitted::HungUp),
            ("truncated", vec![VERSION; LENGTH - 1], NotAdmitted::Unproven),
            ("one byte too long", vec![VERSION; LENGTH + 1], NotAdmitted::Unproven),
            ("a megabyte", vec![VERSION; 1 << 20], NotAdmitted::Unproven),
            ("a wrong proof", vec![VERSION; LENGTH], NotAdmitted::Unproven),
            ("another version", vec![VERSION + 1; LENGTH], NotAdmitted::Unproven),
        ];
        for (what, message, expected) in rows {
            if message.is_empty() && !harness.tells_of_empty_streams() {
                continue;
            }
            let mut guard = harness.admitted(rules(Keyring::new(key())));
            let at = guard.listen("127.0.0.1").await;
            let mut stranger = harness.plain();
            let says = async {
                let (_, connection) = dial(&mut stranger, &at).await.unwrap();
                let mut raw = Raw::open(&harness, connection, false).await;
                raw.say(&message).await;
                assert_eq!(raw.hear().await, b"", "{what}: nothing is said to a stranger");
            };
            let (accepted, ()) = join(guard.accept(), says).await;
            assert_eq!(why(accepted), expected, "{what}");
            harness.settled(&guard).await;
        }
    });
}

#[test]
fn who_says_nothing_is_given_up_in_time() {
    run(async |harness| {
        let mut guard =
            harness.admitted(Rules { timeout: Duration::from_millis(50), ..rules(Keyring::new(key())) });
        let at = guard.listen("127.0.0.1").await;
        let mut stranger = harness.plain();
        let silent = async {
            let (_, connection) = dial(&mut stranger, &at).await.unwrap();
            let mut raw = Raw::open(&harness, connection, false).await;
            assert_eq!(raw.hear().await, b"");
        };
        let (accepted, ()) = join(guard.accept(), silent).await;
        assert_eq!(why(accepted), NotAdmitted::Silent);
        harness.settled(&guard).await;
        // A listener without a key says nothing either: it waits for libp2p's first words.
        let mut open = harness.plain();
        let at = open.listen("127.0.0.1").await;
        let (accepted, dialed) = join(open.accept(), dial(&mut guard, &at)).await;
        let (_, _kept_open) = accepted.unwrap();
        assert_eq!(why(dialed), NotAdmitted::Silent);
        harness.settled(&guard).await;
    });
}

#[test]
fn a_proof_sent_back_to_its_author_proves_nothing() {
    run(async |harness| {
        let mut guard = harness.admitted(rules(Keyring::new(key())));
        let mut mirror = harness.plain();
        let at = mirror.listen("127.0.0.1").await;
        let reflect = async {
            let (_, connection) = mirror.accept().await.unwrap();
            let mut raw = Raw::open(&harness, connection, true).await;
            let proof = raw.hear().await;
            assert_eq!(proof.len(), LENGTH);
            raw.say(&proof).await;
            raw
        };
        let (dialed, _raw) = join(dial(&mut guard, &at), reflect).await;
        assert_eq!(why(dialed), NotAdmitted::Unproven);
        harness.settled(&guard).await;
    });
}

#[test]
fn a_proof_is_worth_nothing_in_another_session_or_passed_on_by_someone_in_the_middle() {
    run(async |harness| {
        let key = key();
        let mut alice = harness.admitted(rules(Keyring::new(key.clone())));
        let mut bob = harness.admitted(rules(Keyring::new(key)));
        let to_bob = bob.listen("127.0.0.1").await;
        // Mallory is dialed by Alice, dials Bob at the same time, and passes on what she hears.
        let mut mallory = harness.plain();
        let to_mallory = mallory.listen("127.0.0.1").await;
        let middle = async {
            let (_, from_alice) = mallory.accept().await.unwrap();
            let mut alice = Raw::open(&harness, from_alice, true).await;
            let proof = alice.hear().await;
            let (_, connection) = dial(&mut mallory, &to_bob).await.unwrap();
            let mut bob = Raw::open(&harness, connection, false).await;
            assert_ne!(alice.binding, bob.binding);
            bob.say(&proof).await;
            let answer = bob.hear().await;
            alice.say(&answer).await;
            (proof, answer)
        };
        let both = join(dial(&mut alice, &to_mallory), bob.accept());
        let ((at_alice, at_bob), (proof, answer)) = join(both, middle).await;
        assert_eq!(why(at_bob), NotAdmitted::Unproven);
        assert_eq!(answer, b"", "nothing to learn for the one in the middle");
        assert_eq!(why(at_alice), NotAdmitted::HungUp);
        // And once more, in a session of its own, later.
        let replay = async {
            let (_, connection) = dial(&mut mallory, &to_bob).await.unwrap();
            let mut raw = Raw::open(&harness, connection, false).await;
            raw.say(&proof).await;
            raw.hear().await
        };
        let (at_bob, answer) = join(bob.accept(), replay).await;
        assert_eq!(why(at_bob), NotAdmitted::Unproven);
        assert_eq!(answer, b"");
    });
}

#[test]
fn an_address_that_fails_too_often_is_refused_before_the_handshake_and_others_are_not() {
    run(async |harness| {
        let key = key();
        let limited = Rules { failures: 3, ..rules(Keyring::new(key.clone())) };
        let mut guard = harness.admitted(limited);
        let at = guard.listen("127.0.0.1").await;
        let mut stranger = harness.admitted(rules(Keyring::new(self::key())));
        stranger.listen("127.0.0.2").await;
        for _ in 0..3 {
            let (accepted, dialed) = join(guard.accept(), dial(&mut stranger, &at)).await;
            assert_eq!(why(accepted), NotAdmitted::Unproven);
            assert!(dialed.is_err());
        }
        let (accepted, dialed) = join(guard.accept(), dial(&mut stranger, &at)).await;
        assert!(matches!(accepted, Err(Error::Throttled { .. })), "{:?}", accepted.err());
        assert!(matches!(dialed, Err(Error::Transport(_))), "no handshake: {:?}", dialed.err());
        let mut friend = harness.admitted(rules(Keyring::new(key)));
        friend.listen("127.0.0.3").await;
        let (accepted, dialed) = join(guard.accept(), dial(&mut friend, &at)).await;
        assert!(accepted.is_ok() && dialed.is_ok());
    });
}

#[test]
fn silent_strangers_take_no_place_from_those_who_know_the_key() {
    run(async |harness| {
        let key = key();
        let mut guard = harness.admitted(Rules { proving: 4, ..rules(Keyring::new(key.clone())) });
        let at = guard.listen("127.0.0.1").await;
        let mut strangers = harness.plain();
        let mut dials: FuturesUnordered<_> = (0..12).map(|_| dial(&mut strangers, &at)).collect();
        let (mut upgrades, mut dialed, mut turned_away) = (FuturesUnordered::new(), 0, 0);
        // Two of one address may be proving themselves, and never do.
        while turned_away < 10 || dialed < 12 {
            futures::select! {
                event = guard.event().fuse() => if let TransportEvent::Incoming { upgrade, .. } = event {
                    upgrades.push(upgrade);
                },
                outcome = upgrades.select_next_some() => {
                    // On a slow machine, one gives way to the next.
                    assert!(matches!(why(outcome), NotAdmitted::Crowded | NotAdmitted::Silent));
                    turned_away += 1;
                }
                outcome = dials.select_next_some() => {
                    dialed += 1;
                    if let Ok((_, mut link)) = outcome {
                        // Driven, and silent.
                        let drive = poll_fn(move |cx| Pin::new(&mut link).poll(cx).map(drop));
                        harness.rt.spawn(drive.boxed());
                    }
                }
            }
        }
        let mut friend = harness.admitted(rules(Keyring::new(key)));
        friend.listen("127.0.0.3").await;
        let mut dialed = std::pin::pin!(dial(&mut friend, &at).fuse());
        let admitted = loop {
            futures::select! {
                event = guard.event().fuse() => if let TransportEvent::Incoming { upgrade, .. } = event {
                    upgrades.push(upgrade);
                },
                outcome = upgrades.select_next_some() => break outcome,
                outcome = dialed => drop(outcome.unwrap()),
            }
        };
        assert!(admitted.is_ok(), "{:?}", admitted.err());
        assert_eq!(upgrades.len(), 2, "the others are still silent");
    });
}

#[test]
fn a_crowd_of_strangers_leaves_nothing_behind() {
    run(async |harness| {
        let mut guard = harness.admitted(rules(Keyring::new(key())));
        let at = guard.listen("127.0.0.1").await;
        let mut stranger = harness.admitted(rules(Keyring::new(key())));
        let mut dials: FuturesUnordered<_> = (0..32).map(|_| dial(&mut stranger, &at)).collect();
        let mut upgrades = FuturesUnordered::new();
        let mut failed = 0;
        while failed < 32 {
            futures::select! {
                event = guard.event().fuse() => match event {
                    TransportEvent::Incoming { upgrade, .. } => upgrades.push(upgrade),
                    _ => panic!("an incoming connection was expected"),
                },
                outcome = upgrades.select_next_some() => assert!(outcome.is_err()),
                outcome = dials.select_next_some() => {
                    assert!(outcome.is_err());
                    failed += 1;
                }
            }
        }
        upgrades.by_ref().for_each(|outcome| async move { assert!(outcome.is_err()) }).await;
        harness.settled(&guard).await;
        harness.settled(&stranger).await;
    });
}

#[test]
fn a_proof_holds_for_one_key_one_role_one_session_and_these_two_peers() {
    let (right, other) = (key(), key());
    let [initiator, responder, third] = [(); 3].map(|()| PeerId::random());
    let session = Session { binding: [7; 32], initiator, responder };
    let keys = [other.clone(), right.clone()];
    let proof = session.prove(&right, Role::Initiator);
    assert_eq!(session.verify(&keys, Role::Initiator, &proof), Some(&right));
    assert_eq!(session.verify(&[other], Role::Initiator, &proof), None);
    assert_eq!(session.verify(&keys, Role::Responder, &proof), None);
    for changed in [
        Session { binding: [8; 32], ..session.clone() },
        Session { initiator: third, ..session.clone() },
        Session { responder: third, ..session.clone() },
        Session { initiator: responder, responder: initiator, ..session },
    ] {
        assert_eq!(changed.verify(&keys, Role::Initiator, &proof), None, "{changed:?}");
    }
    for bit in 0..LENGTH * 8 {
        let mut flipped = proof;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(session.verify(&keys, Role::Initiator, &flipped), None, "bit {bit}");
    }
    for length in 0..LENGTH {
        assert_eq!(session.verify(&keys, Role::Initiator, &proof[..length]), None);
    }
}

/// The vectors of docs/ADMISSION.md: whoever implements it elsewhere can hold theirs against them.
#[test]
fn the_vectors_of_the_specification_hold() {
    let key =
        NetworkKey::decode("smidge-network-key-1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    let peer = |text: &str| text.parse::<PeerId>().unwrap();
    let session = Session {
        binding: [0xab; 32],
        initiator: peer("12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz"),
        responder: peer("12D3KooWGatU9DkTKi3JJnMmsGD5Pj3YUBPpTCnZBMAEMuDcN6RA"),
    };
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let specification = include_str!("../../../../../docs/ADMISSION.md");
    for vector in [
        hex(&*key.derive(b"proof")),
        hex(&session.prove(&key, Role::Initiator)),
        hex(&session.prove(&key, Role::Responder)),
        key.fingerprint(),
    ] {
        assert!(specification.contains(&vector), "{vector} is not in docs/ADMISSION.md");
    }
}
