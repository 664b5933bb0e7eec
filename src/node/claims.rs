//! What peers say about addresses, their own and others', is a claim: bounded, and never a reason to dial what
//! whoever says it could not reach himself.
//!
//! A claim is held against where the connection comes from that it was made on. Pure: nothing is dialed.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use libp2p::Multiaddr;

use crate::{
    runtime::Interface,
    transport::multiaddr::{Over, ip, is_circuit, over},
};

/// Addresses kept of one peer that says where it is.
pub(crate) const OWN: usize = 16;
/// Addresses kept of one peer that another one tells of.
pub(crate) const PER_PEER: usize = 8;

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// This host.
    Host,
    /// One link: cloud metadata services, among others.
    Link,
    /// A site: private networks, and what else is not routed on the Internet.
    Site,
    /// The Internet.
    Internet,
}

impl Scope {
    /// The scope of an address (IANA special-purpose registries, RFC 6890); `None` if nobody in particular has it.
    pub(crate) fn of(ip: IpAddr) -> Option<Self> {
        let ip = ip.to_canonical();
        if ip.is_unspecified() || ip.is_multicast() {
            return None;
        }
        if ip.is_loopback() {
            return Some(Self::Host);
        }
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                let is_special = ip.is_private()
                    || ip.is_documentation()
                    || (a == 100 && (64..128).contains(&b))
                    || (a == 192 && b == 0 && c == 0)
                    || (a == 198 && (b == 18 || b == 19));
                match a {
                    // "This network", and what is reserved, with the broadcast address.
                    0 | 240.. => None,
                    _ if ip.is_link_local() => Some(Self::Link),
                    _ if is_special => Some(Self::Site),
                    _ => Some(Self::Internet),
                }
            }
            IpAddr::V6(ip) => {
                let [first, second, ..] = ip.segments();
                match first {
                    _ if ip.is_unicast_link_local() => Some(Self::Link),
                    // 6to4 (RFC 3056): as far as the IPv4 address in it.
                    0x2002 => {
                        let [_, _, a, b, c, d, ..] = ip.octets();
                        Self::of(Ipv4Addr::new(a, b, c, d).into()).map(|inner| inner.min(Self::Internet))
                    }
                    // 2000::/3 is what is allocated, less documentation.
                    0x2000..0x4000 if !(first == 0x2001 && second == 0xdb8) => Some(Self::Internet),
                    _ => Some(Self::Site),
                }
            }
        }
    }
}

/// Whether a peer whose connection comes from `said_from` may tell of `claimed`, as a place to dial: whether it can
/// be taken to reach it himself. Of a peer behind a relay, the relay is all that is known.
///
/// Who is on this host may tell of everything, who is on this site of the site and the Internet, and who is on the
/// Internet of the Internet. A subnet that this host shares is claimed by those in it, and by those that no subnet
/// is shared with: they came by a router. So nobody on an overlay network makes this node dial its engine's bridge.
pub(crate) fn may_tell(claimed: &Multiaddr, said_from: &Multiaddr, interfaces: &[Interface]) -> bool {
    let canonical = |address| ip(address).map(|ip| ip.to_canonical());
    let (Some(claimed), Some(from)) = (canonical(claimed), canonical(said_from)) else {
        return false;
    };
    let (Some(far), Some(near)) = (Scope::of(claimed), Scope::of(from)) else {
        return false;
    };
    if claimed == from || near == Scope::Host {
        return true;
    }
    let on_link = |ip| interfaces.iter().any(|i| i.prefix_len > 0 && i.contains(ip));
    let shared = |i: &Interface| i.prefix_len > 0 && i.contains(claimed) && i.contains(from);
    let (is_shared, is_routed) = (interfaces.iter().any(shared), !on_link(from));
    match far {
        Scope::Host => false,
        Scope::Link => is_shared,
        Scope::Site => near <= Scope::Site && (is_shared || is_routed || !on_link(claimed)),
        Scope::Internet => true,
    }
}

/// What is kept of a peer that says where it is, best first: where it was `found`, that is dialed, and answered;
/// then what it `claims`, beginning with the host that its connection comes from, direct before relayed, QUIC
/// before TCP. At most [`OWN`].
pub(crate) fn rank(
    found: impl IntoIterator<Item = Multiaddr>,
    claims: impl IntoIterator<Item = Multiaddr>,
    remote: &Multiaddr,
) -> Vec<Multiaddr> {
    let mut claims: Vec<_> = claims.into_iter().collect();
    let host = ip(remote);
    claims.sort_by_cached_key(|a| (is_circuit(a), ip(a) != host, over(a) != Some(Over::Quic), a.to_string()));
    let mut seen = BTreeSet::new();
    found.into_iter().chain(claims).filter(|a| seen.insert(a.clone())).take(OWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, addr: &str, prefix_len: u8) -> Interface {
        Interface { name: name.into(), index: 1, addr: addr.parse().unwrap(), prefix_len }
    }

    #[test]
    fn nobody_tells_of_what_he_could_not_reach_himself() {
        // A task of a Swarm service: eth0 is the overlay, eth1 the gateway bridge.
        let here = [
            interface("lo", "127.0.0.1", 8),
            interface("eth0", "10.0.11.5", 24),
            interface("eth1", "172.18.0.3", 16),
            interface("eth0", "fe80::5", 64),
        ];
        for (claimed, from, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("169.254.169.254", "127.0.0.1", true),
            ("127.0.0.1", "10.0.11.2", false),
            ("127.0.0.1", "9.9.9.9", false),
            ("169.254.169.254", "10.0.11.2", false),
            ("169.254.169.254", "9.9.9.9", false),
            ("fe80::9", "fe80::2", true),
            ("fe80::9", "10.0.11.2", false),
            ("10.0.11.9", "10.0.11.2", true),
            ("172.18.0.1", "10.0.11.2", false),
            ("172.18.0.9", "172.18.0.2", true),
            ("10.9.0.9", "10.0.11.2", true),
            ("8.8.8.8", "10.0.11.2", true),
            // By a router: it sees what we see.
            ("10.0.11.9", "10.9.0.2", true),
            ("10.8.0.9", "10.9.0.2", true),
            ("10.0.11.9", "9.9.9.9", false),
            ("192.168.1.1", "9.9.9.9", false),
            ("100.64.0.1", "9.9.9.9", false),
            ("8.8.8.8", "9.9.9.9", true),
            ("2a00::1", "9.9.9.9", true),
            ("fd00::1", "2a00::2", false),
            // Itself.
            ("172.18.0.2", "172.18.0.2", true),
            // Who comes by a socket of both families.
            ("127.0.0.1", "::ffff:10.0.11.2", false),
            ("::ffff:127.0.0.1", "10.0.11.2", false),
            ("2002:7f00:1::1", "9.9.9.9", false),
            // Nobody's.
            ("0.0.0.0", "127.0.0.1", false),
            ("224.0.0.1", "10.0.11.2", false),
            ("255.255.255.255", "10.0.11.2", false),
            ("ff02::1", "fe80::2", false),
        ] {
            let at = |ip: &str| Over::Tcp.at((ip.parse::<IpAddr>().unwrap(), 4001).into());
            assert_eq!(may_tell(&at(claimed), &at(from), &here), expected, "{claimed} told by {from}");
        }
        let tcp: Multiaddr = "/ip4/10.0.11.2/tcp/1".parse().unwrap();
        assert!(!may_tell(&"/dns4/metadata/tcp/80".parse().unwrap(), &tcp, &here), "names are not resolved");
        assert!(!may_tell(&tcp, &"/memory/1".parse().unwrap(), &here));
    }

    #[test]
    fn of_all_that_a_peer_claims_sixteen_are_kept_those_that_answered_first() {
        let at = |host: u8, port: u16| format!("/ip4/10.0.0.{host}/udp/{port}/quic-v1").parse().unwrap();
        let remote: Multiaddr = "/ip4/10.0.0.2/udp/50000/quic-v1".parse().unwrap();
        let tcp: Multiaddr = "/ip4/10.0.0.2/tcp/4001".parse().unwrap();
        let claims = (1..=300).map(|port| at(3, port)).chain([tcp.clone(), at(2, 4001), at(7, 1)]);
        let kept = rank([at(7, 1)], claims, &remote);
        assert_eq!(kept.len(), OWN);
        assert_eq!(kept[..3], [at(7, 1), at(2, 4001), tcp], "dialed, then its own host");
        assert_eq!(kept.iter().collect::<BTreeSet<_>>().len(), OWN);
        assert_eq!(rank([], [at(2, 1), at(2, 1)], &remote), [at(2, 1)]);
    }
}
