//! What all connections of the API share: the node, the bounds, and how much of them is taken.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::guard::Guard;
use crate::{
    config::{Api, Config},
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
    pub(super) connections: Slots,
    /// Connections that are told that there are too many.
    pub(super) refusals: Slots,
    pub(super) streams: Slots,
    pub(super) counters: Counters,
    /// Where the counters can be read.
    pub(super) registry: Registry,
}

impl Context {
    pub(super) fn new(client: Client, config: &Config, runtime: Handle) -> Self {
        // The token is the guard's alone.
        let api = Api { token: None, ..config.api.clone() };
        let (counters, registry) = Counters::new();
        Self {
            client,
            runtime,
            guard: Guard::new(&api.listen, config.api.token.clone()),
            max_value: config.kad.max_value,
            listens: !config.listen.addresses.is_empty(),
            connections: Slots::new(api.connections),
            refusals: Slots::new(REFUSALS),
            streams: Slots::new(api.streams),
            api,
            counters,
            registry,
        }
    }
}

/// Connections beyond the bound that are told so at once; more are closed without a word.
const REFUSALS: usize = 32;

/// So many at once.
pub(super) struct Slots {
    taken: Arc<AtomicUsize>,
    limit: usize,
}

/// One of them, free again when this is dropped.
pub(super) struct Slot(Arc<AtomicUsize>);

impl Slots {
    fn new(limit: usize) -> Self {
        Self { taken: Arc::default(), limit }
    }

    pub(super) fn take(&self) -> Option<Slot> {
        let more = |taken| (taken < self.limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Slot(self.taken.clone()))
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_and_come_back() {
        let slots = Slots::new(2);
        let one = slots.take().unwrap();
        let _two = slots.take().unwrap();
        assert!(slots.take().is_none());
        drop(one);
        assert!(slots.take().is_some());
        assert_eq!(slots.taken(), 1);
    }
}
