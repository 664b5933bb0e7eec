//! Records that lead to this node itself: at addresses of its own, or because its own key answered there.
//!
//! Such a record is not dialed for a while, and never for good: a name may lead to another replica at each
//! connection, and an address gets another node. Where the key answers at an address that is none of this host's,
//! another node has it.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::Multiaddr;

use super::Reconciler;
use crate::{
    config::TransportKind,
    dialer::{
        action::{Notice, SAME_KEY},
        record::{Record, State},
    },
    transport::multiaddr::split_peer,
};

/// About how long until a record that led to this node is dialed again.
const OWN_AGAIN: Duration = Duration::from_secs(60);

impl Reconciler {
    /// The addresses this node listens on, as others see them.
    pub(crate) fn on_own_addresses(&mut self, own: impl IntoIterator<Item = Multiaddr>, now: Instant) {
        self.own = own.into_iter().map(|a| split_peer(a).0).collect();
        self.ask_own_again(now);
        let mine: Vec<_> = self
            .records
            .iter()
            .filter(|(_, r)| matches!(r.state, State::Waiting(_)) && r.is_at(&self.own))
            .map(|(a, _)| a.clone())
            .collect();
        for address in mine {
            self.mark_own(&address, false, None);
        }
    }

    /// The addresses of this host's interfaces.
    pub(crate) fn on_host_addresses(&mut self, host: impl IntoIterator<Item = IpAddr>, now: Instant) {
        let host: BTreeSet<_> = host.into_iter().collect();
        if host != self.host {
            self.host = host;
            self.ask_own_again(now);
        }
    }

    /// The addresses that lead to this node from outside of its host or its network.
    pub(crate) fn on_external_addresses(&mut self, external: impl IntoIterator<Item = Multiaddr>) {
        self.external = external.into_iter().map(|a| split_peer(a).0).collect();
    }

    /// Where this node's own key answers, and nothing says that it should.
    pub(crate) fn same_key(&self) -> impl Iterator<Item = &Multiaddr> {
        self.records.iter().filter(|(_, record)| record.own == Some(true)).map(|(address, _)| address)
    }

    /// This node's own key answered at a record.
    pub(super) fn on_own_peer(&mut self, address: &Multiaddr, now: Instant) {
        let elsewhere = self.records.get(address).is_some_and(|record| !self.is_here(record));
        let again = now + OWN_AGAIN.mul_f64(0.8 + 0.4 * self.rng.f64());
        self.mark_own(address, elsewhere, Some(again));
    }

    /// This node itself answers at a record, which is dialed again at `again`.
    pub(super) fn mark_own(&mut self, address: &Multiaddr, elsewhere: bool, again: Option<Instant>) {
        let Some(mut record) = self.records.edit(address).filter(|record| record.state != State::Own) else {
            return;
        };
        record.state = State::Own;
        self.replan = true;
        record.next_way = None;
        record.set_peer(None);
        record.failures = 0;
        record.last = elsewhere.then(|| SAME_KEY.into());
        record.again = again;
        let known = record.own.replace(elsewhere) == Some(elsewhere);
        drop(record);
        let address = address.clone();
        self.correct_known(&address, None);
        if !self.is_listed(&address) {
            self.drop_record(&address);
        }
        match elsewhere {
            _ if known => {}
            true => self.notices.push_back(Notice::SameKey { address }),
            false => self.notices.push_back(Notice::Own { address }),
        }
    }

    /// What was this node may be another one, now that its addresses changed.
    fn ask_own_again(&mut self, now: Instant) {
        let others = self.records.iter().filter(|(_, r)| r.state == State::Own && !r.is_at(&self.own));
        for address in others.map(|(address, _)| address.clone()).collect::<Vec<_>>() {
            if let Some(mut record) = self.records.edit(&address) {
                record.state = State::Waiting(now);
            }
        }
    }

    /// Whether a record leads to this node itself.
    fn is_here(&self, record: &Record) -> bool {
        let is_here = |address: &Multiaddr| match TransportKind::and_socket(address) {
            Some((_, at)) => self.host.is_empty() || at.ip().is_loopback() || self.host.contains(&at.ip()),
            // Behind a relay, for instance.
            None => true,
        };
        record.is_at(&self.own)
            || record.is_at(&self.external)
            || record.candidates.iter().any(|w| is_here(&w.address))
    }
}
