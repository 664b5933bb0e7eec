//! What a topic remembers, and how two nodes that remember it find out what either lacks.
//!
//! Pure: no I/O, no clock, no randomness, no task. Time, salt and frames are handed in; frames and items come out. The
//! protocol is specified in `docs/CATCHUP.md` of the repository.

pub mod frame;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod item;
pub mod keyed;
mod latest;
mod memory;
mod presence;
mod reconcile;
mod session;
mod siphash;
mod snapshot;
mod stamp;
mod varint;

pub use item::{Id, Item};
pub use keyed::{Keyed, Unkeyed};
pub use latest::{Bounds, Change, Full, Latest, Rank, Unsaved, Version};
pub use memory::{Keep, Memory, Remembered, Since, Unkept, Unwritten};
pub use presence::{AWAY, Presence};
pub use reconcile::{Comparison, Params, Violation, verdicts};
pub use session::{End, Initiator, Limits, Output, Request, Responder, Store, Summary};
pub use siphash::Key;
pub use snapshot::Snapshot;
pub use stamp::{Clock, Stamp, TooFarAhead};
