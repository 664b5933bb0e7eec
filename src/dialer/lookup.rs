//! From a target to the addresses behind it, through a resolver.
//!
//! What arrives first is reported first. Follows `/dnsaddr` (libp2p/specs addressing/README.md) through a bounded number of steps. Never
//! retries: the reconciler decides when to ask again.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use futures::{
    future::{BoxFuture, FutureExt, join_all, ready},
    stream::{self, BoxStream, StreamExt},
};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use super::action::{Answer, Open};
use crate::{
    config::{self, Target, TransportKind},
    dns::{self, Family, Found, LookupError, Resolve},
    transport::multiaddr::split_peer,
};

/// How many `/dnsaddr` may lead to another one.
const DEPTH: usize = 3;
/// TXT records of one `/dnsaddr` that are followed.
const TEXTS: usize = 64;

/// What `target` resolves to now, over these transports. The last item is the answer; before it may come
/// a part of it, for which [`Open::why`] is not known yet.
pub(crate) fn lookup(
    resolver: Arc<dyn Resolve>,
    target: Target,
    transports: Arc<[TransportKind]>,
) -> BoxStream<'static, Answer> {
    let now = |addresses| stream::once(ready(Answer::Records(addresses))).boxed();
    match target {
        Target::Addr(address) => now(vec![address]),
        Target::Socket(at) => now(transports.iter().map(|kind| kind.at(at)).collect()),
        Target::Name { host, family, port, over } => {
            let asked: Vec<_> = over.map_or_else(|| transports.to_vec(), |kind| vec![kind]);
            let answers = resolver.addresses(&host, records_of(family));
            let ways =
                move |ip| asked.iter().map(|kind| kind.at(SocketAddr::new(ip, port))).collect::<Vec<_>>();
            answers
                .map(move |found| match found {
                    Ok(Found { addresses, open }) => {
                        let addresses = addresses.into_iter().flat_map(&ways).collect();
                        let open = open.map(|dns::Open { family, why }| unanswered(family, why));
                        answer(addresses, open)
                    }
                    Err(e) => failed(&e),
                })
                .boxed()
        }
        Target::DnsAddr { host, peer } => {
            let followed = follow(resolver, host, peer, transports, DEPTH).map(|followed| match followed {
                Ok(Followed { addresses, open }) => {
                    answer(addresses, open.map(|why| unanswered(Family::Any, Some(why))))
                }
                Err(e) => failed(&e),
            });
            followed.into_stream().boxed()
        }
    }
}

fn answer(addresses: Vec<Multiaddr>, open: Option<Open>) -> Answer {
    match open {
        Some(open) => Answer::Part(addresses, open),
        None => Answer::Records(addresses),
    }
}

fn failed(error: &LookupError) -> Answer {
    if error.is_absence() { Answer::Nothing(error.to_string()) } else { Answer::Failed(error.to_string()) }
}

fn unanswered(family: Family, why: Option<LookupError>) -> Open {
    let family = match family {
        Family::Any => config::Family::Any,
        Family::V4 => config::Family::V4,
        Family::V6 => config::Family::V6,
    };
    let refused = why.as_ref().is_some_and(LookupError::is_refusal);
    Open { family, refused, why: why.map(|why| why.to_string()) }
}

fn records_of(family: config::Family) -> Family {
    match family {
        config::Family::Any => Family::Any,
        config::Family::V4 => Family::V4,
        config::Family::V6 => Family::V6,
    }
}

/// What a `/dnsaddr` leads to.
#[derive(Debug, Default)]
struct Followed {
    addresses: Vec<Multiaddr>,
    /// Why there may be more: an entry could not be looked up.
    open: Option<LookupError>,
}

impl Followed {
    fn all(addresses: Vec<Multiaddr>) -> Self {
        Self { addresses, open: None }
    }
}

/// The addresses that `_dnsaddr.<host>` names, perhaps only those of `peer`. An entry that cannot be read is
/// passed over.
fn follow(
    resolver: Arc<dyn Resolve>,
    host: String,
    peer: Option<PeerId>,
    transports: Arc<[TransportKind]>,
    depth: usize,
) -> BoxFuture<'static, Result<Followed, LookupError>> {
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
        let (mut nothing, mut open) = (None, None);
        let mut found = BTreeSet::new();
        for result in resolved {
            match result {
                Ok(followed) => {
                    found.extend(followed.addresses);
                    open = open.or(followed.open);
                }
                Err(e) if e.is_absence() => nothing = nothing.or(Some(e)),
                Err(e) => open = open.or(Some(e)),
            }
        }
        match open.clone().or(nothing) {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(Followed { addresses: found.into_iter().collect(), open }),
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
) -> Result<Followed, LookupError> {
    let (family, host) = match address.iter().next() {
        Some(Protocol::Dns(host)) => (Family::Any, host.into_owned()),
        Some(Protocol::Dns4(host)) => (Family::V4, host.into_owned()),
        Some(Protocol::Dns6(host)) => (Family::V6, host.into_owned()),
        Some(Protocol::Dnsaddr(host)) if depth > 1 => {
            let peer = split_peer(address.clone()).1.or(peer);
            return follow(resolver, host.into_owned(), peer, transports, depth - 1).await;
        }
        Some(Protocol::Ip4(_) | Protocol::Ip6(_)) => {
            return Ok(Followed::all(if is_spoken(&address, &transports) {
                vec![address]
            } else {
                Vec::new()
            }));
        }
        _ => return Ok(Followed::default()),
    };
    let rest: Vec<_> = address.iter().skip(1).map(Protocol::acquire).collect();
    let at = |ip: IpAddr| rest.iter().fold(Multiaddr::from(ip), |address, part| address.with(part.clone()));
    // The rest of it says over what, whichever address the name has.
    if !is_spoken(&at(Ipv4Addr::LOCALHOST.into()), &transports) {
        return Ok(Followed::default());
    }
    let Found { addresses, open } = resolver.settled(&host, family).await?;
    let addresses = addresses.into_iter().map(at).collect();
    Ok(Followed { addresses, open: open.and_then(|open| open.why) })
}

/// Whether this node dials over the transport of an address.
fn is_spoken(address: &Multiaddr, transports: &[TransportKind]) -> bool {
    TransportKind::of(address).is_some_and(|kind| transports.contains(&kind))
}
