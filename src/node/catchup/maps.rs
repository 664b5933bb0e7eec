//! The values by key of all topics that keep the newest: what is a value, which is the newest, and what gives way. Time
//! is handed in, in milliseconds since 1970.
//!
//! A topic is written into a greeting with a zero byte and how far back this node's copy goes before its name, so that
//! nobody takes it for one of messages (docs/CATCHUP.md, "Values by key").

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use libp2p::PeerId;
use smidge_catchup::{
    Bounds, Clock, Full, Id, Item, Keyed, Latest, Presence, Snapshot, Stamp, Store, Unkeyed, Version,
    frame::Span,
};

use super::{
    book::{AHEAD, REFUSED, SETTLE},
    record::Record,
    rows::{self, Row},
};
use crate::config::{self, TopicRules};

/// What this node's clock and its neighbours' say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// This node's own.
    pub(super) own: u64,
    /// As all of them have it.
    pub(super) common: u64,
}

impl Times {
    fn earlier(self) -> u64 {
        self.own.min(self.common)
    }

    fn later(self) -> u64 {
        self.own.max(self.common)
    }
}

/// What a message is to the values of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// It is newer than what its key has.
    New,
    /// It is there.
    Known,
    /// What its key has is newer, or its deletion may be forgotten.
    Old,
    /// Its author's clock is further ahead than it may be.
    Ahead,
    /// It is no value with a key.
    None(Unkeyed),
}

/// A value as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Arc<[u8]>,
    pub(crate) record: Arc<[u8]>,
    /// In the record; `None` of one that is deleted.
    pub(crate) value: Option<Range<usize>>,
    pub(crate) author: PeerId,
    /// When it was written.
    pub(crate) at: u64,
}

/// What a message changed.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// In their order.
    pub(crate) entries: Vec<Entry>,
    /// Keys that gave way, beside those.
    pub(crate) gave_way: Vec<Arc<[u8]>>,
}

struct Kept {
    map: Latest,
    read: Option<BTreeSet<PeerId>>,
    clock: Clock,
    presence: Presence,
    marks: Duration,
    /// It is on disk, too.
    durable: bool,
    /// When others were there last, as the disk has it.
    saved: Option<u64>,
    /// What neighbours keep and the rules here refuse, and what is of a time that has not come: it counts as there in
    /// comparisons, or it would be given each time.
    refused: BTreeSet<Item>,
    ahead: BTreeSet<Item>,
}

/// The values of all topics that keep the newest.
#[derive(Default)]
pub(super) struct Maps {
    topics: BTreeMap<String, Kept>,
    limit: usize,
}

impl Maps {
    pub(super) fn new(limit: usize) -> Self {
        Self { topics: BTreeMap::new(), limit }
    }

    /// Keeps what the rules say, and nothing else. Where there is a file, it is written if that is asked for; gives back rows
    /// of it that are of no use any more.
    pub(super) fn configure(
        &mut self,
        rules: &BTreeMap<String, TopicRules>,
        is_written: bool,
        times: Times,
    ) -> Vec<Vec<u8>> {
        let latest = |topic: &str| rules.get(topic).and_then(|rules| rules.latest);
        let mut stale = Vec::new();
        for (topic, kept) in self.topics.iter_mut().filter(|(_, kept)| kept.durable) {
            if !latest(topic).is_some_and(|latest| latest.durable) {
                kept.durable = false;
                let rows = kept.map.untrack().into_iter().map(Row::Value).chain([Row::Presence]);
                stale.extend(rows.map(|row| rows::key(&rows::tag(topic), &row)));
            }
        }
        self.topics.retain(|topic, _| latest(topic).is_some());
        for (topic, rules) in rules {
            let Some(config::Latest { keys, bytes, marks, durable }) = rules.latest else { continue };
            let bounds = Bounds { keys, bytes: bytes.min(self.limit), marks };
            let kept = self.topics.entry(topic.clone()).or_insert_with(|| Kept {
                map: Latest::new(bounds),
                read: None,
                clock: Clock::new(AHEAD, None),
                presence: Presence::new(marks, times.common),
                marks,
                durable: false,
                saved: None,
                refused: BTreeSet::new(),
                ahead: BTreeSet::new(),
            });
            kept.refused.clear();
            kept.map.set_bounds(bounds);
            kept.presence.set_marks(marks);
            kept.read.clone_from(&rules.read);
            if durable && !kept.durable && is_written {
                kept.map.track(false);
            }
            (kept.durable, kept.marks) = (durable, marks);
        }
        if is_written { stale } else { Vec::new() }
    }

    pub(super) fn keeps(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = &String> {
        self.topics.keys()
    }

    pub(super) fn may_read(&self, topic: &str, peer: &PeerId) -> bool {
        let kept = self.topics.get(topic);
        kept.is_some_and(|kept| kept.read.as_ref().is_none_or(|peers| peers.contains(peer)))
    }

    /// Keys with a value, deleted ones, and bytes.
    pub(super) fn held(&self) -> (usize, usize, usize) {
        self.topics.values().fold((0, 0, 0), |(keys, marks, bytes), Kept { map, .. }| {
            (keys + map.len() - map.marks(), marks + map.marks(), bytes + map.bytes())
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.topics.values().map(|kept| kept.map.bytes()).sum()
    }

    pub(super) fn map(&self, topic: &str) -> Option<&Latest> {
        self.topics.get(topic).map(|kept| &kept.map)
    }

    /// What a message is, before it is delivered. One that is live cannot be older than deletions that are forgotten.
    pub(super) fn judge(&self, record: &Record, is_live: bool, times: Times) -> Value {
        let Some(kept) = self.topics.get(record.wire.topic()) else { return Value::Old };
        let data = record.wire.data();
        let keyed = match Keyed::decode(data) {
            Ok(keyed) => keyed,
            Err(why) => return Value::None(why),
        };
        if kept.clock.check(keyed.stamp, times.later()).is_err() {
            return Value::Ahead;
        }
        let version = version(record, &keyed);
        match kept.map.version(keyed.key) {
            Some(known) if *known == version => Value::Known,
            Some(known) if known.rank() > version.rank() => Value::Old,
            None if is_live && kept.map.is_forgotten(keyed.stamp) => Value::Old,
            _ => Value::New,
        }
    }

    /// Takes a message that was verified and let in.
    pub(super) fn merge(&mut self, record: &Record, times: Times) -> Changed {
        let Some(kept) = self.topics.get_mut(record.wire.topic()) else { return Changed::default() };
        let Ok(keyed) = Keyed::decode(record.wire.data()) else { return Changed::default() };
        // It was judged a moment ago.
        let _ = kept.clock.see(keyed.stamp, times.later());
        kept.map.expire(times.earlier());
        let was = kept.map.get(keyed.key).is_some();
        let version = version(record, &keyed);
        let bytes = Arc::clone(&version.record);
        let change = kept.map.merge(keyed.key, version);
        let mut changed = Changed { entries: Vec::new(), gave_way: change.gave_way };
        // That what was not there is deleted is no news.
        if change.newest && (was || keyed.value.is_some()) {
            changed.entries.extend(entry(keyed.key, bytes));
        } else if let Some(at) = changed.gave_way.iter().position(|key| **key == *keyed.key && !was) {
            // It came and went.
            changed.gave_way.swap_remove(at);
        }
        changed
    }

    /// Whether a set may be made here.
    pub(super) fn admits(
        &mut self,
        topic: &str,
        key: &[u8],
        record: usize,
        times: Times,
    ) -> Result<(), Full> {
        let Some(kept) = self.topics.get_mut(topic) else { return Ok(()) };
        // Deletions that are forgotten have made room.
        kept.map.expire(times.earlier());
        kept.map.admits(key, record)
    }

    /// The largest map lets its lowest key go.
    pub(super) fn give_way(&mut self) -> Option<(String, Arc<[u8]>)> {
        let (topic, kept) = self.topics.iter_mut().max_by_key(|(_, kept)| kept.map.bytes())?;
        Some((topic.clone(), kept.map.give_way()?))
    }

    /// The stamp of what this node writes next.
    pub(super) fn stamp(&mut self, topic: &str, times: Times) -> Option<Stamp> {
        self.topics.get_mut(topic).map(|kept| kept.clock.stamp(times.common))
    }

    /// The value of a key.
    pub(super) fn get(&self, topic: &str, key: &[u8]) -> Option<Entry> {
        entry(key, Arc::clone(&self.map(topic)?.get(key)?.record))
    }

    /// All values, in the order of their keys.
    pub(super) fn list(&self, topic: &str) -> Option<Vec<Entry>> {
        let values = self.map(topic)?.iter().filter(|(_, version)| !version.mark);
        Some(values.filter_map(|(key, version)| entry(key, Arc::clone(&version.record))).collect())
    }

    /// What neighbours keep and is not taken here.
    pub(super) fn refuse(&mut self, record: &Record, is_ahead: bool) {
        let Some(kept) = self.topics.get_mut(record.wire.topic()) else { return };
        let Some(item) = item(record) else { return };
        let set = if is_ahead { &mut kept.ahead } else { &mut kept.refused };
        set.insert(item);
        if set.len() > REFUSED {
            set.pop_first();
        }
    }

    /// What a session compares: all of it.
    pub(super) fn span(&mut self, topic: &str, record: usize, times: Times) -> Option<Span> {
        let kept = self.topics.get_mut(topic)?;
        kept.map.expire(times.earlier());
        // Their time has come.
        let limit = Stamp::at(times.later().saturating_add(AHEAD.as_millis() as u64)).0;
        kept.ahead = kept.ahead.split_off(&Item::at(limit));
        Some(kept.map.span(record as u64, times.own))
    }

    /// Puts up to `most` items behind the last of a snapshot into it; says whether that was all.
    pub(super) fn fill(&self, topic: &str, snapshot: &mut Snapshot, most: usize) -> bool {
        let Some(kept) = self.topics.get(topic) else { return true };
        let from = snapshot.items().last().copied().unwrap_or(Item::at(0));
        let mut sets = [
            Box::new(kept.map.items_from(from)) as Box<dyn Iterator<Item = &Item>>,
            Box::new(kept.refused.range(from..)),
            Box::new(kept.ahead.range(from..)),
        ]
        .map(Iterator::peekable);
        for _ in 0..most {
            let first = sets.iter_mut().filter_map(|set| Some((**set.peek()?, set)));
            let Some((next, set)) = first.min_by_key(|(item, _)| *item) else { return true };
            set.next();
            // The last of before is passed over.
            snapshot.push(next);
        }
        false
    }

    /// What a topic is called in a greeting of ours.
    pub(super) fn name(&self, topic: &str, times: Times) -> Option<Vec<u8>> {
        let kept = self.topics.get(topic)?;
        let since = kept.presence.announced(times.common).to_be_bytes();
        Some([&[0][..], &since, topic.as_bytes()].concat())
    }

    pub(super) fn presence(&mut self, topic: &str) -> Option<&mut Presence> {
        self.topics.get_mut(topic).map(|kept| &mut kept.presence)
    }

    /// Throws away what others may have deleted since this node left them, where a greeting says that they were there.
    /// Gives back the keys.
    pub(super) fn greeted(&mut self, topic: &str, theirs: u64, times: Times) -> Vec<Arc<[u8]>> {
        let Some(kept) = self.topics.get_mut(topic) else { return Vec::new() };
        match kept.presence.greeted(theirs, times.common) {
            Some(left) => kept.map.throw_away(left),
            None => Vec::new(),
        }
    }

    /// Whether something was written before what is still on its way as live.
    pub(super) fn is_settled(record: &Record, times: Times) -> bool {
        let at = item(record).map_or(u64::MAX, |item| Stamp(item.time).millis());
        at.saturating_add(SETTLE.as_millis() as u64) < times.common
    }
}

/// How far back the copy of whoever greets goes, if it is one of values by key, and the topic.
pub(super) fn read_name(name: Vec<u8>) -> (Option<u64>, String) {
    let own = name.strip_prefix(&[0]).and_then(|rest| rest.split_first_chunk());
    let (since, topic) = match own {
        Some((since, topic)) => (Some(u64::from_be_bytes(*since)), topic.to_vec()),
        None => (None, name),
    };
    (since, String::from_utf8(topic).unwrap_or_default())
}

fn version(record: &Record, keyed: &Keyed<'_>) -> Version {
    Version {
        stamp: keyed.stamp,
        author: record.author_id(),
        id: Id::of(record.bytes()),
        mark: keyed.value.is_none(),
        record: Arc::from(record.bytes()),
    }
}

/// The place of a value among what is compared.
fn item(record: &Record) -> Option<Item> {
    let keyed = Keyed::decode(record.wire.data()).ok()?;
    Some(Item { time: keyed.stamp.0, id: Id::of(record.bytes()) })
}

/// Reads a record that was verified: its first field is its author, its second the payload.
fn entry(key: &[u8], record: Arc<[u8]>) -> Option<Entry> {
    let (author, rest) = field(0x0a, &record)?;
    let (payload, rest) = field(0x12, rest)?;
    let keyed = Keyed::decode(payload).ok()?;
    let end = record.len() - rest.len();
    let value = keyed.value.map(|value| end - value.len()..end);
    let (author, at) = (PeerId::from_bytes(author).ok()?, keyed.stamp.millis());
    Some(Entry { key: key.into(), value, author, at, record })
}

/// A length-delimited field of protobuf, and what is behind it.
fn field(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = bytes.strip_prefix(&[tag])?;
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if byte & 0x80 == 0 {
            return rest.split_at_checked(length);
        }
    }
}

/// The values of a topic as a session sees them.
pub(crate) struct Values<'a> {
    pub(super) topic: &'a str,
    pub(super) map: &'a Latest,
}

impl Store for Values<'_> {
    fn record(&self, item: &Item) -> Option<&[u8]> {
        self.map.by_item(item).map(|(_, version)| &*version.record)
    }

    fn item(&self, record: &[u8]) -> Option<Item> {
        let record = Record::decode(record).filter(|record| record.wire.topic() == self.topic)?;
        item(&record)
    }
}

mod saved;
#[cfg(test)]
mod tests;

pub(super) use saved::Taken;
