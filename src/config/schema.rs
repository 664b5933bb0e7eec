//! Every key there is, once: its type, how it is written, its bounds, its default, what it means.
//!
//! The macro makes the structs from this table, the list of keys, the defaults of a role and the
//! walk over all values. Nothing here reads a file.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use libp2p::{Multiaddr, StreamProtocol};

use super::{
    enums::{
        ApiListen, Backend, Encoding, KadMode, LogFormat, MessageIds, Role, Secret, Store, TransportKind,
        Validation,
    },
    kind::Size,
    network::{DialAddr, Domain, ExternalAddr, ListenAddr, NameServer, NodeName, ShownName, Topic},
    peer_rule::PeerRule,
    table::sections,
    target::Target,
    topic_rules::{TopicRules, TopicTable},
};
use crate::{logging::Directives, runtime::Executor};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const DAY: u64 = 24 * 3600;

// TYPE as KIND: how it is written, where that is not the type's own way. [live]: applied on
// SIGHUP without a restart. [A..=B]: the bounds. Units are the type's own or in the text.
sections! { role;
    top {
        /// Settings of single topics, by name: which peers may publish, and how the topic is scored.
        topics: BTreeMap<String, TopicRules> as TopicTable [live] = BTreeMap::new();
    }

    /// Who this node is to people.
    node: Naming {
        /// What it calls itself: sent to all its peers, shown beside its id, and trusted for nothing. None: no name.
        name: Option<String> as Option<ShownName> = None;
    }

    /// This node's key.
    identity: Identity {
        /// The file of the Ed25519 key (libp2p protobuf), made on first start with mode 0600.
        key_file: PathBuf = "/var/lib/smidge/key".into();
        /// A new key in memory at each start; `key_file` is not touched.
        ephemeral: bool = false;
        /// A secret, 16 bytes or more, that the key is derived from, with `derive_name`; `key_file` is not
        /// touched.
        derive_secret: Option<Secret> = None;
        /// The name that tells this node's key from the others of the same secret; none: not derived.
        derive_name: Option<String> as Option<NodeName> = None;
    }

    /// Where this node can be reached.
    listen: Listen {
        /// The addresses to listen on; port 0 picks one.
        addresses: Vec<Multiaddr> as Vec<ListenAddr> = vec![
            TransportKind::Quic.at(([0, 0, 0, 0], super::target::DEFAULT_PORT).into()),
        ];
        /// Addresses that lead here from outside, past a NAT or a published port: announced as they stand.
        external: Vec<Multiaddr> as Vec<ExternalAddr> = Vec::new();
    }

    /// The names and addresses that this node stays connected to.
    dial: Dial {
        /// The names (and addresses) to stay connected to: every replica behind each of them.
        names: Vec<Target> [live] = Vec::new();
        /// Addresses to stay connected to, as multiaddrs.
        addresses: Vec<Multiaddr> as Vec<DialAddr> [live] = Vec::new();
        /// The longest pause between two questions for a name that has no record yet.
        lookup_max: Duration [ms(100)..=secs(3600)] = secs(1);
        /// The longest pause between two dials of a record that does not answer.
        retry_max: Duration [ms(100)..=secs(DAY)] = secs(30);
        /// How often a connected name is asked again, to find new replicas.
        refresh: Duration [ms(100)..=secs(DAY)] = secs(5);
        /// How long a departed peer that no name led to is remembered.
        forget: Duration [ms(100)..=secs(DAY)] = secs(60);
        /// How long a record is kept that no name server confirms any more and that does not answer either.
        stale: Duration [secs(1)..=secs(DAY)] = secs(600);
        /// Simultaneous dials.
        parallel: usize [1..=1024] = 64;
        /// A name with as many records, or fewer, is connected in full.
        full: usize [1..=65536] = 32;
        /// Neighbours wanted behind a larger name, those that dialed this node counted in.
        neighbours: usize [2..=1024] = 16;
        /// Connections beyond which others that only larger names lead to are not taken in, but heard of those there are.
        neighbours_max: usize [4..=65536] = 40;
        /// What names are dialed over, in order of preference; none: what this node listens on, QUIC first.
        transports: Vec<TransportKind> = Vec::new();
        /// How long a transport is given before the next one is tried beside it.
        fallback: Duration [ms(10)..=secs(60)] = ms(250);
        /// Peers remembered in the file of `kad.store`, and tried on start beside the names.
        known_peers: usize [0..=4096] = 64;
    }

    /// Publish and subscribe: gossipsub.
    gossip: Gossip {
        /// The topics subscribed to on start.
        topics: Vec<String> as Vec<Topic> [live] = Vec::new();
        /// Mesh members wanted for each topic (D).
        mesh_n: usize [1..=1024] = 6;
        /// Fewer mesh members than this and more are grafted (D_low).
        mesh_n_low: usize [1..=1024] = 4;
        /// More mesh members than this and some are pruned (D_high).
        mesh_n_high: usize [1..=1024] = 12;
        /// Mesh members that must be connections we opened (D_out).
        mesh_outbound_min: usize [0..=512] = 2;
        /// How often meshes are mended.
        heartbeat: Duration [ms(50)..=secs(60)] = ms(700);
        /// What identifies a message.
        message_id: MessageIds = MessageIds::Source;
        /// Which messages are let in.
        validation: Validation = Validation::Strict;
        /// Own messages go to every subscriber known, not to the mesh only.
        flood_publish: bool = true;
        /// Peers are scored, and bad ones left out.
        scoring: bool = true;
        /// Peers with one address, as behind one NAT, before that costs them score.
        colocated: usize [1..=65536] = 64;
        /// The largest payload of a message, in bytes.
        max_message: usize as Size [128..=16 << 20] = 63 << 10;
        /// Nodes that speak only floodsub are served, too.
        floodsub: bool = false;
        /// Ids of messages remembered for a minute, so that each is delivered once; the oldest make room. 0: what fits
        /// in a sixteenth of `limits.memory`, 1,048,576 at most.
        seen_ids: usize [0..=1 << 28] = 0;
        /// Bytes of messages kept for peers that ask for them; the oldest make room. 0B: 1/32 of `limits.memory`, 8 MiB
        /// at most.
        history: usize as Size [0..=1 << 34] = 0;
        /// Bytes that wait for one peer; what others said makes room, the oldest first. 0B: 1/64 of `limits.memory`,
        /// 1 MiB at most. The largest message fits in any case.
        queue: usize as Size [0..=1 << 34] = 0;
        /// Bytes that wait for all peers; whoever has the most waiting makes room. 0B: an eighth of `limits.memory`,
        /// 64 MiB at most.
        queues: usize as Size [0..=1 << 34] = 0;
        /// Bytes of messages whose signature is not checked yet. 0B: 1/32 of `limits.memory`, 8 MiB at most.
        unverified: usize as Size [0..=1 << 34] = 0;
        /// Bytes of topics that peers follow and this node does not, half of it for names, half for 512 bytes that each
        /// costs; the peer with the most makes room. 0B: 1/32 of `limits.memory`, 8 MiB at most.
        foreign_topics: usize as Size [0..=1 << 34] = 0;
    }

    /// The hash table: Kademlia.
    kad: Kad {
        /// The protocol's name: only nodes with the same one share a table.
        protocol: StreamProtocol = StreamProtocol::new("/smidge/kad/1.0.0");
        /// Whether this node answers for the table.
        mode: KadMode = KadMode::Server;
        /// Nodes that hold each record.
        replication: NonZeroUsize [NonZeroUsize::MIN..=at_most_20()] = at_most_20();
        /// How long a record lives.
        record_ttl: Duration [secs(1)..=secs(3650 * DAY)] = secs(36 * 3600);
        /// Where records are kept.
        store: Store = Store::Memory;
        /// Records kept at most.
        max_records: usize [1..] = 1024;
        /// The largest value of a record, in bytes.
        max_value: usize as Size [1..=1 << 20] = 64 << 10;
        /// Bytes of all records and provider entries at most, each with 128 for itself.
        max_bytes: usize as Size [64 << 10..=1 << 30] = 16 << 20;
        /// Providers kept of one key at most.
        max_providers: usize [1..=1024] = 20;
        /// The shortest time between two commits to the disk; what comes meanwhile shares the next.
        commit_every: Duration [secs(0)..=secs(10)] = ms(50);
    }

    /// What this node says by itself.
    publish: Publish {
        /// The topic; none: nothing is published.
        topic: Option<String> as Option<Topic> = sender(role).then(|| "some_topic".into());
        /// The message, written as `encoding` says.
        data: String = if sender(role) { "1,2,3,4".into() } else { String::new() };
        /// How `data` stands for bytes.
        encoding: Encoding = Encoding::Bytes;
        /// How often; 0s: once, on start.
        every: Duration = secs(0);
        /// Peers that follow the topic, waited for before the first message.
        wait_peers: usize [0..=65536] = 1;
        /// How long they are waited for.
        wait_timeout: Duration [secs(0)..=secs(DAY)] = secs(60);
    }

    /// The HTTP API.
    api: Api {
        /// Where it listens.
        listen: ApiListen = ApiListen::Tcp(([127, 0, 0, 1], 4080).into());
        /// What a caller shows as `Authorization: Bearer …`; needed where `listen` is not loopback.
        token: Option<Secret> = None;
        /// Simultaneous connections.
        connections: usize [1..=65536] = 128;
        /// Simultaneous event streams; each is one of `limits.subscriptions`, too.
        streams: usize [1..=65536] = 64;
        /// The largest body of a request, in bytes.
        max_body: usize as Size [1..=16 << 20] = 128 << 10;
        /// The largest head of a request (its first line and its headers), in bytes.
        max_header: usize as Size [1 << 10..=1 << 20] = 16 << 10;
        /// How long a connection has for the head of a request, and may be idle between two.
        header_timeout: Duration [ms(10)..=secs(3600)] = secs(10);
        /// How long a request's body may take.
        body_timeout: Duration [ms(10)..=secs(3600)] = secs(30);
        /// How long a reader may take nothing of what is written to it.
        write_timeout: Duration [ms(10)..=secs(3600)] = secs(60);
        /// How often a silent event stream says that it is alive.
        keep_alive: Duration [ms(10)..=secs(3600)] = secs(15);
    }

    /// Peers on the local network, found by multicast DNS.
    mdns: Mdns {
        /// Whether they are looked for, and this node is announced.
        enabled: bool = false;
        /// The only interfaces to look on, by name; none: all that carry multicast.
        interfaces: Vec<String> = Vec::new();
        /// The longest pause between two queries.
        query_interval: Duration [secs(1)..=secs(DAY)] = secs(300);
        /// How long others may believe what this node says of itself without hearing it again.
        ttl: Duration [secs(2)..=secs(DAY)] = secs(360);
        /// Most peers that it knows simultaneously.
        max_peers: usize [1..=65536] = 256;
    }

    /// MQTT clients.
    mqtt: Mqtt {
        /// Where they are taken.
        listen: ApiListen = ApiListen::Off;
        /// Where they are taken over WebSocket.
        websocket: ApiListen = ApiListen::Off;
        /// Origins of web pages that may come there, beside pages of the address itself; `*`: all.
        origins: Vec<String> = Vec::new();
        /// The file of the certificates that both TCP listeners show, their own first (PEM); none: without TLS.
        tls_cert: Option<PathBuf> = None;
        /// The file of its private key (PEM).
        tls_key: Option<PathBuf> = None;
        /// The file of the authorities (PEM) of which a client has to show a certificate; none: it need not.
        tls_ca: Option<PathBuf> = None;
        /// The gossip topic that carries what they say to the other nodes with MQTT.
        topic: String as Topic = "mqtt".into();
        /// Gossip topics that are MQTT topics of the same name, payloads as they are.
        plain: Vec<String> as Vec<Topic> = Vec::new();
        /// The file of users and passwords, as mosquitto_passwd writes it; none: nobody is asked for one.
        users: Option<PathBuf> = None;
        /// The file of who may publish and hear what, in the form of mosquitto's acl_file; none: all may all.
        acl: Option<PathBuf> = None;
        /// Whether clients without a user name are taken where there are users, or where others reach the listener.
        anonymous: bool = false;
        /// Simultaneous connections.
        connections: usize [1..=65536] = 1024;
        /// Sessions, of clients that are away included.
        sessions: usize [1..=1 << 20] = 2048;
        /// Subscriptions of one client.
        subscriptions: usize [1..=65536] = 256;
        /// Messages at QoS 1 and 2 on their way to one client.
        inflight: usize [1..=1000] = 100;
        /// Messages at QoS 2 on their way from one client.
        receive_maximum: usize [1..=65535] = 100;
        /// Messages at QoS 1 and 2 that wait for one client beyond those.
        queue_messages: usize [0..=1 << 20] = 1000;
        /// Bytes that wait for one client.
        queue: usize as Size [4 << 10..=1 << 30] = 1 << 20;
        /// Bytes that wait for all clients. 0B: an eighth of `limits.memory`, 64 MiB at most.
        queues: usize as Size [0..=1 << 34] = 0;
        /// Retained messages.
        retained_messages: usize [1..=1 << 24] = 10_000;
        /// Their bytes. 0B: an eighth of `limits.memory`, 64 MiB at most.
        retained: usize as Size [0..=1 << 34] = 0;
        /// Other nodes that have to confirm that they keep a message at QoS 1 and 2 before it is acknowledged; 0: none.
        confirm: usize [0..=64] = 0;
        /// How long they have to.
        confirm_timeout: Duration [ms(100)..=secs(60)] = secs(10);
        /// Whether retained messages and sessions are on disk, too, beside the file of `kad.store`.
        durable: bool = false;
        /// The largest packet of a client, in bytes.
        max_packet: usize as Size [256..=16 << 20] = 62 << 10;
        /// How long a session is kept after its client went, at most.
        session_expiry: Duration [secs(0)..=secs(3650 * DAY)] = secs(DAY);
        /// How long a connection has for its first packet.
        connect_timeout: Duration [ms(100)..=secs(300)] = secs(10);
        /// How long a client may take nothing of what is written to it.
        write_timeout: Duration [ms(100)..=secs(3600)] = secs(60);
        /// The longest keep-alive of MQTT 5 clients; 0s: any, and none.
        keep_alive: Duration [secs(0)..=secs(65535)] = secs(0);
    }

    /// Bounds.
    limits: Limits {
        /// Connections.
        connections: usize [1..=65536] = 512;
        /// Of these, those that strangers opened; the rest is kept for the peers behind names, known peers, and own
        /// dials. 0: three quarters.
        inbound: usize [0..=65536] = 0;
        /// Of these, those from one address, of IPv6 from one /64; 0: half.
        per_address: usize [0..=65536] = 0;
        /// Connections with one peer.
        per_peer: usize [1..=64] = 2;
        /// Connections being set up, each way.
        pending: usize [1..=65536] = 64;
        /// Streams a remote may hold open on one connection.
        streams: usize [8..=65536] = 256;
        /// Memory of the process, in bytes, above which no new connection is taken.
        memory: usize as Size [8 << 20..] = 64 << 20;
        /// Commands waiting for the event loop.
        commands: usize [1..=65536] = 64;
        /// Messages or events waiting for one subscriber; a slow one loses its oldest.
        events: usize [1..=1 << 20] = 8192;
        /// Their bytes, of a topic's subscribers together. 0B: 1/32 of `memory`, 8 MiB at most. The newest one is kept in
        /// any case.
        backlog: usize as Size [0..=1 << 34] = 0;
        /// Bytes of messages waiting for all subscribers; the topic with the most makes room. 0B: a sixteenth of `memory`,
        /// 64 MiB at most.
        backlogs: usize as Size [0..=1 << 34] = 0;
        /// Bytes of remembered messages of all topics with `keep`, 80 for each beside its own; the topic with the most lets
        /// go. 0B: an eighth of `memory`, 64 MiB at most.
        kept: usize as Size [0..=1 << 34] = 0;
        /// Simultaneously open event streams.
        subscriptions: usize [1..=65536] = 64;
        /// Topics that this node may follow, and any one peer.
        topics: usize [1..=1 << 20] = 1024;
        /// Records taken of one name, and names dialed simultaneously.
        records: usize [1..=65536] = 4096;
    }

    /// What is logged.
    log: Log {
        /// How lines look.
        format: LogFormat = LogFormat::Text;
        /// Levels as in RUST_LOG, which wins.
        level: Directives [live] = Directives::default();
        /// Bytes of log lines that may wait to be written; further lines are dropped and counted.
        buffer: usize as Size [4 << 10..=64 << 20] = 256 << 10;
    }

    /// A private mesh.
    network: Network {
        /// The file of the network's keys: a peer that does not know one of them is not admitted; none: plain libp2p.
        key_file: Option<PathBuf> = None;
        /// How long both ends have to prove that they know a key, after the handshake.
        timeout: Duration [ms(100)..=secs(300)] = secs(5);
        /// Connections from one address that may fail to prove it before the next ones are refused immediately.
        failures: usize [1..=65536] = 16;
    }

    /// Connections through a relay (circuit relay v2).
    relay: Relay {
        /// The relays at which this node can be reached, by name or address: it stays connected to all of
        /// them, and has a slot reserved at each.
        through: Vec<Target> = Vec::new();
        /// Peers behind a relay are dialed through it, even where this node has no slot itself.
        client: bool = false;
        /// This node is a relay for others.
        server: bool = false;
        /// Slots of the relay, one for each node that can be reached through it.
        reservations: usize [1..=65536] = 128;
        /// Slots of one peer.
        reservations_per_peer: usize [1..=1024] = 4;
        /// How long a slot is held without being asked for again.
        reservation_duration: Duration [secs(10)..=secs(DAY)] = secs(3600);
        /// Relayed connections through the relay.
        circuits: usize [1..=65536] = 64;
        /// Relayed connections that one peer may have opened.
        circuits_per_peer: usize [1..=1024] = 16;
        /// How long a relayed connection may stand, 1s and more; 0s: no limit.
        circuit_duration: Duration [secs(0)..=secs(30 * DAY)] = secs(3600);
        /// Bytes that a relayed connection may carry, of both directions; 0B: no limit.
        circuit_bytes: usize as Size [0..] = 64 << 20;
        /// Slots, and relayed connections, that one peer or one address may ask for in a minute.
        requests: usize [1..=65536] = 60;
    }

    /// What is done about NATs.
    nat: Nat {
        /// Where two peers are connected through a relay, they try to connect directly (DCUtR).
        punch: bool = false;
        /// Others are asked whether the addresses that they see this node at lead back to it (AutoNAT v2); those
        /// that do are announced.
        probe: bool = false;
        /// Peers that ask are dialed back, and learn whether they could be reached (AutoNAT v2).
        answer: bool = false;
    }

    /// Which peers are admitted.
    peers: Peers {
        /// The only ones let in, by peer id or address; none: all.
        allow: Vec<PeerRule> [live] = Vec::new();
        /// Those that are neither dialed nor let in, by peer id or address; wins over `allow`.
        deny: Vec<PeerRule> [live] = Vec::new();
    }

    /// How names are resolved.
    dns: Dns {
        /// Name servers; none: those of `resolv_conf`.
        servers: Vec<SocketAddr> as Vec<NameServer> = Vec::new();
        /// Search domains; none: those of `resolv_conf`.
        search: Vec<String> as Vec<Domain> = Vec::new();
        /// Dots that let a name be tried as it stands first; none: as `resolv_conf` says.
        ndots: Option<u8> = None;
        /// How long one question waits for its answer.
        timeout: Duration [ms(10)..=secs(60)] = secs(2);
        /// How often one server is asked before the next.
        attempts: usize [1..=10] = 2;
        /// The file of names known without asking; a missing one is empty; none: not read.
        hosts: Option<PathBuf> = Some("/etc/hosts".into());
        /// The system's resolver file; a missing one is empty; none: not read.
        resolv_conf: Option<PathBuf> = Some("/etc/resolv.conf".into());
        /// Which resolver is asked.
        backend: Backend = Backend::default();
    }

    /// What runs the node.
    runtime: Runtime {
        /// The executor.
        executor: Executor = Executor::default();
        /// Threads of the executor.
        threads: usize [1..=256] = 1;
    }

    /// The QUIC transport.
    quic: Quic {
        /// How long a handshake may take.
        handshake_timeout: Duration [ms(100)..=secs(300)] = secs(5);
        /// How often a silent connection is kept alive.
        keep_alive: Duration [ms(100)..=secs(3600)] = ms(2500);
        /// How long a connection may be silent before it is lost; a dead peer is noticed within this
        /// and `keep_alive` together.
        idle_timeout: Duration [ms(200)..=secs(DAY)] = ms(6500);
        /// Bytes of one stream received ahead of their reader.
        stream_window: usize as Size [4 << 10..=1 << 30] = 512 << 10;
        /// Bytes of one connection received ahead of their readers.
        connection_window: usize as Size [4 << 10..=1 << 30] = 2 << 20;
        /// Bytes of one connection sent and not acknowledged.
        send_window: usize as Size [4 << 10..=1 << 30] = 2 << 20;
        /// Bytes asked of the kernel for each of a socket's two queues; 0B: its own default.
        socket_buffer: usize as Size [0..=1 << 30] = 1 << 20;
        /// Bytes of UDP payload every path is taken to carry.
        initial_mtu: u16 [1200..=65527] = 1200;
        /// Bytes of UDP payload up to which larger ones are probed for.
        max_mtu: u16 [1200..=65527] = 1452;
        /// Whether larger ones are probed for at all.
        mtu_discovery: bool = true;
    }

    /// The TCP transport, with Noise and Yamux.
    tcp: Tcp {
        /// How long a connection may take to be made.
        handshake_timeout: Duration [ms(100)..=secs(300)] = secs(5);
        /// How often a silent connection is probed.
        keep_alive: Duration [secs(1)..=secs(3600)] = secs(2);
        /// How long nothing may be acknowledged before the connection is lost; a dead peer is noticed
        /// within this and `keep_alive` together.
        idle_timeout: Duration [secs(2)..=secs(DAY)] = secs(8);
        /// Connections that wait in the kernel to be accepted.
        backlog: usize [1..=65535] = 1024;
        /// Incoming connections that are not made yet; one more, and the oldest of them is cut. Half of
        /// `limits.pending` at most.
        half_made: usize [1..=65536] = 32;
    }
}

fn sender(role: Role) -> bool {
    role == Role::Sender
}

/// Kademlia's k: replicas beyond it would never be asked.
const fn at_most_20() -> NonZeroUsize {
    match NonZeroUsize::new(20) {
        Some(k) => k,
        None => NonZeroUsize::MIN,
    }
}
