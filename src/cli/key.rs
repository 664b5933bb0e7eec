//! `smidge key`: identity files.

use std::path::{Path, PathBuf};

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
                            The file holds libp2p's protobuf encoding, for its owner's eyes only.")]
    Generate(KeyFileArgs),
    /// Prints the peer id of a key file, or of the key that the configuration derives
    #[command(after_help = "Example:\n  smidge key show /var/lib/smidge/key")]
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

pub(super) fn run(args: KeyArgs) -> Result<(), Failure> {
    let (args, made) = match args.verb {
        KeyVerb::Generate(args) => (args, true),
        KeyVerb::Show(args) => (args, false),
    };
    let path = match args.file {
        Some(file) => file,
        None => {
            let config = args.config.load()?.identity;
            if !made && (config.derive_secret.is_some() || config.derive_name.is_some()) {
                return say(&Identity::open(&config)?, None, args.json);
            }
            config.key_file
        }
    };
    let identity = if made { Identity::create(&path)? } else { Identity::load(&path)? };
    say(&identity, Some(&path), args.json)
}

/// Prints whose a key is; `file`: where it is kept.
fn say(identity: &Identity, file: Option<&Path>, json: bool) -> Result<(), Failure> {
    identity.warnings().iter().for_each(|warning| warn(warning));
    let peer_id = identity.peer_id();
    if json {
        let record = json!({ "peer_id": peer_id.to_string(), "file": file, "type": "ed25519" });
        return print(&format!("{record}\n"));
    }
    print(&format!("{peer_id}\n"))
}
