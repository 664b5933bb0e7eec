//! Names with more records than are held.

use super::*;

const COUNT: u32 = 100;

fn large(seed: u64) -> (World, Target) {
    let mut world = World::new(seed);
    let peer = name("peer");
    world.names.insert(peer.clone(), records(0..COUNT));
    (0..COUNT).for_each(|n| {
        world.start_replica(n);
    });
    world.watch(&peer);
    (world, peer)
}

fn connected(world: &World) -> Vec<u32> {
    (0..COUNT).filter(|n| world.is_connected(*n)).collect()
}

#[test]
fn of_a_large_name_half_the_neighbours_are_dialed_and_the_rest_if_nobody_else_does() {
    let (mut world, _) = large(1);
    world.run(S(1));
    let chosen = connected(&world);
    assert_eq!((chosen.len(), world.dials.len()), (8, 8));
    let states = world.states();
    assert_eq!(states.len(), 100, "all are known");
    assert_eq!(states.values().filter(|(state, _)| *state == RecordState::Spare).count(), 92);
    // Three that this node did not choose dial it.
    let others: Vec<_> = (0..COUNT).filter(|n| !chosen.contains(n)).take(3).collect();
    for n in &others {
        let peer = world.replicas[&at(*n)];
        world.connect(at(*n), peer);
    }
    world.run(S(60));
    assert_eq!(connected(&world).len(), 16, "five more were dialed");
    let dials = world.dials.len();
    world.run(S(600));
    assert_eq!(world.dials.len(), dials, "a calm world is left alone");
    let status = world.reconciler.status(world.now);
    let count = |hold| status[0].records.iter().filter(|record| record.hold == hold).count();
    assert_eq!((count(Hold::Chosen), count(Hold::Connected), count(Hold::Spare)), (8, 8, 84));
}

#[test]
fn a_spare_takes_the_place_of_one_that_is_lost_and_gives_nothing_up_when_that_returns() {
    for seed in 0..20 {
        let (mut world, _) = large(seed);
        world.run(S(60));
        let dead: Vec<_> = connected(&world).into_iter().take(8).collect();
        dead.iter().for_each(|n| world.kill(*n, MS(0)));
        world.run(S(4));
        assert!(connected(&world).len() >= 16, "seed {seed}: {:?}", connected(&world));
        dead.iter().for_each(|n| {
            world.start_replica(*n);
        });
        world.run(S(60));
        let back = dead.iter().filter(|n| world.is_connected(**n)).count();
        assert!(back >= 1, "seed {seed}: those that would be chosen are tried again");
        assert!(connected(&world).len() <= 24, "seed {seed}");
    }
}

#[test]
fn a_name_that_grows_beyond_the_bound_loses_nothing_and_one_that_shrinks_is_connected_in_full() {
    let (mut world, peer) = large(3);
    world.names.insert(peer.clone(), records(0..32));
    world.run(S(10));
    assert_eq!(connected(&world).len(), 32);
    world.names.insert(peer.clone(), records(0..COUNT));
    world.run(S(60));
    assert!((0..32).all(|n| world.is_connected(n)), "what stands is left alone");
    assert!(connected(&world).len() <= 40);
    world.names.insert(peer, records(20..50));
    (0..20).for_each(|n| world.kill(n, MS(0)));
    world.run(S(120));
    assert!((20..50).all(|n| world.is_connected(n)), "{:?}", world.states());
}

#[test]
fn a_node_that_does_not_know_its_own_address_chooses_another_once_it_met_itself() {
    for seed in 0..10 {
        let (mut world, _) = large(seed);
        (0..20).for_each(|n| {
            world.mirrors.insert(at(n));
        });
        world.run(S(2));
        let others = (20..COUNT).filter(|n| world.is_connected(*n)).count();
        assert_eq!(others, 8, "seed {seed}");
    }
}

#[test]
fn names_with_thousands_of_records_are_asked_for_less_often_and_what_is_too_much_is_said() {
    let policy = Policy { max_records: 1000, ..Policy::default() };
    let mut world = World::with(5, policy);
    let peer = name("peer");
    world.names.insert(peer.clone(), records(0..1500));
    world.watch(&peer);
    (0..1500).for_each(|n| {
        world.start_replica(n);
    });
    world.run(S(600));
    assert!(world.lookups.len() <= 14, "{} questions in ten minutes", world.lookups.len());
    let too_many =
        |n: &&(Duration, Notice)| matches!(n.1, Notice::TooManyRecords { found: 1500, followed: 1000, .. });
    assert!(world.notices.iter().any(|n| too_many(&n)));
    assert_eq!(world.dials.len(), 16, "{:?}", world.dials);
}

/// Seconds until the four that are alive of 200 are connected; nobody, not even a refusal, is at the others.
fn found_after(seed: u64, full: usize) -> u64 {
    let neighbours = Neighbours { full, ..Policy::default().neighbours };
    let policy = Policy { neighbours, identity: Policy::hash(seed), ..Policy::default() };
    let mut world = World::with(seed, policy);
    let mut rng = fastrand::Rng::with_seed(seed);
    let alive: Vec<u32> = rng.choose_multiple(0..200, 4);
    let peer = name("peer");
    world.names.insert(peer.clone(), records(0..200));
    (0..200).filter(|n| !alive.contains(n)).for_each(|n| {
        world.slow.insert(at(n), S(5));
    });
    alive.iter().for_each(|n| {
        world.start_replica(*n);
    });
    world.watch(&peer);
    while !alive.iter().all(|n| world.is_connected(*n)) {
        world.run(S(1));
        assert!(world.now < world.start + S(60), "seed {seed}: {:?}", world.states());
    }
    assert!(world.dialing_peak <= Policy::default().parallel);
    (world.now - world.start).as_secs()
}

#[test]
fn few_that_live_among_many_dead_are_found_as_fast_as_if_all_were_dialed() {
    let all: u64 = (0..40).map(|seed| found_after(seed, 200)).sum();
    let few: u64 = (0..40).map(|seed| found_after(seed, 32)).sum();
    // Two seconds until as many are under way.
    assert!(few <= all + 40 * 2, "{few} seconds of 40 seeds, and {all} where all are dialed");
    assert!((0..40).all(|seed| found_after(seed, 32) <= 20), "a pass over the records, 64 at a time");
}

#[test]
fn one_that_refuses_gives_its_place_to_the_next_immediately() {
    for seed in 0..4 {
        let (mut world, _) = large(seed);
        (10..COUNT).for_each(|n| {
            world.replicas.remove(&at(n));
        });
        world.run(S(1));
        assert_eq!(connected(&world).len(), 10, "seed {seed}: {:?}", world.states());
        let before = world.dials.len();
        world.run(S(600));
        let dials = world.dials.len() - before;
        assert!(dials < 3_600, "{dials} dials in ten minutes, more than of each every 15 s");
    }
}

#[test]
fn what_is_silent_while_this_node_stood_still_is_not_taken_for_dead() {
    let (mut world, _) = large(1);
    (0..COUNT).for_each(|n| {
        world.slow.insert(at(n), MS(3_000));
    });
    world.run(MS(100));
    assert_eq!(world.dials.len(), 8);
    // Nothing is polled meanwhile.
    world.now += S(2);
    world.run(MS(100));
    assert_eq!(world.dials.len(), 8, "as if it had been dialed a moment ago");
    world.run(S(60));
    assert!(connected(&world).len() >= 16, "{:?}", connected(&world));
}
