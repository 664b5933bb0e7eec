//! Many Ed25519 signatures in one equation, at less than half of what single checks cost.
//!
//! A single check recomputes R = sB - kA and compares bytes. A batch adds up z(sB - kA - R), each with a random z of 128
//! bits that nobody outside can know, and wants nothing to be left. The two can differ where a point is not of prime
//! order or is not encoded as it would be by the check, and then the single check decides:
//!
//! - A key that is not torsion-free never comes into a batch, nor an R whose encoding is not the one and only.
//! - Whether an R has a component of small order cannot be seen for less than a single check. Only the author can make
//!   such a signature; no honest program does. The components have to cancel out in the equation and in each of
//!   [`ROUNDS`] further sums of random R: at most one try in `2^(ROUNDS + 1)` comes through. A try that does not is seen
//!   for what it is, and its author is never taken into a batch again, nor is one before [`STANDING`] of its signatures
//!   held in single checks.

use curve25519_dalek::{
    EdwardsPoint, Scalar,
    constants::ED25519_BASEPOINT_POINT,
    edwards::CompressedEdwardsY,
    traits::{Identity, IsIdentity, VartimeMultiscalarMul},
};
use sha2::{Digest, Sha512};

use super::Verifier;
use crate::{WireMessage, rpc::SIGNING_PREFIX};

/// Fewer together save nothing.
pub(super) const LEAST: usize = 4;

/// Signatures in one equation. What costs once for each equation is small by then, and a forged one spoils no more.
const MOST: usize = 64;

/// Sums of random R that have to be of prime order.
const ROUNDS: usize = 2;

/// Signatures of an author that held in single checks before it comes into batches.
pub(super) const STANDING: u32 = 16;

/// One signature of a batch.
struct Item {
    /// Its message's place.
    at: usize,
    /// Its author's place.
    author: usize,
    r: EdwardsPoint,
    s: Scalar,
    k: Scalar,
}

#[derive(Default)]
struct Batch<'a> {
    items: Vec<Item>,
    authors: Vec<(&'a [u8], EdwardsPoint)>,
}

impl Verifier {
    /// Says `Some(true)` of what holds by batches, and nothing of all else but what it found out by itself.
    pub(super) fn accept_together(&mut self, messages: &[WireMessage], verdicts: &mut [Option<bool>]) {
        let mut batch = Batch::default();
        for (at, message) in messages.iter().enumerate() {
            self.add(at, message, &mut batch);
            if batch.items.len() == MOST {
                self.decide(std::mem::take(&mut batch), messages, verdicts);
            }
        }
        if batch.items.len() >= LEAST {
            self.decide(batch, messages, verdicts);
        }
    }

    fn add<'a>(&mut self, at: usize, message: &'a WireMessage, batch: &mut Batch<'a>) {
        let Some((from, signature)) = message.from().zip(message.signature()) else { return };
        // A key sent along has to be looked at by itself.
        if message.key().is_some() {
            return;
        }
        let Some((key, point)) = self.authors.entry(from).and_then(|entry| entry.batched(STANDING)) else {
            return;
        };
        let Some((encoded_r, r, s)) = halves(signature) else { return };
        let mut hash = Sha512::new();
        hash.update(encoded_r.as_bytes());
        hash.update(key.as_bytes());
        hash.update(SIGNING_PREFIX);
        hash.update(message.signed());
        let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        let author = batch.authors.iter().position(|(known, _)| *known == from).unwrap_or_else(|| {
            batch.authors.push((from, *point));
            batch.authors.len() - 1
        });
        batch.items.push(Item { at, author, r, s, k });
    }

    fn decide(&mut self, batch: Batch<'_>, messages: &[WireMessage], verdicts: &mut [Option<bool>]) {
        if self.holds(&batch) {
            for item in &batch.items {
                verdicts[item.at] = Some(true);
            }
            return;
        }
        for item in &batch.items {
            let holds = self.verify(&messages[item.at]);
            verdicts[item.at] = Some(holds);
            let (from, point) = batch.authors[item.author];
            // Anybody can send a signature that does not hold; one that is wrong by so little, only its author.
            if !holds
                && item.rest(&point).mul_by_cofactor().is_identity()
                && let Some(author) = self.authors.entry(from)
            {
                author.never_batched();
            }
        }
    }

    fn holds(&mut self, batch: &Batch<'_>) -> bool {
        let mut base = Scalar::ZERO;
        let mut of_authors = vec![Scalar::ZERO; batch.authors.len()];
        let mut of_rs = Vec::with_capacity(batch.items.len());
        let mut sums = [EdwardsPoint::identity(); ROUNDS];
        for item in &batch.items {
            let z = Scalar::from(self.draw());
            base -= z * item.s;
            of_authors[item.author] += z * item.k;
            of_rs.push(z);
            let bits = self.draw();
            for (round, sum) in sums.iter_mut().enumerate() {
                if bits >> round & 1 == 1 {
                    *sum += item.r;
                }
            }
        }
        let scalars = of_rs.into_iter().chain(of_authors).chain([base]);
        let points = batch.items.iter().map(|item| item.r);
        let points = points.chain(batch.authors.iter().map(|(_, a)| *a)).chain([ED25519_BASEPOINT_POINT]);
        EdwardsPoint::vartime_multiscalar_mul(scalars, points).is_identity()
            && sums.iter().all(is_torsion_free)
    }

    fn draw(&mut self) -> u128 {
        self.drawn = self.drawn.wrapping_add(1);
        self.random.stream(self.drawn)
    }
}

impl Item {
    /// What a signature that holds leaves nothing of.
    fn rest(&self, a: &EdwardsPoint) -> EdwardsPoint {
        EdwardsPoint::vartime_double_scalar_mul_basepoint(&-self.k, a, &self.s) - self.r
    }
}

/// R and s, if each is encoded in the one way that a single check takes.
fn halves(signature: &[u8]) -> Option<(CompressedEdwardsY, EdwardsPoint, Scalar)> {
    let (r, s) = signature.split_first_chunk::<32>()?;
    let s = Option::from(Scalar::from_canonical_bytes(s.try_into().ok()?))?;
    if !is_only_encoding(r) {
        return None;
    }
    let r = CompressedEdwardsY(*r);
    Some((r, r.decompress()?, s))
}

/// Whether no other bytes are the same point: the coordinate y is below the field's prime 2^255 - 19, and neither 1 nor
/// -1, where x is 0 and its sign says nothing.
fn is_only_encoding(r: &[u8; 32]) -> bool {
    let [lowest, middle @ .., highest] = r;
    let highest = highest & 0x7f;
    let large = highest == 0x7f && middle.iter().all(|byte| *byte == 0xff) && *lowest >= 0xec;
    let small = highest == 0 && middle.iter().all(|byte| *byte == 0) && *lowest <= 1;
    !large && !small
}

/// The same as dalek's, in variable time, which is all that is needed for what everybody knows.
fn is_torsion_free(point: &EdwardsPoint) -> bool {
    // The group's order less one, and once more.
    let times = EdwardsPoint::vartime_double_scalar_mul_basepoint(&-Scalar::ONE, point, &Scalar::ZERO);
    (times + point).is_identity()
}
