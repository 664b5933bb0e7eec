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
        NetworkBehaviour, Stream, SubstreamProtocol, THandler, THandlerInEvent, ToSwarm,
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
    net.rt.spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    peer
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
