//! Whole swarms of cores in simulated time: how often a message travels, and that it arrives.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::{PeerId, identity::Keypair, swarm::ConnectionId};

use super::bench::{SECOND, frames, topic};
use crate::{Authenticity, Author, Rpc, core::*};

struct Simulation {
    nodes: Vec<Core>,
    ids: HashMap<PeerId, usize>,
    peers: Vec<PeerId>,
    now: Instant,
    rng: fastrand::Rng,
    /// Frames under way: when they arrive, in which order they left, their sender and receiver.
    wire: BinaryHeap<Reverse<(Instant, u64, usize, usize)>>,
    frames: HashMap<u64, Vec<Rpc>>,
    sent: u64,
    /// By link and direction; nothing arrives over those that are dead.
    latency: HashMap<(usize, usize), Duration>,
    dead: HashSet<(usize, usize)>,
    /// Messages that arrived, copies included.
    copies: usize,
    delivered: HashMap<Vec<u8>, Vec<(usize, Instant)>>,
}

impl Simulation {
    /// Nodes of which each dials `degree` others, or all.
    fn new(config: &Config, nodes: usize, degree: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(11);
        let now = Instant::now();
        let mut cores = Vec::new();
        let mut peers = Vec::new();
        for n in 0..nodes {
            let key = Keypair::generate_ed25519();
            let peer = key.public().to_peer_id();
            let author = Author::new(Authenticity::Signed(key), 1);
            cores.push(
                Core::new(config.clone(), peer, author, fastrand::Rng::with_seed(n as u64), now).unwrap(),
            );
            peers.push(peer);
        }
        let mut links: HashSet<(usize, usize)> = HashSet::new();
        for n in 0..nodes {
            while links.iter().filter(|(from, _)| *from == n).count() < degree.min(nodes - 1 - n) {
                links.insert((n, rng.usize(n + 1..nodes)));
            }
            // In one piece.
            if n > 0 && !links.iter().any(|(_, to)| *to == n) {
                links.insert((n - 1, n));
            }
        }
        let ids = peers.iter().enumerate().map(|(n, peer)| (*peer, n)).collect();
        let mut simulation = Self {
            nodes: cores,
            ids,
            peers,
            now,
            rng,
            wire: BinaryHeap::new(),
            frames: HashMap::new(),
            sent: 0,
            latency: HashMap::new(),
            dead: HashSet::new(),
            copies: 0,
            delivered: HashMap::new(),
        };
        let mut links: Vec<_> = links.into_iter().collect();
        links.sort_unstable();
        for (number, (a, b)) in links.into_iter().enumerate() {
            simulation.connect(a, b, number);
        }
        for node in 0..nodes {
            simulation.nodes[node].subscribe(&topic("t"), now);
            simulation.carry_out(node);
        }
        simulation
    }

    fn connect(&mut self, a: usize, b: usize, number: usize) {
        let latency = Duration::from_micros(self.rng.u64(500..30_000));
        let connection = ConnectionId::new_unchecked(number);
        for (here, there, dialer) in [(a, b, true), (b, a, false)] {
            self.latency.insert((here, there), latency);
            let address = format!("/ip4/10.0.{}.{}/udp/1/quic-v1", there / 200, there % 200 + 1);
            let peer = self.peers[there];
            let core = &mut self.nodes[here];
            core.connected(peer, connection, dialer, &address.parse().unwrap());
            core.opened(&peer, connection, PeerKind::V1_3);
            core.heard(&peer, connection, PeerKind::V1_3, true);
            self.carry_out(here);
        }
    }

    fn carry_out(&mut self, node: usize) {
        loop {
            while let Some(batch) = self.nodes[node].unverified(64) {
                let holds = vec![true; batch.messages.len()];
                self.nodes[node].verified(batch.ticket, &holds, self.now);
            }
            match self.nodes[node].next_action() {
                Some(Action::Flush { peer } | Action::Start { peer, .. }) => self.flush(node, &peer),
                Some(Action::Report(Event::Message { message, .. })) => {
                    self.delivered.entry(message.data.to_vec()).or_default().push((node, self.now));
                }
                Some(_) => {}
                None => break,
            }
        }
    }

    fn flush(&mut self, from: usize, peer: &PeerId) {
        let Some(outbox) = self.nodes[from].outbox(peer).cloned() else { return };
        outbox.wake();
        let mut bytes = Vec::new();
        while outbox.next_frame(&mut bytes) {}
        let to = self.ids[peer];
        if bytes.is_empty() || self.dead.contains(&(from, to)) {
            return;
        }
        // A little jitter, and no overtaking on a link worth the name: in the order of sending within a millisecond.
        let jitter = Duration::from_micros(self.rng.u64(0..200));
        let at = self.now + self.latency[&(from, to)] + jitter;
        self.wire.push(Reverse((at, self.sent, from, to)));
        self.frames.insert(self.sent, frames(&bytes));
        self.sent += 1;
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.nodes.iter().enumerate().map(|(n, core)| (core.next_deadline(), n)).min();
            let arrival = self.wire.peek().map(|Reverse((at, ..))| *at);
            match (due, arrival) {
                (Some((at, node)), arrival) if at <= end && arrival.is_none_or(|arrival| at <= arrival) => {
                    self.now = self.now.max(at);
                    self.nodes[node].tick(self.now);
                    self.carry_out(node);
                }
                (_, Some(at)) if at <= end => {
                    let Some(Reverse((_, number, from, to))) = self.wire.pop() else { return };
                    self.now = self.now.max(at);
                    for rpc in self.frames.remove(&number).unwrap_or_default() {
                        self.copies += rpc.publish.len();
                        self.nodes[to].received(&self.peers[from], rpc, self.now);
                    }
                    self.carry_out(to);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Publishes `n` messages at `publishers` by turns; returns copies a message and node, and how long it took to reach
    /// the last.
    fn publish(&mut self, n: usize, publishers: usize, name: &str) -> (f64, Duration) {
        self.delivered.clear();
        let before = self.copies;
        let mut at = Vec::new();
        for number in 0..n {
            let data = format!("{name} {number}").into_bytes();
            let from = number % publishers;
            self.nodes[from].publish(&topic("t"), &data, self.now).unwrap();
            at.push((data, self.now));
            self.carry_out(from);
            self.pass(Duration::from_millis(50));
        }
        self.pass(SECOND);
        let mut longest = Duration::ZERO;
        for (data, published) in at {
            let arrived = &self.delivered[&data];
            let nodes: HashSet<_> = arrived.iter().map(|(node, _)| *node).collect();
            assert_eq!(
                nodes.len(),
                self.nodes.len() - 1,
                "{} did not reach all",
                String::from_utf8_lossy(&data)
            );
            assert_eq!(arrived.len(), nodes.len(), "once each");
            longest = arrived.iter().map(|(_, at)| *at - published).fold(longest, Duration::max);
        }
        let copies = (self.copies - before) as f64 / n as f64 / (self.nodes.len() - 1) as f64;
        (copies, longest)
    }
}

#[test]
fn in_a_settled_swarm_of_fifty_a_message_travels_at_most_twice_to_each() {
    for (degree, flood, publishers) in [(49, true, 50), (6, true, 50), (6, false, 1)] {
        let config = Config { flood_publish: flood, ..Config::default() };
        let mut swarm = Simulation::new(&config, 50, degree);
        swarm.pass(SECOND * 5);
        let (first, _) = swarm.publish(10, publishers, "first");
        swarm.publish(200, publishers, "settling");
        let (copies, longest) = swarm.publish(40, publishers, "settled");
        let swarm = format!("{degree} links, flood publishing {flood}, {publishers} publish");
        assert!(first > 4.0, "{swarm}: {first} copies before it settled");
        assert!(copies <= 2.0, "{swarm}: {copies} copies, {first} before it settled");
        assert!(longest < SECOND, "{longest:?}");
    }
}

#[test]
fn nothing_is_lost_when_links_die_in_silence() {
    let config = Config { flood_publish: false, ..Config::default() };
    let mut swarm = Simulation::new(&config, 30, 5);
    swarm.pass(SECOND * 5);
    swarm.publish(300, 30, "settling");
    // Of every node one link that it is not choked on, and that carries, falls silent in one direction.
    for node in 0..30 {
        let choked = swarm.nodes[node].choked(&topic("t"));
        let mesh = swarm.nodes[node].mesh(&topic("t"));
        let eager: Vec<_> = mesh.iter().filter(|peer| !choked.contains(peer)).collect();
        if choked.len() > 1
            && let Some(peer) = eager.first()
        {
            let peer = swarm.ids[*peer];
            swarm.dead.insert((peer, node));
        }
    }
    assert!(swarm.dead.len() >= 15, "{} links", swarm.dead.len());
    let (_, longest) = swarm.publish(60, 30, "after");
    assert!(longest < SECOND, "{longest:?}");
}

#[test]
fn peers_without_the_extension_live_among_those_that_have_it() {
    let mut swarm = Simulation::new(&Config { flood_publish: false, ..Config::default() }, 24, 5);
    let plain = Config { flood_publish: false, extensions: Default::default(), ..Config::default() };
    let mut mixed = Simulation::new(&plain, 24, 5);
    mixed.pass(SECOND * 5);
    let (without, _) = mixed.publish(100, 24, "without");
    swarm.pass(SECOND * 5);
    swarm.publish(200, 24, "settling");
    let (with, _) = swarm.publish(50, 24, "with");
    assert!(with < without, "{with} copies, {without} without");
}
