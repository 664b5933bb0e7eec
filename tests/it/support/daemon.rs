//! Nodes with an API as processes of their own, for black-box tests: started on free ports, waited for by their log
//! lines, and ended with the test.

use std::{
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, process::Process};

/// `smidge ARGS…` with an environment of its own.
pub(crate) fn smidge(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smidge"));
    command.args(args).env_clear().env("COLUMNS", "100").stdin(Stdio::null());
    command
}

/// Runs it to its end; exit code, stdout and stderr. One that should have refused and runs is killed, and has code -1.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (ended, watched) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if watched.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    drop(ended);
    watchdog.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// A running node.
pub(crate) struct Daemon {
    process: Process,
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
        let mut command = smidge(&[&usual[..], &["--set", &format!("api.listen={api}")], args].concat());
        let process = Process::spawn("the node", command.env("SMIDGE__LIMITS__MEMORY", "4GiB"));
        let peer = process.peer_id();
        let url = process.rest("api listening on ");
        let listening = process.rest("listening on /ip4/127.0.0.1/udp/");
        let addr = format!("127.0.0.1:{}", listening.split('/').next().unwrap());
        Self { process, url, peer, addr }
    }

    /// What stands behind `mark` in the first line that has it.
    pub(crate) fn line(&self, mark: &str) -> String {
        self.process.rest(mark)
    }

    /// How many lines hold `mark` so far.
    pub(crate) fn count(&self, mark: &str) -> usize {
        self.process.count(&[mark])
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
        self.process.id()
    }

    /// Sends a signal to the node.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends the node in good order; its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.process.wait().code()
    }
}

/// Sends a signal to a process that the test started and has not waited for.
pub(crate) fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Two nodes in one mesh of `topic`.
pub(crate) fn pair(topic: &str) -> (Daemon, Daemon) {
    let one = Daemon::start(&["--topic", topic]);
    let two = Daemon::start(&["--topic", topic, "--dial", &one.addr]);
    for node in [&one, &two] {
        node.line("added to kademlia");
        node.line("joined mesh");
    }
    (one, two)
}
