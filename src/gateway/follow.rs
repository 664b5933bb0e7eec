//! `GET /v1/topics/TOPIC`: messages as server-sent events (WHATWG HTML, section 9.2), live, and before that, where it is asked
//! for, what the topic's memory has.
//!
//! A reader that keeps up gets everything. What a slow one misses is counted and reported in its place in
//! the stream; the node keeps no more than `limits.events` messages and `limits.backlog` bytes for it and never waits.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use futures::{
    FutureExt,
    future::{Either, select},
};
use serde_json::json;

use super::{
    answer::{NO_STORE, Refusal, head},
    connection::{Connection, Next},
    target::Query,
};
use crate::{
    node::{Delivery, Message, Position, Start, Subscription},
    text,
};

/// Bytes gathered before they are written: many small messages cost few system calls.
const BATCH: usize = 64 << 10;

/// Streams the messages of `topic` until the reader or the node goes.
///
/// `heard` is the id of the last event that the reader had, of a stream before this one; it goes before what the query says.
pub(super) async fn run(
    connection: &mut Connection,
    topic: String,
    mut query: Query,
    heard: Option<Position>,
) -> Next {
    let context = connection.context.clone();
    let opened = async {
        let local = query.flag("local")?.unwrap_or(true);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = query.start(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))?;
        let start = heard.map(Start::Behind).or(start).unwrap_or_default();
        query.done("local, since and last")?;
        let Some(slot) = context.streams.take() else {
            let limit = context.api.streams;
            let error = format!("too many event streams at once (limit {limit}, config key api.streams)");
            return Err(Refusal::new(429, error, "close one, or raise the key"));
        };
        let past = if start == Start::Now { " from now on" } else { "" };
        let subscription = context.client.subscribe_from(topic, start).await?;
        Ok((slot, past, if local { subscription } else { subscription.no_local() }))
    };
    let (slot, past, mut subscription) = match opened.await {
        Ok(opened) => opened,
        Err(refusal) => return connection.refuse(refusal).await,
    };
    context.counters.answered(200);
    // Subscribed before a byte is written: a reader of the head misses nothing from then on.
    let mut start = head(200, "text/event-stream", "close", NO_STORE);
    start.push_str(&format!("\r\n: messages{past}\n\n"));
    // An error says that the reader is gone, or takes nothing.
    let _ = stream(connection, &mut subscription, start).await;
    drop(slot);
    Next::Close
}

async fn stream(
    connection: &mut Connection,
    subscription: &mut Subscription,
    start: String,
) -> std::io::Result<()> {
    connection.write(start.as_bytes()).await?;
    let context = connection.context.clone();
    loop {
        let next = {
            let gone = std::pin::pin!(connection.wire.closed());
            let next = context.runtime.timeout(context.api.keep_alive, subscription.next_delivery());
            match select(gone, std::pin::pin!(next)).await {
                Either::Left(_) => return Ok(()),
                Either::Right((next, _)) => next,
            }
        };
        let text = match next {
            Err(_) => ": still here\n\n".to_owned(),
            Ok(None) => {
                return connection.write(b"event: end\ndata: {\"why\":\"the node has stopped\"}\n\n").await;
            }
            Ok(Some(first)) => {
                let count = |lost| context.counters.lost.inc_by(lost);
                let mut text = event(&first, count);
                while text.len() < BATCH
                    && let Some(Some(more)) = subscription.next_delivery().now_or_never()
                {
                    text.push_str(&event(&more, count));
                }
                text
            }
        };
        connection.write(text.as_bytes()).await?;
    }
}

fn event(delivery: &Delivery<Message>, count: impl Fn(u64) -> u64) -> String {
    match delivery {
        Delivery::Lost(lost) => {
            count(*lost);
            format!("event: lost\ndata: {{\"lost\":{lost}}}\n\n")
        }
        Delivery::Gone => {
            "event: gone\ndata: {\"why\":\"some of what was asked for is remembered no more\"}\n\n".into()
        }
        // JSON has no line ends outside of strings, and writes those inside as \n: one line it is.
        Delivery::Item(message) => {
            let id = message.position.map(|position| format!("id: {position}\n")).unwrap_or_default();
            format!("event: message\n{id}data: {}\n\n", text::json(&record(message).to_string()))
        }
    }
}

fn record(message: &Message) -> serde_json::Value {
    let (base64, data) = match std::str::from_utf8(&message.data) {
        Ok(text) => (false, text.to_owned()),
        Err(_) => (true, BASE64.encode(&message.data)),
    };
    json!({
        "id": message.id,
        "topic": message.topic,
        "source": message.source.map(|p| p.to_string()),
        "name": message.name.as_deref(),
        "from": message.from.to_string(),
        "local": message.local,
        "bytes": message.data.len(),
        "base64": base64,
        "data": data,
        "sent": message.sent,
        "late": message.late,
        "position": message.position.map(|position| position.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;

    use super::*;

    fn message(data: &[u8]) -> Delivery<Message> {
        let peer = PeerId::random();
        Delivery::Item(Message {
            id: "1".into(),
            topic: "t".into(),
            name: None,
            source: None,
            from: peer,
            data: data.into(),
            local: false,
            sent: None,
            late: false,
            position: None,
        })
    }

    #[test]
    fn text_stays_text_and_other_bytes_are_base64_and_neither_breaks_the_stream() {
        for (data, base64, shown) in [
            (&b"a\nb\r\ndata: x\n\n"[..], false, "a\nb\r\ndata: x\n\n"),
            ("é".as_bytes(), false, "é"),
            ("a\u{202e}b\u{9b}".as_bytes(), false, "a\u{202e}b\u{9b}"),
            (&[0xff, 0x00], true, "/wA="),
            (b"", false, ""),
        ] {
            let said = event(&message(data), |_| 0);
            let lines: Vec<_> = said.split_terminator('\n').collect();
            assert_eq!((lines[0], lines.len()), ("event: message", 3), "{said:?}");
            assert!(!lines[1].contains(text::steers), "{said:?}");
            let json = lines[1].strip_prefix("data: ").unwrap();
            let record: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!((&record["base64"], &record["data"]), (&base64.into(), &shown.into()));
            assert_eq!(record["bytes"], data.len());
        }
        let Delivery::Item(kept) = message(b"a") else { panic!("a message") };
        let kept = Message { position: Some("5.6.0.7".parse().unwrap()), ..kept };
        assert!(event(&Delivery::Item(kept), |n| n).starts_with("event: message\nid: 5.6.0.7\ndata: {"));
        assert!(event(&Delivery::Gone, |n| n).starts_with("event: gone\ndata: {"));
        assert_eq!(event(&Delivery::Lost(7), |n| n), "event: lost\ndata: {\"lost\":7}\n\n");
    }
}
