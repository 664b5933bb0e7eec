//! A shared reference to a runtime, and what can be built on its traits alone: tasks that are counted, sleeping, time
//! limits, work that blocks.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{
    channel::oneshot,
    future::{Either, FutureExt, select},
};

use crate::{Runtime, Timer};

/// A shared reference to a [`Runtime`], with the conveniences built on top of it.
#[derive(Clone, Debug)]
pub struct Handle {
    runtime: Arc<dyn Runtime>,
    tasks: Arc<Tasks>,
}

/// Tasks that were started through a [`Handle`] and its clones.
#[derive(Debug, Default)]
struct Tasks {
    started: AtomicU64,
    ended: AtomicU64,
}

/// Counts its task as ended when it is dropped, whether it came to its end or not.
struct Running(Arc<Tasks>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl<R: Runtime> From<R> for Handle {
    fn from(runtime: R) -> Self {
        Self { runtime: Arc::new(runtime), tasks: Arc::default() }
    }
}

impl std::ops::Deref for Handle {
    type Target = dyn Runtime;

    fn deref(&self) -> &Self::Target {
        &*self.runtime
    }
}

impl Handle {
    /// Runs `task` to its end in the background.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.started.fetch_add(1, Ordering::Relaxed);
        let running = Running(self.tasks.clone());
        // An async block would hold the task twice: as it was given, and as it is awaited.
        self.runtime.spawn(task.map(move |()| drop(running)).boxed());
    }

    /// How many tasks were started through this handle and its clones, and how many of them have ended.
    pub fn tasks(&self) -> (u64, u64) {
        // A task that starts and ends between the two readings must not be seen to end only.
        let ended = self.tasks.ended.load(Ordering::Relaxed);
        (self.tasks.started.load(Ordering::Relaxed).max(ended), ended)
    }

    /// A future that is ready at `at`.
    pub fn sleep_until(&self, at: Instant) -> Sleep {
        let mut timer = self.timer();
        timer.set(Some(at));
        Sleep(timer)
    }

    /// A future that is ready `duration` from now; a duration past the clock's end is never.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        let mut timer = self.timer();
        timer.set(self.now().checked_add(duration));
        Sleep(timer)
    }

    /// The output of `future`, or [`Elapsed`] if `limit` passes first.
    ///
    /// # Errors
    /// [`Elapsed`].
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        let future = std::pin::pin!(future);
        match select(future, self.sleep(limit)).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(_) => Err(Elapsed(limit)),
        }
    }

    /// Runs `work`, which may block, where it stalls no task, and returns what it returned.
    ///
    /// # Errors
    /// An error of kind [`io::ErrorKind::Other`] when the runtime ended before the work did.
    pub async fn unblock<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.blocking(Box::new(move || {
            // The receiver is gone only when the answer is not awaited any more.
            let _ = sender.send(work());
        }))
        .await;
        receiver.await.map_err(|_| io::Error::other("the runtime ended before the blocking work did"))
    }
}

/// A future that is ready at a set moment.
pub struct Sleep(Box<dyn Timer>);

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sleep")
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.0.poll(cx));
        Poll::Ready(())
    }
}

/// A time limit passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no result within {0:?}")]
pub struct Elapsed(pub Duration);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::future::BoxFuture;

    use super::*;
    use crate::Executor;

    #[test]
    fn a_task_is_held_once() {
        /// Notes the sizes of tasks and drops them.
        #[derive(Debug)]
        struct Scale(Arc<Mutex<Vec<usize>>>);
        impl Runtime for Scale {
            fn spawn(&self, task: BoxFuture<'static, ()>) {
                self.0.lock().unwrap().push(size_of_val(&*task));
            }
            fn blocking(&self, _: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
                unreachable!("no blocking work here")
            }
        }
        let sizes = Arc::<Mutex<Vec<usize>>>::default();
        let large = [1_u8; 10_000];
        let task = async move {
            futures::future::ready(()).await;
            std::hint::black_box(large);
        };
        let size = size_of_val(&task);
        Handle::from(Scale(sizes.clone())).spawn(task);
        let held = sizes.lock().unwrap()[0];
        assert!((size..size + 100).contains(&held), "{size} bytes became {held}");
    }

    #[test]
    fn tasks_are_counted_from_their_start_to_their_end() {
        let ended = async |rt: &Handle| {
            while rt.tasks() != (2, 2) {
                rt.sleep(Duration::from_millis(1)).await;
            }
        };
        let out = Executor::default().block_on(1, |rt| async move {
            assert_eq!(rt.tasks(), (0, 0));
            let (go, wait) = oneshot::channel::<()>();
            let inner = rt.clone();
            rt.spawn(async move {
                inner.spawn(async {});
                let _ = wait.await;
            });
            assert!(rt.tasks().0 > rt.tasks().1, "the first one waits");
            drop(go);
            rt.timeout(Duration::from_secs(60), ended(&rt)).await
        });
        assert_eq!(out.unwrap(), Ok(()));
    }
}
