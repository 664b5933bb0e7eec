//! The connected peers, under small keys that are never given twice at the same time.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};

use super::{choke::Announcements, key_set::KeySet, pace::Pace, strangers::Charge, topics::TopicKey};
use crate::{BuildFingerprintHasher, Extensions, Fingerprint, outbox::Outbox};

/// For how long a peer's IDONTWANT counts.
const IDONTWANT_TIME: Duration = Duration::from_secs(3);
/// How many of its IDONTWANTs count at a time, and of those of all peers; a few of each peer in any case.
const IDONTWANT_MOST: usize = 10_000;
const IDONTWANT_ALL: usize = 131_072;
const IDONTWANT_LEAST: usize = 128;

/// What a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// `/floodsub/1.0.0`: is sent everything in its topics.
    Floodsub,
    /// `/meshsub/1.0.0`.
    V1_0,
    /// `/meshsub/1.1.0`: back-offs, peer exchange.
    V1_1,
    /// `/meshsub/1.2.0`: IDONTWANT.
    V1_2,
    /// `/meshsub/1.3.0`: extensions.
    V1_3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerKey {
    slot: u32,
    generation: u32,
}

impl PeerKey {
    /// A number that no other peer gets, also none that has the slot after it.
    pub(super) fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }
}

/// One connection of a peer.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    /// Through a relay: a direct one takes its place.
    pub(super) relayed: bool,
    pub(super) ip: Option<IpAddr>,
    /// It carries what the peer sends us.
    pub(super) inbound: bool,
    /// The peer speaks none of our protocols on it.
    pub(super) unsupported: bool,
}

/// The connection that carries what we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Carrier {
    pub(super) connection: ConnectionId,
    /// Its substream stands and the greeting is on its way.
    pub(super) open: bool,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    /// `None` until a substream was negotiated.
    pub(super) kind: Option<PeerKind>,
    /// Its first connection was dialed by us, and not because of peer exchange.
    pub(super) outbound: bool,
    pub(super) explicit: bool,
    pub(super) connections: Vec<Connection>,
    pub(super) carrier: Option<Carrier>,
    /// It was greeted before: what it was sent since may be lost.
    pub(super) greeted: bool,
    pub(super) outbox: Arc<Outbox>,
    pub(super) topics: KeySet<TopicKey>,
    /// Those of them that we did not follow when it said so, nor since.
    pub(super) strange: KeySet<TopicKey>,
    /// What they are.
    pub(super) charge: Charge,
    /// In how many of our meshes it is.
    pub(super) meshes: usize,
    /// Frames it had taken at the last heartbeat.
    pub(super) taken: u64,
    /// Since when something waits for it and it takes nothing.
    pub(super) stuck: Option<Instant>,
    /// Whether publishers wait for it.
    pub(super) pace: Pace,
    pub(super) unwanted: Unwanted,
    /// Since the last heartbeat.
    pub(super) ihaves: usize,
    /// Ids asked of it since the last heartbeat.
    pub(super) asked: usize,
    /// Its messages that wait for their signature to be checked.
    pub(super) unverified: usize,
    /// Their bytes.
    pub(super) unverified_bytes: usize,
    /// Messages dropped since the last heartbeat, because its queue was full.
    pub(super) dropped: usize,
    /// Bytes of ids announced to it since the last heartbeat.
    pub(super) announced: usize,
    /// Its own messages that somebody else brought since it last brought one itself.
    pub(super) own_missing: u8,
    /// Ids that it announced as a link of a mesh since the last heartbeat.
    pub(super) announced_to_us: usize,
    /// Messages that will be announced to it.
    pub(super) announcements: Announcements,
    /// What it said that it speaks (v1.3); the first time counts.
    pub(super) extensions: Option<Extensions>,
}

impl Peer {
    pub(super) fn is_gossipsub(&self) -> bool {
        self.kind.is_some_and(|kind| kind > PeerKind::Floodsub)
    }

    /// Whether it has taken nothing for `time`, though something waits for it.
    pub(super) fn is_stalled(&self, time: Duration, now: Instant) -> bool {
        self.stuck.is_some_and(|since| now.saturating_duration_since(since) >= time)
    }

    /// A heartbeat: looks whether anything was taken since the last one.
    pub(super) fn note_progress(&mut self, now: Instant) {
        let outbox = self.outbox.lock();
        let (waits, taken) = (!outbox.is_empty(), outbox.taken());
        drop(outbox);
        if !waits {
            self.pace.rest();
        }
        if !waits || taken != self.taken {
            (self.taken, self.stuck) = (taken, None);
        } else {
            self.stuck.get_or_insert(now);
        }
    }

    pub(super) fn speaks(&self, kind: PeerKind) -> bool {
        self.kind.is_some_and(|k| k >= kind)
    }
}

/// What the peer has already, by its IDONTWANTs: two generations, so that forgetting costs nothing.
#[derive(Debug, Default)]
pub(super) struct Unwanted {
    young: HashSet<Fingerprint, BuildFingerprintHasher>,
    old: HashSet<Fingerprint, BuildFingerprintHasher>,
    turned: Option<Instant>,
}

impl Unwanted {
    pub(super) fn contains(&self, id: &Fingerprint) -> bool {
        self.young.contains(id) || self.old.contains(id)
    }

    /// Takes one more, if that is not too many where there are so many peers.
    pub(super) fn insert(&mut self, id: Fingerprint, peers: usize, now: Instant) {
        self.expire(now);
        let most = (IDONTWANT_ALL / peers.max(1)).clamp(IDONTWANT_LEAST, IDONTWANT_MOST);
        if self.young.len() < most / 2 {
            self.young.insert(id);
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if self.young.is_empty() && self.old.is_empty() {
            self.turned = Some(now);
            return;
        }
        let turned = *self.turned.get_or_insert(now);
        if now.saturating_duration_since(turned) >= IDONTWANT_TIME {
            self.old = std::mem::take(&mut self.young);
            self.turned = Some(now);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Peers {
    keys: HashMap<PeerId, PeerKey>,
    slots: Vec<(u32, Option<Peer>)>,
    free: Vec<u32>,
}

impl Peers {
    pub(super) fn key(&self, id: &PeerId) -> Option<PeerKey> {
        self.keys.get(id).copied()
    }

    pub(super) fn get(&self, key: PeerKey) -> Option<&Peer> {
        let (generation, peer) = self.slots.get(key.slot as usize)?;
        peer.as_ref().filter(|_| *generation == key.generation)
    }

    pub(super) fn get_mut(&mut self, key: PeerKey) -> Option<&mut Peer> {
        let (generation, peer) = self.slots.get_mut(key.slot as usize)?;
        peer.as_mut().filter(|_| *generation == key.generation)
    }

    pub(super) fn find_mut(&mut self, id: &PeerId) -> Option<&mut Peer> {
        self.get_mut(self.key(id)?)
    }

    pub(super) fn insert(&mut self, peer: Peer) -> PeerKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        let (generation, place) = &mut self.slots[slot as usize];
        *generation = generation.wrapping_add(1);
        let key = PeerKey { slot, generation: *generation };
        self.keys.insert(peer.id, key);
        *place = Some(peer);
        key
    }

    pub(super) fn remove(&mut self, key: PeerKey) -> Option<Peer> {
        self.get(key)?;
        let peer = self.slots.get_mut(key.slot as usize)?.1.take()?;
        self.keys.remove(&peer.id);
        // Tables do not shrink by themselves: what many peers took is given back when they are gone.
        self.keys.shrink_to(64.max(self.keys.len() * 2));
        self.free.push(key.slot);
        Some(peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.slots.iter().enumerate().filter_map(|(slot, (generation, peer))| {
            Some((PeerKey { slot: slot as u32, generation: *generation }, peer.as_ref()?))
        })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (PeerKey, &mut Peer)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, (generation, peer))| {
            Some((PeerKey { slot: slot as u32, generation: *generation }, peer.as_mut()?))
        })
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn all(&self) -> Vec<PeerKey> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idontwant_counts_for_its_time_and_is_forgotten_after() {
        let now = Instant::now();
        let mut unwanted = Unwanted::default();
        let id = crate::Fingerprinter::with_key([1, 2]).id(b"id");
        unwanted.insert(id, 1, now);
        unwanted.expire(now + IDONTWANT_TIME);
        assert!(unwanted.contains(&id));
        unwanted.expire(now + IDONTWANT_TIME * 2);
        assert!(!unwanted.contains(&id));
    }
}
