//! QUIC for libp2p (libp2p/specs quic/README.md and tls/tls.md): quinn-proto's state machines on
//! the runtime door, the TLS of libp2p (`transport::tls`) for the handshake.
//!
//! How the parts fit:
//!
//! - An `Endpoint` is one bound UDP socket. One task (`driver`) only receives its
//!   datagrams and sorts them into the `Mailbox` of the connection they belong to.
//! - A connection is moved on by one task of its own (`drive`), from the first datagram until it is
//!   closed. Whoever polls its [`Connecting`] or [`Connection`] only hears of changes. There is no
//!   task or lock per stream: driver, muxer and streams share one mutex.
//! - What is closed leaves a trace in its endpoint for a moment (`linger`), which tells a peer
//!   that is still sending.
//! - All time is the runtime's, so that everything here also runs in simulated time.
//!
//! What is deliberately absent: 0-RTT and session resumption (libp2p authenticates both sides
//! every time), unidirectional streams, QUIC datagrams, versions other than 1.
//!
//! Lock order: a connection's state, then its endpoint's table, then a mailbox's queue.

mod addr;
mod certificate;
mod closing;
mod config;
mod congestion;
mod connecting;
mod connection;
mod connection_driver;
mod endpoint;
mod endpoint_driver;
mod error;
mod hole_punch;
mod incoming;
mod listener;
mod mailbox;
mod state;
mod stream;
mod transmit;
mod transport;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use config::Config;
pub use connecting::Connecting;
pub use connection::Connection;
pub use error::Error;
pub use stream::Stream;
pub use transport::Transport;

/// Locks `mutex`. A panic elsewhere while it was held is no reason to panic here too: the state
/// machines inside are consistent between calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
