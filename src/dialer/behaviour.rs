//! The reconciler at work: a `NetworkBehaviour` that asks the resolver and dials through the swarm.
//!
//! Decides nothing: what the swarm and the resolver report is handed to the [`Reconciler`], and what
//! it answers is carried out.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    convert::Infallible,
    fmt,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use futures::stream::{BoxStream, SelectAll, StreamExt};
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
        dummy,
    },
};

use super::{
    action::{Action, Answer, DialFault, Notice, Policy, remote},
    lookup::lookup,
    reconciler::Reconciler,
    status::NameStatus,
};
use crate::{
    config::{Target, TransportKind},
    dns::Resolve,
    error::chain,
    runtime::{Handle, Timer},
    transport::multiaddr::{peer_ip, split_peer},
};

/// What the dialer tells the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Something worth a log line.
    Notice(Notice),
    /// What is known of this peer at this address, or anywhere, is out of date.
    Forget {
        /// The peer.
        peer: PeerId,
        /// Where; everywhere if `None`.
        address: Option<Multiaddr>,
    },
    /// The other side of a connection is somewhere else now.
    Moved {
        /// The peer.
        peer: PeerId,
        /// Which connection.
        connection: ConnectionId,
        /// Where it leads to.
        address: Multiaddr,
    },
}

/// Keeps this node connected to every replica behind its targets.
pub(crate) struct Behaviour {
    reconciler: Reconciler,
    resolver: Arc<dyn Resolve>,
    runtime: Handle,
    lookups: SelectAll<BoxStream<'static, (Target, Answer)>>,
    dials: HashMap<ConnectionId, Multiaddr>,
    connections: HashMap<ConnectionId, Connection>,
    /// Connections whose remote address changed, not reported yet.
    moved: VecDeque<Event>,
    transports: Arc<[TransportKind]>,
    own: BTreeSet<Multiaddr>,
    external: BTreeSet<Multiaddr>,
    timer: Box<dyn Timer>,
    /// Whether the reconciler had an event since it was last polled for actions.
    needs_poll: bool,
    waker: Option<Waker>,
}

/// A connection.
#[derive(Debug)]
struct Connection {
    /// Where it leads to.
    address: Multiaddr,
    /// Whether it is one of our dials.
    dialed: bool,
}

/// Why a dial that succeeded is dropped all the same.
#[derive(Debug, thiserror::Error)]
#[error("the same record answered over {0} first")]
struct Late(Multiaddr);

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("dialer::Behaviour").field("reconciler", &self.reconciler).finish_non_exhaustive()
    }
}

impl Behaviour {
    /// A dialer without targets.
    pub(crate) fn new(
        policy: Policy,
        resolver: Arc<dyn Resolve>,
        runtime: Handle,
        rng: fastrand::Rng,
    ) -> Self {
        Self {
            transports: policy.transports.clone().into(),
            reconciler: Reconciler::new(policy, rng),
            resolver,
            timer: runtime.timer(),
            runtime,
            lookups: SelectAll::new(),
            dials: HashMap::new(),
            connections: HashMap::new(),
            moved: VecDeque::new(),
            own: BTreeSet::new(),
            external: BTreeSet::new(),
            needs_poll: false,
            waker: None,
        }
    }

    /// Stays connected to exactly `targets` from now on.
    pub(crate) fn set_targets(&mut self, targets: impl IntoIterator<Item = Target>) {
        self.reconciler.set_targets(targets, self.runtime.now());
        self.stir();
    }

    /// How many targets there are.
    pub(crate) fn targets(&self) -> usize {
        self.reconciler.targets()
    }

    /// Stays connected to `target` too.
    pub(crate) fn add_target(&mut self, target: Target) {
        self.reconciler.add_target(target, self.runtime.now());
        self.stir();
    }

    /// Dials peers that an earlier run was connected to, for a while.
    pub(crate) fn try_known(&mut self, known: impl IntoIterator<Item = (PeerId, Multiaddr)>) {
        self.reconciler.try_known(known, self.runtime.now());
        self.stir();
    }

    /// Dials nothing any more.
    pub(crate) fn stop(&mut self) {
        self.reconciler.drop_known();
        self.set_targets([]);
    }

    /// `peer` says that it listens on `addresses`; those on the host that its connection comes from
    /// are taken as proof of where it is.
    pub(crate) fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, addresses: &[Multiaddr]) {
        let Some(ip) = self.connections.get(&connection).and_then(|connection| peer_ip(&connection.address))
        else {
            return;
        };
        let same_host = addresses.iter().filter(|a| peer_ip(a) == Some(ip)).cloned();
        self.reconciler.on_addresses(peer, same_host, self.runtime.now());
        self.stir();
    }

    /// Whether a target leads to `peer`, or led to it last, or asks for it.
    pub(crate) fn wants(&self, peer: &PeerId) -> bool {
        self.reconciler.wants(peer)
    }

    /// Whether a target leads to somebody at `ip`.
    pub(crate) fn wants_at(&self, ip: IpAddr) -> bool {
        self.reconciler.wants_at(ip)
    }

    /// Whether not every record of every target is held.
    pub(crate) fn is_sparse(&self) -> bool {
        self.reconciler.is_sparse()
    }

    /// Whether `peer` is one that this node is to stay connected to.
    pub(crate) fn holds(&self, peer: &PeerId) -> bool {
        self.reconciler.holds(peer)
    }

    /// Whether large names lead to `ip`, and no other.
    pub(crate) fn is_one_of_many(&self, ip: IpAddr) -> bool {
        self.reconciler.is_one_of_many(ip)
    }

    /// The moment by which everything here goes.
    pub(crate) fn now(&self) -> Instant {
        self.runtime.now()
    }

    /// Whether a connection, or a dial that is under way, was made because a target leads there.
    pub(crate) fn has_dialed(&self, connection: ConnectionId) -> bool {
        let stands = self.connections.get(&connection).filter(|connection| connection.dialed);
        let address = self.dials.get(&connection).or(stands.map(|connection| &connection.address));
        address.is_some_and(|address| self.reconciler.has_target_at(address))
    }

    /// Whether one of `targets` leads to `peer`, which is connected.
    pub(crate) fn is_behind(&self, peer: &PeerId, targets: &[Target]) -> bool {
        targets.iter().any(|target| self.reconciler.is_behind(peer, target))
    }

    /// Every target with its records.
    pub(crate) fn status(&self) -> Vec<NameStatus> {
        self.reconciler.status(self.runtime.now())
    }

    fn stir(&mut self) {
        self.needs_poll = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn on_own_addresses(&mut self) {
        self.reconciler.on_own_addresses(self.own.iter().cloned(), self.runtime.now());
        self.stir();
    }

    /// The addresses of this host's interfaces.
    pub(crate) fn on_host_addresses(&mut self, host: impl IntoIterator<Item = IpAddr>) {
        self.reconciler.on_host_addresses(host, self.runtime.now());
        self.stir();
    }

    /// Where this node's own key answers, and nothing says that it should.
    pub(crate) fn same_key(&self) -> Vec<Multiaddr> {
        self.reconciler.same_key().cloned().collect()
    }

    fn on_dial_failure(&mut self, failure: DialFailure<'_>) {
        let Some(address) = self.dials.remove(&failure.connection_id) else {
            return;
        };
        let fault = match failure.error {
            DialError::LocalPeerId { .. } => DialFault::OwnPeer,
            DialError::Denied { cause } => match failure.peer_id {
                Some(peer) if cause.downcast_ref::<libp2p::connection_limits::Exceeded>().is_some() => {
                    DialFault::Enough(peer)
                }
                _ => DialFault::Failed(chain(cause)),
            },
            DialError::Transport(errors) => {
                DialFault::Failed(errors.iter().map(|(_, e)| chain(e)).collect::<Vec<_>>().join("; "))
            }
            DialError::WrongPeerId { obtained, .. } => {
                DialFault::Failed(format!("another peer answers there: {obtained}"))
            }
            other => DialFault::Failed(chain(other)),
        };
        self.reconciler.on_dial_failed(&address, fault, self.runtime.now());
        self.stir();
    }

    /// Carries out what the reconciler wants; a dial or an event ends the round.
    fn act(&mut self) -> Option<ToSwarm<Event, Infallible>> {
        loop {
            if let Some(moved) = self.moved.pop_front() {
                return Some(ToSwarm::GenerateEvent(moved));
            }
            if let Some(notice) = self.reconciler.next_notice() {
                return Some(ToSwarm::GenerateEvent(Event::Notice(notice)));
            }
            match self.reconciler.poll(self.runtime.now())? {
                Action::Lookup(target) => {
                    let answers = lookup(self.resolver.clone(), target.clone(), self.transports.clone());
                    self.lookups.push(answers.map(move |answer| (target.clone(), answer)).boxed());
                }
                Action::Dial(address, expected) => {
                    let opts = match expected {
                        Some(peer) => DialOpts::peer_id(peer)
                            .condition(PeerCondition::Always)
                            .addresses(vec![address.clone()])
                            .build(),
                        None => DialOpts::unknown_peer_id().address(address.clone()).build(),
                    };
                    self.dials.insert(opts.connection_id(), address);
                    return Some(ToSwarm::Dial { opts });
                }
                Action::Forget { peer, address } => {
                    return Some(ToSwarm::GenerateEvent(Event::Forget { peer, address }));
                }
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    /// Where a record led to a peer that is not connected, it may be again.
    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(peer.filter(|_| addresses.is_empty()).map_or_else(Vec::new, |peer| self.reconciler.ways_to(&peer)))
    }

    /// Of two ways to a record that both answered, the first stays.
    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if let Some(way) = self.dials.get(&connection)
            && let Some(first) = self.connections.values().find(|connection| {
                connection.dialed
                    && connection.address != *way
                    && self.reconciler.is_one_record(&connection.address, way)
            })
        {
            return Err(ConnectionDenied::new(Late(first.address.clone())));
        }
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(e) => {
                let dialed = self.dials.remove(&e.connection_id).is_some();
                let address = remote(e.endpoint);
                self.connections.insert(e.connection_id, Connection { address: address.clone(), dialed });
                self.reconciler.on_connected(e.connection_id, e.peer_id, address, self.runtime.now());
                self.stir();
            }
            FromSwarm::AddressChange(e) => {
                let address = remote(e.new);
                if let Some(connection) = self.connections.get_mut(&e.connection_id) {
                    connection.address = address.clone();
                }
                let (peer, connection) = (e.peer_id, e.connection_id);
                self.moved.push_back(Event::Moved { peer, connection, address: address.clone() });
                self.reconciler.on_connected(e.connection_id, e.peer_id, address, self.runtime.now());
                self.stir();
            }
            FromSwarm::ConnectionClosed(e) => {
                self.connections.remove(&e.connection_id);
                self.reconciler.on_disconnected(e.connection_id, self.runtime.now());
                self.stir();
            }
            FromSwarm::DialFailure(failure) => self.on_dial_failure(failure),
            FromSwarm::NewListenAddr(e) => {
                self.own.insert(split_peer(e.addr.clone()).0);
                self.on_own_addresses();
            }
            FromSwarm::ExpiredListenAddr(e) => {
                self.own.remove(&split_peer(e.addr.clone()).0);
                self.on_own_addresses();
            }
            FromSwarm::ExternalAddrConfirmed(e) => {
                self.external.insert(split_peer(e.addr.clone()).0);
                self.reconciler.on_external_addresses(self.external.iter().cloned());
            }
            FromSwarm::ExternalAddrExpired(e) => {
                self.external.remove(&split_peer(e.addr.clone()).0);
                self.reconciler.on_external_addresses(self.external.iter().cloned());
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        libp2p::core::util::unreachable(event)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            while let Poll::Ready(Some((target, answer))) = self.lookups.poll_next_unpin(cx) {
                self.reconciler.on_lookup(&target, answer, self.runtime.now());
                self.needs_poll = true;
            }
            if self.timer.poll(cx).is_ready() {
                self.needs_poll = true;
            }
            if !self.needs_poll {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if let Some(action) = self.act() {
                return Poll::Ready(action);
            }
            // Nothing left to do until the deadline. Lookups that were just started want a poll.
            self.needs_poll = false;
            self.timer.set(self.reconciler.deadline());
        }
    }
}
