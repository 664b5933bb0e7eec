//! Names with more replicas than a node wants as neighbours.

use std::collections::BTreeSet;

use futures::future::join_all;
use libp2p::PeerId;
use smidge::{Client, Config, dialer::Hold, dialer::RecordState};

use crate::{
    mesh::wait_for,
    support::{Network, TOPIC, run, text},
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
            net.rt.sleep(std::time::Duration::from_millis(50)).await;
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

/// What one says, all hear.
async fn say(net: &Network, nodes: &[Client], from: usize, what: &str) {
    let mut heard = Vec::new();
    for node in nodes {
        heard.push(node.subscribe(TOPIC).await.unwrap());
    }
    net.meshed(&nodes[from], 1).await;
    nodes[from].publish(TOPIC, what, wait_for(1)).await.unwrap();
    for subscription in &mut heard {
        assert_eq!(text(&net.message(subscription).await), what);
    }
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
