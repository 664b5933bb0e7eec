//! One bound UDP socket and the table of the connections that use it.

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use futures::{channel::oneshot, task::AtomicWaker};
use quinn_proto::{ConnectionEvent, ConnectionHandle, EndpointEvent};
use smidge_runtime::{Handle, UdpOptions, UdpSocket};

use crate::half_open::{Bounds, HalfOpen, Ticket};

use super::{
    Error,
    closing::{ClosePacket, ClosingConnections},
    config::{Built, MIN_WINDOW},
    endpoint_driver::EndpointDriver,
    incoming::Incoming,
    lock,
    mailbox::Mailbox,
    transmit,
};

/// How long a handshake is left alone whose address is proved, before it may have to give way to another one.
const GRACE: Duration = Duration::from_millis(500);

/// What all endpoints of one transport share.
pub(super) struct Shared {
    pub(super) built: Built,
    pub(super) runtime: Handle,
    /// Connections that exist, in any state: they share [`Config::memory`](super::Config::memory).
    connections: AtomicUsize,
    /// Nothing is ever sent: the channel's end says that no socket is open any more.
    open: async_channel::Sender<()>,
    closed: async_channel::Receiver<()>,
}

impl Shared {
    pub(super) fn new(built: Built, runtime: Handle) -> Self {
        let (open, closed) = async_channel::bounded(1);
        Self { built, runtime, connections: AtomicUsize::new(0), open, closed }
    }

    /// Ready when this and every socket of the transport is gone.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let closed = self.closed.clone();
        async move { while closed.recv().await.is_ok() {} }
    }

    /// Bytes that each connection may hold now, before its own windows limit it further.
    pub(super) fn allowance(&self) -> u64 {
        let connections = self.connections.load(Ordering::Relaxed).max(1);
        (self.built.config.memory as u64 / (2 * connections as u64)).max(MIN_WINDOW)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// A bound socket. Its driver task ends when the last reference is gone.
pub(super) struct Endpoint {
    pub(super) shared: Arc<Shared>,
    pub(super) socket: Arc<dyn UdpSocket>,
    pub(super) table: Mutex<Table>,
    /// Incoming handshakes under way, queued ones included. Locked with or without the table, never the other way.
    pub(super) handshakes: Mutex<HalfOpen>,
    /// Woken when there is something for [`Endpoint::accept`].
    acceptor: AtomicWaker,
    /// Woken when a closed connection is to be forgotten earlier than the driver knows.
    pub(super) driver: AtomicWaker,
    /// Dropped with the endpoint, which tells the driver to end.
    _alive: oneshot::Sender<()>,
    /// Dropped after the socket: fields go in this order.
    _open: async_channel::Sender<()>,
}

/// The endpoint's state machine and where it sends what it sorted.
pub(super) struct Table {
    pub(super) quic: quinn_proto::Endpoint,
    /// By connection handle, which counts from 0 and is reused.
    mailboxes: Vec<Option<Arc<Mailbox>>>,
    /// Incoming connections nobody has looked at yet, bounded by `max_handshakes`.
    pub(super) queue: VecDeque<(Ticket, quinn_proto::Incoming)>,
    /// Pending hole punches by remote address, each with the dial that waits for it.
    pub(super) punches: HashMap<SocketAddr, oneshot::Sender<Incoming>>,
    /// Outgoing dials whose handshake is under way.
    dials: HashMap<usize, SocketAddr>,
    /// Connections that are closed and not forgotten yet.
    pub(super) closing: ClosingConnections,
    /// Why receiving failed, until the listener reports it.
    pub(super) failure: Option<io::Error>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("local", &self.local_addr()).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Binds a socket and starts its driver. Only a `listening` endpoint takes connections.
    pub(super) fn bind(shared: &Arc<Shared>, addr: SocketAddr, listening: bool) -> Result<Arc<Self>, Error> {
        let config = &shared.built.config;
        let options = UdpOptions {
            send_buffer: config.socket_send_buffer,
            recv_buffer: config.socket_recv_buffer,
            reuse: false,
        };
        let socket = shared.runtime.bind_udp(addr, options).map_err(|source| Error::Bind { addr, source })?;
        warn_of_small_buffers(options, &*socket);
        let quic = quinn_proto::Endpoint::new(
            shared.built.endpoint.clone(),
            listening.then(|| shared.built.server.clone()),
            !socket.may_fragment(),
            None,
        );
        let (alive, ended) = oneshot::channel();
        let endpoint = Arc::new(Self {
            shared: shared.clone(),
            socket: socket.clone(),
            table: Mutex::new(Table {
                quic,
                mailboxes: Vec::new(),
                queue: VecDeque::new(),
                punches: HashMap::new(),
                dials: HashMap::new(),
                closing: ClosingConnections::default(),
                failure: None,
            }),
            handshakes: Mutex::new(HalfOpen::new(Bounds {
                total: config.max_handshakes,
                per_address: config.max_handshakes_per_address,
                grace: GRACE,
            })),
            acceptor: AtomicWaker::new(),
            driver: AtomicWaker::new(),
            _alive: alive,
            _open: shared.open.clone(),
        });
        let driver = EndpointDriver::new(
            &shared.runtime,
            socket,
            Arc::downgrade(&endpoint),
            ended,
            shared.open.clone(),
        );
        shared.runtime.spawn(driver);
        Ok(endpoint)
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    /// Starts a connection to `remote`.
    pub(super) fn connect(
        &self,
        remote: SocketAddr,
    ) -> Result<(ConnectionHandle, quinn_proto::Connection, Arc<Mailbox>), Error> {
        let now = self.shared.runtime.now();
        let mut table = lock(&self.table);
        // The name is not sent (no SNI); rustls wants one all the same.
        let (handle, connection) = table
            .quic
            .connect(now, self.shared.built.client.clone(), remote, "libp2p")
            .map_err(|source| Error::Connect { remote, source })?;
        table.dials.insert(handle.0, remote);
        let mailbox = self.route(&mut table, handle);
        Ok((handle, connection, mailbox))
    }

    /// Gives a new connection its inbox. Every call is followed by one of [`Endpoint::release`] or
    /// [`Endpoint::linger`].
    pub(super) fn route(&self, table: &mut Table, handle: ConnectionHandle) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::new(self.shared.built.config.max_inbox));
        if table.mailboxes.len() <= handle.0 {
            table.mailboxes.resize(handle.0 + 1, None);
        }
        table.mailboxes[handle.0] = Some(mailbox.clone());
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        mailbox
    }

    /// A dial's handshake ended: reports of unreachable hosts are not about it any more.
    pub(super) fn dial_done(&self, handle: ConnectionHandle) {
        lock(&self.table).dials.remove(&handle.0);
    }

    /// Passes on what a connection has to say to the endpoint's table.
    pub(super) fn handle_event(
        &self,
        handle: ConnectionHandle,
        event: EndpointEvent,
    ) -> Option<ConnectionEvent> {
        lock(&self.table).quic.handle_event(handle, event)
    }

    /// Forgets a connection. Its handle may be another's from now on.
    pub(super) fn release(&self, handle: ConnectionHandle) {
        let mut table = lock(&self.table);
        self.unroute(&mut table, handle);
        table.quic.handle_event(handle, EndpointEvent::drained());
    }

    /// Forgets a closed connection but for its handle, and `close_packet`, until a moment.
    pub(super) fn linger(&self, handle: ConnectionHandle, until: Instant, close_packet: Option<ClosePacket>) {
        let mut table = lock(&self.table);
        self.unroute(&mut table, handle);
        if let Some(early) = table.closing.insert(handle.0, until, close_packet) {
            table.quic.handle_event(ConnectionHandle(early), EndpointEvent::drained());
        }
        let next = table.closing.next();
        drop(table);
        if next == Some(until) {
            self.driver.wake();
        }
    }

    /// Forgets connections that have lingered long enough; when to come back.
    pub(super) fn forget(&self, now: Instant) -> Option<Instant> {
        let mut table = lock(&self.table);
        while let Some(handle) = table.closing.expired(now) {
            table.quic.handle_event(ConnectionHandle(handle), EndpointEvent::drained());
        }
        table.closing.next()
    }

    fn unroute(&self, table: &mut Table, handle: ConnectionHandle) {
        table.dials.remove(&handle.0);
        if let Some(mailbox) = table.mailboxes.get_mut(handle.0) {
            *mailbox = None;
        }
        while let Some(None) = table.mailboxes.last() {
            table.mailboxes.pop();
        }
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// The next incoming connection, if there is one; `waker` is woken when there may be.
    pub(super) fn accept(self: &Arc<Self>, waker: &Waker) -> Option<Incoming> {
        self.acceptor.register(waker);
        let (ticket, incoming) = lock(&self.table).queue.pop_front()?;
        Some(Incoming::new(self.clone(), ticket, incoming))
    }

    /// Why receiving failed, once.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        lock(&self.table).failure.take()
    }

    /// Says that [`Endpoint::accept`] or [`Endpoint::take_failure`] has something new.
    pub(super) fn wake_acceptor(&self) {
        self.acceptor.wake();
    }

    /// Takes no connections any more. Those that exist live on.
    pub(super) fn stop_listening(self: &Arc<Self>) {
        let queue = {
            let mut table = lock(&self.table);
            table.quic.set_server_config(None);
            table.punches.clear();
            std::mem::take(&mut table.queue)
        };
        for (ticket, incoming) in queue {
            drop(Incoming::new(self.clone(), ticket, incoming));
        }
    }

    /// Sends what the state machine wants sent, once: a full queue loses it like a full link.
    pub(super) fn respond(&self, response: &quinn_proto::Transmit, bytes: &[u8]) {
        if let Err(e) = transmit::send(&*self.socket, response, bytes)
            && e.kind() != io::ErrorKind::WouldBlock
        {
            log::debug!("cannot send to {} from {}: {e}", response.destination, self.local_addr());
        }
    }

    /// Connections in the table that are not closed.
    #[cfg(test)]
    pub(super) fn open_connections(&self) -> usize {
        let table = lock(&self.table);
        table.quic.open_connections() - table.closing.len()
    }

    /// Connections that are closed and not forgotten yet.
    #[cfg(test)]
    pub(super) fn closing(&self) -> usize {
        lock(&self.table).closing.len()
    }
}

impl Table {
    pub(super) fn mailbox(&self, handle: ConnectionHandle) -> Option<&Arc<Mailbox>> {
        self.mailboxes.get(handle.0)?.as_ref()
    }

    /// The one dial under way to `host`; none when several could be meant.
    pub(super) fn dial_to(&self, host: IpAddr) -> Option<&Arc<Mailbox>> {
        let mut dials = self.dials.iter().filter(|(_, remote)| remote.ip() == host);
        let (&handle, _) = dials.next()?;
        if dials.next().is_some() {
            return None;
        }
        self.mailbox(ConnectionHandle(handle))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let table = self.table.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (_, incoming) in std::mem::take(&mut table.queue) {
            table.quic.ignore(incoming);
        }
    }
}

/// Says once per process what to do about socket buffers smaller than asked for.
fn warn_of_small_buffers(asked: UdpOptions, socket: &dyn UdpSocket) {
    static ONCE: Once = Once::new();
    let Some((send, recv)) = socket.buffer_sizes() else { return };
    // Linux reports twice what it grants, to account for its own bookkeeping (socket(7)).
    let factor = if cfg!(target_os = "linux") { 2 } else { 1 };
    let (send, recv) = (send / factor, recv / factor);
    let short = |asked: Option<usize>, got: usize| asked.is_some_and(|asked| got < asked);
    if short(asked.send_buffer, send) || short(asked.recv_buffer, recv) {
        ONCE.call_once(|| {
            log::warn!(
                "UDP socket buffers are {send} bytes (send) and {recv} bytes (receive), smaller than \
                 asked for: bursts may be lost. On Linux: sysctl -w net.core.wmem_max={} net.core.rmem_max={}",
                asked.send_buffer.unwrap_or(send),
                asked.recv_buffer.unwrap_or(recv),
            );
        });
    }
}
