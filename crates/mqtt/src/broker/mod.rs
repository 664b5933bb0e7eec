//! The broker: clients in, packets out.
//!
//! [`Broker::connect`], [`Broker::received`] and [`Broker::closed`] follow one connection; [`Broker::next_action`] says what
//! is to be done after each call, and [`Broker::take`] has what is to be written. Each connection has one buffer of what is
//! to be written, however many messages are in it.

mod clients;
mod confirm;
mod connect;
mod deliver;
mod others;
mod publish;
mod retain;
mod subscribe;
mod sys;
mod taps;
mod timers;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    fmt, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
pub use confirm::Ticket;
use mqtt_proto::{Protocol, TopicName, v5};
use slab::Slab;

use crate::{
    access::Access,
    codec::{self, Fault, Incoming, Reason, fault},
    limits::Limits,
    mesh,
    message::{Message, Qos},
    nodes::Nodes,
    retained::{Rank, Retained},
    session::Session,
    trie::{Match, Trie},
};
use clients::Roster;
use confirm::Unconfirmed;
use others::Others;
pub use taps::{Refused, TapId, Tapped};
use timers::Timer;

/// One connection of a client, until [`Broker::closed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(crate) usize);

/// There are as many connections as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} connections are as many as are taken")]
pub struct Full(pub usize);

/// A user name and a password that were shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: Arc<str>,
    /// The password; empty where none was.
    pub password: Bytes,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Whether a password was the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was.
    Accepted,
    /// It was not.
    Refused,
}

/// What is to be done for the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// There may be something to [`Broker::take`] for this connection.
    Wake(ConnectionId),
    /// [`Users::verify`](crate::Users::verify) is to be asked, elsewhere, and its answer handed to [`Broker::authenticated`].
    Authenticate(ConnectionId, Credentials),
    /// A client of this broker published: to the other brokers, as [`mesh::encode`] has it.
    Publish {
        /// What it published.
        message: Arc<Message>,
        /// [`Rank::stamp`].
        stamp: u64,
        /// Of a will: its id, for [`mesh::encode_will`].
        will: Option<u128>,
        /// What [`Broker::confirmed`] is to be called with; `None`: nobody waits for it.
        ticket: Option<Ticket>,
    },
    /// There is something to [`Broker::take_tap`].
    Tap(TapId),
    /// To the other brokers, for [`Broker::hear_node`]; of several only the last counts.
    Say(Vec<u8>),
    /// What the space remembers of messages is to be read, from that time on (milliseconds since 1970), and handed to
    /// [`Broker::replay`]; then [`Broker::replayed`] is to be called.
    Replay {
        /// Whose it is.
        session: SessionId,
        /// From when on.
        since: u64,
    },
    /// To be written into one of the maps that all brokers of the space keep, and share; of a key the last.
    Keep {
        /// Which.
        map: Map,
        /// 1 to 1024 bytes.
        key: Vec<u8>,
        /// `None`: the key is to be deleted.
        value: Option<Vec<u8>>,
    },
}

/// A session, until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub(crate) usize, pub(crate) u64);

/// A map that all brokers of a space keep, each the same: a key has what was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Map {
    /// Retained messages, by topic.
    Retained,
    /// Clients with their sessions and wills, by client id.
    Clients,
}

impl Map {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Retained, Self::Clients];

    /// The name of its topic, behind that of the space.
    pub fn topic(self, space: &str) -> String {
        match self {
            Self::Retained => format!("{space}/retained"),
            Self::Clients => format!("{space}/clients"),
        }
    }
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whence {
    /// A client here, or this broker itself.
    Client,
    /// Another broker.
    Mesh,
    /// What all brokers keep.
    Map,
    /// The same, of what was there but for its rank: nobody is given it.
    Again,
}

/// What is to be written, and whether the connection is to be closed then.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// To be written; perhaps nothing.
    pub bytes: Vec<u8>,
    /// Whether that is the last of it.
    pub close: bool,
}

/// What a broker has, and has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections, those that have not said CONNECT included.
    pub connections: usize,
    /// Sessions, of clients that are away included.
    pub sessions: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// Bytes that wait for clients.
    pub queued_bytes: usize,
    /// PUBLISH packets of clients.
    pub received: u64,
    /// PUBLISH packets to clients, repeated ones included.
    pub sent: u64,
    /// Messages that came from other brokers.
    pub from_mesh: u64,
    /// Messages at QoS 0 that a client did not get, because it reads too slowly.
    pub dropped_slow: u64,
    /// Messages at QoS 1 and 2 that a client does not get, because too much waits for it.
    pub dropped_full: u64,
    /// Messages that clients did not get because they were larger than they take.
    pub dropped_large: u64,
    /// Messages that were not taken, or not retained: not allowed, or one too many.
    pub refused: u64,
    /// Connections that were closed for what they sent.
    pub faults: u64,
    /// Clients that connected to another broker while they were connected here.
    pub taken_over: u64,
    /// Sessions that came from another broker.
    pub roamed: u64,
    /// Wills that were published for a broker that was gone.
    pub wills_of_others: u64,
    /// Messages that too few nodes confirmed in time.
    pub not_confirmed: u64,
    /// Other brokers that are there.
    pub others: usize,
}

/// A connected client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its client id.
    pub id: Arc<str>,
    /// Its user name, if its password was asked for.
    pub user: Option<Arc<str>>,
    /// 3, 4 (3.1.1) or 5.
    pub version: u8,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Messages that wait for it, those in flight included.
    pub waiting: usize,
}

#[derive(Debug)]
enum Stage {
    /// No CONNECT yet.
    New,
    /// Its password is looked at.
    Authenticating(Box<v5::Connect>),
    /// The session.
    Open(usize),
    /// Closed by us, or by the other side; nothing is read any more.
    Closing,
}

#[derive(Debug)]
struct Connection {
    serial: u64,
    stage: Stage,
    protocol: Protocol,
    /// A packet that is not complete.
    partial: Vec<u8>,
    out: Vec<u8>,
    /// A wake-up is on its way.
    woken: bool,
    heard: Instant,
    /// When it is next looked at.
    armed: Option<Instant>,
    /// Whether it has published anything.
    publishes: bool,
    /// How long it may be silent; zero: for ever.
    patience: Duration,
    aliases: Vec<Option<TopicName>>,
    /// The largest packet that the client takes.
    largest: usize,
    /// Whether it wants to know reasons.
    wants_reasons: bool,
}

/// A broker.
pub struct Broker {
    limits: Limits,
    access: Access,
    random: Box<dyn FnMut() -> u64 + Send>,
    node: u64,
    /// A moment, and the time that it was: microseconds since 1970.
    clock: (Instant, u64),
    last_stamp: u64,
    begun: Instant,
    /// What was last said of itself, and when it is said again.
    figures: [Option<u64>; sys::COUNT],
    figures_at: Option<Instant>,
    serials: u64,
    connections: Slab<Connection>,
    sessions: Slab<Session>,
    by_client: HashMap<Arc<str>, usize>,
    subscriptions: Trie,
    retained: Retained,
    /// What is due, the next first: one for each connection and session at most.
    timers: BTreeSet<(Instant, Timer)>,
    actions: VecDeque<Action>,
    /// Sessions with retained messages to look through, by turns.
    scanning: VecDeque<(usize, u64)>,
    /// Bytes that wait for clients.
    queued: usize,
    /// Kept for the next message.
    found: Vec<Match>,
    /// Topics whose messages come back from elsewhere.
    elsewhere: HashSet<String>,
    taps: Slab<taps::Tap>,
    /// Whether there are maps that all brokers keep.
    shares: bool,
    roster: Roster,
    nodes: Nodes,
    others: Others,
    /// Whether messages are acknowledged when others have confirmed them, and those that wait for it.
    confirms: bool,
    unconfirmed: HashMap<Ticket, Unconfirmed>,
    stats: Stats,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Beyond so many bytes that a client has not taken, further messages at QoS 1 and 2 wait unencoded.
const HIGH_WATER: usize = 64 << 10;

impl Broker {
    /// A broker without clients. `node` tells it from the others of its space; `clock` is a moment with its time in
    /// microseconds since 1970.
    pub fn new(
        limits: Limits,
        access: Access,
        node: u64,
        clock: (Instant, u64),
        random: impl FnMut() -> u64 + Send + 'static,
    ) -> Self {
        Self {
            limits,
            access,
            random: Box::new(random),
            node,
            clock,
            last_stamp: 0,
            begun: clock.0,
            figures: [None; sys::COUNT],
            figures_at: None,
            serials: 0,
            connections: Slab::new(),
            sessions: Slab::new(),
            by_client: HashMap::new(),
            subscriptions: Trie::default(),
            retained: Retained::default(),
            timers: BTreeSet::new(),
            actions: VecDeque::new(),
            scanning: VecDeque::new(),
            queued: 0,
            found: Vec::new(),
            elsewhere: HashSet::new(),
            taps: Slab::new(),
            shares: false,
            roster: Roster::default(),
            nodes: Nodes::default(),
            others: Others::default(),
            confirms: false,
            unconfirmed: HashMap::new(),
            stats: Stats::default(),
        }
    }

    /// Corrects the time: `clock` as in [`new`](Self::new).
    pub fn set_clock(&mut self, clock: (Instant, u64)) {
        self.clock = clock;
    }

    /// A client has opened a connection.
    ///
    /// # Errors
    /// When there are too many: it is to be closed.
    pub fn connect(&mut self, now: Instant) -> Result<ConnectionId, Full> {
        if self.connections.len() >= self.limits.connections {
            return Err(Full(self.limits.connections));
        }
        let serial = self.serial();
        let id = self.connections.insert(Connection {
            serial,
            stage: Stage::New,
            protocol: Protocol::V311,
            partial: Vec::new(),
            out: Vec::new(),
            woken: false,
            heard: now,
            armed: None,
            publishes: false,
            patience: self.limits.connect_timeout,
            aliases: Vec::new(),
            largest: usize::MAX,
            wants_reasons: true,
        });
        self.arm(now, self.limits.connect_timeout, Timer::Silence(id, serial));
        Ok(ConnectionId(id))
    }

    /// Bytes came over a connection, as many as there were.
    pub fn received(&mut self, ConnectionId(id): ConnectionId, bytes: &[u8], now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let mut partial = mem::take(&mut connection.partial);
        let rest = if partial.is_empty() {
            self.packets(id, bytes, now)
        } else {
            self.queued -= partial.len();
            partial.extend_from_slice(bytes);
            self.packets(id, &partial, now)
        };
        let Some(connection) = self.connections.get_mut(id) else { return };
        if rest == 0 || matches!(connection.stage, Stage::Closing) {
            return;
        }
        if partial.is_empty() {
            partial.extend_from_slice(&bytes[bytes.len() - rest..]);
        } else {
            partial.drain(..partial.len() - rest);
            partial.shrink_to(2 * rest);
        }
        self.queued += rest;
        connection.partial = partial;
        // Packets that never end take the room of those that wait for everybody.
        if rest > 4096 && self.queued > self.limits.queued_bytes {
            self.fault(id, fault(Reason::QuotaExceeded, "too much waits for all clients together"), now);
        }
    }

    /// Takes packets from the front, and says how many bytes are left.
    fn packets(&mut self, id: usize, bytes: &[u8], now: Instant) -> usize {
        let mut rest = bytes;
        loop {
            let Some(connection) = self.connections.get_mut(id) else { return 0 };
            match connection.stage {
                Stage::Closing => return 0,
                // What comes behind CONNECT waits until it is answered.
                Stage::Authenticating(_) => return rest.len(),
                Stage::New | Stage::Open(_) => {}
            }
            // CONNECT is short, and comes from anybody.
            let (first, head, end) = match codec::frame(rest, self.limits.packet) {
                Ok(Some(frame)) => frame,
                Ok(None) => return rest.len(),
                Err(why) => {
                    self.fault(id, why, now);
                    return 0;
                }
            };
            if matches!(connection.stage, Stage::New) && first != 0x10 {
                // [MQTT-3.1.0-1]
                self.fault(id, fault(Reason::ProtocolError, "the first packet is no CONNECT"), now);
                return 0;
            }
            let Some(body) = rest.get(head..end) else { return rest.len() };
            connection.heard = now;
            let (protocol, stage) = (connection.protocol, &connection.stage);
            match stage {
                Stage::Open(session) => {
                    let session = *session;
                    let outcome = codec::packet(protocol, first, body)
                        .and_then(|packet| self.packet(id, session, packet, now));
                    if let Err(why) = outcome {
                        self.fault(id, why, now);
                    }
                }
                _ => self.hello(id, body, now),
            }
            rest = &rest[end..];
        }
    }

    fn packet(&mut self, id: usize, session: usize, packet: Incoming, now: Instant) -> Result<(), Fault> {
        match packet {
            Incoming::Publish(publish) => self.publish(id, session, publish, now),
            Incoming::Puback(pid) => {
                self.acknowledged(session, pid, now);
                Ok(())
            }
            Incoming::Pubrec(pid, code) => {
                self.pubrec(id, session, pid, code, now);
                Ok(())
            }
            Incoming::Pubrel(pid) => {
                self.pubrel(id, session, pid, now);
                Ok(())
            }
            Incoming::Pubcomp(pid) => {
                self.completed(session, pid, now);
                Ok(())
            }
            Incoming::Subscribe(subscribe) => self.subscribe(id, session, subscribe, now),
            Incoming::Unsubscribe(unsubscribe) => {
                self.unsubscribe(id, session, unsubscribe, now);
                Ok(())
            }
            Incoming::Ping => {
                self.write(id, codec::put_pong);
                Ok(())
            }
            Incoming::Disconnect(disconnect) => self.disconnect(id, session, &disconnect, now),
            Incoming::Auth => Err(fault(Reason::ProtocolError, "no authentication is going on")),
        }
    }

    /// Whether the connection is to be read from: not while its password is looked at, nor while it does not take what it
    /// is sent.
    pub fn wants_more(&self, ConnectionId(id): ConnectionId) -> bool {
        self.connections.get(id).is_some_and(|connection| match connection.stage {
            Stage::New | Stage::Open(_) => connection.out.len() <= self.limits.queue_bytes,
            Stage::Authenticating(_) | Stage::Closing => false,
        })
    }

    /// Whether its client has published anything: where the way to the other brokers is full, such clients are not read
    /// meanwhile.
    pub fn publishes(&self, ConnectionId(id): ConnectionId) -> bool {
        self.connections.get(id).is_some_and(|connection| connection.publishes)
    }

    /// What is to be written to a connection now. To be called again once it is written, until there is nothing.
    pub fn take(&mut self, ConnectionId(id): ConnectionId, now: Instant) -> Output {
        let Some(connection) = self.connections.get_mut(id) else {
            return Output { close: true, ..Output::default() };
        };
        connection.woken = false;
        if let Stage::Open(session) = connection.stage {
            self.pump(session, now);
        }
        let Some(connection) = self.connections.get_mut(id) else { return Output::default() };
        let bytes = mem::take(&mut connection.out);
        connection.woken = false;
        self.queued -= bytes.len();
        Output { bytes, close: matches!(connection.stage, Stage::Closing) }
    }

    /// The connection is gone; its id stands for nothing any more.
    pub fn closed(&mut self, ConnectionId(id): ConnectionId, now: Instant) {
        let Some(connection) = self.connections.try_remove(id) else { return };
        self.queued -= connection.out.len() + connection.partial.len();
        self.disarm(connection.armed, Timer::Silence(id, connection.serial));
        if let Stage::Open(session) = connection.stage {
            self.leave(session, now);
        }
    }

    /// Closes all connections, as if they had broken: wills are published, and sessions end that do not outlive theirs.
    pub fn close_all(&mut self, now: Instant) {
        let open: Vec<_> = self.connections.iter().map(|(id, _)| id).collect();
        for id in open {
            self.shut(id, now);
        }
        self.save_all(now);
        self.say_goodbye();
    }

    /// The next thing to do. To be called until there is none, after each other call.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// A message came from another broker of the space; `node` is what tells that one from others.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_mesh(&mut self, node: u64, data: &Bytes, now: Instant) -> Result<(), mesh::Unreadable> {
        let (message, stamp, will) = mesh::open(data, now)?;
        self.stats.from_mesh += 1;
        self.heed(stamp, now);
        if will.is_none_or(|will| self.is_new_will(will)) {
            self.take_in(Arc::new(message), None, Rank { stamp, node }, Whence::Mesh, now);
        }
        Ok(())
    }

    /// The same of a message that was missed when it was live. At QoS 0 it is not given to anybody any more.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_memory(&mut self, node: u64, data: &Bytes, now: Instant) -> Result<(), mesh::Unreadable> {
        let (message, _) = mesh::decode(data, now)?;
        if message.qos == Qos::AtMostOnce && !message.retain {
            self.stats.from_mesh += 1;
            return Ok(());
        }
        self.from_mesh(node, data, now)
    }

    /// What this broker says from now on is later than that. One clock that runs ahead takes the others along by a day at
    /// most.
    fn heed(&mut self, stamp: u64, now: Instant) {
        self.last_stamp = self.last_stamp.max(stamp.min(self.time(now) + 86_400_000_000));
    }

    /// What is to be known everywhere is written into the maps that all brokers of the space keep, by [`Action::Keep`], and
    /// learned from there.
    pub fn share(&mut self, now: Instant) {
        self.shares = true;
        self.others.beat = Some(now);
    }

    /// What a map has of a key, also what this broker wrote itself: the value, or that it was deleted; and which broker wrote
    /// that, and when, in microseconds since 1970. Whether it is what brokers write.
    pub fn learn(
        &mut self,
        map: Map,
        key: &[u8],
        value: Option<&[u8]>,
        (by, sent): (u64, u64),
        now: Instant,
    ) -> bool {
        match map {
            Map::Retained => self.learn_retained(key, value, sent, now),
            Map::Clients => self.learn_client(key, value, (by, sent), now),
        }
    }

    /// A map let a key go, because there are too many, or this node was away for too long.
    pub fn gave_way(&mut self, map: Map, key: &[u8]) {
        match map {
            Map::Retained => self.retained_gave_way(key),
            Map::Clients => self.client_gave_way(key),
        }
    }

    /// A message that did not come from a client: from elsewhere than the space, for the clients of this broker alone.
    pub fn inject(&mut self, message: Message, now: Instant) {
        let rank = Rank { stamp: self.stamp(now), node: self.node };
        self.take_in(Arc::new(message), None, rank, Whence::Client, now);
    }

    /// Topics of which [`Action::Publish`] is all that becomes of a client's message: clients here get it when it comes back by
    /// [`inject`](Self::inject). What is published on them is not retained.
    pub fn set_elsewhere(&mut self, topics: HashSet<String>) {
        self.elsewhere = topics;
    }

    /// Changes who may do what. Clients whose user is there no more are closed.
    pub fn set_access(&mut self, access: Access, now: Instant) {
        self.access = access;
        let gone: Vec<_> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| {
                let Stage::Open(session) = connection.stage else { return None };
                let user = self.sessions.get(session)?.user.as_deref();
                let stays = match (user, &self.access.users) {
                    (Some(user), Some(users)) => users.contains(user),
                    (Some(_), None) | (None, _) => self.access.anonymous,
                };
                (!stays).then_some(id)
            })
            .collect();
        for id in gone {
            self.fault(id, fault(Reason::NotAuthorized, "who may connect has changed"), now);
        }
    }

    /// What there is, and was.
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.connections.len(),
            sessions: self.sessions.len(),
            subscriptions: self.sessions.iter().map(|(_, session)| session.subscriptions.len()).sum(),
            retained: self.retained.len(),
            retained_bytes: self.retained.bytes(),
            queued_bytes: self.queued,
            others: self.nodes.there().count(),
            ..self.stats
        }
    }

    /// The connected clients.
    pub fn clients(&self) -> impl Iterator<Item = ClientInfo> {
        self.connections.iter().filter_map(|(_, connection)| {
            let Stage::Open(session) = connection.stage else { return None };
            let session = self.sessions.get(session)?;
            Some(ClientInfo {
                id: session.client.clone(),
                user: session.user.clone(),
                version: connection.protocol as u8,
                subscriptions: session.subscriptions.len(),
                waiting: session.inflight.len() + session.queue.len(),
            })
        })
    }

    fn serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }

    /// Microseconds since 1970.
    fn time(&self, now: Instant) -> u64 {
        let (then, time) = self.clock;
        let ahead = u64::try_from(now.saturating_duration_since(then).as_micros()).unwrap_or(u64::MAX);
        let behind = u64::try_from(then.saturating_duration_since(now).as_micros()).unwrap_or(u64::MAX);
        time.saturating_add(ahead).saturating_sub(behind)
    }

    fn stamp(&mut self, now: Instant) -> u64 {
        self.last_stamp = self.time(now).max(self.last_stamp + 1);
        self.last_stamp
    }

    /// Appends to what is to be written to a connection.
    fn write(&mut self, id: usize, put: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if matches!(connection.stage, Stage::Closing) {
            return;
        }
        let before = connection.out.len();
        put(&mut connection.out);
        self.queued += connection.out.len() - before;
        wake(connection, &mut self.actions, id);
    }

    /// Closes a connection for what it did, with the reason where it speaks MQTT 5.
    fn fault(&mut self, id: usize, why: Fault, now: Instant) {
        self.stats.faults += 1;
        self.farewell(id, why, now);
    }

    /// Closes a connection, with the reason where it speaks MQTT 5.
    fn farewell(&mut self, id: usize, Fault { reason, why }: Fault, now: Instant) {
        let Some(connection) = self.connections.get(id) else { return };
        let (protocol, wants) = (connection.protocol, connection.wants_reasons);
        // Nothing is said before CONNACK ([MQTT-4.13] lets the server close).
        if matches!(connection.stage, Stage::Open(_)) {
            self.write(id, |out| codec::put_disconnect(out, protocol, reason, wants.then_some(why)));
        }
        self.shut(id, now);
    }

    /// Closes a connection once what waits is written, and leaves its session now.
    fn shut(&mut self, id: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let stage = mem::replace(&mut connection.stage, Stage::Closing);
        self.queued -= mem::take(&mut connection.partial).len();
        wake(connection, &mut self.actions, id);
        if let Stage::Open(session) = stage {
            self.leave(session, now);
        }
    }
}

fn wake(connection: &mut Connection, actions: &mut VecDeque<Action>, id: usize) {
    if !mem::replace(&mut connection.woken, true) {
        actions.push_back(Action::Wake(ConnectionId(id)));
    }
}
