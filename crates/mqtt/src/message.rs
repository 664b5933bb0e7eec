//! A message as the broker holds it, and its packets, each made once for all that get the same.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mqtt_proto::{Pid, Protocol, QoS, QosPid, TopicName, v3, v5};

use crate::codec;

/// Quality of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// At most once.
    #[default]
    AtMostOnce,
    /// At least once.
    AtLeastOnce,
    /// Exactly once.
    ExactlyOnce,
}

impl From<QoS> for Qos {
    fn from(qos: QoS) -> Self {
        match qos {
            QoS::Level0 => Self::AtMostOnce,
            QoS::Level1 => Self::AtLeastOnce,
            QoS::Level2 => Self::ExactlyOnce,
        }
    }
}

impl Qos {
    pub(crate) fn with(self, pid: Pid) -> QosPid {
        match self {
            Self::AtMostOnce => QosPid::Level0,
            Self::AtLeastOnce => QosPid::Level1(pid),
            Self::ExactlyOnce => QosPid::Level2(pid),
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it was published: a name, never a filter.
    pub topic: TopicName,
    /// What it says.
    pub payload: Bytes,
    /// At which quality it was published.
    pub qos: Qos,
    /// Whether it is to be retained; with no payload: what is retained is to be deleted.
    pub retain: bool,
    /// Its MQTT 5 properties, those that are passed on; none, of a message of MQTT 3.
    pub properties: Option<Box<v5::PublishProperties>>,
    /// When it is not worth delivering any more.
    pub expires: Option<Instant>,
    /// The user whose client published it, where clients have users.
    pub user: Option<Arc<str>>,
}

/// What each message and each property costs beside its bytes, roughly.
const OVERHEAD: usize = 128;

impl Message {
    /// A message without properties.
    ///
    /// # Errors
    /// When `topic` is no topic name.
    pub fn new(
        topic: &str,
        payload: impl Into<Bytes>,
        qos: Qos,
        retain: bool,
    ) -> Result<Self, crate::topic::Malformed> {
        if !crate::topic::is_name(topic) {
            return Err(crate::topic::Malformed);
        }
        let topic = TopicName::try_from(topic).map_err(|_| crate::topic::Malformed)?;
        Ok(Self { topic, payload: payload.into(), qos, retain, properties: None, expires: None, user: None })
    }

    pub(crate) fn from_publish(publish: v5::Publish, now: Instant) -> Self {
        let v5::Publish { topic_name, payload, qos_pid, retain, mut properties, .. } = publish;
        let lifetime = properties.message_expiry_interval.map(|secs| Duration::from_secs(secs.into()));
        properties.topic_alias = None;
        properties.subscription_id = None;
        let properties = (properties != v5::PublishProperties::default()).then(|| Box::new(properties));
        Self {
            topic: topic_name,
            payload,
            qos: qos_pid.qos().into(),
            retain,
            properties,
            expires: lifetime.and_then(|lifetime| now.checked_add(lifetime)),
            user: None,
        }
    }

    /// Bytes of memory that it takes, roughly.
    pub fn cost(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, |properties| {
            OVERHEAD * (1 + properties.user_properties.len())
                + mqtt_proto::Encodable::encode_len(properties.as_ref())
        });
        OVERHEAD
            + self.topic.len()
            + self.payload.len()
            + self.user.as_ref().map_or(0, |user| user.len())
            + properties
    }

    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// The packet that a client gets. A packet id of 1 stands in it, where it has one.
    pub(crate) fn encode(&self, style: Style, ids: &[u32], now: Instant) -> Vec<u8> {
        let qos_pid = style.qos.with(Pid::default());
        let (topic_name, payload) = (self.topic.clone(), self.payload.clone());
        if style.protocol != Protocol::V500 {
            let publish = v3::Publish { dup: false, retain: style.retain, qos_pid, topic_name, payload };
            return codec::bytes(v3::Packet::Publish(publish).encode());
        }
        let mut properties = self.properties.as_deref().cloned().unwrap_or_default();
        let identify = |id: &u32| v5::VarByteInt::try_from(*id).ok();
        properties.subscription_id = ids.first().and_then(identify);
        if let Some(expires) = self.expires {
            properties.message_expiry_interval = Some(remaining(expires, now));
        }
        let publish =
            v5::Publish { dup: false, retain: style.retain, qos_pid, topic_name, payload, properties };
        let at = 2 + publish.topic_name.len() + if style.qos == Qos::AtMostOnce { 0 } else { 2 };
        let frame = codec::bytes(v5::Packet::Publish(publish).encode());
        if ids.len() < 2 { frame } else { codec::with_more_ids(&frame, at, &ids[1..]).unwrap_or_default() }
    }
}

/// Whole seconds until then, rounded up: what has waited for less than a second has the interval it came with.
fn remaining(expires: Instant, now: Instant) -> u32 {
    let left = expires.saturating_duration_since(now);
    let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    u32::try_from(secs).unwrap_or(u32::MAX)
}

/// All that the packets of one message for different clients differ in, but for packet and subscription ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) protocol: Protocol,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
}

/// The packets of one message, each made when the first client needs it.
#[derive(Debug, Default)]
pub(crate) struct Frames([Option<Vec<u8>>; 12]);

impl Frames {
    pub(crate) fn get(&mut self, message: &Message, style: Style, now: Instant) -> &[u8] {
        let version = if style.protocol == Protocol::V500 { 6 } else { 0 };
        let frame = &mut self.0[version + 2 * style.qos as usize + usize::from(style.retain)];
        frame.get_or_insert_with(|| message.encode(style, &[], now))
    }
}

/// Appends a PUBLISH packet, under this packet id where it has one.
pub(crate) fn put(out: &mut Vec<u8>, frame: &[u8], topic: usize, pid: Option<u16>, dup: bool) {
    let start = out.len();
    out.extend_from_slice(frame);
    let Some(pid) = pid else { return };
    // First byte, remaining length, length of the topic, topic, packet id.
    let length = frame.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let at = start + 1 + length + 2 + topic;
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&pid.to_be_bytes());
    }
    if dup && let Some(first) = out.get_mut(start) {
        *first |= 0b1000;
    }
}
