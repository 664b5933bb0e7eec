//! From a config to a swarm: the transport and each behaviour, set up as settings.
//!
//! Nothing runs yet when this is done.

use std::{num::NonZeroU32, time::Duration};

use futures::future::{BoxFuture, FutureExt};
use libp2p::{
    PeerId, Swarm, Transport, connection_limits,
    core::{
        muxing::{StreamMuxer, StreamMuxerBox},
        transport::Boxed,
    },
    identify,
    identity::Keypair,
    kad, memory_connection_limits, relay, swarm,
};

use super::{
    SpawnError,
    access::{self, Access},
    autonat,
    behaviour::Behaviour,
    boxed_handler::BoxedHandlers,
    catchup, dcutr,
    dial_guard::{DialGuard, Guarded},
    gossip_setup, name, ping, places, relay_server, table,
};
use crate::{
    config::{self, Backend, Config, KadMode, Target, TransportKind},
    dialer, dns, mdns,
    runtime::Handle,
    store::{Limits, Store},
    transport::{
        SideBySide,
        admission::{Admitted, Gate, Keyring, Rules},
        quic, relayed, tcp,
    },
};

/// The protocol family that identify announces.
const PROTOCOL_VERSION: &str = "/smidge/1.0.0";
/// What this node calls itself.
pub(crate) const AGENT: &str = concat!("smidge/", env!("CARGO_PKG_VERSION"));
/// Longest query of the hash table.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long relays have, after the start, to tell where they see this node.
const RELAY_HOLD: Duration = Duration::from_secs(3);
/// How long until one failed admission of an address is forgiven.
const FORGIVE: Duration = Duration::from_secs(10);

/// The swarm, and what tells when its last socket is closed.
pub(crate) fn swarm(
    config: &Config,
    key: &Keypair,
    keyring: Option<Keyring>,
    runtime: &Handle,
) -> Result<(Swarm<BoxedHandlers<Behaviour>>, BoxFuture<'static, ()>), SpawnError> {
    let transport = quic::Transport::new(quic_config(config, key)?, runtime.clone())?;
    let closed = transport.closed().boxed();
    let local = PeerId::from(key.public());
    let dials = config.dialed_transports();
    let [over_quic, over_tcp] = [TransportKind::Quic, TransportKind::Tcp].map(|kind| dials.contains(&kind));
    let tcp = tcp::Transport::new(tcp_config(config, key)?, runtime.clone())?;
    let is_private = keyring.is_some();
    let (mut circuits, mut relayed) = (None, None);
    if config.is_relay_client() {
        let (client, behaviour) = relay::client::new(local);
        circuits = Some(behaviour);
        relayed = Some(relayed::transport(client, tcp_config(config, key)?, runtime.clone())?);
    }
    let transport = match keyring {
        None => with_relayed(SideBySide::new(transport, tcp).dialing(over_quic, over_tcp), relayed),
        Some(keys) => {
            let gate = Gate::new(local, rules(config, keys), runtime.clone());
            let admitted = Admitted::new(transport, gate.clone());
            let direct = SideBySide::new(admitted, Admitted::new(tcp, gate.clone()));
            let relayed = relayed.map(|relayed| Admitted::new(relayed, gate));
            with_relayed(direct.dialing(over_quic, over_tcp), relayed)
        }
    };
    let proving = if is_private { proving(config) } else { 0 };
    let guard = DialGuard::default();
    let transport = Guarded::new(transport, guard.clone()).boxed();
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
    Ok((
        Swarm::new(
            transport,
            BoxedHandlers::new(behaviour(config, key, circuits, runtime, guard, proving)?),
            local,
            swarm_config,
        ),
        closed,
    ))
}

/// `direct`, and connections through relays where there are any.
fn with_relayed<D, R, M>(direct: D, relayed: Option<R>) -> Boxed<(PeerId, StreamMuxerBox)>
where
    D: Transport<Output = (PeerId, StreamMuxerBox), Dial: Send, ListenerUpgrade: Send>
        + Send
        + Unpin
        + 'static,
    R: Transport<Output = (PeerId, M), Dial: Send, ListenerUpgrade: Send> + Send + Unpin + 'static,
    M: StreamMuxer<Substream: Send + 'static, Error: Send + Sync + 'static> + Send + 'static,
    D::Error: Send + Sync,
    R::Error: Send + Sync,
{
    match relayed {
        None => direct.boxed(),
        Some(relayed) => relayed
            .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
            .or_transport(direct)
            .map(|either, _| either.into_inner())
            .boxed(),
    }
}

fn rules(config: &Config, keys: Keyring) -> Rules {
    let settings = &config.network;
    Rules {
        keys,
        timeout: settings.timeout,
        failures: u32::try_from(settings.failures).unwrap_or(u32::MAX),
        forgive: FORGIVE,
        proving: proving(config),
    }
}

/// Incoming connections that may be proving that they know the network's key: counted apart from handshakes.
fn proving(config: &Config) -> usize {
    (config.limits.pending / 2).max(1)
}

/// Incoming connections of TCP that may not be made yet. The other half is for QUIC: who says nothing over TCP must not
/// keep anybody out there.
fn half_made(config: &Config) -> usize {
    config.tcp.half_made.min(config.limits.pending / 2).max(1)
}

/// What the transport is settings.
pub(crate) fn quic_config(config: &Config, key: &Keypair) -> Result<quic::Config, SpawnError> {
    let settings = &config.quic;
    let mut quic = quic::Config::new(key)?;
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let buffer = Some(settings.socket_buffer).filter(|bytes| *bytes > 0);
    quic.handshake_timeout = settings.handshake_timeout;
    quic.keep_alive = settings.keep_alive;
    quic.idle_timeout = settings.idle_timeout;
    quic.max_concurrent_streams = narrow(config.limits.streams);
    quic.stream_receive_window = narrow(settings.stream_window);
    quic.receive_window = narrow(settings.connection_window);
    quic.send_window = settings.send_window as u64;
    quic.memory = config.limits.memory / 2;
    // Some less than the swarm lets wait: one that gives way is there for a moment beside the one it gave way to.
    let pending = config.limits.pending;
    let listens_on_tcp =
        config.listen.addresses.iter().any(|a| TransportKind::listens(a) == Some(TransportKind::Tcp));
    let others = if listens_on_tcp { half_made(config) } else { 0 };
    quic.max_handshakes = pending.saturating_sub(others + (pending / 16).max(1)).max(1);
    quic.max_handshakes_per_address = quic.max_handshakes.div_ceil(2);
    quic.retry_above = pending / 8;
    quic.socket_send_buffer = buffer;
    quic.socket_recv_buffer = buffer;
    quic.initial_mtu = settings.initial_mtu;
    quic.mtu_upper_bound = settings.mtu_discovery.then_some(settings.max_mtu);
    Ok(quic)
}

/// What the transport is settings.
pub(crate) fn tcp_config(config: &Config, key: &Keypair) -> Result<tcp::Config, SpawnError> {
    let settings = &config.tcp;
    let mut tcp = tcp::Config::new(key)?;
    tcp.handshake_timeout = settings.handshake_timeout;
    tcp.keep_alive = settings.keep_alive;
    tcp.idle_timeout = settings.idle_timeout;
    tcp.max_concurrent_streams = config.limits.streams;
    tcp.backlog = u32::try_from(settings.backlog).unwrap_or(u32::MAX);
    tcp.max_half_made = half_made(config);
    Ok(tcp)
}

/// What the resolver is settings.
pub(crate) fn dns_config(config: &Config) -> dns::Config {
    let settings = &config.dns;
    dns::Config {
        servers: settings.servers.clone(),
        search: (!settings.search.is_empty()).then(|| settings.search.clone()),
        ndots: settings.ndots.map(usize::from),
        timeout: settings.timeout,
        attempts: settings.attempts,
        hosts: settings.hosts.clone().unwrap_or_default(),
        resolv_conf: settings.resolv_conf.clone().unwrap_or_default(),
        backend: match settings.backend {
            Backend::Hickory => dns::Backend::Hickory,
            Backend::AsyncDns => dns::Backend::AsyncDns,
        },
    }
}

/// Everything that the config wants to be connected to.
pub(crate) fn targets(config: &Config) -> Vec<Target> {
    let addresses = config.dial.addresses.iter().cloned().map(Target::Addr);
    let relays = config.relay.through.iter().cloned();
    config.dial.names.iter().cloned().chain(addresses).chain(relays).collect()
}

/// What the relay is settings.
fn relay_config(settings: &config::Relay) -> relay::Config {
    // Of these two, libp2p grants one more than it is settings.
    let less_one = |n: usize| n.saturating_sub(1);
    let minute = Duration::from_secs(60);
    let requests = u32::try_from(settings.requests).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
    let each = minute / requests.get();
    relay::Config {
        max_reservations: settings.reservations,
        max_reservations_per_peer: less_one(settings.reservations_per_peer),
        reservation_duration: settings.reservation_duration,
        reservation_rate_limiters: Vec::new(),
        max_circuits: settings.circuits,
        max_circuits_per_peer: less_one(settings.circuits_per_peer),
        max_circuit_duration: settings.circuit_duration,
        max_circuit_bytes: settings.circuit_bytes as u64,
        circuit_src_rate_limiters: Vec::new(),
    }
    .reservation_rate_per_peer(requests, each)
    .reservation_rate_per_ip(requests, each)
    .circuit_src_per_peer(requests, each)
    .circuit_src_per_ip(requests, each)
}

fn relay_behaviour(config: &Config, peer: PeerId) -> relay_server::Behaviour {
    let settings = &config.relay;
    let unlimited = settings.circuit_duration.is_zero().then_some(settings.circuit_bytes as u64);
    let per_peer = settings.reservations_per_peer;
    relay_server::Behaviour::new(peer, relay_config(settings), per_peer, unlimited)
}

fn dcutr_behaviour(config: &Config, peer: PeerId, guard: DialGuard) -> dcutr::Behaviour {
    // Relays that are asked for a slot are about to tell; of another one, nobody knows when.
    let asks_relays = !config.relay.through.is_empty();
    dcutr::Behaviour::new(peer, if asks_relays { RELAY_HOLD } else { Duration::ZERO }, guard)
}

fn behaviour(
    config: &Config,
    key: &Keypair,
    circuits: Option<relay::client::Behaviour>,
    runtime: &Handle,
    guard: DialGuard,
    proving: usize,
) -> Result<Behaviour, SpawnError> {
    let peer = PeerId::from(key.public());
    let limits = &config.limits;
    let count = |n: usize| Some(u32::try_from(n).unwrap_or(u32::MAX));
    let resolver = dns::resolver(dns_config(config), runtime.clone())?;
    let identify = identify::Config::new(PROTOCOL_VERSION.into(), key.public())
        .with_agent_version(name::agent(AGENT, config.node.name.as_deref()))
        .with_push_listen_addr_updates(true)
        // Addresses of peers are learned by the routing table, not guessed from a cache.
        .with_cache_size(0);
    Ok(Behaviour {
        access: access::Behaviour::new(Access::new(&config.peers), guard.clone()),
        limits: connection_limits::Behaviour::new(
            connection_limits::ConnectionLimits::default()
                .with_max_established(count(limits.connections))
                .with_max_established_per_peer(count(limits.per_peer + beside(config)))
                .with_max_pending_incoming(count(limits.pending + proving))
                .with_max_pending_outgoing(count(limits.pending)),
        ),
        memory: memory_connection_limits::Behaviour::with_max_bytes(limits.memory),
        dialer: places::Behaviour::new(
            dialer::Behaviour::new(policy(config, &peer), resolver, runtime.clone(), fastrand::Rng::new()),
            places::Shares::new(limits, config.dial.neighbours_max),
        ),
        mdns: mdns_behaviour(config, peer, runtime),
        identify: identify::Behaviour::new(identify),
        kad: kad_behaviour(config, peer, store(config, peer, runtime)?, guard.clone()),
        gossip: gossip_setup::behaviour(config, key, runtime)?,
        catchup: catchup_behaviour(config, peer, runtime),
        ping: ping::Behaviour::new(ping::Config::default(), runtime.clone()),
        relay_server: config.relay.server.then(|| relay_behaviour(config, peer)).into(),
        relay_client: circuits.into(),
        dcutr: config.nat.punch.then(|| dcutr_behaviour(config, peer, guard.clone())).into(),
        autonat_client: config.nat.probe.then(autonat::Client::new).into(),
        autonat_server: config.nat.answer.then(|| autonat::Server::new(guard)).into(),
    })
}

/// Connections with a peer that stand beside its others for a moment: two relayed ones, if both dialed, until
/// the direct one has taken their place, and a probe.
fn beside(config: &Config) -> usize {
    let nat = &config.nat;
    if nat.punch { 2 } else { usize::from(nat.probe || nat.answer) }
}

fn policy(config: &Config, peer: &PeerId) -> dialer::Policy {
    let dial = &config.dial;
    dialer::Policy {
        lookup_max: dial.lookup_max,
        retry_max: dial.retry_max,
        refresh: dial.refresh,
        forget: dial.forget,
        stale: dial.stale,
        parallel: dial.parallel,
        max_records: config.limits.records,
        neighbours: dialer::Neighbours { wanted: dial.neighbours, full: dial.full },
        identity: dialer::Policy::hash(peer),
        transports: config.name_transports(),
        fallback: dial.fallback,
    }
}

fn mdns_behaviour(config: &Config, peer: PeerId, runtime: &Handle) -> mdns::Behaviour {
    let settings = &config.mdns;
    if !settings.enabled {
        return mdns::Behaviour::off();
    }
    let policy = mdns::Policy {
        query_interval: settings.query_interval,
        ttl: settings.ttl,
        max_peers: settings.max_peers,
        retry_max: config.dial.retry_max,
        parallel: config.dial.parallel,
        transports: config.dialed_transports(),
    };
    let settings = mdns::Settings { policy, interfaces: settings.interfaces.clone() };
    mdns::Behaviour::new(peer, settings, runtime.clone(), fastrand::Rng::new())
}

fn catchup_behaviour(config: &Config, peer: PeerId, runtime: &Handle) -> catchup::Behaviour {
    let limits = &config.limits;
    let kept = if limits.kept == 0 { (limits.memory / 8).min(64 << 20) } else { limits.kept };
    let settings = catchup::Settings { max_message: config.gossip.max_message, kept };
    let mut catchup = catchup::Behaviour::new(settings, peer, runtime.clone(), fastrand::Rng::new());
    catchup.book_mut().configure(&config.topics, catchup::wall());
    if let config::Store::File(records) = &config.kad.store {
        let mut name = records.file_name().unwrap_or_default().to_owned();
        name.push(".topics");
        let file = catchup::File { path: records.with_file_name(name), every: config.kad.commit_every };
        catchup.save_to(file, peer);
    }
    catchup
}

/// Opens the store that the config names.
fn store(config: &Config, peer: PeerId, runtime: &Handle) -> Result<Store, SpawnError> {
    let settings = &config.kad;
    let limits = Limits {
        records: settings.max_records,
        value: settings.max_value,
        bytes: settings.max_bytes,
        providers: settings.max_providers,
        peers: config.dial.known_peers,
    };
    let config::Store::File(path) = &settings.store else { return Ok(Store::memory(peer, limits)) };
    let (store, warning) = Store::open(path, peer, limits, settings.commit_every, runtime)?;
    if let Some(warning) = warning {
        log::warn!(target: "smidge", "{warning}");
    }
    let held = store.status();
    log::info!(
        target: "smidge",
        "loaded {} records, {} provider entries and {} known peers from {}",
        held.records, held.providers, held.known_peers, held.place
    );
    Ok(store)
}

fn kad_behaviour(config: &Config, peer: PeerId, store: Store, guard: DialGuard) -> table::Behaviour {
    let settings = &config.kad;
    let mut kad_config = kad::Config::new(settings.protocol.clone());
    kad_config
        .set_replication_factor(settings.replication)
        .set_record_ttl(Some(settings.record_ttl))
        .set_provider_record_ttl(Some(settings.record_ttl))
        .set_query_timeout(QUERY_TIMEOUT)
        // The largest record, or all providers of a key with their addresses; beside them a key, and the nodes
        // that are closer to it.
        .set_max_packet_size(settings.max_value + settings.max_providers * 512 + 16 * 1024)
        // Only addresses that identify and the connection agree on are let in, by us.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        // kad bootstraps by itself when the table gets its first peers; the loop does the rest.
        .set_periodic_bootstrap_interval(None);
    let mut kad = kad::Behaviour::with_config(peer, store, kad_config);
    kad.set_mode(Some(match settings.mode {
        KadMode::Server => kad::Mode::Server,
        KadMode::Client => kad::Mode::Client,
    }));
    table::Behaviour::new(kad, guard)
}
