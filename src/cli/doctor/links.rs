//! How large a packet each network interface carries.

use super::finding::Finding;
use crate::{
    config::Config,
    runtime::{Handle, Link},
};

const CHECK: &str = "links.mtu";
/// What every link of a path that carries QUIC has to carry (RFC 9000, 14; RFC 8200, 5).
const LEAST: u32 = 1280;
/// Headers of IPv6 and UDP, the larger of the two families.
const HEADERS: u32 = 48;

pub(super) fn check(config: &Config, runtime: &Handle) -> Vec<Finding> {
    match runtime.links() {
        Ok(links) => {
            let initial = u32::from(config.quic.initial_mtu);
            let mut findings: Vec<_> = links.iter().filter_map(|link| judge(link, initial)).collect();
            if findings.is_empty() {
                let advice = "bring one up: ip link set DEVICE up";
                findings.push(Finding::fail(CHECK, "interfaces", "none is up", advice));
            }
            findings
        }
        Err(e) => vec![Finding::warn(
            CHECK,
            "interfaces",
            format!("cannot be listed: {e}"),
            "look at them yourself: ip link; each has to carry 1280 bytes",
        )],
    }
}

/// `initial` is the UDP payload that a connection begins with.
fn judge(link: &Link, initial: u32) -> Option<Finding> {
    let Link { name, mtu, up, loopback, .. } = link;
    if !up {
        return None;
    }
    let needed = initial.saturating_add(HEADERS);
    Some(match mtu {
        ..LEAST => Finding::fail(
            CHECK,
            name,
            format!("{mtu} bytes: no QUIC packet fits"),
            format!(
                "ip link set {name} mtu {LEAST} or more, where what lies below carries it (a tunnel or overlay?)"
            ),
        ),
        _ if *mtu < needed => Finding::fail(
            CHECK,
            name,
            format!("{mtu} bytes, but quic.initial_mtu = {initial} needs {needed}"),
            "set quic.initial_mtu = 1200: larger ones are found by probing",
        ),
        _ if *loopback => Finding::ok(CHECK, name, format!("{mtu} bytes, loopback")),
        1450 => Finding::ok(CHECK, name, format!("{mtu} bytes, an overlay's")),
        _ => Finding::ok(CHECK, name, format!("{mtu} bytes")),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    #[test]
    fn a_link_has_to_carry_quic() {
        for (mtu, initial, expected) in [
            (1500, 1200, Verdict::Ok),
            (1450, 1200, Verdict::Ok),
            (1280, 1200, Verdict::Ok),
            (1279, 1200, Verdict::Fail),
            (576, 1200, Verdict::Fail),
            (0, 1200, Verdict::Fail),
            (1500, 1452, Verdict::Ok),
            (1499, 1452, Verdict::Fail),
            (1500, 65527, Verdict::Fail),
        ] {
            let link =
                Link { name: "eth0".into(), index: 2, mtu, up: true, loopback: false, multicast: true };
            assert_eq!(judge(&link, initial).unwrap().verdict, expected, "{mtu} {initial}");
        }
        let down =
            Link { name: "eth1".into(), index: 3, mtu: 68, up: false, loopback: false, multicast: true };
        assert_eq!(judge(&down, 1200), None, "what is down carries nothing anyway");
    }
}
