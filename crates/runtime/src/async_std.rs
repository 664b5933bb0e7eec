//! The second runtime: async-std's global executor.
//!
//! async-std is unmaintained (RUSTSEC-2025-0052). It is kept as proof that only this crate
//! names an executor, and for programs that have not left it yet.

use std::future::Future;

use futures::future::{BoxFuture, FutureExt};

use super::{Handle, Runtime};

/// async-std's global executor; its thread count is set by `ASYNC_STD_THREAD_COUNT`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsyncStd;

impl AsyncStd {
    /// Runs `main` on the calling thread while tasks run on async-std's own threads.
    pub fn block_on<F: Future>(main: impl FnOnce(Handle) -> F) -> F::Output {
        ::async_std::task::block_on(main(Self.into()))
    }
}

impl Runtime for AsyncStd {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        // A dropped JoinHandle detaches its task.
        drop(::async_std::task::spawn(task));
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        ::async_std::task::spawn_blocking(work).boxed()
    }
}
