//! Everything a node does, composed: one field a protocol.

use libp2p::{
    connection_limits, identify, memory_connection_limits, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use super::{access, gossip, ping, probe, punch, relaying, table};
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
    pub(crate) ping: ping::Behaviour,
    pub(crate) relay: Toggle<relaying::Behaviour>,
    pub(crate) circuits: Toggle<relay::client::Behaviour>,
    pub(crate) punch: Toggle<punch::Behaviour>,
    pub(crate) asking: Toggle<probe::Asking>,
    pub(crate) answering: Toggle<probe::Answering>,
}
