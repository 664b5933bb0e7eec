//! Relayed connections without a time limit, around the handler of libp2p's relay.
//!
//! That one cuts every relayed connection after the time that it tells both ends of. A time of 0 means "no limit" to
//! them (libp2p/specs relay/circuit-v2.md), and js-libp2p runs gossip and other protocols over such a
//! connection only; here it would cut it as soon as nothing is under way. So where there is to be no limit, libp2p
//! tells of 0 and makes the connection, and its bytes are passed on here. Reservations, counts and refusals stay
//! libp2p's.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};

use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt, StreamExt,
    future::{BoxFuture, try_join},
    io,
    stream::FuturesUnordered,
};
use libp2p::{
    relay,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol, THandler, derive_prelude::Either,
        handler::ConnectionEvent,
    },
};

type Inner = THandler<relay::Behaviour>;

/// The handler's own command or event, whose name libp2p keeps to itself.
trait Left {
    type Left;
}
impl<L, R> Left for Either<L, R> {
    type Left = L;
}
type Command = <<Inner as ConnectionHandler>::FromBehaviour as Left>::Left;
type Report = <<Inner as ConnectionHandler>::ToBehaviour as Left>::Left;

/// Bytes that are read at a time, in each direction of a relayed connection.
const BUFFER: usize = 8 * 1024;

/// What became of a relayed connection, and what is to come.
struct Step {
    report: Report,
    next: Option<BoxFuture<'static, Self>>,
}

pub(crate) struct Handler {
    inner: Inner,
    /// Bytes that a relayed connection may carry, 0 for any number, if it is carried here.
    max_bytes: Option<u64>,
    /// As many as `relay.circuits` and `circuits_per_peer` let in.
    circuits: FuturesUnordered<BoxFuture<'static, Step>>,
}

impl Handler {
    pub(crate) fn new(inner: Inner, max_bytes: Option<u64>) -> Self {
        Self { inner, max_bytes, circuits: FuturesUnordered::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = <Inner as ConnectionHandler>::FromBehaviour;
    type ToBehaviour = <Inner as ConnectionHandler>::ToBehaviour;
    type InboundProtocol = <Inner as ConnectionHandler>::InboundProtocol;
    type OutboundProtocol = <Inner as ConnectionHandler>::OutboundProtocol;
    type InboundOpenInfo = <Inner as ConnectionHandler>::InboundOpenInfo;
    type OutboundOpenInfo = <Inner as ConnectionHandler>::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        !self.circuits.is_empty() || self.inner.connection_keep_alive()
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match (event, self.max_bytes) {
            (
                Either::Left(Command::AcceptAndDriveCircuit {
                    circuit_id,
                    dst_peer_id,
                    inbound_circuit_req,
                    dst_stream,
                    dst_pending_data,
                }),
                Some(max_bytes),
            ) => self.circuits.push(
                async move {
                    let (src_stream, src_pending_data) = match inbound_circuit_req.accept().await {
                        Ok(accepted) => accepted,
                        Err(error) => {
                            let report = Report::CircuitReqAcceptFailed { circuit_id, dst_peer_id, error };
                            return Step { report, next: None };
                        }
                    };
                    let src = (src_stream, src_pending_data.as_ref().to_vec());
                    let dst = (dst_stream, dst_pending_data.as_ref().to_vec());
                    let ended = pass_on(src, dst, max_bytes).map(move |result| Step {
                        report: Report::CircuitClosed { circuit_id, dst_peer_id, error: result.err() },
                        next: None,
                    });
                    let report = Report::CircuitReqAccepted { circuit_id, dst_peer_id };
                    Step { report, next: Some(ended.boxed()) }
                }
                .boxed(),
            ),
            (event, _) => self.inner.on_behaviour_event(event),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if let Poll::Ready(Some(Step { report, next })) = self.circuits.poll_next_unpin(cx) {
            self.circuits.extend(next);
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Either::Left(report)));
        }
        self.inner.poll(cx)
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        self.inner.on_connection_event(event);
    }
}

/// Passes on what both ends say, first what each has said already, until both have ended or more than `max_bytes`
/// are carried (0: any number).
async fn pass_on<S: AsyncRead + AsyncWrite + Unpin>(
    (src, said_by_src): (S, Vec<u8>),
    (dst, said_by_dst): (S, Vec<u8>),
    max_bytes: u64,
) -> io::Result<()> {
    let carried = AtomicU64::new(0);
    let ((from_src, to_src), (from_dst, to_dst)) = (src.split(), dst.split());
    let there = one_way(io::Cursor::new(said_by_src).chain(from_src), to_dst, &carried, max_bytes);
    let back = one_way(io::Cursor::new(said_by_dst).chain(from_dst), to_src, &carried, max_bytes);
    try_join(there, back).await.map(|_| ())
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    carried: &AtomicU64,
    max_bytes: u64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match from.read(&mut buffer).now_or_never() {
            Some(read) => read?,
            None => {
                to.flush().await?;
                from.read(&mut buffer).await?
            }
        };
        if read == 0 {
            return to.close().await;
        }
        let total = carried.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
        if max_bytes > 0 && total > max_bytes {
            return Err(io::Error::other(format!(
                "it carried more than {max_bytes} bytes (relay.circuit_bytes)"
            )));
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_passed_on_up_to_the_limit_of_bytes() {
        let said = vec![7; 3 * BUFFER + 1];
        for (max_bytes, passes) in [(0, true), (said.len() as u64, true), (said.len() as u64 - 1, false)] {
            let mut heard = Vec::new();
            let done = one_way(io::Cursor::new(&said), &mut heard, &AtomicU64::new(0), max_bytes)
                .now_or_never()
                .unwrap();
            assert_eq!(done.is_ok(), passes, "{max_bytes}: {done:?}");
            assert_eq!(heard == said, passes, "{max_bytes}");
        }
        // Both directions count.
        let (one, mut heard) = (AtomicU64::new(1), Vec::new());
        let done =
            one_way(io::Cursor::new(&said), &mut heard, &one, said.len() as u64).now_or_never().unwrap();
        assert!(done.is_err());
    }
}
