//! Which peers not to graft yet: after a prune both sides keep away from each other for a while (specification v1.1,
//! "Prune Backoff and Peer Exchange").

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::topics::TopicKey;

/// The longest back-off that a peer may ask of us.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// Back-offs by topic and peer, bounded: the one that ends first makes room.
#[derive(Debug)]
pub(super) struct Backoffs {
    until: HashMap<(TopicKey, PeerId), Instant>,
    by_end: BTreeSet<(Instant, TopicKey, PeerId)>,
    /// How many there are of a topic; none is not in.
    counts: HashMap<TopicKey, usize>,
    /// Beyond its end, before we graft ourselves.
    slack: Duration,
    most: usize,
}

impl Backoffs {
    pub(super) fn new(slack: Duration, most: usize) -> Self {
        Self { until: HashMap::new(), by_end: BTreeSet::new(), counts: HashMap::new(), slack, most }
    }

    /// Keeps away from `peer` for `time`; a longer back-off stands.
    pub(super) fn extend(&mut self, topic: TopicKey, peer: PeerId, time: Duration, now: Instant) {
        let until = now + time.min(LONGEST);
        match self.until.insert((topic, peer), until) {
            Some(held) if held > until => {
                self.until.insert((topic, peer), held);
                return;
            }
            Some(held) => {
                self.by_end.remove(&(held, topic, peer));
            }
            None => *self.counts.entry(topic).or_default() += 1,
        }
        self.by_end.insert((until, topic, peer));
        while self.by_end.len() > self.most {
            self.pop_first();
        }
    }

    fn pop_first(&mut self) {
        let Some((_, topic, peer)) = self.by_end.pop_first() else { return };
        self.until.remove(&(topic, peer));
        if let Entry::Occupied(mut count) = self.counts.entry(topic) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Until when the peer is to keep away, if it still is.
    pub(super) fn ends(&self, topic: TopicKey, peer: &PeerId, now: Instant) -> Option<Instant> {
        self.until.get(&(topic, *peer)).copied().filter(|until| *until > now)
    }

    /// Whether we keep away, slack included.
    pub(super) fn holds(&self, topic: TopicKey, peer: &PeerId, now: Instant) -> bool {
        !self.until.is_empty()
            && self.until.get(&(topic, *peer)).is_some_and(|until| *until + self.slack > now)
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while self.by_end.first().is_some_and(|(until, ..)| *until + self.slack <= now) {
            self.pop_first();
        }
    }

    /// Whether any back-off of the topic is still kept: its key must not be given to another topic.
    pub(super) fn any(&self, topic: TopicKey) -> bool {
        self.counts.contains_key(&topic)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.until.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_backoff_stands_and_slack_holds_us_alone() {
        let now = Instant::now();
        let (topic, peer) = (TopicKey(0), PeerId::random());
        let mut backoffs = Backoffs::new(Duration::from_secs(1), 8);
        backoffs.extend(topic, peer, Duration::from_secs(60), now);
        backoffs.extend(topic, peer, Duration::from_secs(10), now);
        let at = now + Duration::from_millis(60_500);
        assert!(backoffs.ends(topic, &peer, now + Duration::from_secs(59)).is_some());
        assert!(backoffs.ends(topic, &peer, at).is_none(), "others may graft as soon as it is over");
        assert!(backoffs.holds(topic, &peer, at), "we wait for the slack");
        backoffs.expire(now + Duration::from_secs(61));
        assert_eq!(backoffs.len(), 0);
    }

    #[test]
    fn backoffs_are_bounded_and_a_remote_one_is_at_most_an_hour() {
        let now = Instant::now();
        let mut backoffs = Backoffs::new(Duration::ZERO, 8);
        for seconds in 1..100 {
            backoffs.extend(TopicKey(1), PeerId::random(), Duration::from_secs(seconds), now);
        }
        assert_eq!(backoffs.len(), 8);
        let peer = PeerId::random();
        backoffs.extend(TopicKey(1), peer, Duration::from_secs(u64::MAX), now);
        assert_eq!(backoffs.ends(TopicKey(1), &peer, now), Some(now + LONGEST));
    }

    #[test]
    fn a_topic_has_backoffs_until_the_last_of_them_is_over_or_pushed_out() {
        let now = Instant::now();
        let (one, other) = (TopicKey(1), TopicKey(2));
        let mut backoffs = Backoffs::new(Duration::ZERO, 4);
        let peers: Vec<_> = (0..4).map(|_| PeerId::random()).collect();
        for _ in 0..3 {
            backoffs.extend(one, peers[0], Duration::from_secs(10), now);
            backoffs.extend(one, peers[1], Duration::from_secs(20), now);
        }
        backoffs.extend(other, peers[0], Duration::from_secs(5), now);
        assert!(backoffs.any(one) && backoffs.any(other));
        backoffs.expire(now + Duration::from_secs(10));
        assert!(backoffs.any(one) && !backoffs.any(other));
        for peer in peers {
            backoffs.extend(other, peer, Duration::from_secs(30), now);
        }
        assert!(!backoffs.any(one) && backoffs.any(other), "pushed out");
        backoffs.expire(now + Duration::from_secs(30));
        assert!(!backoffs.any(other));
        assert!(backoffs.counts.is_empty());
    }
}
