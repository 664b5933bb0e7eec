//! What a worker thread runs: its main future, and the executor's tasks in slices.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use smol::Executor;

/// How long tasks run before sockets and timers are looked at again. A timer rings late by no more than this and
/// the longest task.
const SLICE: Duration = Duration::from_micros(500);

/// Runs `main` to its end on this thread, and the tasks of `executor` until then. Compiled once, whatever `main` is.
pub(super) async fn run(mut main: Pin<&mut dyn Future<Output = ()>>, executor: &Executor<'static>) {
    let worker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let called = Arc::new(MainWaker { due: AtomicBool::new(true), worker });
    let waker = Waker::from(called.clone());
    let mut tick = pin!(executor.tick());
    poll_fn(|cx| {
        // What main waits for may cost a system call to look at: not at every wake-up of a task.
        if called.due.swap(false, Ordering::SeqCst)
            && main.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        {
            return Poll::Ready(());
        }
        let began = Instant::now();
        loop {
            if tick.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            tick.set(executor.tick());
            if began.elapsed() >= SLICE {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// The waker of a worker's main future.
struct MainWaker {
    due: AtomicBool,
    worker: Waker,
}

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.due.store(true, Ordering::SeqCst);
        self.worker.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::{StreamExt, channel::mpsc as channel};

    use crate::{Runtime, Smol};

    #[test]
    fn a_runtime_that_ends_drops_its_tasks() {
        let runtime = Smol::start(2).unwrap();
        let (wake, mut woken) = channel::channel::<()>(1);
        let (started, has_started) = mpsc::channel();
        runtime.spawn(Box::pin(async move {
            started.send(()).unwrap();
            let _ = woken.next().await;
        }));
        has_started.recv().unwrap();
        drop(runtime);
        assert!(has_started.recv().is_err(), "its end of the channel goes with the task");
        drop(wake);
    }
}
