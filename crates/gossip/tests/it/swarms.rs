use std::time::Duration;

use smidge_gossip::{Event, IdScheme, PeerKind, Validation};

use crate::support::{Engine, Node, follow, join, ours, publish, quick, until};

fn pair(config: impl Fn() -> smidge_gossip::Config) -> Vec<Node> {
    let mut nodes = vec![ours(config()), ours(config())];
    join(&mut nodes);
    nodes
}

#[test]
fn two_nodes_meet_mesh_and_hear_each_other() {
    let mut nodes = pair(quick);
    follow(&mut nodes, "t");
    until(&mut nodes, "a mesh", |nodes| nodes.iter().all(|node| node.mesh("t") == 1));
    let (a, b) = (nodes[0].peer, nodes[1].peer);
    assert_eq!(nodes[0].kind(&b), Some(PeerKind::V1_3));
    for n in 0..100u8 {
        assert_eq!(nodes[0].publish("t", &[0, n]), Ok(1));
        assert_eq!(nodes[1].publish("t", &[1, n]), Ok(1));
    }
    until(&mut nodes, "a hundred messages each way", |nodes| {
        nodes.iter().all(|n| n.log.messages.len() == 100)
    });
    let data: Vec<_> = nodes[1].log.messages.iter().map(|(_, data)| data.clone()).collect();
    assert!(data.is_sorted(), "in the order in which they were published");
    nodes[0].unsubscribe("t");
    until(&mut nodes, "the mesh to end", |nodes| nodes.iter().all(|node| node.mesh("t") == 0));
    assert!(nodes[1].log.events.contains(&Event::Unsubscribed { peer: a, topic: "t".into() }));
}

#[test]
fn messages_come_in_their_order_where_signatures_are_checked_elsewhere() {
    let pool = futures::executor::ThreadPool::builder().pool_size(2).create().unwrap();
    let mut nodes = vec![ours(quick()), ours(quick())];
    for node in &mut nodes {
        let pool = pool.clone();
        let Engine::Ours(swarm) = &mut node.engine else { panic!("one of ours") };
        swarm.behaviour_mut().verify_on(move |task| pool.spawn_ok(task));
    }
    join(&mut nodes);
    follow(&mut nodes, "t");
    for n in 0..500_u16 {
        for from in 0..2 {
            publish(&mut nodes, from, "t", &n.to_be_bytes());
        }
    }
    until(&mut nodes, "all at each", |nodes| nodes.iter().all(|node| node.log.messages.len() >= 500));
    for node in &nodes {
        let heard: Vec<_> = node.log.messages.iter().map(|(_, data)| data.clone()).collect();
        let all: Vec<_> = (0..500_u16).map(|n| n.to_be_bytes().to_vec()).collect();
        assert_eq!(heard, all);
    }
}

#[test]
fn eight_nodes_deliver_each_message_once_to_everybody() {
    let mut nodes: Vec<_> = (0..8).map(|_| ours(quick())).collect();
    join(&mut nodes);
    follow(&mut nodes, "t");
    for n in 0..8 {
        for m in 0..50 {
            publish(&mut nodes, n, "t", format!("{n} {m}").as_bytes());
        }
    }
    until(&mut nodes, "350 messages at each", |nodes| {
        nodes.iter().all(|node| node.log.messages.len() >= 350)
    });
    until_quiet(&mut nodes);
    for (at, node) in nodes.iter().enumerate() {
        for n in (0..8).filter(|n| *n != at) {
            for m in 0..50 {
                assert_eq!(node.log.count(format!("{n} {m}").as_bytes()), 1);
            }
        }
    }
}

/// A few heartbeats, in which nothing may come.
fn until_quiet(nodes: &mut [Node]) {
    let end = std::time::Instant::now() + Duration::from_millis(700);
    until(nodes, "a while", |_| std::time::Instant::now() >= end);
}

#[test]
fn eight_nodes_in_a_line_pass_messages_on() {
    let mut nodes: Vec<_> = (0..8).map(|_| ours(quick())).collect();
    for n in 1..8 {
        let (peer, address) = (nodes[n - 1].peer, nodes[n - 1].address.clone());
        nodes[n].dial(peer, &address);
    }
    nodes.iter_mut().for_each(|node| node.subscribe("t"));
    until(&mut nodes, "meshes", |nodes| nodes[1..7].iter().all(|node| node.mesh("t") == 2));
    publish(&mut nodes, 0, "t", b"along the line");
    until(&mut nodes, "it at the other end", |nodes| nodes[7].log.has(b"along the line"));
}

#[test]
fn a_lone_message_reaches_whoever_is_outside_of_the_mesh_by_gossip() {
    // Nobody's mesh: a hub that publishes nothing itself, and may hold no more than one.
    let config = || {
        let mut config = quick();
        config.flood_publish = false;
        config.mesh = smidge_gossip::MeshParams { n: 1, n_low: 1, n_high: 1, outbound_min: 0 };
        config
    };
    let mut nodes: Vec<_> = (0..5).map(|_| ours(config())).collect();
    join(&mut nodes);
    follow(&mut nodes, "t");
    publish(&mut nodes, 0, "t", b"announced");
    until(&mut nodes, "it everywhere", |nodes| nodes[1..].iter().all(|node| node.log.has(b"announced")));
}

#[test]
fn gossip_goes_on_over_another_connection_when_the_one_that_carries_it_closes() {
    let mut nodes = pair(quick);
    follow(&mut nodes, "t");
    let (peer, address) = (nodes[0].peer, nodes[0].address.clone());
    nodes[1].dial(peer, &address);
    until(&mut nodes, "a second connection", |nodes| nodes.iter().all(|n| n.log.connections.len() == 2));
    for round in 0..3u8 {
        let (_, first) = nodes[1].log.connections[0];
        nodes[1].close(first);
        nodes[1].dial(peer, &address);
        for node in 0..2 {
            publish(&mut nodes, node, "t", &[round, node as u8]);
        }
        until(&mut nodes, "a message each way", |nodes| {
            nodes[0].log.has(&[round, 1])
                && nodes[1].log.has(&[round, 0])
                && nodes[1].log.connections.len() == 2
        });
    }
}

#[test]
fn what_comes_after_a_message_that_is_too_large_for_the_receiver_arrives() {
    let (mut small, mut large) = (quick(), quick());
    small.max_message = 10_000;
    large.max_message = 200_000;
    let mut nodes = vec![ours(small), ours(large)];
    join(&mut nodes);
    follow(&mut nodes, "t");
    let peer = nodes[1].peer;
    for round in 0..10u8 {
        publish(&mut nodes, 1, "t", &vec![round; 150_000]);
        publish(&mut nodes, 1, "t", &[round]);
    }
    until(&mut nodes, "ten small ones", |nodes| nodes[0].log.messages.len() == 10);
    let too_large = |event: &&Event| matches!(event, Event::TooLarge { peer: p, bytes } if *p == peer && *bytes > 150_000);
    assert_eq!(nodes[0].log.events.iter().filter(too_large).count(), 10);
    assert_eq!(
        nodes[0].publish("t", &[0; 10_001]).unwrap_err(),
        "a message of 10001 bytes is above max_message, 10000"
    );
}

#[test]
fn the_largest_payload_arrives_and_a_byte_more_is_refused() {
    let mut nodes = pair(quick);
    follow(&mut nodes, "t");
    let most = smidge_gossip::Config::default().max_message;
    publish(&mut nodes, 0, "t", &vec![7; most]);
    publish(&mut nodes, 0, "t", b"one");
    until(&mut nodes, "both", |nodes| nodes[1].log.messages.len() == 2);
    assert_eq!(nodes[1].log.messages[0].1.len(), most);
    assert!(nodes[0].publish("t", &vec![7; most + 1]).is_err());
}

#[test]
fn a_thousand_topics_of_the_greatest_length_work_also_after_reconnecting() {
    let mut nodes = vec![ours(quick()), ours(quick())];
    let names: Vec<String> = (0..1024).map(|n| format!("{n:0>256}")).collect();
    names.iter().for_each(|name| nodes[0].subscribe(name));
    join(&mut nodes);
    let peer = nodes[0].peer;
    for round in 0..2u8 {
        until(&mut nodes, "all topics", |nodes| nodes[1].follows(&peer) == 1024);
        for (n, name) in names.iter().enumerate().step_by(341) {
            publish(&mut nodes, 1, name, &[round, (n / 341) as u8]);
        }
        until(&mut nodes, "a message in some of them", |nodes| {
            nodes[0].log.messages.len() == 4 * (1 + round as usize)
        });
        let (_, connection) = nodes[1].log.connections[0];
        nodes[1].close(connection);
        until(&mut nodes, "the end of the connection", |nodes| {
            nodes.iter().all(|n| n.log.connections.is_empty())
        });
        join(&mut nodes);
    }
}

#[test]
fn bursts_of_large_messages_arrive_whole() {
    let mut nodes = pair(quick);
    follow(&mut nodes, "t");
    for n in 0..20u8 {
        publish(&mut nodes, 0, "t", &vec![n; 60_000]);
    }
    publish(&mut nodes, 0, "t", b"small");
    until(&mut nodes, "21 messages", |nodes| nodes[1].log.messages.len() == 21);
}

#[test]
fn anonymous_messages_and_floodsub_work() {
    let mut anonymous = quick();
    anonymous.validation = Validation::Anonymous;
    anonymous.message_id = IdScheme::Content;
    let mut flooding = quick();
    flooding.newest = PeerKind::Floodsub;
    flooding.floodsub = true;
    for config in [anonymous, flooding] {
        let mut nodes = pair(|| config.clone());
        follow(&mut nodes, "t");
        publish(&mut nodes, 0, "t", b"there");
        publish(&mut nodes, 1, "t", b"back");
        until(&mut nodes, "one each way", |nodes| nodes[0].log.has(b"back") && nodes[1].log.has(b"there"));
    }
}

#[test]
fn peers_that_speak_none_of_our_protocols_are_reported() {
    let mut flooding = quick();
    flooding.newest = PeerKind::Floodsub;
    flooding.floodsub = true;
    let mut nodes = vec![ours(quick()), ours(flooding)];
    join(&mut nodes);
    let peer = nodes[1].peer;
    until(&mut nodes, "the report", |nodes| nodes[0].log.events.contains(&Event::NotSupported { peer }));
}
