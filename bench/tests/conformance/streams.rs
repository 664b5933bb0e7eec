//! Streams between the two: both ways, ended in every order, many, and large.

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, stream};
use libp2p::core::muxing::SubstreamBox;
use smidge_bench::{Tuning, link};

use crate::{Sides, connect, echo, exchange, patiently, run};

#[test]
fn streams_carry_bytes_whoever_dialed_and_whoever_opened() {
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            let pair = connect(from, to, &Tuning::default()).await;
            for bytes in [0, 1, 1200, 65_536, 1_000_000] {
                exchange(&pair.dialed, &pair.accepted, bytes).await;
                exchange(&pair.accepted, &pair.dialed, bytes).await;
            }
        }
    });
}

#[test]
fn ipv6_connects_both_ways() {
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            let dialer = link::Endpoint::new(from, &Tuning::default());
            let mut listener = link::Endpoint::new(to, &Tuning::default());
            let address = listener.listen("/ip6/::1/udp/0/quic-v1").await;
            let (a, b) =
                patiently("IPv6", async { futures::try_join!(dialer.dial(address), listener.accept()) })
                    .await
                    .unwrap();
            exchange(&a, &b, 100_000).await;
        }
    });
}

/// How a side ends its stream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// Closed: the send half is finished, the other half still reads.
    Close,
    /// Abandoned: the send half is finished, the other half stopped.
    Drop,
}

/// One stream: `hello` there, `world` back, then `first` ends as told and the other side sees it.
async fn end(mut first: SubstreamBox, mut second: SubstreamBox, ends: [End; 2], first_unread: bool) {
    let unread: &[u8] = if first_unread { b"world" } else { b"" };
    let first = match ends[0] {
        End::Close => {
            first.close().await.unwrap();
            Some(first)
        }
        End::Drop => {
            drop(first);
            None
        }
    };
    match first {
        Some(mut first) => {
            second.write_all(b"after").await.unwrap();
            match ends[1] {
                End::Close => second.close().await.unwrap(),
                End::Drop => drop(second),
            }
            let mut rest = Vec::new();
            first.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, [unread, b"after"].concat(), "what was written before the end arrives");
        }
        None => {
            // Nobody reads any more: the writer hears of it, and not only when windows are full.
            let error = loop {
                if let Err(e) = second.write_all(&[0; 64]).await {
                    break e;
                }
                async_io::Timer::after(std::time::Duration::from_millis(1)).await;
            };
            use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
            assert!(matches!(error.kind(), BrokenPipe | ConnectionReset), "{error:?}");
            if ends[1] == End::Close {
                let _ = second.close().await;
            }
        }
    }
}

#[test]
fn streams_end_in_every_order_and_give_their_credit_back() {
    run(async |sides: Sides| {
        // Fewer streams than are opened: whoever forgets to free one stalls.
        let tuning = Tuning { streams: 8, ..Tuning::default() };
        for (from, to) in sides.both_ways() {
            let pair = connect(from, to, &tuning).await;
            for (opener, acceptor) in [(&pair.dialed, &pair.accepted), (&pair.accepted, &pair.dialed)] {
                for n in 0..64_u32 {
                    let bit = |at: u32| n >> at & 1 == 1;
                    let (opener_first, unread, eof) = (bit(0), bit(1), bit(2));
                    let ends = [3, 4].map(|at| if bit(at) { End::Close } else { End::Drop });
                    let what =
                        format!("{n}: {ends:?}, opener first {opener_first}, unread {unread}, eof {eof}");
                    patiently(what, async {
                        let mut a = opener.open().await.unwrap();
                        a.write_all(b"hello").await.unwrap();
                        let mut b = acceptor.accept().await.unwrap();
                        let mut five = [0; 5];
                        b.read_exact(&mut five).await.unwrap();
                        assert_eq!(&five, b"hello");
                        b.write_all(b"world").await.unwrap();
                        if !unread {
                            a.read_exact(&mut five).await.unwrap();
                            assert_eq!(&five, b"world");
                        }
                        if opener_first {
                            end(a, b, ends, unread).await;
                        } else {
                            end(b, a, ends, false).await;
                        }
                    })
                    .await;
                }
            }
            exchange(&pair.dialed, &pair.accepted, 1000).await;
        }
    });
}

#[test]
fn the_end_of_a_stream_is_seen_by_its_reader() {
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            let pair = connect(from, to, &Tuning::default()).await;
            for (opener, acceptor) in [(&pair.dialed, &pair.accepted), (&pair.accepted, &pair.dialed)] {
                for close in [true, false] {
                    patiently("an end", async {
                        let mut a = opener.open().await.unwrap();
                        a.write_all(b"hello").await.unwrap();
                        if close {
                            a.close().await.unwrap();
                            a.close().await.expect("closing twice is closing");
                            assert!(a.write_all(b"more").await.is_err(), "closed is closed");
                        }
                        drop(a);
                        let mut b = acceptor.accept().await.unwrap();
                        let mut all = Vec::new();
                        b.read_to_end(&mut all).await.unwrap();
                        assert_eq!(all, b"hello");
                        assert_eq!(b.read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");
                    })
                    .await;
                }
            }
        }
    });
}

#[test]
fn a_thousand_streams_come_and_go_many_at_once() {
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            let pair = connect(from, to, &Tuning::default()).await;
            let (dialed, accepted) = (pair.dialed, pair.accepted);
            let accepted = echo(&to.spawner(), accepted);
            let round = |n: u32| {
                let dialed = &dialed;
                async move {
                    let mut stream = dialed.open().await.unwrap();
                    stream.write_all(&n.to_be_bytes()).await.unwrap();
                    stream.close().await.unwrap();
                    let mut back = Vec::new();
                    stream.read_to_end(&mut back).await.unwrap();
                    assert_eq!(back, n.to_be_bytes());
                }
            };
            let all = stream::iter(0..1000).for_each_concurrent(400, round);
            patiently("a thousand streams", all).await;
            drop(accepted);
        }
    });
}

#[test]
fn more_streams_than_the_remote_allows_wait_for_their_turn() {
    run(async |sides: Sides| {
        let tuning = Tuning { streams: 4, ..Tuning::default() };
        for (from, to) in sides.both_ways() {
            let pair = connect(from, to, &tuning).await;
            let mut open = Vec::new();
            for _ in 0..4 {
                open.push(pair.dialed.open().await.unwrap());
            }
            let fifth = pair.dialed.open();
            let freed = async {
                let mut first = open.remove(0);
                first.write_all(b"x").await.unwrap();
                first.close().await.unwrap();
                let mut there = pair.accepted.accept().await.unwrap();
                there.read_to_end(&mut Vec::new()).await.unwrap();
                there.close().await.unwrap();
                first.read_to_end(&mut Vec::new()).await.unwrap();
            };
            patiently("the fifth stream", async { futures::join!(fifth, freed) }).await.0.unwrap();
        }
    });
}

#[test]
fn a_hundred_mebibytes_flow_each_way_at_once() {
    const BYTES: u64 = 100 << 20;
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            let pair = connect(from, to, &Tuning::default()).await;
            let half = |stream: SubstreamBox| async move {
                let (mut read, mut write) = stream.split();
                let (sent, got) =
                    futures::join!(link::send_all(&mut write, BYTES), link::receive_all(&mut read));
                sent.unwrap();
                assert_eq!(got.unwrap(), BYTES);
            };
            let a = async { half(pair.dialed.open().await.unwrap()).await };
            let b = async { half(pair.accepted.accept().await.unwrap()).await };
            patiently("100 MiB each way", async { futures::join!(a, b) }).await;
        }
    });
}
