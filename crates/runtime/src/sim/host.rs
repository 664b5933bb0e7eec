//! A host of a simulated world, as a runtime.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use futures::future::{BoxFuture, FutureExt, ready};

use super::{World, enter, here, net};
use crate::{
    ByteStream, Handle, Interface, Interfaces, Runtime, TcpListener, TcpOptions, TcpStream, Timer,
    UdpOptions, UdpSocket, UnixListener, alarm, alarms::ClockTimer,
};

/// A host of a simulated world: the runtime of what runs on it.
#[derive(Clone, Debug)]
pub struct Host {
    pub(super) world: World,
    pub(super) host: usize,
}

impl Host {
    /// The runtime to hand to what runs on this host.
    pub fn handle(&self) -> Handle {
        self.clone().into()
    }

    /// Which of the world's hosts it is, from 0.
    pub fn number(&self) -> usize {
        self.host
    }

    /// Does something outside of [`World::block_on`] as if a task of this host did: by its clocks.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = alarm::enter(self.world.0.clone());
        let before =
            super::HERE.replace(Some(super::Here { elapsed: self.world.elapsed(), host: Some(self.host) }));
        let _left = super::Left(before);
        work()
    }

    /// Sets its wall clock so many milliseconds ahead of the right time, or behind it.
    pub fn set_wall_skew(&self, millis: i64) {
        self.world.0.lock().hosts[self.host].skew = millis;
    }

    /// Tasks that run on it.
    pub fn tasks(&self) -> usize {
        self.world.0.executor.count(self.host)
    }

    /// Ends all that runs on it without a word to anybody, as a power failure does. It keeps addresses and
    /// clocks. Not to be called by a task of its own.
    pub fn crash(&self) {
        self.world.0.lock().hosts[self.host].is_down = true;
        let before = here().and_then(|here| here.host);
        enter(self.host);
        self.world.0.executor.clear_host(self.host);
        enter(before.unwrap_or(super::NOWHERE));
        let gone = {
            let mut state = self.world.0.lock();
            state.hosts[self.host].is_down = false;
            state.net.close_all(self.host)
        };
        // With wakers may go tasks that lock the world.
        drop(gone);
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
            let watchers = std::mem::take(&mut host.watchers);
            state.index();
            watchers
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Its first address.
    ///
    /// # Panics
    /// When it has none.
    pub fn ip(&self) -> IpAddr {
        self.world.0.lock().hosts[self.host].interfaces.first().expect("a host with an address").addr
    }
}

impl Runtime for Host {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.world.0.executor.spawn(self.host, task);
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

    fn bind_tcp(&self, addr: SocketAddr, _: TcpOptions) -> io::Result<Box<dyn TcpListener>> {
        Ok(Box::new(DeafListener(addr)))
    }

    fn connect_tcp(
        &self,
        _: SocketAddr,
        _: TcpOptions,
    ) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        ready(Err(io::ErrorKind::ConnectionRefused.into())).boxed()
    }

    fn bind_unix(&self, _: std::path::PathBuf) -> io::Result<Box<dyn UnixListener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn connect_unix(&self, _: std::path::PathBuf) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
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

    fn links(&self) -> io::Result<Vec<crate::Link>> {
        let interfaces = self.world.0.lock().hosts[self.host].interfaces.clone();
        let link = |i: Interface| crate::Link {
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

/// A TCP listener that nobody reaches.
#[derive(Debug)]
struct DeafListener(SocketAddr);

impl TcpListener for DeafListener {
    fn local_addr(&self) -> SocketAddr {
        self.0
    }

    fn poll_accept(&self, _: &mut Context<'_>) -> Poll<io::Result<(Box<dyn TcpStream>, SocketAddr)>> {
        Poll::Pending
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
        if !host.watchers.iter().any(|waker| waker.will_wake(cx.waker())) {
            host.watchers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
