//! What a multiaddr means: where it leads, over which transport, to which peer, and whether through a relay.
//!
//! The one place that takes a multiaddr apart (libp2p/specs addressing): the rules about peers, the limits on
//! addresses and the transports all mean the same by it. Pure; never resolves a name.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// QUIC version 1 over UDP: `/udp/PORT/quic-v1`.
    Quic,
    /// TCP with Noise and Yamux: `/tcp/PORT`.
    Tcp,
}

/// An address that leads to a socket by itself: no name, no relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direct {
    /// What carries connections there.
    pub over: Over,
    /// Where; the port may be 0.
    pub socket: SocketAddr,
    /// The peer that is expected there.
    pub peer: Option<PeerId>,
}

/// Why an address is not one of QUIC or TCP at an IP address; fit to stand behind "the address".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(String);

fn refuse<T>(why: impl Into<String>) -> Result<T, Unsupported> {
    Err(Unsupported(why.into()))
}

/// What a port looks like in an address.
const PORTS: &str = "/udp/PORT/quic-v1 or /tcp/PORT";

impl Over {
    /// What the addresses of this transport end with.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Quic => "/quic-v1",
            Self::Tcp => "/tcp/PORT",
        }
    }

    /// The address at which this transport reaches a socket.
    pub fn at(self, socket: SocketAddr) -> Multiaddr {
        let ip = Multiaddr::from(socket.ip());
        match self {
            Self::Quic => ip.with(Protocol::Udp(socket.port())).with(Protocol::QuicV1),
            Self::Tcp => ip.with(Protocol::Tcp(socket.port())),
        }
    }
}

/// Takes `/ip4|ip6/ADDR/udp/PORT/quic-v1` or `/ip4|ip6/ADDR/tcp/PORT` apart, with at most `/p2p/ID` behind it.
///
/// # Errors
/// Says which part is missing or too much.
pub fn direct(address: &Multiaddr) -> Result<Direct, Unsupported> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::from(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::from(ip),
        Some(other) => return refuse(format!("starts with {other}, not with /ip4 or /ip6")),
        None => return refuse("an empty address"),
    };
    let (port, over) = port(parts.next(), &mut parts)?;
    let peer = match parts.next() {
        None => None,
        Some(Protocol::P2p(peer)) => Some(peer),
        Some(other) => return refuse(format!("has {other} behind {}", over.suffix())),
    };
    match parts.next() {
        None => Ok(Direct { over, socket: SocketAddr::new(ip, port), peer }),
        Some(other) => refuse(format!("has {other} behind the peer id")),
    }
}

/// The port that an address goes on with, and what carries connections there; `rest` is what follows `part`.
///
/// # Errors
/// Says what is there instead.
pub fn port<'a>(
    part: Option<Protocol<'a>>,
    rest: &mut impl Iterator<Item = Protocol<'a>>,
) -> Result<(u16, Over), Unsupported> {
    match part {
        Some(Protocol::Tcp(port)) => Ok((port, Over::Tcp)),
        Some(Protocol::Udp(port)) => match rest.next() {
            Some(Protocol::QuicV1) => Ok((port, Over::Quic)),
            Some(other) => refuse(format!("has {other} where /quic-v1 belongs")),
            None => refuse("ends before /quic-v1"),
        },
        Some(other) => refuse(format!("has {other} where {PORTS} belongs")),
        None => refuse(format!("ends before {PORTS}")),
    }
}

/// The IP address that a multiaddr begins with: of one through a relay, the relay's.
pub fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// Where the peer itself is, in canonical form (`::ffff:10.0.0.1` is `10.0.0.1`). Nobody knows that of a peer
/// behind a relay: neither the rules about addresses nor the limits on them apply to it, whoever dialed.
pub fn peer_ip(address: &Multiaddr) -> Option<IpAddr> {
    if is_circuit(address) { None } else { ip(address).map(|ip| ip.to_canonical()) }
}

/// The host that an address stands for when it is counted: one host has a whole /64 of IPv6.
pub fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// Whether an address leads through a relay.
pub fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Where the first connection on the way leads: of an address through a relay, to the relay.
pub fn first_hop(address: &Multiaddr) -> Multiaddr {
    address.iter().take_while(|part| *part != Protocol::P2pCircuit).collect()
}

/// The relay that an address leads through, where it names one.
pub fn relay(address: &Multiaddr) -> Option<PeerId> {
    is_circuit(address).then(|| split_peer(first_hop(address)).1).flatten()
}

/// What the first connection on the way is carried by; `None` if there is no transport for it.
pub fn over(address: &Multiaddr) -> Option<Over> {
    let Direct { over, socket, .. } = direct(&first_hop(address)).ok()?;
    (socket.port() != 0).then_some(over)
}

/// Of an address through a relay, `RELAY/p2p/ID/p2p-circuit/p2p/PEER`: the relay's own, and the peer behind it.
/// `None` for any other address.
///
/// # Errors
/// Says what of it is missing or too much.
pub fn split_circuit(address: &Multiaddr) -> Result<Option<(Multiaddr, PeerId)>, Unsupported> {
    let mut rest = address.iter().skip_while(|part| *part != Protocol::P2pCircuit).skip(1);
    if !is_circuit(address) {
        return Ok(None);
    }
    let relay = first_hop(address);
    if !matches!(relay.iter().last(), Some(Protocol::P2p(_))) {
        return refuse("has no relay's peer id before /p2p-circuit");
    }
    match (rest.next(), rest.next()) {
        (Some(Protocol::P2p(peer)), None) => Ok(Some((relay, peer))),
        _ => refuse("has something else than one /p2p/ID behind /p2p-circuit"),
    }
}

/// An address without its final `/p2p`, and the peer that it named. One through a relay keeps it: what stands
/// before leads to everybody behind that relay.
pub fn split_peer(mut address: Multiaddr) -> (Multiaddr, Option<PeerId>) {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => {
            if !is_circuit(&address) {
                address.pop();
            }
            (address, Some(peer))
        }
        _ => (address, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz";
    const RELAY: &str = "12D3KooWGatU9DkTKi3JJnMmsGD5Pj3YUBPpTCnZBMAEMuDcN6RA";

    /// What a multiaddr means, a row each: what it is carried by, the IP address it begins with, the peer's own,
    /// the relay, and the peer it leads to.
    #[test]
    fn every_kind_of_address_means_one_thing() {
        type Row<'a> = (&'a str, Option<Over>, &'a str, &'a str, &'a str, &'a str);
        let (quic, tcp) = (Some(Over::Quic), Some(Over::Tcp));
        let rows: &[Row<'_>] = &[
            ("/ip4/10.0.0.1/udp/4001/quic-v1", quic, "10.0.0.1", "10.0.0.1", "", ""),
            ("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/PEER", quic, "10.0.0.1", "10.0.0.1", "", PEER),
            ("/ip4/10.0.0.1/tcp/4001", tcp, "10.0.0.1", "10.0.0.1", "", ""),
            ("/ip6/fd00::1/tcp/4001/p2p/PEER", tcp, "fd00::1", "fd00::1", "", PEER),
            ("/ip6/::ffff:10.0.0.1/udp/1/quic-v1", quic, "::ffff:10.0.0.1", "10.0.0.1", "", ""),
            // Dialed through a relay; the relay's address is not the peer's.
            ("/ip4/10.0.0.9/tcp/1/p2p/RELAY/p2p-circuit/p2p/PEER", tcp, "10.0.0.9", "", RELAY, PEER),
            ("/ip4/10.0.0.9/udp/1/quic-v1/p2p/RELAY/p2p-circuit", quic, "10.0.0.9", "", RELAY, ""),
            // A relay that nobody named, and one that only is named.
            ("/ip4/10.0.0.9/tcp/1/p2p-circuit/p2p/PEER", tcp, "10.0.0.9", "", "", PEER),
            ("/p2p/RELAY/p2p-circuit/p2p/PEER", None, "", "", RELAY, PEER),
            // Who comes through a relay is seen like this.
            ("/p2p/PEER", None, "", "", "", PEER),
            // What there is no transport for, or nobody there.
            ("/ip4/10.0.0.1/tcp/0", None, "10.0.0.1", "10.0.0.1", "", ""),
            ("/ip4/10.0.0.1/tcp/4001/ws", None, "10.0.0.1", "10.0.0.1", "", ""),
            ("/ip4/10.0.0.1/udp/4001", None, "10.0.0.1", "10.0.0.1", "", ""),
            ("/ip4/10.0.0.1/udp/4001/quic", None, "10.0.0.1", "10.0.0.1", "", ""),
            ("/ip4/10.0.0.1/udp/1/quic-v1/webtransport", None, "10.0.0.1", "10.0.0.1", "", ""),
            ("/dns4/bootstrap/udp/4001/quic-v1", None, "", "", "", ""),
            ("/ip6zone/eth0/ip6/fe80::1/udp/4001/quic-v1", None, "", "", "", ""),
            ("/memory/7", None, "", "", "", ""),
        ];
        let text = |found: Option<String>| found.unwrap_or_default();
        for (address, carried, first, own, through, leads_to) in rows {
            let a: Multiaddr = address.replace("PEER", PEER).replace("RELAY", RELAY).parse().unwrap();
            assert_eq!(over(&a), *carried, "{address}");
            assert_eq!(text(ip(&a).map(|ip| ip.to_string())), *first, "{address}");
            assert_eq!(text(peer_ip(&a).map(|ip| ip.to_string())), *own, "{address}");
            assert_eq!(text(relay(&a).map(|peer| peer.to_string())), *through, "{address}");
            assert_eq!(is_circuit(&a), address.contains("circuit"), "{address}");
            let (rest, peer) = split_peer(a.clone());
            assert_eq!(text(peer.map(|peer| peer.to_string())), *leads_to, "{address}");
            assert_eq!(rest.len() == a.len(), leads_to.is_empty() || is_circuit(&a), "{address}");
            if let (Some(over), Ok(found)) = (carried, direct(&a)) {
                assert_eq!((found.over, over.at(found.socket)), (*over, rest), "{address}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (address, why) in [
            ("/dns4/x/tcp/1", "starts with /dns4/x, not with /ip4 or /ip6"),
            ("/ip4/10.0.0.1", "ends before /udp/PORT/quic-v1 or /tcp/PORT"),
            ("/ip4/10.0.0.1/udp/1", "ends before /quic-v1"),
            ("/ip4/10.0.0.1/udp/1/quic", "has /quic where /quic-v1 belongs"),
            ("/ip4/10.0.0.1/tcp/1/ws", "has /ws behind /tcp/PORT"),
        ] {
            assert_eq!(direct(&address.parse().unwrap()).unwrap_err().to_string(), why);
        }
        let circuit = |text: &str| {
            let a: Multiaddr = text.replace("PEER", PEER).replace("RELAY", RELAY).parse().unwrap();
            split_circuit(&a).map_err(|e| e.to_string())
        };
        assert_eq!(circuit("/ip4/10.0.0.1/tcp/1"), Ok(None));
        assert!(circuit("/ip4/10.0.0.1/tcp/1/p2p/RELAY/p2p-circuit/p2p/PEER").unwrap().is_some());
        assert!(circuit("/ip4/10.0.0.1/tcp/1/p2p-circuit/p2p/PEER").unwrap_err().contains("no relay's"));
        assert!(circuit("/ip4/10.0.0.1/tcp/1/p2p/RELAY/p2p-circuit").unwrap_err().contains("one /p2p/ID"));
    }
}
