//! A message on its way to the other brokers of a space.
//!
//! ```text
//! message = version flags stamp [will] [user] publish
//! version = 01
//! flags   = 1 byte: 1 a will id is there, 2 a user is there
//! stamp   = 8 bytes, big endian: microseconds since 1970 (Rank)
//! will    = 16 bytes: the id of a will, the same whichever broker publishes it
//! user    = 2 bytes, big endian: length; the user whose client published it
//! publish = a PUBLISH packet of MQTT 5; its packet id, at QoS 1 and 2, says nothing
//! ```
//!
//! Who published it, and that it is whole, is for whoever carries it to prove.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use mqtt_proto::Protocol;

use crate::{
    codec::{self, Incoming},
    message::{Message, Style},
    topic,
};

const VERSION: u8 = 1;
const WILL: u8 = 1;
const USER: u8 = 2;

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
    encode_will(message, stamp, None, now)
}

/// The same, of a will with its id.
pub fn encode_will(message: &Message, stamp: u64, will: Option<u128>, now: Instant) -> Vec<u8> {
    let frame = packet(message, now);
    let user = message.user.as_deref().filter(|user| u16::try_from(user.len()).is_ok());
    let flags = if will.is_some() { WILL } else { 0 } | if user.is_some() { USER } else { 0 };
    let mut out = Vec::with_capacity(28 + user.map_or(0, str::len) + frame.len());
    out.extend([VERSION, flags]);
    out.extend_from_slice(&stamp.to_be_bytes());
    out.extend(will.iter().flat_map(|id| id.to_be_bytes()));
    if let Some(user) = user {
        out.extend_from_slice(&u16::try_from(user.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(user.as_bytes());
    }
    out.extend_from_slice(&frame);
    out
}

/// What came from one of them, and its stamp.
///
/// # Errors
/// When it is not what [`encode`] makes.
pub fn decode(data: &Bytes, now: Instant) -> Result<(Message, u64), Unreadable> {
    open(data, now).map(|(message, stamp, _)| (message, stamp))
}

/// The same, with the id of a will.
pub(crate) fn open(data: &Bytes, now: Instant) -> Result<(Message, u64, Option<u128>), Unreadable> {
    let bad = Unreadable::Packet;
    let (version, rest) = data.split_first().ok_or(bad)?;
    if *version != VERSION {
        return Err(Unreadable::Version);
    }
    let (flags, rest) = rest.split_first().filter(|(flags, _)| **flags <= WILL | USER).ok_or(bad)?;
    let (stamp, mut rest) = rest.split_first_chunk::<8>().ok_or(bad)?;
    let mut will = None;
    if flags & WILL != 0 {
        let (id, behind) = rest.split_first_chunk::<16>().ok_or(bad)?;
        (will, rest) = (Some(u128::from_be_bytes(*id)), behind);
    }
    let mut user: Option<Arc<str>> = None;
    if flags & USER != 0 {
        let (length, behind) = rest.split_first_chunk::<2>().ok_or(bad)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (name, behind) = behind.split_at_checked(length).ok_or(bad)?;
        user = Some(std::str::from_utf8(name).map_err(|_| bad)?.into());
        rest = behind;
    }
    let mut message = unpack(rest, now)?;
    message.user = user;
    Ok((message, u64::from_be_bytes(*stamp), will))
}

/// A message as a PUBLISH packet of MQTT 5.
pub(crate) fn packet(message: &Message, now: Instant) -> Vec<u8> {
    let style = Style { protocol: Protocol::V500, qos: message.qos, retain: message.retain };
    message.encode(style, &[], now)
}

/// The message of such a packet, which is all there is.
pub(crate) fn unpack(packet: &[u8], now: Instant) -> Result<Message, Unreadable> {
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
            Ok(Message::from_publish(publish, now))
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
        (message.expires, message.user) = (None, Some("ada".into()));
        for will in [None, Some(1 << 100)] {
            let bytes = Bytes::from(encode_will(&message, 7, will, now));
            assert_eq!(open(&bytes, now), Ok((message.clone(), 7, will)));
            for length in 0..bytes.len() {
                assert!(open(&bytes.slice(..length), now).is_err());
            }
        }
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
        let mut ping = good[..10].to_vec();
        ping.extend([0xc0, 0]);
        assert_eq!(decode(&ping.into(), now), Err(Unreadable::Packet));
    }
}
