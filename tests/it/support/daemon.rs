//! Nodes as processes of their own, for black-box tests: started on free ports, waited for by their log
//! lines, and ended with the test.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// `smidge ARGS…` with an environment of its own.
pub(crate) fn smidge(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smidge"));
    command.args(args).env_clear().env("COLUMNS", "100");
    command
}

/// Runs it; exit code, stdout and stderr.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// A running node.
pub(crate) struct Daemon {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    /// Where its API is.
    pub(crate) url: String,
    /// Its peer id.
    pub(crate) peer: String,
    /// `IP:PORT` of its first listener.
    pub(crate) addr: String,
}

impl Daemon {
    /// A node with an API on a free port.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", args)
    }

    /// A node with an API at `api`.
    pub(crate) fn start_at(api: &str, args: &[&str]) -> Self {
        let usual = ["run", "--set", "identity.ephemeral=true", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
        let mut child = smidge(&[&usual[..], &["--set", &format!("api.listen={api}")], args].concat())
            .env("SMIDGE__LIMITS__MEMORY", "4GiB")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = sync_channel(65536);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        // Ends with the process; keeps reading even when nobody listens, or the node would block.
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        });
        let mut daemon = Self {
            child,
            lines,
            seen: Vec::new(),
            url: String::new(),
            peer: String::new(),
            addr: String::new(),
        };
        daemon.peer = daemon.line("peer id ");
        daemon.url = daemon.line("api listening on ");
        let listening = daemon.line("listening on /ip4/127.0.0.1/udp/");
        daemon.addr = format!("127.0.0.1:{}", listening.split('/').next().unwrap());
        daemon
    }

    /// What stands behind `mark` in the first line that has it.
    pub(crate) fn line(&mut self, mark: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let rest = |line: &String| line.split_once(mark).map(|(_, rest)| rest.to_owned());
        if let Some(found) = self.seen.iter().find_map(rest) {
            return found;
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(e) => panic!("no line with {mark:?} ({e}):\n{}", self.seen.join("\n")),
            }
            if let Some(found) = self.seen.last().and_then(rest) {
                return found;
            }
        }
    }

    /// `smidge ARGS…` that asks this node.
    pub(crate) fn asked(&self, args: &[&str]) -> Command {
        let mut command = smidge(args);
        command.env("SMIDGE_API", &self.url);
        command
    }

    /// Runs it; exit code, stdout and stderr.
    pub(crate) fn ask(&self, args: &[&str]) -> (i32, String, String) {
        run(&mut self.asked(args))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the node.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        send(&self.child, signal);
    }

    /// Ends the node in good order; its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that the test started and has not waited for.
pub(crate) fn send(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Two nodes in one mesh of `topic`.
pub(crate) fn pair(topic: &str) -> (Daemon, Daemon) {
    let mut one = Daemon::start(&["--topic", topic]);
    let mut two = Daemon::start(&["--topic", topic, "--dial", &one.addr]);
    for node in [&mut one, &mut two] {
        node.line("added to kademlia");
        node.line("joined mesh");
    }
    (one, two)
}
