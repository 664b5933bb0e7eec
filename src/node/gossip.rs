//! Gossipsub, with its meshes made visible and its receipts honest.
//!
//! gossipsub tells nobody when a peer joins or leaves a mesh, nor how many peers a publish was handed
//! to; this wrapper does both. It reads what comes in frame by frame, so that no frame costs another, says what
//! becomes of a connection's streams ([`handler`]) and sees to it that one connection of a peer carries what is
//! queued for it ([`carriers`]). What is said on the wire stays gossipsub's. What is to be done about a peer whose
//! gossip is not up, [`watch`] decides.

mod carriers;
mod frames;
mod handler;
pub(crate) mod sizes;
pub(crate) mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    gossipsub::{self, IdentTopic, MessageAcceptance, MessageId, PublishError, SubscriptionError, TopicHash},
    swarm::{
        ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
    },
};

use self::{
    carriers::{Carriers, Order},
    handler::{Command, Handler},
    watch::Change,
};
use super::forward::ask_inner_of_connections;

/// How often connections are polled for what gossipsub queued without waking them.
const NUDGE: Duration = Duration::from_secs(1);

/// What gossip tells the node.
#[derive(Debug)]
pub(crate) enum Event {
    /// gossipsub's own event.
    Gossipsub(gossipsub::Event),
    /// A peer is in our mesh of a topic from now on.
    Joined { topic: TopicHash, peer: PeerId },
    /// A peer left our mesh of a topic.
    Left { topic: TopicHash, peer: PeerId },
    /// A peer sent frames that are larger than this node reads; they were skipped. The last one had so many
    /// bytes.
    Skipped { peer: PeerId, frames: u64, bytes: u64 },
    /// Something happened to gossip's streams on a connection.
    StreamChanged { peer: PeerId, connection: ConnectionId, change: Change },
}

/// gossipsub with a bound on the topics that a peer may subscribe to.
pub(crate) type Gossipsub = gossipsub::Behaviour<
    gossipsub::IdentityTransform,
    gossipsub::MaxCountSubscriptionFilter<gossipsub::AllowAllSubscriptionFilter>,
>;

pub(crate) struct Behaviour {
    inner: Gossipsub,
    flood_publish: bool,
    mesh_n: usize,
    /// Below this score a peer is not handed our messages.
    publish_threshold: f64,
    /// The largest frame that is read.
    max_frame: usize,
    /// The meshes as last told.
    meshes: BTreeMap<TopicHash, BTreeSet<PeerId>>,
    events: VecDeque<Event>,
    carriers: Carriers,
    orders: VecDeque<(PeerId, ConnectionId, Command)>,
    /// Something was queued since connections were last nudged.
    queued: bool,
    nudged: Instant,
    own: OwnIds,
}

/// The id of the message that this node published last, for gossipsub does not tell it when nobody took the
/// message.
#[derive(Clone, Debug)]
pub(crate) struct OwnIds {
    local: PeerId,
    last: Arc<Mutex<Option<MessageId>>>,
}

impl OwnIds {
    pub(crate) fn new(local: PeerId) -> Self {
        Self { local, last: Arc::default() }
    }

    /// Takes note of the id of a message.
    pub(crate) fn note(&self, message: &gossipsub::Message, id: &MessageId) {
        if message.source.as_ref() == Some(&self.local) {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.clone());
        }
    }

    fn take(&self) -> Option<MessageId> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Behaviour {
    pub(crate) fn new(
        inner: Gossipsub,
        config: &gossipsub::Config,
        own: OwnIds,
        max_frame: usize,
        publish_threshold: f64,
    ) -> Self {
        Self {
            inner,
            flood_publish: config.flood_publish(),
            mesh_n: config.mesh_n(),
            publish_threshold,
            max_frame,
            meshes: BTreeMap::new(),
            events: VecDeque::new(),
            own,
            carriers: Carriers::default(),
            orders: VecDeque::new(),
            queued: false,
            nudged: Instant::now(),
        }
    }

    pub(crate) fn subscribe(&mut self, topic: &IdentTopic) -> Result<bool, SubscriptionError> {
        let fresh = self.inner.subscribe(topic)?;
        self.note_meshes();
        Ok(fresh)
    }

    pub(crate) fn unsubscribe(&mut self, topic: &IdentTopic) -> bool {
        let was = self.inner.unsubscribe(topic);
        self.note_meshes();
        was
    }

    /// PendingPublishes and tells to how many peers the message was handed. It is on its way to them then,
    /// never more than that.
    pub(crate) fn publish(
        &mut self,
        topic: &TopicHash,
        data: Vec<u8>,
    ) -> Result<(MessageId, usize), PublishError> {
        let handed = self.recipients(topic);
        self.queued = true;
        let published = self.inner.publish(topic.clone(), data);
        if let Err(PublishError::AllQueuesFull(_)) = published
            && let Some(id) = self.own.take()
        {
            // gossipsub would go on announcing it, and it would arrive beside the second try.
            self.inner.report_message_validation_result(&id, &self.own.local, MessageAcceptance::Ignore);
        }
        published.map(|id| (id, handed))
    }

    pub(crate) fn set_topic_params(&mut self, topic: &IdentTopic, params: gossipsub::TopicScoreParams) {
        if let Err(e) = self.inner.set_topic_params(topic.clone(), params) {
            log::debug!("topic {topic} is not scored: {e}");
        }
    }

    pub(crate) fn report(&mut self, id: &MessageId, from: &PeerId, verdict: MessageAcceptance) {
        self.queued = true;
        self.inner.report_message_validation_result(id, from, verdict);
    }

    /// Nothing goes over `connection` until it is known whether it is alive; what is queued waits meanwhile.
    pub(crate) fn hold(&mut self, peer: PeerId, connection: ConnectionId) {
        let order = self.carriers.hold(&peer, connection);
        self.order(peer, order);
    }

    /// `connection` is alive.
    pub(crate) fn release(&mut self, peer: PeerId, connection: ConnectionId) {
        let order = self.carriers.release(&peer, connection);
        self.order(peer, order);
    }

    /// What is queued for a peer goes over `connection` from now on.
    pub(crate) fn prefer(&mut self, peer: PeerId, connection: ConnectionId) {
        let orders = self.carriers.prefer(&peer, connection);
        self.order(peer, orders);
    }

    fn order(&mut self, peer: PeerId, orders: impl IntoIterator<Item = Order>) {
        let orders = orders.into_iter().map(|o| (peer, o.connection, Command::Carry(o.carry)));
        self.orders.extend(orders);
    }

    /// gossipsub wakes a connection for what it queues only while its stream stands; one whose stream broke with
    /// an empty queue would open another when something else happens to wake it.
    fn nudge(&mut self) {
        let now = Instant::now();
        if self.queued && now.saturating_duration_since(self.nudged) >= NUDGE {
            (self.queued, self.nudged) = (false, now);
            self.orders
                .extend(self.carriers.all().map(|(peer, connection)| (peer, connection, Command::Nudge)));
        }
    }

    /// Connected peers that subscribed to `topic`.
    pub(crate) fn subscribers(&self, topic: &TopicHash) -> usize {
        self.inner.all_peers().filter(|(_, topics)| topics.contains(&topic)).count()
    }

    /// Our meshes by topic.
    pub(crate) fn meshes(&self) -> &BTreeMap<TopicHash, BTreeSet<PeerId>> {
        &self.meshes
    }

    /// For each peer, those of our topics that it follows as well.
    pub(crate) fn shared_topics(&self) -> HashMap<PeerId, Vec<String>> {
        let ours = |topic: &&TopicHash| self.meshes.contains_key(*topic);
        let texts =
            |topics: Vec<&TopicHash>| topics.into_iter().filter(ours).map(ToString::to_string).collect();
        self.inner.all_peers().map(|(peer, topics)| (*peer, texts(topics))).collect()
    }

    /// What this node's own account of a peer adds to its score.
    pub(crate) fn set_own_score(&mut self, peer: &PeerId, score: f64) {
        // It is false for who is not known, or where no scores are kept.
        self.inner.set_application_score(peer, score);
    }

    pub(crate) fn score(&self, peer: &PeerId) -> Option<f64> {
        self.inner.peer_score(peer)
    }

    fn with_frames(
        &self,
        inner: <Gossipsub as NetworkBehaviour>::ConnectionHandler,
    ) -> <Self as NetworkBehaviour>::ConnectionHandler {
        Handler::new(inner, self.max_frame)
    }

    /// How many peers gossipsub hands a message to that is published now: with `flood_publish` every
    /// subscriber of good standing, else floodsub peers and as many others as the mesh wants.
    fn recipients(&self, topic: &TopicHash) -> usize {
        let candidates = self.inner.all_peers().filter(|(peer, topics)| {
            topics.contains(&topic)
                && self.inner.peer_score(peer).is_none_or(|score| score >= self.publish_threshold)
        });
        if self.flood_publish {
            return candidates.count();
        }
        let floodsub: BTreeSet<_> = self
            .inner
            .peer_protocol()
            .filter(|(_, kind)| kind.to_string() == "Floodsub")
            .map(|(peer, _)| *peer)
            .collect();
        let (flooded, meshed): (Vec<_>, Vec<_>) =
            candidates.map(|(peer, _)| *peer).partition(|peer| floodsub.contains(peer));
        let in_mesh = self.inner.mesh_peers(topic).filter(|p| meshed.contains(p)).count();
        flooded.len() + meshed.len().min(self.mesh_n.max(in_mesh))
    }

    /// Compares the meshes with what was told last. They hold a dozen peers each: comparing costs
    /// less than the signature check of one message.
    fn note_meshes(&mut self) {
        for (topic, told) in &mut self.meshes {
            if told.iter().eq(self.inner.mesh_peers(topic)) {
                continue;
            }
            let now: BTreeSet<_> = self.inner.mesh_peers(topic).copied().collect();
            let joined = now.difference(told).map(|p| Event::Joined { topic: topic.clone(), peer: *p });
            let left = told.difference(&now).map(|p| Event::Left { topic: topic.clone(), peer: *p });
            self.events.extend(joined.chain(left));
            *told = now;
        }
        // Each topic that comes or goes changes the count. With a thousand of them, the rest is not for every event.
        if self.inner.topics().size_hint().0 == self.meshes.len() {
            return;
        }
        let followed: BTreeSet<_> = self.inner.topics().cloned().collect();
        for topic in followed.iter().filter(|t| !self.meshes.contains_key(*t)).cloned().collect::<Vec<_>>() {
            let now: BTreeSet<_> = self.inner.mesh_peers(&topic).copied().collect();
            self.events.extend(now.iter().map(|p| Event::Joined { topic: topic.clone(), peer: *p }));
            self.meshes.insert(topic, now);
        }
        // A topic that was left is told once, with all its peers gone, and then dropped.
        self.meshes.retain(|topic, told| !told.is_empty() || followed.contains(topic));
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    ask_inner_of_connections!(with_frames);

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
        match event {
            FromSwarm::ConnectionEstablished(up) => {
                let order = self.carriers.connected(up.peer_id, up.connection_id);
                self.order(up.peer_id, order);
            }
            FromSwarm::ConnectionClosed(closed) => {
                let order = self.carriers.closed(&closed.peer_id, closed.connection_id);
                self.order(closed.peer_id, order);
            }
            _ => {}
        }
        // gossipsub greets a peer, with our topics, over its first connection only. One that was killed
        // and is back with the same key before its old connection was missed would never hear of them,
        // and stay mute: when the old one is lost, it is greeted again. To others that is no news.
        if let FromSwarm::ConnectionClosed(closed) = event
            && closed.remaining_established > 0
        {
            self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: closed.peer_id,
                connection_id: closed.connection_id,
                endpoint: closed.endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
        }
        self.note_meshes();
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            handler::Event::Gossipsub(event) => {
                self.inner.on_connection_handler_event(peer, connection, event);
                self.note_meshes();
            }
            handler::Event::Skipped { frames, bytes } => {
                self.events.push_back(Event::Skipped { peer, frames, bytes });
            }
            handler::Event::StreamChanged(change) => {
                self.events.push_back(Event::StreamChanged { peer, connection, change });
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(ToSwarm::GenerateEvent(event));
            }
            if let Some((peer_id, connection, event)) = self.orders.pop_front() {
                return Poll::Ready(ToSwarm::NotifyHandler {
                    peer_id,
                    handler: NotifyHandler::One(connection),
                    event,
                });
            }
            // Twice: a heartbeat sets gossipsub's timer anew without polling it (libp2p-gossipsub
            // 0.50.1), so that nothing would wake an idle node for the next one.
            for _ in 0..2 {
                if let Poll::Ready(event) = self.inner.poll(cx) {
                    return Poll::Ready(event.map_out(Event::Gossipsub).map_in(Command::Gossipsub));
                }
            }
            // The heartbeat, which is part of polling, changes meshes.
            self.note_meshes();
            self.nudge();
            if self.events.is_empty() && self.orders.is_empty() {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn an_idle_node_keeps_its_heartbeat() {
        let config = gossipsub::ConfigBuilder::default()
            .heartbeat_initial_delay(Duration::from_millis(1))
            .heartbeat_interval(Duration::from_millis(1))
            .build()
            .unwrap();
        let filter = gossipsub::MaxCountSubscriptionFilter {
            filter: gossipsub::AllowAllSubscriptionFilter {},
            max_subscribed_topics: 8,
            max_subscriptions_per_request: 8,
        };
        let authenticity = gossipsub::MessageAuthenticity::Signed(Keypair::generate_ed25519());
        let inner = Gossipsub::new_with_subscription_filter(authenticity, config.clone(), filter).unwrap();
        let mut gossip = Behaviour::new(inner, &config, OwnIds::new(PeerId::random()), 1 << 20, 0.0);

        let (woken, wakes) = mpsc::channel();
        struct Tell(mpsc::Sender<()>);
        impl futures::task::ArcWake for Tell {
            fn wake_by_ref(this: &Arc<Self>) {
                let _ = this.0.send(());
            }
        }
        let waker = futures::task::waker(Arc::new(Tell(woken)));
        for beat in 0..10 {
            assert!(gossip.poll(&mut Context::from_waker(&waker)).is_pending());
            wakes
                .recv_timeout(Duration::from_secs(10))
                .unwrap_or_else(|_| panic!("no wake-up after beat {beat}"));
        }
    }
}
