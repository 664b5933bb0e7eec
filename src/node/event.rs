//! What a node reports: events, each of which is also a line of its log.
//!
//! An event is reported once: [`Event`]'s `Display` is the line an operator greps for, fixed wording
//! first, values after (DESIGN's "log lines" are a contract), and the same value goes to those
//! that listen through [`Client::events`](super::Client::events).

use std::{fmt, sync::Arc, time::Duration};

use libp2p::{Multiaddr, PeerId};
use log::Level;

use super::listeners::Missed;
use crate::{dialer::Notice, gossip::Shed, logging, mdns};

pub use message::{Message, Receipt};

mod lines;
mod message;

/// What was larger than this node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Oversize {
    /// A message.
    Message {
        /// Bytes of its payload.
        bytes: usize,
        /// `gossip.max_message`.
        limit: usize,
    },
    /// A frame of a gossip stream, with whatever it held.
    Frame {
        /// Its bytes.
        bytes: u64,
        /// What is read at most (docs/limits.md).
        limit: usize,
    },
}

impl fmt::Display for Oversize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { bytes, limit } => {
                write!(f, "a message of {bytes} bytes: gossip.max_message = {limit} bytes here")
            }
            Self::Frame { bytes, limit } => {
                write!(f, "a frame of {bytes} bytes: {limit} are read here, as gossip.max_message has it")
            }
        }
    }
}

/// Something that happened to a node.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A listener is up.
    Listening(Multiaddr),
    /// An address is no longer listened on.
    NotListening(Multiaddr, String),
    /// A configured address cannot be listened on now.
    CannotListen {
        /// Which.
        address: Multiaddr,
        /// Why.
        reason: String,
        /// When it is tried again; sooner if the interfaces change.
        retry_in: Duration,
        /// Whether it failed in the same way before.
        repeated: bool,
    },
    /// The first connection to a peer stands.
    Connected {
        /// The peer.
        peer: PeerId,
        /// Where.
        address: Multiaddr,
        /// Whether we dialed.
        outbound: bool,
    },
    /// A peer of a private mesh closed a connection because this node does not know its key; said once a peer.
    NotAdmitted {
        /// The peer.
        peer: PeerId,
    },
    /// A peer said what it calls itself, or calls itself something else now. It may call itself anything.
    Named {
        /// The peer.
        peer: PeerId,
        /// Its name.
        name: Arc<str>,
    },
    /// The last connection to a peer ended.
    Disconnected {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: String,
    },
    /// A connection to a peer came up through a relay.
    Relayed {
        /// The peer.
        peer: PeerId,
        /// Where: the relay's address, and the peer behind it.
        address: Multiaddr,
        /// Whether we dialed.
        outbound: bool,
    },
    /// A relay holds a slot for this node: it can be reached there.
    Reserved {
        /// Which relay.
        relay: PeerId,
    },
    /// A relay that is connected holds no slot for this node.
    NotReserved {
        /// Which relay.
        relay: PeerId,
        /// Why.
        reason: String,
        /// When it is asked again.
        retry_in: Duration,
        /// Whether it was refused before.
        repeated: bool,
    },
    /// A direct connection to a peer that was reached through a relay stands, whatever NATs are between.
    Punched {
        /// The peer.
        peer: PeerId,
    },
    /// No direct connection came of it; the relayed one stays.
    NotPunched {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: String,
    },
    /// Others can reach this node at this address; it is announced from now on.
    Reachable(Multiaddr),
    /// The routing table took in addresses of a peer: at most 16, and those said too often are left out here.
    Routable {
        /// The peer.
        peer: PeerId,
        /// Where, the best first.
        addresses: Vec<Multiaddr>,
    },
    /// A peer, or one address of it, was forgotten.
    Forgotten {
        /// The peer.
        peer: PeerId,
        /// Where; everywhere if `None`.
        address: Option<Multiaddr>,
    },
    /// A peer is in our mesh of a topic.
    JoinedMesh {
        /// Which topic.
        topic: String,
        /// The peer.
        peer: PeerId,
    },
    /// A peer is no longer in our mesh of a topic.
    LeftMesh {
        /// Which topic.
        topic: String,
        /// The peer.
        peer: PeerId,
    },
    /// A connected peer subscribed to a topic.
    Subscribed {
        /// Which topic.
        topic: String,
        /// The peer.
        peer: PeerId,
    },
    /// A message arrived from another node.
    Message(Message),
    /// A message of ours was handed to peers, or given to subscribers at this node.
    Published {
        /// What can be said of it.
        receipt: Receipt,
        /// Its topic.
        topic: String,
    },
    /// A peer cannot take messages as fast as they come.
    SlowPeer(PeerId),
    /// Gossip gave something up to stay within its bounds; said once, and again after an hour in which it still did. So
    /// much it was since the start.
    Shedding(Shed),
    /// A peer is connected, speaks gossip, and its gossip is not up.
    GossipOff {
        /// The peer.
        peer: PeerId,
        /// What is amiss.
        reason: String,
        /// How many times it was so in a row.
        attempt: u32,
        /// Whether it is connected anew for that; if not, its address is not known.
        again: bool,
    },
    /// Gossip with a peer is up again.
    GossipBack {
        /// The peer.
        peer: PeerId,
    },
    /// A peer sent something that is larger than this node takes; it was dropped. Reported every 10 s at most.
    Oversized {
        /// The peer that sent it, or passed it on.
        peer: PeerId,
        /// What it was.
        what: Oversize,
        /// How many more there were, of any peer, since the last report.
        others: u64,
    },
    /// A message in a topic of values by key was none, and was kept out. Reported every 10 s at most.
    KeptOut {
        /// The topic.
        topic: String,
        /// Who sent it.
        author: PeerId,
        /// What is amiss.
        why: String,
        /// How many more there were, in any topic, since the last report.
        others: u64,
    },
    /// A value gave way: there are more than the topic's bounds, or `limits.kept`, let be. Reported every 10 s at most.
    GaveWay {
        /// The topic.
        topic: String,
        /// Its key.
        key: Arc<[u8]>,
        /// How many more there were, in any topic, since the last report.
        others: u64,
    },
    /// This node was away for longer than deletions are remembered: its copy of a topic's values was thrown away, but for
    /// what was set since, and is fetched again from those who were there.
    ThrownAway {
        /// The topic.
        topic: String,
        /// How many keys.
        keys: usize,
    },
    /// A peer answered a ping.
    Ping {
        /// The peer.
        peer: PeerId,
        /// The round-trip time.
        rtt: Duration,
    },
    /// The dialer has something to say about names, records and dials.
    Dialer(Notice),
    /// Discovery on the local network has something to say.
    Mdns(mdns::Notice),
    /// What is stored could not be written to the disk.
    NotStored {
        /// Why.
        why: String,
        /// When it is tried again.
        retry_in: Duration,
        /// Whether it failed in the same way before.
        repeated: bool,
    },
    /// What is stored was written to the disk, after it could not be for a while.
    StoredAgain {
        /// How often it had failed.
        failures: u32,
    },
    /// What topics with `durable` remember cannot be written to the disk: it is in memory only.
    NotSaved {
        /// Why.
        why: String,
        /// When it is tried again.
        retry_in: Duration,
        /// Whether it failed in the same way before.
        repeated: bool,
    },
    /// It was written, after it could not be for a while.
    SavedAgain {
        /// How often it had failed.
        failures: u32,
    },
    /// The node is about to end.
    Stopping,
}

impl Event {
    pub(crate) fn missed(Missed { address, why: reason, retry_in, repeated }: Missed) -> Self {
        Self::CannotListen { address, reason, retry_in, repeated }
    }

    /// The peer that this event is about, whose name stands at the end of its line.
    pub(crate) fn peer(&self) -> Option<&PeerId> {
        match self {
            Self::Connected { peer, .. }
            | Self::NotAdmitted { peer }
            | Self::Disconnected { peer, .. }
            | Self::Relayed { peer, .. }
            | Self::Punched { peer }
            | Self::NotPunched { peer, .. }
            | Self::Routable { peer, .. }
            | Self::JoinedMesh { peer, .. }
            | Self::LeftMesh { peer, .. }
            | Self::Subscribed { peer, .. }
            | Self::SlowPeer(peer)
            | Self::GossipOff { peer, .. }
            | Self::GossipBack { peer }
            | Self::Oversized { peer, .. }
            | Self::Ping { peer, .. }
            | Self::Reserved { relay: peer }
            | Self::NotReserved { relay: peer, .. } => Some(peer),
            _ => None,
        }
    }

    /// The target under which this event is logged: messages have one of their own, which says nothing unless it is
    /// asked for.
    pub(crate) fn target(&self) -> &'static str {
        match self {
            Self::Message(_) | Self::Published { .. } => logging::MESSAGES,
            _ => "smidge",
        }
    }

    /// The level at which this event is logged.
    pub(crate) fn level(&self) -> Level {
        match self {
            Self::Subscribed { .. } | Self::Ping { .. } => Level::Debug,
            Self::NotStored { repeated: true, .. }
            | Self::NotSaved { repeated: true, .. }
            | Self::NotReserved { repeated: true, .. }
            | Self::CannotListen { repeated: true, .. }
            | Self::GossipOff { attempt: 2.., again: false, .. } => Level::Debug,
            Self::GossipOff { .. }
            | Self::SlowPeer(_)
            | Self::Shedding(_)
            | Self::Oversized { .. }
            | Self::KeptOut { .. }
            | Self::GaveWay { .. }
            | Self::ThrownAway { .. }
            | Self::NotListening(..)
            | Self::CannotListen { .. }
            | Self::NotAdmitted { .. }
            | Self::NotStored { .. }
            | Self::NotSaved { .. } => Level::Warn,
            Self::Dialer(notice) => match notice {
                Notice::Resolved { changed: false, recovered: false, .. }
                | Notice::PartlyResolved { repeated: true, .. }
                | Notice::NotResolved { repeated: true, .. }
                | Notice::Dialing { repeated: true, .. }
                | Notice::DialFailed { repeated: true, .. } => Level::Debug,
                Notice::TooManyRecords { .. } | Notice::SameKey { .. } => Level::Warn,
                _ => Level::Info,
            },
            Self::Mdns(notice) => match notice {
                mdns::Notice::DialFailed { repeated: true, .. } => Level::Debug,
                mdns::Notice::Trouble { .. } | mdns::Notice::Flood(_) | mdns::Notice::SameKey { .. } => {
                    Level::Warn
                }
                _ => Level::Info,
            },
            _ => Level::Info,
        }
    }
}
