//! A connection that someone wants to open and that nobody has accepted yet.

use std::{net::SocketAddr, sync::Arc};

use quinn_proto::{ConnectionError, ConnectionHandle};

use crate::half_open::{Cut, Ticket};

use super::{endpoint::Endpoint, lock, mailbox::Mailbox, transmit};

/// Counted in [`Endpoint::handshakes`] for as long as it lives.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) endpoint: Arc<Endpoint>,
    ticket: Ticket,
}

impl Admission {
    /// Says when it has to give way.
    pub(super) fn cut(&self) -> &Cut {
        &self.ticket.cut
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        lock(&self.endpoint.handshakes).end(self.ticket.number);
    }
}

/// An incoming connection that holds nothing but its first datagrams. Dropped, it is refused, and
/// nothing of it stays behind: limits above the transport can deny it for the price of a datagram.
#[derive(Debug)]
pub(super) struct Incoming {
    /// `Some` until it is accepted or dropped.
    quinn: Option<quinn_proto::Incoming>,
    /// `Some` until it is accepted or dropped.
    admission: Option<Admission>,
}

/// An incoming connection whose handshake has begun.
pub(super) struct Accepted {
    pub(super) admission: Admission,
    pub(super) handle: ConnectionHandle,
    pub(super) connection: quinn_proto::Connection,
    pub(super) mailbox: Arc<Mailbox>,
}

impl Incoming {
    /// The caller has counted it in [`Endpoint::handshakes`].
    pub(super) fn new(endpoint: Arc<Endpoint>, ticket: Ticket, quinn: quinn_proto::Incoming) -> Self {
        Self { quinn: Some(quinn), admission: Some(Admission { endpoint, ticket }) }
    }

    /// Says when it has to give way.
    pub(super) fn cut(&self) -> Option<Cut> {
        self.admission.as_ref().map(|admission| admission.cut().clone())
    }

    /// The remote's address and, where the system tells, ours.
    pub(super) fn addresses(&self) -> Option<(SocketAddr, Option<std::net::IpAddr>)> {
        self.quinn.as_ref().map(|quinn| (quinn.remote_address(), quinn.local_ip()))
    }

    /// Back to what it was made of, no longer counted.
    pub(super) fn into_quinn(mut self) -> Option<quinn_proto::Incoming> {
        self.quinn.take()
    }

    /// Begins the handshake.
    pub(super) fn accept(mut self) -> Result<Accepted, ConnectionError> {
        let (Some(quinn), Some(admission)) = (self.quinn.take(), self.admission.take()) else {
            return Err(ConnectionError::LocallyClosed);
        };
        let endpoint = admission.endpoint.clone();
        let now = endpoint.shared.runtime.now();
        transmit::with_buffer(|buffer| {
            let mut table = lock(&endpoint.table);
            match table.quic.accept(quinn, now, buffer, None) {
                Ok((handle, connection)) => {
                    let mailbox = endpoint.route(&mut table, handle);
                    drop(table);
                    Ok(Accepted { admission, handle, connection, mailbox })
                }
                Err(e) => {
                    drop(table);
                    if let Some(response) = &e.response {
                        endpoint.respond(response, buffer);
                    }
                    Err(e.cause)
                }
            }
        })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let (Some(quinn), Some(admission)) = (self.quinn.take(), self.admission.as_ref()) else {
            return;
        };
        let endpoint = &admission.endpoint;
        transmit::with_buffer(|buffer| {
            let response = lock(&endpoint.table).quic.refuse(quinn, buffer);
            endpoint.respond(&response, buffer);
        });
    }
}
