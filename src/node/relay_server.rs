//! This node as a relay for others: libp2p's behaviour, kept from a panic, and with relayed connections that have no
//! time limit where there is to be none (`relay_circuits.rs`).
//!
//! It forgets a peer whose slot has ended, although that peer is still connected, and panics if an answer to it
//! that was held up until then (the peer read nothing) goes out after all. Here every connected peer has one
//! more connection, which exists for that behaviour only: so none is forgotten before it is gone.

use std::task::{Context, Poll};

use libp2p::{
    PeerId, relay,
    swarm::{
        ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished},
    },
};

use super::{forward::ask_inner_of_connections, relay_circuits::Handler};

/// Id of the placeholder connection. It cannot collide: the swarm numbers connections from 0.
const NONE: usize = usize::MAX;

pub(crate) struct Behaviour {
    inner: relay::Behaviour,
    /// Bytes that a relayed connection may carry, 0 for any number, where time does not limit it.
    unlimited: Option<u64>,
}

impl Behaviour {
    /// `unlimited`: relayed connections may stand for as long as they like, and carry this many bytes; 0 for any
    /// number.
    pub(crate) fn new(inner: relay::Behaviour, unlimited: Option<u64>) -> Self {
        Self { inner, unlimited }
    }

    fn wrap(&self, handler: THandler<relay::Behaviour>) -> Handler {
        Handler::new(handler, self.unlimited)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = relay::Event;

    ask_inner_of_connections!(wrap);

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
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{
        core::{ConnectedPoint, Endpoint, transport::PortUse},
        swarm::derive_prelude::Either,
    };

    use super::*;

    /// The handler's event on the left, which has no name outside of its crate.
    trait Left {
        type Event;
    }
    impl<L, R> Left for Either<L, R> {
        type Event = L;
    }
    type Ours = THandlerOutEvent<relay::Behaviour>;
    type Said = <Ours as Left>::Event;

    #[test]
    fn an_answer_that_was_held_up_until_the_slot_ended_harms_nobody() {
        let (local, peer) = (PeerId::random(), PeerId::random());
        let mut relay = Behaviour::new(relay::Behaviour::new(local, relay::Config::default()), None);
        let connection = ConnectionId::new_unchecked(1);
        let endpoint = ConnectedPoint::Dialer {
            address: "/ip4/10.0.0.1/udp/4001/quic-v1".parse().unwrap(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        relay.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
        for _ in 0..2 {
            relay.on_connection_handler_event(peer, connection, Ours::Left(Said::ReservationTimedOut {}));
        }
        relay.on_connection_handler_event(
            peer,
            connection,
            Ours::Left(Said::ReservationReqAccepted { renewed: true }),
        );
    }
}
