//! How cost grows with the number of nodes: `growth [NODES…] [--out DIRECTORY]`.
//!
//! Each number of nodes gets a process of its own, with two threads. Its nodes are whole smidge nodes at
//! smidge's defaults but for the limit on the process's memory; each dials all that were there before it, as
//! replicas behind one name do, over loopback. They are meshed when each is connected to each and has at least
//! as many members as `gossip.mesh_n_low` in its mesh of the topic. Then messages are published, by
//! a different node each time, eight under way at once. Writes `growth.json` and `growth.svg`.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, IoSliceMut},
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, SinkExt, StreamExt, channel::mpsc, future::BoxFuture};
use libp2p::{Multiaddr, identity::Keypair};
use serde_json::{Value, json};
use smidge::{
    Client, Config, Event, Node, PublishOptions,
    runtime::{Executor, Handle, Interfaces, RecvMeta, Runtime, Timer, Transmit, UdpOptions, UdpSocket},
};
use smidge_bench::{child::line, proc::Reading};

use crate::plot::{Panel, page};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const SIZES: [usize; 4] = [10, 50, 100, 200];
const TOPIC: &str = "growth";
const MESSAGES: u32 = 200;
const MESSAGE: usize = 100;
/// Messages under way at once.
const WINDOW: usize = 8;
/// How long meshing, and the delivery of one message, may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn main(args: &[String]) -> Result<(), Failure> {
    let (mut sizes, mut out) = (Vec::new(), PathBuf::from("bench"));
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--out" => out = args.next().ok_or("--out DIRECTORY")?.into(),
            "--one" => {
                let nodes = args.next().and_then(|n| n.parse().ok()).ok_or("--one NODES")?;
                println!("{}", one(nodes)?);
                return Ok(());
            }
            nodes => {
                sizes.push(nodes.parse::<usize>().map_err(|_| format!("{nodes:?} is no number of nodes"))?)
            }
        }
    }
    if sizes.is_empty() {
        sizes = SIZES.to_vec();
    }
    let load = crate::load_average();
    let mut rows = Vec::new();
    for nodes in sizes {
        eprintln!("{nodes} nodes");
        let mut child = Command::new(env::current_exe()?)
            .args(["growth", "--one", &nodes.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let said =
            child.stdout.take().ok_or("no output").map(io::BufReader::new).map(|mut out| line(&mut out));
        let ended = child.wait()?;
        let row: Value = serde_json::from_str(&said??).map_err(|e| format!("{nodes} nodes, {ended}: {e}"))?;
        eprintln!("{row}");
        rows.push(row);
    }
    let (after, short) =
        (crate::load_average(), |text: &str| text.split(' ').next().unwrap_or("?").to_string());
    let all = json!({
        "messages": MESSAGES, "bytes": MESSAGE, "under_way": WINDOW,
        "load_before": load, "load_after": after, "rows": rows,
    });
    fs::write(out.join("growth.json"), serde_json::to_string_pretty(&all)? + "\n")?;
    let points = |of: &str| -> Vec<(f64, f64)> {
        rows.iter().filter_map(|row| Some((row["nodes"].as_f64()?, row[of].as_f64()?))).collect()
    };
    let panels = FIGURES.map(|(key, title, unit)| Panel { title, unit, points: points(key) });
    let note = format!(
        "smidge nodes in one process on loopback, each connected to each. {MESSAGES} messages of {MESSAGE} bytes. \
         Load average {} before, {} after: times are of a machine as busy as that.",
        short(&load),
        short(&after)
    );
    fs::write(out.join("growth.svg"), page("How cost grows with the number of nodes", &note, &panels))?;
    Ok(())
}

/// Key, title and unit of what is plotted.
const FIGURES: [(&str, &str, &str); 8] = [
    ("mesh_s", "time to a full mesh", "s"),
    ("mesh_cpu_ms_per_connection", "CPU to mesh, each connection", "ms"),
    ("delivered_percent", "messages delivered", "%"),
    ("duplicates_per_message", "duplicates, each node and message", ""),
    ("mesh_kib_per_node", "sent to mesh, each node", "KiB"),
    ("message_bytes_per_node", "sent, each node and message", "B"),
    ("rss_mib_per_node", "resident memory, each node", "MiB"),
    ("delivery_ms", "publish to delivered to all, median", "ms"),
];

fn one(nodes: usize) -> Result<Value, Failure> {
    let empty = Reading::own()?;
    Executor::default().block_on(2, |runtime| async move {
        let sent = Arc::new(AtomicU64::new(0));
        let runtime = Handle::from(Counting { inner: runtime, sent: sent.clone() });
        grow(&runtime, &sent, nodes, empty).await
    })?
}

async fn grow(runtime: &Handle, sent: &AtomicU64, nodes: usize, empty: Reading) -> Result<Value, Failure> {
    let began = Instant::now();
    let mut clients: Vec<Client> = Vec::new();
    let mut addresses: Vec<Multiaddr> = Vec::new();
    for n in 0..nodes {
        let mut config = Config::default();
        // Each at an address of its own: more than `gossip.colocated` at one would be taken for one that pretends.
        config.listen.addresses =
            vec![format!("/ip4/127.77.{}.{}/udp/0/quic-v1", n / 250, n % 250 + 1).parse()?];
        config.gossip.topics = vec![TOPIC.into()];
        config.dial.addresses = addresses.clone();
        config.limits.memory = usize::MAX;
        config.limits.connections = config.limits.connections.max(2 * nodes);
        config.limits.pending = config.limits.pending.max(nodes);
        let client = Node::new(config, Keypair::generate_ed25519()).spawn(runtime)?;
        let mut events = client.events();
        addresses.push(loop {
            // It may have been told before anybody listened.
            if let [at, ..] = &client.status().await?.listening[..] {
                break at.clone();
            }
            match events.next().await.ok_or("a node ended")? {
                Event::Listening(at) => break at,
                _ => continue,
            }
        });
        clients.push(client);
    }
    let least = Config::default().gossip.mesh_n_low.min(nodes - 1);
    for client in &clients {
        // All that it takes is waited for; how often it is looked at is of no weight.
        while client.status().await?.peers < nodes - 1
            || client.mesh().await?.values().map(Vec::len).sum::<usize>() < least
        {
            if began.elapsed() > PATIENCE {
                let (mut peers, mut members) = (Vec::new(), Vec::new());
                for client in &clients {
                    peers.push(client.status().await?.peers);
                    members.push(client.mesh().await?.values().map(Vec::len).sum::<usize>());
                }
                return Err(format!(
                    "after {PATIENCE:?} the nodes have {peers:?} peers and {members:?} members in their meshes"
                )
                .into());
            }
            runtime.sleep(Duration::from_millis(20)).await;
        }
    }
    let mesh = began.elapsed().as_secs_f64();
    let meshed = Reading::own()?;
    let mesh_bytes = sent.load(Ordering::Relaxed);
    let before = duplicates(&clients).await?;

    let (arrivals, mut arrived) = mpsc::channel(1024);
    for client in &clients {
        let (mut subscription, mut arrivals) = (client.subscribe(TOPIC).await?.no_local(), arrivals.clone());
        runtime.spawn(async move {
            while let Some(message) = subscription.next().await {
                let number = message.data.first_chunk().map_or(u32::MAX, |n| u32::from_be_bytes(*n));
                // Nobody counts any more when the run is over.
                let _ = arrivals.send(number).await;
            }
        });
    }
    let (mut next, mut times, mut delivered) = (0, Vec::new(), 0_u64);
    let mut under_way: BTreeMap<u32, (Instant, usize)> = BTreeMap::new();
    while times.len() < MESSAGES as usize {
        while next < MESSAGES && under_way.len() < WINDOW {
            let mut data = vec![0; MESSAGE];
            data[..4].copy_from_slice(&next.to_be_bytes());
            under_way.insert(next, (Instant::now(), 0));
            clients[next as usize % nodes].publish(TOPIC, data, PublishOptions::default()).await?;
            next += 1;
        }
        let Ok(number) = runtime.timeout(PATIENCE, arrived.next()).await else { break };
        let number = number.ok_or("the nodes ended")?;
        delivered += 1;
        if let Some((began, count)) = under_way.get_mut(&number) {
            *count += 1;
            // A subscriber of the publishing node leaves out its own messages.
            if *count == nodes - 1 {
                times.push(began.elapsed().as_secs_f64() * 1e3);
                under_way.remove(&number);
            }
        }
    }
    let after = Reading::own()?;
    let duplicates = duplicates(&clients).await? - before;
    let message_bytes = sent.load(Ordering::Relaxed) - mesh_bytes;
    times.sort_by(f64::total_cmp);
    let (nodes_f, messages) = (nodes as f64, f64::from(MESSAGES));
    let connections = nodes_f * (nodes_f - 1.0) / 2.0;
    Ok(json!({
        "nodes": nodes,
        "connections": connections,
        "mesh_s": mesh,
        "mesh_cpu_s": meshed.cpu - empty.cpu,
        "mesh_cpu_ms_per_connection": (meshed.cpu - empty.cpu) * 1e3 / connections,
        "mesh_kib_per_node": mesh_bytes as f64 / 1024.0 / nodes_f,
        "rss_mib_per_node": (meshed.rss - empty.rss) as f64 / 1024.0 / nodes_f,
        "rss_kib_per_connection_end": (meshed.rss - empty.rss) as f64 / 2.0 / connections,
        "delivered_percent": delivered as f64 * 100.0 / (messages * (nodes_f - 1.0)),
        "delivery_ms": times.get(times.len() / 2),
        "duplicates_per_message": duplicates as f64 / messages / nodes_f,
        "message_bytes_per_node": message_bytes as f64 / messages / nodes_f,
        "message_cpu_ms": (after.cpu - meshed.cpu) * 1e3 / messages,
    }))
}

/// Copies that arrived of messages that were known, at all nodes.
async fn duplicates(clients: &[Client]) -> Result<u64, Failure> {
    let mut sum = 0;
    for client in clients {
        sum += client.status().await?.traffic.duplicates;
    }
    Ok(sum)
}

/// A runtime that counts the bytes of what is sent over UDP.
#[derive(Debug)]
struct Counting {
    inner: Handle,
    sent: Arc<AtomicU64>,
}

impl Runtime for Counting {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        (*self.inner).spawn(task);
    }

    fn timer(&self) -> Box<dyn Timer> {
        self.inner.timer()
    }

    fn bind_udp(&self, addr: SocketAddr, options: UdpOptions) -> io::Result<Arc<dyn UdpSocket>> {
        Ok(Arc::new(Counted { socket: self.inner.bind_udp(addr, options)?, sent: self.sent.clone() }))
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        (*self.inner).blocking(work)
    }

    fn interfaces(&self) -> io::Result<Box<dyn Interfaces>> {
        self.inner.interfaces()
    }
}

#[derive(Debug)]
struct Counted {
    socket: Arc<dyn UdpSocket>,
    sent: Arc<AtomicU64>,
}

impl UdpSocket for Counted {
    fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)?;
        self.sent.fetch_add(transmit.contents.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn writable(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>> {
        self.socket.clone().writable().boxed()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
