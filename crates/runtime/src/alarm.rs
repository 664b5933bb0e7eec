//! Time for code that has no [`Handle`](super::Handle), as libp2p's behaviours have none: the present moment, what the clock on
//! the wall says, and an alarm.

use std::{
    cell::RefCell,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use super::{
    Timer, alarm_thread,
    alarms::{Clock, ClockTimer},
    reactor::ReactorTimer,
};

thread_local! {
    /// The clock of the runtime that runs on this thread.
    static CURRENT: RefCell<Option<Arc<dyn Clock>>> = const { RefCell::new(None) };
}

/// Makes `clock` that of this thread until the result is dropped.
pub(super) fn enter(clock: Arc<dyn Clock>) -> Entered {
    Entered(CURRENT.with(|current| current.replace(Some(clock))))
}

/// Restores what was before.
pub(super) struct Entered(Option<Arc<dyn Clock>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        // It fails only when the thread ends, and the clock with it.
        let _ = CURRENT.try_with(|current| current.replace(before));
    }
}

fn current() -> Option<Arc<dyn Clock>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// The present moment: on a thread of a simulated world on its clock, everywhere else [`Instant::now`].
pub fn now() -> Instant {
    current().map_or_else(Instant::now, |clock| clock.now())
}

/// What the clock on the wall says, which may be set: on a thread of a simulated world that of the host whose task runs,
/// everywhere else [`SystemTime::now`].
pub fn wall() -> SystemTime {
    current().map_or_else(SystemTime::now, |clock| clock.wall())
}

/// An alarm that rings wherever it is polled: on a thread of a runtime of this crate as one of its timers, on a
/// thread of a [simulated world](crate) on its clock, elsewhere by a thread that all such alarms of a process share.
///
/// It may be polled in different places one after the other. Setting, moving and dropping an alarm wakes no thread
/// unless it is due before all others.
///
/// A thread of a runtime must not block until an alarm rings that was polled on it (`futures::executor::block_on`
/// within a task): like all timers of a runtime, the alarm rings when a thread of the runtime is idle.
#[derive(Debug)]
pub struct Alarm {
    at: Option<Instant>,
    timer: Option<OnClock>,
}

enum OnClock {
    Clock(ClockTimer),
    /// No thread can be started.
    Reactor(Box<dyn Timer>),
}

impl std::fmt::Debug for OnClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clock(timer) => timer.fmt(f),
            Self::Reactor(_) => f.write_str("Reactor"),
        }
    }
}

impl OnClock {
    fn timer(&mut self) -> &mut dyn Timer {
        match self {
            Self::Clock(timer) => timer,
            Self::Reactor(timer) => &mut **timer,
        }
    }
}

impl Alarm {
    /// An alarm that rings `duration` from now; a duration past the clock's end is never.
    pub fn after(duration: Duration) -> Self {
        Self { at: Self::from_now(duration), timer: None }
    }

    /// Moves the alarm to `duration` from now. A task that waits for it need not poll it again.
    pub fn set_after(&mut self, duration: Duration) {
        self.at = Self::from_now(duration);
        if let Some(timer) = &mut self.timer {
            timer.timer().set(self.at);
        }
    }

    fn from_now(duration: Duration) -> Option<Instant> {
        now().checked_add(duration)
    }

    /// Ready once the alarm's moment has passed; then the alarm is off, and pending, with no wake-up to come,
    /// until it is set again.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.at.is_none() {
            return Poll::Pending;
        }
        let clock = current().or_else(alarm_thread::clock);
        let fits = match (&self.timer, &clock) {
            (Some(OnClock::Clock(timer)), Some(clock)) => timer.is_on(clock),
            (Some(OnClock::Reactor(_)), None) => true,
            _ => false,
        };
        if !fits {
            self.timer = None;
        }
        let timer = self.timer.get_or_insert_with(|| {
            let mut timer = match clock {
                Some(clock) => OnClock::Clock(ClockTimer::new(clock)),
                None => OnClock::Reactor(ReactorTimer::boxed()),
            };
            timer.timer().set(self.at);
            timer
        });
        let polled = timer.timer().poll(cx);
        if polled.is_ready() {
            self.at = None;
        }
        polled
    }
}
