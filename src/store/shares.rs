//! Whose entries a store holds, and which one gives way when it is full.
//!
//! Peer ids cost nothing, addresses do: what is taken in counts for the network that it came from (an IPv4 address, an
//! IPv6 /64), and within it for the peer. The heaviest network gives way to a lighter one, in it the heaviest peer, and
//! of that peer what lies farthest from this node's own id: others are asked for it first. Between equals, too, what is
//! nearer displaces what is farther. A quarter of everything is kept free for this node's own, which gives way to nobody.
//!
//! Pure. Knows keys and sizes, not what is stored.

use std::{collections::BTreeMap, net::IpAddr};

use libp2p::{
    Multiaddr, PeerId,
    kad::{KBucketDistance, KBucketKey, RecordKey},
};

use crate::transport::multiaddr::{host, ip};

/// The part of each bound that only this node's own entries may fill: one of so many.
const RESERVE: usize = 4;

/// Where something stored came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    network: Network,
    peer: Option<PeerId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Network {
    /// This node.
    Local,
    /// Others, in an earlier run: from where was not written down.
    Earlier,
    /// An address of IPv4, or a /64.
    Host(IpAddr),
    /// No IP address is known.
    Peer(PeerId),
}

impl Source {
    pub(super) const LOCAL: Self = Self { network: Network::Local, peer: None };
    pub(super) const EARLIER: Self = Self { network: Network::Earlier, peer: None };

    /// A peer that is connected from, or at, `address`. Peers behind one relay are one network.
    pub(crate) fn remote(peer: PeerId, address: &Multiaddr) -> Self {
        let network = ip(address).map_or(Network::Peer(peer), |ip| Network::Host(host(ip)));
        Self { network, peer: Some(peer) }
    }

    pub(super) fn is_local(self) -> bool {
        self.network == Network::Local
    }

    pub(super) fn is_near(self, other: Self) -> bool {
        self.network == other.network
    }
}

/// What there can be too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Records,
    /// Keys with providers.
    Keys,
    Bytes,
}

/// What is to give way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Record(RecordKey),
    Entry(RecordKey, PeerId),
}

/// What came from one source, nearest to this node's own id first.
#[derive(Debug, Default)]
struct Share {
    records: BTreeMap<KBucketDistance, RecordKey>,
    entries: BTreeMap<(KBucketDistance, PeerId), RecordKey>,
    bytes: usize,
}

impl Share {
    fn weight(&self, bound: Bound) -> usize {
        match bound {
            Bound::Records => self.records.len(),
            Bound::Keys => self.entries.len(),
            Bound::Bytes => self.bytes,
        }
    }

    /// What lies farthest and would make room; `sole`: whether a key has one provider.
    fn farthest(&self, bound: Bound, sole: impl Fn(&RecordKey) -> bool) -> Option<(KBucketDistance, Victim)> {
        let record = || self.records.last_key_value().map(|(at, key)| (*at, Victim::Record(key.clone())));
        let entry = |fits: &dyn Fn(&RecordKey) -> bool| {
            let mut farthest_first = self.entries.iter().rev();
            let ((at, peer), key) = farthest_first.find(|(_, key)| fits(key))?;
            Some((*at, Victim::Entry(key.clone(), *peer)))
        };
        match bound {
            Bound::Records => record(),
            Bound::Keys => entry(&sole),
            Bound::Bytes => match (record(), entry(&|_| true)) {
                (Some(record), Some(entry)) if entry.0 > record.0 => Some(entry),
                (record, entry) => record.or(entry),
            },
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Shares {
    local: KBucketKey<PeerId>,
    /// Those of one network side by side.
    all: BTreeMap<Source, Share>,
}

impl Shares {
    pub(super) fn new(local: PeerId) -> Self {
        Self { local: local.into(), all: BTreeMap::new() }
    }

    fn distance(&self, key: &RecordKey) -> KBucketDistance {
        self.local.distance(&KBucketKey::new(key.clone()))
    }

    pub(super) fn add_record(&mut self, source: Source, key: &RecordKey, size: usize) {
        let at = self.distance(key);
        let share = self.all.entry(source).or_default();
        share.records.insert(at, key.clone());
        share.bytes += size;
    }

    pub(super) fn add_entry(&mut self, source: Source, key: &RecordKey, provider: PeerId, size: usize) {
        let at = self.distance(key);
        let share = self.all.entry(source).or_default();
        share.entries.insert((at, provider), key.clone());
        share.bytes += size;
    }

    pub(super) fn remove_record(&mut self, source: Source, key: &RecordKey, size: usize) {
        let at = self.distance(key);
        self.remove(source, size, |share| drop(share.records.remove(&at)));
    }

    pub(super) fn remove_entry(&mut self, source: Source, key: &RecordKey, provider: PeerId, size: usize) {
        let at = self.distance(key);
        self.remove(source, size, |share| drop(share.entries.remove(&(at, provider))));
    }

    fn remove(&mut self, source: Source, size: usize, remove: impl FnOnce(&mut Share)) {
        if let Some(share) = self.all.get_mut(&source) {
            remove(share);
            share.bytes -= size;
            if share.records.is_empty() && share.entries.is_empty() {
                self.all.remove(&source);
            }
        }
    }

    fn weight(&self, source: Source, bound: Bound) -> usize {
        self.all.get(&source).map_or(0, |share| share.weight(bound))
    }

    /// How far all entries together may go, of `limit`, with one more of `source`.
    pub(super) fn room(&self, source: Source, bound: Bound, limit: usize) -> usize {
        let reserve = if source.is_local() { 0 } else { limit / RESERVE };
        limit - reserve.saturating_sub(self.weight(Source::LOCAL, bound))
    }

    /// What gives way to something new of `size` bytes under `key`; `None`: nothing does, and the new is refused. `sole`:
    /// whether a key has one provider.
    pub(super) fn victim(
        &self,
        source: Source,
        bound: Bound,
        limit: usize,
        (key, size): (&RecordKey, usize),
        sole: impl Fn(&RecordKey) -> bool,
    ) -> Option<Victim> {
        let more = if bound == Bound::Bytes { size } else { 1 };
        let (mut mine, mut heaviest) = (0, None);
        let mut networks: Vec<(Network, usize)> = Vec::new();
        for (source, share) in &self.all {
            match networks.last_mut() {
                Some((network, weight)) if *network == source.network => *weight += share.weight(bound),
                _ => networks.push((source.network, share.weight(bound))),
            }
        }
        for (network, weight) in networks {
            if network == source.network {
                mine = weight;
            }
            if network != Network::Local && heaviest.is_none_or(|(_, most)| weight > most) {
                heaviest = Some((network, weight));
            }
        }
        let (heaviest, most) = heaviest?;
        let own_room = source.is_local() && mine + more <= limit / RESERVE;
        let network = match heaviest {
            heaviest if own_room || most > mine + more => heaviest,
            _ if source.is_local() => return None,
            _ => source.network,
        };
        let peers = self.all.iter().filter(|(other, _)| other.network == network);
        let (whose, share) = peers.max_by_key(|(_, share)| share.weight(bound))?;
        if network != source.network || share.weight(bound) > self.weight(source, bound) + more {
            debug_assert!(!whose.is_local());
            return share.farthest(bound, sole).map(|(_, victim)| victim);
        }
        let (at, victim) = self.all.get(&source)?.farthest(bound, sole)?;
        (at > self.distance(key)).then_some(victim)
    }

    /// Records, entries and bytes of all sources.
    #[cfg(test)]
    pub(super) fn totals(&self) -> (usize, usize, usize) {
        let sum = |of: fn(&Share) -> usize| self.all.values().map(of).sum();
        (sum(|share| share.records.len()), sum(|share| share.entries.len()), sum(|share| share.bytes))
    }
}
