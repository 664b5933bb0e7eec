//! Which names are asked for: the search list, the hosts file, aliases, and what is never asked for.

use super::*;

pub(super) fn short_names_are_completed(harness: &Harness) {
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
pub(super) fn a_headless_service_is_found_by_its_short_name_as_in_kubernetes(harness: &Harness) {
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

pub(super) fn the_hosts_file_matches_whole_names_and_is_read_again(harness: &Harness) {
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

pub(super) fn names_that_cannot_exist_are_not_asked_for(harness: &Harness) {
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

pub(super) fn odd_names_are_asked_for(harness: &Harness) {
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

pub(super) fn aliases_are_followed_and_loops_of_them_end(harness: &Harness) {
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

pub(super) fn nothing_is_asked_for_literals_and_localhost(harness: &Harness) {
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
