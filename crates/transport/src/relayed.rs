//! Connections through a relay (libp2p/specs relay/circuit-v2.md): Noise and Yamux, as over TCP, on the stream
//! that libp2p's relay client has been given by the relay. So the relay carries what it cannot read.
//!
//! Reserves nothing and dials nobody by itself.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    TryFutureExt,
    io::{AsyncRead, AsyncWrite},
};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{ConnectedPoint, Endpoint as Role},
    relay,
};
use smidge_runtime::{Handle, TcpStream};

use super::{
    multiaddr::{direct, first_hop},
    tcp,
};

/// Why a connection through a relay was not made.
#[derive(Debug, thiserror::Error)]
#[error("through the relay")]
pub struct Error(#[from] tcp::Error);

/// What `client` has been given, made into connections.
///
/// # Errors
/// When a value of `config` cannot work.
pub fn transport(
    client: relay::client::Transport,
    config: tcp::Config,
    runtime: Handle,
) -> Result<
    impl Transport<Output = (PeerId, tcp::Connection), Error: Send + Sync, ListenerUpgrade: Send, Dial: Send>
    + Send
    + Unpin,
    tcp::Error,
> {
    config.check()?;
    let config = Arc::new(config);
    Ok(client.and_then(move |stream, endpoint| {
        let role = if endpoint.is_dialer() { Role::Dialer } else { Role::Listener };
        let relay = relay_of(&endpoint);
        let stream = Box::new(Circuit { stream, relay });
        tcp::secure(stream, relay, role, config, runtime).map_err(Error)
    }))
}

/// Where the relay of a connection is.
fn relay_of(endpoint: &ConnectedPoint) -> SocketAddr {
    let address: &Multiaddr = match endpoint {
        ConnectedPoint::Dialer { address, .. } => address,
        ConnectedPoint::Listener { local_addr, .. } => local_addr,
    };
    let relay = direct(&first_hop(address)).map(|relay| relay.socket);
    relay.unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0))
}

/// A relayed stream in the place of one of TCP.
struct Circuit {
    stream: relay::client::Connection,
    relay: SocketAddr,
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit").field("relay", &self.relay).finish_non_exhaustive()
    }
}

impl TcpStream for Circuit {
    /// The relay's: where the peer is, nobody says.
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.relay)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a relayed stream has no address of its own"))
    }
}

impl AsyncRead for Circuit {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read_vectored(cx, bufs)
    }
}

impl AsyncWrite for Circuit {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::multiaddr::Protocol;

    use super::*;

    #[test]
    fn the_relay_of_a_connection_is_named_by_the_address_that_leads_through_it() {
        let [relay, peer] = [PeerId::random(), PeerId::random()];
        let through: Multiaddr =
            format!("/ip4/10.0.0.9/udp/4001/quic-v1/p2p/{relay}/p2p-circuit").parse().unwrap();
        let listener = ConnectedPoint::Listener {
            local_addr: through.clone(),
            send_back_addr: Protocol::P2p(peer).into(),
        };
        let dialer = ConnectedPoint::Dialer {
            address: through.with(Protocol::P2p(peer)),
            role_override: Role::Dialer,
            port_use: libp2p::core::transport::PortUse::Reuse,
        };
        for endpoint in [listener, dialer] {
            assert_eq!(relay_of(&endpoint), "10.0.0.9:4001".parse().unwrap());
        }
    }
}
