//! Topics of values by key: what arrives, what this node sets, and whoever reads and watches it.

use std::sync::Arc;

use libp2p::PeerId;
use smidge_catchup::{Keyed, Stamp};

use super::{EventLoop, answer, id_text};
use crate::{
    error::chain,
    gossip::{self, MessageId, PublishError, Topic, WireMessage},
    node::{
        Verdict,
        catchup::{Record, Value, wall},
        command::{Command, Reply},
        error::Error,
        event::{Event, Receipt},
        publish_policy::check_author,
        state::{Listed, MAX_STATE_KEY, StateEntry, StateEvent},
        topics,
    },
    runtime,
};

/// What a signed message has beside its payload and its topic, at most.
const ENVELOPE: usize = 128;

impl EventLoop {
    /// Whether a topic is one of values by key.
    pub(super) fn is_by_key(&self, topic: &str) -> bool {
        self.swarm.behaviour().catchup.book().is_by_key(topic)
    }

    /// A live message in such a topic.
    pub(super) fn on_value(
        &mut self,
        from: PeerId,
        id: &MessageId,
        message: &gossip::Message,
        wire: &WireMessage,
    ) {
        let verdict = self.take_live(from, id, message, wire);
        self.swarm.behaviour_mut().gossip.verdict(id, verdict);
    }

    fn take_live(
        &mut self,
        from: PeerId,
        id: &MessageId,
        message: &gossip::Message,
        wire: &WireMessage,
    ) -> gossip::Verdict {
        let mut messages = vec![self.received(from, id_text(id), message, 0, &message.data)];
        if let Some(verdict) = messages.first().and_then(|first| self.refused(first, false)) {
            self.metrics.refused(verdict);
            return gossip::Verdict::Ignore;
        }
        let Some(record) = Record::of(wire) else { return gossip::Verdict::Ignore };
        match self.swarm.behaviour().catchup.book().judge_value(&record, true, wall()) {
            Value::New => {}
            // Others may lack it.
            Value::Known => return gossip::Verdict::Accept,
            other => {
                self.metrics.refused(Verdict::Ignore);
                self.keep_out(&record, other);
                return gossip::Verdict::Ignore;
            }
        }
        match self.validate(&mut messages) {
            Verdict::Accept => {}
            Verdict::Ignore => return gossip::Verdict::Ignore,
            Verdict::Reject => return gossip::Verdict::Reject,
        }
        self.take_value(&record);
        messages.iter_mut().for_each(|message| message.position = None);
        self.deliver_all(messages);
        gossip::Verdict::Accept
    }

    /// A value that a neighbour kept.
    pub(super) fn on_value_recovered(&mut self, from: PeerId, record: &Record) {
        let topic = record.wire.topic();
        match self.swarm.behaviour().catchup.book().judge_value(record, false, wall()) {
            Value::New => {}
            // The neighbour learns of what is newer in the same session.
            Value::Known | Value::Old => return,
            other => {
                self.keep_out(record, other);
                let is_ahead = other == Value::Ahead;
                return self.swarm.behaviour_mut().catchup.book_mut().refuse_value(record, is_ahead);
            }
        }
        let message = record.message();
        let mut messages = vec![self.received(from, record.id(), &message, 0, &message.data)];
        messages.iter_mut().for_each(|message| message.late = true);
        let access = self.swarm.behaviour().access.access();
        let refused = check_author(access, &self.config.topics, topic, message.source.as_ref()).is_err();
        let is_large = message.data.len() > self.config.gossip.max_message;
        if refused || is_large || self.validate(&mut messages) != Verdict::Accept {
            log::debug!("value {} of {topic} is not taken from {from}'s memory", record.id());
            return self.swarm.behaviour_mut().catchup.book_mut().refuse_value(record, false);
        }
        self.take_value(record);
        self.swarm.behaviour_mut().catchup.learned_value(&from, record);
        messages.iter_mut().for_each(|message| message.position = None);
        self.deliver_all(messages);
    }

    /// Counts what is no value of its topic, and says so now and then.
    fn keep_out(&mut self, record: &Record, value: Value) {
        let why = match value {
            Value::None(why) => why.to_string(),
            Value::Ahead => {
                "its time has not come: of its author's clock and this node's, one is wrong".into()
            }
            Value::New | Value::Known | Value::Old => return,
        };
        self.metrics.kept_out(if value == Value::Ahead { "ahead" } else { "no_key" });
        if let Some(others) = self.kept_out.note(1, self.runtime.now()) {
            let (topic, author) = (record.wire.topic().to_owned(), record.author);
            self.emit(Event::KeptOut { topic, author, why, others });
        }
    }

    /// Takes in a value that was verified and let in.
    fn take_value(&mut self, record: &Record) {
        let topic = record.wire.topic();
        let (changed, others) = self.swarm.behaviour_mut().catchup.book_mut().take_value(record, wall());
        for entry in changed.entries {
            self.watchers.changed(topic, StateEvent::of(entry));
        }
        self.gave_way(topic, changed.gave_way);
        for (topic, key) in others {
            self.gave_way(&topic, vec![key]);
        }
    }

    fn gave_way(&mut self, topic: &str, keys: Vec<Arc<[u8]>>) {
        let count = keys.len() as u64;
        let Some(key) = keys.first().cloned() else { return };
        for key in keys {
            self.watchers.changed(topic, StateEvent::GaveWay { key });
        }
        self.metrics.gave_way(count);
        if let Some(others) = self.giving_way.note(count, self.runtime.now()) {
            self.emit(Event::GaveWay { topic: topic.to_owned(), key, others });
        }
    }

    /// This node was away for longer than deletions are remembered.
    pub(super) fn on_thrown_away(&mut self, topic: String, keys: Vec<Arc<[u8]>>) {
        let count = keys.len();
        for key in keys {
            self.watchers.changed(&topic, StateEvent::GaveWay { key });
        }
        self.emit(Event::ThrownAway { topic, keys: count });
    }

    /// What a client asks of values by key.
    pub(super) fn on_state_command(&mut self, command: Command) {
        match command {
            Command::StateGet { topic, key, reply } => {
                let found = self.check_key(&topic, &key).map(|()| {
                    self.swarm.behaviour().catchup.book().value(&topic, &key).and_then(StateEntry::of)
                });
                answer(reply, found);
            }
            Command::StateSet { topic, key, value, reply } => self.set(&topic, &key, value.as_deref(), reply),
            Command::StateList { topic, reply } => answer(reply, self.list(&topic)),
            Command::StateWatch { topic, reply } => {
                let watch = self.list(&topic).and_then(|listed| {
                    let commands = self.commander.upgrade().ok_or(Error::Stopped)?.downgrade();
                    self.watchers.watch(&topic, listed.entries, commands)
                });
                answer(reply, watch);
            }
            _ => {}
        }
    }

    fn list(&self, topic: &str) -> Result<Listed, Error> {
        topics::check(topic)?;
        let values = self.swarm.behaviour().catchup.book().values(topic);
        let values = values.ok_or_else(|| Error::NotByKey(topic.to_owned()))?;
        let entries = values.into_iter().filter_map(StateEntry::of).collect();
        Ok(Listed { entries, number: self.watchers.number(topic) })
    }

    fn check_key(&self, topic: &str, key: &[u8]) -> Result<(), Error> {
        topics::check(topic)?;
        if !self.is_by_key(topic) {
            return Err(Error::NotByKey(topic.to_owned()));
        }
        match key.len() {
            1..=MAX_STATE_KEY => Ok(()),
            length => Err(Error::BadKey { length }),
        }
    }

    /// Sets a key, or deletes it, and tells everybody.
    fn set(&mut self, topic: &str, key: &[u8], value: Option<&[u8]>, reply: Reply<Receipt>) {
        let bytes = Keyed::encoded_len(key.len(), value.map_or(0, <[u8]>::len));
        let written = self.may_set(topic, key, value, bytes).and_then(|stamp| {
            let payload = Keyed { stamp, key, value }.encode();
            self.number_next();
            let core = self.swarm.behaviour_mut().gossip.core_mut();
            let receipt =
                core.publish_alone(&Topic::from(topic), &payload, runtime::now()).map_err(|e| match e {
                    PublishError::QueuesFull { peers } => Error::Congested(peers),
                    other => Error::Publish(chain(&other)),
                })?;
            let record =
                Record::of(&receipt.wire).ok_or_else(|| Error::Publish("it is not signed".into()))?;
            self.take_value(&record);
            let id = id_text(&receipt.id);
            let sent = Some(stamp.millis());
            let mut local = self.watchers.count(topic);
            if self.topics.hearers(topic) > 0 {
                local += self.deliver_here(self.own(&id, topic, &payload, sent, None));
            }
            let receipt = Receipt { id, peers: receipt.peers, local, confirmed: Vec::new() };
            if receipt.peers > 0 {
                self.history.published(topic, bytes, self.runtime.now());
            }
            self.emit(Event::Published { receipt: receipt.clone(), topic: topic.to_owned() });
            Ok(receipt)
        });
        if matches!(written, Err(Error::StateFull { .. })) {
            self.metrics.kept_out("full");
        }
        self.metrics.published(bytes, &written);
        answer(reply, written);
    }

    /// Whether this node may write that, and the stamp that it has then.
    fn may_set(
        &mut self,
        topic: &str,
        key: &[u8],
        value: Option<&[u8]>,
        bytes: usize,
    ) -> Result<Stamp, Error> {
        self.check_key(topic, key)?;
        self.may_author(topic)?;
        let limit = self.config.gossip.max_message;
        if bytes > limit {
            return Err(Error::MessageTooLarge { bytes, limit });
        }
        let book = self.swarm.behaviour_mut().catchup.book_mut();
        if value.is_none() && book.value(topic, key).is_none() {
            return Err(Error::NotFound(format!("nothing has that key in {topic:?}")));
        }
        book.admits_value(topic, key, bytes + topic.len() + ENVELOPE, wall())
            .map_err(|full| Error::StateFull { topic: topic.to_owned(), why: full.to_string() })?;
        book.next_stamp(topic, wall()).ok_or_else(|| Error::NotByKey(topic.to_owned()))
    }
}
