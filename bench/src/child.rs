//! What a child process does: serve, or put load on a server.
//!
//! Each end of a measured connection is a process with a runtime of one thread, so that the two
//! share no reactor, and what a process uses can be told apart. The work runs as a task of the
//! measured runtime; the main thread only waits for it.

use std::{
    io::{self, BufRead, Read, Write},
    sync::{Arc, mpsc},
    time::Instant,
};

use futures::{
    AsyncReadExt, AsyncWriteExt, StreamExt,
    future::{FutureExt, join_all, try_join_all},
    stream,
};
use libp2p::{
    Multiaddr, PeerId,
    core::muxing::SubstreamBox,
    identity::Keypair,
    request_response::{self, Message},
    swarm::SwarmEvent,
};

use crate::{
    Kind, Side, Spawner, Tuning,
    driven::Driven,
    gossip::{self, Load},
    link::{self, Endpoint},
    metric::{Metric, percentile},
    nodes::{Frames, requests},
    proc::Reading,
};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
type Figures = Result<Vec<Metric>, Failure>;

/// Runs the role that `args` name: `KIND ROLE [ARGUMENT…]`.
///
/// # Errors
/// What went wrong, in words.
pub fn main(args: &[String]) -> Result<(), Failure> {
    let [kind, role, rest @ ..] = args else { return Err("KIND ROLE [ARGUMENT…]".into()) };
    let kind = Kind::parse(kind).ok_or("no such kind")?;
    let quick = rest.iter().any(|arg| arg == "--quick");
    let rest: Vec<String> = rest.iter().filter(|arg| *arg != "--quick").cloned().collect();
    // Eight gossiping nodes share both cores; everyone else has a process of its own.
    let side = kind.start(if role == "gossip" { 2 } else { 1 })?;
    match role.as_str() {
        "serve" => on(&side, serve)?,
        "serve-requests" => on(&side, serve_requests)?,
        "gossip" => {
            let load = match &rest[..] {
                [small, large] => Load::Rates([small.parse()?, large.parse()?]),
                _ => Load::Windows,
            };
            report(on(&side, move |side| gossip::measure(side, load, quick))?);
        }
        "hold" => on(&side, move |side| hold(side, rest))?,
        load => {
            let load = load.to_string();
            report(on(&side, move |side| put_load(side, load, rest, quick))?);
        }
    }
    Ok(())
}

/// Runs `work` as a task of `side` and waits for what it returns.
fn on<T: Send + 'static, F>(side: &Arc<dyn Side>, work: impl FnOnce(Arc<dyn Side>) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let (done, result) = mpsc::sync_channel(1);
    let work = work(side.clone());
    side.spawner()(async move { drop(done.send(work.await)) }.boxed());
    result.recv()?
}

fn report(figures: Vec<Metric>) {
    let figures: Vec<_> = figures.iter().map(Metric::to_json).collect();
    say(&serde_json::Value::from(figures).to_string());
}

/// Prints a line for the parent. It may be gone: then nobody minds.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Ready when the parent has closed our input.
async fn parent_gone() {
    let (done, ended) = futures::channel::oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = done.send(());
    });
    let _ = ended.await;
}

/// A bare transport that does what each stream's first byte says: `U` takes bytes and counts them,
/// `D` sends as many as asked for.
async fn serve(side: Arc<dyn Side>) -> Result<(), Failure> {
    let mut endpoint = Endpoint::new(&*side, &Tuning::default());
    let address = endpoint.listen_v4().await;
    let spawner = side.spawner();
    let inner = spawner.clone();
    link::start(&spawner, async move {
        let mut links = Vec::new();
        while let Ok(link) = endpoint.accept_good().await {
            let link = Arc::new(link);
            link::start(&inner, serve_link(inner.clone(), link.clone()));
            links.push(link);
            // Measured connections are closed by the dialer: forget those that have ended.
            links.retain(|link| Arc::strong_count(link) > 1);
        }
    });
    say(&address.to_string());
    parent_gone().await;
    Ok(())
}

async fn serve_link(spawner: Spawner, link: Arc<link::Link>) {
    while let Ok(mut stream) = link.accept().await {
        link::start(&spawner, async move {
            // A stream that its dialer gave up is nobody's concern.
            let _ = serve_stream(&mut stream).await;
        });
    }
}

async fn serve_stream(stream: &mut SubstreamBox) -> io::Result<()> {
    let mut order = [0; 9];
    stream.read_exact(&mut order).await?;
    let [what, bytes @ ..] = order;
    if what == b'D' {
        return link::send_all(stream, u64::from_be_bytes(bytes)).await;
    }
    let got = link::receive_all(stream).await?;
    stream.write_all(&got.to_be_bytes()).await?;
    stream.close().await
}

async fn order(link: &link::Link, what: u8, bytes: u64) -> io::Result<SubstreamBox> {
    let mut stream = link.open().await?;
    let mut order = vec![what];
    order.extend(bytes.to_be_bytes());
    stream.write_all(&order).await?;
    Ok(stream)
}

/// Sends `bytes` and waits until the server has counted them.
async fn upload(link: &link::Link, bytes: u64) -> io::Result<()> {
    let mut stream = order(link, b'U', 0).await?;
    link::send_all(&mut stream, bytes).await?;
    let mut counted = [0; 8];
    stream.read_exact(&mut counted).await?;
    assert_eq!(u64::from_be_bytes(counted), bytes);
    Ok(())
}

async fn download(link: &link::Link, bytes: u64) -> io::Result<()> {
    let mut stream = order(link, b'D', bytes).await?;
    assert_eq!(link::receive_all(&mut stream).await?, bytes);
    Ok(())
}

/// Time, CPU time and wake-ups, ours and the server's.
struct Watch {
    server: u32,
    began: Instant,
    cpu: f64,
    sleeps: u64,
}

impl Watch {
    fn start(server: u32) -> Result<Self, Failure> {
        let (own, other) = (Reading::own()?, Reading::of(server)?);
        let (cpu, sleeps) = (own.cpu + other.cpu, own.sleeps + other.sleeps);
        Ok(Self { server, began: Instant::now(), cpu, sleeps })
    }

    /// Seconds passed, CPU seconds used by both processes, and how often their threads were woken.
    fn stop(self) -> Result<(f64, f64, f64), Failure> {
        let took = self.began.elapsed().as_secs_f64();
        let (own, other) = (Reading::own()?, Reading::of(self.server)?);
        let sleeps = (own.sleeps + other.sleeps).saturating_sub(self.sleeps);
        Ok((took, own.cpu + other.cpu - self.cpu, sleeps as f64))
    }
}

async fn put_load(side: Arc<dyn Side>, load: String, rest: Vec<String>, quick: bool) -> Figures {
    let [address, server, ..] = &rest[..] else { return Err("ADDRESS PID".into()) };
    let (address, server): (Multiaddr, u32) = (address.parse()?, server.parse()?);
    match load.as_str() {
        "stream-1" => stream_1(side, address, server, quick).await,
        "streams-64" => streams_64(side, address, server, quick).await,
        "handshakes" => handshakes(side, address, server, quick).await,
        "requests" => requests_per_second(side, address, server, quick).await,
        _ => Err(format!("no role {load}").into()),
    }
}

const MIB: u64 = 1 << 20;

async fn stream_1(side: Arc<dyn Side>, address: Multiaddr, server: u32, quick: bool) -> Figures {
    let bytes = if quick { 128 * MIB } else { 1024 * MIB };
    let endpoint = Endpoint::new(&*side, &Tuning::default());
    let link = endpoint.dial(address).await?;
    // The window of a fresh connection is not what is measured.
    upload(&link, 4 * MIB).await?;
    download(&link, 4 * MIB).await?;
    let mut figures = Vec::new();
    for up in [true, false] {
        let watch = Watch::start(server)?;
        if up {
            upload(&link, bytes).await?
        } else {
            download(&link, bytes).await?
        }
        let (took, cpu, _) = watch.stop()?;
        let way = if up { "1 stream up" } else { "1 stream down" };
        figures.push(Metric::higher(way, "MB/s", bytes as f64 / 1e6 / took));
        figures.push(Metric::lower(
            &format!("{way}, CPU of both"),
            "s/GiB",
            cpu / (bytes as f64 / (1 << 30) as f64),
        ));
    }
    Ok(figures)
}

async fn streams_64(side: Arc<dyn Side>, address: Multiaddr, server: u32, quick: bool) -> Figures {
    let each = if quick { 2 * MIB } else { 16 * MIB };
    let endpoint = Endpoint::new(&*side, &Tuning::default());
    let link = endpoint.dial(address).await?;
    upload(&link, 4 * MIB).await?;
    let watch = Watch::start(server)?;
    try_join_all((0..64).map(|_| upload(&link, each))).await?;
    let (took, cpu, _) = watch.stop()?;
    let bytes = (64 * each) as f64;
    Ok(vec![
        Metric::higher("64 streams up", "MB/s", bytes / 1e6 / took),
        Metric::lower("64 streams up, CPU of both", "s/GiB", cpu / (bytes / (1 << 30) as f64)),
    ])
}

async fn handshakes(side: Arc<dyn Side>, address: Multiaddr, server: u32, quick: bool) -> Figures {
    let count = if quick { 200 } else { 2000 };
    let endpoint = Endpoint::new(&*side, &Tuning::default());
    let dial = || async {
        let link = endpoint.dial(address.clone()).await?;
        link.close().await?;
        Ok::<_, Failure>(())
    };
    dial().await?;
    let watch = Watch::start(server)?;
    let results: Vec<_> = stream::iter(0..count).map(|_| dial()).buffer_unordered(8).collect().await;
    let (took, cpu, _) = watch.stop()?;
    results.into_iter().collect::<Result<(), _>>()?;
    Ok(vec![
        Metric::higher("handshakes, 8 at once", "1/s", f64::from(count) / took),
        Metric::lower("handshake, CPU of both", "ms", cpu * 1e3 / f64::from(count)),
    ])
}

type Requests = Driven<request_response::Behaviour<Frames>>;

fn requesting(side: &dyn Side) -> Requests {
    let key = Keypair::generate_ed25519();
    Driven::new(side, &key, &Tuning::default(), requests("/bench/1"), |_| true)
}

async fn serve_requests(side: Arc<dyn Side>) -> Result<(), Failure> {
    let mut swarm = requesting(&*side);
    let address = swarm.listen().await;
    link::start(&side.spawner(), async move {
        while let Some(event) = swarm.events.next().await {
            if let SwarmEvent::Behaviour(request_response::Event::Message {
                message: Message::Request { request, channel, .. },
                ..
            }) = event
            {
                let _ = swarm.call(move |s| s.behaviour_mut().send_response(channel, request)).await;
            }
        }
    });
    say(&address.to_string());
    parent_gone().await;
    Ok(())
}

async fn requests_per_second(side: Arc<dyn Side>, address: Multiaddr, server: u32, quick: bool) -> Figures {
    let mut swarm = requesting(&*side);
    let peer = swarm.dial(address).await;
    let mut figures = Vec::new();
    run_requests(&mut swarm, peer, 64, 500).await;
    for (in_flight, count) in [(1, 5000), (64, 30_000)] {
        let count = if quick { count / 5 } else { count };
        let watch = Watch::start(server)?;
        let mut times = run_requests(&mut swarm, peer, in_flight, count).await;
        let (took, cpu, sleeps) = watch.stop()?;
        let of = |what: &str| format!("requests 64 B, {in_flight} in flight{what}");
        figures.push(Metric::higher(&of(""), "1/s", count as f64 / took));
        figures.push(Metric::lower(&of(", p50"), "µs", percentile(&mut times, 0.5)));
        figures.push(Metric::lower(&of(", p99"), "µs", percentile(&mut times, 0.99)));
        figures.push(Metric::lower(&of(", CPU of both"), "µs", cpu * 1e6 / count as f64));
        figures.push(Metric::lower(&of(", wake-ups of both"), "", sleeps / count as f64));
    }
    Ok(figures)
}

/// Sends `count` requests, `in_flight` at once; how long each took, in µs.
async fn run_requests(swarm: &mut Requests, peer: PeerId, in_flight: usize, count: usize) -> Vec<f64> {
    let mut under_way = std::collections::HashMap::new();
    let (mut sent, mut times) = (0, Vec::with_capacity(count));
    while times.len() < count {
        let more = (in_flight - under_way.len()).min(count - sent);
        if more > 0 {
            let began = Instant::now();
            let send = move |s: &mut libp2p::Swarm<request_response::Behaviour<Frames>>| {
                (0..more).map(|_| s.behaviour_mut().send_request(&peer, vec![7; 64])).collect::<Vec<_>>()
            };
            under_way.extend(swarm.call(send).await.into_iter().map(|id| (id, began)));
            sent += more;
        }
        let id = swarm
            .event(|event| match event {
                SwarmEvent::Behaviour(request_response::Event::Message {
                    message: Message::Response { request_id, .. },
                    ..
                }) => Some(request_id),
                SwarmEvent::Behaviour(request_response::Event::OutboundFailure { error, .. }) => {
                    panic!("a request failed: {error}")
                }
                _ => None,
            })
            .await;
        if let Some(began) = under_way.remove(&id) {
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    times
}

/// Opens as many connections to a server as told, says so, and holds them.
async fn hold(side: Arc<dyn Side>, args: Vec<String>) -> Result<(), Failure> {
    let [count, address] = &args[..] else { return Err("COUNT ADDRESS".into()) };
    let (count, address): (usize, Multiaddr) = (count.parse()?, address.parse()?);
    let endpoint = Endpoint::new(&*side, &Tuning::default());
    let mut links = Vec::new();
    while links.len() < count {
        let some = join_all((0..10).map(|_| endpoint.dial(address.clone()))).await;
        links.extend(some.into_iter().collect::<Result<Vec<_>, _>>()?);
    }
    say("ready");
    parent_gone().await;
    drop(links);
    Ok(())
}

/// Reads one line of `from`, without its end.
///
/// # Errors
/// When the child ended before it said anything.
pub fn line(from: &mut impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err("the child ended too early".into());
    }
    Ok(line.trim_end().to_string())
}
