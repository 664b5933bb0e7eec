//! Direct connections in the place of relayed ones: DCUtR (libp2p/specs relay/DCUtR.md).
//!
//! libp2p's behaviour notes every attempt for good, and makes as many of them as a peer asks for. Here each
//! relayed connection has one of its own, which goes when the connection does, and a bound on its attempts.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    dcutr,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NewExternalAddrCandidate, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};

use super::dial_guard::DialGuard;
use crate::{runtime, transport::multiaddr::is_circuit};

/// Dials for one relayed connection: libp2p's own three attempts, and as many that the peer may ask for.
const MAX_DIALS: u8 = 6;
/// Addresses of ours that are sent to a peer, those seen last.
const MAX_CANDIDATES: usize = 16;

/// What is done about one relayed connection.
struct Punch {
    inner: dcutr::Behaviour,
    dials: u8,
    /// The relayed connection's address: it says where the relay is.
    through: Multiaddr,
}

pub(crate) struct Behaviour {
    local: PeerId,
    /// Where others see us.
    candidates: VecDeque<Multiaddr>,
    /// By relayed connection.
    punches: HashMap<ConnectionId, Punch>,
    /// Dials under way, and for which relayed connection.
    dials: HashMap<ConnectionId, ConnectionId>,
    /// Peers that are connected directly: there, no hole is wanted any more.
    direct: HashMap<ConnectionId, PeerId>,
    /// Until when no peer is dialed through a relay while there is no candidate.
    hold: Instant,
    waker: Option<Waker>,
    guard: DialGuard,
}

/// Why a relayed connection is not made yet. A peer that got no address could not dial us.
#[derive(Debug, thiserror::Error)]
#[error("no relay has reported yet where it sees this node")]
struct NotSeen;

impl Behaviour {
    /// No peer is dialed through a relay before a candidate is known, or `hold` is over.
    pub(crate) fn new(local: PeerId, hold: Duration, guard: DialGuard) -> Self {
        Self {
            guard,
            hold: runtime::now() + hold,
            local,
            candidates: VecDeque::new(),
            punches: HashMap::new(),
            dials: HashMap::new(),
            direct: HashMap::new(),
            waker: None,
        }
    }

    /// A peer sees this node at `candidate`.
    pub(crate) fn observed(&mut self, candidate: &Multiaddr) {
        if is_circuit(candidate) {
            return;
        }
        self.candidates.retain(|known| known != candidate);
        self.candidates.push_back(candidate.clone());
        if self.candidates.len() > MAX_CANDIDATES {
            self.candidates.pop_front();
        }
    }

    fn begin(&self) -> dcutr::Behaviour {
        let mut inner = dcutr::Behaviour::new(self.local);
        for addr in &self.candidates {
            inner.on_swarm_event(FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr }));
        }
        inner
    }

    /// The punch that a direct connection, or the dial of one, belongs to.
    fn of_dial(&mut self, dial: &ConnectionId) -> Option<&mut dcutr::Behaviour> {
        let relayed = self.dials.remove(dial)?;
        self.punches.get_mut(&relayed).map(|punch| &mut punch.inner)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<dcutr::Behaviour>;
    type ToSwarm = dcutr::Event;

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let relayed = !addresses.is_empty() && addresses.iter().all(is_circuit);
        if relayed && self.candidates.is_empty() && runtime::now() < self.hold {
            return Err(ConnectionDenied::new(NotSeen));
        }
        if let Some(punch) = self.dials.get(&connection).and_then(|relayed| self.punches.get(relayed)) {
            // The peer says where it is seen.
            let believed = |address: &&Multiaddr| self.guard.may_tell(address, &punch.through);
            let kept: Vec<_> = addresses.iter().filter(believed).take(MAX_CANDIDATES).collect();
            self.guard.leave_out(addresses.iter().filter(|address| !kept.contains(address)).cloned());
        }
        Ok(Vec::new())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !is_circuit(local) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        let mut inner = self.begin();
        let handler = inner.handle_established_inbound_connection(connection, peer, local, remote);
        self.punches.insert(connection, Punch { inner, dials: 0, through: local.clone() });
        handler
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if is_circuit(remote) {
            let mut inner = self.begin();
            let handler =
                inner.handle_established_outbound_connection(connection, peer, remote, role, port_use);
            self.punches.insert(connection, Punch { inner, dials: 0, through: remote.clone() });
            return handler;
        }
        let made = self.of_dial(&connection).map(|inner| {
            inner.handle_established_outbound_connection(connection, peer, remote, role, port_use)
        });
        self.wake();
        made.unwrap_or(Ok(Either::Right(dummy::ConnectionHandler)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr }) => self.observed(addr),
            FromSwarm::DialFailure(failure) => {
                if let Some(inner) = self.of_dial(&failure.connection_id) {
                    inner.on_swarm_event(event);
                    self.wake();
                }
            }
            FromSwarm::ConnectionEstablished(made) if !made.endpoint.is_relayed() => {
                self.direct.insert(made.connection_id, made.peer_id);
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.direct.remove(&closed.connection_id);
                self.punches.remove(&closed.connection_id);
                self.dials.retain(|_, relayed| *relayed != closed.connection_id);
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
        if let Some(punch) = self.punches.get_mut(&connection) {
            punch.inner.on_connection_handler_event(peer, connection, event);
            self.wake();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        for (relayed, punch) in &mut self.punches {
            while let Poll::Ready(event) = punch.inner.poll(cx) {
                let ToSwarm::Dial { opts } = event else { return Poll::Ready(event) };
                let is_wanted = opts.get_peer_id().is_some_and(|p| !self.direct.values().any(|d| *d == p));
                if is_wanted && punch.dials < MAX_DIALS {
                    punch.dials += 1;
                    self.dials.insert(opts.connection_id(), *relayed);
                    return Poll::Ready(ToSwarm::Dial { opts });
                }
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
