//! Finding peers on the local network by multicast DNS: libp2p/specs `discovery/mdns.md`.
//!
//! [`Discovery`] decides in pure code, the [`Behaviour`] carries out. What is heard is hearsay: it leads to
//! dials, which prove who is there, and to nothing else. Never answers for anybody but this node, and
//! says on each link only what can be reached there.

mod action;
mod behaviour;
mod discovered;
mod discovery;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod interfaces;
mod schedule;
#[cfg(test)]
mod tests;
mod wire;

pub use action::{Action, Notice, Policy, Segment};
pub use behaviour::{Behaviour, Settings};
pub(crate) use behaviour::{Tried, rehearse};
pub use discovery::Discovery;

/// What stands for the name of those that mDNS found.
pub const NAME: &str = "mdns";
