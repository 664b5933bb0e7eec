//! `POST /v1/topics/TOPIC?split=lines` (or `frames`): many messages in one request, a receipt a line in their order.
//!
//! What has been read goes to the node together, and what arrives meanwhile goes with the next: a lone message waits for
//! nothing, and many cost less than one by one. No more than that is read ahead, and what queues do not take waits
//! within the request's `timeout`, so that a caller who sends faster than peers take is slowed down and loses nothing. A
//! receipt says what it always says; a message that was refused has the refusal in its place, and those behind it go on.

use std::{
    fmt::Write,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Either, poll_fn, select},
};
use serde_json::json;

use super::{
    answer::{NO_STORE, Refusal, head, too_large, unreadable},
    connection::{Connection, Next},
    context::Context,
    json_string,
    split::{Piece, Split, Splitter, TooLarge, Unfinished},
    target::Query,
};
use crate::{
    http::{Body, Framing},
    node::{Error, PublishOptions, Receipt},
    text,
};

/// What goes to the node together: messages, and their bytes (one may be larger).
const MESSAGES: usize = 512;
const BYTES: usize = 64 << 10;
/// Turns of the tasks from a message's receipt until it is on its way to peers: that of its gossip stream, and of its
/// connection.
const TURNS: usize = 2;
/// How long is waited where too many publishes of all callers wait already (`limits.pending`).
const CROWDED: Duration = Duration::from_millis(20);

type Outcome = Result<Receipt, Refusal>;

/// Reads the body, publishes what is in it, and writes the receipts. `last`: nothing comes after the answer.
pub(super) async fn run(
    connection: &mut Connection,
    topic: String,
    query: Query,
    split: Split,
    framing: Option<Framing>,
    last: bool,
) -> Next {
    let context = connection.context.clone();
    let options = match super::handlers::publish_options(query) {
        Ok(options) => options,
        Err(refusal) => return connection.refuse(refusal).await,
    };
    context.counters.answered(200);
    let mut out =
        head(200, "application/x-ndjson", if last { "close" } else { "keep-alive" }, NO_STORE).into_bytes();
    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    if connection.write(&out).await.is_err() {
        return Next::Close;
    }
    let mut request = Request {
        connection,
        topic,
        options,
        gathered: Vec::new(),
        bytes: 0,
        under_way: None,
        receipts: String::new(),
    };
    let ended = request.publish_all(split, framing).await;
    let written = async {
        request.drain().await?;
        if let Err(Some(refusal)) = &ended {
            line(Err(refusal), &mut request.receipts);
        }
        request.flush().await?;
        request.connection.write(b"0\r\n\r\n").await
    };
    match (written.await, ended) {
        (Ok(()), Ok(())) if !last => Next::Request,
        (Ok(()), Err(Some(_))) => Next::Linger,
        _ => Next::Close,
    }
}

struct Request<'a> {
    connection: &'a mut Connection,
    topic: String,
    options: PublishOptions,
    /// Read, and not given to the node yet; their bytes.
    gathered: Vec<Piece>,
    bytes: usize,
    /// At most one: the next goes behind it.
    under_way: Option<BoxFuture<'static, Vec<Outcome>>>,
    /// Not written yet.
    receipts: String,
}

impl Request<'_> {
    /// To the end of the body.
    ///
    /// # Errors
    /// Why it was not read to its end; nothing where the caller has gone.
    async fn publish_all(&mut self, split: Split, framing: Option<Framing>) -> Result<(), Option<Refusal>> {
        let context = self.connection.context.clone();
        let api = &context.api;
        let mut splitter = Splitter::new(split, api.max_body);
        let mut body = Body::new(framing, u64::MAX);
        loop {
            while let Some(piece) = splitter.next() {
                self.take(piece).await.map_err(|_| None)?;
            }
            if self.under_way.is_none() {
                self.start();
            }
            let more = {
                let wire = &mut self.connection.wire;
                let read =
                    context.runtime.timeout(api.body_timeout, wire.read_body(&mut body, splitter.input()));
                let read = std::pin::pin!(read);
                match self.under_way.take() {
                    None => Some(read.await),
                    Some(under_way) => match select(read, under_way).await {
                        Either::Left((read, under_way)) => {
                            self.under_way = Some(under_way);
                            Some(read)
                        }
                        Either::Right((outcomes, _)) => {
                            note(&mut self.receipts, &outcomes);
                            None
                        }
                    },
                }
            };
            match more {
                None => self.flush().await.map_err(|_| None)?,
                Some(Ok(Ok(true))) => {}
                Some(Ok(Ok(false))) => break,
                Some(Ok(Err(error))) => return Err(unreadable(error, api.max_header, api.max_body)),
                Some(Err(_)) => {
                    let limit = api.body_timeout;
                    let error =
                        format!("nothing more of the body arrived within api.body_timeout = {limit:?}");
                    return Err(Some(Refusal::new(
                        408,
                        error,
                        "end the request where there is nothing to say",
                    )));
                }
            }
        }
        match splitter.finish() {
            Ok(None) => Ok(()),
            Ok(Some(piece)) => self.take(piece).await.map_err(|_| None),
            Err(Unfinished) => Err(Some(Refusal::bad("the body ends within a frame", "send all of it"))),
        }
    }

    /// Gathers a message, when there is room for it.
    async fn take(&mut self, piece: Piece) -> std::io::Result<()> {
        let bytes = piece.as_ref().map_or(0, Vec::len);
        let is_full = self.gathered.len() >= MESSAGES || self.bytes + bytes > BYTES;
        if is_full && !self.gathered.is_empty() {
            self.wait().await?;
            self.start();
        }
        self.bytes += bytes;
        self.gathered.push(piece);
        Ok(())
    }

    /// Gives what was gathered to the node. Nothing is under way.
    fn start(&mut self) {
        let gathered = std::mem::take(&mut self.gathered);
        self.bytes = 0;
        if !gathered.is_empty() {
            let (context, topic) = (self.connection.context.clone(), self.topic.clone());
            self.under_way = Some(publish(context, topic, gathered, self.options).boxed());
        }
    }

    /// Waits for what is under way, and writes its receipts.
    async fn wait(&mut self) -> std::io::Result<()> {
        if let Some(under_way) = self.under_way.take() {
            note(&mut self.receipts, &under_way.await);
        }
        self.flush().await
    }

    /// Waits for all that was read.
    async fn drain(&mut self) -> std::io::Result<()> {
        self.wait().await?;
        self.start();
        self.wait().await
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        if self.receipts.is_empty() {
            return Ok(());
        }
        let receipts = std::mem::take(&mut self.receipts);
        let chunk = format!("{:x}\r\n{receipts}\r\n", receipts.len());
        self.connection.write(chunk.as_bytes()).await
    }
}

fn note(receipts: &mut String, outcomes: &[Outcome]) {
    for outcome in outcomes {
        line(outcome.as_ref(), receipts);
    }
}

/// Adds a receipt, or a refusal in its place, as a line of JSON.
fn line(done: Result<&Receipt, &Refusal>, out: &mut String) {
    match done {
        // As serde has it: this is the most of what a message of many costs here.
        Ok(Receipt { id, peers, local, confirmed }) if confirmed.is_empty() => {
            out.push_str("{\"id\":");
            json_string::push(out, id);
            let _ = write!(out, ",\"peers\":{peers},\"local\":{local}}}");
        }
        Ok(receipt) => out.push_str(&serde_json::to_string(receipt).unwrap_or_default()),
        Err(refusal) => {
            let Refusal { status, error, hint, .. } = refusal;
            let refusal = json!({ "error": error, "hint": hint, "status": status });
            out.push_str(&text::json(&refusal.to_string()));
        }
    }
    out.push('\n');
}

/// What came of each. Where too many publishes of all callers wait, these wait for their turn, within their time.
async fn publish(
    context: Arc<Context>,
    topic: String,
    pieces: Vec<Piece>,
    options: PublishOptions,
) -> Vec<Outcome> {
    let end = context.runtime.now().checked_add(options.timeout);
    let messages: Vec<_> = pieces.iter().flatten().cloned().collect();
    let result = loop {
        match context.client.publish_all(topic.clone(), messages.clone(), options).await {
            Err(Error::Limit { .. }) if end.is_none_or(|end: Instant| context.runtime.now() < end) => {
                context.runtime.sleep(CROWDED).await;
            }
            result => break result,
        }
    };
    // Peers first: whoever waits for receipts would be woken, and take the processor, before the messages have gone.
    for _ in 0..TURNS {
        turn().await;
    }
    let mut outcomes = match result {
        Ok(outcomes) => outcomes,
        Err(error) => vec![Err(error); messages.len()],
    }
    .into_iter();
    let mut next = || outcomes.next().unwrap_or(Err(Error::Stopped));
    let outcome = |piece: &Piece| match piece {
        Ok(_) => next().map_err(Refusal::from),
        Err(TooLarge) => Err(too_large(context.api.max_body)),
    };
    pieces.iter().map(outcome).collect()
}

/// Lets the tasks that are ready now run first.
async fn turn() {
    let mut is_over = false;
    poll_fn(|cx| match std::mem::replace(&mut is_over, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_in_a_line_is_the_one_of_a_single_message() {
        for id in ["12D3KooW17961/3", "", "a\"b\u{202e}é"] {
            let receipt = Receipt { id: id.into(), peers: 2, local: 1, confirmed: Vec::new() };
            let mut out = String::new();
            line(Ok(&receipt), &mut out);
            assert_eq!(out, text::json(&(serde_json::to_string(&receipt).unwrap() + "\n")));
        }
    }
}
