//! Incoming connections that are not made yet: counted, and the oldest cut when there is one too many.
//!
//! An honest handshake is over within a few round trips. One that says nothing would otherwise hold its
//! place until the deadline, and a few of them everybody's.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::{AbortHandle, AbortRegistration};

/// All of one transport.
#[derive(Clone, Debug)]
pub(super) struct HalfMade(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    next: u64,
    /// By age, the oldest first.
    all: BTreeMap<u64, AbortHandle>,
}

/// The place of one of them, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    all: HalfMade,
    number: u64,
}

impl HalfMade {
    /// At most `limit` at once.
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner { limit, next: 0, all: BTreeMap::new() })))
    }

    /// A place for one more, and what tells that it was taken away again.
    pub(super) fn enter(&self) -> (Place, AbortRegistration) {
        let (handle, registration) = AbortHandle::new_pair();
        let mut inner = self.lock();
        let cut = if inner.all.len() >= inner.limit { inner.all.pop_first() } else { None };
        let number = inner.next;
        inner.next += 1;
        inner.all.insert(number, handle);
        drop(inner);
        if let Some((_, oldest)) = cut {
            oldest.abort();
        }
        (Place { all: self.clone(), number }, registration)
    }

    pub(super) fn limit(&self) -> usize {
        self.lock().limit
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().all.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What is inside is consistent between calls.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.lock().all.remove(&self.number);
    }
}
