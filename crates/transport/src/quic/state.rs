//! A connection's state, which its driver, the muxer and the streams share.
//!
//! Only the driver ([`connection_driver`](super::connection_driver)) receives and sends; all others leave something to do
//! and wake it.

use std::{
    collections::{HashMap, VecDeque},
    io, mem,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    task::Waker,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{ConnectionError, ConnectionEvent, ConnectionHandle, Dir, StreamId, VarInt};
use smidge_runtime::Timer;

use super::{
    closing::ClosePacket,
    config::FIRST_STREAMS,
    congestion,
    connection_driver::{ConnectionDriver, TRAINS, Unsent},
    endpoint::Endpoint,
    lock,
    mailbox::Mailbox,
    transmit,
};

/// Longest closing period, however slow the path is.
const CLOSING_PERIOD: Duration = Duration::from_secs(10);

/// What the muxer and its streams share.
pub(super) struct Shared {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) mailbox: Arc<Mailbox>,
    state: Mutex<State>,
}

impl Shared {
    /// A connection whose handshake begins, and may last until `deadline`. Starts its driver.
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        handle: ConnectionHandle,
        connection: quinn_proto::Connection,
        mailbox: Arc<Mailbox>,
        deadline: Option<Instant>,
    ) -> Arc<Self> {
        let state = State {
            remote: connection.remote_address(),
            quic: connection,
            handle,
            timer: endpoint.shared.runtime.timer(),
            deadline,
            deadline_passed: false,
            batch: VecDeque::new(),
            unsent: None,
            send_error: None,
            readers: HashMap::new(),
            writers: HashMap::new(),
            acceptor: None,
            opener: None,
            muxer: None,
            muxer_polls_always: true,
            flushed: false,
            unfinished: 0,
            connected: false,
            lost: None,
            driver_woken: false,
            turns: 0,
            released: false,
            allowance: 0,
            stream_limit: FIRST_STREAMS,
        };
        let shared = Arc::new(Self { endpoint, mailbox, state: Mutex::new(state) });
        shared.endpoint.shared.runtime.spawn(ConnectionDriver::new(shared.clone()));
        shared
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Closes the connection immediately and leaves the endpoint only the close packet. Streams that outlive it
    /// may still read what had been received.
    pub(super) fn abandon(&self) {
        self.abandon_with(0, "");
    }

    /// As [`abandon`](Self::abandon), with an application error code (RFC 9000, 20.2) and a reason.
    pub(super) fn abandon_with(&self, code: u32, reason: &'static str) {
        let wakers = self.lock().abandon(&self.endpoint, code, reason);
        // The driver sees that there is nothing left to drive.
        self.mailbox.wake();
        for waker in wakers {
            waker.wake();
        }
    }
}

pub(super) struct State {
    pub(super) quic: quinn_proto::Connection,
    pub(super) handle: ConnectionHandle,
    /// The remote's address as last reported to the layers above.
    pub(super) remote: SocketAddr,
    pub(super) timer: Box<dyn Timer>,
    /// When the handshake, or the close, is given up.
    pub(super) deadline: Option<Instant>,
    /// The deadline has passed.
    pub(super) deadline_passed: bool,
    /// Received events that are not handled yet.
    pub(super) batch: VecDeque<ConnectionEvent>,
    /// A transmit that did not fit into the socket's send buffer.
    pub(super) unsent: Option<Box<Unsent>>,
    /// Why the last datagram could not be sent at all.
    pub(super) send_error: Option<io::Error>,
    pub(super) readers: HashMap<StreamId, Waker>,
    pub(super) writers: HashMap<StreamId, Waker>,
    pub(super) acceptor: Option<Waker>,
    pub(super) opener: Option<Waker>,
    /// The task that polls the muxer.
    pub(super) muxer: Option<Waker>,
    /// The muxer is to be polled after every drive: during the handshake, and while closing.
    pub(super) muxer_polls_always: bool,
    /// Everything that could be sent has been sent since this was reset.
    pub(super) flushed: bool,
    /// Streams whose send half is neither finished nor reset.
    pub(super) unfinished: usize,
    pub(super) connected: bool,
    /// Why the connection has ended.
    pub(super) lost: Option<ConnectionError>,
    /// The driver has been woken since it last drove.
    pub(super) driver_woken: bool,
    /// Turns that the driver has let others have since it was woken to send.
    pub(super) turns: u8,
    /// The endpoint has forgotten the connection: its handle may be another's.
    pub(super) released: bool,
    /// The memory share that was applied last.
    pub(super) allowance: u64,
    /// How many streams the remote may have open now.
    pub(super) stream_limit: u32,
}

impl State {
    /// Wakes the driver, since a stream has something to send.
    pub(super) fn wake_driver(&mut self, mailbox: &Mailbox) {
        if !mem::replace(&mut self.driver_woken, true) {
            mailbox.wake();
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

    /// The connection is lost: collects the wakers of all waiting tasks.
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

    fn abandon(&mut self, endpoint: &Arc<Endpoint>, code: u32, reason: &'static str) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if !self.released {
            let now = endpoint.shared.runtime.now();
            // After a close by the remote nothing may be sent but one answer to it.
            let ours = !self.quic.is_closed();
            self.quic.close(now, VarInt::from_u32(code), Bytes::from_static(reason.as_bytes()));
            congestion::lift(&self.quic);
            self.unsent = None;
            let close_packet = transmit::with_buffer(|buffer| {
                let mut last = None;
                for _ in 0..TRAINS {
                    buffer.clear();
                    let Some(transmit) = self.quic.poll_transmit(now, 1, buffer) else { break };
                    endpoint.respond(&transmit, buffer);
                    last = Some(ClosePacket { transmit, bytes: buffer.as_slice().into() });
                }
                last
            });
            self.depart(endpoint, now, close_packet.filter(|_| ours));
        }
        self.lose(ConnectionError::LocallyClosed, &mut wakers);
        // There is no driver from here on: free what only a driver uses.
        self.batch = VecDeque::new();
        self.timer.set(None);
        wakers
    }

    /// Hands the connection over to the endpoint: forgotten immediately, or after its closing period.
    fn depart(&mut self, endpoint: &Endpoint, now: Instant, close_packet: Option<ClosePacket>) {
        // A closed connection has one timer left, three probe timeouts after the close.
        match self.quic.poll_timeout().map(|at| at.min(now + CLOSING_PERIOD)) {
            Some(until) if self.connected && !self.quic.is_drained() => {
                if !mem::replace(&mut self.released, true) {
                    endpoint.linger(self.handle, until, close_packet);
                }
            }
            _ => self.release(endpoint),
        }
    }
}
