//! Names with more replicas than a node wants as neighbours.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, future::join_all};
use libp2p::{
    PeerId,
    kad::{self, store::RecordStore},
};
use sha2::{Digest, Sha256};
use smidge::{
    Client, Config,
    dialer::{Hold, RecordState},
};

use crate::{
    mesh::wait_for,
    strangers_claims::{Stranger, stranger},
    support::{Network, TOPIC, bare::drive, now, run, text},
};

/// Replica `n` of a name that is a large one to it.
fn few(net: &Network, n: u8) -> Config {
    let mut config = net.config(n, &["many"]);
    (config.dial.full, config.dial.neighbours, config.dial.neighbours_max) = (4, 3, 8);
    config
}

/// Waits until the connections make one part of all nodes, and each has what it wants.
async fn joined(net: &Network, nodes: &[Client]) {
    net.patiently("one graph of all nodes", async {
        while !is_one(nodes).await {
            net.rt.sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn is_one(nodes: &[Client]) -> bool {
    let neighbours = join_all(nodes.iter().map(async |node| -> BTreeSet<PeerId> {
        node.peers().await.unwrap().into_iter().map(|peer| peer.peer).collect()
    }))
    .await;
    let mut seen = BTreeSet::from([0]);
    let mut next = vec![0];
    while let Some(n) = next.pop() {
        for (other, node) in nodes.iter().enumerate() {
            if neighbours[n].contains(&node.peer_id()) && seen.insert(other) {
                next.push(other);
            }
        }
    }
    seen.len() == nodes.len()
}

/// What one says, again and again, all hear: nobody knows when the meshes are one.
async fn say(net: &Network, nodes: &[Client], from: usize, what: &str) {
    let mut deaf = Vec::new();
    for node in nodes {
        deaf.push(node.subscribe(TOPIC).await.unwrap());
    }
    net.patiently(what, async {
        while !deaf.is_empty() {
            nodes[from].publish(TOPIC, what, wait_for(1)).await.unwrap();
            net.rt.sleep(Duration::from_millis(100)).await;
            deaf.retain_mut(|subscription| {
                !std::iter::from_fn(|| now(subscription)).any(|m| text(&m) == what)
            });
        }
    })
    .await;
}

#[test]
fn of_a_large_name_all_hear_of_all_although_each_is_connected_to_few_also_after_a_third_died() {
    run(async |net| {
        let all: Vec<u8> = (2..14).collect();
        net.set("many", all.clone());
        let mut nodes: Vec<_> = all.iter().map(|n| net.spawn(few(&net, *n))).collect();
        joined(&net, &nodes).await;
        say(&net, &nodes, 0, "to all").await;
        for node in &nodes {
            let names = node.names().await.unwrap();
            assert_eq!(names[0].records.len(), all.len(), "all are known");
            let held = names[0].records.iter().filter(|r| r.hold == Hold::Chosen).count();
            assert!(held <= 2, "{held} are chosen");
            let spare = names[0].records.iter().filter(|r| r.state == RecordState::Spare).count();
            assert!(spare > 0, "{names:?}");
        }
        // No word of it to the name: the records of the dead stay.
        for node in nodes.drain(..4) {
            node.shutdown().await.unwrap();
        }
        joined(&net, &nodes).await;
        say(&net, &nodes, 7, "to the rest").await;
    });
}

#[test]
fn a_spare_is_reached_when_it_is_pinged_or_looked_for() {
    run(async |net| {
        let all: Vec<u8> = (2..12).collect();
        net.set("many", all.clone());
        let nodes: Vec<_> = all.iter().map(|n| net.spawn(few(&net, *n))).collect();
        joined(&net, &nodes).await;
        for node in &nodes[1..] {
            // Until the hash table has heard of it.
            net.until("a ping that comes back", &nodes[0], |one| {
                let peer = node.peer_id();
                async move { one.ping(peer).await.is_ok() }
            })
            .await;
            net.until("a peer that is found", &nodes[0], |one| {
                let peer = node.peer_id();
                async move { one.find_peer(peer).await.is_ok() }
            })
            .await;
        }
    });
}

/// Where subscribers of a topic announce themselves, outside of a private mesh.
fn topic_key(topic: &str) -> kad::RecordKey {
    let hash = Sha256::digest(format!("/smidge/topic/1.0.0\0{topic}"));
    [&[0x12, 0x20], hash.as_slice()].concat().into()
}

/// A node that has a stranger, who knows nobody and passes nothing on, for its only neighbour of many.
fn beside_a_stranger(net: &Network, n: u8) -> Config {
    // At the last two is nobody.
    net.set("many", [2, 248, 249]);
    let mut config = net.config(n, &["many"]);
    config.dial.full = 2;
    config.gossip.topics.clear();
    config
}

#[test]
fn a_publisher_without_a_subscriber_among_its_neighbours_finds_one_that_announced_itself() {
    run(async |net| {
        let (mut swarm, _) = stranger(&net.rt, &net.addr(2), Vec::new());
        let subscriber = net.node(4, &[]);
        let mut heard = subscriber.subscribe("rare").await.unwrap();
        let entry = kad::ProviderRecord::new(topic_key("rare"), subscriber.peer_id(), vec![net.addr(4)]);
        swarm.behaviour_mut().kad.store_mut().add_provider(entry).unwrap();
        drive(&net.rt, swarm);
        let publisher = net.spawn(beside_a_stranger(&net, 3));
        let receipt = publisher.publish("rare", "found", wait_for(1)).await.unwrap();
        assert_eq!(receipt.peers, 1);
        assert_eq!(text(&net.message(&mut heard).await), "found");
    });
}

#[test]
fn a_subscriber_without_a_mesh_announces_itself_and_one_that_provides_keeps_nothing_of_that() {
    run(async |net| {
        let (mut swarm, _) = stranger(&net.rt, &net.addr(2), Vec::new());
        let subscriber = net.spawn(beside_a_stranger(&net, 3));
        let _heard = subscriber.subscribe("rare").await.unwrap();
        net.patiently("an announcement", async {
            let announced = |swarm: &mut libp2p::Swarm<Stranger>| {
                let there = swarm.behaviour_mut().kad.store_mut().providers(&topic_key("rare"));
                there.iter().any(|entry| entry.provider == subscriber.peer_id())
            };
            while !announced(&mut swarm) {
                swarm.select_next_some().await;
            }
        })
        .await;
        assert_eq!(subscriber.status().await.unwrap().store.providers, 0);
    });
}
