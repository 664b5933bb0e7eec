//! What a core says of itself: topics, meshes, peers, how much it keeps and what it gave up. Nothing here changes it.

use libp2p::PeerId;

use super::{Core, PeerKind, peers::PeerKey};
use crate::{Extensions, Topic};

impl Core {
    /// Peers in our mesh of a topic.
    pub fn mesh(&self, topic: &Topic) -> Vec<PeerId> {
        self.topics.named(topic.as_str()).map(|t| self.ids(t.mesh.iter())).unwrap_or_default()
    }

    /// Connected peers that follow a topic.
    pub fn subscribers(&self, topic: &Topic) -> Vec<PeerId> {
        self.topics.named(topic.as_str()).map(|t| self.ids(t.peers.iter())).unwrap_or_default()
    }

    /// How many connected peers follow a topic.
    pub fn subscriber_count(&self, topic: &str) -> usize {
        self.topics.named(topic).map_or(0, |topic| topic.peers.len())
    }

    /// Whether we follow a topic.
    pub fn is_followed(&self, topic: &str) -> bool {
        self.topics.followed(topic).is_some()
    }

    /// The topics that we follow.
    pub fn followed(&self) -> impl Iterator<Item = &Topic> {
        self.topics.ours().map(|(_, topic)| &topic.name)
    }

    /// The topics that a connected peer follows.
    pub fn topics_of(&self, peer: &PeerId) -> Vec<Topic> {
        let Some(peer) = self.peers.key(peer).and_then(|key| self.peers.get(key)) else { return Vec::new() };
        peer.topics.iter().filter_map(|t| Some(self.topics.get(t)?.name.clone())).collect()
    }

    /// The connected peers, and what they speak.
    pub fn peers(&self) -> impl Iterator<Item = (&PeerId, Option<PeerKind>)> {
        self.peers.iter().map(|(_, peer)| (&peer.id, peer.kind))
    }

    /// What a connected peer announced by v1.3.
    pub fn extensions_of(&self, peer: &PeerId) -> Option<&Extensions> {
        self.peers.get(self.peers.key(peer)?)?.extensions.as_ref()
    }

    /// The largest frame that is read.
    pub fn max_frame(&self) -> usize {
        self.config.max_frame()
    }

    /// What is kept, in bytes of payloads and in ids: for whoever watches the memory.
    pub fn kept(&self) -> Kept {
        Kept {
            seen: self.seen.len(),
            history: self.history.len(),
            history_bytes: self.history.bytes(),
            unverified: self.pending.len(),
            unverified_bytes: self.pending.bytes(),
            awaiting_verdict: self.awaiting.len(),
            awaiting_verdict_bytes: self.awaiting.bytes(),
            promises: self.promises.len(),
        }
    }

    /// What was given up to stay within bounds, since the beginning.
    pub fn shed(&self) -> Shed {
        Shed {
            ids: self.seen.evicted(),
            payloads: self.history.evicted(),
            messages: self.refused,
            forwards: self.dropped,
        }
    }

    /// Copies that arrived of messages that were known, since the start.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    pub(super) fn ids(&self, keys: impl Iterator<Item = PeerKey>) -> Vec<PeerId> {
        keys.filter_map(|key| Some(self.peers.get(key)?.id)).collect()
    }
}

/// How much the engine remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Ids of messages that were delivered.
    pub seen: usize,
    /// Messages for those that ask.
    pub history: usize,
    /// Their bytes.
    pub history_bytes: usize,
    /// Messages whose signature is not checked yet.
    pub unverified: usize,
    /// Their bytes.
    pub unverified_bytes: usize,
    /// Messages without a verdict.
    pub awaiting_verdict: usize,
    /// Their bytes.
    pub awaiting_verdict_bytes: usize,
    /// Messages asked for.
    pub promises: usize,
}

/// What the engine gave up to stay within its bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shed {
    /// Ids that were forgotten before their time: their messages would be taken for new ones.
    pub ids: u64,
    /// Messages that were let go before their time: nobody can ask for them any more.
    pub payloads: u64,
    /// Messages that were not looked at.
    pub messages: u64,
    /// Messages of others that were not sent to a peer, because it takes them too slowly.
    pub forwards: u64,
}
