//! A world around one reconciler: name servers, replicas and links as values.

use super::*;

/// What will happen, and when.
pub(super) enum Due {
    Answer(Target, Answer),
    Reached(Multiaddr, PeerId),
    Failed(Multiaddr, DialFault),
    Lost(ConnectionId),
}

/// A world around one reconciler.
pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) reconciler: Reconciler,
    /// What name servers say; a missing name is a failure of theirs.
    pub(super) names: BTreeMap<Target, Vec<Multiaddr>>,
    /// What they say instead, where that is neither records nor a failure.
    pub(super) answers: BTreeMap<Target, Answer>,
    /// Which peer answers where.
    pub(super) replicas: BTreeMap<Multiaddr, PeerId>,
    /// How long it takes until a dial of an address has an outcome, where that is not immediate.
    pub(super) slow: BTreeMap<Multiaddr, Duration>,
    /// Addresses at which this node itself answers without knowing.
    pub(super) mirrors: BTreeSet<Multiaddr>,
    pub(super) connections: BTreeMap<ConnectionId, (Multiaddr, PeerId)>,
    pub(super) due: Vec<(Instant, Due)>,
    pub(super) dials: Vec<(Duration, Multiaddr)>,
    pub(super) lookups: Vec<Duration>,
    pub(super) notices: Vec<(Duration, Notice)>,
    pub(super) forgotten: Vec<(PeerId, Option<Multiaddr>)>,
    pub(super) dialing: usize,
    pub(super) dialing_peak: usize,
    pub(super) next_link: usize,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self::with(seed, Policy::default())
    }

    pub(super) fn with(seed: u64, policy: Policy) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            now,
            reconciler: Reconciler::new(policy, fastrand::Rng::with_seed(seed)),
            names: BTreeMap::new(),
            answers: BTreeMap::new(),
            replicas: BTreeMap::new(),
            slow: BTreeMap::new(),
            mirrors: BTreeSet::new(),
            connections: BTreeMap::new(),
            due: Vec::new(),
            dials: Vec::new(),
            lookups: Vec::new(),
            notices: Vec::new(),
            forgotten: Vec::new(),
            dialing: 0,
            dialing_peak: 0,
            next_link: 0,
        }
    }

    pub(super) fn watch(&mut self, target: &Target) {
        self.reconciler.add_target(target.clone(), self.now);
    }

    /// A replica with a new key comes up at `n`.
    pub(super) fn start_replica(&mut self, n: u32) -> PeerId {
        let peer = PeerId::random();
        self.replicas.insert(at(n), peer);
        peer
    }

    /// The replica at `n` dies; its connection is noticed to be dead `after` that.
    pub(super) fn kill(&mut self, n: u32, after: Duration) {
        self.replicas.remove(&at(n));
        let dead: Vec<_> =
            self.connections.iter().filter(|(_, (a, _))| *a == at(n)).map(|(l, _)| *l).collect();
        for connection in dead {
            self.due.push((self.now + after, Due::Lost(connection)));
        }
    }

    pub(super) fn connect(&mut self, address: Multiaddr, peer: PeerId) {
        self.next_link += 1;
        let connection = ConnectionId::new_unchecked(self.next_link);
        self.connections.insert(connection, (address.clone(), peer));
        self.reconciler.on_connected(connection, peer, address, self.now);
    }

    pub(super) fn carry_out(&mut self) {
        while let Some(action) = self.reconciler.poll(self.now) {
            let soon = self.now + MS(2);
            match action {
                Action::Lookup(target) => {
                    self.lookups.push(self.now - self.start);
                    let answer = match self.names.get(&target) {
                        _ if self.answers.contains_key(&target) => self.answers[&target].clone(),
                        Some(records) if records.is_empty() => Answer::Nothing("no such name".into()),
                        Some(records) => Answer::Records(records.clone()),
                        None => Answer::Failed("server failure".into()),
                    };
                    self.due.push((soon, Due::Answer(target, answer)));
                }
                Action::Dial(address, _) => {
                    self.dials.push((self.now - self.start, address.clone()));
                    self.dialing += 1;
                    self.dialing_peak = self.dialing_peak.max(self.dialing);
                    let soon = self.slow.get(&address).map_or(soon, |late| self.now + *late);
                    let due = if self.mirrors.contains(&address) {
                        Due::Failed(address, DialFault::OwnPeer)
                    } else if let Some(peer) = self.replicas.get(&address) {
                        Due::Reached(address, *peer)
                    } else {
                        Due::Failed(address, DialFault::Failed("refused".into()))
                    };
                    self.due.push((soon, due));
                }
                Action::Forget { peer, address } => self.forgotten.push((peer, address)),
            }
        }
        while let Some(notice) = self.reconciler.next_notice() {
            self.notices.push((self.now - self.start, notice));
        }
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.carry_out();
            let due = self.due.iter().map(|(at, _)| *at).min();
            let Some(next) = due.into_iter().chain(self.reconciler.deadline()).min().filter(|at| *at <= end)
            else {
                break;
            };
            assert!(next >= self.now || due.is_none_or(|d| d >= self.now), "time runs forward");
            self.now = self.now.max(next);
            let now = self.now;
            for (_, event) in self.due.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
                match event {
                    Due::Answer(target, answer) => self.reconciler.on_lookup(&target, answer, now),
                    Due::Reached(address, peer) => {
                        self.dialing -= 1;
                        self.connect(address, peer);
                    }
                    Due::Failed(address, fault) => {
                        self.dialing -= 1;
                        self.reconciler.on_dial_failed(&address, fault, now);
                    }
                    Due::Lost(connection) => {
                        self.connections.remove(&connection);
                        self.reconciler.on_disconnected(connection, now);
                    }
                }
            }
        }
        self.now = end;
    }

    pub(super) fn states(&self) -> BTreeMap<Multiaddr, (RecordState, Option<PeerId>)> {
        let names = self.reconciler.status(self.now);
        names.into_iter().flat_map(|n| n.records).map(|r| (r.address, (r.state, r.peer))).collect()
    }

    pub(super) fn is_connected(&self, n: u32) -> bool {
        let replica = self.replicas.get(&at(n)).copied();
        replica.is_some() && self.states().get(&at(n)) == Some(&(RecordState::Connected, replica))
    }

    pub(super) fn dials_of(&self, n: u32) -> Vec<Duration> {
        self.dials.iter().filter(|(_, a)| *a == at(n)).map(|(t, _)| *t).collect()
    }
}

pub(super) fn at(n: u32) -> Multiaddr {
    let ip = Ipv4Addr::from(0x0a00_0b00 + n);
    Multiaddr::from(ip).with(Protocol::Udp(4001)).with(Protocol::QuicV1)
}

pub(super) fn name(name: &str) -> Target {
    format!("{name}:4001").parse().unwrap()
}

pub(super) fn records(of: impl IntoIterator<Item = u32>) -> Vec<Multiaddr> {
    of.into_iter().map(at).collect()
}
