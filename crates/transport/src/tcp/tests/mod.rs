//! Tests of the whole transport over loopback.

mod hostile;
mod loopback;
mod swarm;

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    AsyncReadExt, AsyncWriteExt, FutureExt, SinkExt, StreamExt,
    channel::{mpsc, oneshot},
    stream::FuturesUnordered,
};
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        Endpoint as Role,
        muxing::StreamMuxer,
        transport::{DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
};
use smidge_runtime::{Executor, Handle};

use super::{Config, Connecting, Connection, Error, Stream, Transport, addr};

/// What any wait in a test is limited to.
const PATIENCE: Duration = Duration::from_secs(20);

const REUSE: DialOpts = DialOpts { role: Role::Dialer, port_use: PortUse::Reuse };
const NEW: DialOpts = DialOpts { role: Role::Dialer, port_use: PortUse::New };
const ANSWER: DialOpts = DialOpts { role: Role::Listener, port_use: PortUse::Reuse };

const ANY_PORT: &str = "/ip4/127.0.0.1/tcp/0";

fn config() -> Config {
    Config::new(&Keypair::generate_ed25519()).unwrap()
}

/// Runs `test` on the default real runtime, not forever.
fn real<F: Future<Output = ()>>(test: impl FnOnce(Handle) -> F) {
    Executor::default()
        .block_on(2, |rt| async move {
            let limited = rt.clone();
            limited.timeout(3 * PATIENCE, test(rt)).await.expect("the test ends in time");
        })
        .unwrap();
}

/// A transport under test.
struct Node {
    transport: Transport,
    peer: PeerId,
    rt: Handle,
}

impl Node {
    fn new(rt: &Handle) -> Self {
        Self::with(rt, config())
    }

    fn with(rt: &Handle, config: Config) -> Self {
        let transport = Transport::new(config, rt.clone()).unwrap();
        Self { peer: transport.local_peer_id(), transport, rt: rt.clone() }
    }

    /// A node that listens on `addr`, and the address it got.
    async fn listening(rt: &Handle, config: Config, addr: &str) -> (Self, Multiaddr) {
        let mut node = Self::with(rt, config);
        let addr = node.listen(addr).await;
        (node, addr)
    }

    async fn listen(&mut self, addr: &str) -> Multiaddr {
        self.transport.listen_on(ListenerId::next(), addr.parse().unwrap()).unwrap();
        match self.event().await {
            TransportEvent::NewAddress { listen_addr, .. } => listen_addr,
            other => panic!("waited for an address, got {other:?}"),
        }
    }

    async fn event(&mut self) -> TransportEvent<Connecting, Error> {
        let transport = &mut self.transport;
        self.rt
            .timeout(PATIENCE, poll_fn(|cx| Pin::new(&mut *transport).poll(cx)))
            .await
            .expect("a transport event")
    }

    /// The next incoming connection, not made yet, with the dialer's address.
    async fn incoming(&mut self) -> (Connecting, SocketAddr) {
        match self.event().await {
            TransportEvent::Incoming { upgrade, send_back_addr, .. } => {
                (upgrade, addr::parse_dial(&send_back_addr).unwrap().0)
            }
            other => panic!("waited for an incoming connection, got {other:?}"),
        }
    }

    async fn accept(&mut self) -> Result<(PeerId, Peer), Error> {
        let (upgrade, _) = self.incoming().await;
        let (peer, connection) = upgrade.await?;
        Ok((peer, Peer::new(&self.rt, connection)))
    }

    /// Takes whatever comes until one of them is a peer.
    async fn accept_any(&mut self) -> (PeerId, Peer) {
        let rt = self.rt.clone();
        let mut upgrades = FuturesUnordered::new();
        loop {
            futures::select! {
                incoming = std::pin::pin!(self.incoming().fuse()) => upgrades.push(incoming.0),
                upgraded = upgrades.select_next_some() => if let Ok((peer, connection)) = upgraded {
                    return (peer, Peer::new(&rt, connection));
                }
            }
        }
    }

    async fn dial(&mut self, addr: &Multiaddr, opts: DialOpts) -> Result<(PeerId, Peer), Error> {
        let dial = match self.transport.dial(addr.clone(), opts) {
            Ok(dial) => dial,
            Err(libp2p::TransportError::Other(e)) => return Err(e),
            Err(e) => panic!("{e}"),
        };
        let (peer, connection) = dial.await?;
        Ok((peer, Peer::new(&self.rt, connection)))
    }
}

/// Dials `listener` from `dialer`; both ends of the connection.
async fn connect(dialer: &mut Node, listener: &mut Node, addr: &Multiaddr) -> (Peer, Peer) {
    let (peer_d, peer_l) = (dialer.peer, listener.peer);
    let (dialed, accepted) = futures::join!(dialer.dial(addr, REUSE), listener.accept());
    let ((found, a), (seen, b)) = (dialed.expect("dial"), accepted.expect("accept"));
    assert_eq!((found, seen), (peer_l, peer_d));
    (a, b)
}

/// One end of a connection: all of it happens in one task, as in a swarm.
#[derive(Clone)]
struct Peer(mpsc::Sender<Request>);

type Reply<T> = oneshot::Sender<Result<T, Error>>;

enum Request {
    Open(Reply<Stream>),
    Accept(Reply<Stream>),
    Close(Reply<()>),
}

impl Peer {
    fn new(rt: &Handle, mut muxer: Connection) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Request>(64);
        let mut waiting = Vec::new();
        rt.spawn(poll_fn(move |cx| {
            loop {
                match receiver.poll_next_unpin(cx) {
                    Poll::Ready(Some(request)) => waiting.push(request),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            // What ends the connection is told to who asks it for something.
            let _ = Pin::new(&mut muxer).poll(cx);
            for request in std::mem::take(&mut waiting) {
                waiting.extend(request.serve(Pin::new(&mut muxer), cx));
            }
            Poll::Pending
        }));
        Self(sender)
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.0.clone().send(request(reply)).await.unwrap();
        answer.await.expect("the connection's task lives as long as somebody asks")
    }

    async fn open(&self) -> Result<Stream, Error> {
        self.ask(Request::Open).await
    }

    async fn accept(&self) -> Result<Stream, Error> {
        self.ask(Request::Accept).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.ask(Request::Close).await
    }
}

impl Request {
    /// Answers, or comes back if that has to wait.
    fn serve(self, muxer: Pin<&mut Connection>, cx: &mut Context<'_>) -> Option<Self> {
        fn answer<T>(reply: Reply<T>, polled: Poll<Result<T, Error>>) -> Option<Reply<T>> {
            match polled {
                Poll::Pending => Some(reply),
                Poll::Ready(result) => {
                    // Whoever asked may be gone.
                    let _ = reply.send(result);
                    None
                }
            }
        }
        match self {
            Self::Open(reply) => answer(reply, muxer.poll_outbound(cx)).map(Self::Open),
            Self::Accept(reply) => answer(reply, muxer.poll_inbound(cx)).map(Self::Accept),
            Self::Close(reply) => answer(reply, muxer.poll_close(cx)).map(Self::Close),
        }
    }
}

/// Echoes every stream that the remote opens, until the connection ends.
async fn echo(rt: Handle, peer: Peer) {
    while let Ok(stream) = peer.accept().await {
        rt.spawn(async move {
            let (mut read, mut write) = stream.split();
            // A test that gives up on a stream is not this one's business.
            let _ = futures::io::copy(&mut read, &mut write).await;
            let _ = write.close().await;
        });
    }
}

/// Sends `bytes` over a new stream of `peer` and returns what came back.
async fn round_trip(peer: &Peer, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = peer.open().await.unwrap().split();
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
