//! The reconciler: compares what names resolve to with the connected peers, and says what to do.
//!
//! A pure state machine: events go in together with the present moment, [`Action`]s and
//! [`Notice`]s come out. It never opens a socket, asks a server, reads a clock or logs; time and
//! randomness are handed in, so that its tests run in simulated time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::{
    action::{Action, Notice, Policy},
    record::State,
    search::Search,
    status::{NameStatus, RecordState, RecordStatus},
};
use crate::{config::Target, transport::multiaddr::is_circuit};
use table::Table;

mod answers;
mod connections;
mod dialing;
mod known;
mod own;
mod records;
mod roles;
mod table;

/// First pause of all backoffs.
const RETRY_MIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct TargetState {
    asking: bool,
    /// When to ask next; never, for a plain address.
    next: Option<Instant>,
    failures: u32,
    /// Why the last lookup gave nothing.
    last: Option<String>,
    /// When a failure was last reported as new.
    reported_at: Option<Instant>,
    records: BTreeSet<Multiaddr>,
    /// When those that dial this node have had time to, of a large name.
    settles: Option<Instant>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Reconciler {
    policy: Policy,
    rng: fastrand::Rng,
    watches: BTreeMap<Target, TargetState>,
    records: Table,
    /// Which records each way leads to that is not what they are known by.
    by_way: HashMap<Multiaddr, Vec<Multiaddr>>,
    connections: HashMap<ConnectionId, (PeerId, Multiaddr)>,
    /// How many connections each peer has; none has zero.
    live: HashMap<PeerId, usize>,
    own: BTreeSet<Multiaddr>,
    /// Addresses that lead to this node from outside.
    external: BTreeSet<Multiaddr>,
    /// The addresses of this host; not known, if there are none.
    host: BTreeSet<IpAddr>,
    /// Records that no name leads to, from an earlier run: the peer that was there, and until when they are dialed.
    known: BTreeMap<Multiaddr, (PeerId, Instant)>,
    /// Where the records of targets are, and whether only large names lead there.
    wanted_ips: HashMap<IpAddr, bool>,
    search: Search,
    /// Why the last dial failed.
    reason: Arc<str>,
    /// The roles of the records of large names are to be found again: now, or at that moment.
    replan: bool,
    replan_at: Option<Instant>,
    /// When they were found last, of a large name.
    planned: Option<Instant>,
    /// Peers that no record leads to, and when to forget them if they are gone then.
    unlisted_peers: BTreeMap<PeerId, Instant>,
    actions: VecDeque<Action>,
    notices: VecDeque<Notice>,
}

impl Reconciler {
    /// A reconciler that watches nothing yet.
    pub(crate) fn new(policy: Policy, rng: fastrand::Rng) -> Self {
        Self {
            reason: "".into(),
            search: Search::new(policy.neighbours.chosen(), policy.parallel),
            policy,
            rng,
            watches: BTreeMap::new(),
            records: Table::default(),
            by_way: HashMap::new(),
            connections: HashMap::new(),
            live: HashMap::new(),
            own: BTreeSet::new(),
            external: BTreeSet::new(),
            host: BTreeSet::new(),
            known: BTreeMap::new(),
            wanted_ips: HashMap::new(),
            replan: false,
            replan_at: None,
            planned: None,
            unlisted_peers: BTreeMap::new(),
            actions: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    /// Watches exactly `targets` from now on; what others led to is no longer dialed.
    pub(crate) fn set_targets(&mut self, targets: impl IntoIterator<Item = Target>, now: Instant) {
        let wanted: BTreeSet<_> = targets.into_iter().collect();
        let dropped: Vec<_> = self.watches.keys().filter(|t| !wanted.contains(*t)).cloned().collect();
        for target in dropped {
            if let Some(watch) = self.watches.remove(&target) {
                self.retire(watch.records);
            }
        }
        self.index();
        for target in wanted {
            self.add_target(target, now);
        }
    }

    /// Whether a record of `target` is connected to `peer`.
    pub(crate) fn is_behind(&self, peer: &PeerId, target: &Target) -> bool {
        let records = self.watches.get(target).into_iter().flat_map(|watch| &watch.records);
        records
            .filter_map(|address| self.records.get(address))
            .any(|record| record.state == State::Connected && record.is_of(peer))
    }

    /// How many targets are watched.
    pub(crate) fn targets(&self) -> usize {
        self.watches.len()
    }

    /// Watches `target` too.
    pub(crate) fn add_target(&mut self, target: Target, now: Instant) {
        if self.watches.contains_key(&target) {
            return;
        }
        let mut watch = TargetState {
            asking: false,
            next: Some(now),
            failures: 0,
            last: None,
            reported_at: None,
            records: BTreeSet::new(),
            settles: None,
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

    /// The next thing to do at `now`, if anything.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if let Some((target, watch)) =
            self.watches.iter_mut().find(|(_, w)| !w.asking && w.next.is_some_and(|at| at <= now))
        {
            watch.asking = true;
            return Some(Action::Lookup(target.clone()));
        }
        self.assign_roles(now);
        if let Some(dial) = self.next_way(now).or_else(|| self.next_round(now)) {
            return Some(dial);
        }
        let gone =
            self.unlisted_peers.iter().find(|(p, at)| **at <= now && !self.is_live(p)).map(|(p, _)| *p)?;
        self.unlisted_peers.remove(&gone);
        Some(Action::Forget { peer: gone, address: None })
    }

    /// What happened since the last call, oldest first.
    pub(crate) fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`poll`](Self::poll) has something to do without any event.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let lookups = self.watches.values().filter(|w| !w.asking).filter_map(|w| w.next);
        let dial = self.records.next_due().filter(|_| self.records.dialing() < self.policy.parallel);
        let unlisted_peers = self.unlisted_peers.iter().filter(|(p, _)| !self.is_live(p)).map(|(_, at)| *at);
        let way = self.records.next_way();
        let rounds = dial.into_iter().chain(way).map(|(at, _)| *at);
        lookups.chain(rounds).chain(unlisted_peers).chain(self.replan_at).min()
    }

    /// Every target with its records.
    pub(crate) fn status(&self, now: Instant) -> Vec<NameStatus> {
        let relayed = |peer: PeerId| {
            let mut connections = self.connections.values().filter(|(p, _)| *p == peer);
            connections.all(|(_, address)| is_circuit(address))
        };
        let record = |address: &Multiaddr| {
            let record = self.records.get(address)?;
            let state = match record.state {
                State::Waiting(_) if !record.role.is_held() => RecordState::Spare,
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
                peer: record.peer(),
                relayed: record.peer().filter(|_| record.state == State::Connected).is_some_and(relayed),
                state,
                hold: record.role.into(),
                failures: record.failures,
                last_error: record.last.as_deref().map(str::to_owned),
            })
        };
        self.watches
            .iter()
            .map(|(target, watch)| NameStatus {
                name: target.to_string(),
                records: {
                    let mut records = Vec::with_capacity(watch.records.len());
                    records.extend(watch.records.iter().filter_map(record));
                    records
                },
                last_error: watch.last.clone(),
            })
            .collect()
    }
}
