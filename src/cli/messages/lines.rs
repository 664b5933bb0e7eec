//! `smidge pub --lines`: a window of messages under way over one request, in blocks.
//!
//! The body of the request is the input as it comes, up to its last whole line; the node takes as much as it can publish,
//! and no more is read than it takes. Receipts are printed in the order of the lines. Where the input pauses, the request
//! ends, and the next line begins another one.

use std::{
    io::{self, BufRead, IsTerminal, Read},
    os::fd::AsFd,
    rc::Rc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    future::{Fuse, FusedFuture, LocalBoxFuture, pending, poll_fn},
    select, select_biased,
    stream::FusedStream,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{LOOK, Lines, MAX_INPUT, PubArgs, Receipt, say};
use crate::{
    cli::{
        Failure,
        api::{Api, Exchange, OWN_STATE},
        exit, note, print_patiently,
    },
    http::WireError,
    runtime::{Handle, Readable, Signal, Signals},
};

/// Bytes of the input that may wait for the node to take them, and of receipts that may wait to be printed.
const BLOCK: usize = 64 << 10;
/// Lines without a receipt, at most: their receipts have room in the connection where nobody reads what is printed, so
/// that the node never waits for that.
const WINDOW: u64 = 1024;

/// Publishes each line, and ends with the input or with a signal.
pub(super) async fn publish(api: &mut Api, args: &PubArgs) -> Result<(), Failure> {
    let input = args.input.open(api.verb)?;
    if args.mqtt {
        return one_at_a_time(api, args, input).await;
    }
    let path = format!("{}&split=lines", args.path());
    // A node that does not know it says so of an empty body, too.
    match api.call("POST", &path, b"", OWN_STATE).await {
        Ok(_) => Session::new(api, args, path).run(input).await,
        Err(failure) if failure.says("unknown parameter \"split\"") => {
            note("this node takes one message a request: a newer one takes many");
            one_at_a_time(api, args, input).await
        }
        Err(failure) => Err(failure),
    }
}

/// Signals that end the verb; SIGHUP is none.
fn stops() -> Result<impl FusedStream<Item = Signal> + Unpin, Failure> {
    let signals = Signals::new().map_err(|e| Failure::new(exit::FAILED, "signals", e))?;
    Ok(signals.filter(|signal| futures::future::ready(*signal != Signal::Reload)).fuse())
}

/// Some of the input, and the rest.
type Block = io::Result<io::Result<(Vec<u8>, Lines)>>;
type Reading = Fuse<LocalBoxFuture<'static, Block>>;

enum Event {
    Read(Block),
    Turn(Result<(Vec<u8>, bool), WireError>),
    Printed(Result<(), Failure>),
    Stop,
    /// Nothing happened for a while.
    Look,
}

struct Session<'a> {
    api: &'a mut Api,
    args: &'a PubArgs,
    path: String,
    request: Option<Exchange>,
    /// The beginning of a line whose end has not been read.
    held: Vec<u8>,
    /// Whole lines that no request has yet.
    unsaid: Vec<u8>,
    /// Lines in the request that have no receipt.
    under_way: u64,
    /// To be printed.
    text: String,
    /// The first refusal: nothing is added after it.
    failure: Option<Failure>,
    progress: Progress,
}

impl<'a> Session<'a> {
    fn new(api: &'a mut Api, args: &'a PubArgs, path: String) -> Self {
        Self {
            api,
            args,
            path,
            request: None,
            held: Vec::new(),
            unsaid: Vec::new(),
            under_way: 0,
            text: String::new(),
            failure: None,
            progress: Progress::new(),
        }
    }

    async fn run(mut self, input: Lines) -> Result<(), Failure> {
        let mut stops = stops()?;
        let runtime = self.api.runtime.clone();
        let watch = self.args.input.is_stdin().then(|| watch(&runtime)).flatten();
        let read = |input: Lines| -> Reading {
            let (runtime, watch) = (runtime.clone(), watch.clone());
            async move {
                match watch {
                    Some(watch) => readable(&*watch).await.map(|()| block(input)),
                    // Where blocking is allowed: a line may be long in coming, and a signal ends the wait.
                    None => runtime.unblock(move || block(input)).await,
                }
            }
            .boxed_local()
            .fuse()
        };
        let mut input = Some(input);
        let mut reading: Reading = Fuse::terminated();
        let mut printing: Fuse<LocalBoxFuture<'_, Result<(), Failure>>> = Fuse::terminated();
        let mut is_quiet = false;
        loop {
            let waits = self.unsaid.len() + self.request.as_ref().map_or(0, Exchange::queued);
            if reading.is_terminated()
                && waits < BLOCK
                && let Some(input) = input.take_if(|_| self.failure.is_none())
            {
                reading = read(input);
            }
            let has_ended = self.failure.is_some() || (reading.is_terminated() && input.is_none());
            if !self.unsaid.is_empty() && self.failure.is_none() {
                if self.request.is_none() {
                    let opened = select! {
                        opened = Box::pin(self.api.post(&self.path).fuse()) => Some(opened),
                        _ = stops.next() => None,
                    };
                    let Some(opened) = opened else { return self.stopped() };
                    self.request = Some(opened?);
                }
                self.say();
            }
            match &mut self.request {
                Some(request) if has_ended && (self.unsaid.is_empty() || self.failure.is_some()) => {
                    request.end();
                }
                Some(_) => {}
                None if has_ended && printing.is_terminated() && self.text.is_empty() => {
                    self.progress.clear();
                    return self.failure.map_or(Ok(()), Err);
                }
                None => {}
            }
            if printing.is_terminated() && !self.text.is_empty() {
                self.progress.clear();
                let text = std::mem::take(&mut self.text);
                printing = print_patiently(&runtime, text).boxed_local().fuse();
            }
            let is_read = self.text.len() < BLOCK;
            let turn = async {
                match &mut self.request {
                    Some(request) if is_read => request.turn().await,
                    // Who is to read what is printed does not: the request can end all the same.
                    Some(request) if request.queued() > 0 => {
                        request.write().await.map(|()| Default::default())
                    }
                    _ => pending().await,
                }
            };
            // In this order: what can be said is said before more is read, and a lone line waits for nothing else.
            let event = select_biased! {
                turn = Box::pin(turn.fuse()) => Event::Turn(turn),
                printed = printing => Event::Printed(printed),
                block = reading => Event::Read(block),
                _ = stops.next() => Event::Stop,
                () = Box::pin(runtime.sleep(LOOK).fuse()) => Event::Look,
            };
            is_quiet &= matches!(event, Event::Look);
            match event {
                Event::Read(block) => {
                    let failed = |e| {
                        Failure::new(exit::FAILED, self.api.verb, format!("the input cannot be read: {e}"))
                    };
                    let (block, rest) = block.map_err(failed)?.map_err(failed)?;
                    input = self.take(&block)?.then_some(rest);
                }
                Event::Turn(turn) => {
                    let (answer, is_done) = turn.map_err(|e| self.api.garbled(e))?;
                    if is_done && let Some(request) = self.request.take() {
                        self.api.keep(request);
                    }
                    self.receipts(&answer, is_done)?;
                }
                Event::Printed(printed) => printed?,
                Event::Stop => return self.stopped(),
                Event::Look => {
                    if is_quiet && let Some(request) = &mut self.request {
                        request.end();
                    }
                    is_quiet = true;
                }
            }
            self.progress.show();
        }
    }

    /// Takes in what was read; `false` if that was the end of the input.
    fn take(&mut self, block: &[u8]) -> Result<bool, Failure> {
        let whole = block.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if whole > 0 || block.is_empty() {
            self.unsaid.append(&mut self.held);
            self.unsaid.extend_from_slice(&block[..whole]);
        }
        self.held.extend_from_slice(&block[whole..]);
        if self.held.len() as u64 > MAX_INPUT {
            return Err(Failure::new(exit::FAILED, self.api.verb, "a line is larger than 16MiB"));
        }
        Ok(!block.is_empty())
    }

    /// Adds as many whole lines to the request as may be under way, unless it is about to end.
    fn say(&mut self) {
        let Some(request) = self.request.as_mut().filter(|request| !request.is_ending()) else { return };
        let mut said = 0;
        for line in self.unsaid.split_inclusive(|b| *b == b'\n') {
            if self.under_way >= WINDOW {
                break;
            }
            said += line.len();
            // The node leaves empty ones out.
            self.under_way += u64::from(!matches!(line, b"\n" | b"\r\n" | b"\r"));
        }
        request.say(&self.unsaid[..said]);
        self.unsaid.drain(..said);
    }

    /// Takes these lines of the answer to be printed.
    fn receipts(&mut self, answer: &[u8], is_done: bool) -> Result<(), Failure> {
        for line in answer.split_inclusive(|b| *b == b'\n') {
            self.under_way = self.under_way.saturating_sub(1);
            let receipt: Receipt<'_> = serde_json::from_slice(line).unwrap_or_default();
            if let Some(status) = receipt.status {
                let failure = self.api.refused(status, line);
                self.failure.get_or_insert(failure);
                continue;
            }
            self.progress.messages += 1;
            match self.args.json {
                true => self.text.push_str(&String::from_utf8_lossy(line)),
                false => self.text.push_str(&self.args.said(&receipt)),
            }
        }
        if is_done && self.under_way > 0 && self.failure.is_none() {
            let why = format!("the node ended its answer with {} messages left", self.under_way);
            return Err(Failure::new(exit::UNAVAILABLE, self.api.verb, why).hint("its log tells more"));
        }
        Ok(())
    }

    fn stopped(self) -> Result<(), Failure> {
        self.progress.summary();
        Ok(())
    }
}

/// What says when there is more of stdin, where it is no file.
fn watch(runtime: &Handle) -> Option<Rc<dyn Readable>> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().ok()?;
    runtime.watch(stdin).ok().map(Rc::from)
}

/// Waits until a read of stdin does not.
async fn readable(watch: &dyn Readable) -> io::Result<()> {
    while !can_be_read() {
        poll_fn(|cx| watch.poll_readable(cx)).await?;
    }
    Ok(())
}

fn can_be_read() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// Some of the input, and the rest; nothing at its end.
fn block(mut input: Lines) -> io::Result<(Vec<u8>, Lines)> {
    let block = input.fill_buf()?.to_vec();
    input.consume(block.len());
    Ok((block, input))
}

/// Publishes line after line, each in a request of its own: MQTT, and nodes before 0.2, take no more.
async fn one_at_a_time(api: &mut Api, args: &PubArgs, mut input: Lines) -> Result<(), Failure> {
    let mut stops = stops()?;
    let (verb, runtime) = (api.verb, api.runtime.clone());
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

/// A verb that ends within this time shows no progress.
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
