//! The messages of the last heartbeats: what IHAVE announces and IWANT gets.
//!
//! A window is what came between two heartbeats. Messages leave with their window, or earlier where there are more than
//! fit; only messages that were accepted come in.

use std::collections::{HashMap, VecDeque};

use crate::{
    MessageId, Topic, WireMessage,
    fingerprint::{BuildFingerprintHasher, Fingerprint},
};

/// How much is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Windows that messages are kept for (`history_length`).
    pub windows: usize,
    /// Windows of which messages are announced (`history_gossip`), from the newest on.
    pub gossip: usize,
    /// Messages, at most.
    pub messages: usize,
    /// Bytes of memory that messages keep from being freed, at most.
    pub bytes: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { windows: 5, gossip: 3, messages: 16_384, bytes: 8 * 1024 * 1024 }
    }
}

/// What a message costs beside its own bytes: entry, id, places in table and window.
const OVERHEAD: usize = 256;

/// Peers that are counted of those that ask for one message: who reconnects is another one each time.
const MOST_ASKING: usize = 1024;

/// The message cache of libp2p/specs `pubsub/gossipsub` v1.0.
#[derive(Debug)]
pub struct History {
    limits: HistoryLimits,
    entries: HashMap<Fingerprint, Entry, BuildFingerprintHasher>,
    /// The newest last.
    windows: VecDeque<Vec<Fingerprint>>,
    bytes: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Entry {
    id: MessageId,
    topic: Topic,
    message: WireMessage,
    /// By the number the caller has for a peer, how often it asked for this.
    asked: Vec<(u64, u32)>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.message.retained() + self.id.len() + OVERHEAD
    }
}

impl History {
    /// An empty one.
    pub fn new(limits: HistoryLimits) -> Self {
        let windows = VecDeque::from([Vec::new()]);
        Self { limits, entries: HashMap::default(), windows, bytes: 0, evicted: 0 }
    }

    /// Keeps a message; says whether it is new. A large frame that it came in is let go of
    /// ([`WireMessage::compact`]).
    pub fn put(
        &mut self,
        fingerprint: Fingerprint,
        id: MessageId,
        topic: Topic,
        mut message: WireMessage,
    ) -> bool {
        if self.limits.windows == 0 || self.entries.contains_key(&fingerprint) {
            return false;
        }
        message.compact();
        let entry = Entry { id, topic, message, asked: Vec::new() };
        let bytes = entry.bytes();
        if bytes > self.limits.bytes || self.limits.messages == 0 {
            return false;
        }
        while self.entries.len() >= self.limits.messages || self.bytes + bytes > self.limits.bytes {
            self.evict();
        }
        self.bytes += bytes;
        self.entries.insert(fingerprint, entry);
        if let Some(window) = self.windows.back_mut() {
            window.push(fingerprint);
        }
        true
    }

    /// A message that is kept.
    pub fn get(&self, fingerprint: &Fingerprint) -> Option<&WireMessage> {
        self.entries.get(fingerprint).map(|entry| &entry.message)
    }

    /// A message that peer number `peer` asks for, and how often it has now asked for it. A number must not be given to
    /// another peer while messages are kept. `None` also once as many others as are counted have asked for it.
    pub fn asked(&mut self, fingerprint: &Fingerprint, peer: impl Into<u64>) -> Option<(&WireMessage, u32)> {
        let (entry, peer) = (self.entries.get_mut(fingerprint)?, peer.into());
        let at = match entry.asked.iter().position(|(asked, _)| *asked == peer) {
            Some(at) => at,
            None if entry.asked.len() >= MOST_ASKING => return None,
            None => {
                entry.asked.push((peer, 0));
                entry.asked.len() - 1
            }
        };
        entry.asked[at].1 = entry.asked[at].1.saturating_add(1);
        Some((&entry.message, entry.asked[at].1))
    }

    /// The ids of `topic` that are announced, the newest first, at most `most`.
    pub fn gossip(&self, topic: &Topic, most: usize) -> Vec<MessageId> {
        self.announced().filter(|entry| entry.topic == *topic).map(|e| e.id.clone()).take(most).collect()
    }

    /// The ids that are announced, by topic, the newest first: one walk for all topics of a heartbeat.
    pub fn gossip_by_topic(&self) -> HashMap<Topic, Vec<MessageId>> {
        let mut topics: HashMap<Topic, Vec<MessageId>> = HashMap::new();
        for entry in self.announced() {
            match topics.get_mut(&entry.topic) {
                Some(ids) => ids.push(entry.id.clone()),
                None => {
                    topics.insert(entry.topic.clone(), vec![entry.id.clone()]);
                }
            }
        }
        topics
    }

    /// A heartbeat: the oldest window goes, an empty one begins. Says how many messages went.
    pub fn shift(&mut self) -> usize {
        let before = self.entries.len();
        self.windows.push_back(Vec::new());
        while self.windows.len() > self.limits.windows.max(1) {
            for fingerprint in self.windows.pop_front().unwrap_or_default() {
                self.remove(&fingerprint);
            }
        }
        // Tables do not shrink by themselves; what a burst took is given back once it is over.
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        before - self.entries.len()
    }

    /// Lets go of a message.
    pub fn remove(&mut self, fingerprint: &Fingerprint) -> bool {
        let removed = self.entries.remove(fingerprint);
        self.bytes -= removed.as_ref().map_or(0, Entry::bytes);
        removed.is_some()
    }

    /// Messages kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory, as good as it can be known; what a payload shares with others counts here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages that left before their window did, since the beginning.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn announced(&self) -> impl Iterator<Item = &Entry> {
        let windows = self.windows.iter().rev().take(self.limits.gossip);
        windows.flat_map(|window| window.iter().rev()).filter_map(|fingerprint| self.entries.get(fingerprint))
    }

    /// Drops the oldest message. There is one: a message that fits alone is never too many.
    fn evict(&mut self) {
        let oldest = self.windows.iter_mut().find(|window| !window.is_empty());
        let Some(window) = oldest else {
            // Nothing is left to drop, so nothing is kept.
            self.entries.clear();
            self.bytes = 0;
            return;
        };
        // Half of a window at a time would lose more than is needed, one by one from the front would move all the rest.
        let gone = window.len().div_ceil(16);
        let gone: Vec<Fingerprint> = window.drain(..gone).collect();
        for fingerprint in gone {
            self.evicted += u64::from(self.remove(&fingerprint));
        }
    }
}

#[cfg(test)]
mod tests;
