//! Datagrams nobody should send, handshakes that are too many, and dials that are given up.

use std::net::UdpSocket;

use proptest::prelude::*;

use super::*;

fn raw() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The first datagram of a QUIC version 1 client, as far as it can be made without keys.
fn initial(version: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xc3];
    bytes.extend(version.to_be_bytes());
    bytes.push(8);
    bytes.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    bytes.push(4);
    bytes.extend([9, 9, 9, 9]);
    bytes.resize(len, 0);
    bytes
}

#[test]
fn an_unknown_version_is_answered_with_the_one_we_speak() {
    real(|rt| async move {
        let (_listener, addr) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let to = addr::parse_dial(&addr).unwrap().0;
        let answer = rt
            .unblock(move || {
                let socket = raw();
                // Too small to be answered: a spoofed source must not gain bytes.
                socket.send_to(&initial(0xff00_001d, 200), to).unwrap();
                socket.send_to(&initial(0xff00_001d, 1200), to).unwrap();
                let mut buf = [0; 2000];
                let n = socket.recv(&mut buf).unwrap();
                buf[..n].to_vec()
            })
            .await
            .unwrap();
        assert_eq!(&answer[1..5], [0; 4], "a version negotiation packet");
        assert!(answer.len() < 1200);
        let versions: Vec<_> = answer[answer.len() - 8..].chunks(4).map(<[u8]>::to_vec).collect();
        assert!(versions.contains(&vec![0, 0, 0, 1]), "{versions:?}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn whatever_bytes_arrive_the_listener_still_accepts(
        datagrams in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..1500),
                // Long headers of version 1 with arbitrary contents.
                proptest::collection::vec(any::<u8>(), 1200..1400).prop_map(|mut bytes| {
                    bytes[0] |= 0xc0;
                    bytes[1..5].copy_from_slice(&[0, 0, 0, 1]);
                    bytes[5] %= 21;
                    bytes
                }),
            ],
            1..40,
        )
    ) {
        real(|rt| async move {
            let (mut listener, addr) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
            let mut dialer = Node::new(&rt);
            let (a, b) = connect(&mut dialer, &mut listener, &addr).await;
            let to = addr::parse_dial(&addr).unwrap().0;
            let socket = raw();
            for datagram in &datagrams {
                socket.send_to(datagram, to).unwrap();
            }
            rt.spawn(echo(rt.clone(), b));
            assert_eq!(round_trip(&a, b"unharmed").await, b"unharmed");
            let mut late = Node::new(&rt);
            // Some of the garbage may look like a connection: those fail, the real one comes.
            let (dialed, _) = futures::join!(late.dial(&addr, REUSE), listener.accept_any());
            dialed.unwrap();
        });
    }
}

#[test]
fn above_the_limit_an_address_must_prove_itself_and_then_connects() {
    real(|rt| async move {
        let mut always = config();
        always.retry_above = 0;
        let (mut listener, addr) = Node::listening(&rt, always, "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let to = addr::parse_dial(&addr).unwrap().0;
        let mut dialer = Node::new(&rt);
        let (a, b) = connect(&mut dialer, &mut listener, &addr).await;
        rt.spawn(echo(rt.clone(), b.clone()));
        assert_eq!(round_trip(&a, b"validated").await, b"validated");

        // One who does not answer the retry leaves nothing behind.
        let probe = rt.unblock(move || first_datagrams(to)).await.unwrap();
        assert_eq!(probe[0] & 0xf0, 0xf0, "a retry packet");
        drop((a, b));
        listener.idle().await;
    });
}

/// Sends the first flight of a real client to `to` and returns the first answer.
fn first_datagrams(to: SocketAddr) -> Vec<u8> {
    let socket = raw();
    let built = config().build().unwrap();
    let mut endpoint = quinn_proto::Endpoint::new(built.endpoint, None, true, None);
    let now = std::time::Instant::now();
    let (_, mut connection) = endpoint.connect(now, built.client, to, "libp2p").unwrap();
    let mut buf = Vec::new();
    while let Some(transmit) = connection.poll_transmit(now, 1, &mut buf) {
        socket.send_to(&buf[..transmit.size], to).unwrap();
        buf.clear();
    }
    let mut answer = [0; 2000];
    let n = socket.recv(&mut answer).unwrap();
    answer[..n].to_vec()
}

/// The first datagrams of a client, each time another one's.
fn first_flights(to: SocketAddr, count: usize) -> Vec<Vec<Vec<u8>>> {
    let built = config().build().unwrap();
    let mut endpoint = quinn_proto::Endpoint::new(built.endpoint, None, true, None);
    let now = std::time::Instant::now();
    let mut flight = |_| {
        let (_, mut connection) = endpoint.connect(now, built.client.clone(), to, "libp2p").unwrap();
        let mut datagrams = Vec::new();
        let mut buf = Vec::new();
        while let Some(transmit) = connection.poll_transmit(now, 1, &mut buf) {
            datagrams.push(buf[..transmit.size].to_vec());
            buf.clear();
        }
        datagrams
    };
    (0..count).map(&mut flight).collect()
}

/// Accepts and drives whatever comes, as a swarm does, at most `pending` at a time.
async fn accept_all(mut listener: Node, pending: usize, denied: Arc<AtomicUsize>) {
    let rt = listener.rt.clone();
    let mut upgrades = futures::stream::FuturesUnordered::new();
    let mut peers = Vec::new();
    loop {
        let next = poll_fn(|cx| {
            while let Poll::Ready(Some(made)) = upgrades.poll_next_unpin(cx) {
                let made: Result<(PeerId, Connection), Error> = made;
                if let Ok((_, connection)) = made {
                    return Poll::Ready(Ok(connection));
                }
            }
            Pin::new(&mut listener.transport).poll(cx).map(Err)
        });
        match next.await {
            Ok(connection) => peers.push(Peer::new(&rt, connection)),
            Err(TransportEvent::Incoming { upgrade, .. }) if upgrades.len() < pending => {
                upgrades.push(upgrade);
            }
            Err(TransportEvent::Incoming { .. }) => _ = denied.fetch_add(1, Ordering::Relaxed),
            Err(_) => {}
        }
    }
}

/// Sends 500 first flights a second until `done`, from an address that nobody answers at, which `spoofed` names.
fn flood(to: SocketAddr, flights: &[Vec<Vec<u8>>], sockets: &[UdpSocket], done: &AtomicBool) -> usize {
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        for datagram in &flights[sent % flights.len()] {
            // A full queue loses it, like a full link.
            drop(sockets[sent % sockets.len()].send_to(datagram, to));
        }
        sent += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    sent
}

#[test]
fn newcomers_are_let_in_under_a_flood_of_handshakes_that_are_begun_and_left() {
    for sources in [1, 50] {
        real(|rt| async move {
            let mut settings = config();
            // As a node with its defaults has it.
            settings.max_handshakes = 60;
            settings.max_handshakes_per_address = 30;
            settings.retry_above = 8;
            let (listener, addr) = Node::listening(&rt, settings, "/ip4/127.0.0.1/udp/0/quic-v1").await;
            let to = addr::parse_dial(&addr).unwrap().0;
            let denied = Arc::new(AtomicUsize::new(0));
            rt.spawn(accept_all(listener, 64, denied.clone()));
            let done = Arc::new(AtomicBool::new(false));
            let flights = rt.unblock(move || first_flights(to, 500)).await.unwrap();
            let bind = |n: u8| UdpSocket::bind((std::net::IpAddr::from([127, 66, 0, n + 1]), 0)).unwrap();
            let sockets: Vec<_> = (0..sources).map(bind).collect();
            let (started, until) = (std::time::Instant::now(), done.clone());
            let flooding = std::thread::spawn(move || flood(to, &flights, &sockets, &until));
            rt.sleep(Duration::from_millis(500)).await;
            let mut slowest = Duration::ZERO;
            for _ in 0..8 {
                let began = std::time::Instant::now();
                let mut newcomer = Node::new(&rt);
                newcomer.dial(&addr, NEW).await.expect("a newcomer is let in");
                slowest = slowest.max(began.elapsed());
            }
            done.store(true, Ordering::Relaxed);
            let rate = flooding.join().unwrap() as f64 / started.elapsed().as_secs_f64();
            assert_eq!(
                denied.load(Ordering::Relaxed),
                0,
                "the swarm has room for all that the transport lets by"
            );
            eprintln!(
                "measured: {sources} sources, {rate:.0} handshakes a second begun, slowest newcomer {slowest:.1?}"
            );
        });
    }
}

#[test]
fn more_handshakes_than_allowed_are_turned_away_and_there_is_room_afterwards() {
    real(|rt| async move {
        let mut small = config();
        small.retry_above = 1;
        small.max_handshakes = 2;
        let (mut listener, addr) = Node::listening(&rt, small, "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let mut impatient = config();
        impatient.handshake_timeout = Duration::from_millis(500);
        let mut dialers: Vec<_> = (0..6).map(|_| Node::with(&rt, impatient.clone())).collect();
        // Nobody accepts: the queue fills up and stays bounded.
        let dials = dialers.iter_mut().map(|dialer| dialer.dial(&addr, NEW));
        for dialed in futures::future::join_all(dials).await {
            let error = chain(&dialed.err().unwrap());
            assert!(error.contains("within 500ms") || error.contains("refused to accept"), "{error}");
        }
        assert_eq!(listener.transport.handshakes(), 2);
        // What waited in the queue is dropped unaccepted: denied by a limit above, say.
        for _ in 0..2 {
            drop(listener.incoming().await);
        }
        assert_eq!(listener.transport.handshakes(), 0);
        for dialer in &mut dialers {
            dialer.idle().await;
        }
        let mut late = Node::new(&rt);
        let (dialed, _) = futures::join!(late.dial(&addr, REUSE), listener.accept_any());
        dialed.unwrap();
    });
}

#[test]
fn a_denied_connection_is_told_so_and_leaves_nothing_behind() {
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let mut dialer = Node::new(&rt);
        for _ in 0..20 {
            let (dialed, ()) = futures::join!(dialer.dial(&addr, REUSE), async {
                drop(listener.incoming().await);
            });
            let error = chain(&dialed.err().unwrap());
            assert!(error.contains("the server refused to accept a new connection"), "{error}");
        }
        assert_eq!(listener.transport.open_connections(), 0);
        assert_eq!(listener.transport.handshakes(), 0);
        dialer.idle().await;
    });
}

#[test]
fn dials_and_handshakes_given_up_at_any_point_leave_nothing_behind() {
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let mut dialer = Node::new(&rt);
        for steps in 0..12 {
            let mut dial = dialer.transport.dial(addr.clone(), REUSE).unwrap();
            if steps == 0 {
                continue;
            }
            let mut upgrade = None;
            for _ in 0..steps {
                let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut dial).poll(cx).is_ready())).await;
                if polled {
                    break;
                }
                if upgrade.is_none() {
                    upgrade = Some(listener.incoming().await.0);
                } else if let Some(upgrade) = &mut upgrade
                    && poll_fn(|cx| Poll::Ready(Pin::new(&mut *upgrade).poll(cx).is_ready())).await
                {
                    break;
                }
                rt.sleep(Duration::from_millis(1)).await;
            }
        }
        dialer.idle().await;
        listener.idle().await;
    });
}

#[test]
fn a_transport_that_is_dropped_takes_its_listeners_along() {
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let mut dialer = Node::new(&rt);
        let (_a, b) = connect(&mut dialer, &mut listener, &addr).await;
        drop(listener);
        let port = addr::parse_dial(&addr).unwrap().0;
        assert!(UdpSocket::bind(port).is_err(), "the connection still needs the socket");
        drop(b);
        let freed = rt.timeout(PATIENCE, async {
            while UdpSocket::bind(port).is_err() {
                rt.sleep(Duration::from_millis(5)).await;
            }
        });
        freed.await.expect("the socket is closed");
    });
}
