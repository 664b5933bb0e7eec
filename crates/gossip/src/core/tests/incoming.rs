use libp2p::identity::Keypair;

use super::bench::*;
use crate::{PeerScoreParams, TopicScoreParams, Validation, WireMessage, core::*};

/// Following "t", where an invalid message costs something.
fn bench(config: Config) -> Bench {
    let mut bench = Bench::new(config).following("t");
    let topic_params = TopicScoreParams {
        invalid_message_deliveries_weight: -1.0,
        invalid_message_deliveries_decay: 0.99,
        time_in_mesh_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        ..TopicScoreParams::default()
    };
    let params = PeerScoreParams { app_specific_weight: 1.0, ..PeerScoreParams::default() };
    bench.core.score_peers(params, PeerScoreThresholds::default(), bench.now).unwrap();
    bench.core.set_topic_params(topic("t"), topic_params).unwrap();
    bench
}

#[test]
fn a_message_that_is_known_costs_no_signature_check_and_is_delivered_once() {
    let mut bench = bench(Config::default());
    let peers = bench.peers(6, &["t"]);
    let message = signed(&Keypair::generate_ed25519(), 1, "t", b"once");
    for peer in &peers {
        bench.message(*peer, &message);
        bench.turn();
    }
    assert_eq!(bench.delivered(), [b"once"]);
    assert_eq!(bench.verified, 1);
}

#[test]
fn copies_that_come_before_the_check_wait_together() {
    let mut bench = bench(Config::default());
    let peers = bench.peers(6, &["t"]);
    let message = signed(&Keypair::generate_ed25519(), 1, "t", b"once");
    peers.iter().for_each(|peer| bench.message(*peer, &message));
    assert_eq!(bench.delivered(), [b"once"]);
    assert_eq!(bench.verified, 1);
    for peer in &peers {
        assert!(bench.merged(peer).publish.is_empty(), "all of them have it");
    }
}

#[test]
fn a_forged_copy_ahead_of_the_true_one_does_not_keep_it_out() {
    let mut bench = bench(Config::default());
    let [forger, honest] = bench.peers(2, &["t"])[..] else { panic!() };
    let message = signed(&Keypair::generate_ed25519(), 1, "t", b"true");
    bench.message(forger, &forged(&message, b"lie"));
    bench.turn();
    bench.message(honest, &message);
    assert_eq!(bench.delivered(), [b"true"]);
    assert!(bench.core.score(&forger).unwrap() < 0.0);
    assert!(bench.core.score(&honest).unwrap() > 0.0);
}

#[test]
fn a_forged_copy_beside_the_true_one_does_not_keep_it_out() {
    for forged_first in [true, false] {
        let mut bench = bench(Config::default());
        let [forger, honest] = bench.peers(2, &["t"])[..] else { panic!() };
        let message = signed(&Keypair::generate_ed25519(), 1, "t", b"true");
        let lie = forged(&message, b"lie");
        if forged_first {
            bench.message(forger, &lie);
            bench.message(honest, &message);
        } else {
            bench.message(honest, &message);
            bench.message(forger, &lie);
        }
        assert_eq!(bench.delivered(), [b"true"]);
        assert!(bench.core.score(&forger).unwrap() < 0.0);
        assert!(bench.core.score(&honest).unwrap() > 0.0);
    }
}

#[test]
fn a_forged_copy_behind_the_true_one_counts_as_invalid_and_not_as_a_duplicate() {
    let mut bench = bench(Config::default());
    let [forger, honest] = bench.peers(2, &["t"])[..] else { panic!() };
    let message = signed(&Keypair::generate_ed25519(), 1, "t", b"true");
    bench.message(honest, &message);
    bench.turn();
    bench.message(forger, &forged(&message, b"lie"));
    assert_eq!(bench.delivered(), [b"true"]);
    assert!(bench.core.score(&forger).unwrap() < 0.0);
    assert!(bench.core.score(&honest).unwrap() > 0.0);
}

#[test]
fn whoever_brings_a_copy_of_a_forged_message_is_charged_and_nobody_else() {
    let mut bench = bench(Config::default());
    let peers = bench.peers(3, &["t"]);
    let lie = forged(&signed(&Keypair::generate_ed25519(), 1, "t", b"true"), b"lie");
    bench.message(peers[0], &lie);
    bench.message(peers[1], &lie);
    assert!(bench.delivered().is_empty());
    assert_eq!(bench.verified, 1);
    assert!(peers[..2].iter().all(|peer| bench.core.score(peer).unwrap() < 0.0));
    assert_eq!(bench.core.score(&peers[2]), Some(0.0));
}

#[test]
fn what_a_forger_costs_is_bounded_and_takes_nothing_from_others() {
    let mut bench = bench(Config { unverified_per_peer: 8, ..Config::default() });
    let [forger, honest] = bench.peers(2, &["t"])[..] else { panic!() };
    let key = Keypair::generate_ed25519();
    for sequence in 0..1000 {
        bench.message(forger, &forged(&signed(&key, sequence, "t", b"true"), b"lie"));
    }
    assert_eq!(bench.core.kept().unverified, 8);
    bench.message(honest, &signed(&key, 5, "t", b"true"));
    assert_eq!(bench.delivered(), [b"true"]);
    assert_eq!(bench.verified, 9);
    assert_eq!(bench.core.kept().unverified, 0);
}

#[test]
fn a_graylisted_peer_is_not_listened_to_but_for_its_topics() {
    let mut bench = bench(Config::default());
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    bench.rate(&peer, PeerScoreThresholds::default().graylist_threshold - 1.0);
    bench.message(peer, &signed(&Keypair::generate_ed25519(), 1, "t", b"x"));
    bench.follow(peer, &["u"]);
    assert!(bench.delivered().is_empty());
    assert_eq!(bench.verified, 0);
    assert!(bench.core.topics_of(&peer).contains(&topic("u")));
}

#[test]
fn what_nobody_here_follows_is_neither_checked_nor_remembered() {
    let mut bench = bench(Config::default());
    let peer = bench.peer(PeerKind::V1_3, false, &["t", "u"]);
    let message = signed(&Keypair::generate_ed25519(), 1, "u", b"x");
    bench.message(peer, &message);
    assert!(bench.delivered().is_empty());
    assert_eq!((bench.verified, bench.core.kept().seen), (0, 0));
    bench.core.subscribe(&topic("u"), bench.now);
    bench.message(peer, &message);
    assert_eq!(bench.delivered(), [b"x"]);
}

#[test]
fn an_authors_messages_are_delivered_in_the_order_of_arrival_however_the_checks_end() {
    let mut bench = bench(Config::default());
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    let key = Keypair::generate_ed25519();
    for n in 0..6 {
        bench.message(peer, &signed(&key, n, "t", &[n as u8]));
    }
    let first = bench.core.unverified(3).unwrap();
    let second = bench.core.unverified(3).unwrap();
    assert!(bench.core.unverified(3).is_none());
    bench.core.verified(second.ticket, &[true; 3], bench.now);
    assert!(bench.delivered().is_empty());
    bench.core.verified(first.ticket, &[true, false, true], bench.now);
    assert_eq!(bench.delivered(), [[0], [2], [3], [4], [5]]);
}

#[test]
fn strict_sign_wants_author_number_and_signature() {
    let mut bench = bench(Config::default());
    let whole = signed(&Keypair::generate_ed25519(), 1, "t", b"x");
    let parts = whole.parts();
    for broken in [
        crate::MessageParts { signature: None, ..parts },
        crate::MessageParts { from: None, ..parts },
        crate::MessageParts { seqno: None, ..parts },
        crate::MessageParts { seqno: Some(b"seven b"), ..parts },
        crate::MessageParts { from: Some(b"nobody"), ..parts },
    ] {
        let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
        bench.message(peer, &WireMessage::new(&broken));
        assert!(bench.delivered().is_empty(), "{broken:?}");
        assert!(bench.core.score(&peer).unwrap() < 0.0, "{broken:?}");
    }
    assert_eq!(bench.verified, 0);
}

#[test]
fn strict_no_sign_wants_none_of_them() {
    let mut bench = bench(Config {
        validation: Validation::Anonymous,
        message_id: crate::IdScheme::Content,
        ..Config::default()
    });
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    let whole = signed(&Keypair::generate_ed25519(), 1, "t", b"x");
    bench.message(peer, &whole);
    assert!(bench.delivered().is_empty());
    let bare = WireMessage::new(&crate::MessageParts { data: Some(b"x"), topic: "t", ..Default::default() });
    bench.message(peer, &bare);
    assert_eq!(bench.delivered(), [b"x"]);
    assert_eq!(bench.verified, 0);
}

#[test]
fn a_message_of_ours_from_an_earlier_life_is_dropped_and_nobody_blamed() {
    let key = Keypair::generate_ed25519();
    let author = Author::new(crate::Authenticity::Signed(key.clone()), 1000);
    let mut bench = Bench::new(Config::default());
    bench.core =
        Core::new(Config::default(), bench.local, author, fastrand::Rng::with_seed(1), bench.now).unwrap();
    let mut bench = bench.scored().following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    bench.message(peer, &signed(&key, 1, "t", b"long ago"));
    assert!(bench.delivered().is_empty());
    assert_eq!(bench.core.score(&peer), Some(0.0));
}

#[test]
fn a_blocked_peer_and_what_it_wrote_are_not_heard() {
    let mut bench = bench(Config::default());
    let peers = bench.peers(2, &["t"]);
    let key = Keypair::generate_ed25519();
    bench.core.block(peers[0]);
    bench.core.block(key.public().to_peer_id());
    bench.message(peers[0], &signed(&Keypair::generate_ed25519(), 1, "t", b"x"));
    bench.message(peers[1], &signed(&key, 1, "t", b"y"));
    assert!(bench.delivered().is_empty());
    assert!(bench.core.score(&peers[1]).unwrap() < 0.0);
}

#[test]
fn a_payload_above_the_limit_is_reported_and_costs_nothing_else() {
    let mut bench = bench(Config { max_message: 10, ..Config::default() });
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    let key = Keypair::generate_ed25519();
    bench.message(peer, &signed(&key, 1, "t", &[0; 11]));
    bench.message(peer, &signed(&key, 2, "t", &[0; 10]));
    assert_eq!(bench.delivered().len(), 1);
    assert!(bench.events.contains(&Event::TooLarge { peer, bytes: 11 }));
    assert!(bench.core.score(&peer).unwrap() > 0.0);
}

#[test]
fn a_message_waits_for_its_verdict_and_goes_on_after_it() {
    for (verdict, forwarded) in [(Verdict::Accept, 1), (Verdict::Ignore, 0), (Verdict::Reject, 0)] {
        let mut bench = bench(Config { validate_messages: true, ..Config::default() });
        let peers = bench.peers(3, &["t"]);
        let message = signed(&Keypair::generate_ed25519(), 1, "t", b"x");
        peers.iter().for_each(|peer| drop(bench.merged(peer)));
        bench.message(peers[0], &message);
        bench.turn();
        bench.message(peers[1], &message);
        bench.turn();
        let Some(Event::Message { id, from, .. }) =
            bench.events.iter().find(|event| matches!(event, Event::Message { .. })).cloned()
        else {
            panic!("{:?}", bench.events)
        };
        assert_eq!(from, peers[0]);
        assert!(bench.merged(&peers[2]).publish.is_empty());
        assert!(bench.core.verdict(&id, verdict, bench.now));
        assert!(!bench.core.verdict(&id, verdict, bench.now), "a verdict counts once");
        assert_eq!(bench.merged(&peers[2]).publish.len(), forwarded);
        assert!(bench.merged(&peers[1]).publish.is_empty(), "it has brought it itself");
        for peer in &peers[..2] {
            let score = bench.core.score(peer).unwrap();
            match verdict {
                Verdict::Reject => assert!(score < 0.0),
                _ => assert!(score >= 0.0),
            }
        }
    }
}

#[test]
fn messages_without_a_verdict_are_bounded_and_given_up() {
    let mut bench = bench(Config { validate_messages: true, awaiting_verdict: 4, ..Config::default() });
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    let key = Keypair::generate_ed25519();
    for n in 0..10 {
        bench.message(peer, &signed(&key, n, "t", &[n as u8]));
    }
    bench.turn();
    assert_eq!(bench.core.kept().awaiting_verdict, 4);
    bench.pass(SECOND * 8);
    assert_eq!(bench.core.kept().awaiting_verdict, 0);
}
