//! Bare libp2p peers that do what other implementations do, and a node that meets them.

use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Swarm, identify,
    identity::Keypair,
    kad,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use smidge::{Config, Event, GossipState, PutOptions, Quorum, config::Store};

use crate::support::{
    Network,
    bare::{self, Bare, Streams},
    run,
};

#[derive(NetworkBehaviour)]
struct Stranger {
    identify: identify::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
    gossip: Bare<Streams>,
}

/// Speaks gossip by identify and takes streams; opens its own on all connections but the first, so many.
fn gossip(mut silent: u32) -> Bare<Streams> {
    Bare::new(move || {
        let opens = silent == 0;
        silent = silent.saturating_sub(1);
        let hold = |stream, _| {
            async move {
                let _held = stream;
                std::future::pending::<()>().await;
            }
            .boxed()
        };
        Streams::new("/meshsub/1.1.0", opens, Arc::new(hold))
    })
}

/// Runs a peer at replica `n` that announces `announced` alone, and is `silent` on its first connections.
fn stranger(net: &Network, n: u8, announced: &[&str], silent: u32) -> PeerId {
    let swarm = stranger_swarm(net, n, announced, silent);
    let peer = *swarm.local_peer_id();
    bare::drive(&net.rt, swarm);
    peer
}

/// Such a peer, for who drives it.
fn stranger_swarm(net: &Network, n: u8, announced: &[&str], silent: u32) -> Swarm<Stranger> {
    let key = Keypair::generate_ed25519();
    let peer = PeerId::from(key.public());
    let identify = identify::Config::new("strangers/1".into(), key.public()).with_hide_listen_addrs(true);
    let kad = kad::Config::new(Config::default().kad.protocol);
    let mut kad = kad::Behaviour::with_config(peer, kad::store::MemoryStore::new(peer), kad);
    kad.set_mode(Some(kad::Mode::Server));
    let behaviour = Stranger { identify: identify::Behaviour::new(identify), kad, gossip: gossip(silent) };
    let mut swarm = bare::swarm(&net.rt, &key, behaviour);
    swarm.listen_on(net.addr(n)).unwrap();
    for address in announced {
        swarm.add_external_address(address.parse().unwrap());
    }
    swarm
}

/// Puts records of these keys to `node`, some at a time; how many it took.
async fn put_all(swarm: &mut Swarm<Stranger>, node: (PeerId, Multiaddr), keys: Vec<Vec<u8>>) -> usize {
    let (peer, address) = node;
    let kad = &mut swarm.behaviour_mut().kad;
    // In no table: nobody asks it anything.
    kad.set_mode(Some(kad::Mode::Client));
    kad.add_address(&peer, address);
    let (mut taken, mut under_way, mut keys) = (0, 0, keys.into_iter().peekable());
    while keys.peek().is_some() || under_way > 0 {
        // Few: of more than 32 streams kad gives some up, on either side. A record that is refused holds its own for ten seconds.
        while under_way < 12
            && let Some(key) = keys.next()
        {
            let record = kad::Record::new(key, vec![0; 16]);
            let kad = &mut swarm.behaviour_mut().kad;
            kad.put_record_to(record, std::iter::once(peer), kad::Quorum::One);
            under_way += 1;
        }
        if let SwarmEvent::Behaviour(StrangerEvent::Kad(kad::Event::OutboundQueryProgressed {
            result: kad::QueryResult::PutRecord(result),
            ..
        })) = swarm.select_next_some().await
        {
            under_way -= 1;
            taken += usize::from(result.is_ok());
        }
    }
    taken
}

/// A node that does without names.
fn node(net: &Network, n: u8, dials: Multiaddr) -> Config {
    let mut config = net.config(n, &[]);
    config.dial.addresses = vec![dials];
    config
}

#[test]
fn a_peer_counts_where_it_was_dialed_whatever_it_announces() {
    run(async |net| {
        let announced = [
            "/dns4/stranger.example/udp/4001/quic-v1",
            "/ip4/203.0.113.9/udp/4001/quic-v1",
            "/ip4/127.0.0.1/tcp/4001/ws",
        ];
        let peer = stranger(&net, 2, &announced, 0);
        let dir = tempfile::tempdir().unwrap();
        let mut config = node(&net, 3, net.addr(2));
        config.kad.store = Store::File(dir.path().join("records"));
        let node = net.spawn(config);
        net.table(&node, 1).await;
        let stored = node.put("k", "v", PutOptions { quorum: Quorum::One, ttl: None }).await.unwrap();
        assert_eq!(stored.confirmed, 1);
        assert_eq!(node.status().await.unwrap().store.known_peers, 1);
        assert_eq!(node.find_peer(peer).await.unwrap(), [net.addr(2)], "what it announces leads nowhere");
    });
}

#[test]
fn a_peer_whose_gossip_is_deaf_is_connected_anew() {
    run(async |net| {
        let peer = stranger(&net, 2, &[], 1);
        let node = net.spawn(node(&net, 3, net.addr(2)));
        let mut events = node.events();
        let off = net
            .event(&mut events, "gossip that is off", |event| match event {
                Event::GossipOff { peer, reason, attempt, again } => {
                    Some((*peer, reason.clone(), *attempt, *again))
                }
                _ => None,
            })
            .await;
        assert_eq!(off, (peer, "it opens no stream to us".into(), 1, true));
        let back = |event: &Event| matches!(event, Event::GossipBack { .. }).then_some(());
        net.event(&mut events, "gossip that is back", back).await;
        assert_eq!(node.status().await.unwrap().gossip_off, 0);
        assert_eq!(node.peers().await.unwrap()[0].gossip, GossipState::Up);
    });
}

#[test]
fn a_peer_that_fills_the_hash_table_leaves_room_for_others_and_for_the_node_itself() {
    run(async |net| {
        let node = net.spawn(net.config(3, &[]));
        net.listening(&node).await;
        let at = (node.peer_id(), net.addr(3));
        let keys = |from: u16, n: u16| (from..from + n).map(|key| key.to_be_bytes().to_vec()).collect();
        let mut greedy = stranger_swarm(&net, 2, &[], 0);
        let put = put_all(&mut greedy, at.clone(), keys(0, 1100));
        let taken = net.patiently("a flood of records", put).await;
        let store = node.status().await.unwrap().store;
        assert_eq!(store.records, 768, "a quarter of kad.max_records is kept for this node's own");
        // What lies nearer displaced what lay farther, so that more were taken than are kept. A request or its answer may
        // be lost with its stream: no record counts twice, and none that was said to be taken is missing.
        let (displaced, refused) = (store.displaced as usize, store.refused as usize);
        assert!(taken > 700 && displaced > 0 && refused > 0, "{taken}, {displaced}, {refused}");
        assert!(
            taken <= 768 + displaced && 768 + displaced + refused <= 1100,
            "{taken}, {displaced}, {refused}"
        );

        for key in ["one", "two", "three"] {
            node.put(key, "mine", PutOptions { quorum: Quorum::One, ttl: None }).await.unwrap();
        }
        let mut honest = stranger_swarm(&net, 4, &[], 0);
        let put = put_all(&mut honest, at, keys(2000, 20));
        assert_eq!(net.patiently("an honest peer's records", put).await, 20);
        assert_eq!(node.get("two", 1).await.unwrap(), b"mine");
        let store = node.status().await.unwrap().store;
        assert_eq!(store.records, 768 + 3, "twenty of the greedy one's gave way");
    });
}
