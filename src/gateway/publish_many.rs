//! `POST /v1/topics/TOPIC?split=lines` (or `frames`): many messages in one request, a receipt a line in their order.
//!
//! Some are under way at a time; what is not taken yet is not read, and what queues do not take waits within the
//! request's `timeout`, so that a caller who sends faster than peers take is slowed down and loses nothing. A receipt
//! says what it always says; a message that was refused has the refusal in its place, and those behind it go on.

use std::time::{Duration, Instant};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Either, select},
    stream::FuturesOrdered,
};
use serde_json::json;

use super::{
    answer::{NO_STORE, Refusal, head, too_large, unreadable},
    connection::{Connection, Next},
    context::Context,
    split::{Piece, Split, Splitter, TooLarge, Unfinished},
    target::Query,
    wire::{Body, Framing},
};
use crate::{
    node::{Error, PublishOptions, Receipt},
    text,
};

/// Messages of one request that are under way simultaneously, and their bytes (one may be larger).
const WINDOW: usize = 32;
const WINDOW_BYTES: usize = 256 << 10;
/// Bytes of receipts gathered before they are written.
const BATCH: usize = 16 << 10;
/// How long is waited where too many publishes of all callers wait already (`limits.pending`).
const CROWDED: Duration = Duration::from_millis(20);

type UnderWay = FuturesOrdered<BoxFuture<'static, (usize, Result<Receipt, Refusal>)>>;

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
        under_way: FuturesOrdered::new(),
        bytes: 0,
        receipts: String::new(),
    };
    let ended = request.publish_all(split, framing).await;
    let written = async {
        request.drain().await?;
        if let Err(Some(refusal)) = &ended {
            request.receipts.push_str(&line(Err(refusal)));
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
    under_way: UnderWay,
    /// Of the messages under way.
    bytes: usize,
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
                self.make_room().await.map_err(|_| None)?;
                self.push(piece);
            }
            self.write_what_is_ready().await.map_err(|_| None)?;
            let more = {
                let wire = &mut self.connection.wire;
                let read =
                    context.runtime.timeout(api.body_timeout, wire.read_body(&mut body, splitter.input()));
                let read = std::pin::pin!(read);
                match self.under_way.is_empty() {
                    true => Some(read.await),
                    // The receipts of what is under way are written while the next messages are waited for.
                    false => match select(read, self.under_way.next()).await {
                        Either::Left((read, _)) => Some(read),
                        Either::Right((done, _)) => {
                            take(&mut self.receipts, &mut self.bytes, done);
                            None
                        }
                    },
                }
            };
            match more {
                None | Some(Ok(Ok(true))) => {}
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
            Ok(Some(piece)) => {
                self.make_room().await.map_err(|_| None)?;
                self.push(piece);
                Ok(())
            }
            Err(Unfinished) => Err(Some(Refusal::bad("the body ends within a frame", "send all of it"))),
        }
    }

    /// Waits until another message may be under way.
    async fn make_room(&mut self) -> std::io::Result<()> {
        while self.under_way.len() >= WINDOW || self.bytes >= WINDOW_BYTES {
            self.write_what_is_ready().await?;
            if self.under_way.len() >= WINDOW || self.bytes >= WINDOW_BYTES {
                let done = self.under_way.next().await;
                take(&mut self.receipts, &mut self.bytes, done);
            }
        }
        Ok(())
    }

    fn push(&mut self, piece: Piece) {
        let context = self.connection.context.clone();
        let (topic, options) = (self.topic.clone(), self.options);
        let bytes = piece.as_ref().map_or(0, Vec::len);
        self.bytes += bytes;
        let publish = async move {
            let done = match piece {
                Ok(data) => publish(&context, topic, data, options).await,
                Err(TooLarge) => Err(too_large(context.api.max_body)),
            };
            (bytes, done)
        };
        self.under_way.push_back(publish.boxed());
    }

    /// Writes the receipts that are there, as one chunk.
    async fn write_what_is_ready(&mut self) -> std::io::Result<()> {
        while let Some(Some(done)) = self.under_way.next().now_or_never() {
            take(&mut self.receipts, &mut self.bytes, Some(done));
            if self.receipts.len() >= BATCH {
                self.flush().await?;
            }
        }
        self.flush().await
    }

    /// Waits for all that is under way.
    async fn drain(&mut self) -> std::io::Result<()> {
        while !self.under_way.is_empty() {
            self.write_what_is_ready().await?;
            let done = self.under_way.next().await;
            take(&mut self.receipts, &mut self.bytes, done);
        }
        Ok(())
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

fn take(receipts: &mut String, bytes: &mut usize, done: Option<(usize, Result<Receipt, Refusal>)>) {
    if let Some((size, done)) = done {
        *bytes -= size;
        receipts.push_str(&line(done.as_ref()));
    }
}

/// A receipt, or a refusal in its place, as a line of JSON.
fn line(done: Result<&Receipt, &Refusal>) -> String {
    let line = match done {
        Ok(receipt) => serde_json::to_string(receipt).unwrap_or_default(),
        Err(refusal) => {
            let Refusal { status, error, hint, .. } = refusal;
            text::json(&json!({ "error": error, "hint": hint, "status": status }).to_string()).into_owned()
        }
    };
    line + "\n"
}

/// Where too many publishes of all callers wait, this one waits for its turn, within its time.
async fn publish(
    context: &Context,
    topic: String,
    data: Vec<u8>,
    options: PublishOptions,
) -> Result<Receipt, Refusal> {
    let end = context.runtime.now().checked_add(options.timeout);
    loop {
        match context.client.publish(topic.clone(), data.clone(), options).await {
            Err(Error::Limit { .. }) if end.is_none_or(|end: Instant| context.runtime.now() < end) => {
                context.runtime.sleep(CROWDED).await;
            }
            done => return Ok(done?),
        }
    }
}
