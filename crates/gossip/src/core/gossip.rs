//! Announcing what one has, asking for what one lacks, and saying what one does not need: IHAVE, IWANT, IDONTWANT.

use std::{collections::HashSet, time::Instant};

use super::{Core, peers::PeerKey, topics::TopicKey};
use crate::{BuildFingerprintHasher, ControlItem, Fingerprint, IHave, MessageId, Topic};

/// Ids in one IHAVE or IWANT. A few of them share an RPC within the 16 KiB of control messages that stock peers take.
const IDS: usize = 64;
/// Ids that a link of a mesh may announce between two heartbeats, in the place of one that another peer may.
const ANNOUNCED_TO_US: usize = 10;
/// Bytes of ids announced to one peer between two heartbeats: stock peers heed ten RPCs of 16 KiB.
const ANNOUNCED_BYTES: usize = 8 * 15 * 1024;

impl Core {
    pub(super) fn on_ihave(&mut self, key: PeerKey, ihaves: Vec<IHave>, now: Instant) {
        let (announced, ihaves) = self.take_announcements(key, ihaves, now);
        let most = self.config.max_ids_per_heartbeat;
        let allowed = self.config.max_ihave_per_heartbeat;
        let gossip = self.thresholds.gossip_threshold;
        let Some(peer) = self.peers.get_mut(key) else { return };
        let id = peer.id;
        if ihaves.is_empty() && announced.is_empty() {
            return;
        }
        if !ihaves.is_empty() {
            peer.ihaves += 1;
        }
        let mut left = most.saturating_sub(peer.asked);
        if peer.ihaves > allowed || left == 0 || self.score_of(&id) < gossip {
            return;
        }
        let mut wanted = announced;
        for IHave { topic, ids } in ihaves {
            if self.topics.followed(topic.as_str()).is_none() {
                continue;
            }
            for id in ids {
                let fingerprint = self.fingerprinter.id(id.as_bytes());
                if !self.seen.contains(&fingerprint) && !self.promises.contains(&fingerprint) {
                    wanted.push((fingerprint, id));
                }
            }
        }
        // Which of them, if they are too many, is nothing that the peer should choose.
        self.rng.shuffle(&mut wanted);
        let mut ids = Vec::new();
        for (fingerprint, id) in wanted {
            if left == 0 {
                break;
            }
            if !self.promises.contains(&fingerprint) {
                self.promises.add(fingerprint, key, now);
                ids.push(id);
                left -= 1;
            }
        }
        if let Some(peer) = self.peers.get_mut(key) {
            peer.asked = most - left;
        }
        for ids in ids.chunks(IDS) {
            self.control(key, ControlItem::IWant(ids.to_vec()));
        }
    }

    /// Takes out what links of a mesh announce (`CHOKE.md`), which is waited for. Returns what there is no room for, and
    /// the other IHAVEs.
    #[allow(clippy::type_complexity, reason = "two lists, used in one place")]
    fn take_announcements(
        &mut self,
        key: PeerKey,
        ihaves: Vec<IHave>,
        now: Instant,
    ) -> (Vec<(Fingerprint, MessageId)>, Vec<IHave>) {
        let (mut announced, mut others) = (Vec::new(), Vec::new());
        for ihave in ihaves {
            let topic =
                self.topics.followed(ihave.topic.as_str()).filter(|topic| self.announces(key, *topic));
            let Some(topic) = topic else {
                others.push(ihave);
                continue;
            };
            let Some(peer) = self.peers.get_mut(key) else { break };
            let left =
                (ANNOUNCED_TO_US * self.config.max_ids_per_heartbeat).saturating_sub(peer.announced_to_us);
            peer.announced_to_us += ihave.ids.len().min(left);
            for id in ihave.ids.into_iter().take(left) {
                let fingerprint = self.fingerprinter.id(id.as_bytes());
                if !self.on_announced(key, topic, fingerprint, id.clone(), now) {
                    announced.push((fingerprint, id));
                }
            }
        }
        (announced, others)
    }

    pub(super) fn on_iwant(&mut self, key: PeerKey, ids: Vec<MessageId>) {
        let Some(peer) = self.peers.get(key) else { return };
        if self.score_of(&peer.id) < self.thresholds.gossip_threshold {
            return;
        }
        for id in ids {
            let fingerprint = self.fingerprinter.id(id.as_bytes());
            let Some(peer) = self.peers.get_mut(key) else { return };
            if peer.unwanted.contains(&fingerprint) {
                continue;
            }
            if let Some((wire, times)) = self.history.asked(&fingerprint, key.number())
                && times <= self.config.gossip_retransmission
            {
                let wire = wire.clone();
                self.send_forward(key, fingerprint, wire);
            }
        }
    }

    pub(super) fn on_idontwant(&mut self, key: PeerKey, ids: &[MessageId], now: Instant) {
        let peers = self.peers.len();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let ids = ids.iter().map(|id| self.fingerprinter.id(id.as_bytes()));
        let have: HashSet<_, BuildFingerprintHasher> = ids.collect();
        peer.outbox.lock().forget(&have);
        for id in have {
            peer.unwanted.insert(id, peers, now);
        }
    }

    /// Tells a peer whose substream broke or whose connection closed what there was in the last heartbeats: it asks for
    /// what was lost on the way.
    pub(super) fn announce_again(&mut self, key: PeerKey) {
        for (name, ids) in self.history.gossip_by_topic() {
            let Some(topic) = self.topics.key(name.as_str()) else { continue };
            if self.peers.get(key).is_some_and(|peer| peer.is_gossipsub() && peer.topics.contains(topic)) {
                self.send_ihaves(key, &name, ids);
            }
        }
    }

    /// Tells some peers outside of mesh and fanout what there was in the last heartbeats.
    pub(super) fn emit_gossip(&mut self, topic: TopicKey, recent: &[MessageId]) {
        let Some(name) = self.topics.get(topic).map(|state| state.name.clone()) else { return };
        let gossip = self.thresholds.gossip_threshold;
        let fits = |core: &Self, key: PeerKey| {
            let Some(state) = core.topics.get(topic) else { return false };
            let held =
                state.mesh.contains(key) || state.fanout.as_ref().is_some_and(|f| f.peers.contains(key));
            !held
                && core.peers.get(key).is_some_and(|peer| {
                    peer.is_gossipsub() && !peer.explicit && core.score_of(&peer.id) >= gossip
                })
        };
        let fitting = self.pick(topic, usize::MAX, fits);
        let part = (self.config.gossip_factor * fitting.len() as f64) as usize;
        let n = self.config.gossip_lazy.max(part);
        for key in fitting.into_iter().take(n) {
            // Each peer hears of them in another order, and of others if they are too many: together they hear of all.
            let mut ids = recent.to_vec();
            self.rng.shuffle(&mut ids);
            self.send_ihaves(key, &name, ids);
        }
    }

    /// Announces as many as one peer may hear of between two heartbeats.
    fn send_ihaves(&mut self, key: PeerKey, name: &Topic, mut ids: Vec<MessageId>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let mut left = ANNOUNCED_BYTES.saturating_sub(peer.announced);
        let fitting = |id: &&MessageId| {
            let cost = id.len() + 3;
            let fits = cost <= left;
            left = left.saturating_sub(cost);
            fits
        };
        let count = ids.iter().take(self.config.max_ids_per_heartbeat).take_while(fitting).count();
        ids.truncate(count);
        peer.announced = ANNOUNCED_BYTES - left;
        for ids in ids.chunks(IDS) {
            self.control(key, ControlItem::IHave(IHave { topic: name.clone(), ids: ids.to_vec() }));
        }
    }
}
