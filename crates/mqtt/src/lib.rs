//! An MQTT broker that does no I/O: MQTT 3.1, 3.1.1 and 5.
//!
//! [`Broker`] takes what happened (a client connected, these bytes came, a message came from another broker of the same
//! space) with the present moment, and gives back what is to be done: bytes for a client, connections to close, messages for
//! the other brokers. It has no socket, no clock, no task and no source of randomness of its own, and everything that it
//! keeps is bounded by [`Limits`]. The packets are mqtt-proto's. [`Users`] and [`Acl`] read mosquitto's files.

mod access;
mod acl;
mod broker;
mod codec;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod limits;
pub mod mesh;
mod message;
mod nodes;
mod record;
mod retained;
mod session;
pub mod topic;
mod trie;
mod users;

pub use access::Access;
pub use acl::{Acl, AclError, Operation};
pub use broker::{
    Action, Broker, ClientInfo, ConnectionId, Credentials, Full, Map, Refused, SessionId, Stats, TapId,
    Tapped, Ticket, Verdict,
};
pub use limits::Limits;
pub use message::{Message, Qos};
pub use retained::{Rank, Rejected};
pub use users::{PasswordError, Users, UsersError};
