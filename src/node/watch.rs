//! Whether gossip with each peer is up, and when a peer is to be connected anew because it is not.
//!
//! A connection can stand, answer pings and carry no gossip: the other side opens its stream when a peer appears
//! and not again (js-libp2p, py-libp2p), or gave up after too many broken streams (libp2p-gossipsub).
//! Then both sides say "connected" and nothing arrives. A peer that says by identify that it speaks gossip, and
//! whose gossip is not up within [`PATIENCE`], is connected anew: after twice as long each time, so that a peer
//! which cannot be helped is not bothered for ever. Pure: events come with the present moment.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};

/// How long gossip has to come up, or to come back.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait between two attempts.
const PATIENCE_MAX: Duration = Duration::from_secs(10 * 60);
/// How long gossip has to be up for what was before to be forgotten.
const STABLE: Duration = Duration::from_secs(60);
/// Attempts with a peer that takes our stream and never opened one. It may have nothing to say: libp2p-gossipsub
/// opens its stream with the first thing that it says.
const SILENT: u32 = 3;
/// Peers whose attempts are remembered while they are away.
const REMEMBERED: usize = 1024;
/// For how long.
const MEMORY: Duration = Duration::from_secs(60 * 60);

/// How gossip with a peer stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GossipState {
    /// Both streams stand.
    Up,
    /// It is about to come up, or to come back.
    Opening,
    /// It takes our stream and opened none; it may have nothing to say.
    Silent,
    /// It is not up though the peer speaks it.
    Off,
    /// The peer does not speak it.
    None,
}

/// A peer whose gossip is not up in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) peer: PeerId,
    /// What is amiss.
    pub(crate) why: &'static str,
    /// How often it was so before.
    pub(crate) attempt: u32,
}

#[derive(Debug, Default)]
struct Peer {
    /// And whether they go through a relay.
    connections: BTreeMap<ConnectionId, bool>,
    /// Its stream stands, on whichever connection.
    heard: bool,
    /// Ours stands.
    sending: bool,
    /// Whether it speaks gossip; `None` before identify has it.
    speaks: Option<bool>,
    /// What happened last that may be why.
    why: Option<&'static str>,
    /// When it is late, or, while gossip is up, when it has been for long enough.
    due: Option<Instant>,
    is_off: bool,
}

impl Peer {
    fn is_up(&self) -> bool {
        self.heard && self.sending
    }
}

#[derive(Debug, Default)]
pub(crate) struct Watch {
    peers: HashMap<PeerId, Peer>,
    /// How often a peer was late, and when last.
    attempts: HashMap<PeerId, (u32, Instant)>,
}

impl Watch {
    pub(crate) fn connected(&mut self, peer: PeerId, connection: ConnectionId, relayed: bool, now: Instant) {
        self.change(peer, now, |peer| {
            peer.connections.insert(connection, relayed);
        });
    }

    pub(crate) fn closed(&mut self, peer: PeerId, connection: ConnectionId) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.connections.remove(&connection);
        if known.connections.is_empty() {
            self.peers.remove(&peer);
            self.peers.shrink_to(64.max(self.peers.len() * 2));
        }
    }

    /// A peer said what it speaks.
    pub(crate) fn identified(&mut self, peer: PeerId, speaks: bool, now: Instant) {
        if self.peers.contains_key(&peer) {
            self.change(peer, now, |peer| peer.speaks = Some(speaks));
        }
    }

    /// Whether the peer's stream stands, and ours. Says whether gossip came back that had been off.
    pub(crate) fn changed(&mut self, peer: PeerId, heard: bool, sending: bool, now: Instant) -> bool {
        let Some(known) = self.peers.get(&peer) else { return false };
        let was_off = known.is_off || self.attempts.contains_key(&peer);
        let was_up = known.is_up();
        self.change(peer, now, |peer| {
            if peer.heard && !heard {
                peer.why = Some("its stream closed, or the connection that carried it");
            } else if peer.sending && !sending {
                peer.why = Some("our stream to it broke");
            }
            (peer.heard, peer.sending) = (heard, sending);
        });
        was_off && !was_up && self.peers.get(&peer).is_some_and(Peer::is_up)
    }

    fn change(&mut self, id: PeerId, now: Instant, change: impl FnOnce(&mut Peer)) {
        let peer = self.peers.entry(id).or_default();
        let before = (peer.is_up(), peer.speaks);
        change(peer);
        let after = (peer.is_up(), peer.speaks);
        if after.0 {
            peer.is_off = false;
        }
        if before == after && peer.due.is_some() {
            return;
        }
        let waited = self.attempts.get(&id).map_or(PATIENCE, |(n, _)| patience(*n));
        peer.due = match after {
            (true, _) => self.attempts.contains_key(&id).then_some(now + STABLE),
            (false, Some(true)) => Some(now + waited),
            (false, _) => None,
        };
    }

    /// The peers that are late now. Each is late once, until it is connected anew or [`PATIENCE_MAX`] later.
    pub(crate) fn take_late(&mut self, now: Instant) -> Vec<Late> {
        let mut late = Vec::new();
        for (id, peer) in &mut self.peers {
            if peer.due.is_none_or(|due| now < due) {
                continue;
            }
            peer.due = None;
            if peer.is_up() {
                self.attempts.remove(id);
                continue;
            }
            let attempt = self.attempts.get(id).map_or(0, |(n, _)| *n);
            let is_silent = peer.sending && peer.why.is_none();
            // The other side may want none over a relay, whose connections are limited.
            let is_relayed = peer.connections.values().all(|relayed| *relayed);
            if (is_silent || is_relayed) && attempt >= SILENT {
                peer.is_off = false;
                continue;
            }
            peer.is_off = true;
            peer.due = Some(now + patience(attempt + 1));
            let why = match peer.why {
                Some(why) => why,
                None if is_silent => "it opens no stream to us",
                None => "it does not take our stream",
            };
            self.attempts.insert(*id, (attempt + 1, now));
            late.push(Late { peer: *id, why, attempt });
        }
        self.forget(now);
        late
    }

    fn forget(&mut self, now: Instant) {
        let peers = &self.peers;
        self.attempts
            .retain(|id, (_, at)| peers.contains_key(id) || now.saturating_duration_since(*at) < MEMORY);
        while self.attempts.len() > REMEMBERED {
            let away = self.attempts.iter().filter(|(id, _)| !peers.contains_key(*id));
            let Some(oldest) = away.min_by_key(|(_, (_, at))| *at).map(|(id, _)| *id) else { return };
            self.attempts.remove(&oldest);
        }
    }

    /// When [`take_late`](Self::take_late) has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.peers.values().filter_map(|peer| peer.due).min()
    }

    /// Connected peers whose gossip is off.
    pub(crate) fn off(&self) -> usize {
        self.peers.values().filter(|peer| peer.is_off).count()
    }

    /// How gossip with a peer stands, and what is amiss if it is off.
    pub(crate) fn state(&self, peer: &PeerId) -> (GossipState, Option<&'static str>) {
        let Some(known) = self.peers.get(peer) else { return (GossipState::Opening, None) };
        if known.is_up() {
            return (GossipState::Up, None);
        }
        let is_silent = known.speaks == Some(true) && known.due.is_none() && known.sending;
        match known.speaks {
            Some(false) => (GossipState::None, None),
            _ if known.is_off => (GossipState::Off, known.why),
            _ if is_silent => (GossipState::Silent, None),
            _ => (GossipState::Opening, None),
        }
    }
}

/// How long a peer has that was late `attempts` times before.
fn patience(attempts: u32) -> Duration {
    PATIENCE.saturating_mul(1 << attempts.min(10)).min(PATIENCE_MAX)
}

#[cfg(test)]
mod tests;
