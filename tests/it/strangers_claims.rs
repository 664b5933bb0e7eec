//! Strangers who say where they or others are, and say too much: what a node keeps of it, passes on and dials.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    io,
    net::{IpAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{AsyncWriteExt, FutureExt, StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr, OutboundUpgrade, PeerId, StreamProtocol, Swarm,
    autonat::v2::client as autonat,
    core::upgrade::{DeniedUpgrade, UpgradeInfo},
    identify,
    identity::Keypair,
    kad,
    multiaddr::Protocol,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, FromSwarm, NetworkBehaviour, NewExternalAddrCandidate,
        Stream, SubstreamProtocol, SwarmEvent,
        handler::{ConnectionEvent, FullyNegotiatedOutbound},
    },
};
use smidge::{Client, Config, Event, runtime::Handle};

use crate::support::{
    Network,
    bare::{self, Bare},
    run, sandbox,
    wire::{field, framed},
};

#[derive(NetworkBehaviour)]
pub(crate) struct Stranger {
    identify: identify::Behaviour,
    pub(crate) kad: kad::Behaviour<kad::store::MemoryStore>,
    autonat: autonat::Behaviour,
    pushes: Bare<Pusher>,
}

/// Pushes messages of identify over a connection, one after the other.
pub(crate) struct Pusher {
    left: VecDeque<Vec<u8>>,
    is_busy: bool,
    done: Arc<AtomicUsize>,
}

/// One message.
pub(crate) struct Push(Vec<u8>);

impl UpgradeInfo for Push {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 1];

    fn protocol_info(&self) -> Self::InfoIter {
        [identify::PUSH_PROTOCOL_NAME]
    }
}

impl OutboundUpgrade<Stream> for Push {
    type Output = ();
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<()>>;

    fn upgrade_outbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        async move {
            stream.write_all(&framed(&self.0)).await?;
            stream.close().await
        }
        .boxed()
    }
}

impl ConnectionHandler for Pusher {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = Push;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Push, (), Infallible>> {
        if !self.is_busy
            && let Some(message) = self.left.pop_front()
        {
            self.is_busy = true;
            let protocol = SubstreamProtocol::new(Push(message), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { .. }) => {
                self.done.fetch_add(1, Relaxed);
                self.is_busy = false;
            }
            ConnectionEvent::DialUpgradeError(_) => self.is_busy = false,
            _ => {}
        }
    }
}

/// The message of identify that says nothing but these addresses (its field `listenAddrs`).
fn announces(addresses: impl IntoIterator<Item = Multiaddr>) -> Vec<u8> {
    addresses.into_iter().flat_map(|address| field(2, address.as_ref())).collect()
}

pub(crate) fn stranger(
    rt: &Handle,
    at: &Multiaddr,
    messages: Vec<Vec<u8>>,
) -> (Swarm<Stranger>, Arc<AtomicUsize>) {
    let key = Keypair::generate_ed25519();
    let peer = PeerId::from(key.public());
    let identify = identify::Config::new("strangers/1".into(), key.public());
    let mut config = kad::Config::new(Config::default().kad.protocol);
    config.set_periodic_bootstrap_interval(None);
    let mut kad = kad::Behaviour::with_config(peer, kad::store::MemoryStore::new(peer), config);
    kad.set_mode(Some(kad::Mode::Server));
    let done = Arc::new(AtomicUsize::new(0));
    let counted = done.clone();
    let pusher = move || Pusher { left: messages.clone().into(), is_busy: false, done: counted.clone() };
    let behaviour = Stranger {
        identify: identify::Behaviour::new(identify),
        kad,
        autonat: autonat::Behaviour::default(),
        pushes: Bare::new(pusher),
    };
    let mut swarm = bare::swarm(rt, &key, behaviour);
    swarm.listen_on(at.clone()).unwrap();
    (swarm, done)
}

/// A node that dials `other` and no name.
pub(crate) fn node(net: &Network, n: u8, other: Multiaddr) -> Config {
    let mut config = net.config(n, &[]);
    config.dial.addresses = vec![other];
    config
}

#[test]
fn a_peer_that_announces_new_addresses_again_and_again_has_sixteen_and_one_line() {
    run(async |net| {
        const PUSHES: u16 = 30;
        let at = |push: u16, n: u16| net.addr(2).replace(1, |_| Some(Protocol::Udp(2000 + push * 300 + n)));
        let messages = (0..PUSHES).map(|push| announces((0..300).map(|n| at(push, n).unwrap()))).collect();
        let (swarm, done) = stranger(&net.rt, &net.addr(2), messages);
        let peer = *swarm.local_peer_id();
        let node_config = node(&net, 3, net.addr(2));
        let node = net.spawn(node_config);
        let mut events = node.events();
        bare::drive(&net.rt, swarm);
        let last: BTreeSet<_> = (0..300).map(|n| at(PUSHES - 1, n).unwrap()).collect();
        net.until("the last of the addresses", &node, |node| {
            let (done, last) = (done.clone(), last.clone());
            async move {
                let known = node.find_peer(peer).await.unwrap_or_default();
                done.load(Relaxed) >= PUSHES.into() && known.iter().any(|a| last.contains(a))
            }
        })
        .await;
        let known = node.find_peer(peer).await.unwrap();
        assert_eq!(known.len(), 16, "{known:?}");
        assert!(known.contains(&net.addr(2)), "where it was dialed: {known:?}");
        assert!(
            known.iter().all(|a| *a == net.addr(2) || last.contains(a)),
            "replaced, not added: {known:?}"
        );

        // Nobody hears more of it, and the node answers as before.
        let other = net.spawn(self::node(&net, 4, net.addr(3)));
        net.connected(&other, [node.peer_id()]).await;
        net.table(&other, 1).await;
        let told = net
            .patiently("an answer", async {
                loop {
                    let told = other.find_peer(peer).await.unwrap_or_default();
                    if !told.is_empty() {
                        return told;
                    }
                    net.rt.sleep(Duration::from_millis(50)).await;
                }
            })
            .await;
        assert!(told.len() <= 16, "{told:?}");
        let mut lines = 0;
        while let Some(Some(event)) = events.next().now_or_never() {
            lines += usize::from(matches!(event, Event::Routable { peer: who, .. } if who == peer));
        }
        assert!((1..=4).contains(&lines), "{lines} lines for {} addresses", u32::from(PUSHES) * 300);
    });
}

/// Sockets that somebody might be made to dial, and what arrived at them.
pub(crate) struct Bait(Vec<UdpSocket>);

impl Bait {
    pub(crate) fn at(ip: IpAddr, count: usize) -> Self {
        let sockets = (0..count).map(|_| UdpSocket::bind((ip, 0)).unwrap());
        Self(sockets.inspect(|socket| socket.set_nonblocking(true).unwrap()).collect())
    }

    pub(crate) fn addresses(&self) -> Vec<Multiaddr> {
        let at = |socket: &UdpSocket| {
            let at = socket.local_addr().unwrap();
            Multiaddr::from(at.ip()).with(Protocol::Udp(at.port())).with(Protocol::QuicV1)
        };
        self.0.iter().map(at).collect()
    }

    /// The sockets, by number, at which something arrived from `ip`.
    fn taken_by(&self, ip: IpAddr) -> Vec<usize> {
        let mut buffer = [0; 2000];
        let heard = |socket: &UdpSocket| {
            let mut heard = false;
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                heard |= from.ip() == ip;
            }
            heard
        };
        self.0.iter().map(heard).enumerate().filter(|(_, heard)| *heard).map(|(n, _)| n).collect()
    }
}

/// A peer at `at` that knows of others who do not exist, ten at a time of these addresses.
pub(crate) fn liar(rt: &Handle, at: &Multiaddr, addresses: &[Multiaddr]) -> PeerId {
    let (mut swarm, _) = stranger(rt, at, Vec::new());
    for some in addresses.chunks(10) {
        let invented = PeerId::random();
        for address in some {
            swarm.behaviour_mut().kad.add_address(&invented, address.clone());
        }
    }
    let peer = *swarm.local_peer_id();
    bare::drive(rt, swarm);
    peer
}

/// Asks the hash table for what nobody has, until all have been dialed that are.
async fn ask(net: &Network, node: &Client) -> Duration {
    net.table(node, 1).await;
    let began = Instant::now();
    let found = net.patiently("the end of a query", node.get("nothing", 1)).await;
    assert!(found.is_err(), "{found:?}");
    began.elapsed()
}

#[test]
fn made_up_peers_are_dialed_at_a_bounded_rate_and_at_eight_addresses_each() {
    run(async |net| {
        let bait = Bait::at(net.ip(200), 200);
        liar(&net.rt, &net.addr(2), &bait.addresses());
        let mut config = node(&net, 3, net.addr(2));
        config.quic.handshake_timeout = Duration::from_millis(500);
        let took = ask(&net, &net.spawn(config)).await;
        let dialed = bait.taken_by(net.ip(3));
        // 32 at once to one host, and 4 a second.
        let most = 32 + 4 * (took.as_secs() as usize + 1);
        assert!((8..=most).contains(&dialed.len()), "{} in {took:?}", dialed.len());
        let mut by_peer = BTreeMap::<_, usize>::new();
        dialed.iter().for_each(|n| *by_peer.entry(n / 10).or_default() += 1);
        assert!(by_peer.values().all(|n| *n <= 8), "{by_peer:?}");
        println!("measured: {} of 200 made-up addresses dialed in {:.1} s", dialed.len(), took.as_secs_f64());
    });
}

#[test]
fn what_peers_deny_covers_is_not_dialed_whoever_tells_of_it() {
    run(async |net| {
        let [denied, other] = [200, 201].map(|n| Bait::at(net.ip(n), 10));
        liar(&net.rt, &net.addr(2), &[denied.addresses(), other.addresses()].concat());
        let mut config = node(&net, 3, net.addr(2));
        config.quic.handshake_timeout = Duration::from_millis(500);
        config.peers.deny = vec![net.ip(200).to_string().parse().unwrap()];
        ask(&net, &net.spawn(config)).await;
        assert_eq!(denied.taken_by(net.ip(3)), [0_usize; 0]);
        assert!(!other.taken_by(net.ip(3)).is_empty(), "the question was asked");
    });
}

#[test]
fn nobody_elsewhere_makes_a_node_dial_its_own_host_or_its_link() {
    let addresses = "ip addr add 10.66.0.1/24 dev lo && ip addr add 169.254.169.254/32 dev lo";
    sandbox::inside(addresses, || {
        run(async |net| {
            let at = |ip: &str, port| format!("/ip4/{ip}/udp/{port}/quic-v1").parse::<Multiaddr>().unwrap();
            let node_ip: IpAddr = "10.66.0.1".parse().unwrap();
            let [loopback, metadata, site] =
                ["127.0.0.1", "169.254.169.254", "10.66.0.200"].map(|ip| Bait::at(ip.parse().unwrap(), 5));
            let told = [loopback.addresses(), metadata.addresses(), site.addresses()].concat();
            liar(&net.rt, &at("10.66.0.2", 4001), &told);
            let mut config = node(&net, 3, at("10.66.0.2", 4001));
            config.listen.addresses = vec![at("10.66.0.1", 4001)];
            config.quic.handshake_timeout = Duration::from_millis(500);
            config.nat.answer = true;
            let node = net.spawn(config);
            ask(&net, &node).await;
            let dialed = |bait: &Bait| bait.taken_by(node_ip).len() + bait.taken_by(loopback_ip()).len();
            assert_eq!(dialed(&loopback), 0);
            assert_eq!(dialed(&metadata), 0);
            assert!(dialed(&site) > 0, "the question was asked");

            // Who asks to be dialed back (AutoNAT) is not dialed there either.
            for (n, bait) in [&loopback, &metadata, &site].into_iter().enumerate() {
                let (mut asker, _) = stranger(&net.rt, &at("10.66.0.3", 4001 + n as u16), Vec::new());
                asker.dial(at("10.66.0.1", 4001)).unwrap();
                let addr = &bait.addresses()[0];
                let candidate = FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr });
                asker.behaviour_mut().autonat.on_swarm_event(candidate);
                net.patiently(addr, async {
                    loop {
                        if let SwarmEvent::Behaviour(StrangerEvent::Autonat(event)) =
                            asker.select_next_some().await
                            && event.tested_addr == *addr
                        {
                            assert!(event.result.is_err(), "nobody is there");
                            break;
                        }
                    }
                })
                .await;
            }
            assert_eq!(dialed(&loopback), 0);
            assert_eq!(dialed(&metadata), 0);
            assert!(dialed(&site) > 0, "it was dialed where it may be");
        });
    });
}

fn loopback_ip() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}
