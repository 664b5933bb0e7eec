//! What the dialer tells about names: plain values, made on request.

use libp2p::{Multiaddr, PeerId};
use serde::Serialize;

use super::planner::Role;

/// A name with its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameStatus {
    /// The name as configured.
    pub name: String,
    /// Every record that it resolves to now.
    pub records: Vec<RecordStatus>,
    /// Why the last lookup gave nothing, if it did not.
    pub last_error: Option<String>,
}

/// A record of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordStatus {
    /// The address that is dialed.
    pub address: Multiaddr,
    /// The peer that was found there last.
    #[serde(serialize_with = "peer")]
    pub peer: Option<PeerId>,
    /// How it stands.
    #[serde(flatten)]
    pub state: RecordState,
    /// Whether it is connected through a relay, and not directly.
    pub relayed: bool,
    /// Whether it is held, and why.
    pub hold: Hold,
    /// Failed dials in a row.
    pub failures: u32,
    /// Why the last dial failed, if it did.
    pub last_error: Option<String>,
}

/// How a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum RecordState {
    /// Not connected; dialed again in this many milliseconds.
    Waiting {
        /// Milliseconds until the next dial, 0 if it is due.
        retry_in_ms: u64,
    },
    /// A dial is under way.
    Dialing,
    /// Connected.
    Connected,
    /// It is this node itself.
    Own,
    /// Not connected, and not dialed before it is needed: the name is a large one.
    Spare,
}

/// What a record is to a node. Those of large names are not all held (`dial.neighbours`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// Held, as every record of the name is.
    Full,
    /// Held: one of those that this node chose.
    Chosen,
    /// Held beside the chosen ones, as too few nodes dialed this one.
    More,
    /// Dialed again, although others have taken its place.
    Retried,
    /// Connected all the same: it dialed this node, or was needed.
    Connected,
    /// Not held.
    Spare,
}

impl From<Role> for Hold {
    fn from(role: Role) -> Self {
        match role {
            Role::All => Self::Full,
            Role::Chosen => Self::Chosen,
            Role::More => Self::More,
            Role::Retried => Self::Retried,
            Role::Connected => Self::Connected,
            Role::Spare => Self::Spare,
        }
    }
}

fn peer<S: serde::Serializer>(peer: &Option<PeerId>, serializer: S) -> Result<S::Ok, S::Error> {
    peer.map(|p| p.to_string()).serialize(serializer)
}
