//! From a config to a swarm: the transport and each behaviour, set up as told.
//!
//! Nothing runs yet when this is done.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use libp2p::{
    PeerId, Swarm, Transport, allow_block_list, connection_limits, gossipsub, identify,
    identity::Keypair,
    kad::{
        self,
        store::{MemoryStore, MemoryStoreConfig},
    },
    memory_connection_limits, swarm,
};
use sha2::{Digest, Sha256};

use super::{SpawnError, behaviour::Behaviour, gossip, ping};
use crate::{
    config::{Backend, Config, Gossip, KadMode, MessageIds, Target, TransportKind, Validation},
    dialer, dns,
    runtime::Handle,
    transport::{SideBySide, quic, tcp},
};

/// Protocol family told to other nodes by identify.
const PROTOCOL_VERSION: &str = "/smidge/1.0.0";
/// What this node calls itself.
pub(crate) const AGENT: &str = concat!("smidge/", env!("CARGO_PKG_VERSION"));
/// Longest query of the hash table.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a ping to come back.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Pings on request under way on one connection.
const PINGS: usize = 16;
/// Peers with one address before their scores suffer: replicas behind one NAT are no attack.
const COLOCATED: f64 = 64.0;
/// How long peers wait before they take us back after we left a topic: a restarted node is back
/// within seconds and must not be punished for it.
const UNSUBSCRIBE_BACKOFF: Duration = Duration::from_secs(1);

/// The swarm, and what tells when its last socket is closed.
pub(crate) fn swarm(
    config: &Config,
    key: &Keypair,
    validated: bool,
    runtime: &Handle,
) -> Result<(Swarm<Behaviour>, BoxFuture<'static, ()>), SpawnError> {
    let transport = quic::Transport::new(quic_config(config, key)?, runtime.clone())?;
    let closed = transport.closed().boxed();
    let tcp = tcp::Transport::new(tcp_config(config, key)?, runtime.clone())?;
    let dials = config.dialed_transports();
    let [over_quic, over_tcp] = [TransportKind::Quic, TransportKind::Tcp].map(|kind| dials.contains(&kind));
    let transport = SideBySide::new(transport, tcp).dialing(over_quic, over_tcp).boxed();
    let executor = runtime.clone();
    let limits = &config.limits;
    let mut swarm_config = swarm::Config::with_executor(move |task| executor.spawn(task))
        // Replicas stay connected, whether they talk or not.
        .with_idle_connection_timeout(Duration::from_secs(u64::MAX))
        .with_max_negotiating_inbound_streams(limits.streams);
    if over_quic && over_tcp {
        // Of the addresses that the hash table has for a peer, those of QUIC first.
        swarm_config = swarm_config.with_smart_dial();
    }
    let peer = PeerId::from(key.public());
    Ok((Swarm::new(transport, behaviour(config, key, validated, runtime)?, peer, swarm_config), closed))
}

fn quic_config(config: &Config, key: &Keypair) -> Result<quic::Config, SpawnError> {
    let told = &config.quic;
    let mut quic = quic::Config::new(key)?;
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let buffer = Some(told.socket_buffer).filter(|bytes| *bytes > 0);
    quic.handshake_timeout = told.handshake_timeout;
    quic.keep_alive = told.keep_alive;
    quic.idle_timeout = told.idle_timeout;
    quic.max_concurrent_streams = narrow(config.limits.streams);
    quic.stream_receive_window = narrow(told.stream_window);
    quic.receive_window = narrow(told.connection_window);
    quic.send_window = told.send_window as u64;
    quic.memory = config.limits.memory / 2;
    quic.socket_send_buffer = buffer;
    quic.socket_recv_buffer = buffer;
    quic.initial_mtu = told.initial_mtu;
    quic.mtu_upper_bound = told.mtu_discovery.then_some(told.max_mtu);
    Ok(quic)
}

fn tcp_config(config: &Config, key: &Keypair) -> Result<tcp::Config, SpawnError> {
    let told = &config.tcp;
    let mut tcp = tcp::Config::new(key)?;
    tcp.handshake_timeout = told.handshake_timeout;
    tcp.keep_alive = told.keep_alive;
    tcp.idle_timeout = told.idle_timeout;
    tcp.max_concurrent_streams = config.limits.streams;
    tcp.backlog = u32::try_from(told.backlog).unwrap_or(u32::MAX);
    // The other half is for QUIC: who says nothing over TCP must not keep anybody out there.
    tcp.max_half_made = told.half_made.min(config.limits.pending / 2).max(1);
    Ok(tcp)
}

fn dns_config(config: &Config) -> dns::Config {
    let told = &config.dns;
    dns::Config {
        servers: told.servers.clone(),
        search: (!told.search.is_empty()).then(|| told.search.clone()),
        ndots: told.ndots.map(usize::from),
        timeout: told.timeout,
        attempts: told.attempts,
        hosts: told.hosts.clone().unwrap_or_default(),
        resolv_conf: told.resolv_conf.clone().unwrap_or_default(),
        backend: match told.backend {
            Backend::Hickory => dns::Backend::Hickory,
            Backend::AsyncDns => dns::Backend::AsyncDns,
        },
    }
}

/// Everything that the config wants to be connected to.
pub(crate) fn targets(config: &Config) -> Vec<Target> {
    let addresses = config.dial.addresses.iter().cloned().map(Target::Addr);
    config.dial.names.iter().cloned().chain(addresses).collect()
}

fn behaviour(
    config: &Config,
    key: &Keypair,
    validated: bool,
    runtime: &Handle,
) -> Result<Behaviour, SpawnError> {
    let peer = PeerId::from(key.public());
    let limits = &config.limits;
    let count = |n: usize| Some(u32::try_from(n).unwrap_or(u32::MAX));
    let mut denied = allow_block_list::Behaviour::default();
    for peer in &config.peers.deny {
        denied.block_peer(*peer);
    }
    let resolver = dns::resolver(dns_config(config), runtime.clone())?;
    let identify = identify::Config::new(PROTOCOL_VERSION.into(), key.public())
        .with_agent_version(AGENT.into())
        .with_push_listen_addr_updates(true)
        // Addresses of peers are learned by the routing table, not guessed from a cache.
        .with_cache_size(0);
    Ok(Behaviour {
        denied,
        limits: connection_limits::Behaviour::new(
            connection_limits::ConnectionLimits::default()
                .with_max_established(count(limits.connections))
                .with_max_established_per_peer(count(limits.per_peer))
                .with_max_pending_incoming(count(limits.pending))
                .with_max_pending_outgoing(count(limits.pending)),
        ),
        memory: memory_connection_limits::Behaviour::with_max_bytes(limits.memory),
        dialer: dialer::Behaviour::new(policy(config), resolver, runtime.clone(), fastrand::Rng::new()),
        identify: identify::Behaviour::new(identify),
        kad: kad_behaviour(config, peer),
        gossip: gossip_behaviour(&config.gossip, limits.topics, key, validated)?,
        ping: libp2p::ping::Behaviour::default(),
        ping_on_request: ping::behaviour(PING_TIMEOUT, PINGS),
    })
}

fn policy(config: &Config) -> dialer::Policy {
    let dial = &config.dial;
    dialer::Policy {
        lookup_max: dial.lookup_max,
        retry_max: dial.retry_max,
        refresh: dial.refresh,
        parallel: dial.parallel,
        max_records: config.limits.records,
        transports: config.name_transports(),
        fallback: dial.fallback,
        ..dialer::Policy::default()
    }
}

fn kad_behaviour(config: &Config, peer: PeerId) -> kad::Behaviour<MemoryStore> {
    let settings = &config.kad;
    let store = MemoryStore::with_config(
        peer,
        MemoryStoreConfig {
            max_records: settings.max_records,
            max_value_bytes: settings.max_value,
            max_provided_keys: settings.max_records,
            max_providers_per_key: settings.replication.get(),
        },
    );
    let mut kad_config = kad::Config::new(settings.protocol.clone());
    kad_config
        .set_replication_factor(settings.replication)
        .set_record_ttl(Some(settings.record_ttl))
        .set_provider_record_ttl(Some(settings.record_ttl))
        .set_query_timeout(QUERY_TIMEOUT)
        .set_max_packet_size(settings.max_value + 16 * 1024)
        // Only addresses that identify and the connection agree on are let in, by us.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        // kad bootstraps by itself when the table gets its first peers; the loop does the rest.
        .set_periodic_bootstrap_interval(None);
    let mut kad = kad::Behaviour::with_config(peer, store, kad_config);
    kad.set_mode(Some(match settings.mode {
        KadMode::Server => kad::Mode::Server,
        KadMode::Client => kad::Mode::Client,
    }));
    kad
}

fn gossip_behaviour(
    settings: &Gossip,
    topics: usize,
    key: &Keypair,
    validated: bool,
) -> Result<gossip::Behaviour, SpawnError> {
    let mut builder = gossipsub::ConfigBuilder::default();
    builder
        .mesh_n(settings.mesh_n)
        .mesh_n_low(settings.mesh_n_low)
        .mesh_n_high(settings.mesh_n_high)
        .mesh_outbound_min(settings.mesh_outbound_min)
        .gossip_lazy(settings.mesh_n)
        .heartbeat_interval(settings.heartbeat)
        // rust-libp2p waits 5 s by default: meshes would stay empty meanwhile.
        .heartbeat_initial_delay(Duration::from_millis(100))
        .unsubscribe_backoff(UNSUBSCRIBE_BACKOFF)
        .flood_publish(settings.flood_publish)
        .max_transmit_size(settings.max_message)
        .connection_handler_queue_len(QUEUE)
        .validation_mode(match settings.validation {
            Validation::Strict => gossipsub::ValidationMode::Strict,
            Validation::Permissive => gossipsub::ValidationMode::Permissive,
        });
    if settings.message_id == MessageIds::Content {
        builder.message_id_fn(content_id);
    }
    if settings.floodsub {
        builder.support_floodsub();
    }
    if validated {
        builder.validate_messages();
    }
    let config = builder.build().map_err(|e| SpawnError::Gossip(e.to_string()))?;
    let authenticity = gossipsub::MessageAuthenticity::Signed(key.clone());
    let filter = gossipsub::MaxCountSubscriptionFilter {
        filter: gossipsub::AllowAllSubscriptionFilter {},
        max_subscribed_topics: topics,
        max_subscriptions_per_request: topics,
    };
    let mut inner = gossip::Gossipsub::new_with_subscription_filter(authenticity, config.clone(), filter)
        .map_err(|e| SpawnError::Gossip(e.to_string()))?;
    let thresholds = gossipsub::PeerScoreThresholds::default();
    if settings.scoring {
        let params = gossipsub::PeerScoreParams {
            ip_colocation_factor_threshold: COLOCATED,
            ..gossipsub::PeerScoreParams::default()
        };
        inner.with_peer_score(params, thresholds.clone()).map_err(SpawnError::Gossip)?;
    }
    Ok(gossip::Behaviour::new(inner, &config, thresholds.publish_threshold))
}

/// Messages waiting for one peer.
const QUEUE: usize = 1024;

/// How a topic counts for a peer's score: first deliveries for it, invalid messages against it. How
/// often a topic speaks is its own business, so that silence costs nobody anything.
pub(crate) fn topic_score() -> gossipsub::TopicScoreParams {
    gossipsub::TopicScoreParams {
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 3600.0,
        first_message_deliveries_weight: 0.5,
        first_message_deliveries_cap: 100.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -20.0,
        invalid_message_deliveries_decay: 0.9,
        ..gossipsub::TopicScoreParams::default()
    }
}

/// The id of a message that is told by what it says: the first 20 bytes of SHA-256 over the topic,
/// a zero byte and the payload.
fn content_id(message: &gossipsub::Message) -> gossipsub::MessageId {
    let mut hash = Sha256::new();
    hash.update(message.topic.as_str());
    hash.update([0]);
    hash.update(&message.data);
    gossipsub::MessageId::new(&hash.finalize()[..20])
}
