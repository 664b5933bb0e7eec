//! The streams of one connection: frames behind their lengths, one at a time each way. Knows no session.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll},
};

use futures::{
    FutureExt,
    future::BoxFuture,
    io::{AsyncReadExt, AsyncWriteExt},
};
use libp2p::{
    StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, Stream, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/smidge/catchup/1.0.0");
/// Streams that the other side has open, and ours that are being closed; of more, the oldest is dropped.
const STREAMS: usize = 8;
/// Bytes of a frame's length.
const LENGTH: usize = 5;

/// A stream of one connection, by who opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StreamId {
    Ours(u64),
    Theirs(u64),
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open a stream, send this and wait for the answer.
    Open { stream: u64, frame: Vec<u8> },
    /// Send this and wait for the answer.
    Send { stream: StreamId, frame: Vec<u8> },
    /// Send this, if anything, and close the stream.
    Finish { stream: StreamId, frame: Option<Vec<u8>> },
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Report {
    /// The other side sent this; it waits for an answer.
    Frame { stream: StreamId, frame: Vec<u8> },
    /// There is no such stream any more.
    Failed { stream: StreamId },
    /// The other side does not speak the protocol.
    Unsupported { stream: StreamId },
}

type Exchange = BoxFuture<'static, io::Result<(Stream, Vec<u8>)>>;

enum State {
    /// It is our turn.
    Ours(Stream),
    /// A frame is sent, or received.
    Busy(Exchange),
}

pub(crate) struct Handler {
    /// The longest frame that is read.
    longest: usize,
    /// Streams to be opened, and those under way, with what is sent first.
    wanted: VecDeque<u64>,
    opening: VecDeque<(u64, Vec<u8>)>,
    streams: Vec<(StreamId, State)>,
    closing: VecDeque<BoxFuture<'static, ()>>,
    reports: VecDeque<Report>,
    /// Number of the next stream of theirs.
    next: u64,
}

impl Handler {
    pub(super) fn new(longest: usize) -> Self {
        Self {
            longest,
            wanted: VecDeque::new(),
            opening: VecDeque::new(),
            streams: Vec::new(),
            closing: VecDeque::new(),
            reports: VecDeque::new(),
            next: 0,
        }
    }

    fn take(&mut self, stream: StreamId) -> Option<State> {
        let at = self.streams.iter().position(|(id, _)| *id == stream)?;
        Some(self.streams.swap_remove(at).1)
    }

    fn exchange(&mut self, id: StreamId, stream: Stream, frame: Option<Vec<u8>>) {
        let longest = self.longest;
        let exchange = exchange(stream, frame, longest).boxed();
        self.streams.push((id, State::Busy(exchange)));
    }

    fn accept(&mut self, stream: Stream) {
        let is_theirs = |(id, _): &&(StreamId, State)| matches!(id, StreamId::Theirs(_));
        if self.streams.iter().filter(is_theirs).count() >= STREAMS {
            let oldest = self.streams.iter().filter(is_theirs).map(|(id, _)| *id).min_by_key(|id| match id {
                StreamId::Ours(n) | StreamId::Theirs(n) => *n,
            });
            if let Some(stream) = oldest {
                self.take(stream);
                self.reports.push_back(Report::Failed { stream });
            }
        }
        let id = StreamId::Theirs(self.next);
        self.next += 1;
        self.exchange(id, stream, None);
    }
}

/// Sends a frame, if there is one, and receives the next.
async fn exchange(
    mut stream: Stream,
    frame: Option<Vec<u8>>,
    longest: usize,
) -> io::Result<(Stream, Vec<u8>)> {
    if let Some(frame) = frame {
        send(&mut stream, &frame).await?;
    }
    let mut length = 0_usize;
    for shift in 0.. {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << (7 * shift);
        if byte[0] < 0x80 {
            break;
        }
        if shift + 1 == LENGTH {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    if length > longest {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // It grows with what comes, not with what was announced.
    let mut frame = Vec::new();
    (&mut stream).take(length as u64).read_to_end(&mut frame).await?;
    if frame.len() == length { Ok((stream, frame)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn send(stream: &mut Stream, frame: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(frame.len() + LENGTH);
    let mut length = frame.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

async fn finish(mut stream: Stream, frame: Option<Vec<u8>>) {
    // An error says that the other side is gone already.
    if let Some(frame) = frame {
        let _ = send(&mut stream, &frame).await;
    }
    let _ = stream.close().await;
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Report;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn on_behaviour_event(&mut self, command: Command) {
        match command {
            Command::Open { stream, frame } => {
                self.wanted.push_back(stream);
                self.opening.push_back((stream, frame));
            }
            Command::Send { stream, frame } => match self.take(stream) {
                Some(State::Ours(open)) => self.exchange(stream, open, Some(frame)),
                _ => self.reports.push_back(Report::Failed { stream }),
            },
            Command::Finish { stream, frame } => {
                self.opening.retain(|(opening, _)| StreamId::Ours(*opening) != stream);
                if let Some(State::Ours(open)) = self.take(stream) {
                    if self.closing.len() == STREAMS {
                        self.closing.pop_front();
                    }
                    self.closing.push_back(finish(open, frame).boxed());
                }
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if self.wanted.pop_front().is_some() {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.closing.retain_mut(|closing| closing.poll_unpin(cx).is_pending());
        for (id, state) in &mut self.streams {
            let State::Busy(exchange) = state else { continue };
            match exchange.poll_unpin(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok((stream, frame))) => {
                    *state = State::Ours(stream);
                    self.reports.push_back(Report::Frame { stream: *id, frame });
                }
                Poll::Ready(Err(e)) => {
                    log::debug!("a stream of a topic's memory broke: {e}");
                    self.reports.push_back(Report::Failed { stream: *id });
                }
            }
        }
        let failed = |id: &StreamId| {
            self.reports.iter().any(|report| matches!(report, Report::Failed { stream } if stream == id))
        };
        self.streams.retain(|(id, _)| !failed(id));
        match self.reports.pop_front() {
            Some(report) => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report)),
            None => Poll::Pending,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: mut stream, ..
            }) => {
                stream.ignore_for_keep_alive();
                self.accept(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: mut stream,
                ..
            }) => {
                stream.ignore_for_keep_alive();
                // Streams are alike: the first that opens is the first that was asked for and is still wanted.
                if let Some((id, frame)) = self.opening.pop_front() {
                    self.exchange(StreamId::Ours(id), stream, Some(frame));
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                let Some((id, _)) = self.opening.pop_front() else { return };
                let stream = StreamId::Ours(id);
                self.reports.push_back(match error {
                    StreamUpgradeError::NegotiationFailed => Report::Unsupported { stream },
                    _ => Report::Failed { stream },
                });
            }
            _ => {}
        }
    }
}
