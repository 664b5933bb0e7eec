//! What can go wrong: what was tried and where. Why is each error's source, and not repeated in its message.

use std::{error, io, net::SocketAddr, time::Duration};

use libp2p::PeerId;
use quinn_proto::{ConnectError, ConnectionError};

/// Why a QUIC connection, listener or dial failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No certificate or TLS configuration could be made from the key pair.
    #[error("cannot set up TLS from this key")]
    Tls {
        /// What TLS said.
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// A value of [`Config`](super::Config) is outside of what QUIC allows.
    #[error("QUIC configuration: {field} = {value} is out of range: {expected}")]
    Config {
        /// The field's name.
        field: &'static str,
        /// The value it has.
        value: String,
        /// What would be allowed.
        expected: &'static str,
    },
    /// A UDP socket could not be bound.
    #[error("cannot bind a UDP socket to {addr}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The network interfaces could not be listed, so that a wildcard listener cannot say its addresses.
    #[error("cannot tell the addresses of the listener on {addr}")]
    Interfaces {
        /// The address listened on.
        addr: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The socket of a listener failed to receive; it is tried again.
    #[error("cannot receive on {addr}")]
    Receive {
        /// The address listened on.
        addr: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The address cannot be dialed by anyone.
    #[error("cannot dial {remote}: {why}")]
    Undialable {
        /// The address asked for.
        remote: SocketAddr,
        /// What is wrong with it.
        why: &'static str,
    },
    /// quinn-proto refused to start a connection.
    #[error("cannot dial {remote}")]
    Connect {
        /// The address asked for.
        remote: SocketAddr,
        /// Why.
        source: ConnectError,
    },
    /// The first datagrams of a dial could not be sent.
    #[error("cannot send to {remote}")]
    Send {
        /// The address dialed.
        remote: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The host answered (ICMP) that nothing listens on the port.
    #[error("{remote} refused the dial: its host says that nothing listens on that UDP port")]
    Refused {
        /// The address dialed.
        remote: SocketAddr,
    },
    /// The handshake did not end in time.
    #[error("no QUIC handshake with {remote} within {limit:?}")]
    HandshakeTimeout {
        /// The other side.
        remote: SocketAddr,
        /// The time limit.
        limit: Duration,
    },
    /// There were too many handshakes, and this was the oldest.
    #[error("the handshake with {remote} had not ended, and gave way to a newer one: too many are under way")]
    GaveWay {
        /// The other side.
        remote: SocketAddr,
    },
    /// The handshake failed.
    #[error("QUIC handshake with {remote} failed")]
    Handshake {
        /// The other side.
        remote: SocketAddr,
        /// What QUIC or TLS said.
        source: ConnectionError,
    },
    /// The other side's certificate is not what libp2p asks for.
    #[error("the certificate of {remote} is not a libp2p one")]
    Certificate {
        /// The other side.
        remote: SocketAddr,
        /// What is wrong with it.
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// Someone else answered than was expected.
    #[error("{remote} is peer {found}, expected was {expected}")]
    WrongPeer {
        /// The address dialed.
        remote: SocketAddr,
        /// Who was expected there.
        expected: Box<PeerId>,
        /// Who answered.
        found: Box<PeerId>,
    },
    /// An established connection ended.
    #[error("connection with {remote} lost")]
    Lost {
        /// The other side.
        remote: SocketAddr,
        /// What QUIC said.
        source: ConnectionError,
    },
    /// The hole-punching dial has no listener to punch from.
    #[error("cannot punch a hole to {remote}: there is no listener of its address family")]
    NoListener {
        /// The address asked for.
        remote: SocketAddr,
    },
    /// A hole is being punched to this address already, or to too many others.
    #[error("cannot punch a hole to {remote}: {why}")]
    PunchDenied {
        /// The address asked for.
        remote: SocketAddr,
        /// Which limit was met.
        why: &'static str,
    },
    /// Nobody came through the punched hole in time.
    #[error("nobody came from {remote} through the punched hole within {limit:?}")]
    PunchTimeout {
        /// The address punched to.
        remote: SocketAddr,
        /// The time limit.
        limit: Duration,
    },
}

impl Error {
    /// As an I/O error of a stream on a lost connection.
    pub(super) fn lost(remote: SocketAddr, reason: &ConnectionError) -> io::Error {
        let kind = match reason {
            ConnectionError::TimedOut => io::ErrorKind::TimedOut,
            ConnectionError::LocallyClosed => io::ErrorKind::NotConnected,
            ConnectionError::Reset => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, Self::Lost { remote, source: reason.clone() })
    }
}
