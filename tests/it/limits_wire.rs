//! Limits of single messages of libp2p's protocols (docs/limits.md), at, below and above each: a bare connection says
//! what no honest implementation would.

use std::{future::poll_fn, pin::Pin, task::Poll};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{
    PeerId, Transport as _,
    core::{
        Endpoint,
        muxing::{StreamMuxer, StreamMuxerBox, SubstreamBox},
        transport::{Boxed, DialOpts, PortUse},
    },
    identity::{Keypair, PublicKey},
};
use smidge::{
    Client,
    transport::quic::{self, Transport},
};

use crate::support::{
    Network, run,
    wire::{field, framed, line},
};

/// A connection to a node, without a swarm.
struct Raw {
    key: PublicKey,
    muxer: StreamMuxerBox,
    /// Its socket.
    _transport: Boxed<(PeerId, StreamMuxerBox)>,
}

impl Raw {
    /// A new peer that is connected to replica `n`.
    async fn connect(net: &Network, n: u8) -> Self {
        let key = Keypair::generate_ed25519();
        let mut transport = Transport::new(quic::Config::new(&key).unwrap(), net.rt.clone())
            .unwrap()
            .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
            .boxed();
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dial = transport.dial(net.addr(n), options).unwrap();
        let (_, muxer) = net.patiently("a bare connection", dial).await.unwrap();
        Self { key: key.public(), muxer, _transport: transport }
    }

    /// Drives the connection until `work` is done.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        poll_fn(|cx| {
            // What ends the connection ends the work, too.
            let _ = Pin::new(&mut self.muxer).poll(cx);
            work.as_mut().poll(cx)
        })
        .await
    }

    async fn next(&mut self, outbound: bool) -> SubstreamBox {
        poll_fn(|cx| {
            let _ = Pin::new(&mut self.muxer).poll(cx);
            let muxer = Pin::new(&mut self.muxer);
            let stream = if outbound { muxer.poll_outbound(cx) } else { muxer.poll_inbound(cx) };
            match stream {
                Poll::Ready(stream) => Poll::Ready(stream.unwrap()),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Sends `message` over a stream of `protocol`; the first message that comes back, if one does.
    async fn ask(&mut self, protocol: &str, message: &[u8]) -> Option<Vec<u8>> {
        let mut stream = self.next(true).await;
        let asked = [&line("/multistream/1.0.0")[..], &line(protocol), &framed(message)].concat();
        self.drive(async {
            stream.write_all(&asked).await.ok()?;
            assert_eq!(frame(&mut stream).await?, b"/multistream/1.0.0\n");
            assert_eq!(frame(&mut stream).await?, [protocol.as_bytes(), b"\n"].concat());
            frame(&mut stream).await
        })
        .await
    }

    /// Answers the node's first question for `protocol` with `message`; other streams are refused.
    async fn answer(&mut self, protocol: &str, message: &[u8]) {
        loop {
            let mut stream = self.next(false).await;
            let answered = async {
                assert_eq!(frame(&mut stream).await?, b"/multistream/1.0.0\n");
                let asked = frame(&mut stream).await?;
                stream.write_all(&line("/multistream/1.0.0")).await.ok()?;
                if asked != [protocol.as_bytes(), b"\n"].concat() {
                    stream.write_all(&line("na")).await.ok()?;
                    return None;
                }
                stream.write_all(&line(protocol)).await.ok()?;
                stream.write_all(&framed(message)).await.ok()?;
                stream.close().await.ok()?;
                // Until the node has read it, or given up.
                let _ = stream.read_to_end(&mut Vec::new()).await;
                Some(())
            };
            if self.drive(answered).await.is_some() {
                return;
            }
        }
    }
}

/// The next message with its length before it; none if the stream ends.
async fn frame(stream: &mut SubstreamBox) -> Option<Vec<u8>> {
    let (mut length, mut byte) = (0, [0]);
    for shift in (0..).step_by(7) {
        stream.read_exact(&mut byte).await.ok()?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            break;
        }
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

/// `message` with an unknown field behind it that makes it `size` bytes long.
fn padded(mut message: Vec<u8>, size: usize) -> Vec<u8> {
    // Its tag, and a length of two bytes.
    let padding = vec![0; size - message.len() - 3];
    message.extend(field(15, &padding));
    assert_eq!(message.len(), size);
    message
}

fn around(limit: usize) -> [(usize, bool); 3] {
    [(limit - 1, true), (limit, true), (limit + 1, false)]
}

#[test]
fn a_relay_reads_requests_of_4096_bytes_and_none_above() {
    run(async |net| {
        let mut config = net.config(2, &[]);
        config.relay.server = true;
        let relay = net.spawn(config);
        net.listening(&relay).await;
        let mut raw = Raw::connect(&net, 2).await;
        for (size, answered) in around(4096) {
            // HopMessage: RESERVE.
            let answer = raw.ask("/libp2p/circuit/relay/0.2.0/hop", &padded(vec![0x08, 0], size)).await;
            assert_eq!(answer.is_some(), answered, "{size} bytes");
            if let Some(answer) = answer {
                // Its status: OK (100).
                assert!(answer.windows(2).any(|pair| pair == [0x28, 100]), "{answer:?}");
            }
        }
    });
}

#[test]
fn autonat_reads_requests_of_4104_bytes_and_none_above() {
    run(async |net| {
        let mut config = net.config(2, &[]);
        config.nat.answer = true;
        let node = net.spawn(config);
        net.listening(&node).await;
        let mut raw = Raw::connect(&net, 2).await;
        for (size, answered) in around(4104) {
            // Message: DialRequest with an address and a nonce.
            let address = field(1, &net.addr(9).to_vec());
            let request = [&address[..], &[0x11, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
            let answer = raw.ask("/libp2p/autonat/2/dial-request", &padded(field(1, &request), size)).await;
            assert_eq!(answer.is_some(), answered, "{size} bytes");
        }
    });
}

/// What `node` knows `peer` by.
async fn agent(node: &Client, peer: &PeerId) -> Option<String> {
    let peers = node.peers().await.unwrap();
    peers.into_iter().find(|status| status.peer == *peer).and_then(|status| status.agent)
}

#[test]
fn identify_reads_4096_bytes_and_knows_no_peer_that_says_more() {
    run(async |net| {
        let node = net.spawn(net.config(2, &[]));
        net.listening(&node).await;
        for (size, known) in around(4096) {
            let mut raw = Raw::connect(&net, 2).await;
            let message = [field(1, &raw.key.encode_protobuf()), field(6, b"raw/1")].concat();
            let message = padded(message, size);
            net.patiently("identify", raw.answer("/ipfs/id/1.0.0", &message)).await;
            // What is answered now comes after what came of it.
            let ping = [7; 32];
            let mut stream = raw.next(true).await;
            let asked = [&line("/multistream/1.0.0")[..], &line("/ipfs/ping/1.0.0"), &ping].concat();
            let pong = raw.drive(async {
                stream.write_all(&asked).await.unwrap();
                frame(&mut stream).await.unwrap();
                frame(&mut stream).await.unwrap();
                let mut pong = [0; 32];
                stream.read_exact(&mut pong).await.unwrap();
                pong
            });
            assert_eq!(net.patiently("a ping", pong).await, ping);
            let expected = known.then(|| "raw/1".to_owned());
            assert_eq!(agent(&node, &raw.key.to_peer_id()).await, expected, "{size} bytes");
        }
    });
}
