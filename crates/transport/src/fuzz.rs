//! Datagrams that nobody should send, and handshakes over TCP as they are read along.

#![allow(clippy::unwrap_used, reason = "a broken promise is a panic")]

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::LazyLock,
    time::Duration,
};

use futures::future::{Either, select};
use libp2p::{
    Multiaddr, Transport as _,
    core::{
        Endpoint,
        muxing::StreamMuxer,
        transport::{DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
};
use smidge_runtime::{
    Handle, Transmit, UdpOptions,
    sim::{Link, World},
};

use super::quic;

static KEYS: LazyLock<[Keypair; 2]> = LazyLock::new(|| [(); 2].map(|()| Keypair::generate_ed25519()));

const LISTEN: &str = "/ip4/10.0.0.2/udp/4001/quic-v1";
const LISTENER: &str = "10.0.0.2:4001";
const DIALER: &str = "10.0.0.1:4001";

fn node(rt: Handle, key: usize) -> quic::Transport {
    quic::Transport::new(quic::Config::new(&KEYS[key]).unwrap(), rt).unwrap()
}

fn datagram<'a>(to: &str, contents: &'a [u8]) -> Transmit<'a> {
    Transmit { destination: to.parse().unwrap(), ecn: None, contents, segment_size: None, src_ip: None }
}

/// Datagrams to a listener and to a dialer, each a byte and a length of two before its contents: of the
/// byte, bit 0 says to which end, and bit 1 that it is made a long header of QUIC version 1, as long as one has
/// to be. Afterwards the two still connect and exchange a stream.
pub fn quic(mut bytes: &[u8]) {
    let world = World::new(1, Link::default());
    let [one, two, stranger] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|addr| world.host(&[addr]));
    let (mut dialer, mut listener) = (node(one.handle(), 0), node(two.handle(), 1));
    world.block_on(Duration::from_secs(60), async {
        for (node, at) in [(&mut dialer, "/ip4/10.0.0.1/udp/4001/quic-v1"), (&mut listener, LISTEN)] {
            node.listen_on(ListenerId::next(), at.parse().unwrap()).unwrap();
            let event = poll_fn(|cx| Pin::new(&mut *node).poll(cx)).await;
            assert!(matches!(event, TransportEvent::NewAddress { .. }));
        }
        let rt = stranger.handle();
        let socket = rt.bind_udp("10.0.0.3:9".parse().unwrap(), UdpOptions::default()).unwrap();
        for _ in 0..64 {
            let Some((head, rest)) = bytes.split_first_chunk::<3>() else { break };
            let length = usize::from(u16::from_le_bytes([head[1], head[2]]));
            let (contents, rest) = rest.split_at(rest.len().min(length));
            bytes = rest;
            let mut contents = contents.to_vec();
            if head[0] & 2 != 0 {
                contents.splice(..0, [0xc3, 0, 0, 0, 1]);
                contents.resize(contents.len().max(1200), 0);
            }
            let _ = socket.try_send(&datagram(if head[0] & 1 == 0 { LISTENER } else { DIALER }, &contents));
        }
        // They have arrived by then.
        rt.sleep(Duration::from_millis(5)).await;
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
        let address: Multiaddr = LISTEN.parse().unwrap();
        let dialed = dialer.dial(address, opts).unwrap();
        let accept = async {
            loop {
                match poll_fn(|cx| Pin::new(&mut listener).poll(cx)).await {
                    TransportEvent::Incoming { upgrade, .. } => {
                        // Of the others, nobody makes it through a handshake.
                        if let Ok((peer, muxer)) = upgrade.await {
                            assert_eq!(peer, KEYS[0].public().to_peer_id());
                            return muxer;
                        }
                    }
                    other => assert!(!matches!(other, TransportEvent::ListenerClosed { .. })),
                }
            }
        };
        let (dialed, mut accepted) = futures::join!(dialed, accept);
        let (peer, mut dialed) = dialed.expect("an honest dial succeeds");
        assert_eq!(peer, KEYS[1].public().to_peer_id());
        let open = pin!(poll_fn(|cx| {
            let _ = Pin::new(&mut dialed).poll(cx);
            Pin::new(&mut dialed).poll_outbound(cx)
        }));
        let alive = pin!(poll_fn(|cx| Pin::new(&mut accepted).poll(cx)));
        assert!(matches!(select(open, alive).await, Either::Left((Ok(_), _))));
    });
    drop((dialer, listener));
    world.end();
}

pub use super::{tcp::fuzz::handshake, tls::fuzz::certificate};

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    type Feed = fn(&[u8]);

    /// The targets, by the names of their files; the crate smidge tests that none is forgotten.
    const TARGETS: [(&str, Feed); 3] =
        [("certificate", super::certificate), ("noise", super::handshake), ("quic", super::quic)];

    #[test]
    fn the_corpus_of_each_fuzz_target_breaks_no_promise() {
        for (name, feed) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
            let mut inputs: Vec<_> =
                fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            inputs.sort();
            assert!(!inputs.is_empty(), "{name} has a corpus");
            for input in inputs {
                // The last line before a panic says which it was.
                eprintln!("{}", input.display());
                feed(&fs::read(&input).unwrap());
            }
        }
    }
}
