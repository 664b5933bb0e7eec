//! The substream for what we send.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use futures_timer::Delay;
use libp2p::swarm::Stream;

use crate::Outbox;

/// Bytes taken out of the outbox at a time: as much as a transport puts into few datagrams, and no more, so that what
/// is urgent overtakes the rest.
const TURN: usize = 32 * 1024;
/// Before a substream is opened again for the first time, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After as many substreams whose other direction was closed right away it is the peer's habit, and means nothing.
const HABIT: u32 = 2;
/// Reads of what a peer says where it should be silent, before it is taken for broken.
const WORDS: usize = 16;

/// What the handler is to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Request a substream.
    Open,
    /// Say that it broke.
    Broke,
}

#[derive(Default)]
enum State {
    /// Another connection carries.
    #[default]
    Idle,
    Wanted,
    Opening,
    /// Opening, and not wanted any more.
    Unwanted,
    /// It broke just now.
    Broken,
    Pausing(Delay),
    /// Until the core has greeted the peer.
    Greeting(Stream),
    Sending(Stream),
    /// Sends what is begun, then closes.
    Closing(Stream),
}

/// Whole frames on their way.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// Where frames begin.
    frames: Vec<usize>,
    written: usize,
    flushed: bool,
    /// Nothing but the greeting was sent yet.
    greeting: bool,
}

#[derive(Default)]
pub(super) struct Outbound {
    state: State,
    outbox: Option<Arc<Outbox>>,
    buffer: Buffer,
    /// Substreams that broke in a row.
    failures: u32,
    /// The peer has not closed its direction of the substream.
    reading: bool,
    /// Substreams whose other direction the peer closed before it can have had a reason.
    half_closed: u32,
}

/// How the peer's direction of a substream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

impl Outbound {
    pub(super) fn carry(&mut self, outbox: Arc<Outbox>) {
        self.outbox = Some(outbox);
        match std::mem::take(&mut self.state) {
            State::Idle | State::Closing(_) => self.state = State::Wanted,
            State::Unwanted => self.state = State::Opening,
            state => self.state = state,
        }
    }

    pub(super) fn start(&mut self) {
        match std::mem::take(&mut self.state) {
            State::Greeting(stream) => {
                self.state = State::Sending(stream);
                self.reading = true;
                self.begin_again();
            }
            state => self.state = state,
        }
    }

    pub(super) fn release(&mut self) {
        self.state = match std::mem::take(&mut self.state) {
            State::Sending(stream) | State::Closing(stream) => State::Closing(stream),
            State::Opening | State::Unwanted => State::Unwanted,
            // Nothing was sent on it yet.
            _ => State::Idle,
        };
    }

    /// A substream was opened. Whether it is still wanted.
    pub(super) fn opened(&mut self, stream: Stream) -> bool {
        let wanted = matches!(self.state, State::Opening);
        self.state = if wanted { State::Greeting(stream) } else { State::Idle };
        wanted
    }

    /// A substream could not be opened.
    pub(super) fn failed(&mut self) {
        self.state = match self.state {
            State::Opening => self.pause(),
            _ => State::Idle,
        };
    }

    pub(super) fn unsupported(&mut self) {
        self.state = State::Idle;
    }

    /// Peers that close their direction as a habit, as soon as a substream opens, still read it.
    fn is_thrown_away(&mut self, end: End) -> bool {
        if end == End::Closed && self.buffer.greeting {
            self.half_closed += 1;
            if self.half_closed >= HABIT {
                return false;
            }
        }
        log::debug!("a gossip substream was thrown away by the peer: {end:?}");
        true
    }

    fn pause(&mut self) -> State {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        State::Pausing(Delay::new(pause))
    }

    /// On a new substream the greeting comes first, then the frames that the last one did not get to. The one that it
    /// broke in may be why it broke: it is not sent again.
    fn begin_again(&mut self) {
        let lost = std::mem::take(&mut self.buffer);
        if let Some(outbox) = &self.outbox {
            self.buffer.greeting = true;
            self.buffer.frames.push(0);
            outbox.next_frame(&mut self.buffer.bytes);
        }
        let untouched = lost.frames.iter().position(|begin| *begin >= lost.written && lost.written > 0);
        // Of a substream on which nothing was written, nothing can be to blame.
        let untouched = if lost.written == 0 { Some(0) } else { untouched };
        if let Some(begins) =
            untouched.and_then(|at| lost.frames.get(at..)).filter(|begins| !begins.is_empty())
        {
            let (from, shift) = (begins[0], self.buffer.bytes.len());
            self.buffer.frames.extend(begins.iter().map(|begin| begin - from + shift));
            self.buffer.bytes.extend_from_slice(&lost.bytes[from..]);
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            match std::mem::take(&mut self.state) {
                State::Wanted => {
                    self.state = State::Opening;
                    return Poll::Ready(Step::Open);
                }
                State::Broken => {
                    self.state = self.pause();
                    return Poll::Ready(Step::Broke);
                }
                State::Pausing(mut delay) => {
                    if Pin::new(&mut delay).poll(cx).is_pending() {
                        self.state = State::Pausing(delay);
                        return Poll::Pending;
                    }
                    self.state = State::Wanted;
                }
                State::Sending(mut stream) => {
                    if self.reading
                        && let Poll::Ready(end) = poll_end(&mut stream, cx)
                    {
                        self.reading = false;
                        if self.is_thrown_away(end) {
                            self.state = State::Broken;
                            continue;
                        }
                    }
                    let Some(outbox) = self.outbox.clone() else { return Poll::Pending };
                    match self.buffer.poll_send(&mut stream, Some(&outbox), cx) {
                        Poll::Ready(Ok(())) => self.failures = 0,
                        Poll::Ready(Err(e)) => {
                            log::debug!("a gossip substream broke: {e}");
                            self.state = State::Broken;
                            continue;
                        }
                        Poll::Pending => {}
                    }
                    self.state = State::Sending(stream);
                    return Poll::Pending;
                }
                State::Closing(mut stream) => {
                    match self.buffer.poll_send(&mut stream, None, cx) {
                        Poll::Ready(Ok(())) => {
                            if Pin::new(&mut stream).poll_close(cx).is_ready() {
                                continue;
                            }
                        }
                        Poll::Ready(Err(e)) => {
                            log::debug!("a gossip substream broke as it was left: {e}");
                            continue;
                        }
                        Poll::Pending => {}
                    }
                    self.state = State::Closing(stream);
                    return Poll::Pending;
                }
                state => {
                    self.state = state;
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Nothing is ever said on this substream by the peer; but that it threw it away is learned from reading. A stock peer
/// closes its direction and stops to read: over Yamux nothing else tells.
fn poll_end(stream: &mut Stream, cx: &mut Context<'_>) -> Poll<End> {
    for _ in 0..WORDS {
        match Pin::new(&mut *stream).poll_read(cx, &mut [0; 64]) {
            Poll::Ready(Ok(0)) => return Poll::Ready(End::Closed),
            // Whatever it says, nobody asked.
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(End::Reset),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(End::Reset)
}

impl Buffer {
    /// Sends what is begun, and then what the outbox has. Ready once there is nothing left and all of it was flushed.
    fn poll_send(
        &mut self,
        stream: &mut Stream,
        outbox: Option<&Outbox>,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(outbox) = outbox {
            outbox.register(cx.waker());
        }
        loop {
            while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
                match Pin::new(&mut *stream).poll_write(cx, rest) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(n)) => self.written += n,
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.refill(outbox) {
                continue;
            }
            if !self.flushed {
                match Pin::new(&mut *stream).poll_flush(cx) {
                    Poll::Ready(Ok(())) => self.flushed = true,
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => return Poll::Pending,
                }
                // What came in the meantime has woken nobody.
                continue;
            }
            return Poll::Ready(Ok(()));
        }
    }

    fn refill(&mut self, outbox: Option<&Outbox>) -> bool {
        let Some(outbox) = outbox else { return false };
        let mut queue = outbox.lock();
        if queue.is_empty() || outbox.is_held() {
            // Idle connections keep no buffer.
            if self.flushed {
                *self = Self { flushed: true, greeting: self.greeting, ..Self::default() };
            }
            return false;
        }
        self.bytes.clear();
        self.frames.clear();
        self.written = 0;
        self.flushed = false;
        self.greeting = false;
        while self.bytes.len() < TURN {
            self.frames.push(self.bytes.len());
            if queue.next_frame(&mut self.bytes).is_none() {
                self.frames.pop();
                break;
            }
        }
        true
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Idle => "idle",
            State::Wanted => "wanted",
            State::Opening => "opening",
            State::Unwanted => "unwanted",
            State::Broken => "broken",
            State::Pausing(_) => "pausing",
            State::Greeting(_) => "greeting",
            State::Sending(_) => "sending",
            State::Closing(_) => "closing",
        };
        f.debug_struct("Outbound")
            .field("state", &state)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
