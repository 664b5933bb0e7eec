//! The alarms of a poller: which rings next, and the timers that own them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Instant,
};

use super::{
    Timer,
    poller::{Poller, lock},
};

/// Alarms by time; the second part of the key tells timers apart.
pub(super) type Alarms = BTreeMap<(Instant, u64), (Waker, Arc<Mutex<Alarm>>)>;

/// Moving an alarm later costs nothing (connections push their idle deadline back with every packet): it
/// is put where it belongs when it comes up first.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    /// Where it stands among the timers.
    pub(super) armed: Option<Instant>,
    /// When the owner wants to be woken.
    wanted: Option<Instant>,
}

/// The alarm that rings next. Those before it that were moved later or switched off do not.
pub(super) fn first(timers: &mut Alarms) -> Option<(Instant, u64)> {
    loop {
        let entry = timers.first_entry()?;
        let (at, id) = *entry.key();
        let wanted = {
            let mut alarm = lock(&entry.get().1);
            if alarm.wanted.is_some_and(|wanted| wanted <= at) {
                return Some((at, id));
            }
            alarm.armed = alarm.wanted;
            alarm.wanted
        };
        let moved = entry.remove();
        if let Some(wanted) = wanted {
            timers.insert((wanted, id), moved);
        }
    }
}

#[derive(Debug)]
pub(super) struct PolledTimer {
    poller: Arc<Poller>,
    id: u64,
    alarm: Arc<Mutex<Alarm>>,
}

impl PolledTimer {
    /// Not set yet.
    pub(super) fn boxed(poller: Arc<Poller>, id: u64) -> Box<dyn Timer> {
        Box::new(Self { poller, id, alarm: Arc::default() })
    }

    fn disarm(&self, timers: &mut Alarms, alarm: &mut Alarm) {
        if let Some(at) = alarm.armed.take() {
            timers.remove(&(at, self.id));
        }
    }
}

impl Timer for PolledTimer {
    fn set(&mut self, at: Option<Instant>) {
        lock(&self.alarm).wanted = at;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut timers = lock(&self.poller.timers);
        let mut alarm = lock(&self.alarm);
        let Some(wanted) = alarm.wanted else { return Poll::Pending };
        if wanted <= Instant::now() {
            self.disarm(&mut timers, &mut alarm);
            alarm.wanted = None;
            return Poll::Ready(());
        }
        if let Some(at) = alarm.armed
            && at <= wanted
            && let Some((waker, _)) = timers.get_mut(&(at, self.id))
        {
            waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        self.disarm(&mut timers, &mut alarm);
        alarm.armed = Some(wanted);
        timers.insert((wanted, self.id), (cx.waker().clone(), self.alarm.clone()));
        let is_first = timers.first_key_value().is_some_and(|(key, _)| *key == (wanted, self.id));
        drop((timers, alarm));
        if is_first && self.poller.waiting.load(Ordering::SeqCst) {
            self.poller.interrupt();
        }
        Poll::Pending
    }
}

impl Drop for PolledTimer {
    fn drop(&mut self) {
        self.disarm(&mut lock(&self.poller.timers), &mut lock(&self.alarm));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::poll_fn;

    use super::*;

    async fn is_pending(timer: &mut dyn Timer) -> bool {
        poll_fn(|cx| Poll::Ready(timer.poll(cx).is_pending())).await
    }

    #[test]
    fn an_alarm_that_was_moved_later_or_switched_off_wakes_nobody_at_its_old_moment() {
        let poller = Poller::new().unwrap();
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let (mut moved, mut off, mut last) = (poller.timer(), poller.timer(), poller.timer());
        poller.block_on(async {
            for (timer, s) in [(&mut moved, 1), (&mut off, 2), (&mut last, 3)] {
                timer.set(Some(at(s)));
                assert!(is_pending(&mut **timer).await);
            }
        });
        moved.set(Some(at(4)));
        off.set(None);
        assert_eq!(first(&mut lock(&poller.timers)).unwrap().0, at(3));
        last.set(Some(at(5)));
        assert_eq!(first(&mut lock(&poller.timers)).unwrap().0, at(4));
        // It is off, and set again as if it were new.
        off.set(Some(at(1)));
        poller.block_on(async { assert!(is_pending(&mut *off).await) });
        assert_eq!(first(&mut lock(&poller.timers)).unwrap().0, at(1));
        drop((moved, off, last));
        assert!(lock(&poller.timers).is_empty());
    }
}
