//! Pings on request: `/ipfs/ping/1.0.0` (libp2p/specs ping/ping.md), dialing side only.
//!
//! libp2p's own ping behaviour answers pings and sends its own at an interval; it cannot be asked for
//! one. Here one request is one stream with 32 random bytes that have to come back. Never answers.

use std::{
    io,
    time::{Duration, Instant},
};

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};

/// libp2p's on-request ping.
pub(crate) type Behaviour = request_response::Behaviour<Codec>;
pub(crate) type Event = request_response::Event<Payload, Duration>;

const SIZE: usize = 32;
/// How often a ping is sent again whose stream the other side dropped. libp2p's ping answers one stream of a
/// peer at a time: ours is dropped for the one that our own ping at an interval opens meanwhile.
pub(crate) const AGAIN: u8 = 2;
type Payload = [u8; SIZE];

/// A behaviour whose pings end after `timeout`, with at most `parallel` under way per connection.
pub(crate) fn behaviour(timeout: Duration, parallel: usize) -> Behaviour {
    request_response::Behaviour::with_codec(
        Codec::default(),
        [(libp2p::ping::PROTOCOL_NAME, request_response::ProtocolSupport::Outbound)],
        request_response::Config::default()
            .with_request_timeout(timeout)
            .with_max_concurrent_streams(parallel),
    )
}

/// 32 random bytes.
pub(crate) fn payload() -> Payload {
    let mut payload = [0; SIZE];
    fastrand::fill(&mut payload);
    payload
}

/// Writes a payload and measures the time until it comes back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Codec {
    sent: Option<(Instant, Payload)>,
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Payload;
    type Response = Duration;

    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Payload>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(answered_elsewhere())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Duration>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut answer = [0; SIZE];
        io.read_exact(&mut answer).await?;
        match self.sent.take() {
            Some((at, payload)) if payload == answer => Ok(at.elapsed()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "other bytes came back than were sent")),
        }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, payload: Payload) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.sent = Some((Instant::now(), payload));
        io.write_all(&payload).await?;
        io.flush().await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, _: Duration) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(answered_elsewhere())
    }
}

fn answered_elsewhere() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "pings are answered by libp2p's own behaviour")
}
