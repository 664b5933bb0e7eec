//! futures-timer's thread, told to rest while there is a lot to do.
//!
//! libp2p sets a timer for each request, each answer and each copy of a message, and drops it again; each time
//! futures-timer's thread is woken to write that down, by a system call on our side and two changes of threads on
//! its own. That is a third of all that a request costs (bench/RESULTS.md). While workers are at work for a good
//! part of the time, that thread sleeps for [`NAP`] instead of waiting for the next change, and writes down at once
//! all that came in between. Its timers ring about that much late then: most are seconds; the finest, half a round
//! trip before a hole is punched (DCUtR), may come late by it. When there is little to do it is left alone.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use futures_timer::Delay;

use super::runner::is_host;

/// How long futures-timer's thread rests at a time.
const NAP: Duration = Duration::from_millis(2);
/// The part of the time at work that is a lot to do: one in so many.
const SHARE: u32 = 4;

/// There is one such thread in a process.
static REST: LazyLock<Arc<Rest>> = LazyLock::new(Arc::default);

/// Does a worker's `work`.
pub(super) fn work<T>(work: impl FnOnce() -> T) -> T {
    let _shift = Shift::begin(&REST);
    work()
}

#[derive(Default)]
struct Rest {
    /// Workers that are at work.
    at_work: AtomicUsize,
    /// Microseconds that workers have been at work so far.
    worked: AtomicUsize,
    /// That thread rests, or is about to.
    resting: AtomicBool,
    bed: Mutex<Bed>,
}

#[derive(Default)]
struct Bed {
    /// When it was last asked whether there is a lot to do, and how long workers had worked until then.
    asked: Option<(Instant, usize)>,
    /// Rings on that thread, which is how it is told.
    bell: Option<Delay>,
}

/// A worker's time at work.
struct Shift<'a> {
    rest: &'a Arc<Rest>,
    began: Instant,
}

impl<'a> Shift<'a> {
    fn begin(rest: &'a Arc<Rest>) -> Self {
        rest.at_work.fetch_add(1, Ordering::Relaxed);
        Self { rest, began: Instant::now() }
    }
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.rest.at_work.fetch_sub(1, Ordering::Relaxed);
        let worked = (now - self.began).as_micros() as usize;
        self.rest.worked.fetch_add(worked, Ordering::Relaxed);
        if !self.rest.resting.load(Ordering::SeqCst) {
            self.rest.ask(now);
        }
    }
}

/// Whether `worked` microseconds in `time` are a lot.
fn is_a_lot(worked: usize, time: Duration) -> bool {
    worked as u128 >= (time / SHARE).as_micros()
}

impl Rest {
    fn ask(self: &Arc<Self>, now: Instant) {
        // Another worker is at it.
        let Ok(mut bed) = self.bed.try_lock() else { return };
        let worked = self.worked.load(Ordering::Relaxed);
        let (since, before) = *bed.asked.get_or_insert((now, worked));
        let time = now.saturating_duration_since(since);
        if time < NAP {
            return;
        }
        bed.asked = Some((now, worked));
        if is_a_lot(worked.wrapping_sub(before), time) && !self.resting.swap(true, Ordering::SeqCst) {
            self.ring(&mut bed);
        }
    }

    /// Has that thread wake this.
    fn ring(self: &Arc<Self>, bed: &mut Bed) {
        let bell = bed.bell.get_or_insert_with(|| Delay::new(Duration::ZERO));
        bell.reset(Duration::ZERO);
        let waker = Waker::from(self.clone());
        if Pin::new(bell).poll(&mut Context::from_waker(&waker)).is_ready() {
            // It rang before it could be told whom to wake.
            self.resting.store(false, Ordering::SeqCst);
        }
    }
}

impl Wake for Rest {
    fn wake(self: Arc<Self>) {
        // Nobody else's thread is put to sleep.
        if is_host() {
            let before = self.worked.load(Ordering::Relaxed);
            thread::sleep(NAP);
            let worked = self.worked.load(Ordering::Relaxed).wrapping_sub(before);
            // Work that takes longer than a nap is counted when it is done.
            if self.at_work.load(Ordering::Relaxed) > 0 || is_a_lot(worked, NAP) {
                return self.ring(&mut self.bed.lock().unwrap_or_else(PoisonError::into_inner));
            }
        }
        self.resting.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    /// Works until `done`; gives up after a minute.
    fn work_until(rest: &Arc<Rest>, done: impl Fn() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(60), "in vain");
            let shift = Shift::begin(rest);
            while shift.began.elapsed() < NAP {}
        }
    }

    #[test]
    fn with_a_lot_to_do_the_thread_rests_its_timers_ring_and_afterwards_it_is_left_alone() {
        let rest = Arc::<Rest>::default();
        let rang = AtomicBool::new(false);
        let is_resting = || rest.resting.load(Ordering::SeqCst);
        work_until(&rest, is_resting);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..5 {
                    block_on(Delay::new(NAP * 3));
                }
                rang.store(true, Ordering::SeqCst);
            });
            work_until(&rest, || rang.load(Ordering::SeqCst));
        });
        let began = Instant::now();
        while is_resting() {
            assert!(began.elapsed() < Duration::from_secs(60), "there is nothing to do any more");
            thread::sleep(NAP);
        }
        // Woken now and then, a worker is no reason.
        for _ in 0..20 {
            drop(Shift::begin(&rest));
            thread::sleep(NAP);
        }
        assert!(!is_resting());
    }

    #[test]
    fn only_futures_timers_thread_is_put_to_sleep() {
        let rest = Arc::<Rest>::default();
        rest.resting.store(true, Ordering::SeqCst);
        rest.at_work.store(1, Ordering::SeqCst);
        Waker::from(rest.clone()).wake();
        assert!(!rest.resting.load(Ordering::SeqCst));
    }

    #[test]
    fn timers_that_are_set_while_there_is_a_lot_to_do_wake_the_thread_now_and_then_not_each_time() {
        const TIMERS: usize = 20_000;
        /// How often futures-timer's thread has waited and was woken.
        fn wake_ups() -> usize {
            let read = |task: &std::fs::DirEntry, file| std::fs::read_to_string(task.path().join(file)).ok();
            let mut tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
            let timers = tasks.find(|t| read(t, "comm").is_some_and(|name| name.trim() == "futures-timer"));
            let status = read(&timers.unwrap(), "status").unwrap();
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
            line.split_whitespace().last().unwrap().parse().unwrap()
        }
        if !cfg!(target_os = "linux") {
            return;
        }
        let rest = Arc::<Rest>::default();
        block_on(Delay::new(Duration::ZERO));
        work_until(&rest, || rest.resting.load(Ordering::SeqCst));
        let before = wake_ups();
        let shift = Shift::begin(&rest);
        for _ in 0..TIMERS {
            drop(Delay::new(Duration::from_secs(10)));
            // A while in which that thread, if it waited, would be back at waiting.
            for _ in 0..2000 {
                std::hint::spin_loop();
            }
        }
        drop(shift);
        let woken = wake_ups() - before;
        assert!(woken < TIMERS / 4, "woken {woken} times for {TIMERS} timers");
    }
}
