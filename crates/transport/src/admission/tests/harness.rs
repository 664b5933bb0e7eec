//! What the tests of admission run on: QUIC and TCP on loopback, each as the same type.

use std::{
    error,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    AsyncReadExt, AsyncWriteExt, FutureExt, TryFutureExt,
    future::{BoxFuture, LocalBoxFuture},
};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox},
        transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
    },
    identity::Keypair,
};
use smidge_runtime::{Executor, Handle};

use super::super::{Admitted, ChannelBinding, Gate, Rules};
use crate::{quic, tcp};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `test` over each transport.
pub(super) fn run(test: impl AsyncFn(Harness)) {
    for over in [Over::Quic, Over::Tcp] {
        Executor::default()
            .block_on(1, |rt| async {
                let limited = rt.clone();
                let test: LocalBoxFuture<'_, ()> = Box::pin(test(Harness { rt, over }));
                limited.timeout(PATIENCE, test).await.unwrap_or_else(|_| panic!("{over:?}: no end in sight"));
            })
            .unwrap();
    }
}

#[derive(Clone, Copy, Debug)]
enum Over {
    Quic,
    Tcp,
}

/// A runtime, and the transport to make.
#[derive(Clone)]
pub(super) struct Harness {
    pub(super) rt: Handle,
    over: Over,
}

impl Harness {
    /// Yamux does not: there, who sends nothing is silent.
    pub(super) fn tells_of_empty_streams(&self) -> bool {
        matches!(self.over, Over::Quic)
    }

    /// A transport without admission.
    pub(super) fn plain(&self) -> Below {
        let key = Keypair::generate_ed25519();
        let rt = self.rt.clone();
        let inner = match self.over {
            Over::Quic => Inner::Quic(quic::Transport::new(quic::Config::new(&key).unwrap(), rt).unwrap()),
            Over::Tcp => Inner::Tcp(tcp::Transport::new(tcp::Config::new(&key).unwrap(), rt).unwrap()),
        };
        Below { inner, alive: Arc::default(), peer: key.public().to_peer_id() }
    }

    pub(super) fn admitted(&self, rules: Rules) -> Admitted<Below> {
        let inner = self.plain();
        let gate = Gate::new(inner.peer, rules, self.rt.clone());
        Admitted::new(inner, gate)
    }

    /// Waits until a transport holds no connection any more.
    pub(super) async fn settled(&self, transport: &Admitted<Below>) {
        while transport.inner.connections() > 0 {
            self.rt.sleep(Duration::from_millis(5)).await;
        }
    }
}

enum Inner {
    Quic(quic::Transport),
    Tcp(tcp::Transport),
}

/// One of the transports.
pub(super) struct Below {
    inner: Inner,
    /// Every connection that was made holds a reference.
    alive: Arc<()>,
    peer: PeerId,
}

impl Below {
    fn connections(&self) -> usize {
        let made = Arc::strong_count(&self.alive) - 1;
        match &self.inner {
            // Those that nobody holds, and that are not closed yet, too.
            Inner::Quic(quic) => made + quic.open_connections(),
            Inner::Tcp(_) => made,
        }
    }
}

/// Why either of them failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Failed(Box<dyn error::Error + Send + Sync>);

type Made = BoxFuture<'static, Result<(PeerId, Link), Failed>>;

fn link<M, E>(made: impl Future<Output = Result<(PeerId, M), E>> + Send + 'static, alive: &Arc<()>) -> Made
where
    M: StreamMuxer<Substream: Send + 'static, Error: Send + Sync + 'static>,
    M: ChannelBinding + Send + 'static,
    E: error::Error + Send + Sync + 'static,
{
    let alive = alive.clone();
    let link = |muxer: M| Link {
        binding: muxer.binding(),
        is_initiator: muxer.is_initiator(),
        muxer: StreamMuxerBox::new(muxer),
        _alive: alive,
    };
    made.map_ok(|(peer, muxer)| (peer, link(muxer))).map_err(|e| Failed(Box::new(e))).boxed()
}

fn failed<E: error::Error + Send + Sync + 'static>(e: TransportError<E>) -> TransportError<Failed> {
    e.map(|e| Failed(Box::new(e)))
}

impl Transport for Below {
    type Output = (PeerId, Link);
    type Error = Failed;
    type ListenerUpgrade = Made;
    type Dial = Made;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Failed>> {
        match &mut self.inner {
            Inner::Quic(quic) => quic.listen_on(id, address).map_err(failed),
            Inner::Tcp(tcp) => tcp.listen_on(id, address).map_err(failed),
        }
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        match &mut self.inner {
            Inner::Quic(quic) => quic.remove_listener(id),
            Inner::Tcp(tcp) => tcp.remove_listener(id),
        }
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Made, TransportError<Failed>> {
        match &mut self.inner {
            Inner::Quic(quic) => quic.dial(address, opts).map(|made| link(made, &self.alive)).map_err(failed),
            Inner::Tcp(tcp) => tcp.dial(address, opts).map(|made| link(made, &self.alive)).map_err(failed),
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Made, Failed>> {
        let Self { inner, alive, .. } = &mut *self;
        match inner {
            Inner::Quic(quic) => Pin::new(quic)
                .poll(cx)
                .map(|event| event.map_upgrade(|made| link(made, alive)).map_err(|e| Failed(Box::new(e)))),
            Inner::Tcp(tcp) => Pin::new(tcp)
                .poll(cx)
                .map(|event| event.map_upgrade(|made| link(made, alive)).map_err(|e| Failed(Box::new(e)))),
        }
    }
}

/// A connection over either.
#[derive(Debug)]
pub(super) struct Link {
    muxer: StreamMuxerBox,
    binding: Option<[u8; 32]>,
    is_initiator: bool,
    _alive: Arc<()>,
}

impl ChannelBinding for Link {
    fn binding(&self) -> Option<[u8; 32]> {
        self.binding
    }

    fn is_initiator(&self) -> bool {
        self.is_initiator
    }
}

impl StreamMuxer for Link {
    type Substream = SubstreamBox;
    type Error = std::io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SubstreamBox, Self::Error>> {
        Pin::new(&mut self.muxer).poll_inbound(cx)
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SubstreamBox, Self::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.muxer).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.muxer).poll(cx)
    }
}

pub(super) trait Listens: Transport + Unpin + Sized {
    fn any_port(&self, host: &str) -> Multiaddr;

    async fn event(&mut self) -> TransportEvent<Self::ListenerUpgrade, Self::Error> {
        poll_fn(|cx| Pin::new(&mut *self).poll(cx)).await
    }

    async fn listen(&mut self, host: &str) -> Multiaddr
    where
        Self::Error: std::fmt::Debug,
    {
        let at = self.any_port(host);
        self.listen_on(ListenerId::next(), at).unwrap();
        match self.event().await {
            TransportEvent::NewAddress { listen_addr, .. } => listen_addr,
            _ => panic!("an address was expected"),
        }
    }

    async fn accept(&mut self) -> Result<Self::Output, Self::Error> {
        match self.event().await {
            TransportEvent::Incoming { upgrade, .. } => upgrade.await,
            _ => panic!("an incoming connection was expected"),
        }
    }
}

impl Listens for Below {
    fn any_port(&self, host: &str) -> Multiaddr {
        let rest = match self.inner {
            Inner::Quic(_) => "udp/0/quic-v1",
            Inner::Tcp(_) => "tcp/0",
        };
        format!("/ip4/{host}/{rest}").parse().unwrap()
    }
}

impl Listens for Admitted<Below> {
    fn any_port(&self, host: &str) -> Multiaddr {
        self.inner.any_port(host)
    }
}

pub(super) fn dial<T: Transport>(
    transport: &mut T,
    address: &Multiaddr,
) -> impl Future<Output = Result<T::Output, T::Error>> + use<T>
where
    T::Error: std::fmt::Debug,
{
    let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
    transport.dial(address.clone(), opts).unwrap()
}

/// A raw connection, driven in the background, and its first stream.
pub(super) struct Raw {
    stream: SubstreamBox,
    pub(super) binding: [u8; 32],
    _drive: futures::channel::oneshot::Sender<()>,
}

impl Raw {
    pub(super) async fn open(harness: &Harness, mut connection: Link, inbound: bool) -> Self {
        let binding = connection.binding().unwrap();
        let stream = poll_fn(|cx| {
            let stream = match inbound {
                true => Pin::new(&mut connection).poll_inbound(cx),
                false => Pin::new(&mut connection).poll_outbound(cx),
            };
            let _ = Pin::new(&mut connection).poll(cx);
            stream
        })
        .await
        .unwrap();
        let (sender, stopped) = futures::channel::oneshot::channel();
        harness.rt.spawn(
            async move {
                let drive = poll_fn(|cx| Pin::new(&mut connection).poll(cx).map(drop));
                futures::future::select(drive, stopped).await;
            }
            .boxed(),
        );
        Self { stream, binding, _drive: sender }
    }

    pub(super) async fn say(&mut self, message: &[u8]) {
        // The remote may hang up in the middle of what is too long.
        let _ = self.stream.write_all(message).await;
        let _ = self.stream.close().await;
    }

    pub(super) async fn hear(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let _ = self.stream.read_to_end(&mut heard).await;
        heard
    }
}
