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

use crate::{Id, Item, Key, Snapshot, Stamp};

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

/// Whatever comes first in this order gives way.
type Rank = (Stamp, Id, Id);

impl Version {
    fn rank(&self) -> Rank {
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
    bytes: usize,
}

impl Latest {
    /// What a key costs beyond its bytes and its record, about.
    pub const OVERHEAD: usize = 352;

    /// Empty.
    pub fn new(bounds: Bounds) -> Self {
        let (keys, ranks, items) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { bounds, keys, ranks, items, marks: BTreeSet::new(), bytes: 0 }
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
        self.remove(&key);
        self.bytes += size(&key, version.record.len());
        self.ranks.insert(rank, Arc::clone(&key));
        self.items.insert(version.item(), Arc::clone(&key));
        if version.mark {
            self.marks.insert(rank);
        }
        self.keys.insert(Arc::clone(&key), version);
        let gave_way = self.trim();
        Change { newest: self.keys.contains_key(&key), gave_way }
    }

    fn remove(&mut self, key: &[u8]) {
        let Some(version) = self.keys.remove(key) else { return };
        self.ranks.remove(&version.rank());
        self.items.remove(&version.item());
        self.marks.remove(&version.rank());
        self.bytes -= size(key, version.record.len());
    }

    fn trim(&mut self) -> Vec<Arc<[u8]>> {
        let mut gave_way = Vec::new();
        while self.keys.len() > self.bounds.keys || self.bytes > self.bounds.bytes {
            let Some(key) = self.ranks.first_key_value().map(|(_, key)| Arc::clone(key)) else { break };
            self.remove(&key);
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
        let cutoff = Stamp::at(now.saturating_sub(millis(self.bounds.marks)));
        while let Some(rank) = self.marks.first().copied().filter(|rank| rank.0 < cutoff) {
            self.marks.remove(&rank);
            if let Some(key) = self.ranks.get(&rank).cloned() {
                self.remove(&key);
            }
        }
    }

    /// The node comes back, and was last connected to others at `left`. If deletions may have been made and forgotten
    /// meanwhile, all that it has goes, rather than that it revives what was deleted; says whether it did.
    pub fn back(&mut self, left: u64, now: u64) -> bool {
        let away = now.saturating_sub(left) >= millis(self.bounds.marks);
        if away {
            *self = Self::new(self.bounds);
        }
        away
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

#[cfg(test)]
mod tests;
