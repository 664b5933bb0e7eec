//! Nodes that start again under the same key, and what others make of what they say.

use std::{collections::BTreeSet, time::Duration};

use crate::support::{TOPIC, now, run, text};
use libp2p::identity::Keypair;
use smidge::{
    PublishOptions,
    config::{KadMode, MessageIds},
};

fn wait_for(wait_peers: usize) -> PublishOptions {
    PublishOptions {
        wait_peers: Some(wait_peers),
        timeout: crate::support::PATIENCE,
        ..PublishOptions::default()
    }
}

#[test]
fn what_a_restarted_node_says_at_once_arrives_once_where_it_had_said_much_before() {
    run(async |net| {
        net.set("one", [2]);
        let one = net.node(2, &[]);
        let mut at_one = one.subscribe(TOPIC).await.unwrap();
        let key = Keypair::generate_ed25519();
        let mut ids = BTreeSet::new();
        for restart in 0..3 {
            let two = net.spawn_as(net.config(3, &["one"]), &key);
            for n in 0..100 {
                let said = format!("{restart} {n}");
                let receipt = two.publish(TOPIC, said.clone(), wait_for(1)).await.unwrap();
                let message = net.message(&mut at_one).await;
                assert_eq!((text(&message), message.source), (said, Some(two.peer_id())));
                assert_eq!(message.id, receipt.id);
                assert!(ids.insert(message.id), "an id of an earlier run");
            }
            let id = two.peer_id();
            if restart == 1 {
                drop(two); // without a word of farewell
            } else {
                two.shutdown().await.unwrap();
            }
            net.disconnected(&one, id).await;
            net.vacated(3).await;
        }
        assert_eq!(now(&mut at_one), None, "nothing came twice");
    });
}

/// The peers of a restarted node may still gossip what it said before. That is no fault of theirs.
#[test]
fn what_a_restarted_node_had_said_before_does_not_come_back_and_is_held_against_nobody() {
    run(async |net| {
        net.set("hub", [2]);
        let config = |n, names: &[&str]| {
            let mut config = net.config(n, names);
            config.gossip.mesh_n = 1;
            config.gossip.mesh_n_low = 1;
            config.gossip.mesh_n_high = 1;
            config.gossip.mesh_outbound_min = 0;
            // What was said is gossiped for three heartbeats: long enough for a restart.
            config.gossip.heartbeat = Duration::from_secs(2);
            config.gossip.message_id = MessageIds::Source;
            config.kad.mode = KadMode::Client; // nobody learns of anybody else
            config
        };
        let hub = net.spawn(config(2, &[]));
        let mut at_hub = hub.subscribe(TOPIC).await.unwrap();
        // Takes the one place in the hub's mesh: the other learns of messages by gossip only.
        let mut talker = config(3, &["hub"]);
        talker.gossip.flood_publish = false;
        let talker = net.spawn(talker);
        net.meshed(&hub, 1).await;

        let key = Keypair::generate_ed25519();
        let before = net.spawn_as(config(4, &["hub"]), &key);
        for n in 0..5 {
            before.publish(TOPIC, format!("before {n}"), wait_for(1)).await.unwrap();
            net.message(&mut at_hub).await;
        }
        let id = before.peer_id();
        drop(before);
        net.disconnected(&hub, id).await;
        let after = net.spawn_as(config(4, &["hub"]), &key);
        let mut at_after = after.subscribe(TOPIC).await.unwrap();
        net.connected(&after, [hub.peer_id()]).await;
        // Gossiped in one breath with what the node itself had said.
        talker.publish(TOPIC, "from the talker", wait_for(1)).await.unwrap();
        net.message(&mut at_hub).await;
        assert_eq!(text(&net.message(&mut at_after).await), "from the talker");
        // A second one, so that all of the first breath has been taken in.
        talker.publish(TOPIC, "again", wait_for(1)).await.unwrap();
        assert_eq!(text(&net.message(&mut at_after).await), "again", "its own words are no news");
        let peers = after.peers().await.unwrap();
        assert!(peers[0].score.unwrap() >= 0.0, "the hub did no wrong: {peers:?}");
    });
}
