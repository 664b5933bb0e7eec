//! What is accepted arrives, and what is too large costs nothing else: each limit that docs/limits.md says is ours
//! to set, at it, below it and above it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use futures::{StreamExt, channel::oneshot, future::join_all, stream};
use libp2p::{Multiaddr, identity::Keypair, multiaddr::Protocol};
use rustix::process::Signal;
use smidge::{Client, Config, Error, Event, Oversize, PublishOptions, PutOptions, Quorum, Subscription};

use crate::support::{Network, PATIENCE, TOPIC, daemon::Daemon, run, text};

/// The default of `gossip.max_message`.
const MAX: usize = 63 << 10;

#[derive(Clone, Copy, Debug)]
enum Over {
    Quic,
    Tcp,
}

fn wait_for(wait_peers: usize) -> PublishOptions {
    PublishOptions { wait_peers: Some(wait_peers), timeout: PATIENCE, ..PublishOptions::default() }
}

/// Replica `n`, which is to dial `names`, over QUIC or TCP.
fn over(net: &Network, over: Over, n: u8, names: &[&str]) -> Config {
    let mut config = net.config(n, names);
    if let Over::Tcp = over {
        config.listen.addresses = vec![Multiaddr::from(net.ip(n)).with(Protocol::Tcp(net.port))];
    }
    config
}

/// A node that listens, its messages, and a node that dials it, changed by these.
async fn pair(
    net: &Network,
    by: Over,
    change: impl Fn(&mut Config, &mut Config),
) -> (Client, Subscription, Client) {
    net.set("a", [2]);
    let (mut a, mut b) = (over(net, by, 2, &[]), over(net, by, 3, &["a"]));
    change(&mut a, &mut b);
    let (a, b) = (net.spawn(a), net.spawn(b));
    let messages = a.subscribe(TOPIC).await.unwrap();
    net.meshed(&b, 1).await;
    net.meshed(&a, 1).await;
    (a, messages, b)
}

async fn publish(node: &Client, payload: impl Into<Vec<u8>>) -> Result<(), Error> {
    node.publish(TOPIC, payload, wait_for(1)).await.map(|_| ())
}

#[test]
fn the_largest_message_arrives_and_a_larger_one_is_refused_where_it_is_published() {
    run(async |net| {
        for by in [Over::Quic, Over::Tcp] {
            let (a, mut at_a, b) = pair(&net, by, |_, _| {}).await;
            for bytes in [1, MAX - 1, MAX] {
                publish(&b, vec![b'x'; bytes]).await.unwrap();
                assert_eq!(net.message(&mut at_a).await.data.len(), bytes, "over {by:?}");
            }
            for bytes in [MAX + 1, 65_405, 65_410, 65_536, 1 << 20] {
                let refused = publish(&b, vec![b'x'; bytes]).await;
                assert_eq!(refused, Err(Error::MessageTooLarge { bytes, limit: MAX }));
            }
            for word in ["one", "two"] {
                publish(&b, word).await.unwrap();
                assert_eq!(text(&net.message(&mut at_a).await), word, "over {by:?}");
            }
            for node in [a, b] {
                node.shutdown().await.unwrap();
            }
        }
    });
}

#[test]
fn messages_at_each_other_s_heels_all_arrive() {
    run(async |net| {
        for by in [Over::Quic, Over::Tcp] {
            let (a, mut at_a, b) = pair(&net, by, |_, _| {}).await;
            let sizes = [vec![64_000; 5], vec![1; 8], vec![60_000; 20], vec![MAX; 20], vec![1]].concat();
            let (said, heard) = futures::join!(
                async {
                    for bytes in &sizes {
                        publish(&b, vec![b'x'; *bytes]).await.unwrap();
                    }
                },
                async {
                    let mut heard = Vec::new();
                    for _ in &sizes {
                        heard.push(net.message(&mut at_a).await.data.len());
                    }
                    heard
                }
            );
            let () = said;
            assert_eq!(heard, sizes, "over {by:?}");
            for node in [a, b] {
                node.shutdown().await.unwrap();
            }
        }
    });
}

#[test]
fn what_is_too_large_for_one_node_costs_nothing_that_comes_after_it() {
    run(async |net| {
        for by in [Over::Quic, Over::Tcp] {
            let (a, mut at_a, b) = pair(&net, by, |_, b| b.gossip.max_message = 16 << 20).await;
            let mut events = a.events();
            // Above the limit of messages, around that of frames (384 KiB), and far above; more often than gossipsub
            // would make streams.
            let large = [MAX + 1, 100_000, 392_000, 393_216, 400_000, 1 << 20, 1 << 20, 1 << 20, 16 << 20];
            for (n, bytes) in large.into_iter().enumerate() {
                publish(&b, vec![b'x'; bytes]).await.unwrap();
                publish(&b, format!("after {n}")).await.unwrap();
                assert_eq!(text(&net.message(&mut at_a).await), format!("after {n}"), "over {by:?}");
            }
            let reported = net.event(&mut events, "a word on what was too large", |event| match event {
                Event::Oversized { peer, what, .. } => Some((*peer, *what)),
                _ => None,
            });
            assert_eq!(reported.await, (b.peer_id(), Oversize::Message { bytes: MAX + 1, limit: MAX }));
            publish(&a, "and back").await.unwrap();
            for node in [a, b] {
                node.shutdown().await.unwrap();
            }
        }
    });
}

/// `count` topics of `length` bytes.
fn topics(count: usize, length: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:0>length$}")).collect()
}

#[test]
fn as_many_topics_as_are_promised_work_also_when_a_peer_is_back() {
    run(async |net| {
        // Each node at an address of its own: on a busy machine a socket may close later than its node has ended.
        for (n, (count, length)) in (2..).zip([(300, 59), (1000, 30), (1024, 256)]) {
            net.set("a", [n]);
            let mut config = net.config(n, &[]);
            config.gossip.topics = topics(count, length);
            let a = net.spawn(config);
            let last = topics(count, length).pop().unwrap();
            let mut at_a = a.subscribe(last.clone()).await.unwrap();
            let key = Keypair::generate_ed25519();
            for (at, round) in [(10, "first"), (20, "again")] {
                let b = net.spawn_as(net.config(at + n, &["a"]), &key);
                b.publish(last.clone(), round, wait_for(1)).await.unwrap();
                assert_eq!(text(&net.message(&mut at_a).await), round, "{count} topics of {length} bytes");
                b.shutdown().await.unwrap();
            }
            a.shutdown().await.unwrap();
        }
    });
}

#[test]
fn a_topic_more_than_is_promised_is_refused_where_it_is_asked_for() {
    run(async |net| {
        let mut config = net.config(2, &[]);
        config.limits.topics = 3;
        config.gossip.topics = topics(2, 8);
        let node = net.spawn(config.clone());
        let _third = node.subscribe("third").await.unwrap();
        let refused = node.subscribe("fourth").await.map(|_| ());
        assert_eq!(refused, Err(Error::Limit { what: "topics", limit: 3, key: "limits.topics" }));
        assert!(node.subscribe("third").await.is_ok(), "it is followed already");
        assert!(node.subscribe("x".repeat(256)).await.is_err());
        node.unsubscribe("third").await.unwrap();
        let _longest = node.subscribe("x".repeat(256)).await.unwrap();
        let too_long = node.subscribe("x".repeat(257)).await.map(|_| ());
        assert!(matches!(too_long, Err(Error::BadTopic { .. })), "{too_long:?}");
    });
}

#[test]
fn what_is_announced_never_breaks_a_link() {
    run(async |net| {
        // Of three, two are in each other's mesh and announce to the third all that they heard in three heartbeats.
        net.set("all", [2, 3, 4]);
        let node = |n| {
            let mut config = net.config(n, &["all"]);
            config.gossip.mesh_n = 1;
            config.gossip.mesh_n_low = 1;
            config.gossip.mesh_n_high = 1;
            config.gossip.mesh_outbound_min = 0;
            config.gossip.heartbeat = Duration::from_secs(1);
            config.limits.events = 4096;
            net.spawn(config)
        };
        let nodes: Vec<_> = (2..=4).map(node).collect();
        net.everyone(&nodes).await;
        let mut heard: Vec<_> =
            join_all(nodes.iter().map(async |n| n.subscribe(TOPIC).await.unwrap().no_local())).await;
        for round in 0..2 {
            // Ids of some 71 bytes: 16 KiB hold 224 of them.
            for n in 0..400 {
                let from = &nodes[n % 3];
                from.publish(TOPIC, format!("{round}-{n}"), wait_for(2)).await.unwrap();
            }
            for (at, heard) in heard.iter_mut().enumerate() {
                let mut missing: std::collections::BTreeSet<_> =
                    (0..400).filter(|n| n % 3 != at).map(|n| format!("{round}-{n}")).collect();
                while !missing.is_empty() {
                    assert!(missing.remove(&text(&net.message(heard).await)));
                }
            }
            // The heartbeats that announce all this.
            net.rt.sleep(Duration::from_millis(2_500)).await;
        }
        for (n, from) in nodes.iter().enumerate() {
            from.publish(TOPIC, format!("last {n}"), wait_for(2)).await.unwrap();
            for (at, heard) in heard.iter_mut().enumerate().filter(|(at, _)| *at != n) {
                assert_eq!(text(&net.message(heard).await), format!("last {n}"), "at {at}");
            }
        }
    });
}

#[test]
fn a_writer_that_is_too_fast_waits_and_only_who_does_not_want_to_wait_is_refused() {
    let slow = ["--topic", TOPIC, "--set", "quic.idle_timeout=5m"];
    let reader = Daemon::start(&slow);
    let writer = Daemon::start(&["--dial", &reader.addr, "--set", "quic.idle_timeout=5m"]);
    let publish = ["pub", "-t", TOPIC, "--timeout"];
    let (code, _, err) = writer.ask(&[&publish[..], &["60", "-m", "x"]].concat());
    assert_eq!(code, 0, "{err}");
    reader.signal(Signal::STOP);
    // More than windows and queue hold.
    let mut lines = writer.asked(&[&publish[..], &["120", "--lines"]].concat());
    let mut lines = lines.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = lines.stdin.take().unwrap();
    let fed = thread::spawn(move || (0..3000).try_for_each(|n| writeln!(input, "{n:02000}")));
    let refused = (0..)
        .map(|_| writer.ask(&[&publish[..], &["0", "-m", "y"]].concat()))
        .find(|(code, _, _)| *code != 0)
        .unwrap();
    assert_eq!(refused.0, 75, "{}", refused.2);
    assert!(refused.2.contains("the queues to 1 peers are full"), "{}", refused.2);
    assert!(lines.try_wait().unwrap().is_none(), "it waits");
    reader.signal(Signal::CONT);
    let ended = lines.wait_with_output().unwrap();
    fed.join().unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stdout).lines().count(), 3000);
}

#[test]
fn a_burst_is_handed_to_all_who_read_and_none_of_it_is_lost() {
    const MESSAGES: usize = 5000;
    run(async |net| {
        net.set("all", 2..=4);
        let node = |n| {
            let mut config = net.config(n, &["all"]);
            // Filled again and again.
            config.gossip.queue = 64 << 10;
            config.limits.pending = 256;
            net.spawn(config)
        };
        let nodes: Vec<_> = (2..=4).map(node).collect();
        net.everyone(&nodes).await;
        let publisher = &nodes[0];
        let publish = |n: usize| publisher.publish(TOPIC, format!("{n:0100}"), wait_for(2));
        let receipts = stream::iter(0..MESSAGES).map(publish).buffered(256).collect::<Vec<_>>().await;
        let handed: usize = receipts.into_iter().map(|receipt| receipt.unwrap().peers).sum();
        assert_eq!(handed, 2 * MESSAGES);
        for node in &nodes[1..] {
            let all =
                |c: Client| async move { c.status().await.unwrap().traffic.received == MESSAGES as u64 };
            net.until("all messages", node, all).await;
        }
    });
}

#[test]
fn a_record_of_any_size_that_is_taken_reaches_the_others_and_a_larger_one_is_refused_where_it_is_put() {
    run(async |net| {
        for by in [Over::Quic, Over::Tcp] {
            let (a, _, b) = pair(&net, by, |_, _| {}).await;
            net.table(&a, 1).await;
            net.table(&b, 1).await;
            let options = || PutOptions { quorum: Quorum::All, ..PutOptions::default() };
            for bytes in [1, 16_300, 16_500, (64 << 10) - 1, 64 << 10] {
                let key = format!("{bytes}-{}", "k".repeat(200));
                let stored = b.put(key.clone(), vec![7; bytes], options()).await;
                let stored = stored.unwrap_or_else(|e| panic!("{bytes} bytes over {by:?}: {e}"));
                assert_eq!(stored.confirmed, 1, "{bytes} bytes over {by:?}");
                assert_eq!(a.get(key, 1).await.unwrap().len(), bytes);
            }
            let refused = b.put("more", vec![7; (64 << 10) + 1], options()).await;
            assert!(
                matches!(&refused, Err(Error::Store(why)) if why.contains("kad.max_value")),
                "{refused:?}"
            );
            for (length, taken) in [(4096, true), (4097, false)] {
                let key = "k".repeat(length);
                let stored = b.put(key.clone(), vec![7; 64 << 10], options()).await;
                let provided = b.provide(key).await;
                assert_eq!((stored.is_ok(), provided.is_ok()), (taken, taken), "{stored:?} {provided:?}");
            }
            // A node that takes less refuses in silence: that this may be the reason is said.
            let small = format!("small-{by:?}");
            net.set(&small, [3]);
            let mut config = over(&net, by, 4, &[&small]);
            config.kad.max_value = 1024;
            let c = net.spawn(config);
            net.table(&b, 2).await;
            net.table(&c, 1).await;
            let refused = b.put("large", vec![7; 64 << 10], options()).await.unwrap_err();
            assert!(matches!(refused, Error::Quorum { confirmed: 1, wanted: 2, .. }), "{refused:?}");
            assert!(refused.to_string().contains("smaller kad.max_value"), "{refused}");
            assert_eq!(b.put("small", vec![7; 1024], options()).await.unwrap().confirmed, 2);
            c.shutdown().await.unwrap();
            for node in [a, b] {
                node.shutdown().await.unwrap();
            }
        }
    });
}

#[test]
fn a_subscriber_that_reads_loses_nothing_of_a_burst() {
    const MESSAGES: usize = 4_000;
    run(async |net| {
        let (a, mut at_a, b) = pair(&net, Over::Quic, |a, _| a.limits.events = 128).await;
        let (ended, outcomes) = oneshot::channel();
        let publisher = b.clone();
        net.rt.spawn(async move {
            let one = |n: usize| publish(&publisher, format!("{n:0100}"));
            let outcomes: Vec<_> = stream::iter(0..MESSAGES).map(one).buffer_unordered(512).collect().await;
            let _ = ended.send(outcomes);
        });
        for _ in 0..MESSAGES {
            net.message(&mut at_a).await;
        }
        for outcome in outcomes.await.unwrap() {
            outcome.unwrap();
        }
        for node in [a, b] {
            node.shutdown().await.unwrap();
        }
    });
}

/// A group of processes with a memory limit (cgroups(7), version 1 or 2; root).
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new(bytes: u64) -> Self {
        static GROUPS: AtomicUsize = AtomicUsize::new(0);
        let first = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = match first.exists() {
            true => (first, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let name = format!("smidge-test-{}-{}", std::process::id(), GROUPS.fetch_add(1, Ordering::Relaxed));
        let group = Self(root.join(name));
        fs::create_dir(&group.0).unwrap();
        fs::write(group.0.join(limit), bytes.to_string()).unwrap();
        group
    }

    fn take(&self, node: &Daemon) {
        fs::write(self.0.join("cgroup.procs"), node.pid().to_string()).unwrap();
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Bytes of memory that are a process's own: neither files nor shared.
fn anonymous(node: &Daemon) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Messages that arrived at a node.
fn received(node: &Daemon) -> u64 {
    let (code, out, err) = node.ask(&["status", "--json"]);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str::<serde_json::Value>(&out).unwrap()["traffic"]["received"].as_u64().unwrap()
}

#[test]
fn what_gossip_remembers_stays_within_a_share_of_the_memory_whatever_others_send() {
    const MESSAGES: usize = 20_000;
    run(async |net| {
        let settings = ["limits.memory=48MiB", "gossip.seen_ids=10000", "gossip.history=1MiB"];
        let settings: Vec<_> = settings.iter().flat_map(|set| ["--set", set]).collect();
        let reader = Daemon::start(&[&["--topic", TOPIC][..], &settings].concat());
        let publishers: Vec<_> = (2..=3)
            .map(|n| {
                let mut config = net.config(n, &[]);
                config.dial.names = vec![reader.addr.parse().unwrap()];
                config.limits.pending = 128;
                net.spawn(config)
            })
            .collect();
        for node in &publishers {
            net.meshed(node, 1).await;
        }
        let before = anonymous(&reader);
        let said = publishers.iter().map(|node| {
            let one = |n: usize| publish(node, format!("{n:0100}"));
            stream::iter(0..MESSAGES / 2).map(one).buffer_unordered(64).collect::<Vec<_>>()
        });
        for outcome in join_all(said).await.concat() {
            outcome.unwrap();
        }
        // The end is all of them, or half a minute of silence: that is a failure then, and not a test without end.
        let (mut most, mut came, mut silent) = (anonymous(&reader), 0, 0);
        while came < MESSAGES as u64 && silent < 600 {
            most = most.max(anonymous(&reader));
            net.rt.sleep(Duration::from_millis(50)).await;
            let now = received(&reader);
            silent = if now == came { silent + 1 } else { 0 };
            came = now;
        }
        // More, where an id was forgotten at its bound and a late copy came.
        assert!(came >= MESSAGES as u64, "{came} of {MESSAGES}");
        let grown = most.max(anonymous(&reader)).saturating_sub(before);
        eprintln!("GROWN {} KiB of {} KiB", grown >> 10, before >> 10);
        // As libp2p-gossipsub has it, 20,000 ids alone are 21 MB.
        assert!(grown < 8 << 20, "{} KiB more than before {MESSAGES} messages", grown >> 10);
        reader.line("gossip is at its bounds");
    });
}

/// In a release build: `cargo test --release --test it -- --ignored a_container`.
#[test]
#[ignore = "ten minutes, a release build, root: .ci/run memory"]
fn a_container_of_the_shipped_size_lives_whatever_others_send() {
    let shipped = ["--topic", TOPIC, "--set", "limits.memory=48MiB"];
    let first = Daemon::start(&shipped);
    let second = Daemon::start(&[&shipped[..], &["--dial", &first.addr]].concat());
    let dial = ["--dial", &first.addr, "--dial", &second.addr];
    let publishers: Vec<_> = (0..3).map(|_| Daemon::start(&dial)).collect();
    let groups = [&first, &second].map(|node| {
        let group = MemoryGroup::new(64_000_000);
        group.take(node);
        group
    });
    let until = Instant::now() + Duration::from_secs(600);
    let line = format!("{:0100}\n", 0);
    let writers: Vec<_> = publishers
        .iter()
        .map(|node| {
            let mut lines = node.asked(&["pub", "-t", TOPIC, "--timeout", "60", "--lines"]);
            let mut lines = lines.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let (mut input, line) = (lines.stdin.take().unwrap(), line.clone());
            thread::spawn(move || {
                while Instant::now() < until && input.write_all(line.as_bytes()).is_ok() {}
                drop(input);
                lines.wait().unwrap().code()
            })
        })
        .collect();
    let ended: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    for node in [&first, &second] {
        let (code, _, err) = node.ask(&["health"]);
        assert_eq!(code, 0, "{err}");
    }
    assert_eq!(ended, [Some(0); 3]);
    drop((first, second));
    drop(groups);
}
