//! Who is connected: bookkeeping of what the swarm and identify report.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use serde::{Serialize, Serializer};

use super::gossip;

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerStatus {
    /// Who.
    #[serde(serialize_with = "as_text")]
    pub peer: PeerId,
    /// Its connections, oldest first.
    pub connections: Vec<ConnectionStatus>,
    /// What it calls itself (identify's agent version); `None` until it told.
    pub agent: Option<String>,
    /// The last round-trip time, in microseconds.
    pub rtt_us: Option<u64>,
    /// Its gossipsub score, if scores are kept.
    pub score: Option<f64>,
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
    /// How long it has been standing, in seconds.
    pub age_s: u64,
}

fn as_text<S: Serializer>(peer: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(peer)
}

/// A connection as noted.
#[derive(Debug)]
struct Link {
    address: Multiaddr,
    outbound: bool,
    since: Instant,
}

#[derive(Debug, Default)]
struct Peer {
    links: BTreeMap<ConnectionId, Link>,
    agent: Option<String>,
    rtt: Option<Duration>,
}

/// Longest agent version kept, in characters: it comes from the network.
const MAX_AGENT: usize = 64;

/// The connected peers.
#[derive(Debug, Default)]
pub(crate) struct Peers(HashMap<PeerId, Peer>);

impl Peers {
    /// Notes a connection; says whether it is the peer's first.
    pub(crate) fn connected(
        &mut self,
        peer: PeerId,
        link: ConnectionId,
        address: Multiaddr,
        outbound: bool,
        now: Instant,
    ) -> bool {
        let peer = self.0.entry(peer).or_default();
        peer.links.insert(link, Link { address, outbound, since: now });
        peer.links.len() == 1
    }

    /// The connections that stood for `age` before `link`, to the same peer, came up.
    ///
    /// A node does not dial a peer that it is connected to, so these lead to who the peer was before it
    /// started again. They may look alive for as long as `quic.idle_timeout`, and swallow what is sent.
    pub(crate) fn former(&self, peer: &PeerId, link: ConnectionId, age: Duration) -> Vec<ConnectionId> {
        let Some(peer) = self.0.get(peer) else {
            return Vec::new();
        };
        let Some(new) = peer.links.get(&link) else {
            return Vec::new();
        };
        let is_former = |l: &Link| new.since.saturating_duration_since(l.since) > age;
        peer.links.iter().filter(|(_, l)| is_former(l)).map(|(id, _)| *id).collect()
    }

    /// Notes the end of a connection; says whether it was the peer's last.
    pub(crate) fn disconnected(&mut self, peer: PeerId, link: ConnectionId) -> bool {
        let Some(known) = self.0.get_mut(&peer) else {
            return false;
        };
        known.links.remove(&link);
        let last = known.links.is_empty();
        if last {
            self.0.remove(&peer);
        }
        last
    }

    pub(crate) fn identified(&mut self, peer: &PeerId, agent: &str) {
        if let Some(peer) = self.0.get_mut(peer) {
            peer.agent = Some(agent.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect());
        }
    }

    pub(crate) fn pinged(&mut self, peer: &PeerId, rtt: Duration) {
        if let Some(peer) = self.0.get_mut(peer) {
            peer.rtt = Some(rtt);
        }
    }

    /// The other side's address of a connection.
    pub(crate) fn address(&self, peer: &PeerId, link: ConnectionId) -> Option<&Multiaddr> {
        self.0.get(peer)?.links.get(&link).map(|l| &l.address)
    }

    /// Who is connected at this address.
    pub(crate) fn at(&self, address: &Multiaddr) -> Option<PeerId> {
        let has = |peer: &Peer| peer.links.values().any(|link| link.address == *address);
        self.0.iter().find(|(_, peer)| has(peer)).map(|(id, _)| *id)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn status(&self, now: Instant, gossip: &gossip::Behaviour) -> Vec<PeerStatus> {
        let mut shared = gossip.shared_topics();
        let mut all: Vec<_> = self
            .0
            .iter()
            .map(|(id, peer)| PeerStatus {
                peer: *id,
                connections: peer
                    .links
                    .values()
                    .map(|l| ConnectionStatus {
                        address: l.address.clone(),
                        outbound: l.outbound,
                        age_s: now.saturating_duration_since(l.since).as_secs(),
                    })
                    .collect(),
                agent: peer.agent.clone(),
                rtt_us: peer.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
                score: gossip.score(id),
                topics: shared.remove(id).unwrap_or_default(),
            })
            .collect();
        all.sort_by_key(|p| p.peer);
        all
    }
}
