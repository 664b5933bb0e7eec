//! A core among peers that a test plays.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, identity::Keypair, swarm::ConnectionId};

use crate::{
    Authenticity, Author, Control, Frame, Framer, IHave, Limits, PeerScoreParams, Prune, Rpc, Subscription,
    Verifier, WireMessage, core::*, decode,
};

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) struct Bench {
    pub(super) core: Core,
    pub(super) now: Instant,
    pub(super) local: PeerId,
    /// What the core reported and nobody looked at yet.
    pub(super) events: Vec<Event>,
    /// The same of its other actions.
    pub(super) actions: Vec<Action>,
    /// Signatures checked.
    pub(super) verified: usize,
    verifier: Verifier,
    connections: usize,
    carriers: HashMap<PeerId, ConnectionId>,
}

pub(super) fn topic(name: &str) -> Topic {
    Topic::from(name)
}

pub(super) fn signed(key: &Keypair, sequence: u64, topic: &str, data: &[u8]) -> WireMessage {
    Author::new(Authenticity::Signed(key.clone()), sequence)
        .compose(&Topic::from(topic), data, &mut fastrand::Rng::with_seed(1))
        .unwrap()
}

/// The same message with another payload under the old signature.
pub(super) fn forged(message: &WireMessage, data: &[u8]) -> WireMessage {
    WireMessage::new(&crate::MessageParts { data: Some(data), ..message.parts() })
}

impl Bench {
    pub(super) fn new(mut config: Config) -> Self {
        if config.stall_time == Config::default().stall_time {
            // Peers here read when the test looks.
            config.stall_time = Duration::MAX;
        }
        let key = Keypair::generate_ed25519();
        let (local, now) = (key.public().to_peer_id(), Instant::now());
        let author = Author::new(Authenticity::Signed(key), 1000);
        let core = Core::new(config, local, author, fastrand::Rng::with_seed(7), now).unwrap();
        Self {
            core,
            now,
            local,
            events: Vec::new(),
            actions: Vec::new(),
            verified: 0,
            verifier: Verifier::default(),
            connections: 0,
            carriers: HashMap::new(),
        }
    }

    /// Scores that come from the application alone, if from anything.
    pub(super) fn scored(mut self) -> Self {
        let params = PeerScoreParams { app_specific_weight: 1.0, ..Default::default() };
        self.core.score_peers(params, PeerScoreThresholds::default(), self.now).unwrap();
        self
    }

    pub(super) fn following(mut self, name: &str) -> Self {
        self.core.subscribe(&topic(name), self.now);
        self
    }

    pub(super) fn connect(&mut self, peer: PeerId, outbound: bool, address: &str) -> ConnectionId {
        self.connections += 1;
        let connection = ConnectionId::new_unchecked(self.connections);
        self.core.connected(peer, connection, outbound, &address.parse::<Multiaddr>().unwrap());
        connection
    }

    /// A peer whose substreams stand, and that follows `topics`.
    pub(super) fn peer(&mut self, kind: PeerKind, outbound: bool, topics: &[&str]) -> PeerId {
        let peer = PeerId::random();
        let connection =
            self.connect(peer, outbound, &format!("/ip4/10.0.0.{}/udp/1/quic-v1", self.connections));
        self.carriers.insert(peer, connection);
        self.core.opened(&peer, connection, kind);
        self.core.heard(&peer, connection, kind, true);
        self.follow(peer, topics);
        self.turn();
        peer
    }

    pub(super) fn connection_of(&self, peer: &PeerId) -> ConnectionId {
        self.carriers[peer]
    }

    pub(super) fn peers(&mut self, n: usize, topics: &[&str]) -> Vec<PeerId> {
        (0..n).map(|_| self.peer(PeerKind::V1_3, false, topics)).collect()
    }

    pub(super) fn follow(&mut self, peer: PeerId, topics: &[&str]) {
        let subscriptions =
            topics.iter().map(|name| Subscription { topic: topic(name), subscribe: true }).collect();
        self.hear(peer, Rpc { subscriptions, ..Rpc::default() });
    }

    pub(super) fn hear(&mut self, peer: PeerId, rpc: Rpc) {
        self.core.received(&peer, rpc, self.now);
    }

    pub(super) fn control(&mut self, peer: PeerId, control: Control) {
        self.hear(peer, Rpc { control, ..Rpc::default() });
        self.turn();
    }

    pub(super) fn graft(&mut self, peer: PeerId, name: &str) {
        self.control(peer, Control { graft: vec![topic(name)], ..Control::default() });
    }

    pub(super) fn prune(&mut self, peer: PeerId, prune: Prune) {
        self.control(peer, Control { prune: vec![prune], ..Control::default() });
    }

    pub(super) fn ihave(&mut self, peer: PeerId, name: &str, ids: Vec<crate::MessageId>) {
        self.control(peer, Control { ihave: vec![IHave { topic: topic(name), ids }], ..Control::default() });
    }

    pub(super) fn message(&mut self, peer: PeerId, message: &WireMessage) {
        self.hear(peer, Rpc { publish: vec![message.clone()], ..Rpc::default() });
    }

    /// Checks signatures and takes what the core wants done.
    pub(super) fn turn(&mut self) {
        while let Some(batch) = self.core.unverified(64) {
            self.verified += batch.messages.len();
            let holds = self.verifier.verify_batch(&batch.messages);
            self.core.verified(batch.ticket, &holds, self.now);
        }
        while let Some(action) = self.core.next_action() {
            match action {
                Action::Report(event) => self.events.push(event),
                action => self.actions.push(action),
            }
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.core.next_deadline() <= end {
            self.now = self.now.max(self.core.next_deadline());
            self.core.tick(self.now);
            self.turn();
        }
        self.now = end;
    }

    pub(super) fn heartbeat(&mut self) {
        self.pass(SECOND);
    }

    /// What the peer was sent since the last time.
    pub(super) fn sent(&mut self, peer: &PeerId) -> Vec<Rpc> {
        self.turn();
        let Some(outbox) = self.core.outbox(peer) else { return Vec::new() };
        let mut bytes = Vec::new();
        while outbox.next_frame(&mut bytes) {}
        frames(&bytes)
    }

    /// All of what the peer was sent since the last time, as if it were one RPC.
    pub(super) fn merged(&mut self, peer: &PeerId) -> Rpc {
        let mut all = Rpc::default();
        for rpc in self.sent(peer) {
            all.subscriptions.extend(rpc.subscriptions);
            all.publish.extend(rpc.publish);
            all.control.ihave.extend(rpc.control.ihave);
            all.control.iwant.extend(rpc.control.iwant);
            all.control.graft.extend(rpc.control.graft);
            all.control.prune.extend(rpc.control.prune);
            all.control.idontwant.extend(rpc.control.idontwant);
            all.control.choke.extend(rpc.control.choke);
            all.control.extensions = all.control.extensions.or(rpc.control.extensions);
        }
        all
    }

    pub(super) fn delivered(&mut self) -> Vec<Vec<u8>> {
        self.turn();
        let mut delivered = Vec::new();
        self.events.retain(|event| match event {
            Event::Message { message, .. } => {
                delivered.push(message.data.to_vec());
                false
            }
            _ => true,
        });
        delivered
    }

    pub(super) fn in_mesh(&self, name: &str, peer: &PeerId) -> bool {
        self.core.mesh(&topic(name)).contains(peer)
    }

    pub(super) fn rate(&mut self, peer: &PeerId, score: f64) {
        assert!(self.core.set_application_score(peer, score));
    }
}

pub(super) fn frames(mut bytes: &[u8]) -> Vec<Rpc> {
    let mut framer = Framer::new(1 << 20);
    let mut rpcs = Vec::new();
    while let Some(frame) = framer.next(&mut bytes).unwrap() {
        let Frame::Rpc(frame) = frame else { panic!("{frame:?}") };
        rpcs.push(decode(&frame, &Limits { frame: 1 << 20, ..Limits::default() }).unwrap());
    }
    rpcs
}
