//! Messages of this node that others are to confirm, and which of them are asked when. Pure: time is handed in.
//!
//! Of those that follow the topic, two more are asked than have to confirm, and soon all. What a peer says counts once,
//! for what it was asked about; whether it is true is its word.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use smidge_catchup::{Item, frame::MAX_ASKED};

/// How long a peer's answer may wait for a message to be kept there.
pub(super) const WAIT: Duration = Duration::from_millis(200);
/// What an answer may take beside that. Who takes longer, or fails, is asked again after as long.
const SILENCE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(500);
/// Until twice as many peers are asked.
const WIDEN: Duration = Duration::from_millis(300);
/// Peers that are asked about a message.
const PEERS: usize = 64;

/// A message that waits to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(u64);

/// What came of it: it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Confirmed {
    pub(crate) ticket: Ticket,
    /// Who said that they keep it.
    pub(crate) by: Vec<PeerId>,
    /// As many as were asked for.
    pub(crate) enough: bool,
}

#[derive(Debug)]
struct Wanted {
    topic: String,
    item: Item,
    count: usize,
    by: BTreeSet<PeerId>,
    until: Instant,
    /// How many peers may be asked, and when more may.
    asked: usize,
    widen: Instant,
}

/// What was asked last of a peer, about a topic.
#[derive(Debug)]
struct Asked {
    items: Vec<Item>,
    /// No answer has come; it is waited for until then.
    waits: Option<Instant>,
    /// The same is not asked again before.
    again: Instant,
}

/// What is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) peer: PeerId,
    pub(super) topic: String,
    /// In order, each once.
    pub(super) items: Vec<Item>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Confirms {
    wanted: BTreeMap<Ticket, Wanted>,
    asked: HashMap<(PeerId, String), Asked>,
    last: u64,
}

impl Confirms {
    /// `count` others are to confirm a message by then.
    pub(crate) fn add(
        &mut self,
        topic: &str,
        item: Item,
        count: usize,
        until: Instant,
        now: Instant,
    ) -> Ticket {
        self.last += 1;
        let topic = topic.to_owned();
        let (asked, widen) = (count.saturating_add(2), now + WIDEN);
        let wanted = Wanted { topic, item, count, by: BTreeSet::new(), until, asked, widen };
        self.wanted.insert(Ticket(self.last), wanted);
        Ticket(self.last)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// What is to be asked now, where these peers may be asked about a topic, in an order that stays.
    pub(super) fn due(&mut self, now: Instant, peers: impl Fn(&str) -> Vec<PeerId>) -> Vec<Question> {
        let mut topics: BTreeMap<&str, Vec<(u64, &Wanted)>> = BTreeMap::new();
        for (Ticket(n), wanted) in &mut self.wanted {
            if wanted.widen <= now && wanted.asked < PEERS {
                (wanted.asked, wanted.widen) = (wanted.asked.saturating_mul(2).min(PEERS), now + WIDEN);
            }
            topics.entry(&wanted.topic).or_default().push((*n, wanted));
        }
        let mut questions = Vec::new();
        for (topic, wanted) in topics {
            let peers = peers(topic);
            for (at, peer) in peers.iter().enumerate().take(PEERS) {
                let key = (*peer, topic.to_owned());
                let before = self.asked.get(&key);
                if before.is_some_and(|asked| asked.waits.is_some()) {
                    continue;
                }
                // Each message begins with another of them.
                let place = |n: u64| (at + (n % peers.len() as u64) as usize) % peers.len();
                let is_due =
                    |(n, wanted): &&(u64, &Wanted)| place(*n) < wanted.asked && !wanted.by.contains(peer);
                let items: BTreeSet<Item> =
                    wanted.iter().filter(is_due).map(|(_, wanted)| wanted.item).collect();
                let mut items: Vec<_> = items.into_iter().take(MAX_ASKED).collect();
                items.shrink_to_fit();
                let is_news = before.is_none_or(|asked| {
                    now >= asked.again || items.iter().any(|item| asked.items.binary_search(item).is_err())
                });
                if items.is_empty() || !is_news {
                    continue;
                }
                let asked =
                    Asked { items: items.clone(), waits: Some(now + WAIT + SILENCE), again: now + WAIT };
                self.asked.insert(key, asked);
                questions.push(Question { peer: *peer, topic: topic.to_owned(), items });
            }
        }
        questions
    }

    /// A peer says which of what it was asked about it keeps. `None`: it says more than it was asked.
    pub(super) fn answered(&mut self, peer: PeerId, topic: &str, kept: &[u32]) -> Option<Vec<Confirmed>> {
        let asked = self.asked.get_mut(&(peer, topic.to_owned()))?;
        asked.waits.take()?;
        let items =
            kept.iter().map(|index| asked.items.get(*index as usize).copied()).collect::<Option<Vec<_>>>()?;
        for wanted in self.wanted.values_mut().filter(|wanted| wanted.topic == topic) {
            if items.contains(&wanted.item) {
                wanted.by.insert(peer);
            }
        }
        Some(self.take(|wanted| wanted.by.len() >= wanted.count))
    }

    /// A peer does not answer, or cannot be asked.
    pub(super) fn failed(&mut self, peer: PeerId, topic: &str, now: Instant) {
        if let Some(asked) = self.asked.get_mut(&(peer, topic.to_owned())) {
            asked.waits = None;
            // Nothing of it is news before then.
            asked.again = now + AGAIN;
        }
    }

    /// A peer is gone.
    pub(super) fn gone(&mut self, peer: &PeerId) {
        self.asked.retain(|(other, _), _| other != peer);
    }

    /// Peers that have not answered in time.
    pub(super) fn silent(&self, now: Instant) -> Vec<(PeerId, String)> {
        let late = self.asked.iter().filter(|(_, asked)| asked.waits.is_some_and(|until| until <= now));
        late.map(|(key, _)| key.clone()).collect()
    }

    /// What has no more time.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Confirmed> {
        self.take(|wanted| wanted.until <= now)
    }

    /// All that is not over, for a node that ends.
    pub(super) fn give_up(&mut self) -> Vec<Confirmed> {
        self.take(|_| true)
    }

    fn take(&mut self, is_over: impl Fn(&Wanted) -> bool) -> Vec<Confirmed> {
        let over: Vec<_> =
            self.wanted.iter().filter(|(_, wanted)| is_over(wanted)).map(|(ticket, _)| *ticket).collect();
        let over = over.into_iter().filter_map(|ticket| self.wanted.remove_entry(&ticket));
        let confirmed = |(ticket, wanted): (Ticket, Wanted)| Confirmed {
            ticket,
            enough: wanted.by.len() >= wanted.count,
            by: wanted.by.into_iter().collect(),
        };
        over.map(confirmed).collect()
    }

    /// When something is due next. What a peer was asked is forgotten with the last message.
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.wanted.is_empty() {
            self.asked.retain(|_, asked| asked.waits.is_some());
        }
        let wanted = self
            .wanted
            .values()
            .flat_map(|wanted| [Some(wanted.until), Some(wanted.widen).filter(|_| wanted.asked < PEERS)]);
        let asked = self.asked.values().map(|asked| asked.waits.or(Some(asked.again).filter(|at| *at > now)));
        wanted.chain(asked).flatten().min()
    }

    /// Whether anything may still be asked of a peer about a topic.
    pub(super) fn asks(&self, topic: &str) -> bool {
        self.wanted.values().any(|wanted| wanted.topic == topic)
    }
}

#[cfg(test)]
mod tests {
    use smidge_catchup::Id;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn item(n: u64) -> Item {
        Item { time: n, id: Id([n as u8; 16]) }
    }

    fn peers(n: usize) -> Vec<PeerId> {
        let mut peers: Vec<_> = (0..n).map(|_| PeerId::random()).collect();
        peers.sort();
        peers
    }

    #[test]
    fn a_message_is_confirmed_by_as_many_as_said_so_and_each_counts_once() {
        let (mut confirms, now, peers) = (Confirms::default(), Instant::now(), peers(3));
        let ticket = confirms.add("t", item(1), 2, now + S(10), now);
        let asked = confirms.due(now, |_| peers.clone());
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert!(confirms.due(now, |_| peers.clone()).is_empty(), "answers are waited for");
        assert_eq!(confirms.answered(peers[0], "t", &[0]), Some(vec![]));
        assert_eq!(confirms.answered(peers[0], "t", &[0]), None, "it was not asked again");
        assert_eq!(confirms.answered(peers[1], "t", &[]), Some(vec![]));
        assert_eq!(confirms.answered(peers[2], "t", &[1]), None, "it was asked about one");
        assert_eq!(confirms.answered(PeerId::random(), "t", &[0]), None);
        let again = confirms.due(now + WAIT, |_| peers.clone());
        assert_eq!(again.iter().map(|q| q.peer).collect::<Vec<_>>(), peers[1..]);
        let done = confirms.answered(peers[1], "t", &[0]).unwrap();
        assert_eq!(done, [Confirmed { ticket, by: peers[..2].to_vec(), enough: true }]);
        assert!(confirms.is_empty());
    }

    #[test]
    fn what_is_not_confirmed_in_time_says_who_did() {
        let (mut confirms, now, peers) = (Confirms::default(), Instant::now(), peers(2));
        let ticket = confirms.add("t", item(1), 2, now + S(1), now);
        confirms.due(now, |_| peers.clone());
        confirms.answered(peers[1], "t", &[0]).unwrap();
        assert!(confirms.expire(now + S(1) - WAIT).is_empty());
        let late = confirms.expire(now + S(1));
        assert_eq!(late, [Confirmed { ticket, by: vec![peers[1]], enough: false }]);
    }

    #[test]
    fn two_more_are_asked_than_have_to_confirm_and_soon_all() {
        let (mut confirms, now, peers) = (Confirms::default(), Instant::now(), peers(20));
        confirms.add("t", item(1), 1, now + S(10), now);
        let mut asked = BTreeSet::new();
        let mut at = now;
        for expected in [3, 6, 12, 20, 20] {
            asked.extend(confirms.due(at, |_| peers.clone()).into_iter().map(|question| question.peer));
            assert_eq!(asked.len(), expected);
            let next = confirms.deadline(at).unwrap();
            assert!(next > at && next <= at + S(4));
            at += WIDEN;
        }
    }

    #[test]
    fn messages_of_a_topic_are_asked_about_together_and_none_is_held_up_by_another_for_long() {
        let (mut confirms, now, peers) = (Confirms::default(), Instant::now(), peers(1));
        for n in 0..100 {
            confirms.add("t", item(n), 1, now + S(10), now);
            confirms.add("u", item(n), 1, now + S(10), now);
        }
        let asked = confirms.due(now, |_| peers.clone());
        assert_eq!(asked.iter().map(|question| question.items.len()).collect::<Vec<_>>(), [MAX_ASKED; 2]);
        let done = confirms.answered(peers[0], "t", &(0..64).collect::<Vec<_>>()).unwrap();
        assert_eq!(done.len(), 64);
        let next = confirms.due(now, |_| peers.clone());
        assert_eq!(next[0].items, (64..100).map(item).collect::<Vec<_>>());
        assert_eq!(confirms.give_up().len(), 136);
    }

    #[test]
    fn who_is_silent_or_fails_is_asked_again_later_and_costs_nothing_meanwhile() {
        let (mut confirms, now, peers) = (Confirms::default(), Instant::now(), peers(1));
        confirms.add("t", item(1), 1, now + S(60), now);
        confirms.due(now, |_| peers.clone());
        assert!(confirms.silent(now + S(3)).is_empty());
        let late = now + S(4);
        assert_eq!(confirms.silent(late), [(peers[0], "t".to_owned())]);
        confirms.failed(peers[0], "t", late);
        assert!(confirms.due(late, |_| peers.clone()).is_empty());
        assert!(confirms.deadline(late).unwrap() > late);
        assert_eq!(confirms.due(late + AGAIN, |_| peers.clone()).len(), 1);
        confirms.gone(&peers[0]);
        confirms.give_up();
        assert_eq!(confirms.deadline(late), None);
    }
}
