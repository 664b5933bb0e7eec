//! From names to connections: every record of every name is dialed, again and again if need be.
//!
//! The [`reconciler`] decides in pure code, the [`Behaviour`] carries out. Nothing here knows what
//! the connections are used for.

mod action;
pub mod backoff;
mod behaviour;
mod lookup;
pub mod reconciler;
mod record;
mod status;
#[cfg(test)]
mod tests;

pub use action::{Action, Answer, DialFault, Notice, Open, Policy};
pub use behaviour::{Behaviour, Event};
pub use status::{NameStatus, RecordState, RecordStatus};
pub(crate) use {
    action::{SAME_KEY, is_circuit, remote, split_peer},
    lookup::lookup,
};
