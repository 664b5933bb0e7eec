//! MQTT at a node: clients of any MQTT program, at each node that has `mqtt.listen`, in one space of topics.
//!
//! `crates/mqtt` is the broker, and does no I/O. Here are its sockets (`connection.rs`), its way to the other nodes and back
//! (`mesh.rs`), its files (`files.rs`) and figures (`figures.rs`); one task accepts, one serves each client, one minds the
//! time. It knows the node through a [`Client`](crate::Client) only. Nothing here decides what a client gets.
//!
//! All of that is the feature `mqtt`; without it `absent.rs` has a listener that is never there, and `mqtt.listen` is refused.

#[cfg(feature = "mqtt")]
mod connection;
#[cfg(feature = "mqtt")]
mod figures;
#[cfg(feature = "mqtt")]
mod files;
#[cfg(feature = "mqtt")]
mod mesh;
#[cfg(feature = "mqtt")]
mod server;
#[cfg(not(feature = "mqtt"))]
#[path = "absent.rs"]
mod server;
#[cfg(feature = "mqtt")]
mod shared;

pub use server::{Bound, MqttError, Server};
