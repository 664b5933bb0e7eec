//! The one task of an endpoint: receives datagrams and hands them to their connections.
//!
//! It never touches a connection's state: a slow connection cannot stall the others.

use std::{
    future::Future,
    io::IoSliceMut,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use futures::{FutureExt, channel::oneshot};
use quinn_proto::{DatagramEvent, EcnCodepoint, Incoming};
use smidge_runtime::{Handle, RecvMeta, Sleep, Timer, UdpSocket};

use super::{
    endpoint::{Endpoint, Table},
    incoming, lock,
    mailbox::Mailbox,
};

/// Buffers that one system call may fill.
const BATCH: usize = 8;
/// System calls before other tasks get their turn.
const CALLS: usize = 4;
/// Reports of unreachable hosts read before other tasks get their turn.
const REPORTS: usize = 16;
/// Received bytes are copied into blocks of at least this size, which connections share; a block
/// is reused when nothing of it is held any more.
const BLOCK: usize = 16 * 1024;
/// The largest UDP payload, or train of them (GRO), that a receive can return.
const TRAIN: usize = 64 * 1024;
/// The largest single datagram that is taken.
const DATAGRAM: usize = 2 * 1024;
/// How long after a burst its pages are given back.
const QUIET: Duration = Duration::from_secs(30);
/// How long to leave a socket alone that failed to receive.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Whether more than one buffer was filled of late: pages that are held until a while after.
#[derive(Default)]
struct Burst {
    last: Option<Instant>,
    /// When to see whether it is over: not moved by each datagram.
    look: Option<Instant>,
}

impl Burst {
    fn goes_on(&mut self, now: Instant) {
        self.last = Some(now);
        self.look.get_or_insert(now + QUIET);
    }

    /// Says so once.
    fn is_over(&mut self, now: Instant) -> bool {
        if self.look.is_none_or(|look| look > now) {
            return false;
        }
        self.look = self.last.map(|last| last + QUIET).filter(|look| *look > now);
        self.look.is_none()
    }
}

pub(super) struct EndpointDriver {
    socket: Arc<dyn UdpSocket>,
    endpoint: Weak<Endpoint>,
    /// Ready when the endpoint is gone.
    ended: oneshot::Receiver<()>,
    /// `BATCH` times `slot` bytes; the kernel writes here.
    received: Vec<u8>,
    slot: usize,
    burst: Burst,
    /// What is received next goes behind this.
    block: BytesMut,
    /// What the endpoint answers by itself (version negotiation, retry, reset).
    response: Vec<u8>,
    /// Drivers to wake at the end of a batch: once, not per datagram.
    touched: Vec<Arc<Mailbox>>,
    pause: Option<Sleep>,
    /// Rings when a closed connection is to be forgotten, or pages are to be given back.
    alarm: Box<dyn Timer>,
    /// Dropped after the socket: fields go in this order.
    _open: async_channel::Sender<()>,
}

impl EndpointDriver {
    pub(super) fn new(
        runtime: &Handle,
        socket: Arc<dyn UdpSocket>,
        endpoint: Weak<Endpoint>,
        ended: oneshot::Receiver<()>,
        open: async_channel::Sender<()>,
    ) -> Self {
        let slot = if socket.max_receive_segments() > 1 { TRAIN } else { DATAGRAM };
        Self {
            socket,
            endpoint,
            ended,
            // Zeroed pages cost nothing until the kernel fills them.
            received: vec![0; BATCH * slot],
            slot,
            burst: Burst::default(),
            block: BytesMut::new(),
            response: Vec::new(),
            touched: Vec::new(),
            pause: None,
            alarm: runtime.timer(),
            _open: open,
        }
    }

    /// Reads why dials fail. Only a hint: it never ends an established connection.
    fn read_reports(&self, endpoint: &Endpoint) {
        for _ in 0..REPORTS {
            let Some(report) = self.socket.take_error() else { return };
            let refused = std::io::Error::from_raw_os_error(report.raw_errno).kind()
                == std::io::ErrorKind::ConnectionRefused;
            if refused && let Some(host) = report.addr {
                let mailbox = lock(&endpoint.table).dial_to(host.ip()).cloned();
                if let Some(mailbox) = mailbox {
                    mailbox.refuse();
                }
            }
        }
    }

    fn receive(&mut self, cx: &mut Context<'_>, endpoint: &Arc<Endpoint>) -> Poll<()> {
        let mut meta = [RecvMeta::default(); BATCH];
        for _ in 0..CALLS {
            let polled = {
                let mut chunks = self.received.chunks_exact_mut(self.slot);
                // `received` holds exactly BATCH slots, so an empty slice never comes up.
                let mut bufs: [IoSliceMut<'_>; BATCH] =
                    std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
                self.socket.poll_recv(cx, &mut bufs, &mut meta)
            };
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(n)) => self.sort(endpoint, &meta[..n.min(BATCH)]),
                Poll::Ready(Err(e)) => {
                    log::warn!("cannot receive on {}: {e}", endpoint.local_addr());
                    lock(&endpoint.table).failure = Some(e);
                    endpoint.wake_acceptor();
                    self.pause = Some(endpoint.shared.runtime.sleep(AFTER_FAILURE));
                    return Poll::Ready(());
                }
            }
        }
        Poll::Ready(())
    }

    /// Hands received buffers to the connections they belong to.
    fn sort(&mut self, endpoint: &Arc<Endpoint>, meta: &[RecvMeta]) {
        let now = endpoint.shared.runtime.now();
        if meta.len() > 1 {
            self.burst.goes_on(now);
        }
        let mut table = lock(&endpoint.table);
        for (meta, buf) in meta.iter().zip(self.received.chunks_exact(self.slot)) {
            let Some(bytes) = buf.get(..meta.len) else { continue };
            if self.block.capacity() < bytes.len() {
                self.block.reserve(bytes.len().max(BLOCK));
            }
            self.block.extend_from_slice(bytes);
            let mut train = self.block.split();
            let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
            while !train.is_empty() {
                let datagram = train.split_to(meta.stride.clamp(1, train.len()));
                self.response.clear();
                let event = table.quic.handle(now, meta.addr, meta.dst_ip, ecn, datagram, &mut self.response);
                match event {
                    None => {}
                    Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                        if let Some(mailbox) = table.mailbox(handle) {
                            mailbox.push(event);
                            if !self.touched.last().is_some_and(|last| Arc::ptr_eq(last, mailbox)) {
                                self.touched.push(mailbox.clone());
                            }
                        } else if let Some(close_packet) = table.closing.answer(handle.0) {
                            endpoint.respond(&close_packet.transmit, &close_packet.bytes);
                        }
                    }
                    Some(DatagramEvent::Response(transmit)) => {
                        endpoint.respond(&transmit, &self.response);
                    }
                    Some(DatagramEvent::NewConnection(incoming)) => {
                        self.response.clear();
                        admit(endpoint, &mut table, incoming, &mut self.response);
                    }
                }
            }
        }
        drop(table);
        for mailbox in self.touched.drain(..) {
            mailbox.wake();
        }
    }
}

/// Decides over a connection that someone wants to open: to the one who punched a hole for it,
/// into the queue, or away.
fn admit(endpoint: &Arc<Endpoint>, table: &mut Table, incoming: Incoming, response: &mut Vec<u8>) {
    let config = &endpoint.shared.built.config;
    let remote = incoming.remote_address();
    let is_proved = incoming.remote_address_validated();
    let now = endpoint.shared.runtime.now();
    if let Some(waiting) = table.punches.remove(&remote)
        && !waiting.is_canceled()
    {
        // Wanted, and as seldom as `max_punches`: whoever floods takes no place from it.
        let ticket = lock(&endpoint.handshakes).begin_wanted(remote.ip(), now);
        // The receiver may vanish this very moment; to drop an `Incoming` here would lock the
        // table twice.
        if let Err(unwanted) = waiting.send(incoming::Incoming::new(endpoint.clone(), ticket, incoming))
            && let Some(incoming) = unwanted.into_quinn()
        {
            table.quic.ignore(incoming);
        }
        return;
    }
    let under_way = lock(&endpoint.handshakes).len();
    if under_way >= config.retry_above && !is_proved {
        return match table.quic.retry(incoming, response) {
            Ok(transmit) => endpoint.respond(&transmit, response),
            // It carries a retry token already, which does not validate it: not our token.
            Err(e) => table.quic.ignore(e.into_incoming()),
        };
    }
    let ticket = lock(&endpoint.handshakes).begin(remote.ip(), is_proved, now);
    // Those that gave way and were not even looked at.
    while let Some(at) = table.queue.iter().position(|(ticket, _)| ticket.cut.is_cut())
        && let Some((_, gone)) = table.queue.remove(at)
    {
        table.quic.ignore(gone);
    }
    match ticket {
        Some(ticket) => {
            table.queue.push_back((ticket, incoming));
            endpoint.wake_acceptor();
        }
        None => {
            // The address is proved, or nothing is due to it: a spoofed one must not be sent more than a retry.
            if is_proved {
                let transmit = table.quic.refuse(incoming, response);
                endpoint.respond(&transmit, response);
            } else {
                table.quic.ignore(incoming);
            }
            log::debug!("{remote} turned away: {under_way} handshakes are under way");
        }
    }
}

impl Future for EndpointDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended.poll_unpin(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(endpoint) = self.endpoint.upgrade() else {
            return Poll::Ready(());
        };
        if let Some(pause) = &mut self.pause {
            if pause.poll_unpin(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        endpoint.driver.register(cx.waker());
        loop {
            let now = endpoint.shared.runtime.now();
            if self.burst.is_over(now) {
                self.received = vec![0; self.received.len()];
            }
            let next = [endpoint.forget(now), self.burst.look].into_iter().flatten().min();
            self.alarm.set(next);
            if self.alarm.poll(cx).is_pending() {
                break;
            }
        }
        let more = self.receive(cx, &endpoint).is_ready();
        if self.socket.may_have_errors() {
            self.read_reports(&endpoint);
        }
        if more {
            // More may be there: the others first.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_over_once_and_only_when_nothing_came_for_a_while() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut burst = Burst::default();
        assert!(!burst.is_over(start) && burst.look.is_none());
        burst.goes_on(start);
        burst.goes_on(start + 20 * second);
        assert!(!burst.is_over(start + 29 * second));
        assert_eq!(burst.look, Some(start + QUIET));
        assert!(!burst.is_over(start + QUIET), "it went on meanwhile");
        assert_eq!(burst.look, Some(start + QUIET + 20 * second));
        assert!(burst.is_over(start + QUIET + 20 * second));
        assert!(!burst.is_over(start + 1000 * second) && burst.look.is_none());
    }
}
