//! Whole nodes as programs of their own: smidge as it ships, and the stock node (`src/bin/stock.rs`).
//!
//! Nothing of the harness is in their processes. Both tell on stderr what happens, in the same words.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use smidge_bench::{Kind, Tuning, metric::Metric, proc::Reading};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where the two programs are, where not beside this one.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    pub(crate) ours: Option<PathBuf>,
    pub(crate) stock: Option<PathBuf>,
    /// What runs our side of the scenarios that are child processes.
    pub(crate) child: Option<PathBuf>,
}

/// The program `name` of the workspace at `folder` (from this package): beside this one, if all were built into one
/// directory, else where cargo puts it, built with the profile of this one.
///
/// # Errors
/// When this program does not know where it is.
pub(crate) fn built(folder: &str, name: &str) -> Result<PathBuf, Failure> {
    let this = env::current_exe()?;
    let beside = this.with_file_name(name);
    if beside.is_file() {
        return Ok(beside);
    }
    let profile = this.parent().and_then(|dir| dir.file_name()).ok_or("this program is in no folder")?;
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("target").join(profile).join(name))
}

impl Programs {
    fn of(&self, kind: Kind) -> Result<PathBuf, Failure> {
        let (given, folder, name, how) = match kind {
            Kind::Ours => (&self.ours, "..", "smidge", "Cargo.toml --bin smidge"),
            Kind::Stock => (&self.stock, ".", "stock", "bench/Cargo.toml --bin stock"),
        };
        Self::found(given, folder, name, how)
    }

    /// What runs a child process of this kind.
    pub(crate) fn child(&self, kind: Kind) -> Result<PathBuf, Failure> {
        match kind {
            Kind::Ours => Self::found(&self.child, "ours", "ours", "bench/ours/Cargo.toml"),
            Kind::Stock => Ok(env::current_exe()?),
        }
    }

    fn found(given: &Option<PathBuf>, folder: &str, name: &str, how: &str) -> Result<PathBuf, Failure> {
        let path = given.clone().map_or_else(|| built(folder, name), Ok)?;
        if !path.is_file() {
            let hint = format!("build it first (cargo build --release --manifest-path {how})");
            return Err(format!("there is no {}: {hint}", path.display()).into());
        }
        Ok(path)
    }
}

/// A running node, killed when this is dropped.
struct Node {
    child: Child,
    log: Option<BufReader<ChildStderr>>,
    address: String,
    connected: usize,
}

impl Node {
    /// Starts a node that dials `peers`, and waits until it listens.
    fn start(programs: &Programs, kind: Kind, peers: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(programs.of(kind)?);
        match kind {
            Kind::Ours => {
                let tuning = Tuning::default();
                let listed: Vec<_> = peers.iter().map(|peer| format!("{peer:?}")).collect();
                command.args(["run", "--topic", "bench", "--listen", tuning.loopback()]);
                for setting in [
                    "identity.ephemeral=true".into(),
                    "api.listen=off".into(),
                    format!("dial.addresses=[{}]", listed.join(",")),
                    format!("quic.keep_alive={}ms", tuning.keep_alive.as_millis()),
                    format!("quic.idle_timeout={}ms", tuning.idle_timeout.as_millis()),
                    format!("quic.stream_window={}B", tuning.stream_window),
                    format!("quic.connection_window={}B", tuning.connection_window),
                    format!("quic.send_window={}B", tuning.send_window),
                ] {
                    command.args(["--set", &setting]);
                }
            }
            Kind::Stock => {
                command.args(peers);
            }
        }
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let log = child.stderr.take().map(BufReader::new);
        let mut node = Self { child, log, address: String::new(), connected: 0 };
        node.read_until(|node| !node.address.is_empty())?;
        Ok(node)
    }

    /// Waits until it has this many connections. Then its log is read to its end by a thread.
    fn connected(&mut self, peers: usize) -> Result<(), Failure> {
        self.read_until(|node| node.connected >= peers)?;
        if let Some(log) = self.log.take() {
            // It ends with the node.
            thread::spawn(move || log.lines().map_while(Result::ok).for_each(drop));
        }
        Ok(())
    }

    fn read_until(&mut self, enough: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let mut said = String::new();
        while !enough(self) {
            let mut line = String::new();
            let log = self.log.as_mut().ok_or("its log is read elsewhere")?;
            if log.read_line(&mut line)? == 0 {
                return Err(format!("the node ended too early:\n{said}").into());
            }
            if let Some((_, address)) = line.split_once("listening on ") {
                self.address = address.trim().to_string();
            }
            self.connected += usize::from(line.contains("connected to ") && !line.contains("disconnected"));
            said += &line;
        }
        Ok(())
    }

    fn reading(&self) -> Result<Reading, Failure> {
        Ok(Reading::of(self.child.id())?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself, which whoever read its log has been told.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Four nodes, each connected to each: the mean of one.
pub(crate) fn idle(programs: &Programs, kind: Kind, quick: bool) -> Result<Vec<Metric>, Failure> {
    const NODES: usize = 4;
    let (settle, window) = if quick { (2, 15) } else { (5, 60) };
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..NODES {
        let peers: Vec<_> = nodes.iter().map(|node| node.address.clone()).collect();
        let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
        nodes.push(Node::start(programs, kind, &peers)?);
    }
    for node in &mut nodes {
        node.connected(NODES - 1)?;
    }
    // Not a guess at when something happens, but the state to be measured: a while after.
    thread::sleep(Duration::from_secs(settle));
    let before: Vec<Reading> = nodes.iter().map(Node::reading).collect::<Result<_, _>>()?;
    let began = Instant::now();
    thread::sleep(Duration::from_secs(window));
    let after: Vec<Reading> = nodes.iter().map(Node::reading).collect::<Result<_, _>>()?;
    let took = began.elapsed().as_secs_f64();
    let mean = |of: &dyn Fn(&Reading, &Reading) -> f64| {
        before.iter().zip(&after).map(|(b, a)| of(b, a)).sum::<f64>() / before.len() as f64
    };
    Ok(vec![
        Metric::lower("idle with 3 peers, RSS", "MiB", mean(&|_, a| a.rss as f64 / 1024.0)),
        Metric::lower("idle with 3 peers, of it anonymous", "MiB", mean(&|_, a| a.anonymous as f64 / 1024.0)),
        Metric::lower("idle with 3 peers, threads", "", mean(&|_, a| a.threads as f64)),
        Metric::lower(
            "idle with 3 peers, wake-ups",
            "1/s",
            mean(&|b, a| a.sleeps.saturating_sub(b.sleeps) as f64 / took),
        ),
        Metric::lower("idle with 3 peers, CPU", "ms/s", mean(&|b, a| (a.cpu - b.cpu) * 1e3 / took)),
    ])
}

pub(crate) fn start(programs: &Programs, kind: Kind) -> Result<Vec<Metric>, Failure> {
    let ms = |began: Instant| began.elapsed().as_secs_f64() * 1e3;
    let began = Instant::now();
    let first = Node::start(programs, kind, &[])?;
    let listening = ms(began);
    let began = Instant::now();
    let mut second = Node::start(programs, kind, &[&first.address])?;
    second.connected(1)?;
    Ok(vec![
        Metric::lower("start to listening", "ms", listening),
        Metric::lower("start to first connection", "ms", ms(began)),
    ])
}

pub(crate) fn size(programs: &Programs, kind: Kind) -> Result<Vec<Metric>, Failure> {
    let bytes = fs::metadata(programs.of(kind)?)?.len();
    Ok(vec![Metric::lower("the program", "MB", bytes as f64 / 1e6)])
}
