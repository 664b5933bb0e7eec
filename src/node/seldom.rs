//! How often something is logged that happens all the time: the peer that causes it does not fill the log.
//!
//! Pure: time is handed in.

use std::time::{Duration, Instant};

/// What happened and is not reported yet.
#[derive(Debug)]
pub(crate) struct Seldom {
    /// The shortest time between two lines about it.
    every: Duration,
    reported_at: Option<Instant>,
    unreported: u64,
}

impl Seldom {
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, reported_at: None, unreported: 0 }
    }

    /// Counts `count`; if it is time for a report, gives how many there were beside the last one.
    pub(crate) fn note(&mut self, count: u64, now: Instant) -> Option<u64> {
        self.unreported += count;
        if self.reported_at.is_some_and(|at| now < at + self.every) {
            return None;
        }
        self.reported_at = Some(now);
        Some(std::mem::take(&mut self.unreported).saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_in_ten_seconds_with_how_many_others_there_were() {
        let (mut seldom, start) = (Seldom::new(Duration::from_secs(10)), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(seldom.note(1, at(0)), Some(0));
        assert_eq!(seldom.note(1, at(1)), None);
        assert_eq!(seldom.note(5, at(9_999)), None);
        assert_eq!(seldom.note(1, at(10_000)), Some(6));
        assert_eq!(seldom.note(2, at(20_000)), Some(1));
    }
}
