//! The topics that MQTT keeps for itself: rules that follow from `[mqtt]`, so that nobody has to write them.

use std::time::Duration;

use super::{Config, Latest, TopicRules};

/// Retained messages by topic.
pub(crate) const RETAINED: &str = "retained";
/// Clients, their sessions and wills by client id.
pub(crate) const CLIENTS: &str = "clients";
/// What nodes with MQTT say of themselves; nothing of it is kept.
pub(crate) const NODES: &str = "nodes";

/// How long it is remembered that a client went: one that comes back with an old node is looked at by that node.
const CLIENT_MARKS: Duration = Duration::from_secs(3600);

impl Config {
    /// With the rules of MQTT's own topics, where MQTT is on. What the file says of them stands; who may publish and read
    /// is as for `mqtt.topic`.
    pub(crate) fn with_mqtt_topics(mut self) -> Self {
        let mqtt = &self.mqtt;
        if !mqtt.is_on() {
            return self;
        }
        let carrier = self.topics.get(&mqtt.topic).cloned().unwrap_or_default();
        let retained = match mqtt.retained {
            0 => (self.limits.memory / 8).min(64 << 20),
            bytes => bytes,
        };
        let keys = |wanted: usize| wanted.clamp(16, 1 << 20);
        let latest = |keys: usize, bytes: usize, marks| Latest {
            keys,
            bytes: bytes.saturating_add(keys.saturating_mul(512)).min(1 << 30),
            marks,
            durable: mqtt.durable,
        };
        let marks = Latest::default().marks;
        let own = [
            // Deleted ones take places, too.
            (RETAINED, Some(latest(keys(2 * mqtt.retained_messages), retained, marks))),
            (CLIENTS, Some(latest(keys(8 * mqtt.sessions), 16 << 20, CLIENT_MARKS))),
            (NODES, None),
        ];
        for (name, latest) in own {
            let TopicRules { publish, read, score, .. } = carrier.clone();
            let rules = TopicRules { publish, read, score, latest, ..TopicRules::default() };
            self.topics.entry(format!("{}/{name}", mqtt.topic)).or_insert(rules);
        }
        self
    }
}
