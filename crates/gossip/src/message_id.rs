//! What tells one message from another.
//!
//! Ids are bytes. The default one is text, as that of stock rust-libp2p: peers of one mesh have to agree.

use std::{borrow::Borrow, collections::HashMap, fmt, io::Write, sync::Arc};

use bytes::Bytes;
use libp2p::PeerId;
use sha2::{Digest, Sha256};

use crate::Message;

/// The id of a message, as IHAVE and IWANT carry it. A clone is a reference count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Bytes);

impl MessageId {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "no id is empty, and none asks")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<Bytes> for MessageId {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for MessageId {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&[u8]> for MessageId {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<&str> for MessageId {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl Borrow<[u8]> for MessageId {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// In hexadecimal digits, as stock rust-libp2p writes them.
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// A way of one's own to tell messages apart.
pub type IdFn = dyn Fn(&Message) -> MessageId + Send + Sync;

/// How a message's id comes about. All peers of a topic have to use the same.
#[derive(Clone, Default)]
pub enum IdScheme {
    /// By who said it and its sequence number: the author's peer id in base58, then the number in decimal digits, as
    /// stock rust-libp2p has it by default.
    #[default]
    Source,
    /// By what it says: the first 20 bytes of SHA-256 over topic, a zero byte and payload.
    Content,
    /// Another way.
    Custom(Arc<IdFn>),
}

impl fmt::Debug for IdScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "Source",
            Self::Content => "Content",
            Self::Custom(_) => "Custom",
        })
    }
}

/// Authors whose names are kept in base58, which costs more than all the rest of an id.
const MOST_NAMES: usize = 256;

/// Makes ids.
#[derive(Debug, Default)]
pub struct MessageIds {
    scheme: IdScheme,
    names: HashMap<PeerId, Box<str>>,
}

impl MessageIds {
    /// Of that kind.
    pub fn new(scheme: IdScheme) -> Self {
        Self { scheme, names: HashMap::new() }
    }

    /// The id of `message`.
    pub fn id(&mut self, message: &Message) -> MessageId {
        match &self.scheme {
            IdScheme::Custom(id) => id(message),
            _ => {
                let mut id = Vec::with_capacity(72);
                self.write(message, &mut id);
                id.into()
            }
        }
    }

    /// Appends the id of `message` to `out`: for whoever wants no more than its fingerprint.
    pub fn write(&mut self, message: &Message, out: &mut Vec<u8>) {
        match &self.scheme {
            IdScheme::Source => {
                match message.source {
                    Some(source) => out.extend_from_slice(name(&mut self.names, source).as_bytes()),
                    // The multihash 00 01 00, which stock peers put in the place of no author.
                    None => out.extend_from_slice(NOBODY.as_bytes()),
                }
                // Writing to a vector does not fail.
                let _ = write!(out, "{}", message.sequence.unwrap_or_default());
            }
            IdScheme::Content => {
                let mut hash = Sha256::new();
                hash.update(message.topic.as_str());
                hash.update([0]);
                hash.update(&message.data);
                out.extend_from_slice(&hash.finalize()[..20]);
            }
            IdScheme::Custom(id) => out.extend_from_slice(id(message).as_bytes()),
        }
    }
}

const NOBODY: &str = "15R";

fn name(names: &mut HashMap<PeerId, Box<str>>, peer: PeerId) -> &str {
    if names.len() >= MOST_NAMES && !names.contains_key(&peer) {
        names.clear();
    }
    names.entry(peer).or_insert_with(|| peer.to_base58().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topic;

    fn message(source: Option<PeerId>, sequence: Option<u64>) -> Message {
        Message { source, sequence, topic: Topic::from("t"), data: Bytes::from_static(b"data") }
    }

    /// What libp2p-gossipsub's `Config` says is the default, in its own words.
    fn stock(message: &Message) -> Vec<u8> {
        let source = message.source.unwrap_or_else(|| PeerId::from_bytes(&[0, 1, 0]).unwrap());
        format!("{}{}", source.to_base58(), message.sequence.unwrap_or_default()).into_bytes()
    }

    #[test]
    fn the_default_id_is_that_of_stock_peers() {
        let mut ids = MessageIds::default();
        let peer = PeerId::random();
        for message in [
            message(Some(peer), Some(0)),
            message(Some(peer), Some(u64::MAX)),
            message(Some(peer), None),
            message(Some(PeerId::random()), Some(7)),
            message(None, Some(5)),
            message(None, None),
        ] {
            assert_eq!(ids.id(&message).as_bytes(), stock(&message));
        }
    }

    #[test]
    fn a_flood_of_authors_makes_no_id_wrong_and_no_map_grow() {
        let mut ids = MessageIds::default();
        for _ in 0..3 * MOST_NAMES {
            let message = message(Some(PeerId::random()), Some(1));
            assert_eq!(ids.id(&message).as_bytes(), stock(&message));
            assert!(ids.names.len() <= MOST_NAMES);
        }
    }

    #[test]
    fn by_content_the_topic_counts_and_the_author_does_not() {
        let mut ids = MessageIds::new(IdScheme::Content);
        let one = message(Some(PeerId::random()), Some(1));
        let same = message(None, None);
        let other = Message { topic: Topic::from("u"), ..same.clone() };
        assert_eq!(ids.id(&one), ids.id(&same));
        assert_eq!(ids.id(&one).len(), 20);
        assert_ne!(ids.id(&one), ids.id(&other));
    }

    #[test]
    fn an_id_is_shown_in_hexadecimal_digits() {
        assert_eq!(MessageId::from("a\u{1}").to_string(), "6101");
    }
}
