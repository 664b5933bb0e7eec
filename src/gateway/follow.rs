//! `GET /v1/topics/TOPIC`: messages as server-sent events (WHATWG HTML, section 9.2), live, and before that, where it is asked
//! for, what the topic's memory has.
//!
//! A reader that keeps up gets everything. What a slow one misses is counted and reported in its place in
//! the stream; the node keeps no more than `limits.events` messages and `limits.backlog` bytes for it and never waits.

use std::time::UNIX_EPOCH;

use data_encoding::BASE64;
use prometheus_client::metrics::counter::Counter;
use serde_json::json;

use super::{
    connection::{Connection, Next},
    events::{self, Events},
    target::Query,
};
use crate::{
    node::{Delivery, Message, Position, Start, Subscription},
    runtime, text,
};

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
        let since_1970 = runtime::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = query.start(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))?;
        let start = heard.map(Start::Behind).or(start).unwrap_or_default();
        query.done("local, since and last")?;
        let slot = events::place(&context)?;
        let past = if start == Start::Now { " from now on" } else { "" };
        let subscription = context.client.subscribe_from(topic, start).await?;
        Ok((slot, past, if local { subscription } else { subscription.no_local() }))
    };
    let (slot, past, subscription) = match opened.await {
        Ok(opened) => opened,
        Err(refusal) => return connection.refuse(refusal).await,
    };
    let mut messages = Messages { subscription, lost: context.counters.lost.clone() };
    // An error says that the reader is gone, or takes nothing.
    let _ = events::stream(connection, &mut messages, &format!("messages{past}")).await;
    drop(slot);
    Next::Close
}

/// The messages of a subscription.
struct Messages {
    subscription: Subscription,
    /// Messages that readers lost.
    lost: Counter,
}

impl Events for Messages {
    type Event = Delivery<Message>;

    fn next(&mut self) -> impl Future<Output = Option<Delivery<Message>>> + Send {
        self.subscription.next_delivery()
    }

    fn write(&self, delivery: &Delivery<Message>, text: &mut String) {
        text.push_str(&event(delivery, |lost| self.lost.inc_by(lost)));
    }

    fn end(&self) -> &'static str {
        "the node has stopped"
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
