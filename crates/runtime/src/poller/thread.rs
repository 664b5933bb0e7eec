//! A thread that waits on the poller, and its waker: what ends a wait in the kernel, or a parked one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Wake,
    thread,
};

use super::Poller;

/// A thread that runs a future, and what wakes it.
#[derive(Debug)]
pub(super) struct Thread {
    poller: Arc<Poller>,
    thread: thread::Thread,
    pub(super) woken: AtomicBool,
    /// It waits in the kernel, or is about to.
    pub(super) in_kernel: AtomicBool,
}

impl Thread {
    /// This thread.
    pub(super) fn new(poller: &Arc<Poller>) -> Self {
        Self {
            poller: poller.clone(),
            thread: thread::current(),
            woken: AtomicBool::new(false),
            in_kernel: AtomicBool::new(false),
        }
    }
}

impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        if self.in_kernel.load(Ordering::SeqCst) {
            self.poller.end_wait();
        } else {
            self.thread.unpark();
        }
    }
}
