//! Who is connected, over which connection gossip goes, and how a peer is greeted.
//!
//! What we send goes over one connection of a peer, the carrier; what a peer sends is heard on all of them. When the
//! carrier closes or its substream breaks, another substream is opened, and the peer is greeted again: whatever was
//! lost on the way, it knows our topics and meshes from then on.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::ConnectionId};

use super::{
    Action, Core, Event, PeerKind,
    choke::{self, Announcements},
    key_set::KeySet,
    peers::{Carrier, Connection, Peer, PeerKey, Unwanted},
    strangers::Charge,
};
use crate::{Choke, ControlItem, Extensions, Topic, outbox::Outbox};

/// For how long a topic that we left is taken back again in greetings.
pub(super) const LEFT_TIME: Duration = Duration::from_secs(120);
/// Topics that are.
pub(super) const LEFT_MOST: usize = 1024;

/// Whether gossip with a peer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// What we send is carried.
    pub outbound: bool,
    /// What the peer sends is carried.
    pub inbound: bool,
    /// What it speaks.
    pub kind: Option<PeerKind>,
}

#[doc(hidden)]
impl Core {
    /// A connection was established.
    pub fn connected(&mut self, peer: PeerId, connection: ConnectionId, outbound: bool, address: &Multiaddr) {
        self.stir();
        let connection = Connection {
            id: connection,
            relayed: address.iter().any(|part| part == Protocol::P2pCircuit),
            ip: ip_of(address),
            inbound: false,
            unsupported: false,
        };
        let key = self.peers.key(&peer).unwrap_or_else(|| self.meet(peer, outbound));
        if let (Some(score), Some(ip)) = (&mut self.score, connection.ip) {
            score.add_ip(&peer, ip);
        }
        if let Some(state) = self.peers.get_mut(key) {
            state.connections.push(connection);
        }
        self.choose_carrier(key);
    }

    /// What is to be sent to a connected peer, over whichever connection carries it.
    pub fn outbox(&self, peer: &PeerId) -> Option<&Arc<Outbox>> {
        self.peers.get(self.peers.key(peer)?).map(|peer| &peer.outbox)
    }

    fn meet(&mut self, peer: PeerId, outbound: bool) -> PeerKey {
        if let Some(score) = &mut self.score {
            score.add_peer(peer);
        }
        let outbound = outbound && !self.exchanged.contains(&peer);
        self.peers.insert(Peer {
            id: peer,
            kind: None,
            outbound,
            explicit: self.explicit.contains(&peer),
            connections: Vec::with_capacity(1),
            carrier: None,
            greeted: false,
            outbox: Arc::new(Outbox::new(self.config.queue(), self.queued.clone())),
            topics: KeySet::default(),
            strange: KeySet::default(),
            charge: Charge::default(),
            meshes: 0,
            taken: 0,
            pace: Default::default(),
            stuck: None,
            unwanted: Unwanted::default(),
            ihaves: 0,
            asked: 0,
            unverified: 0,
            unverified_bytes: 0,
            dropped: 0,
            announced: 0,
            own_missing: choke::OWN_MISSING,
            announced_to_us: 0,
            announcements: Announcements::default(),
            extensions: None,
        })
    }

    /// A connection was closed.
    pub fn disconnected(&mut self, peer: &PeerId, connection: ConnectionId, now: Instant) {
        let Some(key) = self.peers.key(peer) else { return };
        let Some(state) = self.peers.get_mut(key) else { return };
        let before = state.link();
        let Some(at) = state.connections.iter().position(|c| c.id == connection) else { return };
        let closed = state.connections.remove(at);
        if let (Some(score), Some(ip)) = (&mut self.score, closed.ip) {
            score.remove_ip(peer, ip);
        }
        if state.connections.is_empty() {
            self.stir();
            self.part(key, now);
            return;
        }
        if state.carrier.is_some_and(|carrier| carrier.connection == connection) {
            state.carrier = None;
        }
        self.choose_carrier(key);
        self.note_link(key, before);
    }

    fn part(&mut self, key: PeerKey, now: Instant) {
        let topics = self.peers.get(key).map(|peer| peer.strange.clone()).unwrap_or_default();
        topics.iter().for_each(|topic| self.discharge(key, topic));
        let Some(peer) = self.peers.remove(key) else { return };
        for topic in peer.topics.iter() {
            if let Some(state) = self.topics.get_mut(topic) {
                state.peers.remove(key);
                if let Some(fanout) = &mut state.fanout {
                    fanout.peers.remove(key);
                }
                state.links.remove(key);
                if state.mesh.remove(key) {
                    let topic = state.name.clone();
                    self.report(Event::Left { peer: peer.id, topic });
                }
            }
            self.forget_unused_topic(topic);
        }
        self.records.remove(&peer.id);
        self.exchanged.remove(&peer.id);
        if let Some(score) = &mut self.score {
            score.remove_peer(&peer.id, now);
        }
    }

    /// The address of a connection changed.
    pub fn moved(&mut self, peer: &PeerId, connection: ConnectionId, address: &Multiaddr) {
        let Some(state) = self.peers.find_mut(peer) else { return };
        let Some(connection) = state.connections.iter_mut().find(|c| c.id == connection) else { return };
        let (old, new) = (std::mem::replace(&mut connection.ip, ip_of(address)), ip_of(address));
        if let Some(score) = &mut self.score {
            old.into_iter().for_each(|ip| score.remove_ip(peer, ip));
            new.into_iter().for_each(|ip| score.add_ip(peer, ip));
        }
    }

    /// Has one connection carry what we send: a direct one if there is, and else the one that does already.
    fn choose_carrier(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let usable = |c: &&Connection| !c.unsupported;
        let current = peer
            .carrier
            .and_then(|carrier| peer.connections.iter().filter(usable).find(|c| c.id == carrier.connection));
        // The newest: of a peer that was started again, the older ones may be dead.
        let direct = peer.connections.iter().rev().filter(usable).find(|c| !c.relayed);
        let best = match current {
            Some(current) if !current.relayed => Some(current),
            Some(current) => direct.or(Some(current)),
            None => direct.or_else(|| peer.connections.iter().rev().find(usable)),
        };
        let (id, best) = (peer.id, best.map(|c| c.id));
        let held = peer.carrier.map(|carrier| carrier.connection);
        if best == held {
            return;
        }
        peer.carrier = best.map(|connection| Carrier { connection, open: false });
        peer.outbox.hold(false);
        let keep = peer.meshes > 0;
        if let Some(connection) = held {
            self.actions.push_back(Action::Release { peer: id, connection });
            if keep {
                self.actions.push_back(Action::KeepAlive { peer: id, connection, keep: false });
            }
        }
        if let Some(connection) = best {
            self.actions.push_back(Action::Carry { peer: id, connection });
            if keep {
                self.actions.push_back(Action::KeepAlive { peer: id, connection, keep: true });
            }
        }
    }

    /// If `connection` carries what we send, nothing more goes over it until [`Self::release`], or until another
    /// connection carries: for whoever doubts that it is alive. What is sent waits in the queue, as far as it fits.
    pub fn hold(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(peer) = self.peers.find_mut(peer)
            && peer.carrier.is_some_and(|carrier| carrier.connection == connection)
        {
            peer.outbox.hold(true);
        }
    }

    /// `connection` is alive.
    pub fn release(&mut self, peer: &PeerId, connection: ConnectionId) {
        let Some(key) = self.peers.key(peer) else { return };
        if let Some(peer) = self.peers.get(key)
            && peer.carrier.is_some_and(|carrier| carrier.connection == connection)
        {
            peer.outbox.hold(false);
            self.flush(key);
        }
    }

    /// The substream that [`Action::Carry`] asked for was opened: the peer is greeted.
    pub fn opened(&mut self, peer: &PeerId, connection: ConnectionId, kind: PeerKind) {
        let Some(key) = self.peers.key(peer) else { return };
        let Some(state) = self.peers.get_mut(key) else { return };
        let before = state.link();
        let Some(carrier) = state.carrier.as_mut().filter(|c| c.connection == connection) else { return };
        carrier.open = true;
        // What the peer accepts is what counts, and it may have been replaced by another version of itself.
        state.kind = Some(kind);
        let again = std::mem::replace(&mut state.greeted, true);
        self.greet(key);
        if again {
            self.announce_again(key);
        }
        self.actions.push_back(Action::Start { peer: *peer, connection });
        self.note_link(key, before);
    }

    /// The substream broke; another one is being opened.
    pub fn broke(&mut self, peer: &PeerId, connection: ConnectionId) {
        let Some(key) = self.peers.key(peer) else { return };
        let Some(state) = self.peers.get_mut(key) else { return };
        let before = state.link();
        if let Some(carrier) = state.carrier.as_mut().filter(|c| c.connection == connection) {
            carrier.open = false;
        }
        self.note_link(key, before);
    }

    /// The peer speaks none of our protocols on this connection.
    pub fn unsupported(&mut self, peer: &PeerId, connection: ConnectionId) {
        let Some(key) = self.peers.key(peer) else { return };
        let Some(state) = self.peers.get_mut(key) else { return };
        let before = state.link();
        if let Some(connection) = state.connections.iter_mut().find(|c| c.id == connection) {
            connection.unsupported = true;
        }
        if state.connections.iter().all(|c| c.unsupported) && !before.inbound {
            self.report(Event::NotSupported { peer: *peer });
        }
        self.choose_carrier(key);
        self.note_link(key, before);
    }

    /// The peer opened a substream on this connection, or has none on it any more.
    pub fn heard(&mut self, peer: &PeerId, connection: ConnectionId, kind: PeerKind, open: bool) {
        let Some(key) = self.peers.key(peer) else { return };
        let Some(state) = self.peers.get_mut(key) else { return };
        let before = state.link();
        if let Some(connection) = state.connections.iter_mut().find(|c| c.id == connection) {
            connection.inbound = open;
        }
        if open && state.kind.is_none() {
            state.kind = Some(kind);
        }
        if open {
            self.unchoke_by(key);
        }
        self.note_link(key, before);
    }

    /// Whether gossip with a connected peer works.
    pub fn link(&self, peer: &PeerId) -> Option<Link> {
        self.peers.get(self.peers.key(peer)?).map(Peer::link)
    }

    fn note_link(&mut self, key: PeerKey, before: Link) {
        let Some(peer) = self.peers.get(key) else { return };
        let (id, Link { outbound, inbound, kind }) = (peer.id, peer.link());
        if (Link { outbound, inbound, kind }) != before {
            self.report(Event::Link { peer: id, outbound, inbound, kind });
        }
    }

    /// Puts what a peer must know in front of what waits for it: our extensions, topics, and meshes. The outbox cuts it
    /// into RPCs that any peer takes.
    fn greet(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let mut outbox = peer.outbox.lock();
        if peer.speaks(PeerKind::V1_3) && self.config.extensions != Extensions::default() {
            outbox.control(ControlItem::Extensions(self.config.extensions.clone()));
        }
        for (_, topic) in self.topics.ours() {
            outbox.subscription(topic.name.clone(), true);
        }
        for (_, topic) in &self.left {
            if self.topics.followed(topic.as_str()).is_none() {
                outbox.subscription(topic.clone(), false);
            }
        }
        for (_, topic) in self.topics.ours().filter(|(_, topic)| topic.mesh.contains(key)) {
            outbox.control(ControlItem::Graft(topic.name.clone()));
            if topic.links.is_choked(key) {
                outbox.control(ControlItem::Choke(Choke { topic: topic.name.clone(), choked: true }));
            }
        }
    }

    pub(super) fn note_left(&mut self, topic: Topic, now: Instant) {
        if self.left.len() >= LEFT_MOST {
            self.left.pop_front();
        }
        self.left.push_back((now, topic));
    }

    pub(super) fn expire_left(&mut self, now: Instant) {
        while self.left.front().is_some_and(|(at, _)| *at + LEFT_TIME < now) {
            self.left.pop_front();
        }
        if self.left.is_empty() {
            self.left = Default::default();
        }
    }
}

impl Peer {
    pub(super) fn link(&self) -> Link {
        Link {
            outbound: self.carrier.is_some_and(|carrier| carrier.open),
            inbound: self.connections.iter().any(|connection| connection.inbound),
            kind: self.kind,
        }
    }
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    // Of a relayed address the relay's host comes first: it is not the peer's.
    if address.iter().any(|part| part == Protocol::P2pCircuit) {
        return None;
    }
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}
