//! Who provides what: as many of a key as may be, from more than one network.

use std::time::Instant;

use libp2p::{
    Multiaddr, PeerId,
    kad::{ProviderRecord, RecordKey, store::Error},
};

use super::{ADDRESSES, Memtable, OVERHEAD, is_same_end};
use crate::store::{
    format::Row,
    shares::{Bound, Source},
};

impl Memtable {
    /// Takes in a provider that came from `source`. A key that has as many as it may have keeps those: a peer that floods it
    /// with new ones does not drive the old ones out, unless most of them came from one network.
    pub(in crate::store) fn add_provider(
        &mut self,
        mut entry: ProviderRecord,
        source: Source,
        now: Instant,
    ) -> Result<(), Error> {
        entry.addresses.truncate(ADDRESSES);
        let (key, size) = (entry.key.clone(), size_of_provider(&entry));
        let old = |memtable: &Self| {
            let there = memtable.providers.get(&key).into_iter().flatten();
            there.into_iter().find(|(p, _)| p.provider == entry.provider).map(|(p, _)| size_of_provider(p))
        };
        let crowded = |memtable: &Self| {
            let there = memtable.providers.get(&key).map_or(0, Vec::len);
            there >= memtable.limits.providers && old(memtable).is_none()
        };
        if crowded(self) {
            self.expire(now);
        }
        if crowded(self) {
            let Some(provider) = self.one_of_many(&key, source) else { return Ok(()) };
            self.remove_provider(&key, &provider);
            self.displaced += 1;
        }
        let (count, bytes) = (self.providers.len(), self.bytes);
        let lacks = |memtable: &Self| {
            let room = memtable.shares.room(source, Bound::Keys, memtable.limits.records);
            if !memtable.providers.contains_key(&key) && memtable.providers.len() >= room.max(count) {
                return Some(Bound::Keys);
            }
            (!memtable.has_room(source, old(memtable), size, bytes)).then_some(Bound::Bytes)
        };
        if !self.make_room(source, (&key, size), lacks, now) {
            return Err(Error::MaxProvidedKeys);
        }
        let mut there = self.providers.get(&key).into_iter().flatten().map(|(old, _)| old);
        let is_same = |old: &&ProviderRecord| {
            old.provider == entry.provider
                && old.addresses == entry.addresses
                && is_same_end(old.expires, entry.expires, now)
        };
        match there.find(is_same).map(|old| old.expires) {
            Some(expires) => entry.expires = expires,
            None => self.touch(Row::Provider(key, entry.provider)),
        }
        self.insert_entry(entry, source);
        Ok(())
    }

    /// Of a key that is crowded, the provider that gives way to one of `source`: of the network with the most, if that has
    /// two more than `source`'s; any other's to this node's own.
    fn one_of_many(&self, key: &RecordKey, source: Source) -> Option<PeerId> {
        let there = self.providers.get(key)?;
        let near = |source: Source| there.iter().filter(|(_, other)| other.is_near(source)).count();
        let others = there.iter().filter(|(_, other)| !other.is_local());
        let (entry, heaviest) = others.max_by_key(|(_, other)| near(*other))?;
        let gives_way = source.is_local() || near(*heaviest) > near(source) + 1;
        gives_way.then_some(entry.provider)
    }

    pub(super) fn insert_entry(&mut self, entry: ProviderRecord, source: Source) {
        self.expect(entry.expires);
        self.take_entry(&entry.key, &entry.provider);
        let size = size_of_provider(&entry);
        self.bytes += size;
        self.entries += 1;
        self.shares.add_entry(source, &entry.key, entry.provider, size);
        self.providers.entry(entry.key.clone()).or_default().push((entry, source));
    }

    pub(super) fn take_entry(&mut self, key: &RecordKey, provider: &PeerId) -> Option<ProviderRecord> {
        let there = self.providers.get_mut(key)?;
        let at = there.iter().position(|(entry, _)| entry.provider == *provider)?;
        let (old, source) = there.remove(at);
        if there.is_empty() {
            self.providers.remove(key);
        }
        let size = size_of_provider(&old);
        self.entries -= 1;
        self.bytes -= size;
        self.shares.remove_entry(source, key, *provider, size);
        Some(old)
    }

    pub(in crate::store) fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.providers.get(key).into_iter().flatten().map(|(entry, _)| entry.clone()).collect()
    }

    /// The entries that name this node.
    pub(in crate::store) fn provided(&self) -> impl Iterator<Item = &ProviderRecord> {
        self.all_entries().filter(|entry| entry.provider == self.local)
    }

    pub(super) fn all_entries(&self) -> impl Iterator<Item = &ProviderRecord> {
        self.providers.values().flatten().map(|(entry, _)| entry)
    }

    pub(in crate::store) fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if let Some(old) = self.take_entry(key, provider) {
            self.touch(Row::Provider(old.key, old.provider));
        }
    }
}

fn size_of_provider(entry: &ProviderRecord) -> usize {
    OVERHEAD + entry.key.as_ref().len() + entry.addresses.iter().map(Multiaddr::len).sum::<usize>()
}
