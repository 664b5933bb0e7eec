//! Whatever happens, in whatever order: what always holds.

use std::collections::HashSet;

use libp2p::{PeerId, identity::Keypair, swarm::ConnectionId};
use proptest::prelude::*;

use super::bench::*;
use crate::{Control, IHave, MessageId, Prune, Subscription, core::*};

#[derive(Clone, Debug)]
enum Step {
    Connect(usize, bool),
    Disconnect(usize),
    Open(usize, u8),
    Break(usize),
    Said(usize, usize, bool),
    Follow(usize, bool),
    Publish(usize),
    Message { by: usize, author: usize, topic: usize, sequence: u64, forged: bool },
    Graft(usize, usize),
    Prune(usize, usize, Option<u64>),
    IHave(usize, usize, u64),
    IWant(usize, u64),
    IDontWant(usize, u64),
    Rate(usize, i8),
    Verdict(bool),
    Pass(u16),
    Verify,
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (peer, topic, author) = (0..12usize, 0..3usize, 0..3usize);
    prop_oneof![
        (peer.clone(), any::<bool>()).prop_map(|(p, o)| Step::Connect(p, o)),
        peer.clone().prop_map(Step::Disconnect),
        (peer.clone(), 0..5u8).prop_map(|(p, k)| Step::Open(p, k)),
        peer.clone().prop_map(Step::Break),
        (peer.clone(), topic.clone(), any::<bool>()).prop_map(|(p, t, s)| Step::Said(p, t, s)),
        (peer.clone(), topic.clone()).prop_map(|(p, t)| Step::Said(p, t, true)),
        (topic.clone(), prop::bool::weighted(0.8)).prop_map(|(t, s)| Step::Follow(t, s)),
        topic.clone().prop_map(Step::Publish),
        (peer.clone(), author, topic.clone(), 0..20u64, prop::bool::weighted(0.3)).prop_map(
            |(by, author, topic, sequence, forged)| Step::Message { by, author, topic, sequence, forged }
        ),
        (peer.clone(), topic.clone()).prop_map(|(p, t)| Step::Graft(p, t)),
        (peer.clone(), topic.clone(), prop::option::of(any::<u64>()))
            .prop_map(|(p, t, b)| Step::Prune(p, t, b)),
        (peer.clone(), topic, 0..20u64).prop_map(|(p, t, n)| Step::IHave(p, t, n)),
        (peer.clone(), 0..20u64).prop_map(|(p, n)| Step::IWant(p, n)),
        (peer.clone(), 0..20u64).prop_map(|(p, n)| Step::IDontWant(p, n)),
        (peer.clone(), any::<i8>()).prop_map(|(p, s)| Step::Rate(p, s)),
        any::<bool>().prop_map(Step::Verdict),
        (0..5000u16).prop_map(Step::Pass),
        Just(Step::Verify),
        peer.prop_map(Step::Read),
    ]
}

const TOPICS: [&str; 3] = ["a", "b", "c"];

struct World {
    bench: Bench,
    peers: Vec<PeerId>,
    authors: Vec<Keypair>,
    connections: Vec<(usize, ConnectionId)>,
    delivered: HashSet<MessageId>,
    waiting: Vec<MessageId>,
    genuine: HashSet<Vec<u8>>,
}

impl World {
    fn new(validate: bool) -> Self {
        let mesh = MeshParams { n: 3, n_low: 2, n_high: 5, outbound_min: 1 };
        let config = Config {
            mesh,
            validate_messages: validate,
            unverified_per_peer: 4,
            unverified: 16,
            awaiting_verdict: 8,
            max_backoffs: 16,
            peer_exchange: true,
            floodsub: true,
            duplicate_cache_ids: 1024,
            duplicate_cache_time: SECOND * 100_000,
            ..Config::default()
        };
        Self {
            bench: Bench::new(config).scored(),
            peers: (0..12).map(|_| PeerId::random()).collect(),
            authors: (0..3).map(|_| Keypair::generate_ed25519()).collect(),
            connections: Vec::new(),
            delivered: HashSet::new(),
            waiting: Vec::new(),
            genuine: HashSet::new(),
        }
    }

    fn id(&self, n: u64) -> MessageId {
        let author = self.authors[(n % 3) as usize].public().to_peer_id();
        format!("{author}{n}").as_str().into()
    }

    fn step(&mut self, step: Step) {
        let now = self.bench.now;
        match step {
            Step::Connect(p, outbound) if self.connections.iter().filter(|(q, _)| *q == p).count() < 3 => {
                let address =
                    if outbound { "/ip4/10.0.0.1/tcp/1" } else { "/ip4/10.0.0.2/tcp/1/p2p-circuit" };
                let connection = self.bench.connect(self.peers[p], outbound, address);
                self.connections.push((p, connection));
            }
            Step::Connect(..) => {}
            Step::Disconnect(p) => {
                if let Some(at) = self.connections.iter().position(|(q, _)| *q == p) {
                    let (_, connection) = self.connections.remove(at);
                    self.bench.core.disconnected(&self.peers[p], connection, now);
                }
            }
            Step::Open(p, kind) => {
                let kinds =
                    [PeerKind::Floodsub, PeerKind::V1_0, PeerKind::V1_1, PeerKind::V1_2, PeerKind::V1_3];
                let kind = kinds[kind as usize];
                for (_, connection) in self.connections.iter().filter(|(q, _)| *q == p) {
                    self.bench.core.opened(&self.peers[p], *connection, kind);
                    self.bench.core.heard(&self.peers[p], *connection, kind, true);
                }
            }
            Step::Break(p) => {
                for (_, connection) in self.connections.iter().filter(|(q, _)| *q == p) {
                    self.bench.core.broke(&self.peers[p], *connection);
                }
            }
            Step::Said(p, t, subscribe) => {
                let subscriptions = vec![Subscription { topic: topic(TOPICS[t]), subscribe }];
                self.bench.hear(self.peers[p], Rpc { subscriptions, ..Rpc::default() });
            }
            Step::Follow(t, true) => _ = self.bench.core.subscribe(&topic(TOPICS[t]), now),
            Step::Follow(t, false) => _ = self.bench.core.unsubscribe(&topic(TOPICS[t]), now),
            Step::Publish(t) => {
                if let Ok(receipt) = self.bench.core.publish(&topic(TOPICS[t]), b"ours", now) {
                    assert!(receipt.peers > 0 && receipt.peers <= self.peers.len());
                    assert!(self.delivered.insert(receipt.id), "an id of ours was given twice");
                }
            }
            Step::Message { by, author, topic, sequence, forged: lie } => {
                let payload = format!("{author} {sequence} {topic}").into_bytes();
                let message = signed(&self.authors[author], sequence, TOPICS[topic], &payload);
                self.genuine.insert(payload);
                let message = if lie { forged(&message, b"forged") } else { message };
                self.bench.message(self.peers[by], &message);
            }
            Step::Graft(p, t) => self.say(p, Control { graft: vec![topic(TOPICS[t])], ..Control::default() }),
            Step::Prune(p, t, backoff) => {
                let backoff = backoff.map(std::time::Duration::from_secs);
                let prune = Prune { topic: topic(TOPICS[t]), peers: Vec::new(), backoff };
                self.say(p, Control { prune: vec![prune], ..Control::default() });
            }
            Step::IHave(p, t, n) => {
                let ihave = vec![IHave { topic: topic(TOPICS[t]), ids: vec![self.id(n), self.id(n + 1)] }];
                self.say(p, Control { ihave, ..Control::default() });
            }
            Step::IWant(p, n) => self.say(p, Control { iwant: vec![self.id(n)], ..Control::default() }),
            Step::IDontWant(p, n) => {
                self.say(p, Control { idontwant: vec![self.id(n)], ..Control::default() });
            }
            Step::Rate(p, score) => _ = self.bench.core.set_application_score(&self.peers[p], score.into()),
            Step::Verdict(accept) => {
                if let Some(id) = self.waiting.pop() {
                    let verdict = if accept { Verdict::Accept } else { Verdict::Reject };
                    self.bench.core.verdict(&id, verdict, now);
                }
            }
            Step::Pass(milliseconds) => {
                self.bench.pass(std::time::Duration::from_millis(milliseconds.into()));
            }
            Step::Verify => self.bench.turn(),
            Step::Read(p) => drop(self.bench.sent(&self.peers[p])),
        }
    }

    fn say(&mut self, peer: usize, control: Control) {
        self.bench.hear(self.peers[peer], Rpc { control, ..Rpc::default() });
    }

    fn check(&mut self) {
        // Reports first: what was decided up to now.
        let mut now = Vec::new();
        while let Some(action) = self.bench.core.next_action() {
            if let Action::Report(event) = action {
                now.push(event);
            }
        }
        for event in std::mem::take(&mut self.bench.events).into_iter().chain(now) {
            if let Event::Message { id, message, .. } = event {
                assert!(self.genuine.contains(&message.data[..]), "a forged message was delivered");
                assert!(self.delivered.insert(id.clone()), "a message was delivered twice");
                self.waiting.push(id);
            }
        }
        let core = &self.bench.core;
        for (key, state) in
            core.topics.active().into_iter().filter_map(|key| Some((key, core.topics.get(key)?)))
        {
            assert!(state.subscribed || state.mesh.is_empty(), "a mesh of a topic that is not followed");
            for member in state.mesh.iter() {
                let peer = core.peers.get(member).expect("a mesh holds connected peers");
                assert!(
                    peer.topics.contains(key) && state.peers.contains(member),
                    "a mesh holds subscribers"
                );
                assert!(peer.meshes > 0);
            }
            assert!(state.mesh.len() <= self.peers.len());
        }
        for (key, peer) in core.peers.iter() {
            let meshes = core
                .topics
                .active()
                .iter()
                .filter(|t| core.topics.get(**t).unwrap().mesh.contains(key))
                .count();
            assert_eq!(peer.meshes, meshes);
            assert!(peer.unverified <= core.config.unverified_per_peer);
            let carried = peer.carrier.is_none_or(|c| peer.connections.iter().any(|k| k.id == c.connection));
            assert!(carried, "a closed connection carries");
            assert!(peer.carrier.is_some() || peer.connections.iter().all(|c| c.unsupported));
        }
        let kept = core.kept();
        assert!(kept.unverified <= core.config.unverified);
        assert!(kept.awaiting_verdict <= core.config.awaiting_verdict);
        assert!(kept.seen <= core.config.duplicate_cache_ids);
        assert!(core.backoffs.len() <= core.config.max_backoffs);
        assert!(core.topics.len() <= TOPICS.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_meshes_are_sound_bounds_hold_and_each_message_is_delivered_once(
        steps in prop::collection::vec(step(), 1..300),
        validate in any::<bool>(),
    ) {
        let mut world = World::new(validate);
        for step in steps {
            world.step(step);
            world.check();
        }
        world.bench.turn();
        world.check();
        // Whoever was charged for something that waits is not any more.
        for (_, peer) in world.bench.core.peers.iter() {
            prop_assert_eq!(peer.unverified, 0);
        }
    }
}
