//! What the demo shows when it is over.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

use super::network::Network;

/// The log lines that make up the story, by how they begin.
const STORY: [&str; 15] = [
    "starting",
    "listening on",
    "resolved",
    "dialing",
    "looking for peers",
    "discovered",
    "expired",
    "connected to",
    "disconnected from",
    "added to kademlia",
    "joined mesh",
    "message",
    "published",
    "retrying in",
    "stopping",
];

pub(super) struct Report<'a> {
    network: &'a Network,
    ok: bool,
}

impl<'a> Report<'a> {
    pub(super) fn of(network: &'a Network, ok: bool) -> Self {
        Self { network, ok }
    }

    /// From the moment bootstrap's record existed until the last peer was connected to it.
    fn name_to_connected(&self) -> Option<Duration> {
        let named = self.network.named.iter().find(|(name, _)| *name == "bootstrap")?.1;
        let bootstrap = self.network.bootstrap();
        let last: Option<Vec<_>> =
            self.network.peers().map(|n| self.network.connected(n, bootstrap)).collect();
        last?.into_iter().max().map(|at| at.saturating_sub(named))
    }

    /// Without names: from the last node's start until each was connected to every other one.
    fn found(&self) -> Option<Duration> {
        let nodes = || self.network.nodes();
        let started = nodes().map(|n| self.network.spawned(n)).max().filter(|_| self.network.is_mdns())?;
        let pairs = nodes().flat_map(|n| nodes().filter(move |to| *to != n).map(move |to| (n, to)));
        let last: Option<Vec<_>> = pairs.map(|(n, to)| self.network.connected(n, to)).collect();
        last?.into_iter().max().map(|at| at.saturating_sub(started))
    }

    /// When the last peer, and bootstrap, had the message.
    fn delivered(&self) -> Option<Duration> {
        let nodes = self.network.peers().chain([self.network.bootstrap()]);
        nodes.map(|n| self.first(n, "message ")).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    fn publish_to_delivery(&self) -> Option<Duration> {
        let published = self.first(self.network.sender()?, "published ")?;
        Some(self.delivered()?.saturating_sub(published))
    }

    fn start_to_delivery(&self) -> Option<Duration> {
        Some(self.delivered()?.saturating_sub(self.network.spawned(self.network.sender()?)))
    }

    fn first(&self, node: usize, begins: &str) -> Option<Duration> {
        self.network.lines(node).find(|l| l.message.starts_with(begins)).map(|l| l.at)
    }

    pub(super) fn text(&self) -> String {
        let network = self.network;
        let mut out = String::new();
        let sender = ("SENDER", network.peers().end..network.len());
        let sections = if network.is_mdns() {
            vec![("NODE", network.nodes()), sender]
        } else {
            vec![("BOOTSTRAP", 0..1), ("PEER", network.peers()), sender]
        };
        let width = (0..network.len()).map(|n| network.name(n).len()).max().unwrap_or(0);
        let rule = "=================================";
        for (title, nodes) in sections {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{rule}\n           {title}\n{rule}");
            for node in nodes {
                for line in network.lines(node) {
                    let _ = writeln!(out, "{:width$} | {}", network.name(node), line.text);
                }
            }
            out.push('\n');
        }
        let ms = |d: Option<Duration>| {
            d.map_or_else(|| "?".into(), |d| format!("{:.1} ms", d.as_secs_f64() * 1e3))
        };
        let first = if network.is_mdns() {
            format!("from the last node's start until all were connected {}", ms(self.found()))
        } else {
            format!("from bootstrap's record to the connection {}", ms(self.name_to_connected()))
        };
        let _ = writeln!(
            out,
            "{}: {first}; from the sender's start to delivery {}; \
             from publish to delivery {} (at all {} nodes, once each)",
            if self.ok { "done" } else { "failed" },
            ms(self.start_to_delivery()),
            ms(self.publish_to_delivery()),
            network.peers().len() + 1,
        );
        out
    }

    pub(super) fn json(&self) -> String {
        let network = self.network;
        let ms = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
        let mut events: Vec<(Duration, Value)> = Vec::new();
        for (name, at) in &network.named {
            events.push((*at, json!({ "ms": ms(*at), "node": "names", "event": "record", "line": format!("{name} has its records") })));
        }
        for node in 0..network.len() {
            for line in network.lines(node) {
                if let Some(event) = STORY.iter().find(|s| line.message.starts_with(**s)) {
                    let value = json!({ "ms": ms(line.at), "node": network.name(node), "event": event, "line": line.message });
                    events.push((line.at, value));
                }
            }
        }
        events.sort_by_key(|(at, _)| *at);
        let result = json!({
            "ok": self.ok,
            "peers": network.peers().len(),
            "name_to_connected_ms": self.name_to_connected().map(ms),
            "found_ms": self.found().map(ms),
            "start_to_delivery_ms": self.start_to_delivery().map(ms),
            "publish_to_delivery_ms": self.publish_to_delivery().map(ms),
            "events": events.into_iter().map(|(_, e)| e).collect::<Vec<_>>(),
        });
        format!("{result}\n")
    }
}
