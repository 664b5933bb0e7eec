//! When to compare, and with which peer. Pure: time is handed in.
//!
//! Two nodes compare when they meet, when one of them may have missed something, and now and then. Of two that meet, the
//! one with the lower peer id begins; the other waits a moment. Who breaks the protocol waits longer each time.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// Between two comparisons with a peer that has nothing new, about; more where there are many neighbours.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long the one with the higher id waits for the other to begin.
const YIELD: Duration = Duration::from_millis(1500);
/// Until all neighbours are asked after something was missed.
const SPREAD: Duration = Duration::from_millis(200);
/// Before a peer is asked again that was busy, or whose connection broke.
const AGAIN: Duration = Duration::from_millis(100);
/// Refusals in a row after which a topic rests no longer than before: each doubles the time.
const CROWD: u32 = 4;
/// After a peer fell silent, or does not keep the topic; twice as long each time.
const SILENT: Duration = Duration::from_secs(10);
const NOT_KEPT: Duration = Duration::from_secs(300);
/// After a peer broke the protocol.
const HOSTILE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
/// Peers remembered that broke the protocol.
const WARY: usize = 1024;

/// How a session of ours ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Both have what either had; or a bound was reached, and there may be more.
    Done { more: bool },
    /// The peer has too much to do.
    Busy,
    /// The connection broke.
    Broke,
    /// The peer does not keep the topic, or does not let us read it.
    Refused,
    /// The peer fell silent.
    Silent,
    /// The peer broke the protocol.
    Hostile,
}

#[derive(Debug)]
struct Pair {
    due: Instant,
    /// Nothing of what was sent a moment ago is compared: it is on its way.
    settled: bool,
    failures: u32,
}

#[derive(Debug)]
struct Wary {
    until: Instant,
    failures: u32,
}

/// What is due, and with which peer.
#[derive(Debug)]
pub(super) struct Scheduler {
    local: PeerId,
    topics: BTreeMap<String, BTreeMap<PeerId, Pair>>,
    wary: HashMap<PeerId, Wary>,
    /// How often in a row neighbours were busy with each topic.
    crowded: BTreeMap<String, u32>,
    rng: fastrand::Rng,
}

impl Scheduler {
    pub(super) fn new(local: PeerId, rng: fastrand::Rng) -> Self {
        Self { local, topics: BTreeMap::new(), wary: HashMap::new(), crowded: BTreeMap::new(), rng }
    }

    fn jitter(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.f64())
    }

    /// A connected peer follows a topic that is kept here.
    pub(super) fn met(&mut self, peer: PeerId, topic: &str, now: Instant) {
        let wait = if self.local < peer { Duration::ZERO } else { YIELD };
        let due = now + wait + self.jitter(AGAIN / 4);
        self.topics
            .entry(topic.to_owned())
            .or_default()
            .insert(peer, Pair { due, settled: false, failures: 0 });
    }

    /// A peer follows a topic no longer.
    pub(super) fn left(&mut self, peer: &PeerId, topic: &str) {
        if let Some(pairs) = self.topics.get_mut(topic) {
            pairs.remove(peer);
            if pairs.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// A topic is kept no longer.
    pub(super) fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        self.topics.retain(|topic, _| keeps(topic));
        self.crowded.retain(|topic, _| keeps(topic));
    }

    /// A peer is gone, or does not speak the protocol.
    pub(super) fn gone(&mut self, peer: &PeerId) {
        self.topics.retain(|_, pairs| {
            pairs.remove(peer);
            !pairs.is_empty()
        });
    }

    /// Something may have been missed: by everybody, or between us and one peer.
    pub(super) fn missed(&mut self, from: Option<&PeerId>, now: Instant) {
        let spread = if from.is_some() { AGAIN } else { SPREAD };
        for (peer, pair) in self.topics.values_mut().flatten() {
            if from.is_none_or(|from| from == peer) && pair.failures == 0 {
                let due = now + spread.mul_f64(self.rng.f64());
                (pair.due, pair.settled) = (pair.due.min(due), false);
            }
        }
    }

    /// This node is to begin, in the place of a peer that did; whether it will.
    pub(super) fn hurry(&mut self, peer: &PeerId, topic: &str, now: Instant) -> bool {
        let Some(pair) = self.pair(peer, topic) else { return false };
        (pair.due, pair.failures) = (now, 0);
        true
    }

    /// Topics that neighbours share, as far as they are known to keep them.
    pub(super) fn shared(&self) -> impl Iterator<Item = &String> {
        let kept = |pairs: &BTreeMap<PeerId, Pair>| pairs.values().any(|pair| pair.failures == 0);
        self.topics.iter().filter(move |(_, pairs)| kept(pairs)).map(|(topic, _)| topic)
    }

    /// Something was learned that other neighbours may lack.
    pub(super) fn learned(&mut self, topic: &str, from: &PeerId, now: Instant) {
        for (peer, pair) in self.topics.get_mut(topic).into_iter().flatten() {
            if peer != from && pair.failures == 0 {
                let due = now + SPREAD.mul_f64(self.rng.f64());
                pair.due = pair.due.min(due);
            }
        }
    }

    /// Connected peers that follow a topic, in order.
    pub(super) fn peers(&self, topic: &str) -> impl Iterator<Item = &PeerId> {
        self.topics.get(topic).into_iter().flat_map(BTreeMap::keys)
    }

    /// Whether a peer broke the protocol not long ago.
    pub(super) fn is_wary(&self, peer: &PeerId, now: Instant) -> bool {
        self.wary.get(peer).is_some_and(|wary| now < wary.until)
    }

    fn at(&self, peer: &PeerId, pair: &Pair) -> Instant {
        self.wary.get(peer).map_or(pair.due, |wary| wary.until.max(pair.due))
    }

    /// A comparison that is due, of a topic that is free, and whether it leaves out what is on its way.
    pub(super) fn due(&self, now: Instant, free: impl Fn(&str) -> bool) -> Option<(PeerId, String, bool)> {
        let topics = self.topics.iter().filter(|(topic, _)| free(topic));
        let all = topics.flat_map(|(topic, pairs)| pairs.iter().map(move |(peer, pair)| (topic, peer, pair)));
        let due = all.map(|(topic, peer, pair)| (self.at(peer, pair), topic, peer, pair));
        let (_, topic, peer, pair) = due.filter(|(at, ..)| *at <= now).min_by_key(|(at, ..)| *at)?;
        Some((*peer, topic.clone(), pair.settled))
    }

    /// When one is due next, where each topic is free from a moment on.
    pub(super) fn deadline(&self, free: impl Fn(&str) -> Option<Instant>) -> Option<Instant> {
        let next = |(topic, pairs): (&String, &BTreeMap<PeerId, Pair>)| {
            let due = pairs.iter().map(|(peer, pair)| self.at(peer, pair)).min()?;
            Some(due.max(free(topic)?))
        };
        self.topics.iter().filter_map(next).min()
    }

    /// A session with a peer began, of whichever side. It may take its time.
    pub(super) fn began(&mut self, peer: &PeerId, topic: &str, now: Instant) {
        let pause = self.pause(topic);
        if let Some(pair) = self.pair(peer, topic) {
            pair.due = now + pause;
        }
    }

    fn pair(&mut self, peer: &PeerId, topic: &str) -> Option<&mut Pair> {
        self.topics.get_mut(topic)?.get_mut(peer)
    }

    /// Until the next comparison with one of the neighbours: with many of them each is asked less often.
    fn pause(&mut self, topic: &str) -> Duration {
        let neighbours = self.topics.get(topic).map_or(1, BTreeMap::len).max(1);
        let pause = INTERVAL * u32::try_from(neighbours.div_ceil(2)).unwrap_or(u32::MAX);
        pause / 2 + self.jitter(pause)
    }

    /// A session ended.
    pub(super) fn ended(&mut self, peer: &PeerId, topic: &str, outcome: Outcome, now: Instant) {
        if outcome == Outcome::Hostile {
            self.be_wary(*peer, now);
        }
        match outcome {
            Outcome::Busy => self.rest(peer, topic, now),
            Outcome::Done { .. } => drop(self.crowded.remove(topic)),
            _ => {}
        }
        let pause = self.pause(topic);
        let jitter = self.jitter(AGAIN);
        let Some(pair) = self.pair(peer, topic) else { return };
        let again = |first: Duration, failures: u32| (first * 2u32.pow(failures.min(10))).min(LONGEST);
        let (due, failures, settled) = match outcome {
            Outcome::Done { more: true } => (AGAIN + jitter, 0, pair.settled),
            // What was said while this one ran may have been missed by both; later all is, and what is on its way is left out.
            Outcome::Done { more: false } if !pair.settled => (2 * super::book::SETTLE + jitter, 0, true),
            Outcome::Done { more: false } => (pause, 0, true),
            // Not before the topic has rested.
            Outcome::Busy => (pair.due.saturating_duration_since(now), pair.failures, pair.settled),
            Outcome::Broke => (AGAIN * 5 + jitter, pair.failures, pair.settled),
            Outcome::Refused => (again(NOT_KEPT, pair.failures), pair.failures + 1, false),
            Outcome::Silent | Outcome::Hostile => (again(SILENT, pair.failures), pair.failures + 1, false),
        };
        (pair.due, pair.failures, pair.settled) = (now + due, failures, settled);
    }

    /// A peer was busy: nobody is asked about the topic for a moment. Who asks one after the other is never free to answer: of many that meet
    /// at the same time each would find all others busy, for good.
    fn rest(&mut self, peer: &PeerId, topic: &str, now: Instant) {
        let crowded = self.crowded.entry(topic.to_owned()).or_default();
        let most = AGAIN * 2u32.pow(*crowded);
        *crowded = (*crowded + 1).min(CROWD);
        let until = now + AGAIN / 2 + self.jitter(most);
        for (other, pair) in self.topics.get_mut(topic).into_iter().flatten() {
            pair.due = if other == peer { until } else { pair.due.max(until) };
        }
    }

    fn be_wary(&mut self, peer: PeerId, now: Instant) {
        let known = self.wary.get(&peer).map_or(0, |wary| wary.failures);
        let wait = (HOSTILE * 2u32.pow(known.min(6))).min(LONGEST);
        if self.wary.len() >= WARY && !self.wary.contains_key(&peer) {
            let first = self.wary.iter().min_by_key(|(_, wary)| wary.until).map(|(peer, _)| *peer);
            first.map(|peer| self.wary.remove(&peer));
        }
        self.wary.insert(peer, Wary { until: now + wait, failures: known + 1 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> (PeerId, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        (a.min(b), a.max(b))
    }

    fn scheduler(local: PeerId) -> Scheduler {
        Scheduler::new(local, fastrand::Rng::with_seed(1))
    }

    fn next(scheduler: &Scheduler) -> Instant {
        scheduler.deadline(|_| Some(Instant::now() - Duration::from_secs(3600))).unwrap()
    }

    #[test]
    fn of_two_that_meet_one_begins() {
        let (low, high) = peers();
        let now = Instant::now();
        let (mut first, mut second) = (scheduler(low), scheduler(high));
        first.met(high, "t", now);
        second.met(low, "t", now);
        assert!(next(&first) < now + AGAIN && next(&second) >= now + YIELD);
        let at = next(&first);
        assert_eq!(first.due(at, |_| true), Some((high, "t".into(), false)));
        assert_eq!(first.due(at, |_| false), None, "another session about it is under way");
        second.began(&low, "t", now);
        assert!(next(&second) > now + INTERVAL / 3, "the other began");
        second.gone(&low);
        assert_eq!(second.deadline(|_| Some(now)), None);
    }

    #[test]
    fn what_ended_well_comes_again_soon_once_and_then_now_and_then() {
        let (low, high) = peers();
        let (now, mut scheduler) = (Instant::now(), scheduler(low));
        scheduler.met(high, "t", now);
        scheduler.ended(&high, "t", Outcome::Done { more: false }, now);
        let soon = next(&scheduler);
        assert!(soon < now + Duration::from_secs(5));
        assert_eq!(scheduler.due(soon, |_| true), Some((high, "t".into(), true)));
        scheduler.ended(&high, "t", Outcome::Done { more: false }, soon);
        assert!(next(&scheduler) >= soon + INTERVAL / 2);
        scheduler.missed(None, soon);
        assert!(next(&scheduler) <= soon + SPREAD);
        assert_eq!(scheduler.due(soon + SPREAD, |_| true), Some((high, "t".into(), false)));
    }

    #[test]
    fn who_breaks_the_protocol_waits_longer_each_time_also_when_it_comes_back() {
        let (low, high) = peers();
        let (mut now, mut scheduler) = (Instant::now(), scheduler(low));
        let mut waits = Vec::new();
        for _ in 0..8 {
            scheduler.met(high, "t", now);
            scheduler.ended(&high, "t", Outcome::Hostile, now);
            scheduler.gone(&high);
            scheduler.met(high, "t", now);
            assert!(scheduler.is_wary(&high, now));
            waits.push((next(&scheduler) - now).as_secs());
            now = next(&scheduler);
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        for _ in 0..2 * WARY {
            scheduler.be_wary(PeerId::random(), now);
        }
        assert_eq!(scheduler.wary.len(), WARY);
    }

    #[test]
    fn what_one_taught_is_passed_on_to_the_others() {
        let (low, high) = peers();
        let (now, mut scheduler) = (Instant::now(), scheduler(low));
        let others: Vec<_> = (0..20).map(|_| PeerId::random()).collect();
        for peer in others.iter().chain([&high]) {
            scheduler.met(*peer, "t", now);
            scheduler.ended(peer, "t", Outcome::Done { more: false }, now);
        }
        let silent = others[0];
        scheduler.ended(&silent, "t", Outcome::Refused, now);
        scheduler.learned("t", &high, now);
        let soon = now + SPREAD;
        let mut asked = Vec::new();
        while let Some((peer, topic, _)) = scheduler.due(soon, |_| true) {
            scheduler.began(&peer, &topic, soon);
            asked.push(peer);
        }
        assert_eq!(asked.len(), 19);
        assert!(!asked.contains(&high) && !asked.contains(&silent));
    }

    #[test]
    fn of_many_that_meet_at_the_same_moment_all_compare_soon() {
        const NODES: usize = 20;
        const WAY: u32 = 45;
        /// What a node is doing, in milliseconds.
        #[derive(Clone, Copy, PartialEq)]
        enum Doing {
            Nothing,
            Asking { peer: usize, arrives: u32 },
            Refused { peer: usize, at: u32 },
            Comparing { peer: usize, until: u32, is_ours: bool },
        }
        let mut rng = fastrand::Rng::with_seed(3);
        let mut peers: Vec<PeerId> = (0..NODES).map(|_| PeerId::random()).collect();
        peers.sort_unstable();
        let start = Instant::now();
        let mut all: Vec<Scheduler> = (peers.iter())
            .map(|peer| {
                let mut scheduler = Scheduler::new(*peer, fastrand::Rng::with_seed(rng.u64(..)));
                peers
                    .iter()
                    .filter(|other| *other != peer)
                    .for_each(|other| scheduler.met(*other, "t", start));
                scheduler
            })
            .collect();
        let (mut doing, mut compared) = ([Doing::Nothing; NODES], BTreeMap::new());
        for t in 0..60_000 {
            let now = start + Duration::from_millis(t.into());
            for node in 0..NODES {
                match doing[node] {
                    Doing::Nothing => {
                        if let Some((peer, topic, _)) = all[node].due(now, |_| true) {
                            all[node].began(&peer, &topic, now);
                            let peer = peers.binary_search(&peer).unwrap();
                            doing[node] = Doing::Asking { peer, arrives: t + WAY };
                        }
                    }
                    Doing::Asking { peer, arrives } if arrives == t => {
                        let until = t + 4 * WAY;
                        doing[node] = Doing::Refused { peer, at: t + WAY };
                        if doing[peer] == Doing::Nothing {
                            all[peer].began(&peers[node], "t", now);
                            doing[peer] = Doing::Comparing { peer: node, until, is_ours: false };
                            doing[node] = Doing::Comparing { peer, until, is_ours: true };
                        }
                    }
                    Doing::Refused { peer, at } if at == t => {
                        all[node].ended(&peers[peer], "t", Outcome::Busy, now);
                        doing[node] = Doing::Nothing;
                    }
                    Doing::Comparing { peer, until, is_ours } if until == t => {
                        all[node].ended(&peers[peer], "t", Outcome::Done { more: false }, now);
                        doing[node] = Doing::Nothing;
                        if is_ours {
                            compared.entry((node.min(peer), node.max(peer))).or_insert(t);
                        }
                    }
                    _ => {}
                }
            }
        }
        let pairs = NODES * (NODES - 1) / 2;
        let slowest = compared.values().max().unwrap();
        assert_eq!(compared.len(), pairs, "the last of them after {slowest} ms");
        let alone = |node: usize| compared.iter().filter(move |((a, b), _)| *a == node || *b == node);
        for node in 0..NODES {
            let first = alone(node).map(|(_, at)| *at).min().unwrap();
            assert!(first < 5000, "{node} compared with nobody for {first} ms");
        }
    }
}
