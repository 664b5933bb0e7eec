//! Bare libp2p peers that do what other implementations do, and a node that meets them.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, Transport as _,
    core::{Endpoint, muxing::StreamMuxerBox, transport::PortUse, upgrade::ReadyUpgrade},
    identify,
    identity::Keypair,
    kad,
    swarm::{
        self, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, Stream, SubstreamProtocol, SwarmEvent, THandler, THandlerInEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use smidge::{
    Config, Event, GossipState, PutOptions, Quorum,
    config::Store,
    transport::quic::{self, Transport},
};

use crate::support::{Network, PATIENCE, run};

#[derive(NetworkBehaviour)]
struct Stranger {
    identify: identify::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
    gossip: Gossip,
}

/// Speaks gossip by identify and takes streams; opens its own on all but the first connections.
struct Gossip {
    /// Connections that are to come without a stream of its own.
    silent: u32,
}

/// A connection's gossip.
struct Streams {
    opens: bool,
    open: Vec<Stream>,
}

impl Gossip {
    fn streams(&mut self) -> Streams {
        let opens = self.silent == 0;
        self.silent = self.silent.saturating_sub(1);
        Streams { opens, open: Vec::new() }
    }
}

impl NetworkBehaviour for Gossip {
    type ConnectionHandler = Streams;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.streams())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.streams())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

fn gossip_protocol() -> SubstreamProtocol<ReadyUpgrade<StreamProtocol>> {
    SubstreamProtocol::new(ReadyUpgrade::new(StreamProtocol::new("/meshsub/1.1.0")), ())
}

impl ConnectionHandler for Streams {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        gossip_protocol()
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Infallible>> {
        if std::mem::take(&mut self.opens) {
            let protocol = gossip_protocol();
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. })
        | ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) = event
        {
            self.open.push(protocol);
        }
    }
}

/// Runs a peer at replica `n` that announces `announced` alone, and is `silent` on its first connections.
fn stranger(net: &Network, n: u8, announced: &[&str], silent: u32) -> PeerId {
    let mut swarm = stranger_swarm(net, n, announced, silent);
    let peer = *swarm.local_peer_id();
    net.rt.spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    peer
}

/// Such a peer, for who drives it.
fn stranger_swarm(net: &Network, n: u8, announced: &[&str], silent: u32) -> Swarm<Stranger> {
    let key = Keypair::generate_ed25519();
    let peer = PeerId::from(key.public());
    let transport = Transport::new(quic::Config::new(&key).unwrap(), net.rt.clone())
        .unwrap()
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed();
    let identify = identify::Config::new("strangers/1".into(), key.public()).with_hide_listen_addrs(true);
    let kad = kad::Config::new(Config::default().kad.protocol);
    let mut kad = kad::Behaviour::with_config(peer, kad::store::MemoryStore::new(peer), kad);
    kad.set_mode(Some(kad::Mode::Server));
    let behaviour = Stranger { identify: identify::Behaviour::new(identify), kad, gossip: Gossip { silent } };
    let rt = net.rt.clone();
    let config =
        swarm::Config::with_executor(move |task| rt.spawn(task)).with_idle_connection_timeout(PATIENCE);
    let mut swarm = Swarm::new(transport, behaviour, peer, config);
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
        // Few: of more than 32 streams kad gives some up, on either side.
        while under_way < 4
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
