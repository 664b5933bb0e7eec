//! Multiaddrs of TCP: `/ip4|ip6/ADDRESS/tcp/PORT`, and `/p2p/PEER` behind it for a dial.

use std::net::SocketAddr;

use libp2p::{Multiaddr, PeerId};

use crate::multiaddr::{Direct, Over, direct};

/// The socket address of a multiaddr to listen on; `None` when it is not one of TCP.
pub(super) fn parse_listen(addr: &Multiaddr) -> Option<SocketAddr> {
    match parse_dial(addr)? {
        (socket, None) => Some(socket),
        (_, Some(_)) => None,
    }
}

/// The socket address of a multiaddr to dial, and the peer to expect there; `None` when it is not one
/// of TCP.
pub(super) fn parse_dial(addr: &Multiaddr) -> Option<(SocketAddr, Option<PeerId>)> {
    let Direct { over, socket, peer } = direct(addr).ok()?;
    (over == Over::Tcp).then_some((socket, peer))
}

/// The multiaddr of TCP at a socket address.
pub(super) fn to_multiaddr(addr: SocketAddr) -> Multiaddr {
    Over::Tcp.at(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tcp_is_parsed_and_nothing_else() {
        let peer = PeerId::random();
        for (text, expected) in [
            ("/ip4/10.0.0.1/tcp/4001".to_owned(), Some(("10.0.0.1:4001", None))),
            ("/ip6/::1/tcp/4001".to_owned(), Some(("[::1]:4001", None))),
            (format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}"), Some(("10.0.0.1:1", Some(peer)))),
            ("/ip4/10.0.0.1/udp/4001/quic-v1".to_owned(), None),
            ("/ip4/10.0.0.1".to_owned(), None),
            ("/ip4/10.0.0.1/tcp/4001/ws".to_owned(), None),
            ("/ip4/10.0.0.1/tcp/4001/tls".to_owned(), None),
            (format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}/p2p-circuit"), None),
            ("/dns4/bootstrap/tcp/4001".to_owned(), None),
            ("/memory/7".to_owned(), None),
        ] {
            let addr: Multiaddr = text.parse().unwrap();
            let expected = expected.map(|(addr, peer)| (addr.parse().unwrap(), peer));
            assert_eq!(parse_dial(&addr), expected, "{text}");
        }
    }

    #[test]
    fn a_peer_id_makes_no_sense_in_an_address_to_listen_on() {
        let addr = format!("/ip4/10.0.0.1/tcp/1/p2p/{}", PeerId::random()).parse().unwrap();
        assert_eq!(parse_listen(&addr), None);
    }
}
