//! Over real sockets on loopback, with the default runtime.

use super::*;

#[test]
fn v4_and_v6_connect_and_carry_bytes_both_ways() {
    real(|rt| async move {
        for addr in ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip6/::1/udp/0/quic-v1"] {
            let (mut listener, addr) = Node::listening(&rt, config(), addr).await;
            let mut dialer = Node::new(&rt);
            let (a, b) = connect(&mut dialer, &mut listener, &addr).await;
            rt.spawn(echo(rt.clone(), b));
            let bytes: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
            assert_eq!(round_trip(&a, &bytes).await, bytes);
            drop(a);
            dialer.idle().await;
            listener.idle().await;
        }
    });
}

#[test]
fn a_wildcard_listener_announces_the_addresses_of_its_family_with_its_real_port() {
    real(|rt| async move {
        let mut node = Node::new(&rt);
        let first = node.listen("/ip4/0.0.0.0/udp/0/quic-v1").await;
        let (bound, _) = addr::parse_dial(&first).unwrap();
        assert!(bound.is_ipv4() && !bound.ip().is_unspecified() && bound.port() != 0, "{first}");
        let expected = rt.interfaces().unwrap().list().unwrap();
        let mut announced = vec![bound.ip()];
        while announced.len() < expected.iter().filter(|i| i.addr.is_ipv4()).count() {
            let more = node.event().await.into_new_address().expect("an address");
            announced.push(addr::parse_dial(&more).unwrap().0.ip());
        }
        assert!(announced.contains(&"127.0.0.1".parse().unwrap()), "{announced:?}");

        let to = format!("/ip4/127.0.0.1/udp/{}/quic-v1", bound.port()).parse().unwrap();
        let mut dialer = Node::new(&rt);
        connect(&mut dialer, &mut node, &to).await;
    });
}

#[test]
fn a_reused_port_is_the_listeners_and_a_new_one_is_not() {
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let (mut dialer, own) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let own = addr::parse_dial(&own).unwrap().0;
        for (opts, same) in [(REUSE, true), (NEW, false)] {
            let dial = dialer.transport.dial(addr.clone(), opts).unwrap();
            let accept = async {
                let (upgrade, from) = listener.incoming().await;
                (upgrade.await.unwrap(), from)
            };
            let (dialed, (_accepted, from)) = futures::join!(dial, accept);
            dialed.unwrap();
            assert_eq!(from == own, same, "{opts:?}: {from} {own}");
        }
    });
}

#[test]
fn another_peer_than_expected_is_an_error_that_names_both() {
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let mut dialer = Node::new(&rt);
        let expected = PeerId::random();
        let wrong = addr.clone().with_p2p(expected).unwrap();
        let (dialed, _) = futures::join!(dialer.dial(&wrong, REUSE), listener.accept());
        let remote = addr::parse_dial(&addr).unwrap().0;
        let error = dialed.err().unwrap().to_string();
        assert_eq!(error, format!("{remote} is peer {}, expected was {expected}", listener.peer));

        let right = addr.with_p2p(listener.peer).unwrap();
        connect(&mut dialer, &mut listener, &right).await;
        dialer.idle().await;
    });
}

#[test]
fn a_closed_port_fails_the_dial_at_once() {
    real(|rt| async move {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut dialer = Node::new(&rt);
        let error = dialer.dial(&addr::to_multiaddr(closed), REUSE).await.err().unwrap();
        // Not that the handshake timed out.
        assert!(matches!(error, Error::Refused { remote } if remote == closed), "{error}");
        dialer.idle().await;
    });
}

#[test]
fn addresses_that_nobody_can_have_are_refused_in_words() {
    real(|rt| async move {
        let mut dialer = Node::new(&rt);
        for (addr, expected) in [
            ("/ip4/0.0.0.0/udp/4001/quic-v1", "cannot dial 0.0.0.0:4001: an unspecified address is nobody's"),
            ("/ip6/::/udp/4001/quic-v1", "cannot dial [::]:4001: an unspecified address is nobody's"),
            ("/ip4/127.0.0.1/udp/0/quic-v1", "cannot dial 127.0.0.1:0: nobody listens on port 0"),
        ] {
            let error = dialer.dial(&addr.parse().unwrap(), REUSE).await.err().unwrap();
            assert_eq!(error.to_string(), expected);
        }
        for other in ["/ip4/127.0.0.1/tcp/4001", "/dns4/bootstrap/udp/4001/quic-v1", "/memory/1"] {
            let other: Multiaddr = other.parse().unwrap();
            let listened = dialer.transport.listen_on(ListenerId::next(), other.clone());
            assert!(matches!(listened, Err(libp2p::TransportError::MultiaddrNotSupported(a)) if a == other));
            let dialed = dialer.transport.dial(other.clone(), REUSE);
            assert!(matches!(dialed, Err(libp2p::TransportError::MultiaddrNotSupported(a)) if a == other));
        }
    });
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    real(|rt| async move {
        let (mut node, taken) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let error = match node.transport.listen_on(ListenerId::next(), taken.clone()) {
            Err(libp2p::TransportError::Other(e)) => chain(&e),
            other => panic!("{other:?}"),
        };
        let taken = addr::parse_dial(&taken).unwrap().0;
        assert!(error.starts_with(&format!("cannot bind a UDP socket to {taken}: ")), "{error}");
    });
}

#[test]
fn a_removed_listener_keeps_its_connections_and_takes_no_new_ones() {
    real(|rt| async move {
        let mut listener = Node::new(&rt);
        let id = ListenerId::next();
        listener.transport.listen_on(id, "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
        let addr = listener.event().await.into_new_address().unwrap();
        let mut dialer = Node::new(&rt);
        let (a, b) = connect(&mut dialer, &mut listener, &addr).await;
        rt.spawn(echo(rt.clone(), b));

        assert!(listener.transport.remove_listener(id));
        assert!(!listener.transport.remove_listener(id));
        let closed = listener.event().await;
        assert!(
            matches!(closed, TransportEvent::ListenerClosed { listener_id, reason: Ok(()) } if listener_id == id)
        );
        assert_eq!(round_trip(&a, b"still here").await, b"still here");

        let mut config = config();
        config.handshake_timeout = Duration::from_millis(300);
        let mut late = Node::with(&rt, config);
        let error = late.dial(&addr, REUSE).await.err().unwrap();
        assert!(
            matches!(error, Error::HandshakeTimeout { .. } | Error::Handshake { .. } | Error::Refused { .. }),
            "{error}"
        );
        // When the last connection is gone, so is the socket: its port can be bound again.
        drop(a);
        let port = addr::parse_dial(&addr).unwrap().0;
        let rebound = rt.timeout(PATIENCE, async {
            while std::net::UdpSocket::bind(port).is_err() {
                rt.sleep(Duration::from_millis(5)).await;
            }
        });
        rebound.await.expect("the socket is closed with its last connection");
    });
}

#[test]
fn a_hole_is_punched_and_the_remotes_dial_comes_through_it() {
    real(|rt| async move {
        let (mut a, addr_a) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let (mut b, addr_b) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let (peer_a, peer_b) = (a.peer, b.peer);
        let punch = DialOpts { role: Role::Listener, port_use: PortUse::Reuse };
        let expected = addr_b.clone().with_p2p(peer_b).unwrap();
        let punching = a.transport.dial(expected.clone(), punch).unwrap();
        // A second one to the same place is refused while the first is under way.
        let again = a.dial(&addr_b, punch).await.err().unwrap().to_string();
        let remote = addr::parse_dial(&addr_b).unwrap().0;
        assert_eq!(again, format!("cannot punch a hole to {remote}: one is being punched already"));

        let dialing = b.transport.dial(addr_a.clone(), REUSE).unwrap();
        let (punched, dialed) = futures::join!(punching, dialing);
        assert_eq!((punched.unwrap().0, dialed.unwrap().0), (peer_b, peer_a));
        let transport = &mut a.transport;
        let quiet = poll_fn(|cx| Poll::Ready(Pin::new(&mut *transport).poll(cx).is_pending())).await;
        assert!(quiet, "the connection is the dial's, not an incoming one");
        a.idle().await;
        b.idle().await;
    });
}

#[test]
fn a_hole_that_nobody_comes_through_is_given_up_in_time() {
    real(|rt| async move {
        let mut config = config();
        config.handshake_timeout = Duration::from_millis(300);
        let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let remote = nobody.local_addr().unwrap();
        let (mut a, _) = Node::listening(&rt, config.clone(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let punch = DialOpts { role: Role::Listener, port_use: PortUse::Reuse };
        for _ in 0..2 {
            let error = a.dial(&addr::to_multiaddr(remote), punch).await.err().unwrap().to_string();
            assert_eq!(error, format!("nobody came from {remote} through the punched hole within 300ms"));
        }
        let mut buf = [0; 100];
        nobody.set_nonblocking(true).unwrap();
        assert_eq!(nobody.recv(&mut buf).unwrap(), 64, "random datagrams were sent");
        let error = Node::with(&rt, config).dial(&addr::to_multiaddr(remote), punch).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            format!("cannot punch a hole to {remote}: there is no listener of its address family")
        );
    });
}

#[test]
#[ignore = "a measurement, for a quiet machine: cargo test --release -- --ignored --nocapture throughput"]
fn throughput_over_loopback() {
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let mut dialer = Node::new(&rt);
        let (a, b) = connect(&mut dialer, &mut listener, &addr).await;
        let total = 256 << 20;
        let began = rt.now();
        let send = async {
            let mut stream = a.open().await.unwrap();
            let chunk = vec![7; 64 * 1024];
            for _ in 0..total / chunk.len() {
                stream.write_all(&chunk).await.unwrap();
            }
            stream.close().await.unwrap();
        };
        let receive = async {
            let mut stream = b.accept().await.unwrap();
            let mut buf = vec![0; 64 * 1024];
            let mut received = 0;
            while let n @ 1.. = stream.read(&mut buf).await.unwrap() {
                received += n;
            }
            received
        };
        let (_, received) = futures::join!(send, receive);
        assert_eq!(received, total);
        let took = (rt.now() - began).as_secs_f64();
        let stats = a.with_state(|state| state.quic.stats());
        eprintln!("{:.0} MB/s; {stats:?}", total as f64 / took / 1e6);
        let stats = b.with_state(|state| state.quic.stats());
        eprintln!("{stats:?}");
    });
}

#[test]
#[ignore = "a measurement, for a quiet machine: cargo test --release -- --ignored --nocapture memory"]
#[cfg(target_os = "linux")]
fn memory_of_idle_connections() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()
    };
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let mut dialer = Node::new(&rt);
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(connect(&mut dialer, &mut listener, &addr).await);
        }
        let before = resident();
        for _ in 0..500 {
            held.push(connect(&mut dialer, &mut listener, &addr).await);
        }
        rt.sleep(Duration::from_secs(6)).await;
        eprintln!("{:.1} KiB per end of an idle connection", (resident() - before) / 1000.0);
        eprintln!(
            "of which {} bytes are the state, {} an event",
            size_of::<super::super::state::State>(),
            size_of::<quinn_proto::ConnectionEvent>()
        );
    });
}
