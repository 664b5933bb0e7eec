//! How many connections and streams there may be, and which connection gives way to a new one.
//!
//! A connection that waits for the head of a request, or for its caller to close it, costs its place and does nothing with it: where all places are
//! taken, the one that has waited longest is let go. Pure: the present moment is handed in.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::channel::oneshot;

/// A counting semaphore.
pub(super) struct Slots {
    taken: Arc<AtomicUsize>,
    limit: usize,
}

/// One of them, free again when this is dropped.
pub(super) struct Slot(Arc<AtomicUsize>);

impl Slots {
    pub(super) fn new(limit: usize) -> Self {
        Self { taken: Arc::default(), limit }
    }

    pub(super) fn take(&self) -> Option<Slot> {
        let more = |taken| (taken < self.limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Slot(self.taken.clone()))
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections, of which those that wait for a request give way.
pub(super) struct Places {
    slots: Slots,
    /// How long a connection waits for a request undisturbed.
    undisturbed: Duration,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// Since when, and how they hear that they are to go; in the order in which they began to wait.
    queue: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
}

/// A connection that waits for a request.
pub(super) struct Wait {
    places: Arc<Places>,
    id: u64,
    /// Ready when the connection is to give way.
    pub(super) given_up: oneshot::Receiver<()>,
}

impl Places {
    pub(super) fn new(limit: usize, undisturbed: Duration) -> Arc<Self> {
        Arc::new(Self { slots: Slots::new(limit), undisturbed, waiting: Mutex::default() })
    }

    /// A place for a new connection, which waits for its first request from now on: a free one, or that of the connection
    /// that has waited longest. Until that one has gone there is one more than the limit.
    pub(super) fn take(self: &Arc<Self>, now: Instant) -> Option<(Slot, Wait)> {
        let slot = self.slots.take().or_else(|| self.displace(now))?;
        Some((slot, self.wait(now)))
    }

    fn displace(&self, now: Instant) -> Option<Slot> {
        loop {
            let mut waiting = self.waiting();
            let oldest = waiting.queue.first_entry()?;
            if now.saturating_duration_since(oldest.get().0) < self.undisturbed {
                return None;
            }
            let (_, go) = oldest.remove();
            // An error says that its request has just come.
            if go.send(()).is_ok() {
                self.slots.taken.fetch_add(1, Ordering::Relaxed);
                return Some(Slot(self.slots.taken.clone()));
            }
        }
    }

    /// Begins to wait for a request.
    pub(super) fn wait(self: &Arc<Self>, now: Instant) -> Wait {
        let (go, given_up) = oneshot::channel();
        let mut waiting = self.waiting();
        let id = waiting.next;
        waiting.next += 1;
        waiting.queue.insert(id, (now, go));
        drop(waiting);
        Wait { places: self.clone(), id, given_up }
    }

    pub(super) fn taken(&self) -> usize {
        self.slots.taken()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.places.waiting().queue.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_and_come_back() {
        let slots = Slots::new(2);
        let one = slots.take().unwrap();
        let _two = slots.take().unwrap();
        assert!(slots.take().is_none());
        drop(one);
        assert!(slots.take().is_some());
        assert_eq!(slots.taken(), 1);
    }

    #[test]
    fn the_connection_that_has_waited_longest_gives_way_and_one_that_is_served_does_not() {
        let places = Places::new(3, Duration::from_millis(100));
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let (slots, waits): (Vec<_>, Vec<_>) = (0..3).map(|_| places.take(start).unwrap()).unzip();
        drop(waits);
        assert!(places.take(at(1000)).is_none(), "all three are being served");

        let mut older = places.wait(at(0));
        let mut younger = places.wait(at(10));
        assert!(places.take(at(99)).is_none(), "nobody has waited for long");
        let (fourth, wait) = places.take(at(100)).unwrap();
        assert_eq!(older.given_up.try_recv(), Ok(Some(())));
        assert_eq!(younger.given_up.try_recv(), Ok(None));
        assert!(places.take(at(100)).is_none(), "the others came later");
        assert_eq!(places.taken(), 4, "until the one that gave way has gone");
        drop(wait);

        // A request that has come is answered.
        drop(younger);
        assert!(places.take(at(500)).is_none());
        drop((slots, fourth, older));
        assert_eq!(places.taken(), 0);
        assert!(places.waiting().queue.is_empty());
    }

    #[test]
    fn a_crowd_that_has_not_been_heard_yet_gives_way_where_nobody_is_spared() {
        let (places, now) = (Places::new(2, Duration::ZERO), Instant::now());
        // Taken in one go, before any of them had the chance to say something.
        let mut crowd: Vec<_> = (0..5).map(|_| places.take(now).unwrap()).collect();
        let gone: Vec<_> =
            crowd.iter_mut().map(|(_, wait)| wait.given_up.try_recv() == Ok(Some(()))).collect();
        assert_eq!(gone, [true, true, true, false, false]);
    }
}
