//! Nodes and relays on one machine: slots, relayed connections, what limits do. Two sites with NATs between
//! them are in `tests/nat/`.

use crate::support::{Network, TOPIC, run, text};
use futures::{FutureExt, StreamExt};
use libp2p::{Multiaddr, PeerId, StreamProtocol, multiaddr::Protocol};
use smidge::{Client, Config, Event, Events, PublishOptions};

/// A relay at replica `n` that follows nothing.
fn relay(net: &Network, n: u8, more: impl FnOnce(&mut Config)) -> Client {
    let mut config = net.config(n, &[]);
    config.gossip.topics.clear();
    config.relay.server = true;
    more(&mut config);
    net.spawn(config)
}

/// Replica `n`, which is to be reached through the relays behind `name`.
fn behind(net: &Network, n: u8, name: &str) -> Config {
    let mut config = net.config(n, &[]);
    config.relay.through = vec![format!("{name}:{}", net.port).parse().unwrap()];
    config
}

async fn event<T>(net: &Network, what: &str, events: &mut Events, pick: impl Fn(&Event) -> Option<T>) -> T {
    net.patiently(what, async {
        loop {
            match events.next().await {
                Some(event) => {
                    if let Some(found) = pick(&event) {
                        return found;
                    }
                }
                other => panic!("{what} was expected, not {other:?}"),
            }
        }
    })
    .await
}

fn reserved(event: &Event) -> Option<PeerId> {
    match event {
        Event::Reserved { relay } => Some(*relay),
        _ => None,
    }
}

/// Where `peer` is behind the relay at replica `n`.
fn circuit(net: &Network, n: u8, relay: &Client, peer: PeerId) -> Multiaddr {
    net.addr(n).with(Protocol::P2p(relay.peer_id())).with(Protocol::P2pCircuit).with(Protocol::P2p(peer))
}

#[test]
fn a_slot_is_reserved_at_every_relay_behind_a_name_and_lost_and_found_as_they_come_and_go() {
    run(async |net| {
        net.set("relay", [2, 3]);
        let [one, two] = [2, 3].map(|n| relay(&net, n, |_| {}));
        let node = net.spawn(behind(&net, 4, "relay"));
        let mut events = node.events();
        let mut at = [(); 2].map(|()| node.peer_id());
        for relay in &mut at {
            *relay = event(&net, "a slot", &mut events, reserved).await;
        }
        at.sort();
        let mut both = [one.peer_id(), two.peer_id()];
        both.sort();
        assert_eq!(at, both);
        // Both lead here from now on.
        let addresses = [(2, &one), (3, &two)].map(|(n, relay)| circuit(&net, n, relay, node.peer_id()));
        net.until("both addresses", &node, async |c| {
            let listening = c.status().await.unwrap().listening;
            addresses.iter().all(|address| listening.contains(address))
        })
        .await;
        two.shutdown().await.unwrap();
        net.disconnected(&node, two.peer_id()).await;
        let gone = circuit(&net, 3, &two, node.peer_id());
        net.until("the address to be gone", &node, async |c| {
            !c.status().await.unwrap().listening.contains(&gone)
        })
        .await;
        let three = relay(&net, 3, |_| {});
        assert_eq!(event(&net, "a slot at its successor", &mut events, reserved).await, three.peer_id());
    });
}

#[test]
fn who_is_behind_a_relay_is_reached_through_it_and_said_to_be_relayed() {
    run(async |net| {
        net.set("relay", [2]);
        let server = relay(&net, 2, |_| {});
        let hidden = net.spawn(behind(&net, 4, "relay"));
        let mut events = hidden.events();
        event(&net, "a slot", &mut events, reserved).await;
        // Has no slot itself, and knows nothing but the address.
        let mut config = net.config(5, &[]);
        config.relay.client = true;
        // Nor does it hear in the hash table where the other one is: on loopback it is no further than the relay.
        config.kad.protocol = StreamProtocol::new("/alone/kad");
        let address = circuit(&net, 2, &server, hidden.peer_id());
        config.dial.names = vec![address.to_string().parse().unwrap()];
        let node = net.spawn(config);
        let (peer, outbound, at) = event(&net, "a relayed connection", &mut events, |event| match event {
            Event::Relayed { peer, outbound, address } => Some((*peer, *outbound, address.clone())),
            _ => None,
        })
        .await;
        assert_eq!((peer, outbound), (node.peer_id(), false));
        assert_eq!(at, circuit(&net, 2, &server, node.peer_id()), "the relay, and who came through it");
        for (one, other) in [(&node, &hidden), (&hidden, &node)] {
            let peers = one.peers().await.unwrap();
            let link = &peers.iter().find(|p| p.peer == other.peer_id()).unwrap().connections[0];
            assert!(link.relayed, "{link:?}");
            let link = &peers.iter().find(|p| p.peer == server.peer_id()).unwrap().connections[0];
            assert!(!link.relayed, "{link:?}");
        }
        let record = node.names().await.unwrap().remove(0).records.remove(0);
        assert_eq!((record.address, record.peer, record.relayed), (address, Some(hidden.peer_id()), true));
        let record = hidden.names().await.unwrap().remove(0).records.remove(0);
        assert_eq!((record.peer, record.relayed), (Some(server.peer_id()), false));

        let mut heard = hidden.subscribe(TOPIC).await.unwrap();
        let wait = PublishOptions { wait_peers: Some(1), ..PublishOptions::default() };
        node.publish(TOPIC, "through the relay", wait).await.unwrap();
        let message = net.message(&mut heard).await;
        assert_eq!((text(&message).as_str(), message.source), ("through the relay", Some(node.peer_id())));
        assert_eq!(message.from, node.peer_id(), "the relay passes bytes on, not messages");
    });
}

#[test]
fn a_full_relay_refuses_and_is_asked_again_until_there_is_room() {
    run(async |net| {
        net.set("relay", [2]);
        let server = relay(&net, 2, |config| {
            config.relay.reservations = 1;
            config.relay.reservations_per_peer = 1;
        });
        let first = net.spawn(behind(&net, 4, "relay"));
        event(&net, "a slot", &mut first.events(), reserved).await;
        let second = net.spawn(behind(&net, 5, "relay"));
        let mut events = second.events();
        let (at, reason) = event(&net, "a refusal", &mut events, |event| match event {
            Event::NotReserved { relay, reason, .. } => Some((*relay, reason.clone())),
            _ => None,
        })
        .await;
        assert_eq!(at, server.peer_id());
        assert!(reason.contains("limit"), "{reason}");
        first.shutdown().await.unwrap();
        assert_eq!(event(&net, "the slot", &mut events, reserved).await, server.peer_id());
    });
}

#[test]
fn strangers_leave_a_slot_for_a_peer_that_the_relay_was_told_of() {
    run(async |net| {
        net.set("relay", [2]);
        net.set("friend", [9]);
        let _server = relay(&net, 2, |config| {
            config.relay.reservations = 4;
            config.dial.names = net.config(2, &["friend"]).dial.names;
        });
        let mut strangers = Vec::new();
        for n in [4, 5, 6] {
            let stranger = net.spawn(behind(&net, n, "relay"));
            event(&net, "a slot", &mut stranger.events(), reserved).await;
            strangers.push(stranger);
        }
        let last = net.spawn(behind(&net, 7, "relay"));
        let refused = |event: &Event| matches!(event, Event::NotReserved { .. }).then_some(());
        event(&net, "a refusal", &mut last.events(), refused).await;
        let friend = net.spawn(behind(&net, 9, "relay"));
        event(&net, "the slot that was kept", &mut friend.events(), reserved).await;
    });
}

#[test]
fn a_node_that_is_told_of_no_relay_is_none_and_uses_none() {
    run(async |net| {
        net.set("relay", [2]);
        let plain = net.node(2, &[]);
        // Stays connected to it, and cannot reserve anything there.
        let node = net.spawn(behind(&net, 4, "relay"));
        net.connected(&node, [plain.peer_id()]).await;
        net.meshed(&node, 1).await;
        assert_eq!(node.status().await.unwrap().listening, [net.addr(4)]);
        let address = circuit(&net, 2, &plain, node.peer_id());
        let refused = plain.connect(address).await.unwrap_err().to_string();
        assert!(refused.contains("not supported"), "{refused}");
    });
}

#[test]
fn a_relayed_connection_without_a_time_limit_stands_and_carries() {
    run(async |net| {
        net.set("relay", [2]);
        let server = relay(&net, 2, |config| {
            config.relay.circuit_duration = std::time::Duration::ZERO;
            config.relay.circuit_bytes = 0;
        });
        let hidden = net.spawn(behind(&net, 4, "relay"));
        event(&net, "a slot", &mut hidden.events(), reserved).await;
        let mut config = net.config(5, &[]);
        config.relay.client = true;
        config.kad.protocol = StreamProtocol::new("/alone/kad");
        config.dial.names = vec![circuit(&net, 2, &server, hidden.peer_id()).to_string().parse().unwrap()];
        let node = net.spawn(config);
        let [mut at_hidden, mut at_node] = [
            hidden.subscribe(TOPIC).await.unwrap().no_local(),
            node.subscribe(TOPIC).await.unwrap().no_local(),
        ];
        net.connected(&node, [hidden.peer_id()]).await;
        let mut events = node.events();
        // libp2p's own limit of zero would cut the connection in the first pause.
        let wait = PublishOptions {
            wait_peers: Some(1),
            timeout: crate::support::PATIENCE,
            ..PublishOptions::default()
        };
        for _ in 0..3 {
            let large = "x".repeat(60_000);
            node.publish(TOPIC, large.clone(), wait).await.unwrap();
            assert_eq!(text(&net.message(&mut at_hidden).await), large);
            hidden.publish(TOPIC, large.clone(), wait).await.unwrap();
            assert_eq!(text(&net.message(&mut at_node).await), large);
        }
        assert!(hidden.ping(node.peer_id()).await.is_ok());
        let cut = std::iter::from_fn(|| events.next().now_or_never().flatten())
            .find(|event| matches!(event, Event::Disconnected { .. }));
        assert!(cut.is_none(), "{cut:?}");
    });
}
