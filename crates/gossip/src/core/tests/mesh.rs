use std::time::Duration;

use super::bench::*;
use crate::{PeerInfo, Prune, Rpc, core::*};

fn pruned(backoff: Option<u64>) -> Prune {
    Prune { topic: topic("t"), peers: Vec::new(), backoff: backoff.map(Duration::from_secs) }
}

#[test]
fn join_grafts_d_of_the_peers_that_follow_the_topic() {
    let mut bench = Bench::new(Config::default());
    let peers = bench.peers(10, &["t"]);
    let other = bench.peer(PeerKind::V1_3, false, &["u"]);
    assert!(bench.core.subscribe(&topic("t"), bench.now));
    assert!(!bench.core.subscribe(&topic("t"), bench.now));
    let mesh = bench.core.mesh(&topic("t"));
    assert_eq!(mesh.len(), 6);
    for peer in &peers {
        let sent = bench.merged(peer);
        assert!(sent.subscriptions.iter().any(|s| s.subscribe && s.topic == topic("t")));
        assert_eq!(
            !sent.control.graft.is_empty(),
            mesh.contains(peer),
            "who is grafted is told, and nobody else"
        );
    }
    assert!(bench.merged(&other).control.graft.is_empty());
}

#[test]
fn join_takes_those_that_were_published_to_first() {
    let mut bench = Bench::new(Config { flood_publish: false, ..Config::default() });
    bench.peers(20, &["t"]);
    bench.core.publish(&topic("t"), b"x", bench.now).unwrap();
    let key = bench.core.topics.key("t").unwrap();
    let fanout = bench.core.topics.get(key).unwrap().fanout.as_ref().unwrap().peers.clone();
    assert_eq!(fanout.len(), 6);
    bench.core.subscribe(&topic("t"), bench.now);
    assert_eq!(bench.core.topics.get(key).unwrap().mesh, fanout);
}

#[test]
fn leave_prunes_the_mesh_with_the_shorter_backoff_and_tells_everybody() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = bench.peers(8, &["t"]);
    let mesh = bench.core.mesh(&topic("t"));
    peers.iter().for_each(|peer| drop(bench.merged(peer)));
    assert!(bench.core.unsubscribe(&topic("t"), bench.now));
    for peer in &peers {
        let sent = bench.merged(peer);
        assert!(sent.subscriptions.iter().any(|s| !s.subscribe));
        if mesh.contains(peer) {
            assert_eq!(sent.control.prune, [pruned(Some(10))]);
        }
    }
    // Whoever was pruned is not grafted within it, after it and the slack everybody may be.
    bench.core.subscribe(&topic("t"), bench.now);
    assert!(mesh.iter().all(|peer| !bench.in_mesh("t", peer)));
    bench.pass(Duration::from_secs(13));
    assert_eq!(bench.core.mesh(&topic("t")).len(), 6);
}

#[test]
fn a_subscription_is_grafted_at_once_while_the_mesh_is_below_d_low() {
    let mut bench = Bench::new(Config::default()).following("t");
    bench.peers(5, &["t"]);
    assert_eq!(bench.core.mesh(&topic("t")).len(), 5);
    bench.peers(1, &["t"]);
    assert_eq!(bench.core.mesh(&topic("t")).len(), 5);
}

#[test]
fn a_heartbeat_below_d_low_grafts_up_to_d() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = bench.peers(12, &["t"]);
    let first = *peers.iter().find(|peer| bench.in_mesh("t", peer)).unwrap();
    bench.prune(first, pruned(Some(60)));
    assert_eq!(bench.core.mesh(&topic("t")).len(), 4);
    bench.heartbeat();
    assert_eq!(bench.core.mesh(&topic("t")).len(), 6);
    assert!(!bench.in_mesh("t", &first));
}

#[test]
fn a_heartbeat_at_d_high_prunes_down_to_d_and_keeps_the_best_and_those_we_dialed() {
    let mut bench = Bench::new(Config::default()).scored().following("t");
    let dialed: Vec<_> = (0..2).map(|_| bench.peer(PeerKind::V1_3, true, &["t"])).collect();
    let others = bench.peers(10, &["t"]);
    for peer in &others {
        bench.graft(*peer, "t");
    }
    let best = &others[..4];
    best.iter().for_each(|peer| bench.rate(peer, 10.0));
    assert_eq!(bench.core.mesh(&topic("t")).len(), 12);
    bench.heartbeat();
    assert_eq!(bench.core.mesh(&topic("t")).len(), 6);
    assert!(best.iter().chain(&dialed).all(|peer| bench.in_mesh("t", peer)));
    let gone = *others.iter().find(|peer| !bench.in_mesh("t", peer)).unwrap();
    assert_eq!(bench.merged(&gone).control.prune, [pruned(Some(60))]);
    assert!(bench.events.contains(&Event::Left { peer: gone, topic: topic("t") }));
}

#[test]
fn a_mesh_with_too_few_dialed_peers_grafts_d_out_of_them() {
    let mut bench = Bench::new(Config::default()).following("t");
    bench.peers(6, &["t"]);
    let dialed: Vec<_> = (0..4).map(|_| bench.peer(PeerKind::V1_3, true, &["t"])).collect();
    assert!(dialed.iter().all(|peer| !bench.in_mesh("t", peer)));
    bench.heartbeat();
    assert_eq!(dialed.iter().filter(|peer| bench.in_mesh("t", peer)).count(), 2);
}

#[test]
fn a_graft_beyond_d_high_is_pruned_unless_we_dialed_the_peer() {
    let mesh = MeshParams { n: 3, n_low: 2, n_high: 4, outbound_min: 0 };
    let mut bench = Bench::new(Config { mesh, ..Config::default() }).following("t");
    let peers = bench.peers(6, &["t"]);
    for peer in &peers {
        bench.graft(*peer, "t");
    }
    assert_eq!(bench.core.mesh(&topic("t")).len(), 4);
    let refused = *peers.iter().find(|peer| !bench.in_mesh("t", peer)).unwrap();
    assert_eq!(bench.merged(&refused).control.prune, [pruned(Some(60))]);
    let dialed = bench.peer(PeerKind::V1_3, true, &["t"]);
    bench.graft(dialed, "t");
    assert!(bench.in_mesh("t", &dialed));
}

#[test]
fn a_graft_within_the_backoff_is_pruned_and_costs_score_twice_if_it_floods() {
    let mut bench = Bench::new(Config::default()).scored().following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    bench.prune(peer, pruned(None));
    assert!(!bench.in_mesh("t", &peer));
    drop(bench.merged(&peer));
    let counted = |bench: &Bench| -bench.core.score(&peer).unwrap();
    bench.graft(peer, "t");
    let flood = counted(&bench);
    assert!(flood > 0.0 && !bench.in_mesh("t", &peer));
    assert_eq!(bench.merged(&peer).control.prune, [pruned(Some(60))], "and the back-off begins anew");
    let mut late = Bench::new(Config::default()).scored().following("t");
    let peer = late.peer(PeerKind::V1_3, false, &["t"]);
    late.prune(peer, pruned(None));
    late.pass(Duration::from_secs(30));
    late.graft(peer, "t");
    let once = -late.core.score(&peer).unwrap();
    assert!(once < flood, "{once} {flood}");
    // After all of it, it is welcome again.
    late.pass(Duration::from_secs(200));
    late.graft(peer, "t");
    assert!(late.in_mesh("t", &peer));
}

#[test]
fn a_prune_without_a_backoff_keeps_us_away_for_ours_and_one_with_for_that() {
    for (backoff, early, late) in [(None, 58, 3), (Some(20), 18, 3)] {
        let mut bench = Bench::new(Config::default()).following("t");
        let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
        bench.prune(peer, pruned(backoff));
        bench.pass(Duration::from_secs(early));
        assert!(!bench.in_mesh("t", &peer), "{backoff:?}");
        bench.pass(Duration::from_secs(late + 1));
        assert!(bench.in_mesh("t", &peer), "{backoff:?}");
    }
}

#[test]
fn a_graft_for_a_topic_that_we_do_not_follow_gets_no_answer() {
    let mut bench = Bench::new(Config::default());
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    drop(bench.merged(&peer));
    bench.graft(peer, "t");
    bench.graft(peer, "unheard of");
    assert!(bench.sent(&peer).is_empty());
}

#[test]
fn a_graft_of_one_that_does_not_follow_the_topic_is_dropped() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &[]);
    drop(bench.merged(&peer));
    bench.graft(peer, "t");
    assert!(!bench.in_mesh("t", &peer));
    assert!(bench.merged(&peer).control.is_empty());
}

#[test]
fn a_peer_below_zero_is_neither_grafted_nor_kept_nor_told_of_others() {
    let config = Config { peer_exchange: true, ..Config::default() };
    let mut bench = Bench::new(config).scored().following("t");
    let peers = bench.peers(4, &["t"]);
    let bad = peers[0];
    bench.rate(&bad, -1.0);
    bench.heartbeat();
    assert!(!bench.in_mesh("t", &bad));
    assert_eq!(bench.merged(&bad).control.prune, [pruned(Some(60))]);
    bench.pass(Duration::from_secs(70));
    bench.graft(bad, "t");
    assert!(!bench.in_mesh("t", &bad));
    assert_eq!(bench.merged(&bad).control.prune, [pruned(Some(60))]);
}

#[test]
fn a_v1_0_peer_is_told_neither_backoff_nor_peers_and_is_kept_away_from_all_the_same() {
    let config = Config { peer_exchange: true, ..Config::default() };
    let mut bench = Bench::new(config).following("t");
    bench.peers(3, &["t"]);
    let old = bench.peer(PeerKind::V1_0, false, &["t"]);
    drop(bench.merged(&old));
    bench.core.unsubscribe(&topic("t"), bench.now);
    assert_eq!(bench.merged(&old).control.prune, [pruned(None)]);
    bench.core.subscribe(&topic("t"), bench.now);
    assert!(!bench.in_mesh("t", &old));
}

#[test]
fn a_floodsub_peer_is_never_grafted() {
    let mut bench = Bench::new(Config { floodsub: true, ..Config::default() }).following("t");
    let peer = bench.peer(PeerKind::Floodsub, false, &["t"]);
    bench.heartbeat();
    assert!(!bench.in_mesh("t", &peer));
    assert!(bench.merged(&peer).control.is_empty());
}

#[test]
fn opportunistic_grafting_betters_a_mesh_whose_median_is_low() {
    let config = Config { opportunistic_graft_ticks: 2, ..Config::default() };
    let mut bench = Bench::new(config).scored().following("t");
    bench.peers(6, &["t"]);
    let good = bench.peers(4, &["t"]);
    good.iter().for_each(|peer| bench.rate(peer, 3.0));
    bench.pass(Duration::from_millis(500));
    let before = good.iter().filter(|peer| bench.in_mesh("t", peer)).count();
    bench.pass(SECOND);
    assert_eq!(good.iter().filter(|peer| bench.in_mesh("t", peer)).count() - before, 2);
}

#[test]
fn peer_exchange_tells_of_others_with_what_they_signed() {
    let mesh = MeshParams { n: 3, n_low: 2, n_high: 4, outbound_min: 0 };
    let config = Config { mesh, peer_exchange: true, ..Config::default() };
    let mut bench = Bench::new(config).following("t");
    let peers = bench.peers(5, &["t"]);
    bench.core.set_record(&peers[0], Bytes::from_static(b"signed"));
    for peer in &peers {
        bench.graft(*peer, "t");
    }
    let refused = *peers.iter().find(|peer| !bench.in_mesh("t", peer)).unwrap();
    let sent = bench.merged(&refused).control.prune.remove(0).peers;
    assert_eq!(sent.len(), 4);
    assert!(sent.iter().all(|info| info.peer != refused && info.peer != bench.local));
    for info in sent {
        assert_eq!(info.record.is_some(), info.peer == peers[0], "{info:?}");
    }
}

#[test]
fn peers_told_of_are_connected_to_where_they_signed_that_they_are() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    let key = libp2p::identity::Keypair::generate_ed25519();
    let address: libp2p::Multiaddr = "/ip4/127.0.0.1/tcp/4001".parse().unwrap();
    let record = libp2p::core::PeerRecord::new_interop(&key, vec![address.clone()]).unwrap();
    let envelope: Bytes = record.into_signed_envelope().into_protobuf_encoding().into();
    let honest = key.public().to_peer_id();
    let (known, lied) = (PeerId::random(), PeerId::random());
    let peers = vec![
        PeerInfo { peer: honest, record: Some(envelope.clone()) },
        PeerInfo { peer: known, record: None },
        PeerInfo { peer: lied, record: Some(envelope) },
        PeerInfo { peer: bench.local, record: None },
        PeerInfo { peer, record: None },
    ];
    bench.actions.clear();
    bench.prune(peer, Prune { peers, ..pruned(Some(60)) });
    let mut connect: Vec<_> =
        bench.actions.iter().filter(|action| matches!(action, Action::Connect { .. })).cloned().collect();
    connect.sort_by_key(|action| format!("{action:?}").contains("[]"));
    assert_eq!(
        connect,
        [
            Action::Connect { peer: honest, addresses: vec![address] },
            Action::Connect { peer: known, addresses: Vec::new() },
        ]
    );
}

#[test]
fn peer_exchange_is_heeded_from_peers_of_good_standing_alone() {
    let mut bench = Bench::new(Config::default()).scored().following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    let needed = PeerScoreThresholds::default().accept_px_threshold;
    bench.rate(&peer, needed - 1.0);
    bench.actions.clear();
    let peers = vec![PeerInfo { peer: PeerId::random(), record: None }];
    bench.prune(peer, Prune { peers, ..pruned(Some(60)) });
    assert!(!bench.actions.iter().any(|action| matches!(action, Action::Connect { .. })));
}

#[test]
fn an_explicit_peer_stands_outside_of_meshes_gets_everything_and_is_connected_to_again() {
    let mut bench = Bench::new(Config { flood_publish: false, ..Config::default() }).following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &[]);
    bench.core.add_explicit(peer);
    bench.follow(peer, &["t"]);
    bench.graft(peer, "t");
    assert!(!bench.in_mesh("t", &peer));
    drop(bench.merged(&peer));
    bench.core.publish(&topic("t"), b"x", bench.now).unwrap();
    assert_eq!(bench.merged(&peer).publish.len(), 1);
    let gone = PeerId::random();
    bench.core.add_explicit(gone);
    bench.turn();
    bench.actions.clear();
    bench.pass(SECOND * 301);
    assert!(bench.actions.contains(&Action::Connect { peer: gone, addresses: Vec::new() }));
}

#[test]
fn a_peer_that_unsubscribes_or_goes_leaves_the_mesh() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = bench.peers(2, &["t"]);
    let subscriptions = vec![crate::Subscription { topic: topic("t"), subscribe: false }];
    bench.hear(peers[0], Rpc { subscriptions, ..Rpc::default() });
    let id = libp2p::swarm::ConnectionId::new_unchecked(2);
    bench.core.disconnected(&peers[1], id, bench.now);
    bench.turn();
    assert!(bench.core.mesh(&topic("t")).is_empty());
    for peer in peers {
        assert!(bench.events.contains(&Event::Left { peer, topic: topic("t") }));
    }
    assert_eq!(bench.core.subscribers(&topic("t")).len(), 0);
}

#[test]
fn topics_of_strangers_are_bounded_and_go_with_them() {
    let mut bench = Bench::new(Config { max_topics_per_peer: 16, ..Config::default() });
    let names: Vec<String> = (0..100).map(|n| format!("topic {n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let peer = bench.peer(PeerKind::V1_3, false, &names);
    assert_eq!(bench.core.topics_of(&peer).len(), 16);
    assert_eq!(bench.core.topics.len(), 16);
    bench.core.disconnected(&peer, libp2p::swarm::ConnectionId::new_unchecked(1), bench.now);
    assert_eq!(bench.core.topics.len(), 0);
}
