//! Multiaddrs of QUIC: `/ip4|ip6/ADDRESS/udp/PORT/quic-v1`, and `/p2p/PEER` behind it for a dial.

use std::net::SocketAddr;

use libp2p::{Multiaddr, PeerId};

use crate::multiaddr::{Direct, Over, direct};

/// The socket address of a multiaddr to listen on; `None` when it is not one of QUIC.
pub(super) fn parse_listen(addr: &Multiaddr) -> Option<SocketAddr> {
    match parse_dial(addr)? {
        (socket, None) => Some(socket),
        (_, Some(_)) => None,
    }
}

/// The socket address of a multiaddr to dial, and the peer to expect there; `None` when it is not one
/// of QUIC.
pub(super) fn parse_dial(addr: &Multiaddr) -> Option<(SocketAddr, Option<PeerId>)> {
    let Direct { over, socket, peer } = direct(addr).ok()?;
    (over == Over::Quic).then_some((socket, peer))
}

/// The multiaddr of QUIC at a socket address.
pub(super) fn to_multiaddr(addr: SocketAddr) -> Multiaddr {
    Over::Quic.at(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quic_v1_over_udp_is_parsed_and_nothing_else() {
        let peer = PeerId::random();
        for (text, expected) in [
            ("/ip4/10.0.0.1/udp/4001/quic-v1".to_owned(), Some(("10.0.0.1:4001", None))),
            ("/ip6/::1/udp/4001/quic-v1".to_owned(), Some(("[::1]:4001", None))),
            (format!("/ip4/10.0.0.1/udp/1/quic-v1/p2p/{peer}"), Some(("10.0.0.1:1", Some(peer)))),
            ("/ip4/10.0.0.1/udp/4001/quic".to_owned(), None),
            ("/ip4/10.0.0.1/udp/4001".to_owned(), None),
            ("/ip4/10.0.0.1/tcp/4001".to_owned(), None),
            ("/dns4/bootstrap/udp/4001/quic-v1".to_owned(), None),
            ("/ip4/10.0.0.1/udp/4001/quic-v1/webtransport".to_owned(), None),
            (format!("/ip4/10.0.0.1/udp/1/quic-v1/p2p/{peer}/p2p-circuit"), None),
            ("/ip6zone/eth0/ip6/fe80::1/udp/4001/quic-v1".to_owned(), None),
            ("/memory/7".to_owned(), None),
        ] {
            let addr: Multiaddr = text.parse().unwrap();
            let expected = expected.map(|(addr, peer)| (addr.parse().unwrap(), peer));
            assert_eq!(parse_dial(&addr), expected, "{text}");
        }
    }

    #[test]
    fn a_peer_id_makes_no_sense_in_an_address_to_listen_on() {
        let addr = format!("/ip4/10.0.0.1/udp/1/quic-v1/p2p/{}", PeerId::random()).parse().unwrap();
        assert_eq!(parse_listen(&addr), None);
    }

    #[test]
    fn a_socket_address_survives_the_round_trip() {
        for text in ["10.1.2.3:4001", "[fd00::7]:9"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(parse_dial(&to_multiaddr(addr)), Some((addr, None)));
        }
    }
}
