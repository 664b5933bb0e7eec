//! The sockets of the simulated network: plain ones, and those that have joined a group.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt};

use super::{
    super::{
        super::{Interface, RecvMeta, Timer, Transmit, UdpSocket, alarms::ClockTimer},
        Inner,
    },
    Inbox, Member,
};

pub(in crate::sim) fn join(
    world: &Arc<Inner>,
    host: usize,
    group: SocketAddr,
    interface: &Interface,
) -> io::Result<Arc<dyn UdpSocket>> {
    let mut state = world.lock();
    if !state.hosts[host].interfaces.contains(interface) || group.is_ipv4() != interface.addr.is_ipv4() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    state.net.opened += 1;
    let id = state.net.opened;
    let (interface, own) = (interface.clone(), interface.addr);
    state.net.members.insert(id, Member { host, interface, group, inbox: Inbox::default() });
    Ok(Arc::new(SimMember { world: Arc::downgrade(world), id, group, own }))
}

/// A socket that has joined a group on an interface.
#[derive(Debug)]
struct SimMember {
    world: Weak<Inner>,
    id: u64,
    group: SocketAddr,
    /// The interface's address.
    own: IpAddr,
}

impl UdpSocket for SimMember {
    fn local_addr(&self) -> SocketAddr {
        self.group
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let world = self.world.upgrade().ok_or_else(world_has_ended)?;
        let mut state = world.lock();
        if state.net.members.get(&self.id).is_none_or(|member| state.hosts[member.host].is_down) {
            return Ok(());
        }
        let (now, from) = (state.now, SocketAddr::new(self.own, self.group.port()));
        state.net.send(now, from, transmit.destination, transmit.ecn, transmit.contents);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let world = self.world.upgrade().ok_or_else(world_has_ended)?;
        let mut state = world.lock();
        match state.net.members.get_mut(&self.id) {
            Some(member) => member.inbox.poll_recv(cx, bufs, meta),
            // The entry lives as long as this socket does.
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn writable(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>> {
        futures::future::ready(Ok(())).boxed()
    }
}

impl Drop for SimMember {
    fn drop(&mut self) {
        if let Some(world) = self.world.upgrade() {
            let member = world.lock().net.members.remove(&self.id);
            // A waker may own the last reference to something that locks the world.
            drop(member);
        }
    }
}

fn world_has_ended() -> io::Error {
    io::Error::other("the simulated world has ended")
}

pub(in crate::sim) fn bind(
    world: &Arc<Inner>,
    host: usize,
    addr: SocketAddr,
) -> io::Result<Arc<dyn UdpSocket>> {
    let mut state = world.lock();
    let known = state.hosts[host].interfaces.iter().any(|i| i.addr == addr.ip());
    if !addr.ip().is_unspecified() && !known {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let mut local = addr;
    if local.port() == 0 {
        local.set_port(state.net.free_port(host, addr.ip()).ok_or(io::ErrorKind::AddrInUse)?);
    }
    if state.net.sockets.contains_key(&(host, local)) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    state.net.opened += 1;
    let id = state.net.opened;
    state.net.sockets.insert((host, local), Inbox { id, ..Inbox::default() });
    Ok(Arc::new(SimUdp { world: Arc::downgrade(world), host, local, id }))
}

struct SimUdp {
    /// Weak: tasks of the world hold sockets of the world.
    world: Weak<Inner>,
    host: usize,
    local: SocketAddr,
    id: u64,
}

impl std::fmt::Debug for SimUdp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimUdp({})", self.local)
    }
}

impl SimUdp {
    fn world(&self) -> io::Result<Arc<Inner>> {
        self.world.upgrade().ok_or_else(world_has_ended)
    }
}

impl UdpSocket for SimUdp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let world = self.world()?;
        let mut state = world.lock();
        if state.hosts[self.host].is_down {
            return Ok(());
        }
        if state.net.link.busy > 0.0 && state.net.rng.f64() < state.net.link.busy {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let to = transmit.destination;
        let own = state.hosts[self.host].interfaces.iter().map(|i| i.addr);
        let source = match transmit.src_ip {
            Some(ip) => Some(ip),
            None if !self.local.ip().is_unspecified() => Some(self.local.ip()),
            None => own.into_iter().find(|ip| ip.is_ipv4() == to.is_ipv4()),
        };
        let Some(source) = source else { return Err(io::ErrorKind::NetworkUnreachable.into()) };
        let from = SocketAddr::new(source, self.local.port());
        let now = state.now;
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for segment in transmit.contents.chunks(size) {
            state.net.send(now, from, to, transmit.ecn, segment);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let world = self.world()?;
        let mut state = world.lock();
        // Unless its host crashed, the entry lives as long as this socket does.
        let inbox = state.net.sockets.get_mut(&(self.host, self.local)).filter(|inbox| inbox.id == self.id);
        let Some(inbox) = inbox else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        inbox.poll_recv(cx, bufs, meta)
    }

    fn writable(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>> {
        async move {
            let world = self.world()?;
            let mut timer = ClockTimer::new(world.clone());
            let at = world.lock().now + Duration::from_millis(1);
            timer.set(Some(at));
            drop(world);
            futures::future::poll_fn(|cx| timer.poll(cx)).await;
            Ok(())
        }
        .boxed()
    }

    fn max_transmit_segments(&self) -> usize {
        self.world().map_or(1, |world| world.lock().net.link.segments)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl Drop for SimUdp {
    fn drop(&mut self) {
        if let Some(world) = self.world.upgrade() {
            let inbox = {
                let mut state = world.lock();
                let key = (self.host, self.local);
                let is_own = state.net.sockets.get(&key).is_some_and(|inbox| inbox.id == self.id);
                if is_own { state.net.sockets.remove(&key) } else { None }
            };
            // A waker may own the last reference to something that locks the world.
            drop(inbox);
        }
    }
}
