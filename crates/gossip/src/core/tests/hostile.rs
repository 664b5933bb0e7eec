//! Peers that mean harm: what they send is bounded in what it costs, and harms nobody else.

use bytes::Bytes;
use libp2p::identity::Keypair;
use proptest::prelude::*;

use super::bench::*;
use crate::{
    Control, IHave, Limits, MAX_BACKOFF, MessageId, MessageParts, PeerInfo, Prune, Rpc, Subscription,
    TopicScoreParams, WireMessage, core::*, decode,
};

fn id(n: usize) -> MessageId {
    MessageId::from(format!("{n:046}").as_str())
}

/// An RPC of one message and as much of an unknown field as fits a frame.
fn in_a_large_frame(message: &WireMessage) -> Rpc {
    let mut frame = Vec::new();
    Rpc { publish: vec![message.clone()], ..Rpc::default() }.encode(&mut frame);
    let body = frame.len() - 2;
    // Field 15, 60,000 bytes.
    let mut padded = frame.split_off(frame.len() - body);
    padded.extend([15 << 3 | 2, 0xe0, 0xd4, 3]);
    padded.resize(padded.len() + 60_000, 0);
    let rpc = decode(&Bytes::from(padded), &Limits::default()).unwrap();
    assert_eq!(rpc.publish.len(), 1);
    rpc
}

#[test]
fn messages_that_wait_keep_no_frames_from_being_freed() {
    let mut bench = Bench::new(Config { validate_messages: true, ..Config::default() }).following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    let key = Keypair::generate_ed25519();
    for sequence in 0..200 {
        bench.hear(peer, in_a_large_frame(&signed(&key, sequence, "t", &[1; 100])));
    }
    let kept = bench.core.kept();
    assert_eq!(kept.unverified, 200);
    assert!(kept.unverified_bytes < 200 * 1024, "{} bytes", kept.unverified_bytes);
    bench.turn();
    let kept = bench.core.kept();
    assert_eq!((kept.unverified, kept.unverified_bytes, kept.awaiting_verdict), (0, 0, 200));
    assert!(kept.awaiting_verdict_bytes < 200 * 1024, "{} bytes", kept.awaiting_verdict_bytes);
}

#[test]
fn large_messages_that_wait_are_bounded_in_bytes_for_each_peer_and_for_all() {
    let config = Config {
        unverified_bytes: 1 << 20,
        awaiting_verdict_bytes: 1 << 20,
        validate_messages: true,
        ..Config::default()
    };
    let mut bench = Bench::new(config).following("t");
    let peers = bench.peers(40, &["t"]);
    let key = Keypair::generate_ed25519();
    for (n, peer) in peers.iter().enumerate() {
        for m in 0..20 {
            bench.message(*peer, &forged(&signed(&key, (n * 100 + m) as u64, "t", b""), &vec![7; 60_000]));
        }
        assert!(bench.core.kept().unverified_bytes <= 1 << 20);
    }
    // One peer alone does not take all of it.
    let mut bench = Bench::new(Config { unverified_bytes: 1 << 20, ..Config::default() }).following("t");
    let [flood, honest] = bench.peers(2, &["t"])[..] else { panic!() };
    for m in 0..100 {
        bench.message(flood, &forged(&signed(&key, m, "t", b""), &vec![7; 60_000]));
    }
    bench.message(honest, &signed(&key, 1000, "t", &[1; 60_000]));
    assert_eq!(bench.delivered().len(), 1);

    let config = Config { awaiting_verdict_bytes: 1 << 20, validate_messages: true, ..Config::default() };
    let mut bench = Bench::new(config).following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    for m in 0..100 {
        bench.message(peer, &signed(&key, m, "t", &[1; 60_000]));
        bench.turn();
        assert!(bench.core.kept().awaiting_verdict_bytes <= 1 << 20);
    }
    assert!(bench.core.kept().awaiting_verdict >= 15);
}

#[test]
fn however_many_peers_flood_with_unverified_messages_there_is_room_for_the_next_one() {
    let key = Keypair::generate_ed25519();
    for (floods, bytes) in [(1, 60_000), (1, 10), (4, 60_000), (4, 10), (12, 60_000), (60, 10)] {
        let config = Config { unverified: 1000, unverified_bytes: 4 << 20, ..Config::default() };
        let mut bench = Bench::new(config).following("t");
        let mut peers = bench.peers(floods + 1, &["t"]);
        let honest = peers.pop().unwrap();
        let data = vec![7; bytes];
        for m in 0..1200 / floods {
            for (n, peer) in peers.iter().enumerate() {
                let sequence = (n * 10_000 + m) as u64;
                bench.message(*peer, &forged(&signed(&key, sequence, "t", b""), &data));
            }
        }
        let kept = bench.core.kept();
        if floods == 1 {
            assert!(kept.unverified <= 250 && kept.unverified_bytes <= 1 << 20, "{kept:?}");
        }
        for n in 0..3 {
            bench.message(honest, &signed(&key, 1_000_000 + n, "t", &vec![1; bytes]));
        }
        assert_eq!(bench.delivered().len(), 3, "beside {floods} of {bytes} bytes: {kept:?}");
    }
}

#[test]
fn a_flood_of_ihaves_is_asked_for_up_to_a_bound_and_paid_for() {
    let mut bench = Bench::new(Config::default()).following("t").scored();
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    bench.merged(&peer);
    let most = Config::default().max_ids_per_heartbeat;
    for n in 0..50 {
        bench.ihave(peer, "t", (0..1000).map(|m| id(n * 1000 + m)).collect());
    }
    assert!(bench.core.kept().promises <= most);
    assert!(bench.merged(&peer).control.iwant.len() <= most);
    bench.pass(SECOND * 6);
    assert!(bench.core.score(&peer).unwrap() < 0.0, "nothing of it came");
    assert_eq!(bench.core.kept().promises, 0);
}

#[test]
fn a_flood_of_iwants_gets_each_message_a_few_times_and_no_more() {
    let mut bench = Bench::new(Config::default()).following("t");
    let [author, thief] = bench.peers(2, &["t"])[..] else { panic!() };
    let key = Keypair::generate_ed25519();
    let message = signed(&key, 1, "t", b"data");
    bench.message(author, &message);
    bench.turn();
    let Some(Event::Message { id, .. }) =
        bench.events.iter().find(|e| matches!(e, Event::Message { .. })).cloned()
    else {
        panic!()
    };
    bench.merged(&thief);
    for _ in 0..100 {
        bench.control(thief, Control { iwant: vec![id.clone(); 1000], ..Control::default() });
    }
    let got = bench.merged(&thief).publish.len();
    assert!(got <= Config::default().gossip_retransmission as usize, "{got} times");
}

#[test]
fn topics_that_come_and_go_leave_nothing_behind() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    for round in 0..20 {
        let subscriptions = (0..2000)
            .flat_map(|n| {
                let topic = topic(&format!("{round} {n}"));
                [true, false].map(|subscribe| Subscription { topic: topic.clone(), subscribe })
            })
            .collect();
        bench.hear(peer, Rpc { subscriptions, ..Rpc::default() });
        bench.turn();
        bench.events.clear();
    }
    assert_eq!(bench.core.topics_of(&peer), [topic("t")]);
    let subscriptions: Vec<_> =
        (0..5000).map(|n| Subscription { topic: topic(&n.to_string()), subscribe: true }).collect();
    bench.hear(peer, Rpc { subscriptions, ..Rpc::default() });
    // Ours does not count.
    assert!(bench.core.topics_of(&peer).len() <= Config::default().max_topics_per_peer + 1);
}

#[test]
fn names_that_strangers_invent_are_bounded_in_all_and_crowd_out_nobody_with_few() {
    let config = Config { max_topics: 3000, max_topic_bytes: 200_000, ..Config::default() };
    let mut bench = Bench::new(config).following("ours");
    let loud = bench.peers(8, &[]);
    for (n, peer) in loud.iter().enumerate() {
        let names: Vec<String> = (0..1000).map(|m| format!("{n} {m} {}", "x".repeat(n * 20))).collect();
        bench.follow(*peer, &names.iter().map(String::as_str).collect::<Vec<_>>());
        bench.turn();
        bench.events.clear();
    }
    let held = |bench: &Bench| {
        let all: Vec<_> = loud.iter().flat_map(|peer| bench.core.topics_of(peer)).collect();
        (all.len(), all.iter().map(|topic| topic.as_str().len()).sum::<usize>())
    };
    let (topics, bytes) = held(&bench);
    assert!(topics <= 3000 && bytes <= 200_000, "{topics} topics, {bytes} bytes");
    assert!(topics >= 1500 || bytes >= 150_000, "{topics} topics, {bytes} bytes");
    assert!(loud.iter().all(|peer| bench.core.topics_of(peer).len() >= 100), "each has a share");
    // Whoever comes late and with few gets room for them, and for ours in any case.
    let quiet = bench.peers(20, &["a", "b", "ours"]);
    for peer in &quiet {
        assert_eq!(bench.core.topics_of(peer).len(), 3);
    }
    let gone = bench.events.iter().filter(|event| matches!(event, Event::Unsubscribed { .. })).count();
    assert!(gone > 0, "who lost one is reported");
    bench.follow(loud[0], &["ours"]);
    assert!(bench.core.topics_of(&loud[0]).contains(&topic("ours")));
    // What becomes ours is not charged any more, and nothing is left when all are gone.
    bench.core.subscribe(&topic("a"), bench.now);
    for (n, peer) in loud.iter().chain(&quiet).enumerate() {
        bench.core.disconnected(peer, libp2p::swarm::ConnectionId::new_unchecked(n + 1), bench.now);
    }
    assert_eq!(bench.core.charge, Default::default());
    assert_eq!(bench.core.topics.len(), 2);
}

#[test]
fn grafts_and_prunes_of_what_nobody_follows_are_not_answered() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    bench.merged(&peer);
    let topics: Vec<_> = (0..3000).map(|n| topic(&n.to_string())).collect();
    let prune = topics.iter().map(|topic| Prune {
        topic: topic.clone(),
        peers: Vec::new(),
        backoff: Some(MAX_BACKOFF),
    });
    let prune = prune.collect();
    bench.control(peer, Control { graft: topics, prune, ..Control::default() });
    let sent = bench.merged(&peer);
    assert_eq!((sent.control.prune.len(), sent.control.graft.len()), (0, 0));
}

#[test]
fn a_prune_of_the_longest_backoff_and_forged_records_connects_to_nobody() {
    let mut bench = Bench::new(Config { peer_exchange: true, ..Config::default() }).following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    let forged =
        (0..64).map(|n| PeerInfo { peer: PeerId::random(), record: Some(Bytes::from(vec![n; 500])) });
    let prune = Prune { topic: topic("t"), peers: forged.collect(), backoff: Some(MAX_BACKOFF) };
    bench.prune(peer, prune);
    assert!(!bench.actions.iter().any(|action| matches!(action, Action::Connect { .. })));
    bench.pass(SECOND * 10);
}

#[test]
fn an_author_that_names_two_messages_alike_is_heard_once() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = bench.peers(5, &["t"]);
    let key = Keypair::generate_ed25519();
    let (one, other) = (signed(&key, 1, "t", b"one"), signed(&key, 1, "t", b"other"));
    for peer in &peers {
        bench.message(*peer, &one);
        bench.message(*peer, &other);
        bench.turn();
    }
    assert_eq!(bench.delivered(), [b"one"]);
    for _ in 0..3 {
        bench.heartbeat();
    }
    assert!(bench.core.kept().history <= 1);
}

#[test]
fn a_true_message_with_a_junk_key_is_passed_on_without_it() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peers = bench.peers(3, &["t"]);
    peers.iter().for_each(|peer| drop(bench.merged(peer)));
    let message = signed(&Keypair::generate_ed25519(), 1, "t", b"data");
    let junk = vec![0xff; 30_000];
    let dirty = MessageParts { key: Some(&junk), ..message.parts() };
    let mut frame = Vec::new();
    Rpc { publish: vec![WireMessage::new(&dirty)], ..Rpc::default() }.encode(&mut frame);
    let [rpc] = &frames(&frame)[..] else { panic!() };
    bench.hear(peers[0], rpc.clone());
    assert_eq!(bench.delivered(), [b"data"]);
    let sent = bench.merged(&peers[1]).publish;
    assert_eq!(sent.iter().map(|m| m.encoded()).collect::<Vec<_>>(), [message.encoded()]);
    // The clean one is a copy, not another message that would have to be verified.
    let verified = bench.verified;
    bench.message(peers[2], &message);
    assert!(bench.delivered().is_empty());
    assert_eq!(bench.verified, verified);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// True RPCs with bytes bent, out of many peers, in any order.
    #[test]
    fn bent_rpcs_break_nothing(
        bends in prop::collection::vec((0usize..6, any::<prop::sample::Index>(), any::<u8>(), 0u64..400), 1..150),
    ) {
        let mut bench = Bench::new(Config { peer_exchange: true, validate_messages: true, ..Config::default() })
            .following("t")
            .scored();
        let peers = bench.peers(6, &["t"]);
        let key = Keypair::generate_ed25519();
        let record = Some(Bytes::from_static(b"record"));
        for (n, (peer, at, to, later)) in bends.into_iter().enumerate() {
            let control = Control {
                ihave: vec![IHave { topic: topic("t"), ids: vec![id(n), id(n + 1)] }],
                iwant: vec![id(n)],
                graft: vec![topic("t")],
                prune: vec![Prune {
                    topic: topic("t"),
                    peers: vec![PeerInfo { peer: peers[0], record: record.clone() }],
                    backoff: Some(SECOND),
                }],
                idontwant: vec![id(n)],
                extensions: None,
                choke: vec![crate::Choke { topic: topic("t"), choked: n % 2 == 0 }],
            };
            let publish = vec![signed(&key, n as u64 / 2, "t", b"data"), signed(&key, n as u64, "t", b"data")];
            let subscriptions = vec![Subscription { topic: topic("t"), subscribe: n % 5 > 0 }];
            let mut frame = Vec::new();
            Rpc { subscriptions, publish, control, ignored: 0 }.encode(&mut frame);
            let mut body = frame.split_off(2);
            let at = at.index(body.len());
            body[at] = to;
            if let Ok(rpc) = decode(&Bytes::from(body), &Limits::default()) {
                bench.hear(peers[peer], rpc);
            } else {
                bench.core.malformed(&peers[peer]);
            }
            bench.pass(std::time::Duration::from_millis(later));
            bench.turn();
            let kept = bench.core.kept();
            prop_assert_eq!((kept.unverified, kept.unverified_bytes), (0, 0));
            for peer in bench.core.mesh(&topic("t")) {
                prop_assert!(bench.core.subscribers(&topic("t")).contains(&peer));
            }
        }
        // An id was delivered once, whatever came under it.
        let mut ids: Vec<_> = bench
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Message { id, .. } => Some(id.clone()),
                _ => None,
            })
            .collect();
        let all = ids.len();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), all);
    }
}

#[test]
fn a_peer_that_reads_nothing_loses_its_place_and_gets_it_back_once_it_reads() {
    let config = Config { stall_time: SECOND * 8, prune_backoff: SECOND, ..Config::default() };
    let mut bench = Bench::new(config).following("t");
    let [from, deaf, well] = bench.peers(3, &["t"])[..] else { panic!() };
    let key = Keypair::generate_ed25519();
    for peer in [from, deaf, well] {
        bench.merged(&peer);
        assert!(bench.in_mesh("t", &peer));
    }
    for second in 0..11 {
        bench.message(from, &signed(&key, second, "t", &[7; 1000]));
        bench.heartbeat();
        bench.merged(&from);
        assert_eq!(bench.merged(&well).publish.len(), 1);
        assert!(bench.in_mesh("t", &deaf) || second > 7, "after {second} s");
    }
    assert!(!bench.in_mesh("t", &deaf));
    assert!(bench.in_mesh("t", &well) && bench.in_mesh("t", &from), "who has nothing to read is not deaf");
    let waiting = bench.core.outbox(&deaf).unwrap().lock().bytes();
    assert!(waiting < 1000, "{waiting} bytes still wait");
    let forwards = bench.core.shed().forwards;
    assert!((8..=11).contains(&forwards), "{forwards}");
    // It is not taken back because it asks for it, but because it reads.
    bench.graft(deaf, "t");
    assert!(!bench.in_mesh("t", &deaf));
    bench.merged(&deaf);
    bench.pass(SECOND * 3);
    assert!(bench.in_mesh("t", &deaf));
}

#[test]
fn what_waits_for_all_peers_is_bounded_and_who_has_the_most_waiting_makes_room() {
    let config = Config { queue_bytes: 1 << 20, all_queues_bytes: 2 << 20, ..Config::default() };
    let mut bench = Bench::new(config).following("t");
    let peers = bench.peers(10, &["t"]);
    let (from, well, slow) = (peers[0], peers[1], &peers[2..]);
    let key = Keypair::generate_ed25519();
    bench.merged(&well);
    for n in 0..400u64 {
        bench.message(from, &signed(&key, n, "t", &[7; 10_000]));
        bench.turn();
        let waiting: usize =
            slow.iter().map(|peer| bench.core.outbox(peer).unwrap().lock().forwarded_bytes()).sum();
        assert!(waiting <= 2 << 20, "{waiting} bytes");
        if bench.in_mesh("t", &well) {
            assert_eq!(bench.merged(&well).publish.len(), 1, "who reads loses nothing");
        }
    }
    assert!(bench.core.shed().forwards > 400, "{:?}", bench.core.shed());
    // Ours go first, and what others said makes room.
    assert!(bench.core.publish(&topic("t"), &[1; 10_000], bench.now).is_ok());
    for peer in &peers {
        bench.merged(peer);
    }
    assert_eq!(bench.core.queued.held(), 0);
    for peer in &peers {
        bench.core.publish(&topic("t"), &[1; 10_000], bench.now).unwrap();
        let connections: Vec<_> = (1..=10).map(libp2p::swarm::ConnectionId::new_unchecked).collect();
        connections.iter().for_each(|connection| bench.core.disconnected(peer, *connection, bench.now));
    }
    bench.actions.clear();
    assert_eq!(bench.core.queued.held(), 0, "what waited for a peer that has gone counts no more");
}

#[test]
fn names_of_topics_above_256_bytes_are_not_taken_in() {
    let mut bench = Bench::new(Config::default());
    let (longest, longer) = ("x".repeat(256), "x".repeat(257));
    let mut frame = Vec::new();
    let subscribe = |name: &str| Subscription { topic: topic(name), subscribe: true };
    let subscriptions = vec![subscribe(&longer), subscribe(&longest), subscribe(&"y".repeat(15_000))];
    Rpc { subscriptions, ..Rpc::default() }.encode(&mut frame);
    let peer = bench.peer(PeerKind::V1_3, false, &[]);
    for rpc in frames(&frame) {
        assert_eq!(rpc.ignored, 2);
        bench.hear(peer, rpc);
    }
    assert_eq!(bench.core.topics_of(&peer), [topic(&longest)]);
}

#[test]
fn a_node_of_many_topics_that_come_and_go_keeps_none_of_them() {
    let mut bench = Bench::new(Config::default()).scored();
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    for n in 0..50_000 {
        let name = topic(&format!("topic {n}"));
        bench.core.set_topic_params(name.clone(), TopicScoreParams::default()).unwrap();
        bench.core.subscribe(&name, bench.now);
        if n % 100 == 0 {
            bench.merged(&peer);
        }
        bench.core.unsubscribe(&name, bench.now);
        bench.core.remove_topic_params(&name);
    }
    bench.merged(&peer);
    bench.pass(SECOND * 300);
    assert_eq!(bench.core.topics.len(), 1, "that of the peer");
    assert_eq!((bench.core.left.len(), bench.core.backoffs.is_empty()), (0, true));
    assert!(bench.core.score.as_ref().unwrap().params().topics.is_empty());
}
