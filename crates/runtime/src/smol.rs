//! The default runtime: smol's executor on as many threads as asked for, which on Linux wait at a poller
//! of their own, elsewhere at async-io's.

#[cfg(not(target_os = "linux"))]
use std::pin::Pin;
use std::{cell::Cell, future::Future, io, pin::pin, sync::Arc, thread};
#[cfg(target_os = "linux")]
use std::{net::SocketAddr, os::fd::OwnedFd, path::PathBuf};

use futures::future::{BoxFuture, FutureExt};
use smol::{
    Executor,
    channel::{Receiver, Sender, unbounded},
};

#[cfg(target_os = "linux")]
use super::{
    ByteStream, Interface, Readable, TcpListener, TcpOptions, TcpStream, Timer, UdpOptions, UdpSocket,
    UnixListener, poller::Poller, tcp, udp, unix, watched,
};
use super::{Handle, Runtime, worker};

/// smol's executor, on threads of our own.
#[derive(Debug)]
pub struct Smol {
    executor: Arc<Executor<'static>>,
    #[cfg(target_os = "linux")]
    poller: Arc<Poller>,
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
        let (smol, ended) = Self::new()?;
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
        let (smol, ended) = Self::new()?;
        for n in 1..threads {
            smol.worker(n, ended.clone())?;
        }
        let (waiter, executor) = (smol.waiter(), smol.executor.clone());
        let output = Cell::new(None);
        // Within: what main sets up before its first poll belongs to this runtime, too.
        let mut main = pin!(async { output.set(Some(main(smol.into()).await)) });
        loop {
            // It ends when main has.
            waiter.run(pin!(worker::run(main.as_mut(), &executor)));
            if let Some(output) = output.take() {
                return Ok(output);
            }
        }
    }

    fn new() -> io::Result<(Self, Receiver<()>)> {
        // Nothing is ever sent: the channel's end is the message.
        let (alive, ended) = unbounded();
        let smol = Self {
            executor: Arc::new(Executor::new()),
            #[cfg(target_os = "linux")]
            poller: Poller::new()?,
            _alive: alive,
        };
        Ok((smol, ended))
    }

    #[cfg(target_os = "linux")]
    fn waiter(&self) -> Arc<Poller> {
        self.poller.clone()
    }

    #[cfg(not(target_os = "linux"))]
    fn waiter(&self) -> AsyncIo {
        AsyncIo
    }

    fn worker(&self, n: usize, ended: Receiver<()>) -> io::Result<()> {
        let (waiter, executor) = (self.waiter(), self.executor.clone());
        thread::Builder::new().name(format!("smidge-{n}")).spawn(move || {
            // An error is the channel's end, which is what the thread waits for.
            let main = pin!(ended.recv().map(drop));
            waiter.run(pin!(worker::run(main, &executor)));
        })?;
        Ok(())
    }
}

/// Threads that wait at async-io's reactor.
#[cfg(not(target_os = "linux"))]
struct AsyncIo;

#[cfg(not(target_os = "linux"))]
impl AsyncIo {
    fn run(&self, main: Pin<&mut dyn Future<Output = ()>>) {
        smol::block_on(main);
    }
}

impl Runtime for Smol {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.executor.spawn(task).detach();
    }

    #[cfg(target_os = "linux")]
    fn timer(&self) -> Box<dyn Timer> {
        self.poller.timer()
    }

    #[cfg(target_os = "linux")]
    fn bind_udp(&self, addr: SocketAddr, options: UdpOptions) -> io::Result<Arc<dyn UdpSocket>> {
        udp::bind_with(addr, options, |socket| {
            socket.set_nonblocking(true)?;
            self.poller.register(socket)
        })
    }

    #[cfg(target_os = "linux")]
    fn join_multicast(&self, group: SocketAddr, interface: &Interface) -> io::Result<Arc<dyn UdpSocket>> {
        udp::multicast_with(group, interface, |socket| {
            socket.set_nonblocking(true)?;
            self.poller.register(socket)
        })
    }

    #[cfg(target_os = "linux")]
    fn bind_tcp(&self, addr: SocketAddr, options: TcpOptions) -> io::Result<Box<dyn TcpListener>> {
        tcp::bind(self.poller.clone(), addr, options)
    }

    #[cfg(target_os = "linux")]
    fn connect_tcp(
        &self,
        addr: SocketAddr,
        options: TcpOptions,
    ) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        tcp::connect(self.poller.clone(), addr, options)
    }

    #[cfg(target_os = "linux")]
    fn bind_unix(&self, path: PathBuf) -> io::Result<Box<dyn UnixListener>> {
        unix::bind(self.poller.clone(), path)
    }

    #[cfg(target_os = "linux")]
    fn connect_unix(&self, path: PathBuf) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
        unix::connect(self.poller.clone(), path)
    }

    #[cfg(target_os = "linux")]
    fn watch(&self, descriptor: OwnedFd) -> io::Result<Box<dyn Readable>> {
        watched::readable(&self.poller, descriptor)
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        smol::unblock(work).boxed()
    }
}
