use libp2p::PeerId;

use super::bench::*;
use crate::{PeerScoreParams, PeerScoreThresholds, QueueLimits, core::*};

#[test]
fn flood_publishing_goes_to_every_subscriber_above_the_publish_threshold() {
    let mut bench = Bench::new(Config::default()).scored().following("t");
    let peers = bench.peers(20, &["t"]);
    bench.peer(PeerKind::V1_3, false, &["u"]);
    bench.rate(&peers[0], PeerScoreThresholds::default().publish_threshold - 1.0);
    bench.rate(&peers[1], PeerScoreThresholds::default().publish_threshold + 1.0);
    let receipt = bench.core.publish(&topic("t"), b"x", bench.now).unwrap();
    assert_eq!(receipt.peers, 19);
    for (n, peer) in peers.iter().enumerate() {
        assert_eq!(bench.merged(peer).publish.len(), usize::from(n != 0), "{n}");
    }
    assert!(bench.delivered().is_empty(), "one's own message is not delivered to oneself");
}

#[test]
fn without_flood_publishing_the_mesh_gets_it_and_floodsub_peers_do() {
    let mut bench =
        Bench::new(Config { flood_publish: false, floodsub: true, ..Config::default() }).following("t");
    let peers = bench.peers(12, &["t"]);
    let old = bench.peer(PeerKind::Floodsub, false, &["t"]);
    bench.heartbeat();
    let mesh = bench.core.mesh(&topic("t"));
    let receipt = bench.core.publish(&topic("t"), b"x", bench.now).unwrap();
    let reached: Vec<_> =
        peers.iter().filter(|peer| !bench.merged(peer).publish.is_empty()).copied().collect();
    assert!(mesh.iter().all(|peer| reached.contains(peer)));
    assert_eq!(reached.len(), 6, "as many as a mesh has");
    assert_eq!(bench.merged(&old).publish.len(), 1);
    assert_eq!(receipt.peers, reached.len() + 1);
}

#[test]
fn who_does_not_follow_a_topic_publishes_to_the_same_peers_for_fanout_ttl() {
    let mut bench = Bench::new(Config { flood_publish: false, ..Config::default() });
    let peers = bench.peers(30, &["t"]);
    let reached = |bench: &mut Bench| -> Vec<_> {
        bench.core.publish(&topic("t"), b"x", bench.now).unwrap();
        peers.iter().filter(|peer| !bench.merged(peer).publish.is_empty()).copied().collect()
    };
    let first = reached(&mut bench);
    assert_eq!(first.len(), 6);
    bench.pass(SECOND * 50);
    assert_eq!(reached(&mut bench), first);
    bench.pass(SECOND * 70);
    let key = bench.core.topics.key("t").unwrap();
    assert!(bench.core.topics.get(key).unwrap().fanout.is_none());
}

#[test]
fn a_fanout_is_filled_up_when_its_peers_go() {
    let mut bench = Bench::new(Config { flood_publish: false, ..Config::default() });
    let peers = bench.peers(10, &["t"]);
    bench.core.publish(&topic("t"), b"x", bench.now).unwrap();
    let gone = *peers.iter().find(|peer| !bench.merged(peer).publish.is_empty()).unwrap();
    let subscriptions = vec![crate::Subscription { topic: topic("t"), subscribe: false }];
    bench.hear(gone, Rpc { subscriptions, ..Rpc::default() });
    bench.heartbeat();
    let key = bench.core.topics.key("t").unwrap();
    assert_eq!(bench.core.topics.get(key).unwrap().fanout.as_ref().unwrap().peers.len(), 6);
}

#[test]
fn a_message_with_nobody_to_hand_it_to_can_be_published_all_the_same() {
    let mut bench = Bench::new(Config::default()).following("t");
    let receipt = bench.core.publish_alone(&topic("t"), b"x", bench.now).unwrap();
    assert_eq!(receipt.peers, 0);
    let other = bench.core.publish_alone(&topic("t"), b"x", bench.now).unwrap();
    assert_ne!(receipt.id, other.id);
    let peer = bench.peers(1, &["t"])[0];
    assert_eq!(bench.core.publish_alone(&topic("t"), b"x", bench.now).unwrap().peers, 1);
    assert_eq!(bench.merged(&peer).publish.len(), 1);
    let unknown = bench.core.publish_alone(&topic("never heard of"), b"x", bench.now);
    assert_eq!(unknown, Err(PublishError::NoPeers));
}

#[test]
fn what_cannot_be_published_is_refused_and_remembers_nothing() {
    let mut bench = Bench::new(Config { max_message: 100, ..Config::default() }).following("t");
    let none = bench.core.publish(&topic("t"), b"x", bench.now);
    assert_eq!(none, Err(PublishError::NoPeers));
    bench.peers(1, &["t"]);
    let large = bench.core.publish(&topic("t"), &[0; 101], bench.now);
    assert_eq!(large, Err(PublishError::TooLarge { bytes: 101, limit: 100 }));
    assert!(bench.core.publish(&topic("t"), &[0; 100], bench.now).is_ok());
    assert_eq!(bench.core.kept().seen, 1);
}

#[test]
fn the_same_content_is_published_once_where_content_is_the_id() {
    let config = Config { message_id: crate::IdScheme::Content, ..Config::default() };
    let mut bench = Bench::new(config).following("t");
    bench.peers(1, &["t"]);
    let first = bench.core.publish(&topic("t"), b"x", bench.now).unwrap();
    assert_eq!(bench.core.publish(&topic("t"), b"x", bench.now), Err(PublishError::Duplicate(first.id)));
    bench.pass(SECOND * 80);
    assert!(bench.core.publish(&topic("t"), b"x", bench.now).is_ok(), "until it is forgotten");
}

#[test]
fn a_message_of_ours_is_refused_before_any_is_lost() {
    let frame = QueueLimits::default().frame;
    let mut bench = Bench::new(Config { queue_bytes: 4 * frame, ..Config::default() }).following("t");
    let peer = bench.peers(1, &["t"])[0];
    let mut taken = 0;
    let refused = loop {
        match bench.core.publish(&topic("t"), &[0; 10_000], bench.now) {
            Ok(_) => taken += 1,
            Err(e) => break e,
        }
        assert!(taken < 1000);
    };
    assert_eq!(refused, PublishError::QueuesFull { peers: 1 });
    assert_eq!(bench.merged(&peer).publish.len(), taken);
}

/// Publishes as much as `for_ms` gives time for, trying again every 20 ms; each peer takes, whole messages, as many bytes a
/// second as it is said to, and the number of messages that each got is returned with how many were taken.
fn burst(bench: &mut Bench, readers: &[(PeerId, usize)], for_ms: u64) -> (usize, Vec<usize>) {
    let (mut taken, mut allowed, mut got) = (0, vec![0; readers.len()], vec![0; readers.len()]);
    for _ in 0..for_ms / 20 {
        for _ in 0..TURN {
            match bench.core.publish(&topic("t"), &[0; MESSAGE], bench.now) {
                Ok(_) => taken += 1,
                Err(PublishError::QueuesFull { .. }) => break,
                Err(e) => panic!("{e}"),
            }
        }
        bench.turn();
        for (n, (peer, rate)) in readers.iter().enumerate() {
            allowed[n] += rate / 50;
            while allowed[n] >= MESSAGE {
                let mut bytes = Vec::new();
                if !bench.core.outbox(peer).unwrap().next_frame(&mut bytes) {
                    break;
                }
                let messages: usize = frames(&bytes).iter().map(|rpc| rpc.publish.len()).sum();
                got[n] += messages;
                allowed[n] -= messages * MESSAGE;
            }
        }
        bench.now += SECOND / 50;
    }
    // What still waits.
    for (n, (peer, _)) in readers.iter().enumerate() {
        got[n] += bench.merged(peer).publish.len();
    }
    (taken, got)
}

fn two_peers() -> (Bench, PeerId, PeerId) {
    let config = Config { queue_bytes: 512 * 1024, ..Config::default() };
    let mut bench = Bench::new(config).following("t");
    let [a, b] = bench.peers(2, &["t"])[..] else { panic!() };
    (bench, a, b)
}

/// Bytes of a message, and how many are published before the peers read.
const MESSAGE: usize = 10_000;
const TURN: usize = 10;
const FAST: usize = 100 << 20;

#[test]
fn a_publish_waits_for_the_slower_of_two_peers_that_read() {
    let (mut bench, fast, slow) = two_peers();
    let (taken, got) = burst(&mut bench, &[(fast, FAST), (slow, 2_000_000)], 3000);
    assert_eq!(got, [taken, taken]);
    assert!((600..660).contains(&taken), "two megabytes a second, and a queue: {taken}");
}

#[test]
fn a_publish_waits_for_two_slow_peers() {
    let (mut bench, a, b) = two_peers();
    let (taken, got) = burst(&mut bench, &[(a, 256 << 10), (b, 200 << 10)], 5000);
    assert_eq!(got, [taken, taken]);
    assert!((90..250).contains(&taken), "{taken}");
}

#[test]
fn a_peer_that_never_reads_holds_publishers_back_for_three_seconds_once() {
    let (mut bench, fast, deaf) = two_peers();
    let (taken, got) = burst(&mut bench, &[(fast, FAST), (deaf, 0)], 10_000);
    assert_eq!(got[0], taken, "the other one gets all");
    assert!(got[1] < 60, "what its queue has room for: {}", got[1]);
    assert!(taken >= 345 * TURN, "all of 500 turns but those of three seconds: {taken}");
    let all = bench.core.shed().forwards;
    assert_eq!(all as usize, taken - got[1], "what it did not get is counted");
}

#[test]
fn a_peer_that_reads_a_message_a_second_hardly_slows_publishers() {
    let (mut bench, fast, hostile) = two_peers();
    let (taken, got) = burst(&mut bench, &[(fast, FAST), (hostile, 10_000)], 30_000);
    assert_eq!(got[0], taken);
    assert!(taken > 1340 * TURN, "30 seconds but for three: {taken}");
    // At the floor, that is what it costs.
    let (mut bench, fast, hostile) = two_peers();
    let (taken, got) = burst(&mut bench, &[(fast, FAST), (hostile, 25_000)], 30_000);
    assert_eq!(got, [taken, taken]);
    assert!(taken >= 30 * 2, "16 KiB a second are the least: {taken}");
}

#[test]
fn a_peer_that_reads_again_is_waited_for_again() {
    let (mut bench, fast, slow) = two_peers();
    burst(&mut bench, &[(fast, FAST), (slow, 0)], 5000);
    burst(&mut bench, &[(fast, FAST), (slow, 4 << 20)], 3000);
    let (taken, got) = burst(&mut bench, &[(fast, FAST), (slow, 1 << 20)], 3000);
    assert_eq!(got, [taken, taken]);
}

#[test]
fn peers_that_never_read_take_no_room_from_others() {
    let config = Config { queue_bytes: 256 * 1024, all_queues_bytes: 1024 * 1024, ..Config::default() };
    let mut bench = Bench::new(config).following("t");
    let peers = bench.peers(9, &["t"]);
    let readers: Vec<_> =
        peers.iter().enumerate().map(|(n, peer)| (*peer, if n == 0 { FAST } else { 0 })).collect();
    let (taken, got) = burst(&mut bench, &readers, 8000);
    assert_eq!(got[0], taken);
    assert!(taken >= 240 * TURN, "eight seconds but three: {taken}");
}

#[test]
fn a_slow_peer_loses_forwarded_messages_and_is_reported_and_scored() {
    let frame = QueueLimits::default().frame;
    let mut bench = Bench::new(Config { queue_bytes: frame, ..Config::default() });
    let params = PeerScoreParams { slow_peer_weight: -0.2, slow_peer_threshold: 0.0, ..Default::default() };
    bench.core.score_peers(params, PeerScoreThresholds::default(), bench.now).unwrap();
    let mut bench = bench.following("t");
    let [from, slow] = bench.peers(2, &["t"])[..] else { panic!() };
    let key = libp2p::identity::Keypair::generate_ed25519();
    drop(bench.merged(&slow));
    for n in 0..10 {
        bench.message(from, &signed(&key, n, "t", &[n as u8; 20_000]));
    }
    bench.turn();
    let left: Vec<u8> = bench.merged(&slow).publish.iter().map(|message| message.data()[0]).collect();
    assert!(left.len() < 10 && left.last() == Some(&9), "the oldest go first: {left:?}");
    bench.heartbeat();
    assert!(bench.events.contains(&Event::SlowPeer { peer: slow, dropped: 10 - left.len() }));
    assert!(bench.core.score(&slow).unwrap() < bench.core.score(&from).unwrap());
}
