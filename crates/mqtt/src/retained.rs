//! Retained messages: the last one of each topic, the same at all brokers that heard the same, in whatever order.
//!
//! Of two messages the one with the higher [`Rank`] stays. A deletion is remembered for an hour, so that what it deleted
//! does not come back by a longer way.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use mqtt_proto::TopicName;

use crate::{limits::Limits, message::Message, topic};

/// How long a deletion is remembered.
const MARKS: Duration = Duration::from_secs(3600);

/// What decides between two messages of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// When it was published: microseconds since 1970, never the same twice at one broker, and later than all that it had heard.
    pub stamp: u64,
    /// At which broker.
    pub node: u64,
}

/// A message that is not retained, because there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// One topic too many.
    #[error("{0} retained messages are as many as are kept")]
    Messages(usize),
    /// Too many bytes.
    #[error("{0} bytes of retained messages are as many as are kept")]
    Bytes(usize),
}

#[derive(Debug)]
struct Entry {
    rank: Rank,
    /// `None`: deleted.
    message: Option<Arc<Message>>,
    until: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Retained {
    entries: BTreeMap<TopicName, Entry>,
    bytes: usize,
    /// Without the broker's own, which are few.
    messages: usize,
    /// Deleted ones that are remembered.
    marks: usize,
    /// What ends by itself, the next first: messages, and marks of deleted ones.
    due: BTreeSet<(Instant, TopicName)>,
}

/// How far a look through retained messages came.
#[derive(Debug)]
pub(crate) enum Step {
    Found(Arc<Message>),
    /// Enough for now; on from here.
    Pause(TopicName),
    End,
}

impl Retained {
    /// Takes what a retained message says; whether it is the newest of its topic.
    pub(crate) fn set(
        &mut self,
        message: &Arc<Message>,
        rank: Rank,
        limits: &Limits,
        now: Instant,
    ) -> Result<bool, Rejected> {
        let known = self.entries.get(&message.topic);
        if known.is_some_and(|known| known.rank >= rank) {
            return Ok(false);
        }
        let known = known.and_then(|known| known.message.as_ref()).map(|message| message.cost());
        let deletes = message.payload.is_empty();
        if !deletes && counts(&message.topic) {
            if known.is_none() && self.messages >= limits.retained_messages {
                return Err(Rejected::Messages(limits.retained_messages));
            }
            if self.bytes - known.unwrap_or(0) + message.cost() > limits.retained_bytes {
                return Err(Rejected::Bytes(limits.retained_bytes));
            }
        }
        self.remove(&message.topic);
        let until = if deletes { now.checked_add(MARKS) } else { message.expires };
        if let Some(until) = until {
            self.due.insert((until, message.topic.clone()));
        }
        let message_kept = (!deletes).then(|| message.clone());
        if deletes {
            self.marks += 1;
        } else if counts(&message.topic) {
            self.bytes += message.cost();
            self.messages += 1;
        }
        self.entries.insert(message.topic.clone(), Entry { rank, message: message_kept, until });
        // Marks are worth less than messages: those that end first make room.
        while self.messages + self.marks > limits.retained_messages {
            let mark = self.due.iter().find(|(_, topic)| {
                *topic != message.topic
                    && self.entries.get(topic).is_some_and(|entry| entry.message.is_none())
            });
            let Some((_, topic)) = mark.cloned() else { break };
            self.remove(&topic);
        }
        Ok(true)
    }

    /// Whether a message of this topic, with so many bytes of payload, would be kept.
    pub(crate) fn has_room(&self, topic: &TopicName, payload: usize, limits: &Limits) -> bool {
        let known = self.entries.get(topic).and_then(|known| known.message.as_ref());
        let bytes = self.bytes - known.map_or(0, |message| message.cost()) + topic.len() + payload;
        (known.is_some() || self.messages < limits.retained_messages) && bytes <= limits.retained_bytes
    }

    fn remove(&mut self, topic: &TopicName) {
        let Some(entry) = self.entries.remove(topic) else { return };
        match entry.message {
            None => self.marks -= 1,
            Some(message) if counts(topic) => {
                self.bytes -= message.cost();
                self.messages -= 1;
            }
            Some(_) => {}
        }
        if let Some(until) = entry.until {
            self.due.remove(&(until, topic.clone()));
        }
    }

    /// Forgets what has expired.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((until, topic)) = self.due.first().filter(|(until, _)| *until <= now).cloned() {
            self.due.remove(&(until, topic.clone()));
            self.remove(&topic);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(until, _)| *until)
    }

    pub(crate) fn len(&self) -> usize {
        self.messages
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        self.entries.len()
    }

    /// The next message that a filter matches, behind `after`, with a look at so many topics at most.
    pub(crate) fn next(
        &self,
        filter: &str,
        after: Option<&TopicName>,
        budget: &mut usize,
        now: Instant,
    ) -> Step {
        // `a/#` has `a`, too: what all that matches begins with ends before that separator.
        let wild = filter.find(['+', '#']).unwrap_or(filter.len());
        let prefix = filter[..wild].strip_suffix('/').filter(|_| filter[wild..].starts_with('#'));
        let prefix = prefix.unwrap_or(&filter[..wild]);
        let start = match after {
            Some(after) => Bound::Excluded(after.clone()),
            None => match TopicName::try_from(prefix) {
                Ok(prefix) => Bound::Included(prefix),
                Err(_) => return Step::End,
            },
        };
        for (name, entry) in self.entries.range((start, Bound::Unbounded)) {
            if !name.starts_with(prefix) {
                return Step::End;
            }
            if *budget == 0 {
                // What was looked at last is behind; this one is the next to be looked at.
                return after.cloned().map_or(Step::End, Step::Pause);
            }
            *budget -= 1;
            let message = entry.message.as_ref().filter(|message| !message.has_expired(now));
            if let Some(message) = message.filter(|_| topic::matches(filter, name)) {
                return Step::Found(message.clone());
            }
            if *budget == 0 {
                return Step::Pause(name.clone());
            }
            if wild == filter.len() {
                return Step::End;
            }
        }
        Step::End
    }
}

/// Whether a topic is one of clients.
fn counts(topic: &TopicName) -> bool {
    !topic.starts_with("$SYS/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Qos;

    fn message(topic: &str, payload: &str) -> Arc<Message> {
        Arc::new(Message::new(topic, payload.to_owned(), Qos::AtLeastOnce, true).unwrap())
    }

    fn all(retained: &Retained, filter: &str, slice: usize, now: Instant) -> Vec<String> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let mut budget = slice;
            match retained.next(filter, after.as_ref(), &mut budget, now) {
                Step::Found(message) => {
                    found.push(format!("{}={}", &*message.topic, String::from_utf8_lossy(&message.payload)));
                    after = Some(message.topic.clone());
                }
                Step::Pause(at) => after = Some(at),
                Step::End => return found,
            }
        }
    }

    #[test]
    fn mqtt_3_3_1_5_the_last_one_of_each_topic_is_found_by_every_filter_that_matches() {
        let (mut retained, limits, now) = (Retained::default(), Limits::default(), Instant::now());
        for (n, topic) in ["a", "a/b", "a/b/c", "ab", "b", "$SYS/x"].iter().enumerate() {
            retained.set(&message(topic, &n.to_string()), Rank { stamp: 1, node: 1 }, &limits, now).unwrap();
        }
        for slice in [1, 2, 100] {
            assert_eq!(all(&retained, "a/#", slice, now), ["a=0", "a/b=1", "a/b/c=2"]);
            assert_eq!(all(&retained, "#", slice, now), ["a=0", "a/b=1", "a/b/c=2", "ab=3", "b=4"]);
            assert_eq!(all(&retained, "+", slice, now), ["a=0", "ab=3", "b=4"]);
            assert_eq!(all(&retained, "a/+", slice, now), ["a/b=1"]);
            assert_eq!(all(&retained, "a/b", slice, now), ["a/b=1"]);
            assert_eq!(all(&retained, "$SYS/#", slice, now), ["$SYS/x=5"]);
            assert!(all(&retained, "c", slice, now).is_empty());
        }
    }

    proptest! {
        /// Whatever order messages and deletions come in, and however often, the same is kept.
        #[test]
        fn any_order_leaves_the_same(
            mut said in proptest::collection::vec((0_u64..6, 0_u64..3, "[ab]", "[xy]?"), 1..30),
            seed in any::<u64>(),
        ) {
            // One broker says one thing at one time.
            said.sort();
            said.dedup_by_key(|(stamp, node, ..)| (*stamp, *node));
            let (limits, now) = (Limits::default(), Instant::now());
            let hear = |said: &[(u64, u64, String, String)]| {
                let mut retained = Retained::default();
                for (stamp, node, topic, payload) in said {
                    retained.set(&message(topic, payload), Rank { stamp: *stamp, node: *node }, &limits, now).unwrap();
                }
                all(&retained, "#", 100, now)
            };
            let expected = hear(&said);
            let mut random = fastrand::Rng::with_seed(seed);
            random.shuffle(&mut said);
            said.extend(said.clone());
            prop_assert_eq!(hear(&said), expected);
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_marks_make_room_first() {
        let limits = Limits { retained_messages: 3, retained_bytes: 2000, ..Limits::default() };
        let (mut retained, now) = (Retained::default(), Instant::now());
        let mut stamp = 0;
        let mut set = |retained: &mut Retained, topic: &str, payload: &str| {
            stamp += 1;
            retained.set(&message(topic, payload), Rank { stamp, node: 0 }, &limits, now)
        };
        for topic in ["a", "b", "c"] {
            assert_eq!(set(&mut retained, topic, "1"), Ok(true));
        }
        assert_eq!(set(&mut retained, "d", "1"), Err(Rejected::Messages(3)));
        assert_eq!(set(&mut retained, "a", "2"), Ok(true), "another of a topic that is there");
        assert_eq!(set(&mut retained, "a", &"x".repeat(2000)), Err(Rejected::Bytes(2000)));
        assert_eq!(set(&mut retained, "a", ""), Ok(true));
        assert_eq!(set(&mut retained, "d", "1"), Ok(true));
        assert_eq!((retained.len(), retained.entries()), (3, 3));
        for n in 0..100 {
            assert_eq!(set(&mut retained, &format!("never/{n}"), ""), Ok(true));
        }
        assert!(retained.entries() <= 4);
        for topic in ["b", "c", "d"] {
            set(&mut retained, topic, "").unwrap();
        }
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
        retained.expire(now + 2 * MARKS);
        assert_eq!((retained.entries(), retained.deadline()), (0, None));
    }
}
