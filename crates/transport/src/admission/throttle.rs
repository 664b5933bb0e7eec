//! How often an address may fail before it has to wait: a bucket of failures for each, in a table that
//! cannot grow without bound.
//!
//! Pure: addresses and moments in, verdicts out. Success costs nothing; only failures are counted, so
//! that honest nodes which share an address with a hostile one wait at most as long as it does.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::multiaddr::host;

/// Addresses remembered, at most; then the one that failed longest ago is forgotten.
const MOST_ADDRESSES: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Failures in a burst.
    pub(super) failures: u32,
    /// How long until one more is forgiven.
    pub(super) forgive: Duration,
}

#[derive(Debug)]
pub(super) struct Throttle {
    limits: Limits,
    /// By address, the moment at which all its failures are forgiven.
    until: HashMap<IpAddr, Instant>,
}

impl Throttle {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, until: HashMap::new() }
    }

    /// How long `address` has to wait; `None`: it may try.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let forgiven = self.until.get(&host(address))?.checked_duration_since(now)?;
        let full = self.limits.forgive * self.limits.failures.saturating_sub(1);
        forgiven.checked_sub(full).filter(|wait| !wait.is_zero())
    }

    /// Notes that `address` failed. Says whether nothing was held against it before.
    pub(super) fn failed(&mut self, address: IpAddr, now: Instant) -> bool {
        let address = host(address);
        if self.until.len() >= MOST_ADDRESSES && !self.until.contains_key(&address) {
            self.until.retain(|_, until| *until > now);
            if self.until.len() >= MOST_ADDRESSES {
                let oldest = self.until.iter().min_by_key(|(_, until)| **until).map(|(a, _)| *a);
                oldest.map(|oldest| self.until.remove(&oldest));
            }
        }
        let until = self.until.entry(address).or_insert(now);
        let first = *until <= now;
        let most = self.limits.forgive * self.limits.failures;
        *until = ((*until).max(now) + self.limits.forgive).min(now + most);
        first
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.until.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { failures: 3, forgive: Duration::from_secs(10) };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_may_fail_so_often_and_then_waits() {
        let (mut throttle, now) = (Throttle::new(LIMITS), Instant::now());
        let (bad, good) = (ip("10.0.0.1"), ip("10.0.0.2"));
        for n in 0..3 {
            assert_eq!(throttle.wait(bad, now), None, "failure {n}");
            assert_eq!(throttle.failed(bad, now), n == 0);
        }
        assert_eq!(throttle.wait(bad, now), Some(Duration::from_secs(10)));
        assert_eq!(throttle.wait(good, now), None);
        let later = now + Duration::from_secs(10);
        assert_eq!(throttle.wait(bad, later), None, "one is forgiven");
        throttle.failed(bad, later);
        assert_eq!(throttle.wait(bad, later), Some(Duration::from_secs(10)));
        // However many come simultaneously, the wait does not grow.
        (0..100).for_each(|_| _ = throttle.failed(bad, later));
        assert_eq!(throttle.wait(bad, later), Some(Duration::from_secs(10)));
        let much_later = later + Duration::from_secs(30);
        assert!(throttle.failed(bad, much_later), "all is forgiven");
    }

    #[test]
    fn addresses_of_one_host_are_one() {
        let (mut throttle, now) = (Throttle::new(LIMITS), Instant::now());
        for host in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:3"] {
            throttle.failed(ip(host), now);
        }
        assert!(throttle.wait(ip("2001:db8::4"), now).is_some());
        assert!(throttle.wait(ip("2001:db8:0:1::4"), now).is_none());
        for host in ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1"] {
            throttle.failed(ip(host), now);
        }
        assert!(throttle.wait(ip("10.0.0.1"), now).is_some());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_failed_longest_ago() {
        let (mut throttle, now) = (Throttle::new(LIMITS), Instant::now());
        for n in 0..2 * MOST_ADDRESSES as u32 {
            throttle.failed(IpAddr::from(n.to_be_bytes()), now + Duration::from_millis(n.into()));
            assert!(throttle.len() <= MOST_ADDRESSES);
        }
        let late = now + Duration::from_secs(3600);
        throttle.failed(ip("10.0.0.1"), late);
        assert_eq!(throttle.len(), 1, "those that are forgiven go first");
    }
}
