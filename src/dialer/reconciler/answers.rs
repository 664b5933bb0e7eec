//! What becomes of records when a name was asked for: confirmed, replaced, kept or let go.
//!
//! - An answer replaces all records of its name. That there are none is an answer, too.
//! - What was not answered stands: all records when the question failed, those of one family when
//!   only that half of it did.
//! - What stands without an answer, and without answering dials, for [`Policy::stale`](super::Policy::stale)
//!   is let go: some name servers never say that a name lost its records, but refuse or are silent.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use libp2p::Multiaddr;

use super::{RETRY_MIN, Reconciler, dialing::is_old_news};
use crate::{
    config::{Family, Target},
    dialer::{
        action::{Answer, Notice, Open},
        backoff::Backoff,
        record::{Found, Record, State, group},
    },
    transport::multiaddr::ip,
};

/// The longest pause between two questions for a large name, unless `dial.refresh` is longer.
const LONGEST: Duration = Duration::from_secs(60);
/// Pauses of `dial.refresh` between them, at most.
const SELDOM: usize = 60;

impl Reconciler {
    /// A lookup ended, or reported what it has so far.
    pub(crate) fn on_lookup(&mut self, target: &Target, answer: Answer, now: Instant) {
        let Some(watch) = self.watches.get_mut(target) else {
            return; // no longer watched
        };
        watch.asking = matches!(&answer, Answer::Part(_, Open { why: None, .. }));
        // Silence about a family that the name never had an address of is no trouble.
        let answer = match answer {
            Answer::Part(addresses, Open { refused: true, family, .. }) if !self.has_any(target, family) => {
                Answer::Records(addresses)
            }
            answer => answer,
        };
        let reason = match answer {
            Answer::Records(addresses) if !addresses.is_empty() => {
                self.ask_again(target, now);
                let recovered = self.is_recovered(target);
                return self.replace_records(target, addresses, recovered, now);
            }
            Answer::Part(addresses, open) if !addresses.is_empty() => {
                return self.add_records(target, addresses, open, now);
            }
            Answer::Records(_) | Answer::Part(..) => "the answer holds no record".to_owned(),
            Answer::Nothing(reason) => {
                self.replace_records(target, Vec::new(), false, now);
                reason
            }
            Answer::Failed(reason) => reason,
        };
        self.let_go(target, now);
        let Some(watch) = self.watches.get_mut(target) else { return };
        watch.failures = watch.failures.saturating_add(1);
        let retry_in =
            Backoff::steady(RETRY_MIN, self.policy.lookup_max).delay(watch.failures, &mut self.rng);
        watch.next = Some(now + retry_in);
        let repeated = watch.failures > 1 && is_old_news(&mut watch.reported_at, &watch.last, &reason, now);
        watch.reported_at = watch.reported_at.or(Some(now));
        watch.last = Some(reason.clone());
        self.notices.push_back(Notice::NotResolved { target: target.clone(), reason, retry_in, repeated });
    }

    /// Whether a target has records of a family.
    fn has_any(&self, target: &Target, family: Family) -> bool {
        self.watches.get(target).is_some_and(|watch| watch.records.iter().any(|a| is_of(a, family)))
    }

    /// A name that has records is asked again after a while.
    fn ask_again(&mut self, target: &Target, now: Instant) {
        let jitter = 0.8 + 0.4 * self.rng.f64();
        if let Some(watch) = self.watches.get_mut(target) {
            // A large answer costs more, and is needed less: those that are new in it dial, too.
            let refresh = self.policy.refresh;
            let times = (watch.records.len() / self.policy.neighbours.full.max(1)).clamp(1, SELDOM);
            let pause = (refresh * u32::try_from(times).unwrap_or(1)).min(LONGEST.max(refresh));
            watch.next = Some(now + pause.mul_f64(jitter));
        }
    }

    /// A question was answered: whether the one before was not.
    fn is_recovered(&mut self, target: &Target) -> bool {
        let Some(watch) = self.watches.get_mut(target) else { return false };
        watch.failures = 0;
        watch.last.take().is_some()
    }

    /// A part of a question was answered: what was known of the rest stands.
    fn add_records(&mut self, target: &Target, mut addresses: Vec<Multiaddr>, open: Open, now: Instant) {
        let fresh: BTreeSet<_> = group(addresses.clone(), &self.policy.transports).into_keys().collect();
        if open.why.is_some() {
            self.vouch(&fresh, now);
            self.let_go(target, now);
        }
        let kept: Vec<_> = self.watches.get(target).map_or_else(Vec::new, |watch| {
            let stands = |address: &&Multiaddr| !fresh.contains(*address) && is_of(address, open.family);
            watch.records.iter().filter(stands).cloned().collect()
        });
        let ways = |address| self.records.get(address).map_or_else(Vec::new, Record::all_ways);
        addresses.extend(kept.iter().flat_map(ways));
        let Some(reason) = open.why else {
            return self.set_records(target, addresses, false, now);
        };
        self.ask_again(target, now);
        let Some(watch) = self.watches.get_mut(target) else { return };
        watch.failures = 0;
        let repeated = is_old_news(&mut watch.reported_at, &watch.last, &reason, now);
        watch.last = Some(reason.clone());
        self.set_records(target, addresses, false, now);
        let (target, kept) = (target.clone(), kept.len());
        self.notices.push_back(Notice::PartlyResolved { target, reason, kept, repeated });
    }

    /// The records of a target are these: an answer says so.
    pub(super) fn replace_records(
        &mut self,
        target: &Target,
        addresses: Vec<Multiaddr>,
        recovered: bool,
        now: Instant,
    ) {
        self.set_records(target, addresses, recovered, now);
        let records = self.watches.get(target).map(|watch| watch.records.clone());
        self.vouch(&records.unwrap_or_default(), now);
    }

    fn vouch(&mut self, records: &BTreeSet<Multiaddr>, now: Instant) {
        for address in records {
            if let Some(mut record) = self.records.edit(address) {
                record.vouched = now;
            }
        }
    }

    fn set_records(&mut self, target: &Target, addresses: Vec<Multiaddr>, recovered: bool, now: Instant) {
        let mut fresh = group(addresses, &self.policy.transports);
        let found = fresh.len();
        while fresh.len() > self.policy.max_records {
            fresh.pop_last();
        }
        if found > fresh.len() {
            let followed = fresh.len();
            self.notices.push_back(Notice::TooManyRecords { target: target.clone(), found, followed });
        }
        let Some(watch) = self.watches.get_mut(target) else { return };
        let set: BTreeSet<_> = fresh.keys().cloned().collect();
        let changed = set != watch.records;
        let old = std::mem::replace(&mut watch.records, set);
        if !fresh.is_empty() && target.host().is_some() {
            let (target, records) = (target.clone(), fresh.len());
            self.notices.push_back(Notice::Resolved { target, records, changed, recovered });
        }
        if !changed
            && self.known.is_empty()
            && fresh.iter().all(|(address, found)| self.has_all(address, found))
        {
            return;
        }
        let gone = old.into_iter().filter(|a| !fresh.contains_key(a)).collect();
        self.retire(gone);
        for (address, (ways, expected)) in fresh {
            let tried = self.take_known(&address, &ways);
            self.follow(address.clone(), ways, expected, now);
            for record in tried {
                self.take_over(record, &address, now);
            }
        }
        self.index();
    }

    /// Whether nothing that was found of a record is new.
    fn has_all(&self, address: &Multiaddr, (ways, expected): &Found) -> bool {
        self.records.get(address).is_some_and(|record| {
            expected.is_none() && ways.iter().all(|way| record.candidate(way).is_some())
        })
    }

    /// Lets go of the records of a target that were not confirmed for a good while.
    fn let_go(&mut self, target: &Target, now: Instant) {
        let after: Duration = self.policy.stale;
        let Some(watch) = self.watches.get_mut(target) else { return };
        let is_stale = |address: &&Multiaddr| {
            self.records.get(address).is_some_and(|record| {
                !matches!(record.state, State::Connected | State::Own) && now >= record.vouched + after
            })
        };
        let stale: BTreeSet<_> = watch.records.iter().filter(is_stale).cloned().collect();
        if stale.is_empty() {
            return;
        }
        watch.records.retain(|address| !stale.contains(address));
        let addresses = stale.iter().cloned().collect();
        self.notices.push_back(Notice::LetGo { target: target.clone(), addresses, after });
        self.retire(stale);
    }
}

/// Whether an address belongs to a family of addresses; one without IP address belongs to any.
fn is_of(address: &Multiaddr, family: Family) -> bool {
    match (ip(address), family) {
        (Some(ip), Family::V4) => ip.is_ipv4(),
        (Some(ip), Family::V6) => ip.is_ipv6(),
        (None, _) | (_, Family::Any) => true,
    }
}
