//! The maps that all nodes with MQTT keep: what the broker has written into them, and what it learns from them. They are
//! topics with `keep = "latest"`, which the configuration adds where MQTT is on.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::FutureExt;
use smidge_mqtt::Map;

use super::{mesh::number, shared::Shared};
use crate::{
    logging::Repeats,
    node::{Client, Error, StateEvent, yield_now},
};

/// Keys that wait to be written; of more the oldest are not.
const MOST: usize = 1 << 16;
/// Changes that are taken in before clients have their turn.
const TURN: usize = 256;
/// How long it takes until what failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// What waits to be written: of each key the last.
#[derive(Debug, Default)]
pub(super) struct Writes {
    order: VecDeque<(Map, Vec<u8>)>,
    values: HashMap<(Map, Vec<u8>), Option<Vec<u8>>>,
}

/// One of them.
pub(super) type Write = ((Map, Vec<u8>), Option<Vec<u8>>);

impl Writes {
    /// Says whether an older one had to make room.
    pub(super) fn push(&mut self, map: Map, key: Vec<u8>, value: Option<Vec<u8>>) -> bool {
        let at = (map, key);
        if self.values.insert(at.clone(), value).is_none() {
            self.order.push_back(at);
        }
        let full = self.order.len() > MOST;
        if full && let Some(oldest) = self.order.pop_front() {
            self.values.remove(&oldest);
        }
        full
    }

    pub(super) fn pop(&mut self) -> Option<Write> {
        let at = self.order.pop_front()?;
        let value = self.values.remove(&at)?;
        Some((at, value))
    }

    /// One that could not be written, unless there is a newer one of its key.
    fn again(&mut self, (at, value): Write) {
        if !self.values.contains_key(&at) {
            self.order.push_front(at.clone());
            self.values.insert(at, value);
        }
    }
}

/// Writes what the broker wants to be kept, until there is no more.
pub(super) async fn write(shared: Arc<Shared>, client: Client, topic: String) {
    let mut failures = Repeats::default();
    while let Some(write) = poll_fn(|cx| shared.poll_write(cx)).await {
        let ((map, key), value) = &write;
        let name = map.topic(&topic);
        let written = match value {
            Some(value) => client.state_set(name, key.clone(), value.clone()).await,
            None => client.state_delete(name, key.clone()).await,
        };
        match written {
            Ok(_) | Err(Error::NotFound(_)) => {}
            Err(Error::Stopped | Error::ShuttingDown) => return,
            Err(Error::Congested(_)) => {
                shared.state().writes.again(write);
                shared.runtime.sleep(AGAIN).await;
            }
            Err(e) => {
                shared.not_kept.fetch_add(1, Ordering::Relaxed);
                let text = format!("what MQTT nodes are to keep is not kept by all: {e}");
                if let Some(text) = failures.say(&text, shared.runtime.now()) {
                    log::warn!("{text}");
                }
            }
        }
    }
}

/// Has the broker learn what a map has, and all changes, for as long as the node runs.
pub(super) async fn watch(shared: Arc<Shared>, client: Client, topic: String, map: Map) {
    let name = map.topic(&topic);
    let mut failures = Repeats::default();
    while !shared.closing.load(Ordering::Acquire) {
        let mut watch = match client.state_watch(name.clone()).await {
            Ok(watch) => watch,
            Err(Error::Stopped | Error::ShuttingDown) => return,
            Err(e) => {
                let text = format!("MQTT does not learn what other nodes keep, and tries again: {e}");
                if let Some(text) = failures.say(&text, shared.runtime.now()) {
                    log::warn!("{text}");
                }
                shared.runtime.sleep(5 * AGAIN).await;
                continue;
            }
        };
        while let Some(first) = watch.next().await {
            let mut events = vec![first];
            while events.len() < TURN
                && let Some(next) = watch.next().now_or_never().flatten()
            {
                events.push(next);
            }
            learn(&shared, map, &events);
            yield_now().await;
        }
        // The node has ended, or the topic is kept no more.
        shared.runtime.sleep(5 * AGAIN).await;
    }
}

fn learn(shared: &Shared, map: Map, events: &[StateEvent]) {
    let mut unreadable = 0;
    shared.with(|state, now| {
        for event in events {
            let read = match event {
                StateEvent::Set(entry) => {
                    let written = (number(entry.author), entry.sent.saturating_mul(1000));
                    state.broker.learn(map, &entry.key, Some(entry.value()), written, now)
                }
                StateEvent::Deleted { key, author, sent } => {
                    let written = (number(*author), sent.saturating_mul(1000));
                    state.broker.learn(map, key, None, written, now)
                }
                StateEvent::GaveWay { key } => {
                    state.broker.gave_way(map, key);
                    true
                }
                StateEvent::Current | StateEvent::Again => true,
            };
            unreadable += u64::from(!read);
        }
    });
    shared.not_heard.fetch_add(unreadable, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_key_the_last_is_written_in_the_order_of_the_first() {
        let mut writes = Writes::default();
        for (key, value) in [(1, 1), (2, 2), (1, 3)] {
            assert!(!writes.push(Map::Retained, vec![key], Some(vec![value])));
        }
        let first = writes.pop().unwrap();
        assert_eq!(first, ((Map::Retained, vec![1]), Some(vec![3])));
        writes.push(Map::Retained, vec![1], None);
        writes.again(first);
        assert_eq!(writes.pop(), Some(((Map::Retained, vec![2]), Some(vec![2]))));
        assert_eq!(writes.pop(), Some(((Map::Retained, vec![1]), None)), "the newer one stays");
        assert_eq!(writes.pop(), None);
    }
}
