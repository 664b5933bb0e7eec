//! MQTT at a node: clients of any MQTT program, at each node that has `mqtt.listen`, in one space of topics.
//!
//! `crates/mqtt` is the broker, and does no I/O. Here are its sockets (`connection.rs`), TLS and WebSocket before them (`door.rs`,
//! `tls.rs`, `websocket.rs`), its way to the other nodes and back
//! (`mesh.rs`), the maps that all nodes keep (`kept.rs`), its files (`files.rs`) and figures (`figures.rs`); one task accepts, one serves each client, one minds the
//! time. It knows the node through a [`Client`](crate::Client) only. Nothing here decides what a client gets.
//!
//! All of that is the feature `mqtt`; without it `absent.rs` has a listener that is never there, and `mqtt.listen` is refused.

#[cfg(feature = "mqtt")]
mod connection;
#[cfg(feature = "mqtt")]
mod door;
#[cfg(feature = "mqtt")]
mod figures;
#[cfg(feature = "mqtt")]
mod files;
#[cfg(feature = "mqtt")]
mod kept;
#[cfg(feature = "mqtt")]
mod local;
#[cfg(not(feature = "mqtt"))]
#[path = "local_absent.rs"]
mod local;
#[cfg(feature = "mqtt")]
mod mesh;
#[cfg(feature = "mqtt")]
mod server;
#[cfg(not(feature = "mqtt"))]
#[path = "absent.rs"]
mod server;
#[cfg(feature = "mqtt")]
mod shared;
#[cfg(feature = "mqtt")]
mod tls;
#[cfg(feature = "mqtt")]
mod websocket;

use std::time::Duration;

#[cfg(feature = "mqtt")]
pub(crate) use files::access as read_access;
pub use local::{Followed, Local, NotTaken};
pub use server::{Bound, MqttError, Server};
#[cfg(feature = "mqtt")]
pub(crate) use tls::{Offer, read as read_tls};

/// How a message is published by what is no client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// 0, 1 or 2: what subscribers get at most.
    pub qos: u8,
    /// Whether it stays for those who subscribe later; an empty one deletes what stays.
    pub retain: bool,
    /// How long it is worth delivering; `None`: for ever.
    pub expiry: Option<Duration>,
}

/// What comes to one who follows a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message.
    Message(Said),
    /// So many were missed: they came faster than they were taken.
    Lost(u64),
}

/// A message as it was published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Where.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
    /// At which quality: 0, 1 or 2.
    pub qos: u8,
    /// Whether it was there before the filter was followed.
    pub retained: bool,
    /// What MQTT 5 clients say of it: its type, where an answer goes, and properties of their own.
    pub content_type: Option<String>,
    /// Where an answer is to be published.
    pub response_topic: Option<String>,
    /// Names and values.
    pub user: Vec<(String, String)>,
}

/// A connected client.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ClientStatus {
    /// Its client id.
    pub id: String,
    /// Its user name, if its password was asked for.
    pub user: Option<String>,
    /// `3.1`, `3.1.1` or `5`.
    pub version: &'static str,
    /// Filters that it is subscribed to.
    pub subscriptions: usize,
    /// Messages that wait for it, those on their way included.
    pub waiting: usize,
}

/// The clients of a node, and how much there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MqttStatus {
    /// Where clients are taken; nothing where MQTT is off.
    pub listening: Vec<String>,
    /// Connections, those that have not said CONNECT included.
    pub connections: usize,
    /// Sessions, of clients that are away included.
    pub sessions: usize,
    /// Subscriptions of all of them.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Messages of clients here.
    pub received: u64,
    /// Messages to clients here.
    pub sent: u64,
    /// Messages that clients here did not get: too slow, too full, too large.
    pub dropped: u64,
    /// The connected clients, by id, 1000 at most.
    pub clients: Vec<ClientStatus>,
}
