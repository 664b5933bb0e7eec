//! The two messages, over the first stream of a connection.
//!
//! The initiator opens a stream, sends its proof and ends its half; the responder does the same when the
//! proof is right. Each message is exactly [`LENGTH`] bytes and then the end of the stream: nothing is
//! kept of one that is longer.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::StreamMuxer;

use super::{
    keys::NetworkKey,
    proof::{LENGTH, Role, Session},
};

/// Why a connection is not admitted. The remote learns that it is not, and not why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAdmitted {
    /// The remote said something else than a proof that it knows one of our keys.
    #[error("it does not prove that it knows the network key: it has another network.key_file, or none")]
    Unproven,
    /// The connection or the stream ended before the remote proved anything.
    #[error(
        "it hung up before it proved that it knows the network key: it has another network.key_file, or none"
    )]
    HungUp,
    /// The time was up.
    #[error("it proved nothing in time: it has no network.key_file, or is too slow for network.timeout")]
    Silent,
    /// There were too many, and it was not asked.
    #[error("too many connections are proving themselves")]
    Crowded,
    /// The session gives nothing that a proof could be bound to.
    #[error("its session gives no channel binding")]
    Unbound,
}

/// Runs the exchange as `role`; done when the remote has proved itself.
///
/// # Errors
/// [`NotAdmitted`]: the connection is to be closed.
pub(super) async fn exchange<M>(
    muxer: &mut M,
    role: Role,
    session: &Session,
    keys: &[NetworkKey],
) -> Result<(), NotAdmitted>
where
    M: StreamMuxer + Unpin,
    M::Substream: Unpin,
{
    match role {
        Role::Initiator => {
            let first = keys.first().ok_or(NotAdmitted::Unproven)?;
            let mut stream = stream(muxer, M::poll_outbound).await?;
            let proof = session.prove(first, Role::Initiator);
            let answer = async {
                send(&mut stream, &proof).await?;
                receive(&mut stream).await
            };
            let answer = driven(muxer, answer).await?;
            session.verify(keys, Role::Responder, &answer).ok_or(NotAdmitted::Unproven)?;
        }
        Role::Responder => {
            let mut stream = stream(muxer, M::poll_inbound).await?;
            let asked = driven(muxer, receive(&mut stream)).await?;
            let key = session.verify(keys, Role::Initiator, &asked).ok_or(NotAdmitted::Unproven)?;
            // By the key that the initiator knows: during a rotation it may not know our first one.
            let proof = session.prove(key, Role::Responder);
            driven(muxer, send(&mut stream, &proof)).await?;
            // On its way now, not only when the swarm first turns to the connection.
            if let Poll::Ready(ended) = poll_fn(|cx| Poll::Ready(drive(muxer, cx))).await {
                return ended;
            }
        }
    }
    Ok(())
}

async fn send<S: futures::AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> Result<(), NotAdmitted> {
    stream.write_all(message).await.map_err(|_| NotAdmitted::HungUp)?;
    stream.close().await.map_err(|_| NotAdmitted::HungUp)
}

/// A message and the end of the stream; one byte more than a message has is enough to refuse it.
async fn receive<S: futures::AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, NotAdmitted> {
    let mut message = Vec::with_capacity(LENGTH + 1);
    let mut limited = stream.take(LENGTH as u64 + 1);
    limited.read_to_end(&mut message).await.map_err(|_| NotAdmitted::HungUp)?;
    match message.len() {
        0 => Err(NotAdmitted::HungUp),
        LENGTH => Ok(message),
        _ => Err(NotAdmitted::Unproven),
    }
}

type PollStream<M> = fn(
    Pin<&mut M>,
    &mut Context<'_>,
) -> Poll<Result<<M as StreamMuxer>::Substream, <M as StreamMuxer>::Error>>;

async fn stream<M: StreamMuxer + Unpin>(
    muxer: &mut M,
    poll_stream: PollStream<M>,
) -> Result<M::Substream, NotAdmitted> {
    poll_fn(|cx| {
        if let Poll::Ready(stream) = poll_stream(Pin::new(muxer), cx) {
            return Poll::Ready(stream.map_err(|_| NotAdmitted::HungUp));
        }
        drive(muxer, cx)
    })
    .await
}

/// What `work` on a stream of `muxer` gives, which nothing else moves on meanwhile.
async fn driven<M: StreamMuxer + Unpin, T>(
    muxer: &mut M,
    work: impl Future<Output = Result<T, NotAdmitted>>,
) -> Result<T, NotAdmitted> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => match drive(muxer, cx) {
            // What came with the end of the connection can still be read.
            Poll::Ready(Err(ended)) => match work.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(done),
                Poll::Pending => Poll::Ready(Err(ended)),
            },
            pending => pending,
        },
    })
    .await
}

/// Moves the connection on; ready only when it has ended.
fn drive<M: StreamMuxer + Unpin, T>(muxer: &mut M, cx: &mut Context<'_>) -> Poll<Result<T, NotAdmitted>> {
    loop {
        match Pin::new(&mut *muxer).poll(cx) {
            // A change of address, which the swarm need not know of yet.
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(Err(NotAdmitted::HungUp)),
            Poll::Pending => return Poll::Pending,
        }
    }
}
