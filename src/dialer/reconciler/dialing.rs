//! Dials: one candidate address of a record after the other, each round later than the one before.

use std::time::{Duration, Instant};

use libp2p::Multiaddr;

use super::{RETRY_MIN, Reconciler};
use crate::dialer::{
    action::{Action, DialFault, Notice},
    backoff::Backoff,
    planner::Role,
    record::{Candidate, CandidateState, Record, State},
};

/// A failure whose text changes is reported again only after this long: two that alternate must not
/// flood the log.
const REPORT_AGAIN: Duration = Duration::from_secs(10);

/// As many dials of large names may be under way, however many failed.
const LEAST: usize = 3;

impl Reconciler {
    /// A dial of `way` failed.
    pub(crate) fn on_dial_failed(&mut self, way: &Multiaddr, fault: DialFault, now: Instant) {
        let dialing = |r: &Record| r.candidate(way).is_some_and(|w| w.state == CandidateState::Dialing);
        let Some(address) =
            self.records_at(way).into_iter().find(|a| self.records.get(a).is_some_and(dialing))
        else {
            return;
        };
        let Some(record) = self.records.get_mut(&address) else { return };
        let under_way = record.state == State::Dialing;
        record.set_way(way, CandidateState::Idle);
        let reason = match fault {
            DialFault::OwnPeer => return self.on_own_peer(&address, now),
            DialFault::Enough(peer) if self.is_live(&peer) => return self.attribute(&address, peer, now),
            DialFault::Enough(peer) => format!("connection limit reached for {peer}"),
            DialFault::Failed(reason) => reason,
        };
        // Not under way: another way or an inbound connection was faster.
        if under_way {
            self.on_way_failed(&address, way, reason, now);
        }
    }

    /// One way to a record that is being dialed failed: on to the next, or this round is over.
    fn on_way_failed(&mut self, address: &Multiaddr, way: &Multiaddr, reason: String, now: Instant) {
        let is_listed = self.is_listed(address);
        let Some(record) = self.records.get_mut(address) else { return };
        record.set_way(way, CandidateState::Failed(reason));
        if is_listed && record.candidates.iter().any(|w| w.state == CandidateState::Idle) {
            record.next_way = Some(now);
            return;
        }
        record.next_way = None;
        if record.candidates.iter().any(|w| w.state == CandidateState::Dialing) {
            return;
        }
        self.give_up_known(address, now);
        if !self.is_listed(address) {
            return self.drop_record(address);
        }
        let Some(record) = self.records.get_mut(address) else { return };
        let reasons: Vec<_> = record.candidates.iter().filter_map(Candidate::failure).collect();
        let reason = reasons.join("; ");
        record.failures = record.failures.saturating_add(1);
        if record.role != Role::All {
            self.at_most = (self.at_most / 2).max(LEAST.min(self.policy.neighbours.chosen()));
        }
        (record.own, record.again) = (None, None);
        let retry_in =
            Backoff::full_jitter(RETRY_MIN, self.policy.retry_max).delay(record.failures, &mut self.rng);
        // A known peer is given up on time.
        let retry = self.known.get(address).map_or(now + retry_in, |(_, until)| (now + retry_in).min(*until));
        record.state = State::Waiting(retry);
        self.replan = true;
        let retry_in = retry.saturating_duration_since(now);
        let repeated =
            record.failures > 1 && is_old_news(&mut record.reported_at, &record.last, &reason, now);
        record.reported_at = record.reported_at.or(Some(now));
        record.last = Some(reason.clone());
        self.notices.push_back(Notice::DialFailed { address: address.clone(), reason, retry_in, repeated });
    }

    /// A record that is being dialed gets its next way tried.
    pub(super) fn next_way(&mut self, now: Instant) -> Option<Action> {
        let due = |r: &Record| r.state == State::Dialing && r.next_way.is_some_and(|at| at <= now);
        let address = self.records.iter().find(|(_, r)| due(r))?.0.clone();
        self.start_way(&address, now)
    }

    /// A record that waited long enough is dialed again.
    pub(super) fn next_round(&mut self, now: Instant) -> Option<Action> {
        while self.dialing() < self.policy.parallel
            && let Some((at, address)) = self.next_dial()
            && at <= now
        {
            let record = self.records.get_mut(&address)?;
            record.state = State::Dialing;
            record.missing = record.missing.or(Some(now));
            self.replan = true;
            for way in &mut record.candidates {
                if way.failure().is_some() {
                    way.state = CandidateState::Idle;
                }
            }
            // None: every way is still being dialed, since an earlier round.
            if let Some(dial) = self.start_way(&address, now) {
                return Some(dial);
            }
        }
        None
    }

    fn start_way(&mut self, address: &Multiaddr, now: Instant) -> Option<Action> {
        let fallback = self.policy.fallback;
        let record = self.records.get_mut(address)?;
        record.next_way = None;
        let mut idle = record.candidates.iter_mut().filter(|w| w.state == CandidateState::Idle);
        let way = idle.next()?;
        record.next_way = idle.next().map(|_| now + fallback);
        way.state = CandidateState::Dialing;
        let address = way.address.clone();
        let repeated = record.failures > 0 || record.own.is_some();
        self.notices.push_back(Notice::Dialing { address: address.clone(), repeated });
        Some(Action::Dial(address, record.expected))
    }

    pub(super) fn dialing(&self) -> usize {
        self.records.values().filter(|r| r.state == State::Dialing).count()
    }

    pub(super) fn next_dial(&self) -> Option<(Instant, Multiaddr)> {
        // Where all are slow, more dials make them slower. Another record takes the place of one that failed, so that the
        // pauses of each do not help.
        let is_of_many = |record: &Record| record.role != Role::All;
        let under_way = self.records.values().filter(|r| r.state == State::Dialing && is_of_many(r)).count();
        let is_busy = under_way >= self.at_most;
        self.records
            .iter()
            .filter_map(|(a, r)| match r.state {
                State::Waiting(_) if is_busy && is_of_many(r) => None,
                State::Waiting(at) => r.role.is_held().then_some((at, a)),
                State::Own => r.again.map(|at| (at, a)),
                State::Dialing | State::Connected => None,
            })
            .min()
            .map(|(at, a)| (at, a.clone()))
    }
}

/// Whether a failure is no news: it is the same as before, or another was reported a moment ago.
pub(super) fn is_old_news(
    reported_at: &mut Option<Instant>,
    last: &Option<String>,
    reason: &str,
    now: Instant,
) -> bool {
    if last.as_deref() == Some(reason) || reported_at.is_some_and(|at| now < at + REPORT_AGAIN) {
        return true;
    }
    *reported_at = Some(now);
    false
}
