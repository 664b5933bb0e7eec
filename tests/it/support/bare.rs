//! Peers without a node around them, for what no node of ours does: a swarm of its own, and behaviours that are nothing
//! but what each connection has.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, Transport as _,
    core::{Endpoint, muxing::StreamMuxerBox, transport::PortUse, upgrade::ReadyUpgrade},
    identity::Keypair,
    swarm::{
        self, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, Stream, SubstreamProtocol, THandler, THandlerInEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use smidge::{
    runtime::Handle,
    transport::quic::{self, Transport},
};

use super::PATIENCE;

/// A peer over QUIC that listens nowhere yet and does what its behaviour does.
pub(crate) fn swarm<B: NetworkBehaviour>(rt: &Handle, key: &Keypair, behaviour: B) -> Swarm<B> {
    let transport = Transport::new(quic::Config::new(key).unwrap(), rt.clone())
        .unwrap()
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed();
    let executor = rt.clone();
    let config =
        swarm::Config::with_executor(move |task| executor.spawn(task)).with_idle_connection_timeout(PATIENCE);
    Swarm::new(transport, behaviour, key.public().to_peer_id(), config)
}

/// Runs it for as long as the runtime lives.
pub(crate) fn drive<B>(rt: &Handle, mut swarm: Swarm<B>)
where
    B: NetworkBehaviour<ToSwarm: Send> + Send,
{
    rt.spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
}

/// A behaviour that does nothing by itself: each connection has a handler that this makes.
pub(crate) struct Bare<H>(Box<dyn FnMut() -> H + Send>);

impl<H> Bare<H> {
    pub(crate) fn new(handler: impl FnMut() -> H + Send + 'static) -> Self {
        Self(Box::new(handler))
    }
}

impl<H> NetworkBehaviour for Bare<H>
where
    H: ConnectionHandler<FromBehaviour = Infallible, ToBehaviour = Infallible>,
{
    type ConnectionHandler = H;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok((self.0)())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok((self.0)())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// What is done with a stream, and whether it is one of our own.
type Serve = Arc<dyn Fn(Stream, bool) -> BoxFuture<'static, ()> + Send + Sync>;

/// A connection that takes streams of one protocol, and may open one of its own.
pub(crate) struct Streams {
    protocol: StreamProtocol,
    opens: bool,
    serve: Serve,
    open: Vec<BoxFuture<'static, ()>>,
    waker: Option<Waker>,
}

impl Streams {
    pub(crate) fn new(protocol: &'static str, opens: bool, serve: Serve) -> Self {
        Self { protocol: StreamProtocol::new(protocol), opens, serve, open: Vec::new(), waker: None }
    }
}

impl ConnectionHandler for Streams {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Infallible>> {
        if std::mem::take(&mut self.opens) {
            let protocol = self.listen_protocol();
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.open.retain_mut(|open| open.poll_unpin(cx).is_pending());
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        let (stream, is_ours) = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                (protocol, false)
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                (protocol, true)
            }
            _ => return,
        };
        self.open.push((self.serve)(stream, is_ours));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
