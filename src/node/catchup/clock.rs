//! How far this node's clock may be from everybody's: by what its neighbours' clocks say.

use std::collections::HashMap;

use libp2p::PeerId;

/// Less than this is nothing: what is under way takes that long.
const NOISE: i64 = 2_000;
/// A clock that was set is not corrected by more, whatever neighbours say: a day.
const MOST: i64 = 24 * 3600 * 1000;
/// Before 2025: a clock that nobody has set.
const UNSET: u64 = 1_735_689_600_000;
/// Neighbours heard.
const NEIGHBOURS: usize = 256;

/// The correction of a clock, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    skews: HashMap<PeerId, i64>,
    correction: i64,
}

impl Clock {
    /// A neighbour's clock is so far ahead of ours, which says `now`. Whether the correction changed.
    pub(crate) fn heard(&mut self, peer: PeerId, skew: i64, now: u64) -> bool {
        if self.skews.len() < NEIGHBOURS || self.skews.contains_key(&peer) {
            self.skews.insert(peer, skew);
        }
        self.correct(now)
    }

    /// A neighbour is gone. The correction stays until another is heard: it was right a moment ago.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.skews.remove(peer);
    }

    /// The median of all clocks, ours among them if it is set; of two in the middle the later one, so that two nodes
    /// alone agree.
    fn correct(&mut self, now: u64) -> bool {
        let own = (now >= UNSET).then_some(0);
        let mut all: Vec<i64> = self.skews.values().copied().chain(own).collect();
        all.sort_unstable();
        let median = all.get(all.len() / 2).copied().unwrap_or(0);
        let most = if own.is_some() { MOST } else { i64::MAX };
        let median = if median.abs() < NOISE { 0 } else { median.clamp(-most, most) };
        let before = std::mem::replace(&mut self.correction, median);
        before.abs_diff(median) >= NOISE as u64
    }

    /// What everybody's clocks say where ours says `now`.
    pub(crate) fn common(&self, now: u64) -> u64 {
        now.saturating_add_signed(self.correction)
    }

    /// The earlier of both: nothing is too old that is not by either.
    pub(crate) fn earlier(&self, now: u64) -> u64 {
        now.min(self.common(now))
    }

    /// How far apart both are, milliseconds.
    pub(crate) fn apart(&self) -> u64 {
        self.correction.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_000_000_000;
    const HOUR: i64 = 3_600_000;

    fn clock(skews: &[i64], now: u64) -> Clock {
        let mut clock = Clock::default();
        skews.iter().for_each(|skew| {
            clock.heard(PeerId::random(), *skew, now);
        });
        clock
    }

    #[test]
    fn one_wrong_clock_is_corrected_and_corrects_nobody() {
        assert_eq!(clock(&[HOUR, HOUR + 80, HOUR - 70], NOW).common(NOW), NOW + HOUR as u64);
        assert_eq!(clock(&[0, 40, -HOUR], NOW).common(NOW), NOW);
        assert_eq!(clock(&[700, -900], NOW).common(NOW), NOW, "on its way for that long");
    }

    #[test]
    fn two_nodes_alone_agree() {
        let (ahead, behind) = (NOW + HOUR as u64, NOW);
        assert_eq!(clock(&[-HOUR], ahead).common(ahead), clock(&[HOUR], behind).common(behind));
    }

    #[test]
    fn a_liar_moves_a_clock_that_is_set_by_a_day_and_makes_nothing_too_old() {
        let ahead = clock(&[i64::MAX], NOW);
        assert_eq!((ahead.common(NOW) - NOW, ahead.earlier(NOW)), (MOST as u64, NOW));
        assert_eq!(clock(&[i64::MIN], NOW).common(NOW), NOW);
        assert_eq!(clock(&[NOW as i64 - 5000], 5000).common(5000), NOW, "a clock that nobody has set");
    }
}
