//! The reconciler: compares what names resolve to with who is connected, and says what to do.
//!
//! A pure state machine: events go in together with the present moment, [`Action`]s and
//! [`Notice`]s come out. It never opens a socket, asks a server, reads a clock or logs; time and
//! randomness are handed in, so that its tests run in simulated time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::{
    backoff::Backoff,
    status::{NameStatus, RecordState, RecordStatus},
    words::{Action, Answer, DialFault, Notice, Policy, split_peer},
};
use crate::config::Target;

/// First pause of both backoffs.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// A failure that changes its words is told again only after this long: two that take turns must not
/// flood the log.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// Departed peers remembered at once; more are forgotten at once. Anybody can make up peers.
const MAX_STRANGERS: usize = 1024;

#[derive(Debug)]
struct Watch {
    asking: bool,
    /// When to ask next; never, for a plain address.
    next: Option<Instant>,
    failures: u32,
    /// Why the last lookup gave nothing.
    last: Option<String>,
    /// When a failure was last told as news.
    told: Option<Instant>,
    records: BTreeSet<Multiaddr>,
}

#[derive(Debug)]
struct Record {
    state: State,
    /// Who has to be there, when the target says so.
    expected: Option<PeerId>,
    /// Who was there last.
    peer: Option<PeerId>,
    /// Its connection here ended; it is connected elsewhere.
    left: bool,
    failures: u32,
    last: Option<String>,
    /// When a failure was last told as news.
    told: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not connected; to be dialed at this moment.
    Waiting(Instant),
    Dialing,
    /// `Record::peer` is connected.
    Connected,
    /// It is this very node.
    Own,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Reconciler {
    policy: Policy,
    rng: fastrand::Rng,
    watches: BTreeMap<Target, Watch>,
    records: BTreeMap<Multiaddr, Record>,
    links: HashMap<ConnectionId, (PeerId, Multiaddr)>,
    /// How many links each peer has; none has zero.
    live: HashMap<PeerId, usize>,
    own: BTreeSet<Multiaddr>,
    /// Records that no name leads to, from an earlier run: who was there, and until when they are dialed.
    known: BTreeMap<Multiaddr, (PeerId, Instant)>,
    /// Peers that no record leads to, and when to forget them if they are gone then.
    strangers: BTreeMap<PeerId, Instant>,
    actions: VecDeque<Action>,
    notices: VecDeque<Notice>,
}

impl Reconciler {
    /// A reconciler that watches nothing yet.
    pub fn new(policy: Policy, rng: fastrand::Rng) -> Self {
        Self {
            policy,
            rng,
            watches: BTreeMap::new(),
            records: BTreeMap::new(),
            links: HashMap::new(),
            live: HashMap::new(),
            own: BTreeSet::new(),
            known: BTreeMap::new(),
            strangers: BTreeMap::new(),
            actions: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    /// Watches exactly `targets` from now on; what others led to is no longer dialed.
    pub fn set_targets(&mut self, targets: impl IntoIterator<Item = Target>, now: Instant) {
        let wanted: BTreeSet<_> = targets.into_iter().collect();
        let dropped: Vec<_> = self.watches.keys().filter(|t| !wanted.contains(*t)).cloned().collect();
        for target in dropped {
            if let Some(watch) = self.watches.remove(&target) {
                self.retire(watch.records);
            }
        }
        for target in wanted {
            self.add_target(target, now);
        }
    }

    /// How many targets are watched.
    pub fn targets(&self) -> usize {
        self.watches.len()
    }

    /// Watches `target` too.
    pub fn add_target(&mut self, target: Target, now: Instant) {
        if self.watches.contains_key(&target) {
            return;
        }
        let mut watch = Watch {
            asking: false,
            next: Some(now),
            failures: 0,
            last: None,
            told: None,
            records: BTreeSet::new(),
        };
        let fixed = match &target {
            Target::Addr(address) => Some(address.clone()),
            _ => None,
        };
        if fixed.is_some() {
            watch.next = None;
        }
        self.watches.insert(target.clone(), watch);
        if let Some(address) = fixed {
            self.replace_records(&target, vec![address], now);
        }
    }

    /// Dials the addresses of peers that an earlier run of this node was connected to, until they answer
    /// or [`Policy::forget`] has passed; those that have not answered by then are forgotten. Whoever
    /// answers is as welcome as behind a name, and as soon as a name leads there, the name alone
    /// decides.
    pub fn try_known(&mut self, known: impl IntoIterator<Item = (PeerId, Multiaddr)>, now: Instant) {
        for (peer, address) in known {
            let (address, _) = split_peer(address);
            if !self.is_listed(&address) {
                self.known.insert(address.clone(), (peer, now + self.policy.forget));
                self.follow(address, None, now);
            }
        }
    }

    /// Dials none of those any more.
    pub fn drop_known(&mut self) {
        let known = std::mem::take(&mut self.known);
        self.retire(known.into_keys().collect());
    }

    /// The addresses this node listens on, as others see them.
    pub fn on_own_addresses(&mut self, own: impl IntoIterator<Item = Multiaddr>) {
        self.own = own.into_iter().map(|a| split_peer(a).0).collect();
        let mine: Vec<_> = self
            .records
            .iter()
            .filter(|(a, r)| self.own.contains(*a) && matches!(r.state, State::Waiting(_)))
            .map(|(a, _)| a.clone())
            .collect();
        for address in mine {
            self.mark_own(&address);
        }
    }

    /// A lookup ended.
    pub fn on_lookup(&mut self, target: &Target, answer: Answer, now: Instant) {
        let Some(watch) = self.watches.get_mut(target) else {
            return; // no longer watched
        };
        watch.asking = false;
        let reason = match answer {
            Answer::Records(addresses) if !addresses.is_empty() => {
                watch.failures = 0;
                watch.last = None;
                let pause = self.policy.refresh.mul_f64(0.8 + 0.4 * self.rng.f64());
                watch.next = Some(now + pause);
                return self.replace_records(target, addresses, now);
            }
            Answer::Records(_) => "the answer holds no record".to_owned(),
            Answer::Nothing(reason) => {
                self.replace_records(target, Vec::new(), now);
                reason
            }
            Answer::Failed(reason) => reason,
        };
        let Some(watch) = self.watches.get_mut(target) else { return };
        watch.failures = watch.failures.saturating_add(1);
        let retry_in =
            Backoff::steady(RETRY_MIN, self.policy.lookup_max).delay(watch.failures, &mut self.rng);
        watch.next = Some(now + retry_in);
        let repeated = watch.failures > 1 && is_old_news(&mut watch.told, &watch.last, &reason, now);
        watch.told = watch.told.or(Some(now));
        watch.last = Some(reason.clone());
        self.notices.push_back(Notice::NotResolved { target: target.clone(), reason, retry_in, repeated });
    }

    /// A connection to `peer` stands; `address` is where it was found: what was dialed, or where it
    /// came from.
    pub fn on_connected(&mut self, link: ConnectionId, peer: PeerId, address: Multiaddr, now: Instant) {
        let (address, _) = split_peer(address);
        if self.links.insert(link, (peer, address.clone())).is_none() {
            *self.live.entry(peer).or_default() += 1;
        }
        self.strangers.remove(&peer);
        self.attribute(&address, peer, now);
    }

    /// A connected peer proved that it answers at `addresses` too. A record that is connected to
    /// someone else already is not taken over by a claim.
    pub fn on_addresses(
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
            if self.records.get(&address).is_some_and(|r| matches!(r.state, State::Waiting(_))) {
                self.attribute(&address, peer, now);
            }
        }
    }

    /// A connection ended.
    pub fn on_disconnected(&mut self, link: ConnectionId, now: Instant) {
        let Some((peer, address)) = self.links.remove(&link) else {
            return;
        };
        if let Some(links) = self.live.get_mut(&peer) {
            *links -= 1;
            if *links > 0 {
                return self.leave(peer, address);
            }
            self.live.remove(&peer);
        }
        let lost: Vec<_> = self
            .records
            .iter()
            .filter(|(_, r)| r.peer == Some(peer) && r.state == State::Connected)
            .map(|(a, _)| a.clone())
            .collect();
        let mut settled = false;
        for address in lost {
            settled = true;
            if !self.is_listed(&address) {
                self.drop_record(&address);
                continue;
            }
            // Its name is asked at once, and the record dialed a moment later: if the replica is
            // gone for good, the answer says so first.
            let pause = Backoff::full_jitter(RETRY_MIN, self.policy.retry_max).delay(1, &mut self.rng);
            if let Some(record) = self.records.get_mut(&address) {
                record.state = State::Waiting(now + pause);
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
        if !settled && self.strangers.len() >= MAX_STRANGERS {
            self.strangers.remove(&peer);
            self.actions.push_back(Action::Forget { peer, address: None });
        } else if !settled {
            let forget = now + self.policy.forget;
            self.strangers.entry(peer).and_modify(|at| *at = (*at).min(forget)).or_insert(forget);
        }
    }

    /// A dial of `address` failed.
    pub fn on_dial_failed(&mut self, address: &Multiaddr, fault: DialFault, now: Instant) {
        let Some(record) = self.records.get_mut(address) else {
            return;
        };
        if record.state == State::Dialing {
            record.state = State::Waiting(now);
        }
        let reason = match fault {
            DialFault::OwnPeer => return self.mark_own(address),
            DialFault::Enough(peer) if self.is_live(&peer) => return self.attribute(address, peer, now),
            DialFault::Enough(peer) => format!("connection limit reached for {peer}"),
            DialFault::Failed(reason) => reason,
        };
        if record_is_settled(&self.records, address) {
            return; // an inbound connection was faster
        }
        if let Some((peer, _)) = self.known.get(address).copied().filter(|(_, until)| *until <= now) {
            self.known.remove(address);
            if self.records.get(address).is_some_and(|r| r.peer.is_none()) {
                self.actions.push_back(Action::Forget { peer, address: Some(address.clone()) });
            }
        }
        if !self.is_listed(address) {
            return self.drop_record(address);
        }
        let Some(record) = self.records.get_mut(address) else { return };
        record.failures = record.failures.saturating_add(1);
        let retry_in =
            Backoff::full_jitter(RETRY_MIN, self.policy.retry_max).delay(record.failures, &mut self.rng);
        // A known peer is given up on time.
        let retry = self.known.get(address).map_or(now + retry_in, |(_, until)| (now + retry_in).min(*until));
        record.state = State::Waiting(retry);
        let retry_in = retry.saturating_duration_since(now);
        let repeated = record.failures > 1 && is_old_news(&mut record.told, &record.last, &reason, now);
        record.told = record.told.or(Some(now));
        record.last = Some(reason.clone());
        self.notices.push_back(Notice::DialFailed { address: address.clone(), reason, retry_in, repeated });
    }

    /// The next thing to do at `now`, if anything.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if let Some((target, watch)) =
            self.watches.iter_mut().find(|(_, w)| !w.asking && w.next.is_some_and(|at| at <= now))
        {
            watch.asking = true;
            return Some(Action::Lookup(target.clone()));
        }
        if self.dialing() < self.policy.parallel
            && let Some((at, address)) = self.next_dial()
            && at <= now
        {
            let record = self.records.get_mut(&address)?;
            record.state = State::Dialing;
            let repeated = record.failures > 0;
            self.notices.push_back(Notice::Dialing { address: address.clone(), repeated });
            return Some(Action::Dial(address, record.expected));
        }
        let gone = self.strangers.iter().find(|(p, at)| **at <= now && !self.is_live(p)).map(|(p, _)| *p)?;
        self.strangers.remove(&gone);
        Some(Action::Forget { peer: gone, address: None })
    }

    /// What happened since the last call, oldest first.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`poll`](Self::poll) has something to do without any event.
    pub fn deadline(&self) -> Option<Instant> {
        let lookups = self.watches.values().filter(|w| !w.asking).filter_map(|w| w.next);
        let dial = (self.dialing() < self.policy.parallel).then(|| self.next_dial()).flatten();
        let strangers = self.strangers.iter().filter(|(p, _)| !self.is_live(p)).map(|(_, at)| *at);
        lookups.chain(dial.map(|(at, _)| at)).chain(strangers).min()
    }

    /// Every target with its records.
    pub fn status(&self, now: Instant) -> Vec<NameStatus> {
        let record = |address: &Multiaddr| {
            let record = self.records.get(address)?;
            let state = match record.state {
                State::Waiting(at) => {
                    RecordState::Waiting { retry_in_ms: at.saturating_duration_since(now).as_millis() as u64 }
                }
                State::Dialing => RecordState::Dialing,
                State::Connected => RecordState::Connected,
                State::Own => RecordState::Own,
            };
            Some(RecordStatus {
                address: address.clone(),
                peer: record.peer,
                state,
                failures: record.failures,
                last_error: record.last.clone(),
            })
        };
        self.watches
            .iter()
            .map(|(target, watch)| NameStatus {
                name: target.to_string(),
                records: watch.records.iter().filter_map(record).collect(),
                last_error: watch.last.clone(),
            })
            .collect()
    }

    fn replace_records(&mut self, target: &Target, addresses: Vec<Multiaddr>, now: Instant) {
        let found = addresses.len();
        let mut fresh: BTreeMap<_, _> = addresses.into_iter().map(split_peer).collect();
        let distinct = fresh.len();
        while fresh.len() > self.policy.max_records {
            fresh.pop_last();
        }
        if distinct > fresh.len() {
            let followed = fresh.len();
            self.notices.push_back(Notice::TooManyRecords { target: target.clone(), found, followed });
        }
        let Some(watch) = self.watches.get_mut(target) else { return };
        let set: BTreeSet<_> = fresh.keys().cloned().collect();
        let changed = set != watch.records;
        let old = std::mem::replace(&mut watch.records, set);
        if !fresh.is_empty() && !matches!(target, Target::Addr(_)) {
            let records = fresh.len();
            self.notices.push_back(Notice::Resolved { target: target.clone(), records, changed });
        }
        let gone = old.into_iter().filter(|a| !fresh.contains_key(a)).collect();
        self.retire(gone);
        for (address, expected) in fresh {
            self.known.remove(&address);
            self.follow(address, expected, now);
        }
    }

    /// Makes sure that a record is known, and settles it at once if it is us or connected already.
    fn follow(&mut self, address: Multiaddr, expected: Option<PeerId>, now: Instant) {
        if let Some(record) = self.records.get_mut(&address) {
            record.expected = expected.or(record.expected);
            return;
        }
        let record = Record {
            state: State::Waiting(now),
            expected,
            peer: None,
            left: false,
            failures: 0,
            last: None,
            told: None,
        };
        self.records.insert(address.clone(), record);
        if self.own.contains(&address) {
            self.mark_own(&address);
        } else if let Some(peer) = self.links.values().find(|(_, a)| *a == address).map(|(p, _)| *p) {
            self.attribute(&address, peer, now);
        }
    }

    /// Lets go of records that a target no longer leads to.
    fn retire(&mut self, addresses: BTreeSet<Multiaddr>) {
        for address in addresses {
            if self.is_listed(&address) {
                continue;
            }
            let Some(record) = self.records.get(&address) else { continue };
            match record.state {
                State::Connected if record.left => {
                    if let Some(peer) = self.records.remove(&address).and_then(|r| r.peer) {
                        self.actions.push_back(Action::Forget { peer, address: Some(address) });
                    }
                }
                // Still connected: it is forgotten when the connection ends. A dial under way
                // ends by itself.
                State::Connected | State::Dialing => {}
                State::Waiting(_) | State::Own => self.drop_record(&address),
            }
        }
    }

    fn drop_record(&mut self, address: &Multiaddr) {
        if let Some(peer) = self.records.remove(address).and_then(|r| r.peer)
            && !self.is_live(&peer)
        {
            let elsewhere = self.records.values().any(|r| r.peer == Some(peer));
            let address = elsewhere.then(|| address.clone());
            self.strangers.remove(&peer);
            self.actions.push_back(Action::Forget { peer, address });
        }
    }

    /// A connection to `peer` at `address` ended, and others stand: if none of them leads there, and no
    /// record does, the peer has moved.
    fn leave(&mut self, peer: PeerId, address: Multiaddr) {
        if self.links.values().any(|(p, a)| *p == peer && *a == address) {
            return;
        }
        let listed = self.is_listed(&address);
        if let Some(record) = self.records.get_mut(&address).filter(|r| r.peer == Some(peer)) {
            record.left = true;
            if !listed {
                self.records.remove(&address);
            }
        }
        if !listed {
            self.actions.push_back(Action::Forget { peer, address: Some(address) });
        }
    }

    fn mark_own(&mut self, address: &Multiaddr) {
        if let Some(record) = self.records.get_mut(address)
            && record.state != State::Own
        {
            record.state = State::Own;
            record.peer = None;
            record.failures = 0;
            record.last = None;
            if let Some((peer, _)) = self.known.remove(address) {
                // Somebody else was here before us.
                self.actions.push_back(Action::Forget { peer, address: Some(address.clone()) });
            }
            self.notices.push_back(Notice::Own { address: address.clone() });
        }
    }

    /// `peer`, which is connected, is who answers at `address`.
    fn attribute(&mut self, address: &Multiaddr, peer: PeerId, now: Instant) {
        let Some(record) = self.records.get_mut(address) else {
            return;
        };
        record.state = State::Connected;
        record.left = false;
        record.failures = 0;
        record.last = None;
        if let Some((known, _)) = self.known.get_mut(address)
            && *known != peer
        {
            let old = std::mem::replace(known, peer);
            self.actions.push_back(Action::Forget { peer: old, address: Some(address.clone()) });
        }
        let Some(old) = record.peer.replace(peer).filter(|old| *old != peer) else {
            return;
        };
        self.notices.push_back(Notice::Replaced { address: address.clone(), old, new: peer });
        self.actions.push_back(Action::Forget { peer: old, address: Some(address.clone()) });
        if !self.records.values().any(|r| r.peer == Some(old)) {
            // Forgotten everywhere, now or when its connection has timed out.
            self.strangers.insert(old, now);
        }
    }

    fn is_live(&self, peer: &PeerId) -> bool {
        self.live.contains_key(peer)
    }

    fn is_listed(&self, address: &Multiaddr) -> bool {
        self.known.contains_key(address) || self.watches.values().any(|w| w.records.contains(address))
    }

    fn dialing(&self) -> usize {
        self.records.values().filter(|r| r.state == State::Dialing).count()
    }

    fn next_dial(&self) -> Option<(Instant, Multiaddr)> {
        self.records
            .iter()
            .filter_map(|(a, r)| match r.state {
                State::Waiting(at) => Some((at, a)),
                _ => None,
            })
            .min()
            .map(|(at, a)| (at, a.clone()))
    }
}

/// Whether a failure needs no telling: it is the same as before, or another was told a moment ago.
fn is_old_news(told: &mut Option<Instant>, last: &Option<String>, reason: &str, now: Instant) -> bool {
    if last.as_deref() == Some(reason) || told.is_some_and(|at| now < at + TELL_AGAIN) {
        return true;
    }
    *told = Some(now);
    false
}

fn record_is_settled(records: &BTreeMap<Multiaddr, Record>, address: &Multiaddr) -> bool {
    records.get(address).is_some_and(|r| matches!(r.state, State::Connected | State::Own))
}
