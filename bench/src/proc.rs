//! What the kernel says of a process (Linux).

use std::{fs, io};

/// Readings of one process, summed over its living threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// CPU time, in seconds.
    pub cpu: f64,
    /// Times that a thread went to sleep of its own accord: it is woken as often.
    pub sleeps: u64,
    /// Resident memory, in KiB.
    pub rss: u64,
    /// Of it what is no file's: heap, stacks, and what the loader has written to.
    pub anonymous: u64,
    /// Threads.
    pub threads: u64,
}

impl Reading {
    /// Of the process `pid`.
    ///
    /// # Errors
    /// When there is no such process, or no such kernel interface.
    pub fn of(pid: u32) -> io::Result<Self> {
        let status = format!("/proc/{pid}/status");
        let (rss, anonymous) = (field(&status, "VmRSS:")?, field(&status, "RssAnon:")?);
        let mut reading = Self { rss, anonymous, ..Self::default() };
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let ran = fs::read_to_string(task.join("schedstat"))?;
            let ns: f64 = ran.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or_default();
            reading.cpu += ns / 1e9;
            reading.sleeps += field(&task.join("status").display().to_string(), "voluntary_ctxt_switches:")?;
            reading.threads += 1;
        }
        Ok(reading)
    }

    /// Of this process.
    ///
    /// # Errors
    /// As [`Reading::of`].
    pub fn own() -> io::Result<Self> {
        Self::of(std::process::id())
    }
}

fn field(path: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("{path} has no {name}")))
}
