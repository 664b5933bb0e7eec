//! `smidge pub` and `smidge sub`: messages in and out of a running node.

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
    api::{self, AT_ONCE, Api, ApiArgs, Follow, SseEvent, duration},
    exit, print, print_patiently, stdout_is, warn,
};
use crate::{
    gateway::encode,
    runtime::{Signal, Signals},
    text::lines,
};

/// Publishes a message through a running node.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge pub -t some_topic -m hello\n\n\
                        Without -m and -f, stdin is published. \"to N peers\" means handed to them, not more.\n\
                        With --lines, Ctrl-C ends with a summary; where stderr is a terminal, it shows progress.\n\n\
                        --json, for each message: {\"id\", \"peers\"}")]
pub(crate) struct PubArgs {
    /// The topic
    #[arg(short, long, value_name = "TOPIC")]
    topic: String,
    #[command(flatten)]
    input: Input,
    /// Each line is a message of its own; empty ones are left out
    #[arg(long, conflicts_with = "message")]
    lines: bool,
    /// Subscribers of the topic to wait for; 0: publish even if nobody follows it
    #[arg(long, value_name = "N", default_value_t = 1)]
    wait_peers: usize,
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

/// What a node takes at most (`api.max_body` has this bound).
const MAX_INPUT: u64 = 16 << 20;

impl Input {
    fn open(&self, verb: &str) -> Result<Lines, Failure> {
        match &self.file {
            Some(path) if path.as_os_str() != "-" => match fs::File::open(path) {
                Ok(file) => Ok(Box::new(io::BufReader::new(file))),
                Err(e) => Err(Failure::new(exit::FAILED, verb, format!("{}: {e}", path.display()))),
            },
            _ => Ok(Box::new(io::BufReader::new(io::stdin()))),
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
            return publish_lines(&mut api, args).await;
        }
        let data = args.input.read(api.verb)?;
        print(&say(&mut api, args, &data).await?)
    })
}

/// Publishes line after line, and ends with the input or with a signal.
async fn publish_lines(api: &mut Api, args: &PubArgs) -> Result<(), Failure> {
    let signals = Signals::new().map_err(|e| Failure::new(exit::FAILED, "signals", e))?;
    // SIGHUP is no reason to end.
    let mut stops = signals.filter(|signal| futures::future::ready(*signal != Signal::Reload)).fuse();
    let (verb, runtime) = (api.verb, api.runtime.clone());
    let mut input = args.input.open(verb)?;
    let mut progress = Progress::new();
    loop {
        // Where blocking is allowed: a line may be long in coming, and a signal ends the wait.
        let read = runtime.unblock(move || next_line(input)).fuse();
        let mut read = std::pin::pin!(read);
        let line = loop {
            select! {
                read = read => break read,
                _ = stops.next() => {
                    progress.summary();
                    return Ok(());
                },
                () = runtime.sleep(LOOK).fuse() => progress.show(),
            }
        };
        let failed = |e| Failure::new(exit::FAILED, verb, format!("the input cannot be read: {e}"));
        let (line, rest) = line.map_err(failed)?.map_err(failed)?;
        input = rest;
        let Some(line) = line else {
            progress.clear();
            return Ok(());
        };
        if line.is_empty() {
            continue;
        }
        let said = async { print_patiently(&runtime, say(api, args, &line).await?).await }.fuse();
        let mut said = std::pin::pin!(said);
        loop {
            select! {
                said = said => {
                    progress.clear();
                    said?;
                    progress.messages += 1;
                    break;
                },
                _ = stops.next() => {
                    progress.summary();
                    return Ok(());
                },
                () = runtime.sleep(LOOK).fuse() => progress.show(),
            }
        }
        progress.show();
    }
}

type Lines = Box<dyn BufRead + Send>;

/// The next line without its end, and the rest; `None` at the end.
fn next_line(mut input: Lines) -> io::Result<(Option<Vec<u8>>, Lines)> {
    let mut line = Vec::new();
    if (&mut input).take(MAX_INPUT).read_until(b'\n', &mut line)? == 0 {
        return Ok((None, input));
    }
    for end in *b"\n\r" {
        if line.last() == Some(&end) {
            line.pop();
        }
    }
    Ok((Some(line), input))
}

/// How far a long input is, on one line of the terminal; nothing where stderr is none.
struct Progress {
    since: Instant,
    shown: Option<Instant>,
    on: bool,
    messages: u64,
}

/// Who is done within this time needs no progress.
const LONG: Duration = Duration::from_millis(500);

impl Progress {
    fn new() -> Self {
        Self { since: Instant::now(), shown: None, on: io::stderr().is_terminal(), messages: 0 }
    }

    /// Shows it, unless it was shown a moment ago.
    fn show(&mut self) {
        let fresh = self.shown.is_some_and(|at| at.elapsed() < LOOK);
        if self.on && !fresh && self.since.elapsed() >= LONG {
            self.shown = Some(Instant::now());
            self.write(&format!("\r\x1b[K{}", self.words()));
        }
    }

    /// Makes room for what is printed.
    fn clear(&self) {
        if self.shown.is_some() {
            self.write("\r\x1b[K");
        }
    }

    fn summary(&self) {
        self.clear();
        self.write(&format!("{}\n", self.words()));
    }

    fn words(&self) -> String {
        format!("{} messages published, in {:.1} s", self.messages, self.since.elapsed().as_secs_f64())
    }

    fn write(&self, text: &str) {
        use io::Write;
        let _ = write!(io::stderr(), "{text}");
    }
}

/// Publishes one message; what is to be printed of it.
async fn say(api: &mut Api, args: &PubArgs, data: &[u8]) -> Result<String, Failure> {
    let millis = args.timeout.as_millis();
    let topic = encode(args.topic.as_bytes());
    let path = format!("/v1/topics/{topic}?wait_peers={}&timeout={millis}ms", args.wait_peers);
    let body = api.call("POST", &path, data, args.timeout.saturating_add(AT_ONCE)).await?;
    if args.json {
        return Ok(String::from_utf8_lossy(&body).into_owned());
    }
    let receipt: Value = serde_json::from_slice(&body).unwrap_or_default();
    if receipt["peers"] == 0 {
        return Ok(format!("published to 0 peers: nobody follows {}\n", args.topic));
    }
    Ok(format!("published {} to {} peers\n", receipt["id"].as_str().unwrap_or("?"), receipt["peers"]))
}

/// Prints the messages of topics, as a running node gets them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge sub -t some_topic --count 1\n\n\
                        Live, not a log: what was said before is not shown. Messages that are no text are\n\
                        printed as base64:…; --json tells all there is to tell. Ctrl-C ends with a summary.\n\n\
                        --json, for each message: {\"topic\", \"id\", \"source\", \"from\", \"bytes\", \"base64\", \"data\"};\n\
                        {\"lost\"}\n\
                        where some were lost.")]
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
    /// Print a JSON record for each message
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// How often is looked whether anybody still reads what is printed.
const LOOK: Duration = Duration::from_millis(250);

pub(super) fn subscribe(args: &SubArgs) -> Result<(), Failure> {
    api::ask(&args.api, "sub", async |api| {
        let mut signals = Signals::new().map_err(|e| Failure::new(exit::FAILED, "signals", e))?;
        let mut streams = Vec::new();
        for topic in &args.topic {
            streams.push(events(api.follow(topic).await?).boxed());
        }
        let mut seen = Seen { args, since: Instant::now(), messages: 0, lost: 0 };
        // What is being printed; no more is taken from the node meanwhile.
        let mut printing: Fuse<LocalBoxFuture<'_, Result<(), Failure>>> = Fuse::terminated();
        let mut last = false;
        let mut events = stream::select_all(streams).fuse();
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
            let mut next = match idle {
                true => Either::Left(events.next()),
                false => Either::Right(pending()),
            }
            .fuse();
            select! {
                printed = printing => printed?,
                event = next => match event {
                    Some(event) if event.name != "end" => {
                        let text;
                        (text, last) = seen.event(&event);
                        if !text.is_empty() {
                            printing = print_patiently(&api.runtime, text).boxed_local().fuse();
                        }
                    }
                    _ => {
                        let why = "the node has stopped";
                        return Err(Failure::new(exit::UNAVAILABLE, api.verb, why).hint("start it again: smidge run"));
                    }
                },
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
            line = lines(&line).into_owned();
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
