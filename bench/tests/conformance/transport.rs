//! Connections between the two: how they begin, move and end.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use futures::{AsyncReadExt, AsyncWriteExt, future::try_join_all};
use libp2p::{
    PeerId,
    request_response::{Event, Message, OutboundFailure},
    swarm::{Swarm, SwarmEvent},
};
use smidge_bench::{
    Tuning,
    driven::Driven,
    link::{self, Endpoint, chain},
    nodes,
};

use crate::{
    Sides, connect, exchange,
    net::{Hop, socket_addr},
    patiently, run,
};

#[test]
fn what_was_written_and_closed_arrives_although_we_close_the_connection() {
    const STREAMS: u64 = 8;
    const BYTES: u64 = 256 << 10;
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            let pair = connect(from, to, &Tuning::default()).await;
            let ours_dialed = from.kind() == smidge_bench::Kind::Ours;
            let (ours, stock) =
                if ours_dialed { (pair.dialed, pair.accepted) } else { (pair.accepted, pair.dialed) };
            let send = async {
                let mut streams = Vec::new();
                for _ in 0..STREAMS {
                    let mut stream = ours.open().await?;
                    link::send_all(&mut stream, BYTES).await?;
                    streams.push(stream);
                }
                // All of it is on its way at best.
                ours.close().await
            };
            let receive = async {
                let mut streams = Vec::new();
                for _ in 0..STREAMS {
                    streams.push(stock.accept().await?);
                }
                try_join_all(streams.iter_mut().map(link::receive_all)).await
            };
            let (_, got) = patiently("all bytes", async { futures::try_join!(send, receive) }).await.unwrap();
            assert_eq!(got, vec![BYTES; STREAMS as usize]);
            let error = patiently("the close", stock.accept()).await.unwrap_err();
            assert!(is_close(&error.to_string()), "{error}");
        }
    });
}

/// Whether an error of quinn's tells of a close. We forget a connection as soon as we have closed
/// it: a packet that was under way then is answered with a stateless reset, and where quinn takes in
/// both at once the reset is what it reports.
fn is_close(error: &str) -> bool {
    error.contains("closed by peer") || error.contains("reset by peer")
}

#[test]
fn a_connection_that_is_cut_with_data_in_flight_ends_for_the_remote_at_once() {
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            for n in 0..10 {
                let pair = connect(from, to, &Tuning::default()).await;
                let ours_dialed = from.kind() == smidge_bench::Kind::Ours;
                let (ours, stock) =
                    if ours_dialed { (pair.dialed, pair.accepted) } else { (pair.accepted, pair.dialed) };
                let mut stream = ours.open().await.unwrap();
                stream.write_all(&vec![0; n * 1_000_000 + 1]).await.unwrap();
                let mut there = patiently("the stream", stock.accept()).await.unwrap();
                drop(stream);
                drop(ours);
                // More than the connection can carry before it is gone.
                let _ = patiently("an end", there.read_to_end(&mut Vec::new())).await;
                let error = patiently("the end", stock.accept()).await.unwrap_err();
                // Not that the connection timed out.
                assert!(is_close(&error.to_string()), "{error} after {n} MB");
            }
        }
    });
}

#[test]
fn what_had_arrived_before_the_remote_closed_can_still_be_read() {
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            let pair = connect(from, to, &Tuning::default()).await;
            let ours_dialed = from.kind() == smidge_bench::Kind::Ours;
            let (ours, stock) =
                if ours_dialed { (pair.dialed, pair.accepted) } else { (pair.accepted, pair.dialed) };
            patiently("a close", async {
                let mut early = stock.open().await.unwrap();
                link::send_all(&mut early, 10_000).await.unwrap();
                let mut unread = ours.accept().await.unwrap();
                // Loopback keeps the order, and this one is answered: the first has arrived.
                exchange(&stock, &ours, 10).await;
                stock.close().await.unwrap();
                assert!(ours.ended().await.contains("closed by peer"), "{}", ours.ended().await);
                assert_eq!(link::receive_all(&mut unread).await.unwrap(), 10_000);
                assert!(unread.write_all(b"x").await.is_err());
                assert!(ours.open().await.is_err() && ours.accept().await.is_err());
            })
            .await;
        }
    });
}

#[test]
fn a_remote_that_falls_silent_is_noticed_in_time_by_both() {
    run(async |sides: Sides| {
        let tuning = Tuning {
            keep_alive: Duration::from_millis(200),
            idle_timeout: Duration::from_secs(1),
            ..Tuning::default()
        };
        for (from, to) in sides.both_ways() {
            let dialer = Endpoint::new(from, &tuning);
            let mut listener = Endpoint::new(to, &tuning);
            let hop = Hop::new(&listener.listen_v4().await);
            let (a, b) = patiently("a connection", async {
                futures::try_join!(dialer.dial(hop.address()), listener.accept())
            })
            .await
            .unwrap();
            exchange(&a, &b, 100_000).await;
            // Kept alive for longer than the time-out: then something else ended it.
            async_io::Timer::after(tuning.idle_timeout * 2).await;
            exchange(&b, &a, 1000).await;
            let mut waiting = a.open().await.unwrap();
            waiting.write_all(b"x").await.unwrap();
            hop.silence();
            let began = Instant::now();
            patiently("both time-outs", async {
                futures::join!(
                    async {
                        // The last stream may have arrived before silence fell.
                        let error = loop {
                            match b.accept().await {
                                Ok(stream) => drop(stream),
                                Err(e) => break chain(&e),
                            }
                        };
                        assert!(error.contains("timed out"), "{error}");
                    },
                    async {
                        let error = chain(&a.accept().await.err().unwrap());
                        assert!(error.contains("timed out"), "{error}");
                        let error = waiting.read_to_end(&mut Vec::new()).await;
                        if let Err(e) = error {
                            assert_ne!(e.kind(), std::io::ErrorKind::UnexpectedEof);
                        }
                    }
                )
            })
            .await;
            let limit = tuning.keep_alive + tuning.idle_timeout + Duration::from_secs(3);
            assert!(began.elapsed() < limit, "{:?}", began.elapsed());
        }
    });
}

#[test]
fn someone_else_than_expected_is_not_connected_to_and_the_listener_lives_on() {
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            let dialer = Endpoint::new(from, &Tuning::default());
            let mut listener = Endpoint::new(to, &Tuning::default());
            let address = listener.listen_v4().await;
            let wrong = address.clone().with_p2p(PeerId::random()).unwrap();
            // A transport's own business, or that of the swarm above it: in no case the wrong one.
            let dialed = patiently("a refusal", dialer.dial(wrong)).await;
            if let Ok(link) = dialed {
                assert_eq!(link.peer, listener.peer);
                assert_eq!(from.kind(), smidge_bench::Kind::Stock, "ours compares by itself");
            }
            let _ = patiently("the refused", listener.accept()).await;
            let right = address.with_p2p(listener.peer).unwrap();
            let (a, b) = patiently("the right one", async {
                futures::try_join!(dialer.dial(right), listener.accept())
            })
            .await
            .unwrap();
            exchange(&a, &b, 1000).await;
        }
    });
}

#[test]
fn a_dialer_whose_nat_gives_it_another_port_stays_connected() {
    run(async |sides: Sides| {
        let dialer = Endpoint::new(&*sides.stock, &Tuning::default());
        let mut listener = Endpoint::new(&*sides.ours, &Tuning::default());
        let hop = Hop::new(&listener.listen_v4().await);
        let (a, mut b) = patiently("a connection", async {
            futures::try_join!(dialer.dial(hop.address()), listener.accept())
        })
        .await
        .unwrap();
        exchange(&a, &b, 100_000).await;
        for _ in 0..3 {
            let now_at = hop.rebind();
            exchange(&a, &b, 100_000).await;
            exchange(&b, &a, 100_000).await;
            assert_eq!(patiently("a move", b.moved()).await, Some(now_at), "the swarm is told");
        }
    });
}

#[test]
fn an_address_that_has_to_prove_itself_does_and_connects() {
    run(async |sides: Sides| {
        let tuning = Tuning { retry_above: 0, ..Tuning::default() };
        let dialer = Endpoint::new(&*sides.stock, &tuning);
        let mut listener = Endpoint::new(&*sides.ours, &tuning);
        let hop = Hop::new(&listener.listen_v4().await);
        let (a, b) = patiently("a connection", async {
            futures::try_join!(dialer.dial(hop.address()), listener.accept())
        })
        .await
        .unwrap();
        assert!(hop.retries() > 0, "a Retry packet passed");
        exchange(&a, &b, 100_000).await;
    });
}

#[test]
fn an_unknown_version_is_answered_with_those_we_speak() {
    run(async |sides: Sides| {
        for side in [&sides.ours, &sides.stock] {
            let listener = Endpoint::new(&**side, &Tuning::default());
            let to = socket_addr(&listener.listen_v4().await);
            let mut packet = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8];
            packet.extend(*b"to-heres");
            packet.push(4);
            packet.extend(*b"from");
            packet.resize(1200, 0);
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(crate::PATIENCE)).unwrap();
            socket.send_to(&packet, to).unwrap();
            let mut answer = [0; 1500];
            let (n, from) = socket.recv_from(&mut answer).unwrap();
            let answer = &answer[..n];
            assert_eq!(from, to);
            assert_eq!(answer[0] & 0x80, 0x80, "a long header");
            assert_eq!(answer[1..5], [0; 4], "version negotiation (RFC 9000, 17.2.1)");
            assert_eq!(&answer[5..10], b"\x04from", "our source is its destination");
            assert_eq!(&answer[10..19], b"\x08to-heres");
            let versions: Vec<_> = answer[19..].chunks(4).collect();
            assert!(versions.contains(&&[0, 0, 0, 1][..]), "{versions:?}");
        }
    });
}

#[test]
fn many_connections_at_once_all_stand() {
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            let dialer = Endpoint::new(from, &Tuning::default());
            let mut listener = Endpoint::new(to, &Tuning::default());
            let address = listener.listen_v4().await;
            let dials = try_join_all((0..50).map(|_| dialer.dial(address.clone())));
            let accepts = async {
                let mut links = Vec::new();
                for _ in 0..50 {
                    links.push(listener.accept().await?);
                }
                Ok(links)
            };
            let (a, b) =
                patiently("fifty connections", async { futures::try_join!(dials, accepts) }).await.unwrap();
            // Which belongs to which is known to the bytes only.
            let sent = try_join_all(a.iter().map(async |link| {
                let mut stream = link.open().await?;
                link::send_all(&mut stream, 10_000).await?;
                link::receive_all(&mut stream).await
            }));
            let answered = try_join_all(b.iter().map(async |link| {
                let mut stream = link.accept().await?;
                let n = link::receive_all(&mut stream).await?;
                link::send_all(&mut stream, n).await
            }));
            let (back, _) =
                patiently("fifty exchanges", async { futures::try_join!(sent, answered) }).await.unwrap();
            assert_eq!(back, [10_000; 50]);
        }
    });
}

#[test]
fn swarms_agree_on_a_protocol_or_say_that_there_is_none() {
    type Requests = Driven<libp2p::request_response::Behaviour<nodes::Frames>>;
    run(async |sides: Sides| {
        let swarm = |side: &dyn smidge_bench::Side, protocol| {
            let key = libp2p::identity::Keypair::generate_ed25519();
            Requests::new(side, &key, &Tuning::default(), nodes::requests(protocol), |_| true)
        };
        for (from, to) in sides.both_ways() {
            let (mut dialer, mut listener) = (swarm(from, "/a"), swarm(to, "/b"));
            let address = listener.listen().await;
            let peer = dialer.dial(address.clone()).await;
            dialer.call(move |s: &mut Swarm<_>| s.behaviour_mut().send_request(&peer, vec![1])).await;
            let failed = dialer.event(|event| match event {
                SwarmEvent::Behaviour(Event::OutboundFailure { error, .. }) => Some(error),
                SwarmEvent::ConnectionClosed { .. } => panic!("the connection outlives it"),
                _ => None,
            });
            let error = patiently("no common protocol", failed).await;
            assert!(matches!(error, OutboundFailure::UnsupportedProtocols), "{error}");

            let mut dialer = swarm(from, "/b");
            let peer = dialer.dial(address).await;
            dialer.call(move |s: &mut Swarm<_>| s.behaviour_mut().send_request(&peer, vec![7; 3000])).await;
            let answer = listener.event(|event| match event {
                SwarmEvent::Behaviour(Event::Message {
                    message: Message::Request { request, channel, .. },
                    ..
                }) => Some((request, channel)),
                _ => None,
            });
            let (request, channel) = patiently("a request", answer).await;
            assert_eq!(request, [7; 3000]);
            listener.call(move |s| s.behaviour_mut().send_response(channel, vec![8; 60_000])).await.unwrap();
            let response = dialer.event(|event| match event {
                SwarmEvent::Behaviour(Event::Message {
                    message: Message::Response { response, .. }, ..
                }) => Some(response),
                _ => None,
            });
            assert_eq!(patiently("a response", response).await, [8; 60_000]);
        }
    });
}

#[test]
fn connections_come_and_go_one_after_the_other() {
    run(async |sides: Sides| {
        for (from, to) in
            [(&sides.ours, &sides.ours), (&sides.ours, &sides.stock), (&sides.stock, &sides.ours)]
        {
            let dialer = Endpoint::new(&**from, &Tuning::default());
            let mut listener = Endpoint::new(&**to, &Tuning::default());
            let address = listener.listen_v4().await;
            for _ in 0..50 {
                let link = patiently("a dial", dialer.dial(address.clone())).await.unwrap();
                let there = patiently("an arrival", listener.accept()).await.unwrap();
                patiently("a close", link.close()).await.unwrap();
                drop((link, there));
            }
        }
    });
}
