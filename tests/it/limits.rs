//! What is accepted arrives, and what is too large costs nothing else: each limit that docs/limits.md says is ours
//! to set, at it, below it and above it.

use std::time::Duration;

use futures::future::join_all;
use libp2p::{Multiaddr, identity::Keypair, multiaddr::Protocol};
use smidge::{Client, Config, Error, Event, Oversize, PublishOptions, Subscription};

use crate::support::{Network, PATIENCE, TOPIC, run, text};

/// The default of `gossip.max_message`.
const MAX: usize = 63 << 10;

#[derive(Clone, Copy, Debug)]
enum Over {
    Quic,
    Tcp,
}

fn wait_for(wait_peers: usize) -> PublishOptions {
    PublishOptions { wait_peers, timeout: PATIENCE }
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
            let told = net.event(&mut events, "a word on what was too large", |event| match event {
                Event::Oversized { peer, what, .. } => Some((*peer, *what)),
                _ => None,
            });
            assert_eq!(told.await, (b.peer_id(), Oversize::Message { bytes: MAX + 1, limit: MAX }));
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
        net.set("a", [2]);
        for (count, length) in [(300, 59), (1000, 30), (1024, 256)] {
            let mut config = net.config(2, &[]);
            config.gossip.topics = topics(count, length);
            let a = net.spawn(config);
            let last = topics(count, length).pop().unwrap();
            let mut at_a = a.subscribe(last.clone()).await.unwrap();
            let key = Keypair::generate_ed25519();
            for round in ["first", "again"] {
                let b = net.spawn_as(net.config(3, &["a"]), &key);
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
        let mut heard: Vec<_> = join_all(nodes.iter().map(async |n| n.subscribe(TOPIC).await.unwrap())).await;
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
