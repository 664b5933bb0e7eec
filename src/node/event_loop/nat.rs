//! What relays and NATs make of connections: slots at relays, relayed connections and the direct ones that
//! take their place, addresses that others see.

use std::time::Duration;

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, transport::ListenerId},
    dcutr, identify,
    multiaddr::Protocol,
    relay,
    swarm::ConnectionId,
};

use super::EventLoop;
use crate::{
    config::PeerRule,
    dialer,
    error::chain,
    node::{event::Event, reservations::Lost, setup},
    transport::multiaddr::{ip, is_circuit, split_peer},
};

/// Delay before asking again after a reservation, so that nodes that reserved simultaneously are in the relay's
/// routing table.
const SETTLED: Duration = Duration::from_secs(5);

impl EventLoop {
    /// Sends all connected peers this node's addresses. identify does that by itself where this node listens,
    /// not where others reach it.
    pub(super) fn tell_addresses(&mut self) {
        let connected: Vec<_> = self.swarm.connected_peers().copied().collect();
        self.swarm.behaviour_mut().identify.push(connected);
    }

    /// Asks relays for the slots that are due.
    pub(super) fn reserve(&mut self) {
        let now = self.runtime.now();
        while self.drain.is_none()
            && let Some((relay, address)) = self.reservations.next(now)
        {
            match self.swarm.listen_on(address.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit)) {
                Ok(listener) => self.reservations.asked(&relay, listener),
                Err(e) => {
                    let lost = self.reservations.refused(relay, now);
                    self.tell_lost(lost, chain(&e));
                }
            }
        }
    }

    /// Whether a listener that ended was for a slot at a relay.
    pub(super) fn is_reservation<E: std::error::Error + 'static>(
        &mut self,
        listener: ListenerId,
        outcome: &Result<(), E>,
    ) -> bool {
        let lost = self.reservations.closed(listener, self.runtime.now());
        let is_reservation = lost.is_some();
        let reason = match outcome {
            Ok(()) => "its connection ended".to_owned(),
            Err(e) => chain(e),
        };
        self.tell_lost(lost, reason);
        is_reservation
    }

    fn tell_lost(&mut self, lost: Option<Lost>, reason: String) {
        if let Some(Lost { relay, retry_in, repeated }) = lost {
            self.emit(Event::NotReserved { relay, reason, retry_in, repeated });
        }
    }

    pub(super) fn on_reservation(&mut self, event: relay::client::Event) {
        match event {
            relay::client::Event::ReservationReqAccepted { relay_peer_id, .. } => {
                if self.reservations.accepted(&relay_peer_id) {
                    self.emit(Event::Reserved { relay: relay_peer_id });
                    // Peers that ask this relay for nodes may hear of us from now on, and we of them. Others that
                    // came at the same time are in its table a little later.
                    self.refresh_table();
                    self.bootstrap = self.runtime.now() + SETTLED;
                }
            }
            // The connections themselves are reported.
            relay::client::Event::OutboundCircuitEstablished { .. }
            | relay::client::Event::InboundCircuitEstablished { .. } => {}
        }
    }

    /// The remote address of a connection. For an inbound relayed connection libp2p reports the relay's address,
    /// with the relay's peer id only if the dialer knew it.
    pub(super) fn remote(&self, endpoint: &ConnectedPoint) -> Multiaddr {
        let address = dialer::remote(endpoint);
        let parts: Vec<_> = address.iter().collect();
        let Some(at) = parts.iter().position(|part| *part == Protocol::P2pCircuit) else { return address };
        if matches!(parts[..at].last(), Some(Protocol::P2p(_))) {
            return address;
        }
        let whole = |parts: &[Protocol<'_>]| parts.iter().cloned().collect::<Multiaddr>();
        let Some(relay) = self.peers.at(&whole(&parts[..at])) else { return address };
        let rest = parts[at..].iter().cloned();
        rest.fold(whole(&parts[..at]).with(Protocol::P2p(relay)), Multiaddr::with)
    }

    /// A relayed connection stands. The side that dialed it makes it again when it is lost.
    pub(super) fn on_relayed(&mut self, peer: PeerId, address: Multiaddr, outbound: bool) {
        if outbound {
            self.swarm.behaviour_mut().dialer.try_known([(peer, address.clone())]);
        }
        self.emit(Event::Relayed { peer, address, outbound });
    }

    pub(super) fn on_hole_punch(&mut self, event: dcutr::Event) {
        let peer = event.remote_peer_id;
        match event.result {
            // Reported already with the connection itself, on both sides and whichever dialed.
            Ok(_) => {}
            Err(e) if self.peers.is_direct(&peer) => {
                log::debug!("hole punch to {peer} abandoned, it is connected directly already: {e}");
            }
            Err(e) => self.emit(Event::NotPunched { peer, reason: chain(&e) }),
        }
    }

    /// A direct connection stands; beside a relayed one, it is what a hole was to be punched for.
    pub(super) fn on_direct(&mut self, peer: PeerId) {
        if self.config.nat.punch && self.peers.is_first_direct(&peer) {
            self.emit(Event::Punched { peer });
        }
    }

    /// Whether a connection was made only to find out whether it can be.
    pub(super) fn is_probe(&self, connection: &ConnectionId) -> bool {
        let behaviour = self.swarm.behaviour();
        behaviour.autonat_client.as_ref().is_some_and(|client| client.is_probe(connection))
            || behaviour.autonat_server.as_ref().is_some_and(|server| server.is_probe(connection))
    }

    /// identify has received a peer's id and protocols over a connection. A relayed one may have done its work. If this is
    /// a direct one, the peer may be a relay that is wanted, and where it sees us may be where others find us.
    pub(super) fn on_peer_identified(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        remote: &Multiaddr,
        info: &identify::Info,
    ) {
        if self.is_probe(&connection) {
            return;
        }
        // Each side closes those that it dialed.
        for relayed in self.peers.replaced(self.swarm.local_peer_id(), &peer, connection) {
            log::debug!("{peer} is connected at {remote}: a relayed connection to it is about to be closed");
            self.retire(relayed);
        }
        if is_circuit(remote) {
            return;
        }
        if self.config.relay.server {
            self.keep_slots_for(peer);
        }
        let outbound = self.peers.is_outbound(&peer, connection);
        let behaviour = self.swarm.behaviour_mut();
        if outbound {
            // The dial came from a listener's port: this is where our NAT put it.
            if let Some(dcutr) = behaviour.dcutr.as_mut() {
                dcutr.observed(&info.observed_addr);
            }
            if let Some(client) = behaviour.autonat_client.as_mut() {
                client.observed(&info.observed_addr);
            }
        }
        let is_relay = info.protocols.contains(&relay::HOP_PROTOCOL_NAME);
        if is_relay && behaviour.dialer.is_behind(&peer, &self.config.relay.through) {
            let announced = info.listen_addrs.iter().find(|a| !is_circuit(a) && self.config.can_dial(a));
            let address = if outbound { Some(remote) } else { announced };
            if let Some(address) = address {
                let (address, _) = split_peer(address.clone());
                self.reservations.found(peer, address, self.runtime.now());
                self.reserve();
            }
        }
    }

    /// Slots of this relay are kept for configured peers: behind a name or address, or let in by their id.
    fn keep_slots_for(&mut self, peer: PeerId) {
        let Self { config, swarm, .. } = self;
        let behaviour = swarm.behaviour_mut();
        let is_known = config.peers.allow.contains(&PeerRule::Peer(peer))
            || behaviour.dialer.is_behind(&peer, &setup::targets(config));
        if is_known && let Some(relay) = behaviour.relay_server.as_mut() {
            relay.know(peer);
        }
    }

    /// A relay without `listen.external` is reached where it listens.
    pub(super) fn relay_at(&mut self, address: &Multiaddr, is_up: bool) {
        let Self { config, swarm, .. } = self;
        if !config.relay.server || !config.listen.external.is_empty() || is_circuit(address) {
            return;
        }
        let is_loopback = |a: &Multiaddr| ip(a).is_some_and(|ip| ip.is_loopback());
        if is_loopback(address) && !config.listen.addresses.iter().any(is_loopback) {
            return;
        }
        if is_up {
            swarm.add_external_address(address.clone());
        } else {
            swarm.remove_external_address(address);
        }
    }
}
