//! Bounded queues that several read, each from the moment it came on.
//!
//! A queue is bounded in items and in bytes, and all queues of a [`Budget`] together in bytes: the oldest items make
//! room for new ones. A reader that is too slow loses them, hears how many, and stalls no other. Never waits for a
//! reader, and never knows what it carries.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use futures::Stream;
use prometheus_client::metrics::counter::Counter;

/// What a subscriber gets, or does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery<T> {
    /// The next one.
    Item(T),
    /// The subscriber was too slow: this many, the oldest, are lost to it.
    Lost(u64),
    /// Of a subscription that begins in the past: some of what lay between that and the next message is remembered no more,
    /// and gone for good.
    Gone,
}

/// A bounded stream of what happens, oldest first; it ends when the node does, and only then.
///
/// A reader that is too slow loses the oldest items. The stream passes over them; [`lost`](Self::lost) counts them,
/// and [`next_delivery`](Self::next_delivery) says where they were.
pub struct Feed<T> {
    queue: Shared<T>,
    /// Among the readers of this queue.
    id: u64,
    /// The number of the next item.
    next: u64,
    lost: u64,
    /// Where what this node's subscribers lose is counted.
    counter: Counter,
}

/// What a queue holds at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) items: usize,
    /// The newest item is held in any case.
    pub(crate) bytes: usize,
}

/// The bytes that several queues hold together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget(Arc<AtomicUsize>);

/// Bytes that an item holds, about.
pub(crate) trait Weight {
    fn weight(&self) -> usize;
}

/// The end of a queue that is written to. The readers' streams end when it is dropped.
pub(crate) struct Sender<T>(Shared<T>);

/// Opens further streams of a queue. It keeps no queue open.
pub(crate) struct Opener<T>(Shared<T>);

type Shared<T> = Arc<Mutex<Queue<T>>>;

/// What an idle queue keeps room for.
const IDLE: usize = 16;

struct Item<T> {
    value: T,
    bytes: usize,
    /// Readers that have not come to it: as many as of the item before, or more.
    unread: usize,
}

struct Queue<T> {
    items: VecDeque<Item<T>>,
    /// The number of the first of them.
    first: u64,
    bytes: usize,
    bounds: Bounds,
    budget: Budget,
    readers: usize,
    /// Of those that wait for the next item.
    wakers: BTreeMap<u64, Waker>,
    next_reader: u64,
    closed: bool,
}

fn lock<T>(queue: &Shared<T>) -> MutexGuard<'_, Queue<T>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Budget {
    pub(crate) fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T> Queue<T> {
    fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    fn pop(&mut self) -> Option<Item<T>> {
        let item = self.items.pop_front()?;
        self.first += 1;
        self.bytes -= item.bytes;
        self.budget.0.fetch_sub(item.bytes, Ordering::Relaxed);
        if self.items.len() < self.items.capacity() / 4 {
            self.items.shrink_to(IDLE.max(self.items.len() * 2));
        }
        Some(item)
    }

    fn push(&mut self, value: T, bytes: usize) {
        while self.items.len() >= self.bounds.items
            || (!self.items.is_empty() && self.bytes + bytes > self.bounds.bytes)
        {
            self.pop();
        }
        self.bytes += bytes;
        self.budget.0.fetch_add(bytes, Ordering::Relaxed);
        self.items.push_back(Item { value, bytes, unread: self.readers });
    }

    /// A reader that is at `next` leaves.
    fn leave(&mut self, next: u64) {
        self.readers -= 1;
        let skipped = usize::try_from(next - self.first.min(next)).unwrap_or(usize::MAX);
        self.items.iter_mut().skip(skipped).for_each(|item| item.unread -= 1);
        self.forget_read();
    }

    fn forget_read(&mut self) {
        while self.items.front().is_some_and(|item| item.unread == 0) {
            self.pop();
        }
    }
}

impl<T: Clone> Queue<T> {
    /// The item at `next`, which has to be there, for one reader.
    fn read(&mut self, next: u64) -> Option<T> {
        let at = usize::try_from(next - self.first).ok()?;
        let item = self.items.get_mut(at)?;
        item.unread -= 1;
        if item.unread > 0 {
            return Some(item.value.clone());
        }
        // Nobody is behind the last reader of an item.
        self.pop().map(|item| item.value)
    }
}

/// A queue within these bounds, without a reader.
pub(crate) fn queue<T>(bounds: Bounds, budget: &Budget) -> Sender<T> {
    let bounds = Bounds { items: bounds.items.max(1), ..bounds };
    Sender(Arc::new(Mutex::new(Queue {
        items: VecDeque::new(),
        first: 0,
        bytes: 0,
        bounds,
        budget: budget.clone(),
        readers: 0,
        wakers: BTreeMap::new(),
        next_reader: 0,
        closed: false,
    })))
}

impl<T> Sender<T> {
    pub(crate) fn readers(&self) -> usize {
        lock(&self.0).readers
    }

    /// Bytes that wait for readers.
    pub(crate) fn bytes(&self) -> usize {
        lock(&self.0).bytes
    }

    pub(crate) fn opener(&self) -> Opener<T> {
        Opener(self.0.clone())
    }

    /// Gives up the oldest item; says whether there was one.
    pub(crate) fn shed(&self) -> bool {
        lock(&self.0).pop().is_some()
    }
}

impl<T: Clone + Weight> Sender<T> {
    /// Gives `item` to all readers, if there are any; it is copied only then.
    pub(crate) fn send(&self, item: &T) {
        if self.readers() > 0 {
            self.give(item.clone());
        }
    }

    /// The same, of an item that nobody else needs.
    pub(crate) fn give(&self, item: T) {
        let wakers = {
            let mut queue = lock(&self.0);
            if queue.readers == 0 {
                return;
            }
            let bytes = item.weight();
            queue.push(item, bytes);
            std::mem::take(&mut queue.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let wakers = {
            let mut queue = lock(&self.0);
            queue.closed = true;
            // What is left is the readers' own, and takes nothing away from other queues.
            queue.budget.0.fetch_sub(queue.bytes, Ordering::Relaxed);
            queue.budget = Budget(Arc::new(AtomicUsize::new(queue.bytes)));
            std::mem::take(&mut queue.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }
}

impl<T> Opener<T> {
    /// A stream from now on; what it loses is added to `lost`.
    pub(crate) fn open(&self, lost: &Counter) -> Feed<T> {
        let mut queue = lock(&self.0);
        queue.readers += 1;
        queue.next_reader += 1;
        let (id, next) = (queue.next_reader, queue.end());
        drop(queue);
        Feed { queue: self.0.clone(), id, next, lost: 0, counter: lost.clone() }
    }
}

impl<T> Clone for Opener<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Opener<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

impl<T> Feed<T> {
    /// How many items this subscriber was too slow for so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Passes over what was lost before `first`, the oldest item that is left.
    fn note_lost(&mut self, first: u64) -> u64 {
        let lost = first.saturating_sub(self.next);
        self.next += lost;
        lost
    }

    pub(crate) fn count_lost(&mut self, lost: u64) {
        self.lost += lost;
        self.counter.inc_by(lost);
    }
}

impl<T: Clone> Feed<T> {
    /// The next item, or how many were lost before it; `None` when the node has ended.
    pub async fn next_delivery(&mut self) -> Option<Delivery<T>> {
        poll_fn(|cx| self.poll_delivery(cx)).await
    }

    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery<T>>> {
        let next = ready!(self.poll_uncounted(cx));
        if let Some(Delivery::Lost(lost)) = next {
            self.count_lost(lost);
        }
        Poll::Ready(next)
    }

    /// The same, where the caller counts what was lost.
    pub(crate) fn poll_uncounted(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery<T>>> {
        let shared = self.queue.clone();
        let mut queue = lock(&shared);
        let lost = self.note_lost(queue.first);
        if lost > 0 {
            return Poll::Ready(Some(Delivery::Lost(lost)));
        }
        if self.next < queue.end() {
            let item = queue.read(self.next);
            self.next += 1;
            return Poll::Ready(item.map(Delivery::Item));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.wakers.insert(self.id, cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        let shared = self.queue.clone();
        let mut queue = lock(&shared);
        let lost = self.note_lost(queue.first);
        self.count_lost(lost);
        queue.wakers.remove(&self.id);
        queue.leave(self.next);
    }
}

impl<T> fmt::Debug for Feed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("next", &self.next).field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl<T: Clone> Stream for Feed<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            match ready!(self.poll_delivery(cx)) {
                Some(Delivery::Item(item)) => return Poll::Ready(Some(item)),
                Some(Delivery::Lost(_) | Delivery::Gone) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    impl Weight for (u64, usize) {
        fn weight(&self) -> usize {
            self.1
        }
    }

    type Number = (u64, usize);

    fn next(feed: &mut Feed<Number>) -> Option<Delivery<Number>> {
        feed.next_delivery().now_or_never().flatten()
    }

    #[test]
    fn a_queue_is_bounded_in_bytes_and_holds_the_newest_in_any_case() {
        let budget = Budget::default();
        let sender = queue(Bounds { items: 100, bytes: 1000 }, &budget);
        let lost = Counter::default();
        let mut slow = sender.opener().open(&lost);
        (0..10).for_each(|n| sender.send(&(n, 300)));
        assert_eq!((sender.bytes(), budget.held()), (900, 900));
        assert_eq!(next(&mut slow), Some(Delivery::Lost(7)));
        assert_eq!(next(&mut slow), Some(Delivery::Item((7, 300))));
        sender.send(&(10, 5000));
        assert_eq!(budget.held(), 5000);
        assert_eq!(next(&mut slow), Some(Delivery::Lost(2)));
        assert_eq!(next(&mut slow), Some(Delivery::Item((10, 5000))));
        assert_eq!((next(&mut slow), budget.held(), lost.get()), (None, 0, 9));
    }

    #[test]
    fn a_reader_that_leaves_gives_back_what_waited_for_it_alone_and_its_losses_count() {
        let budget = Budget::default();
        let sender = queue(Bounds { items: 4, bytes: 1000 }, &budget);
        let (lost, opener) = (Counter::default(), sender.opener());
        let (mut quick, slow) = (opener.open(&lost), opener.open(&lost));
        for n in 0..6 {
            sender.send(&(n, 10));
            assert_eq!(next(&mut quick), Some(Delivery::Item((n, 10))));
        }
        assert_eq!(budget.held(), 40);
        drop(slow);
        assert_eq!((budget.held(), lost.get()), (0, 2));
        drop(quick);
        sender.send(&(0, 10));
        assert_eq!(budget.held(), 0, "nobody reads");
    }

    #[test]
    fn an_idle_queue_keeps_no_room() {
        let sender = queue(Bounds { items: 10_000, bytes: 1 << 20 }, &Budget::default());
        let mut reader = sender.opener().open(&Counter::default());
        (0..10_000).for_each(|n| sender.send(&(n, 1)));
        while let Some(Delivery::Item(_)) = next(&mut reader) {}
        assert!(lock(&sender.0).items.capacity() <= 4 * IDLE, "{}", lock(&sender.0).items.capacity());
    }

    #[test]
    fn a_reader_that_waits_is_woken_by_the_next_item_and_by_the_end() {
        let sender = queue(Bounds { items: 8, bytes: 100 }, &Budget::default());
        let mut reader = sender.opener().open(&Counter::default());
        let one = std::thread::scope(|scope| {
            let waits = scope.spawn(|| futures::executor::block_on(reader.next_delivery()));
            while lock(&sender.0).wakers.is_empty() {
                std::thread::yield_now();
            }
            sender.send(&(1, 1));
            waits.join().unwrap()
        });
        assert_eq!(one, Some(Delivery::Item((1, 1))));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| futures::executor::block_on(reader.next_delivery()));
            drop(sender);
            assert_eq!(waits.join().unwrap(), None);
        });
    }

    proptest! {
        /// Whatever readers do, each gets the items in order or the number of those that are missing, and the count of
        /// bytes is that of what is held.
        #[test]
        fn nothing_is_lost_without_being_counted(steps in prop::collection::vec((0..5_u8, 1..400_usize), 0..200)) {
            let budget = Budget::default();
            let sender = queue(Bounds { items: 6, bytes: 1000 }, &budget);
            let (lost, mut sent) = (Counter::default(), 0);
            let mut readers: Vec<(Feed<Number>, u64)> = Vec::new();
            for (what, n) in steps {
                match what {
                    0 if readers.len() < 4 => readers.push((sender.opener().open(&lost), sent)),
                    1 if !readers.is_empty() => drop(readers.swap_remove(n % readers.len())),
                    2 | 3 if !readers.is_empty() => {
                        let at = n % readers.len();
                        let (reader, expected) = &mut readers[at];
                        match next(reader) {
                            Some(Delivery::Item((number, _))) => {
                                prop_assert_eq!(number, *expected);
                                *expected += 1;
                            }
                            Some(Delivery::Lost(lost)) => *expected += lost,
                            Some(Delivery::Gone) => prop_assert!(false, "that is of memories"),
                            None => prop_assert_eq!(*expected, sent),
                        }
                    }
                    _ => {
                        sender.send(&(sent, n));
                        sent += 1;
                    }
                }
                let queue = lock(&sender.0);
                let bytes: usize = queue.items.iter().map(|item| item.bytes).sum();
                prop_assert_eq!((queue.bytes, budget.held()), (bytes, bytes));
                prop_assert!(bytes <= 1000 && queue.items.len() <= 6);
                prop_assert!(queue.items.iter().all(|item| item.unread > 0));
            }
        }
    }
}
