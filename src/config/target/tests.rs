//! Every form of a target, good and bad.

use proptest::prelude::*;

use super::*;

const PEER: &str = "12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz";

#[test]
fn every_form_is_read_and_printed_in_one_form() {
    let with_peer = format!("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{PEER}");
    let dnsaddr = format!("/dnsaddr/example.org/p2p/{PEER}");
    for (text, printed) in [
        ("bootstrap", "bootstrap:4001"),
        ("bootstrap:9", "bootstrap:9"),
        (" Bootstrap:4001 ", "bootstrap:4001"),
        ("tasks.my_service:4001", "tasks.my_service:4001"),
        ("a.b.svc.cluster.local.:4001", "a.b.svc.cluster.local.:4001"),
        ("10.0.0.1", "10.0.0.1:4001"),
        ("10.0.0.1:5", "10.0.0.1:5"),
        ("::1", "[::1]:4001"),
        ("[::1]", "[::1]:4001"),
        ("[::1]:5", "[::1]:5"),
        ("/dns/peer/udp/4001/quic-v1", "/dns/peer/udp/4001/quic-v1"),
        ("/dns/peer/tcp/4001", "/dns/peer/tcp/4001"),
        ("/dns6/peer/tcp/7", "/dns6/peer/tcp/7"),
        ("/ip4/10.0.0.1/tcp/4001", "/ip4/10.0.0.1/tcp/4001"),
        ("/dns4/peer", "/dns4/peer/udp/4001/quic-v1"),
        ("/dns4/peer/udp/7", "/dns4/peer/udp/7/quic-v1"),
        ("/dns6/peer/udp/7/quic-v1", "/dns6/peer/udp/7/quic-v1"),
        ("/dnsaddr/example.org", "/dnsaddr/example.org"),
        (&dnsaddr, &dnsaddr),
        ("/ip6/fd00::1/udp/4001/quic-v1", "/ip6/fd00::1/udp/4001/quic-v1"),
        (&with_peer, &with_peer),
    ] {
        let target: Target = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(target.to_string(), printed, "{text}");
        assert_eq!(printed.parse(), Ok(target), "{printed}");
    }
}

#[test]
fn a_bad_target_is_refused_and_says_why() {
    let long = format!("{}.x", "a".repeat(64));
    let longest = "a.".repeat(130) + "x";
    let name_and_peer = format!("/dns4/peer/udp/4001/quic-v1/p2p/{PEER}");
    for (text, why) in [
        ("", "an empty name"),
        (":4001", "no host name in front of the port"),
        ("peer:0", "port 0 cannot be dialed"),
        ("peer:70000", "\"70000\" is no port from 1 to 65535"),
        ("peer:+1", "\"+1\" is no port from 1 to 65535"),
        ("peer:", "\"\" is no port from 1 to 65535"),
        ("a:b:c", "more than one \":\" (an IPv6 address goes into brackets: \"[::1]:4001\")"),
        ("[::1", "no \"]\" behind the IPv6 address"),
        ("[x]:1", "\"x\" is no IPv6 address"),
        ("[::1]4001", "\"4001\" behind the IPv6 address is no port"),
        ("a..b", "the host name has an empty label (two dots, or one in front)"),
        ("-a", "the label \"-a\" starts or ends with \"-\""),
        ("pe er", "' ' cannot stand in a host name"),
        ("bücher", "'ü' cannot stand in a host name (write it in punycode: \"xn--…\")"),
        ("256.1.1.1", "ends in a number, yet is no IPv4 address"),
        ("4001", "ends in a number, yet is no IPv4 address"),
        (&long, "the host name has a label of 64 characters (63 at most)"),
        (&longest, "a host name of 261 characters (253 at most)"),
        ("/ip4//udp/4001/quic-v1", "has an empty part (\"//\")"),
        ("/ip4/10.0.0.1", "ends before /udp/PORT/quic-v1 or /tcp/PORT"),
        ("/ip4/10.0.0.1/sctp/4001", "has /sctp/4001 where /udp/PORT/quic-v1 or /tcp/PORT belongs"),
        ("/ip4/10.0.0.1/tcp/4001/ws", "has /ws behind /tcp/PORT"),
        ("/ip4/10.0.0.1/tcp/0", "port 0 cannot be dialed"),
        ("/ip4/10.0.0.1/udp/4001", "ends before /quic-v1"),
        ("/ip4/10.0.0.1/udp/0/quic-v1", "port 0 cannot be dialed"),
        ("/ip4/10.0.0.1/udp/4001/quic", "has /quic where /quic-v1 belongs"),
        ("/dns4/peer/sctp/1", "has /sctp/1 where /udp/PORT/quic-v1 or /tcp/PORT belongs"),
        ("/dns4/peer/tcp/1/ws", "has /ws behind /tcp/PORT"),
        ("/dns4/peer/tcp/0", "port 0 cannot be dialed"),
        ("/dns4/peer/udp/0/quic-v1", "port 0 cannot be dialed"),
        ("/memory/1", "starts with /memory/1, not with /ip4 or /ip6"),
        (&name_and_peer, "has a peer id, but a name stands for all the replicas behind it: leave /p2p/… out"),
    ] {
        assert_eq!(text.parse::<Target>(), Err(TargetError(why.into())), "{text}");
    }
    assert!("/nonsense/1".parse::<Target>().unwrap_err().to_string().starts_with("is no multiaddr: "));
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_and_what_is_parsed_prints_the_same_target(text in ".{0,60}|[a-z0-9./:\\[\\]-]{0,40}") {
        if let Ok(target) = text.parse::<Target>() {
            prop_assert_eq!(target.to_string().parse(), Ok(target));
        }
    }
}
