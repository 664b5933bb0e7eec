//! Few neighbours of many: where names are large, what is asked for is dialed, and closed again when it is needed no more.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::dial_opts::DialOpts};

use super::EventLoop;
use crate::{
    error::chain,
    node::{
        command::Reply,
        queries::Query,
        surplus::{EVERY, Neighbour},
    },
};

/// Part of the wanted neighbours beyond them before surplus ones are closed.
const SLACK: usize = 4;

impl EventLoop {
    /// Closes the connections of visitors that have had their time, and those that this node needs no more.
    pub(super) fn trim(&mut self, now: Instant) {
        while let Some(connection) = self.swarm.behaviour_mut().dialer.overdue() {
            self.swarm.close_connection(connection);
        }
        if self.trim_at.is_none_or(|at| at > now) {
            return;
        }
        // It is set again with the timer.
        self.trim_at = None;
        let wanted = self.config.dial.neighbours;
        let enough = wanted + wanted / SLACK;
        if !self.swarm.behaviour().dialer.is_sparse() || self.peers.len() <= enough {
            return;
        }
        let behaviour = self.swarm.behaviour();
        let core = behaviour.gossip.core();
        let meshed: HashSet<_> = core.followed().flat_map(|topic| core.mesh(topic)).collect();
        let is_used = |peer: &PeerId| {
            meshed.contains(peer) || behaviour.dialer.holds(peer) || self.reservations.has(peer)
        };
        let neighbour = |(peer, is_ours, since)| Neighbour { peer, is_ours, since, is_used: is_used(&peer) };
        let neighbours: Vec<_> = self.peers.ages().map(neighbour).collect();
        for peer in self.needed.surplus(&neighbours, enough, now) {
            log::debug!("{peer} is needed no more: its connection is closed");
            // An error says that the peer is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    pub(super) fn trim_deadline(&mut self) -> Option<Instant> {
        let is_sparse = self.swarm.behaviour().dialer.is_sparse();
        self.swarm.behaviour_mut().kad.set_sparse(is_sparse);
        if self.trim_at.is_none() && is_sparse {
            self.trim_at = Some(self.runtime.now() + EVERY);
        }
        self.trim_at.into_iter().chain(self.swarm.behaviour().dialer.deadline()).min()
    }

    /// Has `peer` connected: where the hash table, or a name, has it now, or where it is found to be.
    pub(super) fn reach(&mut self, peer: PeerId) {
        let now = self.runtime.now();
        if self.swarm.is_connected(&peer) || !self.needed.insert(peer, now) {
            return;
        }
        if self.swarm.dial(DialOpts::peer_id(peer).build()).is_err() {
            self.search(peer, None);
        }
    }

    fn search(&mut self, peer: PeerId, ping: Option<Reply<Duration>>) {
        let id = self.swarm.behaviour_mut().kad.get_closest_peers(peer);
        self.queries.insert(id, Query::Reach { peer, ping });
    }

    /// Looks for a peer before it is pinged, if nobody here knows where it is; otherwise gives back who waits.
    pub(super) fn search_for_ping(
        &mut self,
        peer: PeerId,
        reply: Reply<Duration>,
    ) -> Option<Reply<Duration>> {
        let is_known = !self.swarm.behaviour().dialer.is_sparse() || self.swarm.is_connected(&peer);
        self.needed.insert(peer, self.runtime.now());
        if is_known || self.swarm.dial(DialOpts::peer_id(peer).build()).is_ok() {
            return Some(reply);
        }
        self.search(peer, Some(reply));
        None
    }

    /// A peer that is to be reached was found, or not.
    pub(super) fn reached(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, ping: Option<Reply<Duration>>) {
        let dial = DialOpts::peer_id(peer).addresses(addresses).build();
        if self.drain.is_none()
            && let Err(e) = self.swarm.dial(dial)
        {
            log::debug!("{peer} is not reached: {}", chain(&e));
        }
        if let Some(reply) = ping {
            self.send_ping(peer, reply);
        }
    }
}
