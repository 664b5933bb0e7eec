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
    Limits,
    format::{Item, Known, Moment, Row},
    journal::Change,
};

/// Bytes that an entry counts beside its key, value and addresses.
const OVERHEAD: usize = 128;
/// Addresses kept of one provider or peer.
const ADDRESSES: usize = 16;
/// A known peer is written again only when it was seen this much later.
const SEEN: Duration = Duration::from_secs(3600);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Memtable {
    local: PeerId,
    limits: Limits,
    records: HashMap<RecordKey, Record>,
    providers: HashMap<RecordKey, Vec<ProviderRecord>>,
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
}

impl Memtable {
    /// An empty memtable. `noted`: whether changes are tracked.
    pub(super) fn new(local: PeerId, limits: Limits, noted: bool) -> Self {
        Self {
            local,
            limits,
            records: HashMap::new(),
            providers: HashMap::new(),
            peers: HashMap::new(),
            entries: 0,
            bytes: 0,
            soonest: None,
            changes: 0,
            changed: noted.then(HashSet::new),
            refused: 0,
        }
    }

    /// Takes in what was stored in an earlier run, bounds or not: it was promised to be kept. What has
    /// expired is noted to be gone. `None` if something cannot be read.
    pub(super) fn load(&mut self, stored: HashMap<Vec<u8>, Vec<u8>>, at: Moment) -> Option<()> {
        for (key, value) in stored {
            let row = Row::decode(&key)?;
            match Item::decode(&row, &value, at)? {
                Some(Item::Record(record)) => {
                    self.expect(record.expires);
                    self.bytes += size_of_record(&record);
                    self.records.insert(record.key.clone(), record);
                }
                // An entry without an end is one of this node's own, under another key now.
                Some(Item::Provider(entry)) if entry.expires.is_none() && entry.provider != self.local => {
                    self.touch(row);
                }
                Some(Item::Provider(entry)) => {
                    self.expect(entry.expires);
                    self.bytes += size_of_provider(&entry);
                    self.entries += 1;
                    self.providers.entry(entry.key.clone()).or_default().push(entry);
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
        self.records.get(key)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    pub(super) fn put(&mut self, record: Record, now: Instant) -> Result<(), Error> {
        if record.value.len() > self.limits.value {
            self.refused += 1;
            return Err(Error::ValueTooLarge);
        }
        let size = size_of_record(&record);
        let fits = |memtable: &Self| {
            let old = memtable.records.get(&record.key).map(size_of_record);
            (old.is_some() || memtable.records.len() < memtable.limits.records)
                && memtable.has_room(old, size)
        };
        if !fits(self) {
            self.expire(now);
            if !fits(self) {
                self.refused += 1;
                return Err(Error::MaxRecords);
            }
        }
        self.expect(record.expires);
        self.touch(Row::Record(record.key.clone()));
        self.bytes += size;
        let old = self.records.insert(record.key.clone(), record);
        self.bytes -= old.as_ref().map_or(0, size_of_record);
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &RecordKey) {
        if let Some(old) = self.records.remove(key) {
            self.bytes -= size_of_record(&old);
            self.touch(Row::Record(old.key));
        }
    }

    /// Takes in a provider. A key that has as many as it may have keeps those: whoever floods it with
    /// new ones does not drive the old ones out.
    pub(super) fn add_provider(&mut self, mut entry: ProviderRecord, now: Instant) -> Result<(), Error> {
        entry.addresses.truncate(ADDRESSES);
        let size = size_of_provider(&entry);
        let old = |memtable: &Self| {
            let there = memtable.providers.get(&entry.key).into_iter().flatten();
            there.into_iter().find(|p| p.provider == entry.provider).map(size_of_provider)
        };
        let crowded = |memtable: &Self| {
            let there = memtable.providers.get(&entry.key).map_or(0, Vec::len);
            there >= memtable.limits.providers && old(memtable).is_none()
        };
        let fits = |memtable: &Self| {
            (memtable.providers.contains_key(&entry.key)
                || memtable.providers.len() < memtable.limits.records)
                && memtable.has_room(old(memtable), size)
        };
        if crowded(self) || !fits(self) {
            self.expire(now);
        }
        if crowded(self) {
            return Ok(());
        }
        if !fits(self) {
            self.refused += 1;
            return Err(Error::MaxProvidedKeys);
        }
        self.expect(entry.expires);
        self.touch(Row::Provider(entry.key.clone(), entry.provider));
        self.bytes += size;
        let there = self.providers.entry(entry.key.clone()).or_default();
        match there.iter_mut().find(|p| p.provider == entry.provider) {
            Some(old) => {
                self.bytes -= size_of_provider(old);
                *old = entry;
            }
            None => {
                self.entries += 1;
                there.push(entry);
            }
        }
        Ok(())
    }

    pub(super) fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.providers.get(key).cloned().unwrap_or_default()
    }

    /// The entries that name this node.
    pub(super) fn provided(&self) -> impl Iterator<Item = &ProviderRecord> {
        self.providers.values().flatten().filter(|entry| entry.provider == self.local)
    }

    pub(super) fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        let Some(there) = self.providers.get_mut(key) else { return };
        let Some(at) = there.iter().position(|entry| entry.provider == *provider) else { return };
        let old = there.remove(at);
        if there.is_empty() {
            self.providers.remove(key);
        }
        self.entries -= 1;
        self.bytes -= size_of_provider(&old);
        self.touch(Row::Provider(old.key, old.provider));
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
        let records = self.records.values().filter(|r| gone(&r.expires)).map(|r| r.key.clone());
        let records: Vec<_> = records.collect();
        let providers = self.providers.values().flatten().filter(|p| gone(&p.expires));
        let providers: Vec<_> = providers.map(|p| (p.key.clone(), p.provider)).collect();
        records.iter().for_each(|key| self.remove(key));
        providers.iter().for_each(|(key, provider)| self.remove_provider(key, provider));
        let entries = self.providers.values().flatten().filter_map(|p| p.expires);
        self.soonest = self.records.values().filter_map(|r| r.expires).chain(entries).min();
    }

    /// When the next thing expires, at the earliest.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.soonest
    }

    /// Notes all that expires as changed: the clock by which it was written has been set.
    pub(super) fn redate(&mut self) {
        let records = self.records.values().filter(|r| r.expires.is_some());
        let records = records.map(|r| Row::Record(r.key.clone()));
        let entries = self.providers.values().flatten().filter(|p| p.expires.is_some());
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
            Row::Record(key) => self.records.get(key).cloned().map(Item::Record),
            Row::Provider(key, provider) => {
                let there = self.providers.get(key)?;
                there.iter().find(|p| p.provider == *provider).cloned().map(Item::Provider)
            }
            Row::Peer(peer) => self.peers.get(peer).cloned().map(Item::Peer),
        }
    }

    /// Whether something of `size` bytes has room in the place of something of `old` bytes, if any.
    fn has_room(&self, old: Option<usize>, size: usize) -> bool {
        let old = old.unwrap_or(0);
        // What was loaded may be more than the bounds allow now: it may stay as large as it is.
        size <= old || self.bytes - old + size <= self.limits.bytes
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
        Counts { records, entries, peers, bytes: self.bytes, refused: self.refused }
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
}

fn size_of_record(record: &Record) -> usize {
    OVERHEAD + record.key.as_ref().len() + record.value.len()
}

fn size_of_provider(entry: &ProviderRecord) -> usize {
    OVERHEAD + entry.key.as_ref().len() + entry.addresses.iter().map(Multiaddr::len).sum::<usize>()
}
