//! Kademlia, with promises that the disk has kept: a peer that hands us a record is told that we have
//! it when it is where it is to be kept, and not before.
//!
//! kad answers a `PUT_VALUE` as soon as its store took the record in. This wrapper holds that answer
//! back until the store says that everything up to then is safe. With a store in memory that is at
//! once. Where the disk fails instead, the connection that waits for the answer is closed: kad has no
//! other way to say no so late, and a stream that is never answered is never free again.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::{Deref, DerefMut},
    task::{Context, Poll, ready},
};

use libp2p::{
    Multiaddr, PeerId, kad,
    swarm::{
        CloseConnection, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

use super::forward::ask_inner_of_connections;
use crate::{
    config::carried,
    store::{Report, Sequence, Source, Store},
};

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
}

impl Behaviour {
    pub(crate) fn new(inner: Kad) -> Self {
        Self {
            inner,
            answered: None,
            held: VecDeque::new(),
            broken: BTreeMap::new(),
            sources: HashMap::new(),
        }
    }

    /// Takes note of what kad does; what may go out now is given back.
    fn pass(&mut self, event: ToSwarm<kad::Event, THandlerInEvent<Kad>>) -> Option<Out> {
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

/// Whether smidge has a transport for an address.
fn is_spoken(address: &Multiaddr) -> bool {
    carried(address).is_some()
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

    // Others tell of addresses that this node cannot dial, such as /ws.
    ask_inner_of_connections!(dialing is_spoken);

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionEstablished(made) => {
                let source = Source::remote(made.peer_id, made.endpoint.get_remote_address());
                self.sources.insert(made.connection_id, source);
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.held.retain(|held| held.connection != closed.connection_id);
                self.sources.remove(&closed.connection_id);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
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
