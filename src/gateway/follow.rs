//! `GET /v1/topics/TOPIC`: messages as server-sent events (WHATWG HTML, section 9.2), live, and before that, where it is asked
//! for, what the topic's memory has.
//!
//! A reader that keeps up gets everything. What a slow one misses is counted and reported in its place in
//! the stream; the node keeps no more than `limits.events` messages and `limits.backlog` bytes for it and never waits.

use std::{borrow::Cow, fmt::Write, time::UNIX_EPOCH};

use data_encoding::BASE64;
use libp2p::PeerId;
use prometheus_client::metrics::counter::Counter;

use super::{
    connection::{Connection, Next},
    events::{self, Events},
    json_string,
    target::Query,
};
use crate::{
    node::{Delivery, Message, Position, Start, Subscription},
    runtime,
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
    let mut messages =
        Messages { subscription, lost: context.counters.lost.clone(), names: Names::default() };
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
    names: Names,
}

impl Events for Messages {
    type Event = Delivery<Message>;

    fn next(&mut self) -> impl Future<Output = Option<Delivery<Message>>> + Send {
        self.subscription.next_delivery()
    }

    fn write(&mut self, delivery: &Delivery<Message>, text: &mut String) {
        if let Delivery::Lost(lost) = delivery {
            self.lost.inc_by(*lost);
        }
        event(delivery, &mut self.names, text);
    }

    fn end(&self) -> &'static str {
        "the node has stopped"
    }
}

/// The peers of the last message as text: most often they are those of the next one.
#[derive(Default)]
struct Names {
    source: Option<(PeerId, String)>,
    from: Option<(PeerId, String)>,
}

fn name(known: &mut Option<(PeerId, String)>, peer: PeerId) -> &str {
    if known.as_ref().is_none_or(|(known, _)| *known != peer) {
        *known = None;
    }
    &known.get_or_insert_with(|| (peer, peer.to_string())).1
}

fn event(delivery: &Delivery<Message>, names: &mut Names, text: &mut String) {
    match delivery {
        Delivery::Lost(lost) => text.push_str(&format!("event: lost\ndata: {{\"lost\":{lost}}}\n\n")),
        Delivery::Gone => text.push_str(
            "event: gone\ndata: {\"why\":\"some of what was asked for is remembered no more\"}\n\n",
        ),
        Delivery::Item(message) => {
            text.push_str("event: message\n");
            if let Some(position) = message.position {
                text.push_str(&format!("id: {position}\n"));
            }
            text.push_str("data: ");
            record(message, names, text);
            text.push_str("\n\n");
        }
    }
}

/// A message as JSON, in the order of the names. By hand: it is what most of a reader's share of a message is.
fn record(message: &Message, names: &mut Names, out: &mut String) {
    let (base64, data) = match std::str::from_utf8(&message.data) {
        Ok(text) => (false, Cow::from(text)),
        Err(_) => (true, BASE64.encode(&message.data).into()),
    };
    let Message { late, local, .. } = message;
    let _ = write!(out, "{{\"base64\":{base64},\"bytes\":{},\"data\":", message.data.len());
    json_string::push(out, &data);
    out.push_str(",\"from\":\"");
    out.push_str(name(&mut names.from, message.from));
    out.push_str("\",\"id\":");
    json_string::push(out, &message.id);
    let _ = write!(out, ",\"late\":{late},\"local\":{local},\"name\":");
    push_or_null(out, message.name.as_deref());
    out.push_str(",\"position\":");
    push_or_null(out, message.position.map(|position| position.to_string()).as_deref());
    let _ = match message.sent {
        Some(sent) => write!(out, ",\"sent\":{sent},\"source\":"),
        None => write!(out, ",\"sent\":null,\"source\":"),
    };
    push_or_null(out, message.source.map(|source| name(&mut names.source, source)));
    out.push_str(",\"topic\":");
    json_string::push(out, &message.topic);
    out.push('}');
}

fn push_or_null(out: &mut String, said: Option<&str>) {
    match said {
        Some(said) => json_string::push(out, said),
        None => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;

    fn event(delivery: &Delivery<Message>) -> String {
        let mut text = String::new();
        super::event(delivery, &mut Names::default(), &mut text);
        text
    }

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
            let said = event(&message(data));
            let lines: Vec<_> = said.split_terminator('\n').collect();
            assert_eq!((lines[0], lines.len()), ("event: message", 3), "{said:?}");
            assert!(!lines[1].contains(text::steers), "{said:?}");
            let json = lines[1].strip_prefix("data: ").unwrap();
            let record: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!((&record["base64"], &record["data"]), (&base64.into(), &shown.into()));
            assert_eq!(record["bytes"], data.len());
            let names = record.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
            let all = "base64 bytes data from id late local name position sent source topic";
            assert_eq!(names.join(" "), all);
        }
        let Delivery::Item(kept) = message(b"a") else { panic!("a message") };
        let kept = Message { position: Some("5.6.0.7".parse().unwrap()), ..kept };
        assert!(event(&Delivery::Item(kept)).starts_with("event: message\nid: 5.6.0.7\ndata: {"));
        assert!(event(&Delivery::Gone).starts_with("event: gone\ndata: {"));
        assert_eq!(event(&Delivery::Lost(7)), "event: lost\ndata: {\"lost\":7}\n\n");
    }

    #[test]
    fn each_message_has_its_own_peers_whoever_the_last_one_was_of() {
        let peers = [PeerId::random(), PeerId::random()];
        let mut names = Names::default();
        for (source, from) in [(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)] {
            let Delivery::Item(of) = message(b"a") else { panic!("a message") };
            let of = Message { source: Some(peers[source]), from: peers[from], ..of };
            let mut text = String::new();
            super::event(&Delivery::Item(of), &mut names, &mut text);
            let json = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            let record: serde_json::Value = serde_json::from_str(json).unwrap();
            let said = [&record["source"], &record["from"]].map(|peer| peer.as_str().unwrap().to_owned());
            assert_eq!(said, [peers[source], peers[from]].map(|peer| peer.to_string()));
        }
    }
}
