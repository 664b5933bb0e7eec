//! The `NetworkBehaviour` around discovery: carries out what it wants, over sockets that come and go with
//! the interfaces.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    convert::Infallible,
    fmt,
    io::{self, IoSliceMut},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        behaviour::DialFailure,
        dial_opts::{DialOpts, PeerCondition},
        dummy,
    },
};

use super::{
    action::{Action, Notice, Segment, Settings},
    discovered::Fault,
    discovery::Discovery,
    interfaces::{self, Selection},
};
use crate::{
    dialer::NameStatus,
    error::chain,
    runtime::{Handle, Interface, Interfaces, RecvMeta, Timer, Transmit, UdpSocket},
    transport::multiaddr::split_peer,
};

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const PORT: u16 = 5353;
/// Packets read in one go before other behaviours get their turn.
const READS: usize = 32;
/// Changes of the interfaces looked at in one go.
const CHANGES: usize = 4;
/// When a socket that could not be opened is tried again, if no interface changes sooner.
const REOPEN: Duration = Duration::from_secs(30);
/// Size of the receive buffer: with GRO one read may hold several datagrams.
const BUFFER: usize = 1 << 16;

/// Whether the group could be joined on each segment.
pub(crate) type Tried = Vec<(Segment, io::Result<()>)>;

/// Where peers would be looked for with these `interfaces`, what stands in the way at each place, and what
/// stands in the way altogether.
///
/// # Errors
/// When the interfaces cannot be listed.
pub(crate) fn rehearse(runtime: &Handle, interfaces: &[String]) -> io::Result<(Tried, Option<String>)> {
    let list = runtime.interfaces()?.list()?;
    let Selection { segments, trouble } =
        interfaces::choose(&list, &runtime.links().unwrap_or_default(), interfaces);
    let tried = segments.into_iter().map(|(segment, here)| (segment, join(runtime, &here).map(drop)));
    Ok((tried.collect(), trouble))
}

fn join(runtime: &Handle, here: &[Interface]) -> io::Result<(Arc<dyn UdpSocket>, SocketAddr)> {
    let first = here.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let group = if first.addr.is_ipv4() {
        SocketAddr::from((GROUP_V4, PORT))
    } else {
        SocketAddrV6::new(GROUP_V6, PORT, 0, first.index).into()
    };
    Ok((runtime.join_multicast(group, first)?, group))
}

struct Open {
    socket: Arc<dyn UdpSocket>,
    group: SocketAddr,
    here: Vec<Interface>,
}

/// Finds peers on the links of this host, and dials them.
pub(crate) struct Behaviour {
    /// `None`: discovery is off.
    running: Option<Box<Running>>,
    waker: Option<Waker>,
}

struct Running {
    discovery: Discovery,
    runtime: Handle,
    wanted: Vec<String>,
    /// `None`: the interfaces are not known.
    watch: Option<Box<dyn Interfaces>>,
    open: BTreeMap<Segment, Open>,
    /// Why there is no socket where there should be one.
    failed: BTreeMap<Segment, String>,
    /// Why hardly any peer is found, whatever the sockets do.
    trouble: Option<String>,
    notices: VecDeque<Notice>,
    own: BTreeSet<Multiaddr>,
    dials: HashMap<ConnectionId, PeerId>,
    timer: Box<dyn Timer>,
    reopen: Option<Instant>,
    /// Whether discovery had an event since it was last polled.
    stirred: bool,
    buffer: Vec<u8>,
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let discovery = self.running.as_ref().map(|running| &running.discovery);
        f.debug_struct("mdns::Behaviour").field("discovery", &discovery).finish_non_exhaustive()
    }
}

impl Behaviour {
    /// Starts discovery for the node `local`. Problems are reported as notices and fail nothing.
    pub(crate) fn new(local: PeerId, settings: Settings, runtime: Handle, rng: fastrand::Rng) -> Self {
        let mut running = Running {
            discovery: Discovery::new(local, settings.policy, rng, runtime.now()),
            wanted: settings.interfaces,
            watch: None,
            open: BTreeMap::new(),
            failed: BTreeMap::new(),
            trouble: None,
            notices: VecDeque::new(),
            own: BTreeSet::new(),
            dials: HashMap::new(),
            timer: runtime.timer(),
            reopen: None,
            stirred: true,
            buffer: vec![0; BUFFER],
            runtime,
        };
        match running.runtime.interfaces() {
            Ok(watch) => {
                running.watch = Some(watch);
                running.look_around();
            }
            Err(e) => running.complain(format!("the network interfaces cannot be watched: {e}")),
        }
        Self { running: Some(Box::new(running)), waker: None }
    }

    /// A behaviour that neither queries nor announces.
    pub(crate) fn off() -> Self {
        Self { running: None, waker: None }
    }

    /// Where on the local network another node is said to have this node's key.
    pub(crate) fn same_key(&self) -> Vec<Multiaddr> {
        self.running.as_ref().map(|running| running.discovery.same_key()).unwrap_or_default()
    }

    /// What was found, as the records of a name; `None` if discovery is off.
    pub(crate) fn status(&self) -> Option<NameStatus> {
        let running = self.running.as_ref()?;
        let mut status = running.discovery.status(running.runtime.now());
        let failed = running.failed.iter().next().map(|(segment, why)| format!("{segment}: {why}"));
        status.last_error = running.trouble.clone().or(failed).or(status.last_error);
        Some(status)
    }

    /// Announces the end of this node's records (TTL 0), and dials nothing any more.
    pub(crate) fn stop(&mut self) {
        self.tell(|running, _| running.discovery.stop());
    }

    fn tell(&mut self, what: impl FnOnce(&mut Running, Instant)) {
        let Some(running) = &mut self.running else { return };
        let now = running.runtime.now();
        what(running, now);
        running.stirred = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Running {
    /// Opens and closes sockets as the interfaces have it.
    fn look_around(&mut self) {
        let now = self.runtime.now();
        self.reopen = None;
        let list = match self.watch.as_ref().map(|watch| watch.list()) {
            Some(Ok(list)) => list,
            Some(Err(e)) => return self.complain(format!("the network interfaces cannot be listed: {e}")),
            None => return,
        };
        // Only Linux lists them; elsewhere every interface is given a try.
        let links = self.runtime.links().unwrap_or_default();
        let Selection { segments, trouble } = interfaces::choose(&list, &links, &self.wanted);
        match trouble {
            Some(why) => self.complain(why),
            None => self.trouble = None,
        }
        let all: BTreeSet<_> = self.open.keys().chain(self.failed.keys()).cloned().collect();
        for gone in all.iter().filter(|segment| !segments.contains_key(*segment)) {
            self.failed.remove(gone);
            if self.open.remove(gone).is_some() {
                self.discovery.on_segment_gone(gone);
            }
        }
        for (segment, here) in segments {
            if self.open.get(&segment).is_some_and(|open| open.here == here) {
                continue;
            }
            match join(&self.runtime, &here) {
                Ok((socket, group)) => {
                    self.failed.remove(&segment);
                    self.discovery.on_segment(segment.clone(), here.clone(), now);
                    self.open.insert(segment, Open { socket, group, here });
                }
                Err(e) => self.fail(&segment, format!("its group cannot be joined: {e}")),
            }
        }
        self.stirred = true;
    }

    /// There is no socket where there should be one; reported once, and tried again.
    fn fail(&mut self, segment: &Segment, why: String) {
        if self.open.remove(segment).is_some() {
            self.discovery.on_segment_gone(segment);
        }
        self.reopen = Some(self.runtime.now() + REOPEN);
        if self.failed.insert(segment.clone(), why.clone()).as_ref() != Some(&why) {
            self.notices.push_back(Notice::Trouble { segment: Some(segment.clone()), why });
        }
    }

    fn complain(&mut self, why: String) {
        if self.trouble.as_ref() != Some(&why) {
            self.trouble = Some(why.clone());
            self.notices.push_back(Notice::Trouble { segment: None, why });
        }
    }

    fn poll_interfaces(&mut self, cx: &mut Context<'_>) {
        let Some(watch) = &mut self.watch else { return };
        let mut changed = false;
        for _ in 0..CHANGES {
            if watch.poll_changed(cx).is_pending() {
                break;
            }
            changed = true;
        }
        if changed {
            // Registers again in case the loop above ended on a change.
            cx.waker().wake_by_ref();
            self.look_around();
        }
    }

    fn poll_sockets(&mut self, cx: &mut Context<'_>) {
        let now = self.runtime.now();
        let mut broken = Vec::new();
        for (segment, Open { socket, group, here }) in &self.open {
            let index = here.first().map_or(0, |own| own.index);
            let mut left = READS;
            loop {
                let mut meta = [RecvMeta::default()];
                match socket.poll_recv(cx, &mut [IoSliceMut::new(&mut self.buffer)], &mut meta) {
                    Poll::Pending => break,
                    Poll::Ready(Err(e)) => {
                        broken.push((segment.clone(), e));
                        break;
                    }
                    Poll::Ready(Ok(_)) => {}
                }
                self.stirred = true;
                let [meta] = meta;
                // Sent to this host alone, it may come from anywhere; and not every system keeps apart what
                // comes on one interface and on another.
                let is_here = index == 0 || meta.interface_index.is_none_or(|on| on == index);
                if is_here && meta.dst_ip.is_none_or(|to| to == group.ip()) {
                    for packet in self.buffer[..meta.len.min(BUFFER)].chunks(meta.stride.max(1)) {
                        self.discovery.on_packet(segment, packet, now);
                    }
                }
                left -= 1;
                if left == 0 {
                    cx.waker().wake_by_ref();
                    break;
                }
            }
        }
        for (segment, error) in broken {
            self.fail(&segment, format!("nothing can be received: {error}"));
        }
    }

    fn send(&mut self, segment: &Segment, bytes: &[u8]) {
        let Some(Open { socket, group, .. }) = self.open.get(segment) else { return };
        let transmit =
            Transmit { destination: *group, ecn: None, contents: bytes, segment_size: None, src_ip: None };
        let sent = match socket.try_send(&transmit) {
            // It is announced again before long.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Err(format!("{e}; is there a packet filter?"))
            }
            sent => sent.map_err(|e| e.to_string()),
        };
        self.discovery.on_sent(segment, sent, self.runtime.now());
    }

    /// Carries out what discovery wants; a dial or an event ends the round.
    fn act(&mut self) -> Option<ToSwarm<Notice, Infallible>> {
        loop {
            if let Some(notice) = self.notices.pop_front().or_else(|| self.discovery.next_notice()) {
                return Some(ToSwarm::GenerateEvent(notice));
            }
            match self.discovery.poll(self.runtime.now()) {
                Some(Action::Send(segment, bytes)) => self.send(&segment, &bytes),
                Some(Action::Dial(peer, addresses)) => {
                    let opts = DialOpts::peer_id(peer)
                        .condition(PeerCondition::DisconnectedAndNotDialing)
                        .addresses(addresses)
                        .build();
                    self.dials.insert(opts.connection_id(), peer);
                    return Some(ToSwarm::Dial { opts });
                }
                // What was just done may have been worth a word.
                None => {
                    let notice = self.discovery.next_notice()?;
                    return Some(ToSwarm::GenerateEvent(notice));
                }
            }
        }
    }
}

fn fault(failure: &DialFailure<'_>) -> Fault {
    let bare = |address: &Multiaddr| split_peer(address.clone()).0;
    match failure.error {
        DialError::DialPeerConditionFalse(_) => Fault::Elsewhere,
        DialError::Denied { cause } => Fault::Denied(chain(cause)),
        DialError::Transport(errors) => {
            let why: Vec<_> = errors.iter().map(|(address, e)| format!("{address}: {}", chain(e))).collect();
            Fault::Failed(why.join("; "), errors.iter().map(|(address, _)| bare(address)).collect())
        }
        DialError::WrongPeerId { obtained, address } => {
            Fault::Failed(format!("another peer answers there: {obtained}"), vec![bare(address)])
        }
        other => Fault::Failed(chain(other), Vec::new()),
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Notice;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(e) => self.tell(|running, now| {
                running.dials.remove(&e.connection_id);
                running.discovery.on_connected(e.peer_id, now);
            }),
            FromSwarm::ConnectionClosed(e) => {
                self.tell(|running, now| running.discovery.on_disconnected(e.peer_id, now));
            }
            FromSwarm::DialFailure(failure) => self.tell(|running, now| {
                if let Some(peer) = running.dials.remove(&failure.connection_id) {
                    running.discovery.on_dial_failed(peer, fault(&failure), now);
                }
            }),
            FromSwarm::NewListenAddr(e) => self.tell(|running, now| {
                running.own.insert(split_peer(e.addr.clone()).0);
                running.discovery.on_own_addresses(running.own.iter().cloned(), now);
            }),
            FromSwarm::ExpiredListenAddr(e) => self.tell(|running, now| {
                running.own.remove(&split_peer(e.addr.clone()).0);
                running.discovery.on_own_addresses(running.own.iter().cloned(), now);
            }),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        libp2p::core::util::unreachable(event)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let Some(running) = &mut self.running else { return Poll::Pending };
        // Once in each turn: a flood must not hold the swarm.
        running.poll_interfaces(cx);
        running.poll_sockets(cx);
        loop {
            if running.timer.poll(cx).is_ready() {
                running.stirred = true;
                if running.reopen.is_some_and(|at| at <= running.runtime.now()) {
                    running.look_around();
                    // A socket that was just opened wants a poll.
                    cx.waker().wake_by_ref();
                }
            }
            if !running.stirred {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if let Some(action) = running.act() {
                return Poll::Ready(action);
            }
            running.stirred = false;
            running.timer.set(running.discovery.deadline().into_iter().chain(running.reopen).min());
        }
    }
}
