//! Connections that are closed and not forgotten yet (RFC 9000, 10.2).
//!
//! For three probe time-outs after a close, a peer may still be sending: because it has not heard of
//! the close, or because its packets were under way. To it, a connection that was forgotten at once
//! looks broken (a stateless reset), not closed. What is kept for that is the packet that carried
//! our CONNECTION_CLOSE and nothing else of the connection; after a close by the peer, not even that.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use quinn_proto::Transmit;

/// Closed connections that an endpoint remembers at once. With more of them the oldest are forgotten
/// early, as all were before there was this list.
const MOST: usize = 256;

/// A packet with our CONNECTION_CLOSE.
pub(super) struct Farewell {
    pub(super) transmit: Transmit,
    pub(super) bytes: Box<[u8]>,
}

struct Closed {
    until: Instant,
    /// `None` when the peer closed: then nothing may be sent any more (RFC 9000, 10.2.2).
    farewell: Option<Farewell>,
    /// Datagrams that came since.
    seen: u64,
}

/// Closed connections by the handle they still occupy.
#[derive(Default)]
pub(super) struct Lingering {
    closed: HashMap<usize, Closed>,
    order: BTreeSet<(Instant, usize)>,
}

impl Lingering {
    /// Remembers a closed connection. Returns the one that has to be forgotten for it, if any.
    pub(super) fn insert(
        &mut self,
        handle: usize,
        until: Instant,
        farewell: Option<Farewell>,
    ) -> Option<usize> {
        let early = if self.closed.len() >= MOST { self.pop() } else { None };
        self.closed.insert(handle, Closed { until, farewell, seen: 0 });
        self.order.insert((until, handle));
        early
    }

    /// What to answer to a datagram for `handle`: the first one, and then ever fewer of them, as
    /// their number doubles. Two peers that both linger fall silent soon.
    pub(super) fn answer(&mut self, handle: usize) -> Option<&Farewell> {
        let closed = self.closed.get_mut(&handle)?;
        closed.seen = closed.seen.saturating_add(1);
        closed.farewell.as_ref().filter(|_| closed.seen.is_power_of_two())
    }

    /// A connection whose time is over, removed.
    pub(super) fn expired(&mut self, now: Instant) -> Option<usize> {
        if self.next()? > now {
            return None;
        }
        self.pop()
    }

    /// When the next connection's time is over.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(until, _)| *until)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.closed.len()
    }

    fn pop(&mut self) -> Option<usize> {
        let (_, handle) = self.order.pop_first()?;
        let closed = self.closed.remove(&handle);
        debug_assert!(closed.is_some_and(|closed| !self.order.contains(&(closed.until, handle))));
        Some(handle)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn farewell() -> Farewell {
        Farewell {
            transmit: Transmit {
                destination: ([127, 0, 0, 1], 1).into(),
                ecn: None,
                size: 3,
                segment_size: None,
                src_ip: None,
            },
            bytes: Box::new([1, 2, 3]),
        }
    }

    #[test]
    fn a_closed_connection_answers_ever_less_often() {
        let mut lingering = Lingering::default();
        assert_eq!(lingering.insert(7, Instant::now(), Some(farewell())), None);
        let answered: Vec<u32> = (1..=20).filter(|_| lingering.answer(7).is_some()).collect();
        assert_eq!(answered, [1, 2, 4, 8, 16]);
        assert!(lingering.answer(8).is_none(), "nobody's handle");
    }

    #[test]
    fn a_connection_that_the_peer_closed_answers_nothing() {
        let mut lingering = Lingering::default();
        lingering.insert(7, Instant::now(), None);
        assert!((0..20).all(|_| lingering.answer(7).is_none()));
    }

    #[test]
    fn connections_are_forgotten_when_their_time_is_over() {
        let (mut lingering, now) = (Lingering::default(), Instant::now());
        let at = |s| now + Duration::from_secs(s);
        lingering.insert(1, at(3), None);
        lingering.insert(2, at(1), None);
        assert_eq!((lingering.next(), lingering.expired(now)), (Some(at(1)), None));
        assert_eq!((lingering.expired(at(1)), lingering.expired(at(1))), (Some(2), None));
        assert_eq!((lingering.expired(at(5)), lingering.expired(at(5))), (Some(1), None));
        assert_eq!((lingering.next(), lingering.len()), (None, 0));
    }

    #[test]
    fn the_oldest_makes_room_when_there_are_too_many() {
        let (mut lingering, now) = (Lingering::default(), Instant::now());
        for n in 0..MOST {
            assert_eq!(lingering.insert(n, now + Duration::from_millis(n as u64), None), None);
        }
        assert_eq!(lingering.insert(MOST, now + Duration::from_secs(9), None), Some(0));
        assert_eq!(lingering.len(), MOST);
    }
}
