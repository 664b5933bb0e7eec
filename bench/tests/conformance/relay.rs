//! Relays and hole punches: a stock relay with our nodes behind it, and a stock node behind our relay.

use std::time::Duration;

use futures::{FutureExt, StreamExt, channel::mpsc, channel::oneshot};
use libp2p::{
    Multiaddr, PeerId, SwarmBuilder, dcutr, identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping, relay,
    swarm::{NetworkBehaviour, SwarmEvent},
    yamux,
};
use smidge::{Client, Config, Event, Events, PublishOptions};
use smidge_bench::{Tuning, driven::Driven, link};

use crate::{
    Sides,
    node::{config, listening, spawn, until},
    patiently, run,
};

/// A relay as published.
#[derive(NetworkBehaviour)]
struct Relay {
    identify: identify::Behaviour,
    relay: relay::Behaviour,
}

/// What sits behind one.
#[derive(NetworkBehaviour)]
struct Behind {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    circuits: relay::client::Behaviour,
    dcutr: dcutr::Behaviour,
}

fn identity(key: &Keypair) -> identify::Behaviour {
    identify::Behaviour::new(identify::Config::new("/stock/1.0.0".into(), key.public()))
}

/// The first event of a smidge node that `pick` takes.
async fn event<T>(what: &str, events: &mut Events, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
    patiently(what, async {
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

async fn relayed(client: &Client, peer: PeerId) -> Vec<bool> {
    let peers = client.peers().await.unwrap();
    let links = peers.into_iter().filter(|p| p.peer == peer).flat_map(|p| p.connections);
    links.map(|link| link.relayed).collect()
}

fn through(relay: &Multiaddr) -> Config {
    let mut config = config();
    config.relay.through = vec![relay.to_string().parse().unwrap()];
    config
}

#[test]
fn our_nodes_meet_through_a_stock_relay_and_connect_directly_if_they_may() {
    run(async |sides: Sides| {
        for punch in [false, true] {
            let key = Keypair::generate_ed25519();
            let behaviour = Relay {
                identify: identity(&key),
                relay: relay::Behaviour::new(key.public().to_peer_id(), relay::Config::default()),
            };
            let mut stock = Driven::new(&*sides.stock, &key, &Tuning::default(), behaviour, |_| true);
            let at = patiently("a listener", stock.listen()).await;
            let external = at.clone();
            stock.call(move |swarm| swarm.add_external_address(external)).await;

            let mut behind = through(&at);
            behind.nat.punch = punch;
            let one = spawn(&sides, behind.clone());
            let mut events = one.events();
            let reserved = |event: &Event| match event {
                Event::Reserved { relay } => Some(*relay),
                _ => None,
            };
            assert_eq!(event("a slot", &mut events, reserved).await, stock.peer);

            // The stock relay keeps no table: where the other is has to be said.
            let circuit = at.with(Protocol::P2p(stock.peer)).with(Protocol::P2pCircuit);
            behind.dial.addresses = vec![circuit.with(Protocol::P2p(one.peer_id()))];
            let two = spawn(&sides, behind);
            let by_relay = |event: &Event| match event {
                Event::Relayed { peer, outbound, .. } => Some((*peer, *outbound)),
                _ => None,
            };
            assert_eq!(event("a relayed connection", &mut events, by_relay).await, (two.peer_id(), false));
            if punch {
                let punched = |event: &Event| match event {
                    Event::Punched { peer } => Some(*peer),
                    _ => None,
                };
                assert_eq!(event("a direct connection", &mut events, punched).await, two.peer_id());
            }
            for (node, other) in [(&one, &two), (&two, &one)] {
                let peer = other.peer_id();
                until("one connection", node, async |node| relayed(&node, peer).await == [!punch]).await;
            }
            let mut heard = two.subscribe("some_topic").await.unwrap();
            let wait = PublishOptions { wait_peers: Some(1), ..PublishOptions::default() };
            patiently("a publish", one.publish("some_topic", "through", wait)).await.unwrap();
            let message = patiently("a message", heard.next()).await;
            assert!(matches!(&message, Some(m) if *m.data == *b"through"), "{message:?}");
        }
    });
}

#[test]
fn a_stock_node_behind_our_relay_is_reached_by_ours_and_punches_through_to_it() {
    run(async |sides: Sides| {
        let mut server = config();
        server.relay.server = true;
        let server = spawn(&sides, server);
        let at = listening(&server).await.with(Protocol::P2p(server.peer_id())).with(Protocol::P2pCircuit);

        let key = Keypair::generate_ed25519();
        let stock = key.public().to_peer_id();
        let (mut sink, mut said) = mpsc::channel(64);
        let (stop, stopped) = oneshot::channel::<()>();
        let slot = at.clone();
        link::start(&sides.stock.spawner(), async move {
            let mut swarm = SwarmBuilder::with_existing_identity(key)
                .with_tokio()
                .with_quic()
                .with_relay_client(noise::Config::new, yamux::Config::default)
                .unwrap()
                .with_behaviour(|key, circuits| Behind {
                    identify: identity(key),
                    ping: ping::Behaviour::default(),
                    circuits,
                    dcutr: dcutr::Behaviour::new(key.public().to_peer_id()),
                })
                .unwrap()
                .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
                .build();
            swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
            swarm.listen_on(slot).unwrap();
            let mut stopped = stopped.fuse();
            loop {
                futures::select! {
                    event = swarm.select_next_some() => match event {
                        SwarmEvent::Behaviour(BehindEvent::Circuits(
                            relay::client::Event::ReservationReqAccepted { relay_peer_id, .. },
                        )) => sink.try_send(Ok(relay_peer_id)).unwrap(),
                        SwarmEvent::Behaviour(BehindEvent::Dcutr(event)) => {
                            let said = event.result.map(|_| event.remote_peer_id).map_err(|e| e.to_string());
                            sink.try_send(said).unwrap();
                        }
                        _ => {}
                    },
                    _ = stopped => return,
                }
            }
        });
        let slot = patiently("a slot at our relay", said.next()).await;
        assert_eq!(slot, Some(Ok(server.peer_id())));

        let mut ours = config();
        ours.relay.client = true;
        ours.nat.punch = true;
        ours.dial.addresses = vec![at.with(Protocol::P2p(stock))];
        let client = spawn(&sides, ours);
        let mut events = client.events();
        let by_relay = |event: &Event| match event {
            Event::Relayed { peer, .. } => Some(*peer),
            _ => None,
        };
        assert_eq!(event("a relayed connection", &mut events, by_relay).await, stock);
        let punched = patiently("the stock node's hole punch", said.next()).await;
        assert_eq!(punched, Some(Ok(client.peer_id())));
        // Of these there may be two: on loopback each side's dial gets through.
        until("direct connections alone", &client, async |client| {
            let relayed = relayed(&client, stock).await;
            !relayed.is_empty() && !relayed.contains(&true)
        })
        .await;
        patiently("a ping", client.ping(stock)).await.unwrap();
        drop(stop);
    });
}
