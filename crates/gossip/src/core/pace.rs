//! Which peers publishers wait for.
//!
//! A peer whose queue is full of this node's own messages holds its publishers back for as long as it reads: nothing of
//! theirs is lost then. One that takes less than [`FLOOR`] in [`WINDOW`] does so no longer, and not again before it has
//! taken [`REPRIEVE`]: a peer that never reads costs one window, and nobody slows publishers to less than the floor, 16 KiB a second.

use std::time::{Duration, Instant};

/// For so long it is watched what a peer takes.
const WINDOW: Duration = Duration::from_secs(3);
/// Bytes of messages that it takes at least meanwhile. Connections take 32 KiB at a time.
const FLOOR: u64 = 48 * 1024;
/// What shows that a peer reads again.
const REPRIEVE: u64 = 10 * FLOOR;

/// How a peer takes what is published.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Since when it is watched, and what it had taken then.
    window: Option<(Instant, u64)>,
    /// It is not waited for before it has taken as much.
    again: u64,
}

impl Pace {
    /// Whether publishers wait for the peer, whose queue is full and which has taken `taken` bytes so far.
    pub(super) fn is_waited_for(&mut self, taken: u64, now: Instant) -> bool {
        if taken < self.again {
            return false;
        }
        let (since, before) = *self.window.get_or_insert((now, taken));
        if now.saturating_duration_since(since) < WINDOW {
            return true;
        }
        if taken - before < FLOOR {
            (self.window, self.again) = (None, taken + REPRIEVE);
            return false;
        }
        self.window = Some((now, taken));
        true
    }

    /// It has taken all there was.
    pub(super) fn rest(&mut self) {
        self.window = None;
    }
}
