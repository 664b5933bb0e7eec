//! Records on disk, with real processes: nodes that are killed with all others in the middle of
//! writes, disks that fill up, files that are damaged or taken.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use crate::support::{
    PATIENCE,
    daemon::{Daemon, run, smidge},
    sandbox,
};
use rustix::process::Signal;
use serde_json::Value;

/// One call of the HTTP API; `None` if the node died meanwhile.
fn call(url: &str, method: &str, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let status = std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
    Some((status, answer.split_off(end + 4)))
}

fn status(node: &Daemon) -> Value {
    serde_json::from_slice(&call(&node.url, "GET", "/v1/status", b"").unwrap().1).unwrap()
}

/// Waits until `done` holds of the node's status.
fn until(node: &Daemon, what: &str, done: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = status(node);
        if done(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}: {status}");
        thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Starts `n` nodes that keep their keys and records in `dir` and know each other.
fn start(dir: &Path, n: usize) -> Vec<Daemon> {
    let mut nodes: Vec<Daemon> = Vec::new();
    for i in 0..n {
        let key = format!("identity.key_file={}", dir.join(format!("key{i}")).display());
        let store = format!("kad.store={}", dir.join(format!("records{i}")).display());
        let own = ["identity.ephemeral=false", &key, &store, "kad.max_records=100000"];
        let mut args: Vec<&str> = own.iter().flat_map(|set| ["--set", *set]).collect();
        let others: Vec<_> = nodes.iter().map(|node| node.addr.clone()).collect();
        args.extend(others.iter().flat_map(|addr| ["--dial", addr.as_str()]));
        nodes.push(Daemon::start(&args));
    }
    for node in &nodes {
        until(node, "a full table", |status| status["table"] == n - 1);
    }
    nodes
}

#[test]
fn every_acknowledged_record_is_readable_everywhere_after_all_nodes_were_killed_while_writing() {
    const NODES: usize = 5;
    const RECORDS: usize = 500;
    let dir = tempfile::tempdir().unwrap();
    let nodes = start(dir.path(), NODES);
    let acknowledged = Mutex::new(BTreeMap::new());
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        for node in &nodes {
            // Two writers a node, so that commits carry more than one record.
            for _ in 0..2 {
                let (acknowledged, sent, url) = (&acknowledged, &sent, node.url.clone());
                scope.spawn(move || {
                    loop {
                        let n = sent.fetch_add(1, Ordering::Relaxed);
                        let value = format!("value {n} {}", "x".repeat(n % 300));
                        let Some((status, body)) =
                            call(&url, "PUT", &format!("/v1/dht/key-{n}"), value.as_bytes())
                        else {
                            return; // killed
                        };
                        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
                        acknowledged.lock().unwrap().insert(n, value);
                    }
                });
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while acknowledged.lock().unwrap().len() < RECORDS {
            assert!(Instant::now() < deadline, "{} records", acknowledged.lock().unwrap().len());
            thread::sleep(std::time::Duration::from_millis(5));
        }
        nodes.iter().for_each(|node| node.signal(Signal::KILL));
    });
    drop(nodes);
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() >= RECORDS);
    assert!(sent.into_inner() > acknowledged.len(), "they were killed in the middle of writes");

    let nodes = start(dir.path(), NODES);
    thread::scope(|scope| {
        for (i, node) in nodes.iter().enumerate() {
            let (acknowledged, url) = (&acknowledged, node.url.clone());
            scope.spawn(move || {
                for (n, value) in acknowledged {
                    let (status, body) = call(&url, "GET", &format!("/v1/dht/key-{n}"), b"").unwrap();
                    let text = String::from_utf8_lossy(&body);
                    assert_eq!((status, &*text), (200, value.as_str()), "key-{n} at node {i}");
                }
            });
        }
    });
    // Not by luck of one holder: every record is on the disk of a majority of those that were asked.
    let held: u64 = nodes.iter().map(|node| status(node)["records"].as_u64().unwrap()).sum();
    assert!(held as usize >= acknowledged.len() * 4, "{held} copies of {}", acknowledged.len());
}

#[test]
fn a_record_is_acknowledged_when_it_is_on_the_disk_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("kad.store={}", dir.path().join("records").display());
    // Long enough that an answer that came too early would find the next commit not begun.
    let kept = Daemon::start(&["--set", &store, "--set", "kad.commit_every=3s"]);
    let other = Daemon::start(&["--dial", &kept.addr]);
    for node in [&kept, &other] {
        until(node, "the other in the table", |status| status["table"] == 1);
    }
    for (n, at) in [&kept, &other, &kept, &other].into_iter().enumerate() {
        let path = format!("/v1/dht/key-{n}?quorum=all");
        let (code, body) = call(&at.url, "PUT", &path, b"x").unwrap();
        assert_eq!((code, body), (200, b"{\"confirmed\":1}\n".to_vec()));
        let file = status(&kept)["store"]["file"].clone();
        assert_eq!(file["unsynced"], 0, "put {n} was acknowledged too early: {file}");
    }
}

#[test]
fn a_provider_and_its_records_are_served_at_once_after_a_restart_without_any_other_node() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = start(dir.path(), 2);
    let (code, out, err) = nodes[0].ask(&["dht", "put", "color", "-m", "green"]);
    assert_eq!((code, out.as_str()), (0, "stored here and confirmed by 1 others\n"), "{err}");
    assert_eq!(nodes[0].ask(&["dht", "provide", "backup"]).0, 0);
    let peers: Vec<_> = nodes.iter().map(|node| node.peer.clone()).collect();
    // The node that received the announcement has it on its disk, too; an announcement has no answer to wait for.
    until(&nodes[1], "the announcement", |s| s["store"]["providers"] == 1);
    until(&nodes[1], "the disk", |s| s["store"]["file"]["unsynced"] == 0);
    nodes.iter().for_each(|node| node.signal(Signal::KILL));
    drop(nodes);
    for (i, peer) in peers.iter().enumerate() {
        let key = format!("identity.key_file={}", dir.path().join(format!("key{i}")).display());
        let store = format!("kad.store={}", dir.path().join(format!("records{i}")).display());
        let alone = Daemon::start(&["--set", "identity.ephemeral=false", "--set", &key, "--set", &store]);
        assert_eq!(alone.peer, *peer);
        alone.line("loaded 1 records, 1 provider entries and 1 known peers from ");
        assert_eq!(alone.ask(&["dht", "get", "color"]).1, "green", "node {i}");
        assert_eq!(alone.ask(&["dht", "providers", "backup"]).1, format!("{}\n", peers[0]), "node {i}");
        let (_, text, _) = alone.ask(&["status"]);
        assert!(text.contains(&format!("records{i}, ")), "{text}");
        let metrics = call(&alone.url, "GET", "/metrics", b"").unwrap().1;
        let metrics = String::from_utf8(metrics).unwrap();
        for line in ["smidge_dht_providers 1\n", "smidge_known_peers 1\n", "smidge_store_failing 0\n"] {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
        assert!(metrics.contains("# UNIT smidge_store_file_bytes bytes\n"), "{metrics}");
        assert_eq!(alone.stop(), Some(0));
    }
}

/// `smidge run` that is to fail; exit code and stderr.
fn refused(store: &str) -> (i32, String) {
    let store = format!("kad.store={store}");
    let args = ["run", "--set", "identity.ephemeral=true", "--set", "api.listen=127.0.0.1:0"];
    let listen = ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--set", &store];
    let (code, _, err) = run(&mut smidge(&[&args[..], &listen].concat()));
    let is_log = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit());
    (code, err.lines().filter(|line| !is_log(line)).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_file_that_cannot_be_used_ends_the_node_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records");
    let at = path.display();
    fs::write(&path, "something else\n").unwrap();
    let foreign = format!(
        "smidge: kad.store: {at}: holds something else than records of smidge\n  \
         hint: set kad.store to a path where nothing is yet"
    );
    assert_eq!(refused(path.to_str().unwrap()), (78, foreign));
    assert_eq!(fs::read(&path).unwrap(), b"something else\n");

    fs::remove_file(&path).unwrap();
    let store = format!("kad.store={at}");
    let one = Daemon::start(&["--set", &store]);
    let taken = format!(
        "smidge: kad.store: {at}: another node has this file open\n  hint: give each node a kad.store of its own"
    );
    assert_eq!(refused(path.to_str().unwrap()), (78, taken));
    assert_eq!(one.stop(), Some(0));

    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let (code, err) = refused(path.to_str().unwrap());
    assert_eq!(code, 78);
    assert!(err.contains("is cut off") && err.contains(&format!("mv {at} {at}.damaged")), "{err}");

    let (code, err) = refused("/proc/nowhere/records");
    assert_eq!(code, 78);
    assert!(err.contains("cannot make its directory") && err.contains("set kad.store = \"memory\""), "{err}");
}

/// A node whose records are on a file system of 1 MiB: it takes what has room there, refuses the rest in
/// words, loses nothing, and goes on by itself when there is room again.
#[test]
fn a_full_disk_refuses_what_is_new_keeps_what_is_old_and_is_recovered_from() {
    sandbox::on_a_small_disk(
        "store::a_full_disk_refuses_what_is_new_keeps_what_is_old_and_is_recovered_from",
        |dir| {
            let store = format!("kad.store={}", dir.join("records").display());
            let node = Daemon::start(&["--set", &store]);
            let put = |node: &Daemon, n: usize| {
                let path = format!("/v1/dht/key-{n}");
                let (status, body) = call(&node.url, "PUT", &path, &[n as u8; 50_000]).unwrap();
                (status, String::from_utf8(body).unwrap())
            };
            let ballast = ["a", "b"].map(|name| dir.join(name));
            ballast.iter().for_each(|file| fs::write(file, vec![0; 200_000]).unwrap());
            let mut acknowledged = Vec::new();
            let mut fill = |at: &Daemon, from: usize| {
                for n in from..from + 30 {
                    match put(at, n) {
                        (200, _) => acknowledged.push(n),
                        refused => return refused,
                    }
                }
                panic!("the disk is not full");
            };
            // Another node, which keeps its own copies in memory: none of its puts is confirmed by a disk that
            // did not take the record.
            let other = Daemon::start(&["--dial", &node.addr]);
            until(&other, "the node in the table", |s| s["table"] == 1);
            let refusal = fill(&other, 0);
            assert_eq!(refusal.0, 503, "{refusal:?}");
            assert!(refusal.1.contains("0 nodes confirmed the record, 1 had to"), "{refusal:?}");
            until(&node, "a failure", |s| s["store"]["file"]["last_error"].is_string());
            fs::remove_file(&ballast[0]).unwrap();
            until(&node, "an end of it", |s| s["store"]["file"]["last_error"].is_null());
            // From here on the other one confirms, and it is the node itself that has to keep its word.
            for at in [&node, &other] {
                until(at, "the connection again", |s| s["peers"] == 1 && s["table"] == 1);
            }
            let refusal = fill(&node, 40);
            assert_eq!(refusal.0, 507, "{refusal:?}");
            assert!(refusal.1.contains("No space left on device"), "{refusal:?}");
            node.line("records are not on the disk, and no new ones are taken");
            let (status, body) = put(&node, 99);
            assert_eq!(status, 507);
            assert!(body.contains("the disk takes nothing"), "{body}");
            let now = until(&node, "a failure", |s| s["store"]["file"]["failures"] != 0);
            assert!(now["store"]["file"]["last_error"].as_str().unwrap().contains("No space left"), "{now}");
            // A node that is to begin on a disk without any room cannot; that is no fault of its configuration.
            let rest = dir.join("rest");
            fs::write(&rest, vec![0; 2 << 20]).unwrap_err();
            let (code, err) = refused(dir.join("new").to_str().unwrap());
            assert_eq!(code, 1, "{err}");
            assert!(err.contains("cannot make it: No space left") && err.contains("make room"), "{err}");
            fs::remove_file(&rest).unwrap();
            fs::remove_file(&ballast[1]).unwrap();
            node.line("records are on the disk again, after ");
            until(&node, "an end of it", |s| s["store"]["file"]["last_error"].is_null());
            assert_eq!(put(&node, 100).0, 200);
            assert!(acknowledged.len() > 10, "{acknowledged:?}");
            node.signal(Signal::KILL);
            drop(node);
            let node = Daemon::start(&["--set", &store]);
            for n in acknowledged.into_iter().chain([100]) {
                let (status, body) = call(&node.url, "GET", &format!("/v1/dht/key-{n}"), b"").unwrap();
                assert_eq!((status, body), (200, vec![n as u8; 50_000]), "key-{n}");
            }
            assert_eq!(node.stop(), Some(0));
        },
    );
}
