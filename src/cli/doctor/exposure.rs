//! `smidge doctor --exposure`: what a node with this configuration lets others do, by who they are. `docs/security.md`
//! says the same of every configuration.
//!
//! A pure judgement over the configuration and this host's addresses. Tries nothing: a packet filter in front of a port is
//! not seen.

use std::net::IpAddr;

use libp2p::Multiaddr;

use super::finding::{Finding, Report};
use crate::{
    config::{ApiListen, Config, KadMode, PeerRule},
    transport::multiaddr::peer_ip,
};

/// How far an address can be reached from, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Machine,
    Link,
    Site,
    World,
}

impl Reach {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            ip if ip.is_loopback() => Self::Machine,
            IpAddr::V4(ip) if ip.is_link_local() => Self::Link,
            // RFC 1918, RFC 6598.
            IpAddr::V4(ip) if ip.is_private() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64) => {
                Self::Site
            }
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Self::Link,
            IpAddr::V6(ip) if ip.is_unique_local() => Self::Site,
            _ => Self::World,
        }
    }

    /// Of a socket that is bound to `ip`, on a host with these addresses.
    fn bound(ip: IpAddr, host: &[IpAddr]) -> Self {
        if !ip.is_unspecified() {
            return Self::of(ip);
        }
        let heard = host.iter().filter(|on| ip.is_ipv6() || on.is_ipv4());
        heard.map(|on| Self::of(*on)).max().unwrap_or(Self::Machine)
    }

    fn who(self) -> &'static str {
        match self {
            Self::Machine => "programs on this machine",
            Self::Link => "hosts on the same link",
            Self::Site => "hosts of the private networks that this one is in",
            Self::World => "anybody that no packet filter stops",
        }
    }
}

/// What others can do, in groups by who they are. `listening`: where a node of this configuration listens now, if one
/// runs.
pub(super) fn report(config: &Config, host: &[IpAddr], listening: &[Multiaddr]) -> Report {
    let mut report = Report::default();
    report.group("who reaches the port", port(config, host, listening));
    report.group("who is on the link", vec![link(config)]);
    report.group("who is connected", members(config));
    report.group("who comes through others", through_others(config));
    report.group("who reaches the API", vec![api(config, host)]);
    report.group("who reaches MQTT", mqtt(config, host));
    report
}

/// What keeps out who reaches the port.
fn walls(config: &Config) -> Option<String> {
    let mut walls = Vec::new();
    if config.network.key_file.is_some() {
        walls.push("network.key_file".to_owned());
    }
    if !config.peers.allow.is_empty() {
        walls.push(format!("peers.allow ({} rules)", config.peers.allow.len()));
    }
    (!walls.is_empty()).then(|| walls.join(" and "))
}

fn port(config: &Config, host: &[IpAddr], listening: &[Multiaddr]) -> Vec<Finding> {
    let check = "exposure.port";
    let addresses = if listening.is_empty() { &config.listen.addresses } else { listening };
    let listeners =
        addresses.iter().filter_map(|address| peer_ip(address).map(|ip| (address, Reach::bound(ip, host))));
    let announced = config.listen.external.iter().map(|address| (address, Reach::World));
    let walls = walls(config);
    let judge = |(address, reach): (&Multiaddr, Reach)| {
        let who = reach.who();
        match &walls {
            Some(walls) => Finding::ok(
                check,
                address.to_string(),
                format!("{who} can begin a handshake, and learn the peer id; no more past {walls}"),
            ),
            None if reach < Reach::World => {
                Finding::ok(check, address.to_string(), format!("{who} can connect, with any peer id"))
            }
            None => Finding::warn(
                check,
                address.to_string(),
                format!("{who} can connect, with any peer id"),
                "network.key_file keeps out who has no key; smidge key network makes one",
            ),
        }
    };
    let mut findings: Vec<_> = listeners.chain(announced).map(judge).collect();
    if findings.is_empty() {
        findings.push(Finding::ok(check, "no listener", "nobody can connect: this node only dials"));
    }
    if !config.peers.deny.is_empty() {
        let ids = config.peers.deny.iter().filter(|rule| matches!(rule, PeerRule::Peer(_))).count();
        let found = format!("{} rules keep out those that they name", config.peers.deny.len());
        findings.push(match ids {
            0 => Finding::ok("exposure.deny", "peers.deny", found),
            _ => Finding::warn(
                "exposure.deny",
                "peers.deny",
                format!("{found}; {ids} of them by peer id, which costs nothing to change"),
                "peers.allow, or a network key, lets in those that it names and nobody else",
            ),
        });
    }
    findings
}

fn link(config: &Config) -> Finding {
    let (check, subject) = ("exposure.link", "mdns.enabled");
    match config.mdns.enabled {
        true => Finding::ok(
            check,
            subject,
            "everybody on the link hears the peer id and the addresses, and may have this node dial others there",
        ),
        false => Finding::ok(check, subject, "nothing is said or heard by multicast"),
    }
}

fn members(config: &Config) -> Vec<Finding> {
    let closed = config.topics.values().filter(|rules| rules.publish.is_some()).count();
    let followed = config.gossip.topics.len();
    let mut can = vec![
        Finding::ok("exposure.topics", "read", "every message of the topics that they follow, too"),
        Finding::ok(
            "exposure.topics",
            "publish",
            match closed {
                0 => "on every topic: no topics.\"NAME\".publish says who may".to_owned(),
                _ => format!(
                    "on every topic but those {closed} that say who may (of {followed} followed from the start)"
                ),
            },
        ),
    ];
    if config.kad.mode == KadMode::Server {
        let found = format!(
            "records under any key, and overwrite those that are there; a quarter of the {} is this node's own",
            config.kad.max_records
        );
        can.push(Finding::ok("exposure.records", "store", found));
    }
    can
}

fn through_others(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (relay, nat) = (&config.relay, &config.nat);
    if !relay.through.is_empty() {
        let names: Vec<_> = relay.through.iter().map(ToString::to_string).collect();
        let found = match walls(config) {
            Some(walls) => format!("who reaches {} reaches this node, up to {walls}", names.join(", ")),
            None => format!("who reaches {} can connect, past every NAT", names.join(", ")),
        };
        findings.push(Finding::ok("exposure.relayed", "relay.through", found));
    }
    if relay.server {
        let found = format!("{} slots, {} connections between others", relay.reservations, relay.circuits);
        findings.push(match walls(config) {
            Some(_) => Finding::ok("exposure.relay", "relay.server", found),
            None => Finding::warn(
                "exposure.relay",
                "relay.server",
                format!("{found}, for anybody"),
                "network.key_file or peers.allow leaves them to your own nodes",
            ),
        });
    }
    if nat.answer {
        let found = "who asks is dialed back, at an address of its own";
        findings.push(Finding::ok("exposure.autonat", "nat.answer", found));
    }
    if nat.probe {
        let found = "peers learn this node's addresses, and say whether they reach it there";
        findings.push(Finding::ok("exposure.autonat", "nat.probe", found));
    }
    findings
}

fn api(config: &Config, host: &[IpAddr]) -> Finding {
    let (check, token) = ("exposure.api", config.api.token.is_some());
    let all =
        if token { "with the token, everything; without, whether the node lives" } else { "everything" };
    match &config.api.listen {
        ApiListen::Off => Finding::ok(check, "api.listen", "nobody: it is off"),
        ApiListen::Unix(path) => {
            let found = format!("the node's own user, through a socket with mode 0600: {all}");
            Finding::ok(check, path.display().to_string(), found)
        }
        ApiListen::Tcp(socket) => match Reach::bound(socket.ip(), host) {
            Reach::Machine => {
                let found =
                    format!("every user of this machine, and what shares its loopback (a sidecar): {all}");
                Finding::ok(check, socket.to_string(), found)
            }
            reach => Finding::warn(
                check,
                socket.to_string(),
                format!("{}: {all}; in plain HTTP, which gives the token to who reads along", reach.who()),
                "127.0.0.1 or a Unix socket, with a proxy that speaks TLS before it",
            ),
        },
    }
}

fn mqtt(config: &Config, host: &[IpAddr]) -> Vec<Finding> {
    let mqtt = &config.mqtt;
    let judge = |(key, listen): (&str, &ApiListen)| {
        let check = "exposure.mqtt";
        let needs = match (&mqtt.users, mqtt.anonymous, &mqtt.tls_ca) {
            (Some(_), false, None) => "with a name and its password",
            (Some(_), false, Some(_)) => "with a certificate, a name and its password",
            (_, _, Some(_)) => "with a certificate",
            _ => "without a password",
        };
        let what = if mqtt.acl.is_some() { "what mqtt.acl says" } else { "all topics of MQTT" };
        match listen {
            ApiListen::Off => None,
            ApiListen::Unix(path) => {
                let found = format!("the node's own user, through a socket with mode 0600: {what}, {needs}");
                Some(Finding::ok(check, path.display().to_string(), found))
            }
            ApiListen::Tcp(socket) => {
                let reach = Reach::bound(socket.ip(), host);
                let found = format!("{}: {what}, {needs}", reach.who());
                let (subject, open) = (format!("{key} {socket}"), needs == "without a password");
                Some(match reach {
                    Reach::Machine => Finding::ok(check, subject, found),
                    _ if open => Finding::warn(check, subject, found, "set mqtt.users"),
                    _ if mqtt.tls_cert.is_none() => {
                        let found = format!("{found}; in the clear");
                        Finding::warn(check, subject, found, "set mqtt.tls_cert and mqtt.tls_key")
                    }
                    _ => Finding::ok(check, subject, found),
                })
            }
        }
    };
    let all = [("mqtt.listen", &mqtt.listen), ("mqtt.websocket", &mqtt.websocket)];
    all.into_iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    fn host() -> Vec<IpAddr> {
        ["127.0.0.1", "10.0.0.7", "2001:db8::7"].map(|ip| ip.parse().unwrap()).into()
    }

    fn verdicts(config: &Config, host: &[IpAddr]) -> Vec<(&'static str, Verdict)> {
        let groups =
            [port(config, host, &[]), vec![link(config)], through_others(config), vec![api(config, host)]];
        groups.into_iter().flatten().map(|f| (f.check, f.verdict)).collect()
    }

    #[test]
    fn addresses_are_reached_from_where_they_are() {
        for (ip, expected) in [
            ("127.3.2.1", Reach::Machine),
            ("::1", Reach::Machine),
            ("::ffff:127.0.0.1", Reach::Machine),
            ("169.254.1.1", Reach::Link),
            ("fe80::1", Reach::Link),
            ("10.0.0.1", Reach::Site),
            ("100.64.0.1", Reach::Site),
            ("100.128.0.1", Reach::World),
            ("fd00::1", Reach::Site),
            ("2001:db8::1", Reach::World),
            ("203.0.113.1", Reach::World),
        ] {
            assert_eq!(Reach::of(ip.parse().unwrap()), expected, "{ip}");
        }
        let [any4, any6] = ["0.0.0.0", "::"].map(|ip| ip.parse().unwrap());
        assert_eq!(Reach::bound(any4, &host()), Reach::Site, "its IPv6 address is not listened on");
        assert_eq!(Reach::bound(any6, &host()), Reach::World);
        assert_eq!(Reach::bound(any4, &[]), Reach::Machine);
    }

    #[test]
    fn what_strangers_reach_without_a_wall_is_worth_a_look() {
        let (ok, warn) = (Verdict::Ok, Verdict::Warn);
        let mut config = Config::default();
        assert_eq!(
            verdicts(&config, &host()),
            [("exposure.port", ok), ("exposure.link", ok), ("exposure.api", ok)],
            "the defaults, on a private network"
        );
        let public = ["203.0.113.7".parse().unwrap()];
        assert_eq!(verdicts(&config, &public)[0], ("exposure.port", warn));
        config.relay.server = true;
        config.api.listen = ApiListen::Tcp(([0, 0, 0, 0], 4080).into());
        config.peers.deny = vec!["10.0.0.0/8".parse().unwrap()];
        let open = [
            ("exposure.port", warn),
            ("exposure.deny", ok),
            ("exposure.link", ok),
            ("exposure.relay", warn),
            ("exposure.api", warn),
        ];
        assert_eq!(verdicts(&config, &public), open);
        config.network.key_file = Some("/k".into());
        config.peers.deny.push(PeerRule::Peer(libp2p::PeerId::random()));
        config.listen.external = vec!["/ip4/203.0.113.9/udp/4001/quic-v1".parse().unwrap()];
        let walled = [
            ("exposure.port", ok),
            ("exposure.port", ok),
            ("exposure.deny", warn),
            ("exposure.link", ok),
            ("exposure.relay", ok),
            ("exposure.api", warn),
        ];
        assert_eq!(verdicts(&config, &public), walled);
        config.listen.addresses.clear();
        config.listen.external.clear();
        config.api.listen = ApiListen::Off;
        let text = report(&config, &public, &[]).text();
        assert!(text.contains("this node only dials") && text.contains("nobody: it is off"), "{text}");
    }

    #[test]
    fn a_running_node_is_judged_by_where_it_listens() {
        let config = Config::default();
        let listening =
            ["/ip4/127.0.0.1/udp/5/quic-v1".parse().unwrap(), "/ip4/10.0.0.7/udp/5/quic-v1".parse().unwrap()];
        let findings = port(&config, &host(), &listening);
        let found: Vec<_> = findings.iter().map(|f| (f.subject.as_str(), f.found.as_str())).collect();
        assert_eq!(
            found,
            [
                ("/ip4/127.0.0.1/udp/5/quic-v1", "programs on this machine can connect, with any peer id"),
                (
                    "/ip4/10.0.0.7/udp/5/quic-v1",
                    "hosts of the private networks that this one is in can connect, with any peer id"
                ),
            ]
        );
    }

    #[test]
    fn mqtt_is_for_this_machine_or_wants_passwords_and_tls() {
        let mut config = Config::default();
        assert!(mqtt(&config, &host()).is_empty());
        let judged = |config: &Config| {
            let finding = mqtt(config, &host()).remove(0);
            (finding.verdict, finding.found)
        };
        config.mqtt.listen = ApiListen::Tcp(([127, 0, 0, 1], 1883).into());
        assert_eq!(judged(&config).0, Verdict::Ok);
        config.mqtt.listen = ApiListen::Tcp(([0, 0, 0, 0], 1883).into());
        config.mqtt.anonymous = true;
        assert!(matches!(judged(&config), (Verdict::Warn, found) if found.ends_with("without a password")));
        (config.mqtt.anonymous, config.mqtt.users) = (false, Some("users".into()));
        assert!(matches!(judged(&config), (Verdict::Warn, found) if found.ends_with("in the clear")));
        config.mqtt.tls_cert = Some("cert".into());
        assert_eq!(judged(&config).0, Verdict::Ok);
    }
}
