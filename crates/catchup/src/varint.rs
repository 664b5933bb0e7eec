//! Numbers and bounds in bytes. Each has one encoding only; another is refused.

use crate::{Id, Item};

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends within a field.
    #[error("the frame ends within a field")]
    Short,
    /// Bytes are left behind its last field.
    #[error("bytes follow the last field of the frame")]
    Long,
    /// A kind of frame or range, or a code, that the specification does not have.
    #[error("an unknown kind of frame, range or verdict")]
    Unknown,
    /// A number in more bytes than it needs, or above its bound.
    #[error("a number is out of range, or not in its shortest form")]
    Number,
    /// Ranges that are empty, overlap, or are not in order.
    #[error("ranges are empty, overlap, or are out of order")]
    Order,
    /// More ranges than a frame may have.
    #[error("more ranges than a frame may have")]
    Ranges,
}

/// Unsigned LEB128.
pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A range's kind (3 bits) with the length of its bound's prefix (5 bits), the bound's time less `time`, the prefix.
pub(crate) fn put_bound(out: &mut Vec<u8>, kind: u8, time: &mut u64, bound: &Item) {
    let length = 16 - bound.id.0.iter().rev().take_while(|byte| **byte == 0).count();
    out.push(kind << 5 | length as u8);
    put(out, bound.time.saturating_sub(*time));
    out.extend_from_slice(&bound.id.0[..length]);
    *time = bound.time;
}

/// What is left of a frame.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(DecodeError::Short)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || byte == 0 && shift > 0 {
                return Err(DecodeError::Number);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError::Number)
    }

    /// A number of things of which each takes at least a byte of what is left.
    pub(crate) fn count(&mut self) -> Result<usize, DecodeError> {
        let number = usize::try_from(self.number()?).map_err(|_| DecodeError::Number)?;
        if number > self.0.len() { Err(DecodeError::Short) } else { Ok(number) }
    }

    pub(crate) fn bound(&mut self, time: &mut u64) -> Result<(u8, Item), DecodeError> {
        let head = self.byte()?;
        *time = time.checked_add(self.number()?).ok_or(DecodeError::Number)?;
        let length = usize::from(head & 0x1f);
        if length > 16 {
            return Err(DecodeError::Number);
        }
        let prefix = self.take(length)?;
        if prefix.last() == Some(&0) {
            return Err(DecodeError::Number);
        }
        let mut id = [0; 16];
        id[..length].copy_from_slice(prefix);
        Ok((head >> 5, Item { time: *time, id: Id(id) }))
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Long) }
    }
}
