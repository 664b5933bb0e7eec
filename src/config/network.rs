//! How the values of a network are written: targets, addresses, peers, topics, protocols.

use std::net::SocketAddr;

use libp2p::{Multiaddr, PeerId, StreamProtocol};

use super::{
    enums::TransportKind,
    kind::{said, text_kind},
    target::{self, Target},
};
use crate::logging::Directives;

text_kind!(
    Target as Self,
    "NAME:PORT, IP:PORT or a multiaddr such as /ip4/10.0.0.1/udp/4001/quic-v1",
    |text| said(text.parse()),
    |target| target.to_string()
);

text_kind!(
    PeerId as Self,
    "a peer id such as 12D3KooW…",
    |text| said(text.parse()).map_err(|why: String| format!("is no peer id: {why}")),
    |peer| peer.to_string()
);

/// An address to listen on; port 0 picks one.
pub(crate) enum ListenAddr {}

text_kind!(
    ListenAddr as Multiaddr,
    "IP:PORT, /ip4|ip6/ADDRESS/udp/PORT/quic-v1 or /ip4|ip6/ADDRESS/tcp/PORT",
    |text| match text.parse::<SocketAddr>() {
        Ok(at) => Ok(TransportKind::Quic.at(at)),
        Err(_) => match address(text)? {
            (_, Some(_)) => Err("has a peer id, which a listener gets from its key".into()),
            (addr, None) => Ok(addr),
        },
    },
    |addr| addr.to_string()
);

/// An address to dial; its port is never 0.
pub(crate) enum DialAddr {}

text_kind!(
    DialAddr as Multiaddr,
    "/ip4|ip6/ADDRESS/udp/PORT/quic-v1[/p2p/ID] or /ip4|ip6/ADDRESS/tcp/PORT[/p2p/ID]",
    |text| match text.parse::<Target>() {
        Ok(Target::Addr(addr)) if text.starts_with('/') => Ok(addr),
        Err(why) if text.starts_with('/') => Err(why.to_string()),
        _ => Err("is no multiaddr with an IP address (names belong into dial.names)".into()),
    },
    |addr| addr.to_string()
);

/// An address that leads here from outside; its port is never 0.
pub(crate) enum ExternalAddr {}

text_kind!(
    ExternalAddr as Multiaddr,
    "/ip4|ip6/ADDRESS/udp/PORT/quic-v1 or /ip4|ip6/ADDRESS/tcp/PORT",
    |text| match address(text)? {
        (_, Some(_)) => Err("has a peer id, which is this node's anyway".into()),
        (addr, None) => match TransportKind::and_socket(&addr) {
            Some((_, at)) if !at.ip().is_unspecified() => Ok(addr),
            Some(_) => Err("is nobody's address".into()),
            None => Err("has port 0, at which nobody is reached".into()),
        },
    },
    |addr| addr.to_string()
);

fn address(text: &str) -> Result<(Multiaddr, Option<PeerId>), String> {
    if text.contains("//") {
        return Err("has an empty part (\"//\")".into());
    }
    let addr: Multiaddr = text.parse().map_err(|e| format!("is no multiaddr: {e}"))?;
    let (_, _, peer) = target::check_address(&addr)?;
    Ok((addr, peer))
}

/// A gossip topic: 1 to 256 bytes of text without control characters.
pub(crate) enum Topic {}

text_kind!(Topic as String, "a topic of 1 to 256 bytes", parse_topic, |topic| topic.clone());

/// Checks a topic's name.
pub(crate) fn parse_topic(text: &str) -> Result<String, String> {
    match text {
        "" => Err("an empty topic".into()),
        _ if text.len() > 256 => Err(format!("is {} bytes long", text.len())),
        _ if text.chars().any(char::is_control) => Err("has a control character".into()),
        _ => Ok(text.to_owned()),
    }
}

/// What a node's key is derived for: 1 to 256 bytes of text without blanks or control characters.
pub(crate) enum NodeName {}

text_kind!(
    NodeName as String,
    "a name of 1 to 256 bytes without blanks",
    |text| match text {
        "" => Err("an empty name".into()),
        _ if text.len() > 256 => Err(format!("is {} bytes long", text.len())),
        _ if text.contains("{{") => Err("is a template that nobody filled in".into()),
        _ if text.chars().any(|c| c.is_control() || c.is_whitespace()) => Err("has a blank in it".into()),
        _ => Ok(text.to_owned()),
    },
    |name| name.clone()
);

/// What a node calls itself.
pub(crate) enum ShownName {}

/// The longest one, in bytes.
pub(crate) const MAX_NAME: usize = 64;

/// Whether a character may be part of it: letters and digits of any script, and what host names and the names of services
/// have beside them. Neither blanks nor what steers a terminal.
pub(crate) fn may_be_in_name(c: char) -> bool {
    c.is_alphanumeric() || "-_.@+".contains(c)
}

text_kind!(
    ShownName as String,
    "a name of 1 to 64 bytes: letters, digits, and any of -_.@+",
    |text| match text {
        "" => Err("an empty name".into()),
        _ if text.len() > MAX_NAME => Err(format!("is {} bytes long", text.len())),
        _ if text.contains("{{") => Err("is a template that nobody filled in".into()),
        _ if !text.chars().all(may_be_in_name) => Err("has a blank or a special character in it".into()),
        _ => Ok(text.to_owned()),
    },
    |name| name.clone()
);

/// A DNS search domain.
pub(crate) enum Domain {}

text_kind!(
    Domain as String,
    "a domain such as default.svc.cluster.local",
    |text| said(target::parse_host(text)),
    |d| d.clone()
);

/// A name server; port 53 unless given.
pub(crate) enum NameServer {}

text_kind!(
    NameServer as SocketAddr,
    "IP or IP:PORT",
    |text| {
        let addr = text.parse().or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, 53)));
        match addr {
            Ok(addr) if addr.port() == 0 => Err("port 0 cannot be asked".into()),
            Ok(addr) => Ok(addr),
            Err(_) => Err("is no address".into()),
        }
    },
    |addr| addr.to_string()
);

text_kind!(
    StreamProtocol as Self,
    "a protocol such as /smidge/kad/1.0.0",
    |text| match text {
        _ if text.len() > 140 => Err("is longer than 140 bytes".into()),
        _ if text.len() < 2 => Err("an empty protocol".into()),
        _ if !text.bytes().all(|b| b.is_ascii_graphic()) => Err("has a blank or a special character".into()),
        _ => said(Self::try_from_owned(text.to_owned()))
            .map_err(|_: String| "does not start with \"/\"".into()),
    },
    |protocol| protocol.to_string()
);

text_kind!(
    Directives as Self,
    "a level, or TARGET=LEVEL with commas between, such as \"info,libp2p_kad=debug\"",
    |text| said(text.parse()),
    |directives| directives.to_string()
);
