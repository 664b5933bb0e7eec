//! Publishes that others confirm: the receipt names those who keep the message, on their disks where they keep it there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use rustix::process::Signal;
use serde_json::Value;
use smidge::{
    Client, Config, Error, PublishOptions,
    config::{Keep, Store, TopicRules},
};

use crate::support::{Network, PATIENCE, TOPIC, daemon::Daemon, run};

fn keeping(net: &Network, n: u8, names: &[&str], keep: Keep) -> Config {
    let mut config = net.config(n, names);
    config.topics.insert(TOPIC.into(), TopicRules { keep: Some(keep), ..TopicRules::default() });
    config.dial.retry_max = Duration::from_millis(500);
    config
}

fn in_memory() -> Keep {
    Keep { messages: Some(1000), ..Keep::default() }
}

fn on_disk(net: &Network, n: u8, names: &[&str], dir: &Path) -> Config {
    let mut config = keeping(net, n, names, Keep { durable: true, ..in_memory() });
    config.kad.store = Store::File(dir.join(format!("records{n}")));
    config
}

fn confirmed_by(confirm: usize, timeout: Duration) -> PublishOptions {
    PublishOptions { confirm, timeout, ..PublishOptions::default() }
}

/// Waits until `client` knows of so many that follow the topic: they can be asked.
async fn followed(net: &Network, client: &Client, peers: usize) {
    net.until("followers", client, |c| async move {
        let all = c.peers().await.unwrap();
        all.iter().filter(|peer| peer.gossip == smidge::GossipState::Up).count() >= peers
    })
    .await;
    net.meshed(client, peers).await;
}

fn set(peers: &[PeerId]) -> BTreeSet<PeerId> {
    peers.iter().copied().collect()
}

#[test]
fn a_receipt_names_those_who_keep_the_message_and_nobody_else() {
    run(|net| async move {
        net.set("all", [2, 3, 4, 5]);
        let [a, b, c] = [2, 3, 4].map(|n| net.spawn(keeping(&net, n, &["all"], in_memory())));
        // It follows the topic, and keeps nothing of it.
        let d = net.spawn(net.config(5, &["all"]));
        net.everyone(&[a.clone(), b.clone(), c.clone(), d.clone()]).await;
        followed(&net, &a, 3).await;
        let both = set(&[b.peer_id(), c.peer_id()]);
        for n in 0..20 {
            let receipt = a.publish(TOPIC, n.to_string(), confirmed_by(2, PATIENCE)).await.unwrap();
            assert_eq!(set(&receipt.confirmed), both);
        }
        let too_many = a.publish(TOPIC, "x", confirmed_by(3, Duration::from_secs(10))).await;
        let Err(Error::Unconfirmed { id, by, wanted: 3, .. }) = too_many else { panic!("{too_many:?}") };
        assert_eq!((set(&by), id.is_empty()), (both.clone(), false), "they have it all the same");
        let plain = a.publish(TOPIC, "y", PublishOptions::default()).await.unwrap();
        assert!(plain.confirmed.is_empty());
        // Many at the same time, those of one call together.
        let messages: Vec<_> = (0..300).map(|n: u32| n.to_string().into_bytes()).collect();
        let receipts = a.publish_all(TOPIC, messages, confirmed_by(2, PATIENCE)).await.unwrap();
        assert_eq!(receipts.len(), 300);
        assert!(receipts.iter().all(|receipt| set(&receipt.as_ref().unwrap().confirmed) == both));
        assert_eq!(
            a.publish("other", "x", confirmed_by(1, PATIENCE)).await,
            Err(Error::NotKept("other".into()))
        );
        d.shutdown().await.unwrap();
        c.shutdown().await.unwrap();
        net.disconnected(&a, c.peer_id()).await;
        let late = a.publish(TOPIC, "z", confirmed_by(2, Duration::from_secs(10))).await;
        assert!(matches!(late, Err(Error::Unconfirmed { by, .. }) if by == [b.peer_id()]));
    });
}

#[test]
fn messages_in_a_bundle_are_confirmed_with_it() {
    run(|net| async move {
        net.set("all", [2, 3]);
        let nodes = [2, 3].map(|n| {
            let mut config = keeping(&net, n, &["all"], in_memory());
            config.topics.get_mut(TOPIC).unwrap().bundle = true;
            net.spawn(config)
        });
        let [a, b] = &nodes;
        followed(&net, a, 1).await;
        let messages: Vec<_> = (0..200).map(|n: u32| n.to_string().into_bytes()).collect();
        let receipts = a.publish_all(TOPIC, messages, confirmed_by(1, PATIENCE)).await.unwrap();
        assert!(receipts.iter().all(|receipt| receipt.as_ref().unwrap().confirmed == [b.peer_id()]));
        assert!(b.status().await.unwrap().remembered.messages < 100, "of bundles");
    });
}

#[test]
fn what_is_confirmed_is_on_the_disk_of_who_said_so_and_not_before() {
    run(|net| async move {
        net.set("all", [2, 3]);
        let dir = tempfile::tempdir().unwrap();
        let a = net.spawn(keeping(&net, 2, &["all"], in_memory()));
        let mut config = on_disk(&net, 3, &["all"], dir.path());
        // Long enough that an answer that came too early would find the next commit not begun.
        config.kad.commit_every = Duration::from_secs(2);
        let b = net.spawn(config);
        followed(&net, &a, 1).await;
        for n in 0..3 {
            let receipt = a.publish(TOPIC, n.to_string(), confirmed_by(1, PATIENCE)).await.unwrap();
            assert_eq!(receipt.confirmed, [b.peer_id()]);
            let remembered = b.status().await.unwrap().remembered;
            assert_eq!((remembered.messages, remembered.file.unwrap().unsynced), (n + 1, 0));
        }
        // One that cannot write does not say that it keeps anything.
        net.stop(&b, 3).await;
        let file = dir.path().join("records3.topics");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let b = net.spawn(on_disk(&net, 3, &["all"], dir.path()));
        net.connected(&a, [b.peer_id()]).await;
        followed(&net, &a, 1).await;
        let refused = a.publish(TOPIC, "x", confirmed_by(1, Duration::from_secs(2))).await;
        assert!(matches!(&refused, Err(Error::Unconfirmed { by, .. }) if by.is_empty()), "{refused:?}");
        fs::remove_dir(&file).unwrap();
        let receipt = a.publish(TOPIC, "y", confirmed_by(1, PATIENCE)).await.unwrap();
        assert_eq!(receipt.confirmed, [b.peer_id()]);
    });
}

#[test]
fn who_may_not_read_a_topic_confirms_nothing_of_it() {
    run(|net| async move {
        net.set("all", [2, 3]);
        let mut config = keeping(&net, 2, &["all"], in_memory());
        config.topics.get_mut(TOPIC).unwrap().read = Some([PeerId::random()].into());
        let a = net.spawn(config);
        let b = net.spawn(keeping(&net, 3, &["all"], in_memory()));
        followed(&net, &a, 1).await;
        followed(&net, &b, 1).await;
        for (from, wanted) in [(&a, 1), (&b, 1)] {
            let refused = from.publish(TOPIC, "x", confirmed_by(wanted, Duration::from_secs(2))).await;
            assert!(matches!(&refused, Err(Error::Unconfirmed { by, .. }) if by.is_empty()), "{refused:?}");
        }
    });
}

const KEPT: &str = "keep = { messages = 20000, durable = true }";

/// Node `n` of those in `dir`, which dials `others`.
fn daemon(dir: &Path, n: usize, others: &[String]) -> Daemon {
    let table = format!("topics={{ {TOPIC} = {{ {KEPT} }} }}");
    let key = format!("identity.key_file={}", dir.join(format!("key{n}")).display());
    let store = format!("kad.store={}", dir.join(format!("records{n}")).display());
    let mut args = vec!["--set", &table, "--set", "identity.ephemeral=false", "--set", &key, "--set", &store];
    args.extend(others.iter().flat_map(|addr| ["--dial", addr.as_str()]));
    Daemon::start(&args)
}

fn start(dir: &Path, count: usize) -> Vec<Daemon> {
    let mut nodes: Vec<Daemon> = Vec::new();
    for n in 0..count {
        let others: Vec<_> = nodes.iter().map(|node| node.addr.clone()).collect();
        nodes.push(daemon(dir, n, &others));
    }
    nodes
}

#[test]
fn the_command_line_says_who_keeps_it_or_that_too_few_do() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = start(dir.path(), 2);
    nodes[0].line("joined mesh");
    let publish = |args: &[&str]| nodes[0].ask(&[&["pub", "-t", TOPIC, "-m", "x"], args].concat());
    let (code, out, err) = publish(&["--confirm", "1", "--timeout", "60"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.ends_with(&format!(" to 1 peers, and kept by {}\n", nodes[1].peer)), "{out}");
    let (code, out, _) = publish(&["--confirm", "1", "--json", "--timeout", "60"]);
    let receipt: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &receipt["confirmed"]), (0, &serde_json::json!([nodes[1].peer])));
    let (code, _, err) = publish(&["--confirm", "2", "--timeout", "10"]);
    assert_eq!(code, 75, "{err}");
    let said =
        format!("was published, and 1 of 2 nodes confirmed within 10s that they keep it: {}", nodes[1].peer);
    assert!(err.contains(&said) && err.contains("--timeout 30 waits longer"), "{err}");
    let (code, _, err) = nodes[0].ask(&["pub", "-t", "other", "-m", "x", "--confirm", "1"]);
    assert_eq!(code, 1);
    assert!(err.contains("topics.\"other\".keep is not set"), "{err}");
    let lines = dir.path().join("lines");
    fs::write(&lines, (0..50).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
    let args = [
        "pub",
        "-t",
        TOPIC,
        "--lines",
        "-f",
        lines.to_str().unwrap(),
        "--confirm",
        "1",
        "--timeout",
        "60",
        "--json",
    ];
    let (code, out, err) = nodes[0].ask(&args);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().filter(|line| line.contains(&nodes[1].peer)).count(), 50, "{out}");
}

/// All the messages that a node remembers.
fn remembered(node: &Daemon) -> BTreeSet<String> {
    let (_, out, _) = node.ask(&["status", "--json"]);
    let status: Value = serde_json::from_str(&out).unwrap();
    let count = status["remembered"]["messages"].to_string();
    if count == "0" {
        return BTreeSet::new();
    }
    let (_, out, _) = node.ask(&["sub", "-t", TOPIC, "--last", &count, "--count", &count]);
    out.lines().map(str::to_owned).collect()
}

#[test]
fn nothing_that_was_confirmed_is_lost_when_all_nodes_but_one_are_killed_while_publishing() {
    const NODES: usize = 5;
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = start(dir.path(), NODES);
    for node in &nodes {
        node.line("joined mesh");
    }
    let confirmed: Mutex<BTreeMap<String, Vec<String>>> = Mutex::default();
    thread::scope(|scope| {
        for (n, node) in nodes.iter().enumerate() {
            let confirmed = &confirmed;
            scope.spawn(move || {
                for i in 0.. {
                    let text = format!("{n}-{i}");
                    let args =
                        ["pub", "-t", TOPIC, "-m", &text, "--confirm", "2", "--timeout", "15", "--json"];
                    let (code, out, _) = node.ask(&args);
                    if code != 0 || i >= 200 {
                        return;
                    }
                    let receipt: Value = serde_json::from_str(&out).unwrap();
                    let by = receipt["confirmed"].as_array().unwrap();
                    let by: Vec<_> = by.iter().map(|peer| peer.as_str().unwrap().to_owned()).collect();
                    assert!(by.len() >= 2 && !by.contains(&node.peer), "{by:?}");
                    confirmed.lock().unwrap().insert(text, by);
                }
            });
        }
        let deadline = Instant::now() + PATIENCE;
        while confirmed.lock().unwrap().len() < 60 {
            assert!(Instant::now() < deadline, "{} messages", confirmed.lock().unwrap().len());
            thread::sleep(Duration::from_millis(20));
        }
        // Whoever is left publishes until nobody confirms any more.
        nodes[1..].iter().for_each(|node| node.signal(Signal::KILL));
    });
    // Not one of them has the words of another: it is their own disks that kept them.
    let confirmed = confirmed.into_inner().unwrap();
    nodes.drain(..).for_each(|node| node.signal(Signal::KILL));
    let mut alone: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for n in 0..NODES {
        let node = daemon(dir.path(), n, &[]);
        alone.insert(node.peer.clone(), remembered(&node));
        assert_eq!(node.stop(), Some(0));
    }
    for (text, by) in &confirmed {
        for peer in by {
            assert!(alone[peer].contains(text), "{peer} said that it keeps {text}");
        }
    }
    // Together they have it all, each of them.
    let nodes = start(dir.path(), NODES);
    let deadline = Instant::now() + PATIENCE;
    for node in &nodes {
        while !confirmed.keys().all(|text| remembered(node).contains(text)) {
            assert!(Instant::now() < deadline, "{} of {}", remembered(node).len(), confirmed.len());
            thread::sleep(Duration::from_millis(100));
        }
    }
    println!("{} confirmed, none lost", confirmed.len());
}
