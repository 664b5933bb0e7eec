//! What a rule applies to: one peer by its id, or every peer at an address of a range.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use libp2p::PeerId;

use super::kind::{said, text_kind};

/// A peer id, or a range of addresses (CIDR, RFC 4632; one address is a range of its own).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRule {
    /// The peer with this id, wherever it is.
    Peer(PeerId),
    /// Every peer at an address of this range.
    Range(IpNet),
}

impl PeerRule {
    /// Whether the rule is about a peer of which this much is known.
    pub fn matches(&self, peer: Option<&PeerId>, address: Option<IpAddr>) -> bool {
        match self {
            Self::Peer(wanted) => peer == Some(wanted),
            // ::ffff:10.0.0.1 is 10.0.0.1 on a socket that serves both families.
            Self::Range(range) => address.is_some_and(|address| range.contains(&address.to_canonical())),
        }
    }
}

impl FromStr for PeerRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(['.', ':', '/']) {
            let range: IpNet = match text.parse::<IpAddr>() {
                Ok(address) => address.to_canonical().into(),
                Err(_) => text.parse().map_err(|_| "is no address and no range of addresses".to_owned())?,
            };
            return match range.trunc() {
                whole if whole == range => Ok(Self::Range(range)),
                whole => Err(format!("is one address of a range: {whole} is the range")),
            };
        }
        text.parse().map(Self::Peer).map_err(|e| format!("is no peer id: {e}"))
    }
}

impl fmt::Display for PeerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => peer.fmt(f),
            Self::Range(range) if range.prefix_len() == range.max_prefix_len() => range.addr().fmt(f),
            Self::Range(range) => range.fmt(f),
        }
    }
}

text_kind!(
    PeerRule as Self,
    "a peer id such as 12D3KooW…, an IP address, or a range such as 10.0.0.0/8",
    |text| said(text.parse()),
    |rule| rule.to_string()
);
