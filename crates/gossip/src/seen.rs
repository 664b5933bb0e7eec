//! Which messages there have been: fingerprints with their time, in generations.
//!
//! A generation is a set that is filled until it is full or old, and dropped in one piece once all in it have been there
//! for long enough. So forgetting needs no insertion, costs nothing for each message, and gives memory back; a full
//! generation is a hash table at its highest load, 19.4 bytes for each fingerprint.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use crate::fingerprint::{BuildFingerprintHasher, Fingerprint};

/// Fingerprints in one generation: seven eighths of a hash table of 2^14 places, which is when it would grow.
const GENERATION: usize = 14_336;

/// Into how many generations the time is divided where few messages come: something is remembered for up to an eighth
/// longer than it was asked for.
const PARTS: u32 = 8;

/// A set that forgets.
#[derive(Debug)]
pub struct SeenSet {
    time: Duration,
    capacity: usize,
    /// The oldest first.
    generations: VecDeque<Generation>,
    count: usize,
    /// Forgotten before their time, because there were too many.
    evicted: u64,
}

#[derive(Debug)]
struct Generation {
    began: Instant,
    /// When something was last put in.
    last: Instant,
    set: HashSet<Fingerprint, BuildFingerprintHasher>,
}

impl SeenSet {
    /// Remembers each for `time`, and at most about `capacity` of them: beyond that, the oldest are forgotten, up to
    /// 14,336 of them in one go.
    pub fn new(time: Duration, capacity: usize) -> Self {
        Self { time, capacity: capacity.max(1), generations: VecDeque::new(), count: 0, evicted: 0 }
    }

    /// Whether it is remembered.
    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        // Copies come soon after the first one.
        self.generations.iter().rev().any(|generation| generation.set.contains(fingerprint))
    }

    /// Remembers it from now on; says whether it is new. What is known keeps the time it had.
    pub fn insert(&mut self, fingerprint: Fingerprint, now: Instant) -> bool {
        self.expire(now);
        if self.contains(&fingerprint) {
            return false;
        }
        let size = GENERATION.min(self.capacity.div_ceil(2));
        let span = self.time / PARTS;
        let full = self.generations.back().is_none_or(|generation| {
            generation.set.len() >= size || now.saturating_duration_since(generation.began) >= span
        });
        if full {
            self.generations.push_back(Generation { began: now, last: now, set: HashSet::default() });
        }
        if let Some(generation) = self.generations.back_mut() {
            generation.last = now.max(generation.last);
            generation.set.insert(fingerprint);
            self.count += 1;
        }
        while self.count > self.capacity {
            self.evicted += self.drop_oldest() as u64;
        }
        true
    }

    /// Forgets what is old enough; says how many that were.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.count;
        while self.generations.front().is_some_and(|g| now.saturating_duration_since(g.last) >= self.time) {
            self.drop_oldest();
        }
        before - self.count
    }

    /// When there is something to forget next.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.generations.front().and_then(|generation| generation.last.checked_add(self.time))
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many were forgotten before their time since the beginning.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Bytes of memory, as good as it can be known.
    pub fn bytes(&self) -> usize {
        let table = |generation: &Generation| match generation.set.capacity() {
            0 => 0,
            // A byte beside each place, and places for an eighth more than the table takes.
            capacity => (capacity * 8).div_ceil(7).next_power_of_two() * (size_of::<Fingerprint>() + 1) + 16,
        };
        self.generations.iter().map(|generation| size_of::<Generation>() + table(generation)).sum()
    }

    fn drop_oldest(&mut self) -> usize {
        let dropped = self.generations.pop_front().map_or(0, |generation| generation.set.len());
        self.count -= dropped;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::Fingerprinter;

    const MINUTE: Duration = Duration::from_secs(60);

    fn fingerprint(n: u64) -> Fingerprint {
        Fingerprinter::with_key([1, 2]).id(&n.to_le_bytes())
    }

    #[test]
    fn what_is_old_goes_without_anything_being_put_in() {
        let start = Instant::now();
        let mut seen = SeenSet::new(MINUTE, 1_000_000);
        for n in 0..100_000 {
            assert!(seen.insert(fingerprint(n), start));
        }
        assert!(!seen.insert(fingerprint(5), start + MINUTE / 2));
        assert_eq!(seen.next_expiry(), Some(start + MINUTE));
        assert_eq!(seen.expire(start + MINUTE - Duration::from_millis(1)), 0);
        assert_eq!(seen.expire(start + MINUTE), 100_000);
        assert!(seen.is_empty());
        assert_eq!(seen.bytes(), 0);
        assert_eq!(seen.next_expiry(), None);
    }

    #[test]
    fn a_fingerprint_costs_less_than_twenty_one_bytes_where_there_are_many() {
        let start = Instant::now();
        let mut seen = SeenSet::new(MINUTE, 1_000_000);
        for n in 0..100_000 {
            seen.insert(fingerprint(n), start);
        }
        let each = seen.bytes() as f64 / 100_000.0;
        assert!(each < 21.0, "{each} bytes each");
    }

    #[test]
    fn too_many_push_out_the_oldest_and_are_counted() {
        let start = Instant::now();
        let mut seen = SeenSet::new(MINUTE, 1_000);
        for n in 0..10_000 {
            assert!(seen.insert(fingerprint(n), start));
            assert!(seen.len() <= 1_000);
        }
        assert!(seen.contains(&fingerprint(9_999)));
        assert!(seen.contains(&fingerprint(9_600)), "half of the room is never given up");
        assert!(!seen.contains(&fingerprint(0)));
        assert_eq!(seen.evicted() + seen.len() as u64, 10_000);
    }

    proptest! {
        #[test]
        fn all_is_remembered_for_its_time_and_nothing_for_much_longer(
            steps in prop::collection::vec((0u64..40, 0u64..20_000), 1..300)
        ) {
            let mut now = Instant::now();
            let mut seen = SeenSet::new(MINUTE, 1_000_000);
            let mut model: HashMap<u64, Instant> = HashMap::new();
            for (n, later) in steps {
                now += Duration::from_millis(later);
                let known = model.get(&n).map(|first| now - *first);
                let new = seen.insert(fingerprint(n), now);
                match known {
                    Some(age) if age < MINUTE => prop_assert!(!new),
                    Some(age) if age >= MINUTE + MINUTE / PARTS => prop_assert!(new),
                    None => prop_assert!(new),
                    _ => {}
                }
                if new {
                    model.insert(n, now);
                }
                prop_assert!(seen.contains(&fingerprint(n)));
            }
            let left = seen.len();
            prop_assert_eq!(seen.expire(now + MINUTE), left);
            prop_assert!(seen.is_empty());
        }
    }
}
