//! Whole nodes in a simulated world, from a seed: twenty of them in random trouble, and what must hold all the same.
//!
//! `cargo run --example seeds -- [--seeds N] [--first SEED] [--nodes N] [--jobs N]`: so many worlds; says which seeds break
//! what, and ends with 1 if any does. `-- --seed SEED [--nodes N] [--log LEVEL]`: one world, with what its nodes log, each line
//! with the simulated time and the node. `-- --twins all [--seeds N]`, or one by name: rows of docs/FAULTS.md (`twins.rs`).
//! `-- --fault twice --seeds 200`: with a fault put in on purpose, to be found: `twice`, `missing`, `receipt`, `unsent`, and `wake-up`, of
//! which one in twenty thousand is lost, are, by tests.
//! `-- --figures 20,100,1000`: what so many nodes behind one name cost, and what holds among them.
//!
//! What happens to nodes (`trouble.rs`): crashes and restarts with and without their key, at their address or another; divided
//! networks, links in one direction, slow and lossy ones; a name server that fails, lies, is late or does not learn what
//! changed; clocks that jump by up to 50 minutes (`--wild-clocks`: two weeks, past what is promised). What must hold
//! (`invariants.rs`): nodes that nothing happens to lose nothing among themselves; what was said on a topic that is kept is
//! everywhere in the end; nothing comes twice; no receipt lies; an acknowledged record is there; all are connected again and meshes
//! are within bounds, within stated times; what is kept is bounded; nodes answer, and stop, in time; nothing panics, and no task
//! goes in circles.
//!
//! Faults, latencies, names and what is said are those of the seed. Some of what nodes go by cannot be handed in, so two runs
//! of a seed differ in detail, and invariants are asserted, not logs: the random sources of ring, rustls, quinn-proto and of `rand` in libp2p
//! (kad's queries, relay); the order of hash maps; and the clock of libp2p-kad, -swarm, -relay and -metrics (`web-time`),
//! which stands nearly still here: what kad gives up by it (a query after 30 s, records after hours) it does not
//! give up in a simulated minute. A seed that broke something may need a few runs to do so again (`--seed SEED --times 20`).
//!
//! An example, and not a package of its own: it needs what tests need (`sim` of smidge-runtime is a dev-dependency), and
//! shares what they compile.

#![allow(clippy::print_stdout, reason = "a program that says what it found")]
#![allow(clippy::expect_used, missing_docs, reason = "a program, not a library")]

mod figures;
mod invariants;
mod logger;
#[cfg(test)]
mod tests;
mod trouble;
mod twins;
mod world;

use std::{
    env, panic,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use crate::{
    trouble::Healed,
    world::{Sabotage, Setup},
};

#[derive(Debug)]
struct Options {
    first: u64,
    seeds: u64,
    nodes: usize,
    jobs: usize,
    log: log::LevelFilter,
    /// The same seed, so many times.
    times: u64,
    figures: Vec<usize>,
    /// Rows of docs/FAULTS.md in the place of random trouble.
    twins: Vec<&'static str>,
    /// What is put in on purpose, to be found.
    fault: Option<Sabotage>,
    wild_clocks: bool,
}

impl Options {
    fn parse() -> Option<Self> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let log = log::LevelFilter::Off;
        let mut options = Self {
            first: 1,
            seeds: 10,
            nodes: 20,
            jobs,
            log,
            times: 1,
            figures: Vec::new(),
            twins: Vec::new(),
            wild_clocks: false,
            fault: None,
        };
        let mut args = env::args().skip(1);
        while let Some(arg) = args.next() {
            if arg == "--wild-clocks" {
                options.wild_clocks = true;
                continue;
            }
            let value = args.next()?;
            match arg.as_str() {
                "--seeds" => options.seeds = value.parse().ok()?,
                "--first" => options.first = value.parse().ok()?,
                "--seed" => (options.first, options.seeds, options.jobs) = (value.parse().ok()?, 1, 1),
                "--times" => options.times = value.parse().ok()?,
                "--nodes" => options.nodes = value.parse().ok().filter(|n| (2..=24).contains(n))?,
                "--jobs" => options.jobs = value.parse().ok().filter(|n| *n > 0)?,
                "--log" => options.log = value.parse().ok()?,
                "--twins" => {
                    options.twins =
                        twins::TWINS.into_iter().filter(|t| value == "all" || value == *t).collect();
                    options.twins.first()?;
                }
                "--fault" => options.fault = Some(Sabotage::named(&value)?),
                "--figures" => {
                    options.figures = value.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?;
                }
                _ => return None,
            }
        }
        Some(options)
    }
}

/// What a world came to.
struct Outcome {
    seed: u64,
    broken: Vec<String>,
    healed: Healed,
}

impl Outcome {
    /// Says what broke, and how to see it alone.
    fn print(&self, nodes: usize, twin: Option<&str>) {
        let (seed, what) = (self.seed, twin.map(|twin| format!(" --twins {twin}")).unwrap_or_default());
        for broken in self.broken.iter().take(5) {
            println!("seed {seed}{what} breaks: {broken}");
        }
        if !self.broken.is_empty() {
            println!("  alone: cargo run --example seeds -- --seed {seed}{what} --nodes {nodes} --log info");
        }
    }
}

/// One world: random trouble, or a twin.
fn one(setup: Setup, twin: Option<&str>) -> Outcome {
    let seed = setup.seed;
    let run = panic::catch_unwind(|| match twin {
        Some(twin) => (twins::run(twin, seed), Healed::default()),
        None => trouble::trouble(setup),
    });
    match run {
        Ok((notes, healed)) => Outcome { seed, broken: notes.broken, healed },
        Err(why) => {
            let said = why.downcast_ref::<String>().cloned();
            let said =
                said.or_else(|| why.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
            Outcome { seed, broken: vec![format!("panic: {said}")], healed: Healed::default() }
        }
    }
}

fn main() -> ExitCode {
    let Some(options) = Options::parse() else {
        println!(
            "--seeds N --first SEED --nodes 2..24 --jobs N | --seed SEED [--times N] [--log LEVEL] | --twins all|NAME [--seeds N] | --fault twice|missing|wake-up|receipt|unsent | --figures 20,100"
        );
        return ExitCode::from(64);
    };
    logger::start(options.log);
    if !options.figures.is_empty() {
        figures::print(&options.figures);
        return ExitCode::SUCCESS;
    }
    let start = Instant::now();
    let mut worlds = Vec::new();
    for seed in options.first..options.first + options.seeds {
        let twins = options.twins.iter().copied().map(Some);
        let all: Vec<_> = if options.twins.is_empty() { vec![None] } else { twins.collect() };
        worlds.extend(all.into_iter().flat_map(|twin| (0..options.times).map(move |_| (seed, twin))));
    }
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some((seed, twin)) = worlds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let setup = Setup {
                        sabotage: options.fault,
                        wild_clocks: options.wild_clocks,
                        ..Setup::new(*seed, options.nodes)
                    };
                    let outcome = one(setup, *twin);
                    outcome.print(options.nodes, *twin);
                    world::lock(&outcomes).push(outcome);
                }
            });
        }
    });
    let outcomes = world::lock(&outcomes);
    let broken = outcomes.iter().filter(|outcome| !outcome.broken.is_empty()).count();
    let most = |of: fn(&Healed) -> std::time::Duration| {
        outcomes.iter().map(|outcome| of(&outcome.healed)).max().unwrap_or_default().as_secs_f64()
    };
    let healed = format!(
        "; after the last fault, at most, whole after {:.1} s, meshed {:.1} s later, caught up {:.1} s later (simulated)",
        most(|healed| healed.whole),
        most(|healed| healed.meshed),
        most(|healed| healed.caught_up),
    );
    println!(
        "{} worlds of {} nodes, seeds {} to {}: {broken} broken{}; {:.1} s, {} MiB at the peak",
        worlds.len(),
        if options.twins.is_empty() { options.nodes } else { twins::NODES },
        options.first,
        options.first + options.seeds - 1,
        if options.twins.is_empty() { healed.as_str() } else { "" },
        start.elapsed().as_secs_f64(),
        figures::peak(),
    );
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
