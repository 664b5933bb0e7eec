//! What the tests of both transports share: a transport with what it is asked for, and the ends of connections.

pub(crate) mod swarm;

use std::{error::Error, fmt::Debug, future::poll_fn, net::SocketAddr, pin::Pin, time::Duration};

use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt, future::FutureExt,
    stream::FuturesUnordered,
};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint as Role,
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
    },
};
use smidge_runtime::{Executor, Handle};

/// What any wait in a test on the real clock is limited to.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const REUSE: DialOpts = DialOpts { role: Role::Dialer, port_use: PortUse::Reuse };
pub(crate) const NEW: DialOpts = DialOpts { role: Role::Dialer, port_use: PortUse::New };

/// Runs `test` on the default real runtime, not forever.
pub(crate) fn real<F: Future<Output = ()>>(test: impl FnOnce(Handle) -> F) {
    Executor::default()
        .block_on(2, |rt| async move {
            let limited = rt.clone();
            limited.timeout(3 * PATIENCE, test(rt)).await.expect("the test ends in time");
        })
        .unwrap();
}

/// An error with all of its sources, as a log has it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// A transport that tests can make and use without knowing which it is.
pub(crate) trait Tested: Transport + Unpin + Sized {
    /// The end of one of its connections.
    type Peer;
    type Config;

    /// A listen address on loopback.
    const LOOPBACK: &'static str;

    fn config() -> Self::Config;
    fn with(config: Self::Config, rt: &Handle) -> Self;
    fn peer_id(&self) -> PeerId;
    fn peer(rt: &Handle, output: Self::Output) -> (PeerId, Self::Peer);
    fn socket(address: &Multiaddr) -> SocketAddr;
    fn boxed_muxer(self) -> Boxed<(PeerId, StreamMuxerBox)>;
}

/// A transport under test.
pub(crate) struct Node<T> {
    pub(crate) transport: T,
    pub(crate) peer: PeerId,
    pub(crate) rt: Handle,
}

impl<T: Tested> Node<T> {
    pub(crate) fn new(rt: &Handle) -> Self {
        Self::with(rt, T::config())
    }

    pub(crate) fn with(rt: &Handle, config: T::Config) -> Self {
        let transport = T::with(config, rt);
        Self { peer: transport.peer_id(), transport, rt: rt.clone() }
    }

    /// A node that listens on `addr`, and the address it got.
    pub(crate) async fn listening(rt: &Handle, config: T::Config, addr: &str) -> (Self, Multiaddr) {
        let mut node = Self::with(rt, config);
        let addr = node.listen(addr).await;
        (node, addr)
    }

    pub(crate) async fn listen(&mut self, addr: &str) -> Multiaddr {
        self.transport.listen_on(ListenerId::next(), addr.parse().unwrap()).unwrap();
        match self.event().await {
            TransportEvent::NewAddress { listen_addr, .. } => listen_addr,
            other => panic!("waited for an address, got {other:?}"),
        }
    }

    pub(crate) async fn event(&mut self) -> TransportEvent<T::ListenerUpgrade, T::Error> {
        let transport = &mut self.transport;
        self.rt
            .timeout(PATIENCE, poll_fn(|cx| Pin::new(&mut *transport).poll(cx)))
            .await
            .expect("a transport event")
    }

    /// The next incoming connection, not accepted yet, with the dialer's address.
    pub(crate) async fn incoming(&mut self) -> (T::ListenerUpgrade, SocketAddr) {
        match self.event().await {
            TransportEvent::Incoming { upgrade, send_back_addr, .. } => (upgrade, T::socket(&send_back_addr)),
            other => panic!("waited for an incoming connection, got {other:?}"),
        }
    }

    pub(crate) async fn accept(&mut self) -> Result<(PeerId, T::Peer), T::Error> {
        let (upgrade, _) = self.incoming().await;
        Ok(T::peer(&self.rt, upgrade.await?))
    }

    /// Accepts whatever comes until one of them is a peer.
    pub(crate) async fn accept_any(&mut self) -> (PeerId, T::Peer) {
        let rt = self.rt.clone();
        let mut upgrades = FuturesUnordered::new();
        loop {
            futures::select! {
                incoming = std::pin::pin!(self.incoming().fuse()) => upgrades.push(incoming.0),
                upgraded = upgrades.select_next_some() => if let Ok(output) = upgraded {
                    return T::peer(&rt, output);
                }
            }
        }
    }

    pub(crate) async fn dial(
        &mut self,
        addr: &Multiaddr,
        opts: DialOpts,
    ) -> Result<(PeerId, T::Peer), T::Error> {
        let dial = match self.transport.dial(addr.clone(), opts) {
            Ok(dial) => dial,
            Err(libp2p::TransportError::Other(e)) => return Err(e),
            Err(e) => panic!("{e}"),
        };
        Ok(T::peer(&self.rt, dial.await?))
    }
}

/// Dials `listener` from `dialer`; both ends of the connection.
pub(crate) async fn connect<T: Tested>(
    dialer: &mut Node<T>,
    listener: &mut Node<T>,
    addr: &Multiaddr,
) -> (T::Peer, T::Peer) {
    let (peer_d, peer_l) = (dialer.peer, listener.peer);
    let (dialed, accepted) = futures::join!(dialer.dial(addr, REUSE), listener.accept());
    let ((found, a), (seen, b)) = (dialed.expect("dial"), accepted.expect("accept"));
    assert_eq!((found, seen), (peer_l, peer_d));
    (a, b)
}

/// One end of a connection.
pub(crate) trait End: Clone + Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    type Error: Debug;

    fn open(&self) -> impl Future<Output = Result<Self::Stream, Self::Error>> + Send;
    fn accept(&self) -> impl Future<Output = Result<Self::Stream, Self::Error>> + Send;
}

/// Echoes every stream that the remote opens, until the connection ends.
pub(crate) async fn echo(rt: Handle, peer: impl End) {
    while let Ok(mut stream) = peer.accept().await {
        rt.spawn(async move {
            let mut buf = vec![0; 16 * 1024];
            loop {
                match stream.read(&mut buf).await {
                    Ok(0) => break,
                    Ok(n) => {
                        if stream.write_all(&buf[..n]).await.is_err() {
                            return;
                        }
                    }
                    // A test that gives up on a stream is not this one's business.
                    Err(_) => return,
                }
            }
            let _ = stream.close().await;
        });
    }
}

/// Sends `bytes` over a new stream of `peer` and returns what came back.
pub(crate) async fn round_trip(peer: &impl End, bytes: &[u8]) -> Vec<u8> {
    exchange(peer.open().await.unwrap(), bytes).await
}

/// Sends `bytes` over `stream`, closes it, and returns what came back.
pub(crate) async fn exchange(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = stream.split();
    let mut back = Vec::new();
    let (sent, received) = futures::join!(
        async {
            write.write_all(bytes).await?;
            write.close().await
        },
        read.read_to_end(&mut back)
    );
    sent.unwrap();
    received.unwrap();
    back
}
