//! Messages that clients publish: one by one, or, in topics that say so, those of a moment in one.

use std::{collections::BTreeMap, iter::Peekable, time::Instant, vec};

use super::{EventLoop, answer, id_text};
use crate::{
    error::chain,
    gossip::{PublishError, Topic, bundle},
    node::{
        Position,
        command::{Command, PublishOptions, Reply},
        error::Error,
        event::{Event, Receipt},
        pending_publishes::{There, Waiting},
        publish_policy, topics,
    },
};

/// Publishes of one topic, in their order.
type Batch = Vec<Waiting<Reply<Receipt>>>;

/// Publishes that are taken in together, if so many wait.
const BURST: usize = 128;

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
        data: Vec<u8>,
        options: PublishOptions,
        reply: Reply<Receipt>,
    ) {
        if let Err(e) = topics::check(&topic) {
            return self.answer_publish(reply, 0, Err(e));
        }
        let (bytes, limit) = (data.len(), self.config.gossip.max_message);
        if bytes > limit {
            return self.answer_publish(reply, bytes, Err(Error::MessageTooLarge { bytes, limit }));
        }
        if !publish_policy::may_publish(&self.config.topics, &topic, Some(self.swarm.local_peer_id())) {
            return self.answer_publish(reply, bytes, Err(Error::NotAPublisher(topic)));
        }
        // What waits only for others of its bundle takes nobody's place.
        if self.pending_publishes.is_full() {
            self.publish_ready();
        }
        let gathers = self.bundles(&topic);
        match self.pending_publishes.push(topic, data, options, reply, self.runtime.now()) {
            Ok(()) if gathers => {}
            Ok(()) => self.publish_ready(),
            Err((reply, e)) => self.answer_publish(reply, bytes, Err(e)),
        }
    }

    /// Answers the publisher, and counts the outcome.
    pub(super) fn answer_publish(&self, reply: Reply<Receipt>, bytes: usize, result: Result<Receipt, Error>) {
        self.metrics.published(bytes, &result);
        answer(reply, result);
    }

    /// Publishes what has enough subscribers by now.
    pub(super) fn publish_ready(&mut self) {
        if self.pending_publishes.is_empty() {
            return;
        }
        let now = self.runtime.now();
        let (core, topics) = (self.swarm.behaviour().gossip.core(), &self.topics);
        let there = |topic: &str| There { peers: core.subscriber_count(topic), here: topics.hearers(topic) };
        let ready = self.pending_publishes.take_ready(now, there);
        let mut full: BTreeMap<String, (usize, Batch)> = BTreeMap::new();
        let mut ready = ready.into_iter().peekable();
        while let Some(next) = ready.next() {
            if let Some((_, held)) = full.get_mut(&next.topic) {
                held.push(next);
                continue;
            }
            let topic = next.topic.clone();
            let batch = self.gather(next, &mut ready);
            if let Some(congested) = self.publish_batch(&topic, batch) {
                full.insert(topic, congested);
            }
        }
        for (peers, held) in full.into_values() {
            for (reply, error) in self.pending_publishes.hold(held, peers, now) {
                self.answer_publish(reply, 0, Err(error));
            }
        }
    }

    /// Whether messages of a topic travel in bundles.
    pub(super) fn bundles(&self, topic: &str) -> bool {
        self.config.topics.get(topic).is_some_and(|rules| rules.bundle)
    }

    /// What goes out together with a publish: those of its topic right behind it, where they travel in bundles.
    fn gather(
        &self,
        first: Waiting<Reply<Receipt>>,
        ready: &mut Peekable<vec::IntoIter<Waiting<Reply<Receipt>>>>,
    ) -> Batch {
        let (topic, limit) = (first.topic.clone(), self.config.gossip.max_message);
        let core = self.swarm.behaviour().gossip.core();
        let bundle = core.bundle_len([first.data.len()]).filter(|_| self.bundles(&topic));
        let mut batch = vec![first];
        let Some(mut bytes) = bundle else { return batch };
        while batch.len() < bundle::MOST {
            let fits = |w: &Waiting<_>| w.topic == topic && bytes + bundle::entry_len(w.data.len()) <= limit;
            let Some(next) = ready.next_if(fits) else { break };
            bytes += bundle::entry_len(next.data.len());
            batch.push(next);
        }
        batch
    }

    /// Publishes all of them in one message. If queues are full, gives them back with how many are.
    fn publish_batch(&mut self, topic: &str, batch: Batch) -> Option<(usize, Batch)> {
        let data: Vec<&[u8]> = batch.iter().map(|publish| &publish.data[..]).collect();
        // What begins like a bundle would be taken for one.
        let escaped = |data: &[u8]| data.starts_with(&bundle::MAGIC) && self.bundles(topic);
        let single = data.first().filter(|data| batch.len() == 1 && !escaped(data));
        let (is_bundle, name) = (single.is_none(), Topic::from(topic));
        let here = self.topics.hearers(topic) > 0;
        let is_heard = here || self.keeps(topic);
        self.number_next();
        let (core, now) = (self.swarm.behaviour_mut().gossip.core_mut(), Instant::now());
        let result = match (single, is_heard) {
            (Some(data), false) => core.publish(&name, data, now),
            (Some(data), true) => core.publish_alone(&name, data, now),
            (None, false) => core.publish_bundle(&name, &data, now),
            (None, true) => core.publish_bundle_alone(&name, &data, now),
        };
        let kept = result.as_ref().ok().map(|receipt| self.keep_own(&receipt.wire));
        if let Err(PublishError::QueuesFull { peers }) = result {
            return Some((peers, batch));
        }
        for (n, publish) in batch.into_iter().enumerate() {
            let bytes = publish.data.len();
            let receipt = match &result {
                Ok(receipt) => {
                    let whole = id_text(&receipt.id);
                    let id = if is_bundle { format!("{whole}/{n}") } else { whole };
                    let part = u32::try_from(n).unwrap_or(u32::MAX);
                    let (sent, position) = kept.unwrap_or_default();
                    let position = position.map(|position| Position { part, ..position });
                    let local = match here {
                        true => {
                            self.deliver_here(&self.own(&id, &publish.topic, &publish.data, sent, position))
                        }
                        false => 0,
                    };
                    let receipt = Receipt { id, peers: receipt.peers, local };
                    self.emit(Event::Published { receipt: receipt.clone(), topic: publish.topic });
                    Ok(receipt)
                }
                Err(PublishError::NoPeers) if publish.wanted == Some(0) => Ok(Receipt::to_nobody()),
                Err(PublishError::TooLarge { bytes, limit }) => {
                    Err(Error::MessageTooLarge { bytes: *bytes, limit: *limit })
                }
                Err(PublishError::Duplicate(_)) => Err(Error::Duplicate),
                Err(other) => Err(Error::Publish(chain(other))),
            };
            self.answer_publish(publish.waiter, bytes, receipt);
        }
        None
    }
}
