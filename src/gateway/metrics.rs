//! `GET /metrics`: OpenMetrics text (version 1.0.0), made when it is asked for.
//!
//! The node's counters are read as they are; what can be asked (peers, names, meshes) is asked, so
//! that nothing is shown that is not there any more.

use std::{collections::BTreeMap, time::Duration};

use futures::channel::oneshot;
use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    metrics::{
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::{Registry, Unit},
};

use super::{
    answer::{Answer, Refusal},
    context::Context,
    process::Process,
};
use crate::{dialer::RecordState, logging, mdns, store::StoreStatus};

/// The media type of OpenMetrics.
const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

pub(super) async fn answer(context: &Context) -> Result<Answer, Refusal> {
    let mut now = Registry::default();
    node(&mut now, context).await?;
    executor(&mut now, context).await;
    process(&mut now, Process::now());
    let mut text = String::new();
    let encoded = encode_registry(&mut text, context.client.metrics())
        .and_then(|()| encode_registry(&mut text, &context.registry))
        .and_then(|()| context.figures.iter().try_for_each(|more| encode_registry(&mut text, more)))
        .and_then(|()| encode_registry(&mut text, &now))
        .and_then(|()| encode_eof(&mut text));
    match encoded {
        Ok(()) => Ok(Answer::new(KIND, text.into_bytes())),
        Err(_) => {
            Err(Refusal::new(500, "the metrics cannot be written", "this is an error of smidge: report it"))
        }
    }
}

/// How the node stands at this moment.
async fn node(registry: &mut Registry, context: &Context) -> Result<(), Refusal> {
    let client = &context.client;
    let asked = context.runtime.now();
    let status = client.status().await?;
    let delay = context.runtime.now().saturating_duration_since(asked);
    let names = client.names().await?;
    let (meshes, peers) = (client.mesh().await?, client.peers().await?);
    let own = registry.sub_registry_with_prefix("smidge");
    let build = [("version", status.version), ("os", std::env::consts::OS), ("arch", std::env::consts::ARCH)];
    own.register("build", "The version that runs, and on what", Info::new(build.to_vec()));
    let who = vec![("peer", status.peer), ("role", status.role.to_string())];
    own.register("node", "Who this node is", Info::new(who));
    let help = "How long the event loop took to answer, tried when this was asked for";
    own.register_with_unit("loop_delay", help, Unit::Seconds, seconds(delay));
    own.register_with_unit(
        "uptime",
        "How long the node has been running",
        Unit::Seconds,
        gauge(status.uptime_s),
    );
    own.register("peers", "Connected peers", gauge(status.peers as u64));
    let help = "Connected peers that speak gossip and whose gossip is off";
    own.register("gossip_off", help, gauge(status.gossip_off as u64));
    let connections = peers.iter().map(|p| p.connections.len() as u64).sum();
    own.register("connections", "Connections with peers", gauge(connections));
    own.register("table_peers", "Peers in the routing table", gauge(status.table as u64));
    own.register("dht_records", "Records kept for the hash table", gauge(status.records as u64));
    own.register(
        "state_keys",
        "Keys that have a value, of topics with keep = \"latest\"",
        gauge(status.state.keys as u64),
    );
    let help = "What is kept of values by key, deleted ones included, as it counts against limits.kept";
    own.register_with_unit("state", help, Unit::Bytes, gauge(status.state.bytes as u64));
    store(own, &status.store);
    let help = "Addresses where this node's own key answers and should not";
    own.register("same_key", help, gauge(status.same_key.len() as u64));
    let help = "Addresses of listen.addresses that cannot be listened on now";
    own.register("listeners_missing", help, gauge(status.not_listening.len() as u64));
    own.register("topics", "Topics followed", gauge(status.topics.len() as u64));

    let mesh = family(meshes.into_iter().map(|(topic, peers)| (vec![("topic", topic)], peers.len())));
    own.register("mesh_peers", "Peers in the mesh of a topic", mesh);
    let mut followers: BTreeMap<Labels, usize> =
        status.topics.iter().map(|topic| (vec![("topic", topic.clone())], 0)).collect();
    for topic in peers.iter().flat_map(|peer| &peer.topics) {
        *followers.entry(vec![("topic", topic.clone())]).or_default() += 1;
    }
    own.register("topic_peers", "Peers that follow a topic, in its mesh or not", family(followers));
    let configured = names.iter().filter(|name| name.name != mdns::NAME).count();
    own.register("names", "Names to stay connected to", gauge(configured as u64));
    let mut states: BTreeMap<Labels, usize> = BTreeMap::new();
    for name in &names {
        for state in ["waiting", "dialing", "connected", "own", "spare"] {
            states.insert(vec![("name", name.name.clone()), ("state", state.into())], 0);
        }
        for record in &name.records {
            let state = match record.state {
                RecordState::Waiting { .. } => "waiting",
                RecordState::Dialing => "dialing",
                RecordState::Connected => "connected",
                RecordState::Own => "own",
                RecordState::Spare => "spare",
            };
            *states.entry(vec![("name", name.name.clone()), ("state", state.into())]).or_default() += 1;
        }
    }
    own.register("name_records", "Records of a name, by how they stand", family(states));
    let help = "Log lines dropped, because nobody took them as fast as they came";
    own.register("log_lines_dropped", help, ConstCounter::new(logging::dropped()));
    own.register("api_connections", "Connections of the HTTP API", gauge(context.connections.taken() as u64));
    own.register("api_streams", "Event streams of the HTTP API", gauge(context.streams.taken() as u64));
    Ok(())
}

/// What is kept, and how the disk takes it.
fn store(own: &mut Registry, store: &StoreStatus) {
    own.register("dht_providers", "Provider entries kept", gauge(store.providers as u64));
    own.register("known_peers", "Peers remembered for the next start", gauge(store.known_peers as u64));
    let help = "Records and provider entries, as they count against kad.max_bytes";
    own.register_with_unit("dht_stored", help, Unit::Bytes, gauge(store.bytes as u64));
    let help = "Records and provider entries refused: too large, too many, or no room on the disk";
    own.register("dht_refused", help, ConstCounter::new(store.refused));
    let help = "Records and provider entries that gave way to others before they expired";
    own.register("dht_displaced", help, ConstCounter::new(store.displaced));
    let Some(file) = &store.file else { return };
    own.register_with_unit("store_file", "Length of the file of kad.store", Unit::Bytes, gauge(file.bytes));
    own.register("store_unsynced", "Changes that are not on the disk yet", gauge(file.unsynced as u64));
    own.register("store_commits", "Commits to the disk", ConstCounter::new(file.commits));
    own.register("store_changes", "Changes committed to the disk", ConstCounter::new(file.changes));
    own.register("store_failures", "Commits to the disk that failed", ConstCounter::new(file.failures));
    let failing = u64::from(file.last_error.is_some());
    own.register("store_failing", "1 while the disk takes nothing, else 0", gauge(failing));
}

/// How the executor stands at this moment.
async fn executor(registry: &mut Registry, context: &Context) {
    let runtime = &context.runtime;
    let own = registry.sub_registry_with_prefix("smidge_executor");
    let (started, ended) = runtime.tasks();
    own.register("tasks", "Tasks that run or wait", gauge(started - ended));
    own.register("tasks_started", "Tasks started so far", ConstCounter::new(started));
    let (turn, came) = oneshot::channel();
    let asked = runtime.now();
    runtime.spawn(async move {
        // The receiver is gone when the caller is.
        let _ = turn.send(());
    });
    // An error says that the executor has ended; then this is not read.
    let _ = came.await;
    let delay = runtime.now().saturating_duration_since(asked);
    let help = "How long a new task waited for its turn, tried when this was asked for";
    own.register_with_unit("delay", help, Unit::Seconds, seconds(delay));
}

/// What the kernel says, under the names that dashboards know.
fn process(registry: &mut Registry, process: Process) {
    let own = registry.sub_registry_with_prefix("process");
    let Process { resident, virtual_size, threads, descriptors, max_descriptors, cpu } = process;
    if let Some(bytes) = resident {
        own.register_with_unit("resident_memory", "Resident memory", Unit::Bytes, gauge(bytes));
    }
    if let Some(bytes) = virtual_size {
        own.register_with_unit("virtual_memory", "Virtual memory", Unit::Bytes, gauge(bytes));
    }
    if let Some(threads) = threads {
        own.register("threads", "Threads", gauge(threads));
    }
    if let Some(descriptors) = descriptors {
        own.register("open_fds", "Open file descriptors", gauge(descriptors));
    }
    if let Some(descriptors) = max_descriptors {
        own.register("max_fds", "File descriptors that it may open", gauge(descriptors));
    }
    let cpu: ConstCounter<f64> = ConstCounter::new(Duration::as_secs_f64(&cpu));
    own.register_with_unit("cpu", "Time on a processor, in user and kernel mode", Unit::Seconds, cpu);
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

fn seconds(value: Duration) -> ConstGauge<f64> {
    ConstGauge::new(value.as_secs_f64())
}

fn family(values: impl IntoIterator<Item = (Labels, usize)>) -> Family<Labels, Gauge> {
    let family = Family::<Labels, Gauge>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    family
}
