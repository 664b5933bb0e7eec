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
mod scoring;
mod state;
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
pub use state::{Kept, Shed};

use backoff::Backoffs;
use incoming::Pending;
use peers::Peers;
use promises::Promises;
use topics::Topics;
use verdicts::Awaiting;

use crate::{
    Author, Fingerprinter, History, MessageIds, PeerScoreThresholds, Rpc, Score, SeenSet, Topic,
    budget::Budget,
};

/// By how many heartbeats the next one is put off where nothing happens: an idle node is woken less often.
const CALM: u32 = 4;

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

/// What whoever drives a core calls: [`Behaviour`](crate::Behaviour), or a simulation.
#[doc(hidden)]
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

    fn report(&mut self, event: Event) {
        self.actions.push_back(Action::Report(event));
    }
}

#[cfg(test)]
mod tests;
