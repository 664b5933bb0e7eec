use std::{io, net::SocketAddr};

use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn, join};

use crate::{Handle, KeepAlive, Smol, TcpListener, TcpOptions, TcpStream};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn run<F: Future<Output = ()>>(test: impl FnOnce(Handle) -> F) {
    Smol::block_on(1, test).unwrap();
}

async fn accept(listener: &dyn TcpListener) -> Box<dyn TcpStream> {
    poll_fn(|cx| listener.poll_accept(cx)).await.unwrap().0
}

async fn pair(rt: &Handle) -> (Box<dyn TcpStream>, Box<dyn TcpStream>) {
    let listener = rt.bind_tcp(LOOPBACK, TcpOptions::default()).unwrap();
    let near = rt.connect_tcp(listener.local_addr(), TcpOptions::default()).await.unwrap();
    (near, accept(&*listener).await)
}

#[test]
fn what_is_written_is_read_however_it_is_cut() {
    run(|rt| async move {
        let (mut near, mut far) = pair(&rt).await;
        for round in 1..200_usize {
            let sent: Vec<u8> = (0..round * 37).map(|n| n as u8).collect();
            near.write_all(&sent).await.unwrap();
            let mut received = vec![0; sent.len()];
            // In pieces, the last of which is shorter than what there is room for.
            for piece in received.chunks_mut(64) {
                far.read_exact(piece).await.unwrap();
            }
            assert_eq!(received, sent);
        }
    });
}

#[test]
fn an_end_is_noticed_whether_it_comes_with_the_last_bytes_or_after_them() {
    run(|rt| async move {
        for later in [false, true] {
            let (mut near, mut far) = pair(&rt).await;
            near.write_all(b"last").await.unwrap();
            let mut buf = [0; 64];
            if later {
                // The read takes all that is there; the end comes while nobody asks.
                assert_eq!(far.read(&mut buf).await.unwrap(), 4);
                near.close().await.unwrap();
            } else {
                near.close().await.unwrap();
                assert_eq!(far.read(&mut buf).await.unwrap(), 4);
            }
            assert_eq!(far.read(&mut buf).await.unwrap(), 0);
            assert_eq!(far.read(&mut buf).await.unwrap(), 0, "an end stays one");
            far.write_all(b"still").await.unwrap();
            near.read_exact(&mut buf[..5]).await.unwrap();
            assert_eq!(&buf[..5], b"still");
        }
    });
}

#[test]
fn a_writer_waits_for_a_reader_and_goes_on_with_it() {
    const BYTES: usize = 32 << 20;
    run(|rt| async move {
        let (mut near, mut far) = pair(&rt).await;
        let write = async {
            near.write_all(&vec![7; BYTES]).await.unwrap();
            near.close().await.unwrap();
        };
        let read = async {
            let (mut buf, mut total) = (vec![0; 100_000], 0);
            loop {
                match far.read(&mut buf).await.unwrap() {
                    0 => return total,
                    n => total += n,
                }
            }
        };
        assert_eq!(join!(write, read).1, BYTES);
    });
}

#[test]
fn every_connection_is_accepted_whether_it_comes_before_or_while_somebody_waits() {
    run(|rt| async move {
        let listener = rt.bind_tcp(LOOPBACK, TcpOptions::default()).unwrap();
        let to = listener.local_addr();
        for _ in 0..50 {
            let (one, two) =
                join!(rt.connect_tcp(to, TcpOptions::default()), rt.connect_tcp(to, TcpOptions::default()));
            let (mut one, _two) = (one.unwrap(), two.unwrap());
            let (mut first, mut second) = (accept(&*listener).await, accept(&*listener).await);
            let (connecting, accepted) = join!(rt.connect_tcp(to, TcpOptions::default()), accept(&*listener));
            assert_eq!(connecting.unwrap().local_addr().unwrap(), accepted.peer_addr().unwrap());
            one.write_all(b"x").await.unwrap();
            let mut buf = [0; 1];
            let is_one = first.peer_addr().unwrap() == one.local_addr().unwrap();
            if is_one { &mut first } else { &mut second }.read_exact(&mut buf).await.unwrap();
        }
    });
}

#[test]
fn a_refused_connection_is_an_error() {
    run(|rt| async move {
        let listener = rt.bind_tcp(LOOPBACK, TcpOptions::default()).unwrap();
        let to = listener.local_addr();
        drop(listener);
        let refused = rt.connect_tcp(to, TcpOptions::default()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_connection_that_is_cut_is_an_error_for_whoever_waits_on_it() {
    run(|rt| async move {
        let (near, mut far) = pair(&rt).await;
        far.write_all(b"never read").await.unwrap();
        let (mut reads, mut buf) = (near, [0; 4]);
        reads.read_exact(&mut buf).await.unwrap();
        // What was not read makes its close a reset.
        drop(reads);
        assert_eq!(far.read(&mut buf).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn nothing_is_left_of_a_connection_that_is_dropped() {
    let keep_alive = Some(KeepAlive {
        after: std::time::Duration::from_secs(7),
        lost_after: std::time::Duration::from_secs(21),
    });
    let options = TcpOptions { keep_alive, ..TcpOptions::default() };
    let poller = super::Poller::new().unwrap();
    let inner = poller.clone();
    poller.block_on(async move {
        let listener = crate::tcp::bind(inner.clone(), LOOPBACK, options).unwrap();
        let near = crate::tcp::connect(inner.clone(), listener.local_addr(), options).await.unwrap();
        let far = accept(&*listener).await;
        assert_eq!(super::lock(&inner.sources).len(), 3);
        drop((near, far, listener));
        assert_eq!(super::lock(&inner.sources).len(), 0);
    });
}

#[test]
fn a_unix_socket_carries_both_ways_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    run(|rt| async move {
        let listener = rt.bind_unix(path.clone()).unwrap();
        let mut near = rt.connect_unix(path).await.unwrap();
        let mut far = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        let mut buf = [0; 16];
        for _ in 0..100 {
            near.write_all(b"ping").await.unwrap();
            assert_eq!(far.read(&mut buf).await.unwrap(), 4);
            far.write_all(b"pong").await.unwrap();
            assert_eq!(near.read(&mut buf).await.unwrap(), 4);
        }
        drop(near);
        assert_eq!(far.read(&mut buf).await.unwrap(), 0);
    });
}
