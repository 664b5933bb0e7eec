//! Addresses behind relays, and the bounds of a relay.

use libp2p::Multiaddr;

use super::{Rule, rule};
use crate::{
    config::{Config, Target},
    transport::multiaddr,
};

impl Config {
    pub(super) fn relay_rules(&self) -> Vec<Rule> {
        let Self { relay, nat, dial, listen, .. } = self;
        let is_circuit = |address: &&Multiaddr| multiaddr::is_circuit(address);
        let targets = |targets: &[Target]| {
            let mut addresses = targets.iter().filter_map(|target| match target {
                Target::Addr(address) => Some(address),
                Target::Name { .. } | Target::Socket(_) | Target::DnsAddr { .. } => None,
            });
            addresses.find(is_circuit).cloned()
        };
        let said = |address: &Option<Multiaddr>, what: &str| {
            format!("{} {what}", address.as_ref().map(ToString::to_string).unwrap_or_default())
        };
        let (named, by_address) = (targets(&dial.names), dial.addresses.iter().find(is_circuit).cloned());
        let nested = targets(&relay.through);
        let client = self.is_relay_client();
        vec![
            rule(
                &["relay.through"],
                nested.is_some(),
                said(&nested, "is behind a relay itself"),
                "the relay's own name or address",
            ),
            rule(
                &["dial.names"],
                named.is_some() && !client,
                said(&named, "is behind a relay, and this node dials through none"),
                "relay.client = true, too",
            ),
            rule(
                &["dial.addresses"],
                by_address.is_some() && !client,
                said(&by_address, "is behind a relay, and this node dials through none"),
                "relay.client = true, too",
            ),
            rule(
                &["nat.punch"],
                nat.punch && !client,
                "holes are punched where peers are connected through a relay, and this node uses none".into(),
                "relay.through or relay.client, too",
            ),
            rule(
                &["nat.punch"],
                nat.punch && listen.addresses.is_empty(),
                "a hole is punched from the port of a listener, and there is none".into(),
                "listen.addresses, too",
            ),
            rule(
                &["relay.circuit_duration"],
                !relay.circuit_duration.is_zero()
                    && relay.circuit_duration < std::time::Duration::from_secs(1),
                format!("{:?} is too short", relay.circuit_duration),
                "0s for no limit, or 1s and more",
            ),
            rule(
                &["relay.reservations_per_peer", "relay.reservations"],
                relay.reservations_per_peer > relay.reservations,
                format!(
                    "reservations_per_peer is {} and reservations is {}",
                    relay.reservations_per_peer, relay.reservations
                ),
                "reservations_per_peer ≤ reservations",
            ),
            rule(
                &["relay.circuits_per_peer", "relay.circuits"],
                relay.circuits_per_peer > relay.circuits,
                format!(
                    "circuits_per_peer is {} and circuits is {}",
                    relay.circuits_per_peer, relay.circuits
                ),
                "circuits_per_peer ≤ circuits",
            ),
        ]
    }
}
