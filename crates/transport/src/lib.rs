//! libp2p transports over the runtime door.
//!
//! A transport turns multiaddrs into authenticated, multiplexed connections. It never retries,
//! never resolves names and never decides which peers to dial: those live in the floors above.

pub mod admission;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod half_open;
mod listening;
pub mod multiaddr;
pub mod quic;
pub mod relayed;
mod side_by_side;
pub mod tcp;
#[cfg(test)]
mod testing;
pub mod tls;

pub use side_by_side::{Error, SideBySide};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
