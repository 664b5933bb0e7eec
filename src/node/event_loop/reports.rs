//! What the swarm and its behaviours report.

use std::time::Instant;

use libp2p::{
    Multiaddr, PeerId, TransportError, identify, kad,
    swarm::{ConnectionError, ConnectionId, DialError, SwarmEvent},
};

use super::EventLoop;
use crate::{
    config::TransportKind,
    dialer,
    error::{chain, remedy},
    gossip,
    node::{
        Verdict,
        behaviour::BehaviourEvent,
        claims::rank,
        event::{Event, Oversize},
        pushes,
        queries::Next,
        reachable::is_reachable,
        table,
    },
    store::Report,
    transport::{
        admission::is_refusal,
        multiaddr::{is_circuit, split_peer},
    },
};

/// How the names of gossipsub's protocols begin (libp2p/specs pubsub/gossipsub).
const MESHSUB: &str = "/meshsub/";
/// Peers remembered that do not let this node in.
const MAX_REFUSALS: usize = 1024;

impl EventLoop {
    pub(super) fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.metrics.record(&event);
        self.metrics.dialed(&event);
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::NewListenAddr { address, .. } => {
                self.relay_at(&address, true);
                self.emit(Event::Listening(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.relay_at(&address, false);
                self.emit(Event::NotListening(address, "the address is gone from this host".into()));
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. }
                if self.is_reservation(listener_id, &reason) => {}
            SwarmEvent::ListenerClosed { listener_id, addresses, reason: Err(e) } => {
                let reason = chain(&e);
                for address in addresses {
                    self.emit(Event::NotListening(address, reason.clone()));
                }
                if let Some(missed) = self.listeners.closed(listener_id, &reason, self.runtime.now()) {
                    self.emit(Event::missed(missed));
                }
            }
            SwarmEvent::ListenerError { error, .. } => {
                let text = format!("a listener reports: {}{}", chain(&error), remedy(&error));
                if let Some(text) = self.listener_errors.say(&text, self.runtime.now()) {
                    log::warn!("{text}");
                }
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let address = self.remote(&endpoint);
                let outbound = endpoint.is_dialer();
                let now = self.runtime.now();
                self.dial_requests.connected(connection_id, peer_id);
                let first = self.peers.connected(peer_id, connection_id, address.clone(), outbound, now);
                if endpoint.is_relayed() {
                    self.on_relayed(peer_id, address.clone(), outbound);
                }
                self.watch.connected(peer_id, connection_id, endpoint.is_relayed(), now);
                if let Some(score) = self.blame.score(&peer_id) {
                    self.set_own_score(&peer_id, score);
                }
                if first {
                    self.emit(Event::Connected { peer: peer_id, address, outbound });
                }
                if self.is_probe(&connection_id) {
                    return;
                }
                if !endpoint.is_relayed() {
                    self.on_direct(peer_id);
                }
                self.ask_former(peer_id, connection_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                let name = self.peers.name(&peer_id);
                let last = self.peers.disconnected(peer_id, connection_id);
                self.watch.closed(peer_id, connection_id);
                self.pushes.closed(connection_id);
                if !self.peers.is_direct(&peer_id) {
                    self.reservations.gone(&peer_id);
                }
                let is_refusal = matches!(&cause, Some(ConnectionError::IO(e)) if is_refusal(e));
                let reason = match cause {
                    None => "closed by this node".into(),
                    Some(ConnectionError::IO(e)) => chain(&e),
                    Some(e) => chain(&e),
                };
                if is_refusal {
                    self.not_admitted(peer_id);
                }
                if last {
                    self.emit_named(&Event::Disconnected { peer: peer_id, reason }, name);
                    self.connect_anew(peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error: DialError::WrongPeerId { obtained, address },
                connection_id,
            } => {
                self.dial_requests.failed(connection_id, || format!("{obtained} is there, not {peer}"));
                let (address, _) = split_peer(address);
                log::debug!("{obtained} answers at {address}, where {peer} was");
                self.forget(peer, Some(address));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.dial_requests.failed(connection_id, || dial_error(&error));
            }
            SwarmEvent::ExternalAddrConfirmed { address } => {
                self.tell_addresses();
                if !is_circuit(&address) {
                    self.emit(Event::Reachable(address));
                }
            }
            SwarmEvent::ExternalAddrExpired { .. } => self.tell_addresses(),
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                log::debug!("an incoming connection from {send_back_addr} failed: {}", chain(&error));
            }
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match &event {
            BehaviourEvent::Identify(event) => self.metrics.record(event),
            BehaviourEvent::Kad(table::Event::Kad(event)) => self.metrics.record(&**event),
            BehaviourEvent::RelayServer(event) => self.metrics.record(event),
            BehaviourEvent::Dcutr(event) => self.metrics.record(event),
            _ => {}
        }
        match event {
            BehaviourEvent::Dialer(dialer::Event::Notice(notice)) => self.emit(Event::Dialer(notice)),
            BehaviourEvent::Dialer(dialer::Event::Forget { peer, address }) => self.forget(peer, address),
            BehaviourEvent::Dialer(dialer::Event::Moved { peer, connection, address }) => {
                log::debug!("{peer} is at {address} now");
                self.peers.moved(&peer, connection, address);
            }
            BehaviourEvent::Mdns(notice) => self.emit(Event::Mdns(notice)),
            BehaviourEvent::Gossip(event) => {
                self.on_gossip_event(event);
                self.count_gossip();
            }
            BehaviourEvent::Identify(identify::Event::Received { connection_id, peer_id, info }) => {
                self.on_identify(peer_id, connection_id, info);
            }
            BehaviourEvent::Kad(table::Event::Kad(event)) => self.on_kad_event(*event),
            BehaviourEvent::Kad(table::Event::Store(report)) => self.on_store_report(report),
            BehaviourEvent::Catchup(event) => self.on_catchup_event(event),
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::RelayClient(event) => self.on_reservation(event),
            BehaviourEvent::RelayServer(event) => log::debug!("as a relay: {event:?}"),
            BehaviourEvent::Dcutr(event) => self.on_hole_punch(event),
            BehaviourEvent::AutonatClient(event) => {
                if let Err(why) = event.result {
                    log::debug!("{} does not reach this node at {}: {why}", event.server, event.tested_addr);
                }
            }
            BehaviourEvent::AutonatServer(event) => log::debug!("as one who is asked: {event:?}"),
            _ => {}
        }
    }

    /// Says once that a peer does not let this node in: it is dialed again, for its key or ours may change.
    fn not_admitted(&mut self, peer: PeerId) {
        if self.refusals.len() >= MAX_REFUSALS {
            self.refusals.clear();
        }
        if self.refusals.insert(peer) {
            self.emit(Event::NotAdmitted { peer });
        }
    }

    fn on_kad_event(&mut self, event: kad::Event) {
        if let kad::Event::OutboundQueryProgressed { id, result, step, .. } = event {
            match self.queries.on_progress(id, result, step.last) {
                Next::Nothing => {}
                Next::Finish => {
                    if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id) {
                        query.finish();
                    }
                }
                Next::Topic { topic, lookup, found, last } => self.on_topic(&topic, lookup, found, last),
                Next::Reached { peer, addresses, ping } => self.reached(peer, addresses, ping),
                Next::Copy { put, key, peers, enough } => self.copy(put, key, peers, enough),
            }
            self.queries.settle(self.swarm.behaviour_mut().kad.store_mut());
        }
    }

    fn on_store_report(&mut self, report: Report) {
        self.queries.settle(self.swarm.behaviour_mut().kad.store_mut());
        match report {
            Report::Durable { after: 0, .. } => {}
            Report::Durable { after, .. } => self.emit(Event::StoredAgain { failures: after }),
            Report::Failed { why, retry_in, repeated } => {
                self.emit(Event::NotStored { why, retry_in, repeated });
            }
        }
    }

    fn on_gossip_event(&mut self, event: gossip::Event) {
        match event {
            gossip::Event::Joined { topic, peer } => {
                self.emit(Event::JoinedMesh { topic: topic.to_string(), peer });
            }
            gossip::Event::Left { topic, peer } => {
                self.emit(Event::LeftMesh { topic: topic.to_string(), peer });
            }
            gossip::Event::Message { from, id, message, wire } => self.on_message(from, &id, message, &wire),
            gossip::Event::Unsubscribed { peer, topic } => {
                self.swarm.behaviour_mut().catchup.left(&peer, topic.as_str());
            }
            gossip::Event::Subscribed { peer, topic } => {
                self.swarm.behaviour_mut().catchup.follows(peer, topic.as_str());
                self.emit(Event::Subscribed { topic: topic.to_string(), peer });
                self.publish_ready();
            }
            gossip::Event::SlowPeer { peer, .. } => {
                self.swarm.behaviour_mut().catchup.missed(&peer);
                self.emit(Event::SlowPeer(peer));
            }
            gossip::Event::TooLarge { peer, bytes } => self.refuse_oversized(peer, bytes),
            gossip::Event::Link { peer, outbound, inbound, .. } => {
                self.on_gossip_link(peer, inbound, outbound);
            }
            _ => {}
        }
    }

    /// Counts what was too large to be taken from `peer`, a message or a frame, and says so now and then.
    fn refuse_oversized(&mut self, peer: PeerId, bytes: u64) {
        let frame = self.swarm.behaviour().gossip.core().max_frame();
        let what = match usize::try_from(bytes) {
            // The sender may have a larger limit, which is no fault.
            Ok(bytes) if bytes <= frame => {
                self.metrics.refused(Verdict::Ignore);
                Oversize::Message { bytes, limit: self.config.gossip.max_message }
            }
            _ => Oversize::Frame { bytes, limit: frame },
        };
        self.metrics.oversized(1);
        let now = self.runtime.now();
        if let Some(others) = self.oversized.note(1, now) {
            self.emit(Event::Oversized { peer, what, others });
        }
    }

    /// Counts copies, and what gossip gave up to stay within its bounds, which it says once in a while.
    fn count_gossip(&mut self) {
        let core = self.swarm.behaviour().gossip.core();
        self.metrics.duplicates(core.duplicates());
        let shed = core.shed();
        if shed == self.shed {
            return;
        }
        let before = std::mem::replace(&mut self.shed, shed);
        self.metrics.shed(&before, &shed);
        if self.shedding.note(1, self.runtime.now()).is_some() {
            self.emit(Event::Shedding(shed));
        }
    }

    /// A peer says who and where it is.
    fn on_identify(&mut self, peer: PeerId, connection: ConnectionId, info: identify::Info) {
        if self.peers.address(&peer, connection).is_none() {
            return; // the connection is gone already
        }
        match self.pushes.said(peer, connection, info, self.runtime.now()) {
            pushes::Verdict::Take(info) => self.on_identified(peer, connection, info, true),
            pushes::Verdict::Wait => {}
            pushes::Verdict::TooMany => {
                log::debug!("{peer} never stops saying where it is: its connection is closed");
                self.swarm.close_connection(connection);
            }
        }
    }

    /// Takes what peers said that had to wait, as they said too much.
    pub(super) fn take_pushes(&mut self, now: Instant) {
        while let Some((peer, connection, info)) = self.pushes.due(now) {
            self.on_identified(peer, connection, info, false);
        }
    }

    /// What goes into the table, and is remembered for the next start: where this node dialed the peer and it
    /// answered, whatever it announces (a name, an outside address), and what it announces if that can be reached
    /// from here. It is `news` unless the peer said too much lately.
    fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: identify::Info, news: bool) {
        if let Some(name) = self.peers.identified(&peer, &info.agent_version) {
            self.emit_named(&Event::Named { peer, name }, None);
        }
        let speaks = info.protocols.iter().any(|protocol| protocol.as_ref().starts_with(MESHSUB));
        self.watch.identified(peer, speaks, self.runtime.now());
        let Some(remote) = self.peers.address(&peer, connection) else {
            return; // the connection is gone already
        };
        let remote = remote.clone();
        let behaviour = self.swarm.behaviour_mut();
        behaviour.dialer.on_identified(peer, connection, &info.listen_addrs);
        self.on_peer_identified(peer, connection, &remote, &info);
        let local = *self.swarm.local_peer_id();
        // Through a relay that is this node itself, others reach the peer.
        let is_relay = |relay: &PeerId| *relay == local || self.peers.is_direct(relay);
        let bare = |address| split_peer(address).0;
        let found: Vec<_> = self.peers.found_at(&peer).into_iter().map(bare).collect();
        let claims = info.listen_addrs.into_iter().filter(|a| is_reachable(a, &remote, &self.here, is_relay));
        let ranked = rank(found.iter().cloned(), claims.map(bare), &remote);
        let behaviour = self.swarm.behaviour_mut();
        behaviour.kad.store_mut().remember(peer, &ranked.iter().cloned().collect());
        if !behaviour.kad.protocol_names().iter().any(|name| info.protocols.contains(name)) {
            return; // not part of our table
        }
        let addresses = behaviour.kad.replace(peer, &found, &ranked);
        match (addresses.is_empty(), news) {
            (true, _) => {}
            (false, true) => self.emit(Event::Routable { peer, addresses }),
            (false, false) => log::debug!("{peer} has {} other addresses in the table", addresses.len()),
        }
    }

    fn forget(&mut self, peer: PeerId, address: Option<Multiaddr>) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        if self.drain.is_none() {
            // During shutdown every peer disconnects: they stay in the store for the next start.
            kad.store_mut().forget(&peer, address.as_ref());
        }
        kad.disprove(&peer, address.as_ref());
        let Some(address) = address else {
            kad.remove_peer(&peer);
            return self.emit(Event::Forgotten { peer, address: None });
        };
        // kad has an address twice, with the peer's id at the end and, from the connection, without;
        // its own `remove_address` leaves the latter.
        let held = kad.addresses(&peer);
        if held.contains(&address) {
            kad.remove_peer(&peer);
            for other in held.into_iter().filter(|a| *a != address) {
                kad.add_address(&peer, other);
            }
            self.emit(Event::Forgotten { peer, address: Some(address) });
        }
    }
}

/// Why a dial failed, as text for the caller.
pub(super) fn dial_error(error: &DialError) -> String {
    match error {
        // The swarm leaves out the addresses that it listens on.
        DialError::LocalPeerId { .. } | DialError::NoAddresses => "it is this node itself".into(),
        DialError::Transport(errors) => {
            let said = errors.iter().map(|(_, error)| match error {
                TransportError::MultiaddrNotSupported(address) => match TransportKind::of(address) {
                    Some(kind) => format!("this node does not dial over {kind} (dial.transports)"),
                    None => chain(error),
                },
                error => chain(error),
            });
            said.collect::<Vec<_>>().join("; ")
        }
        DialError::Denied { cause } => chain(cause),
        other => chain(other),
    }
}
