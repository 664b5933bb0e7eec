//! What topics remember, and how nodes that share one give each other what they lack: `/smidge/catchup/1.0.0`
//! (docs/CATCHUP.md).
//!
//! The protocol itself is the pure crate `smidge-catchup`. Here are the memories (`book.rs`, `maps.rs`), when to compare with which peer
//! (`scheduler.rs`), what of them is on the disk (`durable.rs`, `saved.rs`, `rows.rs`), what others confirm
//! (`confirm.rs`), and the streams. What is fetched is verified here and judged by the event loop, as what is live.
//! Never dials, never closes a connection, and never works for longer than a slice at a time.

mod behaviour;
mod book;
mod clock;
mod confirm;
mod durable;
mod handler;
mod maps;
mod number;
mod record;
mod rows;
mod saved;
mod scheduler;
mod session;
mod touched;
mod values;

use std::time::UNIX_EPOCH;

pub(crate) use behaviour::{Behaviour, Event, File, Settings};
pub(crate) use book::Judgement;
pub use book::Position;
pub(crate) use confirm::{Confirmed, Ticket};
pub(crate) use durable::Report;
pub(crate) use maps::{Entry, Value};
pub(crate) use number::sent;
pub(crate) use record::Record;

use crate::runtime;

/// Of a test that needs tickets.
#[cfg(test)]
pub(crate) fn confirms() -> confirm::Confirms {
    confirm::Confirms::default()
}

/// Milliseconds since 1970, as this node's clock has it.
pub(crate) fn wall() -> u64 {
    let since_1970 = runtime::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
