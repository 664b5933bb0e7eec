use libp2p::identity::Keypair;

use super::bench::*;
use crate::{Control, IHave, MessageId, core::*};

/// A mesh of six and `n` others.
fn crowd(config: Config, n: usize) -> (Bench, Vec<PeerId>) {
    let mut bench = Bench::new(config).following("t");
    let peers = bench.peers(6 + n, &["t"]);
    bench.heartbeat();
    peers.iter().for_each(|peer| drop(bench.merged(peer)));
    let others = peers.into_iter().filter(|peer| !bench.in_mesh("t", peer)).collect();
    (bench, others)
}

fn publish(bench: &mut Bench) -> MessageId {
    bench.core.publish(&topic("t"), b"x", bench.now).unwrap().id
}

#[test]
fn gossip_goes_to_d_lazy_or_the_factor_of_those_outside_of_the_mesh() {
    for others in [3, 20, 60] {
        let (mut bench, outside) = crowd(Config { flood_publish: false, ..Config::default() }, others);
        let sent = (outside.len() / 4).max(6).min(outside.len());
        let id = publish(&mut bench);
        bench.heartbeat();
        let heard = outside.iter().filter(|peer| {
            let control = bench.merged(peer).control;
            control.ihave.iter().any(|ihave| ihave.ids.contains(&id) && ihave.topic == topic("t"))
        });
        assert_eq!(heard.count(), sent, "of {}", outside.len());
        for peer in bench.core.mesh(&topic("t")) {
            assert!(bench.merged(&peer).control.ihave.is_empty(), "the mesh has the message itself");
        }
    }
}

#[test]
fn a_message_is_announced_for_history_gossip_heartbeats_and_kept_for_history_length() {
    let (mut bench, outside) = crowd(Config::default(), 3);
    let id = publish(&mut bench);
    outside.iter().for_each(|peer| drop(bench.merged(peer)));
    let mut announced = 0;
    for _ in 0..6 {
        bench.heartbeat();
        announced += usize::from(!bench.merged(&outside[0]).control.ihave.is_empty());
    }
    assert_eq!(announced, 3);
    assert_eq!(bench.core.kept().history, 0);
    bench.control(outside[0], Control { iwant: vec![id], ..Control::default() });
    assert!(bench.merged(&outside[0]).publish.is_empty());
}

#[test]
fn what_is_announced_and_unknown_is_asked_for_once() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = bench.peers(2, &["t"]);
    let known = publish(&mut bench);
    let unknown = MessageId::from("unknown");
    peers.iter().for_each(|peer| drop(bench.merged(peer)));
    for peer in &peers {
        bench.ihave(*peer, "t", vec![known.clone(), unknown.clone(), unknown.clone()]);
        bench.ihave(*peer, "u", vec![MessageId::from("of a topic that we do not follow")]);
    }
    assert_eq!(bench.merged(&peers[0]).control.iwant, [unknown]);
    assert!(bench.merged(&peers[1]).control.iwant.is_empty(), "one is asked at a time");
}

#[test]
fn a_broken_promise_costs_score_and_another_peer_is_asked() {
    let mut bench = Bench::new(Config::default()).scored().following("t");
    let peers = bench.peers(2, &["t"]);
    let id = MessageId::from("promised");
    bench.ihave(peers[0], "t", vec![id.clone()]);
    bench.pass(SECOND * 5);
    assert!(bench.core.score(&peers[0]).unwrap() < 0.0);
    bench.ihave(peers[1], "t", vec![id.clone()]);
    assert_eq!(bench.merged(&peers[1]).control.iwant, [id]);
}

#[test]
fn a_promise_is_kept_by_whoever_brings_the_message() {
    let mut bench = Bench::new(Config::default()).scored().following("t");
    let peers = bench.peers(2, &["t"]);
    let key = Keypair::generate_ed25519();
    let message = signed(&key, 0, "t", b"x");
    let id = format!("{}1", key.public().to_peer_id()).as_str().into();
    bench.ihave(peers[0], "t", vec![id]);
    assert_eq!(bench.core.kept().promises, 1);
    bench.message(peers[1], &message);
    bench.turn();
    assert_eq!(bench.core.kept().promises, 0);
    bench.pass(SECOND * 5);
    assert!(bench.core.score(&peers[0]).unwrap() >= 0.0);
}

#[test]
fn a_promised_message_that_there_is_no_room_for_is_not_held_against_who_brought_it() {
    let config = Config { unverified_per_peer: 2, ..Config::default() };
    let mut bench = Bench::new(config).scored().following("t");
    let [peer, other] = bench.peers(2, &["t"])[..] else { panic!() };
    let key = Keypair::generate_ed25519();
    let name = key.public().to_peer_id();
    let id = |n: u64| MessageId::from(format!("{name}{n}").as_str());
    bench.ihave(peer, "t", (1..=8).map(id).collect());
    assert_eq!(bench.core.kept().promises, 8);
    // Of eight in one turn two are taken in.
    for sequence in 0..8 {
        bench.message(peer, &signed(&key, sequence, "t", b"x"));
    }
    bench.turn();
    assert_eq!(bench.delivered().len(), 2);
    assert_eq!(bench.core.kept().promises, 0);
    bench.pass(SECOND * 5);
    assert!(bench.core.score(&peer).unwrap() >= 0.0);
    // What was left out can be had from somebody else.
    bench.merged(&other);
    bench.ihave(other, "t", vec![id(8)]);
    assert_eq!(bench.merged(&other).control.iwant, [id(8)]);
}

#[test]
fn whoever_gets_the_place_of_a_peer_that_is_gone_may_ask_as_often_as_any_other() {
    let (mut bench, outside) = crowd(Config::default(), 3);
    let id = publish(&mut bench);
    let ask = |bench: &mut Bench, peer| {
        drop(bench.merged(&peer));
        for _ in 0..5 {
            bench.control(peer, Control { iwant: vec![id.clone()], ..Control::default() });
        }
        bench.merged(&peer).publish.len()
    };
    assert_eq!(ask(&mut bench, outside[0]), 3);
    let connection = bench.connection_of(&outside[0]);
    bench.core.disconnected(&outside[0], connection, bench.now);
    let next = bench.peer(PeerKind::V1_3, false, &["t"]);
    assert_eq!(ask(&mut bench, next), 3);
}

#[test]
fn a_forged_message_does_not_keep_a_promise() {
    let mut bench = Bench::new(Config::default()).scored().following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    let key = Keypair::generate_ed25519();
    let id = format!("{}1", key.public().to_peer_id()).as_str().into();
    bench.ihave(peer, "t", vec![id]);
    bench.message(peer, &forged(&signed(&key, 0, "t", b"x"), b"y"));
    bench.turn();
    assert_eq!(bench.core.kept().promises, 1);
}

#[test]
fn announcements_of_one_peer_are_bounded_between_heartbeats() {
    let mut bench = Bench::new(Config { max_ids_per_heartbeat: 100, ..Config::default() }).following("t");
    let [many, often] = bench.peers(2, &["t"])[..] else { panic!() };
    let ids = |from: usize, n| (from..from + n).map(|n| format!("id {n}").as_str().into()).collect();
    bench.ihave(many, "t", ids(0, 250));
    bench.ihave(many, "t", ids(250, 250));
    assert_eq!(bench.merged(&many).control.iwant.len(), 100);
    for n in 0..20 {
        bench.ihave(often, "t", ids(1000 + n, 1));
    }
    assert_eq!(bench.merged(&often).control.iwant.len(), 10);
    bench.heartbeat();
    bench.ihave(often, "t", ids(2000, 1));
    assert_eq!(bench.merged(&often).control.iwant.len(), 1);
}

#[test]
fn a_message_is_sent_to_one_who_asks_as_often_as_retransmission_allows() {
    let (mut bench, outside) = crowd(Config::default(), 3);
    let id = publish(&mut bench);
    drop(bench.merged(&outside[0]));
    for _ in 0..5 {
        bench.control(outside[0], Control { iwant: vec![id.clone()], ..Control::default() });
    }
    assert_eq!(bench.merged(&outside[0]).publish.len(), 3);
}

#[test]
fn below_the_gossip_threshold_nothing_is_announced_asked_or_answered() {
    let (bench, _) = crowd(Config::default(), 3);
    let mut bench = bench.scored();
    let bad = bench.peer(PeerKind::V1_3, false, &["t"]);
    bench.rate(&bad, PeerScoreThresholds::default().gossip_threshold - 1.0);
    let id = publish(&mut bench);
    bench.heartbeat();
    drop(bench.merged(&bad));
    bench.heartbeat();
    bench.ihave(bad, "t", vec!["x".into()]);
    bench.control(bad, Control { iwant: vec![id], ..Control::default() });
    let sent = bench.merged(&bad);
    assert!(sent.control.ihave.is_empty() && sent.control.iwant.is_empty() && sent.publish.is_empty());
}

#[test]
fn the_arrival_of_a_large_message_is_told_to_the_mesh_by_idontwant_from_v1_2_on() {
    let mut bench = Bench::new(Config::default()).following("t");
    let from = bench.peer(PeerKind::V1_3, false, &["t"]);
    let (new, old) = (bench.peer(PeerKind::V1_2, false, &["t"]), bench.peer(PeerKind::V1_1, false, &["t"]));
    let key = Keypair::generate_ed25519();
    for (sequence, bytes, sent) in [(1, 900 - 200, 0), (2, 1000, 1)] {
        [from, new, old].iter().for_each(|peer| drop(bench.merged(peer)));
        bench.message(from, &signed(&key, sequence, "t", &vec![0; bytes]));
        assert_eq!(bench.merged(&new).control.idontwant.len(), sent);
        assert!(bench.merged(&old).control.idontwant.is_empty());
        assert!(bench.merged(&from).control.idontwant.is_empty(), "it has sent it");
    }
}

#[test]
fn an_idontwant_is_never_sent_for_a_message_that_is_not_verified() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = bench.peers(3, &["t"]);
    peers.iter().for_each(|peer| drop(bench.merged(peer)));
    bench.message(peers[0], &forged(&signed(&Keypair::generate_ed25519(), 1, "t", b""), &[0; 4000]));
    for peer in &peers {
        assert!(bench.merged(peer).control.idontwant.is_empty());
    }
}

#[test]
fn a_message_that_a_peer_does_not_want_is_not_sent_to_it_nor_what_waits_of_it() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = bench.peers(3, &["t"]);
    let key = Keypair::generate_ed25519();
    let name = key.public().to_peer_id();
    let refuse =
        |n: u64| Control { idontwant: vec![format!("{name}{n}").as_str().into()], ..Control::default() };
    peers.iter().for_each(|peer| drop(bench.merged(peer)));
    bench.control(peers[1], refuse(1));
    bench.message(peers[0], &signed(&key, 0, "t", b"first"));
    bench.message(peers[0], &signed(&key, 1, "t", b"second"));
    bench.turn();
    bench.control(peers[2], refuse(2));
    let data = |bench: &mut Bench, peer| -> Vec<Vec<u8>> {
        bench.merged(peer).publish.iter().map(|message| message.data().to_vec()).collect()
    };
    assert_eq!(data(&mut bench, &peers[1]), [b"second"]);
    assert_eq!(data(&mut bench, &peers[2]), [b"first"]);
    // It is forgotten after a while.
    bench.control(peers[1], refuse(3));
    bench.pass(SECOND * 10);
    bench.message(peers[0], &signed(&key, 2, "t", b"third"));
    assert_eq!(data(&mut bench, &peers[1]), [b"third"]);
}

#[test]
fn announcements_fit_what_stock_peers_take_at_any_rate() {
    let (mut bench, outside) = crowd(Config::default(), 3);
    for n in 0..3000u32 {
        bench.core.publish(&topic("t"), &n.to_be_bytes(), bench.now).unwrap();
    }
    outside.iter().for_each(|peer| drop(bench.merged(peer)));
    bench.heartbeat();
    for peer in &outside {
        let rpcs = bench.sent(peer);
        assert!(rpcs.len() <= 10, "stock peers heed ten IHAVEs a heartbeat");
        for rpc in rpcs {
            let bytes: usize =
                rpc.control.ihave.iter().flat_map(|IHave { ids, .. }| ids).map(|id| id.len() + 2).sum();
            assert!(bytes < 16 * 1024, "{bytes}");
        }
    }
}
