//! The demo's network: nodes in processes of their own, and a name server in this one unless they do
//! without names.
//!
//! Ends every process it started, whatever happens. Never leaves loopback.

mod log;

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    ops::Range,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use futures::StreamExt;

use log::Start;

pub(super) use log::Line;

use super::progress::{Progress, TICK};
use crate::{
    cli::{Failure, exit},
    dns::NameServer,
    runtime::{Executor, Handle, Signal, Signals},
};

/// Lines that wait to be read; a node that logs faster than that is held up.
const LINES: usize = 4096;
/// How long a node has to end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(6);

struct Process {
    name: String,
    child: Child,
    started: Duration,
    lines: Vec<Line>,
    peer_id: Option<String>,
}

enum News {
    Line(usize, String),
    Ended(usize),
    Interrupted,
}

/// What is waited for.
pub(super) enum Wait {
    /// A line of `node` that begins so.
    Line { node: usize, begins: &'static str },
    /// `node` says that it is connected to the node `to`.
    Connected { node: usize, to: usize },
}

/// How nodes find each other.
enum How {
    /// By names that this server knows.
    Names(NameServer),
    /// By multicast DNS on this interface, which is loopback.
    Mdns(String),
}

pub(super) struct Network {
    started: Start,
    /// The first three bytes of all addresses.
    net: [u8; 3],
    port: u16,
    how: How,
    /// Runs the name server.
    _runtime: Handle,
    processes: Vec<Process>,
    peers: usize,
    news: Receiver<News>,
    sender: SyncSender<News>,
    /// When each name got its records.
    pub(super) named: Vec<(&'static str, Duration)>,
    progress: Progress,
    sets: Vec<&'static str>,
    /// The node that was killed on purpose.
    killed: Option<usize>,
}

impl Network {
    /// Starts bootstrap and `peers` peers, none of which has a record yet; with `mdns` as many nodes that
    /// have no names at all. `sets`: what else each of them is to have, KEY=VALUE, with ADDRESS for its own.
    pub(super) fn start(peers: usize, mdns: bool, sets: &[&'static str]) -> Result<Self, Failure> {
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            Failure::new(exit::FAILED, "demo", format!("{what}: {e}"))
        };
        let runtime = Executor::default().start(1).map_err(|e| failed("no runtime", &e))?;
        let (net, port) = free_net().map_err(|e| failed("no loopback addresses are free", &e))?;
        let how = if mdns {
            How::Mdns(loopback(&runtime).map_err(|e| failed("no loopback interface", &e))?)
        } else {
            let server = NameServer::start(&runtime, SocketAddr::new(ip(net, 1), 0));
            How::Names(server.map_err(|e| failed("the name server cannot start", &e))?)
        };
        let (sender, news) = sync_channel(LINES);
        watch_signals(&runtime, sender.clone()).map_err(|e| failed("signals", &e))?;
        let mut network = Self {
            started: Start::now(),
            net,
            port,
            how,
            _runtime: runtime,
            processes: Vec::new(),
            peers,
            news,
            sender,
            named: Vec::new(),
            progress: Progress::new(),
            sets: sets.to_vec(),
            killed: None,
        };
        if mdns {
            for n in 1..=1 + peers {
                network.spawn(format!("node.{n}"), "peer", &[])?;
            }
            return Ok(network);
        }
        network.spawn("bootstrap".into(), "bootstrap", &[])?;
        // Several peers find each other as well, which is what a service with replicas does.
        let names: &[&str] = if peers > 1 { &["bootstrap", "peer"] } else { &["bootstrap"] };
        for n in 1..=peers {
            let name = if peers > 1 { format!("peer.{n}") } else { "peer".into() };
            network.spawn(name, "peer", names)?;
        }
        Ok(network)
    }

    /// What happens from now on, for whoever watches.
    pub(super) fn step(&mut self, words: String) {
        self.progress.step(words, self.started.elapsed());
    }

    pub(super) fn started(&self) -> Instant {
        self.started.at()
    }

    /// Whether the nodes do without names.
    pub(super) fn is_mdns(&self) -> bool {
        matches!(self.how, How::Mdns(_))
    }

    /// Every node but the sender.
    pub(super) fn nodes(&self) -> Range<usize> {
        0..1 + self.peers
    }

    /// Why no peer is found by multicast DNS, if a node says so.
    fn mdns_trouble(&self) -> Option<String> {
        let begins = ["mdns: ", "nobody is found by mdns"];
        let mut lines = self.processes.iter().flat_map(|process| &process.lines);
        let line = lines.find(|line| begins.iter().any(|words| line.message.starts_with(words)))?;
        Some(line.message.clone())
    }

    pub(super) fn bootstrap(&self) -> usize {
        0
    }

    pub(super) fn peers(&self) -> Range<usize> {
        1..1 + self.peers
    }

    /// The sender, once it was started.
    pub(super) fn sender(&self) -> Option<usize> {
        (self.processes.len() > 1 + self.peers).then_some(1 + self.peers)
    }

    pub(super) fn name(&self, node: usize) -> &str {
        &self.processes[node].name
    }

    pub(super) fn lines(&self, node: usize) -> impl Iterator<Item = &Line> {
        self.processes[node].lines.iter()
    }

    /// When a node's process was started.
    pub(super) fn spawned(&self, node: usize) -> Duration {
        self.processes[node].started
    }

    pub(super) fn len(&self) -> usize {
        self.processes.len()
    }

    /// When `node` first logged that it is connected to `to`.
    pub(super) fn connected(&self, node: usize, to: usize) -> Option<Duration> {
        let peer = self.processes[to].peer_id.as_deref()?;
        let line = format!("connected to {peer} ");
        self.lines(node).find(|l| l.message.starts_with(&line)).map(|l| l.at)
    }

    /// Gives a name its records.
    pub(super) fn publish_name(&mut self, name: &'static str) -> Result<(), Failure> {
        let nodes = if name == "bootstrap" { 0..1 } else { self.peers() };
        let records = nodes.map(|n| self.ip_of(n)).collect();
        if let How::Names(server) = &self.how {
            server.set(name, records).map_err(|e| Failure::new(exit::FAILED, "demo", e))?;
        }
        self.named.push((name, self.started.elapsed()));
        Ok(())
    }

    /// Starts the sender; returns which node it is.
    pub(super) fn start_sender(&mut self) -> Result<usize, Failure> {
        let names: &[&str] = if self.is_mdns() { &[] } else { &["peer"] };
        self.spawn("sender".into(), "sender", names)?;
        Ok(self.processes.len() - 1)
    }

    /// Waits until `what` was logged.
    pub(super) fn wait(&mut self, what: Wait, patience: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + patience;
        while !self.has(&what) {
            if !self.listen_once(deadline)? {
                let (node, words) = match what {
                    Wait::Line { node, begins } => (node, format!("\"{begins}\"")),
                    Wait::Connected { node, to } => (node, format!("a connection to {}", self.name(to))),
                };
                let why = format!("{} did not log {words} within {patience:?}", self.name(node));
                let failure = Failure::new(exit::FAILED, "demo", why);
                return Err(match self.mdns_trouble() {
                    Some(trouble) => failure.hint(format!("a node says: {trouble}")),
                    None => failure,
                });
            }
        }
        Ok(())
    }

    /// Takes in what the nodes log until `end`.
    pub(super) fn listen_until(&mut self, end: Instant) -> Result<(), Failure> {
        while self.listen_once(end)? {}
        Ok(())
    }

    /// Kills a node, as a power cut would.
    pub(super) fn kill_node(&mut self, node: usize) {
        self.killed = Some(node);
        // An error says that it has ended already.
        let _ = self.processes[node].child.kill();
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends all nodes: with SIGTERM, and if that does not do, for certain.
    pub(super) fn stop(&mut self) {
        self.progress.clear();
        for process in &self.processes {
            if let Some(pid) = rustix::process::Pid::from_raw(process.child.id() as i32) {
                // An error says that it has ended already.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        let deadline = Instant::now() + DRAIN;
        let mut open = self.processes.len() - usize::from(self.killed.is_some());
        while open > 0 {
            match self.news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(News::Line(node, line)) => self.note(node, &line),
                Ok(News::Ended(node)) if self.killed == Some(node) => {}
                Ok(News::Ended(_)) => open -= 1,
                Ok(News::Interrupted) => {}
                Err(_) => break,
            }
        }
        self.kill();
    }

    fn kill(&mut self) {
        for process in &mut self.processes {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }

    fn has(&self, what: &Wait) -> bool {
        match *what {
            Wait::Line { node, begins } => self.lines(node).any(|l| l.message.starts_with(begins)),
            Wait::Connected { node, to } => self.connected(node, to).is_some(),
        }
    }

    /// Takes in one piece of news; says whether there was one before `deadline`.
    fn listen_once(&mut self, deadline: Instant) -> Result<bool, Failure> {
        let news = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.news.recv_timeout(left.min(TICK)) {
                Err(RecvTimeoutError::Timeout) if left > TICK => self.progress.show(self.started.elapsed()),
                news => break news,
            }
        };
        match news {
            Ok(News::Line(node, line)) => self.note(node, &line),
            Ok(News::Ended(node)) if self.killed == Some(node) => {}
            Ok(News::Ended(node)) => {
                let last = self.lines(node).last().map_or("nothing", |l| l.message.as_str());
                let why = format!("{} ended unexpectedly; its last words: {last}", self.name(node));
                return Err(Failure::new(exit::FAILED, "demo", why));
            }
            Ok(News::Interrupted) => return Err(Failure::new(exit::FAILED, "demo", "interrupted")),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(false),
        }
        Ok(true)
    }

    fn note(&mut self, node: usize, raw: &str) {
        let process = &mut self.processes[node];
        let line = Line::read(raw, &self.started);
        if process.peer_id.is_none()
            && let Some((_, peer)) = line.message.split_once("peer id ")
        {
            process.peer_id = Some(peer.to_owned());
        }
        process.lines.push(line);
    }

    fn ip_of(&self, node: usize) -> IpAddr {
        ip(self.net, node as u8 + 2)
    }

    fn spawn(&mut self, name: String, role: &str, dial: &[&str]) -> Result<(), Failure> {
        let node = self.processes.len();
        let failed =
            |e: std::io::Error| Failure::new(exit::FAILED, "demo", format!("{name} cannot start: {e}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("SMIDGE__") || key == "RUST_LOG" {
                command.env_remove(key);
            }
        }
        let own = std::env::temp_dir().join("smidge-demo-needs-no-files");
        command
            .arg("run")
            .args([
                "--set",
                &format!("role={role}"),
                "--set",
                "identity.ephemeral=true",
                "--set",
                "log.format=json",
                "--set",
                "log.level=info,smidge::message=info",
            ])
            .args(["--set", "api.listen=off", "--set", "gossip.topics=some_topic"])
            .args(match &self.how {
                How::Names(server) => vec![
                    "--set".into(),
                    format!("dns.servers={}", server.addr()),
                    "--set".into(),
                    format!("dns.hosts={}", own.display()),
                    "--set".into(),
                    format!("dns.resolv_conf={}", own.display()),
                ],
                How::Mdns(interface) => vec![
                    "--set".into(),
                    "mdns.enabled=true".into(),
                    "--set".into(),
                    format!("mdns.interfaces={interface}"),
                    // Another demo may be on loopback as well.
                    "--set".into(),
                    format!("peers.allow={}/24", ip(self.net, 0)),
                ],
            })
            .arg("--listen")
            .arg(format!("/ip4/{}/udp/{}/quic-v1", self.ip_of(node), self.port));
        for target in dial {
            command.arg("--dial").arg(format!("{target}:{}", self.port));
        }
        for set in &self.sets {
            command.arg("--set").arg(set.replace("ADDRESS", &self.ip_of(node).to_string()));
        }
        let started = self.started.elapsed();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let stderr = child.stderr.take();
        self.processes.push(Process { name: name.clone(), child, started, lines: Vec::new(), peer_id: None });
        let news = self.sender.clone();
        let read = move || {
            let lines = stderr.into_iter().flat_map(|pipe| BufReader::new(pipe).lines());
            for line in lines.map_while(Result::ok) {
                if news.send(News::Line(node, line)).is_err() {
                    return;
                }
            }
            // An error says that the demo is over.
            let _ = news.send(News::Ended(node));
        };
        thread::Builder::new().name(name.clone()).spawn(read).map_err(failed)?;
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The name of the loopback interface.
fn loopback(runtime: &Handle) -> std::io::Result<String> {
    let interfaces = runtime.interfaces()?.list()?;
    let found = interfaces.into_iter().find(|i| i.addr == IpAddr::from(Ipv4Addr::LOCALHOST));
    found.map(|i| i.name).ok_or_else(|| std::io::Error::other("none with the address 127.0.0.1 is up"))
}

/// A loopback network that is not in use, and a port that is free there.
fn free_net() -> std::io::Result<([u8; 3], u16)> {
    let pid = std::process::id();
    let net = [127, 64 + (pid % 128) as u8, (pid >> 7) as u8];
    let port = UdpSocket::bind((ip(net, 2), 0))?.local_addr()?.port();
    Ok((net, port))
}

fn ip([a, b, c]: [u8; 3], d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}

fn watch_signals(runtime: &Handle, news: SyncSender<News>) -> std::io::Result<()> {
    let mut signals = Signals::new()?;
    runtime.spawn(async move {
        while let Some(signal) = signals.next().await {
            if signal == Signal::Stop {
                // A full queue is read in a moment; the next signal finds room.
                let _ = news.try_send(News::Interrupted);
            }
        }
    });
    Ok(())
}
