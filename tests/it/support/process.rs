//! `smidge run` as a process of its own: started, read, signalled, ended.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{PATIENCE, daemon};

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    ended: bool,
}

/// A running process and what it has logged. It is killed when this is dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: Arc<(Mutex<Log>, Condvar)>,
}

impl Process {
    /// Starts `smidge` with `args`, without any configuration from outside.
    pub(crate) fn start(name: &str, args: &[String]) -> Self {
        Self::spawn(name, Command::new(env!("CARGO_BIN_EXE_smidge")).args(args).env_clear())
    }

    /// Starts `command`, whose log is read.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log: Arc<(Mutex<Log>, Condvar)> = Arc::default();
        let shared = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                shared.0.lock().unwrap().lines.push(line);
                shared.1.notify_all();
            }
            shared.0.lock().unwrap().ended = true;
            shared.1.notify_all();
        });
        Self { name: name.into(), child, log }
    }

    /// The first line from line `from` on that holds all of `words`, and its number.
    pub(crate) fn line_from(&self, from: usize, words: &[&str]) -> (usize, String) {
        let deadline = Instant::now() + PATIENCE;
        let mut log = self.log.0.lock().unwrap();
        loop {
            let found =
                log.lines.iter().enumerate().skip(from).find(|(_, l)| words.iter().all(|w| l.contains(w)));
            if let Some((n, line)) = found {
                return (n, line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if log.ended || left.is_zero() {
                panic!("{} never logged {words:?}; it logged:\n{}", self.name, log.lines.join("\n"));
            }
            log = self.log.1.wait_timeout(log, left).unwrap().0;
        }
    }

    /// The first line that holds all of `words`.
    pub(crate) fn line(&self, words: &[&str]) -> String {
        self.line_from(0, words).1
    }

    /// What stands behind `mark` in the first line that has it.
    pub(crate) fn rest(&self, mark: &str) -> String {
        self.line(&[mark]).split_once(mark).unwrap().1.to_owned()
    }

    /// How many lines hold all of `words` so far.
    pub(crate) fn count(&self, words: &[&str]) -> usize {
        self.log.0.lock().unwrap().lines.iter().filter(|l| words.iter().all(|w| l.contains(w))).count()
    }

    /// How many lines there are so far.
    pub(crate) fn lines(&self) -> usize {
        self.log.0.lock().unwrap().lines.len()
    }

    /// Its peer id, as its first line says.
    pub(crate) fn peer_id(&self) -> String {
        self.line(&["starting", "peer id "]).rsplit(' ').next().unwrap().to_owned()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        daemon::send(&self.child, signal);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{} did not end; it logged:\n{}", self.name, self.log.0.lock().unwrap().lines.join("\n"));
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
