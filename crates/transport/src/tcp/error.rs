//! What can go wrong: what was tried and where. Why is each error's source, and not repeated in its message.

use std::{io, net::SocketAddr, time::Duration};

use libp2p::PeerId;

/// Why a TCP connection, listener or dial failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No Noise identity could be made from the key pair.
    #[error("cannot set up Noise from this key")]
    Noise {
        /// What libp2p-noise said.
        source: Box<libp2p::noise::Error>,
    },
    /// A value of [`Config`](super::Config) cannot work.
    #[error("TCP configuration: {field} = {value} is out of range: {expected}")]
    Config {
        /// The field's name.
        field: &'static str,
        /// The value it has.
        value: String,
        /// What would be allowed.
        expected: &'static str,
    },
    /// A listener could not be bound.
    #[error("cannot listen on TCP {addr}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The network interfaces could not be listed, so that a wildcard listener cannot say its addresses.
    #[error("cannot tell the addresses of the TCP listener on {addr}")]
    Interfaces {
        /// The address listened on.
        addr: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// A listener failed to accept a connection; it goes on after a pause.
    #[error("cannot accept connections on TCP {addr}")]
    Accept {
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
    /// There is nothing to answer from on a connection that two dials are to make together.
    #[error("cannot meet a dial from {remote}: there is no TCP listener of its address family")]
    NoListener {
        /// The address asked for.
        remote: SocketAddr,
    },
    /// The connection could not be opened.
    #[error("cannot connect to TCP {remote}")]
    Connect {
        /// The address dialed.
        remote: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The two sides could not agree on a protocol.
    #[error("{remote} does not speak {protocol} over TCP")]
    Negotiation {
        /// The other side.
        remote: SocketAddr,
        /// What was to be agreed on.
        protocol: &'static str,
        /// What multistream-select said.
        source: multistream_select::NegotiationError,
    },
    /// The Noise handshake failed.
    #[error("Noise handshake with {remote} failed")]
    Handshake {
        /// The other side.
        remote: SocketAddr,
        /// What Noise said.
        source: Box<libp2p::noise::Error>,
    },
    /// The connection was not made in time.
    #[error("no connection with TCP {remote} within {limit:?}")]
    Timeout {
        /// The other side.
        remote: SocketAddr,
        /// The time limit.
        limit: Duration,
    },
    /// The connection was the oldest that was not made yet when there was one too many.
    #[error("{remote} was cut off: more than {limit} incoming TCP connections were not made yet")]
    Crowded {
        /// The other side.
        remote: SocketAddr,
        /// The limit.
        limit: usize,
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
        /// What Yamux, Noise or TCP said.
        source: yamux::ConnectionError,
    },
}
