//! The reconciler: compares what names resolve to with who is connected, and says what to do.
//!
//! A pure state machine: events go in together with the present moment, [`Action`]s and
//! [`Notice`]s come out. It never opens a socket, asks a server, reads a clock or logs; time and
//! randomness are handed in, so that its tests run in simulated time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::{
    action::{Action, DialFault, Notice, Policy, SAME_KEY, is_circuit, split_peer},
    backoff::Backoff,
    record::{Candidate, CandidateState, Record, State},
    status::{NameStatus, RecordState, RecordStatus},
};
use crate::config::{Target, TransportKind};

mod answers;
mod known;

/// First pause of both backoffs.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// A failure that changes its words is told again only after this long: two that take turns must not
/// flood the log.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// How many departed peers are remembered; beyond, a newly departed one is forgotten immediately. Anybody can make up peers.
const MAX_UNLISTED: usize = 1024;
/// A connection that ends sooner than this was no success: whoever answers does not want this node.
const STEADY: Duration = Duration::from_secs(10);
/// How often a record that turned out to be this node is asked again, roughly: a name may lead to another
/// replica at each connection, and an address gets another node.
const OWN_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct TargetState {
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

/// See the module's documentation.
#[derive(Debug)]
pub struct Reconciler {
    policy: Policy,
    rng: fastrand::Rng,
    watches: BTreeMap<Target, TargetState>,
    records: BTreeMap<Multiaddr, Record>,
    /// Which records each way leads to.
    by_way: HashMap<Multiaddr, BTreeSet<Multiaddr>>,
    connections: HashMap<ConnectionId, (PeerId, Multiaddr)>,
    /// How many connections each peer has; none has zero.
    live: HashMap<PeerId, usize>,
    own: BTreeSet<Multiaddr>,
    /// Addresses that lead to this node from outside.
    external: BTreeSet<Multiaddr>,
    /// The addresses of this host; not known, if there are none.
    host: BTreeSet<IpAddr>,
    /// Records that no name leads to, from an earlier run: who was there, and until when they are dialed.
    known: BTreeMap<Multiaddr, (PeerId, Instant)>,
    /// Peers that no record leads to, and when to forget them if they are gone then.
    unlisted_peers: BTreeMap<PeerId, Instant>,
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
            by_way: HashMap::new(),
            connections: HashMap::new(),
            live: HashMap::new(),
            own: BTreeSet::new(),
            external: BTreeSet::new(),
            host: BTreeSet::new(),
            known: BTreeMap::new(),
            unlisted_peers: BTreeMap::new(),
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

    /// Whether a record of `target` is connected to `peer`.
    pub fn is_behind(&self, peer: &PeerId, target: &Target) -> bool {
        let records = self.watches.get(target).into_iter().flat_map(|watch| &watch.records);
        records
            .filter_map(|address| self.records.get(address))
            .any(|record| record.state == State::Connected && record.peer.as_ref() == Some(peer))
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
        let mut watch = TargetState {
            asking: false,
            next: Some(now),
            failures: 0,
            last: None,
            told: None,
            records: BTreeSet::new(),
        };
        let fixed = match &target {
            Target::Addr(address) => Some(vec![address.clone()]),
            Target::Socket(at) => Some(self.policy.transports.iter().map(|kind| kind.at(*at)).collect()),
            Target::Name { .. } | Target::DnsAddr { .. } => None,
        };
        if fixed.is_some() {
            watch.next = None;
        }
        self.watches.insert(target.clone(), watch);
        if let Some(addresses) = fixed {
            self.replace_records(&target, addresses, false, now);
        }
    }

    /// The addresses this node listens on, as others see them.
    pub fn on_own_addresses(&mut self, own: impl IntoIterator<Item = Multiaddr>, now: Instant) {
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
    pub fn on_host_addresses(&mut self, host: impl IntoIterator<Item = IpAddr>, now: Instant) {
        let host: BTreeSet<_> = host.into_iter().collect();
        if host != self.host {
            self.host = host;
            self.ask_own_again(now);
        }
    }

    /// The addresses that lead to this node from outside of its host or its network.
    pub fn on_external_addresses(&mut self, external: impl IntoIterator<Item = Multiaddr>) {
        self.external = external.into_iter().map(|a| split_peer(a).0).collect();
    }

    /// Where this node's own key answers, and nothing says that it should.
    pub fn same_key(&self) -> impl Iterator<Item = &Multiaddr> {
        self.records.iter().filter(|(_, record)| record.own == Some(true)).map(|(address, _)| address)
    }

    /// What was this node may be another one, now that its addresses changed.
    fn ask_own_again(&mut self, now: Instant) {
        for record in self.records.values_mut().filter(|r| r.state == State::Own && !r.is_at(&self.own)) {
            record.state = State::Waiting(now);
        }
    }

    /// Whether nobody but this node is to be expected at a record.
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

    /// A connection to `peer` stands; `address` is where it was found: what was dialed, or where it
    /// came from.
    pub fn on_connected(&mut self, connection: ConnectionId, peer: PeerId, address: Multiaddr, now: Instant) {
        let (address, _) = split_peer(address);
        if self.connections.insert(connection, (peer, address.clone())).is_none() {
            *self.live.entry(peer).or_default() += 1;
        }
        self.unlisted_peers.remove(&peer);
        for record in self.records_at(&address) {
            self.attribute(&record, peer, now);
            let Some(record) = self.records.get_mut(&record) else { continue };
            record.connected_at = Some(address.clone());
            if let Some(way) = record.candidates.iter_mut().find(|w| w.address == address) {
                way.state = CandidateState::Idle;
            }
        }
    }

    /// Whether both are ways to one record.
    pub fn is_one_record(&self, one: &Multiaddr, other: &Multiaddr) -> bool {
        match (self.by_way.get(one), self.by_way.get(other)) {
            (Some(a), Some(b)) => !a.is_disjoint(b),
            _ => false,
        }
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
            for record in self.records_at(&address) {
                if self.records.get(&record).is_some_and(|r| matches!(r.state, State::Waiting(_))) {
                    self.attribute(&record, peer, now);
                }
            }
        }
    }

    /// A connection ended.
    pub fn on_disconnected(&mut self, connection: ConnectionId, now: Instant) {
        let Some((peer, address)) = self.connections.remove(&connection) else {
            return;
        };
        if let Some(connections) = self.live.get_mut(&peer) {
            *connections -= 1;
            if *connections > 0 {
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
            if let Some(record) = self.records.get_mut(&address) {
                let lasted = record.since.take().map_or(STEADY, |since| now.saturating_duration_since(since));
                record.short = if lasted < STEADY { record.short.saturating_add(1) } else { 0 };
                let backoff = Backoff::full_jitter(RETRY_MIN, self.policy.retry_max);
                record.state = State::Waiting(now + backoff.delay(record.short.max(1), &mut self.rng));
                record.vouched = now;
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

    /// A dial of `way` failed.
    pub fn on_dial_failed(&mut self, way: &Multiaddr, fault: DialFault, now: Instant) {
        let dialing = |r: &Record| r.candidate(way).is_some_and(|w| w.state == CandidateState::Dialing);
        let Some(address) =
            self.records_at(way).into_iter().find(|a| self.records.get(a).is_some_and(dialing))
        else {
            return;
        };
        let elsewhere = self.records.get(&address).is_some_and(|record| !self.is_here(record));
        let Some(record) = self.records.get_mut(&address) else { return };
        let under_way = record.state == State::Dialing;
        record.set_way(way, CandidateState::Idle);
        let reason = match fault {
            DialFault::OwnPeer => {
                let again = now + OWN_AGAIN.mul_f64(0.8 + 0.4 * self.rng.f64());
                return self.mark_own(&address, elsewhere, Some(again));
            }
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
        (record.own, record.again) = (None, None);
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
        if let Some(dial) = self.next_way(now).or_else(|| self.next_round(now)) {
            return Some(dial);
        }
        let gone =
            self.unlisted_peers.iter().find(|(p, at)| **at <= now && !self.is_live(p)).map(|(p, _)| *p)?;
        self.unlisted_peers.remove(&gone);
        Some(Action::Forget { peer: gone, address: None })
    }

    /// A record that is being dialed gets its next way tried.
    fn next_way(&mut self, now: Instant) -> Option<Action> {
        let due = |r: &Record| r.state == State::Dialing && r.next_way.is_some_and(|at| at <= now);
        let address = self.records.iter().find(|(_, r)| due(r))?.0.clone();
        self.start_way(&address, now)
    }

    /// A record that waited long enough is dialed again.
    fn next_round(&mut self, now: Instant) -> Option<Action> {
        while self.dialing() < self.policy.parallel
            && let Some((at, address)) = self.next_dial()
            && at <= now
        {
            let record = self.records.get_mut(&address)?;
            record.state = State::Dialing;
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

    /// What happened since the last call, oldest first.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`poll`](Self::poll) has something to do without any event.
    pub fn deadline(&self) -> Option<Instant> {
        let lookups = self.watches.values().filter(|w| !w.asking).filter_map(|w| w.next);
        let dial = (self.dialing() < self.policy.parallel).then(|| self.next_dial()).flatten();
        let unlisted_peers = self.unlisted_peers.iter().filter(|(p, _)| !self.is_live(p)).map(|(_, at)| *at);
        let ways = self.records.values().filter(|r| r.state == State::Dialing).filter_map(|r| r.next_way);
        lookups.chain(dial.map(|(at, _)| at)).chain(ways).chain(unlisted_peers).min()
    }

    /// Every target with its records.
    pub fn status(&self, now: Instant) -> Vec<NameStatus> {
        let relayed = |peer: PeerId| {
            let mut connections = self.connections.values().filter(|(p, _)| *p == peer);
            connections.all(|(_, address)| is_circuit(address))
        };
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
            let via = record.connected_at.as_ref().filter(|_| record.state == State::Connected);
            Some(RecordStatus {
                address: via.unwrap_or(address).clone(),
                peer: record.peer,
                relayed: record.peer.filter(|_| record.state == State::Connected).is_some_and(relayed),
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

    /// Makes sure that a record is known, and settles it at once if it is us or connected already.
    fn follow(&mut self, address: Multiaddr, ways: Vec<Multiaddr>, expected: Option<PeerId>, now: Instant) {
        let there = self.records.contains_key(&address);
        let record = self.records.entry(address.clone()).or_insert_with(|| Record::new(now));
        record.expected = expected.or(record.expected);
        for way in ways {
            if record.candidate(&way).is_none() {
                self.by_way.entry(way.clone()).or_default().insert(address.clone());
                record.candidates.push(Candidate { address: way, state: CandidateState::Idle });
            }
        }
        if there {
            return;
        }
        if record.is_at(&self.own) {
            self.mark_own(&address, false, None);
        } else if let Some((peer, via)) =
            self.connections.values().find(|(_, a)| record.candidate(a).is_some()).cloned()
        {
            self.attribute(&address, peer, now);
            if let Some(record) = self.records.get_mut(&address) {
                record.connected_at = Some(via);
            }
        }
    }

    /// Lets go of records that a target no longer leads to.
    fn retire(&mut self, addresses: BTreeSet<Multiaddr>) {
        for address in addresses {
            if self.is_listed(&address) {
                continue;
            }
            let Some(record) = self.records.get_mut(&address) else { continue };
            match record.state {
                State::Connected if record.departed => self.drop_departed(&address),
                // Still connected: it is forgotten when the connection ends.
                State::Connected => {}
                // A dial under way ends by itself, and is the last.
                State::Dialing => record.next_way = None,
                State::Waiting(_) | State::Own => self.drop_record(&address),
            }
        }
    }

    /// Takes a record out, with what leads to it.
    fn unlink(&mut self, address: &Multiaddr) -> Option<Record> {
        let record = self.records.remove(address)?;
        for way in &record.candidates {
            if let Some(records) = self.by_way.get_mut(&way.address) {
                records.remove(address);
                if records.is_empty() {
                    self.by_way.remove(&way.address);
                }
            }
        }
        Some(record)
    }

    /// Drops a record that its peer, which is connected elsewhere, has left.
    fn drop_departed(&mut self, address: &Multiaddr) {
        let Some(record) = self.unlink(address) else { return };
        let Some(peer) = record.peer else { return };
        // What another record leads to is that one's to forget.
        let ways = record.all_ways().into_iter().filter(|way| !self.is_led_to(way)).collect();
        self.forget_at(peer, ways);
    }

    fn drop_record(&mut self, address: &Multiaddr) {
        let Some(record) = self.unlink(address) else { return };
        let Some(peer) = record.peer.filter(|peer| !self.is_live(peer)) else { return };
        self.unlisted_peers.remove(&peer);
        if self.records.values().any(|r| r.peer == Some(peer)) {
            self.forget_at(peer, record.all_ways());
        } else {
            self.actions.push_back(Action::Forget { peer, address: None });
        }
    }

    fn forget_at(&mut self, peer: PeerId, ways: Vec<Multiaddr>) {
        let forget = |way| Action::Forget { peer, address: Some(way) };
        self.actions.extend(ways.into_iter().map(forget));
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
            self.records
                .get(*r)
                .is_some_and(|r| r.peer == Some(peer) && !stands(&|a| r.candidate(a).is_some()))
        };
        let records = self.records_at(&address);
        let left: Vec<_> = records.iter().filter(has_left).cloned().collect();
        let mut dropped = false;
        for record in left {
            if !self.is_listed(&record) {
                dropped = true;
                self.drop_departed(&record);
            } else if let Some(record) = self.records.get_mut(&record) {
                record.departed = true;
            }
        }
        // A relayed connection gives way to a direct one; the relay still leads to the peer.
        if !dropped && !self.is_led_to(&address) && !is_circuit(&address) {
            self.actions.push_back(Action::Forget { peer, address: Some(address) });
        }
    }

    /// This node itself answers at a record, which is asked `again` who it is.
    fn mark_own(&mut self, address: &Multiaddr, elsewhere: bool, again: Option<Instant>) {
        let Some(record) = self.records.get_mut(address).filter(|record| record.state != State::Own) else {
            return;
        };
        record.state = State::Own;
        record.next_way = None;
        record.peer = None;
        record.failures = 0;
        record.last = elsewhere.then(|| SAME_KEY.to_owned());
        record.again = again;
        let known = record.own.replace(elsewhere) == Some(elsewhere);
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

    /// `peer`, which is connected, is who answers at `address`.
    fn attribute(&mut self, address: &Multiaddr, peer: PeerId, now: Instant) {
        let Some(record) = self.records.get_mut(address) else {
            return;
        };
        if record.state != State::Connected {
            record.since = Some(now);
        }
        record.state = State::Connected;
        (record.own, record.again) = (None, None);
        record.departed = false;
        record.next_way = None;
        record.connected_at = None;
        record.failures = 0;
        record.last = None;
        let ways = record.all_ways();
        let old = record.peer.replace(peer).filter(|old| *old != peer);
        self.correct_known(address, Some(peer));
        let Some(old) = old else {
            return;
        };
        self.notices.push_back(Notice::Replaced { address: address.clone(), old, new: peer });
        self.forget_at(old, ways);
        if !self.records.values().any(|r| r.peer == Some(old)) {
            // Forgotten everywhere, now or when its connection has timed out.
            self.unlisted_peers.insert(old, now);
        }
    }

    /// The records that `way` leads to.
    fn records_at(&self, way: &Multiaddr) -> Vec<Multiaddr> {
        self.by_way.get(way).into_iter().flatten().cloned().collect()
    }

    /// Whether a target, or what is known from an earlier run, leads to `way`.
    fn is_led_to(&self, way: &Multiaddr) -> bool {
        self.by_way.get(way).into_iter().flatten().any(|record| self.is_listed(record))
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
                State::Own => r.again.map(|at| (at, a)),
                State::Dialing | State::Connected => None,
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
