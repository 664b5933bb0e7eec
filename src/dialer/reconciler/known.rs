//! Peers that an earlier run was connected to: dialed for a while beside what names lead to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use libp2p::{Multiaddr, PeerId};

use super::Reconciler;
use crate::{
    dialer::record::{CandidateState, Record, State, group},
    transport::multiaddr::{peer_ip, split_peer},
};

impl Reconciler {
    /// Whether a target leads to a record.
    pub(super) fn is_wanted(&self, record: &Multiaddr) -> bool {
        self.watches.values().any(|watch| watch.records.contains(record))
    }

    /// Notes where the records of targets are, which changed.
    pub(super) fn index(&mut self) {
        self.wanted_ips.clear();
        for watch in self.watches.values() {
            let is_large = self.is_large(watch);
            let records = watch.records.iter().filter_map(|address| self.records.get(address));
            for ip in records.flat_map(|record| &record.candidates).filter_map(|way| peer_ip(&way.address)) {
                self.wanted_ips.entry(ip).and_modify(|large| *large &= is_large).or_insert(is_large);
            }
        }
        (self.replan, self.planned) = (true, None);
    }

    /// Whether large names lead to `ip`, and no other.
    pub(crate) fn is_one_of_many(&self, ip: IpAddr) -> bool {
        self.wanted_ips.get(&ip).is_some_and(|is_large| *is_large)
    }

    /// Whether a target leads to `peer`, or led to it last, or asks for it.
    pub(crate) fn wants(&self, peer: &PeerId) -> bool {
        self.records.of_peer(peer).any(|(address, _)| self.is_wanted(address))
    }

    /// Whether a target, and not only an earlier run, leads to an address.
    pub(crate) fn has_target_at(&self, way: &Multiaddr) -> bool {
        self.led_to(way).any(|record| self.is_wanted(record))
    }

    /// Whether a target leads to somebody at `ip`.
    pub(crate) fn wants_at(&self, ip: IpAddr) -> bool {
        self.wanted_ips.contains_key(&ip)
    }

    /// Dials the addresses of peers that an earlier run of this node was connected to, until they answer
    /// or [`Policy::forget`](super::Policy::forget) has passed; those that have not answered by then are
    /// forgotten. A peer that answers there is as welcome as behind a name, and as soon as a name leads there, the
    /// name alone decides. A peer's addresses of one socket are ways to one record here, too.
    pub(crate) fn try_known(&mut self, known: impl IntoIterator<Item = (PeerId, Multiaddr)>, now: Instant) {
        let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
        for (peer, address) in known {
            peers.entry(peer).or_default().push(split_peer(address).0);
        }
        for (peer, addresses) in peers {
            for (address, (ways, _)) in group(addresses, &self.policy.transports) {
                if !ways.iter().any(|way| self.is_led_to(way)) {
                    self.known.insert(address.clone(), (peer, now + self.policy.forget));
                    self.follow(address, ways, None, now);
                }
            }
        }
    }

    /// Dials none of those any more.
    pub(crate) fn drop_known(&mut self) {
        let known = std::mem::take(&mut self.known);
        self.retire(known.into_keys().collect());
    }

    /// A round of dials of a record is over: if it is a known one whose time has passed, that was it.
    pub(super) fn give_up_known(&mut self, address: &Multiaddr, now: Instant) {
        let Some((peer, _)) = self.known.get(address).copied().filter(|(_, until)| *until <= now) else {
            return;
        };
        self.known.remove(address);
        if let Some(ways) = self.records.get(address).filter(|r| r.peer().is_none()).map(Record::all_ways) {
            self.forget_at(peer, ways);
        }
    }

    /// The peer known at a record is not there: it is `found`, or this very node.
    pub(super) fn correct_known(&mut self, address: &Multiaddr, found: Option<PeerId>) {
        let Some((peer, until)) = self.known.get(address).copied().filter(|(p, _)| Some(*p) != found) else {
            return;
        };
        match found {
            Some(found) => self.known.insert(address.clone(), (found, until)),
            None => self.known.remove(address),
        };
        if let Some(ways) = self.records.get(address).map(Record::all_ways) {
            self.forget_at(peer, ways);
        }
    }

    /// A name leads to `address` by these ways: known records that it has under another address, because
    /// fewer ways to them were known, are taken out.
    pub(super) fn take_known(&mut self, address: &Multiaddr, ways: &[Multiaddr]) -> Vec<Record> {
        self.known.remove(address);
        let others: BTreeSet<_> = ways.iter().flat_map(|way| self.records_at(way)).collect();
        let others = others.into_iter().filter(|other| other != address);
        let known: Vec<_> = others.filter(|other| self.known.remove(other).is_some()).collect();
        let gone: Vec<_> = known.into_iter().filter(|other| !self.is_listed(other)).collect();
        gone.iter().filter_map(|other| self.unlink(other)).collect()
    }

    /// What is going on with a record that was taken out goes on under `address`.
    pub(super) fn take_over(&mut self, from: Record, address: &Multiaddr, now: Instant) {
        let Some(mut record) = self.records.edit(address) else { return };
        for way in from.candidates.iter().filter(|way| way.state == CandidateState::Dialing) {
            record.set_way(&way.address, CandidateState::Dialing);
        }
        match (from.peer(), from.state) {
            (Some(peer), State::Connected) if record.peer().is_none() => {
                drop(record);
                self.attribute(address, peer, now);
                if let Some(mut record) = self.records.edit(address) {
                    (record.connected_at, record.departed) = (from.connected_at, from.departed);
                }
            }
            (peer, _) => {
                let peer = record.peer().or(peer);
                record.set_peer(peer);
            }
        }
    }
}
