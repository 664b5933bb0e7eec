//! Behaviours on simulated hosts: sockets, interfaces that change, and what a hostile host may send.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures::future::poll_fn;
use libp2p::{
    Multiaddr, PeerId,
    core::transport::ListenerId,
    swarm::{
        DialError, FromSwarm, NetworkBehaviour, NewListenAddr, ToSwarm, behaviour::DialFailure,
        dial_opts::DialOpts,
    },
};

use super::super::{Behaviour, Notice, Policy, Settings, wire};
use crate::{
    config::TransportKind,
    runtime::{
        Interface, Runtime, Transmit, UdpSocket,
        sim::{Host, Link, World},
    },
};

const S: fn(u64) -> Duration = Duration::from_secs;
const MAX_PEERS: usize = 8;

fn node(host: &Host, ip: &str) -> (PeerId, Behaviour) {
    let peer = PeerId::random();
    let policy = Policy {
        query_interval: S(300),
        ttl: S(360),
        max_peers: MAX_PEERS,
        retry_max: S(30),
        parallel: 4,
        transports: vec![TransportKind::Quic],
    };
    let settings = Settings { policy, interfaces: Vec::new() };
    let mut behaviour = Behaviour::new(peer, settings, host.handle(), fastrand::Rng::with_seed(1));
    listen(&mut behaviour, ip);
    (peer, behaviour)
}

fn listen(behaviour: &mut Behaviour, ip: &str) {
    let addr: Multiaddr = format!("/ip4/{ip}/udp/4001/quic-v1").parse().unwrap();
    let listener_id = ListenerId::next();
    behaviour.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr: &addr }));
}

/// What a behaviour tells or does.
#[derive(Debug)]
enum Event {
    Notice(Notice),
    Dials(DialOpts),
}

/// Everything that each of `nodes` tells or does within `time`.
fn play(world: &World, on: &Host, nodes: &mut [&mut Behaviour], time: Duration) -> Vec<Vec<Event>> {
    let mut all: Vec<Vec<Event>> = nodes.iter().map(|_| Vec::new()).collect();
    let rt = on.handle();
    let forever = poll_fn(|cx| {
        for (node, events) in nodes.iter_mut().zip(&mut all) {
            while let Poll::Ready(event) = node.poll(cx) {
                events.push(match event {
                    ToSwarm::GenerateEvent(notice) => Event::Notice(notice),
                    ToSwarm::Dial { opts } => Event::Dials(opts),
                    other => panic!("{other:?}"),
                });
            }
        }
        Poll::<()>::Pending
    });
    world.block_on(time + S(1), rt.timeout(time, forever)).expect_err("it goes on for ever");
    all
}

/// Where `who` was discovered.
fn discovered(events: &[Event], who: PeerId) -> Vec<String> {
    let found = events.iter().filter_map(|event| match event {
        Event::Notice(Notice::Discovered { peer, address }) if *peer == who => Some(address.to_string()),
        _ => None,
    });
    found.collect()
}

fn dials(events: Vec<Event>) -> Vec<DialOpts> {
    let dials = events.into_iter().filter_map(|event| match event {
        Event::Dials(opts) => Some(opts),
        Event::Notice(_) => None,
    });
    dials.collect()
}

fn group() -> SocketAddr {
    "224.0.0.251:5353".parse().unwrap()
}

/// A stranger's socket on `host`, which may send anything.
fn stranger(host: &Host, ip: &str) -> Arc<dyn UdpSocket> {
    let addr: IpAddr = ip.parse().unwrap();
    let own = Interface { name: "eth0".into(), index: 1, addr, prefix_len: 24 };
    host.join_multicast(group(), &own).unwrap()
}

fn say(socket: &dyn UdpSocket, contents: &[u8]) {
    let transmit = Transmit { destination: group(), ecn: None, contents, segment_size: None, src_ip: None };
    socket.try_send(&transmit).unwrap();
}

#[test]
fn two_hosts_find_each_other_though_a_third_of_all_packets_is_lost() {
    for seed in 0..20 {
        let world = World::new(seed, Link { loss: 0.33, ..Link::default() });
        let (a_host, b_host) = (world.host(&["10.0.0.1"]), world.host(&["10.0.0.2"]));
        let (a_id, mut a) = node(&a_host, "10.0.0.1");
        let (b_id, mut b) = node(&b_host, "10.0.0.2");
        let mut all = play(&world, &a_host, &mut [&mut a, &mut b], S(60)).into_iter();
        let (at_a, at_b) = (all.next().unwrap(), all.next().unwrap());
        assert_eq!(discovered(&at_a, b_id), ["/ip4/10.0.0.2/udp/4001/quic-v1"], "seed {seed}");
        assert_eq!(discovered(&at_b, a_id), ["/ip4/10.0.0.1/udp/4001/quic-v1"], "seed {seed}");
        let dialed: Vec<_> = dials(at_a).into_iter().chain(dials(at_b)).collect();
        assert!(dialed.iter().all(|opts| [Some(a_id), Some(b_id)].contains(&opts.get_peer_id())));
        assert!(!dialed.is_empty());
    }
}

#[test]
fn a_host_that_moves_is_found_where_it_is_now() {
    let world = World::new(1, Link::default());
    let (a_host, b_host) = (world.host(&["10.0.0.1"]), world.host(&["10.0.9.2"]));
    let (_, mut a) = node(&a_host, "10.0.0.1");
    let (b_id, mut b) = node(&b_host, "10.0.9.2");
    let apart = play(&world, &a_host, &mut [&mut a, &mut b], S(60));
    assert!(discovered(&apart[0], b_id).is_empty(), "they are on different links");
    b_host.set_addrs(&["10.0.0.2"]);
    listen(&mut b, "10.0.0.2");
    let met = play(&world, &a_host, &mut [&mut a, &mut b], S(5));
    assert_eq!(discovered(&met[0], b_id), ["/ip4/10.0.0.2/udp/4001/quic-v1"]);
    // An interface that goes takes what was found there with it.
    a_host.set_addrs(&[]);
    let alone = play(&world, &a_host, &mut [&mut a, &mut b], S(5));
    let is_gone = |e: &Event| matches!(e, Event::Notice(Notice::Expired { peer, .. }) if *peer == b_id);
    assert_eq!(alone[0].iter().filter(|e| is_gone(e)).count(), 1);
    let troubles = alone[0].iter().filter(|e| matches!(e, Event::Notice(Notice::Trouble { .. }))).count();
    assert_eq!((troubles, a.status().unwrap().last_error.is_some()), (1, true));
    a_host.set_addrs(&["10.0.0.1"]);
    let again = play(&world, &a_host, &mut [&mut a, &mut b], S(5));
    assert_eq!(discovered(&again[0], b_id), ["/ip4/10.0.0.2/udp/4001/quic-v1"]);
    assert_eq!(a.status().unwrap().last_error, None);
}

#[test]
fn who_has_it_off_opens_nothing_and_says_nothing() {
    let world = World::new(1, Link::default());
    let host = world.host(&["10.0.0.1"]);
    let (_, mut other) = node(&world.host(&["10.0.0.2"]), "10.0.0.2");
    let mut off = Behaviour::off();
    listen(&mut off, "10.0.0.1");
    let all = play(&world, &host, &mut [&mut off, &mut other], S(600));
    assert!(all[0].is_empty() && off.status().is_none());
    assert!(all[1].iter().all(|e| matches!(e, Event::Notice(Notice::Looking(_)))), "{:?}", all[1]);
}

#[test]
fn whatever_a_hostile_host_sends_the_honest_one_is_found_and_bounds_hold() {
    let world = World::new(1, Link { mtu: 70_000, ..Link::default() });
    let (a_host, b_host) = (world.host(&["10.0.0.1"]), world.host(&["10.0.0.2"]));
    let evil = stranger(&world.host(&["10.0.0.66"]), "10.0.0.66");
    let (a_id, mut a) = node(&a_host, "10.0.0.1");
    let peer = PeerId::random();
    let at = |text: &str| text.parse::<Multiaddr>().unwrap();
    let lan = at("/ip4/10.0.0.66/udp/4001/quic-v1");
    let good = wire::answers("x", &peer, [&lan], 360).remove(0);
    let mut packets: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0; 1],
        vec![0xff; 12],
        vec![0xff; 9000],
        vec![0; 1 << 16],
        good[..good.len() - 1].to_vec(),
        [&good[..], &[0xc0; 60_000]].concat(),
        // Counts that lie, and a name that points at itself.
        [&[0, 0, 0x84, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[0xc0, 12]].concat(),
        // This node's own id, and its own address under another peer's.
        wire::answers("x", &a_id, [&lan], 360).remove(0),
        wire::answers("x", &peer, [&at("/ip4/10.0.0.1/udp/4001/quic-v1")], 360).remove(0),
    ];
    for elsewhere in ["8.8.8.8", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.251", "10.0.1.1"] {
        let address = at(&format!("/ip4/{elsewhere}/udp/4001/quic-v1"));
        packets.push(wire::answers("x", &peer, [&address], 360).remove(0));
    }
    for n in 1..2000_u16 {
        let address = at(&format!("/ip4/10.0.0.66/udp/{n}/quic-v1"));
        packets.push(wire::answers("x", &PeerId::random(), [&address], u32::MAX).remove(0));
    }
    packets.iter().for_each(|packet| say(&*evil, packet));
    let all = play(&world, &a_host, &mut [&mut a], S(20)).remove(0);
    let (mut found, mut floods, mut same_key) = (0, 0, 0);
    for event in &all {
        match event {
            Event::Notice(Notice::Discovered { address, .. }) => {
                assert!(address.to_string().starts_with("/ip4/10.0.0.66/"), "{address}");
                found += 1;
            }
            Event::Notice(Notice::Flood(_)) => floods += 1,
            Event::Notice(Notice::SameKey { address }) => {
                assert_eq!(*address, lan);
                same_key += 1;
            }
            Event::Notice(Notice::Looking(_)) | Event::Dials(_) => {}
            Event::Notice(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((found, floods), (MAX_PEERS, 1), "mdns.max_peers, one line");
    assert_eq!((same_key, a.same_key()), (1, vec![lan]), "this node's own id, at another host");
    assert_eq!(a.status().unwrap().records.len(), MAX_PEERS);
    let dialed = dials(all);
    assert_eq!(dialed.len(), 4, "dial.parallel");
    // No peer answers there, which makes room for honest ones.
    for opts in &dialed {
        a.on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: opts.get_peer_id(),
            error: &DialError::Aborted,
            connection_id: opts.connection_id(),
        }));
    }
    let (b_id, mut b) = node(&b_host, "10.0.0.2");
    let all = play(&world, &a_host, &mut [&mut a, &mut b], S(60));
    assert_eq!(discovered(&all[0], b_id), ["/ip4/10.0.0.2/udp/4001/quic-v1"]);
    assert_eq!(a.status().unwrap().records.len(), MAX_PEERS);
}
