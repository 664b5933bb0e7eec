//! What a behaviour around another one leaves to it: the four questions about a connection, word for word.

/// Stands in an `impl NetworkBehaviour` for a struct whose field `inner` has the same handlers, or handlers that
/// the method named makes into its own. `dialing CHOOSE`: of the addresses that `inner` knows of a peer, those are
/// dialed that the method `CHOOSE` chooses.
macro_rules! ask_inner_of_connections {
    () => {
        ask_inner_of_connections!(@ [] []);
    };
    ($wrap:ident) => {
        ask_inner_of_connections!(@ [$wrap] []);
    };
    (dialing $choose:ident) => {
        ask_inner_of_connections!(@ [] [$choose]);
    };
    (@ [$($wrap:ident)?] [$($choose:ident)?]) => {
        fn handle_pending_inbound_connection(
            &mut self,
            connection: libp2p::swarm::ConnectionId,
            local: &libp2p::Multiaddr,
            remote: &libp2p::Multiaddr,
        ) -> Result<(), libp2p::swarm::ConnectionDenied> {
            self.inner.handle_pending_inbound_connection(connection, local, remote)
        }

        fn handle_established_inbound_connection(
            &mut self,
            connection: libp2p::swarm::ConnectionId,
            peer: libp2p::PeerId,
            local: &libp2p::Multiaddr,
            remote: &libp2p::Multiaddr,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            let handler = self.inner.handle_established_inbound_connection(connection, peer, local, remote)?;
            $(let handler = self.$wrap(handler);)?
            Ok(handler)
        }

        fn handle_pending_outbound_connection(
            &mut self,
            connection: libp2p::swarm::ConnectionId,
            peer: Option<libp2p::PeerId>,
            addresses: &[libp2p::Multiaddr],
            role: libp2p::core::Endpoint,
        ) -> Result<Vec<libp2p::Multiaddr>, libp2p::swarm::ConnectionDenied> {
            let known = self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)?;
            $(let known = self.$choose(known, peer, addresses);)?
            Ok(known)
        }

        fn handle_established_outbound_connection(
            &mut self,
            connection: libp2p::swarm::ConnectionId,
            peer: libp2p::PeerId,
            address: &libp2p::Multiaddr,
            role: libp2p::core::Endpoint,
            port_use: libp2p::core::transport::PortUse,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            let handler =
                self.inner.handle_established_outbound_connection(connection, peer, address, role, port_use)?;
            $(let handler = self.$wrap(handler);)?
            Ok(handler)
        }
    };
}

pub(super) use ask_inner_of_connections;
