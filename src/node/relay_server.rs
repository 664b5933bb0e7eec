//! This node as a relay for others: libp2p's behaviour, kept from a panic, and with relayed connections that have no
//! time limit where there is to be none (`relay_circuits.rs`), and slots that no stranger takes from all others
//! (`relay_slots.rs`).
//!
//! It forgets a peer whose slot has ended, although that peer is still connected, and panics if an answer to it
//! that was held up until then (the peer read nothing) goes out after all. Here every connected peer has one
//! more connection, which exists for that behaviour only: so none is forgotten before it is gone.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId, relay,
    swarm::{
        ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished},
        derive_prelude::Either,
    },
};

use super::{forward::ask_inner_of_connections, relay_circuits::Handler, relay_slots::RelaySlots};

/// Id of the placeholder connection. It cannot collide: the swarm numbers connections from 0.
const NONE: usize = usize::MAX;

pub(crate) struct Behaviour {
    inner: relay::Behaviour,
    /// Bytes that a relayed connection may carry, 0 for any number, where time does not limit it.
    unlimited: Option<u64>,
    slots: Arc<Mutex<Asked>>,
}

/// Slots, and the connection whose event is being handled: libp2p asks about a peer and its address.
struct Asked {
    slots: RelaySlots,
    by: Option<ConnectionId>,
}

impl Behaviour {
    /// A relay as `config` has it. `unlimited`: relayed connections may stand for as long as they like, and carry this
    /// many bytes; 0 for any number. `per_peer`: slots of one peer.
    pub(crate) fn new(
        local: PeerId,
        mut config: relay::Config,
        per_peer: usize,
        unlimited: Option<u64>,
    ) -> Self {
        let slots = RelaySlots::new(config.max_reservations, per_peer);
        let slots = Arc::new(Mutex::new(Asked { slots, by: None }));
        let shared = slots.clone();
        // The last of them: what it grants, libp2p grants.
        config.reservation_rate_limiters.push(Box::new(
            move |peer: PeerId, address: &Multiaddr, _: Instant| {
                let mut asked = shared.lock().unwrap_or_else(PoisonError::into_inner);
                asked.by.is_none_or(|by| asked.slots.grant(by, peer, address))
            },
        ));
        let mut inner = relay::Behaviour::new(local, config);
        // The configuration says so.
        inner.set_status(Some(relay::Status::Enable));
        Self { inner, unlimited, slots }
    }

    /// `peer`, which is connected, is a configured one: slots are kept for it.
    pub(crate) fn know(&mut self, peer: PeerId) {
        self.asked().slots.know(peer);
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrap(&self, handler: THandler<relay::Behaviour>) -> Handler {
        Handler::new(handler, self.unlimited)
    }
}

/// The handler's event on the left, which has no name outside of its crate.
trait Left {
    type Event;
}
impl<L, R> Left for Either<L, R> {
    type Event = L;
}
type Ours = THandlerOutEvent<relay::Behaviour>;
type Said = <Ours as Left>::Event;

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
        if let FromSwarm::ConnectionClosed(closed) = &event {
            self.asked().slots.end(closed.connection_id);
        }
        if let FromSwarm::ConnectionClosed(closed) = &event
            && closed.remaining_established == 0
        {
            self.asked().slots.gone(&closed.peer_id);
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
        if let Either::Left(Said::ReservationTimedOut {}) = &event {
            self.asked().slots.end(connection);
        }
        self.asked().by = Some(connection);
        self.inner.on_connection_handler_event(peer, connection, event);
        self.asked().by = None;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::core::{ConnectedPoint, Endpoint, transport::PortUse};

    use super::*;

    #[test]
    fn an_answer_that_was_held_up_until_the_slot_ended_harms_nobody() {
        let (local, peer) = (PeerId::random(), PeerId::random());
        let mut relay = Behaviour::new(local, relay::Config::default(), 4, None);
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
