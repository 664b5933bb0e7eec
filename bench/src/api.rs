//! What the HTTP API of a node costs: `… --manifest-path bench/Cargo.toml -- api [--quick] [--smidge BINARY]`.
//!
//! The node that is measured is the shipped program with its defaults, in a mesh with two more of its kind.
//! The load comes from this process, with blocking sockets and nothing between them and the clock.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use smidge_bench::{metric::percentile, proc::Reading};

use crate::Failure;

const TOPIC: &str = "bench";
const SUBSCRIBERS: usize = 100;
/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures and prints a table.
pub(crate) fn main(args: &[String]) -> Result<(), Failure> {
    let (mut quick, mut binary) = (false, None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => quick = true,
            "--smidge" => binary = Some(PathBuf::from(args.next().ok_or("--smidge BINARY")?)),
            other => {
                return Err(
                    format!("unknown argument {other:?}; there are --quick and --smidge BINARY").into()
                );
            }
        }
    }
    let binary = match binary {
        Some(binary) => binary,
        None => crate::whole::built("..", "smidge")?,
    };
    if !binary.is_file() {
        let hint = "build it first (cargo build --release), or name one: --smidge BINARY";
        return Err(format!("there is no {}: {hint}", binary.display()).into());
    }
    let first = Node::start(&binary, &[])?;
    let second = Node::start(&binary, &[&first.listens])?;
    let node = Node::start(&binary, &[&first.listens, &second.listens])?;
    for one in [&first, &second, &node] {
        one.until("peers", "/readyz?min_peers=2")?;
        one.until("a mesh", &format!("/readyz?topic={TOPIC}&min_mesh=2"))?;
    }
    println!("load of the machine before: {}", load());
    println!("| {:<44} | {:<5} | {:>10} |", "what", "unit", "value");
    println!("|{}|{}|{}|", "-".repeat(46), "-".repeat(7), "-".repeat(12));
    // First: what a burst leaves in the heap would hide what subscribers take.
    memory(&node, &first)?;
    for connections in [1, 8] {
        let count = if quick { 2000 } else { 20_000 };
        // The first requests fill caches, and find the processor's speed.
        publish(&node, connections, count / 10)?;
        let before = Reading::of(node.child.id())?;
        let began = Instant::now();
        let (mut times, refused) = publish(&node, connections, count)?;
        let took = began.elapsed().as_secs_f64();
        let cpu = Reading::of(node.child.id())?.cpu - before.cpu;
        let of = |what: &str| format!("publish 100 B, {connections} connection(s){what}");
        line(&of(""), "1/s", times.len() as f64 / took);
        line(&of(", p50"), "µs", percentile(&mut times, 0.5));
        line(&of(", p99"), "µs", percentile(&mut times, 0.99));
        line(&of(", CPU of the node"), "µs", cpu * 1e6 / times.len() as f64);
        line(&of(", tries refused (429)"), "", refused as f64);
    }
    println!("load of the machine after: {}", load());
    Ok(())
}

/// Resident memory before subscribers come, with them, after each got messages, and when they are gone.
fn memory(node: &Node, publisher: &Node) -> Result<(), Failure> {
    let rss = || Ok::<_, Failure>(Reading::of(node.child.id())?.rss as f64 / 1024.0);
    let before = rss()?;
    let mut streams = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut stream = node.connect()?;
        stream
            .write_all(format!("GET /v1/topics/{TOPIC} HTTP/1.1\r\nHost: {}\r\n\r\n", node.api).as_bytes())?;
        let mut stream = BufReader::new(stream);
        skip_to(&mut stream, |line| line.starts_with(": messages"))?;
        streams.push(stream);
    }
    let idle = rss()?;
    const MESSAGES: usize = 200;
    let mut caller = publisher.connect()?;
    for _ in 0..MESSAGES {
        post(&mut caller, &publisher.api)?;
    }
    for stream in &mut streams {
        for _ in 0..MESSAGES {
            skip_to(stream, |line| line == "event: message")?;
        }
    }
    let busy = rss()?;
    drop(streams);
    node.until_metric("smidge_api_streams 0")?;
    line("RSS before", "MiB", before);
    line(&format!("RSS with {SUBSCRIBERS} subscribers"), "MiB", idle);
    line(&format!("RSS after {MESSAGES} messages to each"), "MiB", busy);
    line("RSS when they are gone", "MiB", rss()?);
    line("each idle subscriber", "KiB", (idle - before) * 1024.0 / SUBSCRIBERS as f64);
    Ok(())
}

fn line(what: &str, unit: &str, value: f64) {
    let value = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    println!("| {what:<44} | {unit:<5} | {value:>10} |");
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

/// Publishes `count` messages over `connections` at once.
/// The time of each publish in microseconds, from the first try until it was taken, and how many tries were
/// refused for full queues.
fn publish(node: &Node, connections: usize, count: usize) -> Result<(Vec<f64>, usize), Failure> {
    let refused = AtomicUsize::new(0);
    let times = thread::scope(|scope| {
        let callers: Vec<_> = (0..connections)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = node.connect()?;
                    (0..count / connections)
                        .map(|_| {
                            let began = Instant::now();
                            refused.fetch_add(post(&mut stream, &node.api)?, Ordering::Relaxed);
                            Ok(began.elapsed().as_secs_f64() * 1e6)
                        })
                        .collect::<Result<Vec<_>, Failure>>()
                })
            })
            .collect();
        let mut times = Vec::with_capacity(count);
        for caller in callers {
            times.extend(caller.join().map_err(|_| "a caller has panicked")??);
        }
        Ok::<_, Failure>(times)
    })?;
    Ok((times, refused.into_inner()))
}

/// How long a caller that is told to publish more slowly waits.
const SLOWER: Duration = Duration::from_millis(1);

/// One publish of 100 bytes, until it is taken. Gives how often it was refused for full queues before.
fn post(stream: &mut TcpStream, host: &str) -> Result<usize, Failure> {
    let mut refused = 0;
    while !post_once(stream, host)? {
        refused += 1;
        thread::sleep(SLOWER);
    }
    Ok(refused)
}

/// One publish of 100 bytes, and the whole of its answer. Gives whether it was taken.
fn post_once(stream: &mut TcpStream, host: &str) -> Result<bool, Failure> {
    let mut request =
        format!("POST /v1/topics/{TOPIC} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n")
            .into_bytes();
    request.extend_from_slice(&[b'x'; 100]);
    stream.write_all(&request)?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut chunk)?;
        answer.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&answer);
        if n == 0 {
            return Err(format!("the node closed the connection: {text}").into());
        }
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        if body.len() >= length.ok_or("no Content-Length")?.parse::<usize>()? {
            return match head.split(' ').nth(1) {
                Some("200") => Ok(true),
                Some("429") => Ok(false),
                _ => Err(text.into()),
            };
        }
    }
}

fn skip_to(stream: &mut impl BufRead, wanted: impl Fn(&str) -> bool) -> Result<(), Failure> {
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err("the stream has ended".into());
        }
        if wanted(line.trim_end()) {
            return Ok(());
        }
    }
}

/// A node of its own, which ends when this is dropped.
struct Node {
    child: Child,
    /// `IP:PORT` of its API.
    api: String,
    /// `IP:PORT` of its listener.
    listens: String,
}

impl Node {
    fn start(binary: &Path, dials: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(binary);
        command.args(["run", "--topic", TOPIC, "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
        // Defaults but for what a test machine needs, and for room for a hundred subscribers. Lines of the
        // log for each message are part of what a publish costs, but not who reads them.
        for set in [
            "identity.ephemeral=true",
            "api.listen=127.0.0.1:0",
            "api.streams=128",
            "api.connections=256",
            "limits.subscriptions=128",
        ] {
            command.args(["--set", set]);
        }
        for dial in dials {
            command.args(["--dial", dial]);
        }
        let mut child = command.env_clear().stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let log = BufReader::new(child.stderr.take().ok_or("no log")?);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // Read to the end, or the node would have to wait with its log; only the first lines are wanted.
            for (n, line) in log.lines().map_while(Result::ok).enumerate() {
                if n < 100 {
                    let _ = sender.send(line);
                }
            }
        });
        let mut node = Self { child, api: String::new(), listens: String::new() };
        while node.api.is_empty() || node.listens.is_empty() {
            let line = lines.recv_timeout(PATIENCE).map_err(|_| "the node did not start")?;
            if let Some((_, url)) = line.split_once("api listening on http://") {
                node.api = url.to_owned();
            } else if let Some((_, rest)) = line.split_once("listening on /ip4/127.0.0.1/udp/") {
                node.listens = format!("127.0.0.1:{}", rest.split('/').next().unwrap_or_default());
            }
        }
        Ok(node)
    }

    fn connect(&self) -> Result<TcpStream, Failure> {
        let stream = TcpStream::connect(&self.api)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn get(&self, path: &str) -> Result<String, Failure> {
        let mut stream = self.connect()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.api);
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Asks `path` until the answer is 200.
    fn until(&self, what: &str, path: &str) -> Result<(), Failure> {
        self.poll(what, path, |answer| answer.starts_with("HTTP/1.1 200 "))
    }

    /// Asks for the metrics until there is such a line.
    fn until_metric(&self, wanted: &str) -> Result<(), Failure> {
        self.poll(wanted, "/metrics", |answer| answer.lines().any(|line| line == wanted))
    }

    fn poll(&self, what: &str, path: &str, done: impl Fn(&str) -> bool) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if done(&self.get(path)?) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(format!("waited {PATIENCE:?} in vain for {what}").into())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // How it ends, and whether it had ended already, is of no interest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
