//! Which records are held: all, or of a large name those that the planner says.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

use super::{Reconciler, TargetState};
use crate::dialer::{
    planner::{Entry, Role, Standing, plan, weight},
    record::{Record, State},
};

/// How long a record may be dialed, or be lost, until another one is dialed in its place.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long others have, about, to dial this node until it looks for more neighbours itself.
const SETTLE: Duration = Duration::from_secs(4);

impl Reconciler {
    /// Whether not every record of every target is held.
    pub(crate) fn is_sparse(&self) -> bool {
        self.watches.values().any(|watch| self.is_large(watch))
    }

    pub(super) fn is_large(&self, watch: &TargetState) -> bool {
        watch.records.len() > self.policy.neighbours.full
    }

    /// Whether `peer` is one that this node is to stay connected to.
    pub(crate) fn holds(&self, peer: &PeerId) -> bool {
        let leads = |record: &Record| record.peer.as_ref() == Some(peer) && record.role.is_held();
        self.records.iter().any(|(address, record)| leads(record) && self.is_listed(address))
    }

    /// Where the records of large names lead to `peer`, as far as that is known.
    pub(crate) fn ways_to(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let leads = |record: &&Record| record.peer.as_ref() == Some(peer) && record.role != Role::All;
        self.records.values().filter(leads).flat_map(Record::all_ways).collect()
    }

    /// Finds the roles again, if that is due.
    pub(super) fn assign_roles(&mut self, now: Instant) {
        if !self.replan && self.replan_at.is_none_or(|at| at > now) {
            return;
        }
        (self.replan, self.replan_at) = (false, None);
        let mut roles: BTreeMap<&Multiaddr, Role> = BTreeMap::new();
        let mut next: Option<Instant> = None;
        let mut at = |moment: Instant| next = Some(next.map_or(moment, |next| next.min(moment)));
        for watch in self.watches.values_mut() {
            if watch.records.len() <= self.policy.neighbours.full {
                watch.settles = None;
                roles.extend(watch.records.iter().map(|address| (address, Role::All)));
                continue;
            }
            let wait = SETTLE.mul_f64(0.5 + self.rng.f64());
            let settles = *watch.settles.get_or_insert(now + wait);
            if settles > now {
                at(settles);
            }
            let mut entry = |address| {
                let record = self.records.get(address)?;
                let standing = standing(record, now);
                // A moment later it may not be hoped for any more.
                if let (Standing::Hopeful, Some(since)) = (standing, record.missing) {
                    at(since + PATIENCE);
                }
                Some((address, Entry { weight: weight(self.policy.identity, record.hash), standing }))
            };
            let (addresses, entries): (Vec<_>, Vec<_>) = watch.records.iter().filter_map(&mut entry).unzip();
            let planned = plan(&entries, self.policy.neighbours, settles <= now);
            for (address, role) in addresses.into_iter().zip(planned) {
                roles.entry(address).and_modify(|known| *known = role.max(*known)).or_insert(role);
            }
        }
        for (address, record) in &mut self.records {
            let unlisted = if self.known.contains_key(address) { Role::All } else { Role::Connected };
            record.role = roles.get(address).copied().unwrap_or(unlisted);
        }
        self.replan_at = next;
    }
}

fn standing(record: &Record, now: Instant) -> Standing {
    let failures = record.failures.saturating_add(record.short);
    match record.state {
        State::Own => Standing::Own,
        State::Connected => Standing::Connected,
        _ if failures > 0 || record.missing.is_some_and(|since| since + PATIENCE <= now) => {
            Standing::Doubtful(failures)
        }
        State::Waiting(_) | State::Dialing => Standing::Hopeful,
    }
}
