//! Messages between their acceptance and the application's verdict, and where they go after it.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use libp2p::PeerId;

use super::{Core, PeerKind, Verdict, peers::PeerKey, topics::TopicKey};
use crate::{BuildFingerprintHasher, Fingerprint, MessageId, Outgoing, WireMessage, queue};

/// A message whose signature held.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: MessageId,
    pub(super) wire: WireMessage,
    pub(super) topic: TopicKey,
    pub(super) source: Option<PeerId>,
    /// Who brought it, the first one first: it is not sent back to them.
    pub(super) from: Vec<PeerKey>,
}

#[derive(Debug, Default)]
pub(super) struct Awaiting {
    messages: HashMap<Fingerprint, Waiting, BuildFingerprintHasher>,
    /// With the heartbeat at which they came; those that got their verdict are still in here.
    order: VecDeque<(u64, Fingerprint)>,
    bytes: usize,
}

impl Awaiting {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn message(&self, id: &Fingerprint) -> Option<&WireMessage> {
        self.messages.get(id).map(|waiting| &waiting.wire)
    }

    fn take(&mut self, id: &Fingerprint) -> Option<Waiting> {
        let waiting = self.messages.remove(id)?;
        self.bytes = self.bytes.saturating_sub(waiting.wire.retained());
        Some(waiting)
    }

    /// Another peer brought a copy.
    pub(super) fn brought(&mut self, id: &Fingerprint, by: PeerKey) {
        if let Some(waiting) = self.messages.get_mut(id)
            && !waiting.from.contains(&by)
        {
            waiting.from.push(by);
        }
    }
}

impl Core {
    pub(super) fn await_verdict(&mut self, id: Fingerprint, waiting: Waiting, now: Instant) {
        self.awaiting.bytes += waiting.wire.retained();
        while !self.awaiting.order.is_empty()
            && (self.awaiting.order.len() >= self.config.awaiting_verdict.max(1)
                || self.awaiting.bytes > self.config.awaiting_verdict_bytes)
        {
            self.give_up_oldest(now);
        }
        self.awaiting.order.push_back((self.ticks, id));
        self.awaiting.messages.insert(id, waiting);
    }

    /// No verdict came: the message is ignored.
    fn give_up_oldest(&mut self, now: Instant) {
        if let Some((_, id)) = self.awaiting.order.pop_front()
            && let Some(waiting) = self.awaiting.take(&id)
        {
            self.refuse(&id, &waiting, false, now);
        }
    }

    pub(super) fn expire_awaiting(&mut self, now: Instant) {
        let oldest = self.ticks.saturating_sub(self.config.history_length as u64);
        while self.awaiting.order.front().is_some_and(|(came, _)| *came < oldest) {
            self.give_up_oldest(now);
        }
        if self.awaiting.messages.is_empty() {
            self.awaiting.messages.shrink_to(64);
            self.awaiting.order.shrink_to(64);
        }
    }

    /// The application's verdict over a message. False if it waits no longer: the verdict came too late, or twice.
    pub fn verdict(&mut self, id: &MessageId, verdict: Verdict, now: Instant) -> bool {
        let fingerprint = self.fingerprinter.id(id.as_bytes());
        let Some(waiting) = self.awaiting.take(&fingerprint) else { return false };
        match verdict {
            Verdict::Accept => self.pass_on(fingerprint, waiting, now),
            Verdict::Ignore => self.refuse(&fingerprint, &waiting, false, now),
            Verdict::Reject => self.refuse(&fingerprint, &waiting, true, now),
        }
        true
    }

    /// Blamed are those that brought it, by what the application says; the score knows all but the first.
    fn refuse(&mut self, id: &Fingerprint, waiting: &Waiting, blame: bool, now: Instant) {
        let (Some(score), Some(topic)) = (&mut self.score, self.topics.get(waiting.topic)) else { return };
        match waiting.from.first().and_then(|key| self.peers.get(*key)) {
            Some(first) if blame => score.reject_message(&first.id, *id, &topic.name, now),
            _ => score.ignore_message(id),
        }
    }

    /// Keeps a message for those that ask, and sends it to the mesh, to floodsub peers and to explicit ones.
    pub(super) fn pass_on(&mut self, fingerprint: Fingerprint, waiting: Waiting, now: Instant) {
        let Waiting { id, wire, topic, source, from } = waiting;
        let Some(state) = self.topics.get(topic) else { return };
        if let (Some(score), Some(peer)) =
            (&mut self.score, from.first().and_then(|key| self.peers.get(*key)))
        {
            score.deliver_message(&peer.id, fingerprint, &state.name, now);
        }
        let publish = self.thresholds.publish_threshold;
        let mut to = Vec::with_capacity(state.mesh.len());
        for key in state.peers.iter() {
            let Some(peer) = self.peers.get(key) else { continue };
            let floodsub = peer.kind == Some(PeerKind::Floodsub) && self.score_of(&peer.id) >= publish;
            let meant = state.mesh.contains(key) || peer.explicit || floodsub;
            let has = Some(peer.id) == source || from.contains(&key) || peer.unwanted.contains(&fingerprint);
            if meant && !has {
                to.push((key, state.links.chokes_us(key)));
            }
        }
        for (key, announce) in to {
            if announce {
                self.announce_soon(key, topic, fingerprint, id.clone(), now);
            } else {
                self.send_forward(key, fingerprint, wire.clone());
            }
        }
        let Some(state) = self.topics.get(topic) else { return };
        self.history.put(fingerprint, id, state.name.clone(), wire);
    }

    /// Queues somebody else's message. What it pushes out of the queue counts against the slow peer.
    pub(super) fn send_forward(&mut self, key: PeerKey, id: Fingerprint, wire: WireMessage) {
        let room = self.make_room(queue::cost(&wire));
        let Some(peer) = self.peers.get(key) else { return };
        let message = Outgoing { fingerprint: id, message: wire };
        let dropped = if room { peer.outbox.lock().forward(message) } else { 1 };
        self.note_dropped(key, dropped);
        self.flush(key);
    }

    /// Whether so many bytes more may wait for all peers: if they are too many, whoever has the most waiting loses the
    /// older half of what others said.
    pub(super) fn make_room(&mut self, bytes: usize) -> bool {
        while !self.queued.has_room(bytes) {
            let waiting =
                |(key, peer): (PeerKey, &super::peers::Peer)| (peer.outbox.lock().forwarded_bytes(), key);
            let Some((most, key)) = self.peers.iter().map(waiting).max_by_key(|(bytes, _)| *bytes) else {
                return false;
            };
            let Some(peer) = self.peers.get(key).filter(|_| most > 0) else { return false };
            let dropped = peer.outbox.lock().shed(most.div_ceil(2));
            self.note_dropped(key, dropped);
        }
        true
    }

    /// Forwarded messages were lost to a peer that is too slow for them.
    pub(super) fn note_dropped(&mut self, key: PeerKey, dropped: usize) {
        let Some(peer) = self.peers.get_mut(key).filter(|_| dropped > 0) else { return };
        peer.dropped += dropped;
        let peer = peer.id;
        self.dropped += dropped as u64;
        if let Some(score) = &mut self.score {
            score.slow_peer(&peer, dropped);
        }
    }
}
