//! Nodes in one process over loopback: names in, a mesh out.

use std::{num::NonZeroUsize, time::Duration};

use crate::support::{TOPIC, now, process::Process, run, text};
use futures::{StreamExt, future::join_all};
use libp2p::{PeerId, identity::Keypair};
use smidge::{
    Client, Error, Event, Node, PublishOptions, PutOptions, Quorum,
    config::{PeerRule, Target},
    dialer::{Notice, RecordState},
};

pub(crate) fn wait_for(wait_peers: usize) -> PublishOptions {
    PublishOptions {
        wait_peers: Some(wait_peers),
        timeout: crate::support::PATIENCE,
        ..PublishOptions::default()
    }
}

#[test]
fn a_message_reaches_those_who_subscribed_once() {
    run(async |net| {
        net.set("bootstrap", [2]);
        net.set("peer", [3]);
        let bootstrap = net.node(2, &[]);
        let peer = net.node(3, &["bootstrap"]);
        let mut at_bootstrap = bootstrap.subscribe(TOPIC).await.unwrap();
        let mut at_peer = peer.subscribe(TOPIC).await.unwrap();
        net.meshed(&peer, 1).await;
        let sender = net.node(4, &["peer"]);
        let receipt = sender.publish(TOPIC, vec![1, 2, 3, 4], wait_for(1)).await.unwrap();
        assert_eq!(receipt.peers, 1);
        for subscription in [&mut at_bootstrap, &mut at_peer] {
            let message = net.message(subscription).await;
            assert_eq!((&*message.data, message.source), (&[1, 2, 3, 4][..], Some(sender.peer_id())));
            assert_eq!(message.id, receipt.id);
        }
        // A second message is the proof that the first one did not come twice.
        peer.publish(TOPIC, "second", wait_for(1)).await.unwrap();
        assert_eq!(text(&net.message(&mut at_bootstrap).await), "second");
        // Its own subscribers heard it from the node itself, and it does not come back.
        let heard = net.message(&mut at_peer).await;
        assert_eq!((text(&heard), heard.local, heard.from), ("second".into(), true, peer.peer_id()));
        assert_eq!(now(&mut at_peer), None, "what one publishes does not come back");
    });
}

#[test]
fn a_name_that_appears_late_is_found() {
    run(async |net| {
        let peer = net.node(3, &["bootstrap"]);
        let mut events = peer.events();
        let failed =
            |e: &Event| matches!(e, Event::Dialer(Notice::NotResolved { repeated: true, .. })).then_some(());
        net.event(&mut events, "a second failed lookup", failed).await;
        let bootstrap = net.node(2, &[]);
        net.set("bootstrap", [2]);
        net.connected(&peer, [bootstrap.peer_id()]).await;
        let names = peer.names().await.unwrap();
        assert_eq!(names[0].records[0].peer, Some(bootstrap.peer_id()));
    });
}

#[test]
fn twenty_replicas_behind_one_name_all_meet_and_get_each_message_once() {
    // async-dns fails beyond 16 records: a documented limit. Two of them restart: each costs as many handshakes as there
    // are replicas.
    replicas(if cfg!(feature = "hickory") { 20 } else { 16 }, 2);
}

#[test]
fn replicas_get_each_message_once_also_after_all_of_them_were_restarted() {
    replicas(6, 6);
}

/// `count` replicas behind one name exchange messages, and again after `restarted` of them were, one after the other.
fn replicas(count: u8, restarted: usize) {
    run(async |net| {
        let all: Vec<u8> = (2..2 + count).collect();
        net.set("peer", all.clone());
        let mut nodes: Vec<_> = all.iter().map(|n| net.node(*n, &["peer"])).collect();
        net.everyone(&nodes).await;
        exchange(&net, &nodes).await;
        for (n, node) in all.iter().zip(&mut nodes).take(restarted) {
            net.stop(node, *n).await;
            *node = net.node(*n, &["peer"]);
            net.meshed(node, 4).await;
        }
        net.everyone(&nodes).await;
        exchange(&net, &nodes).await;
    });
}

/// Each node publishes one message, and each node gets it once, also its own.
async fn exchange(net: &crate::support::Network, nodes: &[Client]) {
    join_all(nodes.iter().map(|node| net.meshed(node, 4))).await;
    let mut subscriptions = Vec::new();
    for node in nodes {
        subscriptions.push(node.subscribe(TOPIC).await.unwrap());
    }
    let everyone_else = nodes.len() - 1;
    for node in nodes {
        let receipt = node.publish(TOPIC, node.peer_id().to_string(), wait_for(everyone_else)).await.unwrap();
        assert_eq!(receipt.peers, everyone_else);
    }
    for subscription in &mut subscriptions {
        let mut got = Vec::new();
        for _ in nodes {
            got.push(text(&net.message(subscription).await));
        }
        got.sort();
        let mut wanted: Vec<_> = nodes.iter().map(|n| n.peer_id().to_string()).collect();
        wanted.sort();
        assert_eq!(got, wanted);
        assert_eq!(now(subscription), None, "nothing twice");
    }
}

#[test]
fn a_replica_that_moves_is_followed_and_the_old_one_forgotten() {
    run(async |net| {
        net.set("peer", [3]);
        let watcher = net.node(2, &["peer"]);
        let first = net.node(3, &[]);
        net.connected(&watcher, [first.peer_id()]).await;
        net.table(&watcher, 1).await;
        let mut events = watcher.events();
        net.set("peer", [4]);
        first.shutdown().await.unwrap();
        let second = net.node(4, &[]);
        net.connected(&watcher, [second.peer_id()]).await;
        let gone = first.peer_id();
        net.event(&mut events, "the first replica forgotten", |e| {
            matches!(e, Event::Forgotten { peer, .. } if *peer == gone).then_some(())
        })
        .await;
        net.until("a table with the second only", &watcher, |c| async move {
            c.status().await.unwrap().table == 1 && c.peers().await.unwrap().len() == 1
        })
        .await;
    });
}

#[test]
fn a_new_key_at_an_old_address_is_adopted_with_one_line_about_it() {
    run(async |net| {
        net.set("bootstrap", [2]);
        let old = net.node(2, &[]);
        let peer = net.node(3, &["bootstrap"]);
        net.connected(&peer, [old.peer_id()]).await;
        let mut events = peer.events();
        net.stop(&old, 2).await;
        let new = net.node(2, &[]);
        let is_replaced = |e: &Event| match e {
            Event::Dialer(Notice::Replaced { old, new, .. }) => Some((*old, *new)),
            _ => None,
        };
        let replaced = net.event(&mut events, "a replaced peer", is_replaced).await;
        assert_eq!(replaced, (old.peer_id(), new.peer_id()));
        let old = old.peer_id();
        net.until("the old peer gone everywhere", &peer, |c| async move {
            c.find_peer(old).await.is_err() && c.peers().await.unwrap().iter().all(|p| p.peer != old)
        })
        .await;
        while let Some(Some(event)) = futures::FutureExt::now_or_never(events.next()) {
            assert_eq!(is_replaced(&event), None, "said once");
        }
    });
}

#[test]
fn we_ourselves_among_the_records_are_not_dialed() {
    run(async |net| {
        net.set("peer", [2, 3]);
        let (one, two) = (net.node(2, &["peer"]), net.node(3, &["peer"]));
        net.everyone(&[one.clone(), two]).await;
        let mine = net.addr(2);
        net.until("our own record recognized", &one, |c| {
            let mine = mine.clone();
            async move {
                let names = c.names().await.unwrap();
                names[0].records.iter().any(|r| r.address == mine && r.state == RecordState::Own)
            }
        })
        .await;
    });
}

#[test]
fn names_addresses_and_dnsaddr_all_lead_to_peers() {
    run(async |net| {
        let nodes: Vec<_> = (2..6).map(|n| net.node(n, &[])).collect();
        net.set("two", [2]);
        let full = |n: u8| format!("{}/p2p/{}", net.addr(n), nodes[usize::from(n) - 2].peer_id());
        let text = format!("dnsaddr=/dnsaddr/inner/p2p/{}", nodes[3].peer_id());
        net.names
            .set_txt("_dnsaddr.outer", vec![text, "dnsaddr=garbage".into(), "unrelated".into()])
            .unwrap();
        net.names
            .set_txt(
                "_dnsaddr.inner",
                vec![format!("dnsaddr={}", full(5)), "dnsaddr=/ip4/127.0.0.1/tcp/1".into()],
            )
            .unwrap();
        let mut config = net.config(10, &[]);
        let port = net.port;
        config.dial.names = vec![
            format!("/dns4/two/udp/{port}/quic-v1").parse().unwrap(),
            format!("{}:{port}", net.ip(3)).parse().unwrap(),
            "/dnsaddr/outer".parse().unwrap(),
        ];
        config.dial.addresses = vec![full(4).parse().unwrap()];
        let dialer = net.spawn(config);
        // TXT records are beyond async-dns, which says so: a documented limit.
        let limit = if cfg!(feature = "hickory") { 4 } else { 3 };
        net.connected(&dialer, nodes.iter().take(limit).map(Client::peer_id)).await;
    });
}

#[test]
fn ipv6_replicas_are_dialed_too() {
    run(async |net| {
        let mut config = net.config(2, &[]);
        config.listen.addresses = vec!["/ip6/::1/udp/0/quic-v1".parse().unwrap()];
        let six = net.spawn(config);
        let mut events = six.events();
        let address = match six.status().await.unwrap().listening.first() {
            Some(address) => address.clone(),
            None => {
                let listening = |e: &Event| if let Event::Listening(a) = e { Some(a.clone()) } else { None };
                net.event(&mut events, "a listener", listening).await
            }
        };
        let other = net.node(3, &[]);
        other.dial(Target::Addr(address)).await.unwrap();
        net.connected(&other, [six.peer_id()]).await;
    });
}

#[test]
fn records_are_stored_found_and_provided() {
    run(async |net| {
        net.set("peer", 2..7);
        let nodes: Vec<_> = (2..7).map(|n| net.node(n, &["peer"])).collect();
        net.everyone(&nodes).await;
        for node in &nodes {
            net.table(node, 4).await;
        }
        let stored =
            nodes[0].put("key", "value", PutOptions { quorum: Quorum::All, ttl: None }).await.unwrap();
        assert_eq!(stored.confirmed, 4);
        for node in &nodes {
            assert_eq!(node.get("key", 1).await.unwrap(), b"value");
        }
        assert_eq!(nodes[1].get("key", 5).await.unwrap(), b"value");
        assert!(matches!(nodes[1].get("key", 6).await, Err(Error::Quorum { confirmed: 5, wanted: 6, .. })));
        assert!(matches!(nodes[1].get("nothing", 1).await, Err(Error::NotFound(_))));
        let many = PutOptions { quorum: Quorum::Count(NonZeroUsize::new(9).unwrap()), ttl: None };
        assert!(matches!(
            nodes[0].put("k", "v", many).await,
            Err(Error::Quorum { confirmed: 4, wanted: 9, .. })
        ));
        let large = vec![0; 100 << 10];
        assert!(matches!(nodes[0].put("k", large, PutOptions::default()).await, Err(Error::Store(_))));
        nodes[2].provide("thing").await.unwrap();
        nodes[3].provide("thing").await.unwrap();
        let mut wanted = vec![nodes[2].peer_id(), nodes[3].peer_id()];
        wanted.sort();
        assert_eq!(nodes[4].providers("thing").await.unwrap(), wanted);
        assert_eq!(nodes[4].providers("nothing").await.unwrap(), []);
        let found = nodes[0].find_peer(nodes[4].peer_id()).await.unwrap();
        assert_eq!(found, [net.addr(6)]);
        assert!(nodes[0].ping(nodes[4].peer_id()).await.unwrap() < Duration::from_secs(10));
        let nobody = Keypair::generate_ed25519().public().to_peer_id();
        assert!(matches!(nodes[0].ping(nobody).await, Err(Error::Ping { .. })));
    });
}

#[test]
fn a_node_that_shuts_down_leaves_its_topics_closes_its_connections_and_takes_no_more_work() {
    run(async |net| {
        net.set("one", [2]);
        let one = net.node(2, &[]);
        let two = net.node(3, &["one"]);
        net.meshed(&one, 1).await;
        let mut at_two = two.subscribe(TOPIC).await.unwrap();
        let mut events = one.events();
        let waiting = two.publish("nobody-listens", "x", wait_for(1));
        let stopping = async {
            net.rt.sleep(Duration::from_millis(1)).await;
            two.shutdown().await
        };
        let (waited, stopped) = futures::join!(waiting, stopping);
        assert_eq!((waited, stopped), (Err(Error::ShuttingDown), Ok(())));
        let left = |e: &Event| matches!(e, Event::LeftMesh { .. }).then_some(());
        net.event(&mut events, "the mesh left", left).await;
        let gone = |e: &Event| matches!(e, Event::Disconnected { .. }).then_some(());
        net.event(&mut events, "the connection closed", gone).await;
        assert_eq!(two.peers().await, Err(Error::Stopped));
        assert_eq!(two.shutdown().await, Ok(()), "a second time changes nothing");
        assert_eq!(at_two.next().await, None, "subscriptions end");
    });
}

#[test]
fn a_node_without_clients_ends_and_peers_notice() {
    run(async |net| {
        net.set("one", [2]);
        let one = net.node(2, &[]);
        let two = net.node(3, &["one"]);
        let id = two.peer_id();
        net.connected(&one, [id]).await;
        drop(two);
        net.disconnected(&one, id).await;
    });
}

#[test]
fn a_peer_that_comes_back_elsewhere_with_its_key_is_asked_there_and_nowhere_else() {
    run(async |net| {
        // A connection that is dead is not noticed by itself.
        let never = Duration::from_secs(3600);
        let mut config = net.config(9, &["one"]);
        config.quic.idle_timeout = never;
        config.quic.keep_alive = never / 2;
        config.quic.handshake_timeout = Duration::from_secs(1);
        config.dial.refresh = Duration::from_millis(100);
        let asker = net.spawn(config);
        let dir = tempfile::tempdir().unwrap();
        let key = format!("identity.key_file={}", dir.path().join("key").display());
        let start = |n: u8| {
            let address = net.addr(n).to_string();
            let settings = ["quic.idle_timeout=1h", "quic.keep_alive=30m", "api.listen=off", &key];
            let settings = settings.iter().flat_map(|s| ["--set", s]);
            let args = ["run", "--listen", &address].into_iter().chain(settings);
            Process::start(&format!("replica {n}"), &args.map(String::from).collect::<Vec<_>>())
        };
        let mut first = start(2);
        let peer: PeerId = first.peer_id().parse().unwrap();
        net.set("one", [2]);
        net.until("a connection that stands", &asker, |c| async move {
            let peers = c.peers().await.unwrap();
            peers.iter().any(|p| p.peer == peer && p.connections.iter().any(|c| c.age_s > 1))
        })
        .await;
        net.table(&asker, 1).await;
        first.kill();
        let second = start(3);
        assert_eq!(second.peer_id(), peer.to_string());
        net.set("one", [3]);
        let there = &net.addr(3);
        net.until("the new connection only", &asker, |c| async move {
            let peers = c.peers().await.unwrap();
            peers.iter().any(|p| p.connections.len() == 1 && p.connections[0].address == *there)
        })
        .await;
        net.until("where it is", &asker, |c| async move {
            c.find_peer(peer).await.is_ok_and(|found| found == [there.clone()])
        })
        .await;
    });
}

#[test]
fn a_denied_peer_is_not_let_in_and_comes_back_when_it_is_let_off() {
    run(async |net| {
        net.set("one", [2]);
        let key = Keypair::generate_ed25519();
        let id = key.public().to_peer_id();
        let mut config = net.config(2, &[]);
        config.peers.deny = vec![PeerRule::Peer(id)];
        let one = net.spawn(config.clone());
        let two = net.spawn_as(net.config(3, &["one"]), &key);
        let mut events = two.events();
        let lost = |e: &Event| {
            matches!(e, Event::Disconnected { .. } | Event::Dialer(Notice::DialFailed { .. })).then_some(())
        };
        net.event(&mut events, "the connection refused", lost).await;
        assert!(one.peers().await.unwrap().is_empty());
        config.peers.deny.clear();
        one.apply(config).await.unwrap();
        net.connected(&one, [id]).await;
    });
}

#[test]
fn whoever_is_not_allowed_is_kept_out_by_id_and_by_address() {
    run(async |net| {
        net.set("one", [2]);
        let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let mut config = net.config(2, &[]);
        config.peers.allow = vec![PeerRule::Peer(key.public().to_peer_id())];
        let one = net.spawn(config.clone());
        let two = net.spawn_as(net.config(3, &["one"]), &key);
        let three = net.spawn_as(net.config(4, &["one"]), &other);
        net.connected(&one, [two.peer_id()]).await;
        let mut events = three.events();
        let refused = |e: &Event| {
            matches!(e, Event::Disconnected { .. } | Event::Dialer(Notice::DialFailed { .. })).then_some(())
        };
        net.event(&mut events, "the connection refused", refused).await;
        assert_eq!(one.peers().await.unwrap().len(), 1);
        // Now by where they are; whom the new rules do not let in has to go.
        config.peers.allow = vec![net.ip(4).to_string().parse().unwrap()];
        one.apply(config).await.unwrap();
        net.disconnected(&one, two.peer_id()).await;
        net.connected(&one, [three.peer_id()]).await;
    });
}

#[test]
fn what_can_change_in_a_running_node_does() {
    run(async |net| {
        net.set("one", [2]);
        let one = net.node(2, &[]);
        let mut config = net.config(3, &[]);
        config.gossip.topics.clear();
        let two = net.spawn(config.clone());
        config.dial.names = net.config(3, &["one"]).dial.names;
        config.gossip.topics = vec![TOPIC.into()];
        two.apply(config.clone()).await.unwrap();
        net.connected(&two, [one.peer_id()]).await;
        net.meshed(&one, 1).await;
        config.gossip.topics.clear();
        two.apply(config).await.unwrap();
        net.until("the mesh empty again", &one, |c| async move { c.mesh().await.unwrap()[TOPIC].is_empty() })
            .await;
        assert_eq!(two.status().await.unwrap().topics, Vec::<String>::new());
    });
}

#[test]
fn a_dropped_subscription_leaves_its_topic() {
    run(async |net| {
        net.set("one", [2]);
        let one = net.node(2, &[]);
        let mut config = net.config(3, &["one"]);
        config.gossip.topics.clear();
        let two = net.spawn(config);
        let subscription = two.subscribe(TOPIC).await.unwrap();
        net.meshed(&one, 1).await;
        drop(subscription);
        net.until("the mesh empty again", &one, |c| async move { c.mesh().await.unwrap()[TOPIC].is_empty() })
            .await;
        assert_eq!(two.unsubscribe(TOPIC).await, Ok(false));
    });
}

#[test]
fn connections_beyond_the_limit_are_refused_and_the_node_lives_on() {
    run(async |net| {
        net.set("one", [2]);
        let mut config = net.config(2, &[]);
        config.limits.connections = 3;
        let one = net.spawn(config);
        let others: Vec<_> = (3..9).map(|n| net.node(n, &["one"])).collect();
        net.until("three peers", &one, |c| async move { c.peers().await.unwrap().len() == 3 }).await;
        let lucky = one.peers().await.unwrap()[0].peer;
        let lucky = others.iter().find(|o| o.peer_id() == lucky).unwrap();
        lucky.shutdown().await.unwrap();
        let gone = lucky.peer_id();
        net.until("another in its place", &one, |c| async move {
            let peers = c.peers().await.unwrap();
            peers.len() == 3 && peers.iter().all(|p| p.peer != gone)
        })
        .await;
    });
}

#[test]
fn an_address_that_is_taken_is_said_at_once() {
    run(async |net| {
        let _one = net.node(2, &[]);
        net.until("a listener", &_one, |c| async move { !c.status().await.unwrap().listening.is_empty() })
            .await;
        let error = Node::new(net.config(2, &[]), Keypair::generate_ed25519())
            .spawn(&net.rt)
            .unwrap_err()
            .to_string();
        assert!(error.contains(&net.addr(2).to_string()) && error.contains("in use"), "{error}");
    });
}
