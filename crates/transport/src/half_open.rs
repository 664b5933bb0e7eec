//! Incoming connections that nothing is proved of yet: how many there may be, in all and from one address, and which
//! gives way to a newcomer.
//!
//! An honest one is over within a few round trips; whoever begins and never ends must not keep the others out. Pure but
//! for the [`Cut`], which the owner of a connection watches.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
    time::{Duration, Instant},
};

use futures::task::AtomicWaker;

use crate::multiaddr::host;

/// The bounds of a [`HalfOpen`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Simultaneously.
    pub(crate) total: usize,
    /// Of these, from one address; of IPv6, from one /64.
    pub(crate) per_address: usize,
    /// How long one is left alone whose address is proved: as long as an honest one may take on a slow machine.
    pub(crate) grace: Duration,
}

/// Says that a connection has given way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cut(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    cut: AtomicBool,
    waker: AtomicWaker,
}

impl Cut {
    /// Whether the connection has given way; wakes the task if it does later.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> bool {
        self.0.waker.register(cx.waker());
        self.is_cut()
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.cut.load(Ordering::Acquire)
    }

    fn cut(&self) {
        self.0.cut.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

#[derive(Debug)]
struct Entry {
    from: IpAddr,
    /// Whether the address has been proved to be its own.
    is_proved: bool,
    since: Instant,
    cut: Cut,
}

/// What counts the connections on their way.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    bounds: Bounds,
    next: u64,
    /// By age, the oldest first.
    all: BTreeMap<u64, Entry>,
}

/// One of those counted; forgotten by [`HalfOpen::end`].
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) number: u64,
    pub(crate) cut: Cut,
}

impl HalfOpen {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, next: 0, all: BTreeMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Counts one more, for which another may have to give way; `None`: there is no room for it.
    pub(crate) fn begin(&mut self, from: IpAddr, is_proved: bool, now: Instant) -> Option<Ticket> {
        let from = host(from);
        let of_address = |entry: &Entry| entry.from == from;
        if self.all.values().filter(|entry| of_address(entry)).count() >= self.bounds.per_address {
            self.make_room(of_address, now)?;
        } else if self.all.len() >= self.bounds.total {
            self.make_room(|_| true, now)?;
        }
        Some(self.count(from, is_proved, now))
    }

    /// Counts one more that is wanted, whatever the bounds.
    pub(crate) fn begin_wanted(&mut self, from: IpAddr, now: Instant) -> Ticket {
        self.count(host(from), true, now)
    }

    fn count(&mut self, from: IpAddr, is_proved: bool, since: Instant) -> Ticket {
        let (number, cut) = (self.next, Cut::default());
        self.next += 1;
        self.all.insert(number, Entry { from, is_proved, since, cut: cut.clone() });
        Ticket { number, cut }
    }

    /// Cuts the oldest of `those` whose address is not proved; if all are, the oldest of them past its grace.
    fn make_room(&mut self, those: impl Fn(&Entry) -> bool, now: Instant) -> Option<()> {
        let is_late = |entry: &Entry| now.saturating_duration_since(entry.since) >= self.bounds.grace;
        let mut them = self.all.iter().filter(|(_, entry)| those(entry));
        let oldest = them.clone().find(|(_, entry)| !entry.is_proved);
        let (number, _) = oldest.or_else(|| them.next().filter(|(_, entry)| is_late(entry)))?;
        let number = *number;
        self.all.remove(&number)?.cut.cut();
        Some(())
    }

    /// Forgets one: it has proved itself, failed, or was given up.
    pub(crate) fn end(&mut self, number: u64) {
        self.all.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { total: 8, per_address: 4, grace: Duration::from_millis(500) };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn v4(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn the_oldest_whose_address_is_not_proved_gives_way_at_once_and_a_proved_one_after_its_grace() {
        let (mut half_open, now) = (HalfOpen::new(BOUNDS), Instant::now());
        let begun: Vec<_> = (0..8).map(|n| half_open.begin(v4(n), n % 2 == 0, now).unwrap()).collect();
        let cut = |begun: &[Ticket]| begun.iter().map(|t| t.cut.is_cut()).collect::<Vec<_>>();
        assert_eq!(cut(&begun), [false; 8]);
        for n in 0..4 {
            assert!(half_open.begin(v4(100 + n), true, now).is_some());
        }
        assert_eq!(cut(&begun), [false, true, false, true, false, true, false, true]);
        assert!(half_open.begin(v4(200), true, now).is_none(), "all are new, and proved");
        assert_eq!(half_open.len(), 8);
        let later = now + BOUNDS.grace;
        assert!(half_open.begin(v4(200), true, later).is_some());
        assert!(begun[0].cut.is_cut());
        half_open.end(begun[2].number);
        half_open.end(begun[2].number);
        assert_eq!(half_open.len(), 7);
    }

    #[test]
    fn one_address_has_its_share_and_takes_nothing_from_others() {
        for (addresses, is_one) in [
            (["10.0.0.1", "::ffff:10.0.0.1"], true),
            (["2001:db8::1", "2001:db8::2:0:0:1"], true),
            (["2001:db8::1", "2001:db8:0:1::1"], false),
        ] {
            let (mut half_open, now) = (HalfOpen::new(BOUNDS), Instant::now());
            let other = half_open.begin(v4(9), false, now).unwrap();
            let from = |n: usize| ip(addresses[n % 2]);
            let let_in = (0..100).filter(|n| half_open.begin(from(*n), true, now).is_some()).count();
            assert_eq!(let_in == 4, is_one, "{addresses:?}: {let_in}");
            if is_one {
                assert!(!other.cut.is_cut(), "{addresses:?}");
                // Its own give way, not those of others.
                assert!(half_open.begin(from(0), true, now + BOUNDS.grace).is_some());
                assert!(!other.cut.is_cut(), "{addresses:?}");
            }
            assert!(half_open.len() <= BOUNDS.total);
        }
    }
}
