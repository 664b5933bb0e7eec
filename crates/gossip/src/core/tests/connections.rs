use libp2p::{PeerId, swarm::ConnectionId};

use super::bench::*;
use crate::{Extensions, QueueLimits, core::*};

const DIRECT: &str = "/ip4/127.0.0.1/udp/1/quic-v1";
const RELAYED: &str =
    "/ip4/127.0.0.1/udp/1/quic-v1/p2p/12D3KooWRm8J3iL796zPFi2EtGGtUJn58AG67gcqzMFHZnnsTzqD/p2p-circuit";

fn acts(bench: &mut Bench) -> Vec<Action> {
    bench.turn();
    std::mem::take(&mut bench.actions)
}

#[test]
fn extensions_are_first_on_the_stream_once_and_only_told_to_v1_3_peers() {
    let extensions = Extensions::default().with(Extensions::TEST);
    let mut bench = Bench::new(Config { extensions: extensions.clone(), ..Config::default() }).following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    let sent = bench.sent(&peer);
    assert_eq!(sent[0].control.extensions, Some(extensions));
    assert!(sent[1..].iter().all(|rpc| rpc.control.extensions.is_none()));
    bench.pass(SECOND * 5);
    assert!(bench.sent(&peer).iter().all(|rpc| rpc.control.extensions.is_none()));
    for kind in [PeerKind::V1_2, PeerKind::V1_1, PeerKind::V1_0] {
        let old = bench.peer(kind, false, &["t"]);
        assert!(bench.merged(&old).control.extensions.is_none(), "{kind:?}");
    }
}

#[test]
fn what_a_peer_announces_by_v1_3_is_heeded_once_and_unknown_extensions_are_ignored() {
    let mut bench = Bench::new(Config::default());
    let peer = bench.peer(PeerKind::V1_3, false, &[]);
    let first = Extensions::default().with(Extensions::TEST).with(7_000_000);
    for extensions in [first.clone(), Extensions::default()] {
        bench.control(peer, crate::Control { extensions: Some(extensions), ..Default::default() });
    }
    assert_eq!(bench.core.extensions_of(&peer), Some(&first));
}

#[test]
fn a_greeting_of_a_thousand_topics_is_cut_into_rpcs_that_stock_peers_take() {
    let mut bench = Bench::new(Config::default());
    let names: Vec<String> = (0..1024).map(|n| format!("{n:0>256}")).collect();
    for name in &names {
        bench.core.subscribe(&topic(name), bench.now);
    }
    let peer = bench.peer(PeerKind::V1_3, false, &[]);
    let mut bytes = Vec::new();
    let outbox = bench.core.outbox(&peer).unwrap().clone();
    let mut sent = 0;
    loop {
        bytes.clear();
        if !outbox.next_frame(&mut bytes) {
            break;
        }
        assert!(bytes.len() <= QueueLimits::default().control + 8, "{}", bytes.len());
        sent += frames(&bytes).iter().map(|rpc| rpc.subscriptions.len()).sum::<usize>();
    }
    assert_eq!(sent, 1024);
}

#[test]
fn a_greeting_of_many_short_topics_tells_each_of_them_once() {
    let mut bench = Bench::new(Config::default());
    let names: std::collections::BTreeSet<String> = (0..1000).map(|n| format!("topic {n}")).collect();
    for name in &names {
        bench.core.subscribe(&topic(name), bench.now);
    }
    let peer = bench.peer(PeerKind::V1_3, false, &[]);
    let sent: Vec<_> = bench.merged(&peer).subscriptions.iter().map(|s| s.topic.to_string()).collect();
    assert_eq!(sent.len(), 1000);
    assert_eq!(sent.into_iter().collect::<std::collections::BTreeSet<_>>(), names);
}

#[test]
fn when_the_carrier_closes_another_connection_carries_and_the_peer_is_greeted_again() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    let second = bench.connect(peer, true, DIRECT);
    drop((bench.merged(&peer), acts(&mut bench)));
    bench.core.publish(&topic("t"), b"under way", bench.now).unwrap();
    bench.core.disconnected(&peer, ConnectionId::new_unchecked(1), bench.now);
    let did = acts(&mut bench);
    assert!(did.contains(&Action::Carry { peer, connection: second }), "{did:?}");
    assert!(did.contains(&Action::KeepAlive { peer, connection: second, keep: true }), "{did:?}");
    assert!(bench.in_mesh("t", &peer));
    bench.core.opened(&peer, second, PeerKind::V1_3);
    assert!(acts(&mut bench).contains(&Action::Start { peer, connection: second }));
    let sent = bench.merged(&peer);
    assert_eq!(sent.subscriptions.len(), 1);
    assert_eq!(sent.control.graft, [topic("t")]);
    assert_eq!(sent.publish.len(), 1, "what waited is not lost");
}

#[test]
fn what_was_sent_before_the_substream_broke_is_announced_on_the_next_one() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    let id = bench.core.publish(&topic("t"), b"lost on the way", bench.now).unwrap().id;
    assert!(bench.merged(&peer).control.ihave.is_empty());
    let carrier = ConnectionId::new_unchecked(1);
    bench.core.broke(&peer, carrier);
    bench.core.opened(&peer, carrier, PeerKind::V1_3);
    assert_eq!(
        bench.merged(&peer).control.ihave,
        [crate::IHave { topic: topic("t"), ids: vec![id.clone()] }]
    );
    bench.control(peer, crate::Control { iwant: vec![id], ..Default::default() });
    assert_eq!(bench.merged(&peer).publish.len(), 1);
}

#[test]
fn a_direct_connection_takes_over_from_a_relayed_one_and_not_the_other_way_round() {
    let mut bench = Bench::new(Config::default());
    let peer = PeerId::random();
    let relayed = bench.connect(peer, false, RELAYED);
    assert_eq!(acts(&mut bench), [Action::Carry { peer, connection: relayed }]);
    let direct = bench.connect(peer, false, DIRECT);
    assert_eq!(
        acts(&mut bench),
        [Action::Release { peer, connection: relayed }, Action::Carry { peer, connection: direct }]
    );
    bench.connect(peer, false, RELAYED);
    bench.connect(peer, false, DIRECT);
    assert!(acts(&mut bench).is_empty());
}

#[test]
fn a_topic_that_was_left_while_the_substream_was_broken_is_taken_back_in_the_next_greeting() {
    let mut bench = Bench::new(Config::default()).following("t");
    let peer = bench.peer(PeerKind::V1_3, false, &["t"]);
    drop(bench.merged(&peer));
    let carrier = ConnectionId::new_unchecked(1);
    bench.core.broke(&peer, carrier);
    bench.core.unsubscribe(&topic("t"), bench.now);
    bench.core.subscribe(&topic("u"), bench.now);
    bench.core.opened(&peer, carrier, PeerKind::V1_3);
    let mut said: Vec<_> =
        bench.merged(&peer).subscriptions.iter().map(|s| (s.topic.to_string(), s.subscribe)).collect();
    said.sort();
    assert_eq!(said, [("t".to_owned(), false), ("u".to_owned(), true)]);
}

#[test]
fn a_link_is_reported_as_it_comes_and_goes() {
    let mut bench = Bench::new(Config::default());
    let peer = bench.peer(PeerKind::V1_1, false, &[]);
    let link = |outbound, inbound| Event::Link { peer, outbound, inbound, kind: Some(PeerKind::V1_1) };
    assert!(bench.events.contains(&link(true, false)) && bench.events.contains(&link(true, true)));
    let id = ConnectionId::new_unchecked(1);
    bench.events.clear();
    bench.core.broke(&peer, id);
    bench.core.broke(&peer, id);
    bench.core.heard(&peer, id, PeerKind::V1_1, false);
    bench.turn();
    assert_eq!(bench.events, [link(false, true), link(false, false)]);
    assert!(!bench.core.link(&peer).unwrap().outbound);
}

#[test]
fn a_peer_that_speaks_none_of_our_protocols_is_reported_once_and_not_tried_again() {
    let mut bench = Bench::new(Config::default());
    let peer = PeerId::random();
    let only = bench.connect(peer, true, DIRECT);
    acts(&mut bench);
    bench.core.unsupported(&peer, only);
    let did = acts(&mut bench);
    assert!(!did.iter().any(|action| matches!(action, Action::Carry { .. })), "{did:?}");
    assert_eq!(bench.events, [Event::NotSupported { peer }]);
}
