//! `smidge doctor` where something is wrong for real: ports, keys, names, resolvers, links, limits.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::{fs::PermissionsExt, net::UnixListener, process::CommandExt},
    process::Command,
};

use crate::support::{
    daemon::{Daemon, run, smidge},
    sandbox,
};
use serde_json::Value;
use smidge::{
    dns::{Fault, NameServer},
    runtime::{Executor, Handle},
};

/// A node that would listen on a free port of its own, with a key and an API that are no trouble.
const PLAIN: [&str; 8] = [
    "--set",
    "identity.ephemeral=true",
    "--set",
    "api.listen=off",
    "--set",
    "role=bootstrap",
    "--listen",
    "/ip4/127.0.0.1/udp/0/quic-v1",
];

/// The doctor's exit code and record.
fn doctor(command: &mut Command) -> (i32, Value) {
    let (code, out, err) = run(command.arg("--json"));
    let record: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert_eq!(code == 0, record["ok"] == true, "the exit code says what the record says: {record:#}");
    assert_eq!(err, "");
    (code, record)
}

/// `smidge doctor ARGS…` behind what is no trouble.
fn asked(args: &[&str]) -> Command {
    smidge(&[&["doctor"], &PLAIN[..], args].concat())
}

/// The findings of one check.
fn of<'a>(record: &'a Value, check: &str) -> Vec<&'a Value> {
    record["checks"].as_array().unwrap().iter().filter(|finding| finding["check"] == check).collect()
}

/// The only finding of a check: verdict, what was found, what to do.
fn one(record: &Value, check: &str) -> (String, String, String) {
    let all = of(record, check);
    assert_eq!(all.len(), 1, "{check}: {record:#}");
    let text = |key: &str| all[0][key].as_str().unwrap_or_default().to_owned();
    (text("verdict"), text("found"), text("advice"))
}

/// A name server, and what makes the doctor ask it.
struct Names {
    _runtime: Handle,
    server: NameServer,
    /// None with async-dns, which asks the server of the sandbox's `/etc/resolv.conf`.
    args: Vec<String>,
}

fn names() -> Names {
    let runtime = Executor::default().start(1).unwrap();
    let addr = sandbox::server("127.0.0.1:0".parse().unwrap());
    let server = NameServer::start(&runtime, addr).unwrap();
    let args =
        if sandbox::is_needed() { Vec::new() } else { vec![format!("--set=dns.servers={}", server.addr())] };
    Names { _runtime: runtime, server, args }
}

impl Names {
    fn set(&self, name: &str, ips: &[&str]) {
        self.server.set(name, ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect()).unwrap();
    }

    /// The doctor's record for a node that dials `target`.
    fn doctor(&self, target: &str) -> (i32, Value) {
        let impatient = ["--set=dns.timeout=300ms", "--set=dns.attempts=1", "--dial", target];
        doctor(asked(&impatient).args(&self.args))
    }
}

#[test]
fn where_all_is_well_every_group_says_so_and_the_code_is_0() {
    sandbox::run(|| {
        let names = names();
        let (code, out, err) = run(asked(&["--set", "api.listen=127.0.0.1:0"]).args(&names.args));
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        let groups: Vec<_> = out.lines().filter(|line| !line.starts_with(' ')).collect();
        let expected = ["host", "limits", "udp", "links", "identity", "store", "node", "listen", "dns"];
        assert_eq!(groups[..groups.len() - 1], expected, "{out}");
        assert!(groups.last().unwrap().ends_with(", 0 failed"), "{out}");
        // All subjects of ordinary length are followed by what was found in the same column.
        let columns: Vec<_> = out.lines().filter(|line| line.starts_with("  ok    ")).collect();
        let found = |line: &str, word: &str| line.find(word);
        let lo = columns.iter().find_map(|line| found(line, "65536 bytes")).unwrap();
        assert_eq!(columns.iter().find_map(|line| found(line, "ephemeral:")), Some(lo), "{out}");

        let (code, out, err) = run(&mut smidge(&["doctor", "--set", "gossip.mesh=1"]));
        assert_eq!((code, out.as_str()), (78, ""), "a bad configuration is no finding: {err}");
    });
}

#[test]
fn a_taken_port_is_a_failure_that_names_who_has_it() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let listen = format!("/ip4/127.0.0.1/udp/{port}/quic-v1");
    let (code, record) = doctor(&mut asked(&["--listen", &listen]));
    let all = of(&record, "listen.address");
    let finding = all.iter().find(|finding| finding["subject"] == listen.as_str()).unwrap();
    assert_eq!((code, finding["verdict"].as_str()), (1, Some("fail")), "{finding}");
    let who = format!("process {}", std::process::id());
    assert!(finding["found"].as_str().unwrap().ends_with(&who), "{finding}");
    let (_, record) = doctor(&mut asked(&["--listen", "/ip4/203.0.113.7/udp/0/quic-v1"]));
    let all = of(&record, "listen.address");
    assert_eq!(all[1]["found"], "no interface of this host has this address", "{record:#}");
}

#[test]
fn a_port_that_our_own_node_has_is_fine_and_the_node_is_known_by_its_id() {
    let node = Daemon::start(&[]);
    let port = node.addr.rsplit(':').next().unwrap();
    let listen = format!("/ip4/127.0.0.1/udp/{port}/quic-v1");
    let own = ["doctor", "--set", "identity.ephemeral=true", "--listen", &listen, "--dial", &node.addr];
    let (_, record) = doctor(smidge(&own).args(["--api", &node.url]));
    assert_eq!(one(&record, "listen.address").1, "our own node listens there");
    assert_eq!(one(&record, "node.running").1, format!("{} runs at {}", node.peer, node.url));
    assert_eq!(one(&record, "records.handshake").1, "this node itself, which is running");

    // Without its API it is another node that is in the way, and a peer like any other.
    let (code, record) = doctor(smidge(&own).args(["--set", "api.listen=127.0.0.1:0"]));
    let (verdict, found, advice) = one(&record, "listen.address");
    assert_eq!((code, verdict.as_str()), (1, "fail"), "{found}");
    assert!(
        found.starts_with("taken by a smidge node, process ") && advice.contains("--api"),
        "{found} {advice}"
    );
    let (verdict, found, _) = one(&record, "records.handshake");
    assert!(
        verdict == "ok" && found.starts_with(&format!("{}, handshake round trip ", node.peer)),
        "{verdict} {found}"
    );

    let gone = "http://127.0.0.1:1";
    let (_, record) = doctor(asked(&[]).args(["--api", gone]));
    let (verdict, found, _) = one(&record, "node.running");
    assert!(verdict == "warn" && found.starts_with("no node answers at http://127.0.0.1:1"), "{found}");
}

#[test]
fn addresses_of_tcp_are_bound_and_tried_like_those_of_quic() {
    sandbox::run(|| {
        let names = names();
        let node = Daemon::start(&["--listen", "/ip4/127.0.0.1/tcp/0"]);
        let status: Value = serde_json::from_str(&node.ask(&["status", "--json"]).1).unwrap();
        let listening = status["listening"].as_array().unwrap().iter().filter_map(Value::as_str);
        let tcp = listening.into_iter().find(|a| a.contains("/tcp/")).expect("listening over TCP").to_owned();
        let own = ["doctor", "--set", "identity.ephemeral=true", "--listen", &tcp, "--dial", &tcp];
        let (_, record) = doctor(smidge(&own).args(["--api", &node.url]));
        assert_eq!(one(&record, "listen.address").1, "our own node listens there");
        assert_eq!(one(&record, "records.handshake").1, "this node itself, which is running");

        let (code, record) = doctor(smidge(&own).args(["--set", "api.listen=127.0.0.1:0"]));
        let (verdict, found, _) = one(&record, "listen.address");
        assert!(code == 1 && verdict == "fail" && found.starts_with("taken by a smidge node"), "{found}");
        assert_eq!(one(&record, "records.handshake").1, node.peer);

        // Nobody listens there over TCP, whoever has the UDP port of that number.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _udp = UdpSocket::bind(free);
        let address = format!("/ip4/127.0.0.1/tcp/{}", free.port());
        let (code, record) = doctor(asked(&["--listen", &address, "--dial", &address]).args(&names.args));
        let listen = of(&record, "listen.address");
        assert!(listen.iter().any(|f| f["subject"] == address && f["found"] == "free"), "{record:#}");
        assert_eq!((code, one(&record, "records.handshake").0.as_str()), (0, "ok"), "its own, not running");
        let (code, record) = doctor(&mut asked(&["--dial", &address]));
        let (verdict, _, advice) = one(&record, "records.handshake");
        assert_eq!((code, verdict.as_str()), (1, "fail"));
        assert!(advice.contains(&format!("TCP port {}", free.port())), "{advice}");
    });
}

#[test]
fn a_socket_file_that_a_killed_node_left_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let set = format!("api.listen=unix:{}", path.display());
    let said = || {
        let (_, record) = doctor(asked(&[]).args(["--set", &set]));
        one(&record, "listen.api")
    };
    assert_eq!(said().1, "can be made");
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(said().1, "left behind by a node that was killed: it is replaced");
    assert!(path.exists(), "the doctor changes nothing");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    assert_eq!((said().0.as_str(), said().1.as_str()), ("fail", "something else than a socket is there"));
}

#[test]
fn a_key_that_cannot_be_read_is_a_failure_and_one_that_others_can_is_a_warning() {
    sandbox::run(|| {
        let names = names();
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.path().join("key").display().to_string();
        assert_eq!(run(&mut smidge(&["key", "generate", &file])).0, 0);
        let args = ["doctor", "--set", "api.listen=off", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
        let set = format!("identity.key_file={file}");
        let (code, record) = doctor(smidge(&args).args(["--set", &set]).args(&names.args));
        assert_eq!((code, one(&record, "identity.key").0.as_str()), (0, "ok"), "{record:#}");

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let (code, record) = doctor(smidge(&args).args(["--set", &set]).args(&names.args));
        let (verdict, found, _) = one(&record, "identity.key");
        assert!(code == 0 && verdict == "warn" && found.contains("mode 640"), "{verdict} {found}");

        // Root may read anything, so somebody else looks, with a program that everybody may run.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        let program = dir.path().join("smidge");
        // By another process: this one forks for other tests, whose children would keep the file open for writing.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_smidge")).arg(&program).status().unwrap();
        assert!(copied.success());
        let mut command = Command::new(&program);
        command.args(args).args(["--set", &set]).args(&names.args).env_clear();
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        let (code, record) = doctor(&mut command);
        let (verdict, found, advice) = one(&record, "identity.key");
        assert_eq!((code, verdict.as_str()), (1, "fail"));
        assert!(found.contains("Permission denied") && !advice.is_empty(), "{found} {advice}");
    });
}

#[test]
fn a_name_that_does_not_resolve_is_a_failure_with_the_servers_words() {
    sandbox::run(|| {
        let (code, record) = names().doctor("bootstrap:4001");
        let (verdict, found, advice) = one(&record, "names.resolves");
        assert_eq!((code, verdict.as_str()), (1, "fail"));
        assert!(found.starts_with("`bootstrap`: no "), "{found}");
        // async-dns cannot tell a missing name from a server that failed.
        if cfg!(feature = "hickory") {
            assert!(advice.contains("endpoint_mode: dnsrr"), "{advice}");
        }
        assert!(of(&record, "dns.server").iter().all(|f| f["verdict"] == "ok"), "{record:#}");
    });
}

#[test]
fn a_silent_resolver_is_told_from_a_missing_name() {
    sandbox::run(|| {
        let names = names();
        names.server.set_fault(Some(Fault::Silent));
        let (code, record) = names.doctor("bootstrap:4001");
        assert_eq!((code, one(&record, "names.resolves").0.as_str()), (1, "fail"), "{record:#}");
        if !sandbox::is_needed() {
            let (verdict, found, _) = one(&record, "dns.server");
            assert!(verdict == "fail" && found.contains("no answer from "), "{found}");
            assert!(one(&record, "names.resolves").2.contains("the group dns"), "{record:#}");
        }
    });
}

#[test]
fn a_record_with_nobody_behind_it_is_a_failure_alone_and_a_warning_among_others() {
    sandbox::run(|| {
        let (node, names) = (Daemon::start(&[]), names());
        let addr: SocketAddr = node.addr.parse().unwrap();
        let target = format!("peer:{}", addr.port());
        names.set("peer", &["127.9.9.9"]);
        let (code, record) = names.doctor(&target);
        let (verdict, found, advice) = one(&record, "records.handshake");
        assert_eq!((code, verdict.as_str()), (1, "fail"), "{found}");
        assert!(
            found.contains("refused the dial") && advice.contains(&format!("UDP port {}", addr.port())),
            "{found}"
        );

        names.set("peer", &["127.9.9.9", "127.0.0.1"]);
        let (code, record) = names.doctor(&target);
        let said: Vec<_> = of(&record, "records.handshake").iter().map(|f| f["verdict"].clone()).collect();
        assert_eq!((code, said), (0, vec!["warn".into(), "ok".into()]), "{record:#}");
        assert_eq!(one(&record, "names.resolves").1, "2 records");
        let answered = of(&record, "records.handshake")[1]["found"].as_str().unwrap();
        assert!(answered.starts_with(&node.peer), "{answered}");
    });
}

#[test]
fn a_virtual_ip_is_told_from_a_record_for_each_task() {
    sandbox::run(|| {
        let names = names();
        names.set("peer", &["127.9.9.1"]);
        names.set("tasks.peer", &["127.9.9.2", "127.9.9.3"]);
        let (_, record) = names.doctor("peer:4001");
        let (verdict, found, advice) = one(&record, "names.resolves");
        assert!(
            verdict == "warn" && found.contains("a virtual IP, in front of 2 tasks"),
            "{verdict} {found}"
        );
        assert!(advice.contains("endpoint_mode: dnsrr") && advice.contains("tasks.peer:4001"), "{advice}");

        names.set("peer", &["127.9.9.2", "127.9.9.3"]);
        let (_, record) = names.doctor("peer:4001");
        assert_eq!(one(&record, "names.resolves").1, "2 records, one for each task (dnsrr)");
    });
}

#[test]
fn buffers_that_the_kernel_does_not_grant_are_a_warning_with_the_sysctl() {
    let (_, record) = doctor(&mut asked(&["--set", "quic.socket_buffer=1GiB"]));
    for (check, sysctl) in
        [("udp.receive_buffer", "net.core.rmem_max"), ("udp.send_buffer", "net.core.wmem_max")]
    {
        let (verdict, found, advice) = one(&record, check);
        assert_eq!(verdict, "warn", "a kernel that lets anybody have 1 GiB? {found}");
        assert!(advice.starts_with(&format!("sysctl -w {sysctl}=1073741824 ")), "{advice}");
        // Where the kernel tells its limit, that is what was granted.
        if let Ok(limit) = fs::read_to_string(format!("/proc/sys/{}", sysctl.replace('.', "/"))) {
            assert!(found.contains(&format!("{sysctl} is {}:", limit.trim())), "{found}");
        }
    }
}

/// The doctor in a network namespace where `links` was run.
fn in_namespace(links: &str) -> (i32, Value) {
    let script = format!("set -e; {links}; exec \"$0\" \"$@\" --json");
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--net", "--", "sh", "-c", &script, env!("CARGO_BIN_EXE_smidge"), "doctor"]).args(PLAIN);
    unshare.args(["--listen", "/ip4/0.0.0.0/udp/0/quic-v1"]);
    let (code, out, err) = run(&mut unshare);
    (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}")))
}

#[test]
fn a_link_that_carries_no_quic_packet_is_a_failure_and_an_overlay_is_fine() {
    let veth = "ip link set lo up; ip link add veth-a type veth peer name veth-b";
    let up = "ip link set veth-a up; ip link set veth-b up";
    let (code, record) =
        in_namespace(&format!("{veth}; ip link set veth-a mtu 1200; ip link set veth-b mtu 1450; {up}"));
    let verdict = |name: &str| {
        let all = of(&record, "links.mtu");
        all.iter().find(|finding| finding["subject"] == name).map(|finding| finding["verdict"].clone())
    };
    assert_eq!(code, 1);
    assert_eq!(verdict("veth-a"), Some("fail".into()), "{record:#}");
    assert_eq!(verdict("veth-b"), Some("ok".into()));
    assert_eq!(verdict("lo"), Some("ok".into()));
    let (_, record) = in_namespace(&format!("{veth}; ip link set veth-a mtu 1200"));
    assert_eq!(of(&record, "links.mtu").len(), 1, "links that are down carry nothing: {record:#}");
    let (code, record) = in_namespace("true");
    assert_eq!((code, one(&record, "links.mtu").1.as_str()), (1, "none is up"));
}

#[test]
fn where_peers_would_be_looked_for_by_mdns_is_told_and_that_multicast_is_off_is_warned_of() {
    let veth = "export SMIDGE__MDNS__ENABLED=true; ip link set lo up; ip link add veth-a type veth peer name \
                veth-b; ip link set veth-b up; ip addr add 10.9.0.1/24 dev veth-a; ip link set veth-a up";
    let (_, record) = in_namespace(veth);
    let (verdict, _, _) = one(&record, "mdns.interface");
    assert_eq!(verdict, "ok");
    assert_eq!(of(&record, "mdns.interface")[0]["subject"], "veth-a over IPv4");
    let (_, record) = in_namespace(&format!("{veth}; ip link set veth-a multicast off"));
    let all = of(&record, "mdns.interface");
    let verdicts: Vec<_> = all.iter().map(|finding| (&finding["subject"], &finding["verdict"])).collect();
    assert_eq!(verdicts, [(&"lo over IPv4".into(), &"ok".into()), (&"interfaces".into(), &"warn".into())]);
}

#[test]
fn few_descriptors_are_a_warning_and_too_few_a_failure() {
    sandbox::run(|| {
        let names = names();
        let limited = |files: u32| {
            let mut sh = Command::new("sh");
            sh.args([
                "-c",
                &format!("ulimit -n {files}; exec \"$0\" \"$@\""),
                env!("CARGO_BIN_EXE_smidge"),
                "doctor",
            ]);
            let (code, record) = doctor(sh.args(PLAIN).args(&names.args).env_remove("SMIDGE_API"));
            (code, one(&record, "limits.descriptors").0)
        };
        assert_eq!(limited(1024), (0, "ok".into()));
        assert_eq!(limited(300), (0, "warn".into()));
        assert_eq!(limited(100), (1, "fail".into()));
    });
}

#[test]
fn a_secret_that_keys_are_derived_from_is_tried_and_never_shown() {
    sandbox::run(|| {
        let names = names();
        let secret = "a-secret-of-more-than-16-bytes";
        let set = format!("identity.derive_secret={secret}");
        let args =
            ["doctor", "--set", &set, "--set", "api.listen=off", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
        let (code, out, err) =
            run(smidge(&args).args(["--set", "identity.derive_name=peer.1", "--json"]).args(&names.args));
        let record: Value = serde_json::from_str(&out).unwrap();
        assert!(
            code == 0 && one(&record, "identity.key").1.starts_with("derived for peer.1: 12D3KooW"),
            "{out}{err}"
        );
        assert!(!out.contains(secret) && !err.contains(secret));
    });
}
