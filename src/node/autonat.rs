//! Whether the addresses that others see this node at lead back to it: AutoNAT v2 (libp2p/specs
//! autonat/autonat-v2.md), asking and answering.
//!
//! A probe is one more connection between two peers that are connected already. This wrapper knows which ones
//! are: they are closed when they have done their work, and none is taken for a peer that came back.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    autonat::v2::{client, server},
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour,
        NewExternalAddrCandidate, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};

use super::{dial_guard::DialGuard, forward::ask_inner_of_connections};
use crate::{runtime, transport::multiaddr::is_circuit};

/// Addresses that are asked about in a node's life. A peer that we dial can invent some; each is asked about once.
const MAX_CANDIDATES: usize = 64;
/// How long a connection from a peer that was asked may be the answer.
const EXPECTED: Duration = Duration::from_secs(15);
/// Simultaneous dials and connections for others.
const MAX_ANSWERS: usize = 16;

/// Asks others.
pub(crate) struct Client {
    inner: client::Behaviour,
    candidates: BTreeSet<Multiaddr>,
    /// The peers that were asked, and when.
    asked: HashMap<PeerId, Instant>,
    /// Connections that are answers.
    answers: HashSet<ConnectionId>,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            inner: client::Behaviour::default(),
            candidates: BTreeSet::new(),
            asked: HashMap::new(),
            answers: HashSet::new(),
        }
    }

    /// Whether this connection was made to find out whether it can be.
    pub(crate) fn is_probe(&self, connection: &ConnectionId) -> bool {
        self.answers.contains(connection)
    }

    /// A peer sees this node at `address`.
    pub(crate) fn observed(&mut self, address: &Multiaddr) {
        let is_new = !self.candidates.contains(address);
        if is_circuit(address) || (is_new && self.candidates.len() >= MAX_CANDIDATES) {
            return;
        }
        self.candidates.insert(address.clone());
        let candidate = NewExternalAddrCandidate { addr: address };
        self.inner.on_swarm_event(FromSwarm::NewExternalAddrCandidate(candidate));
    }
}

impl NetworkBehaviour for Client {
    type ConnectionHandler = THandler<client::Behaviour>;
    type ToSwarm = client::Event;

    ask_inner_of_connections!();

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::NewExternalAddrCandidate(candidate) => return self.observed(candidate.addr),
            FromSwarm::ConnectionEstablished(made) => {
                let asked = self.asked.get(&made.peer_id);
                if made.endpoint.is_listener() && asked.is_some_and(|at| at.elapsed() < EXPECTED) {
                    self.answers.insert(made.connection_id);
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.answers.remove(&closed.connection_id);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let event = self.inner.poll(cx);
        if let Poll::Ready(ToSwarm::NotifyHandler { peer_id, .. }) = &event {
            self.asked.retain(|_, at| at.elapsed() < EXPECTED);
            self.asked.insert(*peer_id, runtime::now());
        }
        event
    }
}

/// Why somebody who asks is not dialed back.
#[derive(Debug, thiserror::Error)]
#[error("whoever asks to be dialed there could not reach that address")]
struct Unreachable;

/// Answers others: dials them where they ask to be dialed, which libp2p makes them pay for where it is not where they
/// are seen, and never where they could not reach anybody themselves.
pub(crate) struct Server {
    inner: server::Behaviour,
    guard: DialGuard,
    /// Where direct connections come from.
    remotes: HashMap<ConnectionId, (PeerId, Multiaddr)>,
    /// Dials and connections for others, each with the peer that asked.
    answers: HashMap<ConnectionId, PeerId>,
    /// Those that have done their work.
    done: VecDeque<(PeerId, ConnectionId)>,
}

impl Server {
    pub(crate) fn new(guard: DialGuard) -> Self {
        Self {
            inner: server::Behaviour::default(),
            guard,
            remotes: HashMap::new(),
            answers: HashMap::new(),
            done: VecDeque::new(),
        }
    }

    /// Whether `peer`, which asks for it, may be dialed back at `address`.
    fn may_answer(&self, peer: &PeerId, address: &Multiaddr) -> bool {
        let mut own = self.remotes.values().filter(|(there, _)| there == peer);
        !is_circuit(address) && own.any(|(_, remote)| self.guard.may_tell(address, remote))
    }

    /// Whether this connection was made to find out whether it can be.
    pub(crate) fn is_probe(&self, connection: &ConnectionId) -> bool {
        self.answers.contains_key(connection)
    }
}

impl NetworkBehaviour for Server {
    type ConnectionHandler = THandler<server::Behaviour>;
    type ToSwarm = server::Event;

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let Some(peer) = self.answers.get(&connection) else { return Ok(Vec::new()) };
        if addresses.iter().all(|address| self.may_answer(peer, address)) {
            return Ok(Vec::new());
        }
        Err(ConnectionDenied::new(Unreachable))
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::DialFailure(DialFailure { connection_id, .. }) => {
                self.answers.remove(connection_id);
            }
            FromSwarm::ConnectionEstablished(made) if !made.endpoint.is_relayed() => {
                let remote = made.endpoint.get_remote_address().clone();
                self.remotes.insert(made.connection_id, (made.peer_id, remote));
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.answers.remove(&closed.connection_id);
                self.remotes.remove(&closed.connection_id);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if self.answers.contains_key(&connection) {
            self.done.push_back((peer, connection));
        }
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection)) = self.done.pop_front() {
            return Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(connection),
            });
        }
        while let Poll::Ready(event) = self.inner.poll(cx) {
            let ToSwarm::Dial { opts } = event else { return Poll::Ready(event) };
            let (connection, peer) = (opts.connection_id(), opts.get_peer_id());
            match peer {
                Some(peer) if self.answers.len() < MAX_ANSWERS => {
                    self.answers.insert(connection, peer);
                    return Poll::Ready(ToSwarm::Dial { opts });
                }
                peer_id => self.inner.on_swarm_event(FromSwarm::DialFailure(DialFailure {
                    peer_id,
                    error: &DialError::Aborted,
                    connection_id: connection,
                })),
            }
        }
        Poll::Pending
    }
}
