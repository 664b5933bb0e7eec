//! The other side: what the conformance tests and the yardstick share.
//!
//! Two kinds of node behind one trait, [`Side`]: [`Ours`] is smidge's transport on smol,
//! [`Stock`] is rust-libp2p as published, on tokio and with its own QUIC. Everything above is
//! written once and runs on either.

pub mod child;
pub mod driven;
pub mod gossip;
pub mod link;
pub mod metric;
#[allow(missing_docs, reason = "the derive makes items that cannot be documented")]
pub mod nodes;
pub mod proc;
mod side;

pub use side::{Kind, Ours, Side, Spawner, Stock, Tuning, stock_transport};
