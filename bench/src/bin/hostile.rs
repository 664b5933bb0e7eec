//! A peer that means harm, for `tests/faults/`: `hostile connections|gossip|kad|streams IP:PORT [AMOUNT]`.
//!
//! It speaks with stock rust-libp2p's transport and does with it what no honest node does, as fast as
//! it can, until it is killed. Once a second, and when `AMOUNT` is reached, it prints what it did so
//! far as one JSON object a line.

use std::{
    collections::VecDeque,
    env, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_io::Timer;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, executor::block_on, stream};
use libp2p::{
    Multiaddr,
    core::muxing::SubstreamBox,
    gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode},
    identity::Keypair,
};
use serde_json::json;
use smidge_bench::{
    Side, Stock, Tuning,
    driven::Driven,
    link::{Endpoint, Link},
    nodes::KAD,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Handshakes under way at once.
const PARALLEL: usize = 64;
/// Streams held open; then the oldest are reset to make room.
const HELD: usize = 240;
/// The topic that the flood goes to.
const TOPIC: &str = "numbers";

/// What was done so far.
#[derive(Default)]
struct Count {
    tried: AtomicU64,
    succeeded: AtomicU64,
    reconnected: AtomicU64,
}

impl Count {
    fn print(&self, done: bool) {
        println!(
            "{}",
            json!({
                "tried": self.tried.load(Relaxed),
                "succeeded": self.succeeded.load(Relaxed),
                "reconnected": self.reconnected.load(Relaxed),
                "done": done,
            })
        );
    }
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = env::args().skip(1).collect();
    let (what, at, amount) = match &args[..] {
        [what, at] => (what.as_str(), at, u64::MAX),
        [what, at, amount] => (what.as_str(), at, amount.parse()?),
        _ => return Err("hostile connections|gossip|kad|streams IP:PORT [AMOUNT]".into()),
    };
    let (ip, port) = at.rsplit_once(':').ok_or("IP:PORT")?;
    let victim: Multiaddr = format!("/ip4/{ip}/udp/{port}/quic-v1").parse()?;
    let side: Arc<dyn Side> = Arc::new(Stock::start(2)?);
    let count = Arc::<Count>::default();
    let told = count.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            told.print(false);
        }
    });
    block_on(async {
        match what {
            "connections" => connections(&*side, &victim, amount, &count).await,
            "gossip" => gossip(&*side, &victim, amount, &count).await,
            "kad" => on_links(&*side, &victim, amount, &count, junk).await,
            "streams" => on_links(&*side, &victim, amount, &count, strain).await,
            other => Err(format!("{other:?} is none of connections, gossip, kad, streams").into()),
        }
    })
}

/// Connections, each of another peer, all of them kept open for as long as the victim lets them.
async fn connections(side: &dyn Side, victim: &Multiaddr, amount: u64, count: &Count) -> Result<(), Failure> {
    let mut held = Vec::new();
    let mut dials = stream::iter(0..amount)
        .map(|_| async {
            let endpoint = Endpoint::new(side, &Tuning::default());
            count.tried.fetch_add(1, Relaxed);
            let link = endpoint.dial(victim.clone()).await;
            (endpoint, link)
        })
        .buffer_unordered(PARALLEL);
    while let Some((endpoint, link)) = dials.next().await {
        if let Ok(link) = link {
            count.succeeded.fetch_add(1, Relaxed);
            held.push((endpoint, link));
            // What the victim has closed is of no use; one look at a few is enough.
            if held.len() > 2048 {
                held.drain(..1024);
            }
        }
    }
    count.print(true);
    futures::future::pending().await
}

/// Messages without the signature that strict validation wants, under made-up names.
async fn gossip(side: &dyn Side, victim: &Multiaddr, amount: u64, count: &Count) -> Result<(), Failure> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::None)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_millis(700))
        .flood_publish(true)
        .build()?;
    let behaviour: gossipsub::Behaviour =
        gossipsub::Behaviour::new(MessageAuthenticity::RandomAuthor, config)?;
    let key = Keypair::generate_ed25519();
    let swarm = Driven::new(side, &key, &Tuning::default(), behaviour, |_| false);
    let topic = IdentTopic::new(TOPIC);
    let own = topic.clone();
    swarm.call(move |s| s.behaviour_mut().subscribe(&own)).await?;
    println!("{}", json!({ "peer": swarm.peer.to_string() }));
    let mut published = 0_u64;
    while published < amount {
        let (topic, victim) = (topic.clone(), victim.clone());
        let sent = swarm
            .call(move |s| {
                if s.connected_peers().next().is_none() {
                    // Being refused is no reason to stop.
                    let _ = s.dial(victim);
                    return None;
                }
                let data = vec![b'x'; 200];
                Some(
                    (0..20)
                        .filter(|_| s.behaviour_mut().publish(topic.clone(), data.clone()).is_ok())
                        .count(),
                )
            })
            .await;
        match sent {
            None => {
                count.reconnected.fetch_add(1, Relaxed);
                Timer::after(Duration::from_millis(200)).await;
            }
            Some(n) => {
                count.tried.fetch_add(20, Relaxed);
                count.succeeded.fetch_add(n as u64, Relaxed);
                published += 20;
                Timer::after(Duration::from_millis(20)).await;
            }
        }
    }
    count.print(true);
    futures::future::pending().await
}

/// Runs `work` on connection after connection, each of another peer.
async fn on_links(
    side: &dyn Side,
    victim: &Multiaddr,
    amount: u64,
    count: &Count,
    work: impl AsyncFn(&Link, u64, &Count) -> io::Result<()>,
) -> Result<(), Failure> {
    while count.tried.load(Relaxed) < amount {
        let endpoint = Endpoint::new(side, &Tuning::default());
        match endpoint.dial(victim.clone()).await {
            // It ends when the victim has had enough of us.
            Ok(link) => drop(work(&link, amount, count).await),
            Err(_) => drop(Timer::after(Duration::from_millis(200)).await),
        }
        count.reconnected.fetch_add(1, Relaxed);
    }
    count.print(true);
    futures::future::pending().await
}

/// The hash table's protocol with all that a careless parser could trip over.
async fn junk(link: &Link, amount: u64, count: &Count) -> io::Result<()> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut held = VecDeque::new();
    while count.tried.load(Relaxed) < amount {
        let n = count.tried.fetch_add(1, Relaxed);
        let mut stream = within(link.open()).await?;
        within(ask_for(&mut stream, KAD.as_ref())).await?;
        let mut random = vec![0; rng.usize(..2000)];
        rng.fill(&mut random);
        let key: [u8; 32] = rng.u128(..).to_be_bytes().repeat(2).try_into().unwrap_or_default();
        let frame = match n % 7 {
            // No protobuf.
            0 => framed(&random),
            // Longer than anything may be.
            1 => [&varint(1 << 62)[..], &random].concat(),
            // A record that nobody asked for.
            2 => framed(&message(0, &key, &field(3, &[field(1, &key), field(2, &random)].concat()))),
            // A provider that is not us, at addresses that are none.
            3 => {
                let peer = [field(1, &random), field(2, &random), field(2, b"\x04\x7f\0\0\x01")].concat();
                framed(&message(2, &key, &field(9, &peer)))
            }
            // A question, again and again.
            4 => framed(&message(4, &key, &[])),
            // Less than was announced.
            5 => [&varint(4000)[..], &random].concat(),
            // A type that does not exist, and a key of nothing.
            _ => framed(&message(99, &[], &field(3, &[]))),
        };
        if within(stream.write_all(&frame)).await.is_ok() && stream.flush().await.is_ok() {
            count.succeeded.fetch_add(1, Relaxed);
        }
        held.push_back(stream);
        if held.len() > HELD / 4 {
            held.pop_front();
        }
    }
    Ok(())
}

/// Streams that are opened and never finished: without a word, within the negotiation, and after it.
async fn strain(link: &Link, amount: u64, count: &Count) -> io::Result<()> {
    let mut held: VecDeque<SubstreamBox> = VecDeque::new();
    while count.tried.load(Relaxed) < amount {
        let n = count.tried.fetch_add(1, Relaxed);
        let mut stream = match within(link.open()).await {
            Ok(stream) => stream,
            // The victim grants no more: make room.
            Err(e) if e.kind() == io::ErrorKind::TimedOut && !held.is_empty() => {
                held.drain(..held.len().div_ceil(4));
                continue;
            }
            Err(e) => return Err(e),
        };
        let said = match n % 4 {
            0 => within(stream.write_all(&[0x13])).await,
            1 => within(stream.write_all(&line("/multistream/1.0.0"))).await,
            2 => within(ask_for(&mut stream, "/no/such/protocol")).await,
            _ => within(ask_for(&mut stream, KAD.as_ref())).await,
        };
        if said.is_ok() && within(stream.flush()).await.is_ok() {
            count.succeeded.fetch_add(1, Relaxed);
        }
        held.push_back(stream);
        if held.len() > HELD {
            held.drain(..HELD / 4);
        }
    }
    Ok(())
}

/// What `work` gives, unless it takes too long.
async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = async {
        Timer::after(Duration::from_millis(500)).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    futures::pin_mut!(work, late);
    futures::future::select(work, late).await.factor_first().0
}

/// Asks for `protocol` (multistream-select 1.0) and takes whatever answer for a yes.
async fn ask_for(stream: &mut SubstreamBox, protocol: &str) -> io::Result<()> {
    stream.write_all(&[line("/multistream/1.0.0"), line(protocol)].concat()).await?;
    stream.flush().await?;
    stream.read_exact(&mut [0; 20]).await
}

fn line(text: &str) -> Vec<u8> {
    framed(format!("{text}\n").as_bytes())
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&varint(bytes.len() as u64)[..], bytes].concat()
}

/// A message of kad (libp2p/specs `kad-dht/README.md`) with `rest` behind its type and key.
fn message(kind: u64, key: &[u8], rest: &[u8]) -> Vec<u8> {
    [&[8][..], &varint(kind), &field(2, key), rest].concat()
}

/// A protobuf field of bytes.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | 2)[..], &framed(bytes)].concat()
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n > 0x7f {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}
