//! A listener: an endpoint that takes connections, and the addresses it has by now.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::core::transport::{ListenerId, TransportEvent};

use crate::runtime::Interface;

use super::{Connecting, Error, addr::to_multiaddr, endpoint::Endpoint};

pub(super) type Event = TransportEvent<Connecting, Error>;

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) id: ListenerId,
    pub(super) endpoint: Arc<Endpoint>,
    /// Where the socket is bound, with its real port.
    bound: SocketAddr,
    /// What the layers above believe we listen on.
    announced: Vec<IpAddr>,
}

impl Listener {
    pub(super) fn new(id: ListenerId, endpoint: Arc<Endpoint>) -> Self {
        let bound = endpoint.local_addr();
        Self { id, endpoint, bound, announced: Vec::new() }
    }

    /// Whether the addresses depend on the interfaces. Loopback never goes away.
    pub(super) fn follows_interfaces(&self) -> bool {
        !self.bound.ip().is_loopback()
    }

    /// Whether a dial to `remote` may leave from this listener's socket.
    pub(super) fn reaches(&self, remote: SocketAddr) -> bool {
        reaches(self.bound.ip(), remote.ip())
    }

    /// What is new about the addresses, given the interfaces there are now. Without a list (it
    /// could not be had) only an address that was bound by name is known.
    pub(super) fn refresh(&mut self, interfaces: Option<&[Interface]>) -> Vec<Event> {
        let now: Vec<IpAddr> = match interfaces {
            Some(list) if self.bound.ip().is_unspecified() => {
                list.iter().map(|i| i.addr).filter(|ip| ip.is_ipv4() == self.bound.is_ipv4()).collect()
            }
            // An address that no interface has can be bound too (127.0.0.2, or one not up yet):
            // it is believed until its interface has been seen and is gone.
            Some(list) if self.announced.is_empty() || list.iter().any(|i| i.addr == self.bound.ip()) => {
                vec![self.bound.ip()]
            }
            Some(_) => Vec::new(),
            None if self.bound.ip().is_unspecified() => self.announced.clone(),
            None => vec![self.bound.ip()],
        };
        let port = self.bound.port();
        let listener_id = self.id;
        let listen_addr = |ip: &IpAddr| to_multiaddr(SocketAddr::new(*ip, port));
        let gone = self.announced.iter().filter(|ip| !now.contains(ip));
        let new = now.iter().filter(|ip| !self.announced.contains(ip));
        let events = gone
            .map(|ip| Event::AddressExpired { listener_id, listen_addr: listen_addr(ip) })
            .chain(new.map(|ip| Event::NewAddress { listener_id, listen_addr: listen_addr(ip) }))
            .collect();
        self.announced = now;
        events
    }

    /// The next connection someone opens, or that the socket is in trouble.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Event> {
        let listener_id = self.id;
        if let Some(incoming) = self.endpoint.accept(cx.waker())
            && let Some((remote, local)) = incoming.addresses()
        {
            let local = SocketAddr::new(local.unwrap_or(self.bound.ip()), self.bound.port());
            return Poll::Ready(Event::Incoming {
                listener_id,
                local_addr: to_multiaddr(local),
                send_back_addr: to_multiaddr(remote),
                upgrade: Connecting::incoming(incoming),
            });
        }
        if let Some(reason) = self.endpoint.take_failure() {
            let error = Error::Receive { addr: self.bound, reason };
            return Poll::Ready(Event::ListenerError { listener_id, error });
        }
        Poll::Pending
    }
}

/// Whether a socket bound to `own` can send to `remote`: of the same family, and not from loopback
/// to elsewhere or back, which the kernel refuses.
fn reaches(own: IpAddr, remote: IpAddr) -> bool {
    own.is_ipv4() == remote.is_ipv4() && (own.is_unspecified() || own.is_loopback() == remote.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_leaves_from_a_socket_of_its_family_and_its_side_of_loopback() {
        for (own, remote, expected) in [
            ("0.0.0.0", "10.0.0.1", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", true),
            ("127.0.0.1", "10.0.0.1", false),
            ("10.0.0.1", "127.0.0.1", false),
            ("10.0.0.1", "10.9.9.9", true),
            ("0.0.0.0", "::1", false),
            ("::", "fd00::1", true),
            ("::1", "fd00::1", false),
            ("::", "10.0.0.1", false),
        ] {
            assert_eq!(reaches(own.parse().unwrap(), remote.parse().unwrap()), expected, "{own} {remote}");
        }
    }
}
