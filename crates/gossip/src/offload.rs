//! Batches of signatures checked in a task of their own, where the program has a thread for it.
//!
//! Never decides anything: what comes out is what [`Verifier`] says of each batch. The core hands messages on in the order
//! in which they came, whichever batch is done first.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    task::Waker,
};

use futures::task::AtomicWaker;
use libp2p::swarm::Executor;

use crate::{Unverified, Verifier};

/// Of so few, another thread would take longer to wake than they take to check.
const FEW: usize = 4;

/// The outcomes of a batch, and its ticket.
pub(crate) type Verified = (u64, Vec<bool>);

/// A verifier, and the batches that wait for it. Bounded by what the core lets wait.
#[derive(Default)]
pub(crate) struct Offload {
    shared: Arc<Shared>,
    /// Where batches are checked; without one, where they are given.
    executor: Option<Box<dyn Executor + Send>>,
}

#[derive(Default)]
struct Shared {
    /// Held while a batch is checked.
    verifier: Mutex<Verifier>,
    /// Held for moments.
    batches: Mutex<Batches>,
    owner: AtomicWaker,
}

#[derive(Default)]
struct Batches {
    waiting: VecDeque<Unverified>,
    done: Vec<Verified>,
    /// Whether a task takes what waits.
    is_running: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Checks what waits, oldest first; whether there was anything.
    fn verify_next(&self) -> bool {
        // First: who holds it has the oldest batch.
        let mut verifier = lock(&self.verifier);
        let Some(batch) = lock(&self.batches).waiting.pop_front() else { return false };
        let holds = verifier.verify_batch(&batch.messages);
        lock(&self.batches).done.push((batch.ticket, holds));
        true
    }

    async fn run(self: Arc<Self>) {
        loop {
            while self.verify_next() {
                self.owner.wake();
            }
            let mut batches = lock(&self.batches);
            if batches.waiting.is_empty() {
                batches.is_running = false;
                return;
            }
        }
    }
}

impl Offload {
    pub(crate) fn set_executor(&mut self, executor: Box<dyn Executor + Send>) {
        self.executor = Some(executor);
    }

    /// Takes a batch. It is checked now if it is small, or if there is nowhere else.
    pub(crate) fn give(&self, batch: Unverified) {
        let few = batch.messages.len() < FEW;
        let mut batches = lock(&self.shared.batches);
        batches.waiting.push_back(batch);
        match &self.executor {
            _ if batches.is_running => {}
            Some(executor) if !few => {
                batches.is_running = true;
                drop(batches);
                executor.exec(Box::pin(self.shared.clone().run()));
            }
            _ => {
                drop(batches);
                self.finish();
            }
        }
    }

    /// Checks what waits here and now, once the batch that is being checked elsewhere is done.
    pub(crate) fn finish(&self) {
        while self.shared.verify_next() {}
    }

    /// What is done. `waker` is woken when more is.
    pub(crate) fn done(&self, waker: &Waker) -> Vec<Verified> {
        if self.executor.is_some() {
            self.shared.owner.register(waker);
        }
        self.take_done()
    }

    pub(crate) fn take_done(&self) -> Vec<Verified> {
        std::mem::take(&mut lock(&self.shared.batches).done)
    }

    /// Lets go of what makes checks cheap, unless some are under way.
    pub(crate) fn rest(&self) {
        match self.shared.verifier.try_lock() {
            Ok(mut verifier) => verifier.rest(),
            Err(TryLockError::Poisoned(verifier)) => verifier.into_inner().rest(),
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

impl fmt::Debug for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offload").field("elsewhere", &self.executor.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
