//! In simulated time, over a network that loses, delays, reorders and duplicates.

use proptest::prelude::*;
use smidge_runtime::sim::{Host, Link, World};

use super::*;

const LISTEN: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn seeded(seed: u64) -> Config {
    let mut config = config();
    config.seed = Some(seed);
    config
}

/// Two hosts with a node each; the second listens.
pub(super) struct Pair {
    pub(super) world: World,
    pub(super) dialer: Node,
    pub(super) listener: Node,
    pub(super) addr: Multiaddr,
    pub(super) hosts: [Host; 2],
}

pub(super) fn pair(seed: u64, link: Link, change: impl Fn(&mut Config)) -> Pair {
    let world = World::new(seed, link);
    let hosts = [world.host(&["10.0.0.1"]), world.host(&["10.0.0.2"])];
    let [mut one, mut two] = [seeded(seed), seeded(seed + 1)];
    change(&mut one);
    change(&mut two);
    let dialer = Node::with(&hosts[0].handle(), one);
    let (listener, addr) =
        world.block_on(ms(1000), async { Node::listening(&hosts[1].handle(), two, LISTEN).await });
    Pair { world, dialer, listener, addr, hosts }
}

impl Pair {
    pub(super) fn connect(&mut self) -> (Peer, Peer) {
        let Self { world, dialer, listener, addr, .. } = self;
        world.block_on(ms(20_000), connect(dialer, listener, addr))
    }
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_link_does_bytes_arrive_complete_and_in_order(
        seed in any::<u64>(),
        latency in 0_u64..60,
        jitter in 0_u64..40,
        loss in 0.0_f64..0.1,
        duplicate in 0.0_f64..0.1,
        corrupt in 0.0_f64..0.05,
        busy in 0.0_f64..0.3,
        mtu in prop::sample::select(vec![1200_usize, 1280, 1450, 1472]),
        segments in prop::sample::select(vec![1_usize, 4, 40]),
        streams in 1_usize..12,
        size in 0_usize..60_000,
    ) {
        let link = Link { latency: ms(latency), jitter: ms(jitter), loss, duplicate, busy, mtu, segments, corrupt: 0.0 };
        // Idle time-outs are not the subject here: 10 % loss makes runs of silence.
        let mut pair = pair(seed % (1 << 32), link, |c| {
            c.idle_timeout = Duration::from_secs(60);
            c.handshake_timeout = Duration::from_secs(30);
        });
        let Pair { world, dialer, listener, addr, hosts } = &mut pair;
        let (a, b) = world.block_on(Duration::from_secs(60), connect(dialer, listener, addr));
        // Only now: a handshake cannot tell a changed first datagram from an attack.
        world.set_link(Link { corrupt, ..link });
        let rt = hosts[1].handle();
        rt.spawn(echo(rt.clone(), b));
        world.block_on(Duration::from_secs(600), async {
            let all = (0..streams as u64).map(|n| {
                let a = a.clone();
                async move {
                    let bytes = bytes(seed ^ n, size);
                    assert_eq!(round_trip(&a, &bytes).await.len(), bytes.len());
                    assert!(round_trip(&a, &bytes).await == bytes, "other bytes came back");
                }
            });
            futures::future::join_all(all).await;
        });
        drop(a);
        world.block_on(Duration::from_secs(120), async {
            futures::join!(dialer.idle(), listener.idle());
        });
    }
}

#[test]
fn the_same_seed_takes_the_same_simulated_time() {
    let run = || {
        let link = Link { latency: ms(20), jitter: ms(10), loss: 0.05, ..Link::default() };
        let mut pair = pair(7, link, |_| {});
        let (a, b) = pair.connect();
        let rt = pair.hosts[1].handle();
        rt.spawn(echo(rt.clone(), b));
        pair.world.block_on(Duration::from_secs(60), round_trip(&a, &bytes(1, 50_000)));
        pair.world.elapsed()
    };
    // Keys and signatures differ between the runs, and with them a few bytes: not many.
    let (a, b) = (run(), run());
    let apart = a.abs_diff(b);
    assert!(apart < ms(2000), "{a:?} and {b:?}");
}

#[test]
fn a_silent_host_fails_the_handshake_after_its_time_limit() {
    let mut pair = pair(1, Link::default(), |_| {});
    pair.world.set_partitioned("10.0.0.2", true);
    let began = pair.world.elapsed();
    let error = pair.world.block_on(ms(10_000), pair.dialer.dial(&pair.addr, REUSE)).err().unwrap();
    assert_eq!(error.to_string(), "no QUIC handshake with 10.0.0.2:4001 within 5s");
    assert_eq!(pair.world.elapsed() - began, ms(5000));
    assert_eq!(pair.dialer.transport.open_connections(), 0);
}

#[test]
fn a_peer_that_dies_at_any_moment_is_noticed_within_ten_seconds() {
    for wait in [0, 1000, 2400, 2499, 2501, 3000, 7777] {
        let mut pair = pair(wait, Link { latency: ms(20), ..Link::default() }, |_| {});
        let (a, _b) = pair.connect();
        let rt = pair.hosts[0].handle();
        pair.world.block_on(ms(10_000), rt.sleep(ms(wait)));
        pair.world.set_partitioned("10.0.0.2", true);
        let died = pair.world.elapsed();
        let error = pair.world.block_on(ms(30_000), a.ended());
        assert_eq!(error, "connection with 10.0.0.2:4001 lost: timed out");
        let noticed = pair.world.elapsed() - died;
        assert!(noticed < Duration::from_secs(10), "{noticed:?} after {wait} ms");
        drop(a);
        assert_eq!(pair.dialer.transport.open_connections(), 0);
    }
}

#[test]
fn keep_alives_hold_an_idle_connection_for_an_hour() {
    let mut pair = pair(3, Link { loss: 0.02, ..Link::default() }, |_| {});
    let (a, b) = pair.connect();
    let rt = pair.hosts[1].handle();
    pair.world.block_on(ms(3_601_000), rt.sleep(ms(3_600_000)));
    rt.spawn(echo(rt.clone(), b));
    assert_eq!(pair.world.block_on(ms(10_000), round_trip(&a, b"still here")), b"still here");
}

#[test]
fn closing_delivers_what_finished_streams_have_written() {
    for seed in 0..8 {
        let link = Link { latency: ms(30), jitter: ms(20), loss: 0.1, ..Link::default() };
        let mut pair = pair(seed, link, |c| c.close_timeout = Duration::from_secs(20));
        let (a, b) = pair.connect();
        let sent = bytes(seed, 40_000);
        let received = pair.world.block_on(Duration::from_secs(60), async {
            let mut stream = a.open().await.unwrap();
            let send = async {
                stream.write_all(&sent).await.unwrap();
                stream.close().await.unwrap();
                drop(stream);
                a.close().await.unwrap();
            };
            let receive = async {
                let mut stream = b.accept().await.unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.map(|_| all)
            };
            futures::join!(send, receive).1
        });
        assert!(received.unwrap() == sent, "seed {seed}");
        let ended = pair.world.block_on(ms(20_000), b.ended());
        assert!(
            // The close itself may be lost; then the next packet is answered with a reset.
            ended.starts_with("connection with 10.0.0.1:")
                && (ended.contains("closed by peer") || ended.contains("reset by peer")),
            "{ended}"
        );
    }
}

#[test]
fn closing_towards_a_dead_peer_takes_no_longer_than_its_time_limit() {
    let mut pair = pair(5, Link::default(), |_| {});
    let (a, _b) = pair.connect();
    pair.world.set_partitioned("10.0.0.2", true);
    let began = pair.world.elapsed();
    pair.world.block_on(ms(20_000), async {
        let mut stream = a.open().await.unwrap();
        stream.write_all(&[0; 10_000]).await.unwrap();
        stream.close().await.unwrap();
        a.close().await.unwrap();
    });
    assert_eq!(pair.world.elapsed() - began, ms(1000));
    drop(a);
    assert_eq!(pair.dialer.transport.open_connections(), 0);
}

#[test]
fn the_path_mtu_is_found_and_small_paths_work() {
    // What is sent must not exceed the path, yet come close to it.
    for (mtu, at_least) in [(1200, 1200), (1280, 1250), (1450, 1400), (1472, 1430)] {
        let mut pair = pair(9, Link { mtu, ..Link::default() }, |_| {});
        let (a, b) = pair.connect();
        let rt = pair.hosts[1].handle();
        rt.spawn(echo(rt.clone(), b));
        let sent = bytes(9, 200_000);
        assert!(pair.world.block_on(ms(60_000), round_trip(&a, &sent)) == sent);
        let found = a.with_state(|state| usize::from(state.quic.current_mtu()));
        assert!((at_least..=mtu).contains(&found), "{found} on a path of {mtu}");
    }
}

#[test]
fn a_path_that_shrinks_under_a_connection_is_survived() {
    let mut pair = pair(11, Link::default(), |_| {});
    let (a, b) = pair.connect();
    let rt = pair.hosts[1].handle();
    rt.spawn(echo(rt.clone(), b));
    let sent = bytes(2, 200_000);
    assert!(pair.world.block_on(ms(60_000), round_trip(&a, &sent)) == sent);
    pair.world.set_link(Link { mtu: 1280, ..Link::default() });
    assert!(pair.world.block_on(ms(120_000), round_trip(&a, &sent)) == sent);
}

#[test]
fn a_wildcard_listener_follows_interfaces_that_come_and_go() {
    let world = World::new(1, Link::default());
    let host = world.host(&["10.0.0.1", "10.0.1.1", "fd00::1"]);
    let mut node = Node::with(&host.handle(), seeded(1));
    node.transport.listen_on(ListenerId::next(), LISTEN.parse().unwrap()).unwrap();
    let next = |node: &mut Node| {
        world.block_on(ms(1000), async {
            match node.event().await {
                TransportEvent::NewAddress { listen_addr, .. } => format!("+{listen_addr}"),
                TransportEvent::AddressExpired { listen_addr, .. } => format!("-{listen_addr}"),
                other => panic!("{other:?}"),
            }
        })
    };
    assert_eq!(next(&mut node), "+/ip4/10.0.0.1/udp/4001/quic-v1");
    assert_eq!(next(&mut node), "+/ip4/10.0.1.1/udp/4001/quic-v1");
    host.set_addrs(&["10.0.1.1", "10.0.2.1"]);
    assert_eq!(next(&mut node), "-/ip4/10.0.0.1/udp/4001/quic-v1");
    assert_eq!(next(&mut node), "+/ip4/10.0.2.1/udp/4001/quic-v1");
    host.set_addrs(&[]);
    assert_eq!(next(&mut node), "-/ip4/10.0.1.1/udp/4001/quic-v1");
    assert_eq!(next(&mut node), "-/ip4/10.0.2.1/udp/4001/quic-v1");
    host.set_addrs(&["10.0.0.1"]);
    assert_eq!(next(&mut node), "+/ip4/10.0.0.1/udp/4001/quic-v1");
}

#[test]
fn a_listener_bound_to_a_vanished_address_says_so_and_lives_on() {
    let world = World::new(1, Link::default());
    let host = world.host(&["10.0.0.1", "10.0.1.1"]);
    let other = world.host(&["10.0.0.2"]);
    let addr = "/ip4/10.0.0.1/udp/4001/quic-v1";
    world.block_on(ms(60_000), async {
        let (mut node, listening) = Node::listening(&host.handle(), seeded(1), addr).await;
        assert_eq!(listening.to_string(), addr);
        host.set_addrs(&["10.0.1.1"]);
        assert_eq!(node.event().await.into_address_expired().unwrap().to_string(), addr);
        host.set_addrs(&["10.0.1.1", "10.0.0.1"]);
        assert_eq!(node.event().await.into_new_address().unwrap().to_string(), addr);
        let mut dialer = Node::with(&other.handle(), seeded(2));
        connect(&mut dialer, &mut node, &listening).await;
    });
}

#[test]
fn a_remote_whose_address_changes_is_followed() {
    let mut pair = pair(13, Link::default(), |_| {});
    let (a, b) = pair.connect();
    let rt = pair.hosts[1].handle();
    rt.spawn(echo(rt.clone(), b.clone()));
    let inside = b.with_state(|state| state.remote);
    let outside: SocketAddr = "192.0.2.7:1234".parse().unwrap();
    pair.world.translate(inside, outside);
    assert_eq!(pair.world.block_on(ms(10_000), round_trip(&a, b"hello")), b"hello");
    let moved = pair.world.block_on(ms(10_000), b.moved());
    assert_eq!(moved, addr::to_multiaddr(outside));
    assert_eq!(pair.world.block_on(ms(10_000), round_trip(&a, b"again")), b"again");
}

#[test]
fn a_peer_that_forgot_the_connection_resets_it() {
    let mut pair = pair(17, Link::default(), |_| {});
    let (a, b) = pair.connect();
    let rt = pair.hosts[0].handle();
    pair.world.block_on(ms(2000), rt.sleep(ms(1000)));
    // The other side forgets everything without a word reaching us.
    pair.world.set_partitioned("10.0.0.2", true);
    drop(b);
    pair.world.block_on(ms(1000), rt.sleep(ms(100)));
    pair.world.set_partitioned("10.0.0.2", false);
    let error = pair.world.block_on(ms(20_000), a.ended());
    assert_eq!(error, "connection with 10.0.0.2:4001 lost: reset by peer");
}

#[test]
fn a_peer_that_was_killed_and_came_back_with_its_key_resets_what_it_forgot() {
    let mut pair = pair(29, Link::default(), |_| {});
    let (a, b) = pair.connect();
    let rt = pair.hosts[0].handle();
    let config = pair.listener.transport.config();
    pair.world.block_on(ms(2000), rt.sleep(ms(1000)));
    pair.world.set_partitioned("10.0.0.2", true);
    drop(b);
    let host = pair.listener.rt.clone();
    pair.listener = Node::new(&host);
    pair.world.block_on(ms(1000), rt.sleep(ms(100)));
    pair.listener = Node::with(&host, config);
    pair.world.block_on(ms(1000), pair.listener.listen("/ip4/10.0.0.2/udp/4001/quic-v1"));
    pair.world.set_partitioned("10.0.0.2", false);
    let began = pair.world.elapsed();
    let error = pair.world.block_on(ms(20_000), a.ended());
    assert_eq!(error, "connection with 10.0.0.2:4001 lost: reset by peer");
    let noticed = pair.world.elapsed() - began;
    assert!(noticed < ms(3500), "with the next keep-alive, not after the idle time-out: {noticed:?}");
}

#[test]
fn many_connections_share_the_memory_budget_and_get_it_back() {
    let mut pair = pair(19, Link::default(), |c| c.memory = 1 << 20);
    let allowance = |pair: &Pair| pair.listener.transport.allowance();
    assert_eq!(allowance(&pair), 1 << 19);
    let ends: Vec<_> = (0..8).map(|_| pair.connect()).collect();
    assert_eq!(allowance(&pair), 1 << 16);
    // Every connection's window followed: none may have more unacknowledged than its share.
    let rt = pair.hosts[0].handle();
    pair.world.block_on(ms(10_000), rt.sleep(ms(5000)));
    for (a, _) in &ends {
        let written = pair.world.block_on(ms(1000), async {
            let mut stream = a.open().await.unwrap();
            let polled = poll_fn(|cx| {
                let mut total = 0;
                while let Poll::Ready(Ok(n)) =
                    futures::AsyncWrite::poll_write(Pin::new(&mut stream), cx, &[0; 4096])
                {
                    total += n;
                }
                Poll::Ready(total)
            });
            polled.await
        });
        assert!(written <= 1 << 16, "{written} bytes taken in one go");
    }
    drop(ends);
    pair.world.block_on(ms(20_000), pair.listener.idle());
    assert_eq!(allowance(&pair), 1 << 19);
}

#[test]
fn a_socket_that_fails_to_receive_is_reported_and_tried_again() {
    let mut pair = pair(23, Link::default(), |_| {});
    let (a, b) = pair.connect();
    pair.world.fail_receive(4001, std::io::ErrorKind::OutOfMemory);
    let event = pair.world.block_on(ms(1000), pair.listener.event());
    let error = event.into_listener_error().expect("an error of the listener");
    assert_eq!(chain(&error), "cannot receive on 0.0.0.0:4001: out of memory");
    let rt = pair.hosts[1].handle();
    rt.spawn(echo(rt.clone(), b));
    assert_eq!(pair.world.block_on(ms(10_000), round_trip(&a, b"on")), b"on");
    pair.connect();
}

#[test]
fn a_host_without_a_way_to_the_remote_fails_the_dial_at_once() {
    let mut pair = pair(29, Link::default(), |_| {});
    let began = pair.world.elapsed();
    let remote = "/ip6/fd00::1/udp/4001/quic-v1".parse().unwrap();
    let error = pair.world.block_on(ms(10_000), pair.dialer.dial(&remote, REUSE)).err().unwrap();
    assert_eq!(chain(&error), "cannot send to [fd00::1]:4001: network unreachable");
    assert_eq!(pair.world.elapsed(), began);
    assert_eq!(pair.dialer.transport.open_connections(), 0);
}

#[test]
fn thirty_dialers_at_once_are_all_let_in_although_some_must_prove_themselves() {
    let world = World::new(31, Link { latency: ms(5), loss: 0.03, ..Link::default() });
    let host = world.host(&["10.0.0.1"]);
    let mut busy = seeded(31);
    busy.retry_above = 8;
    let (mut listener, addr) =
        world.block_on(ms(1000), async { Node::listening(&host.handle(), busy, LISTEN).await });
    let mut dialers: Vec<_> = (0..30)
        .map(|n| Node::with(&world.host(&[&format!("10.0.1.{n}")]).handle(), seeded(100 + n)))
        .collect();
    world.block_on(Duration::from_secs(60), async {
        let dials = futures::future::join_all(dialers.iter_mut().map(|dialer| dialer.dial(&addr, NEW)));
        let accepts = async {
            let mut accepted = Vec::new();
            let mut upgrades = futures::stream::FuturesUnordered::new();
            while accepted.len() < 30 {
                futures::select! {
                    incoming = std::pin::pin!(listener.incoming().fuse()) => upgrades.push(incoming.0),
                    upgraded = upgrades.select_next_some() => accepted.extend(upgraded.ok()),
                }
            }
            accepted
        };
        let (dialed, accepted) = futures::join!(dials, accepts);
        assert_eq!(accepted.len(), 30);
        for dialed in dialed {
            dialed.unwrap();
        }
    });
}

#[test]
fn what_one_wakes_the_next_to_write_leaves_in_few_datagrams_and_a_lone_write_right_away() {
    let mut pair = pair(9, Link { latency: ms(20), ..Link::default() }, |_| {});
    let (a, b) = pair.connect();
    let rt = pair.hosts[0].handle();
    let (mut streams, mut readers) = (Vec::new(), Vec::new());
    pair.world.block_on(ms(5000), async {
        for _ in 0..12 {
            let mut stream = a.open().await.unwrap();
            stream.write_all(&[0]).await.unwrap();
            let mut reader = b.accept().await.unwrap();
            reader.read_exact(&mut [0]).await.unwrap();
            streams.push(stream);
            readers.push(reader);
        }
        rt.sleep(ms(500)).await;
    });

    let (before, began) = (pair.world.delivered(), pair.world.elapsed());
    pair.world.block_on(ms(1000), async {
        streams[0].write_all(&[7; 100]).await.unwrap();
        readers[0].read_exact(&mut [0; 100]).await.unwrap();
    });
    assert_eq!(pair.world.elapsed() - began, ms(20));
    assert_eq!(pair.world.delivered() - before, 1);
    pair.world.block_on(ms(5000), rt.sleep(ms(500)));

    // Each writes when the one before it has written.
    let before = pair.world.delivered();
    let (first, mut turn) = oneshot::channel();
    for mut stream in streams {
        let (done, next) = oneshot::channel();
        rt.spawn(async move {
            turn.await.unwrap();
            stream.write_all(&[7; 80]).await.unwrap();
            let _ = done.send(());
            futures::future::pending::<()>().await;
        });
        turn = next;
    }
    pair.world.block_on(ms(1000), async {
        first.send(()).unwrap();
        for reader in &mut readers {
            reader.read_exact(&mut [0; 80]).await.unwrap();
        }
    });
    // 960 bytes of payload and some acknowledgements.
    let datagrams = pair.world.delivered() - before;
    assert!(datagrams <= 6, "{datagrams} datagrams");
}
