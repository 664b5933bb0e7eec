//! Counting what happens: libp2p's own metrics of the swarm and its protocols, and this node's.
//!
//! Counters are atomic numbers that the event loop raises and any task may read. What can be counted
//! by asking (peers, records) is not kept here.

use std::sync::Arc;

use libp2p::{
    metrics::{Recorder, Registry},
    swarm::{DialError, SwarmEvent},
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Unit,
};

use super::{
    Verdict,
    error::Error,
    event::{Event, Receipt},
    status::Traffic,
};
use crate::{dialer::Notice, gossip::Shed};

/// Counters that a label tells apart. Every value is there from the start: a rate needs a first zero.
type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

const PUBLISHES: [&str; 7] =
    ["handed", "local", "no_peers", "too_large", "duplicate", "congested", "refused"];
const DIALS: [&str; 6] = ["connected", "failed", "own", "other_peer", "denied", "aborted"];

/// What subscribers on this machine lost, by kind of stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lost {
    pub(crate) messages: Counter,
    pub(crate) events: Counter,
}

/// The counters of a node.
pub(crate) struct Metrics {
    libp2p: libp2p::metrics::Metrics,
    messages: Counter,
    message_bytes: Counter,
    published: Counter,
    published_bytes: Counter,
    handed: Counter,
    pending_publishes: Labelled,
    dials: Labelled,
    meshes: Labelled,
    connected: Counter,
    disconnected: Counter,
    lookups_failed: Counter,
    slow_peers: Counter,
    gossip_off: Labelled,
    ignored: Counter,
    rejected: Counter,
    oversized: Counter,
    duplicates: Counter,
    shed: Labelled,
    kept_out: Labelled,
    gave_way: Counter,
    pub(crate) lost: Lost,
}

impl Metrics {
    /// New counters, and where they can be read.
    pub(crate) fn new() -> (Self, Arc<Registry>) {
        let mut registry = Registry::default();
        let libp2p = libp2p::metrics::Metrics::new(&mut registry);
        let own = registry.sub_registry_with_prefix("smidge");
        let metrics = Self {
            libp2p,
            messages: counter(own, "messages_received", "Messages that arrived on the topics followed"),
            message_bytes: bytes(
                own,
                "messages_received",
                "Payload of the messages that arrived on the topics followed",
            ),
            published: counter(own, "messages_published", "Messages of this node that were handed to peers"),
            published_bytes: bytes(
                own,
                "messages_published",
                "Payload of the messages of this node that were handed to peers",
            ),
            handed: counter(
                own,
                "messages_handed",
                "Peers that messages of this node were handed to, added up: what its receipts say",
            ),
            connected: counter(own, "peers_connected", "Peers whose first connection came to stand"),
            disconnected: counter(own, "peers_disconnected", "Peers whose last connection ended"),
            lookups_failed: counter(own, "lookups_failed", "Lookups of names that gave no record"),
            slow_peers: counter(own, "slow_peers", "Times that a peer took messages slower than they came"),
            gossip_off: labelled(
                own,
                "gossip_lost",
                "Times that gossip with a connected peer was off, by what was done: connected anew, or nothing",
                "then",
                &["anew", "nothing"],
            ),
            pending_publishes: labelled(
                own,
                "publishes",
                "Publishes that were asked for, by outcome",
                "outcome",
                &PUBLISHES,
            ),
            dials: labelled(own, "dials", "Dials that came to an end, by outcome", "outcome", &DIALS),
            meshes: labelled(
                own,
                "mesh_changes",
                "Peers that joined or left a mesh of this node",
                "change",
                &["joined", "left"],
            ),
            lost: {
                let help =
                    "What subscribers on this machine, the API's event streams included, were too slow for";
                let lost = labelled(own, "events_lost", help, "stream", &["messages", "events"]);
                let of = |stream| lost.get_or_create_owned(&[("stream", stream)]);
                Lost { messages: of("messages"), events: of("events") }
            },
            ignored: counter(
                own,
                "messages_ignored",
                "Messages dropped by a rule or by the application's check",
            ),
            oversized: counter(
                own,
                "gossip_oversized",
                "Messages and frames dropped because they were larger than this node takes",
            ),
            duplicates: counter(own, "gossip_duplicates", "Copies of messages that were known"),
            shed: labelled(
                own,
                "gossip_shed",
                "What gossip gave up to stay within its bounds: ids and messages forgotten early, messages dropped, messages not passed on to slow peers",
                "what",
                &["ids", "payloads", "messages", "forwards"],
            ),
            kept_out: labelled(
                own,
                "state_refused",
                "Values by key that were not taken, by why: no room for one that was to be set here, no key, or a time \
                 that has not come",
                "why",
                &["full", "no_key", "ahead"],
            ),
            gave_way: counter(
                own,
                "state_gave_way",
                "Values by key that gave way to the bounds of their topic, or of all",
            ),
            rejected: counter(
                own,
                "messages_rejected",
                "Messages dropped for which the peer that sent them lost score",
            ),
        };
        (metrics, Arc::new(registry))
    }

    /// Counts something that the swarm or one of its protocols reports.
    pub(crate) fn record<T>(&self, event: &T)
    where
        libp2p::metrics::Metrics: Recorder<T>,
    {
        self.libp2p.record(event);
    }

    /// Counts a message that was dropped.
    pub(crate) fn refused(&self, verdict: Verdict) {
        match verdict {
            Verdict::Accept => {}
            Verdict::Ignore => {
                self.ignored.inc();
            }
            Verdict::Reject => {
                self.rejected.inc();
            }
        }
    }

    /// Counts what is no value of its topic, or has no room.
    pub(crate) fn kept_out(&self, why: &'static str) {
        self.kept_out.get_or_create(&[("why", why)]).inc();
    }

    /// Counts values that gave way.
    pub(crate) fn gave_way(&self, count: u64) {
        self.gave_way.inc_by(count);
    }

    /// Counts what was larger than this node takes.
    pub(crate) fn oversized(&self, count: u64) {
        self.oversized.inc_by(count);
    }

    /// Copies of known messages that came since the start.
    pub(crate) fn duplicates(&self, count: u64) {
        self.duplicates.inc_by(count.saturating_sub(self.duplicates.get()));
    }

    /// Counts what gossip gave up between these two.
    pub(crate) fn shed(&self, before: &Shed, now: &Shed) {
        for (what, before, now) in [
            ("ids", before.ids, now.ids),
            ("payloads", before.payloads, now.payloads),
            ("messages", before.messages, now.messages),
            ("forwards", before.forwards, now.forwards),
        ] {
            if now > before {
                self.shed.get_or_create(&[("what", what)]).inc_by(now - before);
            }
        }
    }

    /// Counts how a dial ended, if that is what the swarm reports.
    pub(crate) fn dialed<T>(&self, event: &SwarmEvent<T>) {
        let outcome = match event {
            SwarmEvent::ConnectionEstablished { endpoint, .. } if endpoint.is_dialer() => "connected",
            SwarmEvent::OutgoingConnectionError { error, .. } => match error {
                // Nothing was dialed.
                DialError::NoAddresses | DialError::DialPeerConditionFalse(_) => return,
                DialError::LocalPeerId { .. } => "own",
                DialError::WrongPeerId { .. } => "other_peer",
                DialError::Denied { .. } => "denied",
                DialError::Aborted => "aborted",
                DialError::Transport(_) => "failed",
            },
            _ => return,
        };
        self.dials.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts what became of a publish of `bytes`.
    pub(crate) fn published(&self, bytes: usize, result: &Result<Receipt, Error>) {
        let outcome = match result {
            Ok(Receipt { peers: 0, local: 1.., .. }) => "local",
            Ok(Receipt { peers: 0, .. }) => "no_peers",
            Ok(receipt) => {
                self.published.inc();
                self.published_bytes.inc_by(bytes as u64);
                self.handed.inc_by(receipt.peers as u64);
                "handed"
            }
            Err(Error::NoPeers { .. }) => "no_peers",
            Err(Error::MessageTooLarge { .. }) => "too_large",
            Err(Error::Duplicate) => "duplicate",
            Err(Error::Congested(_)) => "congested",
            Err(_) => "refused",
        };
        self.pending_publishes.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts something that happened to the node.
    pub(crate) fn note(&self, event: &Event) {
        let count = match event {
            Event::Message(message) => {
                self.message_bytes.inc_by(message.data.len() as u64);
                &self.messages
            }
            Event::JoinedMesh { .. } => &self.meshes.get_or_create_owned(&[("change", "joined")]),
            Event::LeftMesh { .. } => &self.meshes.get_or_create_owned(&[("change", "left")]),
            Event::Connected { .. } => &self.connected,
            Event::Disconnected { .. } => &self.disconnected,
            Event::Dialer(Notice::NotResolved { .. } | Notice::PartlyResolved { .. }) => &self.lookups_failed,
            Event::SlowPeer(_) => &self.slow_peers,
            Event::GossipOff { again, .. } => {
                let then = if *again { "anew" } else { "nothing" };
                &self.gossip_off.get_or_create_owned(&[("then", then)])
            }
            _ => return,
        };
        count.inc();
    }

    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            received: self.messages.get(),
            received_bytes: self.message_bytes.get(),
            published: self.published.get(),
            published_bytes: self.published_bytes.get(),
            handed: self.handed.get(),
            lost: self.lost.messages.get(),
            duplicates: self.duplicates.get(),
        }
    }
}

fn labelled(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: &[&'static str],
) -> Labelled {
    let family = Labelled::default();
    for value in values {
        let _ = family.get_or_create(&[(label, *value)]);
    }
    registry.register(name, help, family.clone());
    family
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn bytes(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register_with_unit(name, help, Unit::Bytes, counter.clone());
    counter
}
