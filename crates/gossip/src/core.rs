//! Gossipsub's decisions: events with the present moment in, [`Action`]s out.
//!
//! There is no I/O, clock or task in here, and nothing that waits. What has to be checked or sent is handed out
//! ([`Core::unverified`], [`Outbox`](crate::Outbox)); chance comes from a generator that the caller seeds.

mod action;
mod backoff;
mod choke;
mod config;
mod connections;
mod control;
mod exchange;
mod gossip;
mod graft;
mod heartbeat;
mod incoming;
mod key_set;
mod pace;
mod peers;
mod promises;
mod publish;
mod strangers;
mod subscriptions;
mod topics;
mod verdicts;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Instant,
};

use bytes::Bytes;
use libp2p::PeerId;

pub use action::{Action, Event, PublishError, Receipt, Verdict};
pub use config::{Config, ConfigError, MeshParams};
pub use connections::Link;
pub use incoming::Unverified;
pub use peers::PeerKind;

use backoff::Backoffs;
use incoming::Pending;
use peers::{PeerKey, Peers};
use promises::Promises;
use topics::Topics;
use verdicts::Awaiting;

use crate::{
    Author, DeliveryLimits, Extensions, Fingerprinter, History, MessageIds, ParamError, PeerScoreParams,
    PeerScoreThresholds, Rpc, Score, SeenSet, Topic, TopicScoreParams, budget::Budget,
};

/// By how many heartbeats the next one is put off where nothing happens: an idle node is woken less often.
const CALM: u32 = 4;
/// Decays of scores at a time, after a machine slept.
const DECAYS: u32 = 1000;

/// The state machine of one node.
#[derive(Debug)]
pub struct Core {
    config: Config,
    local: PeerId,
    author: Author,
    rng: fastrand::Rng,
    fingerprinter: Fingerprinter,
    ids: MessageIds,
    /// For ids on their way to a fingerprint.
    scratch: Vec<u8>,

    peers: Peers,
    topics: Topics,
    backoffs: Backoffs,
    promises: Promises,
    /// What links announced that we choke.
    expected: choke::Expected,
    /// When messages are announced to links that choke us.
    announce_at: Option<Instant>,
    score: Option<Score>,
    /// Of no meaning while scoring is off.
    thresholds: PeerScoreThresholds,
    seen: SeenSet,
    history: History,
    /// Messages whose signature is not checked yet.
    pending: Pending,
    /// Messages without a verdict.
    awaiting: Awaiting,
    /// Copies of messages that were known.
    duplicates: u64,

    /// What waits for all peers together.
    queued: Budget,
    /// Forwarded messages that were not sent, and messages of others that were not looked at.
    dropped: u64,
    refused: u64,

    explicit: HashSet<PeerId>,
    blocked: HashSet<PeerId>,
    /// Signed addresses of connected peers, to be passed on to others that are pruned.
    records: HashMap<PeerId, Bytes>,
    /// Peers that we connect to because of peer exchange.
    exchanged: HashSet<PeerId>,
    /// What peers follow and we do not.
    charge: strangers::Charge,
    /// Topics left a while ago: a peer that missed it hears again with the next greeting.
    left: VecDeque<(Instant, Topic)>,

    actions: VecDeque<Action>,
    /// Heartbeats, those included that were put off.
    ticks: u64,
    last_heartbeat: Instant,
    next_heartbeat: Instant,
    /// Something happened since the last heartbeat.
    stirred: bool,
    next_decay: Option<Instant>,
}

impl Core {
    /// A node that follows nothing and knows nobody.
    ///
    /// # Errors
    /// When the configuration contradicts itself.
    pub fn new(
        config: Config,
        local: PeerId,
        author: Author,
        rng: fastrand::Rng,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            local,
            author,
            fingerprinter: Fingerprinter::new(),
            ids: MessageIds::new(config.message_id.clone()),
            scratch: Vec::new(),
            peers: Peers::default(),
            topics: Topics::default(),
            backoffs: Backoffs::new(config.heartbeat_interval * config.backoff_slack, config.max_backoffs),
            promises: Promises::new(config.iwant_followup_time),
            expected: choke::Expected::default(),
            announce_at: None,
            score: None,
            thresholds: PeerScoreThresholds::default(),
            seen: SeenSet::new(config.duplicate_cache_time, config.duplicate_cache_ids),
            history: History::new(config.history()),
            pending: Pending::default(),
            awaiting: Awaiting::default(),
            duplicates: 0,
            queued: Budget::new(config.all_queues()),
            dropped: 0,
            refused: 0,
            explicit: HashSet::new(),
            blocked: HashSet::new(),
            records: HashMap::new(),
            exchanged: HashSet::new(),
            charge: strangers::Charge::default(),
            left: VecDeque::new(),
            actions: VecDeque::new(),
            ticks: 0,
            last_heartbeat: now,
            stirred: true,
            next_heartbeat: now + config.heartbeat_initial_delay,
            next_decay: None,
            rng,
            config,
        })
    }

    /// Fingerprints by a key that is known, for simulations that are to be repeated; before anything is received.
    pub fn set_fingerprinter(&mut self, fingerprinter: Fingerprinter) {
        self.fingerprinter = fingerprinter;
    }

    /// Scores peers from now on (specification v1.1).
    ///
    /// # Errors
    /// When a parameter makes no sense.
    pub fn score_peers(
        &mut self,
        params: PeerScoreParams,
        thresholds: PeerScoreThresholds,
        now: Instant,
    ) -> Result<(), ParamError> {
        params.validate()?;
        thresholds.validate()?;
        self.next_decay = Some(now + params.decay_interval);
        let mut score = Score::new(params, DeliveryLimits::default());
        for (_, peer) in self.peers.iter() {
            score.add_peer(peer.id);
            peer.connections.iter().filter_map(|c| c.ip).for_each(|ip| score.add_ip(&peer.id, ip));
        }
        for (_, topic) in self.topics.ours() {
            for peer in topic.mesh.iter().filter_map(|key| self.peers.get(key)) {
                score.graft(&peer.id, &topic.name, now);
            }
        }
        self.score = Some(score);
        self.thresholds = thresholds;
        Ok(())
    }

    /// How a topic counts. False while scoring is off.
    ///
    /// # Errors
    /// When a parameter makes no sense.
    pub fn set_topic_params(&mut self, topic: Topic, params: TopicScoreParams) -> Result<bool, ParamError> {
        params.validate()?;
        let Some(score) = &mut self.score else { return Ok(false) };
        score.set_topic_params(topic, params);
        Ok(true)
    }

    /// A topic counts no longer; what peers had in it is forgotten.
    pub fn remove_topic_params(&mut self, topic: &Topic) {
        if let Some(score) = &mut self.score {
            score.remove_topic_params(topic);
        }
    }

    /// What the application thinks of a peer (P5). False if scoring is off or the peer unknown.
    pub fn set_application_score(&mut self, peer: &PeerId, score: f64) -> bool {
        self.score.as_mut().is_some_and(|s| s.set_application_score(peer, score))
    }

    /// A peer's score, if peers are scored.
    pub fn score(&self, peer: &PeerId) -> Option<f64> {
        self.score.as_ref().map(|score| score.score(peer))
    }

    /// What to do next, in the order it was decided.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::tick`] wants to be called.
    pub fn next_deadline(&self) -> Instant {
        let sooner = [self.announce_at, self.expected.next()].into_iter().flatten().min();
        sooner.map_or(self.next_heartbeat, |at| at.min(self.next_heartbeat))
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        self.send_due_announcements(now);
        self.fetch_missing(now);
        if self.next_heartbeat > now {
            return;
        }
        self.decay(now);
        let stirred = std::mem::take(&mut self.stirred);
        self.heartbeat(now);
        let interval = self.config.heartbeat_interval;
        let calm = !stirred && !self.stirred && self.is_calm();
        self.last_heartbeat = now;
        self.next_heartbeat = now + if calm { interval * CALM } else { interval };
    }

    /// Scores decay along with heartbeats, so that one timer does for both; all those that are due by now in one pass.
    fn decay(&mut self, now: Instant) {
        let (Some(score), Some(next)) = (&mut self.score, &mut self.next_decay) else { return };
        let interval = score.params().decay_interval;
        for _ in 0..DECAYS {
            if *next > now {
                return;
            }
            score.refresh(*next);
            *next += interval;
        }
        // The machine slept.
        *next = now + interval;
    }

    /// Something happened that a heartbeat has to look at: it is not put off.
    fn stir(&mut self) {
        self.stirred = true;
        self.next_heartbeat = self.next_heartbeat.min(self.last_heartbeat + self.config.heartbeat_interval);
    }

    /// Whether a heartbeat would have nothing to do, but for what strangers' scores make of meshes.
    fn is_calm(&self) -> bool {
        let whole = |topic: &topics::TopicState| {
            topic.mesh.len() >= self.config.mesh_of(&topic.name).n_low
                || topic.mesh.len() == topic.peers.len()
        };
        self.history.is_empty()
            && self.promises.len() == 0
            && self.expected.is_empty()
            && self.awaiting.len() == 0
            && self.pending.len() == 0
            && self.backoffs.is_empty()
            && self.topics.ours().all(|(_, topic)| whole(topic))
    }

    /// An RPC arrived.
    pub fn received(&mut self, peer: &PeerId, rpc: Rpc, now: Instant) {
        let Some(key) = self.peers.key(peer) else { return };
        self.stir();
        if !rpc.subscriptions.is_empty() {
            self.on_subscriptions(key, rpc.subscriptions, now);
        }
        if self.score_of(peer) < self.thresholds.graylist_threshold {
            return;
        }
        for message in rpc.publish {
            self.on_message(key, message, now);
        }
        if !rpc.control.is_empty() {
            self.on_control(key, rpc.control, now);
        }
    }

    /// A frame of a peer was above the limit, and was skipped.
    pub fn too_large(&mut self, peer: &PeerId, bytes: u64) {
        self.report(Event::TooLarge { peer: *peer, bytes });
    }

    /// A frame of a peer was no RPC (P7).
    pub fn malformed(&mut self, peer: &PeerId) {
        if let Some(key) = self.peers.key(peer) {
            self.penalize(key, 1);
        }
    }

    /// A peer that is always sent everything, stands outside of meshes and scores, and is connected to again when it
    /// is gone.
    pub fn add_explicit(&mut self, peer: PeerId) {
        self.explicit.insert(peer);
        match self.peers.find_mut(&peer) {
            Some(peer) => peer.explicit = true,
            None => self.actions.push_back(Action::Connect { peer, addresses: Vec::new() }),
        }
    }

    /// A peer like any other again.
    pub fn remove_explicit(&mut self, peer: &PeerId) {
        self.explicit.remove(peer);
        if let Some(peer) = self.peers.find_mut(peer) {
            peer.explicit = false;
        }
    }

    /// Messages that this peer brings or has written are rejected.
    pub fn block(&mut self, peer: PeerId) {
        self.blocked.insert(peer);
    }

    /// A peer like any other again.
    pub fn unblock(&mut self, peer: &PeerId) {
        self.blocked.remove(peer);
    }

    /// Where a connected peer can be reached, signed by itself (libp2p/specs RFC 0003): what peer exchange passes on.
    pub fn set_record(&mut self, peer: &PeerId, envelope: Bytes) {
        if self.peers.key(peer).is_some() && envelope.len() <= exchange::LONGEST_RECORD {
            self.records.insert(*peer, envelope);
        }
    }

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

    fn ids(&self, keys: impl Iterator<Item = PeerKey>) -> Vec<PeerId> {
        keys.filter_map(|key| Some(self.peers.get(key)?.id)).collect()
    }

    fn report(&mut self, event: Event) {
        self.actions.push_back(Action::Report(event));
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

#[cfg(test)]
mod tests;
