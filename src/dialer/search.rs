//! How eagerly few live records of a large name are looked for among many at which nobody is.
//!
//! A dial that is silent for longer than others took loses its place to the next record, and goes on beside it. Where as many
//! as are tried together are all in vain, twice as many are, up to what may be under way; where one succeeds, half.
//!
//! Pure.

use std::time::Duration;

/// How long a dial has, about, while it is not known how long one takes.
const UNKNOWN: Duration = Duration::from_millis(500);
/// How long one has at least, and at most.
const LEAST: Duration = Duration::from_millis(250);
const MOST: Duration = Duration::from_secs(5);
/// How many times as long as the ones before a dial has.
const TIMES: u32 = 4;

#[derive(Clone, Debug)]
pub(crate) struct Search {
    least: usize,
    most: usize,
    width: usize,
    in_vain: usize,
    took: Option<Duration>,
}

impl Search {
    /// Between `least` and `most` records are tried together.
    pub(crate) fn new(least: usize, most: usize) -> Self {
        Self { least, most: most.max(least), width: least, in_vain: 0, took: None }
    }

    /// As many records are tried together while there are too few neighbours.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// How long a dial holds the place of another.
    pub(crate) fn patience(&self) -> Duration {
        self.took.map_or(UNKNOWN, |took| (took * TIMES).clamp(LEAST, MOST))
    }

    /// A record is connected, after a dial that took so long, or without one.
    pub(crate) fn succeeded(&mut self, took: Option<Duration>) {
        (self.in_vain, self.width) = (0, (self.width / 2).max(self.least));
        if let Some(took) = took {
            // One that took long counts immediately, one that did not little by little.
            self.took = Some(self.took.map_or(took, |before| took.max((before * 7 + took) / 8)));
        }
    }

    /// A record does not answer.
    pub(crate) fn failed(&mut self) {
        self.in_vain += 1;
        if self.in_vain >= self.width {
            (self.in_vain, self.width) = (0, (self.width * 2).min(self.most));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_as_many_are_tried_where_all_were_in_vain_and_half_where_one_was_not() {
        let mut search = Search::new(8, 64);
        let widths = [8, 8, 16, 32, 64, 64].map(|failures| {
            (0..failures).for_each(|_| search.failed());
            search.width()
        });
        assert_eq!(widths, [16, 16, 32, 64, 64, 64]);
        search.succeeded(None);
        assert_eq!(search.width(), 32);
        (0..10).for_each(|_| search.succeeded(None));
        assert_eq!(search.width(), 8);
        assert_eq!(Search::new(8, 2).width(), 8);
    }

    #[test]
    fn a_dial_has_four_times_as_long_as_others_took() {
        let mut search = Search::new(8, 64);
        assert_eq!(search.patience(), UNKNOWN);
        search.succeeded(Some(Duration::from_millis(5)));
        assert_eq!(search.patience(), LEAST);
        search.succeeded(Some(Duration::from_millis(400)));
        assert_eq!(search.patience(), Duration::from_millis(1600), "a slow one counts");
        search.succeeded(Some(Duration::from_secs(4)));
        assert_eq!(search.patience(), MOST);
        (0..100).for_each(|_| search.succeeded(Some(Duration::from_millis(5))));
        assert_eq!(search.patience(), LEAST);
    }
}
