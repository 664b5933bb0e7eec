//! Nodes without any name find each other by multicast DNS: several hosts, which are network namespaces.

use std::time::Instant;

use crate::support::{hosts::Hosts, process::Process};

/// A node that knows nobody, and listens over QUIC and TCP.
fn start(hosts: &Hosts, n: u8, more: &[&str]) -> Process {
    let alone = [
        "--set",
        "identity.ephemeral=true",
        "--set",
        "api.listen=off",
        "--set",
        "mdns.enabled=true",
        "--listen",
        "/ip4/0.0.0.0/udp/4001/quic-v1",
        "--topic",
        "some_topic",
    ];
    hosts.start(n, &[&alone[..], more].concat())
}

const TCP: [&str; 2] = ["--listen", "/ip4/0.0.0.0/tcp/4001"];

#[test]
fn two_nodes_that_know_nobody_find_each_other_and_notice_who_leaves() {
    Hosts::run(|hosts| {
        hosts.names(&[]);
        hosts.add(1);
        hosts.add(2);
        let a = start(&hosts, 1, &TCP);
        a.line(&["looking for peers by mdns on eth0 over IPv4"]);
        let began = Instant::now();
        let mut b = start(&hosts, 2, &TCP);
        let (a_id, b_id) = (a.peer_id(), b.peer_id());
        for (node, other, ip) in [(&a, &b_id, "10.77.0.2"), (&b, &a_id, "10.77.0.1")] {
            for end in ["udp/4001/quic-v1", "tcp/4001"] {
                node.line(&[&format!("discovered {other} at /ip4/{ip}/{end} by mdns")]);
            }
            node.line(&["connected to", other]);
        }
        eprintln!("measured: connected {:.2} s after the second one's start", began.elapsed().as_secs_f64());
        for (node, other) in [(&a, &b_id), (&b, &a_id)] {
            node.line(&["joined mesh", other]);
        }
        // It takes leave.
        let began = Instant::now();
        b.signal(rustix::process::Signal::TERM);
        assert!(b.wait().success());
        for end in ["udp/4001/quic-v1", "tcp/4001"] {
            a.line(&["expired", &b_id, end]);
        }
        eprintln!("measured: forgotten {:.2} s after SIGTERM", began.elapsed().as_secs_f64());
        // Once each, however often it was said.
        assert_eq!(a.count(&[&format!("discovered {b_id}")]), 2);
        assert_eq!(a.count(&[&format!("expired {b_id}")]), 2);
        assert_eq!(a.count(&["retrying in"]), 0, "who took leave is not dialed");
        assert_eq!(a.count(&["nobody is found"]) + a.count(&["WARN"]), 0);
        // Somebody new at the same place.
        let b = start(&hosts, 2, &TCP);
        a.line(&["connected to", &b.peer_id()]);
    });
}

#[test]
fn peers_are_found_over_ipv6_and_on_an_interface_that_comes_later() {
    Hosts::run(|hosts| {
        hosts.names(&[]);
        hosts.add(1);
        hosts.add(2);
        let v6 = ["--listen", "/ip6/::/udp/4001/quic-v1"];
        let a = start(&hosts, 1, &v6);
        let b = start(&hosts, 2, &v6);
        let (a_id, b_id) = (a.peer_id(), b.peer_id());
        a.line(&["connected to", &b_id]);
        b.line(&["connected to", &a_id]);
        for n in 1..=2 {
            // Nothing waits here for the kernel to find out that nobody else has the address.
            hosts.on(n, &format!("ip addr add fd00:77::{n}/64 dev eth0 nodad"));
        }
        for (node, other, n) in [(&a, &b_id, 2), (&b, &a_id, 1)] {
            node.line(&["looking for peers by mdns on eth0 over IPv6"]);
            node.line(&[&format!("discovered {other} at /ip6/fd00:77::{n}/udp/4001/quic-v1 by mdns")]);
        }
        // What was found there goes with it.
        hosts.on(1, "ip addr del fd00:77::1/64 dev eth0");
        a.line(&["expired", &b_id, "/ip6/fd00:77::2"]);
        assert_eq!(a.count(&["expired", &b_id, "/ip4/"]), 0);
        // A second wire, plugged in while they run.
        hosts.on(1, "ip link add late type veth peer name late netns h2");
        for n in 1..=2 {
            hosts.on(n, &format!("ip addr add 10.78.0.{n}/24 dev late"));
            hosts.on(n, "ip link set late up");
        }
        for (node, other, n) in [(&a, &b_id, 2), (&b, &a_id, 1)] {
            node.line(&["looking for peers by mdns on late over IPv4"]);
            node.line(&[&format!("discovered {other} at /ip4/10.78.0.{n}/udp/4001/quic-v1 by mdns")]);
        }
        hosts.on(1, "ip link set late down");
        a.line(&["expired", &b_id, "/ip4/10.78.0.2"]);
        assert_eq!(a.count(&["disconnected"]), 0);
    });
}

#[test]
fn where_multicast_does_not_pass_one_warning_says_so_and_nothing_else_is_harmed() {
    Hosts::run(|hosts| {
        hosts.names(&[("a", &[1])]);
        for n in 1..=4 {
            hosts.add(n);
        }
        hosts.on(2, "iptables -A INPUT -p udp --dport 5353 -j DROP");
        hosts.on(3, "iptables -A OUTPUT -p udp --dport 5353 -j DROP");
        hosts.on(4, "ip link set eth0 multicast off");
        let by_name = ["--dial", "a:4001"];
        let a = start(&hosts, 1, &[]);
        let heard = start(&hosts, 2, &by_name);
        let sends = start(&hosts, 3, &by_name);
        let none = start(&hosts, 4, &by_name);
        let warning = [
            (&heard, "nobody is found by mdns on eth0 over IPv4: not even what this node says comes back"),
            (
                &sends,
                "nobody is found by mdns on eth0 over IPv4: nothing can be sent: Operation not permitted",
            ),
            (&none, "mdns: no interface but loopback is up, has an address and carries multicast"),
        ];
        for (node, words) in warning {
            node.line(&["WARN", words]);
            // Its name leads it to the others all the same.
            node.line(&["joined mesh", &a.peer_id()]);
            assert_eq!(node.count(&["WARN"]), 1, "{:?}", node.line_from(0, &["WARN"]));
        }
        hosts.on(3, "iptables -F");
        sends.line(&["mdns works again on eth0 over IPv4"]);
        a.line(&["discovered", &sends.peer_id()]);
        assert_eq!(a.count(&["WARN"]), 0);
    });
}

#[test]
fn who_is_kept_out_is_found_and_not_connected_to() {
    Hosts::run(|hosts| {
        hosts.names(&[]);
        hosts.add(1);
        hosts.add(2);
        let a = start(&hosts, 1, &["--set", "peers.deny=10.77.0.2"]);
        let b = start(&hosts, 2, &[]);
        a.line(&["discovered", &b.peer_id()]);
        a.line(&["retrying in", &b.peer_id(), "kept out by 10.77.0.2 in peers.deny"]);
        b.line(&["retrying in", &a.peer_id(), "discovered by mdns, is not connected"]);
        assert_eq!(a.count(&["connected to"]), 0);
    });
}
