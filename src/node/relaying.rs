//! This node as a relay for others: libp2p's behaviour, kept from a panic.
//!
//! It forgets a peer whose slot has ended, although that peer is still connected, and panics if an answer to it
//! that was held up until then (the peer read nothing) goes out after all. Here every connected peer has one
//! more connection, which exists for that behaviour only: so none is forgotten before it is gone.

use std::task::{Context, Poll};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    relay,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished},
    },
};

/// The connection that there is not; the swarm counts its own from 0.
const NONE: usize = usize::MAX;

pub(crate) struct Behaviour {
    inner: relay::Behaviour,
}

impl Behaviour {
    pub(crate) fn new(inner: relay::Behaviour) -> Self {
        Self { inner }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<relay::Behaviour>;
    type ToSwarm = relay::Event;

    fn handle_established_inbound_connection(
        &mut self,
        link: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(link, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        link: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(link, peer, remote, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let none = ConnectionId::new_unchecked(NONE);
        if let FromSwarm::ConnectionEstablished(made) = &event
            && made.other_established == 0
        {
            let made = ConnectionEstablished { connection_id: none, ..*made };
            self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(made));
        }
        self.inner.on_swarm_event(event);
        if let FromSwarm::ConnectionClosed(closed) = &event
            && closed.remaining_established == 0
        {
            let closed = ConnectionClosed { connection_id: none, ..*closed };
            self.inner.on_swarm_event(FromSwarm::ConnectionClosed(closed));
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        link: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer, link, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}
