//! smidge's node and a stock node: identify, ping, the hash table, gossip.

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, gossipsub, identify,
    identity::Keypair,
    kad::{self, QueryResult},
    ping,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use smidge::{Client, Config, Message, Node, PublishOptions, PutOptions, Quorum, Subscription};
use smidge_bench::{
    Side, Tuning,
    driven::Driven,
    nodes::{Whole, WholeEvent, gossip_config},
};

use crate::{Sides, patiently, run};

const TOPIC: &str = "some_topic";

pub(crate) type StockNode = Driven<Whole>;

fn stock_node(sides: &Sides, gossip: gossipsub::Config) -> StockNode {
    let key = Keypair::generate_ed25519();
    Driven::new(&*sides.stock, &key, &Tuning::default(), Whole::new(&key, gossip), |_| true)
}

pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.listen.addresses = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
    config.gossip.topics = vec![TOPIC.into()];
    // Both runtimes and all tests share this process and its memory.
    config.limits.memory = 4 << 30;
    config
}

pub(crate) fn spawn(sides: &Sides, config: Config) -> Client {
    Node::new(config, Keypair::generate_ed25519()).spawn(sides.ours.handle().unwrap()).unwrap()
}

/// Waits until `done` holds, looking again after every event and now and then.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, client: &Client, done: impl Fn(Client) -> F) {
    let mut events = client.events();
    patiently(what, async {
        while !done(client.clone()).await {
            let tick = async_io::Timer::after(Duration::from_millis(50));
            futures::future::select(events.next(), tick).await;
        }
    })
    .await;
}

pub(crate) async fn listening(client: &Client) -> Multiaddr {
    until("a listener", client, async |c| !c.status().await.unwrap().listening.is_empty()).await;
    client.status().await.unwrap().listening.remove(0)
}

/// Connects the two: ours dials if `ours_dials`, else the stock node does.
async fn join(sides: &Sides, stock: &mut StockNode, mut ours: Config, ours_dials: bool) -> Client {
    let at = patiently("a listener", stock.listen()).await;
    let stock_peer = stock.peer;
    let client = if ours_dials {
        ours.dial.addresses = vec![at];
        spawn(sides, ours)
    } else {
        let client = spawn(sides, ours);
        let to = listening(&client).await;
        patiently("a dial", stock.dial(to)).await;
        client
    };
    until("the connection", &client, async |c| c.peers().await.unwrap().iter().any(|p| p.peer == stock_peer))
        .await;
    client
}

async fn message(subscription: &mut Subscription) -> Message {
    match patiently("a message", subscription.next()).await {
        Some(message) => message,
        other => panic!("a message was expected, not {other:?}"),
    }
}

/// The next event of the behaviours that `pick` takes.
pub(crate) async fn told<B, T>(
    what: &str,
    stock: &mut Driven<B>,
    mut pick: impl FnMut(B::ToSwarm) -> Option<T>,
) -> T
where
    B: NetworkBehaviour<ToSwarm: Send> + Send,
{
    let event = stock.event(|event| match event {
        SwarmEvent::Behaviour(event) => pick(event),
        _ => None,
    });
    patiently(what, event).await
}

#[test]
fn they_identify_and_ping_each_other_whoever_dialed() {
    run(async |sides: Sides| {
        for ours_dials in [true, false] {
            let mut stock = stock_node(&sides, gossip_config().build().unwrap());
            let client = join(&sides, &mut stock, config(), ours_dials).await;
            let info = told("identify", &mut stock, |event| match event {
                WholeEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                    Some((peer_id, info))
                }
                _ => None,
            })
            .await;
            assert_eq!(info.0, client.peer_id());
            assert!(info.1.agent_version.starts_with("smidge/"), "{}", info.1.agent_version);
            assert_eq!(info.1.public_key.to_peer_id(), client.peer_id());
            assert!(info.1.listen_addrs.contains(&listening(&client).await), "{:?}", info.1.listen_addrs);
            let protocols: Vec<_> = info.1.protocols.iter().map(AsRef::as_ref).collect();
            for wanted in [
                "/smidge/kad/1.0.0",
                "/meshsub/1.1.0",
                "/meshsub/1.2.0",
                "/ipfs/ping/1.0.0",
                "/ipfs/id/1.0.0",
            ] {
                assert!(protocols.contains(&wanted), "{wanted} in {protocols:?}");
            }
            // What is switched on by config alone.
            for off in ["/libp2p/circuit", "/libp2p/dcutr", "/libp2p/autonat"] {
                assert!(!protocols.iter().any(|p| p.starts_with(off)), "{off} in {protocols:?}");
            }
            let (peer, rtt) = told("a ping", &mut stock, |event| match event {
                WholeEvent::Ping(ping::Event { peer, result, .. }) => Some((peer, result)),
                _ => None,
            })
            .await;
            assert_eq!(peer, client.peer_id());
            rtt.unwrap();
            patiently("our ping", client.ping(stock.peer)).await.unwrap();
            let agent = Some("stock/0.57.1".to_string());
            until("the stock node's name", &client, async |c| c.peers().await.unwrap()[0].agent == agent)
                .await;
        }
    });
}

/// Puts our node into the stock node's table, which nobody else does for it.
async fn known(stock: &StockNode, client: &Client) {
    let (peer, at) = (client.peer_id(), listening(client).await);
    stock.call(move |s| s.behaviour_mut().kad.add_address(&peer, at)).await;
    until("the stock node in our table", client, async |c| c.status().await.unwrap().table > 0).await;
}

/// The result of the stock node's query, with the record or the providers found.
async fn answer<T>(stock: &mut StockNode, mut pick: impl FnMut(QueryResult) -> Option<T>) -> T {
    told("a query", stock, |event| match event {
        WholeEvent::Kad(kad::Event::OutboundQueryProgressed { result, .. }) => pick(result),
        _ => None,
    })
    .await
}

#[test]
fn records_providers_and_peers_are_found_across() {
    run(async |sides: Sides| {
        for ours_dials in [true, false] {
            let mut stock = stock_node(&sides, gossip_config().build().unwrap());
            let client = join(&sides, &mut stock, config(), ours_dials).await;
            known(&stock, &client).await;

            let put = PutOptions { quorum: Quorum::One, ttl: None };
            let stored = patiently("our put", client.put("ours", "from smidge", put)).await.unwrap();
            assert_eq!(stored.confirmed, 1, "the stock node keeps it");
            stock.call(|s| s.behaviour_mut().kad.get_record(kad::RecordKey::new(b"ours"))).await;
            let found = answer(&mut stock, |result| match result {
                QueryResult::GetRecord(Ok(kad::GetRecordOk::FoundRecord(found))) => Some(found.record),
                QueryResult::GetRecord(Err(e)) => panic!("{e}"),
                _ => None,
            })
            .await;
            assert_eq!(found.value, b"from smidge");

            let record = kad::Record::new(kad::RecordKey::new(b"stock"), b"from stock".to_vec());
            stock
                .call(move |s| s.behaviour_mut().kad.put_record(record, kad::Quorum::One).map(drop))
                .await
                .unwrap();
            answer(&mut stock, |result| match result {
                QueryResult::PutRecord(result) => Some(result.unwrap()),
                _ => None,
            })
            .await;
            // We keep it: the stock node's copy is not needed.
            stock.call(|s| s.behaviour_mut().kad.remove_record(&kad::RecordKey::new(b"stock"))).await;
            let value = patiently("our get", client.get("stock", 1)).await.unwrap();
            assert_eq!(value, b"from stock");

            patiently("our provide", client.provide("a thing")).await.unwrap();
            let ours = client.peer_id();
            stock.call(|s| s.behaviour_mut().kad.get_providers(kad::RecordKey::new(b"a thing"))).await;
            answer(&mut stock, |result| match result {
                QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { providers, .. })) => {
                    providers.contains(&ours).then_some(())
                }
                QueryResult::GetProviders(Err(e)) => panic!("{e}"),
                _ => None,
            })
            .await;
            let key = kad::RecordKey::new(b"another thing");
            stock.call(move |s| s.behaviour_mut().kad.start_providing(key).map(drop)).await.unwrap();
            answer(&mut stock, |result| match result {
                QueryResult::StartProviding(result) => Some(result.unwrap()),
                _ => None,
            })
            .await;
            let providers = patiently("our question", client.providers("another thing")).await.unwrap();
            assert_eq!(providers, [stock.peer]);

            // A third node, stock, that only the second knows.
            let mut third = stock_node(&sides, gossip_config().build().unwrap());
            let at = patiently("a listener", third.listen()).await;
            let (peer, to) = (third.peer, at.clone());
            stock.call(move |s| s.behaviour_mut().kad.add_address(&peer, to)).await;
            let found = patiently("our search", client.find_peer(third.peer)).await.unwrap();
            assert_eq!(found, [at]);
            stock.call(move |s| s.behaviour_mut().kad.get_closest_peers(ours)).await;
            answer(&mut stock, |result| match result {
                QueryResult::GetClosestPeers(Ok(found)) => {
                    found.peers.iter().any(|p| p.peer_id == ours).then_some(())
                }
                QueryResult::GetClosestPeers(Err(e)) => panic!("{e}"),
                _ => None,
            })
            .await;
        }
    });
}

/// What the stock node got: its id as text, who handed it on, and the message.
async fn stock_message(stock: &mut StockNode) -> (String, PeerId, gossipsub::Message) {
    told("a message", stock, |event| match event {
        WholeEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
            Some((String::from_utf8(message_id.0).unwrap(), propagation_source, message))
        }
        _ => None,
    })
    .await
}

#[test]
fn signed_gossip_passes_both_ways_over_every_version_with_the_same_ids() {
    run(async |sides: Sides| {
        for version in [None, Some("/meshsub/1.2.0"), Some("/meshsub/1.1.0"), Some("/meshsub/1.0.0")] {
            for ours_dials in [true, false] {
                let mut builder = gossip_config();
                if let Some(version) = version {
                    builder.protocol_id(version, gossipsub::Version::V1_1);
                }
                let mut stock = stock_node(&sides, builder.build().unwrap());
                let topic = gossipsub::IdentTopic::new(TOPIC);
                let subscribed = topic.clone();
                stock.call(move |s| s.behaviour_mut().gossip.subscribe(&subscribed)).await.unwrap();
                let client = join(&sides, &mut stock, config(), ours_dials).await;
                let mut messages = client.subscribe(TOPIC).await.unwrap().no_local();

                let all_of_them = |n: u8| vec![n; usize::from(n) * 200];
                for n in [0, 1, 255] {
                    let sent = client.publish(TOPIC, all_of_them(n), PublishOptions::default());
                    let receipt = patiently("our publish", sent).await.unwrap();
                    assert_eq!(receipt.peers, 1);
                    let (id, from, got) = stock_message(&mut stock).await;
                    assert_eq!(
                        (id, from, got.source),
                        (receipt.id, client.peer_id(), Some(client.peer_id()))
                    );
                    assert_eq!(got.data, all_of_them(n));
                    assert!(got.sequence_number.is_some());
                }
                for n in [2, 3, 254] {
                    let (topic, data) = (topic.clone(), all_of_them(n));
                    let id =
                        stock.call(move |s| s.behaviour_mut().gossip.publish(topic, data)).await.unwrap();
                    let got = message(&mut messages).await;
                    assert_eq!(got.id.as_bytes(), id.0);
                    assert_eq!((got.source, got.from), (Some(stock.peer), stock.peer));
                    assert_eq!(*got.data, *all_of_them(n));
                }
                let stock_peer = stock.peer;
                until("a mesh", &client, async |c| c.mesh().await.unwrap()[TOPIC].contains(&stock_peer))
                    .await;
            }
        }
    });
}

#[test]
fn the_largest_message_on_the_longest_topic_reaches_a_stock_node_that_is_not_asked_for_more() {
    run(async |sides: Sides| {
        let mut stock = stock_node(&sides, gossip_config().build().unwrap());
        let name = "t".repeat(256);
        let topic = gossipsub::IdentTopic::new(&name);
        stock.call(move |s| s.behaviour_mut().gossip.subscribe(&topic)).await.unwrap();
        let ours = config();
        let largest = ours.gossip.max_message;
        let client = join(&sides, &mut stock, ours, true).await;
        for n in 0..8 {
            let sent = client.publish(&name, vec![n; largest], PublishOptions::default());
            patiently("our publish", sent).await.unwrap();
            let (_, _, got) = stock_message(&mut stock).await;
            assert_eq!(got.data, vec![n; largest]);
        }
        client.shutdown().await.unwrap();
    });
}

#[test]
fn a_node_that_speaks_floodsub_is_served_if_that_is_configured() {
    run(async |sides: Sides| {
        for ours_dials in [true, false] {
            // Floodsub on the wire, with one long-lived stream as everyone but rust-libp2p's own
            // floodsub has it.
            let mut builder = gossip_config();
            builder.protocol_id("/floodsub/1.0.0", gossipsub::Version::V1_0);
            let mut stock = stock_node(&sides, builder.build().unwrap());
            let topic = gossipsub::IdentTopic::new(TOPIC);
            let subscribed = topic.clone();
            stock.call(move |s| s.behaviour_mut().gossip.subscribe(&subscribed)).await.unwrap();
            let mut config = config();
            config.gossip.floodsub = true;
            let client = join(&sides, &mut stock, config, ours_dials).await;
            let mut messages = client.subscribe(TOPIC).await.unwrap().no_local();
            for _ in 0..3 {
                let sent = client.publish(TOPIC, "to everyone", PublishOptions::default());
                assert_eq!(patiently("our publish", sent).await.unwrap().peers, 1);
                assert_eq!(stock_message(&mut stock).await.2.data, b"to everyone");
            }
            let publish = move |s: &mut libp2p::Swarm<Whole>| s.behaviour_mut().gossip.publish(topic, "back");
            stock.call(publish).await.unwrap();
            let got = message(&mut messages).await;
            assert_eq!((&*got.data, got.source), (&b"back"[..], Some(stock.peer)));
            client.shutdown().await.unwrap();
        }
    });
}

#[test]
fn a_stock_swarm_on_our_side_needs_no_more_than_our_transport() {
    // The library's promise: any behaviour of rust-libp2p on smol.
    run(async |sides: Sides| {
        let node = |side: &dyn Side| {
            let key = Keypair::generate_ed25519();
            Driven::new(side, &key, &Tuning::default(), ping::Behaviour::default(), |_| true)
        };
        for (from, to) in sides.both_ways() {
            let (mut dialer, mut listener) = (node(from), node(to));
            let at = patiently("a listener", listener.listen()).await;
            assert_eq!(patiently("a dial", dialer.dial(at)).await, listener.peer);
            let pinged = |event: ping::Event| event.result.is_ok().then_some(());
            told("a ping", &mut dialer, pinged).await;
            told("a ping back", &mut listener, pinged).await;
        }
    });
}
