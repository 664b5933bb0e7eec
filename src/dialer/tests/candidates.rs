//! A record that is reached over more than one transport.

use super::*;
use crate::config::TransportKind::{self, Quic, Tcp};

fn tcp(n: u32) -> Multiaddr {
    Multiaddr::from(Ipv4Addr::from(0x0a00_0b00 + n)).with(Protocol::Tcp(4001))
}

/// A world in which names are dialed over both, and the name of the one record in it.
fn both(preferred: [TransportKind; 2]) -> (World, Target) {
    let policy = Policy { transports: preferred.to_vec(), ..Policy::default() };
    let mut world = World::with(3, policy);
    let peer = name("peer");
    world.names.insert(peer.clone(), vec![tcp(1), at(1)]);
    world.watch(&peer);
    (world, peer)
}

/// UDP to the record falls into silence: its dials fail after five seconds.
fn without_udp(world: &mut World) {
    world.slow.insert(at(1), S(5));
}

fn answers_over(world: &mut World, address: Multiaddr, peer: PeerId) {
    world.replicas.insert(address, peer);
}

#[test]
fn the_preferred_way_that_answers_is_the_only_one_dialed() {
    for preferred in [[Quic, Tcp], [Tcp, Quic]] {
        let (mut world, _) = both(preferred);
        let peer = PeerId::random();
        answers_over(&mut world, at(1), peer);
        answers_over(&mut world, tcp(1), peer);
        world.run(S(60));
        let first = if preferred[0] == Quic { at(1) } else { tcp(1) };
        assert_eq!(world.dials.iter().map(|(_, a)| a).collect::<Vec<_>>(), [&first]);
        assert_eq!(world.states().get(&first), Some(&(RecordState::Connected, Some(peer))));
        assert_eq!(world.states().len(), 1, "two ways, one record");
    }
}

#[test]
fn silence_gives_way_to_the_next_transport_after_the_fallback_and_a_refusal_at_once() {
    for (silent, after) in [(true, Policy::default().fallback), (false, MS(2))] {
        let (mut world, _) = both([Quic, Tcp]);
        if silent {
            without_udp(&mut world);
        }
        answers_over(&mut world, tcp(1), PeerId::random());
        world.run(S(60));
        let [(began, first), (then, second)] = world.dials.as_slice() else {
            panic!("{:?}", world.dials);
        };
        assert_eq!((first, second), (&at(1), &tcp(1)));
        assert_eq!(*then - *began, after);
        // The status says by which way it is connected.
        assert!(matches!(world.states().get(&tcp(1)), Some((RecordState::Connected, Some(_)))));
        assert!(!world.notices.iter().any(|(_, n)| matches!(n, Notice::DialFailed { .. })));
    }
}

#[test]
fn when_every_way_fails_that_is_one_failure_with_all_the_reasons() {
    let (mut world, _) = both([Quic, Tcp]);
    world.run(S(3600));
    let failed: Vec<_> = world
        .notices
        .iter()
        .filter_map(|(_, n)| match n {
            Notice::DialFailed { reason, repeated, address, .. } => {
                Some((reason.as_str(), *repeated, address))
            }
            _ => None,
        })
        .collect();
    assert_eq!(failed[0], ("refused; refused", false, &at(1)));
    assert!(failed[1..].iter().all(|(_, repeated, _)| *repeated), "reported once");
    assert_eq!(world.dials.len(), 2 * failed.len(), "each way once a round");
    let status = world.reconciler.status(world.now);
    assert_eq!(status[0].records[0].failures as usize, failed.len());
}

#[test]
fn a_way_that_is_still_being_dialed_is_not_dialed_again_beside_itself() {
    let (mut world, _) = both([Quic, Tcp]);
    world.slow.insert(at(1), S(120));
    answers_over(&mut world, tcp(1), PeerId::random());
    world.run(S(1));
    // Connections over TCP come and go while the dial over UDP still has no outcome.
    for _ in 0..5 {
        let connection = *world.connections.keys().next().expect("connected over TCP");
        world.due.push((world.now, Due::Lost(connection)));
        world.run(S(2));
    }
    assert_eq!(world.dials_of(1).len(), 1);
    assert!(world.connections.len() == 1 && world.dials.len() >= 6, "{:?}", world.dials);
}

#[test]
fn new_connections_are_over_quic_once_udp_is_back() {
    let (mut world, _) = both([Quic, Tcp]);
    let peer = PeerId::random();
    without_udp(&mut world);
    answers_over(&mut world, tcp(1), peer);
    world.run(S(60));
    let connection = *world.connections.keys().next().expect("connected over TCP");
    world.slow.clear();
    answers_over(&mut world, at(1), peer);
    world.run(S(600));
    assert_eq!(world.connections.len(), 1, "what is connected is left alone");
    world.due.push((world.now, Due::Lost(connection)));
    world.run(S(2));
    assert_eq!(world.states().get(&at(1)), Some(&(RecordState::Connected, Some(peer))));
    assert!(world.connections.values().all(|(address, _)| *address == at(1)), "{:?}", world.connections);
}

#[test]
fn a_record_that_is_this_node_over_any_way_is_not_dialed() {
    let (mut world, _) = both([Quic, Tcp]);
    world.reconciler.on_own_addresses([tcp(1)], world.now);
    world.run(S(60));
    assert_eq!(world.dials, []);
    assert_eq!(world.states().get(&at(1)).map(|(state, _)| *state), Some(RecordState::Own));
}

#[test]
fn a_peer_that_is_gone_is_forgotten_at_all_its_ways() {
    let (mut world, peer) = both([Quic, Tcp]);
    let (old, new) = (PeerId::random(), PeerId::random());
    answers_over(&mut world, at(1), old);
    world.run(S(1));
    answers_over(&mut world, at(1), new);
    let connection = *world.connections.keys().next().expect("connected");
    world.due.push((world.now, Due::Lost(connection)));
    world.run(S(5));
    for way in [at(1), tcp(1)] {
        assert!(world.forgotten.contains(&(old, Some(way))), "{:?}", world.forgotten);
    }
    // No name leads there any more, and then no peer is there any more.
    world.names.insert(peer, vec![]);
    world.run(S(10));
    let connection = *world.connections.keys().next().expect("connected");
    world.due.push((world.now, Due::Lost(connection)));
    world.run(S(100));
    assert!(world.forgotten.contains(&(new, None)), "{:?}", world.forgotten);
    assert_eq!(world.states().len(), 0);
}

#[test]
fn a_peer_that_moved_with_its_key_is_forgotten_at_all_ways_to_where_it_was() {
    // Its old record goes before its old connection does, or after.
    for record_goes_first in [true, false] {
        let (mut world, name) = both([Quic, Tcp]);
        let peer = PeerId::random();
        without_udp(&mut world);
        answers_over(&mut world, tcp(1), peer);
        world.run(S(60));
        let old = *world.connections.keys().next().expect("connected over TCP");
        world.replicas.clear();
        answers_over(&mut world, at(2), peer);
        let both = vec![tcp(1), at(1), at(2), tcp(2)];
        world.names.insert(name.clone(), if record_goes_first { vec![at(2), tcp(2)] } else { both });
        world.run(S(10));
        assert!(world.is_connected(2) && world.forgotten.is_empty(), "{:?}", world.forgotten);
        world.due.push((world.now, Due::Lost(old)));
        world.run(S(1));
        if !record_goes_first {
            assert!(world.forgotten.is_empty(), "a record still leads there");
            world.names.insert(name, vec![at(2), tcp(2)]);
            world.run(S(7));
        }
        assert_eq!(world.forgotten, [(peer, Some(at(1))), (peer, Some(tcp(1)))]);
        assert!(world.is_connected(2));
        // Nothing of the old record is left that a connection could be taken for.
        assert!(!world.reconciler.is_one_record(&at(1), &tcp(1)));
        assert!(world.reconciler.is_one_record(&at(2), &tcp(2)));
    }
}

#[test]
fn a_peer_that_loses_one_of_two_ways_to_one_record_has_not_moved() {
    let (mut world, name) = both([Quic, Tcp]);
    let peer = PeerId::random();
    answers_over(&mut world, at(1), peer);
    world.run(S(1));
    world.connect(tcp(1), peer);
    let over_quic = *world.connections.iter().find(|(_, (a, _))| *a == at(1)).expect("a connection").0;
    world.due.push((world.now, Due::Lost(over_quic)));
    world.run(S(10));
    // The record goes, and the peer is where it was, over TCP.
    world.names.insert(name, vec![]);
    world.run(S(60));
    assert_eq!(world.forgotten, []);
    let over_tcp = *world.connections.keys().next().expect("still connected");
    world.due.push((world.now, Due::Lost(over_tcp)));
    world.run(S(1));
    assert_eq!(world.forgotten, [(peer, None)]);
}

#[test]
fn a_record_that_goes_while_it_is_dialed_is_tried_by_no_further_way() {
    let (mut world, name) = both([Quic, Tcp]);
    without_udp(&mut world);
    world.run(MS(100));
    assert_eq!(world.dials.len(), 1);
    world.reconciler.set_targets([], world.now);
    world.run(S(60));
    assert_eq!(world.dials.len(), 1, "{name}: {:?}", world.dials);
    assert_eq!(world.states().len(), 0);
}

#[test]
fn a_peers_known_addresses_of_one_socket_are_one_record_and_dropped_as_one() {
    let mut world = World::with(3, Policy { transports: vec![Quic, Tcp], ..Policy::default() });
    let (there, never) = (PeerId::random(), PeerId::random());
    answers_over(&mut world, at(1), there);
    answers_over(&mut world, tcp(1), there);
    let known = [(never, tcp(2)), (there, tcp(1)), (never, at(2)), (there, at(1))];
    world.reconciler.try_known(known, world.now);
    world.run(S(100));
    assert_eq!(world.connections.values().map(|(a, _)| a).collect::<Vec<_>>(), [&at(1)], "over QUIC alone");
    let (quic, over_tcp) =
        (world.dials_of(2).len(), world.dials.iter().filter(|(_, a)| *a == tcp(2)).count());
    assert!(quic == over_tcp && quic > 3, "each way was tried: {quic} {over_tcp}");
    assert_eq!(world.forgotten, [(never, Some(at(2))), (never, Some(tcp(2)))]);
}

#[test]
fn a_name_takes_over_a_record_that_was_known_by_another_way() {
    // Known over TCP only, and connected; under way; or waiting: the name has QUIC, too.
    for (answers, slow) in [(true, false), (true, true), (false, false)] {
        let mut world = World::with(3, Policy { transports: vec![Quic, Tcp], ..Policy::default() });
        let (peer, name) = (PeerId::random(), name("peer"));
        if answers {
            answers_over(&mut world, tcp(1), peer);
        }
        if slow {
            world.slow.insert(tcp(1), S(3));
        }
        world.reconciler.try_known([(peer, tcp(1))], world.now);
        world.run(S(1));
        let before = world.dials.len();
        world.names.insert(name.clone(), vec![at(1), tcp(1)]);
        world.watch(&name);
        world.run(S(100));
        assert_eq!(world.states().len(), 1);
        assert_eq!(world.forgotten, [], "the name says that somebody is there");
        if answers {
            let way = world.states().into_iter().next();
            assert_eq!(way, Some((tcp(1), (RecordState::Connected, Some(peer)))));
            let over_tcp = world.dials.iter().filter(|(_, a)| *a == tcp(1)).count();
            assert_eq!((before, over_tcp, world.connections.len()), (1, 1, 1), "{:?}", world.dials);
        }
        // Gone with the name, and nothing of it goes on as known.
        world.names.insert(name, vec![]);
        let connections: Vec<_> = world.connections.keys().copied().collect();
        world.due.extend(connections.into_iter().map(|connection| (world.now, Due::Lost(connection))));
        world.replicas.clear();
        world.run(S(40));
        let dials = world.dials.len();
        world.run(S(600));
        assert_eq!(world.dials.len(), dials);
        assert_eq!(world.forgotten.len(), usize::from(answers), "{:?}", world.forgotten);
    }
}

proptest! {
    #[test]
    fn whichever_ways_answer_and_whenever_a_record_is_connected_soon_after_one_does(
        seed: u64,
        slow in (0_u64..6000, 0_u64..6000),
        answer in 0_u8..3,
        outage in 0_u64..30,
    ) {
        let (mut world, _) = both([Quic, Tcp]);
        world.reconciler = Reconciler::new(
            Policy { transports: vec![Quic, Tcp], retry_max: S(5), ..Policy::default() },
            fastrand::Rng::with_seed(seed),
        );
        world.watch(&name("peer"));
        world.slow.insert(at(1), MS(slow.0));
        world.slow.insert(tcp(1), MS(slow.1));
        world.run(S(outage));
        let peer = PeerId::random();
        if answer != 0 {
            answers_over(&mut world, at(1), peer);
        }
        if answer != 1 {
            answers_over(&mut world, tcp(1), peer);
        }
        // A round that is under way, a pause, and a round: each bounded.
        world.run(S(30));
        prop_assert!(world.connections.values().any(|(_, p)| *p == peer), "{:?}", world.dials);
        let connected = world.states().values().any(|s| *s == (RecordState::Connected, Some(peer)));
        prop_assert!(connected, "{:?}", world.states());
    }
}
