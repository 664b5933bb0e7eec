//! The node at a glance.

use libp2p::Multiaddr;
use serde::Serialize;

use super::listeners::NotListening;
use crate::{
    config::Role,
    store::{FileStatus, StoreStatus},
};

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its peer id.
    pub peer: String,
    /// What it calls itself, if it has a name.
    pub name: Option<String>,
    /// Its version.
    pub version: &'static str,
    /// Its role.
    pub role: Role,
    /// Where it listens.
    pub listening: Vec<Multiaddr>,
    /// Where it is to listen as well, and cannot; it is tried again.
    pub not_listening: Vec<NotListening>,
    /// Where this node's own key answers and should not: another node has it, or the address leads back here.
    pub same_key: Vec<Multiaddr>,
    /// Connected peers.
    pub peers: usize,
    /// Those of them that speak gossip and whose gossip is off.
    pub gossip_off: usize,
    /// Peers in the routing table.
    pub table: usize,
    /// Topics that it follows.
    pub topics: Vec<String>,
    /// Records that it keeps for the hash table.
    pub records: usize,
    /// What it remembers of topics with `keep`.
    pub remembered: Remembered,
    /// What it keeps of topics with `keep = "latest"`.
    pub state: StateHeld,
    /// How its store stands.
    pub store: StoreStatus,
    /// How long it has been running, in seconds.
    pub uptime_s: u64,
    /// Lines of the log of its process that were dropped, because they came faster than they were read.
    pub log_dropped: u64,
    /// What it has said and heard since it started.
    pub traffic: Traffic,
}

/// What a node remembers of its topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remembered {
    /// Messages; a bundle is one.
    pub messages: usize,
    /// Their bytes, as they count against `limits.kept`.
    pub bytes: usize,
    /// The file of topics with `durable`, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileStatus>,
}

/// What a node keeps of values by key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StateHeld {
    /// Keys with a value.
    pub keys: usize,
    /// Deleted keys, which count as keys while it is remembered that they are.
    pub marks: usize,
    /// Their bytes, as they count against `limits.kept`.
    pub bytes: usize,
}

/// Messages of a node since it started; they only ever grow, so that two readings make a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Messages that arrived on the topics followed.
    pub received: u64,
    /// Their payload, in bytes.
    pub received_bytes: u64,
    /// Messages of this node that were handed to peers.
    pub published: u64,
    /// Their payload, in bytes.
    pub published_bytes: u64,
    /// Peers that they were handed to, added up.
    pub handed: u64,
    /// What was lost to subscribers on this machine that were too slow.
    pub lost: u64,
    /// Copies that arrived of messages that were known.
    pub duplicates: u64,
}
