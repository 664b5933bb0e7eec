//! What the reconciler and the world around it say to each other: plain values.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint};

use super::planner::Neighbours;
use crate::{
    config::{Family, Target, TransportKind},
    transport::multiaddr::{is_circuit, split_peer},
};

/// What the reconciler goes by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policy {
    /// Longest pause between two questions for a name that has no record yet.
    pub(crate) lookup_max: Duration,
    /// Longest pause between two dials of one record.
    pub(crate) retry_max: Duration,
    /// Pause between two questions for a name that has records.
    pub(crate) refresh: Duration,
    /// How long a departed peer that no name leads to is remembered.
    pub(crate) forget: Duration,
    /// How long a record is kept that no answer confirms any more and that does not answer dials either.
    pub(crate) stale: Duration,
    /// Most records that are dialed simultaneously.
    pub(crate) parallel: usize,
    /// What names are dialed over, in order of preference.
    pub(crate) transports: Vec<TransportKind>,
    /// How long a way to a record is given before the next one is tried beside it.
    pub(crate) fallback: Duration,
    /// Records followed per name; more are ignored, and a notice says so.
    pub(crate) max_records: usize,
    /// Of a large name.
    pub(crate) neighbours: Neighbours,
    /// This node's identity, hashed: it ranks the records of large names ([`Policy::hash`]).
    pub(crate) identity: u64,
}

impl Policy {
    /// What ranks: of identities and of records.
    pub(crate) fn hash(what: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        hasher.finish()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lookup_max: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            refresh: Duration::from_secs(5),
            forget: Duration::from_secs(60),
            stale: Duration::from_secs(600),
            parallel: 64,
            transports: vec![TransportKind::Quic],
            fallback: Duration::from_millis(250),
            max_records: 4096,
            neighbours: Neighbours { wanted: 16, full: 32 },
            identity: 0,
        }
    }
}

/// What a lookup of a target came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// These addresses, perhaps with a peer id each. Those of one socket are ways to one record.
    Records(Vec<Multiaddr>),
    /// These, and a part of the question was not answered: what was known of it before stands.
    Part(Vec<Multiaddr>, Open),
    /// The name certainly has no record now, and why.
    Nothing(String),
    /// The question was not answered, and why. What was known before stands.
    Failed(String),
}

/// A part of a question that was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// The addresses of which family there may be more.
    pub(crate) family: Family,
    /// The cause; `None` while it is still waited for, and another answer follows.
    pub(crate) why: Option<String>,
    /// Whether it was refused, as some servers refuse what a name has none of: where nothing was known of
    /// it, there is nothing to tell.
    pub(crate) refused: bool,
}

/// Why a dial failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DialFault {
    /// We were at the other end ourselves.
    OwnPeer,
    /// This peer answered, but the connection was refused because there are enough to it already.
    Enough(PeerId),
    /// Anything else.
    Failed(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask what this target resolves to.
    Lookup(Target),
    /// Dial this address, expecting this peer if one is given.
    Dial(Multiaddr, Option<PeerId>),
    /// Drop what is known of `peer`: at `address`, or everything.
    Forget {
        /// The peer.
        peer: PeerId,
        /// Where; everywhere if `None`.
        address: Option<Multiaddr>,
    },
}

/// What happened, for the log and for subscribers of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A name was resolved. `changed`: to other records than before.
    Resolved {
        /// The name.
        target: Target,
        /// How many records it has.
        records: usize,
        /// Whether they differ from those before.
        changed: bool,
        /// Whether the last question was not answered.
        recovered: bool,
    },
    /// Only a part of a question was answered.
    PartlyResolved {
        /// The name.
        target: Target,
        /// Why.
        reason: String,
        /// How many records stand without having been confirmed.
        kept: usize,
        /// Whether the last answer was the same.
        repeated: bool,
    },
    /// Records that no answer confirmed for a good while, and that answered no dial either, are let go.
    LetGo {
        /// The name.
        target: Target,
        /// Which.
        addresses: Vec<Multiaddr>,
        /// How long ago they were last confirmed.
        after: Duration,
    },
    /// A name could not be resolved, or has no record.
    NotResolved {
        /// The name.
        target: Target,
        /// Why.
        reason: String,
        /// When it is asked again.
        retry_in: Duration,
        /// Whether the last answer was the same.
        repeated: bool,
    },
    /// An answer held more records than are followed.
    TooManyRecords {
        /// The name.
        target: Target,
        /// How many there were.
        found: usize,
        /// How many are followed.
        followed: usize,
    },
    /// A record is dialed.
    Dialing {
        /// Where.
        address: Multiaddr,
        /// Whether the last dial of this record failed.
        repeated: bool,
    },
    /// A dial failed.
    DialFailed {
        /// Where.
        address: Multiaddr,
        /// Why.
        reason: String,
        /// When it is tried again.
        retry_in: Duration,
        /// Whether it failed in the same way before.
        repeated: bool,
    },
    /// A record turned out to be this very node.
    Own {
        /// Which.
        address: Multiaddr,
    },
    /// This node's own key answered at an address that is none of this host's: another node has a copy of the
    /// key, or the address leads back here.
    SameKey {
        /// Where.
        address: Multiaddr,
    },
    /// Another peer than before answers at a record.
    Replaced {
        /// Where.
        address: Multiaddr,
        /// The peer that was there.
        old: PeerId,
        /// The peer that is there now.
        new: PeerId,
    },
}

/// The warning about an address that is none of this host's and answers with this node's key.
pub(crate) const SAME_KEY: &str = "another node has this node's key, or this address leads back here";

/// Where the other end of a connection is. A peer behind a relay is known by its id alone; the way to it is the
/// one that leads to us, as far as the relay.
pub(crate) fn remote(endpoint: &ConnectedPoint) -> Multiaddr {
    match endpoint {
        ConnectedPoint::Listener { local_addr, send_back_addr } if is_circuit(local_addr) => {
            send_back_addr.iter().fold(local_addr.clone(), |address, part| address.with(part))
        }
        _ => split_peer(endpoint.get_remote_address().clone()).0,
    }
}
