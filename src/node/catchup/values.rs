//! What the event loop asks of the values by key: `maps.rs` with the clock that all memories share, and the bound.

use std::sync::Arc;

use smidge_catchup::{Full, Stamp};

use super::{
    book::Book,
    maps::{Changed, Entry, Value},
    record::Record,
};

/// A topic, and the key in it that made room.
type GaveWay = (String, Arc<[u8]>);

impl Book {
    /// Whether a topic is one of values by key.
    pub(crate) fn is_by_key(&self, topic: &str) -> bool {
        self.maps.keeps(topic)
    }

    /// What a message is to the values of its topic.
    pub(crate) fn judge_value(&self, record: &Record, is_live: bool, now: u64) -> Value {
        self.maps.judge(record, is_live, self.times(now))
    }

    /// Takes a value that was verified and let in. Also gives back what gave way in other topics.
    pub(crate) fn take_value(&mut self, record: &Record, now: u64) -> (Changed, Vec<GaveWay>) {
        let changed = self.maps.merge(record, self.times(now));
        self.make_room();
        let mut others = Vec::new();
        // Messages have gone already.
        while self.maps.bytes() > self.bound()
            && let Some(gone) = self.maps.give_way()
        {
            others.push(gone);
        }
        (changed, others)
    }

    /// Whether a record of so many bytes may be made of a key here.
    pub(crate) fn admits_value(
        &mut self,
        topic: &str,
        key: &[u8],
        record: usize,
        now: u64,
    ) -> Result<(), Full> {
        let times = self.times(now);
        self.maps.admits(topic, key, record, times)?;
        let all = self.maps.bytes() + record + key.len() + smidge_catchup::Latest::OVERHEAD;
        if all > self.bound() && self.maps.get(topic, key).is_none() {
            return Err(Full::Bytes(self.bound()));
        }
        Ok(())
    }

    /// The stamp of what this node writes next.
    pub(crate) fn next_stamp(&mut self, topic: &str, now: u64) -> Option<Stamp> {
        self.maps.stamp(topic, self.times(now))
    }

    /// The value of a key.
    pub(crate) fn value(&self, topic: &str, key: &[u8]) -> Option<Entry> {
        self.maps.get(topic, key)
    }

    /// All values of a topic, in the order of their keys.
    pub(crate) fn values(&self, topic: &str) -> Option<Vec<Entry>> {
        self.maps.list(topic)
    }

    /// A neighbour keeps what is not taken here; because its time has not come, or because of the rules.
    pub(crate) fn refuse_value(&mut self, record: &Record, is_ahead: bool) {
        self.maps.refuse(record, is_ahead);
    }

    /// Keys with a value, deleted ones, and bytes, of all topics.
    pub(crate) fn values_held(&self) -> (usize, usize, usize) {
        self.maps.held()
    }
}
