//! TCP for libp2p, for peers and networks that UDP does not reach: Noise (libp2p/specs
//! noise/README.md) and Yamux (libp2p/specs yamux/README.md) on the runtime door, each agreed on by
//! multistream-select.
//!
//! How the parts fit:
//!
//! - A [`Transport`] holds its listeners. A connection that one of them accepts, or that a dial
//!   opens, is `raw` first; `upgrade` makes a [`Connection`] of it, within one deadline from
//!   the first SYN to the muxer.
//! - Incoming connections that are not made yet are counted (`half_made`). One too many, and the
//!   oldest of them is cut: whoever opens connections and says nothing cannot keep others out.
//! - A dial leaves from the port of a listener if libp2p asks for that, so that the remote sees an
//!   address at which it can dial back, and so that two dials can meet (simultaneous open). Who is
//!   the initiator then is decided above, by [`DialOpts::role`](libp2p::core::transport::DialOpts):
//!   `Role::Listener` answers on the connection that it opened. multistream's own extension for
//!   simultaneous open is not spoken, as in rust-libp2p: two dials that meet by chance fail, and are
//!   tried again by whoever wanted them.
//!
//! - A close waits a little for the remote's (`linger`), so that nothing written before is lost. What the
//!   handshake looked like (`transcript`) is what admission to a private mesh is bound to.
//!
//! What is deliberately absent: other security protocols and muxers, `/dns` names, TLS over TCP.
//!
//! What a connection can hold: Yamux gives every stream 256 KiB of credit at least, so
//! [`Config::max_concurrent_streams`] times that is the bound for bytes that arrived and nobody has
//! read. An idle one holds no buffers of that kind.

mod addr;
mod config;
mod error;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod linger;
mod listener;
mod muxer;
mod pending;
mod transcript;
mod transport;
mod upgrade;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::Error;
pub use muxer::{Connection, Stream};
pub use transport::Transport;
pub use upgrade::Connecting;
pub(super) use upgrade::secure;
