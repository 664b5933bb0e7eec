//! A node that looks for others and finds nobody: the log says so again, at growing intervals.
//!
//! Pure: time is handed in. What fails, and why, is said by those who look; this is for whoever waits before the log.

use std::time::{Duration, Instant};

/// When the next line is due, since the node is alone; then once a day.
const LINES: [Duration; 5] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(24 * 3600),
];

/// Since when the node has no peer, and how often that was said.
#[derive(Debug)]
pub(crate) struct Alone {
    since: Option<Instant>,
    said: u32,
}

impl Alone {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: Some(now), said: 0 }
    }

    /// Somebody is connected.
    pub(crate) fn met(&mut self) {
        self.since = None;
    }

    /// Nobody is connected any more.
    pub(crate) fn left(&mut self, now: Instant) {
        (self.since, self.said) = (Some(now), 0);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let at = match LINES.get(self.said as usize) {
            Some(at) => *at,
            None => LINES[LINES.len() - 1] * (self.said + 2 - LINES.len() as u32),
        };
        self.since?.checked_add(at)
    }

    /// For how long the node is alone, if that is to be said now.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Duration> {
        if self.deadline()? > now {
            return None;
        }
        self.said += 1;
        Some(now.saturating_duration_since(self.since?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_growing_intervals_until_somebody_is_met() {
        let start = Instant::now();
        let mut alone = Alone::new(start);
        let mut said = Vec::new();
        for _ in 0..8 {
            let at = alone.deadline().unwrap();
            assert_eq!(alone.take(at - Duration::from_millis(1)), None);
            said.push(alone.take(at).unwrap().as_secs());
        }
        let day = 24 * 3600;
        assert_eq!(said, [10, 60, 600, 3600, day, 2 * day, 3 * day, 4 * day]);
        alone.met();
        assert_eq!((alone.deadline(), alone.take(start + Duration::from_secs(10 * day))), (None, None));
        alone.left(start);
        assert_eq!(alone.deadline(), Some(start + LINES[0]));
    }
}
