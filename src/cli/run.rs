//! `smidge run`: the node.

use clap::Args;

use super::{ConfigArgs, Failure, exit, warn};
use crate::{
    config::{Config, LoadOptions},
    logging,
};

/// Runs a node until it is told to stop.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge run --dial bootstrap:4001 --topic some_topic\n\n\
                        SIGHUP reads the configuration again; SIGTERM stops within 5 seconds.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A name (or address) to stay connected to; port 4001 unless given (repeatable)
    #[arg(long, value_name = "NAME[:PORT]")]
    dial: Vec<String>,
    /// An address to listen on, for instance /ip4/0.0.0.0/udp/4001/quic-v1 (repeatable)
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// A topic to subscribe to (repeatable)
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
}

impl RunArgs {
    /// What the configuration is made from: on start, and again on SIGHUP.
    pub(crate) fn options(&self) -> LoadOptions {
        let mut options = self.config.options();
        options.flag("--dial", "dial.names", &self.dial);
        options.flag("--listen", "listen.addresses", &self.listen);
        options.flag("--topic", "gossip.topics", &self.topic);
        options
    }
}

/// Reads the configuration, sets up the log, and runs the node.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    let options = args.options();
    let config = Config::load(&options)?;
    let _log = logging::init(&config.log)?;
    config.warnings().iter().for_each(|warning| warn(warning));
    Err(Failure::new(exit::FAILED, "run", "not built yet"))
}
