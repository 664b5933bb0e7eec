//! Who has the slots of this relay: known peers keep a quarter of them, and no address has more than half. Pure.
//!
//! libp2p counts slots by peer, and peer ids cost nothing: without this, one stranger takes all of them.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use crate::transport::multiaddr::{host, ip};

/// The part that is kept for known peers: one of so many.
const KEPT: usize = 4;

/// Slots and who has them.
#[derive(Debug)]
pub(crate) struct RelaySlots {
    limit: usize,
    /// One address may always have as many.
    per_peer: usize,
    held: HashMap<ConnectionId, (PeerId, Option<IpAddr>)>,
    known: HashSet<PeerId>,
}

impl RelaySlots {
    pub(crate) fn new(limit: usize, per_peer: usize) -> Self {
        Self { limit, per_peer, held: HashMap::new(), known: HashSet::new() }
    }

    /// `peer`, which is connected, is a configured one.
    pub(crate) fn know(&mut self, peer: PeerId) {
        self.known.insert(peer);
    }

    /// Whether `connection` may have a slot, or keep it; if so, it has it.
    pub(crate) fn grant(&mut self, connection: ConnectionId, peer: PeerId, address: &Multiaddr) -> bool {
        let network = network(address);
        if !self.held.contains_key(&connection) && !self.known.contains(&peer) {
            let strangers = || self.held.values().filter(|(peer, _)| !self.known.contains(peer));
            let near = strangers().filter(|(_, other)| *other == network).count();
            if strangers().count() >= self.limit - self.limit / KEPT
                || near >= (self.limit / 2).max(self.per_peer)
            {
                return false;
            }
        }
        self.held.insert(connection, (peer, network));
        true
    }

    /// The slot of `connection` has ended.
    pub(crate) fn end(&mut self, connection: ConnectionId) {
        self.held.remove(&connection);
    }

    /// `peer` is no longer connected.
    pub(crate) fn gone(&mut self, peer: &PeerId) {
        self.known.remove(peer);
    }
}

/// The host that a connection comes from; none where there is no address.
fn network(address: &Multiaddr) -> Option<IpAddr> {
    ip(address).map(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str) -> Multiaddr {
        format!("{host}/udp/4001/quic-v1").parse().unwrap()
    }

    #[test]
    fn strangers_leave_slots_to_each_other_and_to_known_peers() {
        let mut slots = RelaySlots::new(16, 4);
        let mut next = 0;
        let mut ask = |slots: &mut RelaySlots, host: &str, peer: PeerId| {
            next += 1;
            slots.grant(ConnectionId::new_unchecked(next), peer, &at(host))
        };
        let granted =
            |slots: &mut RelaySlots, ask: &mut dyn FnMut(&mut RelaySlots, &str, PeerId) -> bool, host| {
                (0..20).filter(|_| ask(slots, host, PeerId::random())).count()
            };
        assert_eq!(granted(&mut slots, &mut ask, "/ip4/192.0.2.1"), 8, "half for one address");
        assert_eq!(granted(&mut slots, &mut ask, "/ip6/2001:db8::1"), 4, "a quarter is kept");
        assert_eq!(granted(&mut slots, &mut ask, "/ip6/2001:db8:0:1::1"), 0);
        let friend = PeerId::random();
        slots.know(friend);
        assert!((0..4).all(|_| ask(&mut slots, "/ip4/192.0.2.1", friend)), "known peers have what is left");
        // What is held is kept, and what ends is free for others.
        let first = ConnectionId::new_unchecked(1);
        let (peer, _) = slots.held[&first];
        assert!(slots.grant(first, peer, &at("/ip4/192.0.2.1")));
        slots.end(first);
        assert!(ask(&mut slots, "/ip4/192.0.2.9", PeerId::random()));
        assert!(!ask(&mut slots, "/ip4/192.0.2.9", PeerId::random()));
        slots.gone(&friend);
        assert!(!ask(&mut slots, "/ip4/192.0.2.8", friend), "known only while it is connected");
    }

    #[test]
    fn an_ipv6_network_is_a_64() {
        assert_eq!(network(&at("/ip6/2001:db8::1")), network(&at("/ip6/2001:db8::ffff:1")));
        assert_ne!(network(&at("/ip6/2001:db8::1")), network(&at("/ip6/2001:db8:0:1::1")));
        assert_eq!(network(&at("/ip6/::ffff:192.0.2.1")), network(&at("/ip4/192.0.2.1")));
    }
}
