//! Settings of the QUIC transport, and the quinn configurations made of them.

use std::{fmt, sync::Arc, time::Duration};

use libp2p::{PeerId, identity::Keypair};
use quinn_proto::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, HashedConnectionIdGenerator, IdleTimeout,
    MtuDiscoveryConfig, NoneTokenStore, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
    crypto::{
        CryptoError, HmacKey,
        rustls::{QuicClientConfig, QuicServerConfig},
    },
};
use ring::hmac;

use super::{Error, congestion};
use crate::tls;

/// The least a connection may hold in each direction, however many there are.
pub(super) const MIN_WINDOW: u64 = 16 * 1024;
/// Streams that a remote may have open at first. quinn-proto sets a place aside for every stream
/// that is allowed, about 80 bytes each, for as long as the connection lives: most connections of
/// a mesh never need more than these, and those that do are given more (`State::grow`).
pub(super) const FIRST_STREAMS: u32 = 16;
/// Datagrams that one Initial-keyed handshake may buffer before it is accepted.
const INCOMING_BUFFER: u64 = 8 * 1024;

/// Limits and times of a QUIC [`Transport`](super::Transport). Sizes are bytes.
///
/// A dead peer is noticed within `keep_alive + idle_timeout`: it may fall silent right after a
/// packet; the next keep-alive then starts the idle timer once more (RFC 9000, 10.1), and nothing
/// answers. The defaults make that 9 s, so that a container that died is noticed within 10 s.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// How long a handshake, or the wait for a peer behind a punched hole, may take.
    pub handshake_timeout: Duration,
    /// A ping goes out after this much silence.
    pub keep_alive: Duration,
    /// The connection is lost after this much silence.
    pub idle_timeout: Duration,
    /// How long a graceful close waits for finished streams to be acknowledged.
    pub close_timeout: Duration,
    /// Streams that the remote may have open simultaneously on a connection. It starts with 16, and the
    /// limit doubles up to this one as half of them are in use.
    pub max_concurrent_streams: u32,
    /// Unread bytes that a stream may hold.
    pub stream_receive_window: u32,
    /// Unread bytes that a connection may hold over all its streams.
    pub receive_window: u32,
    /// Unacknowledged bytes that a connection may hold over all its streams.
    pub send_window: u64,
    /// What all connections together may hold in their windows: each gets
    /// `memory / (2 * connections)` in each direction, but never less than 16 KiB and never more
    /// than its own windows. Credit that a peer was given before others came is not taken back,
    /// only not renewed as the peer uses it.
    pub memory: usize,
    /// `SO_SNDBUF` to ask the system for.
    pub socket_send_buffer: Option<usize>,
    /// `SO_RCVBUF` to ask the system for.
    pub socket_recv_buffer: Option<usize>,
    /// With this many incoming handshakes under way on a socket, an address must prove itself
    /// (stateless retry) before anything is kept for it.
    pub retry_above: usize,
    /// Incoming handshakes under way on a socket. One more, and the oldest gives way whose address is not proved; if
    /// all are, the oldest that has had half a second, or else the newcomer is turned away.
    pub max_handshakes: usize,
    /// Of these, from one address (of IPv6, from one /64).
    pub max_handshakes_per_address: usize,
    /// Holes that may be punched simultaneously from a socket.
    pub max_punches: usize,
    /// Datagrams that wait for a connection's task; what comes on top is dropped like on a full link.
    pub max_inbox: usize,
    /// Largest UDP payload to start with; 1200, which every path of QUIC carries, is the minimum.
    pub initial_mtu: u16,
    /// Largest UDP payload that path MTU discovery tries; `None` turns discovery off.
    pub mtu_upper_bound: Option<u16>,
    pub(super) tls: Tls,
    pub(super) local_peer: PeerId,
    /// Derived from the key, so that a node that was killed and started again recognizes packets of
    /// its former connections and resets them immediately (RFC 9000, 10.3.2).
    reset: Option<[u8; 32]>,
    #[cfg(test)]
    pub(super) seed: Option<u64>,
}

/// The TLS halves, made once: keys and certificates are not generated per dial.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) client: Arc<QuicClientConfig>,
    pub(super) server: Arc<QuicServerConfig>,
}

impl Tls {
    /// Any expected peer id is compared after the handshake, before the connection is handed out,
    /// so that all dials share one configuration.
    fn new(keypair: &Keypair) -> Result<Self, Error> {
        let (client, server) = tls::configs(keypair).map_err(|source| Error::Tls { source })?;
        Self::from_rustls(client, server)
    }

    pub(super) fn from_rustls(
        mut client: rustls::ClientConfig,
        mut server: rustls::ServerConfig,
    ) -> Result<Self, Error> {
        client.resumption = rustls::client::Resumption::disabled();
        client.enable_sni = false;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            client: Arc::new(
                QuicClientConfig::try_from(client).map_err(|e| Error::Tls { source: e.into() })?,
            ),
            server: Arc::new(
                QuicServerConfig::try_from(server).map_err(|e| Error::Tls { source: e.into() })?,
            ),
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("local_peer", &self.local_peer)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("keep_alive", &self.keep_alive)
            .field("idle_timeout", &self.idle_timeout)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The defaults, authenticated as `keypair`.
    ///
    /// # Errors
    /// [`Error::Tls`] when no certificate can be made from the key.
    pub fn new(keypair: &Keypair) -> Result<Self, Error> {
        Ok(Self {
            handshake_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_millis(2500),
            idle_timeout: Duration::from_millis(6500),
            close_timeout: Duration::from_secs(1),
            max_concurrent_streams: 256,
            stream_receive_window: 2 << 20,
            receive_window: 4 << 20,
            send_window: 4 << 20,
            memory: 64 << 20,
            socket_send_buffer: Some(2 << 20),
            socket_recv_buffer: Some(2 << 20),
            retry_above: 16,
            max_handshakes: 128,
            max_handshakes_per_address: 64,
            max_punches: 32,
            max_inbox: 1024,
            initial_mtu: 1200,
            mtu_upper_bound: Some(1452),
            tls: Tls::new(keypair)?,
            local_peer: keypair.public().to_peer_id(),
            reset: keypair.derive_secret(b"smidge quic stateless reset"),
            #[cfg(test)]
            seed: None,
        })
    }

    /// quinn's configurations, or which value is out of range.
    pub(super) fn build(self) -> Result<Built, Error> {
        let idle = IdleTimeout::try_from(self.idle_timeout).map_err(|_| Error::Config {
            field: "idle_timeout",
            value: format!("{:?}", self.idle_timeout),
            expected: "less than 2^62 ms",
        })?;
        if self.keep_alive >= self.idle_timeout {
            return Err(Error::Config {
                field: "keep_alive",
                value: format!("{:?}", self.keep_alive),
                expected: "less than idle_timeout",
            });
        }
        for (field, value) in [
            ("max_handshakes", self.max_handshakes),
            ("max_handshakes_per_address", self.max_handshakes_per_address),
            ("max_inbox", self.max_inbox),
            ("max_concurrent_streams", self.max_concurrent_streams as usize),
        ] {
            if value == 0 {
                return Err(Error::Config { field, value: "0".into(), expected: "at least 1" });
            }
        }
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(self.max_concurrent_streams.min(FIRST_STREAMS).into())
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.keep_alive))
            .stream_receive_window(self.stream_receive_window.into())
            // Until the handshake is done a remote gets the least; then its share (`State::share`).
            .receive_window(VarInt::from_u32(self.receive_window.min(MIN_WINDOW as u32)))
            .send_window(self.send_window.min(MIN_WINDOW))
            .congestion_controller_factory(Arc::new(congestion::Factory::default()))
            .initial_mtu(self.initial_mtu)
            .ack_frequency_config(Some(ack_frequency()))
            .mtu_discovery_config(self.mtu_upper_bound.map(|bound| {
                let mut discovery = MtuDiscoveryConfig::default();
                discovery.upper_bound(bound);
                discovery
            }))
            .allow_spin(false);
        let transport = Arc::new(transport);

        let mut client = ClientConfig::new(self.tls.client.clone());
        client.transport_config(transport.clone()).token_store(Arc::new(NoneTokenStore));

        let mut tokens = ValidationTokenConfig::default();
        tokens.sent(0);
        let mut server = ServerConfig::with_crypto(self.tls.server.clone());
        server
            .transport_config(transport)
            .validation_token_config(tokens)
            .max_incoming(self.max_handshakes)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER * self.max_handshakes as u64)
            .retry_token_lifetime(self.handshake_timeout);

        let mut endpoint = EndpointConfig::default();
        if let Some(secret) = self.reset {
            let (ids, tokens) = (derive(&secret, b"connection ids"), derive(&secret, b"reset tokens"));
            let ids = u64::from_be_bytes(std::array::from_fn(|i| ids[i]));
            endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
            endpoint.reset_key(Arc::new(ResetKey(hmac::Key::new(hmac::HMAC_SHA256, &tokens))));
        }
        endpoint.supported_versions(vec![1]);
        #[cfg(test)]
        endpoint.rng_seed(self.seed.map(|seed| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&seed.to_le_bytes());
            bytes
        }));
        Ok(Built { endpoint: Arc::new(endpoint), server: Arc::new(server), client, config: self })
    }
}

/// The key of stateless resets. quinn-proto implements its trait for the keys of one crypto library
/// only, and which one depends on what else is in the build.
struct ResetKey(hmac::Key);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        out.copy_from_slice(hmac::sign(&self.0, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        self.0.algorithm().digest_algorithm().output_len()
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_| CryptoError)
    }
}

/// A secret of its own for each purpose.
fn derive(secret: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), purpose);
    // HMAC-SHA256 is 32 bytes long.
    std::array::from_fn(|i| tag.as_ref()[i])
}

/// A receiver that speaks the extension acknowledges every tenth packet instead of every second:
/// on small machines acknowledging costs as much as receiving.
fn ack_frequency() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config.ack_eliciting_threshold(VarInt::from_u32(10));
    config
}

/// A checked [`Config`] and what quinn makes of it.
pub(super) struct Built {
    pub(super) config: Config,
    pub(super) endpoint: Arc<EndpointConfig>,
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: ClientConfig,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_notice_a_dead_peer_within_ten_seconds() {
        let config = Config::new(&Keypair::generate_ed25519()).unwrap();
        assert!(config.keep_alive + config.idle_timeout < Duration::from_secs(10));
        config.build().unwrap();
    }

    #[test]
    fn values_that_cannot_work_are_refused_by_name() {
        let base = Config::new(&Keypair::generate_ed25519()).unwrap();
        let mut config = base.clone();
        config.keep_alive = config.idle_timeout;
        let error = config.build().err().unwrap().to_string();
        assert_eq!(error, "QUIC configuration: keep_alive = 6.5s is out of range: less than idle_timeout");
        let mut config = base;
        config.max_inbox = 0;
        let error = config.build().err().unwrap().to_string();
        assert_eq!(error, "QUIC configuration: max_inbox = 0 is out of range: at least 1");
    }
}
