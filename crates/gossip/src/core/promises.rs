//! What peers announced, we asked for and did not get yet (P7).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::peers::PeerKey;
use crate::{BuildFingerprintHasher, Fingerprint};

/// Promises kept at a time. Beyond it nobody is held to one.
const MOST: usize = 65_536;

#[derive(Debug)]
struct Promise {
    peer: PeerKey,
    until: Instant,
}

/// Asked ids, each of one peer at a time.
#[derive(Debug)]
pub(super) struct Promises {
    open: HashMap<Fingerprint, Promise, BuildFingerprintHasher>,
    time: Duration,
}

impl Promises {
    pub(super) fn new(time: Duration) -> Self {
        Self { open: HashMap::default(), time }
    }

    /// Whether the message is asked for already.
    pub(super) fn contains(&self, id: &Fingerprint) -> bool {
        self.open.contains_key(id)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn add(&mut self, id: Fingerprint, peer: PeerKey, now: Instant) {
        if self.open.len() < MOST {
            self.open.entry(id).or_insert(Promise { peer, until: now + self.time });
        }
    }

    /// The message came, whoever brought it. Returns who was asked.
    pub(super) fn keep(&mut self, id: &Fingerprint) -> Option<PeerKey> {
        self.open.remove(id).map(|promise| promise.peer)
    }

    /// The peer that was asked sent it, and it could not be taken in: that is not the peer's fault. Somebody else may be
    /// asked.
    pub(super) fn release(&mut self, id: &Fingerprint, peer: PeerKey) {
        if self.open.get(id).is_some_and(|promise| promise.peer == peer) {
            self.open.remove(id);
        }
    }

    /// How many promises each peer broke since the last time.
    pub(super) fn broken(&mut self, now: Instant) -> HashMap<PeerKey, usize> {
        let mut broken = HashMap::new();
        self.open.retain(|_, promise| {
            let kept = promise.until >= now;
            if !kept {
                *broken.entry(promise.peer).or_insert(0) += 1;
            }
            kept
        });
        if self.open.is_empty() {
            self.open.shrink_to_fit();
        }
        broken
    }
}
