//! A single-threaded executor that runs tasks in the order in which they were woken.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Wake, Waker},
};

use futures::future::BoxFuture;

use super::lock;

#[derive(Default)]
pub(super) struct Executor {
    tasks: Mutex<Tasks>,
    ready: Arc<Ready>,
}

#[derive(Default)]
struct Tasks {
    by_id: BTreeMap<u64, Task>,
    last: u64,
}

struct Task {
    host: usize,
    /// `None` while the task is being polled.
    future: Option<BoxFuture<'static, ()>>,
    waker: Waker,
}

#[derive(Default)]
struct Ready {
    queue: Mutex<VecDeque<Arc<TaskWaker>>>,
    /// The future given to `block_on` is woken.
    main: AtomicBool,
    /// Of so many wake-ups of tasks one is lost; 0: none.
    lose: AtomicU64,
    wake_ups: AtomicU64,
}

impl Ready {
    fn is_lost(&self) -> bool {
        let lose = self.lose.load(Ordering::Relaxed);
        lose > 0 && self.wake_ups.fetch_add(1, Ordering::Relaxed) % lose == lose - 1
    }
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.ready.is_lost() && !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.ready.queue).push_back(self.clone());
        }
    }
}

struct MainWaker(Arc<Ready>);

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        self.0.main.store(true, Ordering::Relaxed);
    }
}

impl Executor {
    /// A task that runs on `host`.
    pub(super) fn spawn(&self, host: usize, task: BoxFuture<'static, ()>) {
        let mut tasks = lock(&self.tasks);
        tasks.last += 1;
        let id = tasks.last;
        let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(false), ready: self.ready.clone() });
        tasks.by_id.insert(id, Task { host, future: Some(task), waker: waker.clone().into() });
        drop(tasks);
        waker.wake();
    }

    pub(super) fn lose_wake_ups(&self, one_of: u64) {
        self.ready.lose.store(one_of, Ordering::Relaxed);
    }

    /// Marks the future of `block_on` as ready, and gives the waker for it.
    pub(super) fn main_waker(&self) -> Waker {
        let waker = Arc::new(MainWaker(self.ready.clone()));
        waker.clone().wake();
        waker.into()
    }

    pub(super) fn take_main(&self) -> bool {
        self.ready.main.swap(false, Ordering::Relaxed)
    }

    pub(super) fn main_is_woken(&self) -> bool {
        self.ready.main.load(Ordering::Relaxed)
    }

    /// Drops all tasks. They may hold on to the world that this is a part of.
    pub(super) fn clear(&self) {
        let tasks = mem::take(&mut lock(&self.tasks).by_id);
        // Some of them end others, or start new ones.
        drop(tasks);
    }

    /// Drops the tasks of `host`, and those that they start as they are dropped.
    pub(super) fn clear_host(&self, host: usize) {
        loop {
            let taken: Vec<_> = {
                let mut tasks = lock(&self.tasks);
                let ids: Vec<_> =
                    tasks.by_id.iter().filter(|(_, t)| t.host == host).map(|(id, _)| *id).collect();
                ids.iter().filter_map(|id| tasks.by_id.remove(id)).collect()
            };
            if taken.is_empty() {
                return;
            }
        }
    }

    /// How many tasks of `host` there are.
    pub(super) fn count(&self, host: usize) -> usize {
        lock(&self.tasks).by_id.values().filter(|task| task.host == host).count()
    }

    /// Polls one task that is ready, calling `enter` with its host before; false when there is none.
    pub(super) fn run_ready(&self, enter: impl FnOnce(usize)) -> bool {
        let Some(woken) = lock(&self.ready.queue).pop_front() else { return false };
        // It may be woken again while it runs.
        woken.queued.store(false, Ordering::Relaxed);
        let taken = lock(&self.tasks)
            .by_id
            .get_mut(&woken.id)
            .and_then(|task| Some((task.host, task.future.take()?, task.waker.clone())));
        let Some((host, mut future, waker)) = taken else { return true };
        enter(host);
        let done = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut tasks = lock(&self.tasks);
        if done {
            let task = tasks.by_id.remove(&woken.id);
            drop(tasks);
            drop((task, future));
        } else if let Some(task) = tasks.by_id.get_mut(&woken.id) {
            task.future = Some(future);
        }
        true
    }
}
