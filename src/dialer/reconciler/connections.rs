//! Connections that come and go, and which records they belong to.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::{RETRY_MIN, Reconciler, roles::PATIENCE};
use crate::{
    dialer::{
        action::{Action, Notice},
        backoff::Backoff,
        record::{CandidateState, State},
    },
    transport::multiaddr::{is_circuit, split_peer},
};

/// How many departed peers are remembered; beyond, a newly departed one is forgotten immediately. Peer ids cost nothing to make.
const MAX_UNLISTED: usize = 1024;
/// A connection that ends sooner than this was no success: the peer does not want this node.
const STEADY: Duration = Duration::from_secs(10);

impl Reconciler {
    /// A connection to `peer` stands; `address` is where it was found: what was dialed, or where it
    /// came from.
    pub(crate) fn on_connected(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: Multiaddr,
        now: Instant,
    ) {
        let (address, _) = split_peer(address);
        if self.connections.insert(connection, (peer, address.clone())).is_none() {
            *self.live.entry(peer).or_default() += 1;
        }
        self.unlisted_peers.remove(&peer);
        for record in self.records_at(&address) {
            self.attribute(&record, peer, now);
            let Some(mut record) = self.records.edit(&record) else { continue };
            record.connected_at = Some(address.clone());
            if let Some(way) = record.candidates.iter_mut().find(|w| w.address == address) {
                way.state = CandidateState::Idle;
            }
        }
    }

    /// A connected peer proved that it answers at `addresses` too. A record that is connected to
    /// someone else already is not taken over by a claim.
    pub(crate) fn on_addresses(
        &mut self,
        peer: PeerId,
        addresses: impl IntoIterator<Item = Multiaddr>,
        now: Instant,
    ) {
        if !self.is_live(&peer) {
            return;
        }
        for address in addresses {
            let (address, _) = split_peer(address);
            for record in self.records_at(&address) {
                if self.records.get(&record).is_some_and(|r| matches!(r.state, State::Waiting(_))) {
                    self.attribute(&record, peer, now);
                }
            }
        }
    }

    /// A connection ended.
    pub(crate) fn on_disconnected(&mut self, connection: ConnectionId, now: Instant) {
        let Some((peer, address)) = self.connections.remove(&connection) else {
            return;
        };
        if let Some(connections) = self.live.get_mut(&peer) {
            *connections -= 1;
            if *connections > 0 {
                return self.leave(peer, address);
            }
            self.live.remove(&peer);
            self.live.shrink_to(64.max(self.live.len() * 2));
            self.connections.shrink_to(64.max(self.connections.len() * 2));
        }
        let lost: Vec<_> = self
            .records
            .of_peer(&peer)
            .filter(|(_, r)| r.is_of(&peer) && r.state == State::Connected)
            .map(|(a, _)| a.clone())
            .collect();
        let mut settled = false;
        for address in lost {
            settled = true;
            if !self.is_listed(&address) {
                self.drop_record(&address);
                continue;
            }
            // Its name is asked immediately, and the record dialed a moment later: if the replica is
            // gone for good, the answer says so first.
            if let Some(mut record) = self.records.edit(&address) {
                let lasted = record.since.take().map_or(STEADY, |since| now.saturating_duration_since(since));
                record.short = if lasted < STEADY { record.short.saturating_add(1) } else { 0 };
                let backoff = Backoff::full_jitter(RETRY_MIN, self.policy.retry_max);
                record.state = State::Waiting(now + backoff.delay(record.short.max(1), &mut self.rng));
                record.vouched = now;
                record.hope = Some(now + PATIENCE);
                self.replan = true;
            }
            if let Some((_, until)) = self.known.get_mut(&address) {
                *until = now + self.policy.forget;
            }
            for watch in self.watches.values_mut() {
                if watch.records.contains(&address)
                    && let Some(next) = &mut watch.next
                {
                    *next = (*next).min(now);
                }
            }
        }
        if !settled && self.unlisted_peers.len() >= MAX_UNLISTED {
            self.unlisted_peers.remove(&peer);
            self.actions.push_back(Action::Forget { peer, address: None });
        } else if !settled {
            let forget = now + self.policy.forget;
            self.unlisted_peers.entry(peer).and_modify(|at| *at = (*at).min(forget)).or_insert(forget);
        }
    }

    /// A connection to `peer` at `address` ended, and others stand: where none of them leads, and no record
    /// does, the peer is not any more. One way to a record is as good as the other.
    fn leave(&mut self, peer: PeerId, address: Multiaddr) {
        let stands =
            |at: &dyn Fn(&Multiaddr) -> bool| self.connections.values().any(|(p, a)| *p == peer && at(a));
        if stands(&|a| *a == address) {
            return;
        }
        let has_left = |r: &&Multiaddr| {
            self.records.get(r).is_some_and(|r| r.is_of(&peer) && !stands(&|a| r.candidate(a).is_some()))
        };
        let records = self.records_at(&address);
        let left: Vec<_> = records.iter().filter(has_left).cloned().collect();
        let mut dropped = false;
        for record in left {
            if !self.is_listed(&record) {
                dropped = true;
                self.drop_departed(&record);
            } else if let Some(mut record) = self.records.edit(&record) {
                record.departed = true;
            }
        }
        // A relayed connection gives way to a direct one; the relay still leads to the peer.
        if !dropped && !self.is_led_to(&address) && !is_circuit(&address) {
            self.actions.push_back(Action::Forget { peer, address: Some(address) });
        }
    }

    /// `peer`, which is connected, answers at `address`.
    pub(super) fn attribute(&mut self, address: &Multiaddr, peer: PeerId, now: Instant) {
        let Some(mut record) = self.records.edit(address) else {
            return;
        };
        if record.state != State::Connected {
            record.since = Some(now);
            self.search.succeeded(record.dialed.map(|at| now.saturating_duration_since(at)));
        }
        record.state = State::Connected;
        (record.own, record.again) = (None, None);
        record.departed = false;
        record.next_way = None;
        record.connected_at = None;
        record.failures = 0;
        record.last = None;
        (record.dialed, record.hope, record.is_silent) = (None, None, false);
        self.replan = true;
        let ways = record.all_ways();
        let old = record.set_peer(Some(peer)).filter(|old| *old != peer);
        drop(record);
        self.correct_known(address, Some(peer));
        let Some(old) = old else {
            return;
        };
        self.notices.push_back(Notice::Replaced { address: address.clone(), old, new: peer });
        self.forget_at(old, ways);
        if !self.records.is_anywhere(&old) {
            // Forgotten everywhere, now or when its connection has timed out.
            self.unlisted_peers.insert(old, now);
        }
    }

    pub(super) fn is_live(&self, peer: &PeerId) -> bool {
        self.live.contains_key(peer)
    }
}
