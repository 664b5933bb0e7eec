//! Tests of the whole transport: over a simulated network, and over loopback.

mod certificates;
mod closing;
mod hostile;
mod loopback;
mod simulated;
mod streams;
mod swarm;

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::{
    AsyncReadExt, AsyncWriteExt, StreamExt,
    channel::{mpsc, oneshot},
    future::{FutureExt, Shared},
};
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        Endpoint as Role,
        muxing::{StreamMuxer, StreamMuxerEvent},
        transport::{DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
};
use smidge_runtime::{Executor, Handle};

use super::{Config, Connecting, Connection, Error, Stream, Transport, addr};

/// What any wait in a test on the real clock is limited to.
const PATIENCE: Duration = Duration::from_secs(20);

const REUSE: DialOpts = DialOpts { role: Role::Dialer, port_use: PortUse::Reuse };
const NEW: DialOpts = DialOpts { role: Role::Dialer, port_use: PortUse::New };

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

    /// The next incoming connection, not accepted yet, with the dialer's address.
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

    async fn dial(&mut self, addr: &Multiaddr, opts: DialOpts) -> Result<(PeerId, Peer), Error> {
        let dial = match self.transport.dial(addr.clone(), opts) {
            Ok(dial) => dial,
            Err(libp2p::TransportError::Other(e)) => return Err(e),
            Err(e) => panic!("{e}"),
        };
        let (peer, connection) = dial.await?;
        Ok((peer, Peer::new(&self.rt, connection)))
    }

    /// Accepts whatever comes until one of them is a peer.
    async fn accept_any(&mut self) -> (PeerId, Peer) {
        let rt = self.rt.clone();
        let mut upgrades = futures::stream::FuturesUnordered::new();
        loop {
            futures::select! {
                incoming = std::pin::pin!(self.incoming().fuse()) => upgrades.push(incoming.0),
                upgraded = upgrades.select_next_some() => if let Ok((peer, connection)) = upgraded {
                    return (peer, Peer::new(&rt, connection));
                }
            }
        }
    }

    /// Waits until nothing is left of any connection; denies what still comes (late datagrams of
    /// a handshake that was given up look like a new one).
    async fn idle(&mut self) {
        let rt = self.rt.clone();
        let waited = rt.timeout(PATIENCE, async {
            while self.transport.open_connections() + self.transport.handshakes() > 0 {
                let transport = &mut self.transport;
                drop(poll_fn(|cx| Poll::Ready(Pin::new(&mut *transport).poll(cx))).await);
                rt.sleep(Duration::from_millis(5)).await;
            }
        });
        let done = waited.await;
        assert!(
            done.is_ok(),
            "still {} connections and {} handshakes",
            self.transport.open_connections(),
            self.transport.handshakes()
        );
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

/// One end of a connection, driven in the background as a swarm would.
#[derive(Clone)]
struct Peer {
    muxer: Arc<Mutex<Connection>>,
    ended: Shared<oneshot::Receiver<String>>,
    moved: Arc<Mutex<mpsc::Receiver<Multiaddr>>>,
    /// From now on `close` drives.
    closing: Arc<AtomicBool>,
}

impl Peer {
    fn new(rt: &Handle, connection: Connection) -> Self {
        let muxer = Arc::new(Mutex::new(connection));
        let (ended_in, ended) = oneshot::channel();
        let (mut moved_in, moved) = mpsc::channel(16);
        let weak = Arc::downgrade(&muxer);
        let mut ended_in = Some(ended_in);
        let closing = Arc::new(AtomicBool::new(false));
        let handed_over = closing.clone();
        rt.spawn(poll_fn(move |cx| {
            if handed_over.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            let Some(muxer) = weak.upgrade() else { return Poll::Ready(()) };
            loop {
                let polled = Pin::new(&mut *muxer.lock().unwrap()).poll(cx);
                match polled {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(StreamMuxerEvent::AddressChange(to))) => moved_in.try_send(to).unwrap(),
                    Poll::Ready(Err(e)) => {
                        // The test may have dropped its end.
                        let _ = ended_in.take().map(|ended| ended.send(e.to_string()));
                        return Poll::Ready(());
                    }
                }
            }
        }));
        Self { muxer, ended: ended.shared(), moved: Arc::new(Mutex::new(moved)), closing }
    }

    async fn open(&self) -> Result<Stream, Error> {
        poll_fn(|cx| Pin::new(&mut *self.muxer.lock().unwrap()).poll_outbound(cx)).await
    }

    async fn accept(&self) -> Result<Stream, Error> {
        poll_fn(|cx| Pin::new(&mut *self.muxer.lock().unwrap()).poll_inbound(cx)).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.closing.store(true, Ordering::SeqCst);
        poll_fn(|cx| Pin::new(&mut *self.muxer.lock().unwrap()).poll_close(cx)).await
    }

    /// Why the connection ended, once it has.
    async fn ended(&self) -> String {
        self.ended.clone().await.expect("the connection is driven to its end")
    }

    async fn moved(&self) -> Multiaddr {
        poll_fn(|cx| self.moved.lock().unwrap().poll_next_unpin(cx)).await.expect("an address change")
    }

    fn with_state<T>(&self, look: impl FnOnce(&mut super::state::State) -> T) -> T {
        look(&mut self.muxer.lock().unwrap().shared.lock())
    }
}

/// Echoes every stream that the remote opens, until the connection ends.
async fn echo(rt: Handle, peer: Peer) {
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
                    Err(_) => return,
                }
            }
            let _ = stream.close().await;
        });
    }
}

/// Sends `bytes` over a new stream of `peer` and returns what came back.
async fn round_trip(peer: &Peer, bytes: &[u8]) -> Vec<u8> {
    exchange(peer.open().await.unwrap(), bytes).await
}

/// Sends `bytes` over `stream`, closes it, and returns what came back.
async fn exchange(stream: Stream, bytes: &[u8]) -> Vec<u8> {
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
