//! Publishes that wait for subscribers.
//!
//! Pure: the loop says who subscribed and what time it is, and gets back what is to be published or
//! refused. Nothing is retried blindly.

use std::time::{Duration, Instant};

use super::{command::PublishOptions, error::Error};

/// A publish that waits, with `T` for whoever waits with it.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    pub(crate) topic: String,
    pub(crate) data: Vec<u8>,
    pub(crate) waiter: T,
    wanted: usize,
    patience: Duration,
    deadline: Option<Instant>,
}

/// Publishes in the order in which they came.
#[derive(Debug)]
pub(crate) struct Publishes<T> {
    waiting: Vec<Waiting<T>>,
    limit: usize,
}

impl<T> Publishes<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { waiting: Vec::new(), limit }
    }

    /// Takes a publish in; gives its waiter back with the error if there are too many already.
    pub(crate) fn push(
        &mut self,
        topic: String,
        data: Vec<u8>,
        options: PublishOptions,
        waiter: T,
        now: Instant,
    ) -> Result<(), (T, Error)> {
        if self.waiting.len() >= self.limit {
            let error = Error::Limit { what: "waiting publishes", limit: self.limit, key: "limits.pending" };
            return Err((waiter, error));
        }
        self.waiting.push(Waiting {
            topic,
            data,
            waiter,
            wanted: options.wait_peers.max(1),
            patience: options.timeout,
            deadline: now.checked_add(options.timeout),
        });
        Ok(())
    }

    /// Those whose topic has enough subscribers now, oldest first.
    pub(crate) fn take_ready(&mut self, subscribers: impl Fn(&str) -> usize) -> Vec<Waiting<T>> {
        self.waiting.extract_if(.., |w| subscribers(&w.topic) >= w.wanted).collect()
    }

    /// Those whose time is up, each with what to tell.
    pub(crate) fn take_late(&mut self, now: Instant, subscribers: impl Fn(&str) -> usize) -> Vec<(T, Error)> {
        self.waiting
            .extract_if(.., |w| w.deadline.is_some_and(|at| at <= now))
            .map(|w| {
                let there = subscribers(&w.topic);
                (w.waiter, Error::NoPeers { there, topic: w.topic, wanted: w.wanted, waited: w.patience })
            })
            .collect()
    }

    /// All of them, for a node that ends.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> {
        std::mem::take(&mut self.waiting).into_iter().map(|w| w.waiter)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|w| w.deadline).min()
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
        PublishOptions { wait_peers, timeout: S(timeout) }
    }

    #[test]
    fn a_publish_goes_out_as_soon_as_enough_have_subscribed() {
        let now = Instant::now();
        let mut publishes = Publishes::new(8);
        publishes.push("a".into(), vec![1], options(2, 10), 1, now).unwrap();
        publishes.push("b".into(), vec![2], options(0, 10), 2, now).unwrap();
        publishes.push("a".into(), vec![3], options(1, 10), 3, now).unwrap();
        assert!(publishes.take_ready(|_| 0).is_empty(), "nobody is never enough");
        let ready = |p: &mut Publishes<i32>, n: usize| -> Vec<i32> {
            p.take_ready(|t| if t == "a" { n } else { 0 }).into_iter().map(|w| w.waiter).collect()
        };
        assert_eq!(ready(&mut publishes, 1), [3]);
        assert_eq!(ready(&mut publishes, 2), [1]);
        assert!(!publishes.is_empty());
    }

    #[test]
    fn a_late_publish_is_told_how_many_were_there() {
        let now = Instant::now();
        let mut publishes = Publishes::new(8);
        publishes.push("a".into(), vec![], options(3, 5), (), now).unwrap();
        assert_eq!(publishes.deadline(), Some(now + S(5)));
        assert!(publishes.take_late(now + S(4), |_| 1).is_empty());
        let late = publishes.take_late(now + S(5), |_| 1);
        let told = Error::NoPeers { topic: "a".into(), there: 1, wanted: 3, waited: S(5) };
        assert_eq!(late, [((), told)]);
        assert_eq!(publishes.deadline(), None);
    }

    #[test]
    fn waiting_publishes_are_bounded() {
        let now = Instant::now();
        let mut publishes = Publishes::new(1);
        publishes.push("a".into(), vec![], options(1, u64::MAX), 1, now).unwrap();
        assert_eq!(publishes.deadline(), None, "a deadline past the clock's end is never");
        let (waiter, error) = publishes.push("a".into(), vec![], options(1, 5), 2, now).unwrap_err();
        assert_eq!(waiter, 2);
        assert!(matches!(error, Error::Limit { limit: 1, .. }));
    }
}
