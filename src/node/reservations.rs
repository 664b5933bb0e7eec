//! At which relays this node has a slot, and when it asks for one again.
//!
//! Pure: relays that are connected and what became of each request go in, together with the present moment;
//! the relay to ask comes out. A relay that refuses is asked again for as long as it is there.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, core::transport::ListenerId};

use crate::dialer::backoff::Backoff;

/// First pause after a relay refused.
const RETRY_MIN: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be asked at this moment.
    Waiting(Instant),
    /// Asked, by this listener.
    Asked(ListenerId),
    /// A slot is held, by this listener.
    Held(ListenerId),
}

#[derive(Debug)]
struct Relay {
    address: Multiaddr,
    state: State,
    failures: u32,
}

/// Why there is no slot, and when it is asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) relay: PeerId,
    pub(crate) retry_in: Duration,
    /// Whether the one before was refused, too.
    pub(crate) repeated: bool,
}

/// The relays that are connected: there are as many as targets lead to.
#[derive(Debug)]
pub(crate) struct Reservations {
    relays: BTreeMap<PeerId, Relay>,
    backoff: Backoff,
    rng: fastrand::Rng,
}

impl Reservations {
    pub(crate) fn new(retry_max: Duration, rng: fastrand::Rng) -> Self {
        Self { relays: BTreeMap::new(), backoff: Backoff::full_jitter(RETRY_MIN, retry_max), rng }
    }

    /// A relay is connected at `address`, and a slot is wanted there.
    pub(crate) fn found(&mut self, relay: PeerId, address: Multiaddr, now: Instant) {
        let state = State::Waiting(now);
        self.relays.entry(relay).or_insert(Relay { address, state, failures: 0 });
    }

    /// Whether a peer is a relay that a slot is wanted at.
    pub(crate) fn has(&self, peer: &PeerId) -> bool {
        self.relays.contains_key(peer)
    }

    /// The last direct connection to a peer ended; its slot went with it.
    pub(crate) fn gone(&mut self, relay: &PeerId) {
        self.relays.remove(relay);
    }

    /// The next relay to ask at `now`, and where it is.
    pub(crate) fn next(&self, now: Instant) -> Option<(PeerId, Multiaddr)> {
        let due = |relay: &Relay| matches!(relay.state, State::Waiting(at) if at <= now);
        let (peer, relay) = self.relays.iter().find(|(_, relay)| due(relay))?;
        Some((*peer, relay.address.clone()))
    }

    /// When [`next`](Self::next) has a relay without any event.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let waiting = self.relays.values().filter_map(|relay| match relay.state {
            State::Waiting(at) => Some(at),
            State::Asked(_) | State::Held(_) => None,
        });
        waiting.min()
    }

    /// `relay` was asked.
    pub(crate) fn asked(&mut self, relay: &PeerId, listener: ListenerId) {
        if let Some(relay) = self.relays.get_mut(relay) {
            relay.state = State::Asked(listener);
        }
    }

    /// `relay` said yes. Whether that is news.
    pub(crate) fn accepted(&mut self, relay: &PeerId) -> bool {
        let Some(relay) = self.relays.get_mut(relay) else { return false };
        let State::Asked(listener) = relay.state else { return false };
        relay.state = State::Held(listener);
        relay.failures = 0;
        true
    }

    /// A listener ended, or could not be made: if it was for a slot of a relay that is still there, it is asked
    /// again after a while.
    pub(crate) fn closed(&mut self, listener: ListenerId, now: Instant) -> Option<Lost> {
        let by = |relay: &Relay| matches!(relay.state, State::Asked(id) | State::Held(id) if id == listener);
        let (peer, _) = self.relays.iter().find(|(_, relay)| by(relay))?;
        self.refused(*peer, now)
    }

    /// `relay` was not even asked.
    pub(crate) fn refused(&mut self, peer: PeerId, now: Instant) -> Option<Lost> {
        let relay = self.relays.get_mut(&peer)?;
        let repeated = relay.failures > 0;
        relay.failures = relay.failures.saturating_add(1);
        let retry_in = self.backoff.delay(relay.failures, &mut self.rng);
        relay.state = State::Waiting(now + retry_in);
        Some(Lost { relay: peer, retry_in, repeated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(n: u8) -> Multiaddr {
        format!("/ip4/10.0.0.{n}/udp/4001/quic-v1").parse().unwrap()
    }

    fn reservations() -> Reservations {
        Reservations::new(Duration::from_secs(30), fastrand::Rng::with_seed(7))
    }

    #[test]
    fn a_relay_that_refuses_is_asked_again_later_and_later_and_never_given_up() {
        let (mut slots, peer, mut now) = (reservations(), PeerId::random(), Instant::now());
        slots.found(peer, relay(1), now);
        let mut longest = Duration::ZERO;
        for n in 0..200 {
            assert_eq!(slots.next(now), Some((peer, relay(1))), "try {n}");
            let listener = ListenerId::next();
            slots.asked(&peer, listener);
            assert_eq!((slots.next(now), slots.deadline()), (None, None), "one request at a time");
            let lost = slots.closed(listener, now).unwrap();
            assert_eq!((lost.relay, lost.repeated), (peer, n > 0));
            assert!(lost.retry_in <= Duration::from_secs(30), "{lost:?}");
            assert_eq!(slots.next(now), None);
            longest = longest.max(lost.retry_in);
            now = slots.deadline().unwrap();
        }
        assert!(longest > Duration::from_secs(5), "{longest:?}");
    }

    #[test]
    fn a_slot_is_news_once_and_asked_for_again_when_its_listener_ends() {
        let (mut slots, peer, now) = (reservations(), PeerId::random(), Instant::now());
        slots.found(peer, relay(1), now);
        slots.found(peer, relay(2), now);
        assert_eq!(slots.next(now), Some((peer, relay(1))), "a second connection changes nothing");
        let listener = ListenerId::next();
        slots.asked(&peer, listener);
        assert!(slots.accepted(&peer));
        assert!(!slots.accepted(&peer), "renewed");
        assert_eq!(slots.closed(ListenerId::next(), now), None, "some other listener");
        let lost = slots.closed(listener, now).unwrap();
        assert!(!lost.repeated);
        assert!(slots.next(now + lost.retry_in).is_some());
    }

    #[test]
    fn what_a_relay_that_is_gone_had_been_asked_for_is_no_matter_when_it_is_back() {
        let (mut slots, peer, now) = (reservations(), PeerId::random(), Instant::now());
        slots.found(peer, relay(1), now);
        let before = ListenerId::next();
        slots.asked(&peer, before);
        assert!(slots.accepted(&peer));
        slots.gone(&peer);
        assert_eq!((slots.next(now), slots.deadline()), (None, None));
        assert!(!slots.accepted(&peer));
        slots.found(peer, relay(1), now);
        assert_eq!(slots.closed(before, now), None);
        assert_eq!(slots.next(now), Some((peer, relay(1))), "asked immediately");
    }
}
