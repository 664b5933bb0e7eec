//! What so many whole nodes cost: seconds and memory.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::world::{self, Nodes, SECOND, Setup, TOPICS};

/// Records behind one name here, so that a large swarm is no full mesh; each node dials two names.
const RECORDS: usize = 8;
/// Messages, each by another node.
const MESSAGES: usize = 50;

/// The peak of this process's memory, in MiB.
pub(crate) fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() / 1024
}

/// A table of swarms of these sizes.
pub(crate) fn print(sizes: &[usize]) {
    println!(
        "| nodes | connections | simulated s | delivered | p50 ms | p99 ms | max ms | seconds | MiB at the peak |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for nodes in sizes {
        let start = Instant::now();
        let mut setup = Setup::new(1, *nodes);
        (setup.files, setup.records) = (false, if *nodes > 24 { RECORDS } else { setup.records });
        let (mut connections, mut simulated) = (0, Duration::ZERO);
        let notes = world::run(setup, async |nodes| {
            connections = nodes.settle().await;
            simulated = nodes.world.elapsed();
        });
        let mut delays: Vec<Duration> = Vec::new();
        for (id, said) in notes.said.iter().enumerate() {
            let heard = notes.heard.get(&(id as u64)).into_iter().flatten();
            delays.extend(heard.filter(|((n, _), _)| *n != said.node).map(|(_, (at, _))| *at - said.at));
        }
        delays.sort_unstable();
        let ms = |part: f64| {
            let at = ((delays.len() as f64 * part) as usize).min(delays.len().saturating_sub(1));
            delays.get(at).copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        let delivered = delays.len() as f64 * 100.0 / (notes.said.len() * (nodes - 1)) as f64;
        println!(
            "| {nodes:>5} | {connections:>6} | {:>6.1} | {delivered:>8.3} % | {:>6.0} | {:>6.0} | {:>6.0} | {:>7.1} | {:>6} |",
            simulated.as_secs_f64(),
            ms(0.5),
            ms(0.99),
            ms(1.0),
            start.elapsed().as_secs_f64(),
            peak(),
        );
        for what in notes.broken.iter().take(5) {
            println!("  broken: {what}");
        }
    }
}

impl Nodes {
    /// Starts all, lets them find each other, has some say something; how many connections there are.
    async fn settle(&mut self) -> usize {
        for number in 0..self.members.len() {
            self.start(number, false).await;
        }
        self.tell_names();
        self.pause(40 * SECOND).await;
        for n in 0..MESSAGES {
            self.say(n * 13 % self.members.len(), n % TOPICS.len());
            self.pause(SECOND / 5).await;
        }
        self.pause(10 * SECOND).await;
        self.check_notes();
        let mut ends = 0;
        for member in &self.members {
            let Some(client) = &member.client else { continue };
            ends += client.peers().await.map_or(0, |peers| peers.len());
        }
        ends / 2
    }
}
