//! Connections in the closing or draining state (RFC 9000, 10.2). Never receives or sends by itself.
//!
//! For three probe timeouts after a close, a peer may still be sending: because it has not received
//! the close, or because its packets were in flight. If the connection were forgotten immediately, the peer would see
//! it broken (a stateless reset) instead of closed. Only the packet that carried our CONNECTION_CLOSE is kept;
//! after a close by the peer, not even that.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use quinn_proto::Transmit;

/// Most closing connections of an endpoint; beyond, the oldest is forgotten early.
const MOST: usize = 256;

/// A packet with our CONNECTION_CLOSE.
pub(super) struct ClosePacket {
    pub(super) transmit: Transmit,
    pub(super) bytes: Box<[u8]>,
}

struct Closed {
    until: Instant,
    /// `None` when the peer closed: then nothing may be sent any more (RFC 9000, 10.2.2).
    close_packet: Option<ClosePacket>,
    /// Datagrams received since.
    seen: u64,
}

/// Closing and draining connections, by the handle that they still occupy.
#[derive(Default)]
pub(super) struct ClosingConnections {
    closed: HashMap<usize, Closed>,
    order: BTreeSet<(Instant, usize)>,
}

impl ClosingConnections {
    /// Remembers a closed connection. Returns the one that has to be forgotten for it, if any.
    pub(super) fn insert(
        &mut self,
        handle: usize,
        until: Instant,
        close_packet: Option<ClosePacket>,
    ) -> Option<usize> {
        let early = if self.closed.len() >= MOST { self.pop() } else { None };
        self.closed.insert(handle, Closed { until, close_packet, seen: 0 });
        self.order.insert((until, handle));
        early
    }

    /// The packet to send in response to a datagram for `handle`: to the first one, and then each time their
    /// number doubles, so that two closing peers soon fall silent (RFC 9000, 10.2.1).
    pub(super) fn answer(&mut self, handle: usize) -> Option<&ClosePacket> {
        let closed = self.closed.get_mut(&handle)?;
        closed.seen = closed.seen.saturating_add(1);
        closed.close_packet.as_ref().filter(|_| closed.seen.is_power_of_two())
    }

    /// Removes a connection whose closing period is over.
    pub(super) fn expired(&mut self, now: Instant) -> Option<usize> {
        if self.next()? > now {
            return None;
        }
        self.pop()
    }

    /// When the next closing period is over.
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

    fn close_packet() -> ClosePacket {
        ClosePacket {
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
        let mut closing = ClosingConnections::default();
        assert_eq!(closing.insert(7, Instant::now(), Some(close_packet())), None);
        let answered: Vec<u32> = (1..=20).filter(|_| closing.answer(7).is_some()).collect();
        assert_eq!(answered, [1, 2, 4, 8, 16]);
        assert!(closing.answer(8).is_none(), "an unknown handle");
    }

    #[test]
    fn a_connection_that_the_peer_closed_answers_nothing() {
        let mut closing = ClosingConnections::default();
        closing.insert(7, Instant::now(), None);
        assert!((0..20).all(|_| closing.answer(7).is_none()));
    }

    #[test]
    fn connections_are_forgotten_when_their_time_is_over() {
        let (mut closing, now) = (ClosingConnections::default(), Instant::now());
        let at = |s| now + Duration::from_secs(s);
        closing.insert(1, at(3), None);
        closing.insert(2, at(1), None);
        assert_eq!((closing.next(), closing.expired(now)), (Some(at(1)), None));
        assert_eq!((closing.expired(at(1)), closing.expired(at(1))), (Some(2), None));
        assert_eq!((closing.expired(at(5)), closing.expired(at(5))), (Some(1), None));
        assert_eq!((closing.next(), closing.len()), (None, 0));
    }

    #[test]
    fn the_oldest_makes_room_when_there_are_too_many() {
        let (mut closing, now) = (ClosingConnections::default(), Instant::now());
        for n in 0..MOST {
            assert_eq!(closing.insert(n, now + Duration::from_millis(n as u64), None), None);
        }
        assert_eq!(closing.insert(MOST, now + Duration::from_secs(9), None), Some(0));
        assert_eq!(closing.len(), MOST);
    }
}
