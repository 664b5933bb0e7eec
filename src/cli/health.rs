//! `smidge health` and `smidge ready`: for HEALTHCHECK and probes, where there is no shell.

use clap::Args;
use serde_json::Value;

use super::{
    Failure,
    api::{self, ApiArgs},
    print,
};
use crate::gateway::encode;

/// Says whether a running node is live: it answers and its listeners are up, peers or not.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  smidge health\n  HEALTHCHECK CMD [\"/smidge\", \"health\"]\n\n--json: {\"live\"}"
)]
pub(crate) struct HealthArgs {
    /// Print a JSON record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// Says whether a running node is ready: so many peers, or mesh members of a topic, are there.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge ready --min-peers 2 --topic some_topic --min-mesh 1\n\n\
                        Exit code 75 if it is not ready. Not for Swarm's HEALTHCHECK: a service that waits\n\
                        for its peers there is never found by them.\n\n\
                        --json: {\"ready\", \"peers\", \"gossip_off\", \"mesh\"}; \"mesh\" with --topic only")]
pub(crate) struct ReadyArgs {
    /// Connected peers wanted [default: 1, or 0 with --topic]
    #[arg(long, value_name = "N")]
    min_peers: Option<usize>,
    /// A topic whose mesh has to have members
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// How many [default: 1]
    #[arg(long, value_name = "N", requires = "topic")]
    min_mesh: Option<usize>,
    /// Print a JSON record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) fn health(args: &HealthArgs) -> Result<(), Failure> {
    api::ask(&args.api, "health", async |mut api| {
        let body = api.get("/healthz").await?;
        if args.json { print(&String::from_utf8_lossy(&body)) } else { print("live\n") }
    })
}

pub(super) fn ready(args: &ReadyArgs) -> Result<(), Failure> {
    let mut query = Vec::new();
    query.extend(args.min_peers.map(|n| format!("min_peers={n}")));
    query.extend(args.topic.as_ref().map(|t| format!("topic={}", encode(t.as_bytes()))));
    query.extend(args.min_mesh.map(|n| format!("min_mesh={n}")));
    api::ask(&args.api, "ready", async |mut api| {
        let body = api.get(&format!("/readyz?{}", query.join("&"))).await?;
        if args.json {
            return print(&String::from_utf8_lossy(&body));
        }
        let record: Value = serde_json::from_slice(&body).unwrap_or_default();
        match record["mesh"].as_u64() {
            Some(mesh) => print(&format!("ready: {} peers, {mesh} in the mesh\n", record["peers"])),
            None => print(&format!("ready: {} peers\n", record["peers"])),
        }
    })
}
