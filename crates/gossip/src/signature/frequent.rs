//! Signatures of authors that say much: the same check as any other, at half of its cost.
//!
//! A check computes R = sB - kA and compares its encoding with the one in the signature; nothing else is done here, and
//! no verdict depends on what else is checked beside it. What is cheaper: the author's multiples are there already
//! ([`multiples`](super::multiples)), and the encodings of many points take one inversion together. (An equation over
//! many signatures would be no faster, and could not say of each what a single check says: a component of small order in
//! one R is not seen in a sum.)

use std::sync::Arc;

use curve25519_dalek::{EdwardsPoint, Scalar};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha512};

use super::{
    authors::Authors,
    multiples::{self, Multiples},
};
use crate::{WireMessage, rpc::SIGNING_PREFIX};

/// Signatures of an author that held before its multiples are kept: they cost as much as some ten checks.
pub(super) const STANDING: u32 = 32;
/// Authors whose multiples are kept, 220 KB each.
const MOST: usize = 8;
/// Batches without a word of an author's, before another may have its place.
const REST: u64 = 64;
/// Encodings made together.
const TOGETHER: usize = 64;

struct Author {
    /// As messages name it.
    from: Box<[u8]>,
    key: [u8; 32],
    minus_a: Multiples,
    /// Gone with the last author.
    base: Arc<Multiples>,
    /// When it was last asked for.
    used: u64,
}

#[derive(Default)]
pub(super) struct Frequent {
    authors: Vec<Author>,
    turn: u64,
}

impl std::fmt::Debug for Frequent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frequent").field("authors", &self.authors.len()).finish_non_exhaustive()
    }
}

impl Frequent {
    /// Checks those of frequent authors, and says nothing of the others.
    pub(super) fn verify(
        &mut self,
        authors: &mut Authors,
        messages: &[WireMessage],
        verdicts: &mut [Option<bool>],
    ) {
        self.turn += 1;
        let (mut at, mut points) = (Vec::new(), Vec::new());
        for (place, message) in messages.iter().enumerate() {
            match self.expected_r(authors, message) {
                Expected::Unknown => continue,
                Expected::None => verdicts[place] = Some(false),
                Expected::Point(point) => {
                    at.push(place);
                    points.push(point);
                }
            }
            if points.len() == TOGETHER {
                compare(messages, verdicts, &mut at, &mut points);
            }
        }
        compare(messages, verdicts, &mut at, &mut points);
    }

    /// Nobody has said anything for a while: nothing is kept.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.authors.len()
    }

    #[cfg(test)]
    pub(super) fn has(&self, from: &[u8]) -> bool {
        self.authors.iter().any(|author| *author.from == *from)
    }

    fn expected_r(&mut self, authors: &mut Authors, message: &WireMessage) -> Expected {
        let Some((from, signature)) = message.from().zip(message.signature()) else {
            return Expected::Unknown;
        };
        // A key sent along has to be looked at by itself.
        if message.key().is_some() {
            return Expected::Unknown;
        }
        let Some(author) = self.author(authors, from) else { return Expected::Unknown };
        let Some((r, s)) = halves(signature) else { return Expected::None };
        let mut hash = Sha512::new();
        hash.update(r);
        hash.update(author.key);
        hash.update(SIGNING_PREFIX);
        hash.update(message.signed());
        let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        Expected::Point(multiples::expected_r(&author.base, &author.minus_a, &k, &s))
    }

    fn author(&mut self, authors: &mut Authors, from: &[u8]) -> Option<&Author> {
        let turn = self.turn;
        if let Some(at) = self.authors.iter().position(|author| *author.from == *from) {
            let author = &mut self.authors[at];
            author.used = turn;
            return Some(author);
        }
        let key: VerifyingKey = authors.frequent(from, STANDING)?;
        if self.authors.len() >= MOST {
            let oldest = self.authors.iter().enumerate().min_by_key(|(_, author)| author.used);
            let (at, used) = oldest.map(|(at, author)| (at, author.used))?;
            // More authors than there is room for, by turns: their multiples would be made anew each time.
            if used + REST > turn {
                return None;
            }
            self.authors.swap_remove(at);
        }
        self.authors.push(Author {
            from: from.into(),
            key: key.to_bytes(),
            minus_a: Multiples::of(&-key.to_edwards()),
            base: Multiples::of_base(),
            used: turn,
        });
        self.authors.last()
    }
}

enum Expected {
    /// The author is none of the frequent ones.
    Unknown,
    /// The signature is none.
    None,
    Point(EdwardsPoint),
}

fn compare(
    messages: &[WireMessage],
    verdicts: &mut [Option<bool>],
    at: &mut Vec<usize>,
    points: &mut Vec<EdwardsPoint>,
) {
    for (place, encoding) in at.drain(..).zip(multiples::encodings(points)) {
        let r = messages[place].signature().and_then(|signature| signature.get(..32));
        verdicts[place] = Some(r == Some(encoding.as_bytes()));
    }
    points.clear();
}

/// R, not looked into, and s, if it is one that a check takes: below the order of the base point.
fn halves(signature: &[u8]) -> Option<(&[u8; 32], Scalar)> {
    let (r, s) = signature.split_first_chunk::<32>()?;
    Some((r, Option::from(Scalar::from_canonical_bytes(s.try_into().ok()?))?))
}
