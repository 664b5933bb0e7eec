//! Hybrid logical clocks (Kulkarni et al., 2014): time that never runs backwards along what was heard.

use std::time::Duration;

/// Milliseconds since 1970 in the upper 48 bits, a counter in the lower 16: what is written after something was read has
/// a higher stamp, whatever the clocks of the two nodes say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp of a millisecond.
    pub const fn at(millis: u64) -> Self {
        Self(if millis >> 48 == 0 { millis << 16 } else { u64::MAX })
    }

    /// The millisecond.
    pub const fn millis(self) -> u64 {
        self.0 >> 16
    }
}

/// A stamp further ahead of the node's clock than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stamp {ahead:?} ahead of this node's clock, more than {drift:?}: one of the two clocks is wrong")]
pub struct TooFarAhead {
    /// How far it is ahead.
    pub ahead: Duration,
    /// How far it may be.
    pub drift: Duration,
}

/// A node's clock. Stamps of others move it, but never further ahead than the drift: one wrong clock does not spread.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    last: Stamp,
    drift: Duration,
}

impl Clock {
    /// Takes stamps up to `drift` ahead. `last` is the last stamp that this node made before it was restarted, if known.
    pub fn new(drift: Duration, last: Option<Stamp>) -> Self {
        Self { last: last.unwrap_or_default(), drift }
    }

    /// A stamp above all that were made and seen. More than 65,536 in a millisecond borrow from the next one.
    pub fn stamp(&mut self, now: u64) -> Stamp {
        self.last = Stamp(self.last.0.saturating_add(1)).max(Stamp::at(now));
        self.last
    }

    /// A stamp of somebody else.
    pub fn see(&mut self, stamp: Stamp, now: u64) -> Result<(), TooFarAhead> {
        self.check(stamp, now)?;
        self.last = self.last.max(stamp);
        Ok(())
    }

    /// Whether a stamp would be taken now.
    pub fn check(&self, stamp: Stamp, now: u64) -> Result<(), TooFarAhead> {
        let ahead = Duration::from_millis(stamp.millis().saturating_sub(now));
        if ahead > self.drift { Err(TooFarAhead { ahead, drift: self.drift }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_after_something_was_read_is_newer_whatever_the_clocks_say() {
        let (mut ahead, mut behind) =
            (Clock::new(Duration::from_secs(60), None), Clock::new(Duration::from_secs(60), None));
        let first = ahead.stamp(1_000_050);
        behind.see(first, 1_000_000).unwrap();
        let second = behind.stamp(1_000_001);
        assert!(second > first);
        assert_eq!(second.millis(), 1_000_050);
        assert_eq!(behind.stamp(1_000_100), Stamp::at(1_000_100), "its own clock leads again");
    }

    #[test]
    fn one_wrong_clock_does_not_move_the_others() {
        let mut clock = Clock::new(Duration::from_secs(60), None);
        let refused = clock.see(Stamp::at(1_000_000 + 60_001), 1_000_000);
        assert_eq!(refused.unwrap_err().ahead, Duration::from_millis(60_001));
        assert_eq!(clock.stamp(1_000_000), Stamp::at(1_000_000));
        assert_eq!(clock.see(Stamp::at(u64::MAX), 0).unwrap_err().drift, Duration::from_secs(60));
    }

    #[test]
    fn a_restart_and_a_clock_that_was_set_back_make_no_stamp_twice() {
        let mut clock = Clock::new(Duration::ZERO, None);
        let last = (0..70_000).map(|_| clock.stamp(5)).last().unwrap();
        assert_eq!(last.millis(), 6);
        assert!(Clock::new(Duration::ZERO, Some(last)).stamp(3) > last);
    }
}
