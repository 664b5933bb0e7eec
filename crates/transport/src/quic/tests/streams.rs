//! Streams opened, half-closed, reset and dropped in every order, in simulated time.

use std::io;

use super::*;
use smidge_runtime::sim::{Link, World};

/// Runs `test` with the two ends of a connection in a simulated world.
fn world<F: Future<Output = ()>>(change: impl Fn(&mut Config), test: impl FnOnce(Handle, Peer, Peer) -> F) {
    let world = World::new(1, Link::default());
    let hosts = [world.host(&["10.0.0.1"]), world.host(&["10.0.0.2"])];
    world.block_on(Duration::from_secs(300), async {
        let [mut one, mut two] = [config(), config()];
        change(&mut one);
        change(&mut two);
        let mut dialer = Node::with(&hosts[0].handle(), one);
        let (mut listener, addr) =
            Node::listening(&hosts[1].handle(), two, "/ip4/10.0.0.2/udp/1/quic-v1").await;
        let (a, b) = connect(&mut dialer, &mut listener, &addr).await;
        test(hosts[0].handle(), a, b).await;
        dialer.idle().await;
        listener.idle().await;
    });
}

/// A stream from `a` to `b`, known to both.
async fn stream(a: &Peer, b: &Peer) -> (Stream, Stream) {
    let mut one = a.open().await.unwrap();
    one.write_all(b"!").await.unwrap();
    let mut other = b.accept().await.unwrap();
    let mut byte = [0];
    other.read_exact(&mut byte).await.unwrap();
    (one, other)
}

fn kind(result: io::Result<usize>) -> Result<usize, io::ErrorKind> {
    result.map_err(|e| e.kind())
}

#[test]
fn a_half_closed_stream_still_carries_the_other_direction() {
    world(
        |_| {},
        |_, a, b| async move {
            let (mut one, mut other) = stream(&a, &b).await;
            one.close().await.unwrap();
            one.close().await.expect("closing twice is closing");
            let mut buf = [0; 8];
            assert_eq!(other.read(&mut buf).await.unwrap(), 0);
            assert_eq!(other.read(&mut buf).await.unwrap(), 0, "the end stays the end");
            other.write_all(b"late").await.unwrap();
            other.close().await.unwrap();
            let mut rest = Vec::new();
            one.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"late");
            assert_eq!(kind(one.write(b"x").await), Err(io::ErrorKind::NotConnected));
        },
    );
}

#[test]
fn what_a_dropped_stream_had_written_arrives_and_its_other_half_is_stopped() {
    world(
        |_| {},
        |_, a, b| async move {
            let (mut one, mut other) = stream(&a, &b).await;
            one.write_all(b"the answer").await.unwrap();
            drop(one);
            let mut all = Vec::new();
            other.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"the answer");
            let error = loop {
                if let Err(e) = other.write(b"x").await {
                    break e;
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(error.to_string(), "the remote stopped reading the stream with code 0");
            other.close().await.expect("there is nothing left to finish");
        },
    );
}

#[test]
fn a_finished_stream_is_delivered_although_it_is_dropped_at_once() {
    world(
        |_| {},
        |_, a, b| async move {
            let mut one = a.open().await.unwrap();
            one.write_all(&[7; 5000]).await.unwrap();
            one.close().await.unwrap();
            drop(one);
            let mut other = b.accept().await.unwrap();
            let mut all = Vec::new();
            other.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, [7; 5000]);
        },
    );
}

/// What may happen to an end of a stream.
#[derive(Clone, Copy, Debug)]
enum Act {
    Write,
    Close,
    Read,
    Drop,
}

#[test]
fn streams_closed_and_dropped_in_every_order_leave_nothing_behind() {
    use Act::*;
    let acts = [Write, Close, Read, Drop];
    let limit = |c: &mut Config| c.max_concurrent_streams = 8;
    world(limit, |rt, a, b| async move {
        // All sequences of three acts at each end, interleaved.
        for code in 0..4_usize.pow(6) {
            // A prime step visits a spread quarter of them.
            if code % 5 != 0 {
                continue;
            }
            let act = |n: u32| acts[code / 4_usize.pow(n) % 4];
            // More rounds than the remote allows streams: each must give its place back.
            let (one, other) = stream(&a, &b).await;
            let mut ends = [Some(one), Some(other)];
            for n in 0..6 {
                let end = &mut ends[n as usize % 2];
                match act(n) {
                    Drop => *end = None,
                    Write => {
                        if let Some(end) = end {
                            let _ = end.write(b"data").now_or_never();
                        }
                    }
                    Close => {
                        if let Some(end) = end {
                            let _ = end.close().now_or_never();
                        }
                    }
                    Read => {
                        if let Some(end) = end {
                            let _ = end.read(&mut [0; 2]).now_or_never();
                        }
                    }
                }
                rt.sleep(Duration::from_millis(1)).await;
            }
        }
        rt.sleep(Duration::from_millis(100)).await;
        for peer in [&a, &b] {
            peer.with_state(|state| {
                assert_eq!((state.unfinished, state.readers.len(), state.writers.len()), (0, 0, 0));
                assert_eq!(state.quic.streams().send_streams(), 0);
                assert_eq!(state.quic.streams().remote_open_streams(quinn_proto::Dir::Bi), 0);
            });
        }
    });
}

#[test]
fn a_thousand_streams_are_opened_used_and_closed() {
    world(
        |_| {},
        |rt, a, b| async move {
            rt.spawn(echo(rt.clone(), b));
            let mut all = futures::stream::FuturesUnordered::new();
            for n in 0..1000_u32 {
                // As a swarm does: the next is asked for when the last has been opened.
                let stream = loop {
                    let mut open = std::pin::pin!(a.open().fuse());
                    futures::select_biased! {
                        stream = open => break stream.unwrap(),
                        _ = all.select_next_some() => {}
                    }
                };
                all.push(
                    async move { assert_eq!(exchange(stream, &n.to_be_bytes()).await, n.to_be_bytes()) },
                );
            }
            while all.next().await.is_some() {}
            a.with_state(|state| assert_eq!(state.unfinished, 0));
        },
    );
}

#[test]
fn over_the_stream_limit_opening_waits_until_one_is_over() {
    world(
        |c| c.max_concurrent_streams = 4,
        |rt, a, b| async move {
            let mut held = Vec::new();
            for _ in 0..4 {
                held.push(stream(&a, &b).await);
            }
            let fifth = rt.timeout(Duration::from_secs(2), a.open()).await;
            assert!(fifth.is_err(), "a fifth stream was opened");
            held.pop();
            rt.timeout(Duration::from_secs(2), a.open()).await.expect("there is room again").unwrap();
        },
    );
}

#[test]
fn a_remote_that_opens_many_streams_is_allowed_more_up_to_the_limit() {
    world(
        |c| c.max_concurrent_streams = 100,
        |rt, a, b| async move {
            let mut held = Vec::new();
            for _ in 0..100 {
                let opened = rt.timeout(Duration::from_secs(2), stream(&a, &b)).await;
                held.push(opened.expect("within the limit"));
            }
            assert!(rt.timeout(Duration::from_secs(2), a.open()).await.is_err(), "over the limit");
            b.with_state(|state| {
                assert_eq!(state.quic.streams().remote_open_streams(quinn_proto::Dir::Bi), 100);
            });
        },
    );
}

#[test]
fn a_writer_that_is_not_read_blocks_at_the_window_and_goes_on_when_it_is() {
    world(
        |c| {
            c.stream_receive_window = 32 * 1024;
            c.receive_window = 64 * 1024;
            c.send_window = 16 * 1024;
        },
        |rt, a, b| async move {
            let (mut one, mut other) = stream(&a, &b).await;
            let (tx, rx) = oneshot::channel();
            let writer = rt.clone();
            rt.spawn(async move {
                one.write_all(&[1; 1 << 20]).await.unwrap();
                one.close().await.unwrap();
                tx.send(writer.now()).unwrap();
            });
            rt.sleep(Duration::from_secs(3)).await;
            let resumed = rt.now();
            let mut all = Vec::new();
            other.read_to_end(&mut all).await.unwrap();
            assert_eq!(all.len(), 1 << 20);
            assert!(rx.await.unwrap() > resumed, "the writer was not held back");
        },
    );
}

#[test]
fn streams_that_outlive_their_connection_end_in_errors_not_in_silence() {
    world(
        |_| {},
        |rt, a, b| async move {
            let (mut one, mut other) = stream(&a, &b).await;
            other.write_all(b"last words").await.unwrap();
            rt.sleep(Duration::from_millis(50)).await;
            let waiting = rt.clone();
            let (tx, rx) = oneshot::channel();
            // One end waits while its connection is dropped under it.
            rt.spawn(async move {
                let mut buf = [0; 32];
                let n = one.read(&mut buf).await.unwrap();
                assert_eq!(&buf[..n], b"last words", "what had arrived can still be read");
                let read = one.read(&mut buf).await.map_err(|e| e.kind());
                let write = one.write(b"x").await.map_err(|e| e.kind());
                tx.send((read, write)).unwrap();
                drop(waiting);
            });
            drop(a);
            let kinds = rx.await.unwrap();
            assert_eq!(kinds, (Err(io::ErrorKind::NotConnected), Err(io::ErrorKind::NotConnected)));
            assert!(b.ended().await.contains("closed by peer"));
            let error = other.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
            assert!(chain(&error).contains("lost: closed by peer"), "{}", chain(&error));
            assert!(b.open().await.is_err());
            assert!(b.accept().await.is_err());
        },
    );
}
