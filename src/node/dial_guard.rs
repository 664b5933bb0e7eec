//! The last word on every address that is dialed, by whatever way it came: kad, identify, a relay, DCUtR, AutoNAT,
//! mDNS, a name. It stands before the transports themselves, where nothing passes by.
//!
//! The decision is pure ([`Rules::refusal`]); never dials by itself.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent},
    },
};

use super::{
    access::{Access, KeptOut},
    claims,
};
use crate::{
    runtime::Interface,
    transport::multiaddr::{first_hop, is_circuit, peer_ip, split_peer},
};

/// What is not dialed.
#[derive(Debug, Default)]
struct Rules {
    access: Access,
    /// Addresses that the dial which is about to be made must leave out.
    left_out: Vec<Multiaddr>,
}

/// Why an address is not dialed.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// The rules of `[peers]` say so.
    KeptOut(KeptOut),
    /// The peer that claims it could not reach it.
    Claim,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeptOut(why) => why.fmt(f),
            Self::Claim => f.write_str("not dialed: the peer that named this address could not reach it"),
        }
    }
}

impl std::error::Error for Refusal {}

impl Rules {
    /// Why `address` is not dialed. On the way through a relay, the relay is dialed as well.
    fn refusal(&self, address: &Multiaddr) -> Option<Refusal> {
        let (bare, peer) = split_peer(address.clone());
        if self.left_out.iter().any(|out| split_peer(out.clone()).0 == bare) {
            return Some(Refusal::Claim);
        }
        let hop = is_circuit(address).then(|| first_hop(address));
        let hop = hop.map(|hop| (split_peer(hop.clone()).1, peer_ip(&hop)));
        let steps = [Some((peer, peer_ip(address))), hop];
        let refused = |(peer, ip): (Option<PeerId>, _)| self.access.may_let_in(peer.as_ref(), ip).err();
        steps.into_iter().flatten().find_map(refused).map(Refusal::KeptOut)
    }
}

/// The rules, shared by all who know of a reason not to dial, and where this host is.
#[derive(Clone, Debug, Default)]
pub(crate) struct DialGuard {
    rules: Arc<Mutex<Rules>>,
    here: Arc<Mutex<Vec<Interface>>>,
}

impl DialGuard {
    pub(crate) fn set_access(&self, access: Access) {
        lock(&self.rules).access = access;
    }

    /// The addresses of this host's interfaces.
    pub(crate) fn set_interfaces(&self, here: &[Interface]) {
        *lock(&self.here) = here.to_vec();
    }

    /// Another dial is about to be made: nothing is known against its addresses yet.
    pub(crate) fn begin(&self) {
        lock(&self.rules).left_out.clear();
    }

    /// The dial that is about to be made leaves out `addresses`.
    pub(crate) fn leave_out(&self, addresses: impl IntoIterator<Item = Multiaddr>) {
        lock(&self.rules).left_out.extend(addresses);
    }

    /// Whether a peer whose connection comes from `said_from` may tell of `claimed` ([`claims::may_tell`]).
    pub(crate) fn may_tell(&self, claimed: &Multiaddr, said_from: &Multiaddr) -> bool {
        claims::may_tell(claimed, said_from, &lock(&self.here))
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is consistent between calls.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All transports of a node, behind its guard.
pub(crate) struct Guarded {
    inner: Boxed<(PeerId, StreamMuxerBox)>,
    guard: DialGuard,
}

impl Guarded {
    pub(crate) fn new(inner: Boxed<(PeerId, StreamMuxerBox)>, guard: DialGuard) -> Self {
        Self { inner, guard }
    }
}

impl Transport for Guarded {
    type Output = (PeerId, StreamMuxerBox);
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<Self::Output> as Transport>::ListenerUpgrade;
    type Dial = <Boxed<Self::Output> as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        if let Some(why) = lock(&self.guard.rules).refusal(&address) {
            log::debug!("{address}: {why}");
            return Err(TransportError::Other(io::Error::other(why)));
        }
        self.inner.dial(address, opts)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Peers;

    const PEER: &str = "12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz";
    const RELAY: &str = "12D3KooWGatU9DkTKi3JJnMmsGD5Pj3YUBPpTCnZBMAEMuDcN6RA";

    #[test]
    fn what_the_rules_forbid_is_not_dialed_whoever_is_there_and_on_no_way() {
        let direct = "/ip4/10.0.0.1/udp/4001/quic-v1";
        let with_peer = &format!("{direct}/p2p/{PEER}");
        let circuit = &format!("/ip4/192.0.2.9/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{PEER}");
        let mapped = "/ip6/::ffff:10.0.0.1/tcp/4001";
        type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a str, bool);
        let rows: &[Row<'_>] = &[
            (&[], &[], direct, true),
            (&[], &["10.0.0.0/8"], direct, false),
            (&[], &["10.0.0.0/8"], mapped, false),
            (&[], &["10.0.0.0/8"], circuit, true),
            (&[], &["192.0.2.0/24"], circuit, false),
            (&[], &[RELAY], circuit, false),
            (&[], &[PEER], circuit, false),
            (&[], &[PEER], with_peer, false),
            (&[], &[PEER], direct, true),
            (&["10.0.0.0/8"], &[], with_peer, true),
            (&["10.1.0.0/16"], &[], with_peer, false),
            (&["10.1.0.0/16", PEER], &[], with_peer, true),
            (&[RELAY], &[], with_peer, false),
            (&[RELAY, PEER], &[], circuit, true),
            (&[PEER], &[], circuit, false),
        ];
        for (allow, deny, address, expected) in rows {
            let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            let access = Access::new(&Peers { allow: parse(allow), deny: parse(deny) });
            let rules = Rules { access, left_out: Vec::new() };
            let found = rules.refusal(&address.parse().unwrap());
            assert_eq!(found.is_none(), *expected, "{allow:?} {deny:?} {address}: {found:?}");
        }
    }

    #[test]
    fn an_address_is_left_out_of_one_dial() {
        let (guard, address) = (DialGuard::default(), "/ip4/10.0.0.1/tcp/4001".parse::<Multiaddr>().unwrap());
        let refusal = |guard: &DialGuard| {
            let swarm_asks: Multiaddr = format!("{address}/p2p/{PEER}").parse().unwrap();
            lock(&guard.rules).refusal(&swarm_asks)
        };
        guard.leave_out([address.clone()]);
        assert_eq!(refusal(&guard), Some(Refusal::Claim));
        guard.begin();
        assert_eq!(refusal(&guard), None);
    }
}
