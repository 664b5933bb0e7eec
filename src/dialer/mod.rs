//! From names to connections: every record of every name is dialed, again and again if need be.
//!
//! `reconciler` decides in pure code, `Behaviour` carries out. Nothing here knows what
//! the connections are used for.

mod action;
pub(crate) mod backoff;
mod behaviour;
mod lookup;
mod reconciler;
mod record;
mod status;
#[cfg(test)]
mod tests;

pub use action::Notice;
pub use status::{NameStatus, RecordState, RecordStatus};
pub(crate) use {
    action::{Answer, Open, Policy, SAME_KEY, remote},
    behaviour::{Behaviour, Event},
    lookup::lookup,
};
