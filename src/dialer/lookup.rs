//! From a target to the addresses behind it, through a resolver.
//!
//! Follows `/dnsaddr` (libp2p/specs addressing/README.md) through a bounded number of steps. Never
//! retries: the reconciler decides when to ask again.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use futures::future::{BoxFuture, FutureExt, join_all};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use super::words::{Answer, split_peer};
use crate::{
    config::{self, Target, TransportKind},
    dns::{Family, LookupError, Resolve},
};

/// How many `/dnsaddr` may lead to another one.
const DEPTH: usize = 3;
/// TXT records of one `/dnsaddr` that are followed.
const TEXTS: usize = 64;

/// What `target` resolves to now, over these transports.
pub(crate) async fn lookup(
    resolver: Arc<dyn Resolve>,
    target: Target,
    transports: Arc<[TransportKind]>,
) -> Answer {
    let found = match target {
        Target::Addr(address) => Ok(vec![address]),
        Target::Socket(at) => Ok(transports.iter().map(|kind| kind.at(at)).collect()),
        Target::Name { host, family, port, over } => {
            let asked: Vec<_> = over.map_or_else(|| transports.to_vec(), |kind| vec![kind]);
            let ips = resolver.addresses(&host, records_of(family)).await;
            let ways = |ip| asked.iter().map(move |kind| kind.at(SocketAddr::new(ip, port)));
            ips.map(|ips| ips.into_iter().flat_map(ways).collect())
        }
        Target::DnsAddr { host, peer } => follow(resolver, host, peer, transports, DEPTH).await,
    };
    match found {
        Ok(addresses) => Answer::Records(addresses),
        Err(e) if e.is_absence() => Answer::Nothing(e.to_string()),
        Err(e) => Answer::Failed(e.to_string()),
    }
}

fn records_of(family: config::Family) -> Family {
    match family {
        config::Family::Any => Family::Any,
        config::Family::V4 => Family::V4,
        config::Family::V6 => Family::V6,
    }
}

/// The addresses that `_dnsaddr.<host>` names, perhaps only those of `peer`.
fn follow(
    resolver: Arc<dyn Resolve>,
    host: String,
    peer: Option<PeerId>,
    transports: Arc<[TransportKind]>,
    depth: usize,
) -> BoxFuture<'static, Result<Vec<Multiaddr>, LookupError>> {
    async move {
        let texts = resolver.texts(&format!("_dnsaddr.{host}")).await?;
        let entries = texts
            .iter()
            .filter_map(|text| text.strip_prefix("dnsaddr=")?.parse::<Multiaddr>().ok())
            .filter(|address| {
                let named = split_peer(address.clone()).1;
                peer.is_none() || named.is_none() || named == peer
            })
            .take(TEXTS);
        let entry = |address| entry(resolver.clone(), address, peer, transports.clone(), depth);
        let resolved = join_all(entries.map(entry)).await;
        let mut first_error = None;
        let mut found = BTreeSet::new();
        for result in resolved {
            match result {
                Ok(addresses) => found.extend(addresses),
                Err(e) => first_error = first_error.or(Some(e)),
            }
        }
        match first_error {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found.into_iter().collect()),
        }
    }
    .boxed()
}

/// The addresses behind one entry of a `/dnsaddr`.
async fn entry(
    resolver: Arc<dyn Resolve>,
    address: Multiaddr,
    peer: Option<PeerId>,
    transports: Arc<[TransportKind]>,
    depth: usize,
) -> Result<Vec<Multiaddr>, LookupError> {
    let (family, host) = match address.iter().next() {
        Some(Protocol::Dns(host)) => (Family::Any, host.into_owned()),
        Some(Protocol::Dns4(host)) => (Family::V4, host.into_owned()),
        Some(Protocol::Dns6(host)) => (Family::V6, host.into_owned()),
        Some(Protocol::Dnsaddr(host)) if depth > 1 => {
            let peer = split_peer(address.clone()).1.or(peer);
            return follow(resolver, host.into_owned(), peer, transports, depth - 1).await;
        }
        Some(Protocol::Ip4(_) | Protocol::Ip6(_)) => {
            return Ok(if is_spoken(&address, &transports) { vec![address] } else { Vec::new() });
        }
        _ => return Ok(Vec::new()),
    };
    let rest: Vec<_> = address.iter().skip(1).map(Protocol::acquire).collect();
    let at = |ip: IpAddr| rest.iter().fold(Multiaddr::from(ip), |address, part| address.with(part.clone()));
    // The rest of it says over what, whichever address the name has.
    if !is_spoken(&at(Ipv4Addr::LOCALHOST.into()), &transports) {
        return Ok(Vec::new());
    }
    let ips = resolver.addresses(&host, family).await?;
    Ok(ips.into_iter().map(at).collect())
}

/// Whether this node dials over the transport of an address.
fn is_spoken(address: &Multiaddr, transports: &[TransportKind]) -> bool {
    TransportKind::of(address).is_some_and(|kind| transports.contains(&kind))
}
