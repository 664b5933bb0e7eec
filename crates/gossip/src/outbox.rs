//! What waits for one peer, between the core that decides and the connection handler that sends.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use futures::task::AtomicWaker;

use crate::{Queue, QueueLimits, budget::Budget};

/// A [`Queue`] that its reader can wait at. Locked for as long as it takes to put something in or out, never longer.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    reader: AtomicWaker,
    /// Something was put in, and the reader is not woken yet: one turn wakes it once, however much it puts in.
    marked: AtomicBool,
    /// Nothing is taken out for now.
    held: AtomicBool,
}

impl Outbox {
    /// Its messages count in `all` as well.
    pub(crate) fn new(limits: QueueLimits, all: Budget) -> Self {
        Self {
            queue: Mutex::new(Queue::sharing(limits, all)),
            reader: AtomicWaker::new(),
            marked: AtomicBool::new(false),
            held: AtomicBool::new(false),
        }
    }

    /// What waits. A reader that panicked left it as it was between two operations.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the first mark since the last [`Self::wake`].
    pub(crate) fn mark(&self) -> bool {
        !self.marked.swap(true, Ordering::Relaxed)
    }

    /// Wakes the reader: what [`Action::Flush`](crate::Action::Flush) asks for.
    pub fn wake(&self) {
        self.marked.store(false, Ordering::Relaxed);
        self.reader.wake();
    }

    /// Nothing is taken out from now on, or is again.
    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Who is to be woken. To be called before looking into the queue.
    pub(crate) fn register(&self, waker: &Waker) {
        self.reader.register(waker);
    }

    /// Appends the next frame to `out`; false where nothing waits.
    pub fn next_frame(&self, out: &mut Vec<u8>) -> bool {
        self.lock().next_frame(out).is_some()
    }
}
