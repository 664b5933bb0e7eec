//! One message as it is on the wire: fields as places in one buffer that everybody shares.

use std::fmt;

use bytes::Bytes;

use super::encode;

/// What the signature covers is prefixed with.
pub(crate) const SIGNING_PREFIX: &[u8] = b"libp2p-pubsub:";

/// A place in the buffer; `start == u32::MAX` where there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    start: u32,
    end: u32,
}

impl Part {
    pub(super) const NONE: Self = Self { start: u32::MAX, end: u32::MAX };

    /// Frames and messages are far smaller than 4 GiB: [`WireMessage::new`] and the framer's limit see to that.
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    fn of(self, buffer: &[u8]) -> Option<&[u8]> {
        buffer.get(self.start as usize..self.end as usize)
    }
}

/// The fields of a message, to make one from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageParts<'a> {
    /// The author's peer id.
    pub from: Option<&'a [u8]>,
    /// The payload.
    pub data: Option<&'a [u8]>,
    /// The sequence number, 8 bytes in network order where it is valid.
    pub seqno: Option<&'a [u8]>,
    /// The topic.
    pub topic: &'a str,
    /// The author's signature.
    pub signature: Option<&'a [u8]>,
    /// The author's public key, where `from` does not contain it.
    pub key: Option<&'a [u8]>,
}

/// A message as it was received, or as it is sent: the fields, and the encoding that is passed on, in one buffer.
///
/// [`encoded`](Self::encoded) is canonical: fields in their order, each once, nothing unknown among them, and no key
/// where `from` contains it. That is what stock rust-libp2p would forward, and what its signature check hashes; an
/// author or relay cannot make others carry more than that. A message that came in any other form was copied once.
#[derive(Clone)]
pub struct WireMessage {
    encoded: Bytes,
    from: Part,
    data: Part,
    seqno: Part,
    topic: Part,
    signature: Part,
    key: Part,
    /// A key that came along although `from` contains one: a signature check looks at it, forwarding leaves it out.
    spare_key: Option<Box<[u8]>>,
    /// Bytes of the allocation that `encoded` is a slice of.
    backing: u32,
}

/// Where the fields of a message were found.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) from: Part,
    pub(super) data: Part,
    pub(super) seqno: Part,
    pub(super) topic: Part,
    pub(super) signature: Part,
    pub(super) key: Part,
}

impl Places {
    /// The same, counted from `prefix` on.
    fn behind(self, prefix: usize) -> Self {
        let shift = |part: Part| match part {
            Part::NONE => part,
            Part { start, end } => Part { start: start - prefix as u32, end: end - prefix as u32 },
        };
        let Self { from, data, seqno, topic, signature, key } = self;
        Self {
            from: shift(from),
            data: shift(data),
            seqno: shift(seqno),
            topic: shift(topic),
            signature: shift(signature),
            key: shift(key),
        }
    }
}

impl WireMessage {
    /// Encodes a message.
    pub fn new(parts: &MessageParts<'_>) -> Self {
        let mut buffer = Vec::with_capacity(encode::parts_len(parts));
        let places = encode::parts(parts, &mut buffer);
        let backing = buffer.len();
        Self::from_places(buffer.into(), places, backing)
    }

    /// Encodes a message and lets `sign` sign it; a signature in `parts` is not looked at. Prefix, message and signature
    /// are written in one buffer, once.
    pub(crate) fn signed_by<E>(
        parts: &MessageParts<'_>,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let MessageParts { signature: _, key, .. } = *parts;
        let unsigned = MessageParts { signature: None, key: None, ..*parts };
        // 66 bytes for the signature of an Ed25519 key; others make the buffer grow.
        let room = encode::parts_len(&unsigned) + 66 + key.map_or(0, |key| key.len() + 4);
        let mut buffer = Vec::with_capacity(SIGNING_PREFIX.len() + room);
        buffer.extend_from_slice(SIGNING_PREFIX);
        let places = encode::parts(&unsigned, &mut buffer);
        let signature = sign(&buffer)?;
        let (signature, key) = encode::signature(&signature, key, &mut buffer);
        let backing = buffer.len();
        let encoded = Bytes::from(buffer).slice(SIGNING_PREFIX.len()..);
        let places = Places { signature, key, ..places }.behind(SIGNING_PREFIX.len());
        Ok(Self::from_places(encoded, places, backing))
    }

    /// `places` are those of a canonical encoding, relative to `encoded`.
    pub(super) fn from_places(encoded: Bytes, places: Places, backing: usize) -> Self {
        let Places { from, data, seqno, topic, signature, key } = places;
        Self { encoded, from, data, seqno, topic, signature, key, spare_key: None, backing: backing as u32 }
    }

    pub(super) fn with_spare_key(self, key: Option<Box<[u8]>>) -> Self {
        Self { spare_key: key, ..self }
    }

    /// The author's peer id, as it was sent.
    pub fn from(&self) -> Option<&[u8]> {
        self.from.of(&self.encoded)
    }

    /// The payload; nothing where there was none.
    pub fn data(&self) -> &[u8] {
        self.data.of(&self.encoded).unwrap_or_default()
    }

    /// The payload, as a share in the message's buffer.
    pub fn data_bytes(&self) -> Bytes {
        match self.data.of(&self.encoded) {
            Some(_) => self.encoded.slice(self.data.start as usize..self.data.end as usize),
            None => Bytes::new(),
        }
    }

    /// The sequence number, as it was sent.
    pub fn seqno(&self) -> Option<&[u8]> {
        self.seqno.of(&self.encoded)
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        // It is UTF-8: decoding saw to that, and encoding takes nothing else.
        self.topic.of(&self.encoded).and_then(|topic| std::str::from_utf8(topic).ok()).unwrap_or_default()
    }

    /// The author's signature.
    pub fn signature(&self) -> Option<&[u8]> {
        self.signature.of(&self.encoded)
    }

    /// The author's public key, as it was sent.
    pub fn key(&self) -> Option<&[u8]> {
        match &self.spare_key {
            Some(key) => Some(key),
            None => self.key.of(&self.encoded),
        }
    }

    /// The message as it is passed on.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// What the signature is over, behind the prefix "libp2p-pubsub:": all fields but signature and key.
    pub fn signed(&self) -> &[u8] {
        // In a canonical encoding the topic is always there and the last field before the signature.
        self.encoded.get(..self.topic.end as usize).unwrap_or_default()
    }

    /// Bytes of memory that this message keeps from being freed, as long as it or a share of it lives.
    pub fn retained(&self) -> usize {
        self.backing as usize + self.spare_key.as_ref().map_or(0, |key| key.len())
    }

    /// Lets go of a frame that is much larger than the message: for whoever has it wait.
    pub fn detach(&mut self) {
        if self.backing as usize > self.encoded.len() + self.encoded.len() / 2 + 64 {
            self.encoded = Bytes::copy_from_slice(&self.encoded);
            self.backing = self.encoded.len() as u32;
        }
    }

    /// The same, and forgets a key that is not passed on: for whoever keeps a message that was verified.
    pub fn compact(&mut self) {
        self.spare_key = None;
        self.detach();
    }

    /// Its fields.
    pub fn parts(&self) -> MessageParts<'_> {
        MessageParts {
            from: self.from(),
            data: self.data.of(&self.encoded),
            seqno: self.seqno(),
            topic: self.topic(),
            signature: self.signature(),
            key: self.key(),
        }
    }
}

impl PartialEq for WireMessage {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl fmt::Debug for WireMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireMessage")
            .field("topic", &self.topic())
            .field("data", &self.data().len())
            .field("from", &self.from())
            .field("seqno", &self.seqno())
            .field("signed", &self.signature().is_some())
            .finish()
    }
}
