//! The log of the demo's nodes: JSON lines, with times that count from the demo's start.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

const DAY_US: u64 = 24 * 3600 * 1_000_000;

/// When the demo began, on both clocks.
pub(super) struct Start {
    at: Instant,
    /// Microseconds since midnight, UTC.
    day_us: u64,
}

impl Start {
    pub(super) fn now() -> Self {
        let us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        Self { at: Instant::now(), day_us: (us % u128::from(DAY_US)) as u64 }
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }
}

/// A line of a node's log.
pub(in crate::cli::demo) struct Line {
    /// Since the demo began.
    pub(in crate::cli::demo) at: Duration,
    /// As the node wrote it, in the text format.
    pub(in crate::cli::demo) text: String,
    pub(in crate::cli::demo) message: String,
}

#[derive(Deserialize)]
struct Json {
    ts: String,
    level: String,
    target: String,
    msg: String,
}

impl Line {
    pub(super) fn read(raw: &str, start: &Start) -> Self {
        match serde_json::from_str::<Json>(raw) {
            Ok(json) => {
                let us = day_us(&json.ts).map(|us| (us + DAY_US - start.day_us) % DAY_US);
                let at = us.map_or_else(|| start.elapsed(), Duration::from_micros);
                let text = format!("{} {:5} {}: {}", json.ts, json.level, json.target, json.msg);
                Self { at, text, message: json.msg }
            }
            // Something else than the log, for instance an error on the way out.
            Err(_) => Self { at: start.elapsed(), text: raw.to_owned(), message: raw.to_owned() },
        }
    }
}

/// The microseconds since midnight in an RFC 3339 time in UTC.
fn day_us(ts: &str) -> Option<u64> {
    let time = ts.split_once('T')?.1.strip_suffix('Z')?;
    let mut parts = time.split(':');
    let (hours, minutes) = (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?);
    let seconds = parts.next()?.parse::<f64>().ok()?;
    Some((hours * 3600 + minutes * 60) * 1_000_000 + (seconds * 1e6) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_read_to_the_microsecond() {
        assert_eq!(day_us("2026-11-21T00:00:00.000001Z"), Some(1));
        assert_eq!(day_us("2026-11-21T01:02:03.5Z"), Some(3_723_500_000));
        for bad in ["", "T", "2026-11-21T01:02Z", "2026-11-21T01:02:03"] {
            assert_eq!(day_us(bad), None, "{bad:?}");
        }
    }
}
