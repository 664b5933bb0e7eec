//! Eight nodes in one process over the memory transport: this engine or stock rust-libp2p's, the same work.
//!
//! `cargo run --release -p smidge-gossip --example yardstick -- ours|stock [BYTES] [MESSAGES] [NODES] [WINDOW] [RATE]`
//! One node publishes, WINDOW messages under way at a time; a message is done when all the others have it. Prints
//! messages a second and the CPU time that all nodes together spend on one. With a RATE behind these, so many a second
//! are published, and what is printed is the process's anonymous memory before, after, and two minutes later.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]

use std::{
    collections::HashMap,
    pin::Pin,
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    channel::mpsc,
    executor::{ThreadPool, block_on},
    future::Future,
    select,
};
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{transport::MemoryTransport, upgrade::Version},
    gossipsub,
    identity::Keypair,
    noise,
    swarm::{Config as SwarmConfig, NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
    yamux,
};
use smidge_gossip::{Authenticity, Author, Behaviour, Config, Event, Topic};

const TOPIC: &str = "t";

/// What both engines can do.
trait Engine: NetworkBehaviour<ToSwarm: Send> + Send + Sized + 'static {
    fn start(key: &Keypair) -> Self;
    fn publish(&mut self, data: &[u8]) -> bool;
    fn data(event: &Self::ToSwarm) -> Option<&[u8]>;
    fn mesh(&self) -> usize;
}

impl Engine for Behaviour {
    fn start(key: &Keypair) -> Self {
        let author = Author::new(Authenticity::Signed(key.clone()), 1);
        let mut behaviour = Self::new(Config::default(), key.public().to_peer_id(), author).unwrap();
        behaviour.subscribe(&Topic::from(TOPIC));
        behaviour
    }

    fn publish(&mut self, data: &[u8]) -> bool {
        Self::publish(self, &Topic::from(TOPIC), data).is_ok()
    }

    fn data(event: &Event) -> Option<&[u8]> {
        match event {
            Event::Message { message, .. } => Some(&message.data),
            _ => None,
        }
    }

    fn mesh(&self) -> usize {
        self.core().mesh(&Topic::from(TOPIC)).len()
    }
}

impl Engine for gossipsub::Behaviour {
    fn start(key: &Keypair) -> Self {
        let config = gossipsub::ConfigBuilder::default()
            .heartbeat_initial_delay(Duration::from_millis(100))
            .build()
            .unwrap();
        let mut behaviour = Self::new(gossipsub::MessageAuthenticity::Signed(key.clone()), config).unwrap();
        behaviour.subscribe(&gossipsub::IdentTopic::new(TOPIC)).unwrap();
        behaviour
    }

    fn publish(&mut self, data: &[u8]) -> bool {
        Self::publish(self, gossipsub::IdentTopic::new(TOPIC), data).is_ok()
    }

    fn data(event: &gossipsub::Event) -> Option<&[u8]> {
        match event {
            gossipsub::Event::Message { message, .. } => Some(&message.data),
            _ => None,
        }
    }

    fn mesh(&self) -> usize {
        self.mesh_peers(&gossipsub::IdentTopic::new(TOPIC).hash()).count()
    }
}

fn swarm<E: Engine>(pool: &ThreadPool) -> (Swarm<E>, Multiaddr) {
    let key = Keypair::generate_ed25519();
    let transport = MemoryTransport::default()
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let spawn = pool.clone();
    let config = SwarmConfig::with_executor(move |task: Pin<Box<dyn Future<Output = ()> + Send>>| {
        spawn.spawn_ok(task);
    });
    let config = config.with_idle_connection_timeout(Duration::from_secs(600));
    let mut swarm = Swarm::new(transport, E::start(&key), key.public().to_peer_id(), config);
    let address: Multiaddr = format!("/memory/{}", fastrand::u64(1..)).parse().unwrap();
    swarm.listen_on(address.clone()).unwrap();
    (swarm, address)
}

fn number(data: &[u8]) -> u64 {
    u64::from_be_bytes(data[..8].try_into().unwrap())
}

/// Seconds of CPU that this process used.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Anonymous resident memory of this process, in MiB.
fn anonymous() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// After the last message, until what was kept of all of them is to be gone.
const AFTER: Duration = Duration::from_secs(125);

fn run<E: Engine>(name: &str, bytes: usize, messages: u64, nodes: usize, window: usize, rate: u64) {
    let pool = ThreadPool::builder().pool_size(2).create().unwrap();
    let mut swarms: Vec<_> = (0..nodes).map(|_| swarm::<E>(&pool)).collect();
    let known: Vec<(PeerId, Multiaddr)> =
        swarms.iter().map(|(s, a)| (*s.local_peer_id(), a.clone())).collect();
    for (n, (swarm, _)) in swarms.iter_mut().enumerate() {
        for (peer, address) in &known[..n] {
            swarm.dial(DialOpts::peer_id(*peer).addresses(vec![address.clone()]).build()).unwrap();
        }
    }
    let (done, mut arrived) = mpsc::channel(1 << 16);
    let mut swarms = swarms.into_iter().map(|(swarm, _)| swarm);
    let mut publisher = swarms.next().unwrap();
    for mut swarm in swarms {
        let mut done = done.clone();
        pool.spawn_ok(async move {
            loop {
                if let SwarmEvent::Behaviour(event) = swarm.select_next_some().await
                    && let Some(data) = E::data(&event)
                {
                    done.try_send((number(data), Instant::now())).unwrap();
                }
            }
        });
    }
    let publish = async move {
        // Until everybody knows of everybody.
        let settled = futures_timer::Delay::new(Duration::from_secs(3));
        let mut settled = settled.fuse();
        loop {
            select! {
                _ = publisher.select_next_some() => {}
                () = settled => break,
            }
        }
        let mesh = publisher.behaviour().mesh();
        let (mut next, mut complete) = (0u64, 0u64);
        let mut under_way: HashMap<u64, (usize, Instant)> = HashMap::new();
        let mut latencies = Vec::new();
        let before = anonymous();
        let mut pace = futures_timer::Delay::new(Duration::ZERO).fuse();
        let (from, cpu_from) = (Instant::now(), cpu());
        while complete < messages {
            let due = match rate {
                0 => messages,
                rate => messages.min((from.elapsed().as_secs_f64() * rate as f64) as u64),
            };
            while under_way.len() < window && next < due {
                let mut data = vec![0; bytes.max(8)];
                data[..8].copy_from_slice(&next.to_be_bytes());
                if !publisher.behaviour_mut().publish(&data) {
                    break;
                }
                under_way.insert(next, (0, Instant::now()));
                next += 1;
            }
            select! {
                _ = publisher.select_next_some() => {}
                () = pace => pace = futures_timer::Delay::new(Duration::from_millis(5)).fuse(),
                (number, at) = arrived.select_next_some() => {
                    let (count, sent) = under_way.get_mut(&number).unwrap();
                    *count += 1;
                    if *count == nodes - 1 {
                        latencies.push(at.saturating_duration_since(*sent));
                        under_way.remove(&number);
                        complete += 1;
                    }
                }
            }
        }
        let (time, cpu) = (from.elapsed().as_secs_f64(), cpu() - cpu_from);
        latencies.sort();
        let at = |part: usize| latencies[(latencies.len() - 1) * part / 100].as_secs_f64() * 1e3;
        println!(
            "{name}: {nodes} nodes, mesh {mesh}, {bytes} B, {window} under way: {:.0} messages/s, {:.0} us CPU a \
             message, latency p50 {:.2} ms, p99 {:.2} ms",
            messages as f64 / time,
            cpu / messages as f64 * 1e6,
            at(50),
            at(99),
        );
        if rate > 0 {
            let after = anonymous();
            let mut rest = futures_timer::Delay::new(AFTER).fuse();
            loop {
                select! {
                    _ = publisher.select_next_some() => {}
                    () = rest => break,
                }
            }
            println!(
                "{name}: anonymous memory of all nodes {before:.1} MiB before, {after:.1} after, {:.1} two minutes later",
                anonymous()
            );
        }
    };
    block_on(publish);
}

fn main() {
    let mut args = std::env::args().skip(1);
    let engine = args.next().unwrap_or_else(|| "ours".into());
    let mut number = |default: u64| args.next().map_or(default, |arg| arg.parse().unwrap());
    let (bytes, messages) = (number(100) as usize, number(20_000));
    let (nodes, window, rate) = (number(8) as usize, number(32) as usize, number(0));
    match engine.as_str() {
        "stock" => run::<gossipsub::Behaviour>("stock", bytes, messages, nodes, window, rate),
        _ => run::<Behaviour>("ours", bytes, messages, nodes, window, rate),
    }
}
