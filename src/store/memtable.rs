//! The memtable: everything stored, in memory, where reads are answered and bounds enforced.
//!
//! Pure: the present moment is handed in. Tracks the rows that changed, and never writes.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    kad::{ProviderRecord, Record, RecordKey, store::Error},
};

use super::{
    Change, Limits,
    format::{Item, Known, Moment, Row},
    shares::{Bound, Shares, Source, Victim},
};

mod providers;

/// Bytes that an entry counts beside its key, value and addresses.
const OVERHEAD: usize = 128;
/// Addresses kept of one provider or peer.
const ADDRESSES: usize = 16;
/// A known peer is written again only when it was seen this much later.
const SEEN: Duration = Duration::from_secs(3600);
/// Of what is left of something's life, the part by which its end may be put off without being written anew.
const PUT_OFF: u32 = 64;
/// It may be brought forward by that part, too, but not by more than this: peers say in whole seconds what is left.
const BROUGHT_FORWARD: Duration = Duration::from_secs(2);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Memtable {
    local: PeerId,
    limits: Limits,
    records: HashMap<RecordKey, (Record, Source)>,
    providers: HashMap<RecordKey, Vec<(ProviderRecord, Source)>>,
    shares: Shares,
    peers: HashMap<PeerId, Known>,
    entries: usize,
    bytes: usize,
    /// Nothing expires before this.
    soonest: Option<Instant>,
    /// How often something changed.
    changes: u64,
    /// Rows changed since the last [`take_changes`](Self::take_changes); `None` for a store in memory.
    changed: Option<HashSet<Row>>,
    refused: u64,
    displaced: u64,
}

impl Memtable {
    /// An empty memtable. `noted`: whether changes are tracked.
    pub(super) fn new(local: PeerId, limits: Limits, noted: bool) -> Self {
        Self {
            local,
            limits,
            records: HashMap::new(),
            providers: HashMap::new(),
            shares: Shares::new(local),
            peers: HashMap::new(),
            entries: 0,
            bytes: 0,
            soonest: None,
            changes: 0,
            changed: noted.then(HashSet::new),
            refused: 0,
            displaced: 0,
        }
    }

    /// Takes in what was stored in an earlier run, bounds or not: it was promised to be kept. What has
    /// expired is noted to be gone. `None` if something cannot be read.
    pub(super) fn load(&mut self, stored: HashMap<Vec<u8>, Vec<u8>>, at: Moment) -> Option<()> {
        for (key, value) in stored {
            let row = Row::decode(&key)?;
            match Item::decode(&row, &value, at)? {
                Some(Item::Record(record)) => {
                    let own = record.publisher == Some(self.local);
                    self.insert_record(record, if own { Source::LOCAL } else { Source::EARLIER });
                }
                // An entry without an end is one of this node's own, under another key now.
                Some(Item::Provider(entry)) if entry.expires.is_none() && entry.provider != self.local => {
                    self.touch(row);
                }
                Some(Item::Provider(entry)) => {
                    let own = entry.provider == self.local;
                    self.insert_entry(entry, if own { Source::LOCAL } else { Source::EARLIER });
                }
                Some(Item::Peer(known)) => {
                    if let Row::Peer(peer) = row {
                        self.peers.insert(peer, known);
                    }
                }
                None => self.touch(row),
            }
        }
        while self.peers.len() > self.limits.peers {
            self.forget_oldest_peer();
        }
        Some(())
    }

    pub(super) fn record(&self, key: &RecordKey) -> Option<&Record> {
        self.records.get(key).map(|(record, _)| record)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values().map(|(record, _)| record)
    }

    /// Takes in a record that came from `source`. Where there is no room, others give way as [`Shares`] decides. One that is
    /// there already keeps its end if that would hardly move, and nothing is written: holders hand each other
    /// their records again and again.
    pub(super) fn put(&mut self, mut record: Record, source: Source, now: Instant) -> Result<(), Error> {
        if record.value.len() > self.limits.value {
            self.refused += 1;
            return Err(Error::ValueTooLarge);
        }
        let (key, size) = (record.key.clone(), size_of_record(&record));
        // What was loaded may be more than the bounds allow now: it may stay as much as it is.
        let (count, bytes) = (self.records.len(), self.bytes);
        let lacks = |memtable: &Self| {
            let old = memtable.record(&key).map(size_of_record);
            let room = memtable.shares.room(source, Bound::Records, memtable.limits.records);
            if old.is_none() && memtable.records.len() >= room.max(count) {
                return Some(Bound::Records);
            }
            (!memtable.has_room(source, old, size, bytes)).then_some(Bound::Bytes)
        };
        if !self.make_room(source, (&key, size), lacks, now) {
            return Err(Error::MaxRecords);
        }
        let is_same = |old: &&Record| {
            old.value == record.value
                && old.publisher == record.publisher
                && is_same_end(old.expires, record.expires, now)
        };
        match self.record(&key).filter(is_same) {
            Some(old) => record.expires = old.expires,
            None => self.touch(Row::Record(key)),
        }
        self.insert_record(record, source);
        Ok(())
    }

    fn insert_record(&mut self, record: Record, source: Source) {
        self.expect(record.expires);
        self.take_record(&record.key);
        let size = size_of_record(&record);
        self.bytes += size;
        self.shares.add_record(source, &record.key, size);
        self.records.insert(record.key.clone(), (record, source));
    }

    fn take_record(&mut self, key: &RecordKey) -> Option<Record> {
        let (old, source) = self.records.remove(key)?;
        let size = size_of_record(&old);
        self.bytes -= size;
        self.shares.remove_record(source, key, size);
        Some(old)
    }

    pub(super) fn remove(&mut self, key: &RecordKey) {
        if let Some(old) = self.take_record(key) {
            self.touch(Row::Record(old.key));
        }
    }

    /// Lets others give way until `lacks` finds nothing to be short of; `false`, and counted, where nobody has to. What
    /// gave way before that was found is gone: it was of a source with more than this one.
    fn make_room(
        &mut self,
        source: Source,
        new: (&RecordKey, usize),
        lacks: impl Fn(&Self) -> Option<Bound>,
        now: Instant,
    ) -> bool {
        if lacks(self).is_some() {
            self.expire(now);
        }
        while let Some(bound) = lacks(self) {
            let limit = match bound {
                Bound::Records | Bound::Keys => self.limits.records,
                Bound::Bytes => self.limits.bytes,
            };
            let sole = |key: &RecordKey| self.providers.get(key).is_some_and(|there| there.len() == 1);
            match self.shares.victim(source, bound, limit, new, sole) {
                Some(Victim::Record(key)) => self.remove(&key),
                Some(Victim::Entry(key, provider)) => self.remove_provider(&key, &provider),
                None => {
                    self.refused += 1;
                    return false;
                }
            }
            self.displaced += 1;
        }
        true
    }

    /// Notes where a peer was found; of too many, the one that was not seen for longest is forgotten.
    pub(super) fn remember(&mut self, peer: PeerId, addresses: &BTreeSet<Multiaddr>, at: Moment) {
        if self.limits.peers == 0 || addresses.is_empty() || peer == self.local {
            return;
        }
        let seen = at.unix.as_secs();
        let addresses: Vec<_> = addresses.iter().take(ADDRESSES).cloned().collect();
        if let Some(known) = self.peers.get(&peer)
            && known.addresses == addresses
            && seen.abs_diff(known.seen) < SEEN.as_secs()
        {
            return;
        }
        if !self.peers.contains_key(&peer) && self.peers.len() >= self.limits.peers {
            self.forget_oldest_peer();
        }
        self.peers.insert(peer, Known { addresses, seen });
        self.touch(Row::Peer(peer));
    }

    /// Drops an address of a peer, or all of them; a peer without one is forgotten.
    pub(super) fn forget(&mut self, peer: &PeerId, address: Option<&Multiaddr>) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        let before = known.addresses.len();
        known.addresses.retain(|a| address.is_some_and(|gone| a != gone));
        if known.addresses.len() == before {
            return;
        }
        if known.addresses.is_empty() {
            self.peers.remove(peer);
        }
        self.touch(Row::Peer(*peer));
    }

    fn forget_oldest_peer(&mut self) {
        let oldest = self.peers.iter().min_by_key(|(_, known)| known.seen).map(|(peer, _)| *peer);
        if let Some(peer) = oldest {
            self.peers.remove(&peer);
            self.touch(Row::Peer(peer));
        }
    }

    /// The peers known, those seen last first.
    pub(super) fn known(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut known: Vec<_> = self.peers.iter().collect();
        known.sort_by_key(|(peer, known)| (u64::MAX - known.seen, **peer));
        known.into_iter().map(|(peer, known)| (*peer, known.addresses.clone())).collect()
    }

    /// Drops what has expired.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.soonest.is_none_or(|at| at > now) {
            return;
        }
        let gone = |expires: &Option<Instant>| expires.is_some_and(|at| at <= now);
        let records: Vec<_> = self.records().filter(|r| gone(&r.expires)).map(|r| r.key.clone()).collect();
        let providers = self.all_entries().filter(|p| gone(&p.expires));
        let providers: Vec<_> = providers.map(|p| (p.key.clone(), p.provider)).collect();
        records.iter().for_each(|key| self.remove(key));
        providers.iter().for_each(|(key, provider)| self.remove_provider(key, provider));
        let entries = self.all_entries().filter_map(|p| p.expires);
        self.soonest = self.records().filter_map(|r| r.expires).chain(entries).min();
    }

    /// When the next thing expires, at the earliest.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.soonest
    }

    /// Notes all that expires as changed: the clock by which it was written has been set.
    pub(super) fn redate(&mut self) {
        let records = self.records().filter(|r| r.expires.is_some());
        let records = records.map(|r| Row::Record(r.key.clone()));
        let entries = self.all_entries().filter(|p| p.expires.is_some());
        let rows: Vec<_> = records.chain(entries.map(|p| Row::Provider(p.key.clone(), p.provider))).collect();
        rows.into_iter().for_each(|row| self.touch(row));
    }

    /// The rows that changed since the last call, with what they hold now.
    pub(super) fn take_changes(&mut self, at: Moment) -> (Vec<Row>, Vec<Change>) {
        let rows: Vec<_> = self.changed.iter_mut().flat_map(|changed| changed.drain()).collect();
        let changes = rows.iter().map(|row| (row.encode(), self.item(row).map(|item| item.encode(at))));
        let changes = changes.collect();
        (rows, changes)
    }

    /// Gives back what [`take_changes`](Self::take_changes) gave and could not be written.
    pub(super) fn restore_changes(&mut self, rows: Vec<Row>) {
        if let Some(changed) = &mut self.changed {
            changed.extend(rows);
        }
    }

    fn item(&self, row: &Row) -> Option<Item> {
        match row {
            Row::Record(key) => self.record(key).cloned().map(Item::Record),
            Row::Provider(key, provider) => {
                let there = self.providers.get(key)?;
                let entry = there.iter().find(|(entry, _)| entry.provider == *provider);
                entry.map(|(entry, _)| Item::Provider(entry.clone()))
            }
            Row::Peer(peer) => self.peers.get(peer).cloned().map(Item::Peer),
        }
    }

    /// Whether something of `source`, of `size` bytes, has room in the place of something of `old` bytes, if any, where
    /// there were `bytes` to begin with.
    fn has_room(&self, source: Source, old: Option<usize>, size: usize, bytes: usize) -> bool {
        let old = old.unwrap_or(0);
        let room = self.shares.room(source, Bound::Bytes, self.limits.bytes);
        size <= old || self.bytes - old + size <= room.max(bytes)
    }

    fn touch(&mut self, row: Row) {
        self.changes += 1;
        if let Some(changed) = &mut self.changed {
            changed.insert(row);
        }
    }

    fn expect(&mut self, expires: Option<Instant>) {
        self.soonest = self.soonest.into_iter().chain(expires).min();
    }

    /// How often something changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Rows that wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.changed.as_ref().map_or(0, HashSet::len)
    }

    pub(super) fn counts(&self) -> Counts {
        let (records, entries, peers) = (self.records.len(), self.entries, self.peers.len());
        let (refused, displaced) = (self.refused, self.displaced);
        Counts { records, entries, peers, bytes: self.bytes, refused, displaced }
    }

    /// What the shares add up to, of which every sum has to be the memtable's own.
    #[cfg(test)]
    pub(super) fn totals(&self) -> (usize, usize, usize) {
        self.shares.totals()
    }

    pub(super) fn refuse(&mut self) {
        self.refused += 1;
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) records: usize,
    pub(super) entries: usize,
    pub(super) peers: usize,
    pub(super) bytes: usize,
    pub(super) refused: u64,
    pub(super) displaced: u64,
}

/// Whether something may keep the end that it has, in memory and on the disk, where it was to have the `new` one.
fn is_same_end(old: Option<Instant>, new: Option<Instant>, now: Instant) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old == new };
    let slack = old.saturating_duration_since(now) / PUT_OFF;
    new.saturating_duration_since(old) <= slack
        && old.saturating_duration_since(new) <= slack.min(BROUGHT_FORWARD)
}

fn size_of_record(record: &Record) -> usize {
    OVERHEAD + record.key.as_ref().len() + record.value.len()
}
