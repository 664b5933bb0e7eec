//! Timers on the simulated clock.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use super::{super::Timer, Inner};

/// The alarms that are waited for, in the order in which they ring.
#[derive(Default)]
pub(super) struct Timers {
    waiting: BTreeMap<(Instant, u64), Waker>,
    last: u64,
}

impl Timers {
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn ring(&mut self, now: Instant) -> Vec<Waker> {
        let later = self.waiting.split_off(&(now, u64::MAX));
        std::mem::replace(&mut self.waiting, later).into_values().collect()
    }
}

pub(super) struct SimTimer {
    world: Arc<Inner>,
    at: Option<Instant>,
    key: Option<(Instant, u64)>,
}

impl SimTimer {
    pub(super) fn new(world: Arc<Inner>) -> Self {
        Self { world, at: None, key: None }
    }

    fn forget(&mut self) {
        if let Some(key) = self.key.take() {
            self.world.lock().timers.waiting.remove(&key);
        }
    }
}

impl Timer for SimTimer {
    fn set(&mut self, at: Option<Instant>) {
        self.at = at;
        self.forget();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        self.forget();
        let mut state = self.world.lock();
        if state.now >= at {
            self.at = None;
            return Poll::Ready(());
        }
        state.timers.last += 1;
        let key = (at, state.timers.last);
        state.timers.waiting.insert(key, cx.waker().clone());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        self.forget();
    }
}
