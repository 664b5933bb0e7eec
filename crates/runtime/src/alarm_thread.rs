//! The thread that keeps alarms where no runtime of this crate runs. Started when the first of them is set, it lives
//! as long as the process.

use std::{
    sync::{Arc, Mutex, OnceLock},
    task::Waker,
    thread::{self, Thread},
    time::Instant,
};

use super::alarms::{Alarms, Clock, lock};

#[derive(Debug)]
struct AlarmThread {
    alarms: Mutex<Alarms>,
    thread: OnceLock<Thread>,
}

/// `None` when the thread cannot be started: then it is tried anew the next time.
pub(super) fn clock() -> Option<Arc<dyn Clock>> {
    static CLOCK: Mutex<Option<Arc<AlarmThread>>> = Mutex::new(None);
    let mut started = lock(&CLOCK);
    if let Some(clock) = &*started {
        return Some(clock.clone());
    }
    let clock = Arc::new(AlarmThread { alarms: Mutex::default(), thread: OnceLock::new() });
    let driver = clock.clone();
    match thread::Builder::new().name("smidge-alarms".into()).spawn(move || driver.run()) {
        Ok(handle) => {
            let _ = clock.thread.set(handle.thread().clone());
            *started = Some(clock.clone());
            Some(clock)
        }
        Err(e) => {
            log::debug!("no thread for alarms: {e}");
            None
        }
    }
}

impl AlarmThread {
    fn run(&self) {
        loop {
            let due = lock(&self.alarms).take_due(Instant::now());
            due.into_iter().for_each(Waker::wake);
            // In a statement of its own: the lock is released before the thread sleeps.
            let next = lock(&self.alarms).sleep();
            match next {
                Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
                None => thread::park(),
            }
        }
    }
}

impl Clock for AlarmThread {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn alarms(&self) -> &Mutex<Alarms> {
        &self.alarms
    }

    fn interrupt(&self) {
        // Set before the clock is shared.
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}
