//! The sessions of a node among its other behaviours.

mod confirming;
mod sessions;

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use ring::rand::SystemRandom;
use smidge_catchup::{Limits, frame::FRAME};

use super::{
    book::Book,
    confirm::{Confirmed, Confirms},
    durable::{Durable, Report},
    handler::{self, Handler},
    maps::Maps,
    record::Record,
    scheduler::{Outcome, Scheduler},
    session::{Key, Session},
    touched::Touched,
    wall,
};
use crate::{
    gossip::Verifier,
    runtime::{Handle, Timer},
    store::FileStatus,
};

/// The timer rings that often while there are neighbours; where it rings later than by that much, this process stood still.
const TICK: Duration = Duration::from_secs(5);
const FROZEN: Duration = Duration::from_secs(3);
/// Bytes of records sent in a second in one session.
const RATE: u64 = 8 << 20;
/// What a signed message has beside its payload: topic, author and its key, number, signature.
const ENVELOPE: usize = 2048;

/// What was found out.
#[derive(Debug)]
pub(crate) enum Event {
    /// Messages whose signatures hold, in order: to be judged as live ones, kept and delivered.
    Recovered { from: PeerId, records: Vec<Record> },
    /// What became of a commit of what is durable.
    Saved(Report),
    /// This node was away for longer than deletions are remembered: these values of it are no more.
    ThrownAway { topic: String, keys: Vec<Arc<[u8]>> },
    /// What came of a message that others were to confirm.
    Confirmed(Confirmed),
}

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// `gossip.max_message`.
    pub(crate) max_message: usize,
    /// Bytes of all memories.
    pub(crate) kept: usize,
}

/// The file of what is durable.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    /// Least time between two commits.
    pub(crate) every: Duration,
}

#[derive(Default)]
struct Peer {
    /// Oldest first.
    connections: Vec<ConnectionId>,
    /// Sessions that were answered since.
    since: Option<Instant>,
    served: u32,
}

pub(crate) struct Behaviour {
    book: Touched<Book>,
    settings: Settings,
    scheduler: Scheduler,
    peers: HashMap<PeerId, Peer>,
    sessions: HashMap<Key, Session>,
    verifier: Verifier,
    random: SystemRandom,
    /// Number of the next stream of ours.
    next: u64,
    actions: VecDeque<ToSwarm<Event, handler::Command>>,
    runtime: Handle,
    /// Where there is a file.
    durable: Option<Durable>,
    confirms: Confirms,
    /// Streams of questions about our messages, and what they are about.
    asking: HashMap<Key, (PeerId, String)>,
    asks_soon: bool,
    /// Questions of others that wait, and when it was looked whether they still have to.
    held: HashMap<Key, confirming::Held>,
    looked: Instant,
    timer: Box<dyn Timer>,
    /// When the timer rings.
    armed: Option<Instant>,
    waker: Option<Waker>,
}

impl Behaviour {
    pub(crate) fn new(settings: Settings, local: PeerId, runtime: Handle, mut rng: fastrand::Rng) -> Self {
        Self {
            book: Touched::new(Book::new(rng.u32(..), settings.kept)),
            settings,
            scheduler: Scheduler::new(local, rng),
            peers: HashMap::new(),
            sessions: HashMap::new(),
            verifier: Verifier::new(64),
            random: SystemRandom::new(),
            next: 0,
            actions: VecDeque::new(),
            durable: None,
            confirms: Confirms::default(),
            asking: HashMap::new(),
            asks_soon: false,
            held: HashMap::new(),
            looked: runtime.now(),
            timer: runtime.timer(),
            runtime,
            armed: None,
            waker: None,
        }
    }

    /// Reads what a run before remembered, after [`Book::configure`], and keeps what is durable in that file from now on.
    /// Blocks until all is read.
    pub(crate) fn save_to(&mut self, file: File, own: PeerId) {
        self.durable = Some(Durable::new(file.path, file.every, own, &self.runtime, &mut self.book));
    }

    /// The file of what is durable, if there is to be one.
    pub(crate) fn file(&self) -> Option<FileStatus> {
        self.durable.as_ref()?.status(&self.book)
    }

    /// Writes what is not written and closes the file.
    pub(crate) fn close(&mut self) -> BoxFuture<'static, ()> {
        match self.durable.take() {
            Some(durable) => durable.close(&mut self.book),
            None => async {}.boxed(),
        }
    }

    pub(crate) fn book(&self) -> &Book {
        &self.book
    }

    pub(crate) fn book_mut(&mut self) -> &mut Book {
        &mut self.book
    }

    /// After [`Book::configure`].
    pub(crate) fn configured(&mut self) {
        let book = &self.book;
        self.scheduler.retain(|topic| book.keeps(topic));
        let gone: Vec<_> =
            self.sessions.iter().filter(|(_, s)| !book.keeps(&s.topic)).map(|(k, _)| *k).collect();
        for key in gone {
            self.finish(key, None, Outcome::Broke);
        }
        self.wake();
    }

    /// A connected peer follows a topic.
    pub(crate) fn follows(&mut self, peer: PeerId, topic: &str) {
        if self.book.keeps(topic) && self.peers.contains_key(&peer) {
            self.scheduler.met(peer, topic, self.runtime.now());
            self.wake();
        }
    }

    /// A peer follows a topic no longer.
    pub(crate) fn left(&mut self, peer: &PeerId, topic: &str) {
        self.scheduler.left(peer, topic);
    }

    /// What was on its way between a peer and us may be lost.
    pub(crate) fn missed(&mut self, peer: &PeerId) {
        self.scheduler.missed(Some(peer), self.runtime.now());
        self.wake();
    }

    /// What a peer gave is kept now: others may lack it, unless it was sent a moment ago.
    pub(crate) fn learned(&mut self, from: &PeerId, record: &Record) {
        if self.book.is_settled(&record.item(), wall()) {
            self.scheduler.learned(record.wire.topic(), from, self.runtime.now());
            self.wake();
        }
    }

    /// The same of a value by key.
    pub(crate) fn learned_value(&mut self, from: &PeerId, record: &Record) {
        if Maps::is_settled(record, self.book.times(wall())) {
            self.scheduler.learned(record.wire.topic(), from, self.runtime.now());
            self.wake();
        }
    }

    fn limits(&self) -> Limits {
        let record = self.settings.max_message + ENVELOPE;
        // As many as there is room for, and some that go while others come.
        let most = self.settings.kept / smidge_catchup::Memory::OVERHEAD + 4096;
        Limits { record, rate: RATE, messages: most as u64, ..Limits::default() }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn command(&mut self, key: Key, peer: PeerId, event: handler::Command) {
        self.actions.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(key.0),
            event,
        });
        self.wake();
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.runtime.now();
        let sessions = self.sessions.values().filter_map(|session| session.wake).min();
        let due = self.scheduler.deadline(|topic| self.free(topic, now));
        let tick = due.is_some().then_some(now + TICK);
        let confirming = self.confirming_deadline(now);
        let at = [sessions, due, tick, confirming].into_iter().flatten().min();
        // It is not put off, also where it has come: this may be polled before the timer is.
        let at = match (self.armed, at) {
            (Some(armed), Some(at)) => Some(armed.min(at)),
            (_, at) => at,
        };
        self.timer.set(at);
        self.armed = at;
        self.timer.poll(cx).is_ready()
    }

    fn on_timer(&mut self) {
        let now = self.runtime.now();
        if self.armed.take().is_some_and(|at| now >= at + FROZEN) {
            log::debug!("this process stood still: neighbours are asked what it missed");
            self.scheduler.missed(None, now);
        }
        let common = self.book.times(wall()).common;
        for topic in self.scheduler.shared() {
            if let Some(presence) = self.book.maps.presence(topic) {
                presence.touch(common);
            }
        }
        let due = |session: &Session| session.wake.is_some_and(|at| at <= now);
        let due: Vec<_> =
            self.sessions.iter().filter(|(_, session)| due(session)).map(|(key, _)| *key).collect();
        for key in due {
            if let Some(session) = self.sessions.get_mut(&key) {
                session.wake = None;
            }
            self.drive(key, now);
        }
        self.begin(now);
        self.on_confirming_timer(now);
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
        Ok(Handler::new(self.limits().longest().max(FRAME)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.limits().longest().max(FRAME)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(e) => {
                self.peers.entry(e.peer_id).or_default().connections.push(e.connection_id);
            }
            FromSwarm::ConnectionClosed(e) => {
                let connection = e.connection_id;
                let of = |key: &&Key| key.0 == connection;
                let broken: Vec<_> = self.sessions.keys().filter(of).copied().collect();
                for key in broken {
                    if let Some(session) = self.sessions.get_mut(&key) {
                        session.is_open = false;
                    }
                    self.finish(key, None, Outcome::Broke);
                }
                self.forget_asking(connection, self.runtime.now());
                let Some(peer) = self.peers.get_mut(&e.peer_id) else { return };
                peer.connections.retain(|other| *other != connection);
                if peer.connections.is_empty() {
                    self.peers.remove(&e.peer_id);
                    self.peers.shrink_to(64.max(self.peers.len() * 2));
                    self.scheduler.gone(&e.peer_id);
                    self.confirms.gone(&e.peer_id);
                    self.book.forget(&e.peer_id);
                } else {
                    // What was on its way over the one that closed may be lost.
                    self.missed(&e.peer_id);
                }
            }
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
            handler::Report::Frame { stream, frame } => self.on_frame((connection, stream), peer, &frame),
            handler::Report::Failed { stream } => {
                if !self.lost_asking((connection, stream), self.runtime.now()) {
                    self.finish((connection, stream), None, Outcome::Broke);
                }
            }
            handler::Report::Unsupported { stream } => {
                self.lost_asking((connection, stream), self.runtime.now());
                self.finish((connection, stream), None, Outcome::Broke);
                self.scheduler.gone(&peer);
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Poll::Ready(action);
            }
            let now = self.runtime.now();
            if self.fill(now) || self.verify(now) {
                if self.actions.is_empty() {
                    // One slice a turn.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                continue;
            }
            if std::mem::take(&mut self.asks_soon) {
                self.ask(now);
                continue;
            }
            if let Some(durable) = &mut self.durable
                && let Poll::Ready(report) = durable.poll(&mut self.book, cx)
            {
                // What was asked about may be on the disk now.
                self.answer_held(now);
                return Poll::Ready(ToSwarm::GenerateEvent(Event::Saved(report)));
            }
            if !self.poll_timer(cx) {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            self.on_timer();
        }
    }
}

#[cfg(test)]
mod tests;
