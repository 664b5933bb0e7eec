//! Dials: one candidate address of a record after the other, each round later than the one before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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

impl Reconciler {
    /// A dial of `way` failed.
    pub(crate) fn on_dial_failed(&mut self, way: &Multiaddr, fault: DialFault, now: Instant) {
        let dialing = |r: &Record| r.candidate(way).is_some_and(|w| w.state == CandidateState::Dialing);
        let Some(address) =
            self.records_at(way).into_iter().find(|a| self.records.get(a).is_some_and(dialing))
        else {
            return;
        };
        let Some(mut record) = self.records.edit(&address) else { return };
        let under_way = record.state == State::Dialing;
        record.set_way(way, CandidateState::Idle);
        drop(record);
        let reason = match fault {
            DialFault::OwnPeer => return self.on_own_peer(&address, now),
            DialFault::Enough(peer) if self.is_live(&peer) => return self.attribute(&address, peer, now),
            DialFault::Enough(peer) => format!("connection limit reached for {peer}").into(),
            DialFault::Failed(reason) => self.shared(reason),
        };
        // Not under way: another way or an inbound connection was faster.
        if under_way {
            self.on_way_failed(&address, way, reason, now);
        }
    }

    /// Thousands of records fail in the same words, which are kept once.
    fn shared(&mut self, reason: String) -> Arc<str> {
        if *self.reason != *reason {
            self.reason = reason.into();
        }
        self.reason.clone()
    }

    /// One way to a record that is being dialed failed: on to the next, or this round is over.
    fn on_way_failed(&mut self, address: &Multiaddr, way: &Multiaddr, reason: Arc<str>, now: Instant) {
        let is_listed = self.is_listed(address);
        let Some(mut record) = self.records.edit(address) else { return };
        record.set_way(way, CandidateState::Failed(reason));
        if is_listed && record.candidates.iter().any(|w| w.state == CandidateState::Idle) {
            record.next_way = Some(now);
            return;
        }
        record.next_way = None;
        if record.candidates.iter().any(|w| w.state == CandidateState::Dialing) {
            return;
        }
        drop(record);
        self.give_up_known(address, now);
        if !self.is_listed(address) {
            return self.drop_record(address);
        }
        let Some(mut edit) = self.records.edit(address) else { return };
        let record = &mut *edit;
        let mut reasons = record.candidates.iter().filter_map(Candidate::failure).cloned();
        let reason = match (reasons.next(), reasons.next()) {
            (Some(only), None) => only,
            (first, second) => {
                let all: Vec<_> = first.into_iter().chain(second).chain(reasons).collect();
                all.join("; ").into()
            }
        };
        if record.role != Role::All && record.failures == 0 && !record.is_silent {
            self.search.failed();
        }
        record.failures = record.failures.saturating_add(1);
        (record.dialed, record.hope, record.is_silent) = (None, None, false);
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
        let reason = reason.to_string();
        self.notices.push_back(Notice::DialFailed { address: address.clone(), reason, retry_in, repeated });
    }

    /// A record that is being dialed gets its next way tried.
    pub(super) fn next_way(&mut self, now: Instant) -> Option<Action> {
        let address = self.records.next_way().filter(|(at, _)| *at <= now)?.1.clone();
        self.start_way(&address, now)
    }

    /// A record that waited long enough is dialed again.
    pub(super) fn next_round(&mut self, now: Instant) -> Option<Action> {
        while self.records.dialing() < self.policy.parallel
            && let Some((at, address)) = self.records.next_due().cloned()
            && at <= now
        {
            let hope = now + self.search.patience();
            let mut record = self.records.edit(&address)?;
            record.state = State::Dialing;
            record.dialed = Some(now);
            record.hope = record.hope.or(Some(hope));
            self.replan = true;
            for way in &mut record.candidates {
                if way.failure().is_some() {
                    way.state = CandidateState::Idle;
                }
            }
            drop(record);
            // None: every way is still being dialed, since an earlier round.
            if let Some(dial) = self.start_way(&address, now) {
                return Some(dial);
            }
        }
        None
    }

    fn start_way(&mut self, address: &Multiaddr, now: Instant) -> Option<Action> {
        let fallback = self.policy.fallback;
        let mut edit = self.records.edit(address)?;
        let record = &mut *edit;
        record.next_way = None;
        let mut idle = record.candidates.iter_mut().filter(|w| w.state == CandidateState::Idle);
        let way = idle.next()?;
        record.next_way = idle.next().map(|_| now + fallback);
        way.state = CandidateState::Dialing;
        let address = way.address.clone();
        let repeated = record.failures > 0 || record.own.is_some();
        self.notices.push_back(Notice::Dialing { address: address.clone(), repeated });
        Some(Action::Dial(address, record.expected.as_deref().copied()))
    }
}

/// Whether a failure is no news: it is the same as before, or another was reported a moment ago.
pub(super) fn is_old_news(
    reported_at: &mut Option<Instant>,
    last: &Option<impl AsRef<str>>,
    reason: &str,
    now: Instant,
) -> bool {
    if last.as_ref().is_some_and(|last| last.as_ref() == reason)
        || reported_at.is_some_and(|at| now < at + REPORT_AGAIN)
    {
        return true;
    }
    *reported_at = Some(now);
    false
}
