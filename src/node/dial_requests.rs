//! Dials on request, and the callers that wait for them.
//!
//! Only notes and answers; whether a dial is let through is the swarm's to say.

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::{command::Reply, error::Error};

/// Dials that a client asked for, until they end.
#[derive(Default)]
pub(crate) struct DialRequests(HashMap<ConnectionId, (Multiaddr, Reply<PeerId>)>);

impl DialRequests {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn insert(&mut self, connection: ConnectionId, address: Multiaddr, reply: Reply<PeerId>) {
        self.0.insert(connection, (address, reply));
    }

    /// The connection stands, and this is the peer.
    pub(crate) fn connected(&mut self, connection: ConnectionId, peer: PeerId) {
        if let Some((_, reply)) = self.0.remove(&connection) {
            // The caller may have stopped waiting.
            let _ = reply.send(Ok(peer));
        }
    }

    /// The dial failed.
    pub(crate) fn failed(&mut self, connection: ConnectionId, why: impl FnOnce() -> String) {
        if let Some((address, reply)) = self.0.remove(&connection) {
            // As above.
            let _ = reply.send(Err(Error::Connect { address, why: why() }));
        }
    }
}
