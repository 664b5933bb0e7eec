//! Messages that clients publish: one by one, or, in topics that say so, those of a moment in one.

use std::{collections::VecDeque, time::Duration};

use smidge_catchup::Item;

use super::{EventLoop, answer, id_text};
use crate::{
    error::chain,
    gossip::{self, PublishError, Topic, bundle},
    node::{
        Position,
        catchup::Confirmed,
        command::{Command, PublishOptions, Reply},
        confirmations::Wanted,
        error::Error,
        event::{Event, Receipt},
        pending_publishes::{Hold, Outcome, There, Waiting},
        publish_policy, topics,
    },
    runtime,
};

type Publish = Waiting<Reply<Vec<Outcome>>>;

/// Publishes that are taken in together, if so many wait, and messages that are signed in one turn of the loop.
const BURST: usize = 128;

/// Messages that wait to be confirmed, for each publish that may wait.
const CONFIRMING: usize = 16;
/// How long they are waited for, at most.
const LONGEST: Duration = Duration::from_secs(3600);

/// A message that peers were handed.
struct Handed {
    id: String,
    peers: usize,
    /// As [`Message`](crate::Message) has them.
    sent: Option<u64>,
    position: Option<Position>,
    /// What others are asked about, where the topic is kept.
    item: Option<Item>,
}

impl EventLoop {
    /// A command, and the publishes that wait in line with it: nobody waits for them, but what is there goes out together.
    pub(super) fn on_commands(&mut self, mut command: Option<Command>) {
        for _ in 0..BURST {
            if !matches!(command, Some(Command::Publish { .. })) {
                // What was published before it goes before it.
                self.publish_ready();
                return self.on_command(command);
            }
            self.on_command(command);
            match self.inbox.0.try_recv() {
                Ok(next) => command = Some(next),
                Err(_) => return self.publish_ready(),
            }
        }
        self.publish_ready();
        self.on_command(command);
        self.publish_ready();
    }

    pub(super) fn publish(
        &mut self,
        topic: String,
        messages: Vec<Vec<u8>>,
        options: PublishOptions,
        reply: Reply<Vec<Outcome>>,
    ) {
        if let Err(e) = self.may_publish(&topic, &messages).and_then(|()| self.may_confirm(&topic, options)) {
            return self.refuse_publish(reply, messages.len(), e);
        }
        // What waits only for others of its bundle takes nobody's place.
        if self.pending_publishes.is_full() {
            self.publish_ready();
        }
        let (count, gathers) = (messages.len(), self.bundles(&topic));
        match self.pending_publishes.push(topic, messages, options, reply, self.runtime.now()) {
            // A turn that is used up is not begun again for each of many callers.
            Ok(()) if gathers || self.pending_publishes.awaits_turn() => {}
            Ok(()) => {
                self.publish_ready();
                if !self.pending_publishes.is_empty() {
                    self.discover(self.runtime.now());
                }
            }
            Err((reply, e)) => self.refuse_publish(reply, count, e),
        }
    }

    /// Whether these may be published, as far as that is known before enough have subscribed.
    fn may_publish(&self, topic: &str, messages: &[Vec<u8>]) -> Result<(), Error> {
        topics::check(topic)?;
        if self.is_by_key(topic) {
            return Err(Error::ByKey(topic.into()));
        }
        if let [message] = messages {
            self.check_size(message)?;
        }
        self.may_author(topic)
    }

    /// Whether the topic's rules let this node publish.
    pub(super) fn may_author(&self, topic: &str) -> Result<(), Error> {
        let own = Some(self.swarm.local_peer_id());
        match publish_policy::may_publish(&self.config.topics, topic, own) {
            true => Ok(()),
            false => Err(Error::NotAPublisher(topic.into())),
        }
    }

    /// Whether others can confirm what is published, if that is asked for, and may be waited for.
    fn may_confirm(&self, topic: &str, options: PublishOptions) -> Result<(), Error> {
        if options.confirm == 0 {
            return Ok(());
        }
        if !self.keeps(topic) {
            return Err(Error::NotKept(topic.into()));
        }
        let limit = self.config.limits.pending * CONFIRMING;
        if self.confirmations.len() >= limit {
            return Err(Error::Limit { what: "messages to be confirmed", limit, key: "limits.pending" });
        }
        Ok(())
    }

    fn check_size(&self, message: &[u8]) -> Result<(), Error> {
        let (bytes, limit) = (message.len(), self.config.gossip.max_message);
        if bytes > limit { Err(Error::MessageTooLarge { bytes, limit }) } else { Ok(()) }
    }

    /// Answers for all messages of a publish that none was tried, and counts them.
    fn refuse_publish(&self, reply: Reply<Vec<Outcome>>, count: usize, error: Error) {
        let outcome = Err(error);
        (0..count).for_each(|_| self.metrics.published(0, &outcome));
        answer(reply, outcome.map(|_| Vec::new()));
    }

    /// Answers for a publish whose remaining messages come to `error`.
    pub(super) fn give_up(&mut self, mut publish: Publish, error: &Error) {
        for message in std::mem::take(&mut publish.messages) {
            let outcome = Err(error.clone());
            self.metrics.published(message.len(), &outcome);
            publish.outcomes.push(outcome);
        }
        self.answer_publish(publish);
    }

    /// Answers for a publish of which nothing is to go out any more, when others have confirmed what they are to.
    fn answer_publish(&mut self, publish: Publish) {
        let Publish { waiter, outcomes, tickets, confirm: count, patience, .. } = publish;
        let wanted = Wanted { count, patience };
        if let Some((waiter, outcomes)) = self.confirmations.wait(waiter, outcomes, tickets, wanted) {
            answer(waiter, Ok(outcomes));
        }
    }

    pub(super) fn on_confirmed(&mut self, confirmed: Confirmed) {
        if let Some((waiter, outcomes)) = self.confirmations.note(confirmed) {
            answer(waiter, Ok(outcomes));
        }
    }

    /// Publishes what has enough subscribers by now, as far as one turn of the loop goes.
    pub(super) fn publish_ready(&mut self) {
        if self.pending_publishes.is_empty() {
            return;
        }
        let now = self.runtime.now();
        let (core, topics) = (self.swarm.behaviour().gossip.core(), &self.topics);
        let there = |topic: &str| There { peers: core.subscriber_count(topic), here: topics.hearers(topic) };
        let ready = self.pending_publishes.take_ready(now, there);
        let mut topics: Vec<VecDeque<Publish>> = Vec::new();
        for publish in ready {
            match topics.iter_mut().find(|of| of.front().is_some_and(|first| first.topic == publish.topic)) {
                Some(of) => of.push_back(publish),
                None => topics.push(VecDeque::from([publish])),
            }
        }
        let mut turn = BURST;
        for mut publishes in topics {
            if let Some(why) = self.publish_in_order(&mut publishes, &mut turn) {
                for (publish, error) in self.pending_publishes.hold(publishes, why, now) {
                    self.give_up(publish, &error);
                }
            }
        }
    }

    /// Whether messages of a topic travel in bundles.
    pub(super) fn bundles(&self, topic: &str) -> bool {
        let mqtt = &self.config.mqtt;
        self.config.topics.get(topic).is_some_and(|rules| rules.bundle)
            || (mqtt.is_on() && mqtt.topic == topic)
    }

    /// Publishes of one topic, in at most `turn` messages of gossip; takes out what is done, and says why the rest
    /// has to wait.
    fn publish_in_order(&mut self, publishes: &mut VecDeque<Publish>, turn: &mut usize) -> Option<Hold> {
        while let Some(first) = publishes.front() {
            if *turn == 0 {
                return Some(Hold::Turn);
            }
            *turn -= 1;
            let topic = first.topic.clone();
            let count = self.gather(&topic, publishes);
            let (result, is_bundle) = self.publish_one(&topic, publishes, count);
            if let Err(PublishError::QueuesFull { peers }) = result {
                return Some(Hold::Full { peers });
            }
            let (sent, position, item) =
                result.as_ref().map_or((None, None, None), |receipt| self.keep_own(&receipt.wire));
            let result = result.map(|receipt| (id_text(&receipt.id), receipt.peers));
            for n in 0..count {
                let id = |id: &str| if is_bundle { format!("{id}/{n}") } else { id.to_owned() };
                let part = u32::try_from(n).unwrap_or(u32::MAX);
                let position = position.map(|position| Position { part, ..position });
                let result = match &result {
                    Ok((whole, peers)) => Ok(Handed { id: id(whole), peers: *peers, sent, position, item }),
                    Err(error) => Err(error),
                };
                self.note_published(publishes, result);
            }
        }
        None
    }

    /// How many messages go out together, of those that stand in line: more than one where they travel in bundles.
    fn gather(&self, topic: &str, publishes: &VecDeque<Publish>) -> usize {
        let limit = self.config.gossip.max_message;
        let core = self.swarm.behaviour().gossip.core();
        let mut messages = publishes.iter().flat_map(|publish| &publish.messages).map(Vec::len);
        let first = messages.next().unwrap_or_default();
        let bundle = core.bundle_len([first]).filter(|bytes| *bytes <= limit && self.bundles(topic));
        let Some(mut bytes) = bundle else { return 1 };
        let fits = |len: &usize| {
            bytes += bundle::entry_len(*len);
            bytes <= limit
        };
        1 + messages.take_while(fits).take(bundle::MOST - 1).count()
    }

    /// Publishes the first `count` messages in one of gossip; whether that is a bundle.
    fn publish_one(
        &mut self,
        topic: &str,
        publishes: &VecDeque<Publish>,
        count: usize,
    ) -> (Result<gossip::Receipt, PublishError>, bool) {
        let data: Vec<&[u8]> =
            publishes.iter().flat_map(|publish| &publish.messages).take(count).map(Vec::as_slice).collect();
        // What begins like a bundle would be taken for one.
        let escaped = |data: &[u8]| data.starts_with(&bundle::MAGIC) && self.bundles(topic);
        let single = data.first().copied().filter(|data| count == 1 && !escaped(data));
        let (name, is_heard) = (Topic::from(topic), self.topics.hearers(topic) > 0 || self.keeps(topic));
        self.number_next();
        let (core, now) = (self.swarm.behaviour_mut().gossip.core_mut(), runtime::now());
        match (single, is_heard) {
            (Some(data), false) => (core.publish(&name, data, now), false),
            (Some(data), true) => (core.publish_alone(&name, data, now), false),
            (None, false) => (core.publish_bundle(&name, &data, now), true),
            (None, true) => (core.publish_bundle_alone(&name, &data, now), true),
        }
    }

    /// Notes what came of the first message that stands in line, and answers if it was the last one of its publish.
    fn note_published(&mut self, publishes: &mut VecDeque<Publish>, result: Result<Handed, &PublishError>) {
        let Some(publish) = publishes.front_mut() else { return };
        let data = publish.messages.pop_front().unwrap_or_default();
        let outcome = match result {
            Ok(Handed { id, peers, sent, position, item }) => {
                let topic = publish.topic.clone();
                let local = match self.topics.hearers(&topic) {
                    0 => 0,
                    _ => self.deliver_here(self.own(&id, &topic, &data, sent, position)),
                };
                if publish.confirm > 0 {
                    self.confirm(publish, item);
                }
                let receipt = Receipt { id, peers, local, confirmed: Vec::new() };
                if peers > 0 {
                    self.history.published(&topic, data.len(), self.runtime.now());
                }
                let event = Event::Published { receipt, topic };
                self.emit_and_keep(&event);
                match event {
                    Event::Published { receipt, .. } => Ok(receipt),
                    _ => Ok(Receipt::to_nobody()),
                }
            }
            Err(PublishError::NoPeers) if publish.wanted == Some(0) => Ok(Receipt::to_nobody()),
            Err(PublishError::TooLarge { bytes, limit }) => {
                Err(Error::MessageTooLarge { bytes: *bytes, limit: *limit })
            }
            Err(PublishError::Duplicate(_)) => Err(Error::Duplicate),
            Err(other) => Err(Error::Publish(chain(other))),
        };
        self.metrics.published(data.len(), &outcome);
        publish.outcomes.push(outcome);
        if publish.messages.is_empty()
            && let Some(publish) = publishes.pop_front()
        {
            self.answer_publish(publish);
        }
    }

    /// Has others asked about the message of a publish whose outcome comes next.
    fn confirm(&mut self, publish: &mut Publish, item: Option<Item>) {
        let now = self.runtime.now();
        let until = publish.deadline.unwrap_or(now + LONGEST).min(now + LONGEST);
        // A message without an author or a number has no place in a memory: nobody can confirm it.
        let (item, until) = item.map_or((Item::at(0), now), |item| (item, until));
        let before = publish.tickets.last().copied().filter(|_| publish.last == Some(item));
        let ticket = match before {
            // The same bundle.
            Some((_, ticket)) => ticket,
            None => self.swarm.behaviour_mut().catchup.confirm(&publish.topic, item, publish.confirm, until),
        };
        publish.last = Some(item);
        publish.tickets.push((publish.outcomes.len(), ticket));
    }
}
