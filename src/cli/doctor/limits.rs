//! What this process may have: descriptors and memory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Resource, getrlimit};

use super::finding::{Finding, size};
use crate::config::Config;

/// Descriptors besides those of connections: sockets, questions to name servers, files, the log.
const RESERVE: usize = 64;
/// Without this much free memory nothing can be expected to run.
const LEAST: u64 = 16 << 20;
/// The deepest group of a process that is looked at.
const DEPTH: usize = 32;

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let allowed = getrlimit(Resource::Nofile);
    let wanted = Descriptors {
        connections: config.limits.connections,
        api: config.api.connections,
        listeners: config.listen.addresses.len(),
    };
    let memory = config.limits.memory as u64;
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let total = kib(&meminfo, "MemTotal:");
    let mut findings = vec![
        descriptors(allowed.current, allowed.maximum, wanted),
        available(kib(&meminfo, "MemAvailable:"), memory),
    ];
    findings.extend(group(tightest(&groups, total, &|path| fs::read_to_string(path).ok()), memory));
    findings
}

#[derive(Clone, Copy)]
struct Descriptors {
    connections: usize,
    api: usize,
    listeners: usize,
}

/// `None` is no limit. Connections of QUIC share their listener's descriptor; those of other transports
/// do not, so that `limits.connections` asks for as many.
fn descriptors(soft: Option<u64>, hard: Option<u64>, wanted: Descriptors) -> Finding {
    let (check, subject) = ("limits.descriptors", "open files");
    let least = (wanted.api + wanted.listeners + RESERVE) as u64;
    let all = least + wanted.connections as u64;
    let raise = match hard {
        Some(hard) if hard < all => format!(
            "raise the hard limit to {all} (LimitNOFILE={all} in systemd, --ulimit nofile={all} in Docker), or lower \
             limits.connections and api.connections"
        ),
        _ => format!("ulimit -n {all} (LimitNOFILE={all} in systemd, --ulimit nofile={all} in Docker)"),
    };
    match soft {
        None => Finding::ok(check, subject, "no limit"),
        Some(soft) if soft >= all => Finding::ok(check, subject, format!("{soft}, {all} are enough")),
        Some(soft) if soft >= least => {
            let found =
                format!("{soft}, fewer than the {all} that limits.connections and api.connections may need");
            Finding::warn(check, subject, found, raise)
        }
        Some(soft) => {
            let found = format!("{soft}, fewer than the {least} that the sockets and api.connections need");
            Finding::fail(check, subject, found, raise)
        }
    }
}

/// Memory that could be had now.
fn available(free: Option<u64>, wanted: u64) -> Finding {
    let (check, subject) = ("limits.memory", "free memory");
    let advice = "end something else, or lower limits.memory";
    match free {
        None => Finding::ok(check, subject, "not reported by this kernel"),
        Some(free) if free < LEAST => Finding::fail(check, subject, size(free), advice),
        Some(free) if free < wanted => {
            let found = format!("{}, less than limits.memory = {}", size(free), size(wanted));
            Finding::warn(check, subject, found, advice)
        }
        Some(free) => {
            Finding::ok(check, subject, format!("{}, limits.memory is {}", size(free), size(wanted)))
        }
    }
}

/// Memory that the process's control group may have, where it is limited.
fn group(limit: Option<u64>, wanted: u64) -> Option<Finding> {
    let (check, subject) = ("limits.memory_group", "memory limit");
    let limit = limit?;
    let advice = format!(
        "set limits.memory to {} at most, or give the container more",
        size((limit / 5 * 4) >> 20 << 20)
    );
    let (shown, configured) = (size(limit), size(wanted));
    Some(if limit < wanted {
        let found = format!(
            "{shown}, less than limits.memory = {configured}: the kernel kills the node before it refuses work"
        );
        Finding::fail(check, subject, found, advice)
    } else if limit < wanted.saturating_add(wanted / 4) {
        Finding::warn(
            check,
            subject,
            format!("{shown}, hardly more than limits.memory = {configured}"),
            advice,
        )
    } else {
        Finding::ok(check, subject, format!("{shown} for this control group, limits.memory is {configured}"))
    })
}

/// The number of a line of /proc/meminfo, in bytes.
fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The lowest limit of the groups that a process is in and of those above them, by what /proc/self/cgroup
/// says; one that is not below `total` is none.
fn tightest(groups: &str, total: Option<u64>, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let limits = groups.lines().flat_map(files).filter_map(|path| read(&path)?.trim().parse::<u64>().ok());
    limits.min().filter(|limit| total.is_none_or(|total| *limit < total))
}

/// Where the limits stand that a line of /proc/self/cgroup speaks of (cgroups(7)); version 2 has one line
/// without a controller's name, version 1 one for each.
fn files(line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (root, file) = match parts.next() {
        Some("") => ("/sys/fs/cgroup", "memory.max"),
        Some(names) if names.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let own = Path::new(parts.next().unwrap_or("/"));
    // In a container the path may be the host's, which is not there; its root is.
    let above = own.ancestors().take(DEPTH).filter_map(|path| path.strip_prefix("/").ok());
    above.map(|path| Path::new(root).join(path).join(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    const MIB: u64 = 1 << 20;

    #[test]
    fn descriptors_must_do_for_sockets_and_should_do_for_connections() {
        let wanted = Descriptors { connections: 512, api: 128, listeners: 1 };
        for (soft, hard, expected) in [
            (None, None, Verdict::Ok),
            (Some(705), None, Verdict::Ok),
            (Some(704), Some(4096), Verdict::Warn),
            (Some(193), Some(4096), Verdict::Warn),
            (Some(192), Some(4096), Verdict::Fail),
            (Some(0), Some(0), Verdict::Fail),
        ] {
            assert_eq!(descriptors(soft, hard, wanted).verdict, expected, "{soft:?}");
        }
        let advice = |hard| descriptors(Some(256), Some(hard), wanted).advice.unwrap();
        assert!(advice(4096).starts_with("ulimit -n 705 "), "{}", advice(4096));
        assert!(advice(256).starts_with("raise the hard limit to 705 "), "{}", advice(256));
    }

    #[test]
    fn memory_that_is_short_is_said() {
        for (free, expected) in [
            (None, Verdict::Ok),
            (Some(64 * MIB), Verdict::Ok),
            (Some(64 * MIB - 1), Verdict::Warn),
            (Some(16 * MIB - 1), Verdict::Fail),
        ] {
            assert_eq!(available(free, 64 * MIB).verdict, expected, "{free:?}");
        }
        assert_eq!(group(None, 64 * MIB), None);
        for (limit, expected) in
            [(80 * MIB, Verdict::Ok), (80 * MIB - 1, Verdict::Warn), (64 * MIB - 1, Verdict::Fail)]
        {
            assert_eq!(group(Some(limit), 64 * MIB).unwrap().verdict, expected, "{limit}");
        }
        let advice = group(Some(50 * MIB), 64 * MIB).unwrap().advice.unwrap();
        assert!(advice.contains("to 40 MiB at most"), "{advice}");
    }

    #[test]
    fn the_lowest_limit_counts_in_both_versions() {
        let files = [
            ("/sys/fs/cgroup/a/memory.max", "max\n"),
            ("/sys/fs/cgroup/memory.max", "4000\n"),
            ("/sys/fs/cgroup/a/b/memory.max", "5000\n"),
            ("/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "7000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        let read = |path: &Path| {
            files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned())
        };
        let two = "0::/a/b\n";
        let one = "13:devices:/\n5:cpu,memory:/docker/1\n";
        assert_eq!(tightest(two, Some(1 << 40), &read), Some(4000));
        assert_eq!(tightest(one, Some(1 << 40), &read), Some(7000));
        // A container sees its own group as the root, and perhaps the host's name for it.
        assert_eq!(tightest("0::/\n", None, &read), Some(4000));
        assert_eq!(tightest("5:memory:/host/only\n", Some(1 << 40), &read), None);
        assert_eq!(tightest(two, Some(4000), &read), None, "all there is, is no limit");
        assert_eq!(tightest("garbage\n::\n0\n", None, &read), None);
        assert_eq!(tightest("", None, &read), None);
    }

    #[test]
    fn meminfo_is_read_by_its_whole_names() {
        let text = "MemTotal:       16 kB\nMemFree: 3 kB\nMemAvailable:    8 kB\n";
        assert_eq!((kib(text, "MemTotal:"), kib(text, "MemAvailable:")), (Some(16384), Some(8192)));
        assert_eq!((kib(text, "Mem"), kib("", "MemTotal:")), (None, None));
    }
}
