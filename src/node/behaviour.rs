//! Everything a node does, composed: one field a protocol.

use libp2p::{
    connection_limits, identify, memory_connection_limits, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use super::{access, autonat, catchup, dcutr, ping, places, relay_server, table};
use crate::{gossip, mdns};

/// The node's behaviour. What may refuse a connection stands first.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) access: access::Behaviour,
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) memory: memory_connection_limits::Behaviour,
    pub(crate) dialer: places::Behaviour,
    pub(crate) mdns: mdns::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) kad: table::Behaviour,
    pub(crate) gossip: gossip::Behaviour,
    pub(crate) catchup: catchup::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) relay_server: Toggle<relay_server::Behaviour>,
    pub(crate) relay_client: Toggle<relay::client::Behaviour>,
    pub(crate) dcutr: Toggle<dcutr::Behaviour>,
    pub(crate) autonat_client: Toggle<autonat::Client>,
    pub(crate) autonat_server: Toggle<autonat::Server>,
}
