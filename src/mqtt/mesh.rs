//! The way to the other nodes and back: what clients publish, over one gossip topic, in bundles; topics of `mqtt.plain` over
//! gossip topics of their own.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use libp2p::PeerId;
use smidge_mqtt::Ticket;

use super::shared::{Batch, Shared};
use crate::{
    logging::Repeats,
    node::{Client, Delivery, Error, Message, PublishOptions, Receipt, Start, Subscription, yield_now},
};

/// Messages and bytes that are published together.
const BATCH: (usize, usize) = (1024, 256 << 10);
/// Batches that others are to confirm, simultaneously.
const CONFIRMING: usize = 16;
/// Messages of others that are taken in before clients have their turn.
const TURN: usize = 256;
/// How long it takes until a topic is subscribed to anew that was left.
const AGAIN: Duration = Duration::from_secs(1);

/// Publishes what clients say, until there is no more. What others are to confirm goes out in its order, and is waited for
/// beside what follows.
pub(super) async fn publish(shared: Arc<Shared>, client: Client, topic: String, confirm: Confirm) {
    let mut failures = Repeats::default();
    let mut waiting = FuturesUnordered::new();
    // Nobody else has to be there; and where the others are slow, clients wait in their sockets.
    let options =
        PublishOptions { wait_peers: Some(0), timeout: Duration::from_secs(60), ..PublishOptions::default() };
    loop {
        let has_room = waiting.len() < CONFIRMING;
        let next = poll_fn(|cx| match waiting.poll_next_unpin(cx) {
            Poll::Ready(Some(done)) => Poll::Ready(Next::Confirmed(done)),
            _ if has_room => shared.poll_outgoing(cx, BATCH.0, BATCH.1).map(Next::Batch),
            _ => Poll::Pending,
        });
        let batch = match next.await {
            Next::Batch(Some(batch)) => batch,
            Next::Batch(None) => break,
            Next::Confirmed((tickets, outcomes)) => {
                let Some(outcomes) = outcomes else { return };
                conclude(&shared, &tickets, &outcomes, &mut failures);
                continue;
            }
        };
        let topic = batch.plain.as_deref().unwrap_or(&topic).to_owned();
        if batch.tickets.is_empty() || batch.plain.is_some() {
            if !publish_here(&shared, &client, &topic, batch.messages, options, &mut failures).await {
                return;
            }
            // What is carried as it is is not kept by anybody.
            shared.with(|state, now| {
                batch.tickets.iter().for_each(|(_, ticket)| state.broker.confirmed(*ticket, true, now));
            });
            continue;
        }
        let options = PublishOptions { confirm: confirm.nodes, timeout: confirm.timeout, ..options };
        let (count, tickets) = (batch.messages.len(), batch.tickets);
        let Ok(answer) = client.begin_publish(topic, batch.messages, options).await else { return };
        waiting.push(answer.map(move |outcomes| {
            let outcomes = match outcomes {
                Ok(Ok(outcomes)) => Some(outcomes),
                Ok(Err(Error::Stopped | Error::ShuttingDown)) | Err(_) => None,
                Ok(Err(e)) => Some((0..count).map(|_| Err(e.clone())).collect()),
            };
            (tickets, outcomes)
        }));
    }
    while let Some((tickets, Some(outcomes))) = waiting.next().await {
        conclude(&shared, &tickets, &outcomes, &mut failures);
    }
}

/// How many nodes have to confirm messages, and within which time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirm {
    pub(super) nodes: usize,
    pub(super) timeout: Duration,
}

/// What became of the messages of a batch.
type Outcomes = Vec<Result<Receipt, Error>>;

enum Next {
    Batch(Option<Batch>),
    Confirmed((Vec<(usize, Ticket)>, Option<Outcomes>)),
}

/// Has clients hear what became of messages that others were to confirm.
fn conclude(
    shared: &Shared,
    tickets: &[(usize, Ticket)],
    outcomes: &[Result<Receipt, Error>],
    failures: &mut Repeats,
) {
    shared.with(|state, now| {
        for (index, ticket) in tickets {
            let confirmed = outcomes.get(*index).is_some_and(Result::is_ok);
            state.broker.confirmed(*ticket, confirmed, now);
        }
    });
    let failed = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    let lost = failed.clone().filter(|e| !matches!(e, Error::Unconfirmed { .. })).count();
    say_lost(shared, lost as u64, failed.last(), failures);
}

fn say_lost(shared: &Shared, lost: u64, why: Option<&Error>, failures: &mut Repeats) {
    shared.not_carried.fetch_add(lost, Ordering::Relaxed);
    if let Some(why) = why {
        let text = format!("MQTT messages that other nodes do not get, or have not confirmed: {why}");
        if let Some(text) = failures.say(&text, shared.runtime.now()) {
            log::warn!("{text}");
        }
    }
}

/// Publishes messages, those again that found queues full; whether the node still runs.
async fn publish_here(
    shared: &Shared,
    client: &Client,
    topic: &str,
    mut batch: Vec<Vec<u8>>,
    options: PublishOptions,
    failures: &mut Repeats,
) -> bool {
    while !batch.is_empty() {
        let outcomes = match client.publish_all(topic, batch.clone(), options).await {
            Ok(outcomes) => outcomes,
            Err(Error::Stopped | Error::ShuttingDown) => return false,
            Err(e) => batch.iter().map(|_| Err(e.clone())).collect(),
        };
        let mut again = Vec::new();
        let (mut lost, mut why) = (0, None);
        for (message, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Ok(_) => {}
                Err(Error::Congested(_)) => again.push(message),
                Err(e) => (lost, why) = (lost + 1, Some(e)),
            }
        }
        say_lost(shared, lost, why.as_ref(), failures);
        batch = again;
    }
    true
}

/// Takes in what other nodes' clients say, for as long as the node runs.
pub(super) async fn hear(shared: Arc<Shared>, client: Client, topic: String) {
    follow(&shared, &client, &topic, Subscription::no_local, |shared, messages| {
        let mut unreadable = 0;
        shared.with(|state, now| {
            for message in messages {
                let data = Bytes::copy_from_slice(&message.data);
                let node = message.source.map_or(0, number);
                let read = match message.late {
                    false => state.broker.from_mesh(node, &data, now),
                    true => state.broker.from_memory(node, &data, now),
                };
                unreadable += u64::from(read.is_err());
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

/// Hears what other nodes say of themselves.
pub(super) async fn hear_nodes(shared: Arc<Shared>, client: Client, topic: String) {
    follow(&shared, &client, &topic, Subscription::no_local, |shared, messages| {
        let mut unreadable = 0;
        shared.with(|state, now| {
            for message in messages {
                let Some(source) = message.source else { continue };
                unreadable += u64::from(!state.broker.hear_node(number(source), &message.data, now));
            }
        });
        shared.not_heard.fetch_add(unreadable, Ordering::Relaxed);
    })
    .await;
}

/// Says what this node says of itself, until there is no more. Only the last of it counts, so nothing waits.
pub(super) async fn say(shared: Arc<Shared>, client: Client, topic: String) {
    let options = PublishOptions { wait_peers: Some(0), timeout: AGAIN, ..PublishOptions::default() };
    while let Some(said) = poll_fn(|cx| shared.poll_said(cx)).await {
        // What fails otherwise is said again within seconds.
        if let Err(Error::Stopped | Error::ShuttingDown) = client.publish(&topic, said, options).await {
            return;
        }
    }
}

/// Reads from the memory of the topic what sessions missed that come from elsewhere: of all that wait together.
pub(super) async fn replay(shared: Arc<Shared>, client: Client, topic: String) {
    while let Some(waiting) = poll_fn(|cx| shared.poll_replays(cx)).await {
        let since = waiting.iter().map(|(_, since)| *since).min().unwrap_or(0);
        match client.subscribe_from(&topic, Start::At(since)).await {
            Ok(mut remembered) => {
                while let Some(delivery) = remembered.next_remembered().await {
                    let Delivery::Item(message) = delivery else { continue };
                    let data = Bytes::copy_from_slice(&message.data);
                    let node = message.source.map_or(0, number);
                    shared.with(|state, now| {
                        for (session, _) in &waiting {
                            if state.broker.replay(*session, node, &data, now).is_err() {
                                break;
                            }
                        }
                    });
                    yield_now().await;
                }
            }
            Err(Error::Stopped | Error::ShuttingDown) => return,
            Err(Error::NotKept(_)) => {}
            Err(e) => log::warn!("MQTT sessions do not get what they missed: {e}"),
        }
        shared
            .with(|state, now| waiting.iter().for_each(|(session, _)| state.broker.replayed(*session, now)));
    }
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
