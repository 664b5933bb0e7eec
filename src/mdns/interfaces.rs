//! The choice of the network interfaces to discover peers on. Pure; never asks the system.

use std::collections::{BTreeMap, BTreeSet};

use super::action::Segment;
use crate::runtime::{Interface, Link};

/// Most segments; each takes a socket. Interfaces beyond are left out.
const MAX_SEGMENTS: usize = 64;

/// The chosen segments, and what is wrong with the choice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// The addresses that this host has on each segment; none is empty.
    pub(super) segments: BTreeMap<Segment, Vec<Interface>>,
    /// Why no peer, or hardly any, can be discovered so.
    pub(super) trouble: Option<String>,
}

/// The segments of the interfaces that are `wanted` by name; of all that carry multicast if none is, and of
/// loopback if there are none.
pub(super) fn choose(list: &[Interface], links: &[Link], wanted: &[String]) -> Selection {
    let loopback: BTreeSet<&str> =
        list.iter().filter(|i| i.addr.is_loopback()).map(|i| i.name.as_str()).collect();
    // Loopback carries multicast within the host whatever its flags say. An unlisted interface is given a try.
    let carries = |i: &Interface| match loopback.contains(i.name.as_str()) {
        // Linux does not route IPv6 multicast there.
        true => i.addr.is_ipv4() || !list.iter().any(|v4| v4.name == i.name && v4.addr.is_ipv4()),
        false => links.iter().find(|l| l.name == i.name).is_none_or(|l| l.multicast),
    };
    let of = |keep: &dyn Fn(&str) -> bool| {
        let mut segments = BTreeMap::<_, Vec<Interface>>::new();
        for interface in list.iter().filter(|i| keep(&i.name) && carries(i)) {
            let segment =
                Segment { interface: interface.name.as_str().into(), ipv6: interface.addr.is_ipv6() };
            if segments.len() < MAX_SEGMENTS || segments.contains_key(&segment) {
                segments.entry(segment).or_default().push(interface.clone());
            }
        }
        segments
    };
    if !wanted.is_empty() {
        let segments = of(&|name| wanted.iter().any(|w| w == name));
        let missing: Vec<_> =
            wanted.iter().filter(|name| !segments.keys().any(|s| *s.interface == ***name)).cloned().collect();
        let trouble = (!missing.is_empty()).then(|| {
            format!(
                "mdns.interfaces names {}, which is not up, has no address or does not carry multicast \
                 (`ip link show` says MULTICAST where it does)",
                missing.join(", ")
            )
        });
        return Selection { segments, trouble };
    }
    let segments = of(&|name| !loopback.contains(name));
    if !segments.is_empty() {
        return Selection { segments, trouble: None };
    }
    let segments = of(&|name| loopback.contains(name));
    let who = if segments.is_empty() { "nobody is found" } else { "only nodes on this machine are found" };
    let trouble = format!(
        "no interface but loopback is up, has an address and carries multicast (`ip link show` says MULTICAST \
         where it does): {who}"
    );
    Selection { segments, trouble: Some(trouble) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, addr: &str) -> Interface {
        Interface { name: name.into(), index: 1, addr: addr.parse().unwrap(), prefix_len: 8 }
    }

    fn link(name: &str, multicast: bool) -> Link {
        Link { name: name.into(), index: 0, mtu: 1500, up: true, loopback: name == "lo", multicast }
    }

    fn names(selection: &Selection) -> String {
        let names: Vec<_> = selection.segments.keys().map(ToString::to_string).collect();
        format!("{}{}", names.join(", "), if selection.trouble.is_some() { " !" } else { "" })
    }

    #[test]
    fn peers_are_looked_for_where_multicast_is_carried_and_on_loopback_where_it_is_nowhere() {
        let lo = interface("lo", "127.0.0.1");
        let lo6 = interface("lo", "::1");
        let eth4 = interface("eth0", "10.0.0.1");
        let eth6 = interface("eth0", "fd00::1");
        let tun = interface("tun0", "10.8.0.1");
        let links = [link("lo", false), link("eth0", true), link("tun0", false)];
        let all = [lo.clone(), eth4.clone(), eth6, tun.clone(), interface("eth0", "10.0.0.2")];
        for (list, wanted, expected) in [
            (&all[..], &[][..], "eth0 over IPv4, eth0 over IPv6"),
            (&all, &["eth0"], "eth0 over IPv4, eth0 over IPv6"),
            (&all, &["lo"], "lo over IPv4"),
            (&all, &["lo", "eth9"], "lo over IPv4 !"),
            (&all, &["tun0"], " !"),
            (&[lo.clone(), tun.clone()], &[], "lo over IPv4 !"),
            (&[lo, lo6.clone()], &[], "lo over IPv4 !"),
            (&[lo6], &[], "lo over IPv6 !"),
            (&[tun], &[], " !"),
            (&[], &[], " !"),
            (&[interface("new0", "10.9.0.1")], &[], "new0 over IPv4"),
        ] {
            let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
            let selection = choose(list, &links, &wanted);
            assert_eq!(names(&selection), expected, "{list:?} {wanted:?}");
        }
        let eth = Segment { interface: "eth0".into(), ipv6: false };
        assert_eq!(choose(&all, &links, &[]).segments[&eth], [eth4, interface("eth0", "10.0.0.2")]);
    }

    #[test]
    fn a_host_of_many_interfaces_is_looked_at_up_to_a_bound() {
        let list: Vec<_> = (0..500).map(|n| interface(&format!("eth{n}"), "10.0.0.1")).collect();
        assert_eq!(choose(&list, &[], &[]).segments.len(), MAX_SEGMENTS);
    }
}
