//! Where this node is to listen, and what cannot be listened on yet.
//!
//! Pure: what the swarm reports and the present moment in, what to try again out. An address that is missing
//! (Wi-Fi that comes up late, a port that another process still has) keeps none of the others from serving.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, core::transport::ListenerId};
use serde::Serialize;

/// The first pause before an address is tried again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// An address that is to be listened on, and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotListening {
    /// Which, as configured.
    pub address: Multiaddr,
    /// Why not.
    pub why: String,
}

/// What to say of an attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missed {
    pub(crate) address: Multiaddr,
    pub(crate) why: String,
    pub(crate) retry_in: Duration,
    /// Whether it failed in the same way before.
    pub(crate) repeated: bool,
}

#[derive(Debug)]
enum State {
    Up(ListenerId),
    Down { why: String, retry: Instant },
}

#[derive(Debug)]
struct Listener {
    address: Multiaddr,
    state: State,
    failures: u32,
}

/// The configured addresses.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Vec<Listener>);

impl Listeners {
    /// `address` was tried at `now`: what became of it, and what to say of that.
    pub(crate) fn tried(
        &mut self,
        address: Multiaddr,
        outcome: Result<ListenerId, String>,
        now: Instant,
    ) -> Option<Missed> {
        let at = self.0.iter().position(|l| l.address == address).unwrap_or_else(|| {
            let state = State::Down { why: String::new(), retry: now };
            self.0.push(Listener { address, state, failures: 0 });
            self.0.len() - 1
        });
        let listener = self.0.get_mut(at)?;
        match outcome {
            Ok(id) => {
                (listener.state, listener.failures) = (State::Up(id), 0);
                None
            }
            Err(why) => Some(listener.failed(why, now)),
        }
    }

    /// A listener ended by itself; it is tried again.
    pub(crate) fn closed(&mut self, id: ListenerId, why: &str, now: Instant) -> Option<Missed> {
        let listener = self.0.iter_mut().find(|l| matches!(l.state, State::Up(up) if up == id))?;
        Some(listener.failed(why.to_owned(), now))
    }

    /// The interfaces changed: what is missing may be there now.
    pub(crate) fn hurry(&mut self, now: Instant) {
        for listener in &mut self.0 {
            if let State::Down { retry, .. } = &mut listener.state {
                *retry = now;
            }
        }
    }

    /// What is to be tried now.
    pub(crate) fn due(&self, now: Instant) -> Vec<Multiaddr> {
        let due = self.0.iter().filter(|l| matches!(l.state, State::Down { retry, .. } if retry <= now));
        due.map(|l| l.address.clone()).collect()
    }

    /// When something is to be tried again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let retries = self.0.iter().filter_map(|l| match l.state {
            State::Down { retry, .. } => Some(retry),
            State::Up(_) => None,
        });
        retries.min()
    }

    /// What cannot be listened on now.
    pub(crate) fn missing(&self) -> Vec<NotListening> {
        let missing = self.0.iter().filter_map(|l| match &l.state {
            State::Down { why, .. } => Some(NotListening { address: l.address.clone(), why: why.clone() }),
            State::Up(_) => None,
        });
        missing.collect()
    }

    /// Whether any of them is up.
    pub(crate) fn serves(&self) -> bool {
        self.0.iter().any(|l| matches!(l.state, State::Up(_)))
    }
}

impl Listener {
    fn failed(&mut self, why: String, now: Instant) -> Missed {
        let repeated = matches!(&self.state, State::Down { why: before, .. } if *before == why);
        let retry_in = RETRY_MIN.saturating_mul(1 << self.failures.min(8)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Down { why: why.clone(), retry: now + retry_in };
        Missed { address: self.address.clone(), why, retry_in, repeated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{n}").parse().unwrap()
    }

    #[test]
    fn what_is_missing_is_tried_again_ever_more_seldom_and_said_once() {
        let (mut listeners, start) = (Listeners::default(), Instant::now());
        let secs = Duration::from_secs;
        let up = ListenerId::next();
        assert_eq!(listeners.tried(address(1), Ok(up), start), None);
        let mut now = start;
        let mut pauses = Vec::new();
        for n in 0..7 {
            let missed = listeners.tried(address(2), Err("no such address".into()), now).unwrap();
            assert_eq!((missed.repeated, missed.address), (n > 0, address(2)));
            pauses.push(missed.retry_in.as_secs());
            assert!(listeners.due(now).is_empty());
            now += missed.retry_in;
            assert_eq!((listeners.deadline(), listeners.due(now)), (Some(now), vec![address(2)]));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert!(!listeners.tried(address(2), Err("in use".into()), now).unwrap().repeated, "another reason");
        assert_eq!(listeners.missing(), [NotListening { address: address(2), why: "in use".into() }]);
        listeners.hurry(now);
        assert_eq!(listeners.due(now), [address(2)]);
        assert_eq!(listeners.tried(address(2), Ok(ListenerId::next()), now), None);
        assert!(listeners.missing().is_empty() && listeners.deadline().is_none());
        // One that ends begins anew.
        let missed = listeners.closed(up, "gone", now).unwrap();
        assert_eq!((missed.retry_in, missed.repeated), (secs(1), false));
        assert!(listeners.closed(up, "gone", now).is_none() && listeners.serves());
    }
}
