//! Whether something was changed since it was looked at last.

use std::ops::{Deref, DerefMut};

/// A value, and whether somebody had it to change it.
#[derive(Debug)]
pub(super) struct Touched<T> {
    value: T,
    is_touched: bool,
}

impl<T> Touched<T> {
    pub(super) fn new(value: T) -> Self {
        Self { value, is_touched: true }
    }

    pub(super) fn is_touched(&self) -> bool {
        self.is_touched
    }

    /// It is as it was looked at.
    pub(super) fn settle(&mut self) {
        self.is_touched = false;
    }
}

impl<T> Deref for Touched<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Touched<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.is_touched = true;
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_touches_nothing_and_who_changes_is_noticed_until_it_is_settled() {
        let mut list = Touched::new(vec![1]);
        assert!(list.is_touched(), "nobody has looked at it");
        list.settle();
        assert_eq!(list.len(), 1);
        assert!(!list.is_touched());
        list.push(2);
        assert!(list.is_touched() && list.len() == 2);
    }
}
