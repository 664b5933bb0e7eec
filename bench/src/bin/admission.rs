//! What admission to a private mesh costs each new connection, over QUIC and over TCP, in time and bytes.
//!
//! `unshare -n sh -c 'ip link set lo up; target/release/admission [CONNECTIONS]'`: in a network of its own,
//! where the loopback interface counts nobody else's bytes. Open and private transports take turns. Prints the
//! median time of a connection until both ends have it, and all bytes on the wire until it is closed
//! (headers of IP and below included), one line each; then the differences.

use std::{
    env,
    error::Error,
    fs,
    future::poll_fn,
    pin::Pin,
    time::{Duration, Instant},
};

use futures::{
    TryFutureExt,
    channel::oneshot,
    future::{join, select},
};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxer, StreamMuxerBox},
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
};
use smidge::{
    runtime::{Executor, Handle},
    transport::{
        admission::{Admitted, Gate, Keyring, NetworkKey, Rules},
        quic, tcp,
    },
};
use smidge_bench::metric::percentile;

type Failure = Box<dyn Error + Send + Sync>;
type Node = Boxed<(PeerId, StreamMuxerBox)>;

/// Connections that are made before any is counted.
const WARM: usize = 20;
/// How long the last packets of a closed connection may be on their way.
const SETTLE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
enum Over {
    Quic,
    Tcp,
}

fn node(over: Over, ring: Option<&Keyring>, rt: &Handle) -> Result<Node, Failure> {
    let key = Keypair::generate_ed25519();
    let gate = ring.map(|ring| {
        let (timeout, forgive) = (Duration::from_secs(5), Duration::from_secs(10));
        let rules = Rules { keys: ring.clone(), timeout, failures: 16, forgive, proving: 32 };
        Gate::new(key.public().to_peer_id(), rules, rt.clone())
    });
    Ok(match over {
        Over::Quic => {
            let mut config = quic::Config::new(&key)?;
            // The search for larger packets goes on meanwhile, and would be counted.
            config.mtu_upper_bound = None;
            let quic = quic::Transport::new(config, rt.clone())?;
            match gate {
                None => quic.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed(),
                Some(gate) => Admitted::new(quic, gate)
                    .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                    .boxed(),
            }
        }
        Over::Tcp => {
            let tcp = tcp::Transport::new(tcp::Config::new(&key)?, rt.clone())?;
            match gate {
                None => tcp.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed(),
                Some(gate) => Admitted::new(tcp, gate)
                    .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                    .boxed(),
            }
        }
    })
}

/// A dialer and a listener, and what their connections took, in milliseconds.
struct Pair {
    dialer: Node,
    listener: Node,
    at: Multiaddr,
    took: Vec<f64>,
    bytes: u64,
}

impl Pair {
    async fn new(over: Over, ring: Option<&Keyring>, rt: &Handle) -> Result<Self, Failure> {
        let (dialer, mut listener) = (node(over, ring, rt)?, node(over, ring, rt)?);
        let any = match over {
            Over::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Over::Tcp => "/ip4/127.0.0.1/tcp/0",
        };
        listener.listen_on(ListenerId::next(), any.parse()?)?;
        let event = poll_fn(|cx| Pin::new(&mut listener).poll(cx)).await;
        let at = event.into_new_address().ok_or("the listener told no address")?;
        Ok(Self { dialer, listener, at, took: Vec::new(), bytes: 0 })
    }

    /// One connection, from the first packet to the last.
    async fn connect(&mut self, rt: &Handle) -> Result<(), Failure> {
        let before = on_the_wire()?;
        let began = Instant::now();
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dialed = self.dialer.dial(self.at.clone(), opts)?;
        let accepted = async {
            loop {
                let event = poll_fn(|cx| Pin::new(&mut self.listener).poll(cx)).await;
                if let TransportEvent::Incoming { upgrade, .. } = event {
                    return upgrade.await;
                }
            }
        };
        // Each end is moved on from when it stands, as in a swarm: the last words of the handshake may wait.
        let driven = |made: (PeerId, StreamMuxerBox)| {
            let mut muxer = made.1;
            let (close, closing) = oneshot::channel::<()>();
            let (ended_in, ended) = oneshot::channel();
            rt.spawn(async move {
                select(poll_fn(|cx| Pin::new(&mut muxer).poll(cx).map(drop)), closing).await;
                let _ = poll_fn(|cx| Pin::new(&mut muxer).poll_close(cx)).await;
                // Nobody waits for it if the measurement has failed.
                let _ = ended_in.send(());
            });
            (close, ended)
        };
        let (dialed, accepted) = join(dialed.map_ok(driven), accepted.map_ok(driven)).await;
        self.took.push(began.elapsed().as_secs_f64() * 1e3);
        let ((close, dialer), (_keep, listener)) = (dialed?, accepted?);
        drop(close);
        join(dialer, listener).await.0?;
        rt.sleep(SETTLE).await;
        self.bytes += on_the_wire()? - before;
        Ok(())
    }

    fn forget(&mut self) {
        self.took.clear();
        self.bytes = 0;
    }
}

/// Bytes that the loopback interface of this network namespace has carried.
fn on_the_wire() -> Result<u64, Failure> {
    let devices = fs::read_to_string("/proc/net/dev")?;
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    Ok(line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("there is no loopback interface")?
        .parse()?)
}

async fn measure(connections: usize, rt: Handle) -> Result<(), Failure> {
    let ring = Keyring::new(NetworkKey::generate()?);
    for over in [Over::Quic, Over::Tcp] {
        let mut open = Pair::new(over, None, &rt).await?;
        let mut private = Pair::new(over, Some(&ring), &rt).await?;
        for n in 0..WARM + connections {
            if n == WARM {
                open.forget();
                private.forget();
            }
            // Who goes first changes.
            let (first, second) =
                if n % 2 == 0 { (&mut open, &mut private) } else { (&mut private, &mut open) };
            first.connect(&rt).await?;
            second.connect(&rt).await?;
        }
        let figures =
            |pair: &mut Pair| (percentile(&mut pair.took, 0.5), pair.bytes as f64 / connections as f64);
        let ((open_ms, open_bytes), (private_ms, private_bytes)) =
            (figures(&mut open), figures(&mut private));
        println!("{over:?}, open:    {open_ms:.3} ms, {open_bytes:.0} bytes a connection");
        println!("{over:?}, private: {private_ms:.3} ms, {private_bytes:.0} bytes a connection");
        println!(
            "{over:?}, admission costs {:.3} ms and {:.0} bytes (medians and means of {connections} connections)",
            private_ms - open_ms,
            private_bytes - open_bytes
        );
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let connections = env::args().nth(1).map_or(Ok(200), |text| text.parse())?;
    Executor::default().block_on(1, |rt| measure(connections, rt))?
}
