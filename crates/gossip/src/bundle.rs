//! Several messages of one author in one message: `BUNDLE.md` has the format.
//!
//! Pure. The author signs the root of a Merkle tree over the messages (RFC 6962, section 2.1), so that each of them can be
//! kept and proved by itself. What is no bundle is never taken for one.

use bytes::Bytes;
use libp2p::{PeerId, identity::PublicKey};
use sha2::{Digest, Sha256};

use crate::Message;

/// How the payload of a bundle begins. No text in UTF-8 does.
pub const MAGIC: [u8; 8] = *b"\xffbundle\x01";
/// Messages in one bundle, at most.
pub const MOST: usize = 1024;

/// Before what is signed: no other signature of the same key can be taken for that of a bundle.
const DOMAIN: &[u8] = b"smidge-bundle-v1:";
/// Bytes of a signature, at most: RSA of 8192 bits.
const LONGEST_SIGNATURE: usize = 1024;
/// Bytes of a length, at most: seven bits each.
const LONGEST_LENGTH: usize = 5;

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// A bundle whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The author's over the [`Statement`].
    pub signature: Bytes,
    /// The messages in their order, at least one: shares in the buffer that they came in.
    pub messages: Vec<Bytes>,
}

/// What the author of a bundle signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Where the bundle was published.
    pub topic: &'a str,
    /// Its sequence number as a message.
    pub sequence: u64,
    /// How many messages it has.
    pub count: u32,
    /// The root of the tree over them.
    pub root: Hash,
}

/// What shows that one message was in a bundle of an author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The bundle's sequence number.
    pub sequence: u64,
    /// How many messages it had.
    pub count: u32,
    /// Which one this is, from 0.
    pub index: u32,
    /// The hashes beside the way from the message up to the root.
    pub path: Vec<Hash>,
    /// The author's over the [`Statement`].
    pub signature: Bytes,
}

/// Why a payload that begins like a bundle is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// It ends early.
    #[error("it is cut short")]
    Short,
    /// A length has more bytes than it needs, or is too large.
    #[error("a length is not as short as it can be")]
    Length,
    /// Nothing is in it, or too much.
    #[error("it has no messages, or more than {MOST}")]
    Count,
    /// It says nothing of its author, or of its number.
    #[error("it has no author whose peer id holds a key, or no sequence number")]
    Author,
    /// The signature is not the author's over this bundle.
    #[error("its signature does not hold")]
    Signature,
}

/// Bytes of a bundle without its messages, with a signature of so many bytes.
pub fn head_len(signature: usize) -> usize {
    MAGIC.len() + length_len(signature) + signature
}

/// Bytes that a message of so many adds to a bundle.
pub fn entry_len(message: usize) -> usize {
    length_len(message) + message
}

/// The payload of a bundle.
pub fn encode(signature: &[u8], messages: &[&[u8]]) -> Vec<u8> {
    let len = head_len(signature.len()) + messages.iter().map(|m| entry_len(m.len())).sum::<usize>();
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(&MAGIC);
    for field in std::iter::once(&signature).chain(messages) {
        put_length(field.len(), &mut out);
        out.extend_from_slice(field);
    }
    out
}

impl Bundle {
    /// What is in a payload; `None` if it does not begin like a bundle. The signature is not looked at.
    ///
    /// # Errors
    /// When it is not as [`encode`] has it.
    pub fn decode(data: &Bytes) -> Option<Result<Self, BundleError>> {
        let rest = data.strip_prefix(&MAGIC)?;
        Some(Self::fields(data, rest))
    }

    fn fields(data: &Bytes, mut rest: &[u8]) -> Result<Self, BundleError> {
        let signature = data.slice_ref(take(&mut rest)?);
        if signature.len() > LONGEST_SIGNATURE {
            return Err(BundleError::Length);
        }
        let mut messages = Vec::new();
        while !rest.is_empty() {
            if messages.len() == MOST {
                return Err(BundleError::Count);
            }
            messages.push(data.slice_ref(take(&mut rest)?));
        }
        if messages.is_empty() { Err(BundleError::Count) } else { Ok(Self { signature, messages }) }
    }

    /// The bundle that a message is; `None` if it does not begin like one.
    ///
    /// # Errors
    /// When it is not one that its author made for this topic and this sequence number.
    pub fn of(message: &Message) -> Option<Result<Self, BundleError>> {
        let bundle = Self::decode(&message.data)?;
        Some(bundle.and_then(|bundle| {
            let (Some(author), Some(sequence)) = (&message.source, message.sequence) else {
                return Err(BundleError::Author);
            };
            let statement = Statement::new(message.topic.as_str(), sequence, &bundle.messages);
            statement.verify(author, &bundle.signature)?;
            Ok(bundle)
        }))
    }

    /// What proves one of the messages without the others, if there is one of this index.
    pub fn proof(&self, sequence: u64, index: u32) -> Option<Proof> {
        let path = path(&self.messages, usize::try_from(index).ok()?)?;
        let count = u32::try_from(self.messages.len()).ok()?;
        Some(Proof { sequence, count, index, path, signature: self.signature.clone() })
    }
}

impl<'a> Statement<'a> {
    /// Over all messages of a bundle.
    pub fn new(topic: &'a str, sequence: u64, messages: &[impl AsRef<[u8]>]) -> Self {
        Self { topic, sequence, count: messages.len() as u32, root: root(messages) }
    }

    /// What is signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (sequence, count) = (self.sequence.to_be_bytes(), self.count.to_be_bytes());
        [DOMAIN, &sequence, &count, &self.root, self.topic.as_bytes()].concat()
    }

    /// Checks an author's signature.
    ///
    /// # Errors
    /// When it does not hold, or the peer id holds no key.
    pub fn verify(&self, author: &PeerId, signature: &[u8]) -> Result<(), BundleError> {
        let key = key_of(author).ok_or(BundleError::Author)?;
        if key.verify(&self.to_bytes(), signature) { Ok(()) } else { Err(BundleError::Signature) }
    }
}

impl Proof {
    /// Whether `author` published `message` in a bundle on `topic`, as this says.
    ///
    /// # Errors
    /// When it does not follow.
    pub fn verify(&self, author: &PeerId, topic: &str, message: &[u8]) -> Result<(), BundleError> {
        if self.count == 0 || self.count as usize > MOST {
            return Err(BundleError::Count);
        }
        let root = climb(leaf(message), self.index, self.count, &self.path).ok_or(BundleError::Signature)?;
        Statement { topic, sequence: self.sequence, count: self.count, root }.verify(author, &self.signature)
    }
}

/// The root of the tree over these messages (RFC 6962, 2.1).
pub fn root(messages: &[impl AsRef<[u8]>]) -> Hash {
    let mut level: Vec<Hash> = messages.iter().map(|message| leaf(message.as_ref())).collect();
    if level.is_empty() {
        return Sha256::digest([]).into();
    }
    while level.len() > 1 {
        level = above(&level);
    }
    level[0]
}

/// The hashes beside the way from a message to the root, from below (RFC 6962, 2.1.1).
pub fn path(messages: &[impl AsRef<[u8]>], mut index: usize) -> Option<Vec<Hash>> {
    if index >= messages.len() {
        return None;
    }
    let mut level: Vec<Hash> = messages.iter().map(|message| leaf(message.as_ref())).collect();
    let mut path = Vec::new();
    while level.len() > 1 {
        path.extend(level.get(index ^ 1));
        level = above(&level);
        index /= 2;
    }
    Some(path)
}

/// One level up. The last of an odd number goes up as it is, which makes the tree of RFC 6962.
fn above(level: &[Hash]) -> Vec<Hash> {
    level.chunks(2).map(|pair| pair.get(1).map_or(pair[0], |right| node(&pair[0], right))).collect()
}

/// The root that a path leads to; `None` if it is too long or too short (RFC 9162, 2.1.3.2).
fn climb(leaf: Hash, index: u32, count: u32, path: &[Hash]) -> Option<Hash> {
    if index >= count {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, count - 1, leaf);
    for beside in path {
        if last == 0 {
            return None;
        }
        if at % 2 == 1 || at == last {
            hash = node(beside, &hash);
            while at % 2 == 0 && at != 0 {
                (at, last) = (at / 2, last / 2);
            }
        } else {
            hash = node(&hash, beside);
        }
        (at, last) = (at / 2, last / 2);
    }
    (last == 0).then_some(hash)
}

fn leaf(message: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(message).finalize().into()
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The key in a peer id: those of up to 42 bytes are in it as they are (libp2p/specs `peer-ids`).
fn key_of(peer: &PeerId) -> Option<PublicKey> {
    let multihash = peer.as_ref();
    (multihash.code() == 0).then(|| PublicKey::try_decode_protobuf(multihash.digest()).ok()).flatten()
}

fn length_len(mut length: usize) -> usize {
    let mut bytes = 1;
    while length >= 0x80 {
        (length, bytes) = (length >> 7, bytes + 1);
    }
    bytes
}

fn put_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// A field, as long as it says before itself.
fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BundleError> {
    let mut length = 0_usize;
    for (n, byte) in rest.iter().take(LONGEST_LENGTH).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            if *byte == 0 && n > 0 {
                return Err(BundleError::Length);
            }
            let (field, left) = rest[n + 1..].split_at_checked(length).ok_or(BundleError::Short)?;
            *rest = left;
            return Ok(field);
        }
    }
    Err(if rest.len() < LONGEST_LENGTH { BundleError::Short } else { BundleError::Length })
}

#[cfg(test)]
mod tests;
