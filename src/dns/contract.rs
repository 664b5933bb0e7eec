//! What every backend has to do, tried against a real name server on loopback.
//!
//! hickory runs each case as a test of its own against servers on ports of their own. Each
//! backend also runs all cases in a sandbox, where `/etc/resolv.conf` and port 53 are ours.
//! Where a backend falls short of the others, the case says so with [`Harness::by_backend`].

#[cfg(feature = "hickory")]
mod answers;
mod harness;
mod names;
#[cfg(feature = "hickory")]
mod packets;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use self::{
    harness::{Case, Harness, IMPATIENCE, PATIENCE},
    names::*,
};
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
