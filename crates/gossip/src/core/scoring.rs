//! What the application says of peers: by what they are scored (specification v1.1), and which of them are explicit or
//! blocked.

use std::time::Instant;

use bytes::Bytes;
use libp2p::PeerId;

use super::{Action, Core, exchange};
use crate::{
    DeliveryLimits, ParamError, PeerScoreParams, PeerScoreThresholds, Score, Topic, TopicScoreParams,
};

/// Decays of scores at a time, after a machine slept.
const DECAYS: u32 = 1000;

impl Core {
    /// Scores peers from now on (specification v1.1).
    ///
    /// # Errors
    /// When a parameter makes no sense.
    pub fn score_peers(
        &mut self,
        params: PeerScoreParams,
        thresholds: PeerScoreThresholds,
        now: Instant,
    ) -> Result<(), ParamError> {
        params.validate()?;
        thresholds.validate()?;
        self.next_decay = Some(now + params.decay_interval);
        let mut score = Score::new(params, DeliveryLimits::default());
        for (_, peer) in self.peers.iter() {
            score.add_peer(peer.id);
            peer.connections.iter().filter_map(|c| c.ip).for_each(|ip| score.add_ip(&peer.id, ip));
        }
        for (_, topic) in self.topics.ours() {
            for peer in topic.mesh.iter().filter_map(|key| self.peers.get(key)) {
                score.graft(&peer.id, &topic.name, now);
            }
        }
        self.score = Some(score);
        self.thresholds = thresholds;
        Ok(())
    }

    /// How a topic counts. False while scoring is off.
    ///
    /// # Errors
    /// When a parameter makes no sense.
    pub fn set_topic_params(&mut self, topic: Topic, params: TopicScoreParams) -> Result<bool, ParamError> {
        params.validate()?;
        let Some(score) = &mut self.score else { return Ok(false) };
        score.set_topic_params(topic, params);
        Ok(true)
    }

    /// A topic counts no longer; what peers had in it is forgotten.
    pub fn remove_topic_params(&mut self, topic: &Topic) {
        if let Some(score) = &mut self.score {
            score.remove_topic_params(topic);
        }
    }

    /// What the application thinks of a peer (P5). False if scoring is off or the peer unknown.
    pub fn set_application_score(&mut self, peer: &PeerId, score: f64) -> bool {
        self.score.as_mut().is_some_and(|s| s.set_application_score(peer, score))
    }

    /// A peer's score, if peers are scored.
    pub fn score(&self, peer: &PeerId) -> Option<f64> {
        self.score.as_ref().map(|score| score.score(peer))
    }

    /// A peer that is always sent everything, stands outside of meshes and scores, and is connected to again when it
    /// is gone.
    pub fn add_explicit(&mut self, peer: PeerId) {
        self.explicit.insert(peer);
        match self.peers.find_mut(&peer) {
            Some(peer) => peer.explicit = true,
            None => self.actions.push_back(Action::Connect { peer, addresses: Vec::new() }),
        }
    }

    /// A peer like any other again.
    pub fn remove_explicit(&mut self, peer: &PeerId) {
        self.explicit.remove(peer);
        if let Some(peer) = self.peers.find_mut(peer) {
            peer.explicit = false;
        }
    }

    /// Messages that this peer brings or has written are rejected.
    pub fn block(&mut self, peer: PeerId) {
        self.blocked.insert(peer);
    }

    /// A peer like any other again.
    pub fn unblock(&mut self, peer: &PeerId) {
        self.blocked.remove(peer);
    }

    /// Where a connected peer can be reached, signed by itself (libp2p/specs RFC 0003): what peer exchange passes on.
    pub fn set_record(&mut self, peer: &PeerId, envelope: Bytes) {
        if self.peers.key(peer).is_some() && envelope.len() <= exchange::LONGEST_RECORD {
            self.records.insert(*peer, envelope);
        }
    }

    /// Scores decay along with heartbeats, so that one timer does for both; all those that are due by now in one pass.
    pub(super) fn decay(&mut self, now: Instant) {
        let (Some(score), Some(next)) = (&mut self.score, &mut self.next_decay) else { return };
        let interval = score.params().decay_interval;
        for _ in 0..DECAYS {
            if *next > now {
                return;
            }
            score.refresh(*next);
            *next += interval;
        }
        // The machine slept.
        *next = now + interval;
    }
}
