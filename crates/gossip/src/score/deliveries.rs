//! What is remembered of messages because of who brought them.
//!
//! Stock peers keep a record of every message for two minutes. Nothing but this can still change a score: a message
//! whose worth is not known yet, one that was accepted within its topic's window, and one that was invalid.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::{Duration, Instant},
};

use crate::{
    SeenSet,
    fingerprint::{BuildFingerprintHasher, Fingerprint},
};

/// How much is remembered of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryLimits {
    /// How long a message waits for its verdict, and how long an invalid one is remembered.
    pub time: Duration,
    /// Messages whose copies count, at most.
    pub open: usize,
    /// Invalid messages that are remembered, at most.
    pub invalid: usize,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(120), open: 16_384, invalid: 65_536 }
    }
}

/// Peers of one message that are remembered.
const MOST_PEERS: usize = 64;

#[derive(Debug)]
pub(super) struct Deliveries {
    limits: DeliveryLimits,
    open: HashMap<Fingerprint, Record, BuildFingerprintHasher>,
    /// What was opened or accepted when; the oldest first. What has another time by now has another place, too.
    order: VecDeque<(Instant, Fingerprint)>,
    invalid: SeenSet,
}

#[derive(Debug)]
struct Record {
    since: Instant,
    /// Until when copies count, once it was accepted.
    until: Option<Instant>,
    /// Who brought it, by number.
    peers: Vec<u32>,
}

/// What a copy means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// Nothing, or not yet.
    Nothing,
    /// It counts.
    InTime,
    /// It is a copy of something invalid.
    Invalid,
}

impl Deliveries {
    pub(super) fn new(limits: DeliveryLimits) -> Self {
        let invalid = SeenSet::new(limits.time, limits.invalid);
        Self { limits, open: HashMap::default(), order: VecDeque::new(), invalid }
    }

    pub(super) fn begin(&mut self, message: Fingerprint, now: Instant) {
        self.expire(now);
        self.place(message, Record { since: now, until: None, peers: Vec::new() });
    }

    /// Returns who brought it up to now.
    pub(super) fn accept(
        &mut self,
        message: Fingerprint,
        first: Option<u32>,
        now: Instant,
        window: Duration,
    ) -> Vec<u32> {
        self.expire(now);
        let brought = match self.open.remove(&message) {
            // It was accepted already.
            Some(record) if record.until.is_some() => {
                self.open.insert(message, record);
                return Vec::new();
            }
            Some(record) => record.peers,
            None => Vec::new(),
        };
        if !window.is_zero() {
            let mut peers = brought.clone();
            peers.extend(first);
            let until = now.checked_add(window.min(self.limits.time));
            self.place(message, Record { since: now, until, peers });
        }
        brought
    }

    /// Returns who brought it up to now.
    pub(super) fn reject(&mut self, message: Fingerprint, now: Instant) -> Vec<u32> {
        self.invalid.insert(message, now);
        self.open.remove(&message).map(|record| record.peers).unwrap_or_default()
    }

    pub(super) fn was_rejected(&self, message: &Fingerprint) -> bool {
        self.invalid.contains(message)
    }

    pub(super) fn forget(&mut self, message: &Fingerprint) {
        self.open.remove(message);
    }

    pub(super) fn copy(&mut self, message: &Fingerprint, peer: u32, now: Instant) -> Copy {
        let Some(record) = self.open.get_mut(message) else {
            return if self.invalid.contains(message) { Copy::Invalid } else { Copy::Nothing };
        };
        if record.peers.contains(&peer) || record.peers.len() >= MOST_PEERS {
            return Copy::Nothing;
        }
        match record.until {
            None => {
                record.peers.push(peer);
                Copy::Nothing
            }
            Some(until) if now <= until => {
                record.peers.push(peer);
                Copy::InTime
            }
            Some(_) => Copy::Nothing,
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.invalid.expire(now);
        while let Some((since, message)) = self.order.front().copied() {
            match self.open.entry(message) {
                Entry::Occupied(record) if record.get().since == since => {
                    let end = record.get().until.or_else(|| since.checked_add(self.limits.time));
                    if end.is_some_and(|end| end >= now) {
                        break;
                    }
                    record.remove();
                }
                // It is gone, or was accepted meanwhile.
                _ => {}
            }
            self.order.pop_front();
        }
        // What a burst took is given back once it is over.
        if self.open.capacity() > 64 && self.open.len() < self.open.capacity() / 4 {
            self.open.shrink_to(self.open.len() * 2);
        }
        if self.order.capacity() > 64 && self.order.len() < self.order.capacity() / 4 {
            self.order.shrink_to(self.order.len() * 2);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let peers: usize = self.open.values().map(|record| record.peers.capacity() * 4).sum();
        let record = size_of::<(Fingerprint, Record)>() + 1;
        let order = size_of::<(Instant, Fingerprint)>();
        self.open.capacity() * record + peers + self.order.capacity() * order + self.invalid.bytes()
    }

    fn place(&mut self, message: Fingerprint, record: Record) {
        self.order.push_back((record.since, message));
        self.open.insert(message, record);
        // Messages without a verdict, or windows that are long: the oldest go.
        while self.order.len() > self.limits.open.max(1) {
            if let Some((since, oldest)) = self.order.pop_front()
                && self.open.get(&oldest).is_some_and(|record| record.since == since)
            {
                self.open.remove(&oldest);
            }
        }
    }
}
