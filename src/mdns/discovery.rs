//! Finding peers on the links of this host: what is heard, what is said, who is dialed.
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
    found::{Fault, Peers},
    voice::{Say, Turn, Voice},
    wire::{self, Claim, Packet},
    words::{Action, Notice, Policy, Segment},
};
use crate::{config::TransportKind, dialer::NameStatus, runtime::Interface};

/// Addresses of this node that are announced on one segment.
const MAX_OWN: usize = 128;

#[derive(Debug)]
struct Ear {
    voice: Voice,
    /// The addresses that this host has there.
    here: Vec<Interface>,
    /// What is wrong there.
    trouble: Option<String>,
}

impl Ear {
    /// Whether somebody on this segment can be at `ip`.
    fn is_on_link(&self, ip: IpAddr) -> bool {
        let is_one = match ip {
            IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
            // Where a link-local address leads to depends on who says it.
            IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && !v6.is_unicast_link_local(),
        };
        is_one && self.here.iter().any(|own| own.contains(ip))
    }

    /// Whether what listens at `ip` of this host can be reached by others on this segment. The whole of
    /// loopback's subnet is this host's.
    fn is_ours(&self, ip: IpAddr) -> bool {
        self.here.iter().any(|own| own.addr == ip || (own.addr.is_loopback() && own.contains(ip)))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Discovery {
    local: PeerId,
    /// What this node's records stand under.
    label: String,
    ttl: u32,
    policy: Policy,
    rng: fastrand::Rng,
    ears: BTreeMap<Segment, Ear>,
    own: BTreeSet<Multiaddr>,
    peers: Peers,
    /// Nothing is said or done any more.
    stopped: bool,
    actions: VecDeque<Action>,
    notices: VecDeque<Notice>,
}

impl Discovery {
    /// Discovery for the node `local`, which knows of no segment yet.
    pub fn new(local: PeerId, policy: Policy, mut rng: fastrand::Rng, now: Instant) -> Self {
        Self {
            local,
            label: wire::random_label(&mut rng),
            // 0 would mean goodbye.
            ttl: u32::try_from(policy.ttl.as_secs()).unwrap_or(u32::MAX).max(1),
            peers: Peers::new(local, policy.clone(), now),
            policy,
            rng,
            ears: BTreeMap::new(),
            own: BTreeSet::new(),
            stopped: false,
            actions: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    /// The node that this is.
    pub fn id(&self) -> PeerId {
        self.local
    }

    /// Peers are looked for on `segment` from now on, where this host has the addresses `here`.
    pub fn on_segment(&mut self, segment: Segment, here: Vec<Interface>, now: Instant) {
        if let Some(ear) = self.ears.get_mut(&segment) {
            ear.here = here;
            ear.voice.restart(now, &mut self.rng);
            ear.voice.announce(now, &mut self.rng);
            return;
        }
        let mut voice = Voice::new(self.policy.query_interval, now, &mut self.rng);
        voice.announce(now, &mut self.rng);
        self.ears.insert(segment.clone(), Ear { voice, here, trouble: None });
        self.notices.push_back(Notice::Looking(segment));
    }

    /// There is no such segment any more.
    pub fn on_segment_gone(&mut self, segment: &Segment) {
        if self.ears.remove(segment).is_some() {
            self.peers.on_segment_gone(segment);
        }
    }

    /// The addresses that this node listens on.
    pub fn on_own_addresses(&mut self, own: impl IntoIterator<Item = Multiaddr>, now: Instant) {
        let own: BTreeSet<_> = own.into_iter().collect();
        let changed: Vec<_> = self.own.symmetric_difference(&own).filter_map(socket).collect();
        for ear in self.ears.values_mut() {
            if changed.iter().any(|at| ear.is_ours(at.ip())) {
                ear.voice.announce(now, &mut self.rng);
            }
        }
        self.own = own;
    }

    /// A packet came on `segment`.
    pub fn on_packet(&mut self, segment: &Segment, bytes: &[u8], now: Instant) {
        let Some(ear) = self.ears.get_mut(segment) else { return };
        let (read, turn) = ear.voice.on_packet(now);
        if turn == Some(Turn::Well) {
            ear.trouble = None;
            self.notices.push_back(Notice::Recovered(segment.clone()));
        }
        if !read || self.stopped {
            return;
        }
        match wire::read(bytes) {
            Ok(Packet::Question { peers, types }) => {
                if peers {
                    ear.voice.on_question(now, &mut self.rng);
                }
                if types {
                    ear.voice.on_types_question(now, &mut self.rng);
                }
            }
            Ok(Packet::Answer(claims)) => {
                for claim in claims {
                    if ear.is_on_link(claim.at.ip()) && !is_own(&self.own, &claim) {
                        self.peers.on_claim(segment, &claim, now);
                    }
                }
            }
            Err(why) => log::trace!("a packet of mdns on {segment} is refused: {why}"),
        }
    }

    /// Something was sent on `segment`, or why it was not.
    pub fn on_sent(&mut self, segment: &Segment, sent: Result<(), String>, now: Instant) {
        let Some(ear) = self.ears.get_mut(segment) else { return };
        match sent {
            Ok(()) => {
                if ear.voice.on_sent(now) == Some(Turn::Well) {
                    ear.trouble = None;
                    self.notices.push_back(Notice::Recovered(segment.clone()));
                }
            }
            Err(why) => {
                if ear.voice.on_not_sent() {
                    let why = format!("nothing can be sent: {why}");
                    ear.trouble = Some(why.clone());
                    self.notices.push_back(Notice::Trouble { segment: Some(segment.clone()), why });
                }
            }
        }
    }

    /// A connection to `peer` stands, whoever dialed.
    pub fn on_connected(&mut self, peer: PeerId, now: Instant) {
        self.peers.on_connected(peer, now);
    }

    /// A connection to `peer` ended.
    pub fn on_disconnected(&mut self, peer: PeerId, now: Instant) {
        self.peers.on_disconnected(peer, now, &mut self.rng);
    }

    /// A dial of `peer` failed.
    pub(super) fn on_dial_failed(&mut self, peer: PeerId, fault: Fault, now: Instant) {
        self.peers.on_dial_failed(peer, fault, now, &mut self.rng);
    }

    /// Takes leave: others are told, and nothing else is said or done any more.
    pub fn stop(&mut self) {
        if !std::mem::replace(&mut self.stopped, true) {
            let all: Vec<_> = self.ears.keys().cloned().collect();
            all.iter().for_each(|segment| self.answer(segment, 0));
        }
    }

    /// The next thing to do at `now`, if anything.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        self.peers.expire(now);
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.stopped {
            return None;
        }
        for segment in self.peers.ask(now) {
            if let Some(ear) = self.ears.get_mut(&segment) {
                ear.voice.ask_soon(now, &mut self.rng);
            }
        }
        let mut said = Vec::new();
        for (segment, ear) in &mut self.ears {
            if ear.voice.check(now) == Some(Turn::Deaf) {
                let why =
                    "not even what this node says comes back; is there a packet filter on UDP port 5353?";
                ear.trouble = Some(why.into());
                let why = why.into();
                self.notices.push_back(Notice::Trouble { segment: Some(segment.clone()), why });
            }
            while let Some(say) = ear.voice.poll(now, &mut self.rng) {
                said.push((segment.clone(), say));
            }
        }
        for (segment, say) in said {
            match say {
                Say::Question => self.actions.push_back(Action::Send(segment, wire::question())),
                Say::Types => self.actions.push_back(Action::Send(segment, wire::types(self.ttl))),
                Say::Answer => self.answer(&segment, self.ttl),
            }
        }
        self.actions.pop_front().or_else(|| self.peers.dial(now))
    }

    /// Says on `segment` which of this node's addresses can be reached there.
    fn answer(&mut self, segment: &Segment, ttl: u32) {
        let Some(ear) = self.ears.get(segment) else { return };
        let own = self.own.iter().filter(|address| socket(address).is_some_and(|at| ear.is_ours(at.ip())));
        let packets = wire::answers(&self.label, &self.local, own.take(MAX_OWN), ttl);
        self.actions.extend(packets.into_iter().map(|packet| Action::Send(segment.clone(), packet)));
    }

    /// When there is something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        let voices = self.ears.values().map(|ear| ear.voice.deadline()).filter(|_| !self.stopped);
        voices.chain(self.peers.deadline().filter(|_| !self.stopped)).min()
    }

    /// The next thing to tell, if there is one.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front().or_else(|| self.peers.next_notice())
    }

    /// What was found, as the records of a name.
    pub fn status(&self, now: Instant) -> NameStatus {
        let trouble = self.ears.iter().find_map(|(segment, ear)| Some((segment, ear.trouble.as_ref()?)));
        self.peers.status(now, trouble.map(|(segment, why)| format!("{segment}: {why}")))
    }
}

fn socket(address: &Multiaddr) -> Option<SocketAddr> {
    TransportKind::and_socket(address).map(|(_, at)| at)
}

/// Whether somebody claims to be where this node is.
fn is_own(own: &BTreeSet<Multiaddr>, claim: &Claim) -> bool {
    own.contains(&claim.over.at(claim.at))
}
