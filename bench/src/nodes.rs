//! The behaviours of a whole node, put together from published parts.

use std::{io, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, io::AsyncRead, io::AsyncWrite};
use libp2p::{
    StreamProtocol, gossipsub, identify,
    identity::Keypair,
    kad::{self, store::MemoryStore},
    ping,
    request_response::{self, ProtocolSupport},
    swarm::NetworkBehaviour,
};

/// The hash table's protocol, as smidge names it by default.
pub const KAD: StreamProtocol = StreamProtocol::new("/smidge/kad/1.0.0");

/// identify, ping, kad and gossipsub: what smidge's node is made of.
#[derive(NetworkBehaviour)]
pub struct Whole {
    /// Who the others are.
    pub identify: identify::Behaviour,
    /// Whether they are still there.
    pub ping: ping::Behaviour,
    /// The hash table.
    pub kad: kad::Behaviour<MemoryStore>,
    /// Publish and subscribe.
    pub gossip: gossipsub::Behaviour,
}

impl Whole {
    /// The node of `key` with these gossip parameters.
    pub fn new(key: &Keypair, gossip: gossipsub::Config) -> Self {
        let peer = key.public().to_peer_id();
        let identify = identify::Config::new("/stock/1.0.0".into(), key.public())
            .with_agent_version("stock/0.57.1".into())
            .with_push_listen_addr_updates(true);
        let mut config = kad::Config::new(KAD);
        config.set_periodic_bootstrap_interval(None);
        let mut kad = kad::Behaviour::with_config(peer, MemoryStore::new(peer), config);
        kad.set_mode(Some(kad::Mode::Server));
        Self {
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::default(),
            kad,
            gossip: gossip_behaviour(key, gossip),
        }
    }
}

/// gossipsub that signs as `key`.
pub fn gossip_behaviour(key: &Keypair, config: gossipsub::Config) -> gossipsub::Behaviour {
    gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Signed(key.clone()), config)
        .expect("signing and strict validation go together")
}

/// smidge's default gossip parameters, for the published gossipsub: signed, strict, ids from source
/// and sequence number.
pub fn gossip_config() -> gossipsub::ConfigBuilder {
    let mut builder = gossipsub::ConfigBuilder::default();
    builder
        .mesh_n(6)
        .mesh_n_low(4)
        .mesh_n_high(12)
        .mesh_outbound_min(2)
        .gossip_lazy(6)
        .heartbeat_interval(Duration::from_millis(700))
        .heartbeat_initial_delay(Duration::from_millis(100))
        .flood_publish(true)
        .max_transmit_size(64 << 10)
        .connection_handler_queue_len(1024)
        .validation_mode(gossipsub::ValidationMode::Strict);
    builder
}

/// Requests and responses of at most 64 KiB, with their length in front.
#[derive(Clone, Debug, Default)]
pub struct Frames;

async fn read_frame(io: &mut (impl AsyncRead + Unpin + Send)) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    io.read_exact(&mut length).await?;
    let mut frame = vec![0; usize::from(u16::from_be_bytes(length))];
    io.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn write_frame(io: &mut (impl AsyncWrite + Unpin + Send), frame: &[u8]) -> io::Result<()> {
    let length = u16::try_from(frame.len()).map_err(|_| io::Error::other("frame too long"))?;
    let mut bytes = Vec::with_capacity(frame.len() + 2);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(frame);
    io.write_all(&bytes).await
}

impl request_response::Codec for Frames {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, frame: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &frame).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, frame: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &frame).await
    }
}

/// request-response on `protocol` with [`Frames`].
pub fn requests(protocol: &'static str) -> request_response::Behaviour<Frames> {
    request_response::Behaviour::with_codec(
        Frames,
        [(StreamProtocol::new(protocol), ProtocolSupport::Full)],
        request_response::Config::default().with_max_concurrent_streams(256),
    )
}
