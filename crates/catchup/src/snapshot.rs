//! The items of one moment, in order, under the key of one session.
//!
//! The fingerprint of a range is the sum, modulo 2^64, of the keyed hashes of its items; with running totals it is one
//! subtraction, behind the two binary searches that find the range. Why keyed, and not one sum for all sessions in a
//! tree: docs/CATCHUP.md, "Fingerprints".

use std::ops::Range;

use crate::{Item, siphash::Key};

/// Bits of an item's hash that a list has of it.
const SHORT: u64 = 0xffff_ffff_ffff;

/// An ordered set that does not change while it is compared: 32 bytes an item.
#[derive(Clone, Debug)]
pub struct Snapshot {
    key: Key,
    items: Vec<Item>,
    /// `totals[n]`: the hashes of the first n + 1 items.
    totals: Vec<u64>,
}

impl Snapshot {
    /// Empty.
    pub fn new(key: Key) -> Self {
        Self { key, items: Vec::new(), totals: Vec::new() }
    }

    /// Appends what lies behind everything pushed before; says whether it did. One hash: a caller that must not be
    /// busy for long pushes a large memory in slices.
    pub fn push(&mut self, item: Item) -> bool {
        if self.items.last().is_some_and(|last| *last >= item) {
            return false;
        }
        let total = self.totals.last().copied().unwrap_or(0);
        self.totals.push(total.wrapping_add(self.key.hash(&item)));
        self.items.push(item);
        true
    }

    /// All of these, in any order.
    pub fn of(key: Key, mut items: Vec<Item>) -> Self {
        items.sort_unstable();
        items.dedup();
        let mut snapshot = Self::new(key);
        snapshot.totals.reserve_exact(items.len());
        snapshot.items.reserve_exact(items.len());
        items.into_iter().for_each(|item| {
            snapshot.push(item);
        });
        snapshot
    }

    /// In order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The fingerprint of what lies between two bounds, the upper one excluded.
    pub fn fingerprint(&self, from: &Item, to: &Item) -> u64 {
        self.sum(&self.ranks(from, to))
    }

    pub(crate) fn sum(&self, ranks: &Range<usize>) -> u64 {
        let before = |rank: usize| rank.checked_sub(1).map_or(0, |last| self.totals[last]);
        before(ranks.end).wrapping_sub(before(ranks.start))
    }

    /// Which of the items lie between two bounds.
    pub(crate) fn ranks(&self, from: &Item, to: &Item) -> Range<usize> {
        let start = self.items.partition_point(|item| item < from);
        let end = start + self.items[start..].partition_point(|item| item < to);
        start..end
    }

    /// What a list says of an item: 48 bits.
    pub(crate) fn short(&self, rank: usize) -> u64 {
        self.sum(&(rank..rank + 1)) & SHORT
    }

    /// What a list would say of an item that may not be in here.
    pub(crate) fn short_of(&self, item: &Item) -> u64 {
        self.key.hash(item) & SHORT
    }

    pub(crate) fn contains(&self, item: &Item) -> bool {
        self.items.binary_search(item).is_ok()
    }
}
