//! `smidge demo`: the seed's network on this machine.

use clap::{Args, value_parser};

use super::{Failure, exit};

/// Shows bootstrap, peer and sender finding each other on this machine.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge demo --nodes 5")]
pub(crate) struct DemoArgs {
    /// How many nodes there are
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(3..=64))]
    pub(crate) nodes: u16,
    /// Print the times as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    let DemoArgs { nodes: _, json: _ } = args;
    Err(Failure::new(exit::FAILED, "demo", "not built yet"))
}
