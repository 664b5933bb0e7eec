//! Messages of the last minutes, by topic, in slots of ten seconds: what a picture of them is drawn from.
//!
//! Pure: time is handed in, and nothing wakes the node for it. Slots that have passed are emptied when something is counted
//! or asked for. What it holds is bounded: further topics count in the sum of all alone.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Serialize;

/// How long a slot is.
const SLOT: Duration = Duration::from_secs(10);
/// Slots that have ended and are remembered: ten minutes.
const ENDED: usize = 60;
/// Those, and the one that goes on.
const SLOTS: usize = ENDED + 1;
/// Topics that are counted apart, 1.5 KiB each.
const TOPICS: usize = 64;

/// What came and went in one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    received: u64,
    received_bytes: u64,
    published: u64,
    published_bytes: u64,
}

/// A count for each slot; slot number n stands at n modulo [`SLOTS`].
#[derive(Debug)]
struct Ring(Box<[Count; SLOTS]>);

/// The counts.
#[derive(Debug)]
pub(crate) struct History {
    began: Instant,
    /// The number of the slot that goes on.
    slot: u64,
    all: Ring,
    topics: BTreeMap<String, Ring>,
}

/// Messages in each of the last slots that have ended, the oldest first. As long as a node has been running, up to ten
/// minutes. Lists of one series are equally long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Series {
    /// Messages that arrived.
    pub received: Vec<u64>,
    /// Their payload, in bytes.
    pub received_bytes: Vec<u64>,
    /// Messages of this node that were handed to peers.
    pub published: Vec<u64>,
    /// Their payload, in bytes.
    pub published_bytes: Vec<u64>,
}

/// The traffic of the last ten minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrafficHistory {
    /// How long a slot is, in seconds.
    pub slot_s: u64,
    /// How long ago the last slot ended, in milliseconds.
    pub ended_ms_ago: u64,
    /// All topics together.
    pub all: Series,
    /// By topic, where there was something. Of more than 64 topics, the others are in `all` alone.
    pub topics: BTreeMap<String, Series>,
}

impl History {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, slot: 0, all: Ring::default(), topics: BTreeMap::new() }
    }

    /// Counts a message that arrived.
    pub(crate) fn received(&mut self, topic: &str, bytes: usize, now: Instant) {
        self.count(topic, now, |count| {
            count.received += 1;
            count.received_bytes += bytes as u64;
        });
    }

    /// Counts a message of this node that was handed to peers.
    pub(crate) fn published(&mut self, topic: &str, bytes: usize, now: Instant) {
        self.count(topic, now, |count| {
            count.published += 1;
            count.published_bytes += bytes as u64;
        });
    }

    /// The slots that have ended.
    pub(crate) fn read(&mut self, now: Instant) -> TrafficHistory {
        self.advance(now);
        let since = now.saturating_duration_since(self.began + SLOT * u32::try_from(self.slot).unwrap_or(0));
        TrafficHistory {
            slot_s: SLOT.as_secs(),
            ended_ms_ago: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            all: self.all.series(self.slot),
            topics: self.topics.iter().map(|(topic, ring)| (topic.clone(), ring.series(self.slot))).collect(),
        }
    }

    fn count(&mut self, topic: &str, now: Instant, add: impl Fn(&mut Count)) {
        self.advance(now);
        add(self.all.at(self.slot));
        if !self.topics.contains_key(topic) && self.topics.len() < TOPICS {
            self.topics.insert(topic.to_owned(), Ring::default());
        }
        if let Some(ring) = self.topics.get_mut(topic) {
            add(ring.at(self.slot));
        }
    }

    /// Goes on to the slot of this moment. Topics of which nothing is left give their place to others.
    fn advance(&mut self, now: Instant) {
        let slot = now.saturating_duration_since(self.began).as_secs() / SLOT.as_secs();
        if slot <= self.slot {
            return;
        }
        let passed = (slot - self.slot).min(SLOTS as u64);
        let (first, last) = (slot - passed + 1, slot);
        for ring in self.topics.values_mut().chain([&mut self.all]) {
            (first..=last).for_each(|slot| *ring.at(slot) = Count::default());
        }
        self.topics.retain(|_, ring| !ring.is_empty());
        self.slot = slot;
    }
}

impl Ring {
    fn at(&mut self, slot: u64) -> &mut Count {
        &mut self.0[usize::try_from(slot % SLOTS as u64).unwrap_or(0)]
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|count| count.received == 0 && count.published == 0)
    }

    /// What came in the slots before `slot`.
    fn series(&self, slot: u64) -> Series {
        let ended = slot.saturating_sub(ENDED as u64)..slot;
        let counts = ended.map(|slot| self.0[usize::try_from(slot % SLOTS as u64).unwrap_or(0)]);
        let mut series = Series::default();
        for count in counts {
            series.received.push(count.received);
            series.received_bytes.push(count.received_bytes);
            series.published.push(count.published);
            series.published_bytes.push(count.published_bytes);
        }
        series
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self(Box::new([Count::default(); SLOTS]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(began: Instant, seconds: u64) -> Instant {
        began + Duration::from_secs(seconds)
    }

    #[test]
    fn slots_that_have_ended_are_shown_the_oldest_first() {
        let began = Instant::now();
        let mut history = History::new(began);
        history.received("a", 10, after(began, 1));
        history.received("a", 20, after(began, 9));
        history.published("b", 5, after(began, 10));
        assert_eq!(
            history.read(after(began, 5)).all,
            history.read(after(began, 10)).all,
            "time goes one way"
        );

        let read = history.read(after(began, 20) + Duration::from_millis(250));
        assert_eq!((read.slot_s, read.ended_ms_ago), (10, 250));
        assert_eq!((&read.all.received[..], &read.all.received_bytes[..]), (&[2, 0][..], &[30, 0][..]));
        assert_eq!((&read.all.published[..], &read.all.published_bytes[..]), (&[0, 1][..], &[0, 5][..]));
        assert_eq!(read.topics["a"].received, [2, 0]);
        assert_eq!(read.topics["b"].published, [0, 1]);
    }

    #[test]
    fn what_goes_on_is_not_shown_before_it_has_ended() {
        let began = Instant::now();
        let mut history = History::new(began);
        history.received("a", 1, began);
        assert_eq!(history.read(after(began, 9)).all, Series::default());
    }

    #[test]
    fn ten_minutes_are_remembered_and_a_topic_without_traffic_is_let_go() {
        let began = Instant::now();
        let mut history = History::new(began);
        history.received("a", 1, began);
        history.received("b", 1, after(began, 300));
        let read = history.read(after(began, 600));
        assert_eq!((read.all.received.len(), read.all.received[0], read.all.received[30]), (60, 1, 1));
        let read = history.read(after(began, 610));
        assert_eq!(read.all.received.iter().sum::<u64>(), 1);
        assert_eq!(read.topics.keys().collect::<Vec<_>>(), ["b"]);
        // A node that slept for longer than all that.
        let read = history.read(after(began, 100_000));
        assert_eq!((read.all.received.iter().sum::<u64>(), read.topics.len()), (0, 0));
    }

    #[test]
    fn more_topics_than_are_counted_apart_count_in_the_sum() {
        let began = Instant::now();
        let mut history = History::new(began);
        for n in 0..TOPICS + 10 {
            history.received(&format!("topic {n}"), 1, began);
        }
        let read = history.read(after(began, 10));
        assert_eq!((read.all.received[0], read.topics.len()), (TOPICS as u64 + 10, TOPICS));
    }
}
