//! Messages on their way in: first seen, then verified.
//!
//! A copy of a message that was accepted costs no signature check. A message is marked as seen only once its signature
//! held, so that a forged copy cannot keep the true one out; until then copies wait together if they are the same in
//! every field, and apart if they are not. What waits is bounded for each peer and for all, and is charged to whoever
//! brought it first; whoever brings much leaves room for whoever brings little. Signatures are checked by whoever drives the core, in batches and in any order; outcomes are
//! applied in the order of arrival, so that an author's messages stay in order.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use super::{
    Config, Core, Event, PeerKind, key_set::KeySet, peers::PeerKey, topics::TopicKey, verdicts::Waiting,
};
use crate::{
    BuildFingerprintHasher, Claims, ControlItem, Fingerprint, Message, MessageId, Topic, WireMessage,
};

/// Messages whose signature is to be checked.
#[derive(Debug)]
pub struct Unverified {
    /// To be handed back with the outcomes.
    pub ticket: u64,
    /// What is to be checked.
    pub messages: Vec<WireMessage>,
}

/// One message, as one or several peers brought it, alike in every field.
#[derive(Debug)]
struct Candidate {
    id: Fingerprint,
    content: Fingerprint,
    wire: WireMessage,
    message: Message,
    topic: TopicKey,
    /// Who brought it, the first one first: that one is charged.
    from: Vec<PeerKey>,
    /// Whether the signature holds, once known.
    holds: Option<bool>,
}

/// Candidates in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Candidate>,
    /// The number of the first in the queue.
    first: u64,
    /// The number of the first that nobody checks yet.
    unasked: u64,
    /// By all that a message is, its key included: many may be forged under one id.
    by_content: HashMap<Fingerprint, u64, BuildFingerprintHasher>,
    bytes: usize,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn at(&mut self, number: u64) -> Option<&mut Candidate> {
        self.queue.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Adds a bringer to the candidate that is the same in every field, if there is one.
    fn join(&mut self, content: &Fingerprint, from: PeerKey) -> bool {
        let Some(number) = self.by_content.get(content).copied() else { return false };
        let Some(candidate) = self.at(number) else { return false };
        if !candidate.from.contains(&from) {
            candidate.from.push(from);
        }
        true
    }

    fn push(&mut self, candidate: Candidate) {
        let number = self.first + self.queue.len() as u64;
        self.by_content.insert(candidate.content, number);
        self.bytes += candidate.wire.retained();
        self.queue.push_back(candidate);
    }

    /// The first candidate, if its outcome is known.
    fn pop(&mut self) -> Option<Candidate> {
        self.queue.front()?.holds?;
        let candidate = self.queue.pop_front()?;
        self.first += 1;
        self.bytes = self.bytes.saturating_sub(candidate.wire.retained());
        self.by_content.remove(&candidate.content);
        if self.queue.is_empty() {
            self.queue.shrink_to(64);
            self.by_content.shrink_to(64);
        }
        Some(candidate)
    }
}

#[doc(hidden)]
impl Core {
    /// Up to `most` messages whose signature is to be checked, the oldest first; hand the outcomes to
    /// [`Self::verified`]. Several batches may be out at a time.
    pub fn unverified(&mut self, most: usize) -> Option<Unverified> {
        let skipped = usize::try_from(self.pending.unasked.saturating_sub(self.pending.first)).ok()?;
        let messages: Vec<_> =
            self.pending.queue.iter().skip(skipped).take(most).map(|c| c.wire.clone()).collect();
        if messages.is_empty() {
            return None;
        }
        let ticket = self.pending.unasked;
        self.pending.unasked += messages.len() as u64;
        Some(Unverified { ticket, messages })
    }

    /// Whether each signature of a batch holds.
    pub fn verified(&mut self, ticket: u64, holds: &[bool], now: Instant) {
        for (number, holds) in (ticket..self.pending.unasked).zip(holds) {
            if let Some(candidate) = self.pending.at(number) {
                candidate.holds = Some(*holds);
            }
        }
        while let Some(candidate) = self.pending.pop() {
            if let Some(peer) = candidate.from.first().and_then(|key| self.peers.get_mut(*key)) {
                peer.unverified = peer.unverified.saturating_sub(1);
                peer.unverified_bytes = peer.unverified_bytes.saturating_sub(candidate.wire.retained());
            }
            if candidate.holds == Some(true) {
                self.accept(candidate, now);
            } else {
                for key in candidate.from {
                    self.invalid(key, &candidate.message.topic);
                }
            }
        }
    }

    pub(super) fn on_message(&mut self, key: PeerKey, wire: WireMessage, now: Instant) {
        let Some(peer) = self.peers.get(key) else { return };
        let id = peer.id;
        if self.blocked.contains(&id) {
            return;
        }
        // What nobody here follows is neither checked nor remembered.
        let Some(topic) = self.topics.followed(wire.topic()) else { return };
        let Some(name) = self.topics.get(topic).map(|t| t.name.clone()) else { return };
        let bytes = wire.data().len();
        if bytes > self.config.max_message {
            self.report(Event::TooLarge { peer: id, bytes: bytes as u64 });
            return;
        }
        let Ok(Claims { source, sequence, signed }) = self.config.validation.claims(&wire) else {
            return self.invalid(key, &name);
        };
        if source.is_some_and(|source| self.blocked.contains(&source)) {
            return self.invalid(key, &name);
        }
        let message = Message { source, sequence, topic: name, data: wire.data_bytes() };
        let fingerprint = self.fingerprint(&message);
        let known = self.seen.contains(&fingerprint);
        if known && (!signed || self.is_copy(&fingerprint, &wire)) {
            return self.duplicate(key, &fingerprint, topic, source == Some(id), now);
        }
        let content = self.fingerprinter.content(&wire);
        if self.pending.join(&content, key) {
            return;
        }
        let holds = (!signed).then_some(true);
        let mut candidate =
            Candidate { id: fingerprint, content, wire, message, topic, from: vec![key], holds };
        // One that needs no check waits for nobody but those of its id before it.
        if !signed {
            return self.accept(candidate, now);
        }
        // It is not to keep the frame that it came in.
        candidate.wire.detach();
        candidate.message.data = candidate.wire.data_bytes();
        let bytes = candidate.wire.retained();
        let Config { unverified, unverified_per_peer, .. } = self.config;
        let unverified_bytes = self.config.unverified_bytes();
        let places = unverified.saturating_sub(self.pending.len());
        let room = unverified_bytes.saturating_sub(self.pending.bytes);
        let Some(peer) = self.peers.get_mut(key) else { return };
        // One more is taken in of whoever has less than a third of what is left: a peer alone takes a quarter, N take
        // N of N + 3 parts, and there is room for the next one in any case.
        let much = peer.unverified > 0
            && (peer.unverified >= places / 3 || peer.unverified_bytes + bytes > room / 3);
        if places == 0 || bytes > room || much || peer.unverified >= unverified_per_peer {
            self.refused += 1;
            return self.promises.release(&fingerprint, key);
        }
        peer.unverified += 1;
        peer.unverified_bytes += bytes;
        self.pending.push(candidate);
    }

    /// Whether this is a copy of the message that was accepted under its id, as far as that is still known. If it is
    /// not, somebody forged it (or its author named two messages alike), and its signature says who is to blame.
    fn is_copy(&self, id: &Fingerprint, wire: &WireMessage) -> bool {
        let accepted = self.history.get(id).or_else(|| self.awaiting.message(id));
        // A key that came along without need changes nothing: it is not passed on either.
        accepted.is_none_or(|accepted| accepted.encoded() == wire.encoded())
    }

    /// `own` if the peer is the author.
    fn duplicate(&mut self, key: PeerKey, id: &Fingerprint, topic: TopicKey, own: bool, now: Instant) {
        self.duplicates += 1;
        let (Some(peer), Some(state)) = (self.peers.get_mut(key), self.topics.get(topic)) else { return };
        if let Some(score) = &mut self.score {
            score.duplicated_message(&peer.id, id, &state.name, now);
        }
        peer.announcements.has(id);
        self.awaiting.brought(id, key);
        if own {
            self.note_own(key);
        } else {
            self.note_copy(topic, key, false);
        }
    }

    fn is_source(&self, key: PeerKey, message: &Message) -> bool {
        self.peers.get(key).is_some_and(|peer| Some(peer.id) == message.source)
    }

    /// P4: the message is not what its author said, or nobody may say so.
    fn invalid(&mut self, key: PeerKey, topic: &Topic) {
        if let (Some(score), Some(peer)) = (&mut self.score, self.peers.get(key)) {
            score.reject_invalid_message(&peer.id, topic);
        }
    }

    fn accept(&mut self, candidate: Candidate, now: Instant) {
        let Candidate { id: fingerprint, mut wire, message, topic, mut from, .. } = candidate;
        if !self.seen.insert(fingerprint, now) {
            // Another one of the same id was accepted while this one waited.
            for key in from {
                let own = self.is_source(key, &message);
                self.duplicate(key, &fingerprint, topic, own, now);
            }
            return;
        }
        let announced = self.expected.came(&fingerprint);
        let asked = self.promises.keep(&fingerprint);
        let ours = !self.config.allow_self_origin
            && message.source.is_some()
            && message.source == self.author.peer();
        // Ours, from a life before this one: nobody is to blame, and nobody wants it.
        if ours || self.topics.get(topic).is_none_or(|t| !t.subscribed) {
            return;
        }
        // It is kept for a while: without the frame that it came in.
        wire.compact();
        let message = Message { data: wire.data_bytes(), ..message };
        let id = self.ids.id(&message);
        let bringer = from.first().and_then(|key| self.peers.get(*key)).map(|peer| peer.id);
        if let Some(score) = &mut self.score {
            score.validate_message(fingerprint, now);
        }
        for (at, key) in from.iter().enumerate() {
            if at == 0 {
                self.note_first(topic, *key, message.source);
            } else {
                let own = self.is_source(*key, &message);
                self.duplicate(*key, &fingerprint, topic, own, now);
            }
        }
        // They need not be sent it.
        from.extend(announced);
        if wire.encoded().len() > self.config.idontwant_threshold {
            self.announce_arrival(topic, &id, &from, &message, asked);
        }
        let waiting = Waiting { id: id.clone(), wire: wire.clone(), topic, source: message.source, from };
        // Whoever brought it may be gone; the application hears of somebody all the same.
        let bringer = bringer.or(message.source).unwrap_or(self.local);
        self.report(Event::Message { from: bringer, id, message, wire: Box::new(wire) });
        if self.config.validate_messages {
            self.await_verdict(fingerprint, waiting, now);
        } else {
            self.pass_on(fingerprint, waiting, now);
        }
    }

    /// IDONTWANT (v1.2): the others of the mesh, and whoever was asked for it, need not send it any more.
    fn announce_arrival(
        &mut self,
        topic: TopicKey,
        id: &MessageId,
        from: &[PeerKey],
        message: &Message,
        asked: Option<PeerKey>,
    ) {
        let Some(state) = self.topics.get(topic) else { return };
        // Whoever only announces has no need to know.
        let mesh: KeySet<PeerKey> = state.mesh.iter().filter(|key| !state.links.is_choked(*key)).collect();
        for key in mesh.iter().chain(asked.filter(|asked| !mesh.contains(*asked))) {
            let wants =
                |peer: &super::peers::Peer| peer.speaks(PeerKind::V1_2) && Some(peer.id) != message.source;
            if !from.contains(&key) && self.peers.get(key).is_some_and(wants) {
                self.control(key, ControlItem::IDontWant(vec![id.clone()]));
            }
        }
    }

    pub(super) fn fingerprint(&mut self, message: &Message) -> Fingerprint {
        self.scratch.clear();
        self.ids.write(message, &mut self.scratch);
        self.fingerprinter.id(&self.scratch)
    }
}
