//! The node at a glance.

use libp2p::Multiaddr;
use serde::Serialize;

use crate::store::StoreStatus;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its peer id.
    pub peer: String,
    /// Its version.
    pub version: &'static str,
    /// Where it listens.
    pub listening: Vec<Multiaddr>,
    /// Connected peers.
    pub peers: usize,
    /// Peers in the routing table.
    pub table: usize,
    /// Topics that it follows.
    pub topics: Vec<String>,
    /// Records that it keeps for the hash table.
    pub records: usize,
    /// How its store stands.
    pub store: StoreStatus,
    /// How long it has been running, in seconds.
    pub uptime_s: u64,
}
