//! The topics that we or our peers follow, under small keys.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use super::{choke::Links, key_set::KeySet, peers::PeerKey};
use crate::Topic;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TopicKey(pub(super) u32);

/// Peers picked for a topic that we publish to and do not follow.
#[derive(Debug)]
pub(super) struct Fanout {
    pub(super) peers: KeySet<PeerKey>,
    pub(super) published: Instant,
}

#[derive(Debug)]
pub(super) struct TopicState {
    pub(super) name: Topic,
    /// We follow it.
    pub(super) subscribed: bool,
    /// We followed it once: there may be back-offs.
    pub(super) ours: bool,
    /// Who follows it.
    pub(super) peers: KeySet<PeerKey>,
    /// Empty unless `subscribed`.
    pub(super) mesh: KeySet<PeerKey>,
    /// What is known of each of the mesh.
    pub(super) links: Links,
    pub(super) fanout: Option<Fanout>,
}

/// All topics, at most as many as our peers may be subscribed to together, and ours.
#[derive(Debug, Default)]
pub(super) struct Topics {
    keys: HashMap<Topic, TopicKey>,
    states: HashMap<TopicKey, TopicState>,
    /// Those with a mesh or a fanout: what a heartbeat looks at.
    active: BTreeSet<TopicKey>,
    /// Ours once, and not any more: back-offs may keep them.
    parted: BTreeSet<TopicKey>,
    next: u32,
}

impl Topics {
    pub(super) fn key(&self, name: &str) -> Option<TopicKey> {
        self.keys.get(name).copied()
    }

    /// The key of a topic, made if it has none.
    pub(super) fn intern(&mut self, name: &Topic) -> TopicKey {
        if let Some(key) = self.key(name.as_str()) {
            return key;
        }
        while self.states.contains_key(&TopicKey(self.next)) {
            self.next = self.next.wrapping_add(1);
        }
        let key = TopicKey(self.next);
        self.next = self.next.wrapping_add(1);
        self.keys.insert(name.clone(), key);
        self.states.insert(
            key,
            TopicState {
                name: name.clone(),
                subscribed: false,
                ours: false,
                peers: KeySet::default(),
                mesh: KeySet::default(),
                links: Links::default(),
                fanout: None,
            },
        );
        key
    }

    pub(super) fn get(&self, key: TopicKey) -> Option<&TopicState> {
        self.states.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: TopicKey) -> Option<&mut TopicState> {
        self.states.get_mut(&key)
    }

    pub(super) fn named(&self, name: &str) -> Option<&TopicState> {
        self.get(self.key(name)?)
    }

    /// Whether we follow it.
    pub(super) fn followed(&self, name: &str) -> Option<TopicKey> {
        let key = self.key(name)?;
        self.get(key)?.subscribed.then_some(key)
    }

    /// A mesh or fanout was made or dropped.
    pub(super) fn note_active(&mut self, key: TopicKey) {
        if self.states.get(&key).is_some_and(|t| t.subscribed || t.fanout.is_some()) {
            self.active.insert(key);
            self.parted.remove(&key);
        } else {
            self.active.remove(&key);
            if self.states.get(&key).is_some_and(|t| t.ours) {
                self.parted.insert(key);
            }
        }
    }

    pub(super) fn active(&self) -> Vec<TopicKey> {
        self.active.iter().copied().collect()
    }

    pub(super) fn ours(&self) -> impl Iterator<Item = (TopicKey, &TopicState)> {
        self.active.iter().filter_map(|key| Some((*key, self.states.get(key)?))).filter(|(_, t)| t.subscribed)
    }

    /// Drops a topic that nobody follows any more, unless `kept` says that its key is still in use.
    pub(super) fn forget_unused(&mut self, key: TopicKey, kept: impl FnOnce() -> bool) {
        let Some(topic) = self.states.get(&key) else { return };
        if topic.subscribed || topic.fanout.is_some() || !topic.peers.is_empty() || (topic.ours && kept()) {
            return;
        }
        let name = topic.name.clone();
        self.keys.remove(&name);
        self.states.remove(&key);
        self.parted.remove(&key);
    }

    /// Topics that only back-offs may keep.
    pub(super) fn left(&self) -> Vec<TopicKey> {
        self.parted.iter().copied().collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }
}
