//! A bare transport without a swarm: listen, dial, and connections whose streams are taken by hand.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt,
    channel::{mpsc, oneshot},
    future::{FutureExt, Shared},
    task::AtomicWaker,
};
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        Endpoint as Role,
        muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox},
        transport::{DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
};

use crate::{
    Side, Spawner, Tuning,
    side::{Wire, spawn},
};

/// Connections that wait to be accepted.
const BACKLOG: usize = 4096;

enum Command {
    Listen(Multiaddr, oneshot::Sender<Multiaddr>),
    Dial(Multiaddr, oneshot::Sender<Result<Link, String>>),
}

/// A transport that is polled in the background for as long as this lives.
pub struct Endpoint {
    /// Who it is.
    pub peer: PeerId,
    loopback: &'static str,
    commands: mpsc::Sender<Command>,
    incoming: mpsc::Receiver<Result<Link, String>>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// A transport with a new key.
    pub fn new(side: &dyn Side, tuning: &Tuning) -> Self {
        let key = Keypair::generate_ed25519();
        let (commands, requests) = mpsc::channel(64);
        let (arrivals, incoming) = mpsc::channel(BACKLOG);
        let spawner = side.spawner();
        spawn(&spawner, drive(side.transport(&key, tuning), requests, arrivals, spawner.clone()));
        Self { peer: key.public().to_peer_id(), loopback: tuning.loopback(), commands, incoming }
    }

    /// Listens on `address` and returns where that really is.
    pub async fn listen(&self, address: &str) -> Multiaddr {
        let address = address.parse().expect("a multiaddr");
        let (reply, bound) = oneshot::channel();
        self.send(Command::Listen(address, reply));
        bound.await.expect("the listener starts")
    }

    /// Listens on a free port of IPv4 loopback.
    pub async fn listen_v4(&self) -> Multiaddr {
        self.listen(self.loopback).await
    }

    /// Dials `address`.
    ///
    /// # Errors
    /// What the transport says, in words.
    pub async fn dial(&self, address: Multiaddr) -> Result<Link, String> {
        let (reply, dialed) = oneshot::channel();
        self.send(Command::Dial(address, reply));
        dialed.await.unwrap_or_else(|_| Err("the transport ended".into()))
    }

    /// The next connection that someone opened and whose handshake succeeded.
    ///
    /// # Errors
    /// When the transport ended.
    pub async fn accept_good(&mut self) -> Result<Link, String> {
        loop {
            match self.incoming.next().await {
                Some(Ok(link)) => return Ok(link),
                // Whoever dialed was gone before we were done.
                Some(Err(_)) => {}
                None => return Err("the transport ended".into()),
            }
        }
    }

    /// The next connection that someone opened.
    ///
    /// # Errors
    /// When its handshake failed: why.
    pub async fn accept(&mut self) -> Result<Link, String> {
        self.incoming.next().await.unwrap_or_else(|| Err("the transport ended".into()))
    }

    fn send(&self, command: Command) {
        let sent = self.commands.clone().try_send(command);
        assert!(sent.is_ok(), "the transport takes commands until it is dropped");
    }
}

async fn drive(
    mut transport: Wire,
    mut requests: mpsc::Receiver<Command>,
    arrivals: mpsc::Sender<Result<Link, String>>,
    spawner: Spawner,
) {
    let mut waiting: Option<(ListenerId, oneshot::Sender<Multiaddr>)> = None;
    poll_fn(|cx| {
        while let Poll::Ready(request) = requests.poll_next_unpin(cx) {
            match request {
                None => return Poll::Ready(()),
                Some(Command::Listen(address, reply)) => {
                    let id = ListenerId::next();
                    transport.listen_on(id, address).expect("a free address");
                    waiting = Some((id, reply));
                }
                Some(Command::Dial(address, reply)) => {
                    let opts = DialOpts { role: Role::Dialer, port_use: PortUse::Reuse };
                    match transport.dial(address, opts) {
                        Err(e) => drop(reply.send(Err(chain(&e)))),
                        Ok(dial) => {
                            let inner = spawner.clone();
                            spawn(&spawner, async move {
                                let dialed = dial.await.map_err(|e| chain(&e));
                                let link = dialed.map(|(peer, muxer)| Link::new(&inner, peer, muxer));
                                let _ = reply.send(link);
                            });
                        }
                    }
                }
            }
        }
        while let Poll::Ready(event) = Pin::new(&mut transport).poll(cx) {
            match event {
                TransportEvent::NewAddress { listener_id, listen_addr } => {
                    if let Some((_, reply)) = waiting.take_if(|(id, _)| *id == listener_id) {
                        let _ = reply.send(listen_addr);
                    }
                }
                TransportEvent::Incoming { upgrade, .. } => {
                    let (inner, mut arrivals) = (spawner.clone(), arrivals.clone());
                    spawn(&spawner, async move {
                        let upgraded = upgrade.await.map_err(|e| chain(&e));
                        let link = upgraded.map(|(peer, muxer)| Link::new(&inner, peer, muxer));
                        let _ = arrivals.try_send(link);
                    });
                }
                _ => {}
            }
        }
        Poll::Pending
    })
    .await;
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// One end of a connection, driven in the background as a swarm would. Dropped, it is cut.
pub struct Link {
    /// The other side.
    pub peer: PeerId,
    muxer: Arc<Mutex<StreamMuxerBox>>,
    /// Wakes the task that moves the connection on: Yamux remembers only who polled last.
    driver: Arc<AtomicWaker>,
    /// A muxer remembers one waiting task for each direction.
    turns: [futures::lock::Mutex<()>; 2],
    closing: Mutex<Option<oneshot::Sender<oneshot::Sender<io::Result<()>>>>>,
    ended: Shared<oneshot::Receiver<String>>,
    moved: mpsc::Receiver<Multiaddr>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Link {
    fn new(spawner: &Spawner, peer: PeerId, muxer: StreamMuxerBox) -> Self {
        let muxer = Arc::new(Mutex::new(muxer));
        let (ended_in, ended) = oneshot::channel();
        let (mut moved_in, moved) = mpsc::channel(16);
        let (closing, mut close) = oneshot::channel::<oneshot::Sender<io::Result<()>>>();
        let weak = Arc::downgrade(&muxer);
        let mut ended_in = Some(ended_in);
        let mut closed = None;
        let driver = Arc::<AtomicWaker>::default();
        let driven = driver.clone();
        // As in a swarm, one task moves the connection on and closes it.
        spawn(
            spawner,
            poll_fn(move |cx| {
                driven.register(cx.waker());
                let Some(muxer) = weak.upgrade() else { return Poll::Ready(()) };
                if closed.is_none()
                    && let Poll::Ready(Ok(reply)) = close.poll_unpin(cx)
                {
                    closed = Some(reply);
                }
                if closed.is_some() {
                    let Poll::Ready(result) = Pin::new(&mut *lock(&muxer)).poll_close(cx) else {
                        return Poll::Pending;
                    };
                    if let Some(reply) = closed.take() {
                        let _ = reply.send(result);
                    }
                    return Poll::Ready(());
                }
                while ended_in.is_some() {
                    let polled = Pin::new(&mut *lock(&muxer)).poll(cx);
                    match polled {
                        Poll::Pending => break,
                        Poll::Ready(Ok(StreamMuxerEvent::AddressChange(to))) => drop(moved_in.try_send(to)),
                        Poll::Ready(Err(e)) => {
                            if let Some(ended) = ended_in.take() {
                                let _ = ended.send(chain(&e));
                            }
                        }
                    }
                }
                Poll::Pending
            }),
        );
        Self {
            peer,
            muxer,
            driver,
            turns: Default::default(),
            closing: Mutex::new(Some(closing)),
            ended: ended.shared(),
            moved,
        }
    }

    /// A new stream. The remote hears of it with its first byte.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn open(&self) -> io::Result<SubstreamBox> {
        let _turn = self.turns[0].lock().await;
        poll_fn(|cx| self.polled(Pin::new(&mut *lock(&self.muxer)).poll_outbound(cx))).await
    }

    /// The next stream that the remote opened.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn accept(&self) -> io::Result<SubstreamBox> {
        let _turn = self.turns[1].lock().await;
        poll_fn(|cx| self.polled(Pin::new(&mut *lock(&self.muxer)).poll_inbound(cx))).await
    }

    fn polled<T>(&self, polled: T) -> T {
        self.driver.wake();
        polled
    }

    /// Closes the connection as a swarm does, once.
    ///
    /// # Errors
    /// When it had ended already.
    pub async fn close(&self) -> io::Result<()> {
        let (reply, closed) = oneshot::channel();
        let closing = lock(&self.closing).take();
        closing.and_then(|closing| closing.send(reply).ok()).ok_or(io::ErrorKind::NotConnected)?;
        closed.await.map_err(|_| io::ErrorKind::NotConnected)?
    }

    /// Why the connection ended, once it has. The stock muxer never says; accept there instead.
    pub async fn ended(&self) -> String {
        self.ended.clone().await.unwrap_or_else(|_| "dropped".into())
    }

    /// The address that the remote has moved to.
    pub async fn moved(&mut self) -> Option<Multiaddr> {
        self.moved.next().await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection between two sides: `dialer`'s end first.
pub struct Pair {
    /// Who dialed.
    pub dialer: Endpoint,
    /// Who listens.
    pub listener: Endpoint,
    /// Where.
    pub address: Multiaddr,
    /// The dialer's end.
    pub dialed: Link,
    /// The listener's end.
    pub accepted: Link,
}

impl Pair {
    /// Connects `from` to `to` over loopback.
    ///
    /// # Errors
    /// Why the handshake failed, on either side.
    pub async fn connect(from: &dyn Side, to: &dyn Side, tuning: &Tuning) -> Result<Self, String> {
        let dialer = Endpoint::new(from, tuning);
        let mut listener = Endpoint::new(to, tuning);
        let address = listener.listen_v4().await;
        let (dialed, accepted) = futures::try_join!(dialer.dial(address.clone()), listener.accept())?;
        Ok(Self { dialer, listener, address, dialed, accepted })
    }
}

/// Writes `bytes` bytes, the nth being n modulo 251, and closes the stream.
///
/// # Errors
/// What the stream says.
pub async fn send_all(stream: &mut (impl AsyncWrite + Unpin), bytes: u64) -> io::Result<()> {
    let pattern: Vec<u8> = (0..251 * 256_u32).map(|n| (n % 251) as u8).collect();
    let mut left = bytes;
    while left > 0 {
        let n = left.min(pattern.len() as u64);
        // A whole number of periods but for the last piece: the pattern continues.
        stream.write_all(&pattern[..n as usize]).await?;
        left -= n;
    }
    stream.close().await
}

/// Reads to the end and says how many bytes that were.
///
/// # Errors
/// What the stream says, or that the bytes are not what [`send_all`] writes.
pub async fn receive_all(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0_u64;
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(total);
        }
        // First and last of every piece: enough to see a gap, and cheap.
        for at in [0, n - 1] {
            if u64::from(buffer[at]) != (total + at as u64) % 251 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("wrong byte at {total}+{at}"),
                ));
            }
        }
        total += n as u64;
    }
}

/// Sends back whatever comes, on every stream, until the connection ends.
pub async fn echo(spawner: Spawner, link: Arc<Link>) {
    while let Ok(stream) = link.accept().await {
        spawn(&spawner, async move {
            let (read, mut write) = stream.split();
            if futures::io::copy(read, &mut write).await.is_ok() {
                let _ = write.close().await;
            }
        });
    }
}

/// A future of no output for [`Spawner`].
pub fn start(spawner: &Spawner, task: impl Future<Output = ()> + Send + 'static) {
    spawner(task.boxed());
}
