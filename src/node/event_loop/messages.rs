//! Messages that arrive: what rules and validator say of them, and who hears of them.

use std::sync::Arc;

use libp2p::PeerId;

use super::{EventLoop, id_text, recovery::place_all};
use crate::{
    config::Validation,
    gossip::{self, MessageId, WireMessage, bundle::Bundle},
    node::{
        Position, Verdict,
        blame::Tariff,
        catchup::{sent, wall},
        event::{Event, Message},
        publish_policy::{Reason, check_author},
    },
};

impl EventLoop {
    /// A message, or several in a bundle: those are delivered, and validated, each by itself. The rules hold for their
    /// author, and so for all of them.
    pub(super) fn on_message(
        &mut self,
        from: PeerId,
        id: &MessageId,
        message: gossip::Message,
        wire: &WireMessage,
    ) {
        if self.is_by_key(wire.topic()) {
            return self.on_value(from, id, &message, wire);
        }
        let (mut messages, is_broken) = self.unpack(from, &id_text(id), &message);
        if let Some(verdict) = messages.first().and_then(|first| self.refused(first, is_broken)) {
            // A reject would blame each peer that brings it, in whatever order: the author's account is charged instead.
            self.swarm.behaviour_mut().gossip.verdict(id, gossip::Verdict::Ignore);
            return self.metrics.refused(verdict);
        }
        let record = match self.judge(wire) {
            Ok(record) => record,
            Err(answer) => {
                self.swarm.behaviour_mut().gossip.verdict(id, answer);
                return;
            }
        };
        let answer = match self.validate(&mut messages) {
            Verdict::Accept => gossip::Verdict::Accept,
            Verdict::Ignore => gossip::Verdict::Ignore,
            Verdict::Reject => gossip::Verdict::Reject,
        };
        let behaviour = self.swarm.behaviour_mut();
        behaviour.gossip.verdict(id, answer);
        let record = record.filter(|_| answer == gossip::Verdict::Accept);
        let position =
            record.and_then(|record| behaviour.catchup.book_mut().insert_delivered(&record, wall()));
        place_all(&mut messages, position);
        self.deliver_all(messages);
    }

    /// Gives messages that were accepted to their subscribers.
    pub(super) fn deliver_all(&mut self, messages: Vec<Message>) {
        for message in messages {
            let event = Event::Message(message);
            self.emit_and_keep(&event);
            if let Event::Message(message) = event {
                self.topics.deliver(message);
            }
        }
    }

    /// Gives a message of this node to its own subscribers, unless the validator refuses it; how many there are.
    pub(super) fn deliver_here(&self, message: Message) -> usize {
        let here = self.topics.hearers(&message.topic);
        if here == 0 {
            return 0;
        }
        let validator = self.validator.as_ref();
        if validator.is_some_and(|validator| validator.validate(&message) != Verdict::Accept) {
            return 0;
        }
        self.topics.deliver(message);
        here
    }

    /// What a connected peer, or this node, calls itself.
    pub(super) fn name_of(&self, peer: &PeerId) -> Option<Arc<str>> {
        match peer == self.swarm.local_peer_id() {
            true => self.config.node.name.as_deref().map(Into::into),
            false => self.peers.name(peer),
        }
    }

    /// The messages that one of gossip is, and whether it is to be a bundle and is none. Their positions have their
    /// places in the bundle, and nothing more.
    pub(super) fn unpack(
        &self,
        from: PeerId,
        whole: &str,
        message: &gossip::Message,
    ) -> (Vec<Message>, bool) {
        let received = |id, part, data: &[u8]| self.received(from, id, message, part, data);
        match Bundle::of(message) {
            Some(Ok(bundle)) => {
                let one = |(n, data): (usize, &[u8])| received(format!("{whole}/{n}"), n, data);
                (bundle.messages.iter().map(|data| &data[..]).enumerate().map(one).collect(), false)
            }
            // Elsewhere it is a payload like any other.
            bundle => {
                let is_broken = bundle.is_some() && self.bundles(message.topic.as_str());
                (vec![received(whole.to_owned(), 0, &message.data)], is_broken)
            }
        }
    }

    /// A message of gossip, or one of the messages that it is.
    pub(super) fn received(
        &self,
        from: PeerId,
        id: String,
        message: &gossip::Message,
        part: usize,
        data: &[u8],
    ) -> Message {
        Message {
            id,
            topic: message.topic.to_string(),
            name: message.source.and_then(|author| self.name_of(&author)),
            source: message.source,
            from,
            data: data.into(),
            local: message.source.as_ref() == Some(self.swarm.local_peer_id()),
            sent: message.sequence.and_then(sent),
            late: false,
            position: Some(Position::of_part(part)),
        }
    }

    /// Leaves those messages that are accepted, and says what that makes of them together: they are passed on if one of
    /// them is accepted and none is rejected, for its author has signed them all.
    pub(super) fn validate(&self, messages: &mut Vec<Message>) -> Verdict {
        let Some(validator) = self.validator.clone() else { return Verdict::Accept };
        let mut is_rejected = false;
        messages.retain(|message| {
            let verdict = validator.validate(message);
            is_rejected |= verdict == Verdict::Reject;
            if verdict != Verdict::Accept {
                self.metrics.refused(verdict);
            }
            verdict == Verdict::Accept
        });
        if is_rejected {
            messages.clear();
            return Verdict::Reject;
        }
        if messages.is_empty() { Verdict::Ignore } else { Verdict::Accept }
    }

    /// What the rules say of a message, if they refuse it. The account of the peer that is to blame is charged. It
    /// `is_broken` if it is to be a bundle and is none.
    pub(super) fn refused(&mut self, message: &Message, is_broken: bool) -> Option<Verdict> {
        let Message { id, topic, source, from, .. } = message;
        let access = self.swarm.behaviour().access.access();
        // Without a signature, any peer could put another one's id there.
        let is_proved = self.config.gossip.validation == Validation::Strict || source.as_ref() == Some(from);
        let by_rule = check_author(access, &self.config.topics, topic, source.as_ref()).err();
        let (blamed, reason) = by_rule.or(is_broken.then_some((*source, Reason::BrokenBundle)))?;
        log::debug!("message {id} on {topic} is dropped: {reason}");
        let now = self.runtime.now();
        let blamed = blamed.filter(|_| is_proved);
        if let Some(author) = blamed {
            let params = self.config.topics.get(topic).cloned().unwrap_or_default().score.params();
            let tariff = Tariff {
                weight: (params.topic_weight * params.invalid_message_deliveries_weight).min(0.0),
                decay: params.invalid_message_deliveries_decay,
            };
            let score = self.blame.author(author, tariff, now);
            self.set_own_score(&author, score);
        }
        if blamed != Some(*from) {
            let score = self.blame.brought(*from, now);
            self.set_own_score(from, score);
        }
        Some(if blamed.is_some() { Verdict::Reject } else { Verdict::Ignore })
    }
}
