//! Sequence numbers that are times: what says when a message was sent, signed by its author without a byte more.
//!
//! Stock rust-libp2p and go-libp2p count on from the nanoseconds since 1970 at which they were started, js-libp2p picks
//! numbers at random. Ours have 42 bits of milliseconds since 1970, 6 of a counter, and 16 that follow from those: no
//! other program's numbers are taken for a time by accident, and all of ours are above those that an earlier version used.

use libp2p::PeerId;
use smidge_catchup::{Id, Item};

use super::book::AHEAD;

/// 2020: no message is older, and no count of nanoseconds before 2179 reads as a later time.
const EARLIEST: u64 = 1_577_836_800_000;
const MILLIS: u32 = 42;
const CHECK: u32 = 16;
const COUNTER: u32 = 6;

/// Makes numbers, each above the one before.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// Milliseconds and counter.
    last: u64,
}

impl Numbers {
    /// The next one, at a moment in milliseconds since 1970. More than 64 in a millisecond borrow from the next.
    pub(crate) fn next(&mut self, now: u64) -> u64 {
        let now = now.min((1 << MILLIS) - 1) << COUNTER;
        self.last = (self.last + 1).max(now);
        (self.last << CHECK) | check(self.last)
    }

    /// A number of this node from a run before: the next ones are above it, unless it is so far ahead that nobody would keep
    /// them.
    pub(crate) fn follow(&mut self, sequence: u64, now: u64) {
        let is_near = |sent: u64| sent <= now.saturating_add(AHEAD.as_millis() as u64);
        if sent(sequence).is_some_and(is_near) {
            self.last = self.last.max(sequence >> CHECK);
        }
    }
}

/// Spreads what it is given over 16 bits: to keep accidents apart, not authors.
fn check(stamp: u64) -> u64 {
    stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - CHECK)
}

/// When a message was sent, if its number says so: milliseconds since 1970.
pub(crate) fn sent(sequence: u64) -> Option<u64> {
    let stamp = sequence >> CHECK;
    let millis = stamp >> COUNTER;
    let holds = millis >= EARLIEST && sequence & ((1 << CHECK) - 1) == check(stamp);
    holds.then_some(millis)
}

/// Where a message stands in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) item: Item,
    /// The time is the author's word, not a guess at what its number may be.
    pub(crate) timed: bool,
}

/// The place of a message by its author and number (docs/CATCHUP.md, "Items").
pub(crate) fn place(author: &PeerId, sequence: u64) -> Place {
    let (time, order) = match sent(sequence) {
        Some(millis) => (millis, sequence & ((1 << (64 - MILLIS)) - 1)),
        None => (sequence / 1_000_000, sequence % 1_000_000),
    };
    let mut name = author.to_bytes();
    name.extend_from_slice(&sequence.to_be_bytes());
    let mut id = Id::of(&name);
    // Those of one author and millisecond in their order.
    id.0[..3].copy_from_slice(&order.to_be_bytes()[5..]);
    Place { item: Item { time, id }, timed: sent(sequence).is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_000_000_000;

    #[test]
    fn numbers_are_times_and_ascend_also_where_the_clock_goes_back() {
        let author = PeerId::random();
        let mut numbers = Numbers::default();
        let mut before = None;
        for now in [NOW, NOW, NOW + 5, NOW - 1000, NOW - 1000, NOW + 6] {
            let number = numbers.next(now);
            let place = place(&author, number);
            assert!(place.timed && place.item.time.abs_diff(NOW) <= 6);
            assert!(before < Some((number, place.item)));
            before = Some((number, place.item));
        }
        assert_eq!(before.unwrap().1.time, NOW + 6);
        // 10,000 in one millisecond end 157 later, in order.
        let all: Vec<_> = (0..10_000).map(|_| place(&author, numbers.next(NOW)).item).collect();
        assert!(all.is_sorted() && all[9999].time - NOW < 170);
    }

    #[test]
    fn what_other_programs_count_is_no_time_of_ours_and_keeps_its_order() {
        let author = PeerId::random();
        let nanos = NOW * 1_000_000 + 123;
        for count in 0..100_000 {
            let place = place(&author, nanos + count);
            assert_eq!((place.timed, place.item.time), (false, NOW));
        }
        assert!(place(&author, nanos).item < place(&author, nanos + 1).item);
        assert!(Numbers::default().next(NOW) > nanos, "above those of an earlier version");
        let mut random = fastrand::Rng::with_seed(7);
        let taken = (0..1_000_000).filter(|_| place(&author, random.u64(..)).timed).count();
        assert!(taken < 40, "{taken}");
    }
}
