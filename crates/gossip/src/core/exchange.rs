//! Peer exchange: the peers that a pruned one may try in our place (specification v1.1).

use bytes::Bytes;
use libp2p::{
    PeerId,
    core::{PeerRecord, SignedEnvelope},
};

use super::{Action, Core, peers::PeerKey, topics::TopicKey};
use crate::PeerInfo;

/// Bytes of a signed peer record that are kept and passed on.
pub(super) const LONGEST_RECORD: usize = 8 * 1024;
/// Peers at a time that we connect to because of peer exchange.
const EXCHANGED_MOST: usize = 256;

impl Core {
    /// Others of the topic, with the addresses that they signed where we have them.
    pub(super) fn peers_to_tell(&mut self, topic: TopicKey, pruned: PeerKey) -> Vec<PeerInfo> {
        let chosen = self.pick(topic, self.config.prune_peers, |core, key| {
            key != pruned && core.peers.get(key).is_some_and(|peer| core.score_of(&peer.id) >= 0.0)
        });
        let info = |key| {
            let peer = self.peers.get(key)?.id;
            Some(PeerInfo { peer, record: self.records.get(&peer).cloned() })
        };
        chosen.into_iter().filter_map(info).collect()
    }

    /// Connects to some of the peers in a prune. Addresses count only if the peer signed them itself.
    pub(super) fn connect_to(&mut self, mut peers: Vec<PeerInfo>) {
        self.rng.shuffle(&mut peers);
        peers.truncate(self.config.prune_peers);
        for PeerInfo { peer, record } in peers {
            if peer == self.local || self.peers.key(&peer).is_some() || self.exchanged.len() >= EXCHANGED_MOST
            {
                continue;
            }
            let addresses = match record {
                None => Vec::new(),
                Some(record) => match signed_by(&peer, &record) {
                    Some(record) => record.addresses().to_vec(),
                    // A forged record is no reason to dial anybody.
                    None => continue,
                },
            };
            self.exchanged.insert(peer);
            self.actions.push_back(Action::Connect { peer, addresses });
        }
    }

    /// Connecting to a peer failed: if it came from peer exchange, it may come again.
    pub fn unreachable(&mut self, peer: &PeerId) {
        if self.peers.key(peer).is_none() {
            self.exchanged.remove(peer);
        }
    }
}

fn signed_by(peer: &PeerId, record: &Bytes) -> Option<PeerRecord> {
    let envelope = SignedEnvelope::from_protobuf_encoding(record).ok()?;
    let record = PeerRecord::from_signed_envelope_interop(envelope.clone())
        .or_else(|_| PeerRecord::from_signed_envelope(envelope))
        .ok()?;
    (record.peer_id() == *peer).then_some(record)
}
