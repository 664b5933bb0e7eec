//! The default runtime: smol's executor on as many threads as asked for.

use std::{future::Future, io, sync::Arc, thread};

use futures::future::{BoxFuture, FutureExt};
use smol::{
    Executor,
    channel::{Receiver, Sender, unbounded},
};

use super::{Handle, Runtime};

/// smol's executor, on threads of our own.
#[derive(Debug)]
pub struct Smol {
    executor: Arc<Executor<'static>>,
    /// Closed when this is dropped: then the worker threads end.
    _alive: Sender<()>,
}

impl Smol {
    /// An executor on `threads` background threads (at least one) that end when the last
    /// reference to it is dropped.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(threads: usize) -> io::Result<Self> {
        let (smol, ended) = Self::new();
        for n in 0..threads.max(1) {
            smol.worker(n, ended.clone())?;
        }
        Ok(smol)
    }

    /// Runs `main` on the calling thread, which also runs the tasks, together with
    /// `threads - 1` more.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn block_on<F: Future>(threads: usize, main: impl FnOnce(Handle) -> F) -> io::Result<F::Output> {
        let (smol, ended) = Self::new();
        for n in 1..threads {
            smol.worker(n, ended.clone())?;
        }
        let executor = smol.executor.clone();
        Ok(smol::block_on(executor.run(main(smol.into()))))
    }

    fn new() -> (Self, Receiver<()>) {
        // Nothing is ever sent: the channel's end is the message.
        let (alive, ended) = unbounded();
        (Self { executor: Arc::new(Executor::new()), _alive: alive }, ended)
    }

    fn worker(&self, n: usize, ended: Receiver<()>) -> io::Result<()> {
        let executor = self.executor.clone();
        thread::Builder::new().name(format!("smidge-{n}")).spawn(move || {
            // An error is the channel's end, which is what the thread waits for.
            let _ = smol::block_on(executor.run(ended.recv()));
        })?;
        Ok(())
    }
}

impl Runtime for Smol {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.executor.spawn(task).detach();
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        smol::unblock(work).boxed()
    }
}
