//! Retained messages: the last one of each topic, the same at all brokers that heard the same, in whatever order.
//!
//! Of two messages the one with the higher [`Rank`] stays. A deletion is remembered for an hour, so that what it deleted
//! does not come back by a longer way.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use mqtt_proto::TopicName;
use ring::digest;

use crate::{limits::Limits, message::Message, nodes, topic};

/// How long a deletion is remembered.
const MARKS: Duration = Duration::from_secs(3600);

/// What decides between two messages of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// When it was published: microseconds since 1970, never the same twice at one broker, and later than all that it had heard.
    pub stamp: u64,
    /// At which broker.
    pub node: u64,
}

impl Rank {
    /// A number that is the same at all brokers, for what is decided by lot.
    pub(crate) fn lot(self) -> u64 {
        nodes::lot(self.stamp, self.node)
    }
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

/// What became of what a message says to its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// It is the newest.
    Newest,
    /// It was there.
    Same,
    /// There is something newer.
    Older,
}

#[derive(Debug)]
struct Entry {
    rank: Rank,
    /// `None`: deleted.
    message: Option<Arc<Message>>,
    until: Option<Instant>,
    /// When it is to be written into what all brokers keep.
    save: Option<Instant>,
}

/// What is to be written into what all brokers keep.
#[derive(Debug)]
pub(crate) struct Unsaved {
    pub(crate) topic: TopicName,
    pub(crate) rank: Rank,
    /// `None`: it is to be deleted there.
    pub(crate) message: Option<Arc<Message>>,
}

#[derive(Debug, Default)]
pub(crate) struct Retained {
    entries: BTreeMap<TopicName, Entry>,
    /// Those that count, the oldest first.
    by_rank: BTreeSet<(Rank, TopicName)>,
    /// Topics too long to be keys themselves.
    by_key: HashMap<Vec<u8>, TopicName>,
    bytes: usize,
    /// Without the broker's own, which are few.
    messages: usize,
    /// Deleted ones that are remembered.
    marks: usize,
    /// What ends by itself, the next first: messages, and marks of deleted ones.
    due: BTreeSet<(Instant, TopicName)>,
    saves: BTreeSet<(Instant, TopicName)>,
}

/// How far a look through retained messages came.
#[derive(Debug)]
pub(crate) enum Step {
    Found(Arc<Message>),
    /// Enough for now; on from here.
    Pause(TopicName),
    End,
}

/// The longest topic that is a key itself.
const LONGEST_KEY: usize = 512;

/// The key of a topic in what all brokers keep: itself or, of a long one, a byte that no topic has and its SHA-256.
pub(crate) fn key(topic: &str) -> Vec<u8> {
    if topic.len() <= LONGEST_KEY {
        return topic.as_bytes().to_vec();
    }
    [&[0], digest::digest(&digest::SHA256, topic.as_bytes()).as_ref()].concat()
}

impl Retained {
    /// Takes what a retained message says. One too many is refused; with `gives_way`, the oldest make room for it, the same
    /// ones wherever the same is known.
    pub(crate) fn set(
        &mut self,
        message: &Arc<Message>,
        rank: Rank,
        gives_way: bool,
        limits: &Limits,
        now: Instant,
    ) -> Result<Set, Rejected> {
        let known = self.entries.get(&message.topic);
        match known.map(|known| known.rank.cmp(&rank)) {
            Some(Ordering::Equal) => return Ok(Set::Same),
            Some(Ordering::Greater) => return Ok(Set::Older),
            Some(Ordering::Less) | None => {}
        }
        let deletes = message.payload.is_empty();
        if !deletes && counts(&message.topic) {
            while let Err(full) = self.fits(message, limits) {
                let oldest = self.by_rank.iter().find(|(_, topic)| *topic != message.topic);
                let oldest = oldest.filter(|(oldest, _)| gives_way && *oldest < rank).cloned();
                let Some((_, topic)) = oldest else { return Err(full) };
                self.remove(&topic);
            }
        }
        let save = known_save(&self.entries, &message.topic);
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
            self.by_rank.insert((rank, message.topic.clone()));
        }
        if message.topic.len() > LONGEST_KEY {
            self.by_key.insert(key(&message.topic), message.topic.clone());
        }
        let entry = Entry { rank, message: message_kept, until, save: None };
        self.entries.insert(message.topic.clone(), entry);
        self.save(&message.topic, save);
        // Marks are worth less than messages: those that end first make room.
        while self.messages + self.marks > limits.retained_messages {
            let mark = self.due.iter().find(|(_, topic)| {
                *topic != message.topic
                    && self.entries.get(topic).is_some_and(|entry| entry.message.is_none())
            });
            let Some((_, topic)) = mark.cloned() else { break };
            self.remove(&topic);
        }
        Ok(Set::Newest)
    }

    fn fits(&self, message: &Message, limits: &Limits) -> Result<(), Rejected> {
        let known = self.entries.get(&message.topic).and_then(|known| known.message.as_ref());
        if known.is_none() && self.messages >= limits.retained_messages {
            return Err(Rejected::Messages(limits.retained_messages));
        }
        if self.bytes - known.map_or(0, |known| known.cost()) + message.cost() > limits.retained_bytes {
            return Err(Rejected::Bytes(limits.retained_bytes));
        }
        Ok(())
    }

    /// Whether a message of this topic, with so many bytes of payload, would be kept.
    pub(crate) fn has_room(&self, topic: &TopicName, payload: usize, limits: &Limits) -> bool {
        let known = self.entries.get(topic).and_then(|known| known.message.as_ref());
        let bytes = self.bytes - known.map_or(0, |message| message.cost()) + topic.len() + payload;
        (known.is_some() || self.messages < limits.retained_messages) && bytes <= limits.retained_bytes
    }

    pub(crate) fn remove(&mut self, topic: &TopicName) {
        let Some(entry) = self.entries.remove(topic) else { return };
        match entry.message {
            None => self.marks -= 1,
            Some(message) if counts(topic) => {
                self.bytes -= message.cost();
                self.messages -= 1;
                self.by_rank.remove(&(entry.rank, topic.clone()));
            }
            Some(_) => {}
        }
        if let Some(until) = entry.until {
            self.due.remove(&(until, topic.clone()));
        }
        if let Some(save) = entry.save {
            self.saves.remove(&(save, topic.clone()));
        }
        if topic.len() > LONGEST_KEY {
            self.by_key.remove(&key(topic));
        }
    }

    /// The topic of a key, of those that are known.
    pub(crate) fn topic(&self, key: &[u8]) -> Option<TopicName> {
        match key.first()? {
            0 => self.by_key.get(key).cloned(),
            _ => TopicName::try_from(std::str::from_utf8(key).ok()?).ok(),
        }
    }

    /// The rank that a topic has, and its message; `None` of one that is deleted.
    pub(crate) fn get(&self, topic: &TopicName) -> Option<(Rank, Option<&Arc<Message>>)> {
        self.entries.get(topic).map(|entry| (entry.rank, entry.message.as_ref()))
    }

    /// When a topic is to be written.
    pub(crate) fn save_at(&self, topic: &TopicName) -> Option<Instant> {
        known_save(&self.entries, topic)
    }

    /// Has a topic written then, or, with `None`, not any more.
    pub(crate) fn save(&mut self, topic: &TopicName, at: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(topic).filter(|_| counts(topic)) else { return };
        if let Some(before) = std::mem::replace(&mut entry.save, at) {
            self.saves.remove(&(before, topic.clone()));
        }
        if let Some(at) = at {
            self.saves.insert((at, topic.clone()));
        }
    }

    /// The next that is to be written now.
    pub(crate) fn next_unsaved(&mut self, now: Instant) -> Option<Unsaved> {
        let (at, topic) = self.saves.first().filter(|(at, _)| *at <= now).cloned()?;
        self.saves.remove(&(at, topic.clone()));
        let entry = self.entries.get_mut(&topic)?;
        entry.save = None;
        Some(Unsaved { topic, rank: entry.rank, message: entry.message.clone() })
    }

    /// Forgets what has expired. With `saves`, how long it is until a message is deleted from what all brokers keep.
    pub(crate) fn expire(&mut self, now: Instant, mut saves: Option<impl FnMut() -> Duration>) {
        while let Some((until, topic)) = self.due.first().filter(|(until, _)| *until <= now).cloned() {
            self.due.remove(&(until, topic.clone()));
            let ended = self.entries.get(&topic).filter(|entry| entry.message.is_some());
            let ended = ended.map(|entry| entry.rank).filter(|_| counts(&topic));
            self.remove(&topic);
            if let (Some(rank), Some(after)) = (ended, &mut saves) {
                let until = now + MARKS;
                self.due.insert((until, topic.clone()));
                self.marks += 1;
                if topic.len() > LONGEST_KEY {
                    self.by_key.insert(key(&topic), topic.clone());
                }
                let entry = Entry { rank, message: None, until: Some(until), save: None };
                self.entries.insert(topic.clone(), entry);
                self.save(&topic, now.checked_add(after()));
            }
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, TopicName)>| set.first().map(|(at, _)| *at);
        first(&self.due).into_iter().chain(first(&self.saves)).min()
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

fn known_save(entries: &BTreeMap<TopicName, Entry>, topic: &TopicName) -> Option<Instant> {
    entries.get(topic).and_then(|entry| entry.save)
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
            retained
                .set(&message(topic, &n.to_string()), Rank { stamp: 1, node: 1 }, false, &limits, now)
                .unwrap();
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
                    retained.set(&message(topic, payload), Rank { stamp: *stamp, node: *node }, false, &limits, now).unwrap();
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
            retained.set(&message(topic, payload), Rank { stamp, node: 0 }, false, &limits, now)
        };
        for topic in ["a", "b", "c"] {
            assert_eq!(set(&mut retained, topic, "1"), Ok(Set::Newest));
        }
        assert_eq!(set(&mut retained, "d", "1"), Err(Rejected::Messages(3)));
        assert_eq!(set(&mut retained, "a", "2"), Ok(Set::Newest), "another of a topic that is there");
        assert_eq!(set(&mut retained, "a", &"x".repeat(2000)), Err(Rejected::Bytes(2000)));
        assert_eq!(set(&mut retained, "a", ""), Ok(Set::Newest));
        assert_eq!(set(&mut retained, "d", "1"), Ok(Set::Newest));
        assert_eq!((retained.len(), retained.entries()), (3, 3));
        for n in 0..100 {
            assert_eq!(set(&mut retained, &format!("never/{n}"), ""), Ok(Set::Newest));
        }
        assert!(retained.entries() <= 4);
        for topic in ["b", "c", "d"] {
            set(&mut retained, topic, "").unwrap();
        }
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
        retained.expire(now + 2 * MARKS, None::<fn() -> Duration>);
        assert_eq!((retained.entries(), retained.deadline()), (0, None));
    }

    #[test]
    fn of_what_comes_from_elsewhere_the_oldest_give_way_the_same_in_any_order() {
        let limits = Limits { retained_messages: 3, ..Limits::default() };
        let now = Instant::now();
        let mut said: Vec<_> = (1..=6).map(|n| (n, format!("t/{n}"))).collect();
        for seed in 0..20 {
            fastrand::Rng::with_seed(seed).shuffle(&mut said);
            let mut retained = Retained::default();
            for (stamp, topic) in &said {
                // One that is older than all that are there finds no room.
                let _ =
                    retained.set(&message(topic, "x"), Rank { stamp: *stamp, node: 0 }, true, &limits, now);
            }
            assert_eq!(all(&retained, "#", 100, now), ["t/4=x", "t/5=x", "t/6=x"]);
        }
    }

    #[test]
    fn what_is_to_be_saved_is_handed_out_once_and_the_newest_of_it() {
        let (mut retained, limits, now) = (Retained::default(), Limits::default(), Instant::now());
        let long = "x/".repeat(400);
        for (stamp, payload) in [(1, "1"), (2, "2"), (3, "")] {
            for topic in ["a", long.as_str()] {
                let message = message(topic, payload);
                retained.set(&message, Rank { stamp, node: 0 }, false, &limits, now).unwrap();
                retained.save(&message.topic, Some(now + Duration::from_secs(stamp)));
                assert_eq!(retained.topic(&key(topic)).as_ref(), Some(&message.topic));
            }
        }
        assert!(retained.next_unsaved(now + Duration::from_secs(2)).is_none(), "the newest, in its time");
        let later = now + Duration::from_secs(3);
        let unsaved: Vec<_> = std::iter::from_fn(|| retained.next_unsaved(later)).collect();
        assert_eq!(unsaved.len(), 2);
        assert!(unsaved.iter().all(|unsaved| unsaved.message.is_none() && unsaved.rank.stamp == 3));
    }
}
