//! From names to connections: every record of every name is dialed, again and again if need be.
//!
//! The [`reconciler`] decides in pure code, the [`Behaviour`] carries out. Nothing here knows what
//! the connections are used for.

pub mod backoff;
mod behaviour;
mod lookup;
pub mod reconciler;
mod status;
#[cfg(test)]
mod tests;

pub use behaviour::{Behaviour, Event};
pub(crate) use reconciler::split_peer;
pub use reconciler::{Notice, Policy};
pub use status::{NameStatus, RecordState, RecordStatus};
