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
        atomic::{AtomicBool, AtomicUsize, Ordering},
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
        muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent},
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
};
use smidge_runtime::Handle;

use super::{Config, Connection, Error, Stream, Transport, addr};
use crate::testing::{End, NEW, PATIENCE, REUSE, Tested, chain, connect, echo, exchange, real, round_trip};

type Node = crate::testing::Node<Transport>;

const ANY_PORT: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

fn config() -> Config {
    Config::new(&Keypair::generate_ed25519()).unwrap()
}

impl Tested for Transport {
    type Peer = Peer;
    type Config = Config;

    const LOOPBACK: &'static str = ANY_PORT;

    fn config() -> Config {
        config()
    }

    fn with(config: Config, rt: &Handle) -> Self {
        Self::new(config, rt.clone()).unwrap()
    }

    fn peer_id(&self) -> PeerId {
        self.local_peer_id()
    }

    fn peer(rt: &Handle, (peer, connection): (PeerId, Connection)) -> (PeerId, Peer) {
        (peer, Peer::new(rt, connection))
    }

    fn socket(address: &Multiaddr) -> SocketAddr {
        addr::parse_dial(address).unwrap().0
    }

    fn boxed_muxer(self) -> Boxed<(PeerId, StreamMuxerBox)> {
        self.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))).boxed()
    }
}

impl Node {
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

/// One end of a connection, driven in the background as a swarm would.
#[derive(Clone)]
pub(crate) struct Peer {
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
                        let _ = ended_in.take().map(|ended| ended.send(chain(&e)));
                        return Poll::Ready(());
                    }
                }
            }
        }));
        Self { muxer, ended: ended.shared(), moved: Arc::new(Mutex::new(moved)), closing }
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

impl End for Peer {
    type Stream = Stream;
    type Error = Error;

    async fn open(&self) -> Result<Stream, Error> {
        poll_fn(|cx| Pin::new(&mut *self.muxer.lock().unwrap()).poll_outbound(cx)).await
    }

    async fn accept(&self) -> Result<Stream, Error> {
        poll_fn(|cx| Pin::new(&mut *self.muxer.lock().unwrap()).poll_inbound(cx)).await
    }
}
