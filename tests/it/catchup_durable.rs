//! Topics that remember on disk: nodes that are started again, killed, whose files are damaged or whose disks are full.

use std::{fs, path::Path, time::Duration};

use futures::StreamExt;
use libp2p::{Swarm, identity::Keypair};
use rustix::process::Signal;
use serde_json::Value;
use smidge::{
    Client, Config, Delivery, Message, PublishOptions, Start, Subscription,
    config::{Keep, Store, TopicRules},
    gossip::{self, Authenticity, Author, Topic},
};

use crate::support::{Network, PATIENCE, TOPIC, bare, daemon::Daemon, now, run, sandbox};

/// A config of a node that keeps so many messages of [`TOPIC`] in `dir`.
fn durable(net: &Network, n: u8, names: &[&str], dir: &Path, messages: usize) -> Config {
    let mut config = net.config(n, names);
    let keep = Keep { messages: Some(messages), durable: true, ..Keep::default() };
    config.topics.insert(TOPIC.into(), TopicRules { keep: Some(keep), ..TopicRules::default() });
    config.kad.store = Store::File(dir.join(format!("records{n}")));
    config.dial.retry_max = Duration::from_millis(500);
    config.check().unwrap();
    config
}

async fn say(client: &Client, numbers: std::ops::Range<u32>) {
    let nobody = PublishOptions { wait_peers: Some(0), ..PublishOptions::default() };
    for n in numbers {
        client.publish(TOPIC, n.to_string(), nobody).await.unwrap();
    }
}

fn number(message: &Message) -> u32 {
    std::str::from_utf8(&message.data).unwrap().parse().unwrap()
}

async fn numbers(net: &Network, subscription: &mut Subscription, count: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        match net.patiently("a delivery", subscription.next_delivery()).await.unwrap() {
            Delivery::Item(message) => numbers.push(number(&message)),
            other => panic!("{other:?} behind {numbers:?}"),
        }
    }
    numbers
}

async fn remembered(client: &Client) -> usize {
    client.status().await.unwrap().remembered.messages
}

#[test]
fn a_node_that_is_started_again_has_its_memory_and_its_positions_go_on() {
    run(|net| async move {
        let (dir, key) = (tempfile::tempdir().unwrap(), Keypair::generate_ed25519());
        let config = durable(&net, 2, &[], dir.path(), 80);
        let a = net.spawn_as(config.clone(), &key);
        let mut first = a.subscribe(TOPIC).await.unwrap();
        say(&a, 0..100).await;
        let mut positions = Vec::new();
        for n in 0..100 {
            let message = net.message(&mut first).await;
            assert_eq!(number(&message), n);
            positions.push(message.position.unwrap());
        }
        net.stop(&a, 2).await;
        let again = net.spawn_as(config.clone(), &key);
        assert_eq!(remembered(&again).await, 80, "as soon as it is there");
        let mut behind = again.subscribe_from(TOPIC, Start::Behind(positions[40])).await.unwrap();
        assert_eq!(numbers(&net, &mut behind, 59).await, (41..100).collect::<Vec<_>>());
        let mut too_far = again.subscribe_from(TOPIC, Start::Behind(positions[10])).await.unwrap();
        let first = net.patiently("a delivery", too_far.next_delivery()).await;
        assert_eq!(first, Some(Delivery::Gone));
        say(&again, 100..105).await;
        assert_eq!(numbers(&net, &mut behind, 5).await, (100..105).collect::<Vec<_>>());
        assert_eq!(now(&mut behind), None);
        // Once more, and one that it gave out since.
        let mut live = again.subscribe(TOPIC).await.unwrap();
        say(&again, 105..107).await;
        let position = net.message(&mut live).await.position.unwrap();
        net.stop(&again, 2).await;
        let third = net.spawn_as(config, &key);
        let mut rest = third.subscribe_from(TOPIC, Start::Behind(position)).await.unwrap();
        assert_eq!(numbers(&net, &mut rest, 1).await, [106]);
    });
}

#[test]
fn what_was_missed_while_away_comes_once_and_behind_what_was_there() {
    run(|net| async move {
        net.set("all", [2, 3]);
        let (dir, key) = (tempfile::tempdir().unwrap(), Keypair::generate_ed25519());
        let a = net.spawn(durable(&net, 2, &["all"], dir.path(), 1000));
        let config = durable(&net, 3, &["all"], dir.path(), 1000);
        let b = net.spawn_as(config.clone(), &key);
        net.meshed(&a, 1).await;
        let mut at_b = b.subscribe(TOPIC).await.unwrap();
        say(&a, 0..50).await;
        let mut last = None;
        for n in 0..50 {
            let message = net.message(&mut at_b).await;
            assert_eq!(number(&message), n);
            last = message.position;
        }
        net.stop(&b, 3).await;
        net.disconnected(&a, b.peer_id()).await;
        say(&a, 50..120).await;
        let again = net.spawn_as(config, &key);
        let mut rest = again.subscribe_from(TOPIC, Start::Behind(last.unwrap())).await.unwrap();
        assert_eq!(numbers(&net, &mut rest, 70).await, (50..120).collect::<Vec<_>>());
        assert_eq!(now(&mut rest), None);
    });
}

/// A node in a process of its own that keeps [`TOPIC`] in `dir`.
fn daemon(dir: &Path, key: &str, more: &[&str]) -> Daemon {
    let table = format!("topics={{ {TOPIC} = {{ keep = {{ messages = 2000, durable = true }} }} }}");
    let key = format!("identity.key_file={}", dir.join(key).display());
    let store = format!("kad.store={}", dir.join("records").display());
    let own = ["--set", &table, "--set", "identity.ephemeral=false", "--set", &key, "--set", &store];
    Daemon::start(&[&own[..], more].concat())
}

fn publish(node: &Daemon, text: &str) {
    let (code, _, err) = node.ask(&["pub", "-t", TOPIC, "-m", text, "--wait-peers", "0"]);
    assert_eq!(code, 0, "{err}");
}

/// Waits until `done` holds of what a node's status says of its memory.
fn until(node: &Daemon, what: &str, done: impl Fn(&Value) -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let (_, out, err) = node.ask(&["status", "--json"]);
        let status: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
        if done(&status["remembered"]) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "waited in vain for {what}: {}", status["remembered"]);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_node_that_is_killed_has_what_was_on_its_disk_and_tells_of_what_may_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(dir.path(), "key", &[]);
    (0..20).for_each(|n| publish(&node, &n.to_string()));
    let (_, out, err) = node.ask(&["sub", "-t", TOPIC, "--last", "8", "--count", "1", "--json"]);
    let first: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!(first["data"], "12");
    let position = first["position"].as_str().unwrap().to_owned();
    until(&node, "the disk", |memory| memory["file"]["unsynced"] == 0);
    node.signal(Signal::KILL);
    drop(node);
    let node = daemon(dir.path(), "key", &[]);
    node.line("loaded 20 remembered messages from ");
    let (code, out, err) = node.ask(&["sub", "-t", TOPIC, "--since", &position, "--count", "7", "--json"]);
    assert_eq!(code, 0, "{err}");
    let said: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said[0], serde_json::json!({ "gone": true }), "what came last may not be on the disk");
    let rest: Vec<_> = said[1..].iter().map(|message| message["data"].as_str().unwrap()).collect();
    assert_eq!(rest, ["13", "14", "15", "16", "17", "18", "19"]);
    // From a run that ended in good order on, nothing may be.
    let position = said[1]["position"].as_str().unwrap().to_owned();
    assert_eq!(node.stop(), Some(0));
    let node = daemon(dir.path(), "key", &[]);
    publish(&node, "20");
    let (_, out, _) = node.ask(&["sub", "-t", TOPIC, "--last", "1", "--count", "1", "--json"]);
    let last: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(last["data"], "20");
    let last = last["position"].as_str().unwrap().to_owned();
    assert_ne!(last, position);
    assert_eq!(node.stop(), Some(0));
    let node = daemon(dir.path(), "key", &[]);
    publish(&node, "21");
    let (code, out, err) = node.ask(&["sub", "-t", TOPIC, "--since", &last, "--count", "1"]);
    assert_eq!((code, out.as_str()), (0, "21\n"), "{err}");
}

#[test]
fn a_damaged_file_is_set_aside_and_the_memory_fetched_from_neighbours() {
    run(|net| async move {
        net.set("all", [2, 3]);
        let (dir, key) = (tempfile::tempdir().unwrap(), Keypair::generate_ed25519());
        let a = net.spawn(durable(&net, 2, &["all"], dir.path(), 1000));
        let config = durable(&net, 3, &["all"], dir.path(), 1000);
        let b = net.spawn_as(config.clone(), &key);
        net.meshed(&a, 1).await;
        say(&a, 0..40).await;
        let has_all = async |c: Client| remembered(&c).await == 40;
        net.until("all messages", &b, has_all).await;
        net.stop(&b, 3).await;
        let file = dir.path().join("records3.topics");
        let mut bytes = fs::read(&file).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let again = net.spawn_as(config.clone(), &key);
        net.until("all messages again", &again, has_all).await;
        assert_eq!(fs::read(dir.path().join("records3.topics.damaged")).unwrap(), bytes);
        net.stop(&again, 3).await;
        // Something that cannot be opened at all is in the way: what is remembered is in memory until it is gone.
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let third = net.spawn_as(config.clone(), &key);
        net.until("all messages in memory", &third, has_all).await;
        let status = third.status().await.unwrap().remembered.file.unwrap();
        assert!(status.last_error.unwrap().contains("is a directory"));
        fs::remove_dir(&file).unwrap();
        let is_open = async |c: Client| {
            let file = c.status().await.unwrap().remembered.file.unwrap();
            file.last_error.is_none() && file.unsynced == 0 && file.commits > 0
        };
        net.until("the file again", &third, is_open).await;
        net.stop(&third, 3).await;
        a.shutdown().await.unwrap();
        assert_eq!(remembered(&net.spawn_as(config, &key)).await, 40);
    });
}

/// A node whose disk has 1 MiB: it goes on in memory when that is full, and writes all when there is room again.
#[test]
fn a_full_disk_loses_nothing_that_is_remembered_and_is_recovered_from() {
    sandbox::on_a_small_disk(
        "catchup_durable::a_full_disk_loses_nothing_that_is_remembered_and_is_recovered_from",
        |dir| {
            let node = daemon(dir, "key", &[]);
            publish(&node, "first");
            until(&node, "the disk", |memory| memory["file"]["unsynced"] == 0);
            let rest = dir.join("rest");
            fs::write(&rest, vec![0; 2 << 20]).unwrap_err();
            let lines: String = (0..500).map(|n| format!("{n} {}\n", "x".repeat(200))).collect();
            let input = dir.parent().unwrap().join("lines");
            fs::write(&input, lines).unwrap();
            let args = ["pub", "-t", TOPIC, "--lines", "-f", input.to_str().unwrap(), "--wait-peers", "0"];
            assert_eq!(node.ask(&args).0, 0);
            node.line("what topics remember is in memory only: ");
            until(&node, "a failure", |memory| {
                memory["file"]["last_error"].as_str().is_some_and(|why| why.contains("No space left"))
            });
            until(&node, "all of it", |memory| memory["messages"] == 501);
            fs::remove_file(&rest).unwrap();
            node.line("what topics remember is on the disk again, after ");
            until(&node, "the disk", |memory| memory["file"]["unsynced"] == 0);
            node.signal(Signal::KILL);
            drop(node);
            let node = daemon(dir, "key", &[]);
            node.line("loaded 501 remembered messages from ");
        },
    );
}

/// A number of this time as docs/CATCHUP.md has it.
fn numbered(millis: u64) -> u64 {
    let stamp = millis << 6;
    stamp << 16 | stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48
}

fn wall() -> u64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since_1970.as_millis() as u64
}

/// A bare gossip peer that says, as `author`, these numbers at these times, once it has a subscriber; until it is dropped.
async fn speaker(net: &Network, to: u8, author: &Keypair, said: &[(u64, u32)]) -> Swarm<gossip::Behaviour> {
    let key = Keypair::generate_ed25519();
    let author = Author::new(Authenticity::Signed(author.clone()), 0);
    let config = gossip::Config::default();
    let behaviour = gossip::Behaviour::new(config, key.public().to_peer_id(), author).unwrap();
    let mut swarm = bare::swarm(&net.rt, &key, behaviour);
    swarm.dial(net.addr(to)).unwrap();
    let topic = Topic::from(TOPIC);
    swarm.behaviour_mut().subscribe(&topic);
    net.patiently("a subscriber", async {
        while swarm.behaviour().core().subscriber_count(TOPIC) == 0 {
            swarm.select_next_some().await;
        }
    })
    .await;
    for (time, n) in said {
        let gossip = swarm.behaviour_mut();
        gossip.core_mut().number_above(numbered(*time) - 1);
        gossip.publish(&topic, n.to_string().as_bytes()).unwrap();
    }
    swarm
}

/// The next messages of a subscription, while `swarm` goes on.
async fn heard(
    net: &Network,
    swarm: &mut Swarm<gossip::Behaviour>,
    subscription: &mut Subscription,
    count: usize,
) -> Vec<u32> {
    let mut heard = Vec::new();
    let hears = async {
        while heard.len() < count {
            heard.push(number(&subscription.next().await.unwrap()));
        }
    };
    let goes_on = async {
        loop {
            swarm.select_next_some().await;
        }
    };
    net.patiently("messages", futures::future::select(std::pin::pin!(hears), std::pin::pin!(goes_on))).await;
    heard
}

#[test]
fn a_command_of_before_a_restart_is_not_carried_out_again_whoever_sends_it() {
    run(|net| async move {
        let (dir, key) = (tempfile::tempdir().unwrap(), Keypair::generate_ed25519());
        let (victim, began) = (Keypair::generate_ed25519(), wall() - 60_000);
        let config = durable(&net, 2, &[], dir.path(), 3);
        let commands: Vec<_> = (0..10).map(|n| (began + u64::from(n), n)).collect();
        let a = net.spawn_as(config.clone(), &key);
        net.listening(&a).await;
        let mut at_a = a.subscribe(TOPIC).await.unwrap();
        let mut swarm = speaker(&net, 2, &victim, &commands).await;
        assert_eq!(heard(&net, &mut swarm, &mut at_a, 10).await, (0..10).collect::<Vec<_>>());
        drop(swarm);
        net.stop(&a, 2).await;
        // Others have the messages, signed as they are: they are the same bytes again.
        let again = net.spawn_as(config, &key);
        net.listening(&again).await;
        assert_eq!(remembered(&again).await, 3);
        let mut at_again = again.subscribe(TOPIC).await.unwrap();
        let news = [&commands[..], &[(began + 30_000, 77)]].concat();
        let mut hostile = speaker(&net, 2, &victim, &news).await;
        assert_eq!(heard(&net, &mut hostile, &mut at_again, 1).await, [77], "and nothing of before");
        assert_eq!(now(&mut at_again), None);
        let mut counted = String::new();
        prometheus_client::encoding::text::encode(&mut counted, again.metrics()).unwrap();
        assert!(
            counted.contains("smidge_messages_ignored_total 7\n"),
            "what was let go, and is refused: {counted}"
        );
    });
}

#[test]
fn authors_whose_clocks_are_an_hour_off_are_heard_once_and_in_order_also_by_who_joins() {
    run(|net| async move {
        net.set("all", [2]);
        let (dir, hour) = (tempfile::tempdir().unwrap(), 3_600_000);
        let a = net.spawn(durable(&net, 2, &[], dir.path(), 100));
        net.listening(&a).await;
        let mut at_a = a.subscribe(TOPIC).await.unwrap();
        let (slow, fast, base) = (Keypair::generate_ed25519(), Keypair::generate_ed25519(), wall());
        let early: Vec<_> = (0..20).map(|n| (base - hour + u64::from(n), n)).collect();
        let late: Vec<_> = (100..120).map(|n| (base + hour + u64::from(n), n)).collect();
        let mut swarm = speaker(&net, 2, &slow, &early).await;
        assert_eq!(heard(&net, &mut swarm, &mut at_a, 20).await, (0..20).collect::<Vec<_>>());
        let mut swarm = speaker(&net, 2, &fast, &late).await;
        assert_eq!(heard(&net, &mut swarm, &mut at_a, 20).await, (100..120).collect::<Vec<_>>());
        drop(swarm);
        let b = net.spawn(durable(&net, 3, &["all"], dir.path(), 100));
        let mut at_b = b.subscribe_from(TOPIC, Start::At(0)).await.unwrap();
        let all = numbers(&net, &mut at_b, 40).await;
        assert_eq!(all, (0..20).chain(100..120).collect::<Vec<_>>());
        assert_eq!(now(&mut at_b), None);
    });
}
