//! Our own messages.

use std::time::Instant;

use libp2p::identity::SigningError;

use super::{
    Core, PeerKind, PublishError, Receipt,
    key_set::KeySet,
    peers::{Peer, PeerKey},
    topics::{Fanout, TopicKey},
};
use crate::{Author, ControlItem, Message, Outgoing, Topic, WireMessage, bundle, queue};

/// At least what a message counts for in a queue beside topic and payload: signature, author and its key.
const ENVELOPE: usize = 1024;

impl Core {
    /// Publishes a message: to every subscriber of good standing, or else to mesh, fanout, floodsub and explicit peers.
    ///
    /// While the queue to one of them is full of our own messages and the peer reads, it is handed to none: whoever
    /// publishes waits for those that are slow, and loses nothing. For a peer that takes less than 48 KiB in three
    /// seconds nobody waits; what its queue has no room for is lost to it, unless others bring it.
    ///
    /// # Errors
    /// When it was handed to nobody. Nothing is remembered of it then, so that it may be tried again.
    pub fn publish(&mut self, name: &Topic, data: &[u8], now: Instant) -> Result<Receipt, PublishError> {
        self.hand_out(name, data.len(), now, false, &mut |author, rng| author.compose(name, data, rng))
    }

    /// Publishes a message as [`Self::publish`] does, and one that nobody can be handed is published all the same: it has an
    /// id, and is remembered as any other. The receipt says 0 then.
    ///
    /// # Errors
    /// As [`Self::publish`], but for [`PublishError::NoPeers`], which means that the topic is not followed.
    pub fn publish_alone(
        &mut self,
        name: &Topic,
        data: &[u8],
        now: Instant,
    ) -> Result<Receipt, PublishError> {
        self.hand_out(name, data.len(), now, true, &mut |author, rng| author.compose(name, data, rng))
    }

    /// Publishes several messages as one bundle (`BUNDLE.md`).
    ///
    /// # Errors
    /// As [`Self::publish`], about all of them; and without a key that others know from our peer id.
    pub fn publish_bundle(
        &mut self,
        name: &Topic,
        messages: &[&[u8]],
        now: Instant,
    ) -> Result<Receipt, PublishError> {
        self.bundle_out(name, messages, now, false)
    }

    /// Publishes several messages as one bundle, also where nobody can be handed it.
    ///
    /// # Errors
    /// As [`Self::publish_alone`] and [`Self::publish_bundle`].
    pub fn publish_bundle_alone(
        &mut self,
        name: &Topic,
        messages: &[&[u8]],
        now: Instant,
    ) -> Result<Receipt, PublishError> {
        self.bundle_out(name, messages, now, true)
    }

    fn bundle_out(
        &mut self,
        name: &Topic,
        messages: &[&[u8]],
        now: Instant,
        alone: bool,
    ) -> Result<Receipt, PublishError> {
        let bytes = self.bundle_len(messages.iter().map(|message| message.len()));
        let bytes = bytes.filter(|_| (1..=bundle::MOST).contains(&messages.len()));
        let bytes = bytes.ok_or_else(|| PublishError::Signing("no bundle can be made of them".into()))?;
        self.hand_out(name, bytes, now, alone, &mut |author, rng| author.compose_bundle(name, messages, rng))
    }

    /// Bytes of a bundle of messages of so many bytes each, as `max_message` counts; `None` where we cannot make any.
    pub fn bundle_len(&self, messages: impl IntoIterator<Item = usize>) -> Option<usize> {
        let head = bundle::head_len(self.author.signature_len()?);
        Some(head + messages.into_iter().map(bundle::entry_len).sum::<usize>())
    }

    fn hand_out(
        &mut self,
        name: &Topic,
        bytes: usize,
        now: Instant,
        alone: bool,
        compose: &mut dyn FnMut(&mut Author, &mut fastrand::Rng) -> Result<WireMessage, SigningError>,
    ) -> Result<Receipt, PublishError> {
        if bytes > self.config.max_message {
            return Err(PublishError::TooLarge { bytes, limit: self.config.max_message });
        }
        let topic = self.topics.key(name.as_str()).ok_or(PublishError::NoPeers)?;
        let to = self.recipients(topic, now);
        if to.is_empty() && !alone {
            return Err(PublishError::NoPeers);
        }
        let slow = self.waited_for(&to, name.as_str().len() + bytes, now);
        if slow > 0 {
            return Err(PublishError::QueuesFull { peers: slow });
        }
        let wire =
            compose(&mut self.author, &mut self.rng).map_err(|e| PublishError::Signing(e.to_string()))?;
        let claims = self.config.validation.claims(&wire).ok();
        let message = Message {
            source: claims.and_then(|c| c.source),
            sequence: claims.and_then(|c| c.sequence),
            topic: name.clone(),
            data: wire.data_bytes(),
        };
        let fingerprint = self.fingerprint(&message);
        let id = self.ids.id(&message);
        if self.seen.contains(&fingerprint) {
            return Err(PublishError::Duplicate(id));
        }
        let announce =
            self.config.idontwant_on_publish && wire.encoded().len() > self.config.idontwant_threshold;
        let mut peers = 0;
        for key in &to {
            if !self.make_room(queue::cost(&wire)) {
                break;
            }
            let Some(peer) = self.peers.get(*key) else { continue };
            let mut outbox = peer.outbox.lock();
            if announce && peer.speaks(PeerKind::V1_2) {
                outbox.control(ControlItem::IDontWant(vec![id.clone()]));
            }
            if outbox.publish(Outgoing { fingerprint, message: wire.clone() }).is_ok() {
                peers += 1;
                drop(outbox);
                self.flush(*key);
            } else {
                drop(outbox);
                self.note_dropped(*key, 1);
            }
        }
        if peers == 0 && !to.is_empty() {
            return Err(PublishError::QueuesFull { peers: to.len() });
        }
        self.stir();
        self.seen.insert(fingerprint, now);
        self.promises.keep(&fingerprint);
        self.history.put(fingerprint, id.clone(), name.clone(), wire.clone());
        Ok(Receipt { id, peers, wire })
    }

    /// The number of our next message is above `last`.
    pub fn number_above(&mut self, last: u64) {
        self.author.number_above(last);
    }

    /// How many peers have no room for a message of so many bytes that is to go to these, and are waited for.
    fn waited_for(&mut self, to: &[PeerKey], bytes: usize, now: Instant) -> usize {
        let cost = bytes + ENVELOPE;
        if !self.make_room_by_own((cost * to.len()).min(self.queued.limit() / 2), now) {
            return 1;
        }
        let mut slow = 0;
        for key in to {
            let Some(peer) = self.peers.get_mut(*key) else { continue };
            let full = peer.outbox.lock().full_of_own(cost);
            slow += usize::from(full.is_some_and(|taken| peer.pace.is_waited_for(taken, now)));
        }
        slow
    }

    /// Where all queues together are full, our own messages to peers that are not waited for make room; the longest queues
    /// are looked at, all together, so that several peers that read nothing cost no more time than one. Whether there is
    /// room.
    fn make_room_by_own(&mut self, bytes: usize, now: Instant) -> bool {
        if self.make_room(bytes) {
            return true;
        }
        let own = |(key, peer): (PeerKey, &Peer)| (key, peer.outbox.lock().own_bytes());
        let own: Vec<_> = self.peers.iter().map(own).filter(|(_, bytes)| *bytes > 0).collect();
        let longest = own.iter().map(|(_, bytes)| *bytes).max().unwrap_or_default();
        for (key, _) in own.into_iter().filter(|(_, bytes)| *bytes > longest / 2) {
            let Some(peer) = self.peers.get_mut(key) else { continue };
            let mut outbox = peer.outbox.lock();
            if !peer.pace.is_waited_for(outbox.taken_bytes(), now) {
                let dropped = outbox.shed_own();
                drop(outbox);
                self.note_dropped(key, dropped);
            }
        }
        self.make_room(bytes)
    }

    fn recipients(&mut self, topic: TopicKey, now: Instant) -> Vec<PeerKey> {
        let publish = self.thresholds.publish_threshold;
        let Some(state) = self.topics.get(topic) else { return Vec::new() };
        let stands = |key: &PeerKey| {
            self.peers
                .get(*key)
                .is_some_and(|p| p.kind.is_some() && (p.explicit || self.score_of(&p.id) >= publish))
        };
        let candidates: KeySet<PeerKey> = state.peers.iter().filter(stands).collect();
        if self.config.flood_publish {
            return candidates.as_slice().to_vec();
        }
        let n = self.config.mesh_of(&state.name).n;
        let always = |p: &Peer| p.explicit || p.kind == Some(PeerKind::Floodsub);
        let mut chosen: KeySet<PeerKey> =
            candidates.iter().filter(|key| self.peers.get(*key).is_some_and(always)).collect();
        let subscribed = state.subscribed;
        let held: Vec<PeerKey> = match &state.fanout {
            _ if subscribed => state.mesh.iter().filter(|key| candidates.contains(*key)).collect(),
            Some(fanout) => fanout.peers.iter().filter(|key| candidates.contains(*key)).collect(),
            None => Vec::new(),
        };
        let missing = n.saturating_sub(held.len());
        let more = self.pick(topic, missing, |_, key| {
            candidates.contains(key) && !chosen.contains(key) && !held.contains(&key)
        });
        let fanout: KeySet<PeerKey> = held.into_iter().chain(more).collect();
        fanout.iter().for_each(|key| {
            chosen.insert(key);
        });
        if let Some(state) = self.topics.get_mut(topic).filter(|_| !subscribed) {
            state.fanout = Some(Fanout { peers: fanout, published: now });
        }
        self.topics.note_active(topic);
        chosen.as_slice().to_vec()
    }
}
