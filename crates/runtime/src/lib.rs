//! The one door to the executor and to the operating system's clock and sockets.
//!
//! Everything above this module is written against the traits here and against `futures`;
//! nothing above it names smol, async-std or async-io. There are two doors to the real
//! world, [`Smol`] (the default) and `AsyncStd` (feature `async-std`), and one to a simulated
//! world (`sim`, for tests) where time and the network are values.
//!
//! This module never decides anything: it opens sockets, sets timers and runs futures.

use std::{
    fmt, io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use futures::future::BoxFuture;
pub use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, TransportError};

#[cfg(not(unix))]
compile_error!("smidge-runtime runs on Unix systems only: its sockets and signals are theirs");

mod alarm;
mod alarm_thread;
mod alarms;
#[cfg(feature = "async-std")]
mod async_std;
mod executor;
mod handle;
mod interfaces;
mod links;
#[cfg(target_os = "linux")]
mod poller;
mod reactor;
mod signals;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod smol;
mod sockets;
mod stream;
mod tcp;
mod udp;
mod unix;
mod watched;
mod worker;

pub use alarm::{Alarm, now, wall};
#[cfg(feature = "async-std")]
pub use async_std::AsyncStd;
pub use executor::Executor;
pub use handle::{Elapsed, Handle, Sleep};
pub use interfaces::{Interface, Interfaces};
pub use links::Link;
pub use signals::{Signal, Signals};
pub use smol::Smol;
pub use sockets::{
    ByteStream, KeepAlive, Listener, Readable, TcpListener, TcpOptions, TcpStream, UdpOptions, UdpSocket,
    UnixListener,
};

/// What smidge asks of an executor and of the operating system.
///
/// Implementations are shared by reference ([`Handle`]) and live as long as any task does. What an
/// executor has to bring is [`spawn`](Self::spawn) and [`blocking`](Self::blocking); clock, timers,
/// sockets and interfaces are the operating system's, through async-io, unless it has its own.
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// Runs `task` to its end in the background. It is dropped, unfinished, when the runtime ends.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// The present moment on this runtime's clock.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// A timer that is not set yet.
    fn timer(&self) -> Box<dyn Timer> {
        reactor::ReactorTimer::boxed()
    }

    /// Binds a UDP socket to `addr`; an IPv6 socket takes no IPv4 traffic.
    ///
    /// # Errors
    /// Whatever the operating system says of the address: in use, not ours, not permitted.
    fn bind_udp(&self, addr: SocketAddr, options: UdpOptions) -> io::Result<Arc<dyn UdpSocket>> {
        udp::bind(addr, options)
    }

    /// Joins the multicast group `group` on `interface`, whose address is of the same family: a socket that
    /// hears what is sent to the group there and nowhere else, also by this host, and that sends to the group
    /// there, with a TTL of 255. Its address is shared with other programs that share it. The group is left when the
    /// socket is dropped.
    ///
    /// # Errors
    /// Whatever the operating system says: the port is taken, the interface is gone, there are too many
    /// memberships.
    fn join_multicast(&self, group: SocketAddr, interface: &Interface) -> io::Result<Arc<dyn UdpSocket>> {
        udp::multicast(group, interface)
    }

    /// Binds and starts a TCP listener on `addr`; an IPv6 listener takes no IPv4 traffic.
    ///
    /// # Errors
    /// Whatever the operating system says of the address.
    fn bind_tcp(&self, addr: SocketAddr, options: TcpOptions) -> io::Result<Box<dyn TcpListener>> {
        tcp::bind(watched::AsyncIo, addr, options)
    }

    /// Opens a TCP connection to `addr`, without a time limit of its own. One that is to leave from
    /// where another to the same `addr` does fails with [`io::ErrorKind::AddrNotAvailable`] or
    /// [`io::ErrorKind::AddrInUse`].
    fn connect_tcp(
        &self,
        addr: SocketAddr,
        options: TcpOptions,
    ) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        tcp::connect(watched::AsyncIo, addr, options)
    }

    /// Binds and starts a listener on a Unix socket at `path`, which only this user may open (mode
    /// 0600). A socket file without a listener is replaced; the file goes with the listener.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when a process listens there, [`io::ErrorKind::AlreadyExists`] when
    /// something else than a socket is there, and whatever the operating system says of the path.
    fn bind_unix(&self, path: PathBuf) -> io::Result<Box<dyn UnixListener>> {
        unix::bind(watched::AsyncIo, path)
    }

    /// Opens a connection to the Unix socket at `path`.
    fn connect_unix(&self, path: PathBuf) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
        unix::connect(watched::AsyncIo, path)
    }

    /// Watches a pipe, a terminal or the like from now on.
    ///
    /// # Errors
    /// What it is cannot be watched: a file, for instance.
    fn watch(&self, descriptor: OwnedFd) -> io::Result<Box<dyn Readable>> {
        watched::readable(&watched::AsyncIo, descriptor)
    }

    /// Runs `work`, which may block on files, where it stalls no task.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;

    /// A watch over the network interfaces of this host.
    ///
    /// # Errors
    /// When the kernel offers no way to list or to watch them.
    fn interfaces(&self) -> io::Result<Box<dyn Interfaces>> {
        interfaces::watch()
    }

    /// The network links of this host, whether they are up or not. The kernel answers immediately.
    ///
    /// # Errors
    /// When it does not, and where there is no Linux.
    fn links(&self) -> io::Result<Vec<Link>> {
        links::list()
    }
}

/// A clock alarm that one task waits for.
pub trait Timer: Send + Sync + Unpin {
    /// Sets the alarm to `at`, or switches it off.
    fn set(&mut self, at: Option<Instant>);

    /// Ready once the alarm's moment has passed; then the alarm is off. Pending, with no
    /// wake-up to come, while it is off.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
