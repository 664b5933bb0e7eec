//! What a node stays connected to: a name with a port, or an address.
//!
//! Parses and prints; never resolves. A name stands for every replica behind it, so it carries no
//! peer id; an address may.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::TransportKind;
use crate::transport::multiaddr::{self, Direct, Over, direct, split_circuit};

/// The port of a target that names none.
pub const DEFAULT_PORT: u16 = 4001;

/// Which addresses of a name are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Any,
    /// IPv4 only (`/dns4/…`).
    V4,
    /// IPv6 only (`/dns6/…`).
    V6,
}

/// Something to dial and to stay connected to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A DNS name: each of its A and AAAA records is a replica, at `port`.
    Name {
        /// The host in lower case; with a final dot it is absolute (no search list).
        host: String,
        /// Which records are asked for.
        family: Family,
        /// The port, never 0: of UDP and of TCP alike.
        port: u16,
        /// What carries the connections; `None`: what `dial.transports` says.
        over: Option<TransportKind>,
    },
    /// A socket address, over what `dial.transports` says.
    Socket(SocketAddr),
    /// A `/dnsaddr/` name: its TXT records hold whole multiaddrs (libp2p/specs addressing).
    DnsAddr {
        /// The host in lower case, without the `_dnsaddr.` label.
        host: String,
        /// Only records of this peer, when given.
        peer: Option<PeerId>,
    },
    /// An address: `/ip4|ip6/…/udp/PORT/quic-v1` or `/ip4|ip6/…/tcp/PORT`, with `/p2p/ID` at its end if the
    /// peer is known, and with `/p2p-circuit/p2p/ID` behind that if it is a relay, and another one is meant.
    Addr(Multiaddr),
}

/// A text that is no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(String);

impl From<multiaddr::Unsupported> for TargetError {
    fn from(why: multiaddr::Unsupported) -> Self {
        Self(why.to_string())
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, TargetError> {
    Err(TargetError(why.into()))
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if text.is_empty() {
            return refuse("an empty name");
        }
        if text.starts_with('/') {
            return from_multiaddr(text);
        }
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Ok(Self::Socket(SocketAddr::new(ip.into(), DEFAULT_PORT)));
        }
        if let Some(rest) = text.strip_prefix('[') {
            let Some((ip, after)) = rest.split_once(']') else {
                return refuse("no \"]\" behind the IPv6 address");
            };
            let Ok(ip) = ip.parse::<Ipv6Addr>() else {
                return refuse(format!("{ip:?} is no IPv6 address"));
            };
            let port = match after {
                "" => DEFAULT_PORT,
                _ => match after.strip_prefix(':') {
                    Some(port) => parse_port(port)?,
                    None => return refuse(format!("{after:?} behind the IPv6 address is no port")),
                },
            };
            return Ok(Self::Socket(SocketAddr::new(ip.into(), port)));
        }
        let (host, port) = match text.split_once(':') {
            None => (text, DEFAULT_PORT),
            Some((_, rest)) if rest.contains(':') => {
                return refuse("more than one \":\" (an IPv6 address goes into brackets: \"[::1]:4001\")");
            }
            Some((host, port)) => (host, parse_port(port)?),
        };
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Self::Socket(SocketAddr::new(ip, port)));
        }
        Ok(Self::Name { host: parse_host(host)?, family: Family::Any, port, over: None })
    }
}

impl Target {
    /// The DNS name to resolve, for targets that have one.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Name { host, .. } | Self::DnsAddr { host, .. } => Some(host),
            Self::Socket(_) | Self::Addr(_) => None,
        }
    }
}

impl From<Over> for TransportKind {
    fn from(over: Over) -> Self {
        match over {
            Over::Quic => Self::Quic,
            Over::Tcp => Self::Tcp,
        }
    }
}

impl TransportKind {
    /// What carries connections to `address`, if it can be dialed: an IP address, a port that is not 0,
    /// and at most a peer id behind them.
    pub fn of(address: &Multiaddr) -> Option<Self> {
        Self::and_socket(address).map(|(kind, _)| kind)
    }

    /// The same, with the socket it leads to.
    pub fn and_socket(address: &Multiaddr) -> Option<(Self, SocketAddr)> {
        let Direct { over, socket, .. } = direct(address).ok()?;
        (socket.port() != 0).then_some((over.into(), socket))
    }

    /// What `address` listens on; port 0 is fine there.
    pub(crate) fn listens(address: &Multiaddr) -> Option<Self> {
        direct(address).ok().map(|found| found.over.into())
    }

    /// The address at which this transport reaches a socket.
    pub fn at(self, addr: SocketAddr) -> Multiaddr {
        match self {
            Self::Quic => Over::Quic.at(addr),
            Self::Tcp => Over::Tcp.at(addr),
        }
    }
}

/// [`direct`], with the transport as the configuration calls it.
///
/// # Errors
/// Says what is wrong with it, to be put behind "the address".
pub(crate) fn check_address(addr: &Multiaddr) -> Result<(TransportKind, SocketAddr, Option<PeerId>), String> {
    let Direct { over, socket, peer } = direct(addr).map_err(|e| e.to_string())?;
    Ok((over.into(), socket, peer))
}

/// Parses an address that can be dialed as it stands: no name to resolve, and a transport that is given, or
/// QUIC.
///
/// # Errors
/// Says what is wrong, to be put behind "the address".
pub(crate) fn dialable(text: &str) -> Result<Multiaddr, String> {
    match text.parse::<Target>().map_err(|e| e.to_string())? {
        Target::Addr(addr) => Ok(addr),
        Target::Socket(at) => Ok(TransportKind::Quic.at(at)),
        Target::Name { .. } | Target::DnsAddr { .. } => {
            Err("is a name, behind which there may be many (`smidge names` has them)".into())
        }
    }
}

fn from_multiaddr(text: &str) -> Result<Target, TargetError> {
    // The multiaddr parser says "invalid IPv4 address syntax" of "/ip4//udp/4001": say where.
    if text.contains("//") {
        return refuse("has an empty part (\"//\")");
    }
    let addr: Multiaddr = text.parse().map_err(|e| TargetError(format!("is no multiaddr: {e}")))?;
    let mut parts = addr.iter();
    let (host, family) = match parts.next() {
        Some(Protocol::Dns(host)) => (host, Family::Any),
        Some(Protocol::Dns4(host)) => (host, Family::V4),
        Some(Protocol::Dns6(host)) => (host, Family::V6),
        Some(Protocol::Dnsaddr(host)) => {
            let peer = match parts.next() {
                None => None,
                Some(Protocol::P2p(peer)) => Some(peer),
                Some(other) => return refuse(format!("has {other} behind /dnsaddr/{host}")),
            };
            return match parts.next() {
                None => Ok(Target::DnsAddr { host: parse_host(&host)?, peer }),
                Some(other) => refuse(format!("has {other} behind the peer id")),
            };
        }
        _ => {
            let reached = match split_circuit(&addr)? {
                Some((relay, _)) => relay,
                None => addr.clone(),
            };
            if direct(&reached)?.socket.port() == 0 {
                return refuse("port 0 cannot be dialed");
            }
            return Ok(Target::Addr(addr));
        }
    };
    let host = parse_host(&host)?;
    // A name alone, or with nothing but its UDP port, is one of QUIC.
    let (port, over) = match parts.next() {
        None => (DEFAULT_PORT, Over::Quic),
        Some(Protocol::Udp(port)) if addr.iter().count() == 2 => (port, Over::Quic),
        part => multiaddr::port(part, &mut parts)?,
    };
    if port == 0 {
        return refuse("port 0 cannot be dialed");
    }
    match parts.next() {
        None => Ok(Target::Name { host, family, port, over: Some(over.into()) }),
        Some(Protocol::P2p(_)) => {
            refuse("has a peer id, but a name stands for all the replicas behind it: leave /p2p/… out")
        }
        Some(other) => refuse(format!("has {other} behind {}", over.suffix())),
    }
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    match text.parse::<u16>() {
        Ok(0) => refuse("port 0 cannot be dialed"),
        Ok(port) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => refuse(format!("{text:?} is no port from 1 to 65535")),
    }
}

/// Checks a DNS name (RFC 1035 lengths; letters, digits, `-` and `_`) and lowers its case.
///
/// # Errors
/// Says which rule it breaks.
pub(crate) fn parse_host(text: &str) -> Result<String, TargetError> {
    let labels = text.strip_suffix('.').unwrap_or(text);
    if labels.is_empty() {
        return refuse("no host name in front of the port");
    }
    if labels.len() > 253 {
        return refuse(format!("a host name of {} characters (253 at most)", labels.len()));
    }
    for label in labels.split('.') {
        if label.is_empty() {
            return refuse("the host name has an empty label (two dots, or one in front)");
        }
        if label.len() > 63 {
            return refuse(format!("the host name has a label of {} characters (63 at most)", label.len()));
        }
        if let Some(c) = label.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-' && *c != '_') {
            let more = if c.is_ascii() { "" } else { " (write it in punycode: \"xn--…\")" };
            return refuse(format!("{c:?} cannot stand in a host name{more}"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return refuse(format!("the label {label:?} starts or ends with \"-\""));
        }
    }
    if labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return refuse("ends in a number, yet is no IPv4 address");
    }
    Ok(text.to_ascii_lowercase())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { host, family: Family::Any, port, over: None } => write!(f, "{host}:{port}"),
            Self::Name { host, family, port, over } => {
                let dns = match family {
                    Family::Any => "dns",
                    Family::V4 => "dns4",
                    Family::V6 => "dns6",
                };
                match over {
                    Some(TransportKind::Tcp) => write!(f, "/{dns}/{host}/tcp/{port}"),
                    Some(TransportKind::Quic) | None => write!(f, "/{dns}/{host}/udp/{port}/quic-v1"),
                }
            }
            Self::Socket(addr) => addr.fmt(f),
            Self::DnsAddr { host, peer: None } => write!(f, "/dnsaddr/{host}"),
            Self::DnsAddr { host, peer: Some(peer) } => write!(f, "/dnsaddr/{host}/p2p/{peer}"),
            Self::Addr(addr) => addr.fmt(f),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
