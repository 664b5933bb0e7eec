//! Warnings about what keeps failing, rate-limited.
//!
//! Pure: a line and the present moment in, whether to log it out.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The least time between two lines about one thing.
const EVERY: Duration = Duration::from_secs(60);
/// Different things remembered; beyond that, all are news again.
const MOST: usize = 64;

/// What was logged lately, and how often it happened since.
#[derive(Debug, Default)]
pub(crate) struct Repeats(HashMap<String, (Instant, u64)>);

impl Repeats {
    /// What to log of `text`, which happened at `now`: nothing, if it was logged less than a minute ago.
    pub(crate) fn say(&mut self, text: &str, now: Instant) -> Option<String> {
        if let Some((said, meanwhile)) = self.0.get_mut(text) {
            if now.saturating_duration_since(*said) < EVERY {
                *meanwhile += 1;
                return None;
            }
            let times = std::mem::take(meanwhile);
            *said = now;
            return Some(match times {
                0 => text.to_owned(),
                times => format!("{text} ({times} more times in the last minute)"),
            });
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(text.to_owned(), (now, 0));
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_said_once_a_minute_with_how_often_it_happened() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let said: Vec<_> = (0..1201).filter_map(|n| repeats.say("no room", at(n * 100))).collect();
        assert_eq!(
            said,
            [
                "no room",
                "no room (599 more times in the last minute)",
                "no room (599 more times in the last minute)"
            ]
        );
        assert_eq!(repeats.say("another", at(1)).as_deref(), Some("another"));
        for n in 0..10 * MOST {
            repeats.say(&n.to_string(), at(0));
            assert!(repeats.0.len() <= MOST);
        }
    }
}
