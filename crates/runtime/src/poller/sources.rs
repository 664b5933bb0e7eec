//! UDP sockets on the poller: their readiness, and the tasks that wait for it.

use std::{
    io, mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures::{
    future::{BoxFuture, FutureExt, poll_fn},
    task::AtomicWaker,
};
use rustix::{event::epoll, fd::OwnedFd};

use super::{Notify, Poller};
use crate::{alarms::lock, udp::Readiness};

impl Poller {
    /// Watches `socket`, which must not block, for as long as the result lives.
    pub(crate) fn register(self: &Arc<Self>, socket: std::net::UdpSocket) -> io::Result<Registered> {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(key), flags)?;
        let source = Arc::new(Source::new(socket, key));
        lock(&self.sources).insert(key, source.clone());
        Ok(Registered { poller: self.clone(), source })
    }
}

/// A socket, its readiness, and the tasks that wait for it.
#[derive(Debug)]
struct Source {
    socket: std::net::UdpSocket,
    key: u64,
    /// Something arrived since this was cleared.
    readable: AtomicBool,
    reader: AtomicWaker,
    writers: Mutex<Writers>,
}

#[derive(Debug, Default)]
struct Writers {
    /// Counts the times that the socket became writable while a task waited.
    turns: u64,
    wakers: Vec<Waker>,
}

impl Source {
    /// Everything that arrived before it was watched counts as an arrival.
    fn new(socket: std::net::UdpSocket, key: u64) -> Self {
        Self {
            socket,
            key,
            readable: AtomicBool::new(true),
            reader: AtomicWaker::new(),
            writers: Mutex::default(),
        }
    }

    fn watch(&self, epoll: &OwnedFd, flags: epoll::EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(self.key);
        Ok(epoll::modify(epoll, &self.socket, data, flags | epoll::EventFlags::ET)?)
    }
}

impl Notify for Source {
    fn notify(&self, epoll: &OwnedFd, flags: epoll::EventFlags) {
        use epoll::EventFlags as Flags;
        if flags.intersects(Flags::IN | Flags::ERR | Flags::HUP) {
            self.readable.store(true, Ordering::SeqCst);
            self.reader.wake();
        }
        if flags.contains(Flags::OUT) {
            let wakers = {
                let mut writers = lock(&self.writers);
                writers.turns += 1;
                // Registered again by the next task that waits: else every datagram sent would wake us.
                if let Err(e) = self.watch(epoll, Flags::IN) {
                    log::debug!("epoll: {e}");
                }
                mem::take(&mut writers.wakers)
            };
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// A socket that the poller watches.
#[derive(Debug)]
pub(crate) struct Registered {
    poller: Arc<Poller>,
    source: Arc<Source>,
}

impl Readiness for Registered {
    fn socket(&self) -> &std::net::UdpSocket {
        &self.source.socket
    }

    fn before_read(&self) {
        self.source.readable.store(false, Ordering::SeqCst);
    }

    fn tells_of_arrivals(&self) -> bool {
        true
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.source.reader.register(cx.waker());
        if self.source.readable.swap(false, Ordering::SeqCst) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn writable(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>> {
        let mut since = None;
        poll_fn(move |cx| {
            let mut writers = lock(&self.source.writers);
            let turns = writers.turns;
            if since.is_some_and(|since| since != turns) {
                return Poll::Ready(Ok(()));
            }
            if !writers.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                writers.wakers.push(cx.waker().clone());
            }
            if since.replace(turns).is_none() {
                // Reports immediately if it is writable already.
                let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
                self.source.watch(&self.poller.epoll, flags)?;
            }
            Poll::Pending
        })
        .boxed()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.poller.sources).remove(&self.source.key);
        // The socket is closed next, which would take it out as well.
        let _ = epoll::delete(&self.poller.epoll, &self.source.socket);
    }
}
