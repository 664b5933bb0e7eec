//! The records by address, and what is asked of them all of the time without a walk over thousands: which is due, how many
//! dials are under way, which are a peer's.
//!
//! A record is changed through [`Edit`] alone, which puts it where it belongs when it is dropped.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::{Deref, DerefMut},
    time::Instant,
};

use libp2p::{Multiaddr, PeerId};

use crate::dialer::record::{Record, State};

#[derive(Debug, Default)]
pub(super) struct Table {
    records: BTreeMap<Multiaddr, Box<Record>>,
    index: Index,
}

/// A record that is being changed.
pub(super) struct Edit<'a> {
    record: &'a mut Record,
    index: &'a mut Index,
    address: &'a Multiaddr,
    before: Place,
}

#[derive(Debug, Default)]
struct Index {
    /// Records that are to be dialed, and when.
    due: BTreeSet<(Instant, Multiaddr)>,
    /// Records under way that have another way, and when that is tried.
    ways: BTreeSet<(Instant, Multiaddr)>,
    dialing: usize,
    /// Where a peer was last, or is asked for.
    by_peer: HashMap<PeerId, BTreeSet<Multiaddr>>,
}

/// What the index knows of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    due: Option<Instant>,
    way: Option<Instant>,
    is_dialing: bool,
    peers: [Option<PeerId>; 2],
}

impl Table {
    pub(super) fn get(&self, address: &Multiaddr) -> Option<&Record> {
        self.records.get(address).map(Box::as_ref)
    }

    /// The address as it is kept.
    pub(super) fn key(&self, address: &Multiaddr) -> Option<&Multiaddr> {
        self.records.get_key_value(address).map(|(address, _)| address)
    }

    pub(super) fn edit<'a>(&'a mut self, address: &'a Multiaddr) -> Option<Edit<'a>> {
        let record = self.records.get_mut(address)?.as_mut();
        Some(Edit { before: Place::of(record), record, index: &mut self.index, address })
    }

    /// Puts a new record into its place.
    pub(super) fn insert(&mut self, address: Multiaddr, record: Record) {
        self.remove(&address);
        self.index.put(&address, Place::NOWHERE, Place::of(&record));
        self.records.insert(address, Box::new(record));
    }

    pub(super) fn remove(&mut self, address: &Multiaddr) -> Option<Record> {
        let record = self.records.remove(address)?;
        self.index.put(address, Place::of(&record), Place::NOWHERE);
        Some(*record)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Multiaddr, &Record)> {
        self.records.iter().map(|(address, record)| (address, record.as_ref()))
    }

    /// The records where `peer` was last, or is asked for.
    pub(super) fn of_peer(&self, peer: &PeerId) -> impl Iterator<Item = (&Multiaddr, &Record)> {
        let addresses = self.index.by_peer.get(peer).into_iter().flatten();
        addresses.filter_map(|address| Some((address, self.get(address)?)))
    }

    /// Whether `peer` was the last one at any record.
    pub(super) fn is_anywhere(&self, peer: &PeerId) -> bool {
        self.of_peer(peer).any(|(_, record)| record.is_of(peer))
    }

    pub(super) fn dialing(&self) -> usize {
        self.index.dialing
    }

    /// The record that is dialed next, and when.
    pub(super) fn next_due(&self) -> Option<&(Instant, Multiaddr)> {
        self.index.due.first()
    }

    /// The record under way whose next way is tried first, and when.
    pub(super) fn next_way(&self) -> Option<&(Instant, Multiaddr)> {
        self.index.ways.first()
    }
}

impl Place {
    const NOWHERE: Self = Self { due: None, way: None, is_dialing: false, peers: [None; 2] };

    fn of(record: &Record) -> Self {
        let due = match record.state {
            State::Waiting(at) => record.role.is_held().then_some(at),
            State::Own => record.again,
            State::Dialing | State::Connected => None,
        };
        let is_dialing = record.state == State::Dialing;
        let peers = [record.peer(), record.expected.as_deref().copied()];
        Self { due, way: record.next_way.filter(|_| is_dialing), is_dialing, peers }
    }
}

impl Index {
    fn put(&mut self, address: &Multiaddr, before: Place, after: Place) {
        let moved = |set: &mut BTreeSet<(Instant, Multiaddr)>, before: Option<Instant>, after| {
            if before == after {
                return;
            }
            before.map(|at| set.remove(&(at, address.clone())));
            after.map(|at| set.insert((at, address.clone())));
        };
        moved(&mut self.due, before.due, after.due);
        moved(&mut self.ways, before.way, after.way);
        self.dialing = self.dialing + usize::from(after.is_dialing) - usize::from(before.is_dialing);
        if before.peers == after.peers {
            return;
        }
        for peer in before.peers.iter().flatten().filter(|peer| !after.peers.contains(&Some(**peer))) {
            if let Some(addresses) = self.by_peer.get_mut(peer) {
                addresses.remove(address);
                if addresses.is_empty() {
                    self.by_peer.remove(peer);
                }
            }
        }
        for peer in after.peers.into_iter().flatten() {
            self.by_peer.entry(peer).or_default().insert(address.clone());
        }
    }
}

impl Deref for Edit<'_> {
    type Target = Record;

    fn deref(&self) -> &Record {
        self.record
    }
}

impl DerefMut for Edit<'_> {
    fn deref_mut(&mut self) -> &mut Record {
        self.record
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        let after = Place::of(self.record);
        if after != self.before {
            self.index.put(self.address, self.before, after);
        }
    }
}
