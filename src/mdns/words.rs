//! What discovery and the world around it say to each other: plain values.

use std::{fmt, sync::Arc, time::Duration};

use libp2p::{Multiaddr, PeerId};

use crate::config::TransportKind;

/// What discovery goes by.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The longest pause between two questions who is there.
    pub query_interval: Duration,
    /// How long others may believe what this node says of itself.
    pub ttl: Duration,
    /// Peers known at once.
    pub max_peers: usize,
    /// The longest pause between two dials of a peer.
    pub retry_max: Duration,
    /// Peers dialed at once.
    pub parallel: usize,
    /// What is dialed over; addresses of other transports are passed over.
    pub transports: Vec<TransportKind>,
}

/// A network interface, and the family of addresses that is spoken there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// The interface's name.
    pub interface: Arc<str>,
    /// Whether IPv6 is spoken.
    pub ipv6: bool,
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.interface, if self.ipv6 { "IPv6" } else { "IPv4" })
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes to everybody on this segment.
    Send(Segment, Vec<u8>),
    /// Dial this peer at these addresses.
    Dial(PeerId, Vec<Multiaddr>),
}

/// What happened, for the log and for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Peers are looked for there from now on.
    Looking(Segment),
    /// A peer says that it is at an address.
    Discovered {
        /// Who.
        peer: PeerId,
        /// Where.
        address: Multiaddr,
    },
    /// A peer no longer says that it is at an address.
    Expired {
        /// Who.
        peer: PeerId,
        /// Where.
        address: Multiaddr,
    },
    /// A peer could not be connected to.
    DialFailed {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: String,
        /// When it is tried again.
        retry_in: Duration,
        /// Whether it failed in the same way before.
        repeated: bool,
    },
    /// Nobody is found there, as things are.
    Trouble {
        /// Where; everywhere if `None`.
        segment: Option<Segment>,
        /// Why, and what to do.
        why: String,
    },
    /// What was the trouble there is over.
    Recovered(Segment),
    /// More is announced than is taken in.
    Flood(&'static str),
}
