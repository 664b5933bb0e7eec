//! Multiples of a point that is multiplied often: a multiplication is some fifty additions, and no doubling.
//!
//! In variable time: for public keys and signatures alone.

use std::sync::OnceLock;

use curve25519_dalek::{
    EdwardsPoint, Scalar, constants::ED25519_BASEPOINT_POINT, edwards::CompressedEdwardsY, traits::Identity,
};

/// Bits of a scalar that are looked up together.
const BITS: usize = 5;
/// Numbers of as many bits, without their sign.
const HALF: usize = 1 << (BITS - 1);
/// Scalars are below 2^253, so that the last window has room for what is carried into it.
const WINDOWS: usize = 255 / BITS;

/// For each window 1, 2, … [`HALF`] times the point, times 2^([`BITS`] · window): 130 KB.
pub(super) struct Multiples(Vec<EdwardsPoint>);

impl Multiples {
    pub(super) fn of(point: &EdwardsPoint) -> Self {
        let mut multiples = Vec::with_capacity(WINDOWS * HALF);
        let mut unit = *point;
        for _ in 0..WINDOWS {
            let mut multiple = unit;
            multiples.push(multiple);
            for _ in 1..HALF {
                multiple += unit;
                multiples.push(multiple);
            }
            unit = multiple + multiple;
        }
        Self(multiples)
    }

    /// `sum` and `scalar` times the point. As for any integer, and so for a point of whatever order.
    fn add(&self, mut sum: EdwardsPoint, scalar: &Scalar) -> EdwardsPoint {
        for (multiples, digit) in self.0.chunks_exact(HALF).zip(digits(scalar)) {
            let Some(at) = usize::from(digit.unsigned_abs()).checked_sub(1) else { continue };
            if digit > 0 {
                sum += multiples[at];
            } else {
                sum -= multiples[at];
            }
        }
        sum
    }
}

/// sB - kA, where `self` holds the multiples of -A: what a single check of a signature computes and compares with R.
pub(super) fn expected_r(minus_a: &Multiples, k: &Scalar, s: &Scalar) -> EdwardsPoint {
    static BASE: OnceLock<Multiples> = OnceLock::new();
    let base = BASE.get_or_init(|| Multiples::of(&ED25519_BASEPOINT_POINT));
    minus_a.add(base.add(EdwardsPoint::identity(), s), k)
}

/// The encodings of many points, for little more than that of one.
pub(super) fn encodings(points: &[EdwardsPoint]) -> Vec<CompressedEdwardsY> {
    EdwardsPoint::compress_batch_alloc(points)
}

/// A scalar as a sum of digits from -[`HALF`] to [`HALF`] - 1 by powers of 2^[`BITS`], the lowest first.
fn digits(scalar: &Scalar) -> impl Iterator<Item = i8> {
    let bytes = scalar.to_bytes();
    let bits = move |at: usize| {
        let low = u16::from(bytes[at / 8]);
        let high = bytes.get(at / 8 + 1).copied().map_or(0, u16::from);
        ((low | high << 8) >> (at % 8)) as i8 & (2 * HALF - 1) as i8
    };
    let mut carry = 0;
    (0..WINDOWS).map(move |window| {
        let digit = bits(window * BITS) + carry;
        carry = i8::from(digit >= HALF as i8);
        digit - carry * (2 * HALF) as i8
    })
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use proptest::prelude::*;

    use super::*;

    fn scalar(bytes: [u8; 32]) -> Scalar {
        Scalar::from_bytes_mod_order(bytes)
    }

    #[test]
    fn the_extremes_are_multiplied_as_any_other() {
        let point = EdwardsPoint::mul_base(&Scalar::from(7u64)) + EIGHT_TORSION[3];
        let multiples = Multiples::of(&point);
        for scalar in [Scalar::ZERO, Scalar::ONE, -Scalar::ONE, Scalar::from(16u64), Scalar::from(31u64)] {
            assert_eq!(multiples.add(EdwardsPoint::identity(), &scalar), point * scalar);
        }
        assert_eq!(multiples.0.len() * size_of::<EdwardsPoint>(), 130_560);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        #[test]
        fn a_multiple_is_what_dalek_says(of in any::<[u8; 32]>(), torsion in 0usize..8, by in any::<[u8; 32]>()) {
            let point = EdwardsPoint::mul_base(&scalar(of)) + EIGHT_TORSION[torsion];
            let by = scalar(by);
            let digits: Vec<i8> = digits(&by).collect();
            prop_assert!(digits.iter().all(|digit| (-16..16).contains(digit)));
            prop_assert_eq!(Multiples::of(&point).add(EdwardsPoint::identity(), &by), point * by);
        }

        #[test]
        fn what_a_check_expects_is_what_dalek_expects(
            a in any::<[u8; 32]>(), torsion in 0usize..8, k in any::<[u8; 32]>(), s in any::<[u8; 32]>(),
        ) {
            let minus_a = EdwardsPoint::mul_base(&scalar(a)) + EIGHT_TORSION[torsion];
            let (k, s) = (scalar(k), scalar(s));
            let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &minus_a, &s);
            prop_assert_eq!(expected_r(&Multiples::of(&minus_a), &k, &s), expected);
        }
    }
}
