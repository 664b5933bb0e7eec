//! Since when a node's values by key are kept up with those of others, and whether it was away for longer than deletions
//! are remembered.
//!
//! Pure: time is handed in, in milliseconds since 1970. Whoever was away for so long cannot know what was deleted
//! meanwhile: it throws its copy away when it meets somebody who was there all the time, rather than that it revives what
//! was deleted. Of two that meet, the one whose copy goes back further begins the session, so that the other one knows.

use std::time::Duration;

/// What one says that was away: its copy is nobody's measure.
pub const AWAY: u64 = u64::MAX;

/// One topic's.
#[derive(Clone, Copy, Debug)]
pub struct Presence {
    marks: u64,
    /// From when on this copy has heard of all deletions.
    since: u64,
    /// When others were there last, if they ever were.
    left: Option<u64>,
}

impl Presence {
    /// A copy that begins now; deletions are remembered for `marks`.
    pub fn new(marks: Duration, now: u64) -> Self {
        Self { marks: millis(marks), since: now, left: None }
    }

    /// Deletions are remembered for so long from now on.
    pub fn set_marks(&mut self, marks: Duration) {
        self.marks = millis(marks);
    }

    /// Since when this copy is whole, and when others were there last: to be kept on a disk.
    pub fn state(&self) -> (u64, Option<u64>) {
        (self.since, self.left)
    }

    /// The copy of a run before goes on.
    pub fn resume(&mut self, since: u64, left: Option<u64>) {
        (self.since, self.left) = (since.min(self.since), left);
    }

    /// Whether it was alone for so long that deletions of others may be forgotten.
    pub fn is_away(&self, now: u64) -> bool {
        self.left.is_some_and(|left| now.saturating_sub(left) >= self.marks)
    }

    /// Others are there. It changes nothing for one that was away: that is for a session to do.
    pub fn touch(&mut self, now: u64) {
        if !self.is_away(now) {
            self.left = self.left.max(Some(now));
        }
    }

    /// What is said of this copy in a greeting: since when it is whole, or [`AWAY`].
    pub fn announced(&self, now: u64) -> u64 {
        if self.is_away(now) { AWAY } else { self.since.min(AWAY - 1) }
    }

    /// Whether this copy goes back further than that of somebody who greets, and is to begin in its place.
    pub fn goes_before(&self, theirs: u64, now: u64) -> bool {
        self.announced(now) < theirs
    }

    /// Somebody greets whose copy is whole since then. If this node was away, and the other was there before it left, what
    /// this node has is to be thrown away, up to the time given back.
    pub fn greeted(&mut self, theirs: u64, now: u64) -> Option<u64> {
        let left = self.left.filter(|left| self.is_away(now) && theirs <= *left)?;
        (self.since, self.left) = (now, Some(now));
        Some(left)
    }

    /// A session came to its end: both have what either had. `theirs` is what was said in the greeting of the other.
    pub fn met(&mut self, theirs: Option<u64>, now: u64) {
        self.left = self.left.max(Some(now));
        self.since = theirs.unwrap_or(AWAY).min(self.since);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;
    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn since(now: u64) -> Presence {
        Presence::new(WEEK, now)
    }

    #[test]
    fn who_was_away_for_longer_than_marks_throws_its_copy_away_before_those_who_were_there() {
        let (mut away, stayed) = (since(DAY), since(DAY / 2));
        away.met(Some(stayed.announced(DAY)), 2 * DAY);
        away.touch(3 * DAY);
        assert!(!away.is_away(9 * DAY) && away.greeted(stayed.announced(9 * DAY), 9 * DAY).is_none());
        assert!(away.is_away(10 * DAY));
        away.touch(10 * DAY);
        assert_eq!(away.announced(10 * DAY), AWAY, "that others are there again tells it nothing");
        assert!(stayed.goes_before(away.announced(10 * DAY), 10 * DAY), "the other begins");
        assert_eq!(away.greeted(stayed.announced(10 * DAY), 10 * DAY), Some(3 * DAY));
        assert_eq!(away.greeted(stayed.announced(10 * DAY), 10 * DAY), None, "once");
        assert_eq!(away.announced(10 * DAY), 10 * DAY, "it is nobody's measure until it has all again");
        away.met(Some(stayed.announced(10 * DAY)), 10 * DAY);
        assert_eq!(away.announced(10 * DAY), DAY / 2);
    }

    #[test]
    fn nobody_throws_away_what_only_it_has() {
        // A node that never met anybody, one that meets a newcomer, and two that were both alone.
        let mut alone = since(0);
        assert!(!alone.is_away(100 * DAY) && alone.greeted(0, 100 * DAY).is_none());
        alone.met(None, 100 * DAY);
        let newcomer = since(150 * DAY);
        assert_eq!(alone.greeted(newcomer.announced(150 * DAY), 150 * DAY), None);
        let mut other = since(0);
        other.met(None, 100 * DAY);
        assert!(!other.goes_before(alone.announced(150 * DAY), 150 * DAY));
        assert_eq!(other.greeted(alone.announced(150 * DAY), 150 * DAY), None);
        other.met(Some(AWAY), 150 * DAY);
        assert!(!other.is_away(150 * DAY) && other.announced(150 * DAY) == 0);
    }

    #[test]
    fn a_newcomer_is_a_measure_once_it_has_all_that_one_of_before_had() {
        let (mut newcomer, old) = (since(50 * DAY), since(DAY));
        assert!(old.goes_before(newcomer.announced(50 * DAY), 50 * DAY));
        newcomer.met(Some(old.announced(50 * DAY)), 50 * DAY);
        assert!(!old.goes_before(newcomer.announced(50 * DAY), 50 * DAY));
        assert_eq!(newcomer.announced(50 * DAY), DAY);
    }
}
