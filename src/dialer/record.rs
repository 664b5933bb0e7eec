//! A record as the reconciler keeps it: how it stands, and the ways that lead to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use libp2p::{Multiaddr, PeerId};

use super::{action::Policy, planner::Role};
use crate::{config::TransportKind, transport::multiaddr::split_peer};

#[derive(Debug)]
pub(super) struct Record {
    pub(super) state: State,
    /// How it is reached, in order of preference. It is known by the first.
    pub(super) candidates: Vec<Candidate>,
    /// When the next way is tried beside those that are under way.
    pub(super) next_way: Option<Instant>,
    /// The way that was connected last.
    pub(super) connected_at: Option<Multiaddr>,
    /// The peer that has to be there, when the target names one.
    pub(super) expected: Option<Box<PeerId>>,
    /// The peer that was there last.
    peer: Option<Box<PeerId>>,
    /// Since when it has been connected.
    pub(super) since: Option<Instant>,
    /// Connections in a row that ended as soon as they stood.
    pub(super) short: u32,
    /// Whether this node answered there itself: at an address of this host or, `Some(true)`, elsewhere.
    pub(super) own: Option<bool>,
    /// When one that led to this node itself is dialed again.
    pub(super) again: Option<Instant>,
    /// Its connections here ended; it is connected elsewhere.
    pub(super) departed: bool,
    /// When it was last in an answer, or last connected: a record that neither confirms is let go in the end.
    pub(super) vouched: Instant,
    pub(super) failures: u32,
    pub(super) last: Option<Arc<str>>,
    /// When a failure was last reported as new.
    pub(super) reported_at: Option<Instant>,
    /// Its address, hashed.
    pub(super) hash: u64,
    /// What it is to this node.
    pub(super) role: Role,
    /// Since when it is being dialed.
    pub(super) dialed: Option<Instant>,
    /// Until when it is hoped for, although it is being dialed or was lost.
    pub(super) hope: Option<Instant>,
    /// It has not answered for that long.
    pub(super) is_silent: bool,
}

/// One address of a record.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) address: Multiaddr,
    pub(super) state: CandidateState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CandidateState {
    Idle,
    /// Since this round of dials or an earlier one.
    Dialing,
    /// In this round; why.
    Failed(Arc<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not connected; to be dialed at this moment.
    Waiting(Instant),
    Dialing,
    /// `Record::peer` is connected.
    Connected,
    /// It is this very node.
    Own,
}

/// The ways to a record, and the peer that has to be there.
pub(super) type Found = (Vec<Multiaddr>, Option<Box<PeerId>>);

/// Addresses by record: those of one socket are ways to one record, which is known by the preferred one.
pub(super) fn group(addresses: Vec<Multiaddr>, preferred: &[TransportKind]) -> BTreeMap<Multiaddr, Found> {
    let rank = |kind: TransportKind| preferred.iter().position(|p| *p == kind).unwrap_or(usize::MAX);
    let mut sockets: Vec<(SocketAddr, usize, Multiaddr, Option<Box<PeerId>>)> =
        Vec::with_capacity(addresses.len());
    let mut out = BTreeMap::new();
    for address in addresses {
        let (address, expected) = split_peer(address);
        let expected = expected.map(Box::new);
        match TransportKind::and_socket(&address) {
            Some((kind, at)) => sockets.push((at, rank(kind), address, expected)),
            None => {
                out.insert(address.clone(), (vec![address], expected));
            }
        }
    }
    sockets.sort_unstable();
    for ways in sockets.chunk_by(|one, other| one.0 == other.0) {
        let expected = ways.iter().find_map(|(_, _, _, expected)| expected.clone());
        let mut addresses: Vec<_> = ways.iter().map(|(_, _, address, _)| address.clone()).collect();
        addresses.dedup();
        if let Some(first) = addresses.first() {
            out.insert(first.clone(), (addresses, expected));
        }
    }
    out
}

impl Record {
    pub(super) fn new(address: &Multiaddr, now: Instant) -> Self {
        Self {
            state: State::Waiting(now),
            candidates: Vec::new(),
            next_way: None,
            connected_at: None,
            expected: None,
            peer: None,
            since: None,
            short: 0,
            own: None,
            again: None,
            departed: false,
            vouched: now,
            failures: 0,
            last: None,
            reported_at: None,
            hash: Policy::hash(address),
            role: Role::All,
            dialed: None,
            hope: None,
            is_silent: false,
        }
    }

    /// The peer that was there last.
    pub(super) fn peer(&self) -> Option<PeerId> {
        self.peer.as_deref().copied()
    }

    pub(super) fn is_of(&self, peer: &PeerId) -> bool {
        self.peer.as_deref() == Some(peer)
    }

    /// Another one, or none, is there now; the one before.
    pub(super) fn set_peer(&mut self, peer: Option<PeerId>) -> Option<PeerId> {
        let before = self.peer();
        if before != peer {
            self.peer = peer.map(Box::new);
        }
        before
    }

    pub(super) fn candidate(&self, address: &Multiaddr) -> Option<&Candidate> {
        self.candidates.iter().find(|w| w.address == *address)
    }

    pub(super) fn set_way(&mut self, address: &Multiaddr, state: CandidateState) {
        if let Some(way) = self.candidates.iter_mut().find(|w| w.address == *address) {
            way.state = state;
        }
    }

    pub(super) fn all_ways(&self) -> Vec<Multiaddr> {
        self.candidates.iter().map(|w| w.address.clone()).collect()
    }

    pub(super) fn is_at(&self, addresses: &BTreeSet<Multiaddr>) -> bool {
        self.candidates.iter().any(|w| addresses.contains(&w.address))
    }
}

impl Candidate {
    pub(super) fn failure(&self) -> Option<&Arc<str>> {
        match &self.state {
            CandidateState::Failed(reason) => Some(reason),
            CandidateState::Idle | CandidateState::Dialing => None,
        }
    }
}
