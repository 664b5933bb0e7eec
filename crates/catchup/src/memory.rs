//! What a node remembers of one topic: the newest messages, bounded in number, bytes and age.
//!
//! What goes out is decided by what authors signed, their time, and by bounds: first what is older than the age, then
//! the oldest. So neighbours with equal bounds let the same go, and [`Memory::span`] says what is kept, so that nobody
//! hands us again what was. When it came, and from where, decides nothing.

mod authors;
mod changes;
mod sorted;

use std::time::Duration;

pub use self::changes::Unwritten;
use self::{
    authors::Authors,
    changes::Changes,
    sorted::{Entry, Sorted},
};
use crate::{Id, Item, Key, Snapshot, frame::Span};

/// How much of a topic is kept. Each of them is enough to let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Messages.
    pub messages: usize,
    /// Bytes, [`Memory::OVERHEAD`] of each message included.
    pub bytes: usize,
    /// By the author's time.
    pub age: Duration,
    /// How far an author's time may be ahead of the node's clock: more is not kept, for it would outlive all others.
    pub ahead: Duration,
    /// Floors of authors that nothing is kept of any more. Beyond that the lowest become one floor for all the others.
    pub authors: usize,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            messages: 1000,
            bytes: 1 << 20,
            age: Duration::from_secs(600),
            ahead: Duration::from_secs(2 * 3600),
            authors: 4096,
        }
    }
}

/// Why a message is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unkept {
    /// It is there.
    #[error("known")]
    Known,
    /// Not newer than what was let go of its author: said before, perhaps, and not new again.
    #[error("older than what was let go of its author")]
    BelowFloor,
    /// Its author's time is too far back.
    #[error("older than what is kept")]
    TooOld,
    /// Its author's time is too far ahead of the node's clock.
    #[error("its time is too far ahead")]
    TooFarAhead,
    /// What is newer was let go already; or it is larger than all that may be kept, and then nothing is remembered of it.
    #[error("older than all that there is room for")]
    NoRoom,
}

/// A message, and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered<'m> {
    /// Its place.
    pub item: Item,
    /// Its number among all that this memory ever took, in the order in which they came, from 1.
    pub number: u64,
    /// What verifies it.
    pub record: &'m [u8],
}

/// What there is from a place on.
#[derive(Debug)]
pub struct Since<I> {
    /// Something behind that place was let go: whoever resumes from there has a gap for good.
    pub gap: bool,
    /// In order.
    pub messages: I,
}

/// The memory of a topic.
#[derive(Debug)]
pub struct Memory {
    keep: Keep,
    sorted: Sorted,
    /// Of all records.
    bytes: usize,
    authors: Authors,
    /// The newest that was ever let go.
    let_go: Option<Item>,
    /// The number of the last that came, and the highest of those let go.
    last_number: u64,
    gone_number: u64,
    /// What a file lacks, if somebody writes one.
    changes: Option<Changes>,
}

impl Memory {
    /// What a message costs beyond its record, about: its place (48 bytes) and the allocator's.
    pub const OVERHEAD: usize = 80;

    /// Empty.
    pub fn new(keep: Keep) -> Self {
        let authors = Authors::new(keep.authors);
        Self {
            keep,
            sorted: Sorted::default(),
            bytes: 0,
            authors,
            let_go: None,
            last_number: 0,
            gone_number: 0,
            changes: None,
        }
    }

    /// Keeps a message that was verified; `now` is in milliseconds since 1970, as times are. `author` stands for its
    /// author ([`Id::of`] its peer id). The record holds what neighbours need to verify it. It is copied: as a share of
    /// the frame that it came in it would keep all of that.
    pub fn insert(&mut self, item: Item, author: Id, record: &[u8], now: u64) -> Result<(), Unkept> {
        self.expire(now);
        self.admits(&item, author, now)?;
        let size = record.len() + Self::OVERHEAD;
        if size > self.keep.bytes {
            return Err(Unkept::NoRoom);
        }
        if self.let_go >= Some(item) {
            // As if it had come in time, and been let go since.
            self.authors.raise(Some(author), item);
            return Err(Unkept::NoRoom);
        }
        let author = self.authors.kept(author);
        let number = self.last_number + 1;
        if !self.sorted.insert(Entry { item, author, number: number as u32, record: record.into() }) {
            // It was looked for above.
            self.authors.let_go(author, &item);
            return Err(Unkept::Known);
        }
        self.last_number = number;
        self.bytes += size;
        if let Some(changes) = &mut self.changes {
            changes.keep(item);
        }
        self.trim();
        if self.sorted.get(&item).is_some() { Ok(()) } else { Err(Unkept::NoRoom) }
    }

    /// Whether a message is new, and neither too old nor too far ahead: asked of a live one, too, before it is handed
    /// to anybody, so that no old message is new again.
    pub fn admits(&self, item: &Item, author: Id, now: u64) -> Result<(), Unkept> {
        if self.sorted.get(item).is_some() {
            Err(Unkept::Known)
        } else if self.authors.floor(author) >= Some(*item) {
            Err(Unkept::BelowFloor)
        } else if item.time < self.cutoff(now) {
            Err(Unkept::TooOld)
        } else if item.time > now.saturating_add(millis(self.keep.ahead)) {
            Err(Unkept::TooFarAhead)
        } else {
            Ok(())
        }
    }

    /// Lets go what is too old.
    pub fn expire(&mut self, now: u64) {
        let cutoff = self.cutoff(now);
        while self.sorted.first().is_some_and(|entry| entry.item.time < cutoff) {
            self.let_go_oldest();
        }
    }

    /// Other bounds from now on.
    pub fn set_keep(&mut self, keep: Keep, now: u64) {
        self.keep = keep;
        self.authors.set_idle(keep.authors);
        self.expire(now);
        self.trim();
    }

    /// Lets the oldest message go, for a bound on all topics together; says whether there was one.
    pub fn let_go_oldest(&mut self) -> bool {
        let Some(entry) = self.sorted.pop_first() else { return false };
        self.bytes -= entry.record.len() + Self::OVERHEAD;
        self.gone_number = self.gone_number.max(self.number(&entry));
        self.authors.let_go(entry.author, &entry.item);
        self.let_go = self.let_go.max(Some(entry.item));
        if let Some(changes) = &mut self.changes {
            changes.let_go(&entry.item);
        }
        true
    }

    fn trim(&mut self) {
        while self.sorted.len() > self.keep.messages || self.bytes > self.keep.bytes {
            self.let_go_oldest();
        }
    }

    fn cutoff(&self, now: u64) -> u64 {
        now.saturating_sub(millis(self.keep.age))
    }

    /// The record of a kept message.
    pub fn get(&self, item: &Item) -> Option<&[u8]> {
        self.sorted.get(item).map(|entry| &*entry.record)
    }

    /// What is kept behind a place, in order; [`Item::at`] makes one of a time.
    pub fn since(&self, place: Item) -> Since<impl Iterator<Item = (&Item, &[u8])>> {
        let messages = self.sorted.from(place).filter(move |entry| entry.item != place);
        Since {
            gap: self.let_go > Some(place),
            messages: messages.map(|entry| (&entry.item, &*entry.record)),
        }
    }

    /// The newest messages, in order.
    pub fn last(&self, count: usize) -> impl Iterator<Item = (&Item, &[u8])> {
        let skip = self.sorted.len().saturating_sub(count);
        self.sorted.skip(skip).map(|entry| (&entry.item, &*entry.record))
    }

    /// The number of the message that came last.
    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    /// The highest number of what was let go: whoever resumes behind a lower one has a gap for good.
    pub fn gone_number(&self) -> u64 {
        self.gone_number
    }

    fn number(&self, entry: &Entry) -> u64 {
        // It came among the last 2^32.
        self.last_number - u64::from((self.last_number as u32).wrapping_sub(entry.number))
    }

    /// What is kept at a place or behind it, in order.
    pub fn from(&self, place: Item) -> impl Iterator<Item = Remembered<'_>> {
        self.sorted.from(place).map(|entry| self.remembered(entry))
    }

    /// The first `count` messages that came after the one of a number, in the order in which they came. Looks at all that
    /// is kept.
    pub fn behind(&self, number: u64, count: usize) -> Vec<Remembered<'_>> {
        let all = self.sorted.skip(0).map(|entry| self.remembered(entry));
        let mut behind: Vec<_> = all.filter(|kept| kept.number > number).collect();
        if behind.len() > count {
            behind.select_nth_unstable_by_key(count, |kept| kept.number);
            behind.truncate(count);
        }
        behind.sort_unstable_by_key(|kept| kept.number);
        behind
    }

    fn remembered<'m>(&self, entry: &'m Entry) -> Remembered<'m> {
        Remembered { item: entry.item, number: self.number(entry), record: &entry.record }
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes as [`Keep::bytes`] counts them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a session compares: all that is kept at `now` but what may still be on its way as live, which is what is
    /// younger than `settle`. `record` is the longest record that is taken.
    pub fn span(&self, now: u64, settle: Duration, record: u64) -> Span {
        let behind = self.let_go.map_or(0, |item| item.time.saturating_add(1));
        let fit = match self.len() {
            0 => self.keep.messages,
            len => self.keep.bytes.saturating_mul(len) / self.bytes.max(1),
        };
        // Authors whose clocks are ahead are compared as soon as they are kept.
        let until = now.saturating_add(millis(self.keep.ahead)).saturating_sub(millis(settle));
        Span {
            from: behind.max(self.cutoff(now)),
            until: until.max(now.saturating_sub(millis(settle))),
            messages: self.keep.messages.min(fit) as u64,
            record,
            now,
        }
    }

    /// All of it under the key of a session.
    pub fn snapshot(&self, key: Key) -> Snapshot {
        let mut snapshot = Snapshot::new(key);
        self.sorted.skip(0).for_each(|entry| {
            snapshot.push(entry.item);
        });
        snapshot
    }

    /// The floors, to be kept on disk: of each author, and of all others.
    pub fn floors(&self) -> impl Iterator<Item = (Option<Id>, Item)> {
        self.authors.floors()
    }

    /// Puts back a floor that was kept. The highest is what was let go last: nobody needs to offer what lies below.
    pub fn raise_floor(&mut self, author: Option<Id>, floor: Item) {
        self.let_go = self.let_go.max(Some(floor));
        self.authors.raise(author, floor);
    }

    /// From now on changes are noted for whoever writes a file. It lacks all that is kept, and the floors, unless it
    /// `holds` them already.
    pub fn track(&mut self, holds: bool) {
        let mut changes = Changes::default();
        if !holds {
            changes.kept.extend(self.sorted.skip(0).map(|entry| entry.item));
        }
        self.changes = Some(changes);
        self.authors.track(holds);
    }

    /// Changes are of interest no more.
    pub fn untrack(&mut self) {
        self.changes = None;
        self.authors.untrack();
    }

    /// How many messages and floors are not written.
    pub fn unwritten(&self) -> usize {
        self.changes
            .as_ref()
            .map_or(0, |changes| changes.kept.len() + changes.gone.len() + self.authors.unwritten())
    }

    /// Whether a message is kept, and was taken to be written.
    pub fn is_taken(&self, item: &Item) -> bool {
        self.changes.as_ref().is_some_and(|changes| !changes.kept.contains(item)) && self.get(item).is_some()
    }

    /// Whether there is a floor of an author's own, or a message of it.
    pub fn knows(&self, author: Id) -> bool {
        self.authors.knows(author)
    }

    /// Takes what is to be written, records of about so many bytes. What is let go goes first, and floors with it: what a
    /// file lacks of these would be new again.
    pub fn take_unwritten(&mut self, bytes: usize) -> Unwritten {
        let Some(changes) = &mut self.changes else { return Unwritten::default() };
        let gone = std::mem::take(&mut changes.gone).into_iter().collect();
        let (mut kept, mut taken) = (Vec::new(), 0);
        while taken < bytes
            && let Some(item) = changes.kept.pop_first()
        {
            taken += self.sorted.get(&item).map_or(0, |entry| entry.record.len()) + Self::OVERHEAD;
            kept.push(item);
        }
        Unwritten { kept, gone, floors: self.authors.take_unwritten() }
    }

    /// What was taken was not written, or nobody knows.
    pub fn restore_unwritten(&mut self, unwritten: &Unwritten) {
        let Some(changes) = &mut self.changes else { return };
        for item in &unwritten.kept {
            match self.sorted.get(item) {
                Some(_) => changes.kept.insert(*item),
                // It was let go meanwhile, and never written.
                None => changes.gone.remove(item),
            };
        }
        for item in &unwritten.gone {
            if self.sorted.get(item).is_none() {
                changes.gone.insert(*item);
            }
        }
        self.authors.restore_unwritten(unwritten.floors.iter().map(|(author, _)| *author));
    }

    /// Goes on counting behind `last`, in a memory that is empty; what is numbered up to `gone` may have been let go.
    pub fn resume(&mut self, last: u64, gone: u64) {
        (self.last_number, self.gone_number) = (last, gone.min(last));
    }

    /// Puts a message back that a file had, with the number that it had; whether it was taken. Floors come after all
    /// messages: of those of a file that was written in order none is at a floor or below.
    pub fn restore(&mut self, item: Item, author: Id, number: u64, record: &[u8]) -> bool {
        // Of a number, only the low half is kept.
        let is_near = self.last_number.checked_sub(number).is_some_and(|back| back <= u64::from(u32::MAX));
        if !is_near || self.sorted.get(&item).is_some() {
            return false;
        }
        let author = self.authors.kept(author);
        self.bytes += record.len() + Self::OVERHEAD;
        self.sorted.insert(Entry { item, author, number: number as u32, record: record.into() })
    }

    /// Bytes on the heap, counted by what the collections reserved, each allocation rounded up to 16 bytes behind 8 of
    /// the allocator's own.
    pub fn allocated(&self) -> usize {
        let records = self.sorted.skip(0).map(|entry| (entry.record.len() + 8).next_multiple_of(16));
        records.sum::<usize>() + self.sorted.allocated() + self.authors.allocated()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
