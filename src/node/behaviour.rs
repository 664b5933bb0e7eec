//! Everything a node does, composed: one field a protocol.

use libp2p::{connection_limits, identify, memory_connection_limits, swarm::NetworkBehaviour};

use super::{access, gossip, ping, table};
use crate::{dialer, mdns};

/// The node's behaviour. What may refuse a connection stands first.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) access: access::Behaviour,
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) memory: memory_connection_limits::Behaviour,
    pub(crate) dialer: dialer::Behaviour,
    pub(crate) mdns: mdns::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) kad: table::Behaviour,
    pub(crate) gossip: gossip::Behaviour,
    pub(crate) ping: libp2p::ping::Behaviour,
    pub(crate) ping_on_request: ping::Behaviour,
}
