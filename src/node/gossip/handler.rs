//! A connection's gossip: what comes in is read here, frame by frame; what goes out is gossipsub's.
//!
//! gossipsub's own handler gives a stream up when a frame is larger than it takes, and gossip with that
//! connection after the fifth stream. Here a frame that is too large is skipped, and any number of streams may
//! follow each other. What a frame says is decoded by gossipsub, in both directions.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
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
};

type Inner = <Gossipsub as NetworkBehaviour>::ConnectionHandler;
type InnerUpgrade = <Inner as ConnectionHandler>::InboundProtocol;
type InnerEvent = <Inner as ConnectionHandler>::ToBehaviour;

/// What a connection tells.
#[derive(Debug)]
pub(crate) enum Event {
    /// What gossipsub's own handler would have told.
    Gossipsub(InnerEvent),
    /// Frames that were larger than this node takes, and how large the last one was.
    Skipped { frames: u64, bytes: u64 },
}

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

/// gossipsub's handler, with the inbound stream in our hands.
pub(crate) struct Handler {
    inner: Inner,
    inbound: Option<Inbound>,
    /// What was read beside a frame that was skipped.
    ahead: Option<InnerEvent>,
    max_frame: usize,
}

impl Handler {
    /// `max_frame` is the largest frame that is read, in bytes, without its length.
    pub(super) fn new(inner: Inner, max_frame: usize) -> Self {
        Self { inner, inbound: None, ahead: None, max_frame }
    }

    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(event) = self.ahead.take() {
            return Poll::Ready(Event::Gossipsub(event));
        }
        let Some(inbound) = &mut self.inbound else { return Poll::Pending };
        let read = inbound.decoded.poll_next_unpin(cx);
        let skipped = inbound.skipped.take();
        let read = match read {
            Poll::Ready(Some(Ok(event))) => Some(event),
            Poll::Pending => None,
            Poll::Ready(ended) => {
                let why = ended.and_then(Result::err).unwrap_or_else(|| "its end".into());
                log::debug!("an inbound gossip stream is closed: {why}");
                self.inbound = None;
                None
            }
        };
        match (skipped, read) {
            (Some((frames, bytes)), read) => {
                self.ahead = read;
                Poll::Ready(Event::Skipped { frames, bytes })
            }
            (None, Some(event)) => Poll::Ready(Event::Gossipsub(event)),
            (None, None) => Poll::Pending,
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = <Inner as ConnectionHandler>::FromBehaviour;
    type ToBehaviour = Event;
    type InboundProtocol = Upgrade;
    type OutboundProtocol = <Inner as ConnectionHandler>::OutboundProtocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = <Inner as ConnectionHandler>::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        let max_frame = self.max_frame;
        self.inner.listen_protocol().map_upgrade(|inner| Upgrade { inner, max_frame })
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        // Twice: after its outbound stream broke, gossipsub (0.50.1) asks for a new one only when it is
        // polled again, and nothing would wake it.
        for _ in 0..2 {
            if let Poll::Ready(event) = self.inner.poll(cx) {
                return Poll::Ready(event.map_custom(Event::Gossipsub));
            }
        }
        self.poll_inbound(cx).map(ConnectionHandlerEvent::NotifyBehaviour)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.inner.poll_close(cx).map(|event| event.map(Event::Gossipsub))
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.inner.on_behaviour_event(event);
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
            // The newest stream is the one that the peer writes to.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.inbound = Some(protocol);
                return;
            }
            ConnectionEvent::ListenUpgradeError(_) => return,
            ConnectionEvent::FullyNegotiatedOutbound(event) => {
                ConnectionEvent::FullyNegotiatedOutbound(event)
            }
            ConnectionEvent::DialUpgradeError(event) => ConnectionEvent::DialUpgradeError(event),
            ConnectionEvent::AddressChange(event) => ConnectionEvent::AddressChange(event),
            ConnectionEvent::LocalProtocolsChange(event) => ConnectionEvent::LocalProtocolsChange(event),
            ConnectionEvent::RemoteProtocolsChange(event) => ConnectionEvent::RemoteProtocolsChange(event),
            _ => return,
        };
        self.inner.on_connection_event(event);
    }
}
