//! Discovery of peers on the links of this host: what to parse, what to send, which peers to dial.
//!
//! A pure state machine: events go in together with the present moment, [`Action`]s and [`Notice`]s come
//! out. It never opens a socket, reads a clock or logs; time and randomness are handed in.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use libp2p::{Multiaddr, PeerId};

use super::{
    action::{Action, Notice, Policy, Segment},
    discovered::{Fault, Peers},
    schedule::{HealthChange, Outgoing, Schedule},
    wire::{self, Claim, Packet},
};
use crate::{config::TransportKind, dialer::NameStatus, runtime::Interface};

/// Most addresses of this node that are announced on one segment.
const MAX_OWN: usize = 128;

#[derive(Debug)]
struct SegmentState {
    schedule: Schedule,
    /// The addresses that this host has there.
    here: Vec<Interface>,
    /// Why discovery does not work there, if it does not.
    trouble: Option<String>,
}

impl SegmentState {
    /// Whether a host on this segment can have the address `ip`.
    fn is_on_link(&self, ip: IpAddr) -> bool {
        let is_one = match ip {
            IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
            // A link-local address is ambiguous without its scope.
            IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && !v6.is_unicast_link_local(),
        };
        is_one && self.here.iter().any(|own| own.contains(ip))
    }

    /// Whether a listener of this host at `ip` can be reached from this segment. All of loopback's subnet is this
    /// host's own.
    fn is_ours(&self, ip: IpAddr) -> bool {
        self.here.iter().any(|own| own.addr == ip || (own.addr.is_loopback() && own.contains(ip)))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Discovery {
    local: PeerId,
    /// The random label under which this node announces its records.
    label: String,
    ttl: u32,
    policy: Policy,
    rng: fastrand::Rng,
    segments: BTreeMap<Segment, SegmentState>,
    own: BTreeSet<Multiaddr>,
    peers: Peers,
    /// Set by [`stop`](Self::stop): no packet and no dial comes out any more.
    stopped: bool,
    actions: VecDeque<Action>,
    notices: VecDeque<Notice>,
}

impl Discovery {
    /// Discovery for the node `local`, which knows of no segment yet.
    pub(crate) fn new(local: PeerId, policy: Policy, mut rng: fastrand::Rng, now: Instant) -> Self {
        Self {
            local,
            label: wire::random_label(&mut rng),
            // 0 would mean goodbye.
            ttl: u32::try_from(policy.ttl.as_secs()).unwrap_or(u32::MAX).max(1),
            peers: Peers::new(local, policy.clone(), now),
            policy,
            rng,
            segments: BTreeMap::new(),
            own: BTreeSet::new(),
            stopped: false,
            actions: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    /// The node that this is.
    #[cfg(test)]
    pub(crate) fn id(&self) -> PeerId {
        self.local
    }

    /// `segment` came up, or the addresses `here` that this host has there changed.
    pub(crate) fn on_segment(&mut self, segment: Segment, here: Vec<Interface>, now: Instant) {
        if let Some(state) = self.segments.get_mut(&segment) {
            state.here = here;
            state.schedule.restart(now, &mut self.rng);
            state.schedule.announce(now, &mut self.rng);
            return;
        }
        let mut schedule = Schedule::new(self.policy.query_interval, now, &mut self.rng);
        schedule.announce(now, &mut self.rng);
        self.segments.insert(segment.clone(), SegmentState { schedule, here, trouble: None });
        self.notices.push_back(Notice::Looking(segment));
    }

    /// `segment` went down.
    pub(crate) fn on_segment_gone(&mut self, segment: &Segment) {
        if self.segments.remove(segment).is_some() {
            self.peers.on_segment_gone(segment);
        }
    }

    /// The addresses that this node listens on changed.
    pub(crate) fn on_own_addresses(&mut self, own: impl IntoIterator<Item = Multiaddr>, now: Instant) {
        let own: BTreeSet<_> = own.into_iter().collect();
        let changed: Vec<_> = self.own.symmetric_difference(&own).filter_map(socket).collect();
        for state in self.segments.values_mut() {
            if changed.iter().any(|at| state.is_ours(at.ip())) {
                state.schedule.announce(now, &mut self.rng);
            }
        }
        self.own = own;
    }

    /// A packet was received on `segment`.
    pub(crate) fn on_packet(&mut self, segment: &Segment, bytes: &[u8], now: Instant) {
        let Some(state) = self.segments.get_mut(segment) else { return };
        let (read, turn) = state.schedule.on_packet(now);
        if turn == Some(HealthChange::Recovered) {
            state.trouble = None;
            self.notices.push_back(Notice::Recovered(segment.clone()));
        }
        if !read || self.stopped {
            return;
        }
        match wire::read(bytes) {
            Ok(Packet::Question { peers, types }) => {
                if peers {
                    state.schedule.on_query(now, &mut self.rng);
                }
                if types {
                    state.schedule.on_types_query(now, &mut self.rng);
                }
            }
            Ok(Packet::Answer(claims)) => {
                for claim in claims {
                    if claim.peer == self.local
                        && state.is_on_link(claim.at.ip())
                        && !state.is_ours(claim.at.ip())
                    {
                        self.peers.on_same_key(&claim, now);
                    } else if state.is_on_link(claim.at.ip()) && !is_own(&self.own, &claim) {
                        self.peers.on_claim(segment, &claim, now);
                    }
                }
            }
            Err(why) => log::trace!("a packet of mdns on {segment} is refused: {why}"),
        }
    }

    /// A packet was sent on `segment`, or could not be.
    pub(crate) fn on_sent(&mut self, segment: &Segment, sent: Result<(), String>, now: Instant) {
        let Some(state) = self.segments.get_mut(segment) else { return };
        match sent {
            Ok(()) => {
                if state.schedule.on_sent(now) == Some(HealthChange::Recovered) {
                    state.trouble = None;
                    self.notices.push_back(Notice::Recovered(segment.clone()));
                }
            }
            Err(why) => {
                if state.schedule.on_not_sent() {
                    let why = format!("nothing can be sent: {why}");
                    state.trouble = Some(why.clone());
                    self.notices.push_back(Notice::Trouble { segment: Some(segment.clone()), why });
                }
            }
        }
    }

    /// A connection to `peer` was established, in either direction.
    pub(crate) fn on_connected(&mut self, peer: PeerId, now: Instant) {
        self.peers.on_connected(peer, now);
    }

    /// A connection to `peer` closed.
    pub(crate) fn on_disconnected(&mut self, peer: PeerId, now: Instant) {
        self.peers.on_disconnected(peer, now, &mut self.rng);
    }

    /// A dial of `peer` failed.
    pub(super) fn on_dial_failed(&mut self, peer: PeerId, fault: Fault, now: Instant) {
        self.peers.on_dial_failed(peer, fault, now, &mut self.rng);
    }

    /// Withdraws the records of this node (TTL 0); after that no packet and no dial comes out.
    pub(crate) fn stop(&mut self) {
        if !std::mem::replace(&mut self.stopped, true) {
            let all: Vec<_> = self.segments.keys().cloned().collect();
            all.iter().for_each(|segment| self.respond(segment, 0));
        }
    }

    /// The next action due at `now`, if any.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Action> {
        self.peers.expire(now);
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.stopped {
            return None;
        }
        for segment in self.peers.ask(now) {
            if let Some(state) = self.segments.get_mut(&segment) {
                state.schedule.query_soon(now, &mut self.rng);
            }
        }
        let mut due = Vec::new();
        for (segment, state) in &mut self.segments {
            if state.schedule.check(now) == Some(HealthChange::NoReceive) {
                let why =
                    "not even what this node says comes back; is there a packet filter on UDP port 5353?";
                state.trouble = Some(why.into());
                let why = why.into();
                self.notices.push_back(Notice::Trouble { segment: Some(segment.clone()), why });
            }
            while let Some(packet) = state.schedule.poll(now, &mut self.rng) {
                due.push((segment.clone(), packet));
            }
        }
        for (segment, packet) in due {
            match packet {
                Outgoing::Query => self.actions.push_back(Action::Send(segment, wire::question())),
                Outgoing::ServiceTypes => {
                    self.actions.push_back(Action::Send(segment, wire::types(self.ttl)));
                }
                Outgoing::Response => self.respond(&segment, self.ttl),
            }
        }
        self.actions.pop_front().or_else(|| self.peers.dial(now))
    }

    /// Announces on `segment` the addresses of this node that can be reached there.
    fn respond(&mut self, segment: &Segment, ttl: u32) {
        let Some(state) = self.segments.get(segment) else { return };
        let own = self.own.iter().filter(|address| socket(address).is_some_and(|at| state.is_ours(at.ip())));
        let packets = wire::answers(&self.label, &self.local, own.take(MAX_OWN), ttl);
        self.actions.extend(packets.into_iter().map(|packet| Action::Send(segment.clone(), packet)));
    }

    /// When to call [`poll`](Self::poll) next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let schedules =
            self.segments.values().map(|state| state.schedule.deadline()).filter(|_| !self.stopped);
        schedules.chain(self.peers.deadline().filter(|_| !self.stopped)).min()
    }

    /// The next notice, if any.
    pub(crate) fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front().or_else(|| self.peers.next_notice())
    }

    /// Where on the local network another node is said to have this node's key.
    pub(crate) fn same_key(&self) -> Vec<Multiaddr> {
        self.peers.same_key()
    }

    /// The discovered peers in the form of the records of a name.
    pub(crate) fn status(&self, now: Instant) -> NameStatus {
        let trouble =
            self.segments.iter().find_map(|(segment, state)| Some((segment, state.trouble.as_ref()?)));
        self.peers.status(now, trouble.map(|(segment, why)| format!("{segment}: {why}")))
    }
}

fn socket(address: &Multiaddr) -> Option<SocketAddr> {
    TransportKind::and_socket(address).map(|(_, at)| at)
}

/// Whether a claim is about an address of this node.
fn is_own(own: &BTreeSet<Multiaddr>, claim: &Claim) -> bool {
    own.contains(&claim.over.at(claim.at))
}
