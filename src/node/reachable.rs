//! Which of a peer's announced addresses can be reached from here.
//!
//! A container announces its loopback and its engine's gateway bridge beside the overlay address
//! that everybody meets on. The bridge even looks on-link: every host has the same subnet there. So
//! the connection itself is the witness: an address is believed if it lies where the connection
//! comes from. Pure: nothing is dialed.

use std::net::IpAddr;

use libp2p::{Multiaddr, PeerId};

use super::claims::Scope;
use crate::{
    runtime::Interface,
    transport::multiaddr::{ip, is_circuit, over, relay},
};

/// Whether `announced` can be reached from here, as far as a connection with `remote` tells.
///
/// It can if it is on the very host that the connection leads to, on a subnet that this host shares
/// with it, or if both are public. Of a peer behind a relay, the connection says where the relay is: then only
/// the last of these counts. An address through a relay is believed while `is_relay` knows that relay. What smidge
/// has no transport for (`/ws`, `/webtransport`, …) cannot be reached.
pub(crate) fn is_reachable(
    announced: &Multiaddr,
    remote: &Multiaddr,
    interfaces: &[Interface],
    is_relay: impl Fn(&PeerId) -> bool,
) -> bool {
    if over(announced).is_none() {
        return false;
    }
    if is_circuit(announced) {
        return relay(announced).is_some_and(|relay| is_relay(&relay));
    }
    let direct = !is_circuit(remote);
    let (Some(announced), Some(remote)) = (ip(announced), ip(remote)) else {
        return false;
    };
    if announced == remote && direct {
        return true;
    }
    let shared = |i: &&Interface| i.contains(remote) && i.contains(announced);
    let specific = interfaces.iter().filter(shared).any(|i| i.prefix_len > 0);
    let special = announced.is_unspecified() || announced.is_multicast() || announced.is_loopback();
    (specific && !special && direct) || (is_public(announced) && is_public(remote))
}

/// Whether an address is routed on the Internet.
fn is_public(ip: IpAddr) -> bool {
    Scope::of(ip) == Some(Scope::Internet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, addr: &str, prefix_len: u8) -> Interface {
        Interface { name: name.into(), index: 1, addr: addr.parse().unwrap(), prefix_len }
    }

    #[test]
    fn only_what_lies_where_the_connection_comes_from_is_believed() {
        // A task of a Swarm service: eth0 is the overlay, eth1 the gateway bridge.
        let here = [
            interface("lo", "127.0.0.1", 8),
            interface("eth0", "10.0.11.5", 24),
            interface("eth1", "172.18.0.3", 16),
            interface("eth0", "fd00:11::5", 64),
        ];
        for (announced, remote, expected) in [
            ("/ip4/10.0.11.2/udp/4001/quic-v1", "/ip4/10.0.11.2/udp/4001/quic-v1", true),
            ("/ip4/10.0.11.2/udp/4001/quic-v1", "/ip4/10.0.11.2/udp/51234/quic-v1", true),
            ("/ip4/127.0.0.1/udp/4001/quic-v1", "/ip4/10.0.11.2/udp/4001/quic-v1", false),
            ("/ip4/172.18.0.4/udp/4001/quic-v1", "/ip4/10.0.11.2/udp/4001/quic-v1", false),
            ("/ip4/10.0.11.9/udp/4001/quic-v1", "/ip4/10.0.11.2/udp/4001/quic-v1", true),
            ("/ip4/0.0.0.0/udp/4001/quic-v1", "/ip4/10.0.11.2/udp/4001/quic-v1", false),
            ("/ip4/203.0.113.9/udp/4001/quic-v1", "/ip4/10.0.11.2/udp/4001/quic-v1", false),
            ("/ip4/8.8.8.8/udp/4001/quic-v1", "/ip4/10.0.11.2/udp/4001/quic-v1", false),
            ("/ip4/8.8.8.8/udp/4001/quic-v1", "/ip4/9.9.9.9/udp/4001/quic-v1", true),
            ("/ip4/192.168.1.1/udp/4001/quic-v1", "/ip4/9.9.9.9/udp/4001/quic-v1", false),
            ("/ip4/127.0.0.1/udp/4001/quic-v1", "/ip4/127.0.0.1/udp/4001/quic-v1", true),
            ("/ip6/fd00:11::9/udp/4001/quic-v1", "/ip6/fd00:11::2/udp/4001/quic-v1", true),
            ("/ip6/fd00:12::9/udp/4001/quic-v1", "/ip6/fd00:11::2/udp/4001/quic-v1", false),
            ("/ip6/2001:db8::1/udp/4001/quic-v1", "/ip6/2a00::1/udp/4001/quic-v1", false),
            ("/ip6/2a01::1/udp/4001/quic-v1", "/ip6/2a00::1/udp/4001/quic-v1", true),
            ("/ip4/10.0.11.9/tcp/4001", "/ip4/10.0.11.2/udp/4001/quic-v1", true),
            ("/ip4/10.0.11.2/tcp/4001", "/ip4/10.0.11.2/tcp/51234", true),
            ("/ip4/172.18.0.4/tcp/4001", "/ip4/10.0.11.2/tcp/4001", false),
            ("/ip4/10.0.11.2/tcp/4001/ws", "/ip4/10.0.11.2/tcp/4001", false),
            ("/ip4/10.0.11.2/tcp/443/tls/ws", "/ip4/10.0.11.2/udp/4001/quic-v1", false),
            ("/ip4/10.0.11.2/udp/4001/quic-v1/webtransport", "/ip4/10.0.11.2/udp/4001/quic-v1", false),
            ("/ip4/10.0.11.2/udp/4001/webrtc-direct", "/ip4/10.0.11.2/udp/4001/quic-v1", false),
            ("/ip4/10.0.11.2/udp/4001/quic", "/ip4/10.0.11.2/udp/4001/quic-v1", false),
            ("/dns4/peer/udp/4001/quic-v1", "/ip4/10.0.11.2/udp/4001/quic-v1", false),
            ("/memory/5", "/memory/5", false),
        ] {
            let (a, r) = (announced.parse().unwrap(), remote.parse().unwrap());
            assert_eq!(is_reachable(&a, &r, &here, |_| false), expected, "{announced} seen from {remote}");
        }
    }

    #[test]
    fn behind_a_relay_only_public_addresses_and_those_of_known_relays_are_believed() {
        let here = [interface("eth0", "10.0.11.5", 24)];
        let [known, other, peer] = [(); 3].map(|()| PeerId::random());
        let through = |relay| format!("/ip4/9.9.9.9/udp/4001/quic-v1/p2p/{relay}/p2p-circuit/p2p/{peer}");
        let relayed = through(known);
        for (announced, remote, expected) in [
            (through(known), relayed.as_str(), true),
            (through(other), &relayed, false),
            (through(known), "/ip4/10.0.11.2/udp/4001/quic-v1", true),
            ("/ip4/9.9.9.9/udp/4002/quic-v1".into(), &relayed, true),
            ("/ip4/8.8.8.8/udp/4001/quic-v1".into(), &relayed, true),
            ("/ip4/10.0.11.7/udp/4001/quic-v1".into(), &relayed, false),
            ("/ip4/10.0.11.7/udp/4001/quic-v1".into(), &relayed.replace("9.9.9.9", "10.0.11.7"), false),
            ("/p2p-circuit".into(), &relayed, false),
        ] {
            let (a, r) = (announced.parse().unwrap(), remote.parse().unwrap());
            let found = is_reachable(&a, &r, &here, |relay| *relay == known);
            assert_eq!(found, expected, "{announced} seen from {remote}");
        }
    }
}
