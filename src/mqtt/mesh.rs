//! The way to the other nodes and back: what clients publish, over one gossip topic, in bundles; topics of `mqtt.plain` over
//! gossip topics of their own.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use libp2p::PeerId;

use super::shared::Shared;
use crate::{
    logging::Repeats,
    node::{Client, Delivery, Error, Message, PublishOptions, Subscription, yield_now},
};

/// Messages and bytes that are published together.
const BATCH: (usize, usize) = (1024, 256 << 10);
/// Messages of others that are taken in before clients have their turn.
const TURN: usize = 256;
/// How long it takes until a topic is subscribed to anew that was left.
const AGAIN: Duration = Duration::from_secs(1);

/// Publishes what clients say, until there is no more.
pub(super) async fn publish(shared: Arc<Shared>, client: Client, topic: String) {
    let mut failures = Repeats::default();
    // Nobody else has to be there; and where the others are slow, clients wait in their sockets.
    let options =
        PublishOptions { wait_peers: Some(0), timeout: Duration::from_secs(60), ..PublishOptions::default() };
    while let Some((plain, mut batch)) = poll_fn(|cx| shared.poll_outgoing(cx, BATCH.0, BATCH.1)).await {
        let topic = plain.as_deref().unwrap_or(&topic);
        while !batch.is_empty() {
            let outcomes = match client.publish_all(topic, batch.clone(), options).await {
                Ok(outcomes) => outcomes,
                Err(Error::Stopped | Error::ShuttingDown) => return,
                Err(e) => batch.iter().map(|_| Err(e.clone())).collect(),
            };
            let mut again = Vec::new();
            let mut lost = 0;
            let mut why = None;
            for (message, outcome) in batch.into_iter().zip(outcomes) {
                match outcome {
                    Ok(_) => {}
                    Err(Error::Congested(_)) => again.push(message),
                    Err(e) => (lost, why) = (lost + 1, Some(e)),
                }
            }
            if let Some(why) = why {
                shared.not_carried.fetch_add(lost, Ordering::Relaxed);
                let text = format!("MQTT messages that other nodes do not get: {why}");
                if let Some(text) = failures.say(&text, shared.runtime.now()) {
                    log::warn!("{text}");
                }
            }
            batch = again;
        }
    }
}

/// Takes in what other nodes' clients say, for as long as the node runs.
pub(super) async fn hear(shared: Arc<Shared>, client: Client, topic: String) {
    follow(&shared, &client, &topic, Subscription::no_local, |shared, messages| {
        let mut unreadable = 0;
        shared.with(|state, now| {
            for message in messages {
                let data = Bytes::copy_from_slice(&message.data);
                let node = message.source.map_or(0, number);
                unreadable += u64::from(state.broker.from_mesh(node, &data, now).is_err());
            }
        });
        shared.not_heard.fetch_add(unreadable, Ordering::Relaxed);
    })
    .await;
}

/// Takes in what is said on a topic that is carried as it is, by this node's clients, too.
pub(super) async fn hear_plain(shared: Arc<Shared>, client: Client, topic: Arc<str>) {
    follow(
        &shared,
        &client,
        &topic,
        |subscription| subscription,
        |shared, messages| {
            shared.with(|state, now| {
                for message in messages {
                    state.inject_plain(&topic, &message.data, now);
                }
            });
        },
    )
    .await;
}

async fn follow(
    shared: &Shared,
    client: &Client,
    topic: &str,
    options: impl Fn(Subscription) -> Subscription,
    take: impl Fn(&Shared, Vec<Message>),
) {
    let mut failures = Repeats::default();
    while !shared.closing.load(Ordering::Acquire) {
        let mut subscription = match client.subscribe(topic).await {
            Ok(subscription) => options(subscription),
            Err(Error::Stopped | Error::ShuttingDown) => return,
            Err(e) => {
                let text = format!("MQTT clients do not hear other nodes, and it is tried again: {e}");
                if let Some(text) = failures.say(&text, shared.runtime.now()) {
                    log::warn!("{text}");
                }
                shared.runtime.sleep(AGAIN).await;
                continue;
            }
        };
        while let Some(first) = subscription.next_delivery().await {
            let mut next = Some(first);
            let mut messages = Vec::new();
            while let Some(delivery) = next {
                match delivery {
                    Delivery::Item(message) => messages.push(message),
                    Delivery::Lost(lost) => {
                        shared.not_heard.fetch_add(lost, Ordering::Relaxed);
                    }
                    Delivery::Gone => {}
                }
                next = if messages.len() < TURN {
                    subscription.next_delivery().now_or_never().flatten()
                } else {
                    None
                };
            }
            take(shared, messages);
            yield_now().await;
        }
        // The topic was left, or the node has ended.
        shared.runtime.sleep(AGAIN).await;
    }
}

/// What tells a node from others where two published at the same microsecond.
pub(super) fn number(peer: PeerId) -> u64 {
    let bytes = peer.to_bytes();
    bytes.last_chunk().map_or(0, |last| u64::from_be_bytes(*last))
}
