//! Publishes that wait for subscribers, for room in the queues to them, or for their turn.
//!
//! Pure: the loop says which peer subscribed and what time it is, and gets back what is to be published or
//! refused. What finds all queues full is tried again, in the order in which it came, within its time.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use smidge_catchup::Item;

use super::{catchup::Ticket, command::PublishOptions, error::Error, event::Receipt};

/// A publish that waits, of one message or of several in their order, with `T` for who waits for their outcomes.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    pub(crate) topic: String,
    /// Not published yet; never empty.
    pub(crate) messages: VecDeque<Vec<u8>>,
    /// Of the messages before those.
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) waiter: T,
    /// Peers to wait for; `None`: one, or a subscriber at this node.
    pub(crate) wanted: Option<usize>,
    /// How many others are to confirm each message, and what is known of those that went out, by their outcomes.
    pub(crate) confirm: usize,
    pub(crate) tickets: Vec<(usize, Ticket)>,
    /// What the last of them is about.
    pub(crate) last: Option<Item>,
    pub(crate) patience: Duration,
    pub(crate) deadline: Option<Instant>,
    held: Option<Held>,
}

/// What came of a message.
pub(crate) type Outcome = Result<Receipt, Error>;

/// Why a publish has to wait although enough have subscribed, and when it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    why: Hold,
    again: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The queues to so many peers are full.
    Full { peers: usize },
    /// Others of the loop have their turn first.
    Turn,
}

/// How long queues that are full are given before they are tried again. A peer takes some hundred messages
/// meanwhile.
const RETRY: Duration = Duration::from_millis(20);

/// Who follows a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct There {
    pub(crate) peers: usize,
    /// At this node.
    pub(crate) here: usize,
}

impl<T> Waiting<T> {
    fn is_heard(&self, there: There) -> bool {
        match self.wanted {
            Some(peers) => there.peers >= peers,
            None => there.peers > 0 || there.here > 0,
        }
    }
}

/// Publishes in the order in which they came.
#[derive(Debug)]
pub(crate) struct PendingPublishes<T> {
    waiting: Vec<Waiting<T>>,
    limit: usize,
}

impl<T> PendingPublishes<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { waiting: Vec::new(), limit }
    }

    /// Takes a publish in; gives its waiter back with the error if there are too many already.
    pub(crate) fn push(
        &mut self,
        topic: String,
        messages: Vec<Vec<u8>>,
        options: PublishOptions,
        waiter: T,
        now: Instant,
    ) -> Result<(), (T, Error)> {
        if self.is_full() {
            let error = Error::Limit { what: "waiting publishes", limit: self.limit, key: "limits.pending" };
            return Err((waiter, error));
        }
        self.waiting.push(Waiting {
            topic,
            messages: messages.into(),
            outcomes: Vec::new(),
            waiter,
            wanted: options.wait_peers,
            confirm: options.confirm,
            tickets: Vec::new(),
            last: None,
            patience: options.timeout,
            deadline: now.checked_add(options.timeout),
            held: None,
        });
        Ok(())
    }

    /// Those whose topic has enough subscribers now, oldest first. None overtakes another one of its topic that
    /// waits for room.
    pub(crate) fn take_ready(&mut self, now: Instant, there: impl Fn(&str) -> There) -> Vec<Waiting<T>> {
        let held = |w: &&Waiting<T>| w.held.is_some_and(|held| now < held.again);
        let held: BTreeSet<_> = self.waiting.iter().filter(held).map(|w| w.topic.clone()).collect();
        let ready = self
            .waiting
            .extract_if(.., |w| !held.contains(&w.topic) && w.is_heard(there(&w.topic)))
            .collect();
        // Whose subscribers have gone meanwhile waits for others, and is no longer due.
        for w in &mut self.waiting {
            w.held = w.held.filter(|held| now < held.again);
        }
        ready
    }

    /// Takes those of one topic back that could not be published, oldest first; gives back those whose time is up
    /// where there is no room, each with what their messages come to.
    pub(crate) fn hold(
        &mut self,
        publishes: impl IntoIterator<Item = Waiting<T>>,
        why: Hold,
        now: Instant,
    ) -> Vec<(Waiting<T>, Error)> {
        let (again, full) = match why {
            Hold::Full { peers } => (now + RETRY, Some(peers)),
            Hold::Turn => (now, None),
        };
        let is_late = |w: &Waiting<T>| full.is_some() && w.deadline.is_some_and(|at| at <= now);
        let (late, mut held): (Vec<_>, Vec<_>) = publishes.into_iter().partition(is_late);
        for w in &mut held {
            w.held = Some(Held { why, again });
        }
        self.waiting.splice(..0, held);
        late.into_iter().map(|w| (w, Error::Congested(full.unwrap_or_default()))).collect()
    }

    /// Those whose time is up, each with what their messages come to.
    pub(crate) fn take_late(
        &mut self,
        now: Instant,
        there: impl Fn(&str) -> There,
    ) -> Vec<(Waiting<T>, Error)> {
        let has_turn =
            |w: &Waiting<T>| w.held.is_some_and(|held| held.why == Hold::Turn) && w.is_heard(there(&w.topic));
        self.waiting
            .extract_if(.., |w| w.deadline.is_some_and(|at| at <= now) && !has_turn(w))
            .map(|w| {
                let there = there(&w.topic);
                let error = match w.held {
                    Some(Held { why: Hold::Full { peers }, .. }) => Error::Congested(peers),
                    // It stood behind one that waits for room.
                    _ if w.is_heard(there) => Error::Congested(there.peers),
                    _ => Error::NoPeers {
                        there: there.peers,
                        wanted: w.wanted.unwrap_or(1),
                        topic: w.topic.clone(),
                        waited: w.patience,
                    },
                };
                (w, error)
            })
            .collect()
    }

    /// All of them, for a node that ends.
    pub(crate) fn take_all(&mut self) -> Vec<Waiting<T>> {
        std::mem::take(&mut self.waiting)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let again = |w: &Waiting<T>| w.held.map(|held| held.again);
        self.waiting.iter().flat_map(|w| [w.deadline, again(w)]).flatten().min()
    }

    /// Whether what is ready waits for the next turn of the loop.
    pub(crate) fn awaits_turn(&self) -> bool {
        self.waiting.iter().any(|w| w.held.is_some_and(|held| held.why == Hold::Turn))
    }

    /// Topics with something that waits for subscribers.
    pub(crate) fn unheard(&self, there: impl Fn(&str) -> There) -> impl Iterator<Item = &str> {
        self.waiting.iter().filter(move |w| !w.is_heard(there(&w.topic))).map(|w| w.topic.as_str())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= self.limit
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn options(wait_peers: usize, timeout: u64) -> PublishOptions {
        PublishOptions { wait_peers: Some(wait_peers), timeout: S(timeout), confirm: 0 }
    }

    fn peers(peers: usize) -> There {
        There { peers, here: 0 }
    }

    fn waiters_of<T>(late: Vec<(Waiting<T>, Error)>) -> Vec<(T, Error)> {
        late.into_iter().map(|(w, error)| (w.waiter, error)).collect()
    }

    #[test]
    fn a_publish_goes_out_as_soon_as_enough_have_subscribed() {
        let now = Instant::now();
        let mut publishes = PendingPublishes::new(8);
        publishes.push("a".into(), vec![vec![1]], options(2, 10), 1, now).unwrap();
        publishes.push("b".into(), vec![vec![2]], options(1, 10), 2, now).unwrap();
        publishes.push("a".into(), vec![vec![3]], options(1, 10), 3, now).unwrap();
        assert!(publishes.take_ready(now, |_| peers(0)).is_empty(), "nobody is never enough");
        let ready = |p: &mut PendingPublishes<i32>, n: usize| -> Vec<i32> {
            p.take_ready(now, |t| peers(if t == "a" { n } else { 0 })).into_iter().map(|w| w.waiter).collect()
        };
        assert_eq!(ready(&mut publishes, 1), [3]);
        assert_eq!(ready(&mut publishes, 2), [1]);
        assert!(!publishes.is_empty());
    }

    #[test]
    fn a_publish_that_waits_for_nobody_goes_out_to_whoever_is_there() {
        let now = Instant::now();
        let mut publishes = PendingPublishes::new(8);
        publishes.push("a".into(), vec![vec![1]], options(0, 0), 1, now).unwrap();
        assert_eq!(publishes.take_ready(now, |_| peers(0)).len(), 1);
        assert!(publishes.is_empty());
    }

    #[test]
    fn a_subscriber_here_is_enough_where_no_number_of_peers_is_asked_for() {
        let now = Instant::now();
        let mut publishes = PendingPublishes::new(8);
        let any = PublishOptions { timeout: S(10), ..PublishOptions::default() };
        publishes.push("a".into(), vec![vec![1]], any, 1, now).unwrap();
        publishes.push("a".into(), vec![vec![2]], options(1, 10), 2, now).unwrap();
        assert!(publishes.take_ready(now, |_| peers(0)).is_empty(), "nobody is never enough");
        let ready = publishes.take_ready(now, |_| There { peers: 0, here: 1 });
        assert_eq!(ready.iter().map(|w| w.waiter).collect::<Vec<_>>(), [1], "the other one asks for a peer");
        publishes.push("b".into(), vec![vec![3]], any, 3, now).unwrap();
        assert_eq!(publishes.take_ready(now, |_| peers(1)).len(), 2);
    }

    #[test]
    fn a_late_publish_is_told_how_many_were_there() {
        let now = Instant::now();
        let mut publishes = PendingPublishes::new(8);
        publishes.push("a".into(), vec![vec![]], options(3, 5), (), now).unwrap();
        assert_eq!(publishes.deadline(), Some(now + S(5)));
        assert!(publishes.take_late(now + S(4), |_| peers(1)).is_empty());
        let late = waiters_of(publishes.take_late(now + S(5), |_| peers(1)));
        let error = Error::NoPeers { topic: "a".into(), there: 1, wanted: 3, waited: S(5) };
        assert_eq!(late, [((), error)]);
        assert_eq!(publishes.deadline(), None);
    }

    #[test]
    fn what_finds_full_queues_is_tried_again_in_order_and_holds_up_no_other_topic() {
        let now = Instant::now();
        let mut publishes = PendingPublishes::new(8);
        publishes.push("full".into(), vec![vec![1]], options(1, 10), 1, now).unwrap();
        publishes.push("full".into(), vec![vec![2]], options(1, 10), 2, now).unwrap();
        let ready = publishes.take_ready(now, |_| peers(1));
        assert_eq!(waiters_of(publishes.hold(ready, Hold::Full { peers: 3 }, now)), []);
        publishes.push("full".into(), vec![vec![3]], options(1, 0), 3, now).unwrap();
        publishes.push("other".into(), vec![vec![4]], options(1, 10), 4, now).unwrap();
        let waiters = |ready: Vec<Waiting<i32>>| ready.into_iter().map(|w| w.waiter).collect::<Vec<_>>();
        assert_eq!(waiters(publishes.take_ready(now, |_| peers(1))), [4]);
        assert_eq!(publishes.deadline(), Some(now), "the third waits for nothing");
        assert_eq!(waiters_of(publishes.take_late(now, |_| peers(2))), [(3, Error::Congested(2))]);
        publishes.push("full".into(), vec![vec![3]], options(1, 0), 3, now).unwrap();
        let later = now + RETRY;
        let ready = publishes.take_ready(later, |_| peers(1));
        assert_eq!(ready.iter().map(|w| w.waiter).collect::<Vec<_>>(), [1, 2, 3]);
        // Still full: a publish without time is answered now, the others wait on.
        let late = publishes.hold(ready, Hold::Full { peers: 3 }, later);
        assert_eq!(waiters_of(late), [(3, Error::Congested(3))]);
        assert_eq!(publishes.deadline(), Some(later + RETRY));
        let late = publishes.take_late(now + S(10), |_| peers(1));
        assert_eq!(waiters_of(late), [1, 2].map(|w| (w, Error::Congested(3))));
        assert!(publishes.is_empty());
    }

    #[test]
    fn what_waits_for_its_turn_is_published_however_little_time_it_has() {
        let now = Instant::now();
        let mut publishes = PendingPublishes::new(8);
        publishes.push("a".into(), vec![vec![1], vec![2]], options(1, 0), 1, now).unwrap();
        let mut ready = publishes.take_ready(now, |_| peers(1));
        ready[0].messages.pop_front();
        assert_eq!(waiters_of(publishes.hold(ready, Hold::Turn, now)), []);
        assert_eq!((publishes.deadline(), publishes.awaits_turn()), (Some(now), true));
        assert_eq!(waiters_of(publishes.take_late(now, |_| peers(1))), [], "it is ready");
        let ready = publishes.take_ready(now, |_| peers(1));
        assert_eq!(ready[0].messages, [vec![2]]);
        publishes.hold(ready, Hold::Turn, now);
        let late = waiters_of(publishes.take_late(now, |_| peers(0)));
        assert!(matches!(late[..], [(1, Error::NoPeers { .. })]), "subscribers have gone: {late:?}");
    }

    #[test]
    fn what_has_lost_its_subscribers_is_due_no_more_until_its_time_is_up() {
        let now = Instant::now();
        for why in [Hold::Turn, Hold::Full { peers: 1 }] {
            let mut publishes = PendingPublishes::new(8);
            publishes.push("a".into(), vec![vec![1]], options(1, 10), 1, now).unwrap();
            let ready = publishes.take_ready(now, |_| peers(1));
            publishes.hold(ready, why, now);
            assert!(publishes.take_ready(now + RETRY, |_| peers(0)).is_empty());
            assert_eq!((publishes.deadline(), publishes.awaits_turn()), (Some(now + S(10)), false));
        }
    }

    #[test]
    fn waiting_publishes_are_bounded() {
        let now = Instant::now();
        let mut publishes = PendingPublishes::new(1);
        publishes.push("a".into(), vec![vec![]], options(1, u64::MAX), 1, now).unwrap();
        assert_eq!(publishes.deadline(), None, "a deadline past the clock's end is never");
        let (waiter, error) = publishes.push("a".into(), vec![vec![]], options(1, 5), 2, now).unwrap_err();
        assert_eq!(waiter, 2);
        assert!(matches!(error, Error::Limit { limit: 1, .. }));
    }
}
