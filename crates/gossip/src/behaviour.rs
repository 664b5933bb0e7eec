//! The core among other behaviours of a swarm: carries out what it decides.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use futures_timer::Delay;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, DialFailure, Executor, FromSwarm, NetworkBehaviour, NotifyHandler,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::{AddressChange, ConnectionClosed, ConnectionEstablished},
        dial_opts::{DialOpts, PeerCondition},
    },
};

use crate::{
    Action, Author, Config, ConfigError, Core, Event, Limits, MessageId, PublishError, Receipt, Topic,
    Verdict,
    budget::Budget,
    handler::{FromHandler, Handler, ToHandler},
    offload::{Offload, Verified},
    protocol::Protocols,
};

/// Messages whose signatures are checked together.
const BATCH: usize = 64;
/// As many wait at most for others to be checked with.
const ENOUGH: usize = 32;
/// With as many waiting, no more is taken in before they are checked: connections wait meanwhile, and so do peers.
const FULL: usize = 256;
/// The same in bytes: large messages take long to check, and would use up what may wait.
const FULL_BYTES: usize = 128 << 10;

/// Gossipsub as a behaviour of a swarm.
pub struct Behaviour {
    core: Core,
    verifier: Offload,
    protocols: Protocols,
    limits: Arc<Limits>,
    /// Bytes of frames that are not read to their end.
    partial: Budget,
    timer: Delay,
    /// When the timer fires.
    due: Instant,
    /// Something arrived since the last poll: more may be on its way, and is checked together with it.
    fresh: bool,
    now: fn() -> Instant,
}

impl Behaviour {
    /// A node that follows nothing yet. `local` is the peer id of the swarm.
    ///
    /// # Errors
    /// When the configuration contradicts itself.
    pub fn new(config: Config, local: PeerId, author: Author) -> Result<Self, ConfigError> {
        Self::with_clock(config, local, author, Instant::now)
    }

    /// As [`new`](Self::new), by another clock: that of the program's timers, where time is simulated.
    ///
    /// # Errors
    /// As there.
    pub fn with_clock(
        config: Config,
        local: PeerId,
        author: Author,
        clock: fn() -> Instant,
    ) -> Result<Self, ConfigError> {
        let now = clock();
        let protocols = Protocols::new(config.newest, config.floodsub);
        let limits = Limits::default();
        let subscriptions = limits.subscriptions.max(config.max_topics_per_peer);
        let limits = Limits { frame: config.max_frame(), subscriptions, ..limits };
        let partial = Budget::new(config.partial_frames());
        let core = Core::new(config, local, author, fastrand::Rng::new(), now)?;
        let due = core.next_deadline();
        Ok(Self {
            core,
            verifier: Offload::default(),
            protocols,
            limits: Arc::new(limits),
            partial,
            timer: Delay::new(due.saturating_duration_since(now)),
            due,
            fresh: false,
            now: clock,
        })
    }

    /// Has signatures checked in tasks of `executor`, a batch at a time: for programs that have more than one thread. A
    /// few messages are checked where they arrive all the same.
    pub fn verify_on(&mut self, executor: impl Executor + Send + 'static) {
        self.verifier.set_executor(Box::new(executor));
    }

    /// What is known: meshes, scores, peers.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The core, for what needs no time: scores, explicit and blocked peers, records. The swarm has to be polled after
    /// it.
    pub fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// Follows a topic. Whether it was not followed yet.
    pub fn subscribe(&mut self, topic: &Topic) -> bool {
        self.core.subscribe(topic, (self.now)())
    }

    /// Follows a topic no longer. Whether it was followed.
    pub fn unsubscribe(&mut self, topic: &Topic) -> bool {
        self.core.unsubscribe(topic, (self.now)())
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// When it was handed to nobody.
    pub fn publish(&mut self, topic: &Topic, data: &[u8]) -> Result<Receipt, PublishError> {
        self.core.publish(topic, data, (self.now)())
    }

    /// Publishes several messages as one bundle.
    ///
    /// # Errors
    /// When it was handed to nobody.
    pub fn publish_bundle(&mut self, topic: &Topic, messages: &[&[u8]]) -> Result<Receipt, PublishError> {
        self.core.publish_bundle(topic, messages, (self.now)())
    }

    /// The application's verdict over a message, if it waits for one.
    pub fn verdict(&mut self, id: &MessageId, verdict: Verdict) -> bool {
        self.core.verdict(id, verdict, (self.now)())
    }

    /// Where a peer can be reached, signed by itself: identify's signed peer record.
    pub fn set_record(&mut self, peer: &PeerId, envelope: Bytes) {
        self.core.set_record(peer, envelope);
    }

    fn carry_out(&mut self, action: Action) -> Option<ToSwarm<Event, ToHandler>> {
        let notify = |peer_id, connection, event| {
            Some(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event })
        };
        match action {
            Action::Report(event) => Some(ToSwarm::GenerateEvent(event)),
            Action::Flush { peer } => {
                if let Some(outbox) = self.core.outbox(&peer) {
                    outbox.wake();
                }
                None
            }
            Action::Carry { peer, connection } => {
                let outbox = self.core.outbox(&peer)?.clone();
                notify(peer, connection, ToHandler::Carry(outbox))
            }
            Action::Start { peer, connection } => notify(peer, connection, ToHandler::Start),
            Action::Release { peer, connection } => notify(peer, connection, ToHandler::Release),
            Action::KeepAlive { peer, connection, keep } => {
                notify(peer, connection, ToHandler::KeepAlive(keep))
            }
            Action::Connect { peer, addresses } => Some(ToSwarm::Dial {
                opts: DialOpts::peer_id(peer)
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .addresses(addresses)
                    .extend_addresses_through_behaviour()
                    .build(),
            }),
        }
    }

    /// Checks what waits to be checked. A signature in a batch costs less than half of one alone, so what just arrived
    /// waits for what arrives in the same turn of the swarm; whether there is more, only the next poll can tell.
    fn verify(&mut self, cx: &mut Context<'_>) -> bool {
        let waiting = self.core.kept().unverified;
        if std::mem::take(&mut self.fresh) && (1..ENOUGH).contains(&waiting) {
            cx.waker().wake_by_ref();
            return false;
        }
        let is_given = self.give_batch();
        let done = self.verifier.done(cx.waker());
        self.note_verified(done) || is_given
    }

    fn is_full(&self) -> bool {
        let kept = self.core.kept();
        kept.unverified >= FULL || kept.unverified_bytes >= FULL_BYTES
    }

    /// Gives a batch to be checked; whether there was one.
    fn give_batch(&mut self) -> bool {
        let Some(batch) = self.core.unverified(BATCH) else { return false };
        self.verifier.give(batch);
        true
    }

    fn note_verified(&mut self, done: Vec<Verified>) -> bool {
        let now = (self.now)();
        done.iter().for_each(|(ticket, holds)| self.core.verified(*ticket, holds, now));
        !done.is_empty()
    }

    /// Checks all that waits, before more is taken in.
    fn verify_all(&mut self) {
        while self.give_batch() {}
        self.verifier.finish();
        let done = self.verifier.take_done();
        self.note_verified(done);
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = self.core.next_deadline();
        if deadline != self.due {
            self.due = deadline;
            self.timer.reset(deadline.saturating_duration_since((self.now)()));
        }
        if Pin::new(&mut self.timer).poll(cx).is_pending() {
            return false;
        }
        // The timer's clock and ours may differ by a little: what is due by either is done.
        self.core.tick((self.now)().max(self.due));
        self.due = self.core.next_deadline();
        self.timer.reset(self.due.saturating_duration_since((self.now)()));
        let kept = self.core.kept();
        if kept.history == 0 && kept.unverified == 0 {
            self.verifier.rest();
        }
        true
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.protocols.clone(), self.limits.clone(), self.partial.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.protocols.clone(), self.limits.clone(), self.partial.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                let address = endpoint.get_remote_address();
                self.core.connected(peer_id, connection_id, endpoint.is_dialer(), address);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.core.disconnected(&peer_id, connection_id, (self.now)());
            }
            FromSwarm::AddressChange(AddressChange { peer_id, connection_id, new, .. }) => {
                self.core.moved(&peer_id, connection_id, new.get_remote_address());
            }
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), .. }) => self.core.unreachable(&peer),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            FromHandler::Received(rpcs) => {
                let now = (self.now)();
                self.fresh |= rpcs.iter().any(|rpc| !rpc.publish.is_empty());
                for rpc in rpcs {
                    self.core.received(&peer, rpc, now);
                    if self.is_full() {
                        self.verify_all();
                    }
                }
            }
            FromHandler::Opened(kind) => self.core.opened(&peer, connection, kind),
            FromHandler::Broke => self.core.broke(&peer, connection),
            FromHandler::Unsupported => self.core.unsupported(&peer, connection),
            FromHandler::Heard { kind, open } => self.core.heard(&peer, connection, kind, open),
            FromHandler::TooLarge(bytes) => self.core.too_large(&peer, bytes),
            FromHandler::Malformed => self.core.malformed(&peer),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            while let Some(action) = self.core.next_action() {
                if let Some(event) = self.carry_out(action) {
                    return Poll::Ready(event);
                }
            }
            if !self.verify(cx) && !self.poll_timer(cx) {
                return Poll::Pending;
            }
        }
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour").field("kept", &self.core.kept()).finish_non_exhaustive()
    }
}
