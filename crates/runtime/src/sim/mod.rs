//! A simulated world: time and the network as values, repeatable from a seed.
//!
//! A [`World`] holds one executor, one clock and one network. Each [`host`](World::host) of it is
//! a runtime of its own with its own addresses, so that several nodes run in one world.
//! [`World::block_on`] runs tasks until none can go on, then moves the clock to the next timer or
//! datagram: a simulated minute costs what the work in it costs, and no task ever waits.
//!
//! What is not simulated: TCP, threads, the kernel's own queues. What is random outside of this
//! module (keys, nonces) stays random; it changes bytes, hardly ever their number.

mod executor;
mod net;

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt, ready};

use super::{
    Handle, Interface, Interfaces, Runtime, TcpListener, TcpOptions, TcpStream, Timer, UdpOptions, UdpSocket,
    alarm,
    alarms::{Alarms, Clock, ClockTimer, lock},
};

pub use net::Link;

/// A simulated world.
#[derive(Clone)]
pub struct World(Arc<Inner>);

pub(super) struct Inner {
    state: Mutex<State>,
    /// Never locked before the state is, while that is held.
    alarms: Mutex<Alarms>,
    executor: executor::Executor,
}

struct State {
    now: Instant,
    start: Instant,
    net: net::Net,
    hosts: Vec<HostState>,
}

struct HostState {
    interfaces: Vec<Interface>,
    /// Counts changes, so that each watch knows what it has seen.
    generation: u64,
    watchers: Vec<Waker>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl Clock for Inner {
    fn now(&self) -> Instant {
        self.lock().now
    }

    fn alarms(&self) -> &Mutex<Alarms> {
        &self.alarms
    }

    /// Nothing sleeps here.
    fn interrupt(&self) {}
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("elapsed", &self.elapsed()).finish_non_exhaustive()
    }
}

impl World {
    /// A world without hosts, whose network behaves as `link` says, by a dice that `seed` sets.
    pub fn new(seed: u64, link: Link) -> Self {
        let start = Instant::now();
        Self(Arc::new(Inner {
            state: Mutex::new(State { now: start, start, net: net::Net::new(seed, link), hosts: Vec::new() }),
            alarms: Mutex::default(),
            executor: executor::Executor::default(),
        }))
    }

    /// A new host with these addresses, and the runtime of what runs on it.
    pub fn host(&self, addrs: &[&str]) -> Host {
        let mut state = self.0.lock();
        let host = state.hosts.len();
        state.hosts.push(HostState { interfaces: Vec::new(), generation: 0, watchers: Vec::new() });
        drop(state);
        let host = Host { world: self.clone(), host };
        host.set_addrs(addrs);
        host
    }

    /// Runs the world until `future` is done.
    ///
    /// # Panics
    /// When nothing can go on any more, or `limit` of simulated time has passed.
    pub fn block_on<F: Future>(&self, limit: Duration, future: F) -> F::Output {
        let _entered = alarm::enter(self.0.clone());
        let end = self.0.lock().now + limit;
        let mut future = std::pin::pin!(future);
        let main = self.0.executor.main_waker();
        let mut cx = Context::from_waker(&main);
        loop {
            if self.0.executor.take_main()
                && let Poll::Ready(out) = future.as_mut().poll(&mut cx)
            {
                return out;
            }
            if self.0.executor.run_ready() || self.0.executor.main_is_woken() {
                continue;
            }
            let woken = self.0.lock().advance(end, &mut lock(&self.0.alarms));
            match woken {
                Some(wakers) => wakers.into_iter().for_each(Waker::wake),
                None => panic!("stuck after {:?} of simulated time (limit {limit:?})", self.elapsed()),
            }
        }
    }

    /// Ends whatever still runs in it: a world is not forgotten as long as a task holds a host of it.
    pub fn end(self) {
        self.0.executor.clear();
    }

    /// Changes how the network behaves from now on.
    pub fn set_link(&self, link: Link) {
        self.0.lock().net.link = link;
    }

    /// Cuts `ip` off from everyone, or joins it again.
    pub fn set_partitioned(&self, ip: &str, cut: bool) {
        let ip: IpAddr = ip.parse().expect("an address in a test");
        let mut state = self.0.lock();
        if cut {
            state.net.cut.insert(ip);
        } else {
            state.net.cut.remove(&ip);
        }
    }

    /// From now on others see what is sent from `inside` come from `outside`, and reach `inside`
    /// there: a NAT that has changed its mind.
    pub fn translate(&self, inside: SocketAddr, outside: SocketAddr) {
        let mut state = self.0.lock();
        state.net.nat.insert(inside, outside);
    }

    /// Makes the next receive on the sockets bound to `port` fail.
    pub fn fail_receive(&self, port: u16, kind: io::ErrorKind) {
        let wakers = self.0.lock().net.fail(port, kind);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Simulated time since the world began.
    pub fn elapsed(&self) -> Duration {
        let state = self.0.lock();
        state.now - state.start
    }

    /// Datagrams delivered so far.
    pub fn delivered(&self) -> u64 {
        self.0.lock().net.delivered
    }
}

impl State {
    /// Moves the clock to the next thing that happens; `None` when nothing does before `end`.
    fn advance(&mut self, end: Instant, alarms: &mut Alarms) -> Option<Vec<Waker>> {
        let next = match (alarms.next(), self.net.next()) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        if next > end {
            return None;
        }
        self.now = self.now.max(next);
        let mut wakers = alarms.take_due(self.now);
        wakers.extend(self.net.deliver(self.now, &self.hosts));
        Some(wakers)
    }
}

/// A host of a simulated world: the runtime of what runs on it.
#[derive(Clone, Debug)]
pub struct Host {
    world: World,
    host: usize,
}

impl Host {
    /// The runtime to hand to what runs on this host.
    pub fn handle(&self) -> Handle {
        self.clone().into()
    }

    /// Replaces the host's addresses; watchers of the interfaces are notified.
    pub fn set_addrs(&self, addrs: &[&str]) {
        let wakers = {
            let mut state = self.world.0.lock();
            let host = &mut state.hosts[self.host];
            host.interfaces = addrs
                .iter()
                .enumerate()
                .map(|(n, addr)| Interface {
                    name: format!("eth{n}"),
                    index: n as u32 + 1,
                    addr: addr.parse().expect("an address in a test"),
                    prefix_len: 24,
                })
                .collect();
            host.generation += 1;
            std::mem::take(&mut host.watchers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Runtime for Host {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.world.0.executor.spawn(task);
    }

    fn now(&self) -> Instant {
        self.world.0.lock().now
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(ClockTimer::new(self.world.0.clone()))
    }

    fn bind_udp(&self, addr: SocketAddr, _: UdpOptions) -> io::Result<Arc<dyn UdpSocket>> {
        net::bind(&self.world.0, self.host, addr)
    }

    fn join_multicast(&self, group: SocketAddr, interface: &Interface) -> io::Result<Arc<dyn UdpSocket>> {
        net::join(&self.world.0, self.host, group, interface)
    }

    fn bind_tcp(&self, _: SocketAddr, _: TcpOptions) -> io::Result<Box<dyn TcpListener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn connect_tcp(
        &self,
        _: SocketAddr,
        _: TcpOptions,
    ) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        ready(Err(io::ErrorKind::Unsupported.into())).boxed()
    }

    fn bind_unix(&self, _: std::path::PathBuf) -> io::Result<Box<dyn super::UnixListener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn connect_unix(
        &self,
        _: std::path::PathBuf,
    ) -> BoxFuture<'static, io::Result<Box<dyn super::ByteStream>>> {
        ready(Err(io::ErrorKind::Unsupported.into())).boxed()
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        work();
        ready(()).boxed()
    }

    fn interfaces(&self) -> io::Result<Box<dyn Interfaces>> {
        let seen = self.world.0.lock().hosts[self.host].generation;
        Ok(Box::new(SimInterfaces { host: self.clone(), seen }))
    }

    fn links(&self) -> io::Result<Vec<super::Link>> {
        let interfaces = self.world.0.lock().hosts[self.host].interfaces.clone();
        let link = |i: Interface| super::Link {
            name: i.name,
            index: i.index,
            mtu: 1500,
            up: true,
            loopback: false,
            multicast: true,
        };
        Ok(interfaces.into_iter().map(link).collect())
    }
}

struct SimInterfaces {
    host: Host,
    seen: u64,
}

impl Interfaces for SimInterfaces {
    fn list(&self) -> io::Result<Vec<Interface>> {
        Ok(self.host.world.0.lock().hosts[self.host.host].interfaces.clone())
    }

    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.host.world.0.lock();
        let host = &mut state.hosts[self.host.host];
        if host.generation != self.seen {
            self.seen = host.generation;
            return Poll::Ready(());
        }
        host.watchers.push(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;

    use super::*;
    use crate::{RecvMeta, Transmit};

    fn datagram(to: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit { destination: to, ecn: None, contents, segment_size: None, src_ip: None }
    }

    async fn receive(socket: &Arc<dyn UdpSocket>) -> (Vec<u8>, SocketAddr) {
        let mut buf = [0; 2048];
        let mut meta = [RecvMeta::default()];
        let polled =
            futures::future::poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta));
        polled.await.unwrap();
        (buf[..meta[0].len].to_vec(), meta[0].addr)
    }

    #[test]
    fn an_hour_passes_in_no_time_and_in_order() {
        let world = World::new(1, Link::default());
        let rt = world.host(&["10.0.0.1"]).handle();
        let began = Instant::now();
        let order = Arc::new(Mutex::new(Vec::new()));
        for minutes in [60, 20, 40] {
            let (rt2, order) = (rt.clone(), order.clone());
            rt.spawn(async move {
                rt2.sleep(Duration::from_secs(60 * minutes)).await;
                order.lock().unwrap().push(minutes);
            });
        }
        world.block_on(Duration::from_secs(7200), rt.sleep(Duration::from_secs(3601)));
        assert_eq!(*order.lock().unwrap(), [20, 40, 60]);
        assert_eq!(world.elapsed(), Duration::from_secs(3601));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    #[should_panic(expected = "stuck after")]
    fn waiting_for_nothing_is_found_out() {
        World::new(1, Link::default()).block_on(Duration::from_secs(1), futures::future::pending::<()>());
    }

    #[test]
    fn datagrams_arrive_after_the_latency_and_too_large_ones_never() {
        let link = Link { latency: Duration::from_millis(30), mtu: 1200, ..Link::default() };
        let world = World::new(1, link);
        let (a, b) = (world.host(&["10.0.0.1"]), world.host(&["10.0.0.2"]));
        let to: SocketAddr = "10.0.0.2:9".parse().unwrap();
        let sender = a.bind_udp("0.0.0.0:0".parse().unwrap(), UdpOptions::default()).unwrap();
        let receiver = b.bind_udp(to, UdpOptions::default()).unwrap();
        sender.try_send(&datagram(to, &[7; 1300])).unwrap();
        sender.try_send(&datagram(to, b"hello")).unwrap();
        let (bytes, from) = world.block_on(Duration::from_secs(1), receive(&receiver));
        assert_eq!((bytes.as_slice(), from.ip()), (&b"hello"[..], "10.0.0.1".parse().unwrap()));
        assert_eq!(world.elapsed(), Duration::from_millis(30));
    }

    #[test]
    fn the_same_seed_loses_the_same_datagrams() {
        let arrivals = |seed| {
            let link =
                Link { loss: 0.3, duplicate: 0.1, jitter: Duration::from_millis(5), ..Link::default() };
            let world = World::new(seed, link);
            let (a, b) = (world.host(&["10.0.0.1"]), world.host(&["10.0.0.2"]));
            let to: SocketAddr = "10.0.0.2:9".parse().unwrap();
            let sender = a.bind_udp("10.0.0.1:1".parse().unwrap(), UdpOptions::default()).unwrap();
            let receiver = b.bind_udp(to, UdpOptions::default()).unwrap();
            for n in 0..100 {
                sender.try_send(&datagram(to, &[n])).unwrap();
            }
            let rt = a.handle();
            world.block_on(Duration::from_secs(1), async move {
                let mut got = Vec::new();
                while let Ok((bytes, _)) = rt.timeout(Duration::from_millis(100), receive(&receiver)).await {
                    got.push(bytes[0]);
                }
                got
            })
        };
        let (first, again, other) = (arrivals(5), arrivals(5), arrivals(6));
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert!(first.len() > 50 && first.len() < 100, "{}", first.len());
        assert!(!first.is_sorted(), "jitter reorders");
    }
}
