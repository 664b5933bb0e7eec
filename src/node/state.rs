//! The values by key of topics with `keep = "latest"`, as clients see them: entries, and watching them change.
//!
//! Whoever watches gets what is there, and then each change. A watcher that is too slow for the changes gets all that is
//! there again: it misses what was between, never what is. It stalls nobody.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    ops::Range,
    sync::Arc,
};

use futures::channel::oneshot;
use libp2p::PeerId;
use prometheus_client::metrics::counter::Counter;

use super::{
    catchup::Entry,
    command::Command,
    error::Error,
    feed::{Bounds, Budget, Delivery, Feed, Sender, Weight, queue},
    topics,
};
use crate::config::Limits;

/// The longest key of a value, bytes; the shortest has one.
pub const MAX_STATE_KEY: usize = smidge_catchup::keyed::MAX_KEY;

/// The newest value of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct StateEntry {
    /// 1 to [`MAX_STATE_KEY`] bytes.
    pub key: Arc<[u8]>,
    /// The node that set it, and signed it.
    pub author: PeerId,
    /// When it was set, milliseconds since 1970, by the author's clock, or that of what it had read before if that is later.
    pub sent: u64,
    record: Arc<[u8]>,
    value: Range<usize>,
}

impl StateEntry {
    /// The value.
    pub fn value(&self) -> &[u8] {
        self.record.get(self.value.clone()).unwrap_or_default()
    }

    /// `None` of a value that is deleted.
    pub(crate) fn of(entry: Entry) -> Option<Self> {
        let Entry { key, record, value, author, at } = entry;
        Some(Self { key, author, sent: at, record, value: value? })
    }
}

impl fmt::Debug for StateEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, value) = (self.key.escape_ascii().to_string(), self.value().escape_ascii().to_string());
        f.debug_struct("StateEntry")
            .field("key", &key)
            .field("value", &value)
            .field("author", &self.author)
            .field("sent", &self.sent)
            .finish()
    }
}

/// What whoever watches a topic's values hears.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateEvent {
    /// The value of a key: it was there, or is set now.
    Set(StateEntry),
    /// A key was deleted.
    Deleted {
        /// Which.
        key: Arc<[u8]>,
        /// The node that deleted it.
        author: PeerId,
        /// When, as [`StateEntry::sent`].
        sent: u64,
    },
    /// A key is here no more, and nobody deleted it: there were too many, or this node was away for longer than deletions
    /// are remembered.
    GaveWay {
        /// Which.
        key: Arc<[u8]>,
    },
    /// Everything that was there is said; changes follow.
    Current,
    /// Changes were missed. Whatever was said before holds no longer: all that is there comes again.
    Again,
}

impl StateEvent {
    /// The key that it is about.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Set(entry) => Some(&entry.key),
            Self::Deleted { key, .. } | Self::GaveWay { key } => Some(key),
            Self::Current | Self::Again => None,
        }
    }

    pub(crate) fn of(entry: Entry) -> Self {
        let (key, author, sent) = (Arc::clone(&entry.key), entry.author, entry.at);
        StateEntry::of(entry).map_or(Self::Deleted { key, author, sent }, Self::Set)
    }
}

/// A change with its number.
#[derive(Clone, Debug)]
struct Change {
    number: u64,
    event: StateEvent,
}

impl Weight for Change {
    fn weight(&self) -> usize {
        let value = if let StateEvent::Set(entry) = &self.event { entry.record.len() } else { 0 };
        size_of::<Self>() + self.event.key().map_or(0, <[u8]>::len) + value
    }
}

/// All values of a topic, up to a change.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) entries: Vec<StateEntry>,
    /// The number of the last change that is in them.
    pub(crate) number: u64,
}

/// The values of a topic: first those that are there, then every change. It ends when the node does, or keeps the topic's
/// values no longer.
pub struct StateWatch {
    topic: String,
    ready: VecDeque<StateEvent>,
    changes: Feed<Change>,
    /// Changes up to here are in what was said.
    number: u64,
    /// The last change that was heard or lost.
    heard: u64,
    /// All that is there is to be asked for again.
    stale: bool,
    commands: async_channel::WeakSender<Command>,
}

impl StateWatch {
    /// The next event. May be dropped and called again.
    pub async fn next(&mut self) -> Option<StateEvent> {
        loop {
            if self.stale {
                let listed = self.ask().await?;
                self.stale = false;
                self.ready.push_back(StateEvent::Again);
                self.fill(listed);
            }
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            match self.changes.next_delivery().await? {
                Delivery::Item(change) => {
                    self.heard = change.number;
                    if change.number > self.number {
                        return Some(change.event);
                    }
                }
                Delivery::Lost(lost) => {
                    self.heard += lost;
                    self.stale = self.heard > self.number;
                }
                Delivery::Gone => {}
            }
        }
    }

    fn fill(&mut self, listed: Listed) {
        self.number = listed.number;
        self.ready.extend(listed.entries.into_iter().map(StateEvent::Set));
        self.ready.push_back(StateEvent::Current);
    }

    async fn ask(&self) -> Option<Listed> {
        let (reply, listed) = oneshot::channel();
        let topic = self.topic.clone();
        // Not held while it is waited for: whoever watches does not keep the node running.
        self.commands.upgrade()?.send(Command::StateList { topic, reply }).await.ok()?;
        listed.await.ok()?.ok()
    }
}

impl fmt::Debug for StateWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateWatch").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Whoever watches, by topic.
pub(crate) struct Watchers {
    topics: BTreeMap<String, Watched>,
    /// What waits for each, and for all.
    bounds: Bounds,
    budget: Budget,
    bytes: usize,
    /// Most of them.
    limit: usize,
}

struct Watched {
    sender: Sender<Change>,
    /// Of the last change.
    number: u64,
}

impl Watchers {
    pub(crate) fn new(limits: &Limits) -> Self {
        let bytes = topics::all(limits);
        let (bounds, limit) = (topics::bounds(limits), limits.subscriptions);
        Self { topics: BTreeMap::new(), bounds, budget: Budget::default(), bytes, limit }
    }

    /// A new one, which begins with what is there.
    pub(crate) fn watch(
        &mut self,
        topic: &str,
        entries: Vec<StateEntry>,
        commands: async_channel::WeakSender<Command>,
    ) -> Result<StateWatch, Error> {
        self.topics.retain(|_, watched| watched.sender.readers() > 0);
        if self.topics.values().map(|watched| watched.sender.readers()).sum::<usize>() >= self.limit {
            let (what, key) = ("watches", "limits.subscriptions");
            return Err(Error::Limit { what, limit: self.limit, key });
        }
        let (bounds, budget) = (self.bounds, &self.budget);
        let fresh = || Watched { sender: queue(bounds, budget), number: 0 };
        let watched = self.topics.entry(topic.to_owned()).or_insert_with(fresh);
        // Nothing that a watcher loses is lost: it is asked for again.
        let changes = watched.sender.opener().open(&Counter::default());
        let (topic, number) = (topic.to_owned(), watched.number);
        let ready = VecDeque::new();
        let mut watch = StateWatch { topic, ready, changes, number, heard: number, stale: false, commands };
        watch.fill(Listed { entries, number });
        Ok(watch)
    }

    /// The number of the last change of a topic.
    pub(crate) fn number(&self, topic: &str) -> u64 {
        self.topics.get(topic).map_or(0, |watched| watched.number)
    }

    /// How many watch a topic.
    pub(crate) fn count(&self, topic: &str) -> usize {
        self.topics.get(topic).map_or(0, |watched| watched.sender.readers())
    }

    /// Something changed.
    pub(crate) fn changed(&mut self, topic: &str, event: StateEvent) {
        let Some(watched) = self.topics.get_mut(topic) else { return };
        watched.number += 1;
        watched.sender.send(&Change { number: watched.number, event });
        while self.budget.held() > self.bytes {
            let most = self.topics.values().max_by_key(|watched| watched.sender.bytes());
            if !most.is_some_and(|watched| watched.sender.shed()) {
                return;
            }
        }
    }

    /// Ends the watching of topics that are kept no longer.
    pub(crate) fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        self.topics.retain(|topic, _| keeps(topic));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn watchers(events: usize) -> Watchers {
        let limits = Limits { events, subscriptions: 2, ..crate::config::Config::default().limits };
        Watchers::new(&limits)
    }

    fn entry(key: u8, value: u8) -> StateEntry {
        let (key, record): (Arc<[u8]>, Arc<[u8]>) = ([key].into(), [value].into());
        StateEntry { key, author: PeerId::random(), sent: 0, record, value: 0..1 }
    }

    fn heard(watch: &mut StateWatch) -> Vec<String> {
        let next = || watch.next().now_or_never().flatten();
        let said = |event| match event {
            StateEvent::Set(entry) => format!("{}={}", entry.key[0], entry.value()[0]),
            StateEvent::GaveWay { key } => format!("{} gave way", key[0]),
            other => format!("{other:?}"),
        };
        std::iter::from_fn(next).map(said).collect()
    }

    #[test]
    fn a_watcher_hears_what_is_there_and_then_every_change_once() {
        let (sender, _queue) = async_channel::bounded(8);
        let mut watchers = watchers(100);
        let mut first = watchers.watch("t", vec![entry(1, 1)], sender.downgrade()).unwrap();
        watchers.changed("t", StateEvent::Set(entry(1, 2)));
        let mut second = watchers.watch("t", vec![entry(1, 2)], sender.downgrade()).unwrap();
        watchers.changed("t", StateEvent::GaveWay { key: [1].into() });
        watchers.changed("other", StateEvent::Set(entry(1, 9)));
        assert_eq!(heard(&mut first), ["1=1", "Current", "1=2", "1 gave way"]);
        assert_eq!(heard(&mut second), ["1=2", "Current", "1 gave way"]);
        let third = watchers.watch("u", Vec::new(), sender.downgrade()).map(drop);
        assert!(matches!(third, Err(Error::Limit { limit: 2, .. })));
        watchers.retain(|_| false);
        assert_eq!(first.next().now_or_never(), Some(None));
        drop(second);
        assert_eq!(watchers.count("t"), 0);
    }

    #[test]
    fn a_slow_watcher_hears_all_that_is_there_again_and_no_change_before_it() {
        let (sender, queue) = async_channel::bounded(8);
        let mut watchers = watchers(4);
        let mut slow = watchers.watch("t", Vec::new(), sender.downgrade()).unwrap();
        (0..10).for_each(|n| watchers.changed("t", StateEvent::Set(entry(1, n))));
        assert_eq!(heard(&mut slow), ["Current"]);
        // It was dropped while it waited for the answer, and asks again.
        let answer = |entries, number| {
            while let Ok(Command::StateList { reply, .. }) = queue.try_recv() {
                if queue.is_empty() {
                    reply.send(Ok(Listed { entries, number })).unwrap();
                    return;
                }
            }
        };
        {
            let mut waiting = std::pin::pin!(slow.next());
            assert!(waiting.as_mut().now_or_never().is_none());
            answer(vec![entry(1, 9)], watchers.number("t"));
            assert_eq!(waiting.now_or_never().flatten(), Some(StateEvent::Again));
        }
        watchers.changed("t", StateEvent::Set(entry(1, 10)));
        assert_eq!(heard(&mut slow), ["1=9", "Current", "1=10"]);
    }
}
