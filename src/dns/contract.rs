//! What every backend has to do, tried against a real name server on loopback.
//!
//! hickory runs each case as a test of its own against servers on ports of their own. Each
//! backend also runs all cases in a sandbox, where `/etc/resolv.conf` and port 53 are ours.
//! Where a backend falls short of the others, the case says so with [`Harness::by_backend`].

#[cfg(feature = "hickory")]
mod answers;
mod harness;
#[cfg(feature = "hickory")]
mod packets;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use self::harness::{Case, Harness, IMPATIENCE, PATIENCE};
use super::{Backend, Config, ConfigError, Family, Fault, resolver};
use crate::{error::chain, runtime::Executor};

macro_rules! contract {
    ($($case:ident)*) => {
        const CASES: &[Case] = &[$((stringify!($case), $case)),*];

        #[cfg(feature = "hickory")]
        mod hickory {
            $(#[test]
            fn $case() {
                super::$case(&super::Harness::direct(super::Backend::Hickory));
            })*
        }
    };
}

contract! {
    every_record_is_found_however_many
    both_families_are_found
    short_names_are_completed
    a_headless_service_is_found_by_its_short_name_as_in_kubernetes
    the_hosts_file_matches_whole_names_and_is_read_again
    a_missing_name_is_told_from_a_name_without_records
    each_fault_of_a_server_is_told_apart
    a_name_that_appears_is_found_by_the_next_question
    a_record_that_goes_is_gone
    a_dead_server_is_passed_over
    a_server_may_have_an_ipv6_address
    texts_are_found
    names_that_cannot_exist_are_not_asked_for
    odd_names_are_asked_for
    aliases_are_followed_and_loops_of_them_end
    nothing_is_asked_for_literals_and_localhost
    without_servers_only_names_that_need_one_fail
    servers_are_asked_where_the_c_library_asks_them
    no_answer_however_strange_panics
}

#[cfg(feature = "hickory")]
#[test]
fn hickory_keeps_the_contract_with_the_files_of_the_system() {
    harness::in_sandbox(
        "dns::contract::hickory_keeps_the_contract_with_the_files_of_the_system",
        Backend::Hickory,
        CASES,
    );
}

#[cfg(feature = "async-dns")]
#[test]
fn async_dns_keeps_the_contract_within_its_limits() {
    harness::in_sandbox(
        "dns::contract::async_dns_keeps_the_contract_within_its_limits",
        Backend::AsyncDns,
        CASES,
    );
}

/// `count` addresses, counted up from 10.0.0.1 or fd00::1.
fn addresses(family: Family, count: u16) -> Vec<IpAddr> {
    let v6 = |n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]);
    let v4 = |n: u16| IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    (1..=count).map(|n| if family == Family::V6 { v6(n) } else { v4(n) }).collect()
}

fn ip(text: &str) -> Vec<IpAddr> {
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

fn every_record_is_found_however_many(harness: &Harness) {
    let server = harness.server();
    harness.configure(&[server.addr()], "");
    for count in [1, 16, 17, 20, 40, 200] {
        // Out of order on purpose: the answer's order is kept.
        let mut records = addresses(Family::V4, count);
        records.rotate_left(usize::from(count / 3));
        server.set("peer", records.clone()).unwrap();
        let all: Vec<_> = records.iter().map(ToString::to_string).collect();
        let async_dns = match count {
            ..=16 => "the same",
            // Too long for 512 bytes of UDP, and short enough to wait for over TCP in vain.
            40 => "TimedOut",
            _ => "Unsupported",
        };
        let expected = harness.by_backend(&all.join(" "), async_dns);
        harness.wait_for(if expected == "TimedOut" { IMPATIENCE } else { PATIENCE });
        harness.expect("peer", Family::V4, &expected, &format!("{count} records"));
    }
    server.set("peer", addresses(Family::V4, 40)).unwrap();
    server.set_fault(Some(Fault::NoTcp));
    let expected = match harness.backend() {
        // 40 records fit into the datagrams that hickory asks for.
        Backend::Hickory => harness.outcome("peer", Family::V4),
        Backend::AsyncDns => "Unsupported".into(),
    };
    harness.expect("peer", Family::V4, &expected, "40 records, no TCP");
    server.set("peer", addresses(Family::V4, 200)).unwrap();
    let expected = harness.by_backend("Unreachable", "Unsupported");
    harness.expect("peer", Family::V4, &expected, "200 records, no TCP");
}

fn both_families_are_found(harness: &Harness) {
    let server = harness.server();
    harness.configure(&[server.addr()], "");
    server.set("mixed", ip("fd00::1 10.0.0.2 fd00::3 10.0.0.1")).unwrap();
    server.set("four", ip("10.0.0.1")).unwrap();
    server.set("six", ip("fd00::1")).unwrap();
    for (name, family, hickory, async_dns) in [
        ("mixed", Family::Any, "10.0.0.2 10.0.0.1 fd00::1 fd00::3", "10.0.0.2 10.0.0.1"),
        ("mixed", Family::V4, "10.0.0.2 10.0.0.1", "the same"),
        ("mixed", Family::V6, "fd00::1 fd00::3", "Unsupported"),
        ("four", Family::Any, "10.0.0.1", "the same"),
        ("four", Family::V6, "NoRecords", "Unsupported"),
        ("six", Family::Any, "fd00::1", "the same"),
        ("six", Family::V6, "fd00::1", "the same"),
        ("six", Family::V4, "NoRecords", "the same"),
    ] {
        harness.expect(name, family, &harness.by_backend(hickory, async_dns), &format!("{name} {family:?}"));
    }
}

fn short_names_are_completed(harness: &Harness) {
    let server = harness.server();
    for (name, addr) in [
        ("headless.b", "10.0.0.1"),
        ("peer", "10.0.0.2"),
        ("tasks.peer", "10.0.0.3"),
        ("web.ns.svc.cluster.local", "10.0.0.4"),
        ("both.a", "10.0.0.5"),
        ("both", "10.0.0.6"),
    ] {
        server.set(name, ip(addr)).unwrap();
    }
    let kubernetes = "search ns.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
    let missing = harness.by_backend("NoSuchName", "NoRecords?");
    for (conf, host, expected) in [
        ("search a b\noptions ndots:5\n", "headless", "10.0.0.1"),
        ("search a b\noptions ndots:5\n", "headless.", missing.as_str()),
        ("options ndots:0\n", "peer", "10.0.0.2"),
        ("options ndots:0\n", "tasks.peer", "10.0.0.3"),
        ("search a\noptions ndots:0\n", "peer", "10.0.0.2"),
        ("search a\n", "peer", "10.0.0.2"),
        ("search a\n", "both", "10.0.0.5"),
        (kubernetes, "web", "10.0.0.4"),
        (kubernetes, "web.ns", "10.0.0.4"),
        (kubernetes, "web.ns.svc.cluster.local", "10.0.0.4"),
        (kubernetes, "web.other", missing.as_str()),
    ] {
        harness.configure(&[server.addr()], conf);
        harness.expect(host, Family::V4, expected, &format!("{host} with {conf:?}"));
    }
    // async-dns tries its own search list on top when a name has `ndots` dots.
    let expected = harness.by_backend("10.0.0.6", "10.0.0.5");
    harness.configure(&[server.addr()], "search a\noptions ndots:0\n");
    harness.expect("both", Family::V4, &expected, "both, as it is first");
    harness.configure(&[server.addr()], "search a\n");
    harness.expect("both.", Family::V4, "10.0.0.6", "both, absolute");
}

/// What a pod's `resolv.conf` says, and a name server that answers as CoreDNS does: full names only, no
/// such name where no pod stands behind a service, no IPv6, and its upstream's word on all other names.
fn a_headless_service_is_found_by_its_short_name_as_in_kubernetes(harness: &Harness) {
    let server = harness.server();
    let zone =
        "search ns.svc.cluster.local svc.cluster.local cluster.local example.internal\noptions ndots:5\n";
    harness.configure(&[server.addr()], zone);
    let missing = harness.by_backend("NoSuchName", "NoRecords?");
    harness.expect("smidge", Family::Any, &missing, "no pod yet");
    let service = "smidge.ns.svc.cluster.local";
    server.set(service, ip("10.1.0.7 10.1.2.9 10.1.1.8")).unwrap();
    server.set("smidge-0.smidge.ns.svc.cluster.local", ip("10.1.0.7")).unwrap();
    server.set("smidge.other.svc.cluster.local", ip("10.1.3.1")).unwrap();
    // The upstream knows names that look alike.
    server.set("smidge", ip("192.0.2.1")).unwrap();
    server.set("smidge.example.internal", ip("192.0.2.2")).unwrap();
    for (host, expected) in [
        ("smidge", "10.1.0.7 10.1.2.9 10.1.1.8"),
        ("smidge.ns", "10.1.0.7 10.1.2.9 10.1.1.8"),
        ("smidge.ns.svc", "10.1.0.7 10.1.2.9 10.1.1.8"),
        (service, "10.1.0.7 10.1.2.9 10.1.1.8"),
        ("smidge-0.smidge", "10.1.0.7"),
        ("smidge.other", "10.1.3.1"),
        ("smidge-1.smidge", missing.as_str()),
    ] {
        harness.expect(host, Family::Any, expected, &format!("{host} in a pod"));
    }
    server.set(service, ip("10.1.2.9")).unwrap();
    harness.expect("smidge", Family::Any, "10.1.2.9", "scaled down");
}

fn the_hosts_file_matches_whole_names_and_is_read_again(harness: &Harness) {
    let server = harness.server();
    server.set("peer", ip("10.0.0.1")).unwrap();
    harness.configure(&[server.addr()], "");
    harness.hosts("127.0.0.1 localhost\n10.9.9.9 peer-1 peer.example # peer\n");
    for (host, expected) in [
        ("peer", "10.0.0.1"),
        ("Peer.", "10.0.0.1"),
        ("peer-1", "10.9.9.9"),
        ("PEER-1.", "10.9.9.9"),
        ("peer.example", "10.9.9.9"),
    ] {
        harness.expect(host, Family::Any, expected, &format!("{host} with 10.9.9.9 peer-1 in hosts"));
    }
    harness.hosts("10.9.9.8 peer-1\nfd00::8 peer-1\n");
    harness.expect("peer-1", Family::Any, "10.9.9.8 fd00::8", "peer-1 after a change of hosts");
    if harness.without_hosts() {
        harness.expect("peer", Family::Any, "10.0.0.1", "peer without hosts file");
    }
}

fn a_missing_name_is_told_from_a_name_without_records(harness: &Harness) {
    let server = harness.server();
    harness.configure(&[server.addr()], "");
    server.set("empty", vec![]).unwrap();
    harness.expect("absent", Family::Any, &harness.by_backend("NoSuchName", "NoRecords?"), "NXDOMAIN");
    harness.expect("empty", Family::Any, &harness.by_backend("NoRecords", "NoRecords?"), "empty answer");
}

fn each_fault_of_a_server_is_told_apart(harness: &Harness) {
    let server = harness.server();
    harness.configure(&[server.addr()], "");
    server.set("peer", ip("10.0.0.1")).unwrap();
    for (fault, hickory, async_dns) in [
        (Fault::ServFail, "ServerFailure SERVFAIL", "NoRecords?"),
        (Fault::Refused, "ServerFailure REFUSED", "NoRecords?"),
        (Fault::Silent, "TimedOut", "the same"),
        (Fault::Garbage, "BadAnswer", "the same"),
        (Fault::WrongId, "TimedOut", "the same"),
        (Fault::Delay(Duration::from_millis(50)), "10.0.0.1", "the same"),
        (Fault::Delay(Duration::from_secs(60)), "TimedOut", "the same"),
    ] {
        server.set_fault(Some(fault));
        let expected = harness.by_backend(hickory, async_dns);
        harness.wait_for(if expected == "TimedOut" { IMPATIENCE } else { PATIENCE });
        harness.expect("peer", Family::V4, &expected, &format!("{fault:?}"));
    }
    server.set_fault(None);
    harness.wait_for(PATIENCE);
    harness.expect("peer", Family::V4, "10.0.0.1", "no fault any more");
}

fn a_name_that_appears_is_found_by_the_next_question(harness: &Harness) {
    let server = harness.server();
    harness.configure(&[server.addr()], "");
    let missing = harness.by_backend("NoSuchName", "NoRecords?");
    for round in 0..5 {
        let name = format!("late-{round}");
        harness.expect(&name, Family::Any, &missing, "before it appears");
        server.set(&name, ip("10.0.0.1")).unwrap();
        harness.expect(&name, Family::Any, "10.0.0.1", "once it is there");
    }
}

fn a_record_that_goes_is_gone(harness: &Harness) {
    let server = harness.server();
    harness.configure(&[server.addr()], "");
    server.set("peer", ip("10.0.0.1 10.0.0.2")).unwrap();
    harness.expect("peer", Family::Any, "10.0.0.1 10.0.0.2", "two records");
    server.set("peer", ip("10.0.0.2 10.0.0.3")).unwrap();
    harness.expect("peer", Family::Any, "10.0.0.2 10.0.0.3", "one replaced");
    assert!(server.remove("peer").unwrap());
    harness.expect("peer", Family::Any, &harness.by_backend("NoSuchName", "NoRecords?"), "name removed");
}

fn a_dead_server_is_passed_over(harness: &Harness) {
    let (dead, alive) = harness.two_servers();
    alive.set("peer", ip("10.0.0.1")).unwrap();
    let dead_addr = dead.addr();
    harness.configure(&[dead_addr, alive.addr()], "");
    harness.wait_for(IMPATIENCE * 2);
    for (fault, async_dns) in [(Fault::Silent, "TimedOut"), (Fault::ServFail, "10.0.0.1")] {
        dead.set_fault(Some(fault));
        let expected = harness.by_backend("10.0.0.1", async_dns);
        harness.expect("peer", Family::V4, &expected, &format!("{fault:?}, then a good server"));
    }
    harness.stop(dead);
    let expected = harness.by_backend("10.0.0.1", "TimedOut");
    harness.expect("peer", Family::V4, &expected, "closed port, then a good server");
    harness.configure(&[dead_addr], "");
    let expected = harness.by_backend("Unreachable", "TimedOut");
    harness.expect("peer", Family::V4, &expected, "closed port");
}

fn a_server_may_have_an_ipv6_address(harness: &Harness) {
    let server = harness.server_on("::1".parse().unwrap());
    harness.configure(&[server.addr()], "");
    server.set("peer", ip("10.0.0.1")).unwrap();
    harness.expect("peer", Family::V4, &harness.by_backend("10.0.0.1", "Unsupported"), "server on ::1");
    server.set("peer", addresses(Family::V4, 200)).unwrap();
    if harness.backend() == Backend::Hickory {
        assert_eq!(harness.resolve("peer", Family::Any).unwrap().len(), 200, "over TCP on ::1");
    }
}

fn texts_are_found(harness: &Harness) {
    let server = harness.server();
    harness.configure(&[server.addr()], "");
    let texts: Vec<_> = (0..40)
        .map(|n| format!("dnsaddr=/ip4/10.0.0.{n}/udp/4001/quic-v1/p2p/{}", "x".repeat(n * 9)))
        .collect();
    server.set_txt("_dnsaddr.peers.example", texts.clone()).unwrap();
    server.set("peer", ip("10.0.0.1")).unwrap();
    match harness.backend() {
        Backend::Hickory => {
            assert_eq!(harness.texts("_dnsaddr.peers.example").unwrap(), texts);
            assert_eq!(harness::kind(&harness.texts("peer").unwrap_err()), "NoRecords");
            assert_eq!(harness::kind(&harness.texts("absent").unwrap_err()), "NoSuchName");
        }
        Backend::AsyncDns => {
            assert_eq!(harness::kind(&harness.texts("_dnsaddr.peers.example").unwrap_err()), "Unsupported");
        }
    }
    assert_eq!(harness::kind(&harness.texts("localhost").unwrap_err()), "NoRecords");
}

fn names_that_cannot_exist_are_not_asked_for(harness: &Harness) {
    let server = harness.server();
    harness.configure(&[server.addr()], "search a\n");
    let (label, name) = ("a".repeat(64), ["a".repeat(60).as_str(); 5].join("."));
    for host in ["", ".", "a..b", ".a", "a b", "a\0b", "peer\nforged", "peer:4001", "bücher", &label, &name]
    {
        harness.expect(host, Family::Any, "BadName", &format!("{:.20}", host.escape_debug().to_string()));
        assert_eq!(harness::kind(&harness.texts(host).unwrap_err()), "BadName");
    }
    assert_eq!(server.questions(), 0);
}

fn odd_names_are_asked_for(harness: &Harness) {
    let server = harness.server();
    harness.configure(&[server.addr()], "");
    let long = ["b".repeat(62).as_str(); 4].join(".");
    for host in ["1", "my_service", "_srv", "tasks.my_service", "-a-", "a--b", "xn--bcher-kva.example", &long]
    {
        server.set(host, ip("10.0.0.1")).unwrap();
        harness.expect(host, Family::V4, "10.0.0.1", &format!("{host:.20}"));
        harness.expect(
            &format!("{}.", host.to_uppercase()),
            Family::V4,
            "10.0.0.1",
            "in upper case, absolute",
        );
    }
}

fn aliases_are_followed_and_loops_of_them_end(harness: &Harness) {
    let server = harness.server();
    harness.configure(&[server.addr()], "");
    server.set("end.example", ip("10.0.0.1 10.0.0.2")).unwrap();
    server.set_alias("start.example", "one.longer.example").unwrap();
    server.set_alias("one.longer.example", "end.example").unwrap();
    server.set_alias("round.example", "about.example").unwrap();
    server.set_alias("about.example", "round.example").unwrap();
    server.set_alias("to-nowhere.example", "nowhere-at-all.example").unwrap();
    harness.expect("start.example", Family::V4, "10.0.0.1 10.0.0.2", "alias of an alias");
    harness.expect(
        "round.example",
        Family::V4,
        &harness.by_backend("NoRecords", "NoRecords?"),
        "loop of aliases",
    );
    let expected = harness.by_backend("NoSuchName", "NoRecords?");
    harness.expect("to-nowhere.example", Family::V4, &expected, "alias of a missing name");
    // async-dns looks at the length of a record and not at its type.
    server.set("x.example", ip("10.0.0.1")).unwrap();
    server.set_alias("short.example", "x.example").unwrap();
    let bogus = harness.outcome("short.example", Family::V4);
    if harness.backend() == Backend::AsyncDns {
        assert!(bogus.ends_with(" 10.0.0.1") && bogus.starts_with("1.120."), "{bogus}: mended upstream?");
    } else {
        assert_eq!(bogus, "10.0.0.1", "an alias whose target packs into four bytes");
    }
}

fn nothing_is_asked_for_literals_and_localhost(harness: &Harness) {
    let server = harness.server();
    harness.configure(&[server.addr()], "search a\n");
    harness.hosts("");
    for (host, family, expected) in [
        ("10.0.0.1", Family::Any, "10.0.0.1"),
        ("10.0.0.1", Family::V6, "NoRecords"),
        ("fd00::1", Family::V6, "fd00::1"),
        ("::ffff:10.0.0.1", Family::Any, "::ffff:10.0.0.1"),
        ("300.0.0.1", Family::Any, "BadName"),
        ("localhost", Family::Any, "127.0.0.1 ::1"),
        ("db.LocalHost.", Family::V4, "127.0.0.1"),
    ] {
        harness.expect(host, family, expected, host);
    }
    assert_eq!(server.questions(), 0);
}

fn without_servers_only_names_that_need_one_fail(harness: &Harness) {
    harness.hosts("10.9.9.9 known\n");
    for conf in [Some(""), Some("# nameserver 10.0.0.1\nnameserver nonsense\n"), None] {
        if !harness.resolv_conf(conf) {
            continue;
        }
        harness.expect("peer", Family::Any, "NoServers", &format!("resolv.conf {conf:?}"));
        harness.expect("known", Family::Any, "10.9.9.9", "from hosts");
        harness.expect("10.0.0.1", Family::Any, "10.0.0.1", "a literal");
        harness.expect("localhost", Family::V4, "127.0.0.1", "localhost");
    }
}

fn servers_are_asked_where_the_c_library_asks_them(harness: &Harness) {
    let server = harness.server();
    server.set("peer", ip("10.0.0.1")).unwrap();
    harness.hosts("");
    for lines in [
        "nameserver 127.0.0.1",
        "nameserver 0.0.0.0",
        "nameserver ::ffff:127.0.0.1",
        "nameserver ::ffff:0.0.0.0",
        "nameserver fe80::1%wlan9\nnameserver 127.0.0.1",
        "nameserver 127.0.0.1\nnameserver fe80::1%wlan9",
        "nameserver localhost\nnameserver 127.0.0.1:53\nnameserver 127.0.0.1\nnameserver [::1]",
        "\u{feff}nameserver 127.0.0.1",
    ] {
        // Only hickory can be configured to ask another port than 53, and only that is written in these files.
        if harness.is_on_port_53() && harness.backend() == Backend::Hickory {
            assert!(harness.resolv_conf(Some(lines)));
            harness.expect("peer", Family::V4, "10.0.0.1", lines);
        }
    }
    for at in ["0.0.0.0", "::ffff:127.0.0.1"] {
        if !harness.is_on_port_53() {
            harness.configure(&[SocketAddr::new(at.parse().unwrap(), server.addr().port())], "");
            harness.expect("peer", Family::V4, "10.0.0.1", at);
        }
    }
    let server = harness.server_on("::1".parse().unwrap());
    server.set("peer", ip("10.0.0.2")).unwrap();
    if !harness.is_on_port_53() {
        harness.configure(&[SocketAddr::new("::".parse().unwrap(), server.addr().port())], "");
        harness.expect("peer", Family::V4, "10.0.0.2", "::");
    } else if harness.backend() == Backend::Hickory {
        assert!(harness.resolv_conf(Some("nameserver ::")));
        harness.expect("peer", Family::V4, "10.0.0.2", "::");
    }
}

fn no_answer_however_strange_panics(harness: &Harness) {
    let random = fastrand::Rng::with_seed(7);
    let mut n = 0;
    let server = harness.raw_server(move |question, _| {
        let mut random = fastrand::Rng::with_seed({
            n += 1;
            n ^ random.get_seed()
        });
        let mut answer = question.to_vec();
        match n % 4 {
            // Under the right id: noise; the question with noise behind it and counts that lie;
            // the same cut short; a header alone.
            0 => answer.extend_from_within(..),
            1 => answer.truncate(random.usize(2..=answer.len())),
            2 => answer.truncate(12),
            _ => answer.truncate(2),
        }
        answer.extend(
            std::iter::repeat_with(|| *random.choice(&[0, 0, 1, 4, 12, 0xc0, 0xff]).unwrap()).take(40),
        );
        answer[2] |= 0x80;
        answer[7] = answer[7].wrapping_add(random.u8(..3));
        vec![answer]
    });
    harness.configure(&[server.addr()], "");
    harness.wait_for(IMPATIENCE / 10);
    for n in 0..60 {
        let host = format!("name-{n}");
        // Any outcome will do, as long as there is one.
        harness.outcome(&host, Family::V4);
    }
}

#[test]
fn a_config_that_cannot_work_is_refused() {
    let runtime = Executor::default().start(1).unwrap();
    let refused = |config| chain(&resolver(config, runtime.clone()).unwrap_err());
    assert!(refused(Config { timeout: Duration::ZERO, ..Config::default() }).contains("timeout = 0ns"));
    assert!(refused(Config { attempts: 0, ..Config::default() }).contains("from 1 to 10"));
    let search = Some(vec!["a b".into()]);
    assert!(
        refused(Config { search, ..Config::default() }).contains("search list: `a b` is not a host name")
    );
    assert!(
        resolver(Config { search: Some(vec![".".into()]), ..Config::default() }, runtime.clone()).is_ok()
    );
    for (backend, compiled) in
        [(Backend::Hickory, cfg!(feature = "hickory")), (Backend::AsyncDns, cfg!(feature = "async-dns"))]
    {
        let made = resolver(Config { backend, ..Config::default() }, runtime.clone());
        assert_eq!(made.is_ok(), compiled, "{backend:?}");
        if let Err(e) = made {
            assert!(matches!(e, ConfigError::NotCompiled(_)) && e.to_string().contains("feature"), "{e}");
        }
    }
    if cfg!(feature = "async-dns") {
        let servers = vec![SocketAddr::from(([127, 0, 0, 1], 53))];
        let config = Config { backend: Backend::AsyncDns, servers, ..Config::default() };
        assert!(refused(config).contains("use `hickory`"));
        let config = Config {
            backend: Backend::AsyncDns,
            resolv_conf: "/tmp/resolv.conf".into(),
            ..Config::default()
        };
        assert!(refused(config).contains("not /tmp/resolv.conf"));
    }
}
