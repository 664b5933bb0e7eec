//! The second runtime: async-std's global executor.
//!
//! async-std is unmaintained (RUSTSEC-2025-0052). It is kept as proof that only `src/runtime/`
//! names an executor, and for programs that have not left it yet.

#[cfg(unix)]
use std::path::PathBuf;
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Instant};

use futures::future::{BoxFuture, FutureExt};

#[cfg(unix)]
use super::{ByteStream, UnixListener, unix};
use super::{
    Handle, Interfaces, Runtime, TcpListener, TcpStream, Timer, UdpOptions, UdpSocket, interfaces, reactor,
    udp,
};

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
        ::async_std::task::spawn_blocking(work).boxed()
    }

    fn interfaces(&self) -> io::Result<Box<dyn Interfaces>> {
        interfaces::watch()
    }
}
