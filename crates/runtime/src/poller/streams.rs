//! Connections and their listeners on the poller: registered once for both directions, edge-triggered. Nothing is asked of the
//! kernel between two events.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use rustix::{
    event::epoll::{self, EventFlags as Flags},
    fd::OwnedFd,
};

use super::{Notify, Poller};
use crate::{
    alarms::lock,
    watched::{Reactor, Socket, Watched},
};

impl Reactor for Arc<Poller> {
    type Watched<S: Socket> = Stream<S>;

    fn watch<S: Socket>(&self, socket: S) -> io::Result<Stream<S>> {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let readiness = Arc::new(Readiness::default());
        // First: its first event may come while it is added.
        lock(&self.sources).insert(key, readiness.clone());
        // A connection says that it can be written when it could not before, not whenever something was sent.
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        if let Err(e) = epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(key), flags) {
            lock(&self.sources).remove(&key);
            return Err(e.into());
        }
        Ok(Stream { poller: self.clone(), key, readiness, socket })
    }
}

/// What the kernel said of a socket, and the tasks that wait for it.
#[derive(Debug, Default)]
struct Readiness {
    /// Something arrived since this was cleared.
    readable: AtomicBool,
    /// The other side writes nothing more: reads do not block from here on.
    ended: AtomicBool,
    /// It became writable since this was cleared.
    writable: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Notify for Readiness {
    fn notify(&self, _: &OwnedFd, flags: Flags) {
        if flags.intersects(Flags::RDHUP | Flags::HUP) {
            self.ended.store(true, Ordering::SeqCst);
        }
        if flags.intersects(Flags::IN | Flags::RDHUP | Flags::HUP | Flags::ERR) {
            self.readable.store(true, Ordering::SeqCst);
            self.reader.wake();
        }
        if flags.intersects(Flags::OUT | Flags::HUP | Flags::ERR) {
            self.writable.store(true, Ordering::SeqCst);
            self.writer.wake();
        }
    }
}

/// A socket that the poller watches.
#[derive(Debug)]
pub(crate) struct Stream<S: Socket> {
    poller: Arc<Poller>,
    key: u64,
    readiness: Arc<Readiness>,
    socket: S,
}

// Nothing of it is pinned.
impl<S: Socket> Unpin for Stream<S> {}

impl<S: Socket + fmt::Debug> Watched<S> for Stream<S> {
    fn socket(&self) -> &S {
        &self.socket
    }

    fn before_read(&self) {
        self.readiness.readable.store(false, Ordering::SeqCst);
    }

    fn tells_of_arrivals(&self) -> bool {
        true
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.readiness.reader.register(cx.waker());
        let ready = self.readiness.readable.swap(false, Ordering::SeqCst)
            || self.readiness.ended.load(Ordering::SeqCst);
        if ready { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.readiness.writer.register(cx.waker());
        if self.readiness.writable.swap(false, Ordering::SeqCst) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

impl<S: Socket> Drop for Stream<S> {
    fn drop(&mut self) {
        lock(&self.poller.sources).remove(&self.key);
        // The socket is closed next, which would take it out as well.
        let _ = epoll::delete(&self.poller.epoll, &self.socket);
    }
}

#[cfg(test)]
mod tests;
