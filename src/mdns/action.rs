//! The values that cross the boundary of `Discovery`: its policy, its actions and its notices. No logic.

use std::{fmt, sync::Arc, time::Duration};

use libp2p::{Multiaddr, PeerId};

use crate::config::TransportKind;

/// Settings of the discovery.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policy {
    /// Longest pause between two queries.
    pub(crate) query_interval: Duration,
    /// TTL of the records that this node announces.
    pub(crate) ttl: Duration,
    /// Most peers that are known simultaneously.
    pub(crate) max_peers: usize,
    /// Longest backoff between two dials of a peer.
    pub(crate) retry_max: Duration,
    /// Most peers that are dialed simultaneously.
    pub(crate) parallel: usize,
    /// Transports to dial over; addresses of any other are ignored.
    pub(crate) transports: Vec<TransportKind>,
}

/// How peers are looked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// What discovery goes by.
    pub(crate) policy: Policy,
    /// The only interfaces to look on, by name; none: all that carry multicast.
    pub(crate) interfaces: Vec<String>,
}

/// A network interface together with one address family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// The interface's name.
    pub interface: Arc<str>,
    /// The address family: IPv6 if true, else IPv4.
    pub ipv6: bool,
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.interface, if self.ipv6 { "IPv6" } else { "IPv4" })
    }
}

/// What the caller has to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send this packet to the multicast group of this segment.
    Send(Segment, Vec<u8>),
    /// Dial this peer at these addresses.
    Dial(PeerId, Vec<Multiaddr>),
}

/// What happened, for the log and for subscribers of events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Discovery began on a segment.
    Looking(Segment),
    /// A peer announced an address.
    Discovered {
        /// The peer.
        peer: PeerId,
        /// The address.
        address: Multiaddr,
    },
    /// An announced address expired or was withdrawn.
    Expired {
        /// The peer.
        peer: PeerId,
        /// The address.
        address: Multiaddr,
    },
    /// An address that is none of this host's is announced with this node's own peer id.
    SameKey {
        /// The address.
        address: Multiaddr,
    },
    /// Dialing a discovered peer failed.
    DialFailed {
        /// The peer.
        peer: PeerId,
        /// The cause.
        reason: String,
        /// Time until the next attempt.
        retry_in: Duration,
        /// Whether the previous attempt failed with the same cause.
        repeated: bool,
    },
    /// Discovery does not work, on one segment or at all.
    Trouble {
        /// The segment; all of them if `None`.
        segment: Option<Segment>,
        /// The cause, and what to do about it.
        why: String,
    },
    /// Discovery works again on a segment.
    Recovered(Segment),
    /// More is announced than the bounds admit; which bound.
    Flood(&'static str),
}
