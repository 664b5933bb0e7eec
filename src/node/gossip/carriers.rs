//! Which of a peer's connections carries what is queued for it: one, never two.
//!
//! gossipsub lets each connection take from the queue. Then a connection that is dead, or about to be closed,
//! swallows messages, and a peer that reads one stream at a time (js-libp2p) loses what goes over the other.

use std::collections::HashMap;

use libp2p::{PeerId, swarm::ConnectionId};

/// A connection takes from the queue from now on, or does not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) connection: ConnectionId,
    pub(super) carry: bool,
}

#[derive(Debug)]
struct Peer {
    /// Oldest first.
    connections: Vec<ConnectionId>,
    carrier: ConnectionId,
    /// Nothing is sent until it is known whether the carrier is alive.
    held: bool,
}

#[derive(Debug, Default)]
pub(super) struct Carriers(HashMap<PeerId, Peer>);

impl Carriers {
    /// A connection stands; the first carries.
    pub(super) fn connected(&mut self, peer: PeerId, connection: ConnectionId) -> Option<Order> {
        if let Some(peer) = self.0.get_mut(&peer) {
            peer.connections.push(connection);
            return None;
        }
        self.0.insert(peer, Peer { connections: vec![connection], carrier: connection, held: false });
        Some(Order { connection, carry: true })
    }

    /// A connection ended; in the carrier's place, the newest carries.
    pub(super) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) -> Option<Order> {
        let known = self.0.get_mut(peer)?;
        known.connections.retain(|l| *l != connection);
        let Some(newest) = known.connections.last().copied() else {
            self.0.remove(peer);
            return None;
        };
        (known.carrier == connection).then(|| {
            (known.carrier, known.held) = (newest, false);
            Order { connection: newest, carry: true }
        })
    }

    /// `connection` is the better one from now on.
    pub(super) fn prefer(&mut self, peer: &PeerId, connection: ConnectionId) -> Vec<Order> {
        match self.0.get_mut(peer) {
            Some(peer) if peer.carrier != connection && peer.connections.contains(&connection) => {
                let before = std::mem::replace(&mut peer.carrier, connection);
                peer.held = false;
                vec![Order { connection: before, carry: false }, Order { connection, carry: true }]
            }
            _ => Vec::new(),
        }
    }

    /// Holds back what is queued if `connection` carries it.
    pub(super) fn hold(&mut self, peer: &PeerId, connection: ConnectionId) -> Option<Order> {
        let peer = self.0.get_mut(peer).filter(|peer| peer.carrier == connection && !peer.held)?;
        peer.held = true;
        Some(Order { connection, carry: false })
    }

    /// `connection` is alive after all.
    pub(super) fn release(&mut self, peer: &PeerId, connection: ConnectionId) -> Option<Order> {
        let peer = self.0.get_mut(peer).filter(|peer| peer.carrier == connection && peer.held)?;
        peer.held = false;
        Some(Order { connection, carry: true })
    }

    /// The connections that carry.
    pub(super) fn all(&self) -> impl Iterator<Item = (PeerId, ConnectionId)> {
        self.0.iter().filter(|(_, peer)| !peer.held).map(|(id, peer)| (*id, peer.carrier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_carries_whatever_comes_and_goes() {
        let peer = PeerId::random();
        let [one, two, three] = [1, 2, 3].map(ConnectionId::new_unchecked);
        let carry = |connection| Some(Order { connection, carry: true });
        let rest = |connection| Some(Order { connection, carry: false });
        let mut carriers = Carriers::default();
        assert_eq!(carriers.connected(peer, one), carry(one));
        assert_eq!(carriers.connected(peer, two), None, "a second one changes nothing");
        assert_eq!(carriers.hold(&peer, two), None, "it carries nothing");
        assert_eq!(carriers.hold(&peer, one), rest(one));
        assert_eq!(carriers.hold(&peer, one), None);
        assert_eq!(carriers.all().count(), 0);
        assert_eq!(carriers.release(&peer, one), carry(one), "it is alive");
        assert_eq!(carriers.release(&peer, one), None);
        carriers.hold(&peer, one);
        assert_eq!(carriers.connected(peer, three), None);
        assert_eq!(carriers.closed(&peer, one), carry(three), "it was dead: the newest does");
        assert_eq!(carriers.prefer(&peer, two), [rest(three).unwrap(), carry(two).unwrap()]);
        assert_eq!(carriers.prefer(&peer, two), []);
        assert_eq!(carriers.closed(&peer, three), None);
        assert_eq!(carriers.closed(&peer, two), None, "the last one");
        assert_eq!(carriers.connected(peer, one), carry(one));
    }
}
