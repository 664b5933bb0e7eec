//! How often a peer may say anew who and where it is (identify, and its pushes).
//!
//! An honest node says so when it connects and when its addresses change. Of what comes faster only the newest
//! counts, and whoever goes on all the same loses the connection. Pure; what was said is handed in and out.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};

/// Times that a connection may say so in a burst.
const BURST: u32 = 4;
/// The pause that earns it another time.
const PAUSE: Duration = Duration::from_secs(2);
/// Times that a connection may say so in a burst before it is closed, counted or not.
const FLOOD: u32 = 64;
/// The pause that earns it another one of those.
const FLOOD_PAUSE: Duration = Duration::from_millis(100);

/// What is to be done with what was said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict<T> {
    /// It counts now.
    Take(T),
    /// It counts later, unless something newer comes.
    Wait,
    /// Too much was said: the connection is to be closed.
    TooMany,
}

#[derive(Debug)]
struct Said<T> {
    peer: PeerId,
    /// The moment at which nothing counts any more (a leaky bucket).
    until: Instant,
    /// The same of all that was said.
    flood: Instant,
    newest: Option<T>,
}

/// What the connections said that stand.
#[derive(Debug)]
pub(crate) struct Pushes<T>(HashMap<ConnectionId, Said<T>>);

impl<T> Default for Pushes<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Pushes<T> {
    /// A peer said something over a connection.
    pub(crate) fn said(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        what: T,
        now: Instant,
    ) -> Verdict<T> {
        let new = Said { peer, until: now, flood: now, newest: None };
        let said = self.0.entry(connection).or_insert(new);
        said.flood = said.flood.max(now) + FLOOD_PAUSE;
        if said.flood > now + FLOOD_PAUSE * FLOOD {
            return Verdict::TooMany;
        }
        let until = said.until.max(now) + PAUSE;
        if until <= now + PAUSE * BURST && said.newest.is_none() {
            said.until = until;
            return Verdict::Take(what);
        }
        said.newest = Some(what);
        Verdict::Wait
    }

    /// The next that has waited long enough.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(PeerId, ConnectionId, T)> {
        let (connection, said) =
            self.0.iter_mut().find(|(_, said)| said.newest.is_some() && said.due() <= now)?;
        said.until = said.until.max(now) + PAUSE;
        said.newest.take().map(|what| (said.peer, *connection, what))
    }

    /// When [`due`](Self::due) has something next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.values().filter(|said| said.newest.is_some()).map(Said::due).min()
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.0.remove(&connection);
    }
}

impl<T> Said<T> {
    /// When what waits counts.
    fn due(&self) -> Instant {
        let full = PAUSE * (BURST - 1);
        self.until.checked_sub(full).unwrap_or(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_comes_too_fast_the_newest_counts_in_its_time() {
        let (mut pushes, mut now) = (Pushes::default(), Instant::now());
        let (peer, connection) = (PeerId::random(), ConnectionId::new_unchecked(1));
        for n in 0..BURST {
            assert_eq!(pushes.said(peer, connection, n, now), Verdict::Take(n));
        }
        assert_eq!(pushes.deadline(), None);
        for n in 10..20 {
            assert_eq!(pushes.said(peer, connection, n, now), Verdict::Wait);
        }
        assert_eq!(pushes.due(now), None);
        let other = ConnectionId::new_unchecked(2);
        assert_eq!(pushes.said(peer, other, 7, now), Verdict::Take(7), "each connection for itself");
        now = pushes.deadline().unwrap();
        assert_eq!(pushes.due(now), Some((peer, connection, 19)));
        assert_eq!((pushes.due(now), pushes.deadline()), (None, None));
        now += PAUSE * BURST;
        assert_eq!(pushes.said(peer, connection, 30, now), Verdict::Take(30));
    }

    #[test]
    fn whoever_does_not_stop_loses_the_connection_and_a_busy_one_does_not() {
        let (mut pushes, mut now) = (Pushes::default(), Instant::now());
        let (peer, connection) = (PeerId::random(), ConnectionId::new_unchecked(1));
        let verdicts: Vec<_> = (0..=FLOOD).map(|n| pushes.said(peer, connection, n, now)).collect();
        assert_eq!(verdicts.last(), Some(&Verdict::TooMany));
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::TooMany).count(), 1);
        pushes.closed(connection);
        assert_eq!(pushes.deadline(), None);
        // Twice as often as counts, for two hours.
        for n in 0..3600 {
            assert_ne!(pushes.said(peer, connection, n, now), Verdict::TooMany, "{n}");
            now += PAUSE / 2;
            while pushes.due(now).is_some() {}
        }
    }
}
