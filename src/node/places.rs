//! Who has a place among the connections: strangers have a share that others open to, and a smaller one by address;
//! the rest is kept for the replicas behind names, for known peers, and for what the dialer opens itself.
//!
//! [`Places`] is pure. [`Behaviour`] wraps the dialer, which knows the peers that the node wants.

mod behaviour;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::swarm::ConnectionId;

use crate::{config, transport::multiaddr::host};

pub(crate) use behaviour::Behaviour;

/// Connections kept for one address that a name leads to, whoever is there: nobody knows the key of a new replica.
const BY_ADDRESS: usize = 4;
/// Visitors at a time, and how long each stays: it asks for the nodes that are close to it in the hash table.
const VISITORS: usize = 8;
const VISIT: Duration = Duration::from_secs(5);
/// Peers remembered that a name led to, and hosts where one that the node wants was.
const MAX_KNOWN: usize = 1024;

/// How many connections strangers may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// That they opened.
    inbound: usize,
    /// Of these, from one address; of IPv6, from one /64.
    per_address: usize,
    /// With those that others than the dialer opened, because of a claim.
    all: usize,
    /// Kept for peers that an earlier run knew.
    known: usize,
    /// Most connections beyond which those that large names lead to are not taken in.
    neighbours: usize,
}

impl Shares {
    /// What the config says; 0 stands for three quarters of all, and for half of these.
    pub(crate) fn new(limits: &config::Limits, neighbours: usize) -> Self {
        let all = limits.connections;
        let inbound = match limits.inbound {
            0 => (all - all / 4).max(1),
            inbound => inbound.min(all),
        };
        let per_address = match limits.per_address {
            0 => inbound.div_ceil(2),
            per_address => per_address.min(inbound),
        };
        Self {
            inbound,
            per_address,
            all: inbound + (all - inbound) / 2,
            known: (all - inbound) / 4,
            neighbours,
        }
    }
}

/// Why a stranger gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("{0} connections of strangers stand, and the rest is kept for the node's own (limits.inbound)")]
    All(usize),
    #[error("{0} connections stand, and large names lead to others enough (dial.neighbours_max)")]
    Neighbours(usize),
    #[error("{1} connections from {0} stand (limits.per_address)")]
    Address(IpAddr, usize),
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A stranger's, that came in.
    In(Option<IpAddr>),
    /// One that was opened because of a claim.
    Out,
    /// At an address that a name leads to.
    Expected(IpAddr),
    /// A peer's that an earlier run knew: a stranger may have been one.
    Known,
    /// Of one that there is no place for: it stays until it has heard of others.
    Visitor,
    /// The node's own.
    Own,
}

/// The connections that stand.
#[derive(Debug)]
pub(crate) struct Places {
    shares: Shares,
    all: HashMap<ConnectionId, Kind>,
    by_host: HashMap<IpAddr, usize>,
    expected: HashMap<IpAddr, usize>,
    inbound: usize,
    outbound: usize,
    known: usize,
    visitors: usize,
    /// When the connections of visitors are closed.
    leaving: VecDeque<(Instant, ConnectionId)>,
}

impl Places {
    pub(crate) fn new(shares: Shares) -> Self {
        Self {
            shares,
            all: HashMap::new(),
            by_host: HashMap::new(),
            expected: HashMap::new(),
            inbound: 0,
            outbound: 0,
            known: 0,
            visitors: 0,
            leaving: VecDeque::new(),
        }
    }

    /// Whether a stranger may come in from `from`.
    fn lets_in(&self, from: Option<IpAddr>) -> Result<(), Full> {
        if self.inbound >= self.shares.inbound || self.inbound + self.outbound >= self.shares.all {
            return Err(Full::All(self.inbound + self.outbound));
        }
        self.address_lets_in(from)
    }

    fn address_lets_in(&self, from: Option<IpAddr>) -> Result<(), Full> {
        match from.map(host) {
            Some(from) if self.by_host.get(&from).is_some_and(|n| *n >= self.shares.per_address) => {
                Err(Full::Address(from, self.shares.per_address))
            }
            _ => Ok(()),
        }
    }

    /// Whether those that large names lead to are enough.
    fn is_crowded(&self) -> bool {
        self.all.len() - self.visitors >= self.shares.neighbours
    }

    /// Whether there is room for one who only asks for others.
    fn lets_visit(&self) -> Result<(), Full> {
        if self.visitors < VISITORS { Ok(()) } else { Err(Full::Neighbours(self.all.len())) }
    }

    /// The connections of visitors that are to be closed.
    fn overdue(&mut self, now: Instant) -> Option<ConnectionId> {
        self.leaving.front().filter(|(at, _)| *at <= now)?;
        self.leaving.pop_front().map(|(_, connection)| connection)
    }

    /// Whether a claimed peer may be connected to.
    fn lets_out(&self) -> Result<(), Full> {
        let strangers = self.inbound + self.outbound;
        if strangers < self.shares.all { Ok(()) } else { Err(Full::All(strangers)) }
    }

    /// Whether there is a place for a connection from an address that a name leads to.
    fn expects(&self, from: IpAddr) -> bool {
        self.expected.get(&host(from)).is_none_or(|n| *n < BY_ADDRESS)
    }

    fn add(&mut self, connection: ConnectionId, kind: Kind) {
        self.remove(connection);
        match kind {
            Kind::In(from) => {
                self.inbound += 1;
                if let Some(from) = from {
                    *self.by_host.entry(host(from)).or_default() += 1;
                }
            }
            Kind::Out => self.outbound += 1,
            Kind::Expected(from) => *self.expected.entry(host(from)).or_default() += 1,
            Kind::Known => self.known += 1,
            Kind::Visitor => self.visitors += 1,
            Kind::Own => {}
        }
        self.all.insert(connection, kind);
    }

    fn remove(&mut self, connection: ConnectionId) {
        let less = |counts: &mut HashMap<IpAddr, usize>, from| {
            if let Some(count) = counts.get_mut(&from) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&from);
                }
            }
        };
        match self.all.remove(&connection) {
            Some(Kind::In(from)) => {
                self.inbound -= 1;
                if let Some(from) = from {
                    less(&mut self.by_host, host(from));
                }
            }
            Some(Kind::Out) => self.outbound -= 1,
            Some(Kind::Expected(from)) => less(&mut self.expected, host(from)),
            Some(Kind::Known) => self.known -= 1,
            Some(Kind::Visitor) => {
                self.visitors -= 1;
                self.leaving.retain(|(_, leaving)| *leaving != connection);
            }
            Some(Kind::Own) | None => {}
        }
    }
}

/// A set that forgets what was put in first.
#[derive(Debug)]
struct Recent<T> {
    all: HashSet<T>,
    order: VecDeque<T>,
}

impl<T: Copy + Eq + std::hash::Hash> Recent<T> {
    fn new() -> Self {
        Self { all: HashSet::new(), order: VecDeque::new() }
    }

    fn insert(&mut self, item: T) {
        if !self.all.insert(item) {
            return;
        }
        self.order.push_back(item);
        if self.order.len() > MAX_KNOWN
            && let Some(first) = self.order.pop_front()
        {
            self.all.remove(&first);
        }
    }

    fn contains(&self, item: &T) -> bool {
        self.all.contains(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(connections: usize, inbound: usize, per_address: usize) -> Shares {
        let limits = config::Limits { connections, inbound, per_address, ..config::Config::default().limits };
        Shares::new(&limits, 40)
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    fn v4(n: usize) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, (n / 256) as u8, n as u8]))
    }

    #[test]
    fn the_shares_leave_a_place_for_the_node_s_own_whatever_the_limits_are() {
        assert_eq!(
            shares(512, 0, 0),
            Shares { inbound: 384, per_address: 192, all: 448, known: 32, neighbours: 40 }
        );
        assert_eq!(
            shares(512, 100, 10),
            Shares { inbound: 100, per_address: 10, all: 306, known: 103, neighbours: 40 }
        );
        assert_eq!(
            shares(8, 100, 100),
            Shares { inbound: 8, per_address: 8, all: 8, known: 0, neighbours: 40 },
            "as it was before"
        );
        for connections in 1..600 {
            let Shares { inbound, per_address, all, known, .. } = shares(connections, 0, 0);
            assert!((1..=connections).contains(&inbound) && (1..=inbound).contains(&per_address));
            assert!(inbound + known <= connections && known <= connections / 4);
            assert!(all <= connections && (connections < 8 || all < connections), "{connections}: {all}");
        }
    }

    #[test]
    fn strangers_fill_their_share_and_no_more_of_one_address_than_its_own() {
        let mut places = Places::new(shares(16, 0, 0));
        for n in 0..6 {
            assert_eq!(places.lets_in(v4(1)), Ok(()));
            places.add(id(n), Kind::In(v4(1)));
        }
        assert_eq!(places.lets_in(v4(1)), Err(Full::Address(v4(1).unwrap(), 6)));
        for n in 6..12 {
            assert_eq!(places.lets_in(v4(n)), Ok(()));
            places.add(id(n), Kind::In(v4(n)));
        }
        assert_eq!(places.lets_in(v4(99)), Err(Full::All(12)));
        assert_eq!(places.lets_in(None), Err(Full::All(12)), "behind a relay");
        // Of the claimed ones, half of what is left.
        for n in 12..14 {
            assert_eq!(places.lets_out(), Ok(()));
            places.add(id(n), Kind::Out);
        }
        assert_eq!(places.lets_out(), Err(Full::All(14)));
        places.add(id(90), Kind::Own);
        places.remove(id(0));
        assert_eq!(places.lets_in(v4(1)), Ok(()));
        (1..100).for_each(|n| places.remove(id(n)));
        assert_eq!((places.inbound, places.outbound, places.by_host.len(), places.all.len()), (0, 0, 0, 0));
    }

    #[test]
    fn an_address_of_a_name_has_places_of_its_own_which_it_does_not_take_from_others() {
        let mut places = Places::new(shares(16, 0, 0));
        let at = v4(7).unwrap();
        for n in 0..BY_ADDRESS {
            assert!(places.expects(at));
            places.add(id(n), Kind::Expected(at));
        }
        assert!(!places.expects(at) && places.expects(v4(8).unwrap()));
        assert_eq!(places.lets_in(Some(at)), Ok(()), "as a stranger");
        places.remove(id(0));
        assert!(places.expects(at));
    }

    #[test]
    fn beyond_the_neighbours_a_few_visit_for_a_while() {
        let mut places = Places::new(Shares { neighbours: 10, ..shares(512, 0, 0) });
        (0..9).for_each(|n| places.add(id(n), Kind::Own));
        assert!(!places.is_crowded());
        places.add(id(9), Kind::Own);
        let now = Instant::now();
        for n in 10..10 + VISITORS {
            assert!(places.is_crowded());
            assert_eq!(places.lets_visit(), Ok(()));
            places.add(id(n), Kind::Visitor);
            places.leaving.push_back((now + VISIT, id(n)));
        }
        assert_eq!(places.lets_visit(), Err(Full::Neighbours(10 + VISITORS)));
        places.remove(id(10));
        assert_eq!((places.lets_visit(), places.overdue(now)), (Ok(()), None));
        assert_eq!(places.overdue(now + VISIT), Some(id(11)));
        places.remove(id(0));
        assert!(!places.is_crowded(), "visitors do not count");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::new();
        (0..3 * MAX_KNOWN).for_each(|n| recent.insert(n));
        assert_eq!((recent.all.len(), recent.order.len()), (MAX_KNOWN, MAX_KNOWN));
        assert!(recent.contains(&(3 * MAX_KNOWN - 1)) && !recent.contains(&0));
    }
}
