//! Asking a running node: a small HTTP client over the runtime door, for the verbs.
//!
//! Knows how to reach a node and what its refusals mean for an exit code; what is asked, and how an
//! answer is shown, is the verbs' business. Never prints the token.

mod exchange;
mod target;

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::OnceLock,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::Value;

pub(super) use exchange::{Exchange, Follow, SseEvent};
pub(super) use target::Where;

use target::Place;

use super::{Failure, exit, words};
use crate::{
    config::{Secret, parse_duration},
    http::{Framing, Wire, WireError},
    runtime::{ByteStream, Executor, Handle, TcpOptions},
};

/// Where a node's API is by default.
const DEFAULT: &str = "http://127.0.0.1:4080";
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the node may take for what it answers from its own state.
pub(super) const OWN_STATE: Duration = Duration::from_secs(10);
/// How long it may take for what it has to ask other nodes for.
pub(super) const QUERY: Duration = Duration::from_secs(90);
/// How long a connection may have been idle to be used again; the node closes those that are longer.
const FRESH: Duration = Duration::from_secs(3);
/// The largest answer, and the largest line of an event stream.
const MAX_ANSWER: usize = 64 << 20;
const MAX_HEAD: usize = 64 << 10;

/// Which node is asked.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ApiArgs {
    /// The node to ask: http://HOST:PORT or unix:/PATH [default: $SMIDGE_API, or http://127.0.0.1:4080]
    #[arg(long, value_name = "URL")]
    api: Option<String>,
}

/// Seconds, or a number with its unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => parse_duration(text),
    }
}

/// Runs `work` with a node to ask.
pub(super) fn ask<F>(args: &ApiArgs, verb: &'static str, work: impl FnOnce(Api) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let url = args.named().unwrap_or_else(|| DEFAULT.into());
    let target = Where::new(url, verb)?;
    let api = |runtime| work(target.open(runtime));
    Executor::default().block_on(1, api).map_err(|e| Failure::new(exit::FAILED, "runtime", e))?
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The node that the caller named before the verb.
static NAMED: OnceLock<String> = OnceLock::new();

/// Takes note of it, once.
pub(super) fn name(url: String) {
    NAMED.get_or_init(|| url);
}

impl ApiArgs {
    /// The node that the caller named, if any.
    pub(super) fn named(&self) -> Option<String> {
        self.api.clone().or_else(|| NAMED.get().cloned()).or_else(|| env("SMIDGE_API"))
    }
}

/// A node to ask.
pub(super) struct Api {
    pub(super) runtime: Handle,
    url: String,
    place: Place,
    token: Option<Secret>,
    /// The verb that asks, for what it complains about.
    pub(super) verb: &'static str,
    /// A connection that can be used again, and since when it is idle.
    kept: Option<(Wire, Instant)>,
}

impl Api {
    /// The body of the answer to a GET that others need not be asked for.
    pub(super) async fn get(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        self.call("GET", path, b"", OWN_STATE).await
    }

    /// The body of the answer, which may take as long as `limit`.
    pub(super) async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
        limit: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let answered = self.runtime.clone().timeout(limit, self.exchange(method, path, body)).await;
        let (status, body) = answered.unwrap_or_else(|_| {
            let why = format!("no answer from {} within {limit:?}", self.url);
            Err(Failure::new(exit::TIMED_OUT, self.verb, why).hint("try again, or look at the node's log"))
        })?;
        if status == 200 { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    async fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>), Failure> {
        let mut wire = match self.kept.take() {
            Some((wire, since)) if since.elapsed() < FRESH => wire,
            _ => self.connect().await?,
        };
        let request = self.request(method, path, &length(body.len()));
        // A node that refuses may do so before it has read everything: its answer says why.
        let sent = async {
            wire.write_all(request.as_bytes()).await?;
            wire.write_all(body).await
        };
        let sent = sent.await;
        let head = match (wire.response(MAX_HEAD).await, sent) {
            (Ok(head), _) => head,
            (Err(_), Err(e)) => return Err(self.unreachable(&e)),
            (Err(e), Ok(())) => return Err(self.garbled(e)),
        };
        let framing = head.framing().map_err(|e| self.garbled(e))?.unwrap_or(Framing::UntilClosed);
        let body = wire.body(framing, MAX_ANSWER).await.map_err(|e| self.garbled(e))?;
        if head.keeps_alive() && framing != Framing::UntilClosed {
            self.kept = Some((wire, Instant::now()));
        }
        Ok((head.line, body))
    }

    /// The event stream at a path.
    pub(super) async fn follow_path(&self, path: &str) -> Result<Follow, Failure> {
        let opening = async {
            let mut wire = self.connect().await?;
            wire.write_all(self.request("GET", path, "").as_bytes())
                .await
                .map_err(|e| self.unreachable(&e))?;
            let head = wire.response(MAX_HEAD).await.map_err(|e| self.garbled(e))?;
            if head.line == 200 {
                return Ok(Follow::new(wire));
            }
            let framing = head.framing().map_err(|e| self.garbled(e))?.unwrap_or(Framing::UntilClosed);
            let body = wire.body(framing, MAX_ANSWER).await.map_err(|e| self.garbled(e))?;
            Err(self.refused(head.line, &body))
        };
        match self.runtime.timeout(OWN_STATE, opening).await {
            Ok(opened) => opened,
            Err(late) => Err(self.unreachable(&late)),
        }
    }

    /// A POST whose body is written while its answer is read. The node has agreed to it.
    pub(super) async fn post(&mut self, path: &str) -> Result<Exchange, Failure> {
        let kept = self.kept.take().filter(|(_, since)| since.elapsed() < FRESH);
        let opening = async {
            if let Some((wire, _)) = kept
                && let Ok(exchange) = self.begin(wire, path).await
            {
                return exchange;
            }
            // The node may have closed the other one meanwhile; nothing was sent on it but a head.
            let wire = self.connect().await?;
            self.begin(wire, path).await.unwrap_or_else(|e| Err(self.garbled(e)))
        };
        match self.runtime.timeout(OWN_STATE, opening).await {
            Ok(opened) => opened,
            Err(late) => Err(self.unreachable(&late)),
        }
    }

    async fn begin(&self, mut wire: Wire, path: &str) -> Result<Result<Exchange, Failure>, WireError> {
        wire.write_all(self.request("POST", path, "Transfer-Encoding: chunked\r\n").as_bytes()).await?;
        let head = wire.response(MAX_HEAD).await?;
        let framing = head.framing()?.unwrap_or(Framing::UntilClosed);
        if head.line != 200 {
            let body = wire.body(framing, MAX_ANSWER).await?;
            return Ok(Err(self.refused(head.line, &body)));
        }
        let keeps_alive = head.keeps_alive() && framing != Framing::UntilClosed;
        Ok(Ok(Exchange::new(wire, framing, keeps_alive)))
    }

    /// Takes back the connection of an answer that was read to its end.
    pub(super) fn keep(&mut self, exchange: Exchange) {
        if let Some(wire) = exchange.into_reusable() {
            self.kept = Some((wire, Instant::now()));
        }
    }

    fn request(&self, method: &str, path: &str, framing: &str) -> String {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{framing}", self.place.host());
        if let Some(token) = &self.token {
            text.push_str(&format!("Authorization: Bearer {}\r\n", token.reveal()));
        }
        text.push_str("\r\n");
        text
    }

    async fn connect(&self) -> Result<Wire, Failure> {
        let connecting = async {
            match &self.place {
                Place::Unix(path) => self.runtime.connect_unix(path.clone()).await,
                Place::Tcp { host, port } => self.connect_tcp(host, *port).await,
            }
        };
        let limit = self.runtime.timeout(CONNECT, connecting).await;
        match limit {
            Ok(Ok(stream)) => Ok(Wire::new(stream)),
            Ok(Err(e)) => Err(self.unreachable(&e)),
            Err(late) => Err(self.unreachable(&late)),
        }
    }

    async fn connect_tcp(&self, host: &str, port: u16) -> io::Result<Box<dyn ByteStream>> {
        let name = host.trim_matches(['[', ']']).to_owned();
        let resolve =
            move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name leads nowhere");
        for addr in self.runtime.unblock(resolve).await?? {
            match self.runtime.connect_tcp(addr, TcpOptions::default()).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> Failure {
        let hint = match &self.place {
            // Refused by a file that is there: it outlived its node.
            Place::Unix(path) if path.exists() => {
                "a node that was killed leaves its socket behind, and the next one replaces it: start one with \
                 `smidge run --dial NAME`, or say where it is with --api URL"
            }
            _ => "start one with `smidge run --dial NAME`, or say where it is with --api URL",
        };
        Failure::new(exit::UNAVAILABLE, self.verb, format!("no node answers at {}: {why}", self.url))
            .hint(hint)
    }

    pub(super) fn garbled(&self, error: WireError) -> Failure {
        let why = match error {
            WireError::Io(e) => e.to_string(),
            WireError::Ended(_) => "it closed the connection".into(),
            WireError::BodyTooLarge => "its answer is too large".into(),
            _ => "what answers there speaks no HTTP/1.1".into(),
        };
        self.unreachable(&why)
    }

    /// What a refusal means for a program that asked.
    pub(super) fn refused(&self, status: u16, body: &[u8]) -> Failure {
        let code = match status {
            400 => exit::USAGE,
            408 | 429 | 503 | 504 => exit::TIMED_OUT,
            _ => exit::FAILED,
        };
        let record: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |key: &str| record[key].as_str().map(str::to_owned);
        let why = text("error").unwrap_or_else(|| format!("{} answers with status {status}", self.url));
        let failure = Failure::new(code, self.verb, why);
        match (status, text("hint")) {
            (401, _) => failure.hint("set SMIDGE__API__TOKEN or SMIDGE__API__TOKEN__FILE as the node has it"),
            (_, Some(hint)) => failure.hint(words::of_verbs(&hint)),
            (_, None) => failure.hint("is this a smidge node?"),
        }
    }
}

fn length(bytes: usize) -> String {
    format!("Content-Length: {bytes}\r\n")
}
