//! With stock rust-libp2p's libp2p-gossipsub 0.50, both ways.

use libp2p::gossipsub::{self, ConfigBuilder, ValidationMode, Version};
use smidge_gossip::{Config, IdScheme, PeerKind, Validation};

use crate::support::{Node, follow, join, ours, publish, quick, quick_stock, stock, stock_with, until};

fn pair(config: Config, theirs: &ConfigBuilder) -> Vec<Node> {
    let mut nodes = vec![ours(config), stock(theirs)];
    join(&mut nodes);
    nodes
}

/// Both follow "t", mesh, and hear each other.
fn converse(nodes: &mut [Node], meshed: bool) {
    follow(nodes, "t");
    if meshed {
        until(nodes, "a mesh on both sides", |nodes| nodes.iter().all(|node| node.mesh("t") == 1));
    }
    for n in 0..20u8 {
        publish(nodes, 0, "t", &[b'o', n]);
        publish(nodes, 1, "t", &[b's', n]);
    }
    until(nodes, "twenty messages each way", |nodes| nodes.iter().all(|node| node.log.messages.len() == 20));
}

#[test]
fn every_version_of_the_protocol_is_spoken() {
    for kind in [PeerKind::V1_0, PeerKind::V1_1, PeerKind::V1_2, PeerKind::V1_3] {
        let mut config = quick();
        config.newest = kind;
        let mut nodes = pair(config, &quick_stock());
        converse(&mut nodes, true);
        let peer = nodes[1].peer;
        assert_eq!(nodes[0].kind(&peer), Some(kind));
    }
    for (name, version, kind) in
        [("/meshsub/1.0.0", Version::V1_0, PeerKind::V1_0), ("/meshsub/1.1.0", Version::V1_1, PeerKind::V1_1)]
    {
        let mut theirs = quick_stock();
        theirs.protocol_id(name, version);
        let mut nodes = pair(quick(), &theirs);
        converse(&mut nodes, true);
        let peer = nodes[1].peer;
        assert_eq!(nodes[0].kind(&peer), Some(kind));
    }
}

#[test]
fn floodsub_is_spoken() {
    let mut theirs = quick_stock();
    theirs.support_floodsub();
    let mut config = quick();
    config.newest = PeerKind::Floodsub;
    config.floodsub = true;
    let mut nodes = pair(config, &theirs);
    converse(&mut nodes, false);
}

#[test]
fn anonymous_messages_named_by_content_are_understood() {
    let mut config = quick();
    config.validation = Validation::Anonymous;
    config.message_id = IdScheme::Custom(std::sync::Arc::new(|message| message.data[..].into()));
    let mut theirs = quick_stock();
    theirs.validation_mode(ValidationMode::Anonymous);
    theirs.message_id_fn(|message| gossipsub::MessageId::from(message.data.clone()));
    converse(&mut pair(config, &theirs), true);
}

#[test]
fn large_messages_and_what_comes_after_them_arrive() {
    let mut nodes = pair(quick(), &quick_stock());
    follow(&mut nodes, "t");
    let most = Config::default().max_message;
    // A stock peer holds what it has read of the next frame against the limit of this one: one at a time.
    for n in 0..5u8 {
        publish(&mut nodes, 0, "t", &vec![n; most]);
        until(&mut nodes, "it at the stock node", |nodes| {
            nodes[1].log.messages.len() == 2 * usize::from(n) + 1
        });
        publish(&mut nodes, 0, "t", &[n]);
        until(&mut nodes, "what comes after", |nodes| nodes[1].log.messages.len() == 2 * usize::from(n) + 2);
    }
    for n in 0..5u8 {
        publish(&mut nodes, 1, "t", &vec![n; 60_000]);
    }
    publish(&mut nodes, 1, "t", b"small");
    until(&mut nodes, "all of the stock node's", |nodes| nodes[0].log.messages.len() == 6);
}

#[test]
fn bursts_do_not_run_into_the_read_buffer_of_stock_peers() {
    let mut nodes = pair(quick(), &quick_stock());
    follow(&mut nodes, "t");
    for n in 0..2000u32 {
        publish(&mut nodes, 0, "t", &[&n.to_be_bytes()[..], &[0; 200]].concat());
    }
    until(&mut nodes, "2000 at the stock node", |nodes| nodes[1].log.messages.len() == 2000);
}

#[test]
fn a_stock_peer_that_threw_our_substream_away_hears_us_again() {
    let mut theirs = quick_stock();
    theirs.max_transmit_size(8 * 1024);
    let mut nodes = pair(quick(), &theirs);
    follow(&mut nodes, "t");
    for round in 0..3u8 {
        publish(&mut nodes, 0, "t", &vec![round; 20_000]);
        let mut tries = 0u32;
        until(&mut nodes, "a small one after it", |nodes| {
            tries += 1;
            // What was under way when the peer threw the substream away is lost, and nobody can know.
            if tries.is_multiple_of(10) {
                nodes[0].publish("t", &[&[round][..], &tries.to_be_bytes()].concat()).unwrap();
            }
            nodes[1].log.messages.iter().any(|(_, data)| data.len() == 5 && data[0] == round)
        });
    }
}

#[test]
fn greetings_of_any_number_of_topics_are_taken_in_both_ways() {
    // Unless its subscription filter says otherwise, a stock peer refuses an RPC with more than a hundred subscriptions,
    // and one that makes a peer's topics more than a hundred.
    for (count, most) in [(100usize, 100usize), (142, 100), (142, 1000), (700, 1000)] {
        for width in [5, 60] {
            let mut nodes = vec![ours(quick()), stock_with(&quick_stock(), most, 100)];
            // All subscriptions of a stock node go in one RPC, of at most 16 KiB where it is a stock peer that reads it.
            for n in 0..count {
                nodes[0].subscribe(&format!("{n:0>width$}"));
                nodes[1].subscribe(&format!("{n:0>width$}"));
            }
            join(&mut nodes);
            let peers = [nodes[1].peer, nodes[0].peer];
            until(&mut nodes, &format!("{count} topics of {width} bytes, {most} taken"), |nodes| {
                nodes[1].follows(&peers[1]) == count.min(most) && nodes[0].follows(&peers[0]) == count
            });
        }
    }
}

#[test]
fn announcements_are_asked_for_and_answered_both_ways() {
    let mut config = quick();
    config.flood_publish = false;
    config.mesh = smidge_gossip::MeshParams { n: 1, n_low: 1, n_high: 1, outbound_min: 0 };
    let mut theirs = quick_stock();
    theirs.flood_publish(false).mesh_outbound_min(0).mesh_n_low(1).mesh_n(1).mesh_n_high(1);
    let mut nodes: Vec<_> =
        (0..6).map(|n| if n % 2 == 0 { ours(config.clone()) } else { stock(&theirs) }).collect();
    join(&mut nodes);
    follow(&mut nodes, "t");
    for from in 0..2 {
        let data = format!("from {from}").into_bytes();
        publish(&mut nodes, from, "t", &data);
        until(&mut nodes, "it everywhere", |nodes| {
            nodes.iter().enumerate().all(|(n, node)| n == from || node.log.has(&data))
        });
    }
}

#[test]
fn a_prune_with_its_backoff_is_kept_by_both() {
    // A stock peer sees the unsubscription first, and keeps away for prune_backoff whatever the prune after it says.
    let mut config = quick();
    config.prune_backoff = std::time::Duration::from_secs(2);
    config.unsubscribe_backoff = std::time::Duration::from_secs(1);
    let mut theirs = quick_stock();
    theirs.prune_backoff(config.prune_backoff).unsubscribe_backoff(config.unsubscribe_backoff);
    let mut nodes = pair(config, &theirs);
    follow(&mut nodes, "t");
    until(&mut nodes, "a mesh on both sides", |nodes| nodes.iter().all(|node| node.mesh("t") == 1));
    for leaver in 0..2 {
        nodes[leaver].unsubscribe("t");
        until(&mut nodes, "the end of the mesh", |nodes| nodes.iter().all(|node| node.mesh("t") == 0));
        nodes[leaver].subscribe("t");
        until(&mut nodes, "the mesh again, after the back-off", |nodes| {
            nodes.iter().all(|node| node.mesh("t") == 1)
        });
    }
}

#[test]
fn eight_nodes_half_of_them_stock_deliver_everything_once() {
    let mut nodes: Vec<_> =
        (0..8).map(|n| if n % 2 == 0 { ours(quick()) } else { stock(&quick_stock()) }).collect();
    join(&mut nodes);
    follow(&mut nodes, "t");
    for n in 0..8 {
        for m in 0..25 {
            publish(&mut nodes, n, "t", format!("{n} {m}").as_bytes());
        }
    }
    until(&mut nodes, "175 messages at each", |nodes| {
        nodes.iter().all(|node| node.log.messages.len() >= 175)
    });
    for (at, node) in nodes.iter().enumerate() {
        for n in (0..8).filter(|n| *n != at) {
            for m in 0..25 {
                assert_eq!(node.log.count(format!("{n} {m}").as_bytes()), 1);
            }
        }
    }
}
