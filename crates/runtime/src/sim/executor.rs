//! A single-threaded executor that runs tasks in the order in which they were woken.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Wake, Waker},
};

use futures::future::BoxFuture;

/// The id of the future given to `block_on`.
const MAIN: u64 = 0;

#[derive(Default)]
pub(super) struct Executor {
    tasks: Mutex<Tasks>,
    ready: Arc<Ready>,
}

#[derive(Default)]
struct Tasks {
    /// `None` while a task is being polled.
    by_id: HashMap<u64, Option<BoxFuture<'static, ()>>>,
    last: u64,
}

#[derive(Default)]
struct Ready(Mutex<VecDeque<u64>>);

impl Ready {
    fn push(&self, id: u64) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.contains(&id) {
            queue.push_back(id);
        }
    }

    fn pop_task(&self) -> Option<u64> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = queue.iter().position(|id| *id != MAIN)?;
        queue.remove(at)
    }

    fn take(&self, id: u64) -> bool {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = queue.len();
        queue.retain(|other| *other != id);
        queue.len() < before
    }
}

struct TaskWaker {
    id: u64,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.push(self.id);
    }
}

impl Executor {
    fn waker(&self, id: u64) -> Waker {
        Arc::new(TaskWaker { id, ready: self.ready.clone() }).into()
    }

    pub(super) fn spawn(&self, task: BoxFuture<'static, ()>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.last += 1;
        let id = tasks.last;
        tasks.by_id.insert(id, Some(task));
        self.ready.push(id);
    }

    /// Marks the future of `block_on` as ready, and gives the waker for it.
    pub(super) fn main_waker(&self) -> Waker {
        self.ready.push(MAIN);
        self.waker(MAIN)
    }

    pub(super) fn take_main(&self) -> bool {
        self.ready.take(MAIN)
    }

    pub(super) fn main_is_woken(&self) -> bool {
        self.ready.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&MAIN)
    }

    /// Drops all tasks. They may hold on to the world that this is a part of.
    pub(super) fn clear(&self) {
        let tasks = std::mem::take(&mut self.tasks.lock().unwrap_or_else(PoisonError::into_inner).by_id);
        // Some of them end others, or start new ones.
        drop(tasks);
    }

    /// Polls one task that is ready; false when there is none.
    pub(super) fn run_ready(&self) -> bool {
        let Some(id) = self.ready.pop_task() else { return false };
        let task = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.by_id.get_mut(&id).and_then(Option::take)
        };
        let Some(mut task) = task else { return true };
        let waker = self.waker(id);
        let done = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if done {
            tasks.by_id.remove(&id);
            drop(tasks);
        } else if let Some(slot) = tasks.by_id.get_mut(&id) {
            *slot = Some(task);
        }
        true
    }
}
