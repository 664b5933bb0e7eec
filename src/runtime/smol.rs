//! The default runtime: smol's executor on as many threads as asked for.

#[cfg(unix)]
use std::path::PathBuf;
use std::{future::Future, io, net::SocketAddr, sync::Arc, thread, time::Instant};

use futures::future::{BoxFuture, FutureExt};
use smol::{
    Executor,
    channel::{Receiver, Sender, unbounded},
};

#[cfg(unix)]
use super::{ByteStream, UnixListener, unix};
use super::{
    Handle, Interfaces, Runtime, TcpListener, TcpStream, Timer, UdpOptions, UdpSocket, interfaces, reactor,
    udp,
};

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

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn timer(&self) -> Box<dyn Timer> {
        reactor::ReactorTimer::boxed()
    }

    fn bind_udp(&self, addr: SocketAddr, options: UdpOptions) -> io::Result<Arc<dyn UdpSocket>> {
        udp::bind(addr, options)
    }

    fn bind_tcp(&self, addr: SocketAddr) -> io::Result<Box<dyn TcpListener>> {
        reactor::bind_tcp(addr)
    }

    fn connect_tcp(&self, addr: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        reactor::connect_tcp(addr)
    }

    #[cfg(unix)]
    fn bind_unix(&self, path: PathBuf) -> io::Result<Box<dyn UnixListener>> {
        unix::bind(path)
    }

    #[cfg(unix)]
    fn connect_unix(&self, path: PathBuf) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
        unix::connect(path)
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        smol::unblock(work).boxed()
    }

    fn interfaces(&self) -> io::Result<Box<dyn Interfaces>> {
        interfaces::watch()
    }
}
