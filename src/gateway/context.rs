//! What all connections of the API share: the node, the bounds, and how much of them is taken.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{
    guard::Guard,
    slots::{Places, Slots},
};
use crate::{
    config::{Api, Config},
    mqtt::Local,
    node::Client,
    runtime::Handle,
};

pub(super) struct Context {
    pub(super) client: Client,
    pub(super) runtime: Handle,
    pub(super) guard: Guard,
    pub(super) api: Api,
    pub(super) max_value: usize,
    /// Whether the node is to listen anywhere.
    pub(super) listens: bool,
    pub(super) connections: Arc<Places>,
    /// Connections beyond those: probes are answered, the others are answered that there are too many.
    pub(super) reserve: Arc<Places>,
    pub(super) streams: Slots,
    pub(super) counters: Counters,
    /// Where the counters can be read.
    pub(super) registry: Registry,
    /// What else is counted in this process.
    pub(super) figures: Option<Arc<Registry>>,
    pub(super) mqtt: Option<Local>,
}

impl Context {
    pub(super) fn new(
        client: Client,
        config: &Config,
        runtime: Handle,
        figures: Option<Arc<Registry>>,
        mqtt: Option<Local>,
    ) -> Self {
        // The token is the guard's alone.
        let api = Api { token: None, ..config.api.clone() };
        let (counters, registry) = Counters::new();
        Self {
            client,
            runtime,
            guard: Guard::new(&api.listen, config.api.token.clone()),
            max_value: config.kad.max_value,
            listens: !config.listen.addresses.is_empty(),
            connections: Places::new(api.connections, UNDISTURBED),
            reserve: Places::new(RESERVE, Duration::ZERO),
            streams: Slots::new(api.streams),
            api,
            counters,
            registry,
            figures,
            mqtt,
        }
    }
}

/// Connections beyond `api.connections` that may ask one thing, how the node is; more are closed without a word.
const RESERVE: usize = 32;
/// How long a connection waits for a request before it gives way to a new one: callers that come in a crowd are all
/// heard. In the reserve nobody is spared, or silent callers would keep probes out.
const UNDISTURBED: Duration = Duration::from_millis(100);

/// What the API counts.
pub(super) struct Counters {
    requests: Family<Vec<(&'static str, String)>, Counter>,
    /// Messages lost to slow readers of event streams.
    pub(super) lost: Counter,
}

impl Counters {
    fn new() -> (Self, Registry) {
        let counters = Self { requests: Family::default(), lost: Counter::default() };
        let mut registry = Registry::with_prefix("smidge_api");
        registry.register("requests", "Requests answered, by status", counters.requests.clone());
        let help = "Messages lost to readers of event streams that were too slow";
        registry.register("stream_messages_lost", help, counters.lost.clone());
        (counters, registry)
    }

    pub(super) fn answered(&self, status: u16) {
        self.requests.get_or_create(&vec![("status", status.to_string())]).inc();
    }
}
