//! Topics that find their subscribers through the hash table, where a node has few neighbours of many and none or too few of
//! those follow the topic.
//!
//! A subscriber without enough of a mesh looks for others under a key that is derived from the topic, and announces itself
//! there unless many have. A publisher without a subscriber looks, too. Where every neighbour follows a topic nobody does
//! either. What is found there is claimed by strangers: a few of them are dialed a time, each once in a while.
//!
//! Pure: what is lacking and the present moment in, what to do out. Never dials, and never asks the table.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use sha2::{Digest, Sha256};

/// How long a mesh has to come about by itself.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pauses between two lookups of a topic: the first, doubling up to the last.
const FIRST: Duration = Duration::from_millis(1500);
const LAST: Duration = Duration::from_secs(120);
/// How long an announcement is taken to last: those who keep it come and go.
const ANNOUNCED: Duration = Duration::from_secs(600);
/// With as many announced subscribers, others need not announce themselves.
const ENOUGH: usize = 8;
/// Peers that are dialed because of one lookup.
const FEW: usize = 4;
/// How long a peer is not dialed again for a topic, and how many are remembered for each.
const AGAIN: Duration = Duration::from_secs(240);
const TRIED: usize = 32;
/// Lookups and announcements under way.
const UNDER_WAY: usize = 4;
/// Topics that are looked for at a time.
const TOPICS: usize = 64;

/// Why a topic's subscribers are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lack {
    /// This node follows it, and has too few mesh members.
    Members,
    /// Something waits to be published.
    Subscribers,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Ask the table for those who announced themselves.
    Look(String),
    /// Announce this node.
    Announce(String),
}

#[derive(Debug)]
struct Topic {
    lack: Lack,
    next: Instant,
    pause: Duration,
    /// A lookup is under way, which found so many.
    looking: Option<usize>,
    /// Of those, so many were dialed.
    dialed: usize,
    announced: Option<Instant>,
    /// This node is to announce itself.
    is_silent: bool,
    tried: VecDeque<(PeerId, Instant)>,
}

/// The topics that lack subscribers.
#[derive(Debug)]
pub(crate) struct TopicDiscovery {
    topics: BTreeMap<String, Topic>,
    rng: fastrand::Rng,
    under_way: usize,
}

impl TopicDiscovery {
    pub(crate) fn new(rng: fastrand::Rng) -> Self {
        Self { topics: BTreeMap::new(), rng, under_way: 0 }
    }

    /// Exactly these topics lack somebody now.
    pub(crate) fn lacking(&mut self, lacking: &BTreeMap<String, Lack>, now: Instant) {
        let has_time = |topic: &Topic| topic.announced.is_some_and(|at| at + ANNOUNCED > now);
        // What was announced is remembered, so that a topic on the verge is not announced again and again.
        self.topics
            .retain(|name, topic| lacking.contains_key(name) || topic.looking.is_some() || has_time(topic));
        for (name, lack) in lacking {
            let delay = match lack {
                Lack::Members => PATIENCE.mul_f64(0.5 + self.rng.f64()),
                Lack::Subscribers => Duration::ZERO,
            };
            let has_room = self.topics.len() < TOPICS;
            match self.topics.get_mut(name) {
                Some(topic) => {
                    if *lack > topic.lack {
                        topic.next = topic.next.min(now);
                    }
                    topic.lack = *lack;
                }
                None if !has_room => {}
                None => {
                    self.topics.insert(name.clone(), Topic::new(*lack, now + delay));
                }
            }
        }
        for (name, topic) in &mut self.topics {
            if !lacking.contains_key(name) {
                topic.next = topic.next.max(now + PATIENCE);
                topic.pause = FIRST;
                topic.is_silent = false;
            }
        }
    }

    /// The next thing to do.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Act> {
        if self.under_way >= UNDER_WAY {
            return None;
        }
        if let Some((name, topic)) = self.topics.iter_mut().find(|(_, topic)| topic.is_silent) {
            topic.is_silent = false;
            topic.announced = Some(now);
            self.under_way += 1;
            return Some(Act::Announce(name.clone()));
        }
        let is_due = |topic: &Topic| topic.looking.is_none() && topic.next <= now;
        let (name, topic) = self.topics.iter_mut().find(|(_, topic)| is_due(topic))?;
        (topic.looking, topic.dialed) = (Some(0), 0);
        self.under_way += 1;
        Some(Act::Look(name.clone()))
    }

    /// A lookup found a peer, which is not connected: whether it is dialed.
    pub(crate) fn found(&mut self, name: &str, peer: PeerId, is_connected: bool, now: Instant) -> bool {
        let Some(topic) = self.topics.get_mut(name) else { return false };
        let Some(found) = &mut topic.looking else { return false };
        *found += 1;
        topic.tried.retain(|(_, at)| *at + AGAIN > now);
        if is_connected || topic.dialed >= FEW || topic.tried.iter().any(|(tried, _)| *tried == peer) {
            return false;
        }
        topic.dialed += 1;
        topic.tried.push_back((peer, now));
        if topic.tried.len() > TRIED {
            topic.tried.pop_front();
        }
        true
    }

    /// A lookup is over.
    pub(crate) fn looked(&mut self, name: &str, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(topic) = self.topics.get_mut(name) else { return };
        let found = topic.looking.take().unwrap_or_default();
        let is_announced = topic.announced.is_some_and(|at| at + ANNOUNCED > now);
        topic.is_silent = topic.lack == Lack::Members && found < ENOUGH && !is_announced;
        topic.next = now + topic.pause.mul_f64(0.75 + 0.5 * self.rng.f64());
        topic.pause = (topic.pause * 2).min(LAST);
    }

    /// An announcement is over.
    pub(crate) fn announced(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// When there is something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.under_way >= UNDER_WAY {
            return None;
        }
        self.topics.values().filter(|topic| topic.looking.is_none()).map(|topic| topic.next).min()
    }
}

impl Topic {
    fn new(lack: Lack, next: Instant) -> Self {
        Self {
            lack,
            next,
            pause: FIRST,
            looking: None,
            dialed: 0,
            announced: None,
            is_silent: false,
            tried: VecDeque::new(),
        }
    }
}

/// Where subscribers of a topic announce themselves: a multihash (sha2-256), which hides the topic's name, in a private mesh from
/// everybody who does not have `secret`.
pub(crate) fn key(topic: &str, secret: Option<&[u8; 32]>) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(b"/smidge/topic/1.0.0\0");
    hash.update(secret.map_or(&[][..], |secret| secret));
    hash.update(topic);
    [&[0x12, 0x20], hash.finalize().as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks(topics: &[(&str, Lack)]) -> BTreeMap<String, Lack> {
        topics.iter().map(|(name, lack)| ((*name).to_owned(), *lack)).collect()
    }

    /// What is done up to `until`, when each lookup finds `found`, and how many of these are dialed.
    fn run(
        discovery: &mut TopicDiscovery,
        lacking: &BTreeMap<String, Lack>,
        found: &[PeerId],
        from: Instant,
        until: Instant,
    ) -> (Vec<Act>, usize) {
        let (mut done, mut dialed, mut now) = (Vec::new(), 0, from);
        while now <= until {
            discovery.lacking(lacking, now);
            while let Some(act) = discovery.next(now) {
                match &act {
                    Act::Look(topic) => {
                        dialed +=
                            found.iter().filter(|peer| discovery.found(topic, **peer, false, now)).count();
                        discovery.looked(topic, now);
                    }
                    Act::Announce(_) => discovery.announced(),
                }
                done.push(act);
            }
            now += Duration::from_millis(250);
        }
        (done, dialed)
    }

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_subscriber_without_a_mesh_looks_and_announces_itself_and_does_so_ever_less_often() {
        for seed in 0..20 {
            let (mut discovery, start) =
                (TopicDiscovery::new(fastrand::Rng::with_seed(seed)), Instant::now());
            let lacking = lacks(&[("t", Lack::Members)]);
            let (look, announce) = (Act::Look("t".into()), Act::Announce("t".into()));
            let (first, _) = run(&mut discovery, &lacking, &[], start, start + S(2));
            assert_eq!(first[..2], [look.clone(), announce.clone()]);
            let (more, _) = run(&mut discovery, &lacking, &[], start + S(2), start + S(3600));
            let (looks, announcements) =
                (more.iter().filter(|a| **a == look), more.iter().filter(|a| **a == announce));
            assert!((24..60).contains(&looks.count()), "{}", more.len());
            assert!(announcements.count() <= 6);
        }
    }

    #[test]
    fn a_publisher_looks_immediately_and_announces_nothing() {
        let (mut discovery, now) = (TopicDiscovery::new(fastrand::Rng::with_seed(1)), Instant::now());
        let (done, _) = run(&mut discovery, &lacks(&[("t", Lack::Subscribers)]), &[], now, now);
        assert_eq!(done, [Act::Look("t".into())]);
        let (done, _) = run(&mut discovery, &lacks(&[]), &[], now + S(1), now + S(60));
        assert_eq!(done, [], "nothing is lacking any more");
    }

    #[test]
    fn what_is_claimed_under_a_topic_leads_to_few_dials_and_where_many_announced_themselves_nobody_else_does()
    {
        let (mut discovery, start) = (TopicDiscovery::new(fastrand::Rng::with_seed(1)), Instant::now());
        let claimed: Vec<_> = (0..64).map(|_| PeerId::random()).collect();
        let lacking = lacks(&[("t", Lack::Members)]);
        let (done, dialed) = run(&mut discovery, &lacking, &claimed, start, start + S(60));
        assert!(!done.contains(&Act::Announce("t".into())));
        assert!(dialed <= FEW * done.len() && dialed <= 32, "{dialed}");
        let (_, dialed) = run(&mut discovery, &lacking, &claimed[..2], start + S(61), start + S(300));
        assert_eq!(dialed, 0, "tried already");
    }

    #[test]
    fn lookups_under_way_and_topics_are_bounded() {
        let (mut discovery, now) = (TopicDiscovery::new(fastrand::Rng::with_seed(1)), Instant::now());
        let many = (0..1000).map(|n| (n.to_string(), Lack::Subscribers)).collect();
        discovery.lacking(&many, now);
        assert_eq!(std::iter::from_fn(|| discovery.next(now)).count(), UNDER_WAY);
        assert_eq!((discovery.topics.len(), discovery.deadline()), (TOPICS, None));
    }

    #[test]
    fn the_key_of_a_topic_says_nothing_of_it_and_differs_by_network() {
        let keys = [key("t", None), key("u", None), key("t", Some(&[1; 32])), key("t", Some(&[2; 32]))];
        for (n, key) in keys.iter().enumerate() {
            assert_eq!((key.len(), &key[..2]), (34, &[0x12, 0x20][..]));
            assert!(!keys[..n].contains(key));
        }
    }
}
