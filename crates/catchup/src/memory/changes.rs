//! What a file that holds a memory lacks: noted where somebody writes one, and bounded by what is kept and what is there.

use std::collections::BTreeSet;

use crate::{Id, Item};

/// What is to be written, with an item for each record that is to be looked up, or is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unwritten {
    /// Kept, in order.
    pub kept: Vec<Item>,
    /// Let go.
    pub gone: Vec<Item>,
    /// Floors that changed, by author; `None`: that of all others. One that is no more has no item.
    pub floors: Vec<(Option<Id>, Option<Item>)>,
}

impl Unwritten {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.gone.is_empty() && self.floors.is_empty()
    }
}

/// Changes since they were last taken.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) kept: BTreeSet<Item>,
    /// Of what was written before.
    pub(super) gone: BTreeSet<Item>,
}

impl Changes {
    pub(super) fn let_go(&mut self, item: &Item) {
        // What was never written needs not be taken out.
        if !self.kept.remove(item) {
            self.gone.insert(*item);
        }
    }

    pub(super) fn keep(&mut self, item: Item) {
        self.gone.remove(&item);
        self.kept.insert(item);
    }
}
