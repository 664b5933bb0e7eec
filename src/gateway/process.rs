//! What the kernel says of this process (proc(5)); nothing where there is no `/proc`.

use std::{fs, time::Duration};

/// The process at a glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Resident memory, in bytes.
    pub(super) resident: Option<u64>,
    /// Address space, in bytes.
    pub(super) virtual_size: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) descriptors: Option<u64>,
    /// How many of them there may be; `None`: as many as there is memory for.
    pub(super) max_descriptors: Option<u64>,
    /// Time on a processor, in user and kernel mode.
    pub(super) cpu: Duration,
}

impl Process {
    /// Looks now. The files of `/proc` are made in memory: reading them does not block.
    pub(super) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Self {
            resident: field(&status, "VmRSS:").map(|kib| kib * 1024),
            virtual_size: field(&status, "VmSize:").map(|kib| kib * 1024),
            threads: field(&status, "Threads:"),
            descriptors: fs::read_dir("/proc/self/fd").ok().map(|dir| dir.count() as u64),
            max_descriptors: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            cpu: Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32),
        }
    }
}

/// The number behind `name`.
fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "Name:\tsmidge\nVmRSS:\t    5120 kB\nThreads:\t3\n";
        assert_eq!(
            (field(status, "VmRSS:"), field(status, "Threads:"), field(status, "VmHWM:")),
            (Some(5120), Some(3), None)
        );
    }
}
