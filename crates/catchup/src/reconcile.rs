//! Range-based set reconciliation with one side that drives it.
//!
//! The initiator narrows down where the two sets differ by fingerprints of ever smaller ranges of its *own* items, all
//! ranges of a level together; then it lists, in order, what it has where they do. So what a comparison costs the
//! initiator is bounded by its own set whatever the answers are, and the responder keeps nothing between two frames.

use std::{collections::VecDeque, ops::Range};

use crate::{
    Item, Snapshot,
    frame::{FRAME, Frame, Listed, MAX_RANGES, Ranged, Verdict},
};

/// How ranges are cut. The table in docs/CATCHUP.md has what other values cost.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Into how many parts a range is split that differs.
    pub split: usize,
    /// Up to how many items a range is listed in the place of being split.
    pub list: usize,
    /// About how many bytes a frame may have, at most [`FRAME`].
    pub frame: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self { split: 8, list: 8, frame: FRAME }
    }
}

/// What a peer may not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Another frame than the one that is due.
    #[error("a frame that is not due")]
    Unexpected,
    /// Not one verdict for each range.
    #[error("not as many answers as ranges were asked about")]
    Count,
    /// It asks for what was not listed, or twice.
    #[error("asks for what was not listed")]
    Index,
    /// It goes on from where it has been, or from outside of the range.
    #[error("continues outside of what was asked")]
    Backwards,
    /// A range outside of what both keep.
    #[error("a range outside of what both sides keep")]
    Outside,
    /// A record that was not asked for.
    #[error("a record that was not asked for")]
    Unasked,
    /// It says again and again that ranges differ, and nothing is different.
    #[error("claims differences that are not there")]
    Lies,
}

/// A range of own items that is yet to be listed.
#[derive(Clone, Debug)]
struct Due {
    /// Only where the responder stopped within the range; else the bound below the first item.
    from: Option<Item>,
    ranks: Range<u32>,
}

/// The side that drives a comparison. Frames alternate: one of [`next_frame`](Self::next_frame), one answer.
#[derive(Debug)]
pub struct Comparison {
    snapshot: Snapshot,
    params: Params,
    from: Item,
    until: Item,
    /// To be fingerprinted; a level behind the other.
    compare: VecDeque<Range<u32>>,
    /// Ranges that differ, to be listed once nothing is left to compare.
    leaves: Vec<Range<u32>>,
    list: VecDeque<Due>,
    /// What is under way.
    sent: Sent,
    /// Own items that the responder lacks.
    give: Vec<u32>,
    /// Lists, and those of them in which nothing was different after all.
    lists: (u32, u32),
}

#[derive(Debug)]
enum Sent {
    Nothing,
    Compare(Vec<Range<u32>>),
    List(Vec<(Ranged<bool>, Range<u32>)>),
}

impl Comparison {
    /// Of what lies between two times, with nothing known about the other side yet.
    pub fn new(snapshot: Snapshot, params: Params, from: u64, until: u64) -> Self {
        let (from, until) = (Item::at(from), Item::at(until));
        let ranks = snapshot.ranks(&from, &until);
        let whole = ranks.start as u32..ranks.end as u32;
        let mut this = Self {
            snapshot,
            params,
            from,
            until,
            compare: VecDeque::new(),
            leaves: Vec::new(),
            list: VecDeque::new(),
            sent: Sent::Nothing,
            give: Vec::new(),
            lists: (0, 0),
        };
        if from < until {
            if whole.len() > this.params.list {
                this.compare.push_back(whole);
            } else {
                this.leaves.push(whole);
            }
        }
        this
    }

    /// What the answer to a fingerprint of all said.
    pub fn whole(&mut self, verdict: Verdict) {
        let whole = self.compare.pop_front().or_else(|| self.leaves.pop());
        if let Some(ranks) = whole {
            self.on_verdict(ranks, verdict);
        }
    }

    /// The next frame; none when the comparison is over.
    pub fn next_frame(&mut self) -> Option<Frame<'static>> {
        if !self.compare.is_empty() {
            return Some(self.fingerprints());
        }
        if !self.leaves.is_empty() {
            self.collect_leaves();
        }
        if self.list.is_empty() { None } else { Some(self.lists()) }
    }

    fn fingerprints(&mut self) -> Frame<'static> {
        // A bound, mostly of one or two bytes, and the fingerprint; a skip before it.
        let room = (self.params.frame / 16).clamp(1, MAX_RANGES).min(self.compare.len());
        let mut sent: Vec<_> = self.compare.drain(..room).collect();
        sent.sort_unstable_by_key(|ranks| ranks.start);
        let of = |ranks: &Range<u32>| self.snapshot.sum(&(ranks.start as usize..ranks.end as usize));
        let ranges = sent.iter().map(|ranks| self.ranged(None, ranks, of(ranks))).collect();
        self.sent = Sent::Compare(sent);
        Frame::Compare(ranges)
    }

    /// Takes the answer to fingerprints.
    pub fn on_verdicts(&mut self, verdicts: &[Verdict]) -> Result<(), Violation> {
        let Sent::Compare(sent) = std::mem::replace(&mut self.sent, Sent::Nothing) else {
            return Err(Violation::Unexpected);
        };
        if sent.len() != verdicts.len() {
            return Err(Violation::Count);
        }
        sent.into_iter().zip(verdicts).for_each(|(ranks, verdict)| self.on_verdict(ranks, *verdict));
        Ok(())
    }

    fn on_verdict(&mut self, ranks: Range<u32>, verdict: Verdict) {
        match verdict {
            Verdict::Equal => {}
            Verdict::Nothing => self.give.extend(ranks),
            Verdict::Differs if ranks.len() <= self.params.list => self.leaves.push(ranks),
            Verdict::Differs => {
                let parts = self.params.split.clamp(2, ranks.len());
                let cut = |part: usize| ranks.start + (ranks.len() * part / parts) as u32;
                self.compare.extend((0..parts).map(|part| cut(part)..cut(part + 1)));
            }
        }
    }

    /// Neighbours become one range: a bound less.
    fn collect_leaves(&mut self) {
        let mut leaves = std::mem::take(&mut self.leaves);
        leaves.sort_unstable_by_key(|ranks| ranks.start);
        for ranks in leaves {
            match self.list.back_mut() {
                Some(last) if last.ranks.end == ranks.start && last.ranks.len() < 256 => {
                    last.ranks.end = ranks.end;
                }
                _ => self.list.push_back(Due { from: None, ranks }),
            }
        }
    }

    fn lists(&mut self) -> Frame<'static> {
        let mut room = self.params.frame;
        let (mut ranges, mut sent) = (Vec::new(), Vec::new());
        while let Some(due) = self.list.pop_front() {
            let cost = 6 * due.ranks.len() + 8;
            if ranges.len() == MAX_RANGES || cost > room && !ranges.is_empty() {
                self.list.push_front(due);
                break;
            }
            room = room.saturating_sub(cost);
            let shorts = due.ranks.clone().map(|rank| self.snapshot.short(rank as usize)).collect();
            let continued = due.from.is_some();
            let range = self.ranged(due.from, &due.ranks, Listed { shorts, continued });
            sent.push((Ranged { from: range.from, to: range.to, of: continued }, due.ranks));
            ranges.push(range);
        }
        self.sent = Sent::List(sent);
        Frame::List(ranges)
    }

    /// Takes the answer to lists: what the responder lacks, its records' items, and where it stopped.
    pub fn on_answer(
        &mut self,
        lacks: &[Vec<u32>],
        items: &[Item],
        stopped: Option<(usize, Item)>,
    ) -> Result<(), Violation> {
        let Sent::List(sent) = std::mem::replace(&mut self.sent, Sent::Nothing) else {
            return Err(Violation::Unexpected);
        };
        let asked = sent.iter().filter(|(range, _)| !range.of);
        if asked.clone().count() != lacks.len() {
            return Err(Violation::Count);
        }
        for ((_, ranks), indices) in asked.zip(lacks) {
            for index in indices {
                match ranks.start.checked_add(*index) {
                    Some(rank) if rank < ranks.end => self.give.push(rank),
                    _ => return Err(Violation::Index),
                }
            }
        }
        self.check_items(&sent, items)?;
        let empty = lacks.iter().filter(|indices| indices.is_empty()).count();
        self.weigh(lacks.len(), empty.saturating_sub(items.len()))?;
        let Some((index, at)) = stopped else { return Ok(()) };
        self.resume(&sent, index, at, items.last())
    }

    /// In order, each within a range that was listed, and none that is here.
    fn check_items(&self, sent: &[(Ranged<bool>, Range<u32>)], items: &[Item]) -> Result<(), Violation> {
        let mut ranges = sent.iter().map(|(range, _)| range).peekable();
        let mut last = None;
        for item in items {
            while ranges.next_if(|range| range.to <= *item).is_some() {}
            let inside = ranges.peek().is_some_and(|range| range.from <= *item);
            if !inside || last >= Some(item) || self.snapshot.contains(item) {
                return Err(Violation::Unasked);
            }
            last = Some(item);
        }
        Ok(())
    }

    /// Who makes us list what is equal costs us bytes and gains nobody anything. A few times are honest: a message let
    /// go meanwhile, one that is too large to send.
    fn weigh(&mut self, lists: usize, empty: usize) -> Result<(), Violation> {
        self.lists.0 = self.lists.0.saturating_add(lists as u32);
        self.lists.1 = self.lists.1.saturating_add(empty as u32);
        if self.lists.1 > 32 && self.lists.1 > self.lists.0 / 2 { Err(Violation::Lies) } else { Ok(()) }
    }

    /// Lists again, from where the responder stopped on. It must have gone on since the range began.
    fn resume(
        &mut self,
        sent: &[(Ranged<bool>, Range<u32>)],
        index: usize,
        at: Item,
        last: Option<&Item>,
    ) -> Result<(), Violation> {
        let (range, ranks) = sent.get(index).ok_or(Violation::Backwards)?;
        let (Some(last), true) = (last, range.from <= at && at < range.to) else {
            return Err(Violation::Backwards);
        };
        if *last >= at {
            return Err(Violation::Backwards);
        }
        for (range, ranks) in sent[index + 1..].iter().rev() {
            self.list.push_front(Due { from: Some(range.from), ranks: ranks.clone() });
        }
        let start = self.snapshot.ranks(&at, &range.to).start as u32;
        self.list.push_front(Due { from: Some(at), ranks: start.clamp(ranks.start, ranks.end)..ranks.end });
        Ok(())
    }

    fn ranged<T>(&self, from: Option<Item>, ranks: &Range<u32>, of: T) -> Ranged<T> {
        let whole = self.snapshot.ranks(&self.from, &self.until);
        let from = from.or_else(|| self.bound(ranks.start, &whole)).unwrap_or(self.from);
        Ranged { from, to: self.bound(ranks.end, &whole).unwrap_or(self.until), of }
    }

    /// Between two items of what is compared; none at its ends.
    fn bound(&self, rank: u32, whole: &Range<usize>) -> Option<Item> {
        let (rank, items) = (rank as usize, self.snapshot.items());
        let inside = whole.start < rank && rank < whole.end;
        inside.then(|| Item::between(&items[rank - 1], &items[rank]))
    }

    /// The items that the responder lacks, in order; what was taken is not given again.
    pub fn take_given(&mut self) -> Vec<Item> {
        let mut ranks = std::mem::take(&mut self.give);
        ranks.sort_unstable();
        ranks.dedup();
        ranks.into_iter().map(|rank| self.snapshot.items()[rank as usize]).collect()
    }
}

/// The responder's answer to fingerprints.
pub fn verdicts(snapshot: &Snapshot, ranges: &[Ranged<u64>]) -> Vec<Verdict> {
    ranges.iter().map(|range| verdict(snapshot, range)).collect()
}

pub(crate) fn verdict(snapshot: &Snapshot, range: &Ranged<u64>) -> Verdict {
    let ranks = snapshot.ranks(&range.from, &range.to);
    if snapshot.sum(&ranks) == range.of {
        Verdict::Equal
    } else if ranks.is_empty() {
        Verdict::Nothing
    } else {
        Verdict::Differs
    }
}

/// The responder's answer to one list: the listed items that it lacks, and the ranks of what is not listed, ascending.
/// Without `asks` only the latter, as far as they are drawn.
pub(crate) fn differences<'s>(
    snapshot: &'s Snapshot,
    range: &Ranged<Listed>,
) -> (Vec<u32>, impl Iterator<Item = &'s Item> + use<'s>) {
    let mut listed: Vec<(u64, u32)> =
        range.of.shorts.iter().enumerate().map(|(index, short)| (*short, index as u32)).collect();
    listed.sort_unstable();
    let ranks = snapshot.ranks(&range.from, &range.to);
    let position = |listed: &[(u64, u32)], short| listed.binary_search_by_key(&short, |entry| entry.0);
    let mut lacks = Vec::new();
    if !range.of.continued {
        let mut had = vec![false; listed.len()];
        if !listed.is_empty() {
            ranks
                .clone()
                .filter_map(|rank| position(&listed, snapshot.short(rank)).ok())
                .for_each(|n| had[n] = true);
        }
        lacks = listed.iter().zip(&had).filter(|(_, had)| !**had).map(|((_, index), _)| *index).collect();
        lacks.sort_unstable();
    }
    let missing = ranks.filter(move |rank| position(&listed, snapshot.short(*rank)).is_err());
    (lacks, missing.map(|rank| &snapshot.items()[rank]))
}
