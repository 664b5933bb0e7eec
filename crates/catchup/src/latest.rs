//! The newest message by key: a map that any number of nodes write, and that ends the same at all of them.
//!
//! Of two messages with one key the later stamp wins, then the greater author, then the greater identity. A deletion is
//! a message like others, a mark, that is kept for a stated time. Over a bound the messages with the lowest stamps give
//! way, the same ones everywhere. When a message came, and by which way, decides nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use changes::Changes;
pub use changes::Unsaved;

use crate::{Id, Item, Key, Snapshot, Stamp, frame::Span};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Keys, marks of deleted ones included.
    pub keys: usize,
    /// Bytes of keys and records, [`Latest::OVERHEAD`] of each key included.
    pub bytes: usize,
    /// How long a deletion is remembered.
    pub marks: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { keys: 10_000, bytes: 4 << 20, marks: Duration::from_secs(7 * 86_400) }
    }
}

/// A message with a key, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// When it was written.
    pub stamp: Stamp,
    /// Stands for its author: [`Id::of`] its peer id.
    pub author: Id,
    /// [`Id::of`] the record, of which the key is a part.
    pub id: Id,
    /// Whether it deletes the key.
    pub mark: bool,
    /// What neighbours need to verify it.
    pub record: Arc<[u8]>,
}

/// Whatever comes first in this order gives way, and of one key is older.
pub type Rank = (Stamp, Id, Id);

impl Version {
    /// Its place in the order that decides.
    pub fn rank(&self) -> Rank {
        (self.stamp, self.author, self.id)
    }

    /// Its place among what is compared.
    pub fn item(&self) -> Item {
        Item { time: self.stamp.0, id: self.id }
    }
}

/// What a message changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// It is what its key has now.
    pub newest: bool,
    /// Keys that gave way to the bounds, whole with their messages.
    pub gave_way: Vec<Arc<[u8]>>,
}

/// A set that would go over a bound, and is refused where it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Another key is one too many.
    #[error("{0} keys are as many as are kept: delete some, or raise the bound")]
    Keys(usize),
    /// Its bytes are too many.
    #[error("{0} bytes are as many as are kept: delete some, or raise the bound")]
    Bytes(usize),
}

/// The newest message of each key.
#[derive(Debug)]
pub struct Latest {
    bounds: Bounds,
    keys: BTreeMap<Arc<[u8]>, Version>,
    ranks: BTreeMap<Rank, Arc<[u8]>>,
    items: BTreeMap<Item, Arc<[u8]>>,
    /// Deletions.
    marks: BTreeSet<Rank>,
    /// Those before are forgotten.
    cutoff: Stamp,
    bytes: usize,
    /// What a file of this lacks, where there is one.
    changes: Option<Changes>,
}

impl Latest {
    /// What a key costs beyond its bytes and its record, about.
    pub const OVERHEAD: usize = 352;

    /// Empty.
    pub fn new(bounds: Bounds) -> Self {
        let (keys, ranks, items) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self {
            bounds,
            keys,
            ranks,
            items,
            marks: BTreeSet::new(),
            cutoff: Stamp::default(),
            bytes: 0,
            changes: None,
        }
    }

    /// Whether a set may be made here: others' sets are taken, and what is oldest gives way.
    pub fn admits(&self, key: &[u8], record: usize) -> Result<(), Full> {
        let was = self.keys.get(key).map(|version| size(key, version.record.len()));
        if was.is_none() && self.keys.len() >= self.bounds.keys {
            Err(Full::Keys(self.bounds.keys))
        } else if self.bytes - was.unwrap_or(0) + size(key, record) > self.bounds.bytes {
            Err(Full::Bytes(self.bounds.bytes))
        } else {
            Ok(())
        }
    }

    /// Takes a message that was verified and whose stamp the node's [`Clock`](crate::Clock) took. In any order, any
    /// number of times, the same messages leave the same behind.
    pub fn merge(&mut self, key: &[u8], version: Version) -> Change {
        if self.keys.get(key).is_some_and(|known| known.rank() >= version.rank()) {
            return Change::default();
        }
        let (rank, key) = (version.rank(), Arc::<[u8]>::from(key));
        // One identity is one message, and has one key and one author.
        if self.items.get(&version.item()).is_some_and(|known| *known != key) {
            return Change::default();
        }
        let was = self.keys.contains_key(&key);
        self.remove(&key);
        if version.mark && version.stamp < self.cutoff {
            // Forgotten here, or it would be; it still deletes what is older.
            return Change { newest: was, gave_way: Vec::new() };
        }
        self.bytes += size(&key, version.record.len());
        self.ranks.insert(rank, Arc::clone(&key));
        self.items.insert(version.item(), Arc::clone(&key));
        if version.mark {
            self.marks.insert(rank);
        }
        self.keys.insert(Arc::clone(&key), version);
        if let Some(changes) = &mut self.changes {
            changes.note(&key, true);
        }
        let gave_way = self.trim();
        Change { newest: self.keys.contains_key(&key), gave_way }
    }

    fn remove(&mut self, key: &[u8]) {
        let Some((key, version)) = self.keys.remove_entry(key) else { return };
        if let Some(changes) = &mut self.changes {
            changes.note(&key, false);
        }
        self.ranks.remove(&version.rank());
        self.items.remove(&version.item());
        self.marks.remove(&version.rank());
        self.bytes -= size(&key, version.record.len());
    }

    fn trim(&mut self) -> Vec<Arc<[u8]>> {
        let mut gave_way = Vec::new();
        while self.keys.len() > self.bounds.keys || self.bytes > self.bounds.bytes {
            let Some(key) = self.give_way() else { break };
            gave_way.push(key);
        }
        gave_way
    }

    /// Other bounds from now on; gives back the keys that gave way.
    pub fn set_bounds(&mut self, bounds: Bounds) -> Vec<Arc<[u8]>> {
        self.bounds = bounds;
        self.trim()
    }

    /// Forgets deletions that are older than they are kept; `now` is in milliseconds since 1970.
    pub fn expire(&mut self, now: u64) {
        self.cutoff = self.cutoff.max(Stamp::at(now.saturating_sub(millis(self.bounds.marks))));
        while let Some(rank) = self.marks.first().copied().filter(|rank| rank.0 < self.cutoff) {
            self.marks.remove(&rank);
            if let Some(key) = self.ranks.get(&rank).cloned() {
                self.remove(&key);
            }
        }
    }

    /// Throws away what was written up to a moment: what others may have deleted, and forgotten, since this node left
    /// them ([`Presence`](crate::Presence)). What was written here since they cannot have deleted. Gives back the keys.
    pub fn throw_away(&mut self, left: u64) -> Vec<Arc<[u8]>> {
        let kept = self.ranks.split_off(&(Stamp::at(left.saturating_add(1)), Id([0; 16]), Id([0; 16])));
        let gone = std::mem::replace(&mut self.ranks, kept);
        let gone: Vec<_> = gone.into_values().collect();
        gone.iter().for_each(|key| self.remove(key));
        gone
    }

    /// The message of a key; none if it was deleted.
    pub fn get(&self, key: &[u8]) -> Option<&Version> {
        self.keys.get(key).filter(|version| !version.mark)
    }

    /// All keys with their messages, marks included, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<[u8]>, &Version)> {
        self.keys.iter()
    }

    /// The key and message of an item, for sessions.
    pub fn by_item(&self, item: &Item) -> Option<(&Arc<[u8]>, &Version)> {
        self.keys.get_key_value(self.items.get(item)?)
    }

    /// Whether a deletion of then is forgotten.
    pub fn is_forgotten(&self, stamp: Stamp) -> bool {
        stamp < self.cutoff
    }

    /// The lowest of all gives way; whether there was one.
    pub fn give_way(&mut self) -> Option<Arc<[u8]>> {
        let (_, key) = self.ranks.first_key_value()?;
        let key = Arc::clone(key);
        self.remove(&key);
        Some(key)
    }

    /// What is kept of a key, be it a mark.
    pub fn version(&self, key: &[u8]) -> Option<&Version> {
        self.keys.get(key)
    }

    /// What a session compares: from 0 on. `now` is what this node's clock says, `record` the longest record it takes.
    pub fn span(&self, record: u64, now: u64) -> Span {
        let fit = match self.len() {
            0 => self.bounds.keys,
            len => self.bounds.bytes.saturating_mul(len) / self.bytes.max(1),
        };
        Span { from: 0, until: u64::MAX, messages: self.bounds.keys.min(fit) as u64, record, now }
    }

    /// Items from a place on, for a snapshot that is made in slices.
    pub fn items_from(&self, from: Item) -> impl Iterator<Item = &Item> {
        self.items.range(from..).map(|(item, _)| item)
    }

    /// How many keys are deleted, and remembered to be.
    pub fn marks(&self) -> usize {
        self.marks.len()
    }

    /// Notes from now on which keys change, for a file that has them: all that are there now, if `is_written`, or none.
    pub fn track(&mut self, is_written: bool) {
        let changes = self.changes.insert(Changes::default());
        for key in self.keys.keys() {
            if is_written { changes.wrote(key) } else { changes.note(key, true) }
        }
    }

    /// The file that this is tracked for has a row of a key, be it an old one.
    pub fn has_row(&mut self, key: &[u8]) {
        if let Some(changes) = &mut self.changes {
            changes.wrote(key);
        }
    }

    /// A file has no more to do with this; gives back what its rows are called.
    pub fn untrack(&mut self) -> Vec<Id> {
        self.changes.take().map_or(Vec::new(), |changes| changes.rows().copied().collect())
    }

    /// Keys whose change is not taken.
    pub fn unwritten(&self) -> usize {
        self.changes.as_ref().map_or(0, Changes::len)
    }

    /// Takes changes until their records have `room` bytes, and one at least: what each row is called, and its key.
    pub fn take_unwritten(&mut self, mut room: usize) -> Vec<Unsaved> {
        let Some(changes) = &mut self.changes else { return Vec::new() };
        let mut taken = Vec::new();
        while taken.is_empty() || room > 0 {
            let Some((id, key)) = changes.take() else { break };
            let version = self.keys.get(&key);
            room = room.saturating_sub(64 + version.map_or(0, |version| version.record.len()));
            taken.push(Unsaved { id, is_kept: version.is_some(), key });
        }
        taken
    }

    /// What was taken is written.
    pub fn written(&mut self, taken: &[Unsaved]) {
        let Some(changes) = &mut self.changes else { return };
        taken.iter().for_each(|taken| changes.written(taken, self.keys.contains_key(&taken.key)));
    }

    /// What was taken is not written.
    pub fn restore_unwritten(&mut self, taken: &[Unsaved]) {
        let Some(changes) = &mut self.changes else { return };
        taken.iter().for_each(|taken| changes.note(&taken.key, self.keys.contains_key(&taken.key)));
    }

    /// Keys, marks included.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Bytes as [`Bounds::bytes`] counts them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of it under the key of a session. Times are stamps; a session about this compares from 0 on.
    pub fn snapshot(&self, key: Key) -> Snapshot {
        let mut snapshot = Snapshot::new(key);
        self.items.keys().for_each(|item| {
            snapshot.push(*item);
        });
        snapshot
    }
}

fn size(key: &[u8], record: usize) -> usize {
    key.len() + record + Latest::OVERHEAD
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

mod changes;
#[cfg(test)]
mod tests;
