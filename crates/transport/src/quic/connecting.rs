//! A connection on its way: from a dial or an incoming datagram to an authenticated muxer.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use libp2p::PeerId;
use quinn_proto::{ConnectionHandle, Side};

use crate::half_open::Cut;

use super::{
    Connection, Error, certificate,
    connection::remember,
    endpoint::Endpoint,
    hole_punch::Punch,
    incoming::{Accepted, Admission, Incoming},
    mailbox::Mailbox,
    state::{Shared, State},
};

/// A handshake under way. Dropped, it is abandoned: the remote is notified and nothing stays behind.
///
/// An incoming connection costs nothing but its first datagrams until this is polled.
#[derive(Debug)]
pub struct Connecting {
    stage: Stage,
    /// Of an incoming one, until it is made: says that it has to give way.
    cut: Option<(Cut, SocketAddr)>,
}

#[derive(Debug)]
enum Stage {
    /// Someone else dialed us; not accepted yet.
    Incoming(Option<Box<Incoming>>),
    /// A hole is being punched, and the remote is expected to dial us through it.
    Punch {
        punch: Punch,
        expected: Option<PeerId>,
    },
    Handshake(Handshake),
}

impl Connecting {
    pub(super) fn incoming(incoming: Incoming) -> Self {
        let remote = incoming.addresses().map_or(UNKNOWN, |(remote, _)| remote);
        let cut = incoming.cut().map(|cut| (cut, remote));
        Self { stage: Stage::Incoming(Some(Box::new(incoming))), cut }
    }

    pub(super) fn punch(punch: Punch, expected: Option<PeerId>) -> Self {
        Self { stage: Stage::Punch { punch, expected }, cut: None }
    }

    pub(super) fn dial(
        endpoint: &Arc<Endpoint>,
        remote: SocketAddr,
        expected: Option<PeerId>,
    ) -> Result<Self, Error> {
        let (handle, connection, mailbox) = endpoint.connect(remote)?;
        let handshake = Handshake::new(endpoint.clone(), handle, connection, mailbox, expected, None);
        Ok(Self { stage: Stage::Handshake(handshake), cut: None })
    }
}

fn accept(incoming: Incoming, expected: Option<PeerId>) -> Result<Handshake, Error> {
    // An `Incoming` has addresses until it is accepted, which happens here and once.
    let remote = incoming.addresses().map_or(UNKNOWN, |(remote, _)| remote);
    let accepted = incoming.accept().map_err(|source| Error::Handshake { remote, source })?;
    let Accepted { admission, handle, connection, mailbox } = accepted;
    Ok(Handshake::new(admission.endpoint.clone(), handle, connection, mailbox, expected, Some(admission)))
}

/// Stands for an address that cannot be missing.
const UNKNOWN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

impl Future for Connecting {
    type Output = Result<(PeerId, Connection), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some((cut, remote)) = &self.cut
            && cut.poll(cx)
        {
            let remote = *remote;
            // What there is of it is closed, and the remote is notified.
            self.stage = Stage::Incoming(None);
            return Poll::Ready(Err(Error::GaveWay { remote }));
        }
        loop {
            let handshake = match &mut self.stage {
                Stage::Handshake(handshake) => return handshake.poll(cx),
                Stage::Incoming(incoming) => match incoming.take() {
                    Some(incoming) => accept(*incoming, None)?,
                    // Refused above, and polled again all the same.
                    None => return Poll::Pending,
                },
                Stage::Punch { punch, expected } => {
                    let incoming = ready!(Pin::new(punch).poll(cx))?;
                    accept(incoming, *expected)?
                }
            };
            self.stage = Stage::Handshake(handshake);
        }
    }
}

struct Handshake {
    /// `None` once the outcome has been handed out. Closes the connection when dropped.
    connection: Option<Connection>,
    expected: Option<PeerId>,
    _admission: Option<Admission>,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Handshake {
    fn new(
        endpoint: Arc<Endpoint>,
        handle: ConnectionHandle,
        connection: quinn_proto::Connection,
        mailbox: Arc<Mailbox>,
        expected: Option<PeerId>,
        admission: Option<Admission>,
    ) -> Self {
        let limit = endpoint.shared.built.config.handshake_timeout;
        let deadline = endpoint.shared.runtime.now().checked_add(limit);
        let shared = Shared::new(endpoint, handle, connection, mailbox, deadline);
        Self { connection: Some(Connection::new(shared)), expected, _admission: admission }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(PeerId, Connection), Error>> {
        let Some(connection) = &self.connection else { return Poll::Pending };
        let shared = connection.shared.clone();
        let limit = shared.endpoint.shared.built.config.handshake_timeout;
        let outcome = {
            let mut state = shared.lock();
            let outcome = outcome(&mut state, shared.mailbox.is_refused(), self.expected, limit);
            if outcome.is_pending() {
                remember(&mut state.muxer, cx);
            } else {
                state.muxer_polls_always = false;
                state.dial_done(&shared.endpoint);
            }
            ready!(outcome)
        };
        match (outcome, self.connection.take()) {
            (Ok(peer), Some(connection)) => Poll::Ready(Ok((peer, connection))),
            (Err(error), _) => Poll::Ready(Err(error)),
            (Ok(_), None) => Poll::Pending,
        }
    }
}

/// How the handshake ended, if it has.
fn outcome(
    state: &mut State,
    refused: bool,
    expected: Option<PeerId>,
    limit: std::time::Duration,
) -> Poll<Result<PeerId, Error>> {
    let remote = state.remote;
    if let Some(source) = state.lost.clone() {
        return Poll::Ready(Err(Error::Handshake { remote, source }));
    }
    if state.connected {
        state.deadline = None;
        state.remote = state.quic.remote_address();
        let found = certificate::peer_id(&state.quic)?;
        return Poll::Ready(match expected {
            Some(expected) if expected != found => {
                Err(Error::WrongPeer { remote, expected: expected.into(), found: found.into() })
            }
            _ => Ok(found),
        });
    }
    // Until the remote has answered, a dial also fails by what the system says of the way there.
    if state.quic.side() == Side::Client && state.quic.stats().udp_rx.datagrams == 0 {
        if refused {
            return Poll::Ready(Err(Error::Refused { remote }));
        }
        if let Some(source) = state.send_error.take_if(|e| is_final(e)) {
            return Poll::Ready(Err(Error::Send { remote, source }));
        }
    }
    if state.deadline_passed {
        return Poll::Ready(Err(Error::HandshakeTimeout { remote, limit }));
    }
    Poll::Pending
}

/// Whether sending again will not help.
fn is_final(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::PermissionDenied
    )
}
