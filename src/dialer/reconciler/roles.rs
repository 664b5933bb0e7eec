//! Which records are held: all, or of a large name those that the planner says.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

use super::{Reconciler, TargetState};
use crate::dialer::{
    planner::{Entry, Quest, Role, Standing, plan, weight},
    record::{Record, State},
};

/// How long a record may be lost until another one is dialed in its place.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How long others have, about, to dial this node until it looks for more neighbours itself.
const SETTLE: Duration = Duration::from_secs(4);
/// Between two plans, for each record: a plan costs a fraction of a microsecond for each.
const PAUSE: Duration = Duration::from_micros(100);

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
        let mut records = self.records.of_peer(peer).filter(|(_, record)| record.is_of(peer));
        records.any(|(address, record)| record.role.is_held() && self.is_listed(address))
    }

    /// Where the records of large names lead to `peer`, as far as that is known.
    pub(crate) fn ways_to(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let leads = |record: &&Record| record.is_of(peer) && record.role != Role::All;
        self.records
            .of_peer(peer)
            .map(|(_, record)| record)
            .filter(leads)
            .flat_map(Record::all_ways)
            .collect()
    }

    /// Between two plans, as there are so many records.
    fn pause(&self) -> Duration {
        let large = self.watches.values().filter(|watch| self.is_large(watch));
        PAUSE * u32::try_from(large.map(|watch| watch.records.len()).sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// Finds the roles again, if that is due.
    pub(super) fn assign_roles(&mut self, now: Instant) {
        if !self.replan && self.replan_at.is_none_or(|at| at > now) {
            return;
        }
        let pause = self.pause();
        if let Some(again) = self.planned.map(|at| at + pause).filter(|again| *again > now) {
            (self.replan, self.replan_at) = (false, Some(again));
            return;
        }
        (self.replan, self.replan_at) = (false, None);
        self.planned = self.is_sparse().then_some(now);
        self.doubt(now, pause);
        let has_many = self.watches.len() > 1;
        let mut roles: Vec<(&Multiaddr, Role)> = Vec::new();
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
            let mut entry = |(address, record): (_, &Record)| {
                let standing = standing(record);
                if standing == Standing::Hopeful {
                    record.hope.into_iter().for_each(&mut at);
                }
                (address, Entry { weight: weight(self.policy.identity, record.hash), standing })
            };
            let found = along(&watch.records, self.records.iter());
            let (addresses, entries): (Vec<_>, Vec<_>) = found.map(&mut entry).unzip();
            let quest = Quest { settled: settles <= now, width: self.search.width() };
            let planned = plan(&entries, self.policy.neighbours, quest);
            roles.extend(addresses.into_iter().zip(planned));
        }
        // Of a record of several names the strongest role counts: the last.
        if has_many {
            roles.sort_unstable();
        }
        let mut roles = roles.into_iter().peekable();
        let unlisted = |address| if self.known.contains_key(address) { Role::All } else { Role::Connected };
        let mut changed = Vec::new();
        for (address, record) in self.records.iter() {
            let mut role = None;
            while let Some((at, found)) = roles.next_if(|(at, _)| *at <= address) {
                role = (at == address).then_some(found);
            }
            let role = role.unwrap_or_else(|| unlisted(address));
            if role != record.role {
                changed.push((address.clone(), role));
            }
        }
        for (address, role) in changed {
            if let Some(mut record) = self.records.edit(&address) {
                record.role = role;
            }
        }
        self.replan_at = next;
    }

    /// Records that were hoped for long enough are not any more. Where this node itself comes late, it says nothing that they do.
    fn doubt(&mut self, now: Instant, pause: Duration) {
        let patience = self.search.patience();
        let has_ended = |record: &Record| !record.is_silent && record.hope.is_some_and(|hope| hope <= now);
        let ended: Vec<_> =
            self.records.iter().filter(|(_, r)| has_ended(r)).map(|(address, _)| address.clone()).collect();
        for address in ended {
            let Some(mut record) = self.records.edit(&address) else { continue };
            if record.hope.is_some_and(|hope| hope + patience / 2 + pause < now) {
                record.hope = Some(now + patience);
                continue;
            }
            record.is_silent = true;
            if record.role != Role::All && record.failures == 0 {
                self.search.failed();
            }
        }
    }
}

/// Those of `all` that are among `some`; both are in order.
fn along<'a>(
    some: &'a BTreeSet<Multiaddr>,
    all: impl Iterator<Item = (&'a Multiaddr, &'a Record)>,
) -> impl Iterator<Item = (&'a Multiaddr, &'a Record)> {
    let mut some = some.iter().peekable();
    all.filter(move |(address, _)| {
        while some.next_if(|wanted| wanted < address).is_some() {}
        some.next_if(|wanted| wanted == address).is_some()
    })
}

fn standing(record: &Record) -> Standing {
    let failures = record.failures.saturating_add(record.short);
    match record.state {
        State::Own => Standing::Own,
        State::Connected => Standing::Connected,
        _ if failures > 0 || record.is_silent => Standing::Doubtful(failures),
        State::Waiting(_) | State::Dialing => Standing::Hopeful,
    }
}
