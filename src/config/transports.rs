//! What a node's connections are carried by, where `dial.transports` leaves that open.

use std::time::Duration;

use libp2p::Multiaddr;

use super::{Config, Target, TransportKind};
use crate::transport::multiaddr::{is_circuit, over};

/// Preferred first.
const ALL: [TransportKind; 2] = [TransportKind::Quic, TransportKind::Tcp];

impl Config {
    /// What names are dialed over, in order of preference: `dial.transports`, or else what this node
    /// listens on. A node that listens on QUIC alone dials nothing twice.
    pub(crate) fn name_transports(&self) -> Vec<TransportKind> {
        if !self.dial.transports.is_empty() {
            return self.dial.transports.clone();
        }
        let listens = |kind| self.listen.addresses.iter().any(|a| TransportKind::listens(a) == Some(kind));
        let all: Vec<_> = ALL.into_iter().filter(|kind| listens(*kind)).collect();
        if all.is_empty() { vec![TransportKind::Quic] } else { all }
    }

    /// What this node dials over at all: what names are dialed over, and what a target asks for by
    /// itself. Addresses that others tell of are of no use beyond that.
    pub(crate) fn dialed_transports(&self) -> Vec<TransportKind> {
        let names = self.name_transports();
        let asked: Vec<_> = self.dial.addresses.iter().filter_map(carried).collect();
        let targets = self.dial.names.iter().chain(&self.relay.through).filter_map(|target| match target {
            Target::Name { over, .. } => *over,
            Target::Addr(address) => carried(address),
            Target::Socket(_) | Target::DnsAddr { .. } => None,
        });
        let asked: Vec<_> = asked.into_iter().chain(targets).collect();
        ALL.into_iter().filter(|kind| names.contains(kind) || asked.contains(kind)).collect()
    }

    /// Whether this node can dial `address`, by itself or through a relay. What others tell of may be anything:
    /// `/ws`, `/webtransport`, `/webrtc-direct`, names.
    pub(crate) fn can_dial(&self, address: &Multiaddr) -> bool {
        (!is_circuit(address) || self.is_relay_client())
            && carried(address).is_some_and(|kind| self.dialed_transports().contains(&kind))
    }

    /// Whether peers are dialed through relays.
    pub(crate) fn is_relay_client(&self) -> bool {
        self.relay.client || !self.relay.through.is_empty()
    }

    /// How long it may take until a peer is connected: a handshake, and where there is a second transport, the
    /// step to it.
    pub(crate) fn longest_dial(&self) -> Duration {
        let listens = self.listen.addresses.iter().filter_map(TransportKind::listens);
        let mut spoken = self.dialed_transports().into_iter().chain(listens);
        let quic = self.quic.handshake_timeout;
        if spoken.any(|kind| kind == TransportKind::Tcp) {
            quic.max(self.tcp.handshake_timeout) + self.dial.fallback
        } else {
            quic
        }
    }
}

/// What an address is dialed over; through a relay, what the relay is. `None` if smidge does not speak it.
fn carried(address: &Multiaddr) -> Option<TransportKind> {
    over(address).map(TransportKind::from)
}

#[cfg(test)]
mod tests {
    use TransportKind::{Quic, Tcp};

    use super::*;

    fn config(listen: &[&str], names: &[&str], transports: &[TransportKind]) -> Config {
        let mut config = Config::default();
        config.listen.addresses = listen.iter().map(|a| a.parse().unwrap()).collect();
        config.dial.names = names.iter().map(|n| n.parse().unwrap()).collect();
        config.dial.transports = transports.to_vec();
        config
    }

    #[test]
    fn names_are_dialed_over_what_the_node_listens_on_unless_told_otherwise() {
        let (quic, tcp) = ("/ip4/0.0.0.0/udp/4001/quic-v1", "/ip4/0.0.0.0/tcp/0");
        for (listen, names, transports, by_name, at_all) in [
            (&[quic][..], &["peer:4001"][..], &[][..], &[Quic][..], &[Quic][..]),
            (&[tcp, quic], &["peer:4001"], &[], &[Quic, Tcp], &[Quic, Tcp]),
            (&[tcp], &["peer:4001"], &[], &[Tcp], &[Tcp]),
            (&[], &["peer:4001"], &[], &[Quic], &[Quic]),
            (&[quic], &["/dns4/peer/tcp/4001"], &[], &[Quic], &[Quic, Tcp]),
            (&[tcp, quic], &["peer:4001"], &[Quic], &[Quic], &[Quic]),
            (&[quic], &["peer:4001"], &[Tcp, Quic], &[Tcp, Quic], &[Quic, Tcp]),
        ] {
            let config = config(listen, names, transports);
            assert_eq!(config.name_transports(), by_name, "{listen:?} {transports:?}");
            assert_eq!(config.dialed_transports(), at_all, "{listen:?} {names:?} {transports:?}");
            let Config { quic, tcp, dial, .. } = &config;
            let longest = match (at_all, listen.contains(&"/ip4/0.0.0.0/tcp/0")) {
                ([Quic], false) => quic.handshake_timeout,
                _ => quic.handshake_timeout.max(tcp.handshake_timeout) + dial.fallback,
            };
            assert_eq!(config.longest_dial(), longest, "{listen:?} {names:?} {transports:?}");
        }
    }

    #[test]
    fn what_cannot_be_spoken_is_not_dialed() {
        const ID: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        let quic = "/ip4/10.0.0.2/udp/4001/quic-v1";
        let mut config = config(&["/ip4/0.0.0.0/udp/4001/quic-v1"], &[], &[]);
        let circuit = |relay: &str| format!("{relay}/p2p/{ID}/p2p-circuit");
        for client in [false, true] {
            config.relay.client = client;
            for (address, expected) in [
                (quic.into(), true),
                (format!("{quic}/p2p/{ID}"), true),
                ("/ip4/10.0.0.2/tcp/4001".into(), false),
                ("/ip4/10.0.0.2/tcp/4001/ws".into(), false),
                ("/ip4/10.0.0.2/tcp/443/tls/ws".into(), false),
                (format!("{quic}/webtransport"), false),
                ("/ip4/10.0.0.2/udp/4001/webrtc-direct".into(), false),
                ("/dns4/peer/udp/4001/quic-v1".into(), false),
                ("/memory/7".into(), false),
                (circuit(quic), client),
                (format!("{}/p2p/{ID}", circuit(quic)), client),
                (circuit("/ip4/10.0.0.2/tcp/443/tls/ws"), false),
                ("/p2p-circuit".into(), false),
            ] {
                assert_eq!(config.can_dial(&address.parse().unwrap()), expected, "{address} {client}");
            }
        }
        config.dial.transports = vec![Quic, Tcp];
        assert!(config.can_dial(&"/ip4/10.0.0.2/tcp/4001".parse().unwrap()));
        assert!(!config.can_dial(&"/ip4/10.0.0.2/tcp/4001/ws".parse().unwrap()));
    }
}
