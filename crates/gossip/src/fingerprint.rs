//! Sixteen bytes that stand for a message id, or for a whole message, in everything that remembers messages.
//!
//! SipHash with 128 bits of output under a key that nobody outside knows: a pseudo-random function, so that no peer can
//! look for two messages of one fingerprint. Fingerprints never leave the process.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hash, Hasher},
};

use crate::WireMessage;

/// What stands for a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u64; 2]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0[0], self.0[1])
    }
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// The hasher of maps by fingerprint: they are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub struct FingerprintHasher(u64);

impl Hasher for FingerprintHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// For maps by fingerprint.
pub type BuildFingerprintHasher = std::hash::BuildHasherDefault<FingerprintHasher>;

/// Makes fingerprints; those of two of these have nothing to do with each other.
#[derive(Clone)]
pub struct Fingerprinter {
    key: [u64; 2],
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprinter")
    }
}

impl Default for Fingerprinter {
    fn default() -> Self {
        Self::new()
    }
}

impl Fingerprinter {
    /// With a key from the operating system's randomness.
    pub fn new() -> Self {
        let half = || RandomState::new().build_hasher().finish();
        Self { key: [half(), half()] }
    }

    /// With a key that is known: for simulations, which are to be repeated. Everything else wants [`Self::new`].
    pub fn with_key(key: [u64; 2]) -> Self {
        Self { key }
    }

    /// That of a message id.
    pub fn id(&self, id: &[u8]) -> Fingerprint {
        let mut hash = SipHash::<1, 3>::new(self.key);
        hash.write(id);
        hash.finish()
    }

    /// That of a whole message, signature and key included: two that agree in it have the same worth.
    pub fn content(&self, message: &WireMessage) -> Fingerprint {
        let mut hash = SipHash::<1, 3>::new(self.key);
        let signature = message.signature();
        let key = message.key();
        // The lengths first, so that no byte can change sides.
        hash.write(&(message.signed().len() as u64).to_le_bytes());
        hash.write(&signature.map_or(u64::MAX, |signature| signature.len() as u64).to_le_bytes());
        hash.write(&key.map_or(u64::MAX, |key| key.len() as u64).to_le_bytes());
        hash.write(message.signed());
        hash.write(signature.unwrap_or_default());
        hash.write(key.unwrap_or_default());
        hash.finish()
    }
}

/// SipHash-C-D with 128 bits of output (Aumasson, Bernstein: "SipHash: a fast short-input PRF", and its reference code).
struct SipHash<const C: usize, const D: usize> {
    v: [u64; 4],
    /// Bytes that do not make a word yet.
    tail: u64,
    length: u64,
}

impl<const C: usize, const D: usize> SipHash<C, D> {
    fn new([k0, k1]: [u64; 2]) -> Self {
        let v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Self { v, tail: 0, length: 0 }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        let filled = (self.length % 8) as usize;
        self.length = self.length.wrapping_add(bytes.len() as u64);
        if filled > 0 {
            let (head, rest) = bytes.split_at(bytes.len().min(8 - filled));
            self.tail |= little_endian(head) << (8 * filled);
            bytes = rest;
            if filled + head.len() < 8 {
                return;
            }
            self.word(self.tail);
            self.tail = 0;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        self.tail = little_endian(rest);
    }

    fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.rounds(C);
        self.v[0] ^= word;
    }

    fn finish(mut self) -> Fingerprint {
        self.word(self.length << 56 | self.tail);
        self.v[2] ^= 0xee;
        self.rounds(D);
        let low = self.v.iter().fold(0, |all, v| all ^ v);
        self.v[1] ^= 0xdd;
        self.rounds(D);
        let high = self.v.iter().fold(0, |all, v| all ^ v);
        Fingerprint([low, high])
    }

    #[inline(always)]
    fn rounds(&mut self, rounds: usize) {
        let [mut a, mut b, mut c, mut d] = self.v;
        for _ in 0..rounds {
            a = a.wrapping_add(b);
            b = b.rotate_left(13) ^ a;
            a = a.rotate_left(32);
            c = c.wrapping_add(d);
            d = d.rotate_left(16) ^ c;
            a = a.wrapping_add(d);
            d = d.rotate_left(21) ^ a;
            c = c.wrapping_add(b);
            b = b.rotate_left(17) ^ c;
            c = c.rotate_left(32);
        }
        self.v = [a, b, c, d];
    }
}

/// At most seven bytes as a number.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    fn reference(bytes: &[u8]) -> [u8; 16] {
        let mut hash = SipHash::<2, 4>::new(KEY);
        hash.write(bytes);
        let [low, high] = hash.finish().0;
        let mut out = [0; 16];
        out[..8].copy_from_slice(&low.to_le_bytes());
        out[8..].copy_from_slice(&high.to_le_bytes());
        out
    }

    #[test]
    fn the_reference_implementations_vectors_come_out() {
        // vectors_sip128 of the reference code: inputs 00, 01, 02, … of the length that is given.
        let input: Vec<u8> = (0..64).collect();
        let expected: [(usize, [u8; 16]); 3] = [
            (
                0,
                [
                    0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02,
                    0x93,
                ],
            ),
            (
                1,
                [
                    0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc,
                    0x45,
                ],
            ),
            (
                2,
                [
                    0x81, 0x77, 0x22, 0x8d, 0xa4, 0xa4, 0x5d, 0xc7, 0xfc, 0xa3, 0x8b, 0xde, 0xf6, 0x0a, 0xff,
                    0xe4,
                ],
            ),
        ];
        for (len, hash) in expected {
            assert_eq!(reference(&input[..len]), hash, "of {len} bytes");
        }
    }

    #[test]
    fn two_fingerprinters_have_nothing_in_common() {
        assert_ne!(Fingerprinter::new().id(b"id"), Fingerprinter::new().id(b"id"));
    }

    proptest! {
        #[test]
        fn pieces_hash_as_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(0usize..200, 0..5)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut hash = SipHash::<1, 3>::new(KEY);
            let mut at = 0;
            for cut in cuts {
                hash.write(&bytes[at..cut]);
                at = cut;
            }
            hash.write(&bytes[at..]);
            prop_assert_eq!(hash.finish(), Fingerprinter::with_key(KEY).id(&bytes));
        }
    }
}
