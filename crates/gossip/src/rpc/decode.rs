//! Protobuf, read by hand: places in the frame, nothing copied, every count bounded before it is added to.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use libp2p::PeerId;

use super::{
    Choke, Extensions, IHave, Limits, MAX_BACKOFF, MessageParts, PeerInfo, Prune, Rpc, Subscription,
    WireMessage,
    encode::{LEN, VARINT, varint_len},
    wire::{Part, Places},
};
use crate::{MessageId, Topic};

/// Why a frame is no RPC.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// More bytes than [`Limits::frame`].
    #[error("an RPC of {bytes} bytes, more than {limit}")]
    TooLarge {
        /// How many.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A field goes on behind the end of what contains it.
    #[error("byte {at}: the field is longer than what it is in")]
    Truncated {
        /// Where the field begins.
        at: usize,
    },
    /// No varint, no tag of a field, or a wire type that protobuf gave up.
    #[error("byte {at}: no field of a protobuf message")]
    NoField {
        /// Where.
        at: usize,
    },
    /// A field of another type than the protocol's.
    #[error("byte {at}: field {field} is of the wrong type")]
    WrongType {
        /// Its number in the message it is in.
        field: u32,
        /// Where.
        at: usize,
    },
}

/// Reads the RPC that `frame` holds. What it returns are shares of `frame`.
///
/// # Errors
/// When the frame is larger than [`Limits::frame`] or no protobuf message of this schema. Unknown fields are skipped.
pub fn decode(frame: &Bytes, limits: &Limits) -> Result<Rpc, DecodeError> {
    if frame.len() > limits.frame {
        return Err(DecodeError::TooLarge { bytes: frame.len(), limit: limits.frame });
    }
    let mut decoder = Decoder { frame, limits, rpc: Rpc::default(), ids: [0; 3] };
    decoder.rpc()?;
    Ok(decoder.rpc)
}

impl WireMessage {
    /// Reads one message by itself, as [`encoded`](Self::encoded) has it; `None` for any other encoding of it, and for what
    /// is none. What it returns is a share of `encoded`.
    pub fn decode(encoded: &Bytes) -> Option<Self> {
        let limits = Limits::default();
        let mut decoder = Decoder { frame: encoded, limits: &limits, rpc: Rpc::default(), ids: [0; 3] };
        decoder.message(0..encoded.len()).ok()?;
        let message = decoder.rpc.publish.pop()?;
        (message.encoded() == encoded).then_some(message)
    }
}

struct Decoder<'a> {
    frame: &'a Bytes,
    limits: &'a Limits,
    rpc: Rpc,
    /// Ids so far of IHAVE, IWANT and IDONTWANT.
    ids: [usize; 3],
}

/// The fields of a message that is a range of the frame.
struct Fields<'a> {
    frame: &'a [u8],
    at: usize,
    end: usize,
}

struct Field {
    number: u32,
    /// Where its tag begins.
    at: usize,
    value: Value,
    /// Whether tag and length are as short as they can be.
    minimal: bool,
}

enum Value {
    Varint(u64),
    Bytes(Range<usize>),
    /// Four or eight bytes, which no field of ours is.
    Fixed,
}

impl<'a> Fields<'a> {
    fn new(frame: &'a [u8], range: Range<usize>) -> Self {
        Self { frame, at: range.start, end: range.end }
    }

    fn next(&mut self) -> Result<Option<Field>, DecodeError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let at = self.at;
        let tag = self.varint()?;
        let mut minimal = self.at - at == varint_len(tag);
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n > 0).ok_or(DecodeError::NoField { at })?;
        let value = match (tag & 7) as u8 {
            VARINT => Value::Varint(self.varint()?),
            LEN => {
                let before = self.at;
                let len = self.varint()?;
                minimal &= self.at - before == varint_len(len);
                Value::Bytes(self.take(len, at)?)
            }
            1 => self.take(8, at).map(|_| Value::Fixed)?,
            5 => self.take(4, at).map(|_| Value::Fixed)?,
            _ => return Err(DecodeError::NoField { at }),
        };
        Ok(Some(Field { number, at, value, minimal }))
    }

    fn take(&mut self, len: u64, at: usize) -> Result<Range<usize>, DecodeError> {
        let left = self.end - self.at;
        let len =
            usize::try_from(len).ok().filter(|len| *len <= left).ok_or(DecodeError::Truncated { at })?;
        let start = self.at;
        self.at += len;
        Ok(start..self.at)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            if self.at >= self.end {
                return Err(DecodeError::Truncated { at: start });
            }
            let byte = self.frame[self.at];
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // The tenth byte has one bit left.
                return if shift == 63 && byte > 1 {
                    Err(DecodeError::NoField { at: start })
                } else {
                    Ok(value)
                };
            }
        }
        Err(DecodeError::NoField { at: start })
    }
}

impl Field {
    fn bytes(self) -> Result<Range<usize>, DecodeError> {
        match self.value {
            Value::Bytes(range) => Ok(range),
            _ => Err(DecodeError::WrongType { field: self.number, at: self.at }),
        }
    }

    fn number(self) -> Result<u64, DecodeError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(DecodeError::WrongType { field: self.number, at: self.at }),
        }
    }
}

impl Decoder<'_> {
    fn rpc(&mut self) -> Result<(), DecodeError> {
        let mut fields = Fields::new(self.frame, 0..self.frame.len());
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.subscription(field.bytes()?)?,
                2 => self.message(field.bytes()?)?,
                3 => self.control(field.bytes()?)?,
                Extensions::CHOKE => self.choke(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn choke(&mut self, range: Range<usize>) -> Result<(), DecodeError> {
        let mut fields = Fields::new(self.frame, range);
        while let Some(field) = fields.next()? {
            let choked = match field.number {
                1 => true,
                2 => false,
                _ => continue,
            };
            let full = self.rpc.control.choke.len() >= self.limits.topics;
            match field.bytes().map(|topic| self.topic(topic).filter(|_| !full))? {
                Some(topic) => self.rpc.control.choke.push(Choke { topic, choked }),
                None => self.ignore(),
            }
        }
        Ok(())
    }

    fn subscription(&mut self, range: Range<usize>) -> Result<(), DecodeError> {
        let (mut topic, mut subscribe) = (None, false);
        let mut fields = Fields::new(self.frame, range);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => subscribe = field.number()? != 0,
                2 => topic = Some(field.bytes()?),
                _ => {}
            }
        }
        let full = self.rpc.subscriptions.len() >= self.limits.subscriptions;
        match topic.filter(|_| !full).and_then(|topic| self.topic(topic)) {
            Some(topic) => self.rpc.subscriptions.push(Subscription { topic, subscribe }),
            None => self.ignore(),
        }
        Ok(())
    }

    fn message(&mut self, range: Range<usize>) -> Result<(), DecodeError> {
        // By field number; the first place has none.
        let mut places: [Option<Range<usize>>; 7] = Default::default();
        let (mut last, mut canonical) = (0, true);
        let mut fields = Fields::new(self.frame, range.clone());
        while let Some(field) = fields.next()? {
            let number = field.number;
            canonical &= field.minimal && number > last && number <= 6;
            last = number;
            if let Some(place) = usize::try_from(number).ok().and_then(|number| places.get_mut(number)) {
                // What is said twice holds as it was said last.
                *place = Some(field.bytes()?);
            }
        }
        let full = self.rpc.publish.len() >= self.limits.messages;
        let [_, from, data, seqno, topic, signature, key] = places;
        let topic = topic.filter(|topic| !topic.is_empty() && topic.len() <= self.limits.topic && !full);
        let Some(topic) = topic.filter(|topic| std::str::from_utf8(&self.frame[topic.clone()]).is_ok())
        else {
            self.ignore();
            return Ok(());
        };
        // An identity multihash contains the key.
        let inline = from.as_ref().is_some_and(|from| self.frame[from.clone()].first() == Some(&0));
        let spare = key.clone().filter(|_| inline).map(|key| self.frame[key].into());
        let message = if canonical && spare.is_none() {
            let place = |field: Option<Range<usize>>| {
                field.map_or(Part::NONE, |f| Part::new(f.start - range.start, f.end - range.start))
            };
            let places = Places {
                from: place(from),
                data: place(data),
                seqno: place(seqno),
                topic: place(Some(topic)),
                signature: place(signature),
                key: place(key),
            };
            WireMessage::from_places(self.frame.slice(range), places, self.frame.len())
        } else {
            self.again([from, data, seqno, signature, key.filter(|_| !inline)], topic, spare)
        };
        self.rpc.publish.push(message);
        Ok(())
    }

    /// A message in canonical form, copied.
    fn again(
        &self,
        fields: [Option<Range<usize>>; 5],
        topic: Range<usize>,
        spare: Option<Box<[u8]>>,
    ) -> WireMessage {
        let [from, data, seqno, signature, key] = fields.map(|field| field.map(|f| &self.frame[f]));
        let topic = std::str::from_utf8(&self.frame[topic]).unwrap_or_default();
        WireMessage::new(&MessageParts { from, data, seqno, topic, signature, key }).with_spare_key(spare)
    }

    fn control(&mut self, range: Range<usize>) -> Result<(), DecodeError> {
        let mut fields = Fields::new(self.frame, range);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.ihave(field.bytes()?)?,
                2 => {
                    let mut ids = std::mem::take(&mut self.rpc.control.iwant);
                    let done = self.ids(field.bytes()?, 1, 1, &mut ids);
                    self.rpc.control.iwant = ids;
                    done?;
                }
                3 => {
                    let topic = self.topic_of(field.bytes()?)?;
                    let full = self.rpc.control.graft.len() >= self.limits.topics;
                    match topic.filter(|_| !full) {
                        Some(topic) => self.rpc.control.graft.push(topic),
                        None => self.ignore(),
                    }
                }
                4 => self.prune(field.bytes()?)?,
                5 => {
                    let mut ids = std::mem::take(&mut self.rpc.control.idontwant);
                    let done = self.ids(field.bytes()?, 2, 1, &mut ids);
                    self.rpc.control.idontwant = ids;
                    done?;
                }
                6 => self.extensions(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The topic of a control message that says no more than that, or in whose first field it is.
    fn topic_of(&self, range: Range<usize>) -> Result<Option<Topic>, DecodeError> {
        let mut topic = None;
        let mut fields = Fields::new(self.frame, range);
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                topic = Some(field.bytes()?);
            }
        }
        Ok(topic.and_then(|topic| self.topic(topic)))
    }

    fn ihave(&mut self, range: Range<usize>) -> Result<(), DecodeError> {
        let topic = self.topic_of(range.clone())?;
        let mut ids = Vec::new();
        self.ids(range, 0, 2, &mut ids)?;
        let full = self.rpc.control.ihave.len() >= self.limits.topics;
        match topic.filter(|_| !full) {
            Some(_) if ids.is_empty() => {}
            Some(topic) => self.rpc.control.ihave.push(IHave { topic, ids }),
            None => self.ignore(),
        }
        Ok(())
    }

    /// Adds the ids that are `field` in `range`; `kind` says which count they belong to.
    fn ids(
        &mut self,
        range: Range<usize>,
        kind: usize,
        number: u32,
        ids: &mut Vec<MessageId>,
    ) -> Result<(), DecodeError> {
        let mut fields = Fields::new(self.frame, range);
        while let Some(field) = fields.next()? {
            if field.number != number {
                continue;
            }
            let id = field.bytes()?;
            if id.is_empty() || id.len() > self.limits.id || self.ids[kind] >= self.limits.ids {
                self.ignore();
            } else {
                self.ids[kind] += 1;
                ids.push(MessageId::from(self.frame.slice(id)));
            }
        }
        Ok(())
    }

    fn prune(&mut self, range: Range<usize>) -> Result<(), DecodeError> {
        let (mut topic, mut peers, mut backoff) = (None, Vec::new(), None);
        let mut fields = Fields::new(self.frame, range);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => topic = Some(field.bytes()?),
                2 => {
                    let info = self.peer(field.bytes()?)?;
                    match info.filter(|_| peers.len() < self.limits.peers) {
                        Some(info) => peers.push(info),
                        None => self.ignore(),
                    }
                }
                3 => backoff = Some(Duration::from_secs(field.number()?).min(MAX_BACKOFF)),
                _ => {}
            }
        }
        let full = self.rpc.control.prune.len() >= self.limits.topics;
        match topic.filter(|_| !full).and_then(|topic| self.topic(topic)) {
            Some(topic) => self.rpc.control.prune.push(Prune { topic, peers, backoff }),
            None => self.ignore(),
        }
        Ok(())
    }

    fn peer(&self, range: Range<usize>) -> Result<Option<PeerInfo>, DecodeError> {
        let (mut peer, mut record) = (None, None);
        let mut fields = Fields::new(self.frame, range);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => peer = PeerId::from_bytes(&self.frame[field.bytes()?]).ok(),
                2 => record = Some(field.bytes()?).filter(|record| record.len() <= self.limits.record),
                _ => {}
            }
        }
        Ok(peer.map(|peer| PeerInfo { peer, record: record.map(|record| self.frame.slice(record)) }))
    }

    fn extensions(&mut self, range: Range<usize>) -> Result<(), DecodeError> {
        let mut extensions = self.rpc.control.extensions.take().unwrap_or_default();
        let mut fields = Fields::new(self.frame, range);
        while let Some(field) = fields.next()? {
            // What says no flag is an extension of an extension, and unknown.
            if matches!(field.value, Value::Varint(value) if value != 0) && !extensions.add(field.number) {
                self.ignore();
            }
        }
        self.rpc.control.extensions = Some(extensions);
        Ok(())
    }

    fn topic(&self, range: Range<usize>) -> Option<Topic> {
        if range.is_empty() || range.len() > self.limits.topic {
            return None;
        }
        std::str::from_utf8(&self.frame[range]).ok().map(Topic::from)
    }

    fn ignore(&mut self) {
        self.rpc.ignored = self.rpc.ignored.saturating_add(1);
    }
}
