//! From a TCP connection to an authenticated muxer: Noise, then Yamux.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Abortable, BoxFuture, FutureExt};
use libp2p::{
    PeerId,
    core::{
        Endpoint as Role, UpgradeInfo,
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
};
use multistream_select::{Version, dialer_select_proto, listener_select_proto};
use smidge_runtime::{Handle, TcpOptions, TcpStream};

use super::{
    Config, Connection, Error,
    linger::Lingering,
    muxer::Session,
    pending::{PendingUpgrades, Permit},
    transcript::{End, Transcribed},
};

const NOISE: &str = "/noise";
const YAMUX: &str = "/yamux/1.0.0";

/// A connection on its way. Dropped, it is given up, and nothing stays behind.
pub struct Connecting(BoxFuture<'static, Result<(PeerId, Connection), Error>>);

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connecting")
    }
}

impl Future for Connecting {
    type Output = Result<(PeerId, Connection), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(cx)
    }
}

/// Where a dial goes, and from where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) remote: SocketAddr,
    /// A listener's address, to be shared.
    pub(super) from: Option<SocketAddr>,
    /// Who we are on this connection: `Listener` for one that two dials make together.
    pub(super) role: Role,
}

impl Connecting {
    /// A connection that somebody opened to us. Counts as pending until it is upgraded.
    pub(super) fn incoming(
        stream: Box<dyn TcpStream>,
        remote: SocketAddr,
        pending: &PendingUpgrades,
        config: &Arc<Config>,
        runtime: &Handle,
    ) -> Self {
        let (permit, revoked) = pending.acquire();
        let limit = pending.limit();
        let made = within(config.clone(), runtime.clone(), remote, {
            let config = config.clone();
            let runtime = runtime.clone();
            async move { upgrade(Lingering::new(stream, runtime), remote, Role::Listener, &config).await }
        });
        Self(
            async move {
                let _permit: Permit = permit;
                Abortable::new(made, revoked).await.unwrap_or(Err(Error::Crowded { remote, limit }))
            }
            .boxed(),
        )
    }

    /// A connection that we open.
    pub(super) fn dial(
        route: Route,
        expected: Option<PeerId>,
        config: &Arc<Config>,
        runtime: &Handle,
    ) -> Self {
        let remote = route.remote;
        let (settings, rt) = (config.clone(), runtime.clone());
        let made = async move {
            let stream =
                connect(&rt, route, &settings).await.map_err(|source| Error::Connect { remote, source })?;
            let (found, connection) =
                upgrade(Lingering::new(stream, rt), remote, route.role, &settings).await?;
            match expected {
                Some(expected) if expected != found => {
                    Err(Error::WrongPeer { remote, expected: expected.into(), found: found.into() })
                }
                _ => Ok((found, connection)),
            }
        };
        Self(within(config.clone(), runtime.clone(), remote, made).boxed())
    }
}

/// Makes a connection of a byte stream that leads to a peer through the relay at `relay`, within the time that
/// one of TCP has.
pub(crate) async fn secure(
    stream: Box<dyn TcpStream>,
    relay: SocketAddr,
    role: Role,
    config: Arc<Config>,
    runtime: Handle,
) -> Result<(PeerId, Connection), Error> {
    let settings = config.clone();
    let stream = Lingering::new(stream, runtime.clone());
    within(config, runtime, relay, async move { upgrade(stream, relay, role, &settings).await }).await
}

/// `made`, unless its time is over first.
async fn within(
    config: Arc<Config>,
    runtime: Handle,
    remote: SocketAddr,
    made: impl Future<Output = Result<(PeerId, Connection), Error>>,
) -> Result<(PeerId, Connection), Error> {
    let limit = config.handshake_timeout;
    runtime.timeout(limit, made).await.unwrap_or(Err(Error::Timeout { remote, limit }))
}

/// Opens the connection, from another port where there is one between these two addresses already.
/// But not one that two dials are to make together: they would miss each other.
async fn connect(runtime: &Handle, route: Route, config: &Config) -> io::Result<Box<dyn TcpStream>> {
    let options = TcpOptions { from: route.from, keep_alive: Some(config.alive()), ..TcpOptions::default() };
    match runtime.connect_tcp(route.remote, options).await {
        Err(e) if is_taken(&e) && route.from.is_some() && route.role == Role::Dialer => {
            log::debug!("dialing {} from a new port: {e}", route.remote);
            runtime.connect_tcp(route.remote, TcpOptions { from: None, ..options }).await
        }
        outcome => outcome,
    }
}

fn is_taken(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// Agrees on Noise and Yamux, and makes the connection. A dialer sends its first message of each without
/// waiting for the answer to its proposal (`V1Lazy`).
async fn upgrade(
    stream: Lingering<Box<dyn TcpStream>>,
    remote: SocketAddr,
    role: Role,
    config: &Config,
) -> Result<(PeerId, Connection), Error> {
    let noise = config.noise.clone();
    let negotiation = |protocol| move |source| Error::Negotiation { remote, protocol, source };
    let handshake = |error| Error::Handshake { remote, source: Box::new(error) };
    let (peer, stream, transcript) = match role {
        Role::Dialer => {
            let offer = noise.protocol_info();
            let (protocol, stream) =
                dialer_select_proto(stream, offer, Version::V1Lazy).await.map_err(negotiation(NOISE))?;
            let (stream, transcript) = Transcribed::new(stream, End::Initiator);
            let (peer, stream) = noise.upgrade_outbound(stream, protocol).await.map_err(handshake)?;
            let (_, stream) =
                dialer_select_proto(stream, [YAMUX], Version::V1Lazy).await.map_err(negotiation(YAMUX))?;
            (peer, stream, transcript)
        }
        Role::Listener => {
            let offer = noise.protocol_info();
            let (protocol, stream) =
                listener_select_proto(stream, offer).await.map_err(negotiation(NOISE))?;
            let (stream, transcript) = Transcribed::new(stream, End::Responder);
            let (peer, stream) = noise.upgrade_inbound(stream, protocol).await.map_err(handshake)?;
            let (_, stream) = listener_select_proto(stream, [YAMUX]).await.map_err(negotiation(YAMUX))?;
            (peer, stream, transcript)
        }
    };
    let is_initiator = role == Role::Dialer;
    let mode = if is_initiator { yamux::Mode::Client } else { yamux::Mode::Server };
    let connection = yamux::Connection::new(stream, config.yamux(), mode);
    let session = Session { binding: transcript.digest(), is_initiator };
    Ok((peer, Connection::new(connection, session, remote, config.max_concurrent_streams)))
}
