//! The one door to the executor and to the operating system's clock and sockets.
//!
//! Everything above this module is written against the traits here and against `futures`;
//! nothing above it names smol, async-std or async-io. There are two doors to the real
//! world, [`Smol`] (the default) and `AsyncStd` (feature `async-std`), and one to a simulated
//! world (`sim`, for tests) where time and the network are values.
//!
//! This module never decides anything: it opens sockets, sets timers and runs futures.

use std::{
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
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
    future::{BoxFuture, Either, FutureExt, select},
    io::{AsyncRead, AsyncWrite},
};
pub use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, TransportError};

#[cfg(not(unix))]
compile_error!("smidge-runtime runs on Unix systems only: its sockets and signals are theirs");

mod alarm;
mod alarm_thread;
mod alarms;
#[cfg(feature = "async-std")]
mod async_std;
mod interfaces;
mod links;
#[cfg(target_os = "linux")]
mod poller;
mod reactor;
mod signals;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod smol;
mod stream;
mod tcp;
mod udp;
mod unix;
mod worker;

pub use alarm::Alarm;
#[cfg(feature = "async-std")]
pub use async_std::AsyncStd;
pub use links::Link;
pub use signals::{Signal, Signals};
pub use smol::Smol;

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
        tcp::bind(addr, options)
    }

    /// Opens a TCP connection to `addr`, without a time limit of its own. One that is to leave from
    /// where another to the same `addr` does fails with [`io::ErrorKind::AddrNotAvailable`] or
    /// [`io::ErrorKind::AddrInUse`].
    fn connect_tcp(
        &self,
        addr: SocketAddr,
        options: TcpOptions,
    ) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        tcp::connect(addr, options)
    }

    /// Binds and starts a listener on a Unix socket at `path`, which only this user may open (mode
    /// 0600). A socket file without a listener is replaced; the file goes with the listener.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when a process listens there, [`io::ErrorKind::AlreadyExists`] when
    /// something else than a socket is there, and whatever the operating system says of the path.
    fn bind_unix(&self, path: PathBuf) -> io::Result<Box<dyn UnixListener>> {
        unix::bind(path)
    }

    /// Opens a connection to the Unix socket at `path`.
    fn connect_unix(&self, path: PathBuf) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
        unix::connect(path)
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

/// How a UDP socket is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpOptions {
    /// `SO_SNDBUF` in bytes to ask for; `None` leaves the system's default.
    pub send_buffer: Option<usize>,
    /// `SO_RCVBUF` in bytes to ask for; `None` leaves the system's default.
    pub recv_buffer: Option<usize>,
    /// Share the address with other sockets that ask for the same (`SO_REUSEADDR`), as multicast needs.
    pub reuse: bool,
}

/// A UDP socket with what QUIC wants of one: ECN, segmentation offload, destination addresses.
pub trait UdpSocket: fmt::Debug + Send + Sync + 'static {
    /// The address the socket is bound to.
    fn local_addr(&self) -> SocketAddr;

    /// Sends one transmit, up to [`max_transmit_segments`](Self::max_transmit_segments) datagrams in one call.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when the kernel's queue is full: wait for
    /// [`writable`](Self::writable). Anything else is the fate of this transmit only.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()>;

    /// Receives up to `bufs.len()` buffers, each holding one or more datagrams ([`RecvMeta::stride`]).
    /// Only the task that polled last is woken.
    ///
    /// # Errors
    /// The socket is broken; errors that belong to one remote come from
    /// [`take_error`](Self::take_error) instead.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>>;

    /// Ready when sending is worth another try. Any number of tasks may wait.
    fn writable(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>>;

    /// One report, if there is one, that a remote could not be reached (ICMP). Its address is
    /// that of the host that reported, with port 0: a hint, never proof.
    fn take_error(&self) -> Option<TransportError> {
        None
    }

    /// Whether sending or receiving has met such a report since [`take_error`](Self::take_error) last
    /// found none: asking costs a system call.
    fn may_have_errors(&self) -> bool {
        true
    }

    /// Datagrams that one [`Transmit`] may carry (GSO); 1 without kernel support.
    fn max_transmit_segments(&self) -> usize {
        1
    }

    /// Datagrams that one receive buffer may hold (GRO); 1 without kernel support.
    fn max_receive_segments(&self) -> usize {
        1
    }

    /// Whether the network layer may fragment what is sent, so that the path MTU cannot be probed.
    fn may_fragment(&self) -> bool {
        true
    }

    /// `(SO_SNDBUF, SO_RCVBUF)` in bytes as the kernel granted them, if it tells.
    fn buffer_sizes(&self) -> Option<(usize, usize)> {
        None
    }
}

/// How a TCP socket is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Whether connections may leave from the address that a listener is bound to (`SO_REUSEPORT`).
    /// Another listener may not be there all the same.
    pub share: bool,
    /// Connections that wait for a listener to accept them; the system turns more away.
    pub backlog: u32,
    /// Where a connection leaves from: a listener's address that is shared. `None`: a port of its own.
    pub from: Option<SocketAddr>,
    /// How a connection that is silent is treated; `None` waits for ever.
    pub keep_alive: Option<KeepAlive>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { share: false, backlog: 1024, from: None, keep_alive: None }
    }
}

/// How the operating system detects that the other end of a TCP connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// A silent connection is probed after this, and again each time it passes; whole seconds.
    pub after: Duration,
    /// The connection is lost when nothing was acknowledged for this long. Linux only: elsewhere the
    /// system's own number of probes decides.
    pub lost_after: Duration,
}

/// A TCP connection.
pub trait TcpStream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static {
    /// The address of the other side.
    ///
    /// # Errors
    /// When the connection is gone.
    fn peer_addr(&self) -> io::Result<SocketAddr>;

    /// The address of this side.
    ///
    /// # Errors
    /// When the connection is gone.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A TCP socket that accepts connections.
pub trait TcpListener: fmt::Debug + Send + Sync + 'static {
    /// The address the listener is bound to.
    fn local_addr(&self) -> SocketAddr;

    /// The next connection. Only the task that polled last is woken.
    ///
    /// # Errors
    /// Errors of one connection (aborted) or of the host (out of descriptors): the listener lives on.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn TcpStream>, SocketAddr)>>;
}

/// Bytes in both directions, whatever carries them.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// A Unix socket that accepts connections.
pub trait UnixListener: fmt::Debug + Send + Sync + 'static {
    /// The next connection. Only the task that polled last is woken.
    ///
    /// # Errors
    /// As [`TcpListener::poll_accept`].
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn ByteStream>>>;
}

/// One address of one network interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface {
    /// The interface's name, for instance `eth0`.
    pub name: String,
    /// The interface's index, 0 where the system has none.
    pub index: u32,
    /// The address.
    pub addr: IpAddr,
    /// The length of the subnet's prefix in bits.
    pub prefix_len: u8,
}

impl Interface {
    /// Whether `addr` lies in this interface's subnet.
    pub fn contains(&self, addr: IpAddr) -> bool {
        fn prefix(bits: u128, width: u32, len: u8) -> u128 {
            let len = u32::from(len).min(width);
            if len == 0 { 0 } else { bits >> (width - len) }
        }
        match (self.addr, addr) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                prefix(u32::from(own).into(), 32, self.prefix_len)
                    == prefix(u32::from(other).into(), 32, self.prefix_len)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                prefix(own.into(), 128, self.prefix_len) == prefix(other.into(), 128, self.prefix_len)
            }
            _ => false,
        }
    }
}

/// A watch over the host's network interfaces.
pub trait Interfaces: Send + Sync + Unpin {
    /// The addresses of all interfaces that are up.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    fn list(&self) -> io::Result<Vec<Interface>>;

    /// Ready when something may have changed since the last time; [`list`](Self::list) tells what.
    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

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
    use std::sync::Mutex;

    use super::*;

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
    fn a_subnet_contains_its_addresses_and_no_others() {
        let interface = |addr: &str, prefix_len| Interface {
            name: "eth0".into(),
            index: 2,
            addr: addr.parse().unwrap(),
            prefix_len,
        };
        for (own, len, other, expected) in [
            ("10.0.11.5", 24, "10.0.11.250", true),
            ("10.0.11.5", 24, "10.0.12.5", false),
            ("10.0.11.5", 32, "10.0.11.5", true),
            ("10.0.11.5", 0, "8.8.8.8", true),
            ("fd00::1", 64, "fd00::ffff", true),
            ("fd00::1", 64, "fd00:0:0:1::1", false),
            ("10.0.0.1", 8, "fd00::1", false),
            ("10.0.0.1", 200, "10.0.0.1", true),
        ] {
            assert_eq!(interface(own, len).contains(other.parse().unwrap()), expected, "{own}/{len} {other}");
        }
    }

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

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
