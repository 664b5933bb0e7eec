//! Finding peers on the local network by multicast DNS: libp2p/specs `discovery/mdns.md`.
//!
//! `Discovery` decides in pure code, `Behaviour` carries out. What is heard is hearsay: it leads to
//! dials, which authenticate the peer, and to nothing else. Never answers for any node but this one, and
//! says on each link only what can be reached there.
//!
//! All of that is the feature `mdns`; without it `absent.rs` has a behaviour that finds no peer, and `mdns.enabled` is
//! refused.

mod action;
#[cfg(feature = "mdns")]
mod behaviour;
#[cfg(not(feature = "mdns"))]
#[path = "absent.rs"]
mod behaviour;
#[cfg(feature = "mdns")]
mod discovered;
#[cfg(feature = "mdns")]
mod discovery;
#[cfg(all(feature = "mdns", any(test, fuzzing)))]
pub mod fuzz;
#[cfg(feature = "mdns")]
mod interfaces;
#[cfg(feature = "mdns")]
mod schedule;
#[cfg(test)]
#[cfg(feature = "mdns")]
mod tests;
#[cfg(feature = "mdns")]
mod wire;

pub use action::{Notice, Segment};
pub(crate) use action::{Policy, Settings};
pub(crate) use behaviour::{Behaviour, Tried, rehearse};

/// What stands for the name of those that mDNS found.
pub(crate) const NAME: &str = "mdns";
