//! Pings: `/ipfs/ping/1.0.0` (libp2p/specs ping/ping.md).
//!
//! Pings at an interval, on request and over one particular connection take turns, so that no other side ever
//! sees two streams of ours. libp2p's own behaviour answers one stream of a peer at a time and resets
//! the one before; a peer whose monitor pings beside its user (js-libp2p) ends the connection on that. Never
//! closes a connection.

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    task::{Context, Poll, Waker},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dial_opts::DialOpts,
    },
};

use crate::runtime::Handle;

mod handler;

pub(crate) use handler::Handler;

/// A ping that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Request(u64);

/// Why a ping that was asked for did not come back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the peer does not answer pings")]
    Unsupported,
    #[error("the connection was closed")]
    Closed,
    #[error("Failed to dial the requested peer")]
    NotConnected,
    #[error("too many pings are under way to it")]
    TooMany,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What pings tell the node.
#[derive(Debug)]
pub(crate) enum Event {
    /// How the ping at an interval went.
    Interval(libp2p::ping::Event),
    /// How a ping went that was asked for.
    Answer { request: Request, peer: PeerId, result: Result<Duration, Failure> },
}

/// How often, and how long one may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Between a ping that came back and the next.
    pub(crate) interval: Duration,
    /// Until a ping at an interval is given up.
    pub(crate) patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: Duration::from_secs(15), patience: Duration::from_secs(20) }
    }
}

pub(crate) struct Behaviour {
    config: Config,
    runtime: Handle,
    /// Standing connections, oldest first.
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    /// Requests that wait for a connection.
    dialing: HashMap<PeerId, Vec<(Request, Duration)>>,
    /// Requests that a connection was given.
    under_way: HashMap<Request, (PeerId, ConnectionId)>,
    next: u64,
    actions: VecDeque<ToSwarm<Event, handler::Command>>,
    waker: Option<Waker>,
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ping::Behaviour").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}

impl Behaviour {
    pub(crate) fn new(config: Config, runtime: Handle) -> Self {
        Self {
            config,
            runtime,
            connections: HashMap::new(),
            dialing: HashMap::new(),
            under_way: HashMap::new(),
            next: 0,
            actions: VecDeque::new(),
            waker: None,
        }
    }

    /// Pings a peer over its newest connection; one that is not connected is dialed first.
    pub(crate) fn ping(&mut self, peer: PeerId, within: Duration) -> Request {
        let request = self.request();
        match self.connections.get(&peer).and_then(|connections| connections.last().copied()) {
            Some(connection) => self.send(request, peer, connection, within),
            None => {
                self.dialing.entry(peer).or_default().push((request, within));
                self.act(ToSwarm::Dial { opts: DialOpts::peer_id(peer).build() });
            }
        }
        request
    }

    /// Pings a peer over one of its connections: whether it is alive.
    pub(crate) fn ask(&mut self, peer: PeerId, connection: ConnectionId, within: Duration) -> Request {
        let request = self.request();
        self.send(request, peer, connection, within);
        request
    }

    fn request(&mut self) -> Request {
        self.next += 1;
        Request(self.next)
    }

    fn send(&mut self, request: Request, peer: PeerId, connection: ConnectionId, within: Duration) {
        self.under_way.insert(request, (peer, connection));
        self.act(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: handler::Command { request, within },
        });
    }

    fn act(&mut self, action: ToSwarm<Event, handler::Command>) {
        self.actions.push_back(action);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn fail(&mut self, request: Request, peer: PeerId, failure: Failure) {
        self.act(ToSwarm::GenerateEvent(Event::Answer { request, peer, result: Err(failure) }));
    }

    fn handler(&self) -> Handler {
        Handler::new(self.config, self.runtime.clone())
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
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(e) => {
                self.connections.entry(e.peer_id).or_default().push(e.connection_id);
                for (request, within) in self.dialing.remove(&e.peer_id).unwrap_or_default() {
                    self.send(request, e.peer_id, e.connection_id, within);
                }
            }
            FromSwarm::ConnectionClosed(e) => {
                if let Some(connections) = self.connections.get_mut(&e.peer_id) {
                    connections.retain(|connection| *connection != e.connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&e.peer_id);
                        self.connections.shrink_to(64.max(self.connections.len() * 2));
                    }
                }
                let lost = self.under_way.extract_if(|_, (_, connection)| *connection == e.connection_id);
                for (request, (peer, _)) in lost.collect::<Vec<_>>() {
                    self.fail(request, peer, Failure::Closed);
                }
            }
            FromSwarm::DialFailure(e) => {
                // Another dial to the same peer, which is under way, answers for both.
                if let libp2p::swarm::DialError::DialPeerConditionFalse(_) = e.error {
                    return;
                }
                let Some(peer) = e.peer_id else { return };
                for (request, _) in self.dialing.remove(&peer).unwrap_or_default() {
                    self.fail(request, peer, Failure::NotConnected);
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
        let event = match event {
            handler::Report::Interval(result) => {
                Event::Interval(libp2p::ping::Event { peer, connection, result })
            }
            handler::Report::Answer { request, result } => {
                if self.under_way.remove(&request).is_none() {
                    return;
                }
                Event::Answer { request, peer, result }
            }
        };
        self.act(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(action) = self.actions.pop_front() {
            return Poll::Ready(action);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
