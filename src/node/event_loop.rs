//! The one loop that owns the swarm.
//!
//! Its arms are single calls; no handler blocks or waits for the network. What takes time is noted
//! (waiting publishes, queries, pings) and answered when the swarm reports.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, poll_fn},
    select,
    stream::Fuse,
};
use libp2p::{Multiaddr, PeerId, Swarm, identify, swarm::ConnectionId};

use self::drain::Drain;
use super::{
    Validator,
    alone::Alone,
    behaviour::Behaviour,
    blame::Blame,
    boxed_handler::BoxedHandlers,
    command::{Command, Reply},
    confirmations::Confirmations,
    dial_requests::DialRequests,
    error::Error,
    event::Event,
    feed::Sender,
    history::History,
    listeners::{Listeners, Missed},
    metrics::Metrics,
    peers::Peers,
    pending_publishes::{Outcome, PendingPublishes, There},
    ping,
    pushes::Pushes,
    queries::Queries,
    reservations::Reservations,
    seldom::Seldom,
    setup,
    state::Watchers,
    surplus::Needed,
    tally::Tally,
    topic_discovery::TopicDiscovery,
    topics::Topics,
    watch::Watch,
    yield_now,
};
use crate::{
    config::Config,
    error::chain,
    gossip::{MessageId, Shed},
    logging::{self, Repeats},
    runtime::{Handle, Interface, Interfaces, Timer},
    transport::admission::Keyring,
};

mod commands;
mod connections;
mod discovery;
mod drain;
mod messages;
mod nat;
mod neighbours;
mod publishing;
mod puts;
mod recovery;
mod reports;
mod state;

/// The shortest time between two lines about what was too large, or was no value by key, or gave way, and about what gossip gave up.
const OVERSIZED: Duration = Duration::from_secs(10);
const SHEDDING: Duration = Duration::from_secs(3600);
/// How often the routing table is refreshed.
const BOOTSTRAP: Duration = Duration::from_secs(5 * 60);
/// Events handled in a row before other tasks have their turn: messages arrive by the hundred, and their subscribers' queues
/// (`limits.events`) overflow unless somebody takes from them meanwhile.
const TURN: usize = 64;

/// Closes the queue of commands when the loop ends, in good order or not, and drops what is still in it:
/// a caller that waits for an answer gets an error, and is not left waiting. (A channel keeps its queue for as long as
/// there is a sender.)
struct Inbox(async_channel::Receiver<Command>);

impl Drop for Inbox {
    fn drop(&mut self) {
        self.0.close();
        while self.0.try_recv().is_ok() {}
    }
}

pub(crate) struct EventLoop {
    inbox: Inbox,
    swarm: Swarm<BoxedHandlers<Behaviour>>,
    /// Ready when the swarm is gone and its last socket closed.
    closed: BoxFuture<'static, ()>,
    /// Ended when the last client is gone; then `select!` passes over it.
    commands: Fuse<Pin<Box<async_channel::Receiver<Command>>>>,
    /// For subscriptions, which say when they are dropped.
    commander: async_channel::WeakSender<Command>,
    events: Sender<Event>,
    runtime: Handle,
    interfaces: Box<dyn Interfaces>,
    here: Vec<Interface>,
    validator: Option<Arc<dyn Validator>>,
    config: Config,
    peers: Peers,
    topics: Topics,
    /// What was too large, and not reported yet.
    oversized: Seldom,
    /// What gossip gave up to stay within its bounds, as counted.
    shed: Shed,
    shedding: Seldom,
    /// Whoever watches values by key.
    watchers: Watchers,
    /// What was no value by key, and values that gave way to bounds, and not reported yet.
    kept_out: Seldom,
    giving_way: Seldom,
    alone: Alone,
    /// Messages that have no line each.
    tally: Tally,
    history: History,
    pending_publishes: PendingPublishes<Reply<Vec<Outcome>>>,
    confirmations: Confirmations<Reply<Vec<Outcome>>>,
    queries: Queries,
    /// The caller that waits for each ping.
    pings: HashMap<ping::Request, Reply<Duration>>,
    /// Connections that are asked whether they are alive, since their peer made another.
    asked: HashMap<ping::Request, (PeerId, ConnectionId)>,
    /// Connections that are closed at that moment.
    retiring: VecDeque<(Instant, ConnectionId)>,
    watch: Watch,
    blame: Blame,
    /// Peers that are dialed there when they are disconnected.
    anew: HashMap<PeerId, Vec<Multiaddr>>,
    /// Peers that were asked for, and when surplus ones are looked for.
    needed: Needed,
    trim_at: Option<Instant>,
    /// Topics that lack subscribers, and when that is looked at.
    discovery: TopicDiscovery,
    discover_at: Option<Instant>,
    /// What hides the names of topics there, in a private mesh.
    keyring: Option<Keyring>,
    /// What peers say of themselves, again and again.
    pushes: Pushes<identify::Info>,
    dial_requests: DialRequests,
    reservations: Reservations,
    listeners: Listeners,
    /// What could not be listened on before the loop ran.
    missed: Vec<Missed>,
    listener_errors: Repeats,
    /// Peers that do not admit this node, as was reported.
    refusals: HashSet<PeerId>,
    timer: Box<dyn Timer>,
    started: Instant,
    bootstrap: Instant,
    drain: Option<Drain>,
    metrics: Metrics,
}

/// What the loop is made of.
pub(crate) struct Parts {
    pub(crate) swarm: Swarm<BoxedHandlers<Behaviour>>,
    pub(crate) closed: BoxFuture<'static, ()>,
    pub(crate) commands: (async_channel::Sender<Command>, async_channel::Receiver<Command>),
    pub(crate) events: Sender<Event>,
    pub(crate) runtime: Handle,
    pub(crate) interfaces: Box<dyn Interfaces>,
    pub(crate) validator: Option<Arc<dyn Validator>>,
    pub(crate) keyring: Option<Keyring>,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) listeners: Listeners,
    pub(crate) missed: Vec<Missed>,
}

impl EventLoop {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { swarm, closed, commands, events, runtime, interfaces, validator, config, .. } = parts;
        let Parts { metrics, listeners, missed, keyring, .. } = parts;
        let now = runtime.now();
        Self {
            inbox: Inbox(commands.1.clone()),
            swarm,
            closed,
            commander: commands.0.downgrade(),
            commands: Box::pin(commands.1).fuse(),
            events,
            here: list(&*interfaces),
            interfaces,
            validator,
            peers: Peers::default(),
            topics: Topics::new(&config.limits, metrics.lost.messages.clone()),
            oversized: Seldom::new(OVERSIZED),
            shed: Shed::default(),
            shedding: Seldom::new(SHEDDING),
            watchers: Watchers::new(&config.limits),
            kept_out: Seldom::new(OVERSIZED),
            giving_way: Seldom::new(OVERSIZED),
            alone: Alone::new(now),
            tally: Tally::default(),
            history: History::new(now),
            pending_publishes: PendingPublishes::new(config.limits.pending),
            confirmations: Confirmations::default(),
            queries: Queries::default(),
            pings: HashMap::new(),
            asked: HashMap::new(),
            retiring: VecDeque::new(),
            watch: Watch::default(),
            blame: Blame::default(),
            anew: HashMap::new(),
            needed: Needed::default(),
            trim_at: None,
            discovery: TopicDiscovery::new(fastrand::Rng::new()),
            discover_at: None,
            keyring,
            pushes: Pushes::default(),
            dial_requests: DialRequests::default(),
            reservations: Reservations::new(config.dial.retry_max, fastrand::Rng::new()),
            listeners,
            missed,
            listener_errors: Repeats::default(),
            refusals: HashSet::new(),
            timer: runtime.timer(),
            started: now,
            bootstrap: now + BOOTSTRAP,
            drain: None,
            metrics,
            runtime,
            config,
        }
    }

    /// Runs until the node is shut down or its last client is gone. (Boxed: a future that owns the loop would
    /// hold it twice.)
    pub(crate) async fn run(mut self: Box<Self>) {
        for missed in std::mem::take(&mut self.missed) {
            self.emit(Event::missed(missed));
        }
        self.follow_configured();
        let behaviour = self.swarm.behaviour_mut();
        behaviour.dialer.on_host_addresses(self.here.iter().map(|own| own.addr));
        behaviour.access.guard().set_interfaces(&self.here);
        behaviour.dialer.set_targets(setup::targets(&self.config));
        let known = behaviour.kad.store_mut().known();
        behaviour.dialer.remember(known.iter().map(|(peer, _)| *peer));
        let access = behaviour.access.access().clone();
        let known = known.into_iter().filter(|(peer, _)| access.may_let_in(Some(peer), None).is_ok());
        // A run before may have spoken other transports, or remembered what no transport speaks.
        let config = &self.config;
        let known = known.flat_map(|(peer, all)| all.into_iter().map(move |a| (peer, a)));
        behaviour.dialer.try_known(known.filter(|(_, address)| config.can_dial(address)));
        let mut handled = 0_usize;
        while !self.is_done() {
            handled = handled.wrapping_add(1);
            if handled.is_multiple_of(TURN) {
                yield_now().await;
            }
            self.arm_timer();
            let timer = &mut self.timer;
            let interfaces = &mut self.interfaces;
            select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                command = self.commands.next() => self.on_commands(command),
                () = poll_fn(|cx| timer.poll(cx)).fuse() => self.on_timer(),
                () = poll_fn(|cx| interfaces.poll_changed(cx)).fuse() => self.on_interfaces_changed(),
            }
        }
        self.finish().await;
    }

    fn on_timer(&mut self) {
        let now = self.runtime.now();
        let (core, topics) = (self.swarm.behaviour().gossip.core(), &self.topics);
        let there = |topic: &str| There { peers: core.subscriber_count(topic), here: topics.hearers(topic) };
        let late = self.pending_publishes.take_late(now, there);
        for (publish, error) in late {
            self.give_up(publish, &error);
        }
        self.publish_ready();
        if self.bootstrap <= now {
            self.refresh_table();
        }
        self.reserve();
        self.check_connections(now);
        self.trim(now);
        if self.discovery_deadline().is_some_and(|at| at <= now) {
            self.discover(now);
        }
        for (peer, score) in self.blame.tick(now) {
            self.set_own_score(&peer, score);
        }
        self.take_pushes(now);
        self.listen_again();
        if self.looks()
            && let Some(alone) = self.alone.take(now)
        {
            self.say_alone(alone);
        }
        if let Some(counted) = self.tally.take(now) {
            log::info!(target: "smidge", "{counted}");
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

    /// What this node's own account of a peer adds to its score.
    fn set_own_score(&mut self, peer: &PeerId, score: f64) {
        // It is false for a peer that is not known, or where no scores are kept.
        self.swarm.behaviour_mut().gossip.core_mut().set_application_score(peer, score);
    }

    fn refresh_table(&mut self) {
        self.bootstrap = self.runtime.now() + BOOTSTRAP;
        if self.table_size() > 0
            && let Err(e) = self.swarm.behaviour_mut().kad.bootstrap()
        {
            log::debug!("the routing table was not refreshed: {e}");
        }
    }

    fn on_interfaces_changed(&mut self) {
        self.here = list(&*self.interfaces);
        let behaviour = self.swarm.behaviour_mut();
        behaviour.dialer.on_host_addresses(self.here.iter().map(|own| own.addr));
        behaviour.access.guard().set_interfaces(&self.here);
        self.listeners.hurry(self.runtime.now());
        self.listen_again();
    }

    /// Tries what could not be listened on before.
    fn listen_again(&mut self) {
        let now = self.runtime.now();
        if self.drain.is_some() {
            return;
        }
        for address in self.listeners.due(now) {
            let outcome = self.swarm.listen_on(address.clone()).map_err(|e| chain(&e));
            if let Some(missed) = self.listeners.tried(address, outcome, now) {
                self.emit(Event::missed(missed));
            }
        }
    }

    fn arm_timer(&mut self) {
        let drain = self.drain.as_ref().map(|d| d.flushed.unwrap_or(d.deadline));
        // A node that ends asks for nothing more.
        let slots = self.reservations.deadline().filter(|_| self.drain.is_none());
        let listen = self.listeners.deadline().filter(|_| self.drain.is_none());
        let trim = self.trim_deadline();
        let discovery = self.discovery_deadline();
        let next = [
            self.pending_publishes.deadline(),
            drain,
            Some(self.bootstrap),
            slots,
            listen,
            self.links_deadline(),
            trim,
            discovery,
            self.blame.deadline(),
            self.pushes.deadline(),
            self.tally.deadline(),
            self.alone.deadline().filter(|_| self.looks()),
        ];
        self.timer.set(next.into_iter().flatten().min());
    }

    /// Reports what happened once: to the log, and to all listeners.
    fn emit(&mut self, event: Event) {
        self.emit_and_keep(&event);
    }

    /// As [`Self::emit`], of something that goes on to others.
    fn emit_and_keep(&mut self, event: &Event) {
        let name = event.peer().and_then(|peer| self.peers.name(peer));
        self.emit_named(event, name);
    }

    /// As [`Self::emit`], of a peer that calls itself `name`.
    fn emit_named(&mut self, event: &Event, name: Option<Arc<str>>) {
        // A peer that comes and goes all the time because it does not admit this node was reported once.
        let is_noise = matches!(event,
            Event::Connected { peer, .. } | Event::Disconnected { peer, .. } if self.refusals.contains(peer));
        let level = if is_noise { log::Level::Debug } else { event.level() };
        match name {
            Some(name) => log::log!(target: event.target(), level, "{event} [{name}]"),
            None => log::log!(target: event.target(), level, "{event}"),
        }
        if !log::log_enabled!(target: logging::MESSAGES, log::Level::Info) {
            self.tally.note(event, self.runtime.now());
        }
        match event {
            Event::Connected { .. } => self.alone.met(),
            Event::Disconnected { .. } if self.peers.len() == 0 => self.alone.left(self.runtime.now()),
            Event::Message(message) => {
                self.history.received(&message.topic, message.data.len(), self.runtime.now());
            }
            _ => {}
        }
        self.metrics.note(event);
        self.events.send(event);
    }

    /// Whether it looks for others by itself, and is to go on with it.
    fn looks(&self) -> bool {
        let dial = &self.config.dial;
        let targets =
            !(dial.names.is_empty() && dial.addresses.is_empty() && self.config.relay.through.is_empty());
        (targets || self.config.mdns.enabled) && self.drain.is_none()
    }

    fn say_alone(&self, alone: Duration) {
        let names: Vec<_> = self.config.dial.names.iter().map(ToString::to_string).collect();
        let mdns = self.config.mdns.enabled.then(|| "the local network (mdns)".to_owned());
        let places: Vec<_> = names.into_iter().take(3).chain(mdns).collect();
        let places = if places.is_empty() { String::new() } else { format!(" at {}", places.join(", ")) };
        log::info!(
            target: "smidge",
            "still looking{places}: nobody is connected for {} s; `smidge names` tells how it stands, `smidge doctor` what is \
             in the way",
            alone.as_secs()
        );
    }

    fn table_size(&mut self) -> usize {
        self.swarm.behaviour_mut().kad.kbuckets().map(|bucket| bucket.num_entries()).sum()
    }
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

/// A message's id as text: as it is where it is printable (those by source are), in hexadecimal otherwise.
fn id_text(id: &MessageId) -> String {
    match std::str::from_utf8(id.as_bytes()) {
        Ok(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) => text.to_owned(),
        _ => id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::oneshot;

    use super::*;

    #[test]
    fn a_command_that_nobody_took_up_is_answered_when_the_loop_ends() {
        let (commands, queue) = async_channel::bounded(4);
        let inbox = Inbox(queue.clone());
        let (reply, mut answer) = oneshot::channel();
        commands.try_send(Command::Peers { reply }).unwrap();
        drop(queue);
        drop(inbox);
        assert_eq!(answer.try_recv().err(), Some(oneshot::Canceled), "the sender still lives: {commands:?}");
        let (reply, _answer) = oneshot::channel();
        assert!(commands.try_send(Command::Peers { reply }).is_err());
    }
}
