//! What `/metrics` says of MQTT, read when it is asked for.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::shared::Shared;

struct Figures {
    shared: Arc<Shared>,
    refused: Arc<AtomicU64>,
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

pub(super) fn registry(shared: &Arc<Shared>, refused: &Arc<AtomicU64>) -> Arc<Registry> {
    let mut registry = Registry::with_prefix("smidge_mqtt");
    registry.register_collector(Box::new(Figures { shared: shared.clone(), refused: refused.clone() }));
    Arc::new(registry)
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.shared.state().broker.stats();
        let clients = [
            ("connections", "MQTT connections", stats.connections),
            ("sessions", "MQTT sessions, of clients that are away included", stats.sessions),
            ("subscriptions", "MQTT subscriptions", stats.subscriptions),
            ("retained", "Retained MQTT messages", stats.retained),
            ("retained_bytes", "Bytes of retained MQTT messages", stats.retained_bytes),
            ("nodes", "Other nodes with MQTT that are there", stats.others),
            ("queued_bytes", "Bytes that wait for MQTT clients", stats.queued_bytes),
        ];
        for (name, help, value) in clients {
            let gauge = ConstGauge::new(value as u64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let counters = [
            ("received", "Messages of MQTT clients", stats.received),
            ("sent", "Messages to MQTT clients", stats.sent),
            ("from_mesh", "MQTT messages of other nodes", stats.from_mesh),
            ("dropped_slow", "Messages at QoS 0 that MQTT clients were too slow for", stats.dropped_slow),
            ("dropped_full", "Messages at QoS 1 and 2 beyond an MQTT client's queue", stats.dropped_full),
            ("dropped_large", "Messages larger than an MQTT client takes", stats.dropped_large),
            ("refused", "MQTT messages that were not taken, or not retained", stats.refused),
            (
                "not_confirmed",
                "MQTT messages that too few other nodes confirmed in time",
                stats.not_confirmed,
            ),
            ("taken_over", "MQTT clients that connected to another node meanwhile", stats.taken_over),
            ("roamed", "MQTT sessions that came from another node", stats.roamed),
            ("wills_of_others", "Wills of MQTT clients whose node was gone", stats.wills_of_others),
            ("faults", "MQTT connections closed for what they sent", stats.faults),
            (
                "not_admitted",
                "Connections that ended in TLS or WebSocket, before MQTT",
                self.refused.load(Ordering::Relaxed),
            ),
            (
                "not_carried",
                "MQTT messages that other nodes did not get",
                self.shared.not_carried.load(Ordering::Relaxed),
            ),
            (
                "not_heard",
                "MQTT messages of other nodes that were lost here, or are none",
                self.shared.not_heard.load(Ordering::Relaxed),
            ),
            (
                "not_kept",
                "Retained MQTT messages and sessions that this node could not have all nodes keep",
                self.shared.not_kept.load(Ordering::Relaxed),
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}
