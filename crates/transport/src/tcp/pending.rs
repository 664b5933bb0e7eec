//! A bound on inbound connections that are not upgraded yet: the newest gets in, the oldest is cut.
//!
//! An honest handshake is over within a few round trips. Without this, silent ones would hold all
//! permits until their deadline. Never looks at what a connection says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::{AbortHandle, AbortRegistration};

/// The pending upgrades of one transport.
#[derive(Clone, Debug)]
pub(super) struct PendingUpgrades(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    next: u64,
    /// By age, the oldest first.
    all: BTreeMap<u64, AbortHandle>,
}

/// A permit of one pending upgrade; released on drop.
#[derive(Debug)]
pub(super) struct Permit {
    all: PendingUpgrades,
    number: u64,
}

impl PendingUpgrades {
    /// At most `limit` simultaneously.
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner { limit, next: 0, all: BTreeMap::new() })))
    }

    /// A permit, and the registration that is aborted when the permit is revoked for a newer connection.
    pub(super) fn acquire(&self) -> (Permit, AbortRegistration) {
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
        (Permit { all: self.clone(), number }, registration)
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

impl Drop for Permit {
    fn drop(&mut self) {
        self.all.lock().all.remove(&self.number);
    }
}
