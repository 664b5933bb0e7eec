//! Nodes on a simulated link, and what the tests of discovery make of them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

use super::super::{
    action::{Action, Notice, Policy, Segment},
    discovery::Discovery,
    wire,
};
use crate::{config::TransportKind, runtime::Interface};

pub(super) const MS: fn(u64) -> Duration = Duration::from_millis;
pub(super) const S: fn(u64) -> Duration = Duration::from_secs;

pub(super) fn policy() -> Policy {
    Policy {
        query_interval: S(300),
        ttl: S(360),
        max_peers: 32,
        retry_max: S(30),
        parallel: 4,
        transports: vec![TransportKind::Quic, TransportKind::Tcp],
    }
}

pub(super) fn segment(name: &str, ipv6: bool) -> Segment {
    Segment { interface: name.into(), ipv6 }
}

pub(super) fn eth() -> Segment {
    segment("eth0", false)
}

pub(super) fn interface(addr: &str, prefix_len: u8) -> Interface {
    Interface { name: "eth0".into(), index: 2, addr: addr.parse().unwrap(), prefix_len }
}

pub(super) fn at(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

/// A peer whose id is larger than that of `than`, so that it is dialed immediately.
pub(super) fn larger(than: PeerId) -> PeerId {
    std::iter::repeat_with(PeerId::random).find(|id| *id > than).unwrap()
}

/// A node on one link at 10.0.0.1/24.
pub(super) fn node(policy: Policy, now: Instant) -> Discovery {
    let mut node = Discovery::new(PeerId::random(), policy, fastrand::Rng::with_seed(7), now);
    node.on_segment(eth(), vec![interface("10.0.0.1", 24)], now);
    node.on_own_addresses([at("/ip4/10.0.0.1/udp/4001/quic-v1"), at("/ip4/127.0.0.1/udp/4001/quic-v1")], now);
    node
}

pub(super) fn notices(node: &mut Discovery) -> Vec<Notice> {
    std::iter::from_fn(|| node.next_notice()).collect()
}

pub(super) fn discovered(notices: &[Notice]) -> usize {
    notices.iter().filter(|n| matches!(n, Notice::Discovered { .. })).count()
}

/// Everything that a node does until `end`, with the moments at which it does; no other node says anything.
pub(super) fn play(node: &mut Discovery, now: &mut Instant, end: Instant) -> Vec<(Instant, Action)> {
    let mut done = Vec::new();
    loop {
        while let Some(action) = node.poll(*now) {
            done.push((*now, action));
            assert!(done.len() < 100_000, "it never stops");
        }
        match node.deadline() {
            Some(at) if at <= end => *now = (*now).max(at),
            _ => break,
        }
    }
    *now = end;
    done
}

pub(super) fn announcement(peer: &PeerId, addresses: &[&str], ttl: u32) -> Vec<u8> {
    let addresses: Vec<_> = addresses.iter().map(|a| at(a)).collect();
    wire::answers("x", peer, &addresses, ttl).remove(0)
}

/// Nodes that hear each other after a millisecond.
pub(super) struct Link {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Discovery>,
    /// When each node discovered each peer.
    pub(super) found: Vec<BTreeMap<PeerId, Instant>>,
    pub(super) dialed: Vec<Vec<PeerId>>,
    pub(super) packets: usize,
}

impl Link {
    pub(super) fn new(count: u8, policy: &Policy) -> Self {
        let now = Instant::now();
        let nodes = (1..=count).map(|n| {
            let seed = u64::from(n);
            let mut node =
                Discovery::new(PeerId::random(), policy.clone(), fastrand::Rng::with_seed(seed), now);
            node.on_segment(eth(), vec![interface(&format!("10.0.0.{n}"), 24)], now);
            node.on_own_addresses([at(&format!("/ip4/10.0.0.{n}/udp/4001/quic-v1"))], now);
            node
        });
        let nodes: Vec<_> = nodes.collect();
        let count = nodes.len();
        Self { now, nodes, found: vec![BTreeMap::new(); count], dialed: vec![Vec::new(); count], packets: 0 }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut on_the_way: BTreeMap<(Instant, usize), Vec<u8>> = BTreeMap::new();
        loop {
            for n in 0..self.nodes.len() {
                while let Some(action) = self.nodes[n].poll(self.now) {
                    match action {
                        Action::Send(_, bytes) => {
                            self.packets += 1;
                            self.nodes[n].on_sent(&eth(), Ok(()), self.now);
                            on_the_way.insert((self.now + MS(1), self.packets), bytes);
                        }
                        Action::Dial(peer, _) => {
                            self.dialed[n].push(peer);
                            let other = self.nodes.iter().position(|o| o.id() == peer);
                            if let Some(other) = other {
                                let from = self.nodes[n].id();
                                self.nodes[other].on_connected(from, self.now);
                                self.nodes[n].on_connected(peer, self.now);
                            }
                        }
                    }
                }
                for notice in notices(&mut self.nodes[n]) {
                    match notice {
                        Notice::Discovered { peer, .. } => {
                            self.found[n].insert(peer, self.now);
                        }
                        Notice::Expired { peer, .. } => {
                            self.found[n].remove(&peer);
                        }
                        _ => {}
                    }
                }
            }
            let next = self.nodes.iter().filter_map(Discovery::deadline);
            let next = next.chain(on_the_way.keys().next().map(|(at, _)| *at)).min();
            match next {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => break,
            }
            let later = on_the_way.split_off(&(self.now, usize::MAX));
            for bytes in std::mem::replace(&mut on_the_way, later).into_values() {
                for node in &mut self.nodes {
                    node.on_packet(&eth(), &bytes, self.now);
                }
            }
        }
        self.now = end;
    }
}
