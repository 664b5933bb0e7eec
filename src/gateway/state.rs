//! `/v1/state/TOPIC` and `/v1/state/TOPIC/KEY`: the values by key of a topic with `keep = "latest"`, and, with `?watch`, what
//! changes in them as server-sent events.
//!
//! A reader that is too slow for the changes is given all that is there again; the node keeps no more for it than for a
//! subscriber, and never waits.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use super::{
    answer::{Answer, Refusal},
    connection::{Connection, Next},
    context::Context,
    events::{self, Events},
    target::{Query, StateCall},
};
use crate::{
    node::{Error, StateEntry, StateEvent, StateWatch},
    text,
};

/// Answers what is no stream.
pub(super) async fn answer(
    context: &Context,
    topic: String,
    call: StateCall,
    mut query: Query,
    body: Vec<u8>,
) -> Result<Answer, Refusal> {
    let client = &context.client;
    if call == StateCall::List {
        let values = query.set("values")?;
        query.done("values and watch")?;
        let entries = client.state_list(topic.clone()).await?;
        let keys: Vec<_> = entries.iter().map(|entry| record(entry, values)).collect();
        return Ok(Answer::json(&json!({ "topic": topic, "keys": keys })));
    }
    query.done(if matches!(call, StateCall::Get(_)) { "watch" } else { "no parameters" })?;
    Ok(match call {
        StateCall::Get(key) => {
            let found = client.state_get(topic.clone(), key).await?;
            let entry = found.ok_or_else(|| Error::NotFound(format!("nothing has that key in {topic:?}")))?;
            Answer::new("application/octet-stream", entry.value().to_vec())
        }
        StateCall::Set(key) => Answer::json(&client.state_set(topic, key, body).await?),
        StateCall::Delete(key) => Answer::json(&client.state_delete(topic, key).await?),
        // A list was answered above.
        StateCall::List => Answer::json(&json!({})),
    })
}

/// Streams the values of `topic`, or that of one key, until the reader or the node goes.
pub(super) async fn watch(
    connection: &mut Connection,
    topic: String,
    key: Option<Vec<u8>>,
    query: Query,
) -> Next {
    let context = connection.context.clone();
    let opened = async {
        query.done("watch")?;
        let slot = events::place(&context)?;
        if let Some(key) = &key {
            // A key that nothing can have is refused.
            context.client.state_get(topic.clone(), key.clone()).await?;
        }
        Ok((slot, context.client.state_watch(topic).await?))
    };
    let (slot, watch) = match opened.await {
        Ok(opened) => opened,
        Err(refusal) => return connection.refuse(refusal).await,
    };
    // An error says that the reader is gone, or takes nothing.
    let _ = events::stream(connection, &mut Changes { watch, key }, "values").await;
    drop(slot);
    Next::Close
}

/// The changes of a topic's values, or of one.
struct Changes {
    watch: StateWatch,
    key: Option<Vec<u8>>,
}

impl Events for Changes {
    type Event = StateEvent;

    fn next(&mut self) -> impl Future<Output = Option<StateEvent>> + Send {
        self.watch.next()
    }

    fn write(&mut self, change: &StateEvent, text: &mut String) {
        text.push_str(&event(change, self.key.as_deref()));
    }

    fn end(&self) -> &'static str {
        "the node has stopped, or keeps the topic no longer"
    }
}

/// An event; nothing of other keys where one is asked for.
fn event(event: &StateEvent, key: Option<&[u8]>) -> String {
    if key.is_some() && event.key().is_some_and(|of| Some(of) != key) {
        return String::new();
    }
    let (name, data) = match event {
        StateEvent::Set(entry) => ("set", record(entry, true)),
        StateEvent::Deleted { key, author, sent } => {
            let mut data = named(key);
            data.insert("author".into(), author.to_string().into());
            data.insert("sent".into(), (*sent).into());
            ("deleted", data)
        }
        StateEvent::GaveWay { key } => ("gave_way", named(key)),
        StateEvent::Current => ("current", Map::new()),
        StateEvent::Again => ("again", Map::new()),
    };
    format!("event: {name}\ndata: {}\n\n", text::json(&Value::Object(data).to_string()))
}

fn named(key: &[u8]) -> Map<String, Value> {
    let (base64, text) = shown(key);
    Map::from_iter([("key".into(), text.into()), ("key_base64".into(), base64.into())])
}

fn record(entry: &StateEntry, value: bool) -> Map<String, Value> {
    let mut record = named(&entry.key);
    record.insert("author".into(), entry.author.to_string().into());
    record.insert("sent".into(), entry.sent.into());
    record.insert("bytes".into(), entry.value().len().into());
    if value {
        let (base64, text) = shown(entry.value());
        record.insert("base64".into(), base64.into());
        record.insert("value".into(), text.into());
    }
    record
}

/// Bytes as they are if they are text, in base64 otherwise, and whether they are.
fn shown(bytes: &[u8]) -> (bool, String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (false, text.to_owned()),
        Err(_) => (true, BASE64.encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;

    use super::*;

    #[test]
    fn events_are_one_line_of_json_each_and_those_of_other_keys_are_left_out() {
        let author = PeerId::random();
        let deleted = |key: &[u8]| StateEvent::Deleted { key: key.into(), author, sent: 7 };
        let said = event(&deleted(b"a\nb\r\n\n"), None);
        let lines: Vec<_> = said.split_terminator('\n').collect();
        assert_eq!((lines[0], lines.len()), ("event: deleted", 3), "{said:?}");
        let data: Value = serde_json::from_str(lines[1].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&data["key"], &data["key_base64"]), (&"a\nb\r\n\n".into(), &false.into()));
        assert_eq!((&data["author"], &data["sent"]), (&author.to_string().into(), &7.into()));
        let binary = event(&StateEvent::GaveWay { key: [0xff, 0].into() }, None);
        assert_eq!(binary, "event: gave_way\ndata: {\"key\":\"/wA=\",\"key_base64\":true}\n\n");
        assert_eq!(event(&deleted(b"a"), Some(b"b")), "");
        assert!(!event(&deleted(b"a"), Some(b"a")).is_empty());
        assert_eq!(event(&StateEvent::Current, Some(b"a")), "event: current\ndata: {}\n\n");
    }
}
