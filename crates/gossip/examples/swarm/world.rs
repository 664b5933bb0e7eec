//! A swarm of cores in simulated time, from a seed: links with latency and loss, nodes that come, go and lie.
//!
//! Everything that a core does is real, down to the bytes of its frames; connections, time and signature checks are
//! not. The same seed gives the same run, to the byte of its log. No clock is read and nothing is random but by the seed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, identity::Keypair, swarm::ConnectionId};
use smidge_gossip::{
    Authenticity, Author, Config, Core, PeerKind, PeerScoreParams, PeerScoreThresholds, Topic,
    parts::{Fingerprinter, Framer, Limits},
};

#[path = "turns.rs"]
mod turns;

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
