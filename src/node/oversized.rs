//! How often it is said that something was too large: whoever sends a lot of it does not fill the log.
//!
//! Pure: time is handed in.

use std::time::{Duration, Instant};

/// The shortest time between two lines about it.
const EVERY: Duration = Duration::from_secs(10);

/// What was too large and is not told yet.
#[derive(Debug, Default)]
pub(crate) struct Oversized {
    told: Option<Instant>,
    untold: u64,
}

impl Oversized {
    /// Takes note of so many; if it is time to tell, gives how many there were beside the last one.
    pub(crate) fn note(&mut self, count: u64, now: Instant) -> Option<u64> {
        self.untold += count;
        if self.told.is_some_and(|told| now < told + EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold).saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_in_ten_seconds_with_how_many_others_there_were() {
        let (mut oversized, start) = (Oversized::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(oversized.note(1, at(0)), Some(0));
        assert_eq!(oversized.note(1, at(1)), None);
        assert_eq!(oversized.note(5, at(9_999)), None);
        assert_eq!(oversized.note(1, at(10_000)), Some(6));
        assert_eq!(oversized.note(2, at(20_000)), Some(1));
    }
}
