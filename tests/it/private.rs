//! A private mesh: whole nodes with and without the network's key, and a change of keys while they talk.

use std::{collections::BTreeMap, fs, time::Duration};

use crate::support::{Network, TOPIC, run, text};
use futures::StreamExt;
use libp2p::{StreamProtocol, identity::Keypair, multiaddr::Protocol};
use smidge::{
    Client, Config, Event, Node, PublishOptions,
    config::Target,
    dialer::Notice,
    transport::admission::{Keyring, NetworkKey},
};

fn keyring(keys: &[&NetworkKey]) -> Keyring {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    let lines: Vec<_> = keys.iter().map(|key| key.encode().to_string()).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    Keyring::read(&file).unwrap()
}

fn private(net: &Network, n: u8, names: &[&str], key: &Keypair, ring: &Keyring) -> Client {
    Node::new(net.config(n, names), key.clone()).network(ring.clone()).spawn(&net.rt).unwrap()
}

#[test]
fn who_has_no_key_or_another_one_is_not_connected_and_both_sides_say_so() {
    run(async |net| {
        net.set("one", [2]);
        let key = NetworkKey::generate().unwrap();
        let ring = Keyring::new(key.clone());
        let one = private(&net, 2, &[], &Keypair::generate_ed25519(), &ring);
        let two = private(&net, 3, &["one"], &Keypair::generate_ed25519(), &Keyring::new(key));
        let other = Keyring::new(NetworkKey::generate().unwrap());
        let three = private(&net, 4, &["one"], &Keypair::generate_ed25519(), &other);
        let four = net.node(5, &["one"]);
        net.connected(&one, [two.peer_id()]).await;
        let refused = |e: &Event| match e {
            Event::Dialer(Notice::DialFailed { reason, .. }) => Some(reason.clone()),
            _ => None,
        };
        let said = net.event(&mut three.events(), "the dial refused", refused).await;
        assert!(said.contains("not admitted") && said.contains("network.key_file"), "{said}");
        // Without a key, the handshake is all that comes to stand.
        let lost = |e: &Event| matches!(e, Event::Disconnected { .. }).then_some(());
        net.event(&mut four.events(), "the connection closed", lost).await;
        let peers = one.peers().await.unwrap();
        assert_eq!(peers.iter().map(|p| p.peer).collect::<Vec<_>>(), [two.peer_id()]);
        // Given the key, the other one is let in.
        other.replace(&ring);
        net.connected(&one, [three.peer_id()]).await;
    });
}

#[test]
fn over_tcp_the_key_is_asked_for_as_well() {
    run(async |net| {
        net.set("one", [2]);
        let ring = Keyring::new(NetworkKey::generate().unwrap());
        let spawn = |n, names: &[&str], ring: Option<&Keyring>| {
            let mut config = net.config(n, names);
            config.listen.addresses = vec![format!("/ip4/{}/tcp/{}", net.ip(n), net.port).parse().unwrap()];
            let node = Node::new(config, Keypair::generate_ed25519());
            match ring {
                Some(ring) => node.network(ring.clone()),
                None => node,
            }
            .spawn(&net.rt)
            .unwrap()
        };
        let one = spawn(2, &[], Some(&ring));
        let two = spawn(3, &["one"], Some(&ring));
        let other = spawn(4, &["one"], Some(&Keyring::new(NetworkKey::generate().unwrap())));
        let open = spawn(5, &["one"], None);
        net.connected(&one, [two.peer_id()]).await;
        let refused = |e: &Event| match e {
            Event::Dialer(Notice::DialFailed { reason, .. }) => Some(reason.clone()),
            _ => None,
        };
        let said = net.event(&mut other.events(), "the dial refused", refused).await;
        assert!(said.contains("not admitted") && said.contains("network.key_file"), "{said}");
        let lost = |e: &Event| matches!(e, Event::Disconnected { .. }).then_some(());
        net.event(&mut open.events(), "the connection closed", lost).await;
        let peers = one.peers().await.unwrap();
        assert_eq!(peers.iter().map(|p| p.peer).collect::<Vec<_>>(), [two.peer_id()]);
        assert!(peers[0].connections[0].address.to_string().contains("/tcp/"), "{peers:?}");
    });
}

#[test]
fn through_a_relay_the_two_ends_ask_each_other_for_the_key_whatever_the_relay_knows() {
    run(async |net| {
        let [both, one, other] = [(); 3].map(|()| NetworkKey::generate().unwrap());
        let start = |n, ring: &[&NetworkKey], change: &dyn Fn(&mut Config)| {
            let mut config = net.config(n, &[]);
            // On loopback nobody is out of reach: the hash table would tell them where to connect directly.
            config.kad.protocol = StreamProtocol::try_from_owned(format!("/alone/{n}")).unwrap();
            change(&mut config);
            Node::new(config, Keypair::generate_ed25519()).network(keyring(ring)).spawn(&net.rt).unwrap()
        };
        // Let in by the relay under either key.
        let relay = start(2, &[&both, &one, &other], &|config| {
            config.relay.server = true;
            config.listen.external = config.listen.addresses.clone();
        });
        let at = net.addr(2).with(Protocol::P2p(relay.peer_id()));
        let target = start(3, &[&one], &|config| config.relay.through = vec![Target::Addr(at.clone())]);
        let reserved = |e: &Event| matches!(e, Event::Reserved { .. }).then_some(());
        net.event(&mut target.events(), "a slot at the relay", reserved).await;
        let through = at.clone().with(Protocol::P2pCircuit).with(Protocol::P2p(target.peer_id()));
        let dials = |config: &mut Config| {
            config.relay.client = true;
            config.dial.addresses = vec![at.clone(), through.clone()];
        };
        let stranger = start(4, &[&other], &dials);
        let refused = |e: &Event| match e {
            Event::Dialer(Notice::DialFailed { reason, .. }) if reason.contains("not admitted") => Some(()),
            _ => None,
        };
        net.event(&mut stranger.events(), "the dial refused", refused).await;
        let member = start(5, &[&one], &dials);
        net.connected(&member, [relay.peer_id(), target.peer_id()]).await;
        let peers = target.peers().await.unwrap();
        let find = |peer| peers.iter().find(|p| p.peer == peer);
        assert!(find(member.peer_id()).unwrap().connections.iter().all(|c| c.relayed), "{peers:?}");
        assert!(find(stranger.peer_id()).is_none(), "{peers:?}");
    });
}

#[test]
fn a_rolling_change_of_keys_loses_no_message() {
    run(async |net| {
        let (old, new) = (NetworkKey::generate().unwrap(), NetworkKey::generate().unwrap());
        net.set("mesh", 2..7);
        let keys: Vec<_> = (0..5).map(|_| Keypair::generate_ed25519()).collect();
        let rings: Vec<_> = (0..5).map(|_| Keyring::new(old.clone())).collect();
        let start = |n: usize| private(&net, n as u8 + 2, &["mesh"], &keys[n], &rings[n]);
        let mut nodes: Vec<_> = (0..5).map(start).collect();
        // Not only connected: a message goes to those who are known to follow its topic.
        for node in &nodes {
            net.meshed(node, 4).await;
        }

        // The first node listens and the second speaks, all the time; the others are restarted in each
        // round, so that every pair of rounds meets in a new handshake.
        let mut heard = nodes[0].subscribe(TOPIC).await.unwrap();
        let speaker = nodes[1].clone();
        let (stop, mut stopped) = futures::channel::oneshot::channel::<()>();
        let rt = net.rt.clone();
        let (said, all_said) = futures::channel::oneshot::channel();
        net.rt.spawn(Box::pin(async move {
            let mut sent = 0_u32;
            while stopped.try_recv() == Ok(None) {
                let options = PublishOptions {
                    wait_peers: Some(1),
                    timeout: crate::support::PATIENCE,
                    ..PublishOptions::default()
                };
                speaker.publish(TOPIC, sent.to_string(), options).await.unwrap();
                sent += 1;
                rt.sleep(Duration::from_millis(20)).await;
            }
            said.send(sent).unwrap();
        }));
        for round in [&[&old, &new][..], &[&new, &old], &[&new]] {
            for n in 0..5 {
                rings[n].replace(&keyring(round));
                if n >= 2 {
                    net.stop(&nodes[n], n as u8 + 2).await;
                    nodes[n] = start(n);
                    let others: Vec<_> = (0..5).filter(|o| *o != n).map(|o| nodes[o].peer_id()).collect();
                    net.connected(&nodes[n], others).await;
                }
            }
        }
        stop.send(()).unwrap();
        let sent = all_said.await.unwrap();
        let mut counts = BTreeMap::new();
        while counts.len() < sent as usize {
            match net.rt.timeout(crate::support::PATIENCE, heard.next()).await {
                Ok(Some(message)) => {
                    *counts.entry(text(&message).parse::<u32>().unwrap()).or_insert(0) += 1;
                }
                other => {
                    let missing: Vec<_> = (0..sent).filter(|n| !counts.contains_key(n)).collect();
                    panic!("of {sent} messages {missing:?} are missing: {other:?}");
                }
            }
        }
        assert!(counts.values().all(|times| *times == 1), "none twice: {counts:?}");
        println!("{sent} messages during three rounds over five nodes, each heard once");
        // The old key is worth nothing any more.
        let late = private(&net, 9, &["mesh"], &Keypair::generate_ed25519(), &Keyring::new(old));
        let refused = |e: &Event| matches!(e, Event::Dialer(Notice::DialFailed { .. })).then_some(());
        net.event(&mut late.events(), "the old key refused", refused).await;
    });
}

#[test]
fn a_node_without_the_key_is_told_so_says_it_once_and_dials_ever_more_seldom() {
    run(async |net| {
        net.set("mesh", [2]);
        let inside = private(
            &net,
            2,
            &[],
            &Keypair::generate_ed25519(),
            &Keyring::new(NetworkKey::generate().unwrap()),
        );
        net.listening(&inside).await;
        let outside = net.node(3, &["mesh"]);
        let mut events = outside.events();
        let (mut reported, mut ended) = (0, 0);
        // The fifth round of a backoff.
        while ended < 5 {
            match net.patiently("the next round", events.next()).await.unwrap() {
                Event::NotAdmitted { peer } => {
                    assert_eq!((peer, ended), (inside.peer_id(), 0), "before anything else");
                    reported += 1;
                }
                Event::Disconnected { reason, .. } => {
                    assert!(reason.contains("not admitted: this is a private mesh"), "{reason}");
                    ended += 1;
                }
                _ => {}
            }
        }
        assert_eq!(reported, 1);
    });
}
