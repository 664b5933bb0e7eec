//! A peer that means harm, for `tests/faults/`:
//! `hostile connections|deaf|flood|gossip|initials|kad|lies|names|pushes|streams IP:PORT [AMOUNT]`.
//!
//! It speaks with stock rust-libp2p's transport and does with it what no honest node does, until it is
//! killed. Once a second, and when `AMOUNT` is reached, it prints what it did so far as one JSON object
//! a line.

mod claims;
#[path = "../../../../tests/it/support/wire.rs"]
mod encode;
mod initials;
mod meshes;
mod streams;
mod wire;

use std::{
    env, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_io::Timer;
use futures::{StreamExt, executor::block_on, stream};
use libp2p::{
    Multiaddr,
    gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode},
    identity::Keypair,
};
use serde_json::json;
use smidge_bench::{
    Side, Stock, Tuning,
    driven::Driven,
    link::{Endpoint, Link},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const WORDS: &str = "connections|deaf|flood|gossip|initials|kad|lies|names|pushes|streams";
/// Handshakes under way at once.
const PARALLEL: usize = 64;
/// The topic of the mesh's own traffic.
const TOPIC: &str = "numbers";

/// What a flood of messages consists of.
struct Flood {
    topic: &'static str,
    /// Bytes of a message, and messages published in one go.
    size: usize,
    burst: u64,
    is_signed: bool,
}

/// Without the signature that strict validation wants, under made-up names.
const UNSIGNED: Flood = Flood { topic: TOPIC, size: 200, burst: 20, is_signed: false };
/// As any publisher may: 3 MB a second.
const ORDINARY: Flood = Flood { topic: "flood", size: 60_000, burst: 1, is_signed: true };

/// What was done so far.
#[derive(Default)]
struct Count {
    tried: AtomicU64,
    succeeded: AtomicU64,
    reconnected: AtomicU64,
    /// Bytes of the victim's longest answer about the peer that pushes, and the most addresses in one.
    answer: AtomicU64,
    addresses: AtomicU64,
    /// Whether all of `AMOUNT` is done. Every line says so from then on: who reads keeps the last one only.
    done: AtomicBool,
}

impl Count {
    fn print(&self) {
        println!(
            "{}",
            json!({
                "tried": self.tried.load(Relaxed),
                "succeeded": self.succeeded.load(Relaxed),
                "reconnected": self.reconnected.load(Relaxed),
                "answer": self.answer.load(Relaxed),
                "addresses": self.addresses.load(Relaxed),
                "done": self.done.load(Relaxed),
            })
        );
    }

    fn finish(&self) {
        self.done.store(true, Relaxed);
        self.print();
    }
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = env::args().skip(1).collect();
    let (what, at, amount) = match &args[..] {
        [what, at] => (what.as_str(), at, u64::MAX),
        [what, at, amount] => (what.as_str(), at, amount.parse()?),
        _ => return Err(format!("hostile {WORDS} IP:PORT [AMOUNT]").into()),
    };
    let at: SocketAddr = at.parse()?;
    let victim: Multiaddr = format!("/ip4/{}/udp/{}/quic-v1", at.ip(), at.port()).parse()?;
    let side: Arc<dyn Side> = Arc::new(Stock::start(2)?);
    let count = Arc::<Count>::default();
    let told = count.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            told.print();
        }
    });
    block_on(async {
        match what {
            "connections" => connections(&*side, &victim, amount, &count).await,
            "deaf" => meshes::deaf(&*side, &victim, amount, &count).await,
            "flood" => gossip(&*side, &victim, amount, &count, &ORDINARY).await,
            "gossip" => gossip(&*side, &victim, amount, &count, &UNSIGNED).await,
            "initials" => initials::initials(&*side, at, amount, &count).await,
            "kad" => on_links(&*side, &victim, amount, &count, streams::junk).await,
            "lies" => claims::lies(&*side, at, amount, &count).await,
            "names" => on_links(&*side, &victim, amount, &count, meshes::names).await,
            "pushes" => claims::pushes(&*side, at, amount, &count).await,
            "streams" => on_links(&*side, &victim, amount, &count, streams::strain).await,
            other => Err(format!("{other:?} is none of {WORDS}").into()),
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
    count.finish();
    futures::future::pending().await
}

/// Messages, a burst of them 50 times a second.
async fn gossip(
    side: &dyn Side,
    victim: &Multiaddr,
    amount: u64,
    count: &Count,
    flood: &'static Flood,
) -> Result<(), Failure> {
    let key = Keypair::generate_ed25519();
    let (mode, author) = match flood.is_signed {
        true => (ValidationMode::Strict, MessageAuthenticity::Signed(key.clone())),
        false => (ValidationMode::None, MessageAuthenticity::RandomAuthor),
    };
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(mode)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_millis(700))
        .flood_publish(true)
        .build()?;
    let behaviour: gossipsub::Behaviour = gossipsub::Behaviour::new(author, config)?;
    let swarm = Driven::new(side, &key, &Tuning::default(), behaviour, |_| false);
    let topic = IdentTopic::new(flood.topic);
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
                let data = vec![b'x'; flood.size];
                Some(
                    (0..flood.burst)
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
                count.tried.fetch_add(flood.burst, Relaxed);
                count.succeeded.fetch_add(n as u64, Relaxed);
                published += flood.burst;
                Timer::after(Duration::from_millis(20)).await;
            }
        }
    }
    count.finish();
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
    count.finish();
    futures::future::pending().await
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
