//! Swarms from a seed, in simulated time (`examples/swarm`): what must hold in each of many, whatever happens.

use std::time::Duration;

use crate::{
    trouble::{swarm, trouble},
    world::{Fault, Setup},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn whatever_happens_meshes_heal_and_each_message_arrives_once() {
    for seed in 0..100 {
        let world = trouble(seed, None, false);
        assert!(world.broken.is_empty(), "seed {seed}: {:#?}", world.broken);
    }
}

#[test]
fn faults_that_are_put_in_are_found_within_two_hundred_seeds() {
    for fault in [Fault::ForgottenPrune, Fault::LostWakeUp, Fault::DeliveredTwice] {
        let found = (0..200).find(|seed| !trouble(*seed, Some(fault), false).broken.is_empty());
        assert!(found.is_some(), "{fault:?} was not found");
        eprintln!("{fault:?}: seed {found:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_log_to_the_byte() {
    for seed in 0..5 {
        let (first, second) = (trouble(seed, None, true), trouble(seed, None, true));
        assert!(first.log.len() > 1000 && first.log == second.log, "seed {seed}");
    }
    assert_ne!(trouble(1, None, true).log, trouble(2, None, true).log);
}

#[test]
fn a_settled_swarm_delivers_everything_to_everybody() {
    let mut world = swarm(Setup::new(11), 100);
    world.run_for(20 * SECOND);
    let mut numbers = Vec::new();
    for number in 0..40 {
        numbers.extend(world.publish(number, 100));
        world.run_for(SECOND / 4);
    }
    world.run_for(5 * SECOND);
    assert_eq!(numbers.len(), 40);
    assert_eq!(world.missing(&numbers, |_| true), []);
    assert!(world.broken.is_empty(), "{:#?}", world.broken);
}

#[test]
fn two_halves_that_meet_again_are_one_mesh() {
    const NODES: usize = 30;
    for seed in 0..10 {
        let mut world = swarm(Setup::new(seed), NODES);
        let cut: Vec<(usize, usize)> = (0..NODES / 2)
            .flat_map(|a| world.neighbours(a).into_iter().map(move |b| (a, b)))
            .filter(|(_, b)| *b >= NODES / 2)
            .collect();
        cut.iter().for_each(|(a, b)| world.disconnect(*a, *b));
        world.run_for(60 * SECOND);
        cut.iter().for_each(|(a, b)| world.connect(*a, *b));
        world.run_for(5 * SECOND);
        let numbers: Vec<u64> = (0..NODES).filter_map(|by| world.publish(by, 100)).collect();
        world.run_for(5 * SECOND);
        assert_eq!(numbers.len(), NODES);
        assert_eq!(world.missing(&numbers, |_| true), [], "seed {seed}");
        assert!(world.broken.is_empty(), "seed {seed}: {:#?}", world.broken);
    }
}
