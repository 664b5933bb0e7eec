//! `/v1/mqtt`: the MQTT clients of this node; `/v1/mqtt/TOPIC`: a message for clients of all nodes with MQTT, or what they say,
//! as server-sent events.

use data_encoding::BASE64;
use serde_json::json;

use super::{
    answer::{Answer, Refusal},
    connection::{Connection, Next},
    context::Context,
    events::{self, Events},
    target::Query,
};
use crate::{
    mqtt::{Followed, Heard, Local, NotTaken, Publish, Said},
    text,
};

impl From<NotTaken> for Refusal {
    fn from(why: NotTaken) -> Self {
        match why {
            NotTaken::Malformed(why) => Self::bad(
                why,
                "levels between slashes; + and # stand for whole levels, in filters; not $SYS, $share",
            ),
            NotTaken::Full(why) => Self::new(507, why, "delete some, or raise mqtt.retained_messages"),
        }
    }
}

/// MQTT at this node.
///
/// # Errors
/// When it is off.
pub(super) fn here(context: &Context) -> Result<&Local, Refusal> {
    context.mqtt.as_ref().ok_or_else(|| {
        Refusal::new(409, "this node has no MQTT", "switch it on: mqtt.listen = \"127.0.0.1:1883\"")
    })
}

/// Publishes a message.
pub(super) async fn publish(
    context: &Context,
    topic: String,
    mut query: Query,
    body: Vec<u8>,
) -> Result<Answer, Refusal> {
    let how = Publish {
        qos: query.qos("qos")?.unwrap_or(1),
        retain: query.set("retain")?,
        expiry: query.life("expiry")?,
    };
    query.done("qos, retain and expiry")?;
    let mqtt = here(context)?;
    let bytes = body.len();
    mqtt.publish(&topic, body, how).await?;
    Ok(Answer::json(&json!({ "topic": topic, "qos": how.qos, "retain": how.retain, "bytes": bytes })))
}

/// Streams the messages that match a filter until the reader or the node goes.
pub(super) async fn follow(connection: &mut Connection, filter: String, mut query: Query) -> Next {
    let context = connection.context.clone();
    let opened = async {
        let retained = query.flag("retained")?.unwrap_or(true);
        query.done("retained")?;
        let mqtt = here(&context)?;
        let slot = events::place(&context)?;
        Ok::<_, Refusal>((slot, mqtt.follow(&filter, retained)?))
    };
    let (slot, followed) = match opened.await {
        Ok(opened) => opened,
        Err(refusal) => return connection.refuse(refusal).await,
    };
    let mut messages = Messages(followed);
    // An error says that the reader is gone, or takes nothing.
    let _ = events::stream(connection, &mut messages, "messages").await;
    drop(slot);
    Next::Close
}

struct Messages(Followed);

impl Events for Messages {
    type Event = Heard;

    fn next(&mut self) -> impl Future<Output = Option<Heard>> + Send {
        self.0.next()
    }

    fn write(&mut self, heard: &Heard, text: &mut String) {
        text.push_str(&event(heard));
    }

    fn end(&self) -> &'static str {
        "the node has stopped"
    }
}

fn event(heard: &Heard) -> String {
    match heard {
        Heard::Lost(lost) => format!("event: lost\ndata: {{\"lost\":{lost}}}\n\n"),
        Heard::Message(said) => {
            format!("event: message\ndata: {}\n\n", text::json(&record(said).to_string()))
        }
    }
}

fn record(said: &Said) -> serde_json::Value {
    let (base64, data) = match std::str::from_utf8(&said.payload) {
        Ok(text) => (false, text.to_owned()),
        Err(_) => (true, BASE64.encode(&said.payload)),
    };
    json!({
        "topic": said.topic,
        "bytes": said.payload.len(),
        "base64": base64,
        "data": data,
        "qos": said.qos,
        "retained": said.retained,
        "content_type": said.content_type,
        "response_topic": said.response_topic,
        "user": said.user,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_json_whatever_is_in_it() {
        let said = Said {
            topic: "a\u{202e}/b".into(),
            payload: b"x\r\n\r\ndata: y".to_vec(),
            qos: 1,
            user: vec![("k\n".into(), "v".into())],
            ..Said::default()
        };
        let shown = event(&Heard::Message(said.clone()));
        let lines: Vec<_> = shown.split_terminator('\n').collect();
        assert_eq!((lines[0], lines.len()), ("event: message", 3), "{shown:?}");
        assert!(!lines[1].contains(text::steers), "{shown:?}");
        let json: serde_json::Value = serde_json::from_str(lines[1].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&json["topic"], &json["data"]), (&"a\u{202e}/b".into(), &"x\r\n\r\ndata: y".into()));
        let binary = record(&Said { payload: vec![0xff, 0], ..said });
        assert_eq!((&binary["base64"], &binary["data"]), (&true.into(), &"/wA=".into()));
        assert_eq!(event(&Heard::Lost(3)), "event: lost\ndata: {\"lost\":3}\n\n");
    }
}
