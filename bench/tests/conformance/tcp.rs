//! TCP with Noise and Yamux: our transport and the stock one, both ways.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, future::join_all};
use libp2p::{PeerId, identity::Keypair, multiaddr::Protocol, ping};
use smidge::{PublishOptions, PutOptions, Quorum};
use smidge_bench::{
    Kind, Tuning,
    driven::Driven,
    link::{self, Endpoint},
    nodes::{Whole, WholeEvent, gossip_config},
};

use crate::{
    Sides, connect, echo, exchange,
    node::{StockNode, config, listening, spawn, told, until},
    patiently, run,
};

fn tuning() -> Tuning {
    Tuning { tcp: true, ..Tuning::default() }
}

#[test]
fn bytes_pass_over_one_stream_and_over_many_at_once() {
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            let pair = connect(from, to, &tuning()).await;
            // More than any window of Yamux, and less than a message of Noise.
            for bytes in [1, 70_000, 20_000_000] {
                exchange(&pair.dialed, &pair.accepted, bytes).await;
                exchange(&pair.accepted, &pair.dialed, bytes).await;
            }
            let echoing = echo(&to.spawner(), pair.accepted);
            let trips = (0..100).map(|n| {
                let dialed = &pair.dialed;
                async move {
                    let (mut read, mut write) = dialed.open().await.unwrap().split();
                    let bytes = vec![n as u8; 1 + n * 1000];
                    let mut back = Vec::new();
                    let (sent, read) = futures::join!(
                        async {
                            write.write_all(&bytes).await?;
                            write.close().await
                        },
                        read.read_to_end(&mut back)
                    );
                    sent.unwrap();
                    read.unwrap();
                    assert!(back == bytes, "{n}");
                }
            });
            patiently("100 streams", join_all(trips)).await;
            drop(echoing);
        }
    });
}

#[test]
fn what_we_wrote_and_closed_arrives_although_the_connection_is_closed() {
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            if from.kind() == Kind::Stock {
                // It closes its socket at once, and what the system has not sent then may be lost.
                continue;
            }
            let pair = connect(from, to, &tuning()).await;
            let send = async {
                let mut stream = pair.dialed.open().await?;
                link::send_all(&mut stream, 200_000).await?;
                pair.dialed.close().await
            };
            let receive = async {
                let mut stream = pair.accepted.accept().await?;
                link::receive_all(&mut stream).await
            };
            let (_, got) = patiently("all bytes", async { futures::try_join!(send, receive) }).await.unwrap();
            assert_eq!(got, 200_000);
            patiently("the end", async { while pair.accepted.accept().await.is_ok() {} }).await;
        }
    });
}

#[test]
fn someone_else_than_expected_is_not_connected_to_and_the_listener_lives_on() {
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            let dialer = Endpoint::new(from, &tuning());
            let mut listener = Endpoint::new(to, &tuning());
            let address = listener.listen_v4().await;
            let wrong = address.clone().with_p2p(PeerId::random()).unwrap();
            match patiently("an answer", dialer.dial(wrong)).await {
                // The stock transport leaves that to the swarm above it.
                Ok(link) => assert_eq!((link.peer, from.kind()), (listener.peer, Kind::Stock)),
                Err(e) => assert!(e.contains(&listener.peer.to_string()), "{e}"),
            }
            let right = address.with_p2p(listener.peer).unwrap();
            let (dialed, _accepted) = patiently("a connection", async {
                futures::join!(dialer.dial(right), listener.accept_good())
            })
            .await;
            assert_eq!(dialed.unwrap().peer, listener.peer);
        }
    });
}

#[test]
fn swarms_of_both_ping_each_other() {
    run(async |sides: Sides| {
        for (from, to) in sides.both_ways() {
            let node = |side| {
                let behaviour = ping::Behaviour::default();
                Driven::new(side, &Keypair::generate_ed25519(), &tuning(), behaviour, |_| true)
            };
            let (mut dialer, mut listener) = (node(from), node(to));
            let at = patiently("a listener", listener.listen()).await;
            assert_eq!(patiently("a dial", dialer.dial(at)).await, listener.peer);
            let pinged = |event: ping::Event| event.result.is_ok().then_some(());
            told("a ping", &mut dialer, pinged).await;
            told("a ping back", &mut listener, pinged).await;
        }
    });
}

#[test]
fn our_node_and_a_stock_node_are_one_mesh_and_one_table_over_tcp() {
    run(async |sides: Sides| {
        for ours_dials in [true, false] {
            let key = Keypair::generate_ed25519();
            let behaviour = Whole::new(&key, gossip_config().build().unwrap());
            let mut stock: StockNode = Driven::new(&*sides.stock, &key, &tuning(), behaviour, |_| true);
            let topic = libp2p::gossipsub::IdentTopic::new("some_topic");
            stock.call(move |s| s.behaviour_mut().gossip.subscribe(&topic)).await.unwrap();
            let at = patiently("a listener", stock.listen()).await;
            let mut ours = config();
            ours.listen.addresses = vec![tuning().loopback().parse().unwrap()];
            if ours_dials {
                // By its socket: over what this node listens on, which is TCP.
                let Some(Protocol::Tcp(port)) = at.iter().nth(1) else { panic!("{at}") };
                ours.dial.names = vec![format!("127.0.0.1:{port}").parse().unwrap()];
            }
            let client = spawn(&sides, ours);
            let to = listening(&client).await;
            if !ours_dials {
                patiently("a dial", stock.dial(to.clone())).await;
            }
            let (us, peer) = (client.peer_id(), stock.peer);
            stock.call(move |s| s.behaviour_mut().kad.add_address(&us, to)).await;
            until("the stock node in our table", &client, async |c| c.status().await.unwrap().table > 0)
                .await;
            let put = PutOptions { quorum: Quorum::One, ttl: None };
            let stored = patiently("our put", client.put("over", "tcp", put)).await.unwrap();
            assert_eq!(stored.confirmed, 1);
            let found = patiently("our search", client.find_peer(peer)).await.unwrap();
            assert_eq!(found, [at]);
            until("a mesh", &client, async |c| {
                c.mesh().await.unwrap().get("some_topic").is_some_and(|mesh| mesh.contains(&peer))
            })
            .await;
            let sent = client.publish("some_topic", "over TCP", PublishOptions::default());
            assert_eq!(patiently("our publish", sent).await.unwrap().peers, 1);
            let heard = told("a message", &mut stock, |event| match event {
                WholeEvent::Gossip(libp2p::gossipsub::Event::Message { message, .. }) => Some(message.data),
                _ => None,
            });
            assert_eq!(heard.await, b"over TCP");
            let rtt = patiently("our ping", client.ping(peer)).await.unwrap();
            assert!(rtt < Duration::from_secs(10));
            client.shutdown().await.unwrap();
        }
    });
}
