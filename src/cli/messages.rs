//! `smidge pub` and `smidge sub`: messages in and out of a running node. `lines.rs` publishes many.

mod lines;

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Read},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use futures::{
    FutureExt, StreamExt,
    future::{Either, Fuse, FusedFuture, LocalBoxFuture, pending},
    select, stream,
};
use rustix::event::PollFlags;
use serde_json::{Value, json};

use super::{
    Failure,
    api::{self, Api, ApiArgs, Follow, OWN_STATE, SseEvent, duration},
    exit, print, print_patiently, stdout_is, warn,
};
use crate::{
    gateway::encode,
    runtime::{Signal, Signals},
    text,
};

/// Publishes a message through a running node.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge pub -t some_topic -m hello\n\n\
                        Without -m and -f, stdin is published. \"to N peers\" means handed to them, not more;\n\
                        those who subscribe at the node itself hear it, too.\n\
                        With --lines, Ctrl-C ends with a summary; where stderr is a terminal, it shows progress.\n\n\
                        --json, for each message: {\"id\", \"peers\", \"local\"}")]
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
    /// How long they are waited for, in seconds or with a unit
    #[arg(long, value_name = "S", default_value = "10", value_parser = duration)]
    timeout: Duration,
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
        let wait = self.wait_peers.map(|n| format!("wait_peers={n}&")).unwrap_or_default();
        format!("/v1/topics/{topic}?{wait}timeout={millis}ms")
    }

    /// What is to be printed of a receipt, which ends in a line break.
    fn shown(&self, receipt: &[u8]) -> String {
        if self.json {
            return String::from_utf8_lossy(receipt).into_owned();
        }
        let receipt: Value = serde_json::from_slice(receipt).unwrap_or_default();
        let (id, peers) = (receipt["id"].as_str().unwrap_or_default(), &receipt["peers"]);
        match receipt["local"].as_u64().unwrap_or(0) {
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

/// Prints the messages of topics, as a running node gets them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge sub -t some_topic --count 1\n\n\
                        Live, not a log: what was said before is not shown. Messages that are no text are\n\
                        printed as base64:…; --json tells all there is to tell. Ctrl-C ends with a summary.\n\n\
                        --json, for each message: {\"topic\", \"id\", \"source\", \"name\", \"from\", \"local\",\n\
                        \"bytes\", \"base64\", \"data\", \"sent\", \"late\"}; {\"lost\"} where some were lost.")]
pub(crate) struct SubArgs {
    /// A topic (repeatable)
    #[arg(short, long, value_name = "TOPIC", required = true)]
    topic: Vec<String>,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after so long, in seconds or with a unit; with --count, 75 is the exit code then
    #[arg(long, value_name = "S", value_parser = duration)]
    timeout: Option<Duration>,
    /// Leave out what is published at the node itself
    #[arg(long)]
    no_local: bool,
    /// Print a JSON record for each message
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// How often to check whether the reader of stdout is still there.
const LOOK: Duration = Duration::from_millis(250);

/// Messages that are printed at a time, where that many have come.
const TOGETHER: usize = 256;

pub(super) fn subscribe(args: &SubArgs) -> Result<(), Failure> {
    api::ask(&args.api, "sub", async |api| {
        let mut signals = Signals::new().map_err(|e| Failure::new(exit::FAILED, "signals", e))?;
        let mut streams = Vec::new();
        for topic in &args.topic {
            streams.push(events(api.follow(topic, args.no_local).await?).boxed());
        }
        let mut seen = Seen { args, since: Instant::now(), messages: 0, lost: 0 };
        // What is being printed; no more is taken from the node meanwhile.
        let mut printing: Fuse<LocalBoxFuture<'_, Result<(), Failure>>> = Fuse::terminated();
        let (mut last, mut ended) = (false, false);
        let mut events = stream::select_all(streams).ready_chunks(TOGETHER).fuse();
        let mut late = match args.timeout {
            Some(limit) => Either::Left(api.runtime.sleep(limit)),
            None => Either::Right(pending()),
        }
        .fuse();
        loop {
            let idle = printing.is_terminated();
            if idle && last {
                return Ok(());
            }
            if idle && ended {
                let why = "the node has stopped";
                return Err(Failure::new(exit::UNAVAILABLE, api.verb, why).hint("start it again: smidge run"));
            }
            let mut next = match idle {
                true => Either::Left(events.next()),
                false => Either::Right(pending()),
            }
            .fuse();
            select! {
                printed = printing => printed?,
                come = next => {
                    // What came together is printed together.
                    let mut text = String::new();
                    ended = come.is_none();
                    for event in come.into_iter().flatten() {
                        ended |= event.name == "end";
                        if ended || last {
                            break;
                        }
                        let more;
                        (more, last) = seen.event(&event);
                        text.push_str(&more);
                    }
                    if !text.is_empty() {
                        printing = print_patiently(&api.runtime, text).boxed_local().fuse();
                    }
                }
                signal = signals.next().fuse() => if signal != Some(Signal::Reload) {
                    seen.summary();
                    return Ok(());
                },
                () = late => return seen.late(),
                () = api.runtime.sleep(LOOK).fuse() => if nobody_reads() {
                    return Ok(());
                },
            }
        }
    })
}

fn events(follow: Follow) -> impl stream::Stream<Item = SseEvent> {
    stream::unfold(follow, async |mut follow| Some((follow.next().await?, follow)))
}

/// Whether the reader of our output is gone: `sub | head -1` ends with the first message then, and
/// not with the second one.
fn nobody_reads() -> bool {
    stdout_is(PollFlags::ERR | PollFlags::HUP)
}

/// What was seen so far.
struct Seen<'a> {
    args: &'a SubArgs,
    since: Instant,
    messages: u64,
    lost: u64,
}

impl Seen<'_> {
    /// What to print of an event, and whether it was the last one wanted.
    fn event(&mut self, event: &SseEvent) -> (String, bool) {
        let record: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if event.name == "lost" {
            let lost = record["lost"].as_u64().unwrap_or_default();
            self.lost += lost;
            if self.args.json {
                return (format!("{}\n", json!({ "lost": lost })), false);
            }
            warn(&format!("{lost} messages were lost: they came faster than they were printed"));
            return (String::new(), false);
        }
        self.messages += 1;
        let text = if self.args.json { format!("{}\n", event.data) } else { self.line(&record) };
        (text, self.args.count.is_some_and(|count| self.messages >= count))
    }

    fn line(&self, record: &Value) -> String {
        let text = |key: &str| record[key].as_str().unwrap_or_default();
        let mut line = String::new();
        if self.args.topic.len() > 1 {
            line.push_str(&format!("{}: ", text("topic")));
        }
        if record["base64"] == true {
            line.push_str("base64:");
        }
        line.push_str(text("data"));
        if io::stdout().is_terminal() {
            // What others say must not steer this terminal.
            line = text::lines(&line).into_owned();
        }
        line.push('\n');
        line
    }

    fn late(&self) -> Result<(), Failure> {
        match self.args.count {
            None => {
                self.summary();
                Ok(())
            }
            Some(count) => {
                let why = format!("{} of {count} messages came in time", self.messages);
                Err(Failure::new(exit::TIMED_OUT, "sub", why)
                    .hint("`smidge mesh` tells who else follows the topic"))
            }
        }
    }

    fn summary(&self) {
        let Self { messages, lost, since, .. } = self;
        use io::Write;
        let _ = writeln!(
            io::stderr(),
            "{messages} messages, {lost} lost, in {:.1} s",
            since.elapsed().as_secs_f64()
        );
    }
}
