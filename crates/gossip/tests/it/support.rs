//! Swarms of either engine, driven together in one task.

use std::{
    collections::BTreeSet,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, executor::block_on};
use futures_timer::Delay;
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, MemoryTransport},
        upgrade::Version,
    },
    gossipsub,
    identity::Keypair,
    noise,
    swarm::{
        Config as SwarmConfig, ConnectionId, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    yamux,
};
use smidge_gossip::{Authenticity, Author, Behaviour, Config, Event, PeerKind, Topic};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a node saw.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) messages: Vec<(String, Vec<u8>)>,
    pub(crate) subscriptions: BTreeSet<(PeerId, String)>,
    pub(crate) connections: Vec<(PeerId, ConnectionId)>,
    pub(crate) events: Vec<Event>,
}

impl Log {
    pub(crate) fn has(&self, data: &[u8]) -> bool {
        self.messages.iter().any(|(_, d)| d == data)
    }

    pub(crate) fn count(&self, data: &[u8]) -> usize {
        self.messages.iter().filter(|(_, d)| d == data).count()
    }
}

pub(crate) enum Engine {
    Ours(Box<Swarm<Behaviour>>),
    Stock(Box<Swarm<gossipsub::Behaviour>>),
}

pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) peer: PeerId,
    pub(crate) address: Multiaddr,
    pub(crate) log: Log,
}

macro_rules! swarm {
    ($node:expr, $swarm:ident => $do:expr) => {
        match &mut $node.engine {
            Engine::Ours($swarm) => $do,
            Engine::Stock($swarm) => $do,
        }
    };
}

fn transport(key: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    MemoryTransport::default()
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed()
}

fn swarm_of<B: NetworkBehaviour>(key: &Keypair, behaviour: B) -> (Swarm<B>, Multiaddr) {
    let config = SwarmConfig::without_executor().with_idle_connection_timeout(Duration::from_secs(60));
    let mut swarm = Swarm::new(transport(key), behaviour, key.public().to_peer_id(), config);
    let address: Multiaddr = format!("/memory/{}", fastrand::u64(1..)).parse().unwrap();
    swarm.listen_on(address.clone()).unwrap();
    (swarm, address)
}

/// Heartbeats as fast as tests want them.
pub(crate) fn quick() -> Config {
    let mut config = Config::default();
    config.heartbeat_interval = Duration::from_millis(200);
    config
}

pub(crate) fn quick_stock() -> gossipsub::ConfigBuilder {
    let mut config = gossipsub::ConfigBuilder::default();
    config.heartbeat_interval(Duration::from_millis(200)).heartbeat_initial_delay(Duration::from_millis(100));
    config
}

pub(crate) fn ours(config: Config) -> Node {
    let key = Keypair::generate_ed25519();
    let author = match config.validation {
        smidge_gossip::Validation::Anonymous => Authenticity::Anonymous,
        _ => Authenticity::Signed(key.clone()),
    };
    let peer = key.public().to_peer_id();
    let (swarm, address) = swarm_of(&key, Behaviour::new(config, peer, Author::new(author, 1)).unwrap());
    Node { engine: Engine::Ours(Box::new(swarm)), peer, address, log: Log::default() }
}

pub(crate) fn stock(config: &gossipsub::ConfigBuilder) -> Node {
    let gossipsub::MaxCountSubscriptionFilter {
        max_subscribed_topics, max_subscriptions_per_request, ..
    } = gossipsub::MaxCountSubscriptionFilter::<gossipsub::AllowAllSubscriptionFilter>::default();
    stock_with(config, max_subscribed_topics, max_subscriptions_per_request)
}

/// Takes no more topics of a peer, and no RPC with more subscriptions.
pub(crate) fn stock_with(
    config: &gossipsub::ConfigBuilder,
    max_subscribed_topics: usize,
    max_subscriptions_per_request: usize,
) -> Node {
    let key = Keypair::generate_ed25519();
    let config = config.build().unwrap();
    let author = match config.validation_mode() {
        gossipsub::ValidationMode::Anonymous => gossipsub::MessageAuthenticity::Anonymous,
        _ => gossipsub::MessageAuthenticity::Signed(key.clone()),
    };
    let filter = gossipsub::MaxCountSubscriptionFilter {
        filter: gossipsub::AllowAllSubscriptionFilter {},
        max_subscribed_topics,
        max_subscriptions_per_request,
    };
    let behaviour = gossipsub::Behaviour::new_with_subscription_filter(author, config, filter);
    let (swarm, address) = swarm_of(&key, behaviour.unwrap());
    let peer = key.public().to_peer_id();
    Node { engine: Engine::Stock(Box::new(swarm)), peer, address, log: Log::default() }
}

impl Node {
    pub(crate) fn subscribe(&mut self, topic: &str) {
        match &mut self.engine {
            Engine::Ours(swarm) => assert!(swarm.behaviour_mut().subscribe(&Topic::from(topic))),
            Engine::Stock(swarm) => {
                assert!(swarm.behaviour_mut().subscribe(&gossipsub::IdentTopic::new(topic)).unwrap());
            }
        }
    }

    pub(crate) fn unsubscribe(&mut self, topic: &str) {
        match &mut self.engine {
            Engine::Ours(swarm) => assert!(swarm.behaviour_mut().unsubscribe(&Topic::from(topic))),
            Engine::Stock(swarm) => {
                assert!(swarm.behaviour_mut().unsubscribe(&gossipsub::IdentTopic::new(topic)));
            }
        }
    }

    /// How many peers it was handed to; for a stock node 1 if it was.
    pub(crate) fn publish(&mut self, topic: &str, data: &[u8]) -> Result<usize, String> {
        match &mut self.engine {
            Engine::Ours(swarm) => {
                let receipt = swarm.behaviour_mut().publish(&Topic::from(topic), data);
                receipt.map(|receipt| receipt.peers).map_err(|e| e.to_string())
            }
            Engine::Stock(swarm) => {
                let id = swarm.behaviour_mut().publish(gossipsub::IdentTopic::new(topic), data);
                id.map(|_| 1).map_err(|e| e.to_string())
            }
        }
    }

    pub(crate) fn dial(&mut self, peer: PeerId, address: &Multiaddr) {
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(vec![address.clone()])
            .allocate_new_port()
            .build();
        swarm!(self, swarm => swarm.dial(opts).unwrap());
    }

    pub(crate) fn close(&mut self, connection: ConnectionId) {
        assert!(swarm!(self, swarm => swarm.close_connection(connection)));
    }

    pub(crate) fn mesh(&self, topic: &str) -> usize {
        match &self.engine {
            Engine::Ours(swarm) => swarm.behaviour().core().mesh(&Topic::from(topic)).len(),
            Engine::Stock(swarm) => {
                swarm.behaviour().mesh_peers(&gossipsub::IdentTopic::new(topic).hash()).count()
            }
        }
    }

    pub(crate) fn follows(&self, peer: &PeerId) -> usize {
        match &self.engine {
            Engine::Ours(swarm) => swarm.behaviour().core().topics_of(peer).len(),
            Engine::Stock(swarm) => swarm
                .behaviour()
                .all_peers()
                .filter(|(p, _)| *p == peer)
                .map(|(_, topics)| topics.len())
                .sum(),
        }
    }

    pub(crate) fn kind(&self, peer: &PeerId) -> Option<PeerKind> {
        let Engine::Ours(swarm) = &self.engine else { panic!("a stock node") };
        swarm.behaviour().core().link(peer)?.kind
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        match &mut self.engine {
            Engine::Ours(swarm) => {
                while let Poll::Ready(Some(event)) = Pin::new(&mut **swarm).poll_next(cx) {
                    any = true;
                    match event {
                        SwarmEvent::Behaviour(event) => {
                            match &event {
                                Event::Message { message, .. } => {
                                    self.log
                                        .messages
                                        .push((message.topic.to_string(), message.data.to_vec()));
                                }
                                Event::Subscribed { peer, topic } => {
                                    self.log.subscriptions.insert((*peer, topic.to_string()));
                                }
                                _ => {}
                            }
                            self.log.events.push(event);
                        }
                        event => note_connection(&mut self.log, &event),
                    }
                }
            }
            Engine::Stock(swarm) => {
                while let Poll::Ready(Some(event)) = Pin::new(&mut **swarm).poll_next(cx) {
                    any = true;
                    match event {
                        SwarmEvent::Behaviour(gossipsub::Event::Message { message, .. }) => {
                            self.log.messages.push((message.topic.to_string(), message.data));
                        }
                        SwarmEvent::Behaviour(gossipsub::Event::Subscribed { peer_id, topic, .. }) => {
                            self.log.subscriptions.insert((peer_id, topic.to_string()));
                        }
                        event => note_connection(&mut self.log, &event),
                    }
                }
            }
        }
        any
    }
}

fn note_connection<E>(log: &mut Log, event: &SwarmEvent<E>) {
    match event {
        SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
            log.connections.push((*peer_id, *connection_id));
        }
        SwarmEvent::ConnectionClosed { connection_id, .. } => {
            log.connections.retain(|(_, id)| id != connection_id);
        }
        _ => {}
    }
}

/// Drives all nodes until `done`, which may do something of its own; panics with `what` if that takes too long.
pub(crate) fn until(nodes: &mut [Node], what: &str, mut done: impl FnMut(&mut [Node]) -> bool) {
    let mut patience = Delay::new(PATIENCE);
    let mut pause = Delay::new(Duration::from_millis(20));
    block_on(poll_fn(|cx| {
        loop {
            let mut any = false;
            for node in nodes.iter_mut() {
                any |= node.poll(cx);
            }
            if done(nodes) {
                return Poll::Ready(());
            }
            assert!(Pin::new(&mut patience).poll(cx).is_pending(), "waited {PATIENCE:?} in vain for {what}");
            // Conditions that no event announces are looked at now and then.
            if Pin::new(&mut pause).poll(cx).is_ready() {
                pause.reset(Duration::from_millis(20));
                continue;
            }
            if !any {
                return Poll::Pending;
            }
        }
    }));
}

/// Each node dials those before it.
pub(crate) fn join(nodes: &mut [Node]) {
    let known: Vec<_> = nodes.iter().map(|node| (node.peer, node.address.clone())).collect();
    for (n, node) in nodes.iter_mut().enumerate() {
        for (peer, address) in &known[..n] {
            node.dial(*peer, address);
        }
    }
    let n = nodes.len();
    until(nodes, "connections among all", |nodes| {
        nodes.iter().all(|node| node.log.connections.len() >= n - 1)
    });
}

/// All follow `topic`, and know of each other.
pub(crate) fn follow(nodes: &mut [Node], topic: &str) {
    nodes.iter_mut().for_each(|node| node.subscribe(topic));
    let n = nodes.len();
    until(nodes, "subscriptions of all", |nodes| {
        nodes.iter().all(|node| node.log.subscriptions.iter().filter(|(_, t)| t == topic).count() == n - 1)
    });
}

/// Node 0 publishes until it has somebody to publish to.
pub(crate) fn publish(nodes: &mut [Node], from: usize, topic: &str, data: &[u8]) {
    until(nodes, "somebody to publish to", |nodes| nodes[from].publish(topic, data).is_ok());
}
