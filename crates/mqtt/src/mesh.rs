//! A message on its way to the other brokers of a space.
//!
//! ```text
//! message = version stamp publish
//! version = 01
//! stamp   = 8 bytes, big endian: microseconds since 1970 (Rank)
//! publish = a PUBLISH packet of MQTT 5; its packet id, at QoS 1 and 2, says nothing
//! ```
//!
//! Who published it, and that it is whole, is for whoever carries it to prove.

use std::time::Instant;

use bytes::Bytes;
use mqtt_proto::Protocol;

use crate::{
    codec::{self, Incoming},
    message::{Message, Style},
    topic,
};

const VERSION: u8 = 1;

/// Not as it should be: of another program, or of a newer version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It begins with another version.
    #[error("not a message of this version of the format")]
    Version,
    /// The packet in it is none, or says what no broker would.
    #[error("its PUBLISH packet is malformed")]
    Packet,
}

/// What goes to the other brokers.
pub fn encode(message: &Message, stamp: u64, now: Instant) -> Vec<u8> {
    let style = Style { protocol: Protocol::V500, qos: message.qos, retain: message.retain };
    let frame = message.encode(style, &[], now);
    let mut out = Vec::with_capacity(9 + frame.len());
    out.push(VERSION);
    out.extend_from_slice(&stamp.to_be_bytes());
    out.extend_from_slice(&frame);
    out
}

/// What came from one of them, and its stamp.
///
/// # Errors
/// When it is not what [`encode`] makes.
pub fn decode(data: &Bytes, now: Instant) -> Result<(Message, u64), Unreadable> {
    let (version, rest) = data.split_first().ok_or(Unreadable::Packet)?;
    if *version != VERSION {
        return Err(Unreadable::Version);
    }
    let (stamp, packet) = rest.split_first_chunk::<8>().ok_or(Unreadable::Packet)?;
    let (first, head, end) = codec::frame(packet, usize::MAX)
        .ok()
        .flatten()
        .filter(|(.., end)| *end == packet.len())
        .ok_or(Unreadable::Packet)?;
    match codec::packet(Protocol::V500, first, &packet[head..end]) {
        Ok(Incoming::Publish(publish))
            if publish.properties.topic_alias.is_none()
                && topic::is_name(&publish.topic_name)
                && !publish.topic_name.starts_with("$SYS/")
                && !publish.topic_name.starts_with("$share/") =>
        {
            Ok((Message::from_publish(publish, now), u64::from_be_bytes(*stamp)))
        }
        _ => Err(Unreadable::Packet),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::Qos;

    #[test]
    fn what_is_encoded_is_decoded_and_an_interval_shrinks_on_the_way() {
        let now = Instant::now();
        let mut message = Message::new("a/b", "payload", Qos::ExactlyOnce, true).unwrap();
        let bytes = Bytes::from(encode(&message, 7, now));
        assert_eq!(decode(&bytes, now), Ok((message.clone(), 7)));
        message.expires = Some(now + Duration::from_secs(60));
        let bytes = Bytes::from(encode(&message, 7, now + Duration::from_secs(10)));
        let (found, _) = decode(&bytes, now).unwrap();
        assert_eq!(found.expires, Some(now + Duration::from_secs(50)));
    }

    #[test]
    fn what_is_none_is_none() {
        let now = Instant::now();
        let good = encode(&Message::new("a", "p", Qos::AtMostOnce, false).unwrap(), 1, now);
        for length in 0..good.len() {
            assert!(decode(&Bytes::copy_from_slice(&good[..length]), now).is_err());
        }
        assert_eq!(decode(&[&[2], &good[1..]].concat().into(), now), Err(Unreadable::Version));
        assert_eq!(decode(&[&good[..], &[0]].concat().into(), now), Err(Unreadable::Packet));
        for topic in ["$SYS/a", "$share/g/a"] {
            let bytes = encode(&Message::new(topic, "p", Qos::AtMostOnce, false).unwrap(), 1, now);
            assert_eq!(decode(&bytes.into(), now), Err(Unreadable::Packet));
        }
        let mut ping = good[..9].to_vec();
        ping.extend([0xc0, 0]);
        assert_eq!(decode(&ping.into(), now), Err(Unreadable::Packet));
    }
}
