//! `smidge dht`: records, providers and peers of the hash table, through a running node.

use std::{io::IsTerminal, time::Duration};

use clap::{Args, Subcommand};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Failure,
    api::{self, ApiArgs, QUERY, duration},
    messages::Input,
    print, short_id,
};
use crate::{gateway::encode, text};

/// Stores and finds records, providers and peers.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge dht put color -m green\n  smidge dht get color")]
pub(crate) struct DhtArgs {
    #[command(subcommand)]
    verb: DhtVerb,
}

#[derive(Debug, Subcommand)]
enum DhtVerb {
    /// Stores a record here and at the nodes closest to its key
    #[command(
        after_help = "Example:\n  smidge dht put config.json -f ./config.json --quorum all --ttl 7d\n\n\
                            Without -m and -f, the value comes from stdin.\n\n--json: {\"confirmed\"}"
    )]
    Put(PutArgs),
    /// Prints the value of a record, byte for byte
    #[command(after_help = "Example:\n  smidge dht get config.json > config.json")]
    Get(GetArgs),
    /// Announces the node as a provider of a key, for as long as it runs (or keeps it on disk: kad.store)
    #[command(
        after_help = "Example:\n  smidge dht provide backup\n  smidge dht provide backup --multihash\n\n\
                            A key is any text, and every smidge node takes it. Others (js-libp2p) keep providers\n\
                            of keys that are sha2-256 multihashes only, as IPFS has them, and refuse the rest in\n\
                            silence. With --multihash it is the text's multihash that is announced, and looked\n\
                            for by `dht providers --multihash`.\n\n--json: {\"provider\"}"
    )]
    Provide(KeyArgs),
    /// Prints the providers of a key
    #[command(
        after_help = "Example:\n  smidge dht providers backup\n  smidge dht providers backup --multihash\n\n\
                            --json: {\"providers\"}"
    )]
    Providers(KeyArgs),
    /// Prints the addresses of a peer, as its neighbours know them
    #[command(
        after_help = "Example:\n  smidge dht find-peer 12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp\n\n\
                      --json: {\"peer\", \"addresses\"}"
    )]
    FindPeer(PeerArgs),
}

#[derive(Debug, Args)]
struct PutArgs {
    /// The key
    key: String,
    #[command(flatten)]
    input: Input,
    /// How many of the other nodes that are known have to confirm: one, majority, all; or a number, known or not
    #[arg(long, value_name = "N", default_value = "majority")]
    quorum: String,
    /// How long the record lives, in seconds or with a unit [default: kad.record_ttl]
    #[arg(long, value_name = "S", value_parser = duration)]
    ttl: Option<Duration>,
    /// Print a JSON record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
struct GetArgs {
    /// The key
    key: String,
    /// How many nodes have to say the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    quorum: usize,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
struct KeyArgs {
    /// The key
    key: String,
    /// Take the key's sha2-256 multihash in its place
    #[arg(long)]
    multihash: bool,
    /// Print a JSON record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
struct PeerArgs {
    /// The peer's id; of a connected one, its end as tables print it
    peer: String,
    /// Print a JSON record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

impl KeyArgs {
    fn path(&self) -> String {
        let key = self.key.as_bytes();
        let key = if self.multihash { encode(&multihash(key)) } else { encode(key) };
        format!("/v1/dht/{key}/providers")
    }
}

/// What becomes of a key that is no multihash.
const FOREIGN: &str = "smidge nodes take any key; js-libp2p keeps providers of sha2-256 multihashes only, and refuses \
                       others in silence (--multihash)";

/// The sha2-256 multihash of `data`: code, length, digest (multiformats/multihash).
fn multihash(data: &[u8]) -> Vec<u8> {
    let mut hash = vec![0x12, 0x20];
    hash.extend_from_slice(&Sha256::digest(data));
    hash
}

pub(super) fn run(args: DhtArgs) -> Result<(), Failure> {
    match args.verb {
        DhtVerb::Put(args) => put(&args),
        DhtVerb::Get(args) => get(&args),
        DhtVerb::Provide(args) => {
            show(&args.api, "dht provide", "POST", &args.path(), args.json, |_| String::new())?;
            if !(args.multihash || args.json) {
                super::note(FOREIGN);
            }
            Ok(())
        }
        DhtVerb::Providers(args) => {
            show(&args.api, "dht providers", "GET", &args.path(), args.json, |record| {
                lines(&record["providers"])
            })
        }
        DhtVerb::FindPeer(args) => api::ask(&args.api, "dht find-peer", async |mut api| {
            let peer = short_id::whole(&mut api, &args.peer).await?;
            let path = format!("/v1/peers/{}", encode(peer.as_bytes()));
            let body = api.call("GET", &path, b"", QUERY).await?;
            print_answer(&body, args.json, |record| lines(&record["addresses"]))
        }),
    }
}

fn put(args: &PutArgs) -> Result<(), Failure> {
    api::ask(&args.api, "dht put", async |mut api| {
        let value = args.input.read(api.verb)?;
        let key = encode(args.key.as_bytes());
        let mut path = format!("/v1/dht/{key}?quorum={}", encode(args.quorum.as_bytes()));
        if let Some(ttl) = args.ttl {
            path.push_str(&format!("&ttl={}ms", ttl.as_millis()));
        }
        let body = api.call("PUT", &path, &value, QUERY).await?;
        if args.json {
            return print(&String::from_utf8_lossy(&body));
        }
        let record: Value = serde_json::from_slice(&body).unwrap_or_default();
        print(&format!("stored here and confirmed by {} others\n", record["confirmed"]))
    })
}

fn get(args: &GetArgs) -> Result<(), Failure> {
    api::ask(&args.api, "dht get", async |mut api| {
        let path = format!("/v1/dht/{}?quorum={}", encode(args.key.as_bytes()), args.quorum);
        let value = api.call("GET", &path, b"", QUERY).await?;
        if std::io::stdout().is_terminal() {
            // What others stored must not steer this terminal.
            return print(&text::lines(&String::from_utf8_lossy(&value)));
        }
        super::print_bytes(&value)
    })
}

/// Asks, and prints what `shown` makes of the answer, or the answer itself.
pub(super) fn show(
    args: &ApiArgs,
    verb: &'static str,
    method: &str,
    path: &str,
    json: bool,
    shown: impl Fn(&Value) -> String,
) -> Result<(), Failure> {
    api::ask(args, verb, async |mut api| {
        let body = api.call(method, path, b"", QUERY).await?;
        print_answer(&body, json, shown)
    })
}

fn print_answer(body: &[u8], json: bool, shown: impl Fn(&Value) -> String) -> Result<(), Failure> {
    if json {
        return print(&String::from_utf8_lossy(body));
    }
    let record = serde_json::from_slice(body).unwrap_or_default();
    print(&text::lines(&shown(&record)))
}

fn lines(list: &Value) -> String {
    let items = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    items.map(|item| format!("{item}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multihash_is_what_ipfs_calls_the_key() {
        let hash = data_encoding::HEXLOWER.encode(&multihash(b"backup"));
        let digest = "54d00d867758cef816bc4685f58e327b949712b07ebd17c3485f3ffc9e9f5133";
        assert_eq!(hash, format!("1220{digest}"));
    }
}
