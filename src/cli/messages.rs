//! `smidge pub` and `smidge sub`: messages in and out of a running node. `lines.rs` publishes many.

mod lines;
mod sub;

use std::{
    borrow::Cow,
    fs,
    io::{self, BufRead, Read},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use serde::Deserialize;

pub(super) use self::sub::{SubArgs, subscribe};
use super::{
    Failure,
    api::{self, Api, ApiArgs, OWN_STATE, duration},
    exit, print,
};
use crate::gateway::encode;

/// Publishes a message through a running node.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge pub -t some_topic -m hello\n\n\
                        Without -m and -f, stdin is published. \"to N peers\" means handed to them, not more;\n\
                        those who subscribe at the node itself hear it, too.\n\
                        With --lines, Ctrl-C ends with a summary; where stderr is a terminal, it shows progress.\n\n\
                        With --confirm 2, it is done when two other nodes have said that they keep the message; if they have\n\
                        not in time, it ends with 75, and says who did.\n\n\
                        --json, for each message: {\"id\", \"peers\", \"local\", \"confirmed\"}; with --mqtt:\n\
                        {\"topic\", \"qos\", \"retain\", \"bytes\"}")]
pub(crate) struct PubArgs {
    /// The topic
    #[arg(short, long, value_name = "TOPIC")]
    topic: String,
    #[command(flatten)]
    input: Input,
    /// Each line is a message of its own; empty ones are left out
    #[arg(long, conflicts_with = "message")]
    lines: bool,
    /// Peers that follow the topic to wait for; 0: publish even if nobody is there [default: one, or a subscriber here]
    #[arg(long, value_name = "N")]
    wait_peers: Option<usize>,
    /// Other nodes that have to say that they keep it, of a topic with keep; on disk, where they keep it there
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    confirm: usize,
    /// How long they are waited for, in seconds or with a unit
    #[arg(long, value_name = "S", default_value = "10", value_parser = duration)]
    timeout: Duration,
    /// To MQTT clients, of all nodes with MQTT: the topic is one of theirs
    #[arg(long, conflicts_with_all = ["wait_peers", "confirm"])]
    mqtt: bool,
    /// With --mqtt: 0, 1 or 2
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true, requires = "mqtt", value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// With --mqtt: it stays for those who subscribe later; an empty one deletes what stays
    #[arg(long, requires = "mqtt")]
    retain: bool,
    /// Print a JSON record for each message
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// Where bytes come from.
#[derive(Clone, Debug, Args)]
pub(super) struct Input {
    /// The text itself
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file")]
    message: Option<String>,
    /// A file that holds it; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Bytes of an input read at a time.
const BUFFER: usize = 64 << 10;
/// What a node takes at most (`api.max_body` has this bound).
const MAX_INPUT: u64 = 16 << 20;

impl Input {
    fn is_stdin(&self) -> bool {
        self.message.is_none() && self.file.as_ref().is_none_or(|path| path.as_os_str() == "-")
    }

    fn open(&self, verb: &str) -> Result<Lines, Failure> {
        match &self.file {
            Some(path) if path.as_os_str() != "-" => match fs::File::open(path) {
                Ok(file) => Ok(Box::new(io::BufReader::with_capacity(BUFFER, file))),
                Err(e) => Err(Failure::new(exit::FAILED, verb, format!("{}: {e}", path.display()))),
            },
            _ => Ok(Box::new(io::BufReader::with_capacity(BUFFER, io::stdin()))),
        }
    }

    /// All of it.
    pub(super) fn read(&self, verb: &str) -> Result<Vec<u8>, Failure> {
        if let Some(text) = &self.message {
            return Ok(text.clone().into_bytes());
        }
        let mut bytes = Vec::new();
        let read = self.open(verb)?.take(MAX_INPUT + 1).read_to_end(&mut bytes);
        read.map_err(|e| Failure::new(exit::FAILED, verb, format!("the input cannot be read: {e}")))?;
        if bytes.len() as u64 > MAX_INPUT {
            return Err(Failure::new(exit::FAILED, verb, "the input is larger than 16MiB"));
        }
        Ok(bytes)
    }
}

pub(super) fn publish(args: &PubArgs) -> Result<(), Failure> {
    api::ask(&args.api, "pub", async |mut api| {
        if args.lines {
            return lines::publish(&mut api, args).await;
        }
        let data = args.input.read(api.verb)?;
        print(&say(&mut api, args, &data).await?)
    })
}

pub(super) type Lines = Box<dyn BufRead + Send>;

/// Publishes one message; what is to be printed of it.
async fn say(api: &mut Api, args: &PubArgs, data: &[u8]) -> Result<String, Failure> {
    let body = api.call("POST", &args.path(), data, args.timeout.saturating_add(OWN_STATE)).await?;
    Ok(args.shown(&body))
}

impl PubArgs {
    fn path(&self) -> String {
        let (topic, millis) = (encode(self.topic.as_bytes()), self.timeout.as_millis());
        if self.mqtt {
            return format!("/v1/mqtt/{topic}?qos={}&retain={}", self.qos, self.retain);
        }
        let wait = self.wait_peers.map(|n| format!("wait_peers={n}&")).unwrap_or_default();
        let confirm = if self.confirm > 0 { format!("confirm={}&", self.confirm) } else { String::new() };
        format!("/v1/topics/{topic}?{wait}{confirm}timeout={millis}ms")
    }

    /// What is to be printed of a receipt, which ends in a line break.
    fn shown(&self, receipt: &[u8]) -> String {
        if self.json {
            return String::from_utf8_lossy(receipt).into_owned();
        }
        self.said(&serde_json::from_slice(receipt).unwrap_or_default())
    }

    fn said(&self, receipt: &Receipt<'_>) -> String {
        if self.mqtt {
            return format!("published to {}\n", self.topic);
        }
        let Receipt { id, peers, local, confirmed, .. } = receipt;
        if !confirmed.is_empty() {
            return format!("published {id} to {peers} peers, and kept by {}\n", confirmed.join(", "));
        }
        match local {
            0 if *peers == 0 && !id.is_empty() => {
                format!("published {id} to 0 peers: it is kept for those that come\n")
            }
            0 if *peers == 0 => format!("published to 0 peers: nobody follows {}\n", self.topic),
            0 => format!("published {id} to {peers} peers\n"),
            1 => format!("published {id} to {peers} peers and 1 subscriber here\n"),
            n => format!("published {id} to {peers} peers and {n} subscribers here\n"),
        }
    }
}

/// What a node says of a message: a receipt, or, with a status, a refusal.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Receipt<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    peers: u64,
    local: u64,
    confirmed: Vec<String>,
    status: Option<u16>,
}

/// How often to check whether the reader of stdout is still there.
pub(super) const LOOK: Duration = Duration::from_millis(250);
