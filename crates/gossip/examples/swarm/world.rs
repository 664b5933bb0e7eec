//! A swarm of cores in simulated time, from a seed: links with latency and loss, nodes that come, go and lie.
//!
//! Everything that a core does is real, down to the bytes of its frames; connections, time and signature checks are
//! not. The same seed gives the same run, to the byte of its log. No clock is read and nothing is random but by the seed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    rc::Rc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, identity::Keypair, swarm::ConnectionId};
use smidge_gossip::{
    Authenticity, Author, Config, Core, Event, PeerKind, PeerScoreParams, PeerScoreThresholds, Topic,
    parts::{Action, Fingerprinter, Frame, Framer, Limits, Rpc, decode},
};

/// What a run is made of.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) config: Config,
    pub(crate) score: Option<(PeerScoreParams, PeerScoreThresholds)>,
    /// From one end to the other; each pair of nodes has its own within this range, and keeps it.
    pub(crate) latency: (Duration, Duration),
    /// Frames that arrive later by a retransmission.
    pub(crate) loss: f64,
    /// What goes wrong in ways in which no core may, to show that the invariants notice.
    pub(crate) fault: Option<Fault>,
    /// Whether the log is written.
    pub(crate) log: bool,
}

impl Setup {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            config: Config::default(),
            score: None,
            latency: (Duration::from_millis(10), Duration::from_millis(90)),
            loss: 0.0,
            fault: None,
            log: false,
        }
    }
}

/// A fault that is put in on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One prune in four is never sent.
    ForgottenPrune,
    /// One time in a hundred nobody is woken to send what is queued.
    LostWakeUp,
    /// One message in a thousand is delivered twice.
    DeliveredTwice,
}

/// What a node does with the messages of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Conduct {
    #[default]
    Honest,
    /// It takes part in meshes and passes nothing on.
    Silent,
    /// The same, for the messages of one author.
    Censor(usize),
}

pub(crate) struct Node {
    pub(crate) core: Core,
    pub(crate) peer: PeerId,
    pub(crate) conduct: Conduct,
    address: Multiaddr,
    /// Which start of the node this is: one that came back has forgotten what it delivered.
    life: u64,
    framer_limits: Limits,
    /// By node: the connection, whether our substream stands, and the framer of what comes.
    links: BTreeMap<usize, End>,
    tick: Duration,
}

struct End {
    connection: ConnectionId,
    open: bool,
    framer: Framer,
    /// When the last frame arrives: a stream keeps its order.
    last: Duration,
}

enum What {
    Tick(usize),
    /// The substream that `node` asked for on its connection to `peer` stands.
    Opened {
        node: usize,
        peer: usize,
        connection: ConnectionId,
    },
    Heard {
        node: usize,
        peer: usize,
        connection: ConnectionId,
    },
    Bytes {
        node: usize,
        from: usize,
        connection: ConnectionId,
        bytes: Rc<[u8]>,
    },
}

/// One message that was published.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) at: Duration,
    pub(crate) by: usize,
    /// Who delivered it, and when first.
    pub(crate) delivered: BTreeMap<usize, Duration>,
    /// The starts of nodes that delivered it.
    lives: BTreeSet<u64>,
}

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) nodes: BTreeMap<usize, Node>,
    pub(crate) published: BTreeMap<u64, Published>,
    /// Copies of messages that arrived at honest nodes.
    pub(crate) copies: u64,
    /// What must not happen, and did.
    pub(crate) broken: Vec<String>,
    pub(crate) log: String,
    pub(crate) topic: Topic,
    numbers: HashMap<PeerId, usize>,
    /// By time, and then in the order in which they were scheduled.
    events: BTreeMap<(Duration, u64), What>,
    scheduled: u64,
    now: Duration,
    start: Instant,
    rng: fastrand::Rng,
    connections: usize,
    restarts: u64,
    scratch: Vec<u8>,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(setup.seed),
            setup,
            nodes: BTreeMap::new(),
            published: BTreeMap::new(),
            copies: 0,
            broken: Vec::new(),
            log: String::new(),
            topic: Topic::from("numbers"),
            numbers: HashMap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            now: Duration::ZERO,
            start: Instant::now(),
            connections: 0,
            restarts: 0,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn rng(&mut self) -> &mut fastrand::Rng {
        &mut self.rng
    }

    fn schedule(&mut self, at: Duration, what: What) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), what);
    }

    /// A node that follows the topic and knows nobody. Its key is made of its number; it has an address of its own.
    pub(crate) fn add(&mut self, number: usize, conduct: Conduct) {
        let mut secret = [7; 32];
        secret[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
        let key = Keypair::ed25519_from_bytes(secret).expect("32 bytes are a key");
        let peer = key.public().to_peer_id();
        self.restarts += 1;
        let now = self.start + self.now;
        let author = Author::new(Authenticity::Signed(key), self.restarts << 32);
        let rng = self.rng.fork();
        let mut core =
            Core::new(self.setup.config.clone(), peer, author, rng, now).expect("a sound configuration");
        core.set_fingerprinter(Fingerprinter::with_key([self.setup.seed, number as u64]));
        if let Some((params, thresholds)) = &self.setup.score {
            core.score_peers(params.clone(), thresholds.clone(), now).expect("sound parameters");
        }
        core.subscribe(&self.topic, now);
        let [_, b, c, d] = (number as u32 + 1).to_be_bytes();
        let address = format!("/ip4/10.{b}.{c}.{d}/udp/4001/quic-v1").parse().expect("an address");
        let frame = self.setup.config.max_frame();
        let node = Node {
            core,
            peer,
            conduct,
            address,
            life: self.restarts,
            framer_limits: Limits { frame, ..Limits::default() },
            links: BTreeMap::new(),
            tick: Duration::MAX,
        };
        self.numbers.insert(peer, number);
        self.nodes.insert(number, node);
        self.turn(number);
    }

    /// A connection that `a` dials.
    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        if a == b
            || !self.nodes.contains_key(&b)
            || self.nodes.get(&a).is_none_or(|n| n.links.contains_key(&b))
        {
            return;
        }
        self.connections += 1;
        let connection = ConnectionId::new_unchecked(self.connections);
        for (node, other, dialer) in [(a, b, true), (b, a, false)] {
            let (peer, address) = (self.nodes[&other].peer, self.nodes[&other].address.clone());
            let Some(node_state) = self.nodes.get_mut(&node) else { continue };
            let framer = Framer::new(node_state.framer_limits.frame);
            let end = End { connection, open: false, framer, last: Duration::ZERO };
            node_state.links.insert(other, end);
            node_state.core.connected(peer, connection, dialer, &address);
            self.turn(node);
        }
    }

    /// Closes the connection at both ends.
    pub(crate) fn disconnect(&mut self, a: usize, b: usize) {
        for (node, other) in [(a, b), (b, a)] {
            let Some(peer) = self.nodes.get(&other).map(|n| n.peer) else { continue };
            let Some(state) = self.nodes.get_mut(&node) else { continue };
            if let Some(end) = state.links.remove(&other) {
                state.core.disconnected(&peer, end.connection, self.start + self.now);
                self.turn(node);
            }
        }
    }

    /// The node is gone, and whoever was connected to it notices.
    pub(crate) fn remove(&mut self, number: usize) {
        let others: Vec<usize> =
            self.nodes.get(&number).map(|n| n.links.keys().copied().collect()).unwrap_or_default();
        for other in others {
            self.disconnect(other, number);
        }
        self.nodes.remove(&number);
    }

    pub(crate) fn neighbours(&self, number: usize) -> Vec<usize> {
        self.nodes.get(&number).map(|n| n.links.keys().copied().collect()).unwrap_or_default()
    }

    /// Publishes a message of `bytes` bytes, and returns its number.
    pub(crate) fn publish(&mut self, by: usize, bytes: usize) -> Option<u64> {
        let number = self.published.len() as u64;
        let mut data = vec![b'x'; bytes.max(8)];
        data[..8].copy_from_slice(&number.to_le_bytes());
        let now = self.start + self.now;
        let topic = self.topic.clone();
        let node = self.nodes.get_mut(&by)?;
        let followers = node.core.subscribers(&topic).len();
        let receipt = node.core.publish(&topic, &data, now).ok()?;
        if receipt.peers == 0 || receipt.peers > followers {
            let peers = receipt.peers;
            self.broken.push(format!("{by}'s receipt says {peers} peers, and {followers} follow the topic"));
        }
        let published = Published { at: self.now, by, delivered: BTreeMap::new(), lives: BTreeSet::new() };
        self.published.insert(number, published);
        self.turn(by);
        Some(number)
    }

    /// Lets time pass until `end`.
    pub(crate) fn run_until(&mut self, end: Duration) {
        while let Some(next) = self.events.first_entry().filter(|next| next.key().0 <= end) {
            let ((at, _), what) = next.remove_entry();
            self.now = at;
            self.happen(what);
        }
        self.now = end;
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    fn happen(&mut self, what: What) {
        let now = self.start + self.now;
        match what {
            What::Tick(number) => {
                let Some(node) = self.nodes.get_mut(&number) else { return };
                node.tick = Duration::MAX;
                node.core.tick(now);
                self.turn(number);
            }
            What::Opened { node, peer, connection } => {
                let Some(id) = self.standing(node, peer, connection) else { return };
                let Some(state) = self.nodes.get_mut(&node) else { return };
                state.core.opened(&id, connection, PeerKind::V1_3);
                self.turn(node);
                let at = self.now + self.latency(node, peer);
                self.schedule(at, What::Heard { node: peer, peer: node, connection });
            }
            What::Heard { node, peer, connection } => {
                let Some(id) = self.standing(node, peer, connection) else { return };
                let Some(state) = self.nodes.get_mut(&node) else { return };
                state.core.heard(&id, connection, PeerKind::V1_3, true);
                self.turn(node);
            }
            What::Bytes { node, from, connection, bytes } => {
                let Some(id) = self.standing(node, from, connection) else { return };
                self.receive(node, from, &id, &bytes);
                self.turn(node);
            }
        }
    }

    /// The peer at the other end, if it is still that connection.
    fn standing(&self, node: usize, peer: usize, connection: ConnectionId) -> Option<PeerId> {
        let end = self.nodes.get(&node)?.links.get(&peer)?;
        (end.connection == connection).then(|| self.nodes.get(&peer).map(|n| n.peer))?
    }

    fn receive(&mut self, number: usize, from: usize, id: &PeerId, mut bytes: &[u8]) {
        let now = self.start + self.now;
        let conduct = self.nodes.get(&number).map(|node| node.conduct);
        let censored = match conduct {
            Some(Conduct::Censor(author)) => self.nodes.get(&author).map(|node| node.peer.to_bytes()),
            _ => None,
        };
        let Some(node) = self.nodes.get_mut(&number) else { return };
        let Some(end) = node.links.get_mut(&from) else { return };
        loop {
            let mut rpc: Rpc = match end.framer.next(&mut bytes) {
                Ok(Some(Frame::Rpc(frame))) => match decode(&frame, &node.framer_limits) {
                    Ok(rpc) => rpc,
                    Err(e) => return self.broken.push(format!("{number} cannot read {from}'s RPC: {e}")),
                },
                Ok(Some(other)) => {
                    return self.broken.push(format!("{number} skipped a frame of {from}: {other:?}"));
                }
                Ok(None) => return,
                Err(e) => return self.broken.push(format!("{number} cannot frame what {from} sends: {e}")),
            };
            match node.conduct {
                Conduct::Honest => self.copies += rpc.publish.len() as u64,
                Conduct::Silent => rpc.publish.clear(),
                Conduct::Censor(_) => rpc.publish.retain(|m| m.from() != censored.as_deref()),
            }
            node.core.received(id, rpc, now);
        }
    }

    /// Carries out what the core of a node wants done, checks its signatures (all of which hold), and plans its tick.
    fn turn(&mut self, number: usize) {
        let now = self.start + self.now;
        loop {
            let Some(node) = self.nodes.get_mut(&number) else { return };
            if let Some(batch) = node.core.unverified(64) {
                let holds = vec![true; batch.messages.len()];
                node.core.verified(batch.ticket, &holds, now);
                continue;
            }
            let Some(action) = node.core.next_action() else { break };
            self.act(number, action);
        }
        let Some(node) = self.nodes.get_mut(&number) else { return };
        let due = node.core.next_deadline().saturating_duration_since(self.start).max(self.now);
        if due < node.tick {
            node.tick = due;
            self.schedule(due, What::Tick(number));
        }
    }

    fn act(&mut self, number: usize, action: Action) {
        match action {
            Action::Carry { peer, connection } => {
                let Some(other) = self.numbers.get(&peer).copied() else { return };
                let at = self.now + self.latency(number, other) * 2;
                self.schedule(at, What::Opened { node: number, peer: other, connection });
            }
            Action::Start { peer, .. } => {
                let Some(other) = self.numbers.get(&peer).copied() else { return };
                if let Some(end) = self.nodes.get_mut(&number).and_then(|n| n.links.get_mut(&other)) {
                    end.open = true;
                }
                self.flush(number, other);
            }
            Action::Flush { peer } => {
                let Some(other) = self.numbers.get(&peer).copied() else { return };
                if self.setup.fault == Some(Fault::LostWakeUp) && self.rng.u32(..100) == 0 {
                    // Nobody is woken until somebody else is: and then never again on this link.
                    if let Some(end) = self.nodes.get_mut(&number).and_then(|n| n.links.get_mut(&other)) {
                        end.open = false;
                    }
                    return;
                }
                self.flush(number, other);
            }
            Action::Release { peer, .. } => {
                let Some(other) = self.numbers.get(&peer).copied() else { return };
                if let Some(end) = self.nodes.get_mut(&number).and_then(|n| n.links.get_mut(&other)) {
                    end.open = false;
                }
            }
            Action::Report(event) => self.note(number, event),
            Action::KeepAlive { .. } | Action::Connect { .. } => {}
        }
    }

    fn note(&mut self, number: usize, event: Event) {
        if self.setup.log {
            let at = self.now.as_micros();
            let _ = match &event {
                Event::Message { message, .. } => {
                    writeln!(self.log, "{at} {number} message {:?}", message.data.get(..8))
                }
                Event::Joined { peer, .. } => {
                    writeln!(self.log, "{at} {number} joined {}", self.numbers[peer])
                }
                Event::Left { peer, .. } => writeln!(self.log, "{at} {number} left {}", self.numbers[peer]),
                _ => Ok(()),
            };
        }
        let Event::Message { message, .. } = event else { return };
        let Some(bytes) = message.data.get(..8).and_then(|b| b.try_into().ok()) else { return };
        let mut times = 1;
        if self.setup.fault == Some(Fault::DeliveredTwice) && self.rng.u32(..1000) == 0 {
            times = 2;
        }
        let Some(life) = self.nodes.get(&number).map(|node| node.life) else { return };
        for _ in 0..times {
            let message = u64::from_le_bytes(bytes);
            let now = self.now;
            let Some(published) = self.published.get_mut(&message) else {
                self.broken.push(format!("{number} delivered message {message}, which nobody published"));
                continue;
            };
            published.delivered.entry(number).or_insert(now);
            if !published.lives.insert(life) {
                self.broken.push(format!("{number} delivered message {message} twice"));
            }
        }
    }

    /// Sends what waits in the outbox of `number` for `other`.
    fn flush(&mut self, number: usize, other: usize) {
        let latency = self.latency(number, other);
        let Some(peer) = self.nodes.get(&other).map(|n| n.peer) else { return };
        let Some(node) = self.nodes.get_mut(&number) else { return };
        let Some(end) = node.links.get_mut(&other).filter(|end| end.open) else { return };
        let Some(outbox) = node.core.outbox(&peer) else { return };
        outbox.wake();
        self.scratch.clear();
        let mut arrival = self.now + latency;
        if self.setup.loss > 0.0 && self.rng.f64() < self.setup.loss {
            arrival += latency * 3 + Duration::from_millis(25);
        }
        loop {
            let before = self.scratch.len();
            if !outbox.next_frame(&mut self.scratch) {
                break;
            }
            if self.setup.fault == Some(Fault::ForgottenPrune) && self.rng.u32(..4) == 0 {
                let mut framer = Framer::new(node.framer_limits.frame);
                let mut frame = &self.scratch[before..];
                if let Ok(Some(Frame::Rpc(frame))) = framer.next(&mut frame)
                    && decode(&frame, &node.framer_limits).is_ok_and(|rpc| !rpc.control.prune.is_empty())
                {
                    self.scratch.truncate(before);
                }
            }
        }
        if self.scratch.is_empty() {
            return;
        }
        arrival = arrival.max(end.last);
        end.last = arrival;
        let bytes = Rc::from(self.scratch.as_slice());
        let connection = end.connection;
        self.schedule(arrival, What::Bytes { node: other, from: number, connection, bytes });
    }

    /// Of a pair, the same in both directions and for the whole run.
    fn latency(&self, a: usize, b: usize) -> Duration {
        let pair = (a.min(b) as u64) << 32 | a.max(b) as u64;
        let share = fastrand::Rng::with_seed(pair ^ self.setup.seed.rotate_left(17)).f64();
        let (least, most) = self.setup.latency;
        least + (most - least).mul_f64(share)
    }

    /// What holds whenever nothing has happened for a while: a mesh is seen alike from both ends, and nothing is kept
    /// above its bounds.
    pub(crate) fn check_settled(&mut self) {
        let mut found = Vec::new();
        for (number, node) in &self.nodes {
            let mesh: BTreeSet<usize> = node.core.mesh(&self.topic).iter().map(|p| self.numbers[p]).collect();
            for other in mesh {
                let Some(there) = self.nodes.get(&other) else {
                    found.push(format!("{number} has {other} in its mesh, which is gone"));
                    continue;
                };
                if !there.core.mesh(&self.topic).contains(&node.peer) {
                    found.push(format!("{number} has {other} in its mesh, and {other} has not {number}"));
                }
            }
            let (kept, config) = (node.core.kept(), &self.setup.config);
            if kept.seen > config.duplicate_cache_ids || kept.history_bytes > config.history_bytes {
                found.push(format!("{number} keeps more than its bounds: {kept:?}"));
            }
        }
        self.broken.append(&mut found);
    }

    /// Which of `messages` did not reach which of `nodes`.
    pub(crate) fn missing(&self, messages: &[u64], nodes: impl Fn(usize) -> bool) -> Vec<(u64, usize)> {
        let honest = |(number, node): (&usize, &Node)| (node.conduct == Conduct::Honest).then_some(*number);
        let there: Vec<usize> = self.nodes.iter().filter_map(honest).filter(|n| nodes(*n)).collect();
        let lacks = |m: &u64| {
            let message = &self.published[m];
            there
                .iter()
                .filter(|n| **n != message.by && !message.delivered.contains_key(n))
                .map(|n| (*m, *n))
                .collect::<Vec<_>>()
        };
        messages.iter().flat_map(lacks).collect()
    }
}
