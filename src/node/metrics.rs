//! Counting what happens: libp2p's own metrics of the swarm and its protocols, and this node's.
//!
//! Counters are atomic numbers that the event loop raises and anybody may read. What can be counted
//! by asking (peers, records) is not kept here.

use std::sync::Arc;

use libp2p::metrics::{Recorder, Registry};
use prometheus_client::{metrics::counter::Counter, registry::Unit};

use super::{Verdict, event::Event};
use crate::dialer::Notice;

/// The counters of a node.
pub(crate) struct Metrics {
    libp2p: libp2p::metrics::Metrics,
    messages: Counter,
    message_bytes: Counter,
    published: Counter,
    handed: Counter,
    connected: Counter,
    disconnected: Counter,
    dials_failed: Counter,
    lookups_failed: Counter,
    slow_peers: Counter,
    ignored: Counter,
    rejected: Counter,
}

impl Metrics {
    /// New counters, and where they can be read.
    pub(crate) fn new() -> (Self, Arc<Registry>) {
        let mut registry = Registry::default();
        let libp2p = libp2p::metrics::Metrics::new(&mut registry);
        let own = registry.sub_registry_with_prefix("smidge");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            own.register(name, help, counter.clone());
            counter
        };
        let messages = counter("messages_received", "Messages that arrived on the topics followed");
        let published = counter("messages_published", "Messages of this node that were handed to peers");
        let handed = counter("messages_handed", "Peers that messages of this node were handed to, added up");
        let connected = counter("peers_connected", "Peers whose first connection came to stand");
        let disconnected = counter("peers_disconnected", "Peers whose last connection ended");
        let dials_failed = counter("dials_failed", "Dials of records that failed");
        let lookups_failed = counter("lookups_failed", "Lookups of names that gave no record");
        let slow_peers = counter("slow_peers", "Times that a peer took messages slower than they came");
        let ignored = counter("messages_ignored", "Messages dropped by a rule or by the application's check");
        let rejected =
            counter("messages_rejected", "Messages dropped for which the peer that sent them lost score");
        let message_bytes = Counter::default();
        let help = "Payload of the messages that arrived on the topics followed";
        own.register_with_unit("messages_received", help, Unit::Bytes, message_bytes.clone());
        let metrics = Self {
            libp2p,
            messages,
            message_bytes,
            published,
            handed,
            connected,
            disconnected,
            dials_failed,
            lookups_failed,
            slow_peers,
            ignored,
            rejected,
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

    /// Counts something that happened to the node.
    pub(crate) fn note(&self, event: &Event) {
        match event {
            Event::Message(message) => {
                self.messages.inc();
                self.message_bytes.inc_by(message.data.len() as u64);
            }
            Event::Published { receipt, .. } => {
                self.published.inc();
                self.handed.inc_by(receipt.peers as u64);
            }
            Event::Connected { .. } => {
                self.connected.inc();
            }
            Event::Disconnected { .. } => {
                self.disconnected.inc();
            }
            Event::Dialer(Notice::DialFailed { .. }) => {
                self.dials_failed.inc();
            }
            Event::Dialer(Notice::NotResolved { .. }) => {
                self.lookups_failed.inc();
            }
            Event::SlowPeer(_) => {
                self.slow_peers.inc();
            }
            _ => {}
        }
    }
}
