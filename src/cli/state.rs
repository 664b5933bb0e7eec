//! `smidge state`: the newest value of each key of a topic, through a running node.

use std::{
    ffi::OsString,
    io::IsTerminal,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use futures::{
    FutureExt, StreamExt,
    future::{Either, pending},
    select,
};
use rustix::event::PollFlags;
use serde_json::Value;

use super::{
    Failure,
    api::{self, Api, ApiArgs, Follow, OWN_STATE, SseEvent, duration},
    exit,
    messages::{Input, LOOK},
    note, print, print_patiently, stdout_is,
    table::{Table, age, short},
    warn,
};
use crate::{
    gateway::encode,
    runtime::{Signal, Signals},
    text,
};

/// Sets, reads and watches values by key, of a topic with keep = "latest".
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge state set home lamp -m on\n  smidge state get home lamp\n\n\
                        Every node that keeps the topic has all values, those that come later, too; of two that set a\n\
                        key at the same time one wins, the same everywhere: [topics.\"home\"] keep = \"latest\".")]
pub(crate) struct StateArgs {
    #[command(subcommand)]
    verb: StateVerb,
}

#[derive(Debug, Subcommand)]
enum StateVerb {
    /// Prints the value of a key, byte for byte; fails if there is none
    #[command(after_help = "Example:\n  smidge state get home lamp")]
    Get(KeyArgs),
    /// Sets a key, here and at all nodes that keep the topic
    #[command(
        after_help = "Example:\n  smidge state set home lamp -m on\n  smidge state set home photo -f photo.jpg\n\n\
                            Without -m and -f, the value comes from stdin; it may be empty.\n\n\
                            --json: {\"id\", \"peers\", \"local\"}"
    )]
    Set(SetArgs),
    /// Deletes a key; fails if it has no value
    #[command(
        after_help = "Example:\n  smidge state delete home lamp\n\n--json: {\"id\", \"peers\", \"local\"}"
    )]
    Delete(DeleteArgs),
    /// Lists the keys of a topic
    #[command(after_help = "Example:\n  smidge state list home --values\n\n\
                            --json: {\"topic\", \"keys\"}, of each key \"key\", \"key_base64\", \"author\", \"sent\", \"bytes\",\n\
                            and with --values \"base64\", \"value\"")]
    List(ListArgs),
    /// Prints all values, or that of one key, and then every change
    #[command(after_help = "Example:\n  smidge state watch home lamp --count 1\n\n\
                            Prints KEY = VALUE, KEY deleted, or KEY gave way. When the node goes away, it is waited for,\n\
                            and all that is there is printed again.\n\n\
                            --json, for each: {\"event\", \"key\", \"key_base64\"}, with \"author\", \"sent\", \"bytes\", \"base64\",\n\
                            \"value\"; the event is set, deleted or gave_way; current, when all that was there is\n\
                            printed; again, when all comes again")]
    Watch(WatchArgs),
}

/// A key on the command line.
#[derive(Debug, Args)]
struct Key {
    /// The key: any bytes but a zero
    #[arg(value_name = "KEY")]
    key: OsString,
    /// The key is given in base64
    #[arg(long)]
    base64: bool,
}

#[derive(Debug, Args)]
struct KeyArgs {
    /// The topic
    topic: String,
    #[command(flatten)]
    key: Key,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
struct SetArgs {
    /// The topic
    topic: String,
    #[command(flatten)]
    key: Key,
    #[command(flatten)]
    input: Input,
    /// Print a JSON record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// The topic
    topic: String,
    #[command(flatten)]
    key: Key,
    /// Print a JSON record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// The topic
    topic: String,
    /// With their values
    #[arg(long)]
    values: bool,
    /// Print whole peer ids
    #[arg(long)]
    full: bool,
    /// Print a JSON record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
struct WatchArgs {
    /// The topic
    topic: String,
    /// The key; none: all
    key: Option<OsString>,
    /// The key is given in base64
    #[arg(long, requires = "key")]
    base64: bool,
    /// End after so many values and changes
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after so long, in seconds or with a unit; with --count, 75 is the exit code then
    #[arg(long, value_name = "S", value_parser = duration)]
    timeout: Option<Duration>,
    /// Print a JSON record for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// How long a node that went away is left alone before it is asked again.
const AGAIN: Duration = Duration::from_millis(500);

fn path(topic: &str) -> String {
    format!("/v1/state/{}", encode(topic.as_bytes()))
}

impl Key {
    fn path(&self, topic: &str) -> Result<String, Failure> {
        key_path(topic, &self.key, self.base64)
    }
}

fn key_path(topic: &str, key: &OsString, base64: bool) -> Result<String, Failure> {
    let key = key.as_encoded_bytes();
    let bytes = if base64 { BASE64.decode(key).ok() } else { Some(key.to_vec()) };
    match bytes {
        Some(bytes) if !bytes.is_empty() => Ok(format!("{}/{}", path(topic), encode(&bytes))),
        Some(_) => Err(Failure::new(exit::USAGE, "state", "an empty key").hint("a key is 1 to 1024 bytes")),
        None => Err(Failure::new(exit::USAGE, "state", "the key is no base64")
            .hint("as state list prints it behind base64:, with its padding")),
    }
}

pub(super) fn run(args: StateArgs) -> Result<(), Failure> {
    match args.verb {
        StateVerb::Get(args) => api::ask(&args.api, "state get", async |mut api| {
            let value = api.get(&args.key.path(&args.topic)?).await?;
            if std::io::stdout().is_terminal() {
                // What others set must not steer this terminal.
                return print(&text::lines(&String::from_utf8_lossy(&value)));
            }
            super::print_bytes(&value)
        }),
        StateVerb::Set(args) => api::ask(&args.api, "state set", async |mut api| {
            let path = args.key.path(&args.topic)?;
            let value = args.input.read(api.verb)?;
            let receipt = api.call("PUT", &path, &value, OWN_STATE).await?;
            print(&receipt_shown(&receipt, args.json, "set"))
        }),
        StateVerb::Delete(args) => api::ask(&args.api, "state delete", async |mut api| {
            let receipt = api.call("DELETE", &args.key.path(&args.topic)?, b"", OWN_STATE).await?;
            print(&receipt_shown(&receipt, args.json, "deleted"))
        }),
        StateVerb::List(args) => list(&args),
        StateVerb::Watch(args) => watch(&args),
    }
}

fn receipt_shown(receipt: &[u8], json: bool, what: &str) -> String {
    if json {
        return String::from_utf8_lossy(receipt).into_owned();
    }
    let receipt: Value = serde_json::from_slice(receipt).unwrap_or_default();
    match receipt["peers"].as_u64() {
        Some(0) => format!("{what} here: nobody else is there now\n"),
        peers => format!("{what} here, and handed to {} peers\n", peers.unwrap_or_default()),
    }
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    api::ask(&args.api, "state list", async |mut api| {
        let values = if args.values { "?values" } else { "" };
        let body = api.get(&format!("{}{values}", path(&args.topic))).await?;
        if args.json {
            return print(&String::from_utf8_lossy(&body));
        }
        let record: Value = serde_json::from_slice(&body).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let age = |entry: &Value| {
            let sent = u128::from(entry["sent"].as_u64().unwrap_or_default());
            age(u64::try_from(now.saturating_sub(sent) / 1000).unwrap_or_default())
        };
        let entries = record["keys"].as_array().into_iter().flatten();
        let cells = |entry: &Value| {
            let author = entry["author"].as_str().unwrap_or_default();
            let bytes = entry["bytes"].to_string();
            [shown(entry, "key", "key_base64"), bytes, age(entry), short(author, args.full)]
        };
        let table = match args.values {
            false => entries.fold(Table::new(["KEY", "BYTES", "AGE", "AUTHOR"]), |mut table, entry| {
                table.row(cells(entry));
                table
            }),
            true => entries.fold(Table::new(["KEY", "VALUE", "AGE", "AUTHOR"]), |mut table, entry| {
                let [key, _, age, author] = cells(entry);
                table.row([key, shown(entry, "value", "base64"), age, author]);
                table
            }),
        };
        print(&table.shown())
    })
}

/// A key or a value as text.
fn shown(record: &Value, name: &str, base64: &str) -> String {
    let prefix = if record[base64] == true { "base64:" } else { "" };
    format!("{prefix}{}", record[name].as_str().unwrap_or_default())
}

fn watch(args: &WatchArgs) -> Result<(), Failure> {
    api::ask(&args.api, "state watch", async |api| {
        let path = match &args.key {
            None => path(&args.topic),
            Some(key) => key_path(&args.topic, key, args.base64)?,
        };
        let path = format!("{path}?watch");
        let mut signals = Signals::new().map_err(|e| Failure::new(exit::FAILED, "signals", e))?;
        let mut follow = Some(api.follow_path(&path).await?);
        let mut left = args.count;
        let mut late = match args.timeout {
            Some(limit) => Either::Left(api.runtime.sleep(limit)),
            None => Either::Right(pending()),
        }
        .fuse();
        while left != Some(0) {
            select! {
                next = next(&api, &mut follow, &path).fuse() => {
                    let (text, counts) = said(&next?, args);
                    if !text.is_empty() {
                        print_patiently(&api.runtime, text).await?;
                    }
                    left = left.map(|left| left.saturating_sub(u64::from(counts)));
                }
                signal = signals.next().fuse() => if signal != Some(Signal::Reload) {
                    return Ok(());
                },
                () = late => return match left {
                    None => Ok(()),
                    Some(left) => {
                        let why = format!("{left} of {} did not come in time", args.count.unwrap_or_default());
                        Err(Failure::new(exit::TIMED_OUT, "state watch", why))
                    }
                },
                () = api.runtime.sleep(LOOK).fuse() => if stdout_is(PollFlags::ERR | PollFlags::HUP) {
                    return Ok(());
                },
            }
        }
        Ok(())
    })
}

/// The next event, from whichever stream; of another one than before, all comes again. May be dropped and called again.
async fn next(api: &Api, follow: &mut Option<Follow>, path: &str) -> Result<SseEvent, Failure> {
    if let Some(open) = follow {
        match open.next().await {
            Some(event) if event.name != "end" => return Ok(event),
            _ => {
                note("the node went away: it is waited for");
                *follow = None;
            }
        }
    }
    loop {
        api.runtime.sleep(AGAIN).await;
        match api.follow_path(path).await {
            Ok(open) => {
                note("the node is back");
                *follow = Some(open);
                return Ok(SseEvent { name: "again".into(), data: "{}".into() });
            }
            // It is not there, or is still coming up or going down.
            Err(failure) if matches!(failure.code, exit::UNAVAILABLE | exit::TIMED_OUT) => {}
            Err(failure) => return Err(failure),
        }
    }
}

/// What is printed of an event, and whether it counts.
fn said(event: &SseEvent, args: &WatchArgs) -> (String, bool) {
    let mut record: Value = serde_json::from_str(&event.data).unwrap_or_default();
    let counts = !matches!(event.name.as_str(), "current" | "again");
    if args.json {
        if let Value::Object(record) = &mut record {
            record.insert("event".into(), event.name.clone().into());
        }
        return (format!("{record}\n"), counts);
    }
    let key = shown(&record, "key", "key_base64");
    let line = match event.name.as_str() {
        "set" => format!("{key} = {}", shown(&record, "value", "base64")),
        "deleted" => format!("{key} deleted"),
        "gave_way" => format!("{key} gave way"),
        "again" => {
            warn("changes were missed: all that is there comes again");
            return (String::new(), false);
        }
        _ => return (String::new(), false),
    };
    let line = if std::io::stdout().is_terminal() { text::lines(&line).into_owned() } else { line };
    (format!("{line}\n"), counts)
}
