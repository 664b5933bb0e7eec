//! A worker thread's share of the executor, which whoever brings news may run on the spot.
//!
//! libp2p's timers are futures-timer's: its one thread sleeps until the next of them rings, wakes the task that
//! waits for it, and is woken itself when that task sets the timer anew, as all of gossipsub's ticks do.
//! Handed over to a thread of ours, each tick of an idle node costs three wake-ups. Here the tasks that
//! a timer wakes run on futures-timer's thread while ours sleeps on, which leaves one: the timer is set again
//! before that thread goes back to sleep.
//!
//! A worker's tasks never run on two threads at once, so that as many run at a time as there are workers.

use std::{
    cell::Cell,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

use futures::future::{pending, poll_fn};

use super::rest;

/// What runs tasks until it has none left, and never ends.
pub(super) type Tasks = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Times that tasks which wake each other are run in a row on a thread that is not ours.
const GUEST_TURNS: usize = 8;

/// Runs `main` to its end on this worker thread, and `tasks` until then.
pub(super) async fn run<T>(main: impl Future<Output = T>, tasks: Tasks) -> T {
    /// The tasks hold the runner as their waker, which holds them.
    struct End(Arc<Runner>);
    impl Drop for End {
        fn drop(&mut self) {
            *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner) = Box::pin(pending());
        }
    }
    let worker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let called = Arc::new(Called { due: AtomicBool::new(true), worker: worker.clone() });
    let waker = Waker::from(called.clone());
    let runner = End(Runner::new(tasks, worker));
    let mut main = pin!(main);
    poll_fn(|_| {
        // What main waits for may cost a system call to look at: not at every wake-up of a task.
        if called.due.swap(false, Ordering::SeqCst)
            && let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker))
        {
            return Poll::Ready(output);
        }
        runner.0.run();
        Poll::Pending
    })
    .await
}

/// The waker of a worker's main future.
struct Called {
    due: AtomicBool,
    worker: Waker,
}

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.due.store(true, Ordering::SeqCst);
        self.worker.wake_by_ref();
    }
}

/// Runs tasks, and is the waker of what waits for them.
struct Runner {
    tasks: Mutex<Tasks>,
    /// There is something to run. Whoever sets this sees to it that it is.
    due: AtomicBool,
    /// Wakes the worker that runs these tasks unless somebody else does.
    worker: Waker,
}

impl Runner {
    /// Has something to run at first: the tasks that are there already.
    fn new(tasks: Tasks, worker: Waker) -> Arc<Self> {
        Arc::new(Self { tasks: Mutex::new(tasks), due: AtomicBool::new(true), worker })
    }

    /// Runs what there is to run. To be called by the worker whenever it is woken.
    fn run(self: &Arc<Self>) {
        if !self.due.load(Ordering::SeqCst) {
            return;
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        rest::work(|| self.turn(&mut tasks));
        drop(tasks);
        // Somebody may have left something to a worker that was at it.
        if self.due.load(Ordering::SeqCst) {
            self.worker.wake_by_ref();
        }
    }

    /// Runs what there is to run on a thread that is not the worker's.
    fn run_as_guest(self: &Arc<Self>) {
        let mut tasks = match self.tasks.try_lock() {
            Ok(tasks) => tasks,
            // The worker is at it, or this thread itself further up: they look again when they are done.
            Err(TryLockError::WouldBlock) => return,
            // A task panicked on the worker.
            Err(TryLockError::Poisoned(_)) => return self.worker.wake_by_ref(),
        };
        if HOSTS.replace(true) {
            // Further up on this thread a task is being polled that may hold locks, which tasks of another
            // worker may want.
            drop(tasks);
            return self.worker.wake_by_ref();
        }
        for _ in 0..GUEST_TURNS {
            // A panic is the worker's to die of, not of all timers in the process.
            if catch_unwind(AssertUnwindSafe(|| self.turn(&mut tasks))).is_err() {
                self.due.store(true, Ordering::SeqCst);
                break;
            }
            if !self.due.load(Ordering::SeqCst) {
                break;
            }
        }
        HOSTS.set(false);
        drop(tasks);
        if self.due.load(Ordering::SeqCst) {
            self.worker.wake_by_ref();
        }
    }

    fn turn(self: &Arc<Self>, tasks: &mut Tasks) {
        self.due.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.clone());
        // Never ready: tasks come and go for as long as the runtime lives.
        let _ = tasks.as_mut().poll(&mut Context::from_waker(&waker));
    }
}

impl Wake for Runner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.due.swap(true, Ordering::SeqCst) {
            return;
        }
        if is_host() {
            self.run_as_guest();
        } else {
            self.worker.wake_by_ref();
        }
    }
}

thread_local! {
    /// This thread, which is not a worker, runs tasks at the moment.
    static HOSTS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs what it wakes. futures-timer's holds no lock while it wakes a task (3.0.3).
pub(super) fn is_host() -> bool {
    thread_local! {
        static IS_HOST: bool = thread::current().name() == Some("futures-timer");
    }
    IS_HOST.try_with(|is| *is).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{atomic::AtomicUsize, mpsc},
        time::Duration,
    };

    use futures::{StreamExt, channel::mpsc as channel};

    use super::*;
    use crate::{Runtime, Smol};

    /// Runs `work` on a thread that is taken for futures-timer's.
    fn host(work: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
        thread::Builder::new().name("futures-timer".into()).spawn(work).unwrap()
    }

    /// A task on `runtime` that says on which thread it runs each time a message comes.
    fn echo(runtime: &Smol) -> (channel::Sender<()>, mpsc::Receiver<Option<String>>) {
        let (wake, mut woken) = channel::channel(1);
        let (tell, told) = mpsc::channel();
        runtime.spawn(Box::pin(async move {
            while woken.next().await.is_some() {
                let _ = tell.send(thread::current().name().map(Into::into));
            }
        }));
        (wake, told)
    }

    #[test]
    fn what_a_timer_wakes_runs_on_the_timers_thread() {
        let runtime = Smol::start(1).unwrap();
        let (wake, told) = echo(&runtime);
        // The worker may still be at it, the first times, and then does it itself.
        let on_the_spot = (0..1000).any(|_| {
            let mut wake = wake.clone();
            let host = host(move || wake.try_send(()).unwrap());
            let ran_on = told.recv().unwrap();
            host.join().unwrap();
            ran_on.as_deref() == Some("futures-timer")
        });
        assert!(on_the_spot);
    }

    #[test]
    fn nothing_is_lost_between_a_worker_and_the_threads_that_run_its_tasks_and_they_take_turns() {
        const EACH: usize = 2000;
        let runtime = Smol::start(1).unwrap();
        let at_once = Arc::new(AtomicUsize::new(0));
        let (done, all) = mpsc::channel();
        let mut wakers = Vec::new();
        for _ in 0..8 {
            let (wake, mut woken) = channel::channel::<()>(2 * EACH);
            wakers.push(wake);
            let (at_once, done) = (at_once.clone(), done.clone());
            runtime.spawn(Box::pin(async move {
                for _ in 0..2 * EACH {
                    woken.next().await.unwrap();
                    assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0, "two tasks at once");
                    at_once.fetch_sub(1, Ordering::SeqCst);
                }
                done.send(()).unwrap();
            }));
        }
        let send = |mut wakers: Vec<channel::Sender<()>>| {
            move || (0..EACH).for_each(|_| wakers.iter_mut().for_each(|wake| wake.try_send(()).unwrap()))
        };
        let threads = [host(send(wakers.clone())), thread::spawn(send(wakers.clone()))];
        (0..8).for_each(|_| all.recv().unwrap());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_task_that_wakes_another_while_it_holds_a_lock_of_both_waits_for_nobody() {
        const TIMES: usize = 2000;
        let runtime = Smol::start(2).unwrap();
        let shared = Arc::new(Mutex::new(0));
        let (mut wake_first, mut first) = channel::channel::<()>(TIMES);
        let (mut wake_second, mut second) = channel::channel::<()>(TIMES);
        let (tell, told) = mpsc::channel();
        let lock = shared.clone();
        runtime.spawn(Box::pin(async move {
            while first.next().await.is_some() {
                let mut count = lock.lock().unwrap();
                wake_second.try_send(()).unwrap();
                *count += 1;
            }
        }));
        runtime.spawn(Box::pin(async move {
            while second.next().await.is_some() {
                let _ = tell.send(*shared.lock().unwrap());
            }
        }));
        let host = host(move || (0..TIMES).for_each(|_| wake_first.try_send(()).unwrap()));
        for _ in 0..TIMES {
            told.recv_timeout(Duration::from_secs(60)).expect("both tasks go on");
        }
        host.join().unwrap();
    }

    #[test]
    fn a_runtime_that_ends_drops_its_tasks() {
        let runtime = Smol::start(2).unwrap();
        let (wake, mut woken) = channel::channel::<()>(1);
        let (tell, told) = mpsc::channel();
        runtime.spawn(Box::pin(async move {
            tell.send(()).unwrap();
            let _ = woken.next().await;
        }));
        told.recv().unwrap();
        drop(runtime);
        assert!(told.recv().is_err(), "its end of the channel goes with the task");
        drop(wake);
    }
}
