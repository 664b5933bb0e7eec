//! An established connection as libp2p's muxer.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use quinn_proto::{ConnectionError, Side};

use crate::admission::{self, ChannelBinding};

use super::{
    Error, Stream, addr,
    state::{Shared, State},
};

/// An established QUIC connection. A task of its own drives it; [`StreamMuxer::poll`] only tells of changes.
pub struct Connection {
    pub(super) shared: Arc<Shared>,
    /// A close has begun.
    closing: bool,
    /// The remote ended the connection, and streams have had a turn to read what came with it.
    last_turn: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = self.shared.lock().remote;
        f.debug_struct("Connection").field("remote", &remote).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, closing: false, last_turn: false }
    }

    /// The round-trip time as QUIC has measured it so far; the handshake is the first measurement.
    pub fn rtt(&self) -> std::time::Duration {
        self.shared.lock().quic.rtt()
    }
}

/// What the TLS exporter is asked for (RFC 8446, section 7.5).
const EXPORTER: &[u8] = b"EXPORTER-smidge-admission-v1";

impl ChannelBinding for Connection {
    fn binding(&self) -> Option<[u8; 32]> {
        let mut secret = [0; 32];
        let state = self.shared.lock();
        state.quic.crypto_session().export_keying_material(&mut secret, EXPORTER, &[]).ok()?;
        Some(secret)
    }

    fn is_initiator(&self) -> bool {
        self.shared.lock().quic.side() == Side::Client
    }

    fn refuse(&mut self) {
        self.shared.abandon_with(admission::REFUSED_CODE, admission::REFUSED);
    }
}

fn lost(state: &State, reason: &ConnectionError) -> Error {
    Error::Lost { remote: state.remote, source: reason.clone() }
}

impl StreamMuxer for Connection {
    type Substream = Stream;
    type Error = Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        let mut state = self.shared.lock();
        if let Some(id) = state.accept() {
            drop(state);
            return Poll::Ready(Ok(Stream::new(self.shared.clone(), id)));
        }
        if let Some(reason) = &state.lost {
            return Poll::Ready(Err(lost(&state, reason)));
        }
        remember(&mut state.acceptor, cx);
        Poll::Pending
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        let mut state = self.shared.lock();
        if let Some(reason) = &state.lost {
            return Poll::Ready(Err(lost(&state, reason)));
        }
        if let Some(id) = state.open() {
            drop(state);
            return Poll::Ready(Ok(Stream::new(self.shared.clone(), id)));
        }
        remember(&mut state.opener, cx);
        Poll::Pending
    }

    /// Waits, for a bounded time, until finished streams have been acknowledged; then tells the
    /// remote and is done. What unfinished streams have written is sent once, not waited for.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let first = !std::mem::replace(&mut self.closing, true);
        let shared = &self.shared;
        {
            let mut state = shared.lock();
            if first {
                let wait = shared.endpoint.shared.built.config.close_timeout;
                state.deadline = shared.endpoint.shared.runtime.now().checked_add(wait);
                state.deadline_passed = false;
                state.flushed = false;
                state.muxer_polls_always = true;
                state.wake_driver(&shared.mailbox);
            }
            let done = state.lost.is_some() || state.deadline_passed || (state.flushed && state.is_settled());
            if !done {
                remember(&mut state.muxer, cx);
                return Poll::Pending;
            }
        }
        shared.abandon();
        Poll::Ready(Ok(()))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Error>> {
        let this = &mut *self;
        let mut state = this.shared.lock();
        if let Some(reason) = &state.lost {
            // A swarm drops all streams the moment it sees this error: first let them read what
            // the remote sent before it closed.
            if matches!(reason, ConnectionError::ApplicationClosed(_)) && !this.last_turn {
                this.last_turn = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Err(lost(&state, reason)));
        }
        let now_at = state.quic.remote_address();
        if now_at != state.remote {
            state.remote = now_at;
            return Poll::Ready(Ok(StreamMuxerEvent::AddressChange(addr::to_multiaddr(now_at))));
        }
        remember(&mut state.muxer, cx);
        Poll::Pending
    }
}

/// Notes who is to be woken. A swarm polls a connection far more often than it changes tasks.
pub(super) fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}
