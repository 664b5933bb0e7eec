//! The links of a mesh: GRAFT and PRUNE, sent and received.

use std::time::{Duration, Instant};

use super::{Action, Core, Event, PeerKind, peers::PeerKey, topics::TopicKey};
use crate::{ControlItem, Prune, Topic};

impl Core {
    /// Peers of a topic, at most `n` of those that `fit`, by chance.
    pub(super) fn pick(
        &mut self,
        topic: TopicKey,
        n: usize,
        fit: impl Fn(&Self, PeerKey) -> bool,
    ) -> Vec<PeerKey> {
        if n == 0 {
            return Vec::new();
        }
        let Some(state) = self.topics.get(topic) else { return Vec::new() };
        let mut fitting: Vec<PeerKey> = state.peers.iter().filter(|peer| fit(self, *peer)).collect();
        self.rng.shuffle(&mut fitting);
        fitting.truncate(n);
        fitting
    }

    /// Whether we may graft a peer: it speaks gossipsub, is no explicit one, reads what it is sent, its score is not
    /// below zero, and neither side keeps away from the other.
    pub(super) fn may_graft(&self, topic: TopicKey, key: PeerKey, now: Instant) -> bool {
        self.peers.get(key).is_some_and(|peer| {
            peer.is_gossipsub()
                && !peer.explicit
                && !peer.is_stalled(self.config.stall_time, now)
                && self.score_of(&peer.id) >= 0.0
                && !self.backoffs.holds(topic, &peer.id, now)
        })
    }

    /// Takes a peer into the mesh and tells it.
    pub(super) fn graft(&mut self, topic: TopicKey, key: PeerKey, now: Instant) {
        if self.join_mesh(topic, key, now)
            && let Some(name) = self.topics.get(topic).map(|t| t.name.clone())
        {
            self.control(key, ControlItem::Graft(name));
        }
    }

    fn join_mesh(&mut self, topic: TopicKey, key: PeerKey, now: Instant) -> bool {
        let (Some(state), Some(peer)) = (self.topics.get_mut(topic), self.peers.get_mut(key)) else {
            return false;
        };
        if !state.subscribed || !state.peers.contains(key) || !state.mesh.insert(key) {
            return false;
        }
        state.links.add(key);
        peer.meshes += 1;
        let (id, first, carrier) = (peer.id, peer.meshes == 1, peer.carrier);
        let name = state.name.clone();
        if let Some(score) = &mut self.score {
            score.graft(&id, &name, now);
        }
        if let Some(carrier) = carrier.filter(|_| first) {
            self.actions.push_back(Action::KeepAlive {
                peer: id,
                connection: carrier.connection,
                keep: true,
            });
        }
        self.report(Event::Joined { peer: id, topic: name });
        true
    }

    pub(super) fn leave_mesh(&mut self, topic: TopicKey, key: PeerKey) -> bool {
        let (Some(state), Some(peer)) = (self.topics.get_mut(topic), self.peers.get_mut(key)) else {
            return false;
        };
        if !state.mesh.remove(key) {
            return false;
        }
        state.links.remove(key);
        peer.meshes = peer.meshes.saturating_sub(1);
        let (id, last, carrier) = (peer.id, peer.meshes == 0, peer.carrier);
        let name = state.name.clone();
        if let Some(score) = &mut self.score {
            score.prune(&id, &name);
        }
        if let Some(carrier) = carrier.filter(|_| last) {
            self.actions.push_back(Action::KeepAlive {
                peer: id,
                connection: carrier.connection,
                keep: false,
            });
        }
        self.report(Event::Left { peer: id, topic: name });
        true
    }

    /// Takes a peer out of the mesh, if it is in, and tells it.
    pub(super) fn prune(
        &mut self,
        topic: TopicKey,
        key: PeerKey,
        exchange: bool,
        backoff: Duration,
        now: Instant,
    ) {
        self.leave_mesh(topic, key);
        let Some(peer) = self.peers.get(key) else { return };
        let (id, kind) = (peer.id, peer.kind);
        let Some(name) = self.topics.get(topic).map(|t| t.name.clone()) else { return };
        self.backoffs.extend(topic, id, backoff, now);
        // A v1.0 peer knows neither back-offs nor peer exchange.
        let knows = kind.is_some_and(|kind| kind >= PeerKind::V1_1);
        let peers = if knows && exchange { self.peers_to_tell(topic, key) } else { Vec::new() };
        self.control(
            key,
            ControlItem::Prune(Prune { topic: name, peers, backoff: knows.then_some(backoff) }),
        );
    }

    pub(super) fn on_graft(&mut self, key: PeerKey, topics: Vec<Topic>, now: Instant) {
        let Some(peer) = self.peers.get(key) else { return };
        if peer.explicit {
            return;
        }
        let (id, outbound) = (peer.id, peer.outbound);
        // Nor is who reads nothing taken in, or thinks that it has a place.
        let below_zero = self.score_of(&id) < 0.0 || peer.is_stalled(self.config.stall_time, now);
        let mut exchange = self.config.peer_exchange;
        let mut prune = Vec::new();
        for name in topics {
            // A peer that grafts us for what we do not follow gets no answer: neither an answer to flood with, nor peers.
            let Some(topic) = self.topics.followed(name.as_str()) else {
                exchange = false;
                continue;
            };
            let Some(state) = self.topics.get(topic) else { continue };
            if state.mesh.contains(key) {
                continue;
            }
            let (members, known) = (state.mesh.len(), state.peers.contains(key));
            if let Some(until) = self.backoffs.ends(topic, &id, now) {
                self.punish_early_graft(key, until, now);
                exchange = false;
                prune.push(topic);
            } else if below_zero {
                exchange = false;
                prune.push(topic);
            } else if !known {
                exchange = false;
            } else if members >= self.config.mesh_of(&name).n_high && !outbound {
                prune.push(topic);
            } else {
                self.join_mesh(topic, key, now);
            }
        }
        for topic in prune {
            self.prune(topic, key, exchange, self.config.prune_backoff, now);
        }
    }

    /// P7: the peer knows of the back-off. If it comes back right after the prune, it costs twice.
    fn punish_early_graft(&mut self, key: PeerKey, until: Instant, now: Instant) {
        let left = until.saturating_duration_since(now);
        let flood = match self.config.prune_backoff.checked_sub(self.config.graft_flood_threshold) {
            Some(late) => left > late,
            None => true,
        };
        self.penalize(key, if flood { 2 } else { 1 });
    }

    pub(super) fn on_prune(&mut self, key: PeerKey, prunes: Vec<Prune>, now: Instant) {
        let Some(id) = self.peers.get(key).map(|peer| peer.id) else { return };
        let trusted = self.score.is_none() || self.score_of(&id) >= self.thresholds.accept_px_threshold;
        for Prune { topic: name, peers, backoff } in prunes {
            let Some(topic) = self.topics.followed(name.as_str()) else { continue };
            self.leave_mesh(topic, key);
            self.backoffs.extend(topic, id, backoff.unwrap_or(self.config.prune_backoff), now);
            if trusted && !peers.is_empty() {
                self.connect_to(peers);
            }
        }
    }

    pub(super) fn penalize(&mut self, key: PeerKey, count: usize) {
        if let (Some(score), Some(peer)) = (&mut self.score, self.peers.get(key)) {
            score.add_penalty(&peer.id, count);
        }
    }

    /// The peer's score; 0 while scoring is off.
    pub(super) fn score_of(&self, peer: &libp2p::PeerId) -> f64 {
        self.score.as_ref().map_or(0.0, |score| score.score(peer))
    }

    pub(super) fn control(&mut self, key: PeerKey, item: ControlItem) {
        let Some(peer) = self.peers.get(key) else { return };
        peer.outbox.lock().control(item);
        self.flush(key);
    }

    pub(super) fn flush(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        if peer.outbox.mark() {
            self.actions.push_back(Action::Flush { peer: peer.id });
        }
    }
}
