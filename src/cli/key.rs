//! `smidge key`: identity files.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArgs, Failure, exit, print, warn};
use crate::{
    identity::{Identity, write_new},
    transport::admission::{Keyring, NetworkKey},
};

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
    /// Prints the peer id of a key file, or of the key that the configuration derives
    #[command(
        after_help = "Example:\n  smidge key show /var/lib/smidge/key\n\n--json: {\"peer_id\", \"file\", \"type\"}"
    )]
    Show(KeyFileArgs),
    /// Makes the key of a private network, or tells which keys a file holds
    #[command(after_help = "Examples:\n  smidge key network ./network-key\n  \
                            smidge key network --show ./network-key\n  \
                            smidge key network | docker secret create smidge_network -\n\n\
                            Prints the fingerprint of the key in a new file, those of a file's keys, or a new key.\n\
                            All nodes of the network have the same key: network.key_file names its file.\n\
                            To rotate: add a line at the end on all nodes, move it to the first place on\n\
                            all nodes, remove the old one; SIGHUP makes a node read the file again.\n\n\
                            --json: {\"file\", \"fingerprints\"}")]
    Network(NetworkArgs),
}

#[derive(Debug, Args)]
struct NetworkArgs {
    /// The file to make; none: the key goes to stdout
    #[arg(required_if_eq("show", "true"))]
    file: Option<PathBuf>,
    /// Print the fingerprints of the file's keys, the one that is used first
    #[arg(long)]
    show: bool,
    /// Print a JSON record
    #[arg(long, requires = "file")]
    json: bool,
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
        KeyVerb::Network(args) => return network(args),
    };
    let path = match args.file {
        Some(file) => file,
        None => {
            let config = args.config.load()?.identity;
            if !made && (config.derive_secret.is_some() || config.derive_name.is_some()) {
                return say(&config.open()?, None, args.json);
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

fn network(args: NetworkArgs) -> Result<(), Failure> {
    let fingerprints = match &args.file {
        Some(path) if args.show => {
            let keyring = Keyring::read(path)?;
            if let Some(left_out) = keyring.left_out() {
                warn(&left_out.to_string());
            }
            keyring.fingerprints()
        }
        file => {
            let key = NetworkKey::generate().map_err(|e| Failure::new(exit::FAILED, "network key", e))?;
            let line = zeroize::Zeroizing::new([key.encode().as_str(), "\n"].concat());
            let Some(path) = file else { return print(&line) };
            write_new(path, line.as_bytes()).map_err(|(doing, error)| not_written(path, doing, &error))?;
            vec![key.fingerprint()]
        }
    };
    if args.json {
        let record = json!({ "file": args.file, "fingerprints": fingerprints });
        return print(&format!("{record}\n"));
    }
    print(&format!("{}\n", fingerprints.join("\n")))
}

fn not_written(path: &Path, doing: &str, error: &std::io::Error) -> Failure {
    let failure =
        |what: String| Failure::new(exit::FAILED, "network key", format!("{}: {what}", path.display()));
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => failure("a file is there already".into()).hint(format!(
            "see what it holds: smidge key network --show {}; or choose another",
            path.display()
        )),
        _ => failure(format!("cannot {doing}: {error}")),
    }
}
