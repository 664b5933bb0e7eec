//! One connection of a peer: a substream for what we send, if this connection carries it, and those that the peer
//! opens.
//!
//! A substream that breaks is opened again, for as long as the connection stands, with growing pauses; what waited is
//! sent on the next one. Nothing is decided here.

mod inbound;
mod outbound;

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
    handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
};

use crate::{Limits, Outbox, PeerKind, Rpc, budget::Budget, protocol::Protocols};
use inbound::{Heard, Inbound};
use outbound::{Outbound, Step};

/// Substreams of one peer that are read at a time: its newest, and what is still under way in those before.
const INBOUND: usize = 3;

/// What the behaviour tells a connection.
#[derive(Clone, Debug)]
pub enum ToHandler {
    /// Open a substream.
    Carry(Arc<Outbox>),
    /// Send what is in the outbox.
    Start,
    /// Send what is begun, and close the substream.
    Release,
    /// The connection is in use, or no longer.
    KeepAlive(bool),
}

/// What a connection tells the behaviour.
#[derive(Debug)]
pub enum FromHandler {
    /// The substream is open; the peer waits to be greeted.
    Opened(PeerKind),
    /// The substream broke, and another will be opened.
    Broke,
    /// The peer speaks none of our protocols.
    Unsupported,
    /// The peer opened a substream, or has none any more.
    Heard {
        /// What it speaks on it.
        kind: PeerKind,
        /// Whether it has one.
        open: bool,
    },
    /// The peer said something.
    Received(Vec<Rpc>),
    /// The peer sent a frame above the limit; it was skipped.
    TooLarge(u64),
    /// The peer sent a frame that is no RPC.
    Malformed,
}

/// The connection handler.
#[derive(Debug)]
pub struct Handler {
    protocols: Protocols,
    limits: Arc<Limits>,
    partial: Budget,
    outbound: Outbound,
    inbound: VecDeque<Inbound>,
    events: VecDeque<FromHandler>,
    keep_alive: bool,
}

impl Handler {
    pub(crate) fn new(protocols: Protocols, limits: Arc<Limits>, partial: Budget) -> Self {
        Self {
            protocols,
            limits,
            partial,
            outbound: Outbound::default(),
            inbound: VecDeque::new(),
            events: VecDeque::new(),
            keep_alive: false,
        }
    }

    fn poll_inbound(&mut self, cx: &mut Context<'_>) {
        let mut rpcs = Vec::new();
        let mut at = 0;
        while let Some(stream) = self.inbound.get_mut(at) {
            let mut heard = Heard { rpcs: &mut rpcs, events: &mut self.events };
            if stream.poll(cx, &self.limits, &mut heard).is_ready() {
                let kind = stream.kind();
                self.inbound.remove(at);
                if self.inbound.is_empty() {
                    self.events.push_back(FromHandler::Heard { kind, open: false });
                }
            } else {
                at += 1;
            }
        }
        if !rpcs.is_empty() {
            self.events.push_front(FromHandler::Received(rpcs));
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = ToHandler;
    type ToBehaviour = FromHandler;
    type InboundProtocol = Protocols;
    type OutboundProtocol = Protocols;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Protocols> {
        SubstreamProtocol::new(self.protocols.clone(), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep_alive
    }

    fn on_behaviour_event(&mut self, event: ToHandler) {
        match event {
            ToHandler::Carry(outbox) => self.outbound.carry(outbox),
            ToHandler::Start => self.outbound.start(),
            ToHandler::Release => self.outbound.release(),
            ToHandler::KeepAlive(keep) => self.keep_alive = keep,
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocols, Protocols>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, kind),
                ..
            }) => {
                if self.inbound.len() >= INBOUND {
                    self.inbound.pop_front();
                }
                self.inbound.push_back(Inbound::new(stream, kind, self.limits.frame, self.partial.clone()));
                self.events.push_back(FromHandler::Heard { kind, open: true });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, kind),
                ..
            }) => {
                let wanted = self.outbound.opened(stream);
                if wanted {
                    self.events.push_back(FromHandler::Opened(kind));
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => match error {
                StreamUpgradeError::NegotiationFailed => {
                    self.outbound.unsupported();
                    self.events.push_back(FromHandler::Unsupported);
                }
                StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => self.outbound.failed(),
            },
            _ => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Protocols, (), FromHandler>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
            }
            match self.outbound.poll(cx) {
                Poll::Ready(Step::Open) => {
                    let protocol = SubstreamProtocol::new(self.protocols.clone(), ());
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                }
                Poll::Ready(Step::Broke) => {
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(FromHandler::Broke));
                }
                Poll::Pending => {}
            }
            self.poll_inbound(cx);
            if self.events.is_empty() {
                return Poll::Pending;
            }
        }
    }
}
