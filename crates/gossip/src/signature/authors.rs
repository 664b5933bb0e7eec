//! The keys of authors, decoded once.
//!
//! Two generations of a bounded map: a full one becomes the old one, and who is asked for moves back into the young. Only
//! an author whose signature held is kept, so that inventing authors pushes nobody out.

use std::collections::HashMap;

use ed25519_dalek::{Signature, VerifyingKey, ed25519::signature::MultipartVerifier};
use libp2p::{
    PeerId,
    identity::{KeyType, PublicKey},
};

/// An author's public key.
#[derive(Clone, Debug)]
pub(super) enum Key {
    /// By far the most frequent kind, checked without putting prefix and message together.
    Ed25519(VerifyingKey),
    Other(PublicKey),
}

/// What is known of an author.
#[derive(Debug)]
pub(super) struct Entry {
    key: Key,
    /// The key as a message can carry it.
    encoded: Box<[u8]>,
    /// Signatures that held in single checks.
    held: u32,
}

#[derive(Debug)]
pub(super) struct Authors {
    young: HashMap<Box<[u8]>, Entry>,
    old: HashMap<Box<[u8]>, Entry>,
    half: usize,
}

impl Key {
    /// Whether `signature` is this key's over `prefix` and `message`.
    pub(super) fn verify(&self, prefix: &[u8], message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => Signature::from_slice(signature)
                .is_ok_and(|signature| key.multipart_verify(&[prefix, message], &signature).is_ok()),
            Self::Other(key) => key.verify(&[prefix, message].concat(), signature),
        }
    }
}

impl From<PublicKey> for Key {
    fn from(key: PublicKey) -> Self {
        if key.key_type() == KeyType::Ed25519
            && let Ok(ed25519) = key.clone().try_into_ed25519()
            && let Ok(ed25519) = VerifyingKey::from_bytes(&ed25519.to_bytes())
        {
            return Self::Ed25519(ed25519);
        }
        Self::Other(key)
    }
}

impl Authors {
    pub(super) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: most.div_ceil(2).max(1) }
    }

    /// The key of the author `from`, who may have sent it along. `None` where there is none, or where it is another's.
    pub(super) fn key(&mut self, from: &[u8], sent: Option<&[u8]>) -> Option<Key> {
        if let Some(entry) = self.entry(from)
            && sent.is_none_or(|sent| *sent == *entry.encoded)
        {
            return Some(entry.key.clone());
        }
        Some(resolve(from, sent)?.into())
    }

    /// A signature of `from` held: its key is worth keeping.
    pub(super) fn keep(&mut self, from: &[u8], key: Key) {
        if let Some(entry) = self.entry(from) {
            entry.held = entry.held.saturating_add(1);
            return;
        }
        let encoded = match &key {
            Key::Ed25519(key) => {
                // Its protobuf form: type Ed25519, 32 bytes.
                let mut encoded = vec![8, 1, 18, 32];
                encoded.extend_from_slice(key.as_bytes());
                encoded
            }
            Key::Other(key) => key.encode_protobuf(),
        };
        self.insert(from.into(), Entry { key, encoded: encoded.into(), held: 1 });
    }

    /// The key of `from`, if as many of its signatures held and it is an Ed25519 key.
    pub(super) fn frequent(&mut self, from: &[u8], held: u32) -> Option<VerifyingKey> {
        match self.entry(from)? {
            Entry { key: Key::Ed25519(key), held: h, .. } if *h >= held => Some(*key),
            _ => None,
        }
    }

    /// Whoever was frequent is so no longer.
    pub(super) fn forget_counts(&mut self) {
        for entry in self.young.values_mut().chain(self.old.values_mut()) {
            entry.held = 0;
        }
    }

    /// What is known of `from`.
    fn entry(&mut self, from: &[u8]) -> Option<&mut Entry> {
        if !self.young.contains_key(from) {
            let (from, entry) = self.old.remove_entry(from)?;
            self.insert(from, entry);
        }
        self.young.get_mut(from)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn insert(&mut self, from: Box<[u8]>, entry: Entry) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(from, entry);
    }
}

/// The key that `from` is the id of: the one that was sent along, or else the one in `from` itself.
fn resolve(from: &[u8], sent: Option<&[u8]>) -> Option<PublicKey> {
    let source = PeerId::from_bytes(from).ok()?;
    let key = match sent.map(PublicKey::try_decode_protobuf) {
        Some(Ok(key)) => key,
        _ => PublicKey::try_decode_protobuf(from.get(2..)?).ok()?,
    };
    (source == key.to_peer_id()).then_some(key)
}
