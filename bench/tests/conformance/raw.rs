//! smidge against bare quinn: what libp2p's own transport never does, but any peer may.

use std::sync::Arc;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::identity::Keypair;
use quinn::{VarInt, crypto::rustls::QuicClientConfig};
use smidge_bench::{
    Tuning,
    link::{Endpoint, Link},
};

use crate::{Sides, net::socket_addr, patiently, run};

/// A quinn client of `listener`, and our end.
async fn connect(sides: &Sides, listener: &mut Endpoint) -> (quinn::Endpoint, quinn::Connection, Link) {
    let to = socket_addr(&listener.listen_v4().await);
    let (reply, connected) = futures::channel::oneshot::channel();
    smidge_bench::link::start(&sides.stock.spawner(), async move {
        let tls = libp2p_tls::make_client_config(&Keypair::generate_ed25519(), None).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(config);
        let connection = endpoint.connect(to, "l").unwrap().await.unwrap();
        let _ = reply.send((endpoint, connection));
    });
    let (client, ours) = patiently("quinn", async { futures::join!(connected, listener.accept()) }).await;
    let (endpoint, connection) = client.unwrap();
    (endpoint, connection, ours.unwrap())
}

async fn round_trip(quinn: &quinn::Connection, ours: &Link) {
    patiently("a round trip", async {
        let (mut send, mut recv) = quinn.open_bi().await.unwrap();
        send.write_all(&[5; 50_000]).await.unwrap();
        send.finish().unwrap();
        let mut stream = ours.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.close().await.unwrap();
        assert_eq!(recv.read_to_end(1 << 20).await.unwrap(), [5; 50_000]);
    })
    .await;
}

#[test]
fn a_reset_and_a_stop_reach_their_half_only() {
    run(async |sides: Sides| {
        let mut listener = Endpoint::new(&*sides.ours, &Tuning::default());
        let (_endpoint, quinn, ours) = connect(&sides, &mut listener).await;
        patiently("a reset", async {
            let (mut send, mut recv) = quinn.open_bi().await.unwrap();
            send.write_all(b"x").await.unwrap();
            let mut stream = ours.accept().await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
            send.reset(VarInt::from_u32(7)).unwrap();
            let error = stream.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            assert!(error.to_string().contains('7'), "{error}");
            // The other half lives on.
            stream.write_all(b"still here").await.unwrap();
            stream.close().await.unwrap();
            assert_eq!(recv.read_to_end(100).await.unwrap(), b"still here");
        })
        .await;
        patiently("a stop", async {
            let (mut send, mut recv) = quinn.open_bi().await.unwrap();
            send.write_all(b"x").await.unwrap();
            let mut stream = ours.accept().await.unwrap();
            recv.stop(VarInt::from_u32(9)).unwrap();
            let error = loop {
                if let Err(e) = stream.write_all(&[0; 100_000]).await {
                    break e;
                }
            };
            assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
            assert!(error.to_string().contains('9'), "{error}");
            // The other half lives on.
            send.write_all(b"y").await.unwrap();
            send.finish().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"xy");
        })
        .await;
        round_trip(&quinn, &ours).await;
    });
}

#[test]
fn keys_are_updated_as_often_as_the_remote_likes() {
    run(async |sides: Sides| {
        let mut listener = Endpoint::new(&*sides.ours, &Tuning::default());
        let (_endpoint, quinn, ours) = connect(&sides, &mut listener).await;
        for _ in 0..5 {
            quinn.force_key_update();
            round_trip(&quinn, &ours).await;
        }
    });
}

#[test]
fn a_remote_that_migrates_to_another_socket_is_followed() {
    run(async |sides: Sides| {
        let mut listener = Endpoint::new(&*sides.ours, &Tuning::default());
        let (endpoint, quinn, mut ours) = connect(&sides, &mut listener).await;
        round_trip(&quinn, &ours).await;
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let now_at = crate::net::quic(socket.local_addr().unwrap());
        let (reply, moved) = futures::channel::oneshot::channel();
        smidge_bench::link::start(&sides.stock.spawner(), async move {
            endpoint.rebind(socket).unwrap();
            let _ = reply.send(endpoint);
        });
        let _endpoint = moved.await.unwrap();
        round_trip(&quinn, &ours).await;
        assert_eq!(patiently("a move", ours.moved()).await, Some(now_at));
    });
}

#[test]
fn unidirectional_streams_and_datagrams_are_not_offered() {
    run(async |sides: Sides| {
        let mut listener = Endpoint::new(&*sides.ours, &Tuning::default());
        let (_endpoint, quinn, ours) = connect(&sides, &mut listener).await;
        assert_eq!(quinn.max_datagram_size(), None);
        let mut uni = std::pin::pin!(quinn.open_uni());
        assert!(futures::poll!(&mut uni).is_pending(), "there is no credit for one");
        round_trip(&quinn, &ours).await;
    });
}

#[test]
fn the_code_of_a_close_is_told() {
    run(async |sides: Sides| {
        let mut listener = Endpoint::new(&*sides.ours, &Tuning::default());
        let (_endpoint, quinn, ours) = connect(&sides, &mut listener).await;
        quinn.close(VarInt::from_u32(42), b"enough");
        let why = patiently("the close", ours.ended()).await;
        assert!(why.contains("enough") && why.contains("42"), "{why}");
    });
}
