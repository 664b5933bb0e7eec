//! Who waits for a connection to an address: dials on request.
//!
//! Only notes and answers; whether a dial is let through is the swarm's to say.

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::{command::Reply, error::Error};

/// Dials that a client asked for, until they end.
#[derive(Default)]
pub(crate) struct Connects(HashMap<ConnectionId, (Multiaddr, Reply<PeerId>)>);

impl Connects {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn insert(&mut self, link: ConnectionId, address: Multiaddr, reply: Reply<PeerId>) {
        self.0.insert(link, (address, reply));
    }

    /// The connection stands, and this is who is there.
    pub(crate) fn connected(&mut self, link: ConnectionId, peer: PeerId) {
        if let Some((_, reply)) = self.0.remove(&link) {
            // Nobody may be waiting for it any more.
            let _ = reply.send(Ok(peer));
        }
    }

    /// The dial failed.
    pub(crate) fn failed(&mut self, link: ConnectionId, why: impl FnOnce() -> String) {
        if let Some((address, reply)) = self.0.remove(&link) {
            // As above.
            let _ = reply.send(Err(Error::Connect { address, why: why() }));
        }
    }
}
