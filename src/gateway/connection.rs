//! One connection: requests one after the other, each within its bounds of size and time.
//!
//! A caller that is slow, silent, or sends what is no HTTP costs one bounded task and gets an error
//! before it is closed, where that is possible.

use std::{io, sync::Arc, time::Duration};

use futures::future::{Either, select};

use super::{
    answer::{Answer, Refusal, too_large, unreadable},
    context::Context,
    follow, handlers, mqtt, page, publish_many,
    slots::{Places, Wait},
    state,
    target::{self, Query, Route, StateCall},
};
use crate::{
    http::{Framing, Head, RequestLine, Wire, WireError},
    runtime::{ByteStream, Elapsed},
};

/// How long, and how many bytes, what a caller still sends is taken in before its connection is closed.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 1 << 20);
/// How long a caller that is one too many has to ask.
const TURNED_AWAY: Duration = Duration::from_secs(1);

/// What comes after an answer.
pub(super) enum Next {
    Request,
    Close,
    /// The caller may still be sending: it must get the answer all the same.
    Linger,
}

/// A request that may be answered.
pub(super) struct Request {
    pub(super) route: Route,
    pub(super) query: Query,
    pub(super) body: Vec<u8>,
}

/// Serves `stream` in a task of its own, within `api.connections`. Beyond them there is a reserve for probes.
pub(super) fn start(context: &Arc<Context>, stream: Box<dyn ByteStream>) {
    let shared = context.clone();
    let now = context.runtime.now();
    if let Some((slot, wait)) = context.connections.take(now) {
        context.runtime.spawn(async move {
            let mut connection = Connection { context: shared, wire: Wire::new(stream) };
            connection.serve(wait).await;
            drop(slot);
        });
    } else if let Some((slot, wait)) = context.reserve.take(now) {
        context.runtime.spawn(async move {
            let mut connection = Connection { context: shared, wire: Wire::new(stream) };
            connection.serve_from_reserve(wait).await;
            drop(slot);
        });
    }
}

pub(super) struct Connection {
    pub(super) context: Arc<Context>,
    pub(super) wire: Wire,
}

impl Connection {
    async fn serve(&mut self, wait: Wait) {
        let mut wait = wait;
        loop {
            match self.exchange(wait).await {
                Next::Request => {}
                Next::Close => break,
                Next::Linger => {
                    let context = self.context.clone();
                    self.linger(&context.connections).await;
                    break;
                }
            }
            wait = self.context.connections.wait(self.context.runtime.now());
        }
        // An error says that the other side closed first.
        let _ = self.wire.finish().await;
    }

    /// One request: a probe is answered, whatever else the node is busy with; anything else is refused.
    async fn serve_from_reserve(&mut self, wait: Wait) {
        let context = self.context.clone();
        let Some(asked) = self.head(wait, TURNED_AWAY).await else { return };
        if let Ok(Ok(head)) = &asked
            && let Ok((route @ (Route::Health | Route::Ready), query)) = self.admit(head, None)
        {
            let body = Vec::new();
            let result = handlers::answer(&context, Request { route, query, body }).await;
            let answer = result.unwrap_or_else(Refusal::answer);
            context.counters.answered(answer.status);
            // An error says that nobody waits for it.
            let _ = self.write(&answer.bytes(false, head.line.method == "HEAD")).await;
        } else {
            let limit = context.api.connections;
            let error = format!("too many connections at once (limit {limit}, config key api.connections)");
            let refusal = Refusal::new(503, error, "ask again in a moment, or raise the key");
            self.refuse(refusal).await;
        }
        self.linger(&context.reserve).await;
    }

    /// The head of the next request, waited for as long as `limit`; `None` if this connection is to give way.
    async fn head(
        &mut self,
        mut wait: Wait,
        limit: Duration,
    ) -> Option<Result<Result<Head<RequestLine>, WireError>, Elapsed>> {
        let context = self.context.clone();
        let head = context.runtime.timeout(limit, self.wire.request(context.api.max_header));
        match select(std::pin::pin!(head), &mut wait.given_up).await {
            Either::Left((head, _)) => Some(head),
            Either::Right(_) => None,
        }
    }

    /// One request and its answer.
    async fn exchange(&mut self, wait: Wait) -> Next {
        let context = self.context.clone();
        let api = &context.api;
        let head = match self.head(wait, api.header_timeout).await {
            Some(Ok(Ok(head))) => head,
            Some(Ok(Err(error))) => return self.refuse_unreadable(error).await,
            None => return Next::Close,
            // No request: an idle connection ends without an answer.
            Some(Err(_)) if !self.wire.has_begun() => return Next::Close,
            Some(Err(_)) => return self.refuse(late("head", api.header_timeout, "api.header_timeout")).await,
        };
        let framing = match head.framing() {
            Ok(framing) => framing,
            Err(error) => return self.refuse_unreadable(error).await,
        };
        let (route, query) = match self.admit(&head, framing) {
            Ok(admitted) => admitted,
            // Behind a refused head without a body, the next request may follow.
            Err(refusal) if framing.is_none() => {
                return self.answer(&refusal.answer(), &head).await;
            }
            Err(refusal) => return self.refuse(refusal).await,
        };
        if let Route::PublishMany(topic, split) = route {
            if self.expected(&head).await.is_err() {
                return Next::Close;
            }
            return publish_many::run(self, topic, query, split, framing, !head.keeps_alive()).await;
        }
        let body = match framing {
            None | Some(Framing::UntilClosed) => Vec::new(),
            Some(framing) => match self.body(&head, framing).await {
                Ok(body) => body,
                Err(next) => return next,
            },
        };
        if route == Route::Page {
            let result = page::answer(head.all("if-none-match"), query);
            return self.answer(&result.unwrap_or_else(Refusal::answer), &head).await;
        }
        if let Route::Follow(topic) = route {
            // What is no id of ours is none: a reader that comes again cannot help what it was given.
            let heard = head.all("last-event-id").find_map(|id| id.parse().ok());
            return follow::run(self, topic, query, heard).await;
        }
        if let Route::MqttFollow(filter) = route {
            return mqtt::follow(self, filter, query).await;
        }
        if let Route::StateWatch(topic, key) = route {
            return state::watch(self, topic, key, query).await;
        }
        let result = handlers::answer(&context, Request { route, query, body }).await;
        self.answer(&result.unwrap_or_else(Refusal::answer), &head).await
    }

    /// Everything that is decided before a body is read.
    fn admit(&self, head: &Head<RequestLine>, framing: Option<Framing>) -> Result<(Route, Query), Refusal> {
        let target = head.line.target.as_str();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        self.context.guard.check(head, matches!(path, "/" | "/healthz"))?;
        let route = target::route(&head.line.method, path)?;
        if route.acts() {
            self.context.guard.check_browser(head)?;
        }
        let mut query = Query::parse(query)?;
        let route = match route {
            Route::Publish(topic) => match query.split()? {
                Some(split) if head.is_11 => Route::PublishMany(topic, split),
                Some(_) => return Err(Refusal::new(505, "split needs HTTP/1.1", "use HTTP/1.1")),
                None => Route::Publish(topic),
            },
            Route::State(topic, StateCall::List) if query.set("watch")? => Route::StateWatch(topic, None),
            Route::State(topic, StateCall::Get(key)) => match query.set("watch")? {
                true => Route::StateWatch(topic, Some(key)),
                false => Route::State(topic, StateCall::Get(key)),
            },
            route => route,
        };
        let max_body = self.context.api.max_body;
        let is_one = !matches!(route, Route::PublishMany(..));
        if is_one && matches!(framing, Some(Framing::Length(n)) if n > max_body as u64) {
            return Err(too_large(max_body));
        }
        match head.all("expect").next() {
            Some(expected) if !expected.eq_ignore_ascii_case("100-continue") => {
                Err(Refusal::new(417, "an unknown expectation", "expect 100-continue, or nothing"))
            }
            _ => Ok((route, query)),
        }
    }

    /// Tells a caller who waits for it to send the body.
    async fn expected(&mut self, head: &Head<RequestLine>) -> io::Result<()> {
        if head.is_11 && head.all("expect").next().is_some() {
            return self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        Ok(())
    }

    async fn body(&mut self, head: &Head<RequestLine>, framing: Framing) -> Result<Vec<u8>, Next> {
        let context = self.context.clone();
        let api = &context.api;
        if self.expected(head).await.is_err() {
            return Err(Next::Close);
        }
        match context.runtime.timeout(api.body_timeout, self.wire.body(framing, api.max_body)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(error)) => Err(self.refuse_unreadable(error).await),
            Err(_) => Err(self.refuse(late("body", api.body_timeout, "api.body_timeout")).await),
        }
    }

    async fn answer(&mut self, answer: &Answer, head: &Head<RequestLine>) -> Next {
        self.context.counters.answered(answer.status);
        let keep_alive = head.keeps_alive();
        let bytes = answer.bytes(keep_alive, head.line.method == "HEAD");
        match self.write(&bytes).await {
            Ok(()) if keep_alive => Next::Request,
            _ => Next::Close,
        }
    }

    /// Refuses, and lets the connection go.
    pub(super) async fn refuse(&mut self, refusal: Refusal) -> Next {
        let answer = refusal.answer();
        self.context.counters.answered(answer.status);
        match self.write(&answer.bytes(false, false)).await {
            Ok(()) => Next::Linger,
            Err(_) => Next::Close,
        }
    }

    async fn refuse_unreadable(&mut self, error: WireError) -> Next {
        let api = &self.context.api;
        match unreadable(error, api.max_header, api.max_body) {
            Some(refusal) => self.refuse(refusal).await,
            None => Next::Close,
        }
    }

    /// Takes in what the caller still sends, unless the connection is to give way.
    async fn linger(&mut self, places: &Arc<Places>) {
        let _ = self.wire.finish().await;
        let (time, bytes) = LINGER;
        let runtime = self.context.runtime.clone();
        let wait = &mut places.wait(runtime.now()).given_up;
        let drained = runtime.timeout(time, self.wire.drain(bytes));
        let _ = select(std::pin::pin!(drained), wait).await;
    }

    /// Writes all of `bytes` to a reader that takes some of them every `api.write_timeout`.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let limit = self.context.api.write_timeout;
            let written = self.context.runtime.timeout(limit, self.wire.write(rest)).await;
            rest = &rest[written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??..];
        }
        Ok(())
    }
}

fn late(what: &str, limit: Duration, key: &str) -> Refusal {
    Refusal::new(
        408,
        format!("the {what} of the request did not arrive within {key} = {limit:?}"),
        "send the whole request at once",
    )
}
