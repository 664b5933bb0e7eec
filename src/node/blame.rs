//! Which peers are to blame for messages that the rules refuse, and how much: an account of our own beside the engine's score.
//!
//! gossipsub blames every peer that hands a rejected message on, in whatever order the copies come. A peer with other
//! rules, or none, does no wrong by that. So what the rules refuse is ignored, as far as the engine knows, and the
//! author's account is charged here, whichever peer brought the message. A neighbour may bring a bounded rate of what
//! is refused; with more it leaves the mesh for a while, and no more than that. Pure: the moment is handed in.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// What one refused message costs its author, and how fast that is forgotten: as the topic's score says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tariff {
    /// Times the square of the counter; not above zero.
    pub(crate) weight: f64,
    /// What is left of the counter after a second.
    pub(crate) decay: f64,
}

/// Accounts that are kept.
const ACCOUNTS: usize = 1024;
/// Refused messages of others that a neighbour may bring in one breath.
const BURST: f64 = 100.0;
/// And for each second.
const RATE: f64 = 10.0;
/// The score of a neighbour that brings more: below zero, which is out of the mesh, and above all thresholds.
const TOO_MANY: f64 = -1.0;
/// A counter below this is nothing.
const NOTHING: f64 = 0.01;
/// How often scores that decay are reported.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Account {
    counter: f64,
    tariff: Tariff,
    /// Refused messages of others, brought beyond what leaked out since.
    brought: f64,
    at: Instant,
}

impl Account {
    fn settle(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.counter *= self.tariff.decay.powf(passed);
        self.brought = (self.brought - RATE * passed).max(0.0);
        self.at = now;
    }

    fn is_empty(&self) -> bool {
        self.counter < NOTHING && self.brought <= 0.0
    }

    fn score(&self) -> f64 {
        let flood = if self.brought > BURST { TOO_MANY } else { 0.0 };
        self.tariff.weight * self.counter * self.counter + flood
    }
}

#[derive(Debug, Default)]
pub(crate) struct Blame {
    accounts: HashMap<PeerId, Account>,
    /// Peers whose score was reported at the last tick, or changed since.
    reported: HashSet<PeerId>,
    next: Option<Instant>,
}

impl Blame {
    /// A message of `author` was refused; it is to blame.
    pub(crate) fn author(&mut self, author: PeerId, tariff: Tariff, now: Instant) -> f64 {
        let account = self.account(author, now);
        account.counter += 1.0;
        // Of two topics, the one that forgives less.
        if tariff.weight < account.tariff.weight {
            account.tariff = tariff;
        }
        account.score()
    }

    /// `neighbour` brought a message that was refused, and is not to blame for it.
    pub(crate) fn brought(&mut self, neighbour: PeerId, now: Instant) -> f64 {
        let account = self.account(neighbour, now);
        // Bounded, so that it is forgiven soon.
        account.brought = (account.brought + 1.0).min(BURST * 2.0);
        account.score()
    }

    fn account(&mut self, peer: PeerId, now: Instant) -> &mut Account {
        self.next.get_or_insert(now + TICK);
        self.reported.insert(peer);
        if self.accounts.len() >= ACCOUNTS && !self.accounts.contains_key(&peer) {
            let dearest = |a: &Account, b: &Account| b.score().total_cmp(&a.score());
            let least = self.accounts.iter().min_by(|(_, a), (_, b)| dearest(a, b)).map(|(id, _)| *id);
            if let Some(least) = least {
                self.accounts.remove(&least);
            }
        }
        let fresh =
            || Account { counter: 0.0, tariff: Tariff { weight: 0.0, decay: 0.9 }, brought: 0.0, at: now };
        let account = self.accounts.entry(peer).or_insert_with(fresh);
        account.settle(now);
        account
    }

    /// The scores that changed by time alone; zero once for a peer that is forgiven.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<(PeerId, f64)> {
        if self.next.is_none_or(|next| now < next) {
            return Vec::new();
        }
        self.accounts.values_mut().for_each(|account| account.settle(now));
        self.accounts.retain(|_, account| !account.is_empty());
        let reported = std::mem::take(&mut self.reported);
        self.reported.extend(self.accounts.keys().copied());
        self.next = (!self.accounts.is_empty()).then_some(now + TICK);
        let score = |peer: &PeerId| self.accounts.get(peer).map_or(0.0, Account::score);
        reported.iter().map(|peer| (*peer, score(peer))).collect()
    }

    /// What a peer's account says, for one that is connected again.
    pub(crate) fn score(&self, peer: &PeerId) -> Option<f64> {
        self.accounts.get(peer).map(Account::score)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARIFF: Tariff = Tariff { weight: -10.0, decay: 0.9 };

    fn second(now: &mut Instant) -> Instant {
        *now += TICK;
        *now
    }

    #[test]
    fn an_author_pays_for_each_message_and_is_forgiven_in_time() {
        let (mut blame, author, mut now) = (Blame::default(), PeerId::random(), Instant::now());
        assert_eq!(blame.author(author, TARIFF, now), -10.0);
        assert_eq!(blame.author(author, TARIFF, now), -40.0);
        assert_eq!(blame.author(author, TARIFF, now), -90.0, "the third is graylisted");
        let mut before = -90.0;
        while let Some((peer, score)) = blame.tick(second(&mut now)).pop() {
            assert_eq!(peer, author);
            assert!(score > before);
            before = score;
        }
        assert_eq!((before, blame.deadline(), blame.score(&author)), (0.0, None, None));
    }

    #[test]
    fn who_passes_on_loses_nothing_until_it_is_a_flood_and_then_the_mesh_alone() {
        let (mut blame, relay, mut now) = (Blame::default(), PeerId::random(), Instant::now());
        for _ in 0..60 {
            for _ in 0..RATE as usize {
                assert_eq!(blame.brought(relay, now), 0.0);
            }
            blame.tick(second(&mut now));
        }
        let worst = (0..10_000).map(|_| blame.brought(relay, now)).fold(0.0, f64::min);
        assert_eq!(worst, TOO_MANY);
        let until = now + Duration::from_secs(30);
        while now < until {
            blame.tick(second(&mut now));
        }
        assert_eq!(blame.score(&relay), None, "forgiven");
    }

    #[test]
    fn accounts_are_bounded_and_the_least_goes_first() {
        let (mut blame, now) = (Blame::default(), Instant::now());
        let worst = PeerId::random();
        for _ in 0..9 {
            blame.author(worst, TARIFF, now);
        }
        for _ in 0..ACCOUNTS * 2 {
            blame.author(PeerId::random(), TARIFF, now);
        }
        assert_eq!(blame.accounts.len(), ACCOUNTS);
        assert!(blame.score(&worst).is_some());
    }

    #[test]
    fn a_topic_that_counts_for_nothing_costs_nothing() {
        let (mut blame, author) = (Blame::default(), PeerId::random());
        assert_eq!(blame.author(author, Tariff { weight: 0.0, decay: 0.9 }, Instant::now()), 0.0);
    }
}
