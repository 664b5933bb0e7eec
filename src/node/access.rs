//! Which peers are let in: the rules of `[peers]`, asked at every stage of a connection.
//!
//! Closes what it no longer lets in; never dials, and knows nothing of protocols.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fmt,
    net::IpAddr,
    task::{Context, Poll, Waker},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished, dummy,
    },
};

use super::dial_guard::DialGuard;
use crate::{
    config::{PeerRule, Peers},
    transport::multiaddr::peer_ip,
};

/// The rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    allow: Vec<PeerRule>,
    deny: Vec<PeerRule>,
}

/// Why a peer is kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptOut {
    /// By this rule of `peers.deny`.
    Denied(PeerRule),
    /// No rule of `peers.allow` lets it in.
    NotAllowed,
}

impl fmt::Display for KeptOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(rule) => write!(f, "kept out by {rule} in peers.deny"),
            Self::NotAllowed => f.write_str("kept out: nothing in peers.allow lets it in"),
        }
    }
}

impl std::error::Error for KeptOut {}

impl Access {
    pub(crate) fn new(rules: &Peers) -> Self {
        Self { allow: rules.allow.clone(), deny: rules.deny.clone() }
    }

    /// Whether a peer is let in of which no more will be known.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn lets_in(&self, peer: &PeerId, address: Option<IpAddr>) -> Result<(), KeptOut> {
        self.deny(Some(peer), address)?;
        let allowed = self.allow.iter().any(|rule| rule.matches(Some(peer), address));
        if allowed || self.allow.is_empty() { Ok(()) } else { Err(KeptOut::NotAllowed) }
    }

    /// Whether a peer might be let in of which only this much is known: rules over what is not known
    /// do not keep it out.
    ///
    /// # Errors
    /// Why it will not be, whatever turns out.
    pub(crate) fn may_let_in(&self, peer: Option<&PeerId>, address: Option<IpAddr>) -> Result<(), KeptOut> {
        self.deny(peer, address)?;
        let open = |rule: &PeerRule| match rule {
            PeerRule::Peer(_) => peer.is_none(),
            PeerRule::Range(_) => address.is_none(),
        };
        let may = self.allow.iter().any(|rule| open(rule) || rule.matches(peer, address));
        if may || self.allow.is_empty() { Ok(()) } else { Err(KeptOut::NotAllowed) }
    }

    fn deny(&self, peer: Option<&PeerId>, address: Option<IpAddr>) -> Result<(), KeptOut> {
        let denied = self.deny.iter().find(|rule| rule.matches(peer, address));
        denied.map_or(Ok(()), |rule| Err(KeptOut::Denied(*rule)))
    }
}

/// The rules, enforced.
#[derive(Debug)]
pub(crate) struct Behaviour {
    access: Access,
    /// Every connection that stands: there are as many as the limits let be.
    here: HashMap<ConnectionId, (PeerId, Option<IpAddr>)>,
    /// Those that are to be closed.
    closing: VecDeque<(PeerId, ConnectionId)>,
    waker: Option<Waker>,
    guard: DialGuard,
}

impl Behaviour {
    /// The rules hold for `guard`, too: what is dialed asks it at last.
    pub(crate) fn new(access: Access, guard: DialGuard) -> Self {
        guard.set_access(access.clone());
        Self { access, here: HashMap::new(), closing: VecDeque::new(), waker: None, guard }
    }

    pub(crate) fn guard(&self) -> &DialGuard {
        &self.guard
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Takes new rules, and closes the connections that they no longer let be.
    pub(crate) fn set(&mut self, access: Access) {
        self.guard.set_access(access.clone());
        self.access = access;
        for (connection, (peer, address)) in &self.here {
            if let Err(why) = self.access.lets_in(peer, *address) {
                log::debug!("closing a connection to {peer}: {why}");
                self.closing.push_back((*peer, *connection));
            }
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn established(
        &self,
        peer: &PeerId,
        remote: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        self.access.lets_in(peer, peer_ip(remote)).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.access.may_let_in(None, peer_ip(remote)).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.established(&peer, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        // This behaviour is the first that is asked: the others may know of addresses to leave out.
        self.guard.begin();
        self.access.may_let_in(peer.as_ref(), None).map_err(ConnectionDenied::new)?;
        let refused = |remote| self.access.may_let_in(peer.as_ref(), peer_ip(remote)).err();
        let first = addresses.first().and_then(refused);
        match first {
            Some(why) if addresses.iter().all(|remote| refused(remote).is_some()) => {
                Err(ConnectionDenied::new(why))
            }
            _ => Ok(Vec::new()),
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.established(&peer, remote)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                let address = peer_ip(endpoint.get_remote_address());
                self.here.insert(connection_id, (peer_id, address));
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.here.remove(&closed.connection_id);
                self.here.shrink_to(64.max(self.here.len() * 2));
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection)) = self.closing.pop_front() {
            return Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(connection),
            });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Access { allow: rules(allow), deny: rules(deny) }
    }

    const ONE: &str = "12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz";
    const TWO: &str = "12D3KooWGatU9DkTKi3JJnMmsGD5Pj3YUBPpTCnZBMAEMuDcN6RA";

    #[test]
    fn whoever_matches_a_rule_of_deny_or_none_of_allow_is_kept_out() {
        let range = |text: &str| Some(KeptOut::Denied(text.parse().unwrap()));
        let not = Some(KeptOut::NotAllowed);
        type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a str, &'a str, Option<KeptOut>);
        let rows: &[Row<'_>] = &[
            (&[], &[], ONE, "10.0.0.1", None),
            (&[], &[ONE], ONE, "10.0.0.1", range(ONE)),
            (&[], &[ONE], TWO, "10.0.0.1", None),
            (&[], &["10.0.0.0/8"], ONE, "10.255.0.1", range("10.0.0.0/8")),
            (&[], &["10.0.0.0/8"], ONE, "11.0.0.1", None),
            (&[], &["10.0.0.0/8"], ONE, "::ffff:10.0.0.1", range("10.0.0.0/8")),
            (&[], &["10.0.0.0/8"], ONE, "::a00:1", None),
            (&[], &["fd00::/8"], ONE, "fd12::1", range("fd00::/8")),
            (&[ONE], &[], ONE, "10.0.0.1", None),
            (&[ONE], &[], TWO, "10.0.0.1", not),
            (&["10.0.0.0/8"], &[], TWO, "10.0.0.1", None),
            (&["10.0.0.0/8"], &[], TWO, "192.0.2.1", not),
            (&["10.0.0.0/8", ONE], &[], ONE, "192.0.2.1", None),
            (&["10.0.0.0/8", ONE], &[], TWO, "192.0.2.1", not),
            (&["10.0.0.0/8"], &["10.0.0.7"], ONE, "10.0.0.7", range("10.0.0.7")),
            (&[ONE], &[ONE], ONE, "10.0.0.1", range(ONE)),
        ];
        for (allow, deny, peer, address, expected) in rows {
            let (access, peer) = (access(allow, deny), peer.parse().unwrap());
            let address = Some(address.parse().unwrap());
            let row = format!("{allow:?} {deny:?} {peer} {address:?}");
            assert_eq!(access.lets_in(&peer, address).err(), *expected, "{row}");
            // With everything known both say the same.
            assert_eq!(access.may_let_in(Some(&peer), address).err(), *expected, "{row}");
            if expected.is_none() {
                assert_eq!(access.may_let_in(None, address), Ok(()), "{row}");
                assert_eq!(access.may_let_in(Some(&peer), None), Ok(()), "{row}");
            }
        }
    }

    #[test]
    fn what_cannot_turn_out_well_is_refused_early() {
        let outside = Some("192.0.2.1".parse().unwrap());
        assert!(access(&["10.0.0.0/8"], &[]).may_let_in(None, outside).is_err());
        assert!(access(&["10.0.0.0/8", ONE], &[]).may_let_in(None, outside).is_ok(), "it may be that peer");
        let two = TWO.parse().unwrap();
        assert!(access(&[ONE], &[]).may_let_in(Some(&two), None).is_err());
        assert!(access(&["10.0.0.0/8"], &[]).may_let_in(Some(&two), None).is_ok(), "it may be there");
        assert!(
            access(&["10.0.0.0/8"], &[]).lets_in(&two, None).is_err(),
            "behind a relay nobody knows where"
        );
    }
}
