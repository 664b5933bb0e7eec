//! What peers follow and we do not: remembered in case that we publish to it, and bounded, for names cost nothing to
//! whoever invents them.
//!
//! Each peer has a bound in topics and in bytes, and all together have one. Where the latter is reached, the peer with the
//! most loses its newest to whoever has less. What we follow ourselves is never refused.

use super::{Core, Event, peers::PeerKey, topics::TopicKey};
use crate::Topic;

/// Topics and bytes of their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) topics: usize,
    pub(super) bytes: usize,
}

/// What one topic is reckoned at when peers are compared, beside its name.
const ENTRY: usize = 128;

impl Charge {
    fn add(&mut self, bytes: usize) {
        self.topics += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.topics = self.topics.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn with(mut self, bytes: usize) -> Self {
        self.add(bytes);
        self
    }

    fn is_within(self, topics: usize, bytes: usize) -> bool {
        self.topics <= topics && self.bytes <= bytes
    }

    fn weight(self) -> usize {
        self.topics * ENTRY + self.bytes
    }
}

impl Core {
    /// Whether it may be remembered that a peer follows a topic that we do not; it is charged for it then.
    pub(super) fn admit_topic(&mut self, key: PeerKey, name: &Topic) -> bool {
        let bytes = name.as_str().len();
        let Some(charge) = self.peers.get(key).map(|peer| peer.charge.with(bytes)) else { return false };
        if !charge.is_within(self.config.max_topics_per_peer, self.config.max_topic_bytes_per_peer) {
            return false;
        }
        while !self.charge.with(bytes).is_within(self.config.max_topics, self.config.max_topic_bytes) {
            let heaviest = self.peers.iter().max_by_key(|(_, peer)| peer.charge.weight());
            let Some((heaviest, peer)) = heaviest else { return false };
            if heaviest == key || peer.charge.weight() <= charge.weight() || !self.drop_newest(heaviest) {
                return false;
            }
        }
        self.charge.add(bytes);
        if let Some(peer) = self.peers.get_mut(key) {
            peer.charge = charge;
        }
        true
    }

    /// Whether there was one.
    fn drop_newest(&mut self, key: PeerKey) -> bool {
        let Some(peer) = self.peers.get(key) else { return false };
        let (id, Some(topic)) = (peer.id, peer.strange.as_slice().last().copied()) else { return false };
        let Some(name) = self.topics.get(topic).map(|state| state.name.clone()) else { return false };
        self.no_longer_follows(key, topic);
        self.report(Event::Unsubscribed { peer: id, topic: name });
        true
    }

    /// A peer does not follow a topic any more, or is gone. Whether it did.
    pub(super) fn no_longer_follows(&mut self, key: PeerKey, topic: TopicKey) -> bool {
        self.discharge(key, topic);
        let followed = self.peers.get_mut(key).is_some_and(|peer| peer.topics.remove(topic));
        if let Some(state) = self.topics.get_mut(topic) {
            state.peers.remove(key);
            if let Some(fanout) = &mut state.fanout {
                fanout.peers.remove(key);
            }
        }
        self.forget_unused_topic(topic);
        followed
    }

    /// The peer is not charged for the topic any more: it is ours, too, or the peer follows it no longer.
    pub(super) fn discharge(&mut self, key: PeerKey, topic: TopicKey) {
        let Some(bytes) = self.topics.get(topic).map(|state| state.name.as_str().len()) else { return };
        if let Some(peer) = self.peers.get_mut(key)
            && peer.strange.remove(topic)
        {
            peer.charge.remove(bytes);
            self.charge.remove(bytes);
        }
    }
}
