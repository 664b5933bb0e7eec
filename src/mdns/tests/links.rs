//! Several nodes on simulated links: hours in milliseconds, with hostile ones among them.

use std::{collections::BTreeMap, time::Instant};

use libp2p::PeerId;
use proptest::prelude::*;

use super::{
    super::{
        action::{Action, Notice, Policy},
        discovered::{Fault, MAX_ADDRESSES, MAX_TTL, NEW_BURST, YIELD},
        discovery::Discovery,
        wire,
    },
    net::*,
};
use crate::{config::TransportKind, dialer::RecordState};

#[test]
fn nodes_that_start_together_find_each_other_at_once_and_each_pair_dials_once() {
    let mut link = Link::new(10, &policy());
    link.run(S(2));
    for (n, found) in link.found.iter().enumerate() {
        assert_eq!(found.len(), 9, "node {n}");
    }
    let dials: usize = link.dialed.iter().map(Vec::len).sum();
    assert_eq!(dials, 10 * 9 / 2);
}

#[test]
fn peers_that_go_on_answering_are_known_for_ever_at_a_few_packets_a_minute() {
    let mut link = Link::new(5, &policy());
    link.run(S(60));
    let before = link.packets;
    link.run(S(24 * 3600));
    assert!(link.found.iter().all(|found| found.len() == 4), "{:?}", link.found);
    let per_hour = (link.packets - before) / 24;
    // There is a query at least every 5 minutes, five answer.
    assert!((60..200).contains(&per_hour), "{per_hour} packets an hour");
}

#[test]
fn a_peer_that_fell_silent_is_asked_for_three_times_and_then_forgotten() {
    let mut link = Link::new(2, &policy());
    link.run(S(5));
    link.nodes.pop();
    let before = link.packets;
    link.run(S(600));
    assert!(link.found[0].is_empty());
    // Its own question and what it answers itself, each time.
    assert!((6..30).contains(&(link.packets - before)), "{}", link.packets - before);
}

#[test]
fn who_takes_leave_is_forgotten_within_a_second_or_two() {
    let mut link = Link::new(2, &policy());
    link.run(S(5));
    link.nodes[1].stop();
    link.run(S(2));
    assert!(link.found[0].is_empty());
    assert_eq!(link.nodes[1].deadline(), None, "it has nothing left to do");
}

#[test]
fn an_answer_has_the_addresses_of_its_segment_and_no_others() {
    let now = Instant::now();
    let me = PeerId::random();
    let mut node = Discovery::new(me, policy(), fastrand::Rng::with_seed(3), now);
    let lan = |addr: &str| interface(addr, 24);
    node.on_segment(eth(), vec![lan("10.0.0.1"), lan("10.0.0.9")], now);
    node.on_segment(segment("eth1", false), vec![lan("172.18.0.3")], now);
    node.on_segment(segment("eth0", true), vec![interface("fd00::1", 64)], now);
    node.on_segment(segment("lo", false), vec![interface("127.0.0.1", 8)], now);
    node.on_segment(segment("eth2", false), vec![lan("10.9.0.1")], now);
    let own = [
        "/ip4/10.0.0.1/udp/4001/quic-v1",
        "/ip4/10.0.0.9/tcp/4001",
        "/ip4/10.0.0.200/tcp/4001",
        "/ip4/172.18.0.3/udp/4001/quic-v1",
        "/ip4/127.3.2.1/udp/4001/quic-v1",
        "/ip6/fd00::1/udp/4001/quic-v1",
        "/ip6/::1/udp/4001/quic-v1",
        "/memory/7",
    ];
    node.on_own_addresses(own.iter().map(|a| at(a)), now);
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, action) in play(&mut node, &mut now.clone(), now + MS(200)) {
        let Action::Send(segment, bytes) = action else { panic!("{action:?}") };
        if let wire::Packet::Answer(claims) = wire::read(&bytes).unwrap() {
            let all = claims.iter().map(|c| format!("{} {}", c.over, c.at)).collect();
            assert!(claims.iter().all(|c| c.peer == me && c.ttl == 360));
            assert!(said.insert(segment.to_string(), all).is_none(), "{segment} twice");
        }
    }
    let expected: BTreeMap<_, Vec<_>> = [
        ("eth0 over IPv4", &["quic 10.0.0.1:4001", "tcp 10.0.0.9:4001"][..]),
        ("eth0 over IPv6", &["quic [fd00::1]:4001"]),
        ("eth1 over IPv4", &["quic 172.18.0.3:4001"]),
        ("lo over IPv4", &["quic 127.3.2.1:4001"]),
    ]
    .map(|(name, all)| (name.to_owned(), all.iter().map(ToString::to_string).collect()))
    .into();
    assert_eq!(said, expected);
}

#[test]
fn only_what_can_be_on_the_link_is_believed() {
    let start = Instant::now();
    let peer = PeerId::random();
    for (address, believed) in [
        ("/ip4/10.0.0.7/udp/4001/quic-v1", true),
        ("/ip4/10.0.0.7/tcp/4001", true),
        ("/ip4/10.0.1.7/udp/4001/quic-v1", false),
        ("/ip4/8.8.8.8/udp/4001/quic-v1", false),
        ("/ip4/127.0.0.1/udp/4001/quic-v1", false),
        ("/ip4/0.0.0.0/udp/4001/quic-v1", false),
        ("/ip4/224.0.0.251/udp/5353/quic-v1", false),
        ("/ip4/255.255.255.255/udp/4001/quic-v1", false),
        ("/ip4/10.0.0.1/udp/4001/quic-v1", false), // where this node is
        ("/ip4/10.0.0.1/udp/4002/quic-v1", true),  // another process of this host
        ("/ip6/fe80::1/udp/4001/quic-v1", false),
        ("/ip6/fd00::1/udp/4001/quic-v1", false),
    ] {
        let mut node = node(policy(), start);
        node.on_packet(&eth(), &announcement(&peer, &[address], 60), start);
        assert_eq!(discovered(&notices(&mut node)), usize::from(believed), "{address}");
    }
    let mut node = node(Policy { transports: vec![TransportKind::Quic], ..policy() }, start);
    node.on_packet(&eth(), &announcement(&peer, &["/ip4/10.0.0.7/tcp/4001"], 60), start);
    node.on_packet(&eth(), &announcement(&node.id(), &["/ip4/10.0.0.7/udp/4001/quic-v1"], 60), start);
    assert_eq!(discovered(&notices(&mut node)), 0, "not dialed over; this node itself");
}

#[test]
fn a_peer_is_dialed_until_it_is_connected_and_again_when_it_is_lost() {
    let start = Instant::now();
    let mut now = start;
    let mut node = node(policy(), start);
    let peer = larger(node.id());
    let address = "/ip4/10.0.0.7/udp/4001/quic-v1";
    node.on_packet(&eth(), &announcement(&peer, &[address], 4500), now);
    let dials = |done: Vec<(Instant, Action)>| {
        done.into_iter().filter(|(_, a)| matches!(a, Action::Dial(..))).map(|(at, _)| at).collect::<Vec<_>>()
    };
    let failed = || Fault::Failed("no answer".into(), vec![at(address)]);
    let mut last = start;
    for n in 0..10 {
        let round = dials(play(&mut node, &mut now, last + S(31)));
        let [at] = round.as_slice() else { panic!("round {n}: {round:?}") };
        assert!(n > 0 || *at == start, "immediately");
        last = *at;
        now = last + MS(1);
        node.on_dial_failed(peer, failed(), now);
    }
    let seen = notices(&mut node);
    let news = seen.iter().filter(|n| matches!(n, Notice::DialFailed { repeated: false, .. })).count();
    let again = seen.iter().filter(|n| matches!(n, Notice::DialFailed { repeated: true, .. })).count();
    assert_eq!((news, again), (1, 9));
    assert_eq!(dials(play(&mut node, &mut now, last + S(31))).len(), 1);
    node.on_connected(peer, now);
    assert_eq!(node.status(now).records[0].state, RecordState::Connected);
    let hour = now + S(3600);
    assert!(dials(play(&mut node, &mut now, hour)).is_empty(), "it is connected");
    node.on_packet(&eth(), &announcement(&peer, &[address], 4500), now);
    node.on_disconnected(peer, now);
    let end = now + S(1);
    assert_eq!(dials(play(&mut node, &mut now, end)).len(), 1, "it was lost");
    // Kept out by a rule: not asked again soon.
    node.on_dial_failed(peer, Fault::Denied("kept out".into()), now);
    let end = now + S(29);
    assert!(dials(play(&mut node, &mut now, end)).is_empty());
}

#[test]
fn of_two_that_find_each_other_simultaneously_the_smaller_dials_first() {
    let start = Instant::now();
    let mut node = node(policy(), start);
    let peer = std::iter::repeat_with(PeerId::random).find(|id| *id < node.id()).unwrap();
    node.on_packet(&eth(), &announcement(&peer, &["/ip4/10.0.0.7/udp/4001/quic-v1"], 60), start);
    let done = play(&mut node, &mut start.clone(), start + S(1));
    let dialed = done.iter().find(|(_, a)| matches!(a, Action::Dial(..))).unwrap().0;
    assert_eq!(dialed, start + YIELD);
}

#[test]
fn a_flood_of_peers_is_kept_within_its_bounds_and_those_who_do_not_answer_make_room() {
    let start = Instant::now();
    let mut node = node(policy(), start);
    let mut seen = Vec::new();
    for n in 0..5000_u32 {
        let now = start + MS(u64::from(n));
        let ip = format!("/ip4/10.0.0.{}/udp/{}/quic-v1", n % 250 + 2, n % 60_000 + 1);
        node.on_packet(&eth(), &announcement(&PeerId::random(), &[&ip], u32::MAX), now);
        seen.extend(notices(&mut node));
    }
    let now = start + S(5);
    assert_eq!(node.status(now).records.len(), 32, "mdns.max_peers");
    assert!(discovered(&seen) < 400, "{} lines", discovered(&seen));
    assert_eq!(seen.iter().filter(|n| matches!(n, Notice::Flood(_))).count(), 1);
    // At most so many simultaneous dials; the first that failed gives way to a new one.
    let dialed: Vec<_> = std::iter::from_fn(|| node.poll(now))
        .filter_map(|action| match action {
            Action::Dial(peer, addresses) => Some((peer, addresses)),
            Action::Send(..) => None,
        })
        .collect();
    assert_eq!(dialed.len(), 4, "dial.parallel");
    node.on_dial_failed(dialed[0].0, Fault::Failed("no answer".into(), dialed[0].1.clone()), now);
    let honest = PeerId::random();
    let later = start + S(60);
    node.on_packet(&eth(), &announcement(&honest, &["/ip4/10.0.0.7/tcp/4001"], 60), later);
    let records = node.status(later).records;
    assert_eq!(records.len(), 32);
    assert!(records.iter().any(|r| r.peer == Some(honest)));
    assert!(records.iter().all(|r| r.peer != Some(dialed[0].0)));
    // A peer that is announced for ever is believed for a while.
    let after = later + MAX_TTL;
    play(&mut node, &mut later.clone(), after);
    assert_eq!(node.status(after).records.len(), 0);
}

#[test]
fn the_addresses_of_one_peer_are_bounded_and_those_that_failed_make_room() {
    let start = Instant::now();
    let mut node = node(policy(), start);
    let peer = larger(node.id());
    let all: Vec<_> = (1..=100).map(|port| format!("/ip4/10.0.0.66/udp/{port}/quic-v1")).collect();
    for chunk in all.chunks(5) {
        let chunk: Vec<_> = chunk.iter().map(String::as_str).collect();
        node.on_packet(&eth(), &announcement(&peer, &chunk, 600), start);
    }
    assert_eq!(node.status(start).records.len(), MAX_ADDRESSES);
    let dial = std::iter::from_fn(|| node.poll(start)).find_map(|action| match action {
        Action::Dial(_, addresses) => Some(addresses),
        Action::Send(..) => None,
    });
    node.on_dial_failed(peer, Fault::Failed("another peer".into(), dial.unwrap()), start);
    let right = "/ip4/10.0.0.7/udp/4001/quic-v1";
    node.on_packet(&eth(), &announcement(&peer, &[right], 600), start);
    let records = node.status(start).records;
    assert!(records.len() == MAX_ADDRESSES && records.iter().any(|r| r.address == at(right)));
    assert!(NEW_BURST as usize > MAX_ADDRESSES);
}

#[test]
fn an_interface_that_goes_takes_what_was_found_there_with_it() {
    let start = Instant::now();
    let mut node = node(policy(), start);
    let other = segment("eth1", false);
    node.on_segment(other.clone(), vec![interface("10.1.0.1", 24)], start);
    let (here, there) = (PeerId::random(), PeerId::random());
    node.on_packet(&eth(), &announcement(&here, &["/ip4/10.0.0.7/tcp/4001"], 600), start);
    node.on_packet(&other, &announcement(&there, &["/ip4/10.1.0.7/tcp/4001"], 600), start);
    notices(&mut node);
    node.on_segment_gone(&other);
    let expired = Notice::Expired { peer: there, address: at("/ip4/10.1.0.7/tcp/4001") };
    assert_eq!(notices(&mut node), [expired]);
    let records = node.status(start).records;
    assert_eq!(records.iter().map(|r| r.peer).collect::<Vec<_>>(), [Some(here)]);
    // Back again, with another address: it is asked there anew, and what is new is reported.
    node.on_segment(other.clone(), vec![interface("10.1.0.2", 24)], start);
    let done = play(&mut node, &mut start.clone(), start + MS(200));
    assert!(done.iter().any(|(_, a)| *a == Action::Send(other.clone(), wire::question())), "{done:?}");
}

#[test]
fn trouble_on_a_link_is_told_once_and_so_is_its_end() {
    let start = Instant::now();
    let mut node = node(policy(), start);
    let mut now = start;
    for _ in 0..10 {
        let end = now + S(5);
        for (at, action) in play(&mut node, &mut now, end) {
            if matches!(action, Action::Send(..)) {
                node.on_sent(&eth(), Ok(()), at);
            }
        }
    }
    let troubles = |seen: &[Notice]| seen.iter().filter(|n| matches!(n, Notice::Trouble { .. })).count();
    assert_eq!(troubles(&notices(&mut node)), 1, "nothing came back");
    assert!(node.status(now).last_error.unwrap().starts_with("eth0 over IPv4: not even"));
    node.on_packet(&eth(), &wire::question(), now);
    assert_eq!(notices(&mut node), [Notice::Recovered(eth())]);
    assert_eq!(node.status(now).last_error, None);
    for _ in 0..10 {
        node.on_sent(&eth(), Err("not permitted".into()), now);
    }
    assert_eq!(troubles(&notices(&mut node)), 1);
}

proptest! {
    #[test]
    fn whatever_is_heard_nothing_is_kept_beyond_its_bounds(
        packets in proptest::collection::vec(
            (0_u8..6, any::<u16>(), 0_u32..5000, proptest::collection::vec(any::<u8>(), 0..80), 0_u64..3000),
            0..120,
        ),
    ) {
        let mut now = Instant::now();
        let mut node = node(Policy { max_peers: 5, ..policy() }, now);
        let peers: Vec<_> = (0..12).map(|_| PeerId::random()).collect();
        for (kind, pick, ttl, noise, pause) in packets {
            let peer = peers[usize::from(pick) % peers.len()];
            let bytes = match kind {
                0 => noise,
                1 => wire::question(),
                2 => wire::types(ttl),
                _ => {
                    let ip = format!("/ip4/10.0.0.{}/udp/{}/quic-v1", pick % 250 + 2, pick / 97 + 1);
                    let mut bytes = announcement(&peer, &[&ip], ttl);
                    if kind == 3 && !noise.is_empty() {
                        let at = usize::from(pick) % bytes.len();
                        bytes[at] = noise[0];
                    }
                    bytes
                }
            };
            node.on_packet(&eth(), &bytes, now);
            let end = now + MS(pause);
            for (_, action) in play(&mut node, &mut now, end) {
                if let Action::Dial(peer, addresses) = action {
                    prop_assert!(!addresses.is_empty() && addresses.len() <= MAX_ADDRESSES);
                    match pick % 3 {
                        0 => node.on_dial_failed(peer, Fault::Failed("no".into(), addresses), now),
                        1 => node.on_connected(peer, now),
                        _ => node.on_dial_failed(peer, Fault::Elsewhere, now),
                    }
                }
            }
            let records = node.status(now).records;
            let mut known: Vec<_> = records.iter().map(|r| r.peer).collect();
            known.dedup();
            prop_assert!(known.len() <= 5 && records.len() <= 5 * MAX_ADDRESSES);
        }
        play(&mut node, &mut now.clone(), now + MAX_TTL);
        prop_assert_eq!(node.status(now + MAX_TTL).records.len(), 0);
    }
}
