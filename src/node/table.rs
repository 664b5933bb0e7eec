//! Kademlia, with promises that the disk has kept: a peer that hands us a record is answered when the
//! record is where it is to be kept, and not before.
//!
//! kad answers a `PUT_VALUE` as soon as its store took the record in. This wrapper holds that answer
//! back until the store says that everything up to then is safe. With a store in memory that is
//! immediately. Where the disk fails instead, the connection that waits for the answer is closed: kad has no
//! other way to say no so late, and a stream that is never answered is never free again.
//!
//! What others say of peers is a claim: [`answers`] cuts it down before kad sees it, and what kad dials because of
//! it is counted ([`DialBudget`]). Of a peer, the table has what is claimed now and what was dialed and answered.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    ops::{Deref, DerefMut},
    task::{Context, Poll, ready},
};

use libp2p::{
    Multiaddr, PeerId, kad,
    swarm::{
        CloseConnection, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, NotifyHandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};

use super::{claims, dial_budget::DialBudget, dial_guard::DialGuard, forward::ask_inner_of_connections};
use crate::{
    dialer, runtime,
    store::{Report, Sequence, Source, Store},
    transport::multiaddr::{ip, over, relay, split_peer},
};

mod answers;
mod refresh;
#[cfg(test)]
mod tests;

/// Peers of which is kept where they were dialed and answered.
const MAX_PROVEN: usize = 1024;
/// Peers remembered that could not be reached; beyond, more are not.
const MAX_UNREACHABLE: usize = 1024;
/// Addresses of each.
const MAX_PROVEN_ADDRESSES: usize = 4;

type Kad = kad::Behaviour<Store>;

/// What the hash table tells the node.
#[derive(Debug)]
pub(crate) enum Event {
    /// kad's own event.
    Kad(Box<kad::Event>),
    /// What became of a commit.
    Store(Report),
}

/// An answer that waits for the disk.
struct Held {
    sequence: Sequence,
    peer: PeerId,
    connection: ConnectionId,
    answer: THandlerInEvent<Kad>,
}

pub(crate) struct Behaviour {
    inner: Kad,
    /// kad has reported a record of this peer: the next thing it hands to that connection is the answer.
    answered: Option<(PeerId, ConnectionId)>,
    /// In the order of their marks. A connection has as many as it has streams for kad, 32.
    held: VecDeque<Held>,
    /// Connections whose answers will not come.
    broken: BTreeMap<ConnectionId, PeerId>,
    /// Whose records come on each connection.
    sources: HashMap<ConnectionId, Source>,
    guard: DialGuard,
    budget: DialBudget,
    refreshes: refresh::Refreshes,
    /// Who is connected, and where the connection comes from.
    connections: HashMap<ConnectionId, (PeerId, Multiaddr)>,
    /// Where peers were dialed and answered, the last at the end.
    proven: HashMap<PeerId, Vec<Multiaddr>>,
    /// Peers that were dialed in vain since they were connected last.
    unreachable: HashSet<PeerId>,
}

impl Behaviour {
    pub(crate) fn new(inner: Kad, guard: DialGuard) -> Self {
        Self {
            inner,
            answered: None,
            held: VecDeque::new(),
            broken: BTreeMap::new(),
            sources: HashMap::new(),
            guard,
            budget: DialBudget::default(),
            refreshes: refresh::Refreshes::default(),
            connections: HashMap::new(),
            proven: HashMap::new(),
            unreachable: HashSet::new(),
        }
    }

    /// Where the table has a peer, each address once, without the peer's id at its end.
    pub(crate) fn addresses(&mut self, peer: &PeerId) -> BTreeSet<Multiaddr> {
        let Some(bucket) = self.inner.kbucket(*peer) else {
            return BTreeSet::new(); // ourselves
        };
        let entry = bucket.iter().find(|entry| entry.node.key.preimage() == peer);
        let held = entry.into_iter().flat_map(|entry| entry.node.value.iter());
        held.map(|address| split_peer(address.clone()).0).collect()
    }

    /// Makes `addresses` all that the table has of a peer, beside those where it was `found`: dialed, and it
    /// answered. Gives back those that are new to it.
    pub(crate) fn replace(
        &mut self,
        peer: PeerId,
        found: &[Multiaddr],
        addresses: &[Multiaddr],
    ) -> Vec<Multiaddr> {
        self.prove(peer, found);
        let mut wanted = self.proven.get(&peer).cloned().unwrap_or_default();
        wanted.reverse();
        wanted.extend(addresses.iter().filter(|a| !wanted.contains(a)).cloned().collect::<Vec<_>>());
        wanted.truncate(claims::OWN);
        let held = self.addresses(&peer);
        // One that waits for a place in its bucket does not show in `held`.
        if held.is_empty() && !self.has_room(&peer) {
            return Vec::new();
        }
        if held.is_empty() || held.iter().any(|address| !wanted.contains(address)) {
            self.inner.remove_peer(&peer);
        }
        let mut new = Vec::new();
        for address in wanted {
            let update = self.inner.add_address(&peer, address.clone());
            if update != kad::RoutingUpdate::Failed && !held.contains(&address) {
                new.push(address);
            }
        }
        new
    }

    /// Whether a peer that is new has a place in its bucket; one that could not be reached makes room. (kad dials one that
    /// is not connected instead, to see whether it is there: where nodes connect to few of many, each of these dials
    /// would lead to the next.)
    fn has_room(&mut self, peer: &PeerId) -> bool {
        let gone = match self.inner.kbucket(*peer) {
            None => return false,
            Some(bucket) if bucket.num_entries() < kad::K_VALUE.get() => return true,
            Some(bucket) => {
                let mut members = bucket.iter().map(|entry| *entry.node.key.preimage());
                members.find(|member| self.unreachable.contains(member))
            }
        };
        let Some(gone) = gone else { return false };
        self.unreachable.remove(&gone);
        self.inner.remove_peer(&gone);
        true
    }

    fn prove(&mut self, peer: PeerId, found: &[Multiaddr]) {
        if found.is_empty() {
            return;
        }
        if self.proven.len() >= MAX_PROVEN && !self.proven.contains_key(&peer) {
            let gone = |id: &PeerId| !self.connections.values().any(|(there, _)| there == id);
            let one = self.proven.keys().find(|id| gone(id)).or_else(|| self.proven.keys().next()).copied();
            one.map(|one| self.proven.remove(&one));
        }
        let known = self.proven.entry(peer).or_default();
        for address in found {
            known.retain(|other| other != address);
            known.push(address.clone());
        }
        let surplus = known.len().saturating_sub(MAX_PROVEN_ADDRESSES);
        known.drain(..surplus);
    }

    /// Forgets that a peer was found at an address, or anywhere.
    pub(crate) fn disprove(&mut self, peer: &PeerId, address: Option<&Multiaddr>) {
        if address.is_none() {
            self.unreachable.remove(peer);
        }
        if let Some(known) = self.proven.get_mut(peer) {
            known.retain(|other| address.is_some_and(|gone| gone != other));
            if known.is_empty() {
                self.proven.remove(peer);
            }
        }
    }

    /// Of what kad knows of a peer, what is dialed: what there is a transport for, and of claims as many as the budget
    /// has room for. `asked` is what the dial is made to by itself: then kad is only asked out of politeness.
    fn choose(&mut self, known: Vec<Multiaddr>, peer: Option<PeerId>, asked: &[Multiaddr]) -> Vec<Multiaddr> {
        let (Some(peer), true) = (peer, asked.is_empty()) else {
            return Vec::new();
        };
        let (now, proven) = (runtime::now(), self.proven.get(&peer));
        let mut chosen: Vec<Multiaddr> = Vec::new();
        for address in known.into_iter().filter(|address| over(address).is_some()) {
            let bare = split_peer(address.clone()).0;
            if chosen.len() >= claims::OWN || chosen.iter().any(|c| split_peer(c.clone()).0 == bare) {
                continue;
            }
            let through = relay(&bare);
            let is_connected = |relay| self.connections.values().any(|(peer, _)| *peer == relay);
            let is_free =
                proven.is_some_and(|known| known.contains(&bare)) || through.is_some_and(is_connected);
            if is_free || ip(&bare).is_some_and(|ip| self.budget.take(ip, now)) {
                chosen.push(address);
            } else {
                log::debug!("{bare}, where {peer} is said to be, is not dialed: too many such claims");
            }
        }
        chosen
    }

    /// Leaves of what a peer says over a connection what may be believed.
    fn believe(&self, connection: ConnectionId, event: &mut Heard) {
        let said_from = self.connections.get(&connection).map(|(_, remote)| remote);
        let is_connected = |relay| self.connections.values().any(|(peer, _)| *peer == relay);
        let may_tell = |claimed: &Multiaddr| {
            relay(claimed).is_some_and(is_connected)
                || said_from.is_some_and(|from| self.guard.may_tell(claimed, from))
        };
        match event {
            Heard::FindNodeRes { closer_peers, .. } | Heard::GetRecordRes { closer_peers, .. } => {
                answers::believe(closer_peers, &mut Vec::new(), may_tell);
            }
            Heard::GetProvidersRes { closer_peers, provider_peers, .. } => {
                answers::believe(closer_peers, provider_peers, may_tell);
            }
            Heard::AddProvider { provider, .. } => {
                answers::believe_peer(&mut provider.multiaddrs, may_tell);
            }
            _ => {}
        }
    }

    /// Takes note of what kad does; what may go out now is given back.
    fn pass(&mut self, mut event: ToSwarm<kad::Event, Said>) -> Option<Out> {
        if let ToSwarm::NotifyHandler { event, .. } = &mut event {
            fit(event);
        }
        match (event, self.answered.take()) {
            (ToSwarm::GenerateEvent(event), _) => {
                if let kad::Event::InboundRequest {
                    request: kad::InboundRequest::PutRecord { source, connection, .. },
                } = &event
                {
                    self.answered = Some((*source, *connection));
                }
                Some(ToSwarm::GenerateEvent(Event::Kad(event.into())))
            }
            (
                ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event },
                Some(answered),
            ) if answered == (peer_id, connection) => {
                let store = self.inner.store_mut();
                let sequence = store.sequence();
                if store.is_durable(sequence) {
                    return Some(answer(peer_id, connection, event));
                }
                self.held.push_back(Held { sequence, peer: peer_id, connection, answer: event });
                None
            }
            (ToSwarm::Dial { opts }, _) if self.leaves_out(&opts) => None,
            (event, _) => Some(event.map_out(|event| Event::Kad(event.into()))),
        }
    }

    /// The next answer that the disk has caught up with, or the next end of a connection.
    fn released(&mut self) -> Option<Out> {
        if let Some((connection, peer_id)) = self.broken.pop_first() {
            return Some(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(connection) });
        }
        let sequence = self.held.front()?.sequence;
        if !self.inner.store_mut().is_durable(sequence) {
            return None;
        }
        let held = self.held.pop_front()?;
        Some(answer(held.peer, held.connection, held.answer))
    }
}

/// What kad's handler says of a connection, and is given to say.
type Heard = THandlerOutEvent<Kad>;
type Said = THandlerInEvent<Kad>;

/// Makes what this node is about to say fit what everybody reads.
fn fit(said: &mut Said) {
    match said {
        Said::FindNodeRes { closer_peers, .. } => answers::fit(closer_peers, &mut Vec::new(), 0),
        Said::GetProvidersRes { closer_peers, provider_peers, .. } => {
            answers::fit(closer_peers, provider_peers, 0);
        }
        Said::GetRecordRes { closer_peers, record, .. } => {
            let record = record.as_ref().map_or(0, |record| record.value.len() + record.key.as_ref().len());
            answers::fit(closer_peers, &mut Vec::new(), record);
        }
        _ => {}
    }
}

type Out = ToSwarm<Event, THandlerInEvent<Kad>>;

fn answer(peer_id: PeerId, connection: ConnectionId, event: THandlerInEvent<Kad>) -> Out {
    ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event }
}

impl Deref for Behaviour {
    type Target = Kad;

    fn deref(&self) -> &Kad {
        &self.inner
    }
}

impl DerefMut for Behaviour {
    fn deref_mut(&mut self) -> &mut Kad {
        &mut self.inner
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <Kad as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    ask_inner_of_connections!(dialing choose);

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionEstablished(made) => {
                let source = Source::remote(made.peer_id, made.endpoint.get_remote_address());
                self.sources.insert(made.connection_id, source);
                let remote = dialer::remote(made.endpoint);
                self.connections.insert(made.connection_id, (made.peer_id, remote));
                self.unreachable.remove(&made.peer_id);
            }
            FromSwarm::AddressChange(moved) => {
                let remote = dialer::remote(moved.new);
                self.connections.insert(moved.connection_id, (moved.peer_id, remote));
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.held.retain(|held| held.connection != closed.connection_id);
                self.sources.remove(&closed.connection_id);
                self.connections.remove(&closed.connection_id);
                self.sources.shrink_to(64.max(self.sources.len() * 2));
                self.connections.shrink_to(64.max(self.connections.len() * 2));
            }
            FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                error: DialError::Transport(failed),
                ..
            }) => {
                // What is made up by others is not in the table.
                if self.unreachable.len() < MAX_UNREACHABLE && !self.addresses(peer).is_empty() {
                    self.unreachable.insert(*peer);
                }
                for (address, _) in failed {
                    self.disprove(peer, Some(&split_peer(address.clone()).0));
                }
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        mut event: THandlerOutEvent<Self>,
    ) {
        self.believe(connection, &mut event);
        let source = self.sources.get(&connection).copied();
        self.inner.store_mut().set_source(source);
        self.inner.on_connection_handler_event(peer, connection, event);
        self.inner.store_mut().set_source(None);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(answer) = self.released() {
                return Poll::Ready(answer);
            }
            match self.inner.poll(cx) {
                Poll::Ready(event) => {
                    if let Some(event) = self.pass(event) {
                        return Poll::Ready(event);
                    }
                }
                // What kad has just stored is written now: the store is polled last.
                Poll::Pending => {
                    let report = ready!(self.inner.store_mut().poll(cx));
                    if let Report::Failed { .. } = report {
                        self.broken.extend(self.held.drain(..).map(|held| (held.connection, held.peer)));
                    }
                    return Poll::Ready(ToSwarm::GenerateEvent(Event::Store(report)));
                }
            }
        }
    }
}
