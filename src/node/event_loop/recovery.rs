//! What topics with `keep` remember: what goes into their memories, and what comes from those of neighbours.

use super::EventLoop;
use crate::{
    gossip::{self, Topic, WireMessage},
    node::{
        Position, Verdict,
        catchup::{self, Judgement, Record, wall},
        event::{Event, Message},
        publish_policy::check_author,
    },
};

impl EventLoop {
    /// What is kept, and of whom it is learned, after the rules changed.
    pub(super) fn keep_configured(&mut self) {
        let behaviour = self.swarm.behaviour_mut();
        let before: Vec<String> = behaviour.catchup.book().topics().cloned().collect();
        behaviour.catchup.book_mut().configure(&self.config.topics, wall());
        behaviour.catchup.configured();
        let fresh: Vec<String> =
            behaviour.catchup.book().topics().filter(|topic| !before.contains(topic)).cloned().collect();
        for topic in fresh {
            for peer in behaviour.gossip.core().subscribers(&Topic::from(topic.as_str())) {
                behaviour.catchup.follows(peer, &topic);
            }
        }
    }

    pub(super) fn keeps(&self, topic: &str) -> bool {
        self.swarm.behaviour().catchup.book().keeps(topic)
    }

    /// What is to be remembered of a live message, if anything; or what becomes of one that is not new.
    pub(super) fn judge(&self, wire: &WireMessage) -> Result<Option<Record>, gossip::Verdict> {
        let book = self.swarm.behaviour().catchup.book();
        if !book.keeps(wire.topic()) {
            return Ok(None);
        }
        let Some(record) = Record::of(wire) else { return Ok(None) };
        match book.judge(&record, wall()) {
            Judgement::New => Ok(Some(record)),
            // Others may lack it.
            Judgement::Known => Err(gossip::Verdict::Accept),
            Judgement::Old => {
                let (id, topic) = (record.id(), wire.topic());
                log::debug!(
                    "message {id} on {topic} is dropped: it is older than what is remembered of its author"
                );
                self.metrics.refused(Verdict::Ignore);
                Err(gossip::Verdict::Ignore)
            }
        }
    }

    /// The next message of this node has the present moment as its number.
    pub(super) fn number_next(&mut self) {
        let behaviour = self.swarm.behaviour_mut();
        let number = behaviour.catchup.book_mut().next_number(wall());
        behaviour.gossip.core_mut().number_above(number - 1);
    }

    /// Remembers a message of this node, where its topic is kept; when it was sent, and its position.
    pub(super) fn keep_own(&mut self, wire: &WireMessage) -> (Option<u64>, Option<Position>) {
        let number = wire.seqno().and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
        let sent = number.and_then(catchup::sent);
        let record = self.keeps(wire.topic()).then(|| Record::of(wire)).flatten();
        let book = self.swarm.behaviour_mut().catchup.book_mut();
        (sent, record.and_then(|record| book.insert(&record, wall())))
    }

    /// A message of this node as its own subscribers get it.
    pub(super) fn own(
        &self,
        id: &str,
        topic: &str,
        data: &[u8],
        sent: Option<u64>,
        position: Option<Position>,
    ) -> Message {
        let own = *self.swarm.local_peer_id();
        let (id, topic, data) = (id.to_owned(), topic.to_owned(), data.into());
        let name = self.name_of(&own);
        Message {
            id,
            topic,
            name,
            source: Some(own),
            from: own,
            data,
            local: true,
            sent,
            late: false,
            position,
        }
    }

    /// What a neighbour remembered: the rules hold as they are now, and each message is delivered once.
    pub(super) fn on_recovered(&mut self, event: catchup::Event) {
        let catchup::Event::Recovered { from, records } = event;
        for record in records {
            let topic = record.wire.topic();
            if !self.keeps(topic) || self.judge(&record.wire).is_err() {
                continue;
            }
            let message = record.message();
            let (mut messages, is_broken) = self.unpack(from, &record.id(), &message);
            let access = self.swarm.behaviour().access.access();
            // The neighbour may have other rules, and its memory those of before: nobody is to blame.
            let refused = check_author(access, &self.config.topics, topic, message.source.as_ref()).err();
            let is_large = message.data.len() > self.config.gossip.max_message;
            if is_broken || is_large || refused.is_some() {
                log::debug!("message {} on {topic} is not taken from {from}'s memory", record.id());
                continue;
            }
            messages.iter_mut().for_each(|message| message.late = true);
            if self.validate(&mut messages) != Verdict::Accept {
                continue;
            }
            let position = self.swarm.behaviour_mut().catchup.book_mut().insert(&record, wall());
            // What is not kept would be given again, and be new again. What this node said itself, in a life before this
            // one, is kept for others.
            if position.is_none() || message.source.as_ref() == Some(self.swarm.local_peer_id()) {
                continue;
            }
            place(&mut messages, position);
            for message in messages {
                self.topics.deliver(&message);
                self.emit(Event::Message(message));
            }
        }
    }
}

/// Gives messages the position of their record; those of what is not kept have none.
pub(super) fn place(messages: &mut [Message], position: Option<Position>) {
    for message in messages {
        let part = message.position.map_or(0, |position| position.part);
        message.position = position.map(|position| Position { part, ..position });
    }
}
