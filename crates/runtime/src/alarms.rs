//! Alarms by time, and the timers that own them: pure but for the clock they are asked on.
//!
//! A clock's *driver* is the thread that sleeps until the next alarm: the thread in the poller's kernel wait, the thread of
//! `alarm_thread.rs`, a simulated world. It is interrupted only for an alarm that is due before it would wake
//! anyway. Moving an alarm later costs nothing (connections push their idle deadline back with every packet): it is
//! put where it belongs when it comes up first.

use std::{
    collections::BTreeMap,
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Instant, SystemTime},
};

use super::Timer;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What alarms are set on.
pub(super) trait Clock: fmt::Debug + Send + Sync {
    /// The present moment. Must not be asked for while the alarms are locked.
    fn now(&self) -> Instant;

    fn alarms(&self) -> &Mutex<Alarms>;

    /// Wakes the driver: an alarm is due before it would wake.
    fn interrupt(&self);

    /// What the clock on the wall says.
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Alarms by time; the second part of the key tells timers apart.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    by_time: BTreeMap<(Instant, u64), Entry>,
    driver: Driver,
}

#[derive(Debug)]
struct Entry {
    waker: Waker,
    moment: Arc<Mutex<Moment>>,
}

#[derive(Debug, Default)]
struct Moment {
    /// Where the alarm stands among the others.
    armed: Option<Instant>,
    /// When the owner wants to be woken.
    wanted: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Driver {
    /// Looks at the alarms again before it sleeps.
    #[default]
    Awake,
    AsleepUntil(Instant),
    /// Until it is interrupted.
    Asleep,
}

impl Alarms {
    /// When the next alarm rings.
    pub(super) fn next(&mut self) -> Option<Instant> {
        loop {
            let entry = self.by_time.first_entry()?;
            let (at, id) = *entry.key();
            let moved = {
                let mut moment = lock(&entry.get().moment);
                match moment.wanted {
                    Some(wanted) if wanted > at => {
                        moment.armed = Some(wanted);
                        wanted
                    }
                    _ => return Some(at),
                }
            };
            let entry = entry.remove();
            self.by_time.insert((moved, id), entry);
        }
    }

    /// As [`next`](Self::next), and the driver sleeps until then.
    pub(super) fn sleep(&mut self) -> Option<Instant> {
        let next = self.next();
        self.driver = next.map_or(Driver::Asleep, Driver::AsleepUntil);
        next
    }

    /// Takes out the alarms that are due at `now`, for the driver, which is awake. To be woken once the lock is
    /// released.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Waker> {
        self.driver = Driver::Awake;
        let mut due = Vec::new();
        while self.next().is_some_and(|at| at <= now)
            && let Some((_, entry)) = self.by_time.pop_first()
        {
            lock(&entry.moment).armed = None;
            due.push(entry.waker);
        }
        due
    }

    /// Takes out all alarms: there is no driver any more. To be woken, so that their owners set them elsewhere.
    #[cfg(target_os = "linux")]
    pub(super) fn take_all(&mut self) -> Vec<Waker> {
        let disarm = |entry: Entry| {
            lock(&entry.moment).armed = None;
            entry.waker
        };
        mem::take(&mut self.by_time).into_values().map(disarm).collect()
    }

    /// Whether the driver must be interrupted.
    #[must_use]
    fn insert(&mut self, at: Instant, id: u64, entry: Entry) -> bool {
        self.by_time.insert((at, id), entry);
        let sleeps_past = match self.driver {
            Driver::Awake => false,
            Driver::AsleepUntil(then) => at < then,
            Driver::Asleep => true,
        };
        if sleeps_past {
            self.driver = Driver::Awake;
        }
        sleeps_past
    }
}

/// A timer on a clock.
#[derive(Debug)]
pub(super) struct ClockTimer {
    clock: Arc<dyn Clock>,
    id: u64,
    moment: Arc<Mutex<Moment>>,
}

impl ClockTimer {
    /// Not set yet.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { clock, id: NEXT.fetch_add(1, Ordering::Relaxed), moment: Arc::default() }
    }

    pub(super) fn is_on(&self, clock: &Arc<dyn Clock>) -> bool {
        Arc::ptr_eq(&self.clock, clock)
    }

    /// The entry must not be dropped before the locks are released: with its waker may go a task and its timers.
    fn disarm(&self, alarms: &mut Alarms, moment: &mut Moment) -> Option<Entry> {
        moment.armed.take().and_then(|at| alarms.by_time.remove(&(at, self.id)))
    }
}

impl Timer for ClockTimer {
    fn set(&mut self, at: Option<Instant>) {
        {
            let mut moment = lock(&self.moment);
            if moment.armed.is_none_or(|armed| at.is_some_and(|at| armed <= at)) {
                moment.wanted = at;
                return;
            }
        }
        let (mut removed, mut must_interrupt) = (None, false);
        {
            let mut alarms = lock(self.clock.alarms());
            let mut moment = lock(&self.moment);
            moment.wanted = at;
            match (self.disarm(&mut alarms, &mut moment), at) {
                (Some(entry), Some(at)) => {
                    moment.armed = Some(at);
                    must_interrupt = alarms.insert(at, self.id, entry);
                }
                (entry, _) => removed = entry,
            }
        }
        drop(removed);
        if must_interrupt {
            self.clock.interrupt();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if lock(&self.moment).wanted.is_none() {
            return Poll::Pending;
        }
        let (now, mut waker) = (self.clock.now(), cx.waker().clone());
        let (removed, must_interrupt);
        {
            let mut alarms = lock(self.clock.alarms());
            let mut moment = lock(&self.moment);
            let Some(wanted) = moment.wanted else { return Poll::Pending };
            if wanted <= now {
                moment.wanted = None;
                removed = self.disarm(&mut alarms, &mut moment);
                drop((alarms, moment));
                drop(removed);
                return Poll::Ready(());
            }
            if let Some(at) = moment.armed
                && at <= wanted
                && let Some(entry) = alarms.by_time.get_mut(&(at, self.id))
            {
                mem::swap(&mut entry.waker, &mut waker);
                drop((alarms, moment));
                return Poll::Pending;
            }
            removed = self.disarm(&mut alarms, &mut moment);
            moment.armed = Some(wanted);
            let entry = Entry { waker, moment: self.moment.clone() };
            must_interrupt = alarms.insert(wanted, self.id, entry);
        }
        drop(removed);
        if must_interrupt {
            self.clock.interrupt();
        }
        Poll::Pending
    }
}

impl Drop for ClockTimer {
    fn drop(&mut self) {
        if lock(&self.moment).armed.is_none() {
            return;
        }
        let removed = {
            let mut alarms = lock(self.clock.alarms());
            self.disarm(&mut alarms, &mut lock(&self.moment))
        };
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicUsize},
        task::Wake,
        time::Duration,
    };

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug)]
    struct TestClock {
        now: Mutex<Instant>,
        alarms: Mutex<Alarms>,
        interrupts: AtomicUsize,
    }

    impl Clock for TestClock {
        fn now(&self) -> Instant {
            *lock(&self.now)
        }

        fn alarms(&self) -> &Mutex<Alarms> {
            &self.alarms
        }

        fn interrupt(&self) {
            self.interrupts.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Set(usize, Option<u64>),
        Poll(usize),
        Replace(usize),
        Sleep,
        Pass(u64),
    }

    const TIMERS: usize = 4;

    fn op() -> impl Strategy<Value = Op> {
        let timer = 0..TIMERS;
        prop_oneof![
            3 => (timer.clone(), prop::option::weighted(0.8, 0_u64..50)).prop_map(|(n, ms)| Op::Set(n, ms)),
            3 => timer.clone().prop_map(Op::Poll),
            1 => timer.prop_map(Op::Replace),
            1 => Just(Op::Sleep),
            2 => (0_u64..20).prop_map(Op::Pass),
        ]
    }

    /// What a timer is expected to do.
    #[derive(Clone, Copy, Default)]
    struct Expected {
        wanted: Option<Instant>,
        /// It was polled, and its task has not been woken since.
        waits: bool,
    }

    proptest! {
        #[test]
        fn alarms_do_as_a_list_of_moments_does_and_interrupt_only_for_an_earlier_one(
            ops in prop::collection::vec(op(), 1..120)
        ) {
            let start = Instant::now();
            let clock = Arc::new(TestClock {
                now: Mutex::new(start), alarms: Mutex::default(), interrupts: AtomicUsize::new(0),
            });
            let new = || ClockTimer::new(clock.clone());
            let mut timers: [ClockTimer; TIMERS] = std::array::from_fn(|_| new());
            let mut model = [Expected::default(); TIMERS];
            let flags: [Arc<Flag>; TIMERS] = Default::default();
            // When the driver wakes; `None` while it is awake, far away for never.
            let mut asleep: Option<Instant> = None;
            let never = start + Duration::from_secs(1_000_000);
            for op in ops {
                let now = clock.now();
                let before = clock.interrupts.load(Ordering::Relaxed);
                // An alarm that is due before the driver wakes.
                let mut earlier = false;
                match op {
                    Op::Set(n, ms) => {
                        let at = ms.map(|ms| now + Duration::from_millis(ms));
                        timers[n].set(at);
                        model[n].wanted = at;
                        model[n].waits &= at.is_some();
                        earlier = model[n].waits && at.zip(asleep).is_some_and(|(at, then)| at < then);
                    }
                    Op::Poll(n) => {
                        let waker = Waker::from(flags[n].clone());
                        let is_ready = timers[n].poll(&mut Context::from_waker(&waker)).is_ready();
                        prop_assert_eq!(is_ready, model[n].wanted.is_some_and(|at| at <= now));
                        if is_ready {
                            model[n] = Expected::default();
                        } else if let Some(at) = model[n].wanted {
                            model[n].waits = true;
                            earlier = asleep.is_some_and(|then| at < then);
                        }
                    }
                    Op::Replace(n) => {
                        timers[n] = new();
                        model[n] = Expected::default();
                    }
                    Op::Sleep => {
                        let next = lock(&clock.alarms).sleep();
                        let expected = model.iter().filter(|e| e.waits).filter_map(|e| e.wanted).min();
                        prop_assert_eq!(next, expected);
                        asleep = Some(next.unwrap_or(never));
                    }
                    Op::Pass(ms) => {
                        let now = now + Duration::from_millis(ms);
                        *lock(&clock.now) = now;
                        let due = lock(&clock.alarms).take_due(now);
                        due.into_iter().for_each(Waker::wake);
                        asleep = None;
                        for (n, expected) in model.iter_mut().enumerate() {
                            let rings = expected.waits && expected.wanted.is_some_and(|at| at <= now);
                            prop_assert_eq!(flags[n].0.swap(false, Ordering::Relaxed), rings);
                            expected.waits &= !rings;
                        }
                    }
                }
                let interrupted = clock.interrupts.load(Ordering::Relaxed) - before;
                prop_assert_eq!(interrupted, usize::from(earlier));
                if earlier {
                    asleep = None;
                }
            }
            drop(timers);
            prop_assert!(lock(&clock.alarms).by_time.is_empty(), "a timer that is gone leaves nothing");
        }
    }
}
