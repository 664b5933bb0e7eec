//! What values by key are made of on the disk: rows taken from the maps, and maps that are filled from rows. Pure.

use std::collections::{BTreeMap, BTreeSet};

use smidge_catchup::{Id, Keyed, Unsaved};

use super::{Maps, Times, version};
use crate::{
    node::catchup::{
        record::Record,
        rows::{self, Row, Tag},
    },
    store::Change,
};

/// What was taken of a topic, to be given back where it is not written.
pub(in crate::node::catchup) type Taken = (String, Vec<Unsaved>);

/// What a file has of one topic.
pub(in crate::node::catchup) struct Found {
    topic: String,
    values: Vec<(Id, Record)>,
    presence: Option<(u64, Option<u64>)>,
    stale: Vec<Vec<u8>>,
}

impl Found {
    pub(in crate::node::catchup) fn add(&mut self, row: Row, key: Vec<u8>, value: &[u8]) {
        match row {
            Row::Value(id) => match Record::decode(value) {
                Some(record) if record.wire.topic() == self.topic => self.values.push((id, record)),
                _ => self.stale.push(key),
            },
            Row::Presence if rows::read_presence(value).is_some() => {
                self.presence = rows::read_presence(value);
            }
            _ => self.stale.push(key),
        }
    }
}

impl Maps {
    /// Whether anything is to be on the disk.
    pub(in crate::node::catchup) fn is_durable(&self) -> bool {
        self.topics.values().any(|kept| kept.durable)
    }

    /// Topics that are to be looked for in a file.
    pub(in crate::node::catchup) fn found(&self) -> BTreeMap<Tag, Found> {
        let durable = self.topics.iter().filter(|(_, kept)| kept.durable);
        let empty = |topic: &String| Found {
            topic: topic.clone(),
            values: Vec::new(),
            presence: None,
            stale: Vec::new(),
        };
        durable.map(|(topic, _)| (rows::tag(topic), empty(topic))).collect()
    }

    /// Takes what a file has of a topic, and notes changes from now on; gives back rows that are of no use. What is read
    /// later than at the `start` is added to what is here.
    pub(in crate::node::catchup) fn restore(
        &mut self,
        found: Found,
        start: bool,
        times: Times,
    ) -> Vec<Vec<u8>> {
        let Found { topic, values, presence, mut stale } = found;
        let Some(kept) = self.topics.get_mut(&topic) else { return stale };
        for (id, record) in &values {
            if let Ok(keyed) = Keyed::decode(record.wire.data()).map_err(drop)
                && Id::of(keyed.key) == *id
                && kept.clock.see(keyed.stamp, times.later()).is_ok()
            {
                kept.map.merge(keyed.key, version(record, &keyed));
            }
        }
        kept.map.expire(times.earlier());
        kept.map.track(start);
        for (_, record) in &values {
            if let Ok(keyed) = Keyed::decode(record.wire.data()) {
                kept.map.has_row(keyed.key);
            }
        }
        let there: BTreeSet<_> = kept.map.iter().map(|(key, _)| Id::of(key)).collect();
        let gone = values.iter().filter(|(id, _)| !there.contains(id));
        stale.extend(gone.map(|(id, _)| rows::key(&rows::tag(&topic), &Row::Value(*id))));
        if let Some((since, left)) = presence.filter(|_| start) {
            kept.presence.resume(since, left);
            kept.saved = left;
        }
        stale
    }

    /// Rows that are not written.
    pub(in crate::node::catchup) fn unwritten(&self) -> usize {
        let of = |kept: &super::Kept| kept.map.unwritten() + usize::from(kept.is_presence_due());
        self.topics.values().filter(|kept| kept.durable).map(of).sum()
    }

    /// Takes what is to be written, as much as there is room for.
    pub(in crate::node::catchup) fn take(
        &mut self,
        room: &mut usize,
        is_end: bool,
        changes: &mut Vec<Change>,
    ) -> Vec<Taken> {
        let mut all = Vec::new();
        for (topic, kept) in self.topics.iter_mut().filter(|(_, kept)| kept.durable) {
            if *room == 0 || kept.map.unwritten() == 0 && !is_end && !kept.is_presence_due() {
                continue;
            }
            let tag = rows::tag(topic);
            let taken = kept.map.take_unwritten(*room);
            for Unsaved { id, key, .. } in &taken {
                let record = kept.map.version(key).map(|version| version.record.to_vec());
                *room = room.saturating_sub(record.as_ref().map_or(0, Vec::len));
                changes.push((rows::key(&tag, &Row::Value(*id)), record));
            }
            let (since, left) = kept.presence.state();
            kept.saved = left;
            changes.push((rows::key(&tag, &Row::Presence), Some(rows::put_presence(since, left))));
            all.push((topic.clone(), taken));
        }
        all
    }

    /// What was taken is written.
    pub(in crate::node::catchup) fn written(&mut self, taken: &[Taken]) {
        for (topic, taken) in taken {
            if let Some(kept) = self.topics.get_mut(topic) {
                kept.map.written(taken);
            }
        }
    }

    /// What was taken is not written.
    pub(in crate::node::catchup) fn not_written(&mut self, taken: &[Taken]) {
        for (topic, taken) in taken {
            if let Some(kept) = self.topics.get_mut(topic) {
                kept.map.restore_unwritten(taken);
                kept.saved = None;
            }
        }
    }
}

impl super::Kept {
    /// That others are there moves all the time: it is written with what else is, and else where it moved by much.
    fn is_presence_due(&self) -> bool {
        let (_, left) = self.presence.state();
        let moved = left.unwrap_or(0).saturating_sub(self.saved.unwrap_or(0));
        left.is_some() && u128::from(moved) * 16 >= self.marks.as_millis()
    }
}
