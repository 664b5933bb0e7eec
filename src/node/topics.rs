//! Which subscribers on this machine follow which topic.
//!
//! Each subscriber has a bounded queue: one that is slow loses its own oldest messages, which are counted,
//! and stalls no other. Never talks to the gossip engine.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use prometheus_client::metrics::counter::Counter;

use super::{
    command::Command,
    error::Error,
    event::{Event, Message},
    feed::{Bounds, Budget, Feed, Sender, Weight, queue},
    subscription::Subscription,
};
use crate::config::Limits;

/// Everything that happens to a node.
pub type Events = Feed<Event>;

/// Bytes that an event holds beside itself: addresses, a reason.
const EVENT: usize = 128;

impl Weight for Event {
    fn weight(&self) -> usize {
        size_of::<Self>() + EVENT
    }
}

impl Weight for Message {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.id.len() + self.topic.len() + self.data.len()
    }
}

/// What may wait for one subscriber.
pub(crate) fn bounds(limits: &Limits) -> Bounds {
    let bytes = if limits.backlog == 0 { (limits.memory / 32).min(8 << 20) } else { limits.backlog };
    Bounds { items: limits.events, bytes }
}

/// Bytes that may wait for all subscribers.
pub(crate) fn all(limits: &Limits) -> usize {
    if limits.backlogs == 0 { (limits.memory / 16).min(64 << 20) } else { limits.backlogs }
}

struct Topic {
    /// Whether the config asks for it, or only subscribers do.
    configured: bool,
    sender: Sender<Message>,
    /// Subscribers that leave out what is published at this node.
    deaf: Arc<AtomicUsize>,
}

/// What a new config makes of the topics.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Configured {
    /// Topics without a subscriber so far.
    pub(crate) fresh: Vec<String>,
    /// Topics without a subscriber any more.
    pub(crate) idle: Vec<String>,
    /// Topics for which there is no room.
    pub(crate) left_out: Vec<String>,
}

/// The topics of a node.
pub(crate) struct Topics {
    topics: BTreeMap<String, Topic>,
    /// What is kept for each subscriber.
    bounds: Bounds,
    /// Bytes kept for all of them, and how many that may be.
    budget: Budget,
    bytes: usize,
    /// Most subscribers.
    limit: usize,
    /// Most topics: others take no more of one peer.
    max: usize,
    /// Messages that subscribers were too slow for.
    lost: Counter,
    /// A subscriber has left without a word.
    unheard: Arc<AtomicBool>,
}

impl Topics {
    pub(crate) fn new(limits: &Limits, lost: Counter) -> Self {
        Self {
            topics: BTreeMap::new(),
            bounds: bounds(limits),
            budget: Budget::default(),
            bytes: all(limits),
            limit: limits.subscriptions,
            max: limits.topics,
            lost,
            unheard: Arc::default(),
        }
    }

    /// Topics that nobody wants any more, where subscribers left that could not say so. They are forgotten.
    pub(crate) fn abandoned(&mut self) -> Vec<String> {
        if !self.unheard.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        self.take_idle()
    }

    fn take_idle(&mut self) -> Vec<String> {
        let idle: Vec<_> = self.topics.iter().filter(|(_, t)| t.is_idle()).map(|(n, _)| n.clone()).collect();
        for topic in &idle {
            self.topics.remove(topic);
        }
        idle
    }

    /// The topics that are followed now.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.topics.keys()
    }

    /// Takes note that the config asks for exactly `wanted`.
    pub(crate) fn configure(&mut self, wanted: &[String]) -> Configured {
        for (name, topic) in &mut self.topics {
            topic.configured = wanted.contains(name);
        }
        let idle = self.take_idle();
        let mut changes = Configured { fresh: Vec::new(), idle, left_out: Vec::new() };
        for topic in wanted {
            if self.topics.contains_key(topic) {
            } else if self.topics.len() >= self.max {
                changes.left_out.push(topic.clone());
            } else {
                self.open(topic).configured = true;
                changes.fresh.push(topic.clone());
            }
        }
        changes
    }

    /// A new subscriber of `topic`, and whether it is the first one.
    pub(crate) fn follow(
        &mut self,
        topic: &str,
        commands: async_channel::WeakSender<Command>,
    ) -> Result<(Subscription, bool), Error> {
        check(topic)?;
        let open: usize = self.topics.values().map(|t| t.sender.readers()).sum();
        if open >= self.limit {
            return Err(Error::Limit {
                what: "subscriptions",
                limit: self.limit,
                key: "limits.subscriptions",
            });
        }
        let fresh = !self.topics.contains_key(topic);
        if fresh && self.topics.len() >= self.max {
            return Err(Error::Limit { what: "topics", limit: self.max, key: "limits.topics" });
        }
        let lost = self.lost.clone();
        let unheard = self.unheard.clone();
        let state = self.open(topic);
        let messages = state.sender.opener().open(&lost);
        let subscription =
            Subscription::new(messages, topic.to_owned(), commands, unheard, state.deaf.clone());
        Ok((subscription, fresh))
    }

    /// Forgets `topic` if neither the config nor a subscriber wants it; says whether it did.
    pub(crate) fn let_go(&mut self, topic: &str) -> bool {
        let idle = self.topics.get(topic).is_some_and(Topic::is_idle);
        if idle {
            self.topics.remove(topic);
        }
        idle
    }

    /// Ends all subscriptions of `topic`, and says whether there were any.
    pub(crate) fn drop_topic(&mut self, topic: &str) -> bool {
        self.topics.remove(topic).is_some()
    }

    /// How many subscribers at this node hear what is published here.
    pub(crate) fn hearers(&self, topic: &str) -> usize {
        let hearing =
            |topic: &Topic| topic.sender.readers().saturating_sub(topic.deaf.load(Ordering::Relaxed));
        self.topics.get(topic).map_or(0, hearing)
    }

    /// Gives a message to the subscribers of its topic.
    pub(crate) fn deliver(&self, message: Message) {
        if let Some(topic) = self.topics.get(&message.topic) {
            topic.sender.give(message);
            while self.budget.held() > self.bytes && self.shed() {}
        }
    }

    /// The topic with the most waiting makes room.
    fn shed(&self) -> bool {
        let most = self.topics.values().max_by_key(|topic| topic.sender.bytes());
        most.is_some_and(|topic| topic.sender.shed())
    }

    fn open(&mut self, topic: &str) -> &mut Topic {
        let (bounds, budget) = (self.bounds, &self.budget);
        self.topics.entry(topic.to_owned()).or_insert_with(|| Topic {
            configured: false,
            sender: queue(bounds, budget),
            deaf: Arc::default(),
        })
    }
}

impl Topic {
    fn is_idle(&self) -> bool {
        !self.configured && self.sender.readers() == 0
    }
}

/// Longest topic name in bytes.
pub(crate) const MAX_TOPIC: usize = 256;

/// Whether a topic may be used: any text of 1 to 256 bytes without control characters.
pub(crate) fn check(topic: &str) -> Result<(), Error> {
    let why = if topic.is_empty() {
        "a topic has at least one character"
    } else if topic.len() > MAX_TOPIC {
        "a topic has at most 256 bytes"
    } else if topic.chars().any(char::is_control) {
        "a topic has no control characters"
    } else {
        return Ok(());
    };
    Err(Error::BadTopic { topic: topic.chars().take(64).collect(), why })
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use libp2p::PeerId;

    use super::*;
    use crate::node::feed::Delivery;

    fn limits() -> Limits {
        crate::config::Config::default().limits
    }

    fn topics(queue: usize, limit: usize) -> (Topics, async_channel::WeakSender<Command>) {
        let limits = Limits { events: queue, subscriptions: limit, topics: 3, ..limits() };
        (Topics::new(&limits, Counter::default()), async_channel::bounded(8).0.downgrade())
    }

    fn message(topic: &str, n: u8) -> Message {
        let peer = PeerId::random();
        let (id, topic, data) = (n.to_string(), topic.into(), [n].into());
        let (name, sent, late, position) = (None, None, false, None);
        Message { id, topic, name, source: Some(peer), from: peer, data, local: false, sent, late, position }
    }

    fn next(subscription: &mut Subscription) -> Option<Delivery<Message>> {
        subscription.next_delivery().now_or_never().flatten()
    }

    #[test]
    fn a_loop_over_a_slow_subscription_goes_on_where_messages_were_lost_and_ends_with_the_topic() {
        let (mut topics, commands) = topics(4, 8);
        let (mut slow, _) = topics.follow("t", commands).unwrap();
        (0..10).for_each(|n| topics.deliver(message("t", n)));
        assert!(topics.drop_topic("t"));
        let mut heard = Vec::new();
        let read = async {
            while let Some(message) = slow.next().await {
                heard.push(message.data[0]);
            }
        };
        assert_eq!(read.now_or_never(), Some(()), "the topic is gone");
        assert_eq!((heard, slow.lost()), (vec![6, 7, 8, 9], 6));
    }

    #[test]
    fn a_slow_subscriber_loses_its_own_oldest_and_is_told_how_many() {
        let (mut topics, commands) = topics(4, 8);
        let (mut slow, fresh) = topics.follow("t", commands.clone()).unwrap();
        let (mut quick, fresh_again) = topics.follow("t", commands).unwrap();
        assert!(fresh && !fresh_again);
        for n in 0..10 {
            topics.deliver(message("t", n));
            assert!(matches!(next(&mut quick), Some(Delivery::Item(m)) if m.data[0] == n));
        }
        assert_eq!(next(&mut slow), Some(Delivery::Lost(6)));
        for n in 6..10 {
            assert!(matches!(next(&mut slow), Some(Delivery::Item(m)) if m.data[0] == n));
        }
        assert_eq!(next(&mut slow), None);
        assert_eq!(topics.lost.get(), 6);
    }

    #[test]
    fn subscribers_that_do_not_read_hold_a_share_of_the_memory_and_take_nothing_of_the_others() {
        let limits = Limits { backlog: 1 << 20, backlogs: 3 << 20, topics: 8, ..limits() };
        let lost = Counter::default();
        let mut topics = Topics::new(&limits, lost.clone());
        let commands = async_channel::bounded(8).0.downgrade();
        let mut follow = |topic: &str| topics.follow(topic, commands.clone()).unwrap().0;
        let (mut stuck, mut quick) = (["a", "b", "c", "d"].map(&mut follow), follow("e"));
        let large = |topic: &str| Message { data: vec![0; 63 << 10].into(), ..message(topic, 0) };
        for round in 0..100 {
            for topic in ["a", "b", "c", "d"] {
                topics.deliver(large(topic));
                assert!(topics.budget.held() <= 3 << 20, "{} bytes", topics.budget.held());
            }
            topics.deliver(message("e", round));
            assert!(matches!(next(&mut quick), Some(Delivery::Item(m)) if m.data[0] == round));
        }
        let waiting = ["a", "b", "c", "d"].map(|topic| topics.topics[topic].sender.bytes());
        assert!(waiting.iter().all(|bytes| *bytes > 700_000), "{waiting:?}");
        for subscription in &mut stuck {
            let Some(Delivery::Lost(lost)) = next(subscription) else { panic!("nothing was lost") };
            let rest = std::iter::from_fn(|| next(subscription)).count();
            assert_eq!(lost + rest as u64, 100);
        }
        assert_eq!((topics.budget.held(), lost.get()), (0, stuck.iter().map(Subscription::lost).sum()));
    }

    #[test]
    fn a_burst_of_small_messages_waits_for_a_subscriber_that_is_late() {
        let lost = Counter::default();
        let mut topics = Topics::new(&limits(), lost.clone());
        let (mut late, _) = topics.follow("t", async_channel::bounded(8).0.downgrade()).unwrap();
        (0..4000).for_each(|n| topics.deliver(message("t", n as u8)));
        assert_eq!((std::iter::from_fn(|| next(&mut late)).count(), lost.get()), (4000, 0));
    }

    #[test]
    fn a_topic_is_let_go_when_its_last_subscriber_went_unless_the_config_names_it() {
        let (mut topics, commands) = topics(4, 8);
        let (one, _) = topics.follow("t", commands.clone()).unwrap();
        let (two, _) = topics.follow("t", commands.clone()).unwrap();
        drop(one);
        assert!(!topics.let_go("t"));
        drop(two);
        assert!(topics.let_go("t"));
        let configure = |topics: &mut Topics, wanted: &[&str]| {
            let changes = topics.configure(&wanted.iter().map(ToString::to_string).collect::<Vec<_>>());
            [changes.fresh, changes.idle, changes.left_out].map(|topics| topics.join(" "))
        };
        assert_eq!(configure(&mut topics, &["a", "b"]), ["a b", "", ""]);
        let (kept, _) = topics.follow("a", commands).unwrap();
        assert!(!topics.let_go("b"));
        assert_eq!(configure(&mut topics, &["b", "c"]), ["c", "", ""], "a is followed");
        assert_eq!(configure(&mut topics, &["d", "c", "e"]), ["d", "b", "e"], "there is room for three");
        assert_eq!(configure(&mut topics, &["b", "c"]), ["b", "d", ""]);
        drop(kept);
        assert!(topics.let_go("a"));
    }

    #[test]
    fn subscribers_that_leave_while_the_loop_is_busy_leave_nothing_behind() {
        let (sender, queue) = async_channel::bounded(1);
        let limits = Limits { subscriptions: 100, topics: 100, ..limits() };
        let mut topics = Topics::new(&limits, Counter::default());
        topics.configure(&["kept".into()]);
        let follow = |topics: &mut Topics, n| topics.follow(&format!("t{n}"), sender.downgrade()).unwrap().0;
        let all: Vec<_> = (0..50).map(|n| follow(&mut topics, n)).collect();
        let stays = follow(&mut topics, 50);
        assert_eq!(topics.abandoned(), [""; 0]);
        drop(all);
        assert_eq!(queue.len(), 1, "there was no room to say more");
        assert_eq!(topics.abandoned().len(), 50);
        assert_eq!(topics.names().collect::<Vec<_>>(), ["kept", "t50"]);
        assert_eq!(topics.abandoned(), [""; 0]);
        drop(stays);
        assert_eq!(topics.abandoned(), ["t50"]);
    }

    #[test]
    fn subscriptions_are_bounded_and_bad_names_refused() {
        let (mut topics, commands) = topics(4, 2);
        let _one = topics.follow("t", commands.clone()).unwrap();
        let _two = topics.follow("t", commands.clone()).unwrap();
        assert!(matches!(topics.follow("t", commands), Err(Error::Limit { limit: 2, .. })));
        let (mut topics, commands) = tests::topics(4, 8);
        let full: Vec<_> = ["a", "b", "c"].map(|t| topics.follow(t, commands.clone()).unwrap()).into();
        let refused = topics.follow("d", commands.clone()).map(|_| ());
        assert_eq!(refused, Err(Error::Limit { what: "topics", limit: 3, key: "limits.topics" }));
        assert!(topics.follow("a", commands.clone()).is_ok(), "it is followed already");
        drop(full);
        for bad in ["", "a\nb", &"x".repeat(257)] {
            assert!(matches!(topics.follow(bad, commands.clone()), Err(Error::BadTopic { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_subscriber_may_leave_out_what_is_published_here_and_is_none_to_publish_to() {
        let (mut topics, commands) = topics(4, 8);
        assert_eq!(topics.hearers("t"), 0);
        let mut all = topics.follow("t", commands.clone()).unwrap().0;
        let mut others = topics.follow("t", commands).unwrap().0.no_local().no_local();
        assert_eq!(topics.hearers("t"), 1);
        topics.deliver(Message { local: true, ..message("t", 1) });
        topics.deliver(message("t", 2));
        let ids = |s: &mut Subscription| {
            std::iter::from_fn(|| match next(s) {
                Some(Delivery::Item(message)) => Some(message.id),
                _ => None,
            })
            .collect::<Vec<_>>()
        };
        assert_eq!((ids(&mut all), ids(&mut others)), (vec!["1".into(), "2".into()], vec!["2".to_owned()]));
        topics.deliver(Message { local: true, ..message("t", 3) });
        assert_eq!(others.next().now_or_never(), None);
        drop(all);
        assert_eq!(topics.hearers("t"), 0);
        drop(others);
        let again = topics.follow("t", async_channel::bounded(8).0.downgrade()).unwrap().0;
        assert_eq!((topics.hearers("t"), again.lost()), (1, 0), "who left is not counted");
    }

    #[test]
    fn a_stream_ends_with_its_topic() {
        let (mut topics, commands) = topics(4, 8);
        let (mut subscription, _) = topics.follow("t", commands).unwrap();
        assert!(topics.drop_topic("t"));
        assert_eq!(subscription.next().now_or_never(), Some(None));
    }
}
