//! Server-sent events (WHATWG HTML, section 9.2), whatever they tell of: a head, signs of life, many events in one write, an
//! end. It never waits for a reader: what comes meanwhile is bounded where it comes from.

use std::{future::Future, io};

use futures::{
    FutureExt,
    future::{Either, select},
};

use super::{
    answer::{NO_STORE, Refusal, head},
    connection::Connection,
    context::Context,
    slots::Slot,
};

/// Bytes gathered before they are written: many small events cost few system calls.
const BATCH: usize = 64 << 10;
/// How long a reader waits before it comes again, in milliseconds.
const RETRY: u32 = 1000;

/// Where events come from.
pub(super) trait Events {
    type Event: Send;

    /// The next one; none when there will be no more.
    fn next(&mut self) -> impl Future<Output = Option<Self::Event>> + Send;

    /// Writes one: its lines, and an empty one. JSON is one line: it has no line ends outside of strings, and writes those
    /// inside as \n.
    fn write(&mut self, event: &Self::Event, text: &mut String);

    /// Why there are no more.
    fn end(&self) -> &'static str;
}

/// A place for a stream.
///
/// # Errors
/// When as many are open as may be.
pub(super) fn place(context: &Context) -> Result<Slot, Refusal> {
    context.streams.take().ok_or_else(|| {
        let limit = context.api.streams;
        let error = format!("too many event streams at once (limit {limit}, config key api.streams)");
        Refusal::new(429, error, "close one, or raise the key")
    })
}

/// Writes `events` until the reader goes, which is an error, or they end. A reader of the head, which `opening` says something
/// in, misses nothing from then on.
pub(super) async fn stream(
    connection: &mut Connection,
    events: &mut impl Events,
    opening: &str,
) -> io::Result<()> {
    let context = connection.context.clone();
    context.counters.answered(200);
    let mut text = head(200, "text/event-stream", "close", NO_STORE);
    // nginx gathers answers unless they say otherwise.
    text.push_str(&format!("X-Accel-Buffering: no\r\n\r\nretry: {RETRY}\n: {opening}\n\n"));
    loop {
        connection.write(text.as_bytes()).await?;
        text.clear();
        let next = {
            let gone = std::pin::pin!(connection.wire.closed());
            let next = context.runtime.timeout(context.api.keep_alive, events.next());
            match select(gone, std::pin::pin!(next)).await {
                Either::Left(_) => return Ok(()),
                Either::Right((next, _)) => next,
            }
        };
        match next {
            Err(_) => text.push_str(": still here\n\n"),
            Ok(None) => {
                text = format!("event: end\ndata: {}\n\n", serde_json::json!({ "why": events.end() }));
                return connection.write(text.as_bytes()).await;
            }
            Ok(Some(first)) => {
                events.write(&first, &mut text);
                while text.len() < BATCH
                    && let Some(Some(more)) = events.next().now_or_never()
                {
                    events.write(&more, &mut text);
                }
            }
        }
    }
}
