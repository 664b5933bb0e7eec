//! A connection's gossip: what comes in is read here, frame by frame; what goes out is gossipsub's.
//!
//! gossipsub's own handler gives a stream up when a frame is larger than it takes, and gossip with that
//! connection after the fifth stream. Here a frame that is too large is skipped, and any number of streams may
//! follow each other. What a frame says is decoded by gossipsub, in both directions.
//!
//! gossipsub tells nobody when the other side's stream ends or when it gave a connection up, and opens its own
//! stream only when it has something to say *and* is polled for another reason. Here ours is opened as soon as the
//! connection is to carry gossip, and each change is told.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{
    FutureExt, Stream, StreamExt, TryFutureExt,
    future::{BoxFuture, Either},
};
use libp2p::{
    core::{InboundUpgrade, UpgradeInfo},
    swarm::{
        self, ConnectionHandler, ConnectionHandlerEvent, NetworkBehaviour, SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound},
    },
};

use super::{
    Gossipsub,
    frames::{Frames, Skipped},
    watch::Change,
};

type Inner = <Gossipsub as NetworkBehaviour>::ConnectionHandler;
type InnerUpgrade = <Inner as ConnectionHandler>::InboundProtocol;
type InnerEvent = <Inner as ConnectionHandler>::ToBehaviour;

/// What a connection tells.
#[allow(clippy::large_enum_variant, reason = "nearly all of them are gossipsub's own")]
#[derive(Debug)]
pub(crate) enum Event {
    /// What gossipsub's own handler would have told.
    Gossipsub(InnerEvent),
    /// Frames that were larger than this node takes, and how large the last one was.
    Skipped { frames: u64, bytes: u64 },
    /// What happened to a stream.
    StreamChanged(Change),
}

/// What a connection is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// What gossipsub tells its own handler.
    Gossipsub(<Inner as ConnectionHandler>::FromBehaviour),
    /// Whether what is queued for the peer goes over this connection.
    Carry(bool),
    /// gossipsub's handler is not woken for each message; being told something wakes it.
    Nudge,
}

/// Streams that the other side may open within [`WINDOW`]; one that opens more has a fault that another stream
/// does not mend.
const REOPENED: usize = 8;
const WINDOW: Duration = Duration::from_secs(60);
/// Streams of the other side that are read at a time: one, and the one before until its end.
const READ: usize = 2;

/// What a peer says, decoded.
type Decoded = Pin<Box<dyn Stream<Item = Result<InnerEvent, String>> + Send>>;

/// An inbound stream of gossip.
pub(crate) struct Inbound {
    decoded: Decoded,
    skipped: Arc<Skipped>,
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("skipped", &self.skipped).finish_non_exhaustive()
    }
}

/// gossipsub's upgrade, with frames that are let through one at a time.
#[derive(Debug)]
pub(crate) struct Upgrade {
    inner: InnerUpgrade,
    max_frame: usize,
}

impl UpgradeInfo for Upgrade {
    type Info = <InnerUpgrade as UpgradeInfo>::Info;
    type InfoIter = <InnerUpgrade as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.inner.protocol_info()
    }
}

impl InboundUpgrade<swarm::Stream> for Upgrade {
    type Output = Inbound;
    type Error = <InnerUpgrade as InboundUpgrade<Frames<swarm::Stream>>>::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: swarm::Stream, info: Self::Info) -> Self::Future {
        let skipped = Arc::default();
        let frames = Frames::new(stream, self.max_frame, Arc::clone(&skipped));
        let upgraded = self.inner.upgrade_inbound(frames, info);
        upgraded
            .map_ok(|output| match output {
                Either::Left((framed, _)) => {
                    Inbound { decoded: framed.map(|read| read.map_err(|e| e.to_string())).boxed(), skipped }
                }
                Either::Right(denied) => match denied {},
            })
            .boxed()
    }
}

/// gossipsub's handler, with the inbound streams in our hands.
pub(crate) struct Handler {
    inner: Inner,
    max_frame: usize,
    /// Streams of the other side, the newest last.
    inbound: Vec<Inbound>,
    /// When the other side opened its latest streams.
    openings: VecDeque<Instant>,
    /// Whether what is queued for the peer goes over this connection.
    carries: bool,
    /// A stream of ours is being negotiated.
    opening: bool,
    /// A stream of ours was asked for already.
    opened: bool,
    given_up: bool,
    events: VecDeque<Event>,
}

impl Handler {
    /// `max_frame` is the largest frame that is read, in bytes, without its length.
    pub(super) fn new(inner: Inner, max_frame: usize) -> Self {
        Self {
            inner,
            max_frame,
            inbound: Vec::new(),
            openings: VecDeque::new(),
            carries: false,
            opening: false,
            opened: false,
            given_up: false,
            events: VecDeque::new(),
        }
    }

    fn tell(&mut self, change: Change) {
        self.events.push_back(Event::StreamChanged(change));
    }

    fn on_inbound(&mut self, inbound: Inbound) {
        let now = Instant::now();
        self.openings.push_back(now);
        if self.openings.len() > REOPENED {
            let first = self.openings.pop_front();
            if first.is_some_and(|first| now.saturating_duration_since(first) < WINDOW) {
                self.inbound.clear();
                return self.give_up(format!("it opened more than {REOPENED} streams within {WINDOW:?}"));
            }
        }
        if self.inbound.len() == READ {
            drop(self.inbound.remove(0));
        }
        self.inbound.push(inbound);
        self.tell(Change::Heard);
    }

    fn give_up(&mut self, why: String) {
        if !self.given_up {
            self.given_up = true;
            self.tell(Change::GivenUp(why));
        }
    }

    /// Takes in what the other side sent, until there is something to tell.
    fn read(&mut self, cx: &mut Context<'_>) {
        let mut at = 0;
        while self.events.is_empty()
            && let Some(inbound) = self.inbound.get_mut(at)
        {
            let read = inbound.decoded.poll_next_unpin(cx);
            if let Some((frames, bytes)) = inbound.skipped.take() {
                self.events.push_back(Event::Skipped { frames, bytes });
            }
            let ended = match read {
                Poll::Pending => {
                    at += 1;
                    continue;
                }
                Poll::Ready(Some(Ok(event))) => {
                    self.events.push_back(Event::Gossipsub(event));
                    continue;
                }
                Poll::Ready(Some(Err(why))) => why,
                Poll::Ready(None) => "it closed its stream".to_owned(),
            };
            drop(self.inbound.remove(at));
            if self.inbound.is_empty() {
                self.tell(Change::Unheard(ended));
            }
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Event;
    type InboundProtocol = Upgrade;
    type OutboundProtocol = <Inner as ConnectionHandler>::OutboundProtocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        let max_frame = self.max_frame;
        self.inner.listen_protocol().map_upgrade(|inner| Upgrade { inner, max_frame })
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn on_behaviour_event(&mut self, command: Command) {
        match command {
            Command::Gossipsub(event) => self.inner.on_behaviour_event(event),
            Command::Carry(carries) => self.carries = carries,
            Command::Nudge => {}
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if self.carries && !self.opened {
            self.opened = true;
            let (protocol, ()) = self.inner.listen_protocol().into_upgrade();
            if let ::either::Either::Left(protocol) = protocol {
                self.opening = true;
                let protocol = SubstreamProtocol::new(protocol, ());
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        // Twice: after its outbound stream broke, gossipsub (0.50.1) asks for a new one only when it is
        // polled again, and nothing would wake it.
        for _ in 0..2 {
            if !self.carries {
                break;
            }
            match self.inner.poll(cx) {
                // The stream that is on its way does.
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { .. }) if self.opening => {}
                Poll::Ready(event) => {
                    self.opening |= matches!(event, ConnectionHandlerEvent::OutboundSubstreamRequest { .. });
                    return Poll::Ready(event.map_custom(Event::Gossipsub));
                }
                Poll::Pending => {}
            }
        }
        self.read(cx);
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event)),
            None => Poll::Pending,
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.inner.poll_close(cx).map(|event| event.map(Event::Gossipsub))
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        let event = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                return self.on_inbound(protocol);
            }
            ConnectionEvent::ListenUpgradeError(_) => return,
            ConnectionEvent::FullyNegotiatedOutbound(event) => {
                self.opening = false;
                self.tell(Change::Sending);
                ConnectionEvent::FullyNegotiatedOutbound(event)
            }
            ConnectionEvent::DialUpgradeError(event) => {
                self.opening = false;
                ConnectionEvent::DialUpgradeError(event)
            }
            ConnectionEvent::AddressChange(event) => ConnectionEvent::AddressChange(event),
            ConnectionEvent::LocalProtocolsChange(event) => ConnectionEvent::LocalProtocolsChange(event),
            ConnectionEvent::RemoteProtocolsChange(event) => ConnectionEvent::RemoteProtocolsChange(event),
            _ => return,
        };
        self.inner.on_connection_event(event);
        if matches!(self.inner, Inner::Disabled(_)) {
            self.give_up("it does not take our stream, or broke too many of them".to_owned());
        }
    }
}
