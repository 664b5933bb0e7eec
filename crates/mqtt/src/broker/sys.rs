//! `$SYS/broker/…`: what dashboards read, under the names that mosquitto gives it.
//!
//! Retained at QoS 0, every ten seconds while somebody is connected, and only what has changed.

use std::time::{Duration, Instant};

use super::Broker;
use crate::message::{Message, Qos};

/// How often figures are looked at.
const EVERY: Duration = Duration::from_secs(10);

/// Figures, of which those of the last time are kept.
pub(super) const COUNT: usize = 9;

impl Broker {
    /// A client came: there is somebody to say figures to.
    pub(super) fn begin_figures(&mut self, now: Instant) {
        self.figures_at.get_or_insert(now);
    }

    pub(super) fn say_figures(&mut self, now: Instant) {
        if self.figures_at.is_none_or(|at| at > now) {
            return;
        }
        self.figures_at = now.checked_add(EVERY).filter(|_| !self.connections.is_empty());
        let stats = self.stats();
        let connected = self.sessions.iter().filter(|(_, session)| session.connection.is_some()).count();
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let figures: [(&str, u64); COUNT] = [
            ("uptime", now.saturating_duration_since(self.begun).as_secs()),
            ("clients/connected", number(connected)),
            ("clients/disconnected", number(stats.sessions - connected)),
            ("clients/total", number(stats.sessions)),
            ("subscriptions/count", number(stats.subscriptions)),
            ("publish/messages/received", stats.received),
            ("publish/messages/sent", stats.sent),
            ("publish/messages/dropped", stats.dropped_slow + stats.dropped_full + stats.dropped_large),
            ("retained messages/count", number(stats.retained)),
        ];
        for (n, (name, value)) in figures.into_iter().enumerate() {
            if self.figures[n].replace(value) == Some(value) {
                continue;
            }
            let said = if n == 0 { format!("{value} seconds") } else { value.to_string() };
            // The names are topics.
            if let Ok(message) = Message::new(&format!("$SYS/broker/{name}"), said, Qos::AtMostOnce, true) {
                self.inject(message, now);
            }
        }
    }
}
