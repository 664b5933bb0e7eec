//! `smidge run` as an operator meets it: processes, signals, files, log lines.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use crate::support::{daemon, process::Process, sandbox};
use rustix::process::Signal;
use smidge::{
    dns::NameServer,
    runtime::{Executor, Handle},
    transport::admission::NetworkKey,
};

/// A loopback network of its own for one test, and its name server.
struct Net {
    _rt: Handle,
    names: NameServer,
    net: [u8; 3],
    port: u16,
    dir: tempfile::TempDir,
}

impl Net {
    fn new() -> Self {
        let rt = Executor::default().start(1).unwrap();
        let (net, port) = crate::support::free_net();
        let names = NameServer::start(&rt, sandbox::server((crate::support::ip(net, 1), 0).into())).unwrap();
        Self { _rt: rt, names, net, port, dir: tempfile::tempdir().unwrap() }
    }

    fn set(&self, name: &str, replicas: &[u8]) {
        self.names.set(name, replicas.iter().map(|n| crate::support::ip(self.net, *n)).collect()).unwrap();
    }

    /// The arguments of replica `n`.
    fn args(&self, n: u8, more: &[&str]) -> Vec<String> {
        let address = format!("/ip4/{}/udp/{}/quic-v1", crate::support::ip(self.net, n), self.port);
        let servers = if sandbox::is_needed() { String::new() } else { self.names.addr().to_string() };
        let servers = format!("dns.servers={servers}");
        let own = [
            "run",
            "--listen",
            &address,
            "--set",
            &servers,
            "--set",
            "dns.hosts=",
            "--set",
            "api.listen=off",
        ];
        own.iter().chain(more).map(|s| s.to_string()).collect()
    }

    fn start(&self, n: u8, more: &[&str]) -> Process {
        Process::start(&format!("replica {n}"), &self.args(n, more))
    }

    fn dial(&self, name: &str) -> String {
        format!("{name}:{}", self.port)
    }
}

const EPHEMERAL: [&str; 2] = ["--set", "identity.ephemeral=true"];

#[test]
fn a_node_that_was_killed_and_is_back_before_anybody_missed_it_is_in_the_mesh_again() {
    sandbox::run(|| {
        let net = Net::new();
        let quick = ["--topic", "t", "--set", "quic.keep_alive=300ms", "--set", "quic.idle_timeout=1500ms"];
        let peer = net.start(3, &[&quick[..], &EPHEMERAL].concat());
        let at = format!("{}:{}", crate::support::ip(net.net, 3), net.port);
        let key = format!("identity.key_file={}", net.dir.path().join("key").display());
        let same = [&quick[..], &["--set", &key, "--dial", &at]].concat();
        let mut first = net.start(2, &same);
        let id = first.peer_id();
        first.line(&["joined mesh t"]);
        peer.line(&["joined mesh t", &id]);
        first.kill();
        // From another address: nothing resets the old connection, which lasts until it is missed.
        let second = net.start(4, &same);
        assert_eq!(second.peer_id(), id);
        second.line(&["joined mesh t"]);
        assert_eq!(peer.count(&["disconnected from", &id]), 0, "it was missed before it was back");
    });
}

#[test]
fn a_bootstrap_killed_and_started_again_with_a_new_key_is_connected_again() {
    sandbox::run(|| {
        let net = Net::new();
        net.set("bootstrap", &[2]);
        let mut first = net.start(2, &EPHEMERAL);
        let old = first.peer_id();
        let target = net.dial("bootstrap");
        let peer = net.start(3, &[&EPHEMERAL[..], &["--dial", &target]].concat());
        peer.line(&["connected to", &old]);
        peer.line(&["added to kademlia", &old]);
        first.kill();
        let second = net.start(2, &EPHEMERAL);
        let new = second.peer_id();
        peer.line(&["connected to", &new]);
        peer.line(&["added to kademlia", &new]);
        peer.line(&["forgot", &old]);
        peer.line(&["replaced at", &new, &old]);
        peer.line(&["disconnected from", &old]);
        assert_eq!(peer.count(&["replaced at"]), 1);
        assert_eq!(
            peer.count(&[" WARN"]) + peer.count(&["ERROR"]),
            peer.count(&["socket buffers"]),
            "nothing to worry about"
        );
    });
}

#[test]
fn sigterm_drains_and_peers_notice_at_once() {
    sandbox::run(|| {
        let net = Net::new();
        net.set("one", &[2]);
        let topic = ["--topic", "t"];
        let one = net.start(2, &[&EPHEMERAL[..], &topic].concat());
        let target = net.dial("one");
        let mut two = net.start(3, &[&EPHEMERAL[..], &topic, &["--dial", &target]].concat());
        let id = two.peer_id();
        one.line(&["joined mesh t with", &id]);
        two.signal(Signal::TERM);
        assert_eq!(two.wait().code(), Some(0));
        two.line(&["stopping"]);
        let (left, _) = one.line_from(0, &["left mesh t with", &id]);
        let (gone, _) = one.line_from(0, &["disconnected from", &id]);
        assert!(left < gone, "the topic is left before the connection closes");
    });
}

#[test]
fn a_log_that_nobody_reads_stalls_neither_the_node_nor_its_end() {
    let mut command = daemon::smidge(&["run", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", dir.path().join("api").display());
    command.args(EPHEMERAL).args(["--set", "log.level=trace", "--set", "log.buffer=4KiB"]);
    command.args(["--set", &format!("api.listen={socket}")]);
    let mut node = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let ask = |args: &[&str]| daemon::run(daemon::smidge(args).env("SMIDGE_API", &socket));
    let dropped = || {
        let (code, answer, _) = ask(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
        (code == 0).then(|| status["log_dropped"].as_u64().unwrap())
    };
    // Each question is a few lines at this level; a pipe takes 64 KiB.
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while dropped().is_none_or(|n| n < 100) {
        assert!(std::time::Instant::now() < deadline, "it logs too little to fill a pipe");
    }
    // Its pipe has been full for a while.
    assert_eq!(ask(&["health"]).0, 0);
    daemon::send(&node, Signal::TERM);
    assert_eq!(node.wait().unwrap().code(), Some(0));
    let mut log = String::new();
    std::io::Read::read_to_string(&mut node.stderr.take().unwrap(), &mut log).unwrap();
    assert!(log.contains("starting smidge"), "{log}");
}

#[test]
fn a_file_that_does_not_end_keeps_nobody_from_asking_or_ending_the_node_that_reads_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("config.toml"), "").unwrap();
    let socket = format!("unix:{}", path("api"));
    let api = format!("api.listen={socket}");
    let listen = "/ip4/127.0.0.1/udp/0/quic-v1";
    let config = path("config.toml");
    let args = ["run", "--config", &config, "--listen", listen, "--set", &api];
    let args: Vec<_> = args.iter().chain(&EPHEMERAL).map(|s| s.to_string()).collect();
    let mut node = Process::start("node", &args);
    node.line(&["listening on"]);
    fs::remove_file(&config).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &config, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    node.signal(Signal::HUP);
    let health = || daemon::run(daemon::smidge(&["health"]).env("SMIDGE_API", &socket)).0;
    assert_eq!(health(), 0);
    // The first one may not have been taken up when the second comes; then they are one.
    while node.count(&["still being read"]) == 0 {
        node.signal(Signal::HUP);
        assert_eq!(health(), 0);
    }
    node.signal(Signal::TERM);
    assert_eq!(node.wait().code(), Some(0));
}

#[test]
fn an_address_that_is_not_there_yet_keeps_none_of_the_others_from_serving_and_is_taken_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", dir.path().join("api").display());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let late = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let api = format!("api.listen={socket}");
    // 192.0.2.0/24 is for documentation: no interface has it.
    let nowhere = "/ip4/192.0.2.7/udp/4001/quic-v1";
    let there = "/ip4/127.0.0.1/udp/0/quic-v1";
    let start = |listen: &[&str]| {
        let mut args = vec!["run", "--set", &api];
        args.extend(EPHEMERAL);
        args.extend(listen.iter().flat_map(|address| ["--listen", address]));
        let args: Vec<_> = args.iter().map(|s| s.to_string()).collect();
        Process::start("node", &args)
    };
    let status = || {
        let (_, answer, _) = daemon::run(daemon::smidge(&["status", "--json"]).env("SMIDGE_API", &socket));
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()
    };
    let mut node = start(&[&late, there, nowhere]);
    node.line(&["listening on /ip4/127.0.0.1/udp/"]);
    for missing in [&*late, nowhere] {
        node.line(&[" WARN ", "retrying in 1000 ms: not listening on", missing]);
        assert!(status()["not_listening"].to_string().contains(missing));
    }
    drop(taken);
    node.line(&["INFO", &format!("listening on {late}")]);
    let said = status()["not_listening"].to_string();
    assert!(said.contains(nowhere) && !said.contains(&late), "{said}");
    node.signal(Signal::TERM);
    assert_eq!(node.wait().code(), Some(0));
    assert_eq!(node.count(&[" WARN ", nowhere]), 1, "said once");
    let mut none = start(&[nowhere]);
    assert_eq!(none.wait().code(), Some(1));
    none.line(&["cannot listen on", nowhere]);
    none.line(&["hint: no interface of this host has that address now"]);
}

#[test]
fn a_second_signal_stops_at_once_and_one_that_is_sent_twice_does_not() {
    sandbox::run(|| {
        let net = Net::new();
        let mut one = net.start(2, &EPHEMERAL);
        one.line(&["listening on"]);
        one.signal(Signal::INT);
        // Twice in a moment is once: to the process and to its group, as timeout(1) does.
        one.signal(Signal::INT);
        assert_eq!(one.wait().code(), Some(0));
        let mut two = net.start(2, &EPHEMERAL);
        two.line(&["listening on"]);
        two.signal(Signal::INT);
        two.line(&["stopping"]);
        while two.is_running() {
            two.signal(Signal::TERM);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(two.wait().code(), Some(1));
        two.line(&["second signal"]);
    });
}

#[test]
fn sighup_applies_what_can_change_and_names_what_cannot() {
    sandbox::run(|| {
        let net = Net::new();
        net.set("one", &[2]);
        let one = net.start(2, &[&EPHEMERAL[..], &["--topic", "t"]].concat());
        let file = net.dir.path().join("config.toml");
        fs::write(&file, "[gossip]\ntopics = []\n").unwrap();
        let path = file.to_str().unwrap();
        let two = net.start(3, &[&EPHEMERAL[..], &["--config", path]].concat());
        two.line(&["listening on"]);
        let names = format!("[dial]\nnames = [\"{}\"]\n[gossip]\ntopics = [\"t\"]\n", net.dial("one"));
        fs::write(&file, format!("{names}mesh_n = 5\n")).unwrap();
        two.signal(Signal::HUP);
        two.line(&["reloading: these need a restart: gossip.mesh_n"]);
        two.line(&["reloaded: dial.names, gossip.topics changed"]);
        one.line(&["joined mesh t with", &two.peer_id()]);
        let before = two.lines();
        fs::write(&file, "[gossip]\ntopcs = []\n").unwrap();
        two.signal(Signal::HUP);
        let (_, refused) = two.line_from(before, &["reloading failed, nothing was changed"]);
        assert!(refused.contains("topcs"), "{refused}");
        let before = two.lines();
        fs::write(&file, format!("{names}[log]\nlevel = \"debug\"\n")).unwrap();
        two.signal(Signal::HUP);
        two.line_from(before, &["log.level changed"]);
        two.line_from(before, &["DEBUG"]);
    });
}

#[test]
fn a_bad_line_of_the_network_s_keys_is_warned_of_at_the_start_and_on_sighup() {
    sandbox::run(|| {
        let net = Net::new();
        let (old, new) = (NetworkKey::generate().unwrap(), NetworkKey::generate().unwrap());
        let (one, two) = (old.encode(), new.encode());
        let file = net.dir.path().join("keys");
        let path = file.to_str().unwrap();
        // The last character of the first key was not copied.
        fs::write(&file, format!("{}\n{}\n", &two[..two.len() - 1], *one)).unwrap();
        let set = format!("network.key_file={path}");
        let node = net.start(2, &[&EPHEMERAL[..], &["--set", &set]].concat());
        node.line(&["WARN", &format!("{path}: left out: line 1 is not base64")]);
        node.line(&[&format!("private network: keys {}", old.fingerprint())]);
        node.line(&["listening on"]);

        let before = node.lines();
        fs::write(&file, format!("{}\nsmidge-network-key-1:\n{}\n", *two, *one)).unwrap();
        node.signal(Signal::HUP);
        node.line_from(before, &["WARN", &format!("{path}: left out: line 2 has 0 bytes")]);
        node.line_from(before, &[&format!("keys {}, {}", new.fingerprint(), old.fingerprint())]);
        node.line_from(before, &["reloaded"]);

        let before = node.lines();
        fs::write(&file, "smidge-network-key-1:\n").unwrap();
        node.signal(Signal::HUP);
        let (_, kept) = node.line_from(before, &["the network's keys stay as they were"]);
        assert!(kept.contains(&format!("{path}: holds no good key: line 1 has 0 bytes")), "{kept}");
        node.line_from(before, &["reloaded"]);
    });
}

#[test]
fn two_nodes_that_met_by_dns_meet_again_when_dns_is_gone() {
    sandbox::run(|| {
        let net = Net::new();
        net.set("one", &[2]);
        let target = net.dial("one");
        let args = |n: u8, more: &[&str]| {
            let at = |what: &str| net.dir.path().join(format!("{what}{n}")).display().to_string();
            let own = [format!("identity.key_file={}", at("key")), format!("kad.store={}", at("records"))];
            let own: Vec<_> = own.iter().flat_map(|set| ["--set", set.as_str()]).collect();
            net.args(n, &[&own[..], more].concat())
        };
        let commands = [args(2, &[]), args(3, &["--dial", &target])];
        let start = |n: usize| Process::start(&format!("replica {}", n + 2), &commands[n]);
        let mut nodes = [start(0), start(1)];
        let ids = nodes.each_ref().map(Process::peer_id);
        for (node, other) in nodes.iter().zip(ids.iter().rev()) {
            node.line(&["added to kademlia", other]);
        }
        for node in &mut nodes {
            node.signal(Signal::TERM);
            assert_eq!(node.wait().code(), Some(0));
        }
        let denying = args(3, &["--dial", &target, "--set", &format!("peers.deny={}", ids[0])]);
        let Net { names, dir, _rt, .. } = net;
        drop(names);
        // The one that nobody's name leads to starts last: it has to be the one that dials.
        let late = start(1);
        late.line(&["loaded", "1 known peers"]);
        late.line(&["one", "is not resolved"]);
        let first = start(0);
        first.line(&["connected to", &ids[1]]);
        late.line(&["connected to", &ids[0]]);
        assert_eq!(late.count(&["resolved one"]), 0);
        drop((late, first));
        // A peer that is denied by now is not dialed, known or not.
        let denying = Process::start("replica 3, denying", &denying);
        denying.line(&["loaded", "1 known peers"]);
        denying.line(&["one", "is not resolved"]);
        assert_eq!(denying.count(&["dialing"]), 0);
        drop(dir);
    });
}

#[test]
fn sighup_reads_the_networks_keys_again_and_keeps_them_when_the_file_is_damaged() {
    sandbox::run(|| {
        let net = Net::new();
        let [old, new] = [(); 2].map(|()| NetworkKey::generate().unwrap());
        let file = net.dir.path().join("network");
        fs::write(&file, old.encode().as_str()).unwrap();
        let set = format!("network.key_file={}", file.display());
        let node = net.start(2, &[&EPHEMERAL[..], &["--set", &set]].concat());
        node.line(&[&format!("private network: keys {}", old.fingerprint())]);
        node.line(&["listening on"]);
        fs::write(&file, [new.encode().as_str(), "\n", old.encode().as_str()].concat()).unwrap();
        node.signal(Signal::HUP);
        node.line(&[&format!("private network: keys {}, {}", new.fingerprint(), old.fingerprint())]);
        fs::write(&file, "garbage").unwrap();
        node.signal(Signal::HUP);
        node.line(&["the network's keys stay as they were", "line 1 does not begin with"]);
    });
}

#[test]
fn a_key_is_made_once_and_kept() {
    sandbox::run(|| {
        let net = Net::new();
        let key = net.dir.path().join("key");
        let set = format!("identity.key_file={}", key.display());
        let mut ids = Vec::new();
        for _ in 0..2 {
            let mut one = net.start(2, &["--set", &set]);
            ids.push(one.peer_id());
            one.line(&["listening on"]);
            one.signal(Signal::TERM);
            assert_eq!(one.wait().code(), Some(0));
        }
        assert_eq!(ids[0], ids[1]);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let one = net.start(2, &["--set", &set]);
        one.line(&["WARN", "key"]);
        fs::write(&key, "garbage").unwrap();
        let mut two = net.start(3, &["--set", &set]);
        assert_eq!(two.wait().code(), Some(78));
        assert_eq!(fs::read(&key).unwrap(), b"garbage", "a damaged key is never overwritten");
    });
}

#[test]
fn a_directory_of_its_own_has_all_that_a_node_keeps_and_an_ephemeral_one_keeps_nothing() {
    sandbox::run(|| {
        let net = Net::new();
        let dir = net.dir.path().join("state");
        let data_dir = ["--mdns", "--api", "127.0.0.1:0", "--data-dir", dir.to_str().unwrap()];
        let mut one = net.start(2, &data_dir);
        one.line(&["made a new key", dir.join("key").to_str().unwrap()]);
        one.line(&["looking for peers by mdns"]);
        one.line(&["api listening on"]);
        one.signal(Signal::TERM);
        assert_eq!(one.wait().code(), Some(0));
        assert!(dir.join("key").exists() && dir.join("records").exists());
        let again = net.start(2, &data_dir);
        again.line(&["loaded 0 records"]);
        let mut both = net.start(3, &[&data_dir[..], &["--ephemeral"]].concat());
        assert_eq!(both.wait().code(), Some(2), "a node that keeps nothing has no directory");
    });
}

#[test]
fn what_a_sender_says_at_intervals_arrives_again_and_again() {
    sandbox::run(|| {
        let net = Net::new();
        net.set("one", &[2]);
        let one = net.start(
            2,
            &[&EPHEMERAL[..], &["--topic", "t", "--set", "log.level=smidge::message=info"]].concat(),
        );
        let target = net.dial("one");
        let publish =
            ["--set", "publish.topic=t", "--set", "publish.data=1,2,3", "--set", "publish.every=100ms"];
        let sender = net.start(3, &[&EPHEMERAL[..], &publish, &["--dial", &target]].concat());
        let id = sender.peer_id();
        let mut from = 0;
        for _ in 0..5 {
            from = one.line_from(from, &["message", &id, "on t, 3 bytes"]).0 + 1;
        }
    });
}

#[test]
fn a_node_that_finds_nobody_says_that_it_is_still_looking() {
    sandbox::run(|| {
        let net = Net::new();
        let target = net.dial("nowhere");
        let node = net.start(2, &[&EPHEMERAL[..], &["--dial", &target]].concat());
        let (_, line) = node.line_from(0, &["still looking at nowhere:", "nobody is connected for"]);
        assert!(line.contains("INFO  smidge: still looking") && line.contains("`smidge doctor`"), "{line}");
    });
}

#[test]
fn a_node_that_cannot_start_says_why() {
    sandbox::run(|| {
        let net = Net::new();
        let _one = net.start(2, &EPHEMERAL);
        _one.line(&["listening on"]);
        let mut two = net.start(2, &EPHEMERAL);
        assert_eq!(two.wait().code(), Some(1));
        two.line(&["cannot listen on", "in use"]);
        let mut three = net.start(3, &["--set", "gossip.mesh_n=0"]);
        assert_eq!(three.wait().code(), Some(78));
        three.line(&["gossip.mesh_n"]);
    });
}

#[test]
fn json_logs_are_one_object_a_line() {
    sandbox::run(|| {
        let net = Net::new();
        let mut one = net.start(2, &[&EPHEMERAL[..], &["--set", "log.format=json"]].concat());
        one.line(&["listening on"]);
        one.signal(Signal::TERM);
        one.wait();
        for n in 0..one.lines() {
            let (_, line) = one.line_from(n, &[""]);
            let json: serde_json::Value = serde_json::from_str(&line).unwrap();
            for key in ["ts", "level", "target", "msg"] {
                assert!(json[key].is_string(), "{line}");
            }
        }
    });
}
