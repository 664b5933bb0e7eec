//! What the threads of the smol runtime wait on: one epoll for UDP sockets, timers and each other.
//!
//! QUIC's datagrams and timers are nearly all that a node waits for, and here that costs one system
//! call: sockets are registered once, edge-triggered, for reading only (writing is asked for when a
//! send did not go through, else every datagram sent would wake us), and time-outs are an argument.
//! Everything else (TCP, Unix sockets, signals) stays with async-io, whose thread sleeps meanwhile.
//!
//! One thread waits in the kernel, for all; the others wait until they are woken. As on tokio, a task that
//! blocks a thread may hold up the sockets; smidge has none.

use std::{
    collections::HashMap,
    future::Future,
    io,
    mem::{self, MaybeUninit},
    pin::pin,
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use futures::{
    future::{BoxFuture, FutureExt, poll_fn},
    task::AtomicWaker,
};
use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    fd::OwnedFd,
};

use super::{
    Timer, alarm,
    alarms::{Alarms, Clock, ClockTimer, lock},
    udp::Readiness,
};

/// Events taken from the kernel in one call.
const EVENTS: usize = 64;
/// The key of the event that ends a wait early; sockets count from 0.
const ALARM: u64 = u64::MAX;
/// The longest that the kernel is asked to wait.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
    /// Written to, it ends a wait. It is never read: edge-triggered, every write counts.
    alarm: OwnedFd,
    sources: Mutex<HashMap<u64, Arc<Source>>>,
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

    /// Watches `socket`, which must not block, for as long as the result lives.
    pub(super) fn register(self: &Arc<Self>, socket: std::net::UdpSocket) -> io::Result<Registered> {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(key), flags)?;
        let source = Arc::new(Source {
            socket,
            key,
            readable: AtomicBool::new(true),
            reader: AtomicWaker::new(),
            writers: Mutex::default(),
        });
        lock(&self.sources).insert(key, source.clone());
        Ok(Registered { poller: self.clone(), source })
    }

    /// Runs `future` to its end on this thread, which waits here for whatever wakes it.
    pub(super) fn block_on<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
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
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
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
            thread::park();
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

/// A thread that runs a future, and what wakes it.
#[derive(Debug)]
struct Thread {
    poller: Arc<Poller>,
    thread: thread::Thread,
    woken: AtomicBool,
    /// It waits in the kernel, or is about to.
    in_kernel: AtomicBool,
}

impl Thread {
    /// This thread.
    fn new(poller: &Arc<Poller>) -> Self {
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

    fn watch(&self, epoll: &OwnedFd, flags: epoll::EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(self.key);
        Ok(epoll::modify(epoll, &self.socket, data, flags | epoll::EventFlags::ET)?)
    }
}

/// A socket that the poller watches.
#[derive(Debug)]
pub(super) struct Registered {
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

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;

    use futures::channel::oneshot;

    use super::*;
    use crate::{RecvMeta, Transmit, UdpOptions, UdpSocket, udp};

    async fn sleep(poller: &Arc<Poller>, ms: u64) -> Duration {
        let began = Instant::now();
        let mut timer = poller.timer();
        timer.set(Some(began + Duration::from_millis(ms)));
        poll_fn(|cx| timer.poll(cx)).await;
        began.elapsed()
    }

    fn socket(poller: &Arc<Poller>) -> Arc<dyn UdpSocket> {
        udp::bind_with("127.0.0.1:0".parse().unwrap(), UdpOptions::default(), |socket| {
            socket.set_nonblocking(true)?;
            poller.register(socket)
        })
        .unwrap()
    }

    async fn receive(socket: &dyn UdpSocket) -> usize {
        let (mut bytes, mut meta) = ([0; 2048], [RecvMeta::default(); 2]);
        poll_fn(|cx| {
            // Room for two: a datagram alone tells that the queue is empty behind it.
            let (one, two) = bytes.split_at_mut(1024);
            socket.poll_recv(cx, &mut [IoSliceMut::new(one), IoSliceMut::new(two)], &mut meta)
        })
        .await
        .unwrap()
    }

    fn send(from: &dyn UdpSocket, to: &dyn UdpSocket) {
        let destination = to.local_addr();
        let transmit =
            Transmit { destination, ecn: None, contents: b"hello", segment_size: None, src_ip: None };
        from.try_send(&transmit).unwrap();
    }

    #[test]
    fn another_thread_wakes_the_one_that_waits() {
        let poller = Poller::new().unwrap();
        for _ in 0..100 {
            let (sender, receiver) = oneshot::channel();
            let other = thread::spawn(move || sender.send(7).unwrap());
            assert_eq!(poller.block_on(receiver), Ok(7));
            other.join().unwrap();
        }
    }

    async fn is_pending(timer: &mut dyn Timer) -> bool {
        poll_fn(|cx| Poll::Ready(timer.poll(cx).is_pending())).await
    }

    #[test]
    fn a_timer_rings_at_its_moment_wherever_it_is_moved() {
        let poller = Poller::new().unwrap();
        poller.block_on(async {
            assert!(sleep(&poller, 5).await >= Duration::from_millis(5));
            let began = Instant::now();
            let at = |ms| Some(began + Duration::from_millis(ms));
            let mut timer = poller.timer();
            for ms in [60_000, 5, 30] {
                timer.set(at(ms));
                assert!(is_pending(&mut *timer).await);
            }
            poll_fn(|cx| timer.poll(cx)).await;
            assert!(began.elapsed() >= Duration::from_millis(30));
            assert!(is_pending(&mut *timer).await, "it rings once");
            timer.set(at(0));
            timer.set(None);
            assert!(is_pending(&mut *timer).await, "it is off");
        });
        assert_eq!(lock(&poller.alarms).next(), None, "a timer that is gone leaves nothing");
    }

    #[test]
    fn the_thread_that_waits_does_so_for_all_and_another_one_takes_over_when_it_leaves() {
        let poller = Poller::new().unwrap();
        let (leave, left) = oneshot::channel::<()>();
        let (first, second) = (poller.clone(), poller);
        let first = thread::spawn(move || first.block_on(left));
        let second = thread::spawn(move || {
            second.block_on(async {
                sleep(&second, 20).await;
                drop(leave);
                sleep(&second, 20).await;
            });
        });
        assert!(first.join().unwrap().is_err(), "it waited until the other one let go");
        second.join().unwrap();
    }

    #[test]
    fn every_datagram_is_noticed_whether_it_comes_before_or_while_somebody_waits() {
        let poller = Poller::new().unwrap();
        let (near, far) = (socket(&poller), socket(&poller));
        poller.block_on(async {
            for _ in 0..100 {
                send(&*near, &*far);
                assert_eq!(receive(&*far).await, 1);
                let (there, back) = (receive(&*far), async {
                    sleep(&poller, 0).await;
                    send(&*near, &*far);
                });
                assert_eq!(futures::join!(there, back).0, 1);
            }
        });
    }

    #[test]
    fn any_number_of_tasks_hear_that_a_socket_can_be_written() {
        let poller = Poller::new().unwrap();
        let socket = socket(&poller);
        poller.block_on(async {
            for _ in 0..3 {
                let waiting = (0..5).map(|_| socket.clone().writable());
                futures::future::try_join_all(waiting).await.unwrap();
                // Given up while waiting: it costs the others nothing.
                assert!(socket.clone().writable().now_or_never().is_none());
            }
        });
        let sources = lock(&poller.sources).len();
        drop(socket);
        assert_eq!((sources, lock(&poller.sources).len()), (1, 0));
    }
}
