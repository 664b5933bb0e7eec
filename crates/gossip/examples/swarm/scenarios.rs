//! The scenarios: who is there, what happens, and what came of it.

use std::time::Duration;

use smidge_gossip::{PeerScoreParams, PeerScoreThresholds, Topic, TopicScoreParams};

use crate::world::{Conduct, Setup, World};

/// Connections that a node dials; it accepts about as many.
pub(crate) const DIALS: usize = 10;

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) nodes: usize,
    pub(crate) sybils: usize,
    pub(crate) messages: usize,
    /// Of all deliveries that should have been.
    pub(crate) delivered: f64,
    /// From publishing to delivery, sorted.
    pub(crate) latencies: Vec<Duration>,
    /// Copies that a node got of a message.
    pub(crate) copies: f64,
    pub(crate) broken: Vec<String>,
}

impl Outcome {
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let at = (self.latencies.len() as f64 * part) as usize;
        self.latencies.get(at.min(self.latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Scores as a network that expects `rate` messages a second of the topic would set them: who is in a mesh and brings
/// nothing is found out within a minute.
pub(crate) fn scores(topic: &Topic, rate: f64) -> (PeerScoreParams, PeerScoreThresholds) {
    let topic_params = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.002,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 3600.0,
        first_message_deliveries_weight: 1.0,
        first_message_deliveries_decay: 0.98,
        first_message_deliveries_cap: 50.0,
        mesh_message_deliveries_weight: -1.0,
        mesh_message_deliveries_decay: 0.95,
        mesh_message_deliveries_cap: rate * 10.0,
        mesh_message_deliveries_threshold: (rate * 2.0).max(1.0),
        mesh_message_deliveries_window: Duration::from_millis(500),
        mesh_message_deliveries_activation: Duration::from_secs(20),
        mesh_failure_penalty_weight: -1.0,
        mesh_failure_penalty_decay: 0.99,
        invalid_message_deliveries_weight: -100.0,
        invalid_message_deliveries_decay: 0.99,
    };
    let params =
        PeerScoreParams { topics: [(topic.clone(), topic_params)].into(), ..PeerScoreParams::default() };
    let thresholds = PeerScoreThresholds {
        gossip_threshold: -10.0,
        publish_threshold: -50.0,
        graylist_threshold: -80.0,
        accept_px_threshold: 10.0,
        opportunistic_graft_threshold: 3.0,
    };
    (params, thresholds)
}

/// `honest` nodes that dial each other at random.
pub(crate) fn honest(world: &mut World, honest: usize) {
    for number in 0..honest {
        world.add(number, Conduct::Honest);
    }
    for number in 0..honest {
        dial(world, number, honest);
    }
}

/// Dials [`DIALS`] of the first `among` nodes.
pub(crate) fn dial(world: &mut World, number: usize, among: usize) {
    let mut dialed = 0;
    for _ in 0..DIALS * 20 {
        if dialed == DIALS.min(among.saturating_sub(1)) {
            break;
        }
        let other = world.rng().usize(..among);
        if other != number && world.nodes.contains_key(&other) && !world.neighbours(number).contains(&other) {
            world.connect(number, other);
            dialed += 1;
        }
    }
}

/// Sybils that all dial the first `targets` nodes at random.
pub(crate) fn sybils(world: &mut World, honest: usize, sybils: usize, targets: usize, conduct: Conduct) {
    for number in honest..honest + sybils {
        world.add(number, conduct);
        for _ in 0..DIALS.min(targets) {
            let other = world.rng().usize(..targets);
            world.connect(number, other);
        }
    }
}

/// `rate` messages a second for `time`, each by another of the first `honest` nodes.
pub(crate) fn publish(world: &mut World, honest: usize, rate: f64, time: Duration, bytes: usize) -> Vec<u64> {
    let end = world.now() + time;
    let mut numbers = Vec::new();
    while world.now() < end {
        let by = world.rng().usize(..honest);
        numbers.extend(world.publish(by, bytes));
        world.run_for(Duration::from_secs_f64(1.0 / rate));
    }
    numbers
}

/// What came of `messages` among the first `honest` nodes, `copies` of them counted before.
pub(crate) fn outcome(world: &mut World, honest: usize, messages: &[u64], copies: u64) -> Outcome {
    world.run_for(Duration::from_secs(10));
    let there = (0..honest).filter(|n| world.nodes.contains_key(n)).count();
    let mut latencies: Vec<Duration> = messages
        .iter()
        .map(|m| &world.published[m])
        .flat_map(|m| m.delivered.iter().filter(|(n, _)| **n < honest).map(|(_, at)| *at - m.at))
        .collect();
    latencies.sort_unstable();
    let due = (messages.len() * there.saturating_sub(1)).max(1);
    Outcome {
        nodes: honest,
        sybils: world.nodes.len().saturating_sub(there),
        messages: messages.len(),
        delivered: 1.0 - world.missing(messages, |n| n < honest).len() as f64 / due as f64,
        copies: (world.copies - copies) as f64 / due as f64,
        latencies,
        broken: std::mem::take(&mut world.broken),
    }
}

const SETTLE: Duration = Duration::from_secs(30);
const RATE: f64 = 4.0;

fn world(seed: u64, loss: f64) -> World {
    let mut setup = Setup::new(seed);
    setup.loss = loss;
    let topic = Topic::from("numbers");
    setup.score = Some(scores(&topic, RATE));
    World::new(setup)
}

/// Nothing goes wrong, in a topic whose mesh peers are scored by what they bring; or are not, so that links that come
/// late are choked (`CHOKE.md`).
pub(crate) fn baseline(seed: u64, nodes: usize, seconds: u64, scored: bool) -> Outcome {
    let mut world = world(seed, 0.0);
    if !scored {
        world.setup.score = None;
    }
    honest(&mut world, nodes);
    world.run_for(SETTLE);
    publish(&mut world, nodes, RATE, SETTLE, 2048);
    let copies = world.copies;
    let messages = publish(&mut world, nodes, RATE, Duration::from_secs(seconds), 2048);
    let outcome = outcome(&mut world, nodes, &messages, copies);
    world.check_settled();
    Outcome { broken: [outcome.broken, std::mem::take(&mut world.broken)].concat(), ..outcome }
}

/// One frame in fifty is retransmitted, and a node in a hundred goes and comes back each second, counted while it stays.
pub(crate) fn churn(seed: u64, nodes: usize, seconds: u64) -> Outcome {
    let mut world = world(seed, 0.02);
    honest(&mut world, nodes);
    world.run_for(SETTLE);
    let copies = world.copies;
    let staying = nodes / 2;
    let mut messages = Vec::new();
    for _ in 0..seconds {
        for _ in 0..(nodes / 100).max(1) {
            let leaver = staying + world.rng().usize(..nodes - staying);
            world.remove(leaver);
            world.add(leaver, Conduct::Honest);
            dial(&mut world, leaver, nodes);
        }
        messages.extend(publish(&mut world, staying, RATE, Duration::from_secs(1), 2048));
    }
    outcome(&mut world, staying, &messages, copies)
}

/// Sybils are connected to each node before honest ones are, and pass nothing on.
pub(crate) fn cold_boot(seed: u64, nodes: usize, attackers: usize, seconds: u64) -> Outcome {
    let mut world = world(seed, 0.0);
    for number in 0..nodes {
        world.add(number, Conduct::Honest);
    }
    sybils(&mut world, nodes, attackers, nodes, Conduct::Silent);
    world.run_for(Duration::from_secs(2));
    for number in 0..nodes {
        dial(&mut world, number, nodes);
    }
    let copies = world.copies;
    let messages = publish(&mut world, nodes, RATE, Duration::from_secs(seconds), 2048);
    outcome(&mut world, nodes, &messages, copies)
}

/// A settled network, and sybils that connect to all of it and pass nothing on.
pub(crate) fn eclipse(seed: u64, nodes: usize, attackers: usize, seconds: u64) -> Outcome {
    let mut world = world(seed, 0.0);
    honest(&mut world, nodes);
    world.run_for(SETTLE);
    sybils(&mut world, nodes, attackers, nodes, Conduct::Silent);
    let copies = world.copies;
    let messages = publish(&mut world, nodes, RATE, Duration::from_secs(seconds), 2048);
    outcome(&mut world, nodes, &messages, copies)
}

/// Sybils all connect to the one author that they keep quiet about, and to others. Its messages count, among those of
/// all, which sybils pass on.
pub(crate) fn censorship(seed: u64, nodes: usize, attackers: usize, seconds: u64) -> Outcome {
    let mut world = world(seed, 0.0);
    honest(&mut world, nodes);
    world.run_for(SETTLE);
    sybils(&mut world, nodes, attackers, nodes, Conduct::Censor(0));
    for number in nodes..nodes + attackers {
        world.connect(number, 0);
    }
    publish(&mut world, nodes, RATE, SETTLE, 2048);
    let (copies, mut messages) = (world.copies, Vec::new());
    for _ in 0..seconds {
        messages.extend(world.publish(0, 2048));
        publish(&mut world, nodes, RATE, Duration::from_secs(1), 2048);
    }
    let outcome = outcome(&mut world, nodes, &messages, copies);
    // The copies are of all messages.
    Outcome { copies: f64::NAN, ..outcome }
}

/// Sybils behave well until all of them stop at the same moment.
pub(crate) fn covert_flash(seed: u64, nodes: usize, attackers: usize, seconds: u64) -> Outcome {
    let mut world = world(seed, 0.0);
    honest(&mut world, nodes);
    sybils(&mut world, nodes, attackers, nodes, Conduct::Honest);
    world.run_for(SETTLE);
    publish(&mut world, nodes, RATE, SETTLE, 2048);
    for node in world.nodes.range_mut(nodes..) {
        node.1.conduct = Conduct::Silent;
    }
    let copies = world.copies;
    let messages = publish(&mut world, nodes, RATE, Duration::from_secs(seconds), 2048);
    outcome(&mut world, nodes, &messages, copies)
}
