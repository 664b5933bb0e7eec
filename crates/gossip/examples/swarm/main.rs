//! A swarm in one process, from a seed: delivery, latency and copies, in an honest network and under the attacks that
//! gossipsub v1.1 was evaluated with (arXiv 2007.02754). Prints the table of bench/SWARM.md.
//!
//! `cargo run --release -p smidge-gossip --example swarm [-- NODES SYBILS SECONDS [SEED]]`; a small one without.
//! `… --example swarm -- seeds N [FIRST]`: twenty nodes in random trouble, N times; says which seeds break what.

#![allow(clippy::print_stdout, reason = "figures are what it is for")]
#![allow(clippy::expect_used, missing_docs, reason = "a program, not a library")]

mod scenarios;
mod trouble;
mod world;

use std::{env, fs, time::Instant};

use scenarios::Outcome;

fn main() {
    if env::args().nth(1).as_deref() == Some("seeds") {
        return seeds();
    }
    let number =
        |n: usize, otherwise: u64| env::args().nth(n).and_then(|a| a.parse().ok()).unwrap_or(otherwise);
    let (nodes, sybils) = (number(1, 50) as usize, number(2, 100) as usize);
    let (seconds, seed) = (number(3, 10), number(4, 1));
    println!(
        "| {:<12} | {:>6} | {:>6} | {:>8} | {:>10} | {:>7} | {:>7} | {:>7} | {:>6} | {:>7} | {:>5} |",
        "scenario",
        "nodes",
        "sybils",
        "messages",
        "delivered",
        "p50 ms",
        "p99 ms",
        "max ms",
        "copies",
        "seconds",
        "MiB"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let run = |name: &str, scenario: &dyn Fn() -> Outcome| {
        let start = Instant::now();
        let outcome = scenario();
        let ms = |part| outcome.quantile(part).as_secs_f64() * 1e3;
        println!(
            "| {name:<12} | {:>6} | {:>6} | {:>8} | {:>8.3} % | {:>7.0} | {:>7.0} | {:>7.0} | {:>6.2} | {:>7.1} | {:>5} |",
            outcome.nodes,
            outcome.sybils,
            outcome.messages,
            outcome.delivered * 100.0,
            ms(0.5),
            ms(0.99),
            ms(1.0),
            outcome.copies,
            start.elapsed().as_secs_f64(),
            resident(),
        );
        for what in outcome.broken.iter().take(5) {
            println!("BROKEN: {what}");
        }
    };
    run("honest", &|| scenarios::baseline(seed, nodes, seconds, true));
    run("choking", &|| scenarios::baseline(seed, nodes, seconds, false));
    if sybils == 0 {
        return;
    }
    run("churn, loss", &|| scenarios::churn(seed, nodes, seconds));
    run("eclipse", &|| scenarios::eclipse(seed, nodes, sybils, seconds));
    run("censorship", &|| scenarios::censorship(seed, nodes, sybils, seconds));
    run("cold boot", &|| scenarios::cold_boot(seed, nodes, sybils, seconds));
    run("covert flash", &|| scenarios::covert_flash(seed, nodes, sybils, seconds));
}

fn seeds() {
    let number =
        |n: usize, otherwise: u64| env::args().nth(n).and_then(|a| a.parse().ok()).unwrap_or(otherwise);
    let (count, first, start) = (number(2, 100), number(3, 0), Instant::now());
    let mut broken = 0;
    for seed in first..first + count {
        let world = trouble::trouble(seed, None, false);
        broken += u64::from(!world.broken.is_empty());
        for what in world.broken.iter().take(3) {
            println!("seed {seed}: {what}");
        }
    }
    println!(
        "{count} seeds from {first}, {broken} of them broken, {:.1} s, {} MiB",
        start.elapsed().as_secs_f64(),
        resident()
    );
    if broken > 0 {
        std::process::exit(1);
    }
}

/// MiB of this process.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}
