//! Random trouble from a seed: nodes that restart, connections that close, messages from all; and what must hold after it.

use std::time::Duration;

use smidge_gossip::{Config, MeshParams};

use crate::world::{Conduct, Fault, Setup, World};

const SECOND: Duration = Duration::from_secs(1);

fn dial(world: &mut World, number: usize, among: usize, times: usize) {
    for _ in 0..times {
        let other = world.rng().usize(..among);
        world.connect(number, other);
    }
}

/// `nodes` that are connected at random, and have been for a while.
pub(crate) fn swarm(setup: Setup, nodes: usize) -> World {
    let mut world = World::new(setup);
    for number in 0..nodes {
        world.add(number, Conduct::Honest);
    }
    for number in 0..nodes {
        // A ring besides, so that nobody is alone.
        world.connect(number, (number + 1) % nodes);
        dial(&mut world, number, nodes, 3);
    }
    world.run_for(5 * SECOND);
    world
}

/// Twenty nodes among which random things happen for a while, and what was broken in the end.
pub(crate) fn trouble(seed: u64, fault: Option<Fault>, log: bool) -> World {
    const NODES: usize = 20;
    let mut setup = Setup::new(seed);
    setup.loss = 0.05;
    setup.fault = fault;
    setup.log = log;
    setup.config = Config::default();
    setup.config.mesh = MeshParams { n: 4, n_low: 3, n_high: 6, outbound_min: 1 };
    // So that whoever was pruned is back before the end.
    setup.config.prune_backoff = 10 * SECOND;
    setup.config.unsubscribe_backoff = 5 * SECOND;
    let mut world = swarm(setup, NODES);
    for _ in 0..60 {
        let number = world.rng().usize(..NODES);
        match world.rng().u8(..10) {
            0 => {
                world.remove(number);
                world.add(number, Conduct::Honest);
                dial(&mut world, number, NODES, 4);
            }
            1 => {
                let others = world.neighbours(number);
                if let Some(other) = world.rng().choice(others) {
                    world.disconnect(number, other);
                }
                dial(&mut world, number, NODES, 2);
            }
            2 => dial(&mut world, number, NODES, 3),
            _ => drop(world.publish(number, 64)),
        }
        let pause = Duration::from_millis(world.rng().u64(..700));
        world.run_for(pause);
    }
    // Nothing happens any more, meshes heal.
    for number in 0..NODES {
        world.connect(number, (number + 1) % NODES);
    }
    world.run_for(40 * SECOND);
    let numbers: Vec<u64> = (0..NODES).filter_map(|by| world.publish(by, 64)).collect();
    world.run_for(10 * SECOND);
    world.check_settled();
    if numbers.len() < NODES {
        world.broken.push(format!("only {} of {NODES} could publish", numbers.len()));
    }
    for (message, node) in world.missing(&numbers, |_| true) {
        world.broken.push(format!("message {message} never reached {node}"));
    }
    world
}
