//! How long to wait before the next try.
//!
//! Pure: the number of failures and a random source go in, a delay comes out. Nothing here sleeps.

use std::time::Duration;

/// Exponential backoff with jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    /// The share of each step that is certain; the rest is drawn by lot.
    certain: f64,
}

impl Backoff {
    /// Delays of `min`, doubling up to `max`, each shortened by up to a quarter: for questions that
    /// cost nothing and must be repeated on time.
    pub(crate) fn steady(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), certain: 0.75 }
    }

    /// Delays drawn evenly between `min` and a bound that doubles up to `max` ("full jitter"): for
    /// tries that many nodes make simultaneously against one that just came back.
    pub(crate) fn full_jitter(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), certain: 0.0 }
    }

    /// The delay after `failures` failures in a row; 1 is the first.
    pub(crate) fn delay(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let doubled = 2_u32.checked_pow(failures.saturating_sub(1)).and_then(|f| self.min.checked_mul(f));
        let bound = doubled.unwrap_or(self.max).min(self.max);
        let least = bound.mul_f64(self.certain).max(self.min.min(bound).mul_f64(0.75));
        least + (bound - least).mul_f64(rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    proptest! {
        #[test]
        fn a_delay_lies_between_its_bounds(seed: u64, failures: u32, min in 1_u64..1000, max in 1_u64..100_000) {
            let mut rng = fastrand::Rng::with_seed(seed);
            for backoff in [Backoff::steady(MS(min), MS(max)), Backoff::full_jitter(MS(min), MS(max))] {
                let delay = backoff.delay(failures, &mut rng);
                prop_assert!(delay >= MS(min).mul_f64(0.74), "{delay:?}");
                prop_assert!(delay <= MS(max.max(min)), "{delay:?}");
            }
        }
    }

    #[test]
    fn steady_delays_double_and_stop_at_the_maximum() {
        let backoff = Backoff::steady(MS(100), MS(1000));
        let mut rng = fastrand::Rng::with_seed(1);
        for (failures, bound) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (50, 1000)] {
            let delay = backoff.delay(failures, &mut rng);
            assert!(delay <= MS(bound) && delay >= MS(bound * 3 / 4), "{failures}: {delay:?}");
        }
    }

    #[test]
    fn full_jitter_spreads_a_crowd_over_the_whole_step() {
        let backoff = Backoff::full_jitter(MS(100), MS(30_000));
        let mut rng = fastrand::Rng::with_seed(1);
        let delays: Vec<_> = (0..1000).map(|_| backoff.delay(20, &mut rng)).collect();
        let early = delays.iter().filter(|d| **d < MS(10_000)).count();
        let late = delays.iter().filter(|d| **d > MS(20_000)).count();
        assert!(early > 250 && late > 250, "early {early}, late {late}");
    }
}
