//! What happens at each heartbeat: meshes are kept in size and in quality, and what was heard is announced.

use std::time::Instant;

use super::{Action, Core, Event, MeshParams, peers::PeerKey, topics::TopicKey};

impl Core {
    pub(super) fn heartbeat(&mut self, now: Instant) {
        let before = self.ticks;
        let passed = now.saturating_duration_since(self.last_heartbeat).as_nanos();
        let interval = self.config.heartbeat_interval.as_nanos().max(1);
        // To the nearest: timers are late by a little.
        self.ticks += u64::try_from((passed + interval / 2) / interval)
            .unwrap_or(u64::MAX)
            .clamp(1, u64::from(u32::MAX));
        let due = |ticks: u64, every: u64| ticks / every.max(1) > before / every.max(1);
        self.backoffs.expire(now);
        self.seen.expire(now);
        self.expire_awaiting(now);
        self.expire_left(now);
        for (key, broken) in self.promises.broken(now) {
            self.penalize(key, broken);
        }
        let mut slow = Vec::new();
        let mut stalled = Vec::new();
        for (key, peer) in self.peers.iter_mut() {
            peer.note_progress(now);
            if peer.is_stalled(self.config.stall_time, now) {
                stalled.push(key);
            }
            peer.ihaves = 0;
            peer.asked = 0;
            peer.announced = 0;
            peer.announced_to_us = 0;
            peer.unwanted.expire(now);
            let dropped = std::mem::take(&mut peer.dropped);
            if dropped > 0 {
                slow.push(Event::SlowPeer { peer: peer.id, dropped });
            }
        }
        slow.into_iter().for_each(|event| self.report(event));
        stalled.into_iter().for_each(|key| self.take_place(key, now));
        if due(self.ticks, self.config.check_explicit_peers_ticks) {
            self.reconnect_explicit();
        }
        let opportunistic = due(self.ticks, self.config.opportunistic_graft_ticks);
        let recent = self.history.gossip_by_topic();
        for topic in self.topics.active() {
            let Some(state) = self.topics.get(topic) else { continue };
            let (subscribed, mesh) = (state.subscribed, self.config.mesh_of(&state.name));
            let recent = recent.get(&state.name);
            if subscribed {
                self.maintain_mesh(topic, mesh, now);
                self.review_links(topic);
                if opportunistic {
                    self.graft_opportunistically(topic, now);
                }
            } else {
                self.maintain_fanout(topic, mesh, now);
            }
            if let Some(recent) = recent {
                self.emit_gossip(topic, recent);
            }
        }
        for topic in self.topics.left() {
            self.forget_unused_topic(topic);
        }
        self.history.shift();
    }

    /// A peer that reads nothing leaves all meshes, and what waits of others' messages goes.
    fn take_place(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get(key) else { return };
        let forwards = peer.outbox.lock().shed(usize::MAX);
        let topics: Vec<_> = if peer.meshes > 0 { peer.topics.iter().collect() } else { Vec::new() };
        self.note_dropped(key, forwards);
        for topic in topics {
            if self.topics.get(topic).is_some_and(|state| state.mesh.contains(key)) {
                self.prune(topic, key, false, self.config.prune_backoff, now);
            }
        }
    }

    fn reconnect_explicit(&mut self) {
        for peer in &self.explicit {
            if self.peers.key(peer).is_none() {
                self.actions.push_back(Action::Connect { peer: *peer, addresses: Vec::new() });
            }
        }
    }

    fn maintain_mesh(&mut self, topic: TopicKey, params: MeshParams, now: Instant) {
        let scores = self.mesh_scores(topic);
        for (key, score) in &scores {
            if *score < 0.0 {
                self.prune(topic, *key, false, self.config.prune_backoff, now);
            }
        }
        let size = self.mesh_len(topic);
        if size < params.n_low {
            self.graft_some(topic, params.n - size, now, |_, _| true);
        }
        if self.mesh_len(topic) >= params.n_high {
            self.cut_mesh(topic, params, now);
        }
        if self.mesh_len(topic) >= params.n_low {
            let outbound = self.outbound_in_mesh(topic);
            if outbound < params.outbound_min {
                let dialed = |core: &Self, key| core.peers.get(key).is_some_and(|peer| peer.outbound);
                self.graft_some(topic, params.outbound_min - outbound, now, dialed);
            }
        }
    }

    fn mesh_len(&self, topic: TopicKey) -> usize {
        self.topics.get(topic).map_or(0, |state| state.mesh.len())
    }

    fn mesh_scores(&self, topic: TopicKey) -> Vec<(PeerKey, f64)> {
        let Some(state) = self.topics.get(topic) else { return Vec::new() };
        let score = |key| self.peers.get(key).map_or(0.0, |peer| self.score_of(&peer.id));
        state.mesh.iter().map(|key| (key, score(key))).collect()
    }

    fn outbound_in_mesh(&self, topic: TopicKey) -> usize {
        let Some(state) = self.topics.get(topic) else { return 0 };
        state.mesh.iter().filter(|key| self.peers.get(*key).is_some_and(|peer| peer.outbound)).count()
    }

    fn graft_some(&mut self, topic: TopicKey, n: usize, now: Instant, fit: impl Fn(&Self, PeerKey) -> bool) {
        let chosen = self.pick(topic, n, |core, key| {
            core.topics.get(topic).is_some_and(|state| !state.mesh.contains(key))
                && core.may_graft(topic, key, now)
                && fit(core, key)
        });
        for key in chosen {
            self.graft(topic, key, now);
        }
    }

    /// Cuts a mesh down to D: the best D_score stay, the rest by chance, but never fewer than D_out that we dialed.
    fn cut_mesh(&mut self, topic: TopicKey, params: MeshParams, now: Instant) {
        let mut scores = self.mesh_scores(topic);
        let excess = scores.len().saturating_sub(params.n);
        // By chance first, so that equals are cut by chance; then the worst first.
        self.rng.shuffle(&mut scores);
        scores.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        let worst = scores.len().saturating_sub(self.config.retain_scores);
        self.rng.shuffle(&mut scores[..worst]);
        let mut outbound = self.outbound_in_mesh(topic);
        let mut cut = Vec::with_capacity(excess);
        for (key, _) in scores {
            if cut.len() == excess {
                break;
            }
            if self.peers.get(key).is_some_and(|peer| peer.outbound) {
                if outbound <= params.outbound_min {
                    continue;
                }
                outbound -= 1;
            }
            cut.push(key);
        }
        for key in cut {
            self.prune(topic, key, self.config.peer_exchange, self.config.prune_backoff, now);
        }
    }

    /// If half of a mesh scores badly, some that score better are taken in (v1.1, "Opportunistic Grafting").
    fn graft_opportunistically(&mut self, topic: TopicKey, now: Instant) {
        let mut scores: Vec<f64> = self.mesh_scores(topic).into_iter().map(|(_, score)| score).collect();
        if self.score.is_none() || scores.len() < 2 {
            return;
        }
        scores.sort_by(f64::total_cmp);
        let middle = scores.len() / 2;
        let median = if scores.len().is_multiple_of(2) {
            (scores[middle - 1] + scores[middle]) / 2.0
        } else {
            scores[middle]
        };
        if median < self.thresholds.opportunistic_graft_threshold {
            let better =
                |core: &Self, key| core.peers.get(key).is_some_and(|peer| core.score_of(&peer.id) > median);
            self.graft_some(topic, self.config.opportunistic_graft_peers, now, better);
        }
    }

    fn maintain_fanout(&mut self, topic: TopicKey, params: MeshParams, now: Instant) {
        let publish = self.thresholds.publish_threshold;
        let (peers, ttl) = (&self.peers, self.config.fanout_ttl);
        let score = &self.score;
        let stands = |key: &PeerKey| {
            let score = |id| score.as_ref().map_or(0.0, |score| score.score(id));
            peers.get(*key).is_some_and(|peer| score(&peer.id) >= publish)
        };
        let Some(state) = self.topics.get_mut(topic) else { return };
        let Some(fanout) = &mut state.fanout else { return };
        if now.saturating_duration_since(fanout.published) > ttl {
            state.fanout = None;
            self.topics.note_active(topic);
            self.forget_unused_topic(topic);
            return;
        }
        fanout.peers = fanout.peers.iter().filter(stands).filter(|key| state.peers.contains(*key)).collect();
        let missing = params.n.saturating_sub(fanout.peers.len());
        let more = self.pick(topic, missing, |core, key| {
            let held =
                core.topics.get(topic).and_then(|t| t.fanout.as_ref()).is_none_or(|f| f.peers.contains(key));
            !held
                && core.peers.get(key).is_some_and(|peer| {
                    peer.kind.is_some() && !peer.explicit && core.score_of(&peer.id) >= publish
                })
        });
        if let Some(fanout) = self.topics.get_mut(topic).and_then(|t| t.fanout.as_mut()) {
            for key in more {
                fanout.peers.insert(key);
            }
        }
    }
}
