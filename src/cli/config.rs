//! `smidge config`: the configuration that a node would run with.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArgs, Failure, exit, print, warn};
use crate::config::Config;

/// Checks and shows the configuration.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge config check /etc/smidge/config.toml")]
pub(crate) struct ConfigVerbArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Checks a file together with the environment, as a node would on start
    #[command(after_help = "Example:\n  smidge config check config/peer.toml\n\n\
                            Exit code 78 and a line for each problem if there is one.\n\n\
                            --json: {\"file\", \"ok\", \"problems\": [{\"source\", \"line\", \"key\", \"problem\",\n\
                            \"expected\", \"hint\"}], \"warnings\"}")]
    Check(CheckArgs),
    /// Prints the effective configuration, and where each value came from
    #[command(
        after_help = "Example:\n  SMIDGE__LOG__FORMAT=json smidge config show --set kad.replication=3\n\n\
                            Secrets are masked."
    )]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The file [default: as --config]
    file: Option<PathBuf>,
    /// Print a JSON record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Print JSON: {KEY: {"value", "from", "line"}}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: ConfigVerbArgs) -> Result<(), Failure> {
    match args.verb {
        ConfigVerb::Check(args) => check(args),
        ConfigVerb::Show(args) => show(&args),
    }
}

fn check(args: CheckArgs) -> Result<(), Failure> {
    let mut options = args.config.options();
    if args.file.is_some() {
        if options.file.is_some() {
            let why = "a FILE and --config were both given";
            return Err(Failure::new(exit::USAGE, "config check", why).hint("leave one of them out"));
        }
        options.file = args.file;
    }
    let name = options.file_to_read();
    let loaded = Config::load(&options);
    if args.json {
        let (problems, warnings) = match &loaded {
            Ok(config) => (Vec::new(), [options.warnings(), config.warnings()].concat()),
            Err(error) => (error.problems.clone(), Vec::new()),
        };
        let record =
            json!({ "file": name, "ok": loaded.is_ok(), "problems": problems, "warnings": warnings });
        print(&format!("{record}\n"))?;
    }
    let config = loaded?;
    if !args.json {
        options.warnings().iter().chain(&config.warnings()).for_each(|warning| warn(warning));
        let name = name.map_or_else(|| "no file, defaults only".into(), |name| name.display().to_string());
        print(&format!("{name}: ok\n"))?;
    }
    Ok(())
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    if args.json {
        return print(&format!("{:#}\n", config.json()));
    }
    print(&config.toml())
}
