//! A connection's state, and the step that moves it on.
//!
//! Whoever polls the connection calls [`State::drive`]; streams only leave something to do and
//! wake that task.

use std::{
    collections::{HashMap, VecDeque},
    io, mem,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Instant,
};

use futures::future::{BoxFuture, FutureExt};
use quinn_proto::{
    ConnectionError, ConnectionEvent, ConnectionHandle, Dir, Event, StreamEvent, StreamId, Transmit, VarInt,
};

use crate::runtime::Timer;

use super::{
    config::{FIRST_STREAMS, MIN_WINDOW},
    endpoint::Endpoint,
    link::Link,
    lock, transmit,
};

/// Received datagrams handled before other tasks get their turn.
const RECEIVE: usize = 128;
/// Queues of up to this many events are not kept while nothing arrives: they are cheap to make.
const KEPT: usize = 4;
/// Sent trains of datagrams (GSO) before other tasks get their turn.
const TRAINS: usize = 8;
/// Datagrams in one train. The kernel takes at most 64, and at most 64 KiB.
const TRAIN: usize = 40;

/// What the muxer and its streams share.
pub(super) struct Shared {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) link: Arc<Link>,
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        handle: ConnectionHandle,
        connection: quinn_proto::Connection,
        link: Arc<Link>,
    ) -> Arc<Self> {
        let state = State {
            remote: connection.remote_address(),
            quic: connection,
            handle,
            timer: endpoint.shared.runtime.timer(),
            deadline: None,
            late: false,
            batch: VecDeque::new(),
            unsent: None,
            send_error: None,
            readers: HashMap::new(),
            writers: HashMap::new(),
            acceptor: None,
            opener: None,
            unfinished: 0,
            connected: false,
            lost: None,
            woken: false,
            released: false,
            allowance: 0,
            stream_limit: FIRST_STREAMS,
        };
        Arc::new(Self { endpoint, link, state: Mutex::new(state) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Moves the connection on, and wakes whom that concerns once the lock is free again.
    pub(super) fn drive<T>(&self, cx: &mut Context<'_>, then: impl FnOnce(&mut State) -> T) -> T {
        let mut wakers = Vec::new();
        let out = {
            let mut state = self.lock();
            state.drive(cx, &self.endpoint, &self.link, &mut wakers);
            then(&mut state)
        };
        for waker in wakers {
            waker.wake();
        }
        out
    }

    /// Ends the connection at once, tells the remote if that can be done at once, and frees its
    /// place in the endpoint. Streams that outlive it may still read what had arrived.
    pub(super) fn abandon(&self) {
        let wakers = self.lock().abandon(&self.endpoint);
        for waker in wakers {
            waker.wake();
        }
    }
}

pub(super) struct State {
    pub(super) quic: quinn_proto::Connection,
    handle: ConnectionHandle,
    /// The remote's address as it was told to the layers above.
    pub(super) remote: SocketAddr,
    timer: Box<dyn Timer>,
    /// When whoever drives the connection gives up waiting for what it waits for.
    pub(super) deadline: Option<Instant>,
    /// The deadline has passed.
    pub(super) late: bool,
    /// Received and not handled yet.
    batch: VecDeque<ConnectionEvent>,
    /// What did not fit into the socket's queue.
    unsent: Option<Box<Unsent>>,
    /// Why the last datagram could not be sent at all.
    pub(super) send_error: Option<io::Error>,
    pub(super) readers: HashMap<StreamId, Waker>,
    pub(super) writers: HashMap<StreamId, Waker>,
    pub(super) acceptor: Option<Waker>,
    pub(super) opener: Option<Waker>,
    /// Streams whose send half is neither finished nor reset.
    pub(super) unfinished: usize,
    pub(super) connected: bool,
    /// Why the connection has ended.
    pub(super) lost: Option<ConnectionError>,
    /// The driving task has been woken since it last drove.
    woken: bool,
    /// The endpoint has forgotten the connection: its handle may be another's.
    released: bool,
    /// The memory share that was applied last.
    allowance: u64,
    /// How many streams the remote may have open now.
    stream_limit: u32,
}

struct Unsent {
    transmit: Transmit,
    bytes: Vec<u8>,
    writable: BoxFuture<'static, io::Result<()>>,
}

impl State {
    fn drive(
        &mut self,
        cx: &mut Context<'_>,
        endpoint: &Arc<Endpoint>,
        link: &Link,
        wakers: &mut Vec<Waker>,
    ) {
        // Registered first: what comes from here on wakes this task again.
        link.register(cx.waker());
        self.woken = false;
        let now = endpoint.shared.runtime.now();

        let mut again = self.receive(link);
        if self.quic.poll_timeout().is_some_and(|at| at <= now) {
            self.quic.handle_timeout(now);
        }
        if self.events(wakers) {
            self.grow(endpoint);
        }
        self.share(endpoint);
        self.endpoint_events(endpoint);
        again |= self.send(cx, endpoint, now);
        again |= self.arm(cx, now);
        if again {
            cx.waker().wake_by_ref();
        }
    }

    /// Says that a stream has left something to send.
    pub(super) fn wake_driver(&mut self, link: &Link) {
        if !mem::replace(&mut self.woken, true) {
            link.wake();
        }
    }

    /// Handles what has arrived; true when there is more.
    fn receive(&mut self, link: &Link) -> bool {
        for _ in 0..RECEIVE {
            if self.batch.is_empty() {
                link.take(&mut self.batch);
            }
            match self.batch.pop_front() {
                Some(event) => self.quic.handle_event(event),
                None => {
                    // An idle connection keeps no queue.
                    if self.batch.capacity() <= KEPT {
                        self.batch = VecDeque::new();
                    }
                    return false;
                }
            }
            // A stateless reset behind a close would replace the reason that the close gave.
            if self.quic.is_closed() && self.lost.is_none() {
                return true;
            }
        }
        true
    }

    /// Hands events to whom they concern; true when the remote has opened streams.
    fn events(&mut self, wakers: &mut Vec<Waker>) -> bool {
        let mut opened = false;
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::ConnectionLost { reason } => self.lose(reason, wakers),
                Event::Stream(StreamEvent::Opened { .. }) => {
                    opened = true;
                    wakers.extend(self.acceptor.take());
                }
                Event::Stream(StreamEvent::Available { .. }) => wakers.extend(self.opener.take()),
                Event::Stream(StreamEvent::Readable { id }) => wakers.extend(self.readers.remove(&id)),
                Event::Stream(StreamEvent::Writable { id } | StreamEvent::Stopped { id, .. }) => {
                    wakers.extend(self.writers.remove(&id));
                }
                // Only the muxer waits for these, and it looks after every drive.
                Event::Stream(StreamEvent::Finished { .. }) => {}
                Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
            }
        }
        opened
    }

    fn lose(&mut self, reason: ConnectionError, wakers: &mut Vec<Waker>) {
        self.lost.get_or_insert(reason);
        wakers.extend(self.acceptor.take());
        wakers.extend(self.opener.take());
        wakers.extend(mem::take(&mut self.readers).into_values());
        wakers.extend(mem::take(&mut self.writers).into_values());
    }

    /// Allows the remote more streams when it uses half of what it was allowed.
    fn grow(&mut self, endpoint: &Endpoint) {
        let most = endpoint.shared.built.config.max_concurrent_streams;
        let open = self.quic.streams().remote_open_streams(Dir::Bi);
        if self.stream_limit < most && open >= u64::from(self.stream_limit / 2) {
            self.stream_limit = self.stream_limit.saturating_mul(2).min(most);
            self.quic.set_max_concurrent_streams(Dir::Bi, self.stream_limit.into());
        }
    }

    /// Applies the connection's share of the transport's memory when it has changed.
    fn share(&mut self, endpoint: &Endpoint) {
        let allowance = endpoint.shared.allowance();
        if !self.connected || allowance == self.allowance {
            return;
        }
        self.allowance = allowance;
        let config = &endpoint.shared.built.config;
        let window = |configured: u64| configured.min(allowance).max(MIN_WINDOW.min(configured));
        let receive = u32::try_from(window(config.receive_window.into())).unwrap_or(config.receive_window);
        self.quic.set_receive_window(VarInt::from_u32(receive));
        self.quic.set_send_window(window(config.send_window));
    }

    fn endpoint_events(&mut self, endpoint: &Endpoint) {
        while let Some(event) = self.quic.poll_endpoint_events() {
            if event.is_drained() {
                self.release(endpoint);
            } else if !self.released
                && let Some(event) = endpoint.handle_event(self.handle, event)
            {
                self.quic.handle_event(event);
            }
        }
    }

    fn release(&mut self, endpoint: &Endpoint) {
        if !mem::replace(&mut self.released, true) {
            endpoint.release(self.handle);
        }
    }

    /// The handshake is over: reports of unreachable hosts mean this connection no longer.
    pub(super) fn dial_done(&self, endpoint: &Endpoint) {
        if !self.released {
            endpoint.dial_done(self.handle);
        }
    }

    /// Sends what is to be sent; true when there is more and the socket would take it.
    fn send(&mut self, cx: &mut Context<'_>, endpoint: &Arc<Endpoint>, now: Instant) -> bool {
        if !self.flush_unsent(cx, endpoint) {
            return false;
        }
        let most = endpoint.socket.max_transmit_segments().clamp(1, TRAIN);
        transmit::with_buffer(|buffer| {
            for _ in 0..TRAINS {
                buffer.clear();
                let Some(transmit) = self.quic.poll_transmit(now, most, buffer) else { return false };
                match transmit::send(&*endpoint.socket, &transmit, buffer) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        self.unsent = Some(Box::new(Unsent {
                            transmit,
                            bytes: buffer.clone(),
                            writable: endpoint.socket.clone().writable(),
                        }));
                        return self.flush_unsent(cx, endpoint);
                    }
                    // The datagram's fate; QUIC sends again what mattered.
                    Err(e) => {
                        log::trace!("cannot send to {}: {e}", transmit.destination);
                        self.send_error = Some(e);
                    }
                }
            }
            true
        })
    }

    /// Tries again what did not fit before; true when nothing of it is left.
    fn flush_unsent(&mut self, cx: &mut Context<'_>, endpoint: &Arc<Endpoint>) -> bool {
        while let Some(unsent) = &mut self.unsent {
            match unsent.writable.poll_unpin(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) => {
                    match transmit::send(&*endpoint.socket, &unsent.transmit, &unsent.bytes) {
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                            unsent.writable = endpoint.socket.clone().writable();
                        }
                        Ok(()) => self.unsent = None,
                        Err(e) => {
                            self.send_error = Some(e);
                            self.unsent = None;
                        }
                    }
                }
                Poll::Ready(Err(e)) => {
                    self.send_error = Some(e);
                    self.unsent = None;
                }
            }
        }
        true
    }

    /// Sets the alarm; true when it has rung already.
    fn arm(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.deadline.is_some_and(|at| at <= now) {
            self.deadline = None;
            self.late = true;
        }
        let next = match (self.quic.poll_timeout(), self.deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.timer.set(next);
        self.timer.poll(cx).is_ready()
    }

    /// Whether finished streams have been acknowledged and nothing waits to be sent.
    pub(super) fn is_settled(&mut self) -> bool {
        let delivering = self.quic.streams().send_streams().saturating_sub(self.unfinished);
        delivering == 0 && self.unsent.is_none() && !self.quic.has_pending_retransmits()
    }

    /// The reason why a stream can go no further.
    pub(super) fn lost_error(&self) -> Option<io::Error> {
        self.lost.as_ref().map(|reason| super::Error::lost(self.remote, reason))
    }

    /// The next stream that the remote opened.
    pub(super) fn accept(&mut self) -> Option<StreamId> {
        let id = self.quic.streams().accept(Dir::Bi)?;
        self.unfinished += 1;
        Some(id)
    }

    /// A new stream, if the remote's limit allows one.
    pub(super) fn open(&mut self) -> Option<StreamId> {
        let id = self.quic.streams().open(Dir::Bi)?;
        self.unfinished += 1;
        Some(id)
    }

    fn abandon(&mut self, endpoint: &Arc<Endpoint>) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if !self.released {
            let now = endpoint.shared.runtime.now();
            self.quic.close(now, VarInt::from_u32(0), Default::default());
            self.unsent = None;
            transmit::with_buffer(|buffer| {
                for _ in 0..TRAINS {
                    buffer.clear();
                    let Some(transmit) = self.quic.poll_transmit(now, 1, buffer) else { return };
                    endpoint.respond(&transmit, buffer);
                }
            });
            self.release(endpoint);
        }
        self.lose(ConnectionError::LocallyClosed, &mut wakers);
        // Nobody drives from here on: what is only of use to a driver goes now.
        self.batch = VecDeque::new();
        self.timer.set(None);
        wakers
    }
}
