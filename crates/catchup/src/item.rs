//! What is compared: a time and an identity for each message, in that order.

use sha2::{Digest, Sha256};

/// Names a message, or an author: the first 16 bytes of a SHA-256.
///
/// To pass another message off as a given one takes 2^128 attempts. Who makes two messages of its own with one identity
/// (2^64 attempts) has hidden one of them from some nodes, and could as well not have sent it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// Of whatever names it: a message id, a peer id, the whole record.
    pub fn of(name: &[u8]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::digest(name)[..16]);
        Self(id)
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A message's place in its topic: by its author's time, then by identity. The same at every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// As the author signed it: milliseconds since 1970, or a [`Stamp`](crate::Stamp).
    pub time: u64,
    /// Tells apart what has one time.
    pub id: Id,
}

impl Item {
    /// The lowest place of a time; nothing before `time` is at or behind it.
    pub const fn at(time: u64) -> Self {
        Self { time, id: Id([0; 16]) }
    }

    /// The place right below this one; the lowest has none.
    pub fn before(&self) -> Self {
        let id = u128::from_be_bytes(self.id.0);
        match (id.checked_sub(1), self.time.checked_sub(1)) {
            (Some(id), _) => Self { id: Id(id.to_be_bytes()), ..*self },
            (None, Some(time)) => Self { time, id: Id([0xff; 16]) },
            (None, None) => *self,
        }
    }

    /// The bound between two neighbours that has the shortest encoding: above `before`, not above `after`.
    pub(crate) fn between(before: &Self, after: &Self) -> Self {
        if before.time != after.time {
            return Self::at(after.time);
        }
        let common = before.id.0.iter().zip(&after.id.0).take_while(|(a, b)| a == b).count();
        let mut bound = Self::at(after.time);
        let end = (common + 1).min(16);
        bound.id.0[..end].copy_from_slice(&after.id.0[..end]);
        bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_below_an_item_there_is_nothing_else() {
        let item = |time, id| Item { time, id: Id(id) };
        let mut one = [0; 16];
        one[15] = 1;
        assert_eq!(item(5, one).before(), Item::at(5));
        assert_eq!(Item::at(5).before(), item(4, [0xff; 16]));
        assert_eq!(Item::at(0).before(), Item::at(0));
    }

    proptest::proptest! {
        #[test]
        fn a_bound_lies_between_its_neighbours(
            a in (0u64..3, proptest::array::uniform16(0u8..3)),
            b in (0u64..3, proptest::array::uniform16(0u8..3)),
        ) {
            let (a, b) = (Item { time: a.0, id: Id(a.1) }, Item { time: b.0, id: Id(b.1) });
            let (before, after) = (a.min(b), a.max(b));
            proptest::prop_assume!(before < after);
            let bound = Item::between(&before, &after);
            assert!(before < bound && bound <= after, "{before:?} {bound:?} {after:?}");
        }
    }
}
