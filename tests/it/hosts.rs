//! Nodes on several hosts, which are network namespaces: what a packet filter between them does.

use std::time::Instant;

use crate::support::{hosts::Hosts, process::Process};

/// A node that listens over QUIC and TCP.
fn start(hosts: &Hosts, n: u8, more: &[&str]) -> Process {
    let both = [
        "--set",
        "identity.ephemeral=true",
        "--set",
        "api.listen=off",
        "--listen",
        "/ip4/0.0.0.0/udp/4001/quic-v1",
        "--listen",
        "/ip4/0.0.0.0/tcp/4001",
        "--topic",
        "some_topic",
    ];
    // Names stand in the hosts file; async-dns always reads that one.
    let alone = if cfg!(feature = "hickory") { &["--set", "dns.resolv_conf="][..] } else { &[] };
    hosts.start(n, &[&both[..], alone, more].concat())
}

#[test]
fn where_udp_is_dropped_the_mesh_forms_over_tcp_and_new_connections_are_quic_once_it_is_back() {
    Hosts::run(|hosts| {
        hosts.names(&[("a", &[1]), ("b", &[2])]);
        for n in 1..=3 {
            hosts.add(n);
            // On arrival: dropped on the way out, a send would fail immediately, and nobody would have to wait.
            hosts.on(n, "iptables -A INPUT -p udp -j DROP");
        }
        let began = Instant::now();
        let a = start(&hosts, 1, &[]);
        let b = start(&hosts, 2, &["--dial", "a:4001"]);
        let mut c = start(&hosts, 3, &["--dial", "a:4001", "--dial", "b:4001"]);
        let (a_id, b_id, c_id) = (a.peer_id(), b.peer_id(), c.peer_id());
        for (node, others) in [(&a, [&b_id, &c_id]), (&b, [&a_id, &c_id]), (&c, [&a_id, &b_id])] {
            for other in others {
                node.line(&["connected to", other, "/tcp/"]);
                node.line(&["joined mesh", other]);
                // What a peer announces over TCP is believed as it is over QUIC.
                node.line(&["added to kademlia", other, "/tcp/4001"]);
            }
            assert_eq!(node.count(&["connected to", "/udp/"]), 0);
        }
        eprintln!(
            "measured: mesh of three over TCP {:.2} s after the first node's start",
            began.elapsed().as_secs_f64()
        );

        for n in 1..=3 {
            hosts.on(n, "iptables -F");
        }
        c.kill();
        for node in [&a, &b] {
            node.line(&["disconnected from", &c_id]);
        }
        // Nobody dials c: it is who makes the new connections.
        let began = Instant::now();
        let c = start(&hosts, 3, &["--dial", "a:4001", "--dial", "b:4001"]);
        for (other, at) in
            [(&a_id, "/ip4/10.77.0.1/udp/4001/quic-v1"), (&b_id, "/ip4/10.77.0.2/udp/4001/quic-v1")]
        {
            c.line(&["connected to", other, at, "dialed"]);
            c.line(&["joined mesh", other]);
        }
        eprintln!(
            "measured: UDP back, a new node in the mesh over QUIC after {:.2} s",
            began.elapsed().as_secs_f64()
        );
        assert_eq!(c.count(&["connected to", "/tcp/"]), 0);
        // What was connected over TCP is left alone.
        assert_eq!(a.count(&["disconnected from", &b_id]), 0);
    });
}

#[test]
fn a_host_that_vanishes_without_a_word_is_noticed_over_tcp() {
    Hosts::run(|hosts| {
        hosts.names(&[("a", &[1])]);
        for n in 1..=2 {
            hosts.add(n);
            hosts.on(n, "iptables -A OUTPUT -p udp -j DROP");
        }
        let a = start(&hosts, 1, &[]);
        let b = start(&hosts, 2, &["--dial", "a:4001"]);
        a.line(&["joined mesh", &b.peer_id()]);
        b.line(&["joined mesh", &a.peer_id()]);
        let began = Instant::now();
        hosts.on(2, "iptables -A OUTPUT -j DROP");
        hosts.on(2, "iptables -A INPUT -j DROP");
        a.line(&["disconnected from", &b.peer_id()]);
        b.line(&["disconnected from", &a.peer_id()]);
        eprintln!(
            "measured: a silent host noticed by both sides after {:.2} s",
            began.elapsed().as_secs_f64()
        );
    });
}

#[test]
fn a_node_listens_on_each_address_that_its_host_gets_and_no_longer_on_one_that_goes() {
    Hosts::run(|hosts| {
        hosts.names(&[]);
        hosts.add(1);
        let node = start(&hosts, 1, &[]);
        let (first, _) = node.line_from(0, &["listening on", "/ip4/10.77.0.1/udp/4001"]);
        hosts.on(1, "ip addr add 10.77.1.1/24 dev eth0");
        let (second, _) = node.line_from(first, &["listening on", "/ip4/10.77.1.1/udp/4001"]);
        // Each change is noticed, not the first alone.
        hosts.on(1, "ip addr add 10.77.2.1/24 dev eth0");
        let (third, _) = node.line_from(second, &["listening on", "/ip4/10.77.2.1/udp/4001"]);
        hosts.on(1, "ip addr del 10.77.1.1/24 dev eth0");
        node.line_from(third, &["no longer listening on", "/ip4/10.77.1.1/udp/4001"]);
    });
}
