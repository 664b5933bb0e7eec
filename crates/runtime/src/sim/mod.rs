//! A simulated world: time and the network as values, repeatable from a seed.
//!
//! A [`World`] holds one executor, one clock and one network. Each [`host`](World::host) of it is
//! a runtime of its own with its own addresses, so that several nodes run in one world.
//! [`World::block_on`] runs tasks until none can go on, then moves the clock to the next timer or
//! datagram: a simulated minute costs what the work in it costs, and no task ever waits. What asks
//! [`now`](crate::now) and [`wall`](crate::wall) while it runs in a world is answered by it: each host has a wall
//! clock that can be wrong. A host can [crash](Host::crash), and what is started on it then finds nothing of what ran before.
//!
//! What is not simulated: TCP (a listener can be bound; whoever connects is refused), threads, the kernel's own
//! queues. What is random outside of this module (keys, nonces, the order of hash maps) stays random; it changes bytes, hardly
//! ever their number. Code that asks the operating system for the time, as most of libp2p does (`web-time`), sees hardly any
//! pass.

mod executor;
mod host;
mod net;

use std::{
    cell::Cell,
    collections::HashMap,
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime},
};

use super::{
    Interface, alarm,
    alarms::{Alarms, Clock, lock},
};

pub use host::Host;
pub use net::Link;

/// When a world begins, by the clocks on its walls: 2026-11-18.
const EPOCH: Duration = Duration::from_secs(1_795_000_000);
/// Polls of tasks without any time passing, for a world and for each of its hosts, before it is said to go in circles.
const POLLS: u64 = 100_000;
/// The host of what runs on none.
const NOWHERE: usize = usize::MAX;

thread_local! {
    /// What runs on this thread: how long its world has been, and the number of its host.
    static HERE: Cell<Option<Here>> = const { Cell::new(None) };
}

/// Where in a simulated world something happens, for those who log it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    /// Simulated time since the world began.
    pub elapsed: Duration,
    /// The [number](Host::number) of the host whose task runs; `None` for the future of [`World::block_on`].
    pub host: Option<usize>,
}

/// What of a simulated world runs on this thread, if it is one.
pub fn here() -> Option<Here> {
    HERE.get()
}

fn enter(host: usize) {
    HERE.set(HERE.get().map(|here| Here { host: (host != NOWHERE).then_some(host), ..here }));
}

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
    /// The first host that has each address.
    by_ip: HashMap<IpAddr, usize>,
}

struct HostState {
    interfaces: Vec<Interface>,
    /// Counts changes, so that each watch knows what it has seen.
    generation: u64,
    watchers: Vec<Waker>,
    /// How far its wall clock is from the right one, in milliseconds.
    skew: i64,
    /// What it sends goes nowhere: it is about to end.
    is_down: bool,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
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

    fn wall(&self) -> SystemTime {
        let state = self.lock();
        let skew = here().and_then(|here| here.host).map_or(0, |host| state.hosts[host].skew);
        let since = i64::try_from((EPOCH + (state.now - state.start)).as_millis()).unwrap_or(i64::MAX);
        let since = u64::try_from(since.saturating_add(skew)).unwrap_or_default();
        SystemTime::UNIX_EPOCH + Duration::from_millis(since)
    }
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
            state: Mutex::new(State {
                now: start,
                start,
                net: net::Net::new(seed, link),
                hosts: Vec::new(),
                by_ip: HashMap::new(),
            }),
            alarms: Mutex::default(),
            executor: executor::Executor::default(),
        }))
    }

    /// A new host with these addresses, and the runtime of what runs on it.
    pub fn host(&self, addrs: &[&str]) -> Host {
        let mut state = self.0.lock();
        let host = state.hosts.len();
        state.hosts.push(HostState {
            interfaces: Vec::new(),
            generation: 0,
            watchers: Vec::new(),
            skew: 0,
            is_down: false,
        });
        drop(state);
        let host = Host { world: self.clone(), host };
        host.set_addrs(addrs);
        host
    }

    /// Runs the world until `future` is done.
    ///
    /// # Panics
    /// When nothing can go on any more, `limit` of simulated time has passed, or tasks wake each other without end and no
    /// time passes.
    pub fn block_on<F: Future>(&self, limit: Duration, future: F) -> F::Output {
        let _entered = alarm::enter(self.0.clone());
        let _left = Left(HERE.replace(Some(Here { elapsed: self.elapsed(), host: None })));
        let end = self.0.lock().now + limit;
        let mut polls = 0;
        let mut future = std::pin::pin!(future);
        let main = self.0.executor.main_waker();
        let mut cx = Context::from_waker(&main);
        loop {
            if self.0.executor.take_main() {
                enter(NOWHERE);
                if let Poll::Ready(out) = future.as_mut().poll(&mut cx) {
                    return out;
                }
            }
            if self.0.executor.run_ready(enter) || self.0.executor.main_is_woken() {
                polls += 1;
                if polls > POLLS {
                    let hosts = self.0.lock().hosts.len() as u64;
                    assert!(
                        polls <= POLLS * (hosts + 1),
                        "tasks wake each other without end at {:?}",
                        self.elapsed()
                    );
                }
                continue;
            }
            let (stands, woken) = {
                let mut state = self.0.lock();
                let before = state.now;
                let woken = state.advance(end, &mut lock(&self.0.alarms));
                HERE.set(Some(Here { elapsed: state.now - state.start, host: None }));
                (state.now == before, woken)
            };
            polls = if stands { polls } else { 0 };
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

    /// From now on one of `one_of` wake-ups of tasks is lost, none with 0: a fault put in on purpose, for checks that have to
    /// find it.
    pub fn lose_wake_ups(&self, one_of: u64) {
        self.0.executor.lose_wake_ups(one_of);
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

    /// From now on the network behaves as `link` says for what is sent from `ip`, and for what is sent to it by who has no
    /// link of its own; `None`: as for everybody.
    pub fn set_link_of(&self, ip: &str, link: Option<Link>) {
        let ip: IpAddr = ip.parse().expect("an address in a test");
        let links = &mut self.0.lock().net.links;
        match link {
            Some(link) => links.insert(ip, link),
            None => links.remove(&ip),
        };
    }

    /// Puts `ip` on a side of a divided network: only those of one side reach each other. All are on side 0 at first.
    pub fn set_side(&self, ip: &str, side: u32) {
        let ip: IpAddr = ip.parse().expect("an address in a test");
        self.0.lock().net.sides.insert(ip, side);
    }

    /// From now on `to` hears nothing from `from`, or hears it again.
    pub fn set_deaf(&self, from: &str, to: &str, deaf: bool) {
        let [from, to] = [from, to].map(|ip| ip.parse::<IpAddr>().expect("an address in a test"));
        let pairs = &mut self.0.lock().net.deaf;
        if deaf {
            pairs.insert((from, to))
        } else {
            pairs.remove(&(from, to))
        };
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

/// Restores what was here before.
struct Left(Option<Here>);

impl Drop for Left {
    fn drop(&mut self) {
        HERE.set(self.0);
    }
}

impl State {
    /// Which of all hosts an address leads to.
    fn index(&mut self) {
        self.by_ip.clear();
        for (number, host) in self.hosts.iter().enumerate() {
            for interface in &host.interfaces {
                self.by_ip.entry(interface.addr).or_insert(number);
            }
        }
    }

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
        wakers.extend(self.net.deliver(self.now, &self.hosts, &self.by_ip));
        Some(wakers)
    }
}

#[cfg(test)]
mod tests;
