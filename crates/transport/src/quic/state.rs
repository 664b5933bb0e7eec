//! A connection's state, which its driver, the muxer and the streams share.
//!
//! Only the driver ([`drive`](super::drive)) receives and sends; all others leave something to do
//! and wake it.

use std::{
    collections::{HashMap, VecDeque},
    io, mem,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    task::Waker,
    time::{Duration, Instant},
};

use quinn_proto::{ConnectionError, ConnectionEvent, ConnectionHandle, Dir, StreamId, VarInt};
use smidge_runtime::Timer;

use super::{
    config::FIRST_STREAMS,
    congestion,
    drive::{Drive, TRAINS, Unsent},
    endpoint::Endpoint,
    linger::Farewell,
    link::Link,
    lock, transmit,
};

/// The longest that an endpoint remembers a closed connection, however slow its path is.
const LINGER: Duration = Duration::from_secs(10);

/// What the muxer and its streams share.
pub(super) struct Shared {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) link: Arc<Link>,
    state: Mutex<State>,
}

impl Shared {
    /// A connection whose handshake begins, and may last until `deadline`. Starts its driver.
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        handle: ConnectionHandle,
        connection: quinn_proto::Connection,
        link: Arc<Link>,
        deadline: Option<Instant>,
    ) -> Arc<Self> {
        let state = State {
            remote: connection.remote_address(),
            quic: connection,
            handle,
            timer: endpoint.shared.runtime.timer(),
            deadline,
            late: false,
            batch: VecDeque::new(),
            unsent: None,
            send_error: None,
            readers: HashMap::new(),
            writers: HashMap::new(),
            acceptor: None,
            opener: None,
            muxer: None,
            watched: true,
            swept: false,
            unfinished: 0,
            connected: false,
            lost: None,
            woken: false,
            released: false,
            allowance: 0,
            stream_limit: FIRST_STREAMS,
        };
        let shared = Arc::new(Self { endpoint, link, state: Mutex::new(state) });
        shared.endpoint.shared.runtime.spawn(Drive::new(shared.clone()));
        shared
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Ends the connection at once, tells the remote, and leaves the endpoint only what it takes to
    /// tell it again. Streams that outlive it may still read what had arrived.
    pub(super) fn abandon(&self) {
        let wakers = self.lock().abandon(&self.endpoint);
        // The driver sees that there is nothing left to drive.
        self.link.wake();
        for waker in wakers {
            waker.wake();
        }
    }
}

pub(super) struct State {
    pub(super) quic: quinn_proto::Connection,
    pub(super) handle: ConnectionHandle,
    /// The remote's address as it was told to the layers above.
    pub(super) remote: SocketAddr,
    pub(super) timer: Box<dyn Timer>,
    /// When whoever polls the muxer gives up waiting for what it waits for.
    pub(super) deadline: Option<Instant>,
    /// The deadline has passed.
    pub(super) late: bool,
    /// Received and not handled yet.
    pub(super) batch: VecDeque<ConnectionEvent>,
    /// What did not fit into the socket's queue.
    pub(super) unsent: Option<Box<Unsent>>,
    /// Why the last datagram could not be sent at all.
    pub(super) send_error: Option<io::Error>,
    pub(super) readers: HashMap<StreamId, Waker>,
    pub(super) writers: HashMap<StreamId, Waker>,
    pub(super) acceptor: Option<Waker>,
    pub(super) opener: Option<Waker>,
    /// Who polls the muxer.
    pub(super) muxer: Option<Waker>,
    /// The muxer is to be polled after every drive: during the handshake, and while closing.
    pub(super) watched: bool,
    /// What could be sent has been sent since this was reset.
    pub(super) swept: bool,
    /// Streams whose send half is neither finished nor reset.
    pub(super) unfinished: usize,
    pub(super) connected: bool,
    /// Why the connection has ended.
    pub(super) lost: Option<ConnectionError>,
    /// The driver has been woken since it last drove.
    pub(super) woken: bool,
    /// The endpoint has forgotten the connection: its handle may be another's.
    pub(super) released: bool,
    /// The memory share that was applied last.
    pub(super) allowance: u64,
    /// How many streams the remote may have open now.
    pub(super) stream_limit: u32,
}

impl State {
    /// Says that a stream has left something to send.
    pub(super) fn wake_driver(&mut self, link: &Link) {
        if !mem::replace(&mut self.woken, true) {
            link.wake();
        }
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

    /// The connection has ended: tells all who wait.
    pub(super) fn lose(&mut self, reason: ConnectionError, wakers: &mut Vec<Waker>) {
        self.lost.get_or_insert(reason);
        wakers.extend(self.acceptor.take());
        wakers.extend(self.opener.take());
        wakers.extend(self.muxer.take());
        wakers.extend(mem::take(&mut self.readers).into_values());
        wakers.extend(mem::take(&mut self.writers).into_values());
    }

    /// The endpoint forgets the connection.
    pub(super) fn release(&mut self, endpoint: &Endpoint) {
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

    fn abandon(&mut self, endpoint: &Arc<Endpoint>) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if !self.released {
            let now = endpoint.shared.runtime.now();
            // After a close by the remote nothing may be sent but one answer to it.
            let ours = !self.quic.is_closed();
            self.quic.close(now, VarInt::from_u32(0), Default::default());
            congestion::lift(&self.quic);
            self.unsent = None;
            let farewell = transmit::with_buffer(|buffer| {
                let mut last = None;
                for _ in 0..TRAINS {
                    buffer.clear();
                    let Some(transmit) = self.quic.poll_transmit(now, 1, buffer) else { break };
                    endpoint.respond(&transmit, buffer);
                    last = Some(Farewell { transmit, bytes: buffer.as_slice().into() });
                }
                last
            });
            self.depart(endpoint, now, farewell.filter(|_| ours));
        }
        self.lose(ConnectionError::LocallyClosed, &mut wakers);
        // Nobody drives from here on: what is only of use to a driver goes now.
        self.batch = VecDeque::new();
        self.timer.set(None);
        wakers
    }

    /// The endpoint forgets the connection, at once or when a peer that is still sending has had
    /// the time to hear that it is closed.
    fn depart(&mut self, endpoint: &Endpoint, now: Instant, farewell: Option<Farewell>) {
        // Of a closed connection's alarms only one is left, three probe time-outs after the close.
        match self.quic.poll_timeout().map(|at| at.min(now + LINGER)) {
            Some(until) if self.connected && !self.quic.is_drained() => {
                if !mem::replace(&mut self.released, true) {
                    endpoint.linger(self.handle, until, farewell);
                }
            }
            _ => self.release(endpoint),
        }
    }
}
