//! The reconciler in a simulated world: name servers, replicas and links as values, hours in
//! milliseconds, every run repeatable from its seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::ConnectionId};
use proptest::prelude::*;

use super::{
    action::{Action, Answer, DialFault, Notice, Policy},
    planner::Neighbours,
    reconciler::Reconciler,
    status::{Hold, RecordState},
};
use crate::config::Target;

mod answers;
mod candidates;
mod dnsaddr;
mod known;
mod large;
mod own;
mod property;
mod world;

use world::*;

const MS: fn(u64) -> Duration = Duration::from_millis;
const S: fn(u64) -> Duration = Duration::from_secs;

#[test]
fn a_late_name_is_connected_within_its_pause_and_a_moment() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        let bootstrap = name("bootstrap");
        world.names.insert(bootstrap.clone(), vec![]);
        world.watch(&bootstrap);
        world.run(S(20) + MS(seed * 13));
        world.names.insert(bootstrap, records([5]));
        world.start_replica(5);
        world.run(MS(1010));
        assert!(world.is_connected(5), "seed {seed}: {:?}", world.states());
    }
}

#[test]
fn looking_for_a_name_is_eager_at_first_and_steady_then() {
    let mut world = World::new(1);
    let bootstrap = name("bootstrap");
    world.names.insert(bootstrap.clone(), vec![]);
    world.watch(&bootstrap);
    world.run(S(60));
    let gaps: Vec<_> = world.lookups.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps[0] <= MS(103) && gaps[1] <= MS(203), "{gaps:?}");
    assert!(gaps.iter().all(|g| *g <= MS(1003)), "{gaps:?}");
    assert!(world.lookups.len() < 90, "{} questions in a minute", world.lookups.len());
    let notices: Vec<_> = world.notices.iter().map(|(_, n)| n).collect();
    let fresh = notices.iter().filter(|n| matches!(n, Notice::NotResolved { repeated: false, .. })).count();
    assert_eq!(fresh, 1, "one line says it, the rest is for debugging");
}

#[test]
fn every_record_is_dialed_a_bounded_number_at_a_time() {
    let neighbours = Neighbours { full: 200, ..Policy::default().neighbours };
    let mut world = World::with(1, Policy { neighbours, ..Policy::default() });
    let peer = name("peer");
    world.names.insert(peer.clone(), records(0..200));
    (0..200).for_each(|n| {
        world.start_replica(n);
    });
    world.watch(&peer);
    world.run(S(1));
    assert!((0..200).all(|n| world.is_connected(n)));
    assert_eq!(world.dialing_peak, Policy::default().parallel);
    assert_eq!(world.dials.len(), 200, "one dial each");
    world.run(S(60));
    assert_eq!(world.dials.len(), 200, "what is connected is left alone");
}

#[test]
fn a_dead_record_is_dialed_for_ever_and_less_and_less_often() {
    let mut world = World::new(7);
    let peer = name("peer");
    world.names.insert(peer.clone(), records([1]));
    world.watch(&peer);
    world.run(S(3600));
    let dials = world.dials_of(1);
    let gaps: Vec<_> = dials.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps[0] >= MS(75) && gaps[0] <= MS(110), "{gaps:?}");
    assert!(gaps.iter().all(|g| *g <= S(31)));
    assert!(dials.len() > 120 && dials.len() < 1000, "{}", dials.len());
    let fresh = world.notices.iter().filter(|(_, n)| matches!(n, Notice::DialFailed { repeated: false, .. }));
    assert_eq!(fresh.count(), 1, "the same failure is reported once");
    world.start_replica(1);
    world.run(S(31));
    assert!(world.is_connected(1));
}

#[test]
fn replicas_that_come_and_go_are_followed() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.names.insert(peer.clone(), records([1, 2]));
    let one = world.start_replica(1);
    world.start_replica(2);
    world.watch(&peer);
    world.run(S(1));
    // Scaled up by one, and 1 moves to 4 with its old record still there for a while.
    world.start_replica(3);
    world.start_replica(4);
    world.kill(1, S(6));
    world.names.insert(peer.clone(), records([1, 2, 3, 4]));
    world.run(S(7));
    assert!(world.is_connected(2) && world.is_connected(3) && world.is_connected(4));
    world.names.insert(peer, records([2, 3, 4]));
    world.run(S(7));
    assert!(world.forgotten.contains(&(one, None)), "{:?}", world.forgotten);
    assert!(!world.states().contains_key(&at(1)));
    let last = world.dials_of(1).last().copied();
    world.run(S(120));
    assert_eq!(world.dials_of(1).last().copied(), last, "a record that went is not dialed");
}

#[test]
fn a_new_key_at_an_old_address_is_adopted_and_said_once() {
    let mut world = World::new(3);
    let bootstrap = name("bootstrap");
    world.names.insert(bootstrap.clone(), records([1]));
    let old = world.start_replica(1);
    world.watch(&bootstrap);
    world.run(S(1));
    world.kill(1, S(6));
    let new = world.start_replica(1);
    world.run(S(10));
    assert!(world.is_connected(1));
    let replaced: Vec<_> =
        world.notices.iter().filter(|(_, n)| matches!(n, Notice::Replaced { .. })).map(|(_, n)| n).collect();
    assert_eq!(replaced, [&Notice::Replaced { address: at(1), old, new }]);
    assert!(world.forgotten.contains(&(old, None)), "{:?}", world.forgotten);
}

#[test]
fn a_new_key_that_dials_us_first_replaces_the_old_one_before_its_link_is_noticed_dead() {
    let mut world = World::new(3);
    let bootstrap = name("bootstrap");
    world.names.insert(bootstrap.clone(), records([1]));
    let old = world.start_replica(1);
    world.watch(&bootstrap);
    world.run(S(1));
    world.kill(1, S(6));
    let new = world.start_replica(1);
    world.connect(at(1), new);
    world.run(S(1));
    assert!(world.is_connected(1));
    assert_eq!(world.forgotten, [(old, Some(at(1)))], "not to be found there any more");
    world.run(S(6));
    assert!(world.forgotten.contains(&(old, None)), "{:?}", world.forgotten);
    assert!(world.is_connected(1));
}

#[test]
fn who_hangs_up_as_soon_as_a_connection_stands_is_dialed_ever_more_seldom_and_who_stays_is_not() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.names.insert(peer.clone(), records([1]));
    world.start_replica(1);
    world.watch(&peer);
    let hang_up = |world: &mut World, span: Duration| {
        let end = world.now + span;
        while world.now < end {
            world.run(MS(10));
            let connections: Vec<_> = world.connections.keys().copied().collect();
            for connection in connections {
                world.connections.remove(&connection);
                world.reconciler.on_disconnected(connection, world.now);
            }
        }
        world.dials_of(1).len()
    };
    let dials = hang_up(&mut world, S(600));
    assert!((25..90).contains(&dials), "{dials} dials in ten minutes");
    world.run(S(60));
    assert!(world.is_connected(1));
    // It stayed for a while: its next absence is a restart.
    world.run(S(20));
    let lost = *world.connections.keys().next().unwrap();
    world.connections.remove(&lost);
    world.reconciler.on_disconnected(lost, world.now);
    world.run(MS(200));
    assert!(world.is_connected(1));
}

#[test]
fn a_lost_connection_asks_the_name_at_once() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.names.insert(peer.clone(), records([1]));
    world.start_replica(1);
    world.watch(&peer);
    world.run(S(2));
    let asked = world.lookups.len();
    world.kill(1, MS(0));
    world.start_replica(2);
    world.names.insert(peer, records([2]));
    world.run(MS(20));
    assert_eq!(world.lookups.len(), asked + 1);
    assert!(world.is_connected(2), "{:?}", world.states());
    assert!(world.dials_of(1).len() == 1, "the answer came before the dead record was dialed again");
}

#[test]
fn a_name_server_in_trouble_changes_nothing() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.names.insert(peer.clone(), records([1, 2]));
    world.start_replica(1);
    world.start_replica(2);
    world.watch(&peer);
    world.run(S(2));
    world.names.remove(&peer);
    world.kill(2, MS(0));
    world.start_replica(2);
    world.run(S(60));
    assert!(world.is_connected(1) && world.is_connected(2));
}

#[test]
fn a_record_that_went_stays_connected_for_as_long_as_it_answers() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.names.insert(peer.clone(), records([1]));
    let one = world.start_replica(1);
    world.watch(&peer);
    world.run(S(2));
    world.names.insert(peer, vec![]);
    world.run(S(60));
    assert!(!world.connections.is_empty() && world.forgotten.is_empty());
    world.kill(1, S(0));
    world.run(S(1));
    assert_eq!(world.forgotten, [(one, None)]);
}

#[test]
fn a_peer_that_moved_with_its_key_is_forgotten_where_it_was() {
    // Its old record goes before its old connection does, or after.
    for record_goes_first in [true, false] {
        let mut world = World::new(3);
        let bootstrap = name("bootstrap");
        world.names.insert(bootstrap.clone(), records([1]));
        let peer = world.start_replica(1);
        world.watch(&bootstrap);
        world.run(S(1));
        world.kill(1, S(20));
        world.replicas.insert(at(2), peer);
        let first = if record_goes_first { records([2]) } else { records([1, 2]) };
        world.names.insert(bootstrap.clone(), first);
        world.run(S(10));
        assert!(world.is_connected(2) && world.forgotten.is_empty(), "{:?}", world.forgotten);
        world.run(S(11));
        if !record_goes_first {
            assert!(world.forgotten.is_empty(), "a record still leads there");
            world.names.insert(bootstrap, records([2]));
            world.run(S(7));
        }
        assert_eq!(world.forgotten, [(peer, Some(at(1)))]);
        assert!(world.is_connected(2));
        world.kill(2, S(0));
        world.run(S(60));
        assert!(world.dials_of(1).len() == 1 && world.dials_of(2).len() > 1, "{:?}", world.dials);
    }
}

#[test]
fn a_peer_that_loses_one_of_two_connections_to_one_place_has_not_moved() {
    let mut world = World::new(3);
    let one = PeerId::random();
    world.connect(at(9), one);
    let mut twice = world.connections.keys().copied().collect::<Vec<_>>();
    world.connect(at(9), one);
    world.due.push((world.now, Due::Lost(twice.remove(0))));
    world.run(S(120));
    assert!(world.forgotten.is_empty(), "{:?}", world.forgotten);
}

#[test]
fn a_peer_that_no_name_leads_to_is_forgotten_after_a_while() {
    let mut world = World::new(3);
    let stranger = PeerId::random();
    world.connect(at(9), stranger);
    world.run(S(1));
    world.kill(9, S(0));
    world.run(S(59));
    assert!(world.forgotten.is_empty());
    world.run(S(2));
    assert_eq!(world.forgotten, [(stranger, None)]);
}

#[test]
fn a_stranger_that_comes_back_in_time_is_kept() {
    let mut world = World::new(3);
    let stranger = PeerId::random();
    world.connect(at(9), stranger);
    world.kill(9, S(0));
    world.run(S(30));
    world.connect(at(9), stranger);
    world.run(S(120));
    assert!(world.forgotten.is_empty());
}

#[test]
fn a_peer_that_has_enough_connections_counts_as_connected() {
    let mut world = World::new(3);
    let peer = name("peer");
    let one = PeerId::random();
    world.connect(at(77), one);
    world.names.insert(peer.clone(), records([1]));
    world.watch(&peer);
    world.carry_out();
    world.run(MS(3));
    world.reconciler.on_dial_failed(&at(1), DialFault::Enough(one), world.now);
    assert_eq!(world.states()[&at(1)], (RecordState::Connected, Some(one)));
}

#[test]
fn a_claim_is_taken_for_a_free_record_only() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.names.insert(peer.clone(), records([1, 2]));
    let honest = world.start_replica(1);
    world.watch(&peer);
    world.run(S(1));
    let claimant = PeerId::random();
    world.connect(at(50), claimant);
    world.reconciler.on_addresses(claimant, records([1, 2]), world.now);
    assert_eq!(world.states()[&at(1)].1, Some(honest));
    assert_eq!(world.states()[&at(2)], (RecordState::Connected, Some(claimant)));
}

#[test]
fn an_expected_peer_is_dialed_as_such_and_one_record_may_have_two_names() {
    let mut world = World::new(3);
    let one = PeerId::random();
    let fixed = Target::Addr(at(1).with(Protocol::P2p(one)));
    world.watch(&fixed);
    assert_eq!(world.reconciler.poll(world.now), Some(Action::Dial(at(1), Some(one))));
    world.connect(at(1), one);
    let peer = name("peer");
    world.names.insert(peer.clone(), records([1]));
    world.watch(&peer);
    world.run(S(1));
    world.reconciler.set_targets([fixed], world.now);
    world.run(S(1));
    assert_eq!(
        world.states()[&at(1)],
        (RecordState::Connected, Some(one)),
        "the other name still leads there"
    );
    assert!(world.dials.is_empty(), "it was connected already");
}

#[test]
fn an_answer_beyond_all_bounds_is_cut_and_said_so() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.names.insert(peer.clone(), records(0..5000));
    world.watch(&peer);
    world.run(MS(5));
    assert_eq!(world.states().len(), Policy::default().max_records);
    assert!(world.notices.iter().any(|(_, n)| matches!(n, Notice::TooManyRecords { found: 5000, .. })));
}

#[test]
fn targets_are_replaced_while_running() {
    let mut world = World::new(3);
    let (a, b) = (name("a"), name("b"));
    world.names.insert(a.clone(), records([1, 2]));
    world.names.insert(b.clone(), records([2, 3]));
    (1..4).for_each(|n| {
        world.start_replica(n);
    });
    world.watch(&a);
    world.run(S(1));
    world.reconciler.set_targets([b], world.now);
    world.run(S(1));
    assert!(world.is_connected(2) && world.is_connected(3));
    assert!(!world.states().contains_key(&at(1)), "no longer watched, though still connected");
    world.kill(1, S(0));
    world.run(S(60));
    assert_eq!(world.dials_of(1).len(), 1);
}

#[test]
fn failures_that_take_turns_do_not_flood_the_log() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.names.insert(peer.clone(), vec![]);
    world.watch(&peer);
    for n in 0..300 {
        // The text changes with every answer.
        world.reconciler.on_lookup(&peer, Answer::Failed(format!("failure {n}")), world.now);
        world.run(MS(200));
    }
    let fresh =
        world.notices.iter().filter(|(_, n)| matches!(n, Notice::NotResolved { repeated: false, .. }));
    assert!(
        (1..=7).contains(&fresh.count()),
        "a line at first, and one every ten seconds of a minute at most"
    );
}

#[test]
fn a_crowd_of_strangers_is_forgotten_in_time_or_at_once() {
    let mut world = World::new(3);
    for n in 0..5000 {
        world.connect(at(n), PeerId::random());
        world.kill(n, S(0));
        world.run(MS(1));
    }
    assert_eq!(world.forgotten.len(), 5000 - 1024);
    world.run(S(61));
    assert_eq!(world.forgotten.len(), 5000);
}
