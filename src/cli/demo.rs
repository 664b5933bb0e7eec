//! `smidge demo`: the seed's network on this machine.
//!
//! With --mdns it is that of the second one: nodes without any name, which find each other by multicast.
//!
//! A small name server here, and bootstrap, peers and a sender as processes of their own, each on its
//! own loopback address. bootstrap's record appears late on purpose. What is measured comes from
//! the nodes' log lines; nothing is simulated.

mod mqtt;
mod network;
mod progress;
mod report;

use std::time::{Duration, Instant};

use clap::{Args, value_parser};

use super::{Failure, exit, print};
use network::{Network, Wait};
use report::Report;

/// Shows bootstrap, peer and sender finding each other on this machine.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge demo --nodes 20\n  smidge demo --mdns\n  smidge demo --mqtt\n\n\
                        Takes about five seconds, uses loopback only, and leaves nothing behind. Where stderr is a\n\
                        terminal, it tells what happens meanwhile.\n\n\
                        --json: {\"ok\", \"peers\", \"name_to_connected_ms\", \"found_ms\",\n\
                        \"start_to_delivery_ms\", \"publish_to_delivery_ms\", \"events\": [{\"ms\", \"node\", \"event\", \"line\"}]}; with --mqtt: {\"ok\",\n\
                        \"publish_to_delivery_ms\", \"loss_to_will_ms\", \"events\": [{\"ms\", \"line\"}]}")]
pub(crate) struct DemoArgs {
    /// How many peers there are behind the name `peer`, or, with --mdns, beside the first node
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=64))]
    pub(crate) nodes: u16,
    /// No names at all: nodes find each other by multicast DNS, on loopback
    #[arg(long)]
    pub(crate) mdns: bool,
    /// Three nodes with MQTT, and clients at each: messages, what is retained, a will, and a node that is killed
    #[arg(long, conflicts_with_all = ["nodes", "mdns"])]
    pub(crate) mqtt: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// How late bootstrap's record appears.
const LATE: Duration = Duration::from_secs(3);
/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long is waited for a message that comes twice.
const SETTLE: Duration = Duration::from_secs(1);

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    if !args.mdns && !cfg!(feature = "hickory") {
        let why = "this binary was built without the resolver hickory, and async-dns cannot be told which server to ask";
        return Err(Failure::new(exit::FAILED, "demo", why).hint("build with the feature `hickory`"));
    }
    if args.mdns && !cfg!(feature = "mdns") {
        let why = "this binary was built without the feature mdns";
        return Err(Failure::new(exit::FAILED, "demo", why).hint("build with the feature `mdns`"));
    }
    if args.mqtt && !cfg!(feature = "mqtt") {
        let why = "this binary was built without the feature mqtt";
        return Err(Failure::new(exit::FAILED, "demo", why).hint("build with the feature `mqtt`"));
    }
    if args.mqtt {
        return mqtt::run(args.json);
    }
    let mut network = Network::start(usize::from(args.nodes), args.mdns, &[])?;
    let result = if args.mdns { play_mdns(&mut network) } else { play(&mut network) };
    network.stop();
    let report = Report::of(&network, result.is_ok());
    print(&if args.json { report.json() } else { report.text() })?;
    result
}

fn counted(peers: usize) -> String {
    if peers == 1 { "a peer".into() } else { format!("{peers} peers") }
}

fn play(network: &mut Network) -> Result<(), Failure> {
    let peers = network.peers();
    let bootstrap = network.bootstrap();
    network.step(format!("bootstrap and {} start", counted(peers.len())));
    for node in peers.clone().chain([bootstrap]) {
        network.wait(Wait::Line { node, begins: "listening on" }, PATIENCE)?;
    }
    network.publish_name("peer")?;
    network.step("bootstrap is looked for: its record comes late, on purpose".into());
    let late = LATE.saturating_sub(network.started().elapsed());
    network.listen_until(Instant::now() + late)?;
    network.publish_name("bootstrap")?;
    for node in peers {
        network.step(format!("bootstrap has its record: {} connects and joins the mesh", network.name(node)));
        network.wait(Wait::Connected { node, to: bootstrap }, PATIENCE)?;
        network.wait(Wait::Line { node, begins: "joined mesh" }, PATIENCE)?;
    }
    network.wait(Wait::Line { node: bootstrap, begins: "joined mesh" }, PATIENCE)?;
    deliver(network)
}

/// Without names: every node finds every other one by multicast.
fn play_mdns(network: &mut Network) -> Result<(), Failure> {
    for node in network.nodes() {
        network.step(format!("{} finds the others by multicast", network.name(node)));
        for to in network.nodes().filter(|to| *to != node) {
            network.wait(Wait::Connected { node, to }, PATIENCE)?;
        }
        network.wait(Wait::Line { node, begins: "joined mesh" }, PATIENCE)?;
    }
    deliver(network)
}

/// Starts the sender, whose message reaches every other node, once.
fn deliver(network: &mut Network) -> Result<(), Failure> {
    network.step("the sender starts, and publishes once somebody listens".into());
    let sender = network.start_sender()?;
    network.wait(Wait::Line { node: sender, begins: "published" }, PATIENCE)?;
    for node in network.nodes() {
        network.wait(Wait::Line { node, begins: "message" }, PATIENCE)?;
    }
    network.step("the message is everywhere: does it come twice?".into());
    network.listen_until(Instant::now() + SETTLE)?;
    for node in network.nodes() {
        let times = network.lines(node).filter(|l| l.message.starts_with("message ")).count();
        if times != 1 {
            let why = format!("{} got the message {times} times", network.name(node));
            return Err(Failure::new(exit::FAILED, "demo", why));
        }
    }
    Ok(())
}
