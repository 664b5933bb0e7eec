//! Listening, dialing and streams as they should be.

use super::*;

#[test]
fn many_streams_carry_what_was_written_both_ways() {
    real(|rt| async move {
        for any in [ANY_PORT, "/ip6/::1/tcp/0"] {
            let (mut listener, addr) = Node::listening(&rt, config(), any).await;
            let mut dialer = Node::new(&rt);
            let (a, b) = connect(&mut dialer, &mut listener, &addr).await;
            rt.spawn(echo(rt.clone(), b.clone()));
            // Not 0: Yamux tells the remote of a stream with its first bytes.
            let sizes = [1, 300_000, 1_000_000, 17];
            let trips = sizes.map(|n| {
                let a = a.clone();
                async move { round_trip(&a, &vec![n as u8; n]).await == vec![n as u8; n] }
            });
            assert!(futures::future::join_all(trips).await.into_iter().all(|same| same));
            a.close().await.unwrap();
            assert!(a.open().await.is_err());
        }
    });
}

#[test]
fn a_wildcard_listener_announces_every_interface_and_is_reached_on_one() {
    real(|rt| async move {
        let mut node = Node::new(&rt);
        let first = node.listen("/ip4/0.0.0.0/tcp/0").await;
        let (bound, _) = addr::parse_dial(&first).unwrap();
        let expected = rt.interfaces().unwrap().list().unwrap();
        let mut announced = vec![bound.ip()];
        while announced.len() < expected.iter().filter(|i| i.addr.is_ipv4()).count() {
            let more = node.event().await.into_new_address().expect("an address");
            announced.push(addr::parse_dial(&more).unwrap().0.ip());
        }
        assert!(announced.contains(&"127.0.0.1".parse().unwrap()), "{announced:?}");
        let to = addr::to_multiaddr(([127, 0, 0, 1], bound.port()).into());
        let mut dialer = Node::new(&rt);
        connect(&mut dialer, &mut node, &to).await;
    });
}

#[test]
fn a_reused_port_is_the_listeners_and_a_taken_or_new_one_is_not() {
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), ANY_PORT).await;
        let (mut dialer, own) = Node::listening(&rt, config(), ANY_PORT).await;
        let own = addr::parse_dial(&own).unwrap().0;
        let mut held = Vec::new();
        // The second finds the way from port to port in use by the first.
        for (opts, same) in [(REUSE, true), (REUSE, false), (NEW, false)] {
            let dial = dialer.dial(&addr, opts);
            let accept = async {
                let (upgrade, from) = listener.incoming().await;
                (upgrade.await.unwrap(), from)
            };
            let (dialed, (accepted, from)) = futures::join!(dial, accept);
            held.push((dialed.unwrap(), accepted));
            assert_eq!(from == own, same, "{opts:?}: {from} {own}");
        }
    });
}

#[test]
fn another_peer_than_expected_is_an_error_that_names_both() {
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), ANY_PORT).await;
        let mut dialer = Node::new(&rt);
        let expected = PeerId::random();
        let wrong = addr.clone().with_p2p(expected).unwrap();
        let (dialed, _) = futures::join!(dialer.dial(&wrong, REUSE), listener.accept());
        let remote = addr::parse_dial(&addr).unwrap().0;
        let error = dialed.err().unwrap().to_string();
        assert_eq!(error, format!("{remote} is peer {}, expected was {expected}", listener.peer));
        let right = addr.with_p2p(listener.peer).unwrap();
        connect(&mut dialer, &mut listener, &right).await;
    });
}

#[test]
fn a_closed_port_fails_the_dial_and_says_where() {
    real(|rt| async move {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut dialer = Node::new(&rt);
        let error = dialer.dial(&addr::to_multiaddr(closed), REUSE).await.err().unwrap();
        let refused = matches!(&error, Error::Connect { remote, source }
            if *remote == closed && source.kind() == std::io::ErrorKind::ConnectionRefused);
        assert!(refused, "{}", chain(&error));
    });
}

#[test]
fn addresses_that_nobody_can_have_are_refused_in_words() {
    real(|rt| async move {
        let mut dialer = Node::new(&rt);
        for (addr, expected) in [
            ("/ip4/0.0.0.0/tcp/4001", "cannot dial 0.0.0.0:4001: an unspecified address is nobody's"),
            ("/ip6/::/tcp/4001", "cannot dial [::]:4001: an unspecified address is nobody's"),
            ("/ip4/127.0.0.1/tcp/0", "cannot dial 127.0.0.1:0: nobody listens on port 0"),
        ] {
            let error = dialer.dial(&addr.parse().unwrap(), REUSE).await.err().unwrap();
            assert_eq!(error.to_string(), expected);
        }
        let error = dialer.dial(&"/ip4/127.0.0.1/tcp/9".parse().unwrap(), ANSWER).await.err().unwrap();
        assert!(error.to_string().starts_with("cannot meet a dial from 127.0.0.1:9: "), "{error}");
        for other in ["/ip4/127.0.0.1/udp/4001/quic-v1", "/dns4/bootstrap/tcp/4001", "/memory/1"] {
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
        let (mut node, taken) = Node::listening(&rt, config(), ANY_PORT).await;
        let error = match node.transport.listen_on(ListenerId::next(), taken.clone()) {
            Err(libp2p::TransportError::Other(e)) => chain(&e),
            other => panic!("{other:?}"),
        };
        let taken = addr::parse_dial(&taken).unwrap().0;
        assert!(error.starts_with(&format!("cannot listen on TCP {taken}: ")), "{error}");
    });
}

#[test]
fn a_removed_listener_keeps_its_connections_and_takes_no_new_ones() {
    real(|rt| async move {
        let mut listener = Node::new(&rt);
        let id = ListenerId::next();
        listener.transport.listen_on(id, ANY_PORT.parse().unwrap()).unwrap();
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
        assert!(matches!(Node::new(&rt).dial(&addr, REUSE).await, Err(Error::Connect { .. })));
        // The port is free for another listener, although a connection still holds it.
        let again = addr::parse_listen(&addr).unwrap();
        let mut second = Node::new(&rt);
        second.listen(&addr::to_multiaddr(again).to_string()).await;
    });
}

#[test]
fn two_dials_that_meet_become_one_connection_when_one_side_answers() {
    real(|rt| async move {
        // Loopback never lets two SYNs cross, so a third socket joins what both have dialed.
        let meeting = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = addr::to_multiaddr(meeting.local_addr().unwrap());
        let joined = rt.unblock(move || {
            let (one, other) = (meeting.accept().unwrap().0, meeting.accept().unwrap().0);
            for (mut from, mut to) in [(one.try_clone().unwrap(), other.try_clone().unwrap()), (other, one)] {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        });
        let (mut a, _) = Node::listening(&rt, config(), ANY_PORT).await;
        let (mut b, _) = Node::listening(&rt, config(), ANY_PORT).await;
        let (peer_a, peer_b) = (a.peer, b.peer);
        let (dialed, answered, joined) = futures::join!(a.dial(&at, REUSE), b.dial(&at, ANSWER), joined);
        joined.unwrap();
        let ((found, one), (seen, other)) = (dialed.unwrap(), answered.unwrap());
        assert_eq!((found, seen), (peer_b, peer_a));
        rt.spawn(echo(rt.clone(), other));
        assert_eq!(round_trip(&one, b"met").await, b"met");
    });
}

#[test]
fn two_dials_that_met_already_are_not_tried_from_another_port() {
    real(|rt| async move {
        let (mut a, _) = Node::listening(&rt, config(), ANY_PORT).await;
        let (mut b, addr_b) = Node::listening(&rt, config(), ANY_PORT).await;
        let held = connect(&mut a, &mut b, &addr_b).await;
        let error = a.dial(&addr_b, ANSWER).await.err().unwrap();
        assert!(matches!(error, Error::Connect { .. }), "{error}");
        assert!(
            Pin::new(&mut b.transport)
                .poll(&mut Context::from_waker(futures::task::noop_waker_ref()))
                .is_pending()
        );
        drop(held);
    });
}

#[test]
#[ignore = "a measurement, for a quiet machine: cargo test --release -- --ignored --nocapture tcp_connections"]
#[cfg(target_os = "linux")]
fn memory_of_idle_tcp_connections() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()
    };
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), ANY_PORT).await;
        let mut dialer = Node::new(&rt);
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(connect(&mut dialer, &mut listener, &addr).await);
        }
        let before = resident();
        for _ in 0..400 {
            let (a, b) = connect(&mut dialer, &mut listener, &addr).await;
            rt.spawn(echo(rt.clone(), b.clone()));
            assert_eq!(round_trip(&a, &[7; 10_000]).await.len(), 10_000);
            held.push((a, b));
        }
        eprintln!("{:.1} KiB per end of an idle connection", (resident() - before) / 800.0);
    });
}
