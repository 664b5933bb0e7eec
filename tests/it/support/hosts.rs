//! Several hosts on one wire: network namespaces of a test's own, gone with it, and packet filters in them.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use super::{process::Process, sandbox};

/// What each of the hosts has for its network.
const BRIDGE: &str = "wire";

/// Hosts numbered from 1, at 10.77.0.N, and the test beside them.
pub(crate) struct Hosts {
    names: PathBuf,
    _dir: tempfile::TempDir,
}

impl Hosts {
    /// Runs `test`, named by its thread, where it may make hosts.
    pub(crate) fn run(test: impl FnOnce(Self)) {
        // `ip netns` wants a directory of its own to name its namespaces in.
        let prepare = "mount -t tmpfs none /run && mkdir -p /run/netns";
        sandbox::inside(prepare, || {
            sh(&format!("ip link add {BRIDGE} type bridge && ip link set {BRIDGE} up"));
            let dir = tempfile::tempdir().unwrap();
            test(Self { names: dir.path().join("hosts"), _dir: dir });
        });
    }

    pub(crate) fn add(&self, n: u8) {
        sh(&format!(
            "ip netns add h{n} && ip link add v{n} type veth peer name eth0 netns h{n} && \
             ip link set v{n} master {BRIDGE} up && ip -n h{n} link set lo up && \
             ip -n h{n} addr add 10.77.0.{n}/24 dev eth0 && ip -n h{n} link set eth0 up"
        ));
    }

    /// What names lead to, on every host: host numbers by name.
    pub(crate) fn names(&self, names: &[(&str, &[u8])]) {
        let lines =
            names.iter().flat_map(|(name, hosts)| hosts.iter().map(move |n| format!("10.77.0.{n} {name}\n")));
        fs::write(&self.names, lines.collect::<String>()).unwrap();
    }

    /// Runs `command` on host `n`.
    pub(crate) fn on(&self, n: u8, command: &str) {
        sh(&format!("ip netns exec h{n} {command}"));
    }

    /// Starts `smidge run` on host `n`.
    pub(crate) fn start(&self, n: u8, args: &[&str]) -> Process {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("h{n}"), env!("CARGO_BIN_EXE_smidge"), "run"]);
        command.args(["--set", &format!("dns.hosts={}", self.names.display())]).args(args);
        // Where `ip` itself is found.
        Process::spawn(
            &format!("host {n}"),
            command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()),
        )
    }
}

fn sh(script: &str) {
    let Output { status, stdout, stderr } = Command::new("sh").args(["-c", script]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{script}: {status}\n{out}{err}");
}
