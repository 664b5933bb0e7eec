//! What nobody should send, who says nothing, connections that are too many, dials that are given up.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use futures::AsyncReadExt;
use proptest::prelude::*;

use super::*;

/// multistream-select's first line, and the proposal of Noise.
const HELLO: &[u8] = b"\x13/multistream/1.0.0\n\x07/noise\n";

fn open(addr: &Multiaddr) -> TcpStream {
    let stream = TcpStream::connect(addr::parse_dial(addr).unwrap().0).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// How the listener's side of one connection ends on which somebody says `bytes` and closes.
async fn sent(bytes: &'static [u8]) -> Error {
    let (sender, receiver) = oneshot::channel();
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), ANY_PORT).await;
        let mut stream = open(&addr);
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let error = listener.accept().await.err().expect("no connection");
        assert_eq!(listener.transport.half_made(), 0, "nothing is left of it");
        // And the listener still serves.
        connect(&mut Node::new(&rt), &mut listener, &addr).await;
        sender.send(error).unwrap();
    });
    receiver.await.unwrap()
}

#[test]
fn garbage_and_bad_handshakes_are_refused_with_a_reason() {
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "does not speak /noise over TCP"),
        (b"", "does not speak /noise over TCP"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "does not speak /noise over TCP"),
        (b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n", "does not speak /noise over TCP"),
        // A Noise message that is cut short, one of no length, and one that is no key exchange.
        (b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20abc", "Noise handshake with"),
        (b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x00", "Noise handshake with"),
        (b"\x13/multistream/1.0.0\n\x07/noise\n\xff\xff", "Noise handshake with"),
    ] {
        let error = futures::executor::block_on(sent(bytes)).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_listener_that_answers_with_a_wrong_noise_message_is_no_peer() {
    real(|rt| async move {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = addr::to_multiaddr(listener.local_addr().unwrap());
        let impostor = rt.unblock(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(HELLO).unwrap();
            // The right length for the second message of XX, and nothing right in it.
            stream.write_all(&[0, 200]).unwrap();
            stream.write_all(&[7; 200]).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let mut dialer = Node::new(&rt);
        let (dialed, _) = futures::join!(dialer.dial(&addr, REUSE), impostor);
        let error = dialed.err().unwrap();
        assert!(matches!(error, Error::Handshake { .. }), "{error}");
    });
}

#[test]
fn who_says_nothing_is_given_up_in_time_on_both_sides() {
    real(|rt| async move {
        let mut impatient = config();
        impatient.handshake_timeout = Duration::from_millis(300);
        let (mut listener, addr) = Node::listening(&rt, impatient.clone(), ANY_PORT).await;
        let mut silent = open(&addr);
        let error = listener.accept().await.err().unwrap().to_string();
        assert_eq!(error, format!("no connection with TCP {} within 300ms", silent.local_addr().unwrap()));
        assert_eq!(listener.transport.half_made(), 0);
        // multistream's first line came, then the end.
        silent.read_to_end(&mut Vec::new()).unwrap();

        // Accepted by the kernel, never by anybody.
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = addr::to_multiaddr(mute.local_addr().unwrap());
        let error = Node::with(&rt, impatient).dial(&addr, REUSE).await.err().unwrap();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    });
}

#[test]
fn a_crowd_that_says_nothing_keeps_nobody_out() {
    real(|rt| async move {
        let mut small = config();
        small.max_half_made = 4;
        let (mut listener, addr) = Node::listening(&rt, small, ANY_PORT).await;
        let mut crowd: Vec<_> = (0..20).map(|_| open(&addr)).collect();
        let first = crowd.remove(0);
        let mut upgrades = FuturesUnordered::new();
        let mut cut = Vec::new();
        while upgrades.len() + cut.len() < 20 {
            upgrades.push(listener.incoming().await.0);
            while let Some(Some(ended)) = upgrades.next().now_or_never() {
                cut.push(ended.expect_err("no peer"));
            }
            assert!(listener.transport.half_made() <= 4);
        }
        assert_eq!(cut.len(), 16, "the oldest make way");
        let words = cut[0].to_string();
        let first = first.local_addr().unwrap();
        let expected = format!("{first} was cut off: more than 4 incoming TCP connections were not made yet");
        assert_eq!(words, expected);

        // The honest one comes last and is served while the rest of the crowd still waits.
        let mut dialer = Node::new(&rt);
        let serve = async {
            let mut upgrade = listener.incoming().await.0.fuse();
            loop {
                futures::select! {
                    made = upgrade => break made.unwrap().0,
                    _ = upgrades.select_next_some() => {}
                }
            }
        };
        let peer = dialer.peer;
        let (dialed, seen) = futures::join!(dialer.dial(&addr, REUSE), serve);
        dialed.unwrap();
        assert_eq!(seen, peer);
        drop(upgrades);
        assert_eq!(listener.transport.half_made(), 0);
    });
}

#[test]
fn a_dial_and_an_incoming_connection_that_are_dropped_leave_nothing() {
    real(|rt| async move {
        let (mut listener, addr) = Node::listening(&rt, config(), ANY_PORT).await;
        let mut stream = open(&addr);
        let (upgrade, _) = listener.incoming().await;
        assert_eq!(listener.transport.half_made(), 1);
        drop(upgrade);
        assert_eq!(listener.transport.half_made(), 0);
        let mut rest = Vec::new();
        // Closed, or reset where something was on its way.
        let _ = rt.unblock(move || stream.read_to_end(&mut rest)).await.unwrap();

        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut dialer = Node::new(&rt);
        let mut dial = dialer.transport.dial(addr::to_multiaddr(mute.local_addr().unwrap()), REUSE).unwrap();
        let mut theirs = loop {
            // The dial moves on by being polled.
            assert!((&mut dial).now_or_never().is_none());
            mute.set_nonblocking(true).unwrap();
            match mute.accept() {
                Ok((stream, _)) => break stream,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    rt.sleep(Duration::from_millis(1)).await;
                }
                Err(e) => panic!("{e}"),
            }
        };
        drop(dial);
        theirs.set_nonblocking(false).unwrap();
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = rt.unblock(move || theirs.read_to_end(&mut Vec::new())).await.unwrap();
    });
}

#[test]
fn the_streams_of_a_connection_are_bounded_and_there_is_room_afterwards() {
    real(|rt| async move {
        let mut small = config();
        small.max_concurrent_streams = 3;
        let (mut listener, addr) = Node::listening(&rt, config(), ANY_PORT).await;
        let mut dialer = Node::with(&rt, small);
        let (a, b) = connect(&mut dialer, &mut listener, &addr).await;
        rt.spawn(echo(rt.clone(), b));
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(a.open().await.unwrap());
        }
        let mut one_more = Box::pin(a.open());
        let soon = rt.timeout(Duration::from_millis(100), &mut one_more).await;
        assert!(soon.is_err(), "one more has to wait");
        held.pop();
        held.push(rt.timeout(PATIENCE, one_more).await.expect("room").unwrap());
        drop(held);
        assert_eq!(round_trip(&a, b"and on").await, b"and on");
    });
}

#[test]
fn a_writer_that_is_not_read_waits_at_256_kib_and_goes_on_when_it_is() {
    real(|rt| async move {
        const WINDOW: usize = 256 << 10;
        let (mut listener, addr) = Node::listening(&rt, config(), ANY_PORT).await;
        let mut dialer = Node::new(&rt);
        let (a, b) = connect(&mut dialer, &mut listener, &addr).await;
        let mut write = a.open().await.unwrap();
        for bytes in [WINDOW - 1, 1] {
            let bytes = vec![1; bytes];
            rt.timeout(PATIENCE, write.write_all(&bytes)).await.expect("room for all of the window").unwrap();
        }
        let mut read = rt.timeout(PATIENCE, b.accept()).await.expect("a stream").unwrap();
        let mut above = Box::pin(async { write.write_all(&[2]).await });
        assert!(
            rt.timeout(Duration::from_millis(200), &mut above).await.is_err(),
            "one byte more has to wait"
        );
        let mut bytes = vec![0; WINDOW + 1];
        let (sent, got) = futures::join!(above, read.read_exact(&mut bytes));
        sent.unwrap();
        got.unwrap();
        assert_eq!(bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>(), WINDOW + 2);
    });
}

#[test]
fn a_remote_that_opens_more_streams_than_allowed_loses_its_connection_only() {
    real(|rt| async move {
        let mut small = config();
        small.max_concurrent_streams = 3;
        let (mut listener, addr) = Node::listening(&rt, small, ANY_PORT).await;
        let mut greedy = Node::new(&rt);
        let (a, b) = connect(&mut greedy, &mut listener, &addr).await;
        let mut held = Vec::new();
        for _ in 0..8 {
            let Ok(mut stream) = a.open().await else { break };
            // The first bytes tell the remote of a stream.
            let _ = stream.write_all(b"x").await;
            held.push(stream);
        }
        let ended = rt.timeout(PATIENCE, async {
            let mut taken = Vec::new();
            while let Ok(stream) = b.accept().await {
                taken.push(stream);
            }
            taken.len()
        });
        assert!(ended.await.expect("an end") <= 3);
        connect(&mut Node::new(&rt), &mut listener, &addr).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn whatever_bytes_arrive_the_listener_still_accepts(
        openings in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..2000),
                // Past the proposal, where Noise reads.
                proptest::collection::vec(any::<u8>(), 0..2000).prop_map(|rest| [HELLO, &rest].concat()),
            ],
            1..20,
        )
    ) {
        real(|rt| async move {
            let (mut listener, addr) = Node::listening(&rt, config(), ANY_PORT).await;
            let mut held = Vec::new();
            for opening in &openings {
                let mut stream = open(&addr);
                // Cut off while it still talks: so be it.
                let _ = stream.write_all(opening);
                held.push(stream);
            }
            let mut late = Node::new(&rt);
            let (dialed, _) = futures::join!(late.dial(&addr, REUSE), listener.accept_any());
            dialed.unwrap();
        });
    }
}
