//! The bounded queue from an endpoint's driver to the task that drives a connection, with that task's waker.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use futures::task::AtomicWaker;
use quinn_proto::ConnectionEvent;

use super::lock;

/// Events kept allocated while nothing arrives.
const IDLE_CAPACITY: usize = 4;

/// A connection as its endpoint sees it: a bounded queue of events, and the waker of its driver.
#[derive(Debug)]
pub(super) struct Mailbox {
    inbox: Mutex<VecDeque<ConnectionEvent>>,
    limit: usize,
    driver: AtomicWaker,
    /// The remote's host says that nothing listens there (a hint for dials only).
    refused: AtomicBool,
}

impl Mailbox {
    pub(super) fn new(limit: usize) -> Self {
        Self { inbox: Mutex::default(), limit, driver: AtomicWaker::new(), refused: AtomicBool::new(false) }
    }

    /// Queues a received datagram. Over the bound it is dropped, as by a full link; the caller wakes the
    /// connection.
    pub(super) fn push(&self, event: ConnectionEvent) {
        let mut inbox = lock(&self.inbox);
        if inbox.len() < self.limit {
            inbox.push_back(event);
        }
    }

    /// Moves what has arrived into `batch`, which must be empty.
    pub(super) fn take(&self, batch: &mut VecDeque<ConnectionEvent>) {
        debug_assert!(batch.is_empty());
        let mut inbox = lock(&self.inbox);
        mem::swap(&mut *inbox, batch);
        // The queue that goes back may have grown in a burst; give its memory back step by step.
        if inbox.capacity() > IDLE_CAPACITY && batch.len() < inbox.capacity() / 4 {
            let smaller = (inbox.capacity() / 2).max(IDLE_CAPACITY);
            inbox.shrink_to(smaller);
        }
    }

    /// Registers the task that drives the connection.
    pub(super) fn register(&self, driver: &Waker) {
        self.driver.register(driver);
    }

    /// Wakes the task that drives the connection.
    pub(super) fn wake(&self) {
        self.driver.wake();
    }

    pub(super) fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
        self.wake();
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}
