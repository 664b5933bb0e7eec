//! Whether connections live and carry gossip, and what is done when one does not.

use std::time::{Duration, Instant};

use libp2p::{PeerId, swarm::ConnectionId};

use super::{EventLoop, answer};
use crate::{
    error::chain,
    node::{error::Error, event::Event, ping},
    transport::multiaddr::{is_circuit, split_peer},
};

/// How long a connection has to show that it is alive: less than what is queued for a peer is kept.
const ALIVE: Duration = Duration::from_secs(4);
/// How long a relayed connection stays beside the direct one that does its work: what is on its way over a relay
/// arrives later than what is sent after it directly.
const GRACE: Duration = Duration::from_secs(3);

impl EventLoop {
    pub(super) fn on_ping(&mut self, event: ping::Event) {
        match event {
            ping::Event::Interval(event) => {
                self.metrics.record(&event);
                if let Ok(rtt) = event.result {
                    self.peers.pinged(&event.peer, rtt);
                    self.emit(Event::Ping { peer: event.peer, rtt });
                }
            }
            ping::Event::Answer { request, peer, result } => {
                if let Ok(rtt) = &result {
                    self.peers.pinged(&peer, *rtt);
                }
                if let Some(reply) = self.pings.remove(&request) {
                    answer(reply, result.map_err(|e| Error::Ping { peer, why: chain(&e) }));
                } else {
                    self.on_asked(request, result);
                }
            }
        }
    }

    /// Asks the connections to a peer that stood before `connection` came up whether they are alive. A node does not
    /// dial a peer that it is connected to, so the peer may have been started again: then they are dead, may look
    /// alive for as long as the transport's idle timeout, and swallow what is sent. Or a second one was
    /// asked for, and they are as good as this one.
    pub(super) fn ask_former(&mut self, peer: PeerId, connection: ConnectionId) {
        // Two that dial each other simultaneously are no further apart than that.
        let age = self.config.longest_dial();
        for former in self.peers.former(&peer, connection, age) {
            if self.asked.values().any(|(_, asked)| *asked == former) {
                continue;
            }
            let behaviour = self.swarm.behaviour_mut();
            behaviour.gossip.core_mut().hold(&peer, former);
            let request = behaviour.ping.ask(peer, former, ALIVE);
            self.asked.insert(request, (peer, former));
        }
    }

    fn on_asked(&mut self, request: ping::Request, result: Result<Duration, ping::Failure>) {
        let Some((peer, former)) = self.asked.remove(&request) else { return };
        match result {
            // A peer that answers pings, or says that it does not, is alive.
            Ok(_) | Err(ping::Failure::Unsupported | ping::Failure::TooMany) => {
                self.swarm.behaviour_mut().gossip.core_mut().release(&peer, former);
            }
            Err(ping::Failure::Closed) => {}
            Err(why) => {
                log::debug!("{peer} came back: its connection from before is closed: {}", chain(&why));
                self.swarm.close_connection(former);
            }
        }
    }

    /// A connection has nothing more to do once what is under way over it has arrived.
    pub(super) fn retire(&mut self, connection: ConnectionId) {
        if self.retiring.iter().all(|(_, other)| *other != connection) {
            self.retiring.push_back((self.runtime.now() + GRACE, connection));
        }
    }

    pub(super) fn on_gossip_link(&mut self, peer: PeerId, heard: bool, sending: bool) {
        log::debug!("gossip with {peer}: its stream stands: {heard}, ours: {sending}");
        if self.watch.changed(peer, heard, sending, self.runtime.now()) {
            self.emit(Event::GossipBack { peer });
        }
    }

    /// Closes what has retired, and connects those anew whose gossip is not up.
    pub(super) fn check_connections(&mut self, now: Instant) {
        while self.retiring.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, connection)) = self.retiring.pop_front()
        {
            self.swarm.close_connection(connection);
        }
        for late in self.watch.take_late(now) {
            let known = self.dialable(late.peer);
            let again = !known.is_empty() && self.drain.is_none();
            self.emit(Event::GossipOff {
                peer: late.peer,
                reason: late.why.into(),
                attempt: late.attempt + 1,
                again,
            });
            if again {
                self.anew.insert(late.peer, known);
                // An error says that the peer is gone already.
                let _ = self.swarm.disconnect_peer_id(late.peer);
            }
        }
    }

    pub(super) fn links_deadline(&self) -> Option<Instant> {
        self.retiring.front().map(|(at, _)| *at).into_iter().chain(self.watch.deadline()).min()
    }

    /// The last connection to a peer ended; if it was closed for gossip's sake, the peer is dialed.
    pub(super) fn connect_anew(&mut self, peer: PeerId) {
        let known = self.anew.remove(&peer).unwrap_or_default();
        self.swarm.behaviour_mut().dialer.try_known(known.into_iter().map(|address| (peer, address)));
    }

    /// Where a connected peer can be dialed.
    fn dialable(&mut self, peer: PeerId) -> Vec<libp2p::Multiaddr> {
        let mut known = self.peers.dialed(&peer);
        known.extend(self.swarm.behaviour_mut().kad.addresses(&peer));
        known.iter_mut().for_each(|address| {
            if !is_circuit(address) {
                *address = split_peer(address.clone()).0;
            }
        });
        known.sort();
        known.dedup();
        known
    }
}
