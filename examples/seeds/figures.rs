//! What so many whole nodes behind one name cost, and what holds among them: everyone in the mesh, connections, delivery, idling,
//! what becomes of them when three in ten die at the same moment and the name is none the wiser, and a topic that five follow.

use std::{
    collections::BTreeSet,
    fmt, fs,
    time::{Duration, Instant},
};

use crate::world::{self, Nodes, SECOND, Setup, TOPICS};

/// Messages, each by another node.
const MESSAGES: usize = 20;
/// Simulated time over which nodes are seen to idle.
const IDLE: Duration = Duration::from_secs(30);
/// Who follows the topic that nearly nobody follows.
const FOLLOWERS: usize = 5;
const RARE: &str = "rare";
/// Nothing is waited for longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The peak of this process's memory, in MiB.
pub(crate) fn peak() -> u64 {
    memory("VmHWM:") / 1024
}

/// A line of what the kernel says of this process's memory, in KiB.
fn memory(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
}

/// Processor time of this process.
fn processor() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split(' ').skip(12).take(2);
    Duration::from_millis(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}

/// What was seen of one size.
#[derive(Default)]
struct Figures {
    nodes: usize,
    /// Simulated time until each has a mesh.
    meshed: Option<Duration>,
    /// Of a node: mean and most.
    connections: (f64, usize),
    delivered: f64,
    p50: Duration,
    p99: Duration,
    /// Processor time of all nodes for a message, without what they would have taken idling.
    message: Duration,
    /// Resident, of a node, in KiB.
    resident: u64,
    /// Packets of a node and second, and processor time.
    idle: (f64, Duration),
    /// Simulated time after the deaths until what is said reaches all the others.
    healed: Option<Duration>,
    /// Simulated time until those who follow the rare topic make one mesh, and what reached them then.
    found: Option<Duration>,
    found_delivered: f64,
    processor: Duration,
    wall: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = |time: Option<Duration>| {
            time.map_or_else(|| "never".into(), |time| format!("{:.1} s", time.as_secs_f64()))
        };
        write!(
            f,
            "| {} | {} | {:.1}, {} | {:.2} % | {:.0}, {:.0} ms | {:.1} ms | {:.1} MiB | {:.1} | {:.2} ms | {} | {}, {:.0} % | {:.0} s, {:.0} s | {} MiB |",
            self.nodes,
            after(self.meshed),
            self.connections.0,
            self.connections.1,
            self.delivered,
            self.p50.as_secs_f64() * 1e3,
            self.p99.as_secs_f64() * 1e3,
            self.message.as_secs_f64() * 1e3,
            self.resident as f64 / 1024.0,
            self.idle.0,
            self.idle.1.as_secs_f64() * 1e3,
            after(self.healed),
            after(self.found),
            self.found_delivered,
            self.processor.as_secs_f64(),
            self.wall.as_secs_f64(),
            peak(),
        )
    }
}

/// A table of swarms of these sizes.
pub(crate) fn print(sizes: &[usize]) {
    println!(
        "| nodes | all meshed after | connections, most | delivered | p50, p99 | processor a message, all nodes | resident a node | idle: packets a node and s | processor a node and s | 3 in 10 dead: all the others hear again after | {FOLLOWERS} of a topic one mesh after, delivered | processor, wall | peak |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for nodes in sizes {
        let start = (Instant::now(), processor());
        let mut setup = Setup::new(1, *nodes);
        (setup.files, setup.is_one_name) = (false, true);
        let mut figures = Figures { nodes: *nodes, ..Figures::default() };
        let notes = world::run(setup, async |nodes| nodes.measure(&mut figures).await);
        (figures.wall, figures.processor) = (start.0.elapsed(), processor() - start.1);
        println!("{figures}");
        for what in notes.broken.iter().take(5) {
            println!("  broken: {what}");
        }
    }
}

impl Nodes {
    async fn measure(&mut self, figures: &mut Figures) {
        let empty = memory("VmRSS:");
        self.write_hosts();
        for number in 0..self.members.len() {
            self.start(number, false).await;
        }
        figures.meshed = self.until_meshed().await;
        log::info!(target: "seeds", "meshed: {:?}", figures.meshed);
        self.pause(10 * SECOND).await;
        figures.connections = self.connections().await;
        let (first, spent, began) = (self.notes().said.len(), processor(), self.world.elapsed());
        figures.resident = memory("VmRSS:").saturating_sub(empty) / self.members.len() as u64;
        for n in 0..MESSAGES {
            self.say(n * 13 % self.members.len(), 0);
            self.pause(SECOND / 5).await;
        }
        self.pause(10 * SECOND).await;
        let (spent, took) = (processor() - spent, self.world.elapsed() - began);
        let mut delays = self.delays(first);
        delays.sort_unstable();
        figures.delivered = delays.len() as f64 * 100.0 / (MESSAGES * (self.members.len() - 1)) as f64;
        let at = |part: f64| {
            delays.get(((delays.len() as f64 * part) as usize).min(delays.len().saturating_sub(1))).copied()
        };
        (figures.p50, figures.p99) = (at(0.5).unwrap_or_default(), at(0.99).unwrap_or_default());
        let before = (self.world.delivered(), processor());
        self.pause(IDLE).await;
        let spans = self.members.len() as f64 * IDLE.as_secs_f64();
        figures.idle =
            ((self.world.delivered() - before.0) as f64 / spans, (processor() - before.1).div_f64(spans));
        let idling = figures.idle.1.mul_f64(self.members.len() as f64 * took.as_secs_f64());
        figures.message = spent.saturating_sub(idling) / MESSAGES as u32;
        log::info!(target: "seeds", "idled");
        figures.healed = self.kill_some().await;
        self.pause(10 * SECOND).await;
        (figures.found, figures.found_delivered) = self.follow_rarely().await;
    }

    /// Waits until each node has a mesh; how long that took from the beginning of the world.
    async fn until_meshed(&self) -> Option<Duration> {
        let least = 4.min(self.members.len() - 1);
        let mut without: Vec<usize> = self.up();
        while self.world.elapsed() < PATIENCE {
            let mut rest = Vec::new();
            for number in without {
                let Some(client) = &self.members[number].client else { continue };
                let mesh = client.mesh().await.unwrap_or_default();
                if mesh.get(TOPICS[0]).map_or(0, Vec::len) < least {
                    rest.push(number);
                }
            }
            if rest.is_empty() {
                return Some(self.world.elapsed());
            }
            without = rest;
            self.pause(SECOND / 10).await;
        }
        None
    }

    async fn connections(&self) -> (f64, usize) {
        let mut all = Vec::new();
        for number in self.up() {
            let Some(client) = &self.members[number].client else { continue };
            all.push(client.peers().await.map_or(0, |peers| peers.len()));
        }
        (
            all.iter().sum::<usize>() as f64 / all.len().max(1) as f64,
            all.into_iter().max().unwrap_or_default(),
        )
    }

    /// How long each delivery of what was said since took, to others than who said it.
    fn delays(&self, first: usize) -> Vec<Duration> {
        let notes = self.notes();
        let said = notes.said.iter().enumerate().skip(first);
        said.flat_map(|(id, said)| {
            let heard = notes.heard.get(&(id as u64)).into_iter().flatten();
            heard.filter(|((n, _), _)| *n != said.node).map(|(_, (at, _))| *at - said.at)
        })
        .collect()
    }

    /// Ends three in ten at the same moment; how long until what is said reaches all the others.
    async fn kill_some(&mut self) -> Option<Duration> {
        let mut all = self.up();
        self.rng.shuffle(&mut all);
        let (dead, alive) = all.split_at(all.len() * 3 / 10);
        dead.iter().for_each(|number| self.crash(*number));
        let died = self.world.elapsed();
        let mut said = Vec::new();
        for n in 0..30 {
            said.push((self.notes().said.len() as u64, self.world.elapsed() - died));
            self.say(alive[n * 7 % alive.len()], 0);
            self.pause(SECOND).await;
        }
        self.pause(10 * SECOND).await;
        let notes = self.notes();
        let is_everywhere = |id: &u64| {
            let speaker = notes.said[*id as usize].node;
            let heard: BTreeSet<usize> =
                notes.heard.get(id).into_iter().flatten().map(|((number, _), _)| *number).collect();
            alive.iter().all(|number| *number == speaker || heard.contains(number))
        };
        // From when on nothing is lost any more.
        let from = said.iter().rposition(|(id, _)| !is_everywhere(id)).map_or(0, |last| last + 1);
        said.get(from).map(|(_, at)| *at)
    }

    /// Some follow a topic that nobody else does: how long until they make one mesh, and what they hear of each other.
    async fn follow_rarely(&mut self) -> (Option<Duration>, f64) {
        let mut all = self.up();
        self.rng.shuffle(&mut all);
        let followers: Vec<_> =
            all.into_iter().take(FOLLOWERS).filter_map(|n| self.members[n].client.clone()).collect();
        let began = self.world.elapsed();
        let mut heard = Vec::new();
        for client in &followers {
            heard.extend(client.subscribe(RARE).await);
        }
        let found = loop {
            let mut seen = BTreeSet::from([followers[0].peer_id()]);
            for _ in 0..FOLLOWERS {
                for client in &followers {
                    if seen.contains(&client.peer_id()) {
                        let mesh = client.mesh().await.unwrap_or_default();
                        seen.extend(mesh.get(RARE).into_iter().flatten().copied());
                    }
                }
            }
            if followers.iter().all(|client| seen.contains(&client.peer_id())) {
                break Some(self.world.elapsed() - began);
            }
            if self.world.elapsed() - began > PATIENCE {
                break None;
            }
            self.pause(SECOND / 10).await;
        };
        for client in &followers {
            let options = smidge::PublishOptions { timeout: 5 * SECOND, ..smidge::PublishOptions::default() };
            if let Err(e) = client.publish(RARE, client.peer_id().to_string(), options).await {
                self.break_with(format!("nobody hears what is said on {RARE}: {e}"));
            }
        }
        self.pause(5 * SECOND).await;
        let mut count = 0;
        for subscription in &mut heard {
            while let Ok(Some(_)) = self.rt.timeout(SECOND, subscription.next_delivery()).await {
                count += 1;
            }
        }
        // Each hears itself, too.
        (found, count as f64 * 100.0 / (FOLLOWERS * FOLLOWERS) as f64)
    }
}
