//! Connections that a node opened and needs no more: where names are large, what the hash table, a ping or a topic asked
//! for is closed after a while, or there would be more and more of them.
//!
//! Pure. Each side closes what it opened: the other one may have chosen this node. Never closes anything itself.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// How long a connection stands before it can be surplus: queries and meshes need their time.
const USED: Duration = Duration::from_secs(30);
/// How long a peer counts as needed after it was asked for.
const NEEDED: Duration = Duration::from_secs(300);
/// Peers that are needed at a time.
const MOST: usize = 64;
/// How often this is looked at.
pub(crate) const EVERY: Duration = Duration::from_secs(5);

/// A connected peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbour {
    pub(crate) peer: PeerId,
    /// Whether this node opened all its connections.
    pub(crate) is_ours: bool,
    /// Since when the newest of them stands.
    pub(crate) since: Instant,
    /// Whether it is held, or in a mesh.
    pub(crate) is_used: bool,
}

/// Peers that were asked for: by a ping, or for a topic.
#[derive(Debug, Default)]
pub(crate) struct Needed(BTreeMap<PeerId, Instant>);

impl Needed {
    /// Notes one; whether there is room for it.
    pub(crate) fn insert(&mut self, peer: PeerId, now: Instant) -> bool {
        self.0.retain(|_, until| *until > now);
        let has_room = self.0.len() < MOST || self.0.contains_key(&peer);
        if has_room {
            self.0.insert(peer, now + NEEDED);
        }
        has_room
    }

    fn contains(&self, peer: &PeerId, now: Instant) -> bool {
        self.0.get(peer).is_some_and(|until| *until > now)
    }

    /// The peers whose connections are closed, so that `enough` stay, the oldest first.
    pub(crate) fn surplus(&self, neighbours: &[Neighbour], enough: usize, now: Instant) -> Vec<PeerId> {
        let mut idle: Vec<_> = neighbours
            .iter()
            .filter(|n| n.is_ours && !n.is_used && n.since + USED <= now && !self.contains(&n.peer, now))
            .collect();
        idle.sort_by_key(|neighbour| neighbour.since);
        let count = neighbours.len().saturating_sub(enough);
        idle.into_iter().take(count).map(|neighbour| neighbour.peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_node_opened_and_needs_no_more_is_closed_until_few_enough_are_left() {
        let (start, peers) = (Instant::now(), (0..8).map(|_| PeerId::random()).collect::<Vec<_>>());
        let now = start + USED * 2;
        let mut all: Vec<_> = peers
            .iter()
            .zip(0..)
            .map(|(peer, n)| Neighbour {
                peer: *peer,
                is_ours: true,
                since: start + Duration::from_secs(n),
                is_used: false,
            })
            .collect();
        let mut needed = Needed::default();
        assert_eq!(needed.surplus(&all, 6, now), peers[..2], "the oldest");
        assert_eq!(needed.surplus(&all, 8, now), []);
        all[0].is_ours = false;
        all[1].is_used = true;
        all[2].since = now;
        assert!(needed.insert(peers[3], now));
        assert_eq!(needed.surplus(&all, 0, now), peers[4..]);
        assert_eq!(
            needed.surplus(&all, 0, now + NEEDED),
            peers[3..][..5].iter().copied().chain([peers[2]]).collect::<Vec<_>>()
        );
    }

    #[test]
    fn those_who_are_needed_are_bounded() {
        let (mut needed, now) = (Needed::default(), Instant::now());
        let taken = (0..1000).filter(|_| needed.insert(PeerId::random(), now)).count();
        assert_eq!(taken, MOST);
        assert!(needed.insert(PeerId::random(), now + NEEDED));
    }
}
