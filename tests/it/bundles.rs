//! Topics with `bundle = true`: what is published within a moment travels as one message, and arrives as several.

use std::collections::BTreeSet;

use futures::future::join_all;
use smidge::{Client, Message, PublishOptions, config::TopicRules, gossip::bundle::MAGIC};

use crate::support::{Network, PATIENCE, TOPIC, run};

/// Replicas from 2 on, each dialing all; those that are `true` bundle.
async fn nodes(net: &Network, bundling: &[bool]) -> Vec<Client> {
    net.set("all", 2..2 + bundling.len() as u8);
    let node = |(n, bundle): (u8, &bool)| {
        let mut config = net.config(n, &["all"]);
        config.topics.insert(TOPIC.into(), TopicRules { bundle: *bundle, ..TopicRules::default() });
        net.spawn(config)
    };
    let nodes: Vec<_> = (2..).zip(bundling).map(node).collect();
    net.everyone(&nodes).await;
    for node in &nodes {
        net.meshed(node, bundling.len() - 1).await;
    }
    nodes
}

/// Publishes all of these in their order; returns their ids.
async fn publish_all(node: &Client, wait_peers: usize, payloads: Vec<Vec<u8>>) -> Vec<String> {
    let options =
        PublishOptions { wait_peers: Some(wait_peers), timeout: PATIENCE, ..PublishOptions::default() };
    let receipts = node.publish_all(TOPIC, payloads, options).await.unwrap();
    receipts.into_iter().map(|receipt| receipt.unwrap().id).collect()
}

/// The id of the message that carried it.
fn carrier(id: &str) -> &str {
    id.split('/').next().unwrap()
}

#[test]
fn a_thousand_messages_in_bundles_arrive_once_each_and_in_order_also_where_nothing_is_bundled() {
    const EACH: usize = 500;
    run(async |net| {
        let nodes = nodes(&net, &[true, true, true, false]).await;
        let mut heard =
            join_all(nodes.iter().map(async |node| node.subscribe(TOPIC).await.unwrap().no_local())).await;
        let said = |author: usize| (0..EACH).map(|n| format!("{author} {n:03}").into_bytes()).collect();
        let read = heard[2..].iter_mut().map(async |heard| {
            let mut messages: Vec<Message> = Vec::new();
            while messages.len() < 2 * EACH {
                messages.push(net.message(heard).await);
            }
            messages
        });
        let publish = join_all((0..2).map(|author| publish_all(&nodes[author], 3, said(author))));
        let (ids, messages) = futures::join!(publish, join_all(read));
        for messages in messages {
            for (author, ids) in ids.iter().enumerate() {
                let its: Vec<_> =
                    messages.iter().filter(|m| m.source == Some(nodes[author].peer_id())).collect();
                let data: Vec<_> = its.iter().map(|m| m.data.to_vec()).collect();
                assert!(data == said(author), "in order, each once");
                assert!(its.iter().map(|m| &m.id).eq(ids), "under the ids of the receipts");
            }
        }
        let all: BTreeSet<_> = ids.concat().into_iter().collect();
        assert_eq!(all.len(), 2 * EACH, "an id each");
        let carriers: BTreeSet<_> = all.iter().map(|id| carrier(id)).collect();
        assert!(carriers.len() < EACH, "{} messages carried {}", carriers.len(), all.len());

        // One that is alone has no bundle, and none of a node that bundles nothing has.
        for node in [&nodes[0], &nodes[3]] {
            let ids = publish_all(node, 3, vec![b"alone".to_vec()]).await;
            assert!(!ids[0].contains('/'), "{ids:?}");
            assert_eq!(net.message(&mut heard[2]).await.id, ids[0]);
        }
        let ids = publish_all(&nodes[3], 3, said(3)).await;
        assert!(ids.iter().all(|id| !id.contains('/')), "{ids:?}");
    });
}

#[test]
fn what_only_looks_like_a_bundle_is_said_by_none_who_bundles_and_taken_as_it_is_by_others() {
    run(async |net| {
        let nodes = nodes(&net, &[true, true, false, false]).await;
        let mut heard =
            join_all(nodes.iter().map(async |node| node.subscribe(TOPIC).await.unwrap().no_local())).await;
        let like = [&MAGIC[..], b" and more"].concat();
        // In a bundle of its own it passes everywhere.
        publish_all(&nodes[0], 3, vec![like.clone()]).await;
        for heard in &mut heard[1..] {
            assert_eq!(net.message(heard).await.data[..], like);
        }
        publish_all(&nodes[2], 3, vec![like.clone()]).await;
        publish_all(&nodes[2], 3, vec![b"after".to_vec()]).await;
        assert_eq!(&net.message(&mut heard[1]).await.data[..], b"after", "and nothing before it");
        assert_eq!(net.message(&mut heard[3]).await.data[..], like);
        assert_eq!(&net.message(&mut heard[3]).await.data[..], b"after");
        let sinks = |c: Client| {
            let author = nodes[2].peer_id();
            async move {
                let peers = c.peers().await.unwrap();
                peers.iter().any(|p| p.peer == author && p.score.is_some_and(|score| score < 0.0))
            }
        };
        net.until("the author's score below zero", &nodes[1], sinks).await;
    });
}
