//! From names to connections: every record of every name is dialed, again and again if need be; of a large name, a few.
//!
//! `reconciler` decides in pure code, of large names by `planner`, `Behaviour` carries out. Nothing here knows what
//! the connections are used for.

mod action;
pub(crate) mod backoff;
mod behaviour;
mod lookup;
mod planner;
mod reconciler;
mod record;
mod search;
mod status;
#[cfg(test)]
mod tests;

pub use action::Notice;
pub use status::{Hold, NameStatus, RecordState, RecordStatus};
pub(crate) use {
    action::{Answer, Open, Policy, SAME_KEY, remote},
    behaviour::{Behaviour, Event},
    lookup::lookup,
    planner::Neighbours,
};
