//! Which keys a file that holds a map lacks: noted where somebody writes one, and bounded by what is kept and what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::Id;

/// A key whose row is to be written, or taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsaved {
    /// What the row is called.
    pub id: Id,
    /// The key.
    pub key: Arc<[u8]>,
    /// It has a version, which is to be written.
    pub is_kept: bool,
}

/// Keys by what their rows are called: [`Id::of`] each.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Rows that are there.
    written: BTreeSet<Id>,
    changed: BTreeMap<Id, Arc<[u8]>>,
}

impl Changes {
    /// A key is there already.
    pub(super) fn wrote(&mut self, key: &[u8]) {
        self.written.insert(Id::of(key));
    }

    /// A key has another version, or is gone.
    pub(super) fn note(&mut self, key: &Arc<[u8]>, is_kept: bool) {
        let id = Id::of(key);
        // What was never written needs not be taken out.
        if is_kept || self.written.contains(&id) {
            self.changed.insert(id, Arc::clone(key));
        } else {
            self.changed.remove(&id);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.changed.len()
    }

    pub(super) fn take(&mut self) -> Option<(Id, Arc<[u8]>)> {
        self.changed.pop_first()
    }

    /// A row that was taken is there now, or is not any more.
    pub(super) fn written(&mut self, taken: &Unsaved, is_kept: bool) {
        if taken.is_kept {
            self.written.insert(taken.id);
        } else {
            self.written.remove(&taken.id);
        }
        // It went while it was on its way, or came and went while it was being taken out.
        if !is_kept {
            self.note(&taken.key, false);
        }
    }

    /// All rows that there may be.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Id> {
        self.written.iter()
    }
}
