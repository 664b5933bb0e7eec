//! What the threads of the smol runtime wait on: one epoll for sockets, timers and each other.
//!
//! Datagrams, connections and timers are nearly all that a node waits for, and here that costs one system
//! call: sockets are registered once, edge-triggered (those of UDP for reading only: writing is asked for when a
//! send did not go through, else every datagram sent would wake us), and time-outs are an argument. Signals and
//! interfaces stay with async-io, whose thread sleeps meanwhile.
//!
//! One thread waits in the kernel, for all; the others wait until they are woken. As on tokio, a task that
//! blocks a thread may hold up the sockets; smidge has none.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    fd::OwnedFd,
};

use self::thread::Thread;
use super::{
    Timer, alarm,
    alarms::{Alarms, Clock, ClockTimer, lock},
};

mod sources;
mod streams;
mod thread;

/// Events taken from the kernel in one call.
const EVENTS: usize = 64;
/// The key of the event that ends a wait early; sockets count from 0.
const ALARM: u64 = u64::MAX;
/// The longest that the kernel is asked to wait.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a socket's events are handed to.
trait Notify: fmt::Debug + Send + Sync {
    fn notify(&self, epoll: &OwnedFd, flags: epoll::EventFlags);
}

#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
    /// Written to, it ends a wait. It is never read: edge-triggered, every write counts.
    alarm: OwnedFd,
    sources: Mutex<HashMap<u64, Arc<dyn Notify>>>,
    /// Their driver is the thread that waits in the kernel.
    alarms: Mutex<Alarms>,
    /// For sockets.
    next_key: AtomicU64,
    /// Held by the thread that waits in the kernel.
    turn: Mutex<()>,
    /// Threads that run a future here.
    threads: AtomicUsize,
    /// Threads that wait for a wake-up while another one has the turn.
    parked: Mutex<Vec<Arc<Thread>>>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let alarm = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &alarm, epoll::EventData::new_u64(ALARM), flags)?;
        Ok(Arc::new(Self {
            epoll,
            alarm,
            sources: Mutex::default(),
            alarms: Mutex::default(),
            next_key: AtomicU64::new(0),
            turn: Mutex::new(()),
            threads: AtomicUsize::new(0),
            parked: Mutex::default(),
        }))
    }

    /// A timer that is not set yet.
    pub(super) fn timer(self: &Arc<Self>) -> Box<dyn Timer> {
        Box::new(ClockTimer::new(self.clone()))
    }

    /// Runs `future` to its end on this thread, which waits here for whatever wakes it.
    #[cfg(test)]
    fn block_on<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        let output = std::cell::Cell::new(None);
        self.run(std::pin::pin!(async { output.set(Some(future.await)) }));
        output.take().unwrap()
    }

    /// Runs `main` to its end on this thread, which waits here for whatever wakes it.
    pub(super) fn run(self: &Arc<Self>, mut main: Pin<&mut dyn Future<Output = ()>>) {
        /// Others may be parked in the belief that this thread waits for all.
        struct Leave<'a>(&'a Poller);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                let next = lock(&self.0.parked).pop();
                if let Some(thread) = next {
                    thread.wake_by_ref();
                }
                if self.0.threads.fetch_sub(1, Ordering::SeqCst) == 1 {
                    // A task that still waits for an alarm sets it where it is polled next.
                    let left = lock(&self.0.alarms).take_all();
                    left.into_iter().for_each(Waker::wake);
                }
            }
        }
        self.threads.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(self);
        let _entered = alarm::enter(self.clone());
        let thread = Arc::new(Thread::new(self));
        let waker = Waker::from(thread.clone());
        while main.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.wait(&thread);
        }
    }

    /// Returns when `me` has been woken; looks at sockets and timers in any case, if it is our turn.
    fn wait(&self, me: &Arc<Thread>) {
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => {
                if !me.woken.swap(false, Ordering::SeqCst) {
                    self.park(me);
                }
                return;
            }
        };
        loop {
            let woken = self.poll(me);
            self.ring();
            if woken || me.woken.swap(false, Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Waits for a wake-up while another thread waits in the kernel.
    fn park(&self, me: &Arc<Thread>) {
        lock(&self.parked).push(me.clone());
        // The other thread may have left before it could see us: then its turn is ours.
        if self.turn.try_lock().is_ok() {
            me.woken.store(true, Ordering::SeqCst);
        }
        while !me.woken.swap(false, Ordering::SeqCst) {
            std::thread::park();
        }
        lock(&self.parked).retain(|thread| !Arc::ptr_eq(thread, me));
    }

    /// Waits in the kernel for events, a timer or a wake-up, and hands out the events. Does not wait when
    /// `me` has been woken already, which it returns.
    fn poll(&self, me: &Thread) -> bool {
        // First: a wake-up from here on interrupts the wait, as an alarm does that is set after the limit is known.
        me.in_kernel.store(true, Ordering::SeqCst);
        let woken = me.woken.swap(false, Ordering::SeqCst);
        let limit = if woken { Some(Duration::ZERO) } else { self.until_next() };
        let limit = limit.map(timespec);
        let mut space = [const { MaybeUninit::uninit() }; EVENTS];
        let polled = epoll::wait(&self.epoll, &mut space, limit.as_ref());
        me.in_kernel.store(false, Ordering::SeqCst);
        let events: &[epoll::Event] = match &polled {
            Ok((events, _)) => events,
            // A signal; anything else cannot happen to descriptors of our own.
            Err(e) => {
                debug_assert_eq!(*e, rustix::io::Errno::INTR);
                &[]
            }
        };
        for event in events {
            let (key, flags) = (event.data.u64(), event.flags);
            let source = lock(&self.sources).get(&key).cloned();
            if let Some(source) = source {
                source.notify(&self.epoll, flags);
            }
        }
        woken
    }

    /// How long until the next alarm rings.
    fn until_next(&self) -> Option<Duration> {
        let at = lock(&self.alarms).sleep()?;
        Some(at.saturating_duration_since(Instant::now()).min(LONGEST))
    }

    fn ring(&self) {
        let due = lock(&self.alarms).take_due(Instant::now());
        due.into_iter().for_each(Waker::wake);
    }

    /// Ends the wait that is under way.
    fn end_wait(&self) {
        // Only a counter that is full fails, and a full one has woken the thread already.
        let _ = rustix::io::write(&self.alarm, &1_u64.to_ne_bytes());
    }
}

impl Clock for Poller {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn alarms(&self) -> &Mutex<Alarms> {
        &self.alarms
    }

    fn interrupt(&self) {
        self.end_wait();
    }
}

/// For the kernel, in whole milliseconds: to wake before the moment would be for nothing.
fn timespec(limit: Duration) -> Timespec {
    let ms = limit.as_nanos().div_ceil(1_000_000) as i64;
    Timespec { tv_sec: ms / 1000, tv_nsec: (ms % 1000 * 1_000_000) as _ }
}

#[cfg(test)]
mod tests;
