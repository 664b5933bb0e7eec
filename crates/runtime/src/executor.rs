//! The executors by name: what a configuration chooses from.

use std::{future::Future, io};

#[cfg(feature = "async-std")]
use crate::AsyncStd;
use crate::{Handle, Smol};

/// Which executor a node runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Executor {
    /// smol's executor, on threads of our own.
    Smol,
    /// async-std's global executor (feature `async-std`).
    AsyncStd,
}

impl Default for Executor {
    /// smol, unless the crate was built with the feature `async-std`.
    fn default() -> Self {
        if cfg!(feature = "async-std") { Self::AsyncStd } else { Self::Smol }
    }
}

impl Executor {
    /// Runs `main` to its end on this executor, with `threads` threads in all where the executor
    /// lets us choose, and returns what it returned.
    ///
    /// # Errors
    /// When the executor was not compiled in, or a thread cannot be started.
    pub fn block_on<F: Future>(
        self,
        threads: usize,
        main: impl FnOnce(Handle) -> F,
    ) -> io::Result<F::Output> {
        match self {
            Self::Smol => Smol::block_on(threads, main),
            #[cfg(feature = "async-std")]
            Self::AsyncStd => Ok(AsyncStd::block_on(main)),
            #[cfg(not(feature = "async-std"))]
            Self::AsyncStd => Err(not_compiled_in()),
        }
    }

    /// A runtime that runs in the background for as long as its handle, or a task on it, lives.
    ///
    /// # Errors
    /// As [`Executor::block_on`].
    pub fn start(self, threads: usize) -> io::Result<Handle> {
        match self {
            Self::Smol => Ok(Smol::start(threads)?.into()),
            #[cfg(feature = "async-std")]
            Self::AsyncStd => Ok(AsyncStd.into()),
            #[cfg(not(feature = "async-std"))]
            Self::AsyncStd => Err(not_compiled_in()),
        }
    }
}

#[cfg(not(feature = "async-std"))]
fn not_compiled_in() -> io::Error {
    let why = "this binary was built without the feature `async-std`: use runtime.executor = \"smol\"";
    io::Error::new(io::ErrorKind::Unsupported, why)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::channel::oneshot;

    use super::*;
    use crate::Elapsed;

    #[test]
    fn a_real_runtime_keeps_time_and_runs_blocking_work() {
        let out = Executor::default()
            .block_on(1, |rt| async move {
                let late = rt.timeout(Duration::from_millis(5), futures::future::pending::<()>()).await;
                assert_eq!(late, Err(Elapsed(Duration::from_millis(5))));
                let (tx, rx) = oneshot::channel();
                rt.spawn(async move { tx.send(7).unwrap() });
                rx.await.unwrap() + rt.unblock(|| 1).await.unwrap()
            })
            .unwrap();
        assert_eq!(out, 8);
    }

    #[test]
    fn a_started_runtime_runs_tasks_while_its_handle_lives() {
        let rt = Executor::default().start(1).unwrap();
        let (tx, rx) = std::sync::mpsc::channel();
        let inner = rt.clone();
        rt.spawn(async move {
            inner.sleep(Duration::from_millis(1)).await;
            tx.send(()).unwrap();
        });
        rx.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
