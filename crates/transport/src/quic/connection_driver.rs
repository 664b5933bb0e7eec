//! The task of a connection: the only one that receives and sends for it.
//!
//! It is apart from the task that polls the muxer because a swarm's connection task is costly to
//! poll and does its work in many small steps: what several streams write in one turn leaves in one
//! train of datagrams, and an acknowledgement wakes nobody above.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use futures::future::{BoxFuture, FutureExt};
use quinn_proto::{Dir, Event, StreamEvent, Transmit, VarInt};

use super::{
    config::MIN_WINDOW,
    endpoint::Endpoint,
    mailbox::Mailbox,
    state::{Shared, State},
    transmit,
};

/// Received datagrams handled before other tasks get their turn.
const RECEIVE: usize = 128;
/// Queues of up to this many events are not kept while nothing arrives: they are cheap to make.
const KEPT: usize = 4;
/// Turns that the driver lets others have before it sends what streams have written: what they write meanwhile goes into
/// the same datagrams. Where nobody has anything to do, as on an idle link, they pass in no time.
const TURNS: u8 = 2;
/// Sent trains of datagrams (GSO) before other tasks get their turn.
pub(super) const TRAINS: usize = 8;
/// Datagrams in one train. The kernel takes at most 64, and at most 64 KiB.
const TRAIN: usize = 40;

/// Ends when the endpoint has forgotten the connection.
pub(super) struct ConnectionDriver {
    shared: Arc<Shared>,
    /// Tasks to wake once the state is unlocked again.
    wakers: Vec<Waker>,
}

impl ConnectionDriver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, wakers: Vec::new() }
    }
}

impl Future for ConnectionDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { shared, wakers } = &mut *self;
        let over = {
            let mut state = shared.lock();
            if !state.released && state.awaits_more() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !state.released {
                state.drive(cx, &shared.endpoint, &shared.mailbox, wakers);
            }
            state.released
        };
        for waker in wakers.drain(..) {
            waker.wake();
        }
        wakers.shrink_to(KEPT);
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What did not fit into the socket's queue.
pub(super) struct Unsent {
    transmit: Transmit,
    bytes: Vec<u8>,
    writable: BoxFuture<'static, io::Result<()>>,
}

impl State {
    /// Whether others get their turn before what was written is sent.
    fn awaits_more(&mut self) -> bool {
        let awaits = self.connected && self.driver_woken && self.turns < TURNS;
        self.turns = if awaits { self.turns + 1 } else { 0 };
        awaits
    }

    /// Moves the connection on; collects the tasks that are waiting for that.
    fn drive(
        &mut self,
        cx: &mut Context<'_>,
        endpoint: &Arc<Endpoint>,
        mailbox: &Mailbox,
        wakers: &mut Vec<Waker>,
    ) {
        // Registered first: what comes from here on wakes this task again.
        mailbox.register(cx.waker());
        self.driver_woken = false;
        let now = endpoint.shared.runtime.now();

        let again = self.receive(mailbox);
        if self.quic.poll_timeout().is_some_and(|at| at <= now) {
            self.quic.handle_timeout(now);
        }
        if self.events(wakers) {
            self.grow(endpoint);
        }
        self.share(endpoint);
        self.endpoint_events(endpoint);
        let more = self.send(cx, endpoint, now);
        self.flushed |= !more;
        let rang = self.arm(cx, now);
        if self.muxer_polls_always || self.quic.remote_address() != self.remote {
            wakers.extend(self.muxer.take());
        }
        if again | more | rang {
            cx.waker().wake_by_ref();
        }
    }

    /// Handles what has arrived; true when there is more.
    fn receive(&mut self, mailbox: &Mailbox) -> bool {
        for _ in 0..RECEIVE {
            if self.batch.is_empty() {
                mailbox.take(&mut self.batch);
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

    /// Delivers events to the tasks that wait for them; true when the remote has opened streams.
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
            self.deadline_passed = true;
        }
        let next = match (self.quic.poll_timeout(), self.deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.timer.set(next);
        self.timer.poll(cx).is_ready()
    }
}
