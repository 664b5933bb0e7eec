//! Eight nodes that gossip in one process, everyone connected to everyone: smidge's engine on its transport, or
//! rust-libp2p's on its own. It never looks into either: what is measured is what a program above them would see.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs, io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, channel::mpsc, select};
use libp2p::{
    gossipsub,
    identity::Keypair,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use smidge_gossip::{Authenticity, Author, Behaviour, Config, Event, MeshParams, Topic};

use crate::{
    Kind, Side, Tuning,
    child::Failure,
    driven::Driven,
    link,
    metric::{Metric, percentile},
    nodes::{gossip_behaviour, gossip_config},
    proc::Reading,
};

const TOPIC: &str = "bench";
const NODES: usize = 8;
/// Payloads: bytes, and their name in the table.
const SIZES: [(usize, &str); 2] = [(100, "100 B"), (4096, "4 KiB")];

/// What both engines can do.
trait Engine: NetworkBehaviour<ToSwarm: Send> + Send + Sized + 'static {
    /// One that signs as `key`, checks strictly, and follows the topic.
    fn start(key: &Keypair) -> Result<Self, Failure>;
    fn publish(&mut self, data: &[u8]) -> Result<(), Failure>;
    /// The payload, if a message arrived.
    fn payload(event: &Self::ToSwarm) -> Option<&[u8]>;
    /// Peers that follow the topic, and those of them in its mesh.
    fn followers(&self) -> (usize, usize);
}

impl Engine for Behaviour {
    fn start(key: &Keypair) -> Result<Self, Failure> {
        // As `gossip_config` has it for the other side.
        let mut config = Config::default();
        config.mesh = MeshParams { n: 6, n_low: 4, n_high: 12, outbound_min: 2 };
        config.heartbeat_interval = Duration::from_millis(700);
        let author = Author::new(Authenticity::Signed(key.clone()), 1);
        let mut behaviour = Self::new(config, key.public().to_peer_id(), author)?;
        behaviour.subscribe(&Topic::from(TOPIC));
        Ok(behaviour)
    }

    fn publish(&mut self, data: &[u8]) -> Result<(), Failure> {
        Ok(Self::publish(self, &Topic::from(TOPIC), data).map(drop)?)
    }

    fn payload(event: &Event) -> Option<&[u8]> {
        match event {
            Event::Message { message, .. } => Some(&message.data),
            _ => None,
        }
    }

    fn followers(&self) -> (usize, usize) {
        let topic = Topic::from(TOPIC);
        (self.core().subscribers(&topic).len(), self.core().mesh(&topic).len())
    }
}

impl Engine for gossipsub::Behaviour {
    fn start(key: &Keypair) -> Result<Self, Failure> {
        let mut behaviour = gossip_behaviour(key, gossip_config().build()?);
        behaviour.subscribe(&gossipsub::IdentTopic::new(TOPIC))?;
        Ok(behaviour)
    }

    fn publish(&mut self, data: &[u8]) -> Result<(), Failure> {
        Ok(Self::publish(self, gossipsub::IdentTopic::new(TOPIC), data).map(drop)?)
    }

    fn payload(event: &gossipsub::Event) -> Option<&[u8]> {
        match event {
            gossipsub::Event::Message { message, .. } => Some(&message.data),
            _ => None,
        }
    }

    fn followers(&self) -> (usize, usize) {
        let hash = gossipsub::IdentTopic::new(TOPIC).hash();
        let follow = self.all_peers().filter(|(_, topics)| topics.contains(&&hash)).count();
        (follow, self.mesh_peers(&hash).count())
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// One message under way, then 32.
    Windows,
    /// So many a second of each size, whatever comes of those before.
    Rates([f64; SIZES.len()]),
}

/// The figures of one run on `side`.
pub(crate) async fn measure(side: Arc<dyn Side>, load: Load, quick: bool) -> Result<Vec<Metric>, Failure> {
    match side.kind() {
        Kind::Ours => run::<Behaviour>(side, load, quick).await,
        Kind::Stock => run::<gossipsub::Behaviour>(side, load, quick).await,
    }
}

/// The name of the row that a rate is taken from.
pub fn rate_row(size: usize) -> String {
    format!("gossip 8 nodes {}, 32 under way", SIZES[size].1)
}

async fn run<E: Engine>(side: Arc<dyn Side>, load: Load, quick: bool) -> Result<Vec<Metric>, Failure> {
    let mut swarm = Loaded::<E>::start(&side).await?;
    let mut figures = Vec::new();
    for (n, (size, name)) in SIZES.into_iter().enumerate() {
        match load {
            Load::Windows => {
                let count = if quick { 60 } else { 300 };
                let run = swarm.window(size, 1, count).await?;
                figures.extend(run.latencies(&format!("gossip 8 nodes {name}, to all")));
                let count = if quick { 600 } else { 3000 };
                let run = swarm.window(size, 32, count).await?;
                let of = rate_row(n);
                let each = |total: f64| total / count as f64;
                figures.push(Metric::higher(&of, "msg/s", count as f64 / run.took));
                figures.push(Metric::lower(&format!("{of}, CPU of all"), "µs/msg", each(run.cpu * 1e6)));
                figures.push(Metric::lower(&format!("{of}, wake-ups of all"), "1/msg", each(run.sleeps)));
                figures.push(Metric::lower(&format!("{of}, sends of all"), "1/msg", each(run.sends)));
            }
            Load::Rates(rates) => {
                let seconds = if quick { 2.0 } else { 5.0 };
                let run = swarm.paced(size, rates[n], seconds).await?;
                figures.extend(run.latencies(&format!("gossip 8 nodes {name}, at half load")));
            }
        }
    }
    Ok(figures)
}

/// What a run took.
struct Run {
    /// µs until all had a message, of each.
    times: Vec<f64>,
    took: f64,
    cpu: f64,
    sleeps: f64,
    sends: f64,
}

impl Run {
    fn latencies(mut self, of: &str) -> [Metric; 2] {
        [("p50", 0.5), ("p99", 0.99)].map(|(name, share)| {
            Metric::lower(&format!("{of}, {name}"), "µs", percentile(&mut self.times, share))
        })
    }
}

/// What was used until now.
struct Before {
    began: Instant,
    reading: Reading,
    sends: u64,
}

impl Before {
    fn now() -> io::Result<Self> {
        Ok(Self { began: Instant::now(), reading: Reading::own()?, sends: datagrams_sent()? })
    }

    fn run(self, times: Vec<f64>) -> io::Result<Run> {
        let took = self.began.elapsed().as_secs_f64();
        let after = Reading::own()?;
        Ok(Run {
            times,
            took,
            cpu: after.cpu - self.reading.cpu,
            sleeps: after.sleeps.saturating_sub(self.reading.sleeps) as f64,
            sends: datagrams_sent()?.saturating_sub(self.sends) as f64,
        })
    }
}

/// Sends of datagrams in this network namespace. Several that go out as segments of one send are one.
fn datagrams_sent() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/net/snmp")?;
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(name, _)| *name == "OutDatagrams")
        .and_then(|(_, value)| value.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/net/snmp has no OutDatagrams"))
}

/// A publisher in a swarm whose other nodes say what arrives.
struct Loaded<E: Engine> {
    publisher: Driven<E>,
    arrived: mpsc::Receiver<u32>,
    next: u32,
    /// Messages that not all have: when each went, and how many have it.
    under_way: HashMap<u32, (Instant, usize)>,
}

impl<E: Engine> Loaded<E> {
    async fn start(side: &Arc<dyn Side>) -> Result<Self, Failure> {
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let key = Keypair::generate_ed25519();
            nodes.push(Driven::new(
                &**side,
                &key,
                &Tuning::default(),
                E::start(&key)?,
                |event| match event {
                    SwarmEvent::Behaviour(event) => E::payload(event).is_some(),
                    _ => true,
                },
            ));
        }
        let mut addresses = Vec::new();
        for node in &mut nodes {
            addresses.push(node.listen().await);
        }
        for (n, node) in nodes.iter_mut().enumerate() {
            for address in &addresses[..n] {
                node.dial(address.clone()).await;
            }
        }
        let publisher = nodes.remove(0);
        loop {
            let (follow, mesh) = publisher.call(|s| s.behaviour().followers()).await;
            if follow == NODES - 1 && mesh >= 4 {
                break;
            }
            async_io::Timer::after(Duration::from_millis(20)).await;
        }
        let (arrivals, arrived) = mpsc::channel::<u32>(65536);
        for mut node in nodes {
            let mut arrivals = arrivals.clone();
            link::start(&side.spawner(), async move {
                // All of the node, not its events alone: it ends when it is dropped.
                let node = &mut node;
                while let Some(event) = node.events.next().await {
                    if let SwarmEvent::Behaviour(event) = event
                        && let Some(number) = E::payload(&event).and_then(|data| data.first_chunk())
                    {
                        let _ = arrivals.try_send(u32::from_be_bytes(*number));
                    }
                }
            });
        }
        Ok(Self { publisher, arrived, next: 0, under_way: HashMap::new() })
    }

    /// Publishes one that counts as begun at `due`.
    async fn publish(&mut self, size: usize, due: Instant) -> Result<(), Failure> {
        let mut data = vec![0; size];
        data[..4].copy_from_slice(&self.next.to_be_bytes());
        self.under_way.insert(self.next, (due, 0));
        self.next += 1;
        self.publisher.call(move |s| s.behaviour_mut().publish(&data)).await
    }

    /// µs that it took to reach all, if this arrival was the last.
    fn arrived(&mut self, number: u32) -> Option<f64> {
        let Entry::Occupied(mut entry) = self.under_way.entry(number) else { return None };
        entry.get_mut().1 += 1;
        (entry.get().1 == NODES - 1).then(|| entry.remove().0.elapsed().as_secs_f64() * 1e6)
    }

    /// `count` messages, `window` of them under way.
    async fn window(&mut self, size: usize, window: usize, count: usize) -> Result<Run, Failure> {
        let (before, mut sent, mut times) = (Before::now()?, 0, Vec::new());
        while times.len() < count {
            while self.under_way.len() < window && sent < count {
                self.publish(size, Instant::now()).await?;
                sent += 1;
            }
            let number = self.arrived.next().await.ok_or("the nodes ended")?;
            times.extend(self.arrived(number));
        }
        Ok(before.run(times)?)
    }

    /// `rate` messages a second for `seconds`: each counts from when it was due, so that whoever falls behind is seen.
    async fn paced(&mut self, size: usize, rate: f64, seconds: f64) -> Result<Run, Failure> {
        let count = (rate * seconds) as usize;
        let (before, mut sent, mut times) = (Before::now()?, 0, Vec::new());
        while times.len() < count {
            let due = before.began + Duration::from_secs_f64(sent as f64 / rate);
            if sent < count && due <= Instant::now() {
                self.publish(size, due).await?;
                sent += 1;
                continue;
            }
            let timer = if sent < count { async_io::Timer::at(due) } else { async_io::Timer::never() };
            let mut wait = FutureExt::fuse(timer);
            select! {
                number = self.arrived.next() => {
                    let number = number.ok_or("the nodes ended")?;
                    times.extend(self.arrived(number));
                }
                _ = wait => {}
            }
        }
        Ok(before.run(times)?)
    }
}
