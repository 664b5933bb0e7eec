//! The dialer with [`Places`] around it: says whose a connection is, and refuses those that have no place.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    ops::{Deref, DerefMut},
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

use super::{Kind, Places, Recent, Shares, VISIT};
use crate::{
    dialer,
    transport::multiaddr::{host, peer_ip},
};

/// The dialer, and the places that are kept for the peers it wants.
pub(crate) struct Behaviour {
    inner: dialer::Behaviour,
    places: Places,
    /// Peers that an earlier run knew.
    remembered: BTreeSet<PeerId>,
    /// Peers that a name led to.
    known: Recent<PeerId>,
    /// Where one of them came from.
    hosts: Recent<IpAddr>,
}

impl Behaviour {
    pub(crate) fn new(inner: dialer::Behaviour, shares: Shares) -> Self {
        let places = Places::new(shares);
        Self { inner, places, remembered: BTreeSet::new(), known: Recent::new(), hosts: Recent::new() }
    }

    /// Peers that an earlier run of this node knew: they have a place, wherever they come from.
    pub(crate) fn remember(&mut self, peers: impl IntoIterator<Item = PeerId>) {
        self.remembered.extend(peers);
    }

    fn is_known(&self, peer: &PeerId) -> bool {
        self.known.contains(peer) || self.inner.wants(peer)
    }

    /// Whether there are enough neighbours without one that came in: this node did not choose it.
    fn is_surplus(&self, peer: &PeerId, endpoint: &ConnectedPoint) -> bool {
        let from = peer_ip(&dialer::remote(endpoint));
        self.places.is_crowded()
            && self.inner.is_sparse()
            && from.is_some_and(|from| self.inner.is_one_of_many(from))
            && !self.inner.holds(peer)
    }

    /// The next connection of a visitor that has had its time.
    pub(crate) fn overdue(&mut self) -> Option<ConnectionId> {
        self.places.overdue(self.inner.now())
    }

    /// When the next one has.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.places.leaving.front().map(|(at, _)| *at)
    }

    fn kind(&self, connection: ConnectionId, peer: &PeerId, endpoint: &ConnectedPoint) -> Kind {
        if self.inner.has_dialed(connection) {
            return Kind::Own;
        }
        if endpoint.is_listener() && self.is_surplus(peer, endpoint) {
            return Kind::Visitor;
        }
        if self.is_known(peer) {
            return Kind::Own;
        }
        if self.remembered.contains(peer) && self.places.known < self.places.shares.known {
            return Kind::Known;
        }
        if endpoint.is_dialer() {
            return Kind::Out;
        }
        let from = peer_ip(&dialer::remote(endpoint));
        match from {
            Some(from) if self.inner.wants_at(from) && self.places.expects(from) => Kind::Expected(from),
            from => Kind::In(from),
        }
    }
}

impl Deref for Behaviour {
    type Target = dialer::Behaviour;

    fn deref(&self) -> &dialer::Behaviour {
        &self.inner
    }
}

impl DerefMut for Behaviour {
    fn deref_mut(&mut self) -> &mut dialer::Behaviour {
        &mut self.inner
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<dialer::Behaviour>;
    type ToSwarm = dialer::Event;

    /// Of a flood from one address, the rest is refused before a handshake is paid for. Nobody knows yet who it is:
    /// where one was that the node wants, it may be one again.
    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let from = peer_ip(remote);
        if from.is_some_and(|from| self.inner.wants_at(from) || self.hosts.contains(&host(from))) {
            return Ok(());
        }
        self.places.address_lets_in(from).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let endpoint = ConnectedPoint::Listener { local_addr: local.clone(), send_back_addr: remote.clone() };
        match self.kind(connection, &peer, &endpoint) {
            Kind::In(from) => self.places.lets_in(from).map_err(ConnectionDenied::new)?,
            Kind::Visitor => self.places.lets_visit().map_err(ConnectionDenied::new)?,
            _ => {}
        }
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let is_known = |peer: PeerId| self.is_known(&peer) || self.remembered.contains(&peer);
        if !self.inner.has_dialed(connection) && !peer.is_some_and(is_known) {
            self.places.lets_out().map_err(ConnectionDenied::new)?;
        }
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
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
            FromSwarm::ConnectionEstablished(made) => {
                let kind = self.kind(made.connection_id, &made.peer_id, made.endpoint);
                if self.inner.has_dialed(made.connection_id) {
                    self.known.insert(made.peer_id);
                }
                if matches!(kind, Kind::Own | Kind::Known)
                    && let Some(ip) = peer_ip(&dialer::remote(made.endpoint))
                {
                    self.hosts.insert(host(ip));
                }
                if kind == Kind::Visitor {
                    self.places.leaving.push_back((self.inner.now() + VISIT, made.connection_id));
                }
                self.places.add(made.connection_id, kind);
            }
            FromSwarm::ConnectionClosed(closed) => self.places.remove(closed.connection_id),
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
        self.inner.poll(cx)
    }
}
