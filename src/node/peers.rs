//! The connected peers: bookkeeping of what the swarm and identify report.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use serde::{Serialize, Serializer};

use super::{
    name::introduced,
    watch::{GossipState, Watch},
};
use crate::{gossip, transport::multiaddr::is_circuit};

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerStatus {
    /// The peer.
    #[serde(serialize_with = "as_text")]
    pub peer: PeerId,
    /// Its connections, oldest first.
    pub connections: Vec<ConnectionStatus>,
    /// Its program (identify's agent version); `None` before identify has it.
    pub agent: Option<String>,
    /// What it calls itself, if it has a name. Anybody may call itself anything.
    pub name: Option<String>,
    /// The last round-trip time, in microseconds.
    pub rtt_us: Option<u64>,
    /// Its gossipsub score, if scores are kept.
    pub score: Option<f64>,
    /// How gossip with it stands.
    pub gossip: GossipState,
    /// What is amiss if its gossip is off.
    pub gossip_trouble: Option<String>,
    /// Topics of this node that it follows as well, whether or not it is in their mesh.
    pub topics: Vec<String>,
}

/// A connection to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionStatus {
    /// The address of the other side.
    pub address: Multiaddr,
    /// Whether we dialed.
    pub outbound: bool,
    /// Whether it goes through a relay; its address says which.
    pub relayed: bool,
    /// How long it has been standing, in seconds.
    pub age_s: u64,
}

fn as_text<S: Serializer>(peer: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(peer)
}

/// A connection as noted.
#[derive(Debug)]
struct Connection {
    address: Multiaddr,
    outbound: bool,
    /// Came up beside a relayed one: it may lead through a hole in a NAT, which is open to this node alone.
    punched: bool,
    since: Instant,
}

impl Connection {
    fn is_relayed(&self) -> bool {
        is_circuit(&self.address)
    }
}

#[derive(Debug, Default)]
struct Peer {
    connections: BTreeMap<ConnectionId, Connection>,
    agent: Option<String>,
    name: Option<Arc<str>>,
    rtt: Option<Duration>,
}

/// The connected peers.
#[derive(Debug, Default)]
pub(crate) struct Peers(HashMap<PeerId, Peer>);

impl Peers {
    /// Notes a connection; says whether it is the peer's first.
    pub(crate) fn connected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        address: Multiaddr,
        outbound: bool,
        now: Instant,
    ) -> bool {
        let peer = self.0.entry(peer).or_default();
        let punched = !is_circuit(&address) && peer.connections.values().any(Connection::is_relayed);
        peer.connections.insert(connection, Connection { address, outbound, punched, since: now });
        peer.connections.len() == 1
    }

    /// Notes that the other side of a connection is at `address` now.
    pub(crate) fn moved(&mut self, peer: &PeerId, connection: ConnectionId, address: Multiaddr) {
        if let Some(connection) = self.0.get_mut(peer).and_then(|peer| peer.connections.get_mut(&connection))
        {
            connection.address = address;
        }
    }

    /// The connections that stood for `age` before `connection`, to the same peer, came up.
    ///
    /// They may lead to the peer as it was before it started again, or stand as well as the new one. Two that are
    /// connected through a relay do try to connect directly as well.
    pub(crate) fn former(&self, peer: &PeerId, connection: ConnectionId, age: Duration) -> Vec<ConnectionId> {
        let Some(peer) = self.0.get(peer) else {
            return Vec::new();
        };
        let Some(new) = peer.connections.get(&connection) else {
            return Vec::new();
        };
        let is_upgraded = |l: &Connection| l.is_relayed() && !new.is_relayed();
        let is_former =
            |l: &Connection| new.since.saturating_duration_since(l.since) > age && !is_upgraded(l);
        peer.connections.iter().filter(|(_, l)| is_former(l)).map(|(id, _)| *id).collect()
    }

    /// The relayed connections to a peer that we dialed and that are redundant now that `connection` works: all of
    /// them if it is a direct one. If both sides dialed through a relay simultaneously, the connection that the
    /// lower peer id dialed is kept.
    pub(crate) fn replaced(
        &self,
        local: &PeerId,
        peer: &PeerId,
        connection: ConnectionId,
    ) -> Vec<ConnectionId> {
        let connections = self.0.get(peer).map(|peer| &peer.connections);
        let Some(answers) = connections.and_then(|connections| connections.get(&connection)) else {
            return Vec::new();
        };
        let theirs = |l: &Connection| l.is_relayed() && !l.outbound;
        let does = !answers.is_relayed()
            || (peer < local && connections.into_iter().flatten().any(|(_, l)| theirs(l)));
        let ours = connections.into_iter().flatten().filter(|(_, l)| does && l.is_relayed() && l.outbound);
        ours.map(|(id, _)| *id).collect()
    }

    /// Whether a connection to a peer stands that goes through no relay.
    pub(crate) fn is_direct(&self, peer: &PeerId) -> bool {
        self.0
            .get(peer)
            .is_some_and(|peer| peer.connections.values().any(|connection| !connection.is_relayed()))
    }

    /// Whether a peer has one direct connection, beside relayed ones.
    pub(crate) fn is_first_direct(&self, peer: &PeerId) -> bool {
        let Some(peer) = self.0.get(peer) else { return false };
        peer.connections.len() > 1
            && peer.connections.values().filter(|connection| !connection.is_relayed()).count() == 1
    }

    /// Whether this node dialed a connection.
    pub(crate) fn is_outbound(&self, peer: &PeerId, connection: ConnectionId) -> bool {
        self.0
            .get(peer)
            .and_then(|peer| peer.connections.get(&connection))
            .is_some_and(|connection| connection.outbound)
    }

    /// Notes the end of a connection; says whether it was the peer's last.
    pub(crate) fn disconnected(&mut self, peer: PeerId, connection: ConnectionId) -> bool {
        let Some(known) = self.0.get_mut(&peer) else {
            return false;
        };
        known.connections.remove(&connection);
        let last = known.connections.is_empty();
        if last {
            self.0.remove(&peer);
            // Tables do not shrink by themselves.
            self.0.shrink_to(64.max(self.0.len() * 2));
        }
        last
    }

    /// Notes how a peer introduced itself; its name, if it has one and that is news.
    pub(crate) fn identified(&mut self, peer: &PeerId, agent: &str) -> Option<Arc<str>> {
        let peer = self.0.get_mut(peer)?;
        let (agent, name) = introduced(agent);
        peer.agent = Some(agent);
        let before = std::mem::replace(&mut peer.name, name.clone());
        name.filter(|name| before.as_ref() != Some(name))
    }

    /// What a connected peer calls itself.
    pub(crate) fn name(&self, peer: &PeerId) -> Option<Arc<str>> {
        self.0.get(peer)?.name.clone()
    }

    pub(crate) fn pinged(&mut self, peer: &PeerId, rtt: Duration) {
        if let Some(peer) = self.0.get_mut(peer) {
            peer.rtt = Some(rtt);
        }
    }

    /// The other side's address of a connection.
    pub(crate) fn address(&self, peer: &PeerId, connection: ConnectionId) -> Option<&Multiaddr> {
        self.0.get(peer)?.connections.get(&connection).map(|l| &l.address)
    }

    /// Where a peer was dialed that is connected.
    pub(crate) fn dialed(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let connections = self.0.get(peer).into_iter().flat_map(|peer| peer.connections.values());
        connections
            .filter(|connection| connection.outbound)
            .map(|connection| connection.address.clone())
            .collect()
    }

    /// Where a connected peer was dialed and answered, and others may dial it, too.
    pub(crate) fn found_at(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let connections = self.0.get(peer).into_iter().flat_map(|peer| peer.connections.values());
        connections.filter(|c| c.outbound && !c.punched).map(|c| c.address.clone()).collect()
    }

    /// The peer that is connected at this address.
    pub(crate) fn at(&self, address: &Multiaddr) -> Option<PeerId> {
        let has = |peer: &Peer| peer.connections.values().any(|connection| connection.address == *address);
        self.0.iter().find(|(_, peer)| has(peer)).map(|(id, _)| *id)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The connected peers: whether this node opened all connections, and since when the newest stands.
    pub(crate) fn ages(&self) -> impl Iterator<Item = (PeerId, bool, Instant)> {
        self.0.iter().filter_map(|(id, peer)| {
            let newest = peer.connections.values().map(|connection| connection.since).max()?;
            Some((*id, peer.connections.values().all(|connection| connection.outbound), newest))
        })
    }

    pub(crate) fn status(&self, now: Instant, gossip: &gossip::Behaviour, watch: &Watch) -> Vec<PeerStatus> {
        let core = gossip.core();
        // Those of our topics that it follows as well.
        let shared = |peer: &PeerId| {
            let theirs = core.topics_of(peer);
            let ours = theirs.iter().filter(|topic| core.is_followed(topic.as_str()));
            ours.map(ToString::to_string).collect()
        };
        let mut all: Vec<_> = self
            .0
            .iter()
            .map(|(id, peer)| (id, peer, watch.state(id)))
            .map(|(id, peer, (standing, trouble))| PeerStatus {
                peer: *id,
                connections: peer
                    .connections
                    .values()
                    .map(|l| ConnectionStatus {
                        address: l.address.clone(),
                        outbound: l.outbound,
                        relayed: l.is_relayed(),
                        age_s: now.saturating_duration_since(l.since).as_secs(),
                    })
                    .collect(),
                agent: peer.agent.clone(),
                name: peer.name.as_deref().map(Into::into),
                rtt_us: peer.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
                score: core.score(id),
                gossip: standing,
                gossip_trouble: trouble.map(Into::into),
                topics: shared(id),
            })
            .collect();
        all.sort_by_key(|p| p.peer);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relayed_connection_gives_way_to_a_direct_one_and_of_two_relayed_ones_one_stays() {
        let mut ids = [PeerId::random(), PeerId::random()];
        ids.sort();
        let [low, high] = ids;
        let circuit = format!("/ip4/10.0.0.1/tcp/1/p2p/{}/p2p-circuit/p2p/{high}", PeerId::random());
        let [ours, theirs, direct] = [1, 2, 3].map(ConnectionId::new_unchecked);
        for (local, peer) in [(low, high), (high, low)] {
            let mut peers = Peers::default();
            let mut connect = |connection, address: &str, outbound| {
                peers.connected(peer, connection, address.parse().unwrap(), outbound, Instant::now());
            };
            connect(ours, &circuit, true);
            connect(theirs, &circuit, false);
            let given_up = if local == high { vec![ours] } else { vec![] };
            assert_eq!(peers.replaced(&local, &peer, ours), given_up);
            assert_eq!(peers.replaced(&local, &peer, theirs), given_up);
            peers.connected(peer, direct, "/ip4/10.0.0.2/tcp/1".parse().unwrap(), false, Instant::now());
            assert_eq!(peers.replaced(&local, &peer, direct), [ours], "each side closes its own");
            peers.disconnected(peer, theirs);
            assert_eq!(peers.replaced(&local, &peer, ours), [], "the direct one has not answered yet");
        }
    }

    #[test]
    fn a_peer_is_found_where_it_was_dialed_but_not_through_a_hole_in_its_nat() {
        let (mut peers, peer) = (Peers::default(), PeerId::random());
        let circuit = format!("/ip4/10.0.0.1/tcp/1/p2p/{}/p2p-circuit/p2p/{peer}", PeerId::random());
        let mut connect = |id, address: &str, outbound| {
            let connection = ConnectionId::new_unchecked(id);
            peers.connected(peer, connection, address.parse().unwrap(), outbound, Instant::now());
            peers.found_at(&peer).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let [dialed, theirs, punched] = [2, 3, 4].map(|n| format!("/ip4/10.0.0.{n}/udp/4001/quic-v1"));
        assert_eq!(connect(1, &theirs, false), [""; 0], "its port may be any");
        assert_eq!(connect(2, &dialed, true), [dialed.as_str()]);
        assert_eq!(connect(3, &circuit, true), [dialed.as_str(), &circuit]);
        assert_eq!(connect(4, &punched, true), [dialed.as_str(), &circuit], "it is open to this node alone");
    }

    #[test]
    fn what_stood_long_before_a_new_connection_is_former_and_what_came_up_beside_it_is_not() {
        let (mut peers, peer, other) = (Peers::default(), PeerId::random(), PeerId::random());
        let start = Instant::now();
        let mut connect = |peer, connection, at| {
            let connection = ConnectionId::new_unchecked(connection);
            peers.connected(peer, connection, "/ip4/10.0.0.1/udp/4001/quic-v1".parse().unwrap(), true, at);
            connection
        };
        let handshake = Duration::from_secs(5);
        let old = connect(peer, 1, start);
        connect(other, 2, start);
        let one = connect(peer, 3, start + handshake * 2);
        let two = connect(peer, 4, start + handshake * 3);
        let never = ConnectionId::new_unchecked(9);
        assert_eq!(peers.former(&peer, one, handshake), [old]);
        assert_eq!(peers.former(&peer, two, handshake), [old], "these two dialed each other");
        assert_eq!(peers.former(&peer, old, handshake), []);
        assert_eq!(peers.former(&peer, never, handshake), [], "closed already");
    }
}
