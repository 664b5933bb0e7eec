//! `smidge key`: identity files.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArgs, Failure, print, warn};
use crate::identity::Identity;

/// Makes and shows identity files.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge key generate ./key")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
enum KeyVerb {
    /// Makes a key file, never over an old one, and prints its peer id
    #[command(after_help = "Example:\n  smidge key generate ./key\n\n\
                            The file holds libp2p's protobuf encoding, for its owner's eyes only.\n\n\
                            --json: {\"peer_id\", \"file\", \"type\"}")]
    Generate(KeyFileArgs),
    /// Prints the peer id of a key file
    #[command(
        after_help = "Example:\n  smidge key show /var/lib/smidge/key\n\n--json: {\"peer_id\", \"file\", \"type\"}"
    )]
    Show(KeyFileArgs),
}

#[derive(Debug, Args)]
struct KeyFileArgs {
    /// The key file [default: identity.key_file of the configuration]
    file: Option<PathBuf>,
    /// Print a JSON record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

impl KeyFileArgs {
    fn path(&self) -> Result<PathBuf, Failure> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => Ok(self.config.load()?.identity.key_file),
        }
    }
}

pub(super) fn run(args: KeyArgs) -> Result<(), Failure> {
    let (args, made) = match args.verb {
        KeyVerb::Generate(args) => (args, true),
        KeyVerb::Show(args) => (args, false),
    };
    let path = args.path()?;
    let identity = if made { Identity::create(&path)? } else { Identity::load(&path)? };
    identity.warnings().iter().for_each(|warning| warn(warning));
    let peer_id = identity.peer_id();
    if args.json {
        let record = json!({ "peer_id": peer_id.to_string(), "file": path, "type": "ed25519" });
        return print(&format!("{record}\n"));
    }
    print(&format!("{peer_id}\n"))
}
