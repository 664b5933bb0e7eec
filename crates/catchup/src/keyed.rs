//! A value with its key, in the payload of a message: docs/CATCHUP.md, "Values by key".
//!
//! One encoding for each value. Says nothing of who wrote it: the message around it is signed.

use crate::{Stamp, varint::Reader, varint::put};

/// How such a payload begins. No text in UTF-8 does.
pub const MAGIC: [u8; 7] = *b"\xffkeyed\x01";

/// The longest key, bytes; the shortest has one.
pub const MAX_KEY: usize = 1024;

/// A value, or the deletion of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyed<'a> {
    /// When it was written.
    pub stamp: Stamp,
    /// 1 to [`MAX_KEY`] bytes.
    pub key: &'a [u8],
    /// `None` deletes the key.
    pub value: Option<&'a [u8]>,
}

/// Why a payload is no value with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unkeyed {
    /// It is of a program that knows nothing of this.
    #[error("it has no key")]
    Foreign,
    /// It begins as one, and goes on otherwise.
    #[error("its key or its stamp is broken")]
    Broken,
}

impl<'a> Keyed<'a> {
    /// Bytes of the payload.
    pub fn encoded_len(key: usize, value: usize) -> usize {
        MAGIC.len() + 1 + 8 + (1 + usize::from(key >= 0x80)) + key + value
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let value = self.value.unwrap_or_default();
        let mut out = Vec::with_capacity(Self::encoded_len(self.key.len(), value.len()));
        out.extend_from_slice(&MAGIC);
        out.push(u8::from(self.value.is_none()));
        out.extend_from_slice(&self.stamp.0.to_be_bytes());
        put(&mut out, self.key.len() as u64);
        out.extend_from_slice(self.key);
        out.extend_from_slice(value);
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn decode(payload: &'a [u8]) -> Result<Self, Unkeyed> {
        let rest = payload.strip_prefix(&MAGIC).ok_or(Unkeyed::Foreign)?;
        let mut reader = Reader(rest);
        let broken = |_| Unkeyed::Broken;
        let [kind] = reader.array().map_err(broken)?;
        let stamp = Stamp(u64::from_be_bytes(reader.array().map_err(broken)?));
        let length = reader.number().map_err(broken)?;
        let length = usize::try_from(length).ok().filter(|length| (1..=MAX_KEY).contains(length));
        let key = reader.take(length.ok_or(Unkeyed::Broken)?).map_err(broken)?;
        match (kind, reader.0) {
            (0, value) => Ok(Self { stamp, key, value: Some(value) }),
            (1, []) => Ok(Self { stamp, key, value: None }),
            _ => Err(Unkeyed::Broken),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_payload_is_as_the_document_has_it() {
        let set = Keyed { stamp: Stamp(0x0102_0304_0506_0708), key: b"lamp", value: Some(b"on") };
        let expected = b"\xffkeyed\x01\x00\x01\x02\x03\x04\x05\x06\x07\x08\x04lampon";
        assert_eq!(set.encode(), expected);
        let deleted = Keyed { value: None, ..set };
        assert_eq!(deleted.encode(), b"\xffkeyed\x01\x01\x01\x02\x03\x04\x05\x06\x07\x08\x04lamp");
        let empty = Keyed { value: Some(b""), ..set };
        for keyed in [set, deleted, empty] {
            assert_eq!(Keyed::decode(&keyed.encode()), Ok(keyed));
        }
        // In the repository; a crate stands alone.
        if let Ok(document) =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CATCHUP.md"))
        {
            let hex: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(document.contains(&hex), "{hex}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let good = Keyed { stamp: Stamp(1), key: b"k", value: Some(b"v") }.encode();
        for foreign in [&b""[..], b"hello", b"\xffkeyed\x02rest", &MAGIC[..6]] {
            assert_eq!(Keyed::decode(foreign), Err(Unkeyed::Foreign));
        }
        for length in MAGIC.len()..good.len() - 1 {
            assert_eq!(Keyed::decode(&good[..length]), Err(Unkeyed::Broken), "{length}");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        // A deletion with a value, an unknown kind, an empty key, a key that is longer than the rest.
        for broken in [with(7, 1), with(7, 2), with(16, 0), with(16, 9)] {
            assert_eq!(Keyed::decode(&broken), Err(Unkeyed::Broken));
        }
        let long = vec![7; MAX_KEY + 1];
        let long = Keyed { stamp: Stamp(1), key: &long, value: None }.encode();
        assert_eq!(Keyed::decode(&long), Err(Unkeyed::Broken));
    }

    proptest! {
        #[test]
        fn there_is_one_encoding(
            stamp in any::<u64>(), key in proptest::collection::vec(any::<u8>(), 1..300),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50)),
            mut bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let keyed = Keyed { stamp: Stamp(stamp), key: &key, value: value.as_deref() };
            let encoded = keyed.encode();
            prop_assert_eq!(Keyed::decode(&encoded), Ok(keyed));
            let length = Keyed::encoded_len(key.len(), value.as_ref().map_or(0, Vec::len));
            prop_assert_eq!(encoded.len(), length);
            bytes.splice(0..0, MAGIC);
            if let Ok(keyed) = Keyed::decode(&bytes) {
                prop_assert_eq!(keyed.encode(), bytes);
            }
        }
    }
}
