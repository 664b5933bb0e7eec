//! What a session may cost.

use std::time::Duration;

use crate::{
    Params,
    frame::{FRAME, Span},
};

/// Bounds of one session. Whatever the peer says, it costs no more.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How ranges are cut.
    pub params: Params,
    /// The longest record, bytes.
    pub record: usize,
    /// How long a frame of the peer may take.
    pub silence: Duration,
    /// How long a session may take.
    pub session: Duration,
    /// Records sent, bytes a second. Not so few that a frame takes as long as `silence`.
    pub rate: u64,
    /// Records received.
    pub messages: u64,
    /// Frames received.
    pub frames: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            params: Params::default(),
            record: FRAME,
            silence: Duration::from_secs(10),
            session: Duration::from_secs(300),
            rate: 8 << 20,
            messages: 1_000_000,
            frames: 65_536,
        }
    }
}

impl Limits {
    /// The longest frame that is read, bytes: who reads the length of a longer one need not read on.
    pub fn longest(&self) -> usize {
        FRAME + self.record + 64
    }

    pub(crate) fn time_of(&self, bytes: usize) -> Duration {
        let nanos = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(self.silence / 2)
    }

    /// Ranges that an honest initiator asks about in a session: each of its items is in one of each level, and of those
    /// only that many are compared.
    pub(crate) fn ranges(span: &Span) -> u64 {
        span.messages.saturating_mul(4).saturating_add(4096)
    }
}
