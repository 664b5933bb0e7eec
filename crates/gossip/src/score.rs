//! What peers are worth (libp2p/specs `pubsub/gossipsub/gossipsub-v1.1.md`, "peer scoring"): P1 to P7, and slowness.
//!
//! It never decides anything: who asks compares a score with the thresholds. What is remembered of a message is no more
//! than what can still change a score: who brought it while its worth is not known, then as long as copies count (P3),
//! and that it was invalid.

mod deliveries;
mod topic;

use std::{
    cell::Cell,
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    time::Instant,
};

use libp2p::PeerId;

use crate::{Fingerprint, PeerScoreParams, Topic, TopicScoreParams};

use deliveries::{Copy, Deliveries};
use topic::TopicStats;

pub use deliveries::DeliveryLimits;

/// Peers that have gone and whose score is kept, at most.
const MOST_RETAINED: usize = 8192;

/// Addresses of one peer that count.
const MOST_ADDRESSES: usize = 8;

/// The scores of all peers.
#[derive(Debug)]
pub struct Score {
    params: PeerScoreParams,
    peers: HashMap<PeerId, PeerStats>,
    /// By number, for what remembers peers in four bytes.
    numbers: HashMap<u32, PeerId>,
    next_number: u32,
    addresses: HashMap<IpAddr, HashSet<PeerId>>,
    deliveries: Deliveries,
    /// Who has gone, and when its score goes, too: the oldest first.
    gone: VecDeque<(Instant, PeerId)>,
}

#[derive(Debug)]
struct PeerStats {
    number: u32,
    /// When its score goes; `None` while it is connected.
    expires: Option<Instant>,
    topics: HashMap<Topic, TopicStats>,
    addresses: Vec<IpAddr>,
    behaviour_penalty: f64,
    application_score: f64,
    slow_peer_penalty: f64,
    /// The score, until something changes.
    known: Cell<Option<f64>>,
}

impl Score {
    /// Nobody is known yet.
    pub fn new(params: PeerScoreParams, limits: DeliveryLimits) -> Self {
        Self {
            params,
            peers: HashMap::new(),
            numbers: HashMap::new(),
            next_number: 0,
            addresses: HashMap::new(),
            deliveries: Deliveries::new(limits),
            gone: VecDeque::new(),
        }
    }

    /// How scores come about.
    pub fn params(&self) -> &PeerScoreParams {
        &self.params
    }

    /// Scores `topic` in that way from now on.
    pub fn set_topic_params(&mut self, topic: Topic, params: TopicScoreParams) {
        for peer in self.peers.values_mut() {
            peer.known.set(None);
            if let Some(stats) = peer.topics.get_mut(&topic) {
                stats.cap(&params);
            }
        }
        self.params.topics.insert(topic, params);
    }

    /// Does not score `topic` any more; what peers had in it is forgotten.
    pub fn remove_topic_params(&mut self, topic: &Topic) {
        self.params.topics.remove(topic);
        for peer in self.peers.values_mut() {
            peer.known.set(None);
            peer.topics.remove(topic);
        }
    }

    /// A peer connected. What is known of it holds.
    pub fn add_peer(&mut self, peer: PeerId) {
        if let Some(stats) = self.peers.get_mut(&peer) {
            stats.expires = None;
            return;
        }
        while self.numbers.contains_key(&self.next_number) {
            self.next_number = self.next_number.wrapping_add(1);
        }
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        self.numbers.insert(number, peer);
        self.peers.insert(peer, PeerStats::new(number));
    }

    /// It has this address. Addresses beyond the eighth do not count.
    pub fn add_ip(&mut self, peer: &PeerId, ip: IpAddr) {
        let Some(stats) = self.peers.get_mut(peer) else { return };
        if stats.addresses.len() < MOST_ADDRESSES && !stats.addresses.contains(&ip) {
            stats.addresses.push(ip);
            self.addresses.entry(ip).or_default().insert(*peer);
            self.forget_scores_at(ip);
        }
    }

    /// It has this address no longer.
    pub fn remove_ip(&mut self, peer: &PeerId, ip: IpAddr) {
        let Some(stats) = self.peers.get_mut(peer) else { return };
        stats.addresses.retain(|known| *known != ip);
        stats.known.set(None);
        self.leave(peer, ip);
    }

    /// A peer has no connection any more. A good score goes with it; a bad one stays for
    /// [`PeerScoreParams::retain_score`], so that nobody gets rid of it by coming back.
    pub fn remove_peer(&mut self, peer: &PeerId, now: Instant) {
        if self.score(peer) > 0.0 {
            self.forget(peer);
            return;
        }
        let Some(stats) = self.peers.get_mut(peer) else { return };
        for (topic, stats) in &mut stats.topics {
            stats.first_message_deliveries = 0.0;
            if let Some(params) = self.params.topics.get(topic) {
                stats.leave_mesh(params);
            }
        }
        stats.known.set(None);
        if stats.is_blank() {
            self.forget(peer);
            return;
        }
        let expires = now.checked_add(self.params.retain_score).unwrap_or(now);
        stats.expires = Some(expires);
        self.gone.push_back((expires, *peer));
        while self.gone.len() > MOST_RETAINED {
            self.forget_oldest();
        }
    }

    /// It came into the mesh of `topic`.
    pub fn graft(&mut self, peer: &PeerId, topic: &Topic, now: Instant) {
        self.in_topic(peer, topic, |stats, _| stats.join_mesh(now));
    }

    /// It went out of the mesh of `topic`.
    pub fn prune(&mut self, peer: &PeerId, topic: &Topic) {
        self.in_topic(peer, topic, |stats, params| stats.leave_mesh(params));
    }

    /// A message came for the first time; what it is worth is not known yet.
    pub fn validate_message(&mut self, message: Fingerprint, now: Instant) {
        self.deliveries.begin(message, now);
    }

    /// It was accepted: to the credit of `from`, which brought it first, and of those that brought it meanwhile.
    pub fn deliver_message(&mut self, from: &PeerId, message: Fingerprint, topic: &Topic, now: Instant) {
        let Some(params) = self.params.topics.get(topic) else {
            self.deliveries.forget(&message);
            return;
        };
        let counts = params.counts_copies();
        let window = if counts { params.mesh_message_deliveries_window } else { std::time::Duration::ZERO };
        let first = self.peers.get(from).map(|stats| stats.number);
        let brought = self.deliveries.accept(message, first, now, window);
        self.in_topic(from, topic, |stats, params| stats.first_delivery(params));
        for peer in self.named(&brought) {
            if peer != *from {
                self.in_topic(&peer, topic, |stats, params| stats.mesh_delivery(params));
            }
        }
    }

    /// It turned out to be invalid: to the debit of `from` and of everybody who brought it, now or later.
    pub fn reject_message(&mut self, from: &PeerId, message: Fingerprint, topic: &Topic, now: Instant) {
        let brought = self.deliveries.reject(message, now);
        self.reject_invalid_message(from, topic);
        for peer in self.named(&brought) {
            if peer != *from {
                self.reject_invalid_message(&peer, topic);
            }
        }
    }

    /// It is let drop, to nobody's debit.
    pub fn ignore_message(&mut self, message: &Fingerprint) {
        self.deliveries.forget(message);
    }

    /// `peer` brought something invalid that nobody can have taken for valid.
    pub fn reject_invalid_message(&mut self, peer: &PeerId, topic: &Topic) {
        self.in_topic(peer, topic, |stats, _| stats.invalid_message_deliveries += 1.0);
    }

    /// Whether it was rejected a short while ago.
    pub fn was_rejected(&self, message: &Fingerprint) -> bool {
        self.deliveries.was_rejected(message)
    }

    /// `from` brought another copy.
    pub fn duplicated_message(&mut self, from: &PeerId, message: &Fingerprint, topic: &Topic, now: Instant) {
        let Some(number) = self.peers.get(from).map(|stats| stats.number) else { return };
        match self.deliveries.copy(message, number, now) {
            Copy::Nothing => {}
            Copy::InTime => self.in_topic(from, topic, |stats, params| stats.mesh_delivery(params)),
            Copy::Invalid => self.reject_invalid_message(from, topic),
        }
    }

    /// P7: `peer` misbehaved `count` times.
    pub fn add_penalty(&mut self, peer: &PeerId, count: usize) {
        if let Some(stats) = self.peers.get_mut(peer) {
            stats.behaviour_penalty += count as f64;
            stats.known.set(None);
        }
    }

    /// `count` messages were lost because `peer` reads too slowly.
    pub fn slow_peer(&mut self, peer: &PeerId, count: usize) {
        if let Some(stats) = self.peers.get_mut(peer) {
            stats.slow_peer_penalty += count as f64;
            stats.known.set(None);
        }
    }

    /// P5: what the application thinks of `peer`; says whether it is known.
    pub fn set_application_score(&mut self, peer: &PeerId, score: f64) -> bool {
        let Some(stats) = self.peers.get_mut(peer).filter(|_| score.is_finite()) else { return false };
        stats.application_score = score;
        stats.known.set(None);
        true
    }

    /// Counters decay; to be called every [`PeerScoreParams::decay_interval`].
    pub fn refresh(&mut self, now: Instant) {
        while let Some((expires, peer)) = self.gone.front().copied() {
            let back = self.peers.get(&peer).is_none_or(|stats| stats.expires != Some(expires));
            if !back && expires > now {
                break;
            }
            self.forget_oldest();
        }
        let params = &self.params;
        // Who has gone keeps what it had: a score is not to be had back by staying away for a minute.
        for stats in self.peers.values_mut().filter(|stats| stats.expires.is_none()) {
            for (topic, stats) in &mut stats.topics {
                if let Some(topic) = params.topics.get(topic) {
                    stats.decay(topic, params.decay_to_zero, now);
                }
            }
            let decayed = |value: f64, factor: f64| match value * factor {
                value if value < params.decay_to_zero => 0.0,
                value => value,
            };
            stats.topics.retain(|_, stats| !stats.is_blank());
            stats.behaviour_penalty = decayed(stats.behaviour_penalty, params.behaviour_penalty_decay);
            stats.slow_peer_penalty = decayed(stats.slow_peer_penalty, params.slow_peer_decay);
            stats.known.set(None);
        }
        self.deliveries.expire(now);
    }

    /// The score of `peer`; 0 of one that is not known.
    pub fn score(&self, peer: &PeerId) -> f64 {
        let Some(stats) = self.peers.get(peer) else { return 0.0 };
        stats.known.get().unwrap_or_else(|| {
            let score = self.compute(stats);
            stats.known.set(Some(score));
            score
        })
    }

    /// P3's counter of `peer` in `topic`.
    pub fn mesh_message_deliveries(&self, peer: &PeerId, topic: &Topic) -> Option<f64> {
        Some(self.peers.get(peer)?.topics.get(topic)?.mesh_message_deliveries)
    }

    /// Peers that are known, those that have gone included.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Bytes of what is remembered of messages, as good as it can be known.
    pub fn delivery_bytes(&self) -> usize {
        self.deliveries.bytes()
    }

    fn compute(&self, stats: &PeerStats) -> f64 {
        let params = &self.params;
        let topics = stats.topics.iter();
        let mut score: f64 =
            topics.filter_map(|(topic, stats)| Some(stats.score(params.topics.get(topic)?))).sum();
        if params.topic_score_cap > 0.0 {
            score = score.min(params.topic_score_cap);
        }
        score += stats.application_score * params.app_specific_weight;
        for ip in &stats.addresses {
            let peers = self.addresses.get(ip).map_or(0, HashSet::len) as f64;
            let surplus = peers - params.ip_colocation_factor_threshold;
            if surplus > 0.0 && !params.ip_colocation_factor_whitelist.contains(ip) {
                score += surplus * surplus * params.ip_colocation_factor_weight;
            }
        }
        let excess = (stats.behaviour_penalty - params.behaviour_penalty_threshold).max(0.0);
        score += excess * excess * params.behaviour_penalty_weight;
        let excess = (stats.slow_peer_penalty - params.slow_peer_threshold).max(0.0);
        score + excess * params.slow_peer_weight
    }

    /// Changes what `peer` has in `topic`, if both count.
    fn in_topic(
        &mut self,
        peer: &PeerId,
        topic: &Topic,
        change: impl FnOnce(&mut TopicStats, &TopicScoreParams),
    ) {
        if let (Some(stats), Some(params)) = (self.peers.get_mut(peer), self.params.topics.get(topic)) {
            stats.known.set(None);
            if let Some(stats) = stats.topics.get_mut(topic) {
                change(stats, params);
            } else {
                let mut new = TopicStats::default();
                change(&mut new, params);
                stats.topics.insert(topic.clone(), new);
            }
        }
    }

    fn named(&self, numbers: &[u32]) -> Vec<PeerId> {
        numbers.iter().filter_map(|number| self.numbers.get(number).copied()).collect()
    }

    fn forget_oldest(&mut self) {
        if let Some((expires, peer)) = self.gone.pop_front()
            && self.peers.get(&peer).is_some_and(|stats| stats.expires == Some(expires))
        {
            self.forget(&peer);
        }
    }

    fn forget(&mut self, peer: &PeerId) {
        if let Some(stats) = self.peers.remove(peer) {
            self.numbers.remove(&stats.number);
            self.peers.shrink_to(64.max(self.peers.len() * 2));
            self.numbers.shrink_to(64.max(self.numbers.len() * 2));
            for ip in stats.addresses {
                self.leave(peer, ip);
            }
        }
    }

    fn leave(&mut self, peer: &PeerId, ip: IpAddr) {
        if let Some(peers) = self.addresses.get_mut(&ip) {
            peers.remove(peer);
            if peers.is_empty() {
                self.addresses.remove(&ip);
            }
        }
        self.forget_scores_at(ip);
    }

    /// How many are at an address counts for each of them.
    fn forget_scores_at(&self, ip: IpAddr) {
        for peer in self.addresses.get(&ip).into_iter().flatten() {
            if let Some(stats) = self.peers.get(peer) {
                stats.known.set(None);
            }
        }
    }
}

impl PeerStats {
    fn new(number: u32) -> Self {
        Self {
            number,
            expires: None,
            topics: HashMap::new(),
            addresses: Vec::new(),
            behaviour_penalty: 0.0,
            application_score: 0.0,
            slow_peer_penalty: 0.0,
            known: Cell::new(None),
        }
    }

    /// Whether there is nothing worth keeping of a peer that has gone.
    fn is_blank(&self) -> bool {
        self.behaviour_penalty == 0.0
            && self.application_score == 0.0
            && self.slow_peer_penalty == 0.0
            && self.topics.values().all(TopicStats::is_blank)
    }
}

#[cfg(test)]
mod tests;
