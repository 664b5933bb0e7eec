//! The discovered peers: what they announced, for how long it is valid, and when to dial them. Pure; never sends.
//!
//! Everything here is an unauthenticated claim from the link: it is bounded, and peers that did not answer are evicted
//! for new ones.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

use super::{
    action::{Action, Notice, Policy, Segment},
    schedule::Bucket,
    wire::Claim,
};
use crate::dialer::{Hold, NameStatus, RecordState, RecordStatus, backoff::Backoff};

/// Most addresses of one peer.
pub(super) const MAX_ADDRESSES: usize = 16;
/// New addresses that are taken in: a burst, and a rate per second. The rest is taken in when it is announced again.
pub(super) const NEW_BURST: u32 = 256;
const NEW_PER_SECOND: u32 = 16;
/// Upper bound of a TTL (RFC 6762, section 10).
pub(super) const MAX_TTL: Duration = Duration::from_secs(75 * 60);
/// Records that are withdrawn expire this much later (RFC 6762, section 10.1).
const GOODBYE: Duration = Duration::from_secs(1);
/// Fractions of its TTL that an address has left when it is queried again (RFC 6762, section 5.2).
const ASK_AGAIN: [f64; 3] = [0.2, 0.1, 0.05];
/// When two peers discover each other simultaneously, the one with the larger id waits this long for the other to dial.
pub(super) const YIELD: Duration = Duration::from_millis(300);
/// First backoff after a failed dial.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Least time between two notices about a flood.
const FLOOD_NOTICE_INTERVAL: Duration = Duration::from_secs(60);

/// Why a dial failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Refused by a rule or a limit of this node.
    Denied(String),
    /// The peer is connected, or being dialed, by other means.
    Elsewhere,
    /// Nothing at these addresses authenticated as that peer.
    Failed(String, Vec<Multiaddr>),
}

/// An address of a peer.
#[derive(Debug)]
struct PeerAddress {
    segment: Segment,
    life: Duration,
    expires: Instant,
    /// Queries for it since it was last announced.
    asked: usize,
    /// Whether the last dial there failed.
    failed: bool,
    /// Whether it was withdrawn: it is not dialed any more.
    leaving: bool,
}

impl PeerAddress {
    /// When to query for it again.
    fn ask_at(&self) -> Option<Instant> {
        let left = self.life.mul_f64(*ASK_AGAIN.get(self.asked)?);
        self.expires.checked_sub(left)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    Due(Instant),
    UnderWay,
}

#[derive(Debug)]
struct DiscoveredPeer {
    addresses: BTreeMap<Multiaddr, PeerAddress>,
    dial: Dial,
    failures: u32,
    last: Option<String>,
}

impl DiscoveredPeer {
    fn dialable(&self) -> impl Iterator<Item = &Multiaddr> {
        self.addresses.iter().filter(|(_, heard)| !heard.leaving).map(|(address, _)| address)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Peers {
    local: PeerId,
    policy: Policy,
    found: BTreeMap<PeerId, DiscoveredPeer>,
    /// How many connections each peer has; none has zero.
    live: HashMap<PeerId, usize>,
    fresh: Bucket,
    flood_reported: Option<Instant>,
    notices: VecDeque<Notice>,
    /// Where this node's own peer id is announced, and until when.
    same_key: BTreeMap<Multiaddr, Instant>,
}

impl Peers {
    pub(super) fn new(local: PeerId, policy: Policy, now: Instant) -> Self {
        Self {
            local,
            policy,
            found: BTreeMap::new(),
            live: HashMap::new(),
            fresh: Bucket::new(NEW_BURST, NEW_PER_SECOND, now),
            flood_reported: None,
            notices: VecDeque::new(),
            same_key: BTreeMap::new(),
        }
    }

    /// A claim was received on `segment`, and its address is in scope there.
    pub(super) fn on_claim(&mut self, segment: &Segment, claim: &Claim, now: Instant) {
        if claim.peer == self.local || !self.policy.transports.contains(&claim.over) {
            return;
        }
        let address = claim.over.at(claim.at);
        let known = self.found.get_mut(&claim.peer).and_then(|found| found.addresses.get_mut(&address));
        if claim.ttl == 0 {
            if let Some(heard) = known {
                heard.expires = heard.expires.min(now + GOODBYE);
                heard.leaving = true;
            }
            return;
        }
        let life = Duration::from_secs(claim.ttl.into()).min(MAX_TTL);
        if let Some(heard) = known {
            (heard.life, heard.expires, heard.asked) = (life, now + life, 0);
            (heard.segment, heard.leaving) = (segment.clone(), false);
            return;
        }
        if !self.fresh.take(now) {
            return self
                .flood("too many new addresses; the rest is taken in when it is announced again", now);
        }
        if !self.make_room(claim.peer, now) {
            return;
        }
        let wait = if self.local < claim.peer { Duration::ZERO } else { YIELD };
        let found = self.found.entry(claim.peer).or_insert_with(|| DiscoveredPeer {
            addresses: BTreeMap::new(),
            dial: Dial::Due(now + wait),
            failures: 0,
            last: None,
        });
        let heard = PeerAddress {
            segment: segment.clone(),
            life,
            expires: now + life,
            asked: 0,
            failed: false,
            leaving: false,
        };
        found.addresses.insert(address.clone(), heard);
        self.notices.push_back(Notice::Discovered { peer: claim.peer, address });
    }

    /// Whether there is room for a new address of `peer`; evicts what did not answer.
    fn make_room(&mut self, peer: PeerId, now: Instant) -> bool {
        if let Some(found) = self.found.get_mut(&peer) {
            if found.addresses.len() < MAX_ADDRESSES {
                return true;
            }
            let Some(failed) = found.addresses.iter().find(|(_, h)| h.failed).map(|(a, _)| a.clone()) else {
                self.flood("more than 16 addresses of one peer", now);
                return false;
            };
            found.addresses.remove(&failed);
            self.notices.push_back(Notice::Expired { peer, address: failed });
            return true;
        }
        if self.found.len() < self.policy.max_peers {
            return true;
        }
        let silent =
            self.found.iter().filter(|(id, found)| found.failures > 0 && !self.live.contains_key(id));
        let Some(worst) = silent.max_by_key(|(_, found)| found.failures).map(|(id, _)| *id) else {
            self.flood("more peers than mdns.max_peers", now);
            return false;
        };
        self.forget(worst);
        true
    }

    fn forget(&mut self, peer: PeerId) {
        let addresses = self.found.remove(&peer).into_iter().flat_map(|found| found.addresses.into_keys());
        self.notices.extend(addresses.map(|address| Notice::Expired { peer, address }));
    }

    fn flood(&mut self, what: &'static str, now: Instant) {
        if self.flood_reported.is_none_or(|at| now.saturating_duration_since(at) >= FLOOD_NOTICE_INTERVAL) {
            self.flood_reported = Some(now);
            self.notices.push_back(Notice::Flood(what));
        }
    }

    /// Forgets what was learned on a segment that went down.
    pub(super) fn on_segment_gone(&mut self, segment: &Segment) {
        self.retain(|heard| heard.segment != *segment);
    }

    /// This node's own peer id is announced at an address that is none of this host's. Hearsay: it is reported,
    /// and nothing else is done.
    pub(super) fn on_same_key(&mut self, claim: &Claim, now: Instant) {
        let (address, expires) =
            (claim.over.at(claim.at), now + Duration::from_secs(claim.ttl.into()).min(MAX_TTL));
        if claim.ttl == 0 {
            self.same_key.remove(&address);
        } else if let Some(known) = self.same_key.get_mut(&address) {
            *known = expires;
        } else if self.same_key.len() < MAX_ADDRESSES {
            self.same_key.insert(address.clone(), expires);
            self.notices.push_back(Notice::SameKey { address });
        }
    }

    /// Where this node's own peer id is announced.
    pub(super) fn same_key(&self) -> Vec<Multiaddr> {
        self.same_key.keys().cloned().collect()
    }

    /// Forgets what was not announced again in time.
    pub(super) fn expire(&mut self, now: Instant) {
        self.retain(|heard| heard.expires > now);
        self.same_key.retain(|_, expires| *expires > now);
    }

    fn retain(&mut self, keep: impl Fn(&PeerAddress) -> bool) {
        let notices = &mut self.notices;
        self.found.retain(|peer, found| {
            found.addresses.retain(|address, heard| {
                let keeps = keep(heard);
                if !keeps {
                    notices.push_back(Notice::Expired { peer: *peer, address: address.clone() });
                }
                keeps
            });
            !found.addresses.is_empty()
        });
    }

    /// The segments to query at `now`, since an address learned there is about to expire.
    pub(super) fn ask(&mut self, now: Instant) -> BTreeSet<Segment> {
        let all = self.found.values_mut().flat_map(|found| found.addresses.values_mut());
        let mut segments = BTreeSet::new();
        for heard in all {
            while heard.ask_at().is_some_and(|at| at <= now) {
                heard.asked += 1;
                segments.insert(heard.segment.clone());
            }
        }
        segments
    }

    /// A connection to `peer` was established, in either direction.
    pub(super) fn on_connected(&mut self, peer: PeerId, now: Instant) {
        *self.live.entry(peer).or_default() += 1;
        if let Some(found) = self.found.get_mut(&peer) {
            (found.dial, found.failures, found.last) = (Dial::Due(now), 0, None);
            found.addresses.values_mut().for_each(|heard| heard.failed = false);
        }
    }

    /// A connection to `peer` closed.
    pub(super) fn on_disconnected(&mut self, peer: PeerId, now: Instant, rng: &mut fastrand::Rng) {
        let Some(connections) = self.live.get_mut(&peer) else { return };
        *connections -= 1;
        if *connections > 0 {
            return;
        }
        self.live.remove(&peer);
        let pause = self.retry().delay(1, rng);
        if let Some(found) = self.found.get_mut(&peer) {
            found.dial = Dial::Due(now + pause);
        }
    }

    /// A dial of `peer` failed.
    pub(super) fn on_dial_failed(
        &mut self,
        peer: PeerId,
        fault: Fault,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) {
        let (live, retry, retry_max) = (self.live.contains_key(&peer), self.retry(), self.policy.retry_max);
        let Some(found) = self.found.get_mut(&peer).filter(|found| found.dial == Dial::UnderWay && !live)
        else {
            return;
        };
        let reason = match fault {
            Fault::Elsewhere => {
                found.dial = Dial::Due(now + retry.delay(1, rng));
                return;
            }
            Fault::Denied(reason) => {
                found.failures = found.failures.saturating_add(1);
                found.dial = Dial::Due(now + retry_max);
                reason
            }
            Fault::Failed(reason, at) => {
                found.failures = found.failures.saturating_add(1);
                found.dial = Dial::Due(now + retry.delay(found.failures, rng));
                for address in &at {
                    if let Some(heard) = found.addresses.get_mut(address) {
                        heard.failed = true;
                    }
                }
                reason
            }
        };
        let repeated = found.last.replace(reason.clone()).as_ref() == Some(&reason);
        let Dial::Due(at) = found.dial else { return };
        let retry_in = at.saturating_duration_since(now);
        self.notices.push_back(Notice::DialFailed { peer, reason, retry_in, repeated });
    }

    fn retry(&self) -> Backoff {
        Backoff::full_jitter(RETRY_MIN, self.policy.retry_max)
    }

    /// The next dial due at `now`, if any.
    pub(super) fn dial(&mut self, now: Instant) -> Option<Action> {
        let (peer, at) = self.next_dial()?;
        if at > now {
            return None;
        }
        let found = self.found.get_mut(&peer)?;
        found.dial = Dial::UnderWay;
        Some(Action::Dial(peer, found.dialable().cloned().collect()))
    }

    fn next_dial(&self) -> Option<(PeerId, Instant)> {
        let under_way = self.found.values().filter(|found| found.dial == Dial::UnderWay).count();
        if under_way >= self.policy.parallel {
            return None;
        }
        let due = self.found.iter().filter_map(|(peer, found)| match found.dial {
            Dial::Due(at) if !self.live.contains_key(peer) => found.dialable().next().map(|_| (*peer, at)),
            _ => None,
        });
        due.min_by_key(|(_, at)| *at)
    }

    /// When to call [`dial`](Self::dial), [`ask`](Self::ask) or [`expire`](Self::expire) next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let all = self.found.values().flat_map(|found| found.addresses.values());
        let heard = all.map(|heard| heard.ask_at().map_or(heard.expires, |at| at.min(heard.expires))).min();
        [heard, self.next_dial().map(|(_, at)| at)].into_iter().flatten().min()
    }

    pub(super) fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// The discovered peers in the form of the records of a name.
    pub(super) fn status(&self, now: Instant, last_error: Option<String>) -> NameStatus {
        let record = |peer: &PeerId, found: &DiscoveredPeer, address: &Multiaddr| RecordStatus {
            address: address.clone(),
            peer: Some(*peer),
            relayed: false,
            state: match found.dial {
                _ if self.live.contains_key(peer) => RecordState::Connected,
                Dial::UnderWay => RecordState::Dialing,
                Dial::Due(at) => RecordState::Waiting {
                    retry_in_ms: u64::try_from(at.saturating_duration_since(now).as_millis())
                        .unwrap_or(u64::MAX),
                },
            },
            hold: Hold::Full,
            failures: found.failures,
            last_error: found.last.clone(),
        };
        let records = self.found.iter().flat_map(|(peer, found)| {
            found.addresses.keys().map(move |address| record(peer, found, address))
        });
        NameStatus { name: super::NAME.into(), records: records.collect(), last_error }
    }
}
