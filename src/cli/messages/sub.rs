//! `smidge sub`: messages as a running node gets them, also across its restarts.

use std::{
    borrow::Cow,
    io::{self, IsTerminal},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use futures::{
    FutureExt, StreamExt,
    future::{Either, Fuse, FusedFuture, LocalBoxFuture, pending},
    select, stream,
};
use rustix::event::PollFlags;
use serde::Deserialize;
use serde_json::json;

use super::LOOK;
use crate::{
    cli::{
        Failure,
        api::{self, Api, ApiArgs, Follow, SseEvent, duration},
        exit, note, print_patiently, stdout_is,
        table::short,
        warn,
    },
    config::parse_duration,
    gateway::encode,
    runtime::{Signal, Signals},
    text,
};

/// Prints the messages of topics, as a running node gets them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge sub -t some_topic --count 1\n\n\
                        Live, not a log: what was said before is shown with --since and --last, of a topic with\n\
                        keep. Messages that are no text are printed as base64:…; --json tells all there is to tell. Ctrl-C ends with a summary.\n\
                        When the node goes away, it is waited for; what is said meanwhile is missed.\n\n\
                        --json, for each message: {\"topic\", \"id\", \"source\", \"name\", \"from\", \"local\",\n\
                        \"bytes\", \"base64\", \"data\", \"sent\", \"late\", \"position\"};\n\
                        {\"lost\"} where some were lost, {\"gone\"} where some are remembered no more. With --mqtt: {\"topic\",\n\
                        \"bytes\", \"base64\", \"data\", \"qos\", \"retained\", \"content_type\", \"response_topic\", \"user\"}.")]
pub(crate) struct SubArgs {
    /// A topic (repeatable); with --mqtt a filter, such as home/+/door or #
    #[arg(short, long, value_name = "TOPIC", required = true)]
    topic: Vec<String>,
    /// What MQTT clients say, of all nodes with MQTT; what is retained comes first
    #[arg(long, conflicts_with_all = ["since", "last", "no_local"])]
    mqtt: bool,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after so long, in seconds or with a unit; with --count, 75 is the exit code then
    #[arg(long, value_name = "S", value_parser = duration)]
    timeout: Option<Duration>,
    /// Begin with what the node remembers, of a topic with keep: so long ago (10m), or behind a "position" of --json
    #[arg(long, value_name = "TIME", conflicts_with = "last")]
    since: Option<String>,
    /// Begin with the newest messages that the node remembers, at most so many of each topic
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Leave out what is published at the node itself
    #[arg(long)]
    no_local: bool,
    /// Print when each message was sent (UTC), or came where nobody says when, and its source
    #[arg(short, long, conflicts_with = "json")]
    verbose: bool,
    /// Print a JSON record for each message
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

impl SubArgs {
    /// Of a stream that begins in the past, if it is to, or with what is live.
    fn path(&self, topic: &str, past: bool) -> String {
        let of = if self.mqtt { "mqtt" } else { "topics" };
        format!("/v1/{of}/{}?{}", encode(topic.as_bytes()), self.query(past))
    }

    fn query(&self, past: bool) -> String {
        let since = self.since.as_ref().filter(|_| past).map(|since| {
            let back = if parse_duration(since).is_ok() { "-" } else { "" };
            format!("since={back}{}", encode(since.as_bytes()))
        });
        let last = self.last.filter(|_| past).map(|last| format!("last={last}"));
        let local = self.no_local.then(|| "local=false".to_owned());
        [since, last, local].into_iter().flatten().collect::<Vec<_>>().join("&")
    }
}

/// Messages that are printed at a time, where that many have come.
const TOGETHER: usize = 32;
/// How long a node that went away is left alone before it is asked again: doubled, up to the longest.
const AGAIN: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(5);

/// What comes of a topic.
enum Come {
    Event(SseEvent),
    /// The node went away, and is asked for again and again.
    Gone,
    Back,
    /// It is there, and refuses.
    Refused(Failure),
}

pub(in crate::cli) fn subscribe(args: &SubArgs) -> Result<(), Failure> {
    api::ask(&args.api, "sub", async |api| {
        let mut signals = Signals::new().map_err(|e| Failure::new(exit::FAILED, "signals", e))?;
        let mut streams = Vec::new();
        for topic in &args.topic {
            let first = api.follow_path(&args.path(topic, true)).await?;
            streams.push(stream(&api, args.path(topic, false), first).boxed_local());
        }
        if args.count == Some(0) {
            return Ok(());
        }
        let mut seen = Seen::new(args);
        // What is being printed; no more is taken from the node meanwhile.
        let mut printing: Fuse<LocalBoxFuture<'_, Result<(), Failure>>> = Fuse::terminated();
        let mut last = false;
        let mut come = stream::select_all(streams).ready_chunks(TOGETHER).fuse();
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
                true => Either::Left(come.next()),
                false => Either::Right(pending()),
            }
            .fuse();
            select! {
                printed = printing => printed?,
                come = next => {
                    // What came together is printed together.
                    let mut text = String::new();
                    for come in come.into_iter().flatten() {
                        if last {
                            break;
                        }
                        last = seen.take(come, &mut text)?;
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

/// Where a stream stands.
enum State {
    Open(Follow),
    /// The node is gone; it is asked again after this long.
    Lost(Duration),
    Ended,
}

/// What comes of a topic: it ends only where the node refuses.
fn stream(api: &Api, path: String, first: Follow) -> impl stream::Stream<Item = Come> + '_ {
    stream::unfold((State::Open(first), path), move |(state, path)| async move {
        let mut pause = match state {
            State::Open(mut follow) => {
                return Some(match follow.next().await.filter(|event| event.name != "end") {
                    Some(event) => (Come::Event(event), (State::Open(follow), path)),
                    None => (Come::Gone, (State::Lost(AGAIN), path)),
                });
            }
            State::Lost(pause) => pause,
            State::Ended => return None,
        };
        loop {
            api.runtime.sleep(pause).await;
            match api.follow_path(&path).await {
                Ok(follow) => return Some((Come::Back, (State::Open(follow), path))),
                // It is not there, or is still coming up or going down.
                Err(failure) if matches!(failure.code, exit::UNAVAILABLE | exit::TIMED_OUT) => {}
                Err(failure) => return Some((Come::Refused(failure), (State::Ended, path))),
            }
            pause = (pause * 2).min(LONGEST);
        }
    })
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
    /// Topics whose stream is broken.
    broken: usize,
    /// Whether stdout is one.
    on_terminal: bool,
}

impl<'a> Seen<'a> {
    fn new(args: &'a SubArgs) -> Self {
        let on_terminal = io::stdout().is_terminal();
        Self { args, since: Instant::now(), messages: 0, lost: 0, broken: 0, on_terminal }
    }

    /// Adds what is to be printed to `text`; whether it was the last message wanted.
    fn take(&mut self, come: Come, text: &mut String) -> Result<bool, Failure> {
        match come {
            Come::Event(event) => return Ok(self.event(&event, text)),
            Come::Gone => {
                if self.broken == 0 {
                    note("the node went away: it is waited for");
                }
                self.broken += 1;
            }
            Come::Back => {
                self.broken -= 1;
                if self.broken == 0 {
                    note("the node is back: what was said meanwhile was missed");
                }
            }
            Come::Refused(failure) => return Err(failure),
        }
        Ok(false)
    }

    fn event(&mut self, event: &SseEvent, text: &mut String) -> bool {
        if event.name == "lost" {
            let Lost { lost } = serde_json::from_str(&event.data).unwrap_or_default();
            self.lost += lost;
            if self.args.json {
                text.push_str(&format!("{}\n", json!({ "lost": lost })));
            } else {
                warn(&format!("{lost} messages were lost: they came faster than they were printed"));
            }
            return false;
        }
        if event.name == "gone" {
            match self.args.json {
                true => text.push_str("{\"gone\":true}\n"),
                false => warn("some of what was asked for is remembered no more"),
            }
            return false;
        }
        self.messages += 1;
        match self.args.json {
            true => text.push_str(&event.data),
            false => self.line(&serde_json::from_str(&event.data).unwrap_or_default(), text),
        }
        text.push('\n');
        self.args.count.is_some_and(|count| self.messages >= count)
    }

    fn line(&self, record: &Record<'_>, out: &mut String) {
        let begins = out.len();
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.args.verbose && !self.args.mqtt {
            let at = record.sent.map_or_else(now, Duration::from_millis);
            out.push_str(&format!("{} {} ", clock(at), source(record)));
        } else if self.args.verbose {
            let retained = if record.retained { " retained" } else { "" };
            out.push_str(&format!("{} qos {}{retained} ", clock(now()), record.qos));
        }
        let one = self.args.topic.len() == 1 && !(self.args.mqtt && self.args.topic[0].contains(['+', '#']));
        if !one {
            out.push_str(&record.topic);
            out.push_str(": ");
        }
        if record.base64 {
            out.push_str("base64:");
        }
        out.push_str(&record.data);
        if self.on_terminal {
            // What others say must not steer this terminal.
            let line = text::lines(&out[begins..]).into_owned();
            out.truncate(begins);
            out.push_str(&line);
        }
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

/// The time of day (UTC), `since` the epoch.
fn clock(since: Duration) -> String {
    let s = since.as_secs() % 86400;
    format!("{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
}

/// What is printed of a message (docs/VERBS.md).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
    base64: bool,
    local: bool,
    sent: Option<u64>,
    source: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    /// Of MQTT messages.
    qos: u8,
    retained: bool,
}

#[derive(Default, Deserialize)]
struct Lost {
    lost: u64,
}

/// Who published a message, as tables have it.
fn source(record: &Record<'_>) -> String {
    let name = record.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    match record.source.as_deref() {
        _ if record.local => format!("this-node{name}"),
        Some(source) => format!("{}{name}", short(source, false)),
        None => "nobody".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_time_and_a_source_where_that_is_asked_for() {
        assert_eq!(clock(Duration::from_secs(20 * 86400 + 3 * 3600 + 4 * 60 + 5)), "03:04:05Z");
        let peer = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        for (record, said) in [
            (json!({ "source": peer, "name": null, "local": false }), "…vnc6iDEp"),
            (json!({ "source": peer, "name": "kitchen", "local": false }), "…vnc6iDEp kitchen"),
            (json!({ "source": peer, "name": "kitchen", "local": true }), "this-node kitchen"),
            (json!({ "source": null }), "nobody"),
        ] {
            assert_eq!(source(&Record::deserialize(&record).unwrap()), said);
        }
    }
}
