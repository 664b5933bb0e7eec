//! SipHash-2-4 (Aumasson and Bernstein, 2012) of one item: a pseudorandom function, short and without tables.

use crate::{Id, Item};

/// What both sides of a session key their hashes with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u64; 2]);

impl Key {
    /// From 16 bytes that no author of messages could know when it wrote them: fresh random ones for each session.
    pub fn new(salt: [u8; 16]) -> Self {
        Self(words(&salt))
    }

    /// Of the 24 bytes of an item: its time, little-endian, and its identity.
    pub(crate) fn hash(self, item: &Item) -> u64 {
        let Id(id) = item.id;
        let [low, high] = words(&id);
        let [k0, k1] = self.0;
        let mut v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        // The last word has the length in its highest byte.
        for word in [item.time, low, high, 24 << 56] {
            v[3] ^= word;
            round(&mut v);
            round(&mut v);
            v[0] ^= word;
        }
        v[2] ^= 0xff;
        for _ in 0..4 {
            round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(*bytes);
    #[allow(clippy::cast_possible_truncation)]
    [both as u64, (both >> 64) as u64]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use super::*;

    #[test]
    #[allow(deprecated)]
    fn it_is_the_siphash_2_4_of_the_standard_library() {
        let bytes: Vec<u8> = (0..24).collect();
        for salt in [[0; 16], std::array::from_fn(|n| n as u8), [255; 16]] {
            let (k0, k1) = salt.split_at(8);
            let [k0, k1] = [k0, k1].map(|half| u64::from_le_bytes(half.try_into().unwrap()));
            let mut theirs = std::hash::SipHasher::new_with_keys(k0, k1);
            theirs.write(&bytes);
            let time = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let item = Item { time, id: Id(bytes[8..].try_into().unwrap()) };
            assert_eq!(Key::new(salt).hash(&item), theirs.finish());
        }
        // The paper's own key; its authors' vector for 24 bytes, 00 to 17.
        let item = Item { time: 0x0706_0504_0302_0100, id: Id(std::array::from_fn(|n| 8 + n as u8)) };
        let hash = Key::new(std::array::from_fn(|n| n as u8)).hash(&item);
        assert_eq!(hash.to_le_bytes(), [0x94, 0xaf, 0x49, 0xf6, 0xc6, 0x50, 0xad, 0xb8]);
    }
}
