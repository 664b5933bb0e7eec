//! One connection's pings: one stream of ours at a time, and an answer on each stream of the other side.
//!
//! A stream carries one ping: libp2p-ping 0.48 is not woken for the second one on the same stream.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::BoxFuture,
    io::{AsyncReadExt, AsyncWriteExt},
};
use libp2p::{
    StreamProtocol,
    core::upgrade::ReadyUpgrade,
    ping,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, Stream, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use super::{Config, Failure, Request};
use crate::runtime::{Handle, Timer};

const SIZE: usize = 32;
/// Streams of the other side that are answered; of more, the oldest is dropped.
const ANSWERED: usize = 8;
/// Requests that wait or are under way on one connection.
const REQUESTS: usize = 64;

/// Ping, and say how it went.
#[derive(Debug)]
pub(crate) struct Command {
    pub(super) request: Request,
    pub(super) within: Duration,
}

/// What a connection's handler has to say.
#[derive(Debug)]
pub(crate) enum Report {
    Interval(Result<Duration, ping::Failure>),
    Answer { request: Request, result: Result<Duration, Failure> },
}

/// A request until it is answered.
struct Waiting {
    request: Request,
    within: Duration,
    deadline: Instant,
    /// Whether the ping that is under way answers it.
    is_sent: bool,
    /// Whether it may be sent again when the stream breaks: some peers drop a stream for another of ours.
    again: bool,
}

enum Outbound {
    None,
    Opening,
    /// A ping under way, since when.
    Pinging(BoxFuture<'static, io::Result<()>>, Instant),
    Unsupported,
}

pub(crate) struct Handler {
    config: Config,
    runtime: Handle,
    timer: Box<dyn Timer>,
    outbound: Outbound,
    /// When the next ping at an interval is due.
    next: Instant,
    /// Pings at an interval that failed in a row. The first is not reported: a peer that answers each ping on a
    /// stream of its own ends ours.
    failures: u32,
    waiting: Vec<Waiting>,
    answering: VecDeque<BoxFuture<'static, io::Error>>,
    reports: VecDeque<Report>,
}

impl Handler {
    pub(super) fn new(config: Config, runtime: Handle) -> Self {
        Self {
            timer: runtime.timer(),
            outbound: Outbound::None,
            next: runtime.now(),
            failures: 0,
            waiting: Vec::new(),
            answering: VecDeque::new(),
            reports: VecDeque::new(),
            config,
            runtime,
        }
    }

    fn answer(&mut self, request: Request, result: Result<Duration, Failure>) {
        self.reports.push_back(Report::Answer { request, result });
    }

    fn came_back(&mut self, rtt: Duration, now: Instant) {
        self.failures = 0;
        self.next = now + self.config.interval;
        self.reports.push_back(Report::Interval(Ok(rtt)));
        for waiting in self.waiting.extract_if(.., |w| w.is_sent).collect::<Vec<_>>() {
            self.answer(waiting.request, Ok(rtt));
        }
    }

    /// The stream is of no use any more, or there is none.
    fn broke(&mut self, error: io::Error, now: Instant) {
        self.outbound = Outbound::None;
        self.next = now + self.config.interval;
        let kind = error.kind();
        let text = error.to_string();
        self.failures += 1;
        if self.failures > 1 {
            let failure = match kind {
                io::ErrorKind::TimedOut => ping::Failure::Timeout,
                _ => ping::Failure::Other { error: Box::new(error) },
            };
            self.reports.push_back(Report::Interval(Err(failure)));
        }
        let is_over = |w: &mut Waiting| w.is_sent && !w.again;
        for over in self.waiting.extract_if(.., is_over).collect::<Vec<_>>() {
            self.answer(over.request, Err(io::Error::new(kind, text.clone()).into()));
        }
        for waiting in &mut self.waiting {
            (waiting.is_sent, waiting.again) = (false, false);
        }
    }

    fn unsupported(&mut self) {
        self.outbound = Outbound::Unsupported;
        self.reports.push_back(Report::Interval(Err(ping::Failure::Unsupported)));
        for waiting in std::mem::take(&mut self.waiting) {
            self.answer(waiting.request, Err(Failure::Unsupported));
        }
    }

    fn start(&mut self, stream: Stream, now: Instant) {
        let mut payload = [0; SIZE];
        fastrand::fill(&mut payload);
        self.outbound = Outbound::Pinging(ping(stream, payload).boxed(), now);
        for waiting in &mut self.waiting {
            waiting.is_sent = true;
        }
    }

    /// Whether a ping has a reason to be sent.
    fn is_due(&self, now: Instant) -> bool {
        !self.waiting.is_empty() || self.next <= now
    }

    /// Gives up what took too long.
    fn expire(&mut self, now: Instant) {
        for late in self.waiting.extract_if(.., |w| w.deadline <= now).collect::<Vec<_>>() {
            self.answer(late.request, Err(Failure::Timeout(late.within)));
        }
        if let Outbound::Pinging(_, since) = &self.outbound
            && *since + self.config.patience <= now
        {
            self.broke(io::ErrorKind::TimedOut.into(), now);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let ping = match &self.outbound {
            Outbound::Pinging(_, since) => Some(*since + self.config.patience),
            Outbound::None => Some(self.next),
            Outbound::Opening | Outbound::Unsupported => None,
        };
        self.waiting.iter().map(|w| w.deadline).chain(ping).min()
    }
}

/// Sends a payload and waits until it is back.
async fn ping(mut stream: Stream, payload: [u8; SIZE]) -> io::Result<()> {
    stream.write_all(&payload).await?;
    stream.flush().await?;
    let mut back = [0; SIZE];
    stream.read_exact(&mut back).await?;
    if back == payload {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "other bytes came back than were sent"))
    }
}

/// Answers pings on a stream until it ends.
async fn pong(mut stream: Stream) -> io::Error {
    let mut payload = [0; SIZE];
    loop {
        let answered = async {
            stream.read_exact(&mut payload).await?;
            stream.write_all(&payload).await?;
            stream.flush().await
        };
        if let Err(e) = answered.await {
            return e;
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Report;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(ping::PROTOCOL_NAME), ())
    }

    fn on_behaviour_event(&mut self, Command { request, within }: Command) {
        if matches!(self.outbound, Outbound::Unsupported) {
            return self.answer(request, Err(Failure::Unsupported));
        }
        if self.waiting.len() == REQUESTS {
            return self.answer(request, Err(Failure::TooMany));
        }
        let deadline = self.runtime.now() + within;
        self.waiting.push(Waiting { request, within, deadline, is_sent: false, again: true });
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        self.answering.retain_mut(|server| server.poll_unpin(cx).is_pending());
        let now = self.runtime.now();
        self.expire(now);
        loop {
            if let Some(report) = self.reports.pop_front() {
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
            }
            match std::mem::replace(&mut self.outbound, Outbound::None) {
                Outbound::Pinging(mut pinging, since) => match pinging.poll_unpin(cx) {
                    Poll::Ready(Ok(())) => {
                        self.came_back(now.saturating_duration_since(since), now);
                        continue;
                    }
                    Poll::Ready(Err(e)) => {
                        self.broke(e, now);
                        continue;
                    }
                    Poll::Pending => self.outbound = Outbound::Pinging(pinging, since),
                },
                Outbound::None if self.is_due(now) => {
                    self.outbound = Outbound::Opening;
                    let protocol = SubstreamProtocol::new(ReadyUpgrade::new(ping::PROTOCOL_NAME), ());
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                }
                other => self.outbound = other,
            }
            self.timer.set(self.deadline());
            if self.timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Its moment has passed since this poll began.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        let now = self.runtime.now();
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: mut stream, ..
            }) => {
                stream.ignore_for_keep_alive();
                if self.answering.len() == ANSWERED {
                    self.answering.pop_front();
                }
                self.answering.push_back(pong(stream).boxed());
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: mut stream,
                ..
            }) => {
                stream.ignore_for_keep_alive();
                self.start(stream, now);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                // The stream was meant for all of them.
                self.waiting.iter_mut().for_each(|waiting| waiting.is_sent = true);
                match error {
                    StreamUpgradeError::NegotiationFailed => self.unsupported(),
                    StreamUpgradeError::Timeout => self.broke(io::ErrorKind::TimedOut.into(), now),
                    StreamUpgradeError::Io(e) => self.broke(e, now),
                    StreamUpgradeError::Apply(never) => match never {},
                }
            }
            _ => {}
        }
    }
}
