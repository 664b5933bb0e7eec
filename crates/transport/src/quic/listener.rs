//! A listener: an endpoint that takes connections, and the addresses it has by now.

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::core::transport::{ListenerId, TransportEvent};
use smidge_runtime::Interface;

use crate::listening::{Announced, Change};

use super::{Connecting, Error, addr::to_multiaddr, endpoint::Endpoint};

pub(super) type Event = TransportEvent<Connecting, Error>;

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) id: ListenerId,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) announced: Announced,
}

impl Listener {
    pub(super) fn new(id: ListenerId, endpoint: Arc<Endpoint>) -> Self {
        Self { id, announced: Announced::new(endpoint.local_addr()), endpoint }
    }

    /// What is new about the addresses, given the interfaces there are now.
    pub(super) fn refresh(&mut self, interfaces: Option<&[Interface]>) -> Vec<Event> {
        let listener_id = self.id;
        let event = |change| match change {
            Change::Gone(at) => Event::AddressExpired { listener_id, listen_addr: to_multiaddr(at) },
            Change::New(at) => Event::NewAddress { listener_id, listen_addr: to_multiaddr(at) },
        };
        self.announced.refresh(interfaces).into_iter().map(event).collect()
    }

    /// The next connection someone opens, or that the socket is in trouble.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Event> {
        let (listener_id, bound) = (self.id, self.announced.bound());
        if let Some(incoming) = self.endpoint.accept(cx.waker())
            && let Some((remote, local)) = incoming.addresses()
        {
            let local = SocketAddr::new(local.unwrap_or(bound.ip()), bound.port());
            return Poll::Ready(Event::Incoming {
                listener_id,
                local_addr: to_multiaddr(local),
                send_back_addr: to_multiaddr(remote),
                upgrade: Connecting::incoming(incoming),
            });
        }
        if let Some(source) = self.endpoint.take_failure() {
            let error = Error::Receive { addr: bound, source };
            return Poll::Ready(Event::ListenerError { listener_id, error });
        }
        Poll::Pending
    }
}
