//! Multiples of a point that is multiplied often: a multiplication is some forty additions, and no doubling.
//!
//! In variable time: for public keys and signatures alone.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use curve25519_dalek::{
    EdwardsPoint, Scalar, constants::ED25519_BASEPOINT_POINT, edwards::CompressedEdwardsY, traits::Identity,
};

/// Bits of a scalar that are looked up together.
const BITS: u32 = 6;
/// The same for the base point, whose multiples all share.
const BASE_BITS: u32 = 8;
/// Scalars are below 2^253.
const SCALAR_BITS: u32 = 253;

/// For each window of `bits` of a scalar 1, 2, … 2^(bits - 1) times the point, times 2^(bits · window).
pub(super) struct Multiples {
    bits: u32,
    points: Vec<EdwardsPoint>,
}

impl Multiples {
    /// 220 KB.
    pub(super) fn of(point: &EdwardsPoint) -> Self {
        Self::with(point, BITS)
    }

    /// 655 KB, as long as somebody has them.
    pub(super) fn of_base() -> Arc<Self> {
        static BASE: Mutex<Weak<Multiples>> = Mutex::new(Weak::new());
        let mut base = BASE.lock().unwrap_or_else(PoisonError::into_inner);
        base.upgrade().unwrap_or_else(|| {
            let made = Arc::new(Self::with(&ED25519_BASEPOINT_POINT, BASE_BITS));
            *base = Arc::downgrade(&made);
            made
        })
    }

    fn with(point: &EdwardsPoint, bits: u32) -> Self {
        let windows = SCALAR_BITS.div_ceil(bits);
        let mut points = Vec::with_capacity((windows as usize) << (bits - 1));
        let mut unit = *point;
        for _ in 0..windows {
            let mut multiple = unit;
            points.push(multiple);
            for _ in 1..1 << (bits - 1) {
                multiple += unit;
                points.push(multiple);
            }
            unit = multiple + multiple;
        }
        Self { bits, points }
    }

    /// `sum` and `scalar` times the point. As for any integer, and so for a point of whatever order.
    fn add(&self, mut sum: EdwardsPoint, scalar: &Scalar) -> EdwardsPoint {
        let windows = self.points.chunks_exact(1 << (self.bits - 1));
        for (multiples, digit) in windows.zip(digits(scalar, self.bits)) {
            let Some(at) = usize::from(digit.unsigned_abs()).checked_sub(1) else { continue };
            sum = if digit > 0 { sum + multiples[at] } else { sum - multiples[at] };
        }
        sum
    }
}

/// sB - kA, of the multiples of B and -A: what a single check of a signature computes and compares with R.
pub(super) fn expected_r(base: &Multiples, minus_a: &Multiples, k: &Scalar, s: &Scalar) -> EdwardsPoint {
    minus_a.add(base.add(EdwardsPoint::identity(), s), k)
}

/// The encodings of many points, for little more than that of one.
pub(super) fn encodings(points: &[EdwardsPoint]) -> Vec<CompressedEdwardsY> {
    EdwardsPoint::compress_batch_alloc(points)
}

/// A scalar as a sum of digits from -2^(bits - 1) to 2^(bits - 1) - 1 by powers of 2^bits, the lowest first.
fn digits(scalar: &Scalar, bits: u32) -> impl Iterator<Item = i16> {
    let bytes = scalar.to_bytes();
    let mut carry = 0;
    (0..SCALAR_BITS.div_ceil(bits)).map(move |window| {
        let at = (window * bits) as usize;
        let byte = |at: usize| bytes.get(at).copied().map_or(0, u16::from);
        let pair = byte(at / 8) | byte(at / 8 + 1) << 8;
        let digit = (pair >> (at % 8) & ((1 << bits) - 1)) as i16 + carry;
        carry = i16::from(digit >= 1 << (bits - 1));
        digit - (carry << bits)
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
        assert_eq!(size_of_val(&multiples.points[..]), 220_160);
        assert_eq!(size_of_val(&Multiples::of_base().points[..]), 655_360);
    }

    #[test]
    fn the_multiples_of_the_base_point_are_there_once() {
        let [one, other] = [(); 2].map(|()| Multiples::of_base());
        assert!(Arc::ptr_eq(&one, &other));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        #[test]
        fn a_multiple_is_what_dalek_says(of in any::<[u8; 32]>(), torsion in 0usize..8, by in any::<[u8; 32]>()) {
            let point = EdwardsPoint::mul_base(&scalar(of)) + EIGHT_TORSION[torsion];
            let by = scalar(by);
            for bits in [BITS, BASE_BITS] {
                let half = 1 << (bits - 1);
                prop_assert!(digits(&by, bits).all(|digit| (-half..half).contains(&digit)));
                prop_assert_eq!(Multiples::with(&point, bits).add(EdwardsPoint::identity(), &by), point * by);
            }
        }

        #[test]
        fn what_a_check_expects_is_what_dalek_expects(
            a in any::<[u8; 32]>(), torsion in 0usize..8, k in any::<[u8; 32]>(), s in any::<[u8; 32]>(),
        ) {
            let minus_a = EdwardsPoint::mul_base(&scalar(a)) + EIGHT_TORSION[torsion];
            let (k, s) = (scalar(k), scalar(s));
            let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &minus_a, &s);
            prop_assert_eq!(expected_r(&Multiples::of_base(), &Multiples::of(&minus_a), &k, &s), expected);
        }
    }
}
