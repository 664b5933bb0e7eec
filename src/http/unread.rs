//! What was read of a connection and not used yet.

use std::ops::Deref;

/// Bytes at whose end more are put and from whose front they are used: many small messages of one read are not moved for
/// each of them.
#[derive(Debug, Default)]
pub(super) struct Unread {
    bytes: Vec<u8>,
    /// Of them, how many were used.
    used: usize,
}

impl Unread {
    pub(super) fn push(&mut self, more: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.used));
        self.bytes.extend_from_slice(more);
    }

    /// Uses the first `n`.
    pub(super) fn advance(&mut self, n: usize) {
        self.used += n;
        if self.is_empty() {
            // An idle connection holds no memory for what it said before.
            *self = Self::default();
        }
    }

    /// Forgets them, and keeps their room.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.used = 0;
    }
}

impl Deref for Unread {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.used..]
    }
}
