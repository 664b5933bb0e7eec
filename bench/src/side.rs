//! A runtime with a transport: ours and the stock one, set up alike.

use std::{fmt, io, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt};
use libp2p::{
    PeerId, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
};
use smidge::runtime::{Executor, Handle};

/// Starts a task on a side's runtime. Holding it does not keep the runtime alive.
pub type Spawner = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;
/// What a swarm wants of a transport.
pub type Wire = Boxed<(PeerId, StreamMuxerBox)>;

/// Which implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// smidge on smol.
    Ours,
    /// rust-libp2p as published, on tokio.
    Stock,
}

impl Kind {
    /// Both, ours first.
    pub const ALL: [Self; 2] = [Self::Ours, Self::Stock];

    /// Its word on command lines and in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Stock => "stock",
        }
    }

    /// The kind with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Its runtime, on `threads` threads of its own.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(self, threads: usize) -> io::Result<Arc<dyn Side>> {
        Ok(match self {
            Self::Ours => Arc::new(Ours::start(threads)?),
            Self::Stock => Arc::new(Stock::start(threads)?),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What both transports are told, so that neither has an advantage by its defaults. They are those
/// of the stock transport, and of quinn where that leaves a value alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// A ping goes out after this much silence.
    pub keep_alive: Duration,
    /// A connection is lost after this much silence.
    pub idle_timeout: Duration,
    /// Unread bytes that a stream may hold.
    pub stream_window: u32,
    /// Unread bytes that a connection may hold.
    pub connection_window: u32,
    /// Unacknowledged bytes of a connection. Only ours can be told; quinn's default stands here.
    pub send_window: u64,
    /// Streams that the remote may have open at once.
    pub streams: u32,
    /// Handshakes under way above which an address must prove itself. Only ours can be told.
    pub retry_above: usize,
    /// What all connections may hold together. Only ours can be told, and by default it does not bind.
    pub memory: usize,
    /// TCP with Noise and Yamux instead of QUIC. Of the above it knows streams and the handshake's limit.
    pub tcp: bool,
}

impl Tuning {
    /// Any free port of IPv4 loopback.
    pub fn loopback(&self) -> &'static str {
        if self.tcp { "/ip4/127.0.0.1/tcp/0" } else { "/ip4/127.0.0.1/udp/0/quic-v1" }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(10),
            stream_window: 10_000_000,
            connection_window: 15_000_000,
            send_window: 10_000_000,
            streams: 256,
            retry_above: 64,
            memory: 16 << 30,
            tcp: false,
        }
    }
}

/// A runtime with a transport.
pub trait Side: Send + Sync {
    /// Which of the two.
    fn kind(&self) -> Kind;

    /// Starts tasks on its runtime.
    fn spawner(&self) -> Spawner;

    /// A new transport, authenticated as `key`.
    fn transport(&self, key: &Keypair, tuning: &Tuning) -> Wire;

    /// The door that smidge's own nodes go through; none on the stock side.
    fn handle(&self) -> Option<&Handle> {
        None
    }
}

/// smidge's transport on smol.
#[derive(Debug)]
pub struct Ours(Handle);

impl Ours {
    /// smol on `threads` threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(threads: usize) -> io::Result<Self> {
        Executor::default().start(threads).map(Self)
    }
}

impl Side for Ours {
    fn kind(&self) -> Kind {
        Kind::Ours
    }

    fn spawner(&self) -> Spawner {
        let runtime = self.0.clone();
        Arc::new(move |task| runtime.spawn(task))
    }

    fn transport(&self, key: &Keypair, tuning: &Tuning) -> Wire {
        use smidge::transport::{quic, tcp};
        if tuning.tcp {
            let mut config = tcp::Config::new(key).expect("an ed25519 key signs");
            config.handshake_timeout = tuning.handshake_timeout;
            config.max_concurrent_streams = tuning.streams as usize;
            return tcp::Transport::new(config, self.0.clone())
                .expect("these values are in range")
                .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
                .boxed();
        }
        let mut config = quic::Config::new(key).expect("an ed25519 key makes a certificate");
        config.handshake_timeout = tuning.handshake_timeout;
        config.keep_alive = tuning.keep_alive;
        config.idle_timeout = tuning.idle_timeout;
        config.stream_receive_window = tuning.stream_window;
        config.receive_window = tuning.connection_window;
        config.send_window = tuning.send_window;
        config.max_concurrent_streams = tuning.streams;
        config.retry_above = tuning.retry_above;
        config.memory = tuning.memory;
        quic::Transport::new(config, self.0.clone())
            .expect("these values are in range")
            .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
            .boxed()
    }

    fn handle(&self) -> Option<&Handle> {
        Some(&self.0)
    }
}

/// rust-libp2p's own QUIC on tokio.
#[derive(Debug)]
pub struct Stock(Option<tokio::runtime::Runtime>);

impl Stock {
    /// tokio's multi-thread runtime with `threads` workers.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(threads: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        // Not to wait for tasks, which tokio forbids inside of one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Side for Stock {
    fn kind(&self) -> Kind {
        Kind::Stock
    }

    fn spawner(&self) -> Spawner {
        let handle = self.0.as_ref().expect("the runtime is there until it is dropped").handle().clone();
        Arc::new(move |task: BoxFuture<'static, ()>| drop(handle.spawn(task)))
    }

    fn transport(&self, key: &Keypair, tuning: &Tuning) -> Wire {
        stock_transport(key, tuning)
    }
}

/// rust-libp2p's own transport, authenticated as `key`. It is polled on tokio.
pub fn stock_transport(key: &Keypair, tuning: &Tuning) -> Wire {
    use libp2p::{core::upgrade::Version, noise, quic, tcp, yamux};
    if tuning.tcp {
        let mut muxer = yamux::Config::default();
        muxer.set_max_num_streams(tuning.streams as usize);
        return tcp::tokio::Transport::new(tcp::Config::default())
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(key).expect("an ed25519 key signs"))
            .multiplex(muxer)
            .timeout(tuning.handshake_timeout)
            .boxed();
    }
    let mut config = quic::Config::new(key).mtu_upper_bound(1452);
    config.handshake_timeout = tuning.handshake_timeout;
    config.keep_alive_interval = tuning.keep_alive;
    config.max_idle_timeout = u32::try_from(tuning.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    config.max_stream_data = tuning.stream_window;
    config.max_connection_data = tuning.connection_window;
    config.max_concurrent_stream_limit = tuning.streams;
    quic::tokio::Transport::new(config)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed()
}

/// Starts `task` on `spawner`'s runtime.
pub(crate) fn spawn(spawner: &Spawner, task: impl Future<Output = ()> + Send + 'static) {
    spawner(task.boxed());
}
