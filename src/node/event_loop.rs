//! The one loop that owns the swarm.
//!
//! Its arms are single calls; no handler blocks or waits for the network. What takes time is noted
//! (waiting publishes, queries, pings) and answered when the swarm reports.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use async_broadcast::{InactiveReceiver, Sender};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, poll_fn},
    select,
};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    gossipsub::{self, IdentTopic, MessageAcceptance, PublishError, TopicHash},
    identify, kad,
    request_response::{self, OutboundRequestId},
    swarm::{ConnectionId, DialError, SwarmEvent},
};

use super::{
    Validator, Verdict,
    behaviour::{Behaviour, BehaviourEvent},
    command::{Command, Error, PublishOptions, Reply},
    event::{Event, Message, Receipt},
    gossip,
    metrics::Metrics,
    peers::Peers,
    ping,
    publishes::Publishes,
    queries::{self, Queries, Query},
    reachable::is_reachable,
    setup,
    status::Status,
    topics::{self, Topics},
};
use crate::{
    config::Config,
    dialer,
    error::chain,
    runtime::{Handle, Interface, Interfaces, Timer},
};

/// How long the last messages and the news that we leave have to go out.
const FLUSH: Duration = Duration::from_millis(150);
/// How long connections have to close after that.
const CLOSE: Duration = Duration::from_secs(4);
/// How long the sockets have to close when all that is over.
const SOCKETS: Duration = Duration::from_millis(500);
/// How often the routing table is refreshed.
const BOOTSTRAP: Duration = Duration::from_secs(5 * 60);

/// How far a shutdown has come.
struct Drain {
    replies: Vec<Reply<()>>,
    /// When connections are closed; already, if `None`.
    flushed: Option<Instant>,
    /// When the node ends, whatever is still open.
    deadline: Instant,
}

pub(crate) struct EventLoop {
    swarm: Swarm<Behaviour>,
    /// Ready when the swarm is gone and its last socket closed.
    closed: BoxFuture<'static, ()>,
    commands: Pin<Box<async_channel::Receiver<Command>>>,
    /// For subscriptions, which say when they are dropped.
    commander: async_channel::WeakSender<Command>,
    events: Sender<Event>,
    /// Keeps the events' channel open while nobody listens.
    _listeners: InactiveReceiver<Event>,
    runtime: Handle,
    interfaces: Box<dyn Interfaces>,
    here: Vec<Interface>,
    validator: Option<Arc<dyn Validator>>,
    config: Config,
    peers: Peers,
    topics: Topics,
    publishes: Publishes<Reply<Receipt>>,
    queries: Queries,
    pings: HashMap<OutboundRequestId, Reply<Duration>>,
    timer: Box<dyn Timer>,
    started: Instant,
    bootstrap: Instant,
    drain: Option<Drain>,
    metrics: Metrics,
}

/// What the loop is made of.
pub(crate) struct Parts {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) closed: BoxFuture<'static, ()>,
    pub(crate) commands: (async_channel::Sender<Command>, async_channel::Receiver<Command>),
    pub(crate) events: (Sender<Event>, InactiveReceiver<Event>),
    pub(crate) runtime: Handle,
    pub(crate) interfaces: Box<dyn Interfaces>,
    pub(crate) validator: Option<Arc<dyn Validator>>,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
}

impl EventLoop {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { swarm, closed, commands, events, runtime, interfaces, validator, config, metrics } =
            parts;
        let now = runtime.now();
        let limits = &config.limits;
        Self {
            swarm,
            closed,
            commander: commands.0.downgrade(),
            commands: Box::pin(commands.1),
            events: events.0,
            _listeners: events.1,
            here: list(&*interfaces),
            interfaces,
            validator,
            peers: Peers::default(),
            topics: Topics::new(limits.events, limits.subscriptions),
            publishes: Publishes::new(limits.pending),
            queries: Queries::default(),
            pings: HashMap::new(),
            timer: runtime.timer(),
            started: now,
            bootstrap: now + BOOTSTRAP,
            drain: None,
            metrics,
            runtime,
            config,
        }
    }

    /// Runs until the node is shut down or its last client is gone.
    pub(crate) async fn run(mut self) {
        self.follow_configured();
        self.swarm.behaviour_mut().dialer.set_targets(setup::targets(&self.config));
        while !self.is_done() {
            self.arm_timer();
            let timer = &mut self.timer;
            let interfaces = &mut self.interfaces;
            select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                command = self.commands.next().fuse() => self.on_command(command),
                () = poll_fn(|cx| timer.poll(cx)).fuse() => self.on_timer(),
                () = poll_fn(|cx| interfaces.poll_changed(cx)).fuse() => self.on_interfaces_changed(),
            }
        }
        self.finish().await;
    }

    fn on_command(&mut self, command: Option<Command>) {
        let Some(command) = command else {
            return self.begin_drain(None);
        };
        match command {
            Command::Peers { reply } => {
                let gossip = &self.swarm.behaviour().gossip;
                answer(reply, Ok(self.peers.status(self.runtime.now(), |p| gossip.score(p))));
            }
            Command::Mesh { reply } => {
                let meshes = self.swarm.behaviour().gossip.meshes();
                let mesh = |(t, p): (&TopicHash, &std::collections::BTreeSet<PeerId>)| {
                    (t.to_string(), p.iter().copied().collect())
                };
                answer(reply, Ok(meshes.iter().map(mesh).collect()));
            }
            Command::Names { reply } => answer(reply, Ok(self.swarm.behaviour().dialer.status())),
            Command::Status { reply } => {
                let status = self.status();
                answer(reply, Ok(status));
            }
            Command::Shutdown { reply } => self.begin_drain(Some(reply)),
            Command::Unfollow { topic } => self.unfollow(&topic),
            command if self.drain.is_some() => refuse(command),
            Command::Dial { target, reply } => {
                self.swarm.behaviour_mut().dialer.add_target(target);
                answer(reply, Ok(()));
            }
            Command::Subscribe { topic, reply } => {
                let subscription = self.subscribe(&topic);
                answer(reply, subscription);
            }
            Command::Unsubscribe { topic, reply } => {
                let was = self.topics.drop_topic(&topic);
                self.swarm.behaviour_mut().gossip.unsubscribe(&IdentTopic::new(&topic));
                answer(reply, Ok(was));
            }
            Command::Publish { topic, data, options, reply } => self.publish(topic, data, options, reply),
            Command::Ping { peer, reply } => self.ping(peer, reply),
            Command::Apply { config, reply } => {
                self.apply(*config);
                answer(reply, Ok(()));
            }
            query => self.start_query(query),
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.metrics.record(&event);
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::NewListenAddr { address, .. } => self.emit(Event::Listening(address)),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.emit(Event::NotListening(address, "the address is gone from this host".into()));
            }
            SwarmEvent::ListenerClosed { addresses, reason: Err(e), .. } => {
                let reason = chain(&e);
                for address in addresses {
                    self.emit(Event::NotListening(address, reason.clone()));
                }
            }
            SwarmEvent::ListenerError { error, .. } => log::warn!("a listener reports: {}", chain(&error)),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let (address, outbound) = (endpoint.get_remote_address().clone(), endpoint.is_dialer());
                let now = self.runtime.now();
                if self.peers.connected(peer_id, connection_id, address.clone(), outbound, now) {
                    self.emit(Event::Connected { peer: peer_id, address, outbound });
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                if self.peers.disconnected(peer_id, connection_id) {
                    let reason = cause.map_or_else(|| "closed by this node".into(), |e| chain(&e));
                    self.emit(Event::Disconnected { peer: peer_id, reason });
                }
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error: DialError::WrongPeerId { obtained, address },
                ..
            } => {
                let (address, _) = dialer::split_peer(address);
                log::debug!("{obtained} answers at {address}, where {peer} was");
                self.forget(peer, Some(address));
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                log::debug!("an incoming connection from {send_back_addr} failed: {}", chain(&error));
            }
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match &event {
            BehaviourEvent::Gossip(gossip::Event::Gossipsub(event)) => self.metrics.record(event),
            BehaviourEvent::Identify(event) => self.metrics.record(event),
            BehaviourEvent::Kad(event) => self.metrics.record(event),
            BehaviourEvent::Ping(event) => self.metrics.record(event),
            _ => {}
        }
        match event {
            BehaviourEvent::Dialer(dialer::Event::Notice(notice)) => self.emit(Event::Dialer(notice)),
            BehaviourEvent::Dialer(dialer::Event::Forget { peer, address }) => self.forget(peer, address),
            BehaviourEvent::Gossip(event) => self.on_gossip_event(event),
            BehaviourEvent::Identify(identify::Event::Received { connection_id, peer_id, info }) => {
                self.on_identified(peer_id, connection_id, info);
            }
            BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed { id, result, step, .. }) => {
                if self.queries.on_progress(id, result, step.last)
                    && let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id)
                {
                    query.finish();
                }
            }
            BehaviourEvent::Ping(libp2p::ping::Event { peer, result: Ok(rtt), .. }) => {
                self.peers.pinged(&peer, rtt);
                self.emit(Event::Ping { peer, rtt });
            }
            BehaviourEvent::PingOnRequest(event) => self.on_ping_answer(event),
            _ => {}
        }
    }

    fn on_gossip_event(&mut self, event: gossip::Event) {
        match event {
            gossip::Event::Joined { topic, peer } => {
                self.emit(Event::JoinedMesh { topic: topic.into_string(), peer });
            }
            gossip::Event::Left { topic, peer } => {
                self.emit(Event::LeftMesh { topic: topic.into_string(), peer });
            }
            gossip::Event::Gossipsub(gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            }) => {
                self.on_message(propagation_source, &message_id, message);
            }
            gossip::Event::Gossipsub(gossipsub::Event::Subscribed { peer_id, topic }) => {
                self.emit(Event::Subscribed { topic: topic.into_string(), peer: peer_id });
                self.publish_ready();
            }
            gossip::Event::Gossipsub(gossipsub::Event::SlowPeer { peer_id, .. }) => {
                self.emit(Event::SlowPeer(peer_id));
            }
            gossip::Event::Gossipsub(_) => {}
        }
    }

    fn on_message(&mut self, from: PeerId, id: &gossipsub::MessageId, message: gossipsub::Message) {
        let told = Message {
            id: id_text(id),
            topic: message.topic.into_string(),
            source: message.source,
            from,
            data: message.data.into(),
        };
        if let Some(validator) = &self.validator {
            let verdict = validator.validate(&told);
            let acceptance = match verdict {
                Verdict::Accept => MessageAcceptance::Accept,
                Verdict::Ignore => MessageAcceptance::Ignore,
                Verdict::Reject => MessageAcceptance::Reject,
            };
            self.swarm.behaviour_mut().gossip.report(id, &from, acceptance);
            if verdict != Verdict::Accept {
                return;
            }
        }
        self.topics.deliver(&told);
        self.emit(Event::Message(told));
    }

    /// Addresses that a peer announces go into the table if they can be reached from here.
    fn on_identified(&mut self, peer: PeerId, link: ConnectionId, info: identify::Info) {
        self.peers.identified(&peer, &info.agent_version);
        let Some(remote) = self.peers.address(&peer, link) else {
            return; // the connection is gone already
        };
        let remote = remote.clone();
        let behaviour = self.swarm.behaviour_mut();
        behaviour.dialer.on_identified(peer, link, &info.listen_addrs);
        if !behaviour.kad.protocol_names().iter().any(|name| info.protocols.contains(name)) {
            return; // not part of our table
        }
        let reachable: Vec<_> = info
            .listen_addrs
            .into_iter()
            .filter(|a| is_reachable(a, &remote, &self.here))
            .map(|a| dialer::split_peer(a).0)
            .collect();
        for address in reachable {
            let known = self.is_in_table(&peer, &address);
            let update = self.swarm.behaviour_mut().kad.add_address(&peer, address.clone());
            if !known && update != kad::RoutingUpdate::Failed {
                self.emit(Event::Routable { peer, address });
            }
        }
    }

    fn on_ping_answer(&mut self, event: ping::Event) {
        match event {
            request_response::Event::Message {
                peer,
                message: request_response::Message::Response { request_id, response: rtt },
                ..
            } => {
                self.peers.pinged(&peer, rtt);
                if let Some(reply) = self.pings.remove(&request_id) {
                    answer(reply, Ok(rtt));
                }
            }
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                if let Some(reply) = self.pings.remove(&request_id) {
                    answer(reply, Err(Error::Ping { peer, why: chain(&error) }));
                }
            }
            _ => {}
        }
    }

    fn on_timer(&mut self) {
        let now = self.runtime.now();
        let gossip = &self.swarm.behaviour().gossip;
        for (reply, error) in self.publishes.take_late(now, |t| gossip.subscribers(&TopicHash::from_raw(t))) {
            answer(reply, Err(error));
        }
        if self.bootstrap <= now {
            self.bootstrap = now + BOOTSTRAP;
            if self.table_size() > 0
                && let Err(e) = self.swarm.behaviour_mut().kad.bootstrap()
            {
                log::debug!("the routing table was not refreshed: {e}");
            }
        }
        if let Some(drain) = &mut self.drain
            && drain.flushed.is_some_and(|at| at <= now)
        {
            drain.flushed = None;
            let connected: Vec<_> = self.swarm.connected_peers().copied().collect();
            for peer in connected {
                // An error says that the peer is gone already.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
    }

    fn on_interfaces_changed(&mut self) {
        self.here = list(&*self.interfaces);
    }

    fn arm_timer(&mut self) {
        let drain = self.drain.as_ref().map(|d| d.flushed.unwrap_or(d.deadline));
        let next = [self.publishes.deadline(), drain, Some(self.bootstrap)];
        self.timer.set(next.into_iter().flatten().min());
    }

    /// Says once what happened: to the log, and to all who listen.
    fn emit(&mut self, event: Event) {
        log::log!(target: "smidge", event.level(), "{event}");
        self.metrics.note(&event);
        topics::tell(&self.events, event);
    }

    fn subscribe(&mut self, topic: &str) -> Result<topics::Subscription, Error> {
        let commands = self.commander.upgrade().ok_or(Error::Stopped)?;
        let (subscription, fresh) = self.topics.follow(topic, commands.downgrade())?;
        if fresh {
            self.join(topic);
        }
        Ok(subscription)
    }

    fn unfollow(&mut self, topic: &str) {
        if self.topics.let_go(topic) {
            self.swarm.behaviour_mut().gossip.unsubscribe(&IdentTopic::new(topic));
        }
    }

    fn join(&mut self, topic: &str) {
        let topic = IdentTopic::new(topic);
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        if let Err(e) = gossip.subscribe(&topic) {
            log::warn!("topic {topic} is not joined: {e}");
        }
        if self.config.gossip.scoring {
            gossip.set_topic_params(&topic, setup::topic_score());
        }
    }

    fn follow_configured(&mut self) {
        let (fresh, idle) = self.topics.configure(&self.config.gossip.topics);
        for topic in fresh {
            self.join(&topic);
        }
        for topic in idle {
            self.swarm.behaviour_mut().gossip.unsubscribe(&IdentTopic::new(topic));
        }
    }

    fn publish(&mut self, topic: String, data: Vec<u8>, options: PublishOptions, reply: Reply<Receipt>) {
        if let Err(e) = topics::check(&topic) {
            return answer(reply, Err(e));
        }
        match self.publishes.push(topic, data, options, reply, self.runtime.now()) {
            Ok(()) => self.publish_ready(),
            Err((reply, e)) => answer(reply, Err(e)),
        }
    }

    /// Publishes what has enough subscribers by now.
    fn publish_ready(&mut self) {
        if self.publishes.is_empty() {
            return;
        }
        let gossip = &self.swarm.behaviour().gossip;
        let ready = self.publishes.take_ready(|t| gossip.subscribers(&TopicHash::from_raw(t)));
        for publish in ready {
            let topic = TopicHash::from_raw(&publish.topic);
            let bytes = publish.data.len();
            let result = self.swarm.behaviour_mut().gossip.publish(&topic, publish.data);
            let receipt =
                result.map(|(id, peers)| Receipt { id: id_text(&id), peers }).map_err(|e| match e {
                    PublishError::MessageTooLarge => {
                        Error::MessageTooLarge { bytes, limit: self.config.gossip.max_message }
                    }
                    PublishError::Duplicate => Error::Duplicate,
                    PublishError::AllQueuesFull(peers) => Error::Congested(peers),
                    other => Error::Publish(chain(&other)),
                });
            if let Ok(receipt) = &receipt {
                self.emit(Event::Published { receipt: receipt.clone(), topic: publish.topic });
            }
            answer(publish.waiter, receipt);
        }
    }

    fn ping(&mut self, peer: PeerId, reply: Reply<Duration>) {
        let limit = self.config.limits.pending;
        if self.pings.len() >= limit {
            let error = Error::Limit { what: "pings", limit, key: "limits.pending" };
            return answer(reply, Err(error));
        }
        let request = self.swarm.behaviour_mut().ping_on_request.send_request(&peer, ping::payload());
        self.pings.insert(request, reply);
    }

    fn start_query(&mut self, command: Command) {
        let limit = self.config.limits.pending;
        if self.queries.len() >= limit {
            return refuse_with(command, &Error::Limit { what: "queries", limit, key: "limits.pending" });
        }
        let ttl = self.config.kad.record_ttl;
        let replication = self.config.kad.replication.get();
        let others = self.table_size();
        let now = Instant::now(); // kad's records are dated by its own clock
        let kad = &mut self.swarm.behaviour_mut().kad;
        match command {
            Command::Put { key, value, options, reply } => {
                let quorum = queries::quorum(options.quorum.into(), others, replication);
                let record = kad::Record {
                    expires: now.checked_add(options.ttl.unwrap_or(ttl)),
                    ..kad::Record::new(key, value)
                };
                let confirmations =
                    std::num::NonZeroUsize::new(quorum).map_or(kad::Quorum::One, kad::Quorum::N);
                match kad.put_record(record, confirmations) {
                    Ok(id) => self.queries.insert(id, Query::Put { reply, quorum }),
                    Err(e) => answer(reply, Err(Error::Store(chain(&e)))),
                }
            }
            Command::Get { key, quorum, reply } => {
                let id = kad.get_record(key.into());
                self.queries.insert(id, Query::Get { reply, quorum, found: Vec::new() });
            }
            Command::Provide { key, reply } => match kad.start_providing(key.into()) {
                Ok(id) => self.queries.insert(id, Query::Provide { reply }),
                Err(e) => answer(reply, Err(Error::Store(chain(&e)))),
            },
            Command::StopProviding { key, reply } => {
                kad.stop_providing(&key.into());
                answer(reply, Ok(()));
            }
            Command::Providers { key, reply } => {
                let id = kad.get_providers(key.into());
                self.queries.insert(id, Query::Providers { reply, found: Default::default() });
            }
            Command::FindPeer { peer, reply } => {
                let known = addresses(kad, &peer);
                let id = kad.get_closest_peers(peer);
                self.queries.insert(id, Query::FindPeer { reply, peer, known });
            }
            other => refuse(other),
        }
    }

    fn forget(&mut self, peer: PeerId, address: Option<Multiaddr>) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let removed = match &address {
            Some(address) => kad.remove_address(&peer, address).is_some(),
            None => kad.remove_peer(&peer).is_some(),
        };
        if removed || address.is_none() {
            self.emit(Event::Forgotten { peer, address });
        }
    }

    fn apply(&mut self, config: Config) {
        let behaviour = self.swarm.behaviour_mut();
        let denied: Vec<_> = behaviour.denied.blocked_peers().iter().copied().collect();
        for peer in denied.iter().filter(|p| !config.peers.deny.contains(p)) {
            behaviour.denied.unblock_peer(*peer);
        }
        for peer in &config.peers.deny {
            behaviour.denied.block_peer(*peer);
        }
        behaviour.dialer.set_targets(setup::targets(&config));
        self.config.dial = config.dial;
        self.config.peers = config.peers;
        self.config.gossip.topics = config.gossip.topics;
        self.follow_configured();
    }

    fn status(&mut self) -> Status {
        use libp2p::kad::store::RecordStore;
        let table = self.table_size();
        let mut listening: Vec<_> = self.swarm.listeners().cloned().collect();
        listening.sort();
        Status {
            peer: self.swarm.local_peer_id().to_string(),
            version: env!("CARGO_PKG_VERSION"),
            listening,
            peers: self.peers.len(),
            table,
            topics: self.topics.names().cloned().collect(),
            records: self.swarm.behaviour_mut().kad.store_mut().records().count(),
            uptime_s: self.runtime.now().saturating_duration_since(self.started).as_secs(),
        }
    }

    fn table_size(&mut self) -> usize {
        self.swarm.behaviour_mut().kad.kbuckets().map(|bucket| bucket.num_entries()).sum()
    }

    fn is_in_table(&mut self, peer: &PeerId, address: &Multiaddr) -> bool {
        addresses(&mut self.swarm.behaviour_mut().kad, peer).contains(address)
    }

    /// Leaves the topics, takes no more work, and closes what is open a moment later.
    fn begin_drain(&mut self, reply: Option<Reply<()>>) {
        if self.drain.is_none() {
            self.emit(Event::Stopping);
            let now = self.runtime.now();
            self.drain = Some(Drain {
                replies: Vec::new(),
                flushed: Some(now + FLUSH),
                deadline: now + FLUSH + CLOSE,
            });
            self.swarm.behaviour_mut().dialer.set_targets([]);
            let topics: Vec<_> = self.topics.names().cloned().collect();
            for topic in topics {
                self.swarm.behaviour_mut().gossip.unsubscribe(&IdentTopic::new(topic));
            }
            for reply in self.publishes.take_all() {
                answer(reply, Err(Error::ShuttingDown));
            }
        }
        if let Some(drain) = &mut self.drain {
            drain.replies.extend(reply);
        }
    }

    fn is_done(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| {
            drain.flushed.is_none()
                && (self.swarm.network_info().connection_counters().num_connections() == 0
                    || drain.deadline <= self.runtime.now())
        })
    }

    async fn finish(self) {
        let replies = self.drain.map(|d| d.replies).unwrap_or_default();
        // Connections that are still open, and the listeners, go with the swarm. A task that still
        // holds one is not waited for long.
        drop(self.swarm);
        let _ = self.runtime.timeout(SOCKETS, self.closed).await;
        for reply in replies {
            answer(reply, Ok(()));
        }
    }
}

/// Where the routing table has a peer.
fn addresses(kad: &mut kad::Behaviour<kad::store::MemoryStore>, peer: &PeerId) -> Vec<Multiaddr> {
    let Some(bucket) = kad.kbucket(*peer) else {
        return Vec::new(); // ourselves
    };
    let entry = bucket.iter().find(|entry| entry.node.key.preimage() == peer);
    entry.map(|entry| entry.node.value.iter().cloned().collect()).unwrap_or_default()
}

fn list(interfaces: &dyn Interfaces) -> Vec<Interface> {
    interfaces.list().unwrap_or_else(|e| {
        log::warn!("the network interfaces cannot be listed: {e}");
        Vec::new()
    })
}

/// Answers a client; that it went away meanwhile is its own affair.
fn answer<T>(reply: Reply<T>, answer: Result<T, Error>) {
    let _ = reply.send(answer);
}

fn refuse(command: Command) {
    refuse_with(command, &Error::ShuttingDown);
}

fn refuse_with(command: Command, error: &Error) {
    let error = error.clone();
    match command {
        Command::Dial { reply, .. } | Command::Apply { reply, .. } | Command::Shutdown { reply } => {
            answer(reply, Err(error));
        }
        Command::Provide { reply, .. } | Command::StopProviding { reply, .. } => answer(reply, Err(error)),
        Command::Subscribe { reply, .. } => answer(reply, Err(error)),
        Command::Unsubscribe { reply, .. } => answer(reply, Err(error)),
        Command::Publish { reply, .. } => answer(reply, Err(error)),
        Command::Put { reply, .. } => answer(reply, Err(error)),
        Command::Get { reply, .. } => answer(reply, Err(error)),
        Command::Providers { reply, .. } => answer(reply, Err(error)),
        Command::FindPeer { reply, .. } => answer(reply, Err(error)),
        Command::Ping { reply, .. } => answer(reply, Err(error)),
        Command::Peers { reply } => answer(reply, Err(error)),
        Command::Mesh { reply } => answer(reply, Err(error)),
        Command::Names { reply } => answer(reply, Err(error)),
        Command::Status { reply } => answer(reply, Err(error)),
        Command::Unfollow { .. } => {}
    }
}

/// A message's id as text: as it is where it is printable (gossipsub's own ids are), in hexadecimal
/// otherwise.
fn id_text(id: &gossipsub::MessageId) -> String {
    match std::str::from_utf8(&id.0) {
        Ok(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) => text.to_owned(),
        _ => id.to_string(),
    }
}
