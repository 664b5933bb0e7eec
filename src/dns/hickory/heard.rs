//! Which name servers answered lately, and for what: it tells a dead server from one that is silent for a name.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// For how long an answer shows that a server lives.
const LATELY: Duration = Duration::from_secs(60);
/// Servers that are remembered.
const MAX_SERVERS: usize = 64;
/// Names that are remembered of each: enough that some are not those that it is silent for.
const MAX_NAMES: usize = 8;

/// The last answers of each server, the newest last.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<HashMap<SocketAddr, Vec<(String, Instant)>>>);

impl Heard {
    /// `server` answered for `name`, whatever the answer.
    pub(super) fn note(&self, server: SocketAddr, name: &str, now: Instant) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() >= MAX_SERVERS && !heard.contains_key(&server) {
            heard.clear();
        }
        let names = heard.entry(server).or_default();
        names.retain(|(known, _)| known != name);
        if names.len() >= MAX_NAMES {
            names.remove(0);
        }
        names.push((name.to_owned(), now));
    }

    /// Whether each of `servers` answered lately for a name that is none of `names`.
    pub(super) fn of_others(&self, servers: &[SocketAddr], names: &[String], now: Instant) -> bool {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let other = |(name, at): &(String, Instant)| {
            !names.contains(name) && now.saturating_duration_since(*at) < LATELY
        };
        !servers.is_empty()
            && servers.iter().all(|s| heard.get(s).is_some_and(|names| names.iter().any(other)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_answers_for_other_names_is_not_dead() {
        let (heard, now) = (Heard::default(), Instant::now());
        let [one, two]: [SocketAddr; 2] = ["10.0.0.1:53", "10.0.0.2:53"].map(|at| at.parse().unwrap());
        let silent_for = ["peer".to_owned()];
        let of_others = |servers: &[SocketAddr], at| heard.of_others(servers, &silent_for, at);
        assert!(!of_others(&[one], now) && !of_others(&[], now));
        heard.note(one, "peer", now);
        assert!(!of_others(&[one], now), "its own answers prove nothing");
        heard.note(one, "other", now);
        assert!(of_others(&[one], now) && !of_others(&[one, two], now));
        assert!(!of_others(&[one], now + LATELY), "that was long ago");
        (0..100).for_each(|n| heard.note(one, &format!("name-{n}"), now));
        assert_eq!(heard.0.lock().unwrap()[&one].len(), MAX_NAMES);
        (0..100_u16).for_each(|n| heard.note(([10, 0, 0, 3], n).into(), "name", now));
        assert!(heard.0.lock().unwrap().len() <= MAX_SERVERS);
    }
}
