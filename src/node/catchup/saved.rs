//! What memories are made of on the disk: rows taken from the book, and a book that is filled from rows. Pure.

use std::collections::{BTreeMap, HashSet};

use libp2p::PeerId;
use smidge_catchup::{Id, Item, Unwritten};

use super::{
    book::{Book, Kept},
    maps::Taken,
    record::Record,
    rows::{self, Head, Row, Tag},
};
use crate::store::{Change, Rows};

/// Records in one commit, in bytes: more go with the next.
const BATCH: usize = 1 << 20;
/// Numbers that may be given out before the disk is asked again.
const NUMBERS: u64 = 1 << 20;

/// Rows of one commit, to be given back where it fails.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    /// How many they are.
    pub(super) changed: usize,
    topics: Vec<(String, Unwritten, u64)>,
    values: Vec<Taken>,
    stale: Vec<Vec<u8>>,
}

/// What a file has of one topic.
#[derive(Default)]
struct Found {
    head: Option<Head>,
    messages: Vec<(Item, u64, Record)>,
    floors: Vec<(Option<Id>, Item)>,
    stale: Vec<Vec<u8>>,
}

impl Found {
    fn add(&mut self, topic: &str, row: Row, key: Vec<u8>, value: &[u8]) {
        let is_read = match row {
            Row::Topic => {
                self.head = Head::decode(value);
                self.head.is_some()
            }
            Row::Message(item) => match rows::read_message(&item, topic, value) {
                Some((number, record)) => {
                    self.messages.push((item, number, record));
                    true
                }
                None => false,
            },
            Row::Floor(author) => match rows::read_item(value) {
                Some(floor) => {
                    self.floors.push((author, floor));
                    true
                }
                None => false,
            },
            // Of the other kind of topic.
            Row::Value(_) | Row::Presence => false,
        };
        if !is_read {
            self.stale.push(key);
        }
    }
}

impl Book {
    /// Whether anything is to be on the disk.
    pub(super) fn is_durable(&self) -> bool {
        self.topics.values().any(|kept| kept.keep.durable) || self.maps.is_durable()
    }

    /// A file was opened: takes what it has, and notes changes from now on. At the `start`, positions of the run before go
    /// on; what is read later is added to what is here. `own`: this node, which numbers its messages above those that it
    /// finds.
    pub(super) fn load(&mut self, rows: Rows, start: bool, own: &PeerId, now: u64) {
        let tags: BTreeMap<Tag, String> = self
            .topics
            .iter()
            .filter(|(_, kept)| kept.keep.durable)
            .map(|(topic, _)| (rows::tag(topic), topic.clone()))
            .collect();
        let mut found: BTreeMap<String, Found> =
            tags.values().map(|topic| (topic.clone(), Found::default())).collect();
        let mut values = self.maps.found();
        for (key, value) in rows {
            if let Some((tag, row)) = rows::read_key(&key)
                && let Some(of) = values.get_mut(&tag)
            {
                of.add(row, key, &value);
                continue;
            }
            let known = rows::read_key(&key).and_then(|(tag, row)| Some((tags.get(&tag)?, row)));
            match known.and_then(|(topic, row)| Some((found.get_mut(topic)?, topic, row))) {
                Some((of, topic, row)) => of.add(topic, row, key, &value),
                // Of a topic that is durable no more.
                None => self.stale.push(key),
            }
        }
        let earlier = self.clock.earlier(now);
        for (topic, mut found) in found {
            let Some(kept) = self.topics.get_mut(&topic) else { continue };
            found.messages.sort_unstable_by_key(|(item, ..)| *item);
            for (_, _, record) in &found.messages {
                if record.author == *own {
                    self.numbers.follow(record.sequence, now);
                }
            }
            self.stale.append(&mut found.stale);
            let stale = match found.head.filter(|_| start) {
                Some(head) => kept.restore(&topic, head, found),
                None => kept.merge(&topic, found, earlier),
            };
            self.stale.extend(stale);
        }
        for found in values.into_values() {
            let stale = self.maps.restore(found, start, self.times(now));
            self.stale.extend(stale);
        }
        self.writes = true;
        self.adjust(now);
    }

    /// The heads of all topics, to be written before any number of this run is given out.
    pub(super) fn heads(&mut self) -> Vec<Change> {
        let durable = self.topics.iter_mut().filter(|(_, kept)| kept.keep.durable);
        durable
            .map(|(topic, kept)| (rows::key(&rows::tag(topic), &Row::Topic), Some(kept.reserve())))
            .collect()
    }

    /// The heads were written.
    pub(super) fn heads_written(&mut self) {
        self.topics
            .values_mut()
            .filter(|kept| kept.keep.durable)
            .for_each(|kept| kept.numbered = kept.reserved);
    }

    /// Rows that are not written.
    pub(super) fn unwritten(&self) -> usize {
        let of_topics: usize = self.topics.values().map(|kept| kept.memory.unwritten()).sum();
        of_topics + self.maps.unwritten() + self.stale.len()
    }

    /// Takes what is to be written, as much as goes into a commit.
    pub(super) fn take(&mut self) -> Batch {
        self.take_up_to(BATCH, false)
    }

    /// Takes all that is to be written, at the end.
    pub(super) fn take_all(&mut self) -> Batch {
        self.take_up_to(usize::MAX, true)
    }

    fn take_up_to(&mut self, mut room: usize, is_end: bool) -> Batch {
        let mut batch = Batch { stale: std::mem::take(&mut self.stale), ..Batch::default() };
        for (topic, kept) in self.topics.iter_mut().filter(|(_, kept)| kept.keep.durable) {
            if room == 0 || kept.memory.unwritten() == 0 && !is_end {
                continue;
            }
            let unwritten = kept.memory.take_unwritten(room);
            let tag = rows::tag(topic);
            for item in &unwritten.kept {
                let Some(found) = kept.memory.from(*item).next().filter(|found| found.item == *item) else {
                    continue;
                };
                room = room.saturating_sub(found.record.len());
                let value = rows::put_message(found.number, found.record);
                batch.changes.push((rows::key(&tag, &Row::Message(*item)), Some(value)));
            }
            let gone = unwritten.gone.iter().map(|item| (rows::key(&tag, &Row::Message(*item)), None));
            batch.changes.extend(gone);
            let floors = unwritten.floors.iter().map(|(author, floor)| {
                (rows::key(&tag, &Row::Floor(*author)), floor.map(|floor| rows::put_item(&floor).to_vec()))
            });
            batch.changes.extend(floors);
            let head = if is_end { kept.end() } else { kept.reserve() };
            batch.changes.push((rows::key(&tag, &Row::Topic), Some(head)));
            batch.topics.push((topic.clone(), unwritten, kept.reserved));
        }
        batch.values = self.maps.take(&mut room, is_end, &mut batch.changes);
        if !batch.stale.is_empty() {
            // A key comes once: a topic may be durable again.
            let said: HashSet<&[u8]> = batch.changes.iter().map(|(key, _)| &key[..]).collect();
            let gone: Vec<_> = batch
                .stale
                .iter()
                .filter(|key| !said.contains(&key[..]))
                .map(|key| (key.clone(), None))
                .collect();
            batch.changes.extend(gone);
        }
        batch.changed = batch.changes.len();
        batch
    }

    /// A commit did what it was to do.
    pub(super) fn written(&mut self, batch: Batch) {
        self.maps.written(&batch.values);
        for (topic, _, reserved) in batch.topics {
            if let Some(kept) = self.topics.get_mut(&topic) {
                kept.numbered = kept.numbered.max(reserved);
            }
        }
    }

    /// It did not, or nobody knows.
    pub(super) fn not_written(&mut self, batch: Batch) {
        self.stale.extend(batch.stale);
        self.maps.not_written(&batch.values);
        for (topic, unwritten, _) in &batch.topics {
            if let Some(kept) = self.topics.get_mut(topic) {
                kept.memory.restore_unwritten(unwritten);
            }
        }
    }

    /// Whether a message is kept for as long as it is not let go: on the disk where that is asked for, with `batch` still
    /// on its way there.
    pub(super) fn is_kept(&self, topic: &str, item: &Item, batch: Option<&Batch>) -> bool {
        let Some(kept) = self.topics.get(topic) else { return false };
        if !kept.keep.durable {
            return kept.memory.get(item).is_some();
        }
        let of_topic = batch.into_iter().flat_map(|batch| &batch.topics).find(|(name, ..)| name == topic);
        let on_its_way = of_topic.is_some_and(|(_, unwritten, _)| unwritten.kept.binary_search(item).is_ok());
        self.writes && kept.memory.is_taken(item) && !on_its_way
    }
}

impl Kept {
    /// From a file that a run before left; gives back what is of no use in it.
    fn restore(&mut self, topic: &str, head: Head, found: Found) -> Vec<Vec<u8>> {
        let tag = rows::tag(topic);
        (self.name, self.reserved) = (head.name, head.last);
        // What came last, and was not written, is missing for all who resume.
        self.memory.resume(head.last, if head.is_whole { head.gone } else { head.last });
        let let_go = found.floors.iter().map(|(_, floor)| *floor).max();
        let mut stale = Vec::new();
        for (item, number, record) in &found.messages {
            let is_old = Some(*item) <= let_go;
            if is_old || !self.memory.restore(*item, record.author_id(), *number, record.bytes()) {
                stale.push(rows::key(&tag, &Row::Message(*item)));
            }
        }
        let common = found.floors.iter().find(|(author, _)| author.is_none()).map(|(_, floor)| *floor);
        for (author, floor) in &found.floors {
            match author {
                // It was taken out where nothing could be written.
                Some(id) if Some(*floor) <= common && !self.memory.knows(*id) => {
                    stale.push(rows::key(&tag, &Row::Floor(Some(*id))));
                }
                Some(_) => self.memory.raise_floor(*author, *floor),
                None => {}
            }
        }
        if let Some(common) = common {
            self.memory.raise_floor(None, common);
        }
        self.memory.track(true);
        stale
    }

    /// Into a memory that has something already, or without its head.
    fn merge(&mut self, topic: &str, found: Found, now: u64) -> Vec<Vec<u8>> {
        let tag = rows::tag(topic);
        for (author, floor) in &found.floors {
            self.memory.raise_floor(*author, *floor);
        }
        let mut stale = Vec::new();
        for (item, _, record) in &found.messages {
            let _ = self.memory.insert(*item, record.author_id(), record.bytes(), now);
            if self.memory.get(item).is_none() {
                stale.push(rows::key(&tag, &Row::Message(*item)));
            }
        }
        self.memory.track(false);
        stale
    }

    fn reserve(&mut self) -> Vec<u8> {
        let last = self.memory.last_number();
        if last + NUMBERS / 2 > self.reserved {
            self.reserved = last + NUMBERS;
        }
        let Self { name, reserved, .. } = *self;
        Head { name, is_whole: false, last: reserved, gone: self.memory.gone_number() }.encode()
    }

    fn end(&self) -> Vec<u8> {
        let (last, gone) = (self.memory.last_number(), self.memory.gone_number());
        Head { name: self.name, is_whole: true, last, gone }.encode()
    }

    /// All rows that a file may have of it.
    pub(super) fn rows(&self, topic: &str) -> Vec<Vec<u8>> {
        let tag = rows::tag(topic);
        let messages = self.memory.from(Item::at(0)).map(|kept| Row::Message(kept.item));
        let floors = self.memory.floors().map(|(author, _)| Row::Floor(author));
        messages.chain(floors).chain([Row::Topic]).map(|row| rows::key(&tag, &row)).collect()
    }
}

#[cfg(test)]
mod tests;
