//! Which records there are: those that targets, or what is known from an earlier run, lead to.

use std::{collections::BTreeSet, time::Instant};

use libp2p::{Multiaddr, PeerId};

use super::Reconciler;
use crate::dialer::{
    action::Action,
    record::{Candidate, CandidateState, Record, State},
};

impl Reconciler {
    /// Makes sure that a record is known, and settles it immediately if it is us or connected already.
    pub(super) fn follow(
        &mut self,
        address: Multiaddr,
        ways: Vec<Multiaddr>,
        expected: Option<Box<PeerId>>,
        now: Instant,
    ) {
        let there = self.records.get(&address).is_some();
        if !there {
            self.records.insert(address.clone(), Record::new(&address, now));
        }
        let Some(mut record) = self.records.edit(&address) else { return };
        record.expected = expected.or(record.expected.take());
        record.candidates.reserve_exact(if there { 0 } else { ways.len() });
        for way in ways {
            if record.candidate(&way).is_none() {
                if way != address {
                    self.by_way.entry(way.clone()).or_default().push(address.clone());
                }
                record.candidates.push(Candidate { address: way, state: CandidateState::Idle });
            }
        }
        if there {
            return;
        }
        self.replan = true;
        let is_own = record.is_at(&self.own);
        let there = self.connections.values().find(|(_, a)| record.candidate(a).is_some()).cloned();
        drop(record);
        if is_own {
            self.mark_own(&address, false, None);
        } else if let Some((peer, via)) = there {
            self.attribute(&address, peer, now);
            if let Some(mut record) = self.records.edit(&address) {
                record.connected_at = Some(via);
            }
        }
    }

    /// Lets go of records that a target no longer leads to.
    pub(super) fn retire(&mut self, addresses: BTreeSet<Multiaddr>) {
        for address in addresses {
            if self.is_listed(&address) {
                continue;
            }
            let Some(mut record) = self.records.edit(&address) else { continue };
            match record.state {
                State::Connected if record.departed => {
                    drop(record);
                    self.drop_departed(&address);
                }
                // Still connected: it is forgotten when the connection ends.
                State::Connected => {}
                // A dial under way ends by itself, and is the last.
                State::Dialing => record.next_way = None,
                State::Waiting(_) | State::Own => {
                    drop(record);
                    self.drop_record(&address);
                }
            }
        }
    }

    /// Takes a record out, with what leads to it.
    pub(super) fn unlink(&mut self, address: &Multiaddr) -> Option<Record> {
        let record = self.records.remove(address)?;
        for way in &record.candidates {
            if let Some(records) = self.by_way.get_mut(&way.address) {
                records.retain(|record| record != address);
                if records.is_empty() {
                    self.by_way.remove(&way.address);
                }
            }
        }
        Some(record)
    }

    /// Drops a record that its peer, which is connected elsewhere, has left.
    pub(super) fn drop_departed(&mut self, address: &Multiaddr) {
        let Some(record) = self.unlink(address) else { return };
        let Some(peer) = record.peer() else { return };
        // What another record leads to is that one's to forget.
        let ways = record.all_ways().into_iter().filter(|way| !self.is_led_to(way)).collect();
        self.forget_at(peer, ways);
    }

    pub(super) fn drop_record(&mut self, address: &Multiaddr) {
        let Some(record) = self.unlink(address) else { return };
        let Some(peer) = record.peer().filter(|peer| !self.is_live(peer)) else { return };
        self.unlisted_peers.remove(&peer);
        if self.records.is_anywhere(&peer) {
            self.forget_at(peer, record.all_ways());
        } else {
            self.actions.push_back(Action::Forget { peer, address: None });
        }
    }

    pub(super) fn forget_at(&mut self, peer: PeerId, ways: Vec<Multiaddr>) {
        let forget = |way| Action::Forget { peer, address: Some(way) };
        self.actions.extend(ways.into_iter().map(forget));
    }

    /// The records that `way` leads to.
    pub(super) fn records_at(&self, way: &Multiaddr) -> Vec<Multiaddr> {
        self.led_to(way).cloned().collect()
    }

    /// The one that is known by it, and those that have it as another way.
    pub(super) fn led_to(&self, way: &Multiaddr) -> impl Iterator<Item = &Multiaddr> {
        self.records.key(way).into_iter().chain(self.by_way.get(way).into_iter().flatten())
    }

    /// Whether both are ways to one record.
    pub(crate) fn is_one_record(&self, one: &Multiaddr, other: &Multiaddr) -> bool {
        self.led_to(one).any(|record| self.led_to(other).any(|there| there == record))
    }

    /// Whether a target, or what is known from an earlier run, leads to `way`.
    pub(super) fn is_led_to(&self, way: &Multiaddr) -> bool {
        self.led_to(way).any(|record| self.is_listed(record))
    }

    pub(super) fn is_listed(&self, address: &Multiaddr) -> bool {
        self.known.contains_key(address) || self.is_wanted(address)
    }
}
