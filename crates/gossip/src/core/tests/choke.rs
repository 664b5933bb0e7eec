//! Links that come late turn to announcing.

use std::time::Duration;

use libp2p::identity::Keypair;

use super::bench::*;
use crate::{Choke, Control, Extensions, IHave, MessageId, PeerScoreParams, Rpc, TopicScoreParams, core::*};

fn announce_extension(bench: &mut Bench, peer: PeerId) {
    let extensions = Some(Extensions::default().with(Extensions::CHOKE));
    bench.control(peer, Control { extensions, ..Control::default() });
}

/// A mesh of `n` that all announce the extension.
fn mesh(bench: &mut Bench, n: usize) -> Vec<PeerId> {
    let peers = bench.peers(n, &["t"]);
    for peer in &peers {
        announce_extension(bench, *peer);
        bench.merged(peer);
    }
    assert_eq!(bench.core.mesh(&topic("t")).len(), n);
    peers
}

fn id(key: &Keypair, sequence: u64) -> MessageId {
    // `signed` counts on from the number it is given.
    MessageId::from(format!("{}{}", key.public().to_peer_id(), sequence + 1).as_str())
}

/// The first brings `n` messages, then each of the others, from the number `from` on.
fn late(bench: &mut Bench, peers: &[PeerId], key: &Keypair, from: u64, n: u64) {
    for sequence in from..from + n {
        for peer in peers {
            bench.message(*peer, &signed(key, sequence, "t", b"data"));
            bench.turn();
        }
    }
    bench.delivered();
}

fn choke(choked: bool) -> Vec<Choke> {
    vec![Choke { topic: topic("t"), choked }]
}

#[test]
fn links_that_always_come_late_are_choked_and_the_one_that_brings_all_never() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = mesh(&mut bench, 4);
    late(&mut bench, &peers, &Keypair::generate_ed25519(), 0, 40);
    let mut choked = bench.core.choked(&topic("t"));
    choked.sort();
    let mut expected = peers[1..].to_vec();
    expected.sort();
    assert_eq!(choked, expected);
    assert!(bench.merged(&peers[0]).control.choke.is_empty());
    for peer in &peers[1..] {
        assert_eq!(bench.merged(peer).control.choke, choke(true));
    }
}

#[test]
fn two_links_that_bring_half_of_all_each_are_left_alone() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = mesh(&mut bench, 2);
    let key = Keypair::generate_ed25519();
    for round in 0..100 {
        let mut order = peers.clone();
        order.rotate_left(round % 2);
        late(&mut bench, &order, &key, round as u64, 1);
        if round % 10 == 0 {
            bench.heartbeat();
        }
    }
    assert!(bench.core.choked(&topic("t")).is_empty());
}

#[test]
fn nobody_is_choked_who_does_not_announce_it_or_is_scored_by_what_it_brings() {
    let mut silent = Bench::new(Config::default()).following("t");
    let peers = silent.peers(3, &["t"]);
    let off = Config { extensions: Extensions::default(), ..Config::default() };
    let mut off = Bench::new(off).following("t");
    let mut scored = Bench::new(Config::default()).following("t");
    let topics = [(topic("t"), TopicScoreParams::default())].into();
    let params = PeerScoreParams { topics, ..PeerScoreParams::default() };
    assert!(TopicScoreParams::default().mesh_message_deliveries_weight != 0.0);
    scored.core.score_peers(params, PeerScoreThresholds::default(), scored.now).unwrap();
    let (of_off, of_scored) = (mesh(&mut off, 3), mesh(&mut scored, 3));
    for (bench, peers) in [(&mut silent, peers), (&mut off, of_off), (&mut scored, of_scored)] {
        late(bench, &peers, &Keypair::generate_ed25519(), 0, 60);
        bench.heartbeat();
        assert!(bench.core.choked(&topic("t")).is_empty());
        assert!(peers.iter().all(|peer| bench.merged(peer).control.choke.is_empty()));
        // Nor does anybody choke us then, whatever it says.
        if peers.iter().all(|peer| bench.core.extensions_of(peer).is_none()) {
            bench.control(peers[0], Control { choke: choke(true), ..Control::default() });
            bench.message(peers[1], &signed(&Keypair::generate_ed25519(), 1, "t", b"x"));
            assert_eq!(bench.merged(&peers[0]).publish.len(), 1);
        }
    }
}

#[test]
fn who_chokes_us_is_told_of_messages_soon_and_together_and_sent_our_own() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = mesh(&mut bench, 3);
    let key = Keypair::generate_ed25519();
    bench.control(peers[0], Control { choke: choke(true), ..Control::default() });
    for sequence in 0..10 {
        bench.message(peers[1], &signed(&key, sequence, "t", b"data"));
        assert_eq!(bench.merged(&peers[2]).publish.len(), 1);
    }
    // Two of them it brings itself meanwhile, and announces another.
    bench.message(peers[0], &signed(&key, 3, "t", b"data"));
    bench.message(peers[0], &signed(&key, 4, "t", b"data"));
    bench.ihave(peers[0], "t", vec![id(&key, 5)]);
    assert_eq!(bench.merged(&peers[0]), Rpc::default());
    bench.pass(Duration::from_millis(20));
    let sent = bench.sent(&peers[0]);
    assert_eq!(sent.len(), 1, "in one RPC");
    assert!(sent[0].publish.is_empty());
    let expected: Vec<_> = [0, 1, 2, 6, 7, 8, 9].map(|sequence| id(&key, sequence)).to_vec();
    assert_eq!(sent[0].control.ihave, [IHave { topic: topic("t"), ids: expected.clone() }]);
    // What it asks for it gets.
    bench.control(peers[0], Control { iwant: expected[..2].to_vec(), ..Control::default() });
    assert_eq!(bench.merged(&peers[0]).publish.len(), 2);
    bench.core.publish(&topic("t"), b"our own", bench.now).unwrap();
    assert_eq!(bench.merged(&peers[0]).publish.len(), 1);
    bench.control(peers[0], Control { choke: choke(false), ..Control::default() });
    bench.message(peers[1], &signed(&key, 20, "t", b"data"));
    assert_eq!(bench.merged(&peers[0]).publish.len(), 1);
}

#[test]
fn what_is_announced_and_does_not_come_is_fetched_within_a_heartbeat_and_its_link_unchoked() {
    let mut bench = Bench::new(Config::default()).following("t").scored();
    let peers = mesh(&mut bench, 4);
    let key = Keypair::generate_ed25519();
    late(&mut bench, &peers, &key, 0, 40);
    peers.iter().for_each(|peer| drop(bench.merged(peer)));
    // One comes by itself, of the other nothing comes but announcements.
    for peer in &peers[1..] {
        bench.ihave(*peer, "t", vec![id(&key, 100), id(&key, 101)]);
    }
    bench.message(peers[0], &signed(&key, 100, "t", b"data"));
    for peer in &peers {
        assert!(bench.merged(peer).control.iwant.is_empty());
    }
    bench.pass(Duration::from_millis(200));
    let sent = bench.merged(&peers[1]);
    assert_eq!(sent.control.iwant, [id(&key, 101)]);
    assert_eq!(sent.control.choke, choke(false));
    // It does not come from there either: the next one is asked.
    bench.pass(Duration::from_millis(150));
    assert_eq!(bench.merged(&peers[2]).control.iwant, [id(&key, 101)]);
    bench.message(peers[2], &signed(&key, 101, "t", b"data"));
    bench.turn();
    bench.pass(SECOND * 10);
    assert!(bench.merged(&peers[3]).control.iwant.is_empty());
    assert_eq!(bench.delivered().len(), 2);
    assert!(bench.core.choked(&topic("t")).contains(&peers[3]));
    assert!(!bench.core.choked(&topic("t")).contains(&peers[1]));
}

#[test]
fn a_choked_link_whose_announcements_come_first_is_unchoked() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = mesh(&mut bench, 3);
    let key = Keypair::generate_ed25519();
    late(&mut bench, &peers, &key, 0, 40);
    for sequence in 100..140 {
        bench.ihave(peers[2], "t", vec![id(&key, sequence)]);
        bench.message(peers[0], &signed(&key, sequence, "t", b"data"));
        bench.ihave(peers[1], "t", vec![id(&key, sequence)]);
    }
    bench.heartbeat();
    assert_eq!(bench.core.choked(&topic("t")), [peers[1]]);
}

#[test]
fn a_link_begins_unchoked_in_each_mesh_and_on_each_substream() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = mesh(&mut bench, 3);
    let key = Keypair::generate_ed25519();
    late(&mut bench, &peers, &key, 0, 40);
    bench.control(peers[1], Control { choke: choke(true), ..Control::default() });
    peers.iter().for_each(|peer| drop(bench.merged(peer)));
    // Its substream breaks: it has to say again that it chokes us, and is sent again that we choke it.
    let connection = bench.connection_of(&peers[1]);
    bench.core.heard(&peers[1], connection, PeerKind::V1_3, true);
    bench.core.broke(&peers[1], connection);
    bench.core.opened(&peers[1], connection, PeerKind::V1_3);
    let sent = bench.merged(&peers[1]);
    assert_eq!((sent.control.graft.len(), sent.control.choke), (1, choke(true)));
    bench.message(peers[0], &signed(&key, 50, "t", b"data"));
    assert_eq!(bench.merged(&peers[1]).publish.len(), 1);
    // It leaves the mesh.
    bench.control(
        peers[1],
        Control {
            prune: vec![crate::Prune { topic: topic("t"), peers: Vec::new(), backoff: Some(SECOND) }],
            ..Control::default()
        },
    );
    assert_eq!(bench.core.choked(&topic("t")), [peers[2]]);
}

#[test]
fn announcements_that_never_come_true_are_bounded_and_paid_for() {
    let mut bench =
        Bench::new(Config { max_ids_per_heartbeat: 100, ..Config::default() }).following("t").scored();
    let [liar, ..] = mesh(&mut bench, 3)[..] else { panic!() };
    let ids = |round: usize| (0..1000).map(|n| format!("{round} {n}").as_str().into()).collect();
    for round in 0..50 {
        bench.ihave(liar, "t", ids(round));
    }
    bench.pass(Duration::from_millis(300));
    assert!(bench.merged(&liar).control.iwant.len() <= 1000);
    bench.pass(SECOND * 6);
    assert!(bench.core.score(&liar).unwrap() < 0.0);
    assert_eq!(bench.core.kept().promises, 0);
    assert!(bench.core.expected.is_empty());
}
