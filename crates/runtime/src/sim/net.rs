//! A simulated network of UDP sockets, and what goes wrong on it.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    ops::Range,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use fastrand::Rng;

use super::{
    super::{EcnCodepoint, Interface, RecvMeta},
    HostState,
};

mod sockets;

pub(super) use sockets::{bind, join};

/// Datagrams that wait in a socket before more are dropped.
const QUEUE: usize = 4096;
/// Ports of sockets that asked for any.
const EPHEMERAL: Range<u16> = 40_000..60_000;

/// How the network treats each datagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// How long a datagram is on its way.
    pub latency: Duration,
    /// Up to how much longer, at random: later ones overtake.
    pub jitter: Duration,
    /// The share that is lost, from 0 to 1.
    pub loss: f64,
    /// The share that arrives twice, from 0 to 1.
    pub duplicate: f64,
    /// The share in which one byte is changed, from 0 to 1 (past what checksums catch).
    pub corrupt: f64,
    /// The share of sends that find the sender's queue full (`WouldBlock`), from 0 to 1.
    pub busy: f64,
    /// Bytes of payload above which a datagram is lost without a word.
    pub mtu: usize,
    /// Datagrams that one send may carry (GSO).
    pub segments: usize,
}

impl Default for Link {
    /// A good local network: 1 ms, nothing lost, 1500 bytes.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            busy: 0.0,
            mtu: 1472,
            segments: 8,
        }
    }
}

#[derive(Clone)]
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    ecn: Option<EcnCodepoint>,
    bytes: Vec<u8>,
}

pub(super) struct Net {
    rng: Rng,
    pub(super) link: Link,
    /// Of addresses whose link is another.
    pub(super) links: HashMap<IpAddr, Link>,
    /// Of addresses that are not on side 0.
    pub(super) sides: HashMap<IpAddr, u32>,
    /// Pairs of hosts between which nothing passes: from, to.
    pub(super) deaf: HashSet<(IpAddr, IpAddr)>,
    pub(super) cut: HashSet<IpAddr>,
    /// What is seen outside of what is sent from inside.
    pub(super) nat: HashMap<SocketAddr, SocketAddr>,
    pub(super) delivered: u64,
    sockets: HashMap<(usize, SocketAddr), Inbox>,
    /// Sockets that have joined a group, in the order in which they did.
    members: BTreeMap<u64, Member>,
    on_the_way: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
    /// Numbers of sockets.
    opened: u64,
    next_port: u16,
}

#[derive(Default)]
pub(super) struct Inbox {
    /// Of the socket it belongs to.
    id: u64,
    queue: VecDeque<Datagram>,
    reader: Option<Waker>,
    /// What the next receive fails with.
    failure: Option<io::ErrorKind>,
}

struct Member {
    host: usize,
    interface: Interface,
    group: SocketAddr,
    inbox: Inbox,
}

impl Inbox {
    /// The task to wake, if there was room.
    fn push(&mut self, datagram: Datagram) -> Option<Option<Waker>> {
        if self.queue.len() >= QUEUE {
            return None;
        }
        self.queue.push_back(datagram);
        Some(self.reader.take())
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if let Some(kind) = self.failure.take() {
            return Poll::Ready(Err(kind.into()));
        }
        let mut n = 0;
        while n < bufs.len().min(meta.len()) {
            let Some(datagram) = self.queue.pop_front() else { break };
            let len = datagram.bytes.len().min(bufs[n].len());
            bufs[n][..len].copy_from_slice(&datagram.bytes[..len]);
            let mut one = RecvMeta::default();
            one.addr = datagram.from;
            one.len = len;
            one.stride = len;
            one.ecn = datagram.ecn;
            one.dst_ip = Some(datagram.to.ip());
            meta[n] = one;
            n += 1;
        }
        if n > 0 {
            return Poll::Ready(Ok(n));
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Net {
    pub(super) fn new(seed: u64, link: Link) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            link,
            links: HashMap::new(),
            sides: HashMap::new(),
            deaf: HashSet::new(),
            cut: HashSet::new(),
            nat: HashMap::new(),
            delivered: 0,
            sockets: HashMap::new(),
            members: BTreeMap::new(),
            on_the_way: BTreeMap::new(),
            sent: 0,
            opened: 0,
            next_port: EPHEMERAL.start,
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.on_the_way.keys().next().map(|(at, _)| *at)
    }

    fn send(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        ecn: Option<EcnCodepoint>,
        bytes: &[u8],
    ) {
        let link = self.link_of(from.ip(), to.ip());
        let copies = 1 + usize::from(self.rng.f64() < link.duplicate);
        for _ in 0..copies {
            let lost = self.rng.f64() < link.loss;
            let late = link.jitter.mul_f64(self.rng.f64());
            if lost || bytes.len() > link.mtu {
                continue;
            }
            self.sent += 1;
            let from = self.nat.get(&from).copied().unwrap_or(from);
            let mut bytes = bytes.to_vec();
            if self.rng.f64() < link.corrupt && !bytes.is_empty() {
                let at = self.rng.usize(..bytes.len());
                bytes[at] ^= self.rng.u8(1..);
            }
            let datagram = Datagram { from, to, ecn, bytes };
            self.on_the_way.insert((now + link.latency + late, self.sent), datagram);
        }
    }

    /// A port that no socket on `host` has at `ip`.
    fn free_port(&mut self, host: usize, ip: IpAddr) -> Option<u16> {
        for _ in EPHEMERAL {
            self.next_port =
                if EPHEMERAL.contains(&self.next_port) { self.next_port + 1 } else { EPHEMERAL.start };
            if !self.sockets.contains_key(&(host, SocketAddr::new(ip, self.next_port))) {
                return Some(self.next_port);
            }
        }
        None
    }

    /// How the network treats what is sent from one to the other.
    fn link_of(&self, from: IpAddr, to: IpAddr) -> Link {
        *self.links.get(&from).or_else(|| self.links.get(&to)).unwrap_or(&self.link)
    }

    /// Whether nothing gets from one to the other.
    fn is_cut(&self, from: IpAddr, to: IpAddr) -> bool {
        let side = |ip| self.sides.get(&ip).copied().unwrap_or_default();
        self.cut.contains(&from)
            || self.cut.contains(&to)
            || side(from) != side(to)
            || self.deaf.contains(&(from, to))
    }

    /// Forgets the sockets of a host, also those that somebody holds on to. To be dropped when the world is not locked.
    pub(super) fn close_all(&mut self, host: usize) -> Vec<Inbox> {
        let sockets: Vec<_> = self.sockets.keys().filter(|(of, _)| *of == host).copied().collect();
        let mut gone: Vec<_> = sockets.iter().filter_map(|key| self.sockets.remove(key)).collect();
        let members: Vec<_> =
            self.members.iter().filter(|(_, m)| m.host == host).map(|(id, _)| *id).collect();
        gone.extend(members.iter().filter_map(|id| self.members.remove(id)).map(|member| member.inbox));
        gone
    }

    /// Makes the next receive on sockets bound to `port` fail.
    pub(super) fn fail(&mut self, port: u16, kind: io::ErrorKind) -> Vec<Waker> {
        let hit = self.sockets.iter_mut().filter(|((_, bound), _)| bound.port() == port);
        hit.filter_map(|(_, inbox)| {
            inbox.failure = Some(kind);
            inbox.reader.take()
        })
        .collect()
    }

    pub(super) fn deliver(
        &mut self,
        now: Instant,
        hosts: &[HostState],
        by_ip: &HashMap<IpAddr, usize>,
    ) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some(first) = self.on_the_way.first_entry().filter(|first| first.key().0 <= now) {
            let mut datagram = first.remove();
            if let Some((inside, _)) = self.nat.iter().find(|(_, outside)| **outside == datagram.to) {
                datagram.to = *inside;
            }
            let to = datagram.to;
            if to.ip().is_multicast() {
                wakers.extend(self.deliver_to_group(&datagram, hosts));
                continue;
            }
            if self.is_cut(datagram.from.ip(), to.ip()) {
                continue;
            }
            let Some(&host) = by_ip.get(&to.ip()) else { continue };
            let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
            let key = [to, SocketAddr::new(any, to.port())]
                .map(|bound| (host, bound))
                .into_iter()
                .find(|key| self.sockets.contains_key(key));
            let Some(inbox) = key.and_then(|key| self.sockets.get_mut(&key)) else { continue };
            if let Some(reader) = inbox.push(datagram) {
                self.delivered += 1;
                wakers.extend(reader);
            }
        }
        wakers
    }

    /// Every host that has joined on the link receives the datagram, the sender's host as well.
    fn deliver_to_group(&mut self, datagram: &Datagram, hosts: &[HostState]) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let apart: HashSet<IpAddr> = (self.members.values())
            .map(|member| member.interface.addr)
            .filter(|to| self.is_cut(datagram.from.ip(), *to))
            .collect();
        let cut = |to| apart.contains(&to);
        for member in self.members.values_mut() {
            let hears = member.group == datagram.to
                && member.interface.contains(datagram.from.ip())
                && hosts[member.host].interfaces.contains(&member.interface)
                && !cut(member.interface.addr);
            if hears && let Some(reader) = member.inbox.push(datagram.clone()) {
                self.delivered += 1;
                wakers.extend(reader);
            }
        }
        wakers
    }
}
