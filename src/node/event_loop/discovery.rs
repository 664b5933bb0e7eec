//! Carries out what [`TopicDiscovery`](crate::node::topic_discovery::TopicDiscovery) wants, where not every record is a neighbour.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{PeerId, kad::RecordKey};

use super::EventLoop;
use crate::node::{
    pending_publishes::There,
    queries::{Lookup, Query},
    topic_discovery::{Act, Lack, key},
};

/// How often it is looked whether a topic lacks anybody.
const EVERY: Duration = Duration::from_secs(1);
/// Keys of a private mesh that topics are looked for under: while they change, there are two.
const SECRETS: usize = 2;

impl EventLoop {
    /// Looks for the subscribers of topics that lack them.
    pub(super) fn discover(&mut self, now: Instant) {
        if !self.swarm.behaviour().dialer.is_sparse() || self.drain.is_some() {
            self.discover_at = None;
            return;
        }
        self.discover_at = Some(now + EVERY);
        let lacking = self.lacking();
        self.discovery.lacking(&lacking, now);
        while let Some(act) = self.discovery.next(now) {
            match act {
                Act::Look(topic) => self.look_for(topic, now),
                Act::Announce(topic) => self.announce(topic),
            }
        }
    }

    pub(super) fn discovery_deadline(&mut self) -> Option<Instant> {
        if self.discover_at.is_none() && self.swarm.behaviour().dialer.is_sparse() {
            self.discover_at = Some(self.runtime.now() + EVERY);
        }
        self.discover_at.into_iter().chain(self.discovery.deadline()).min().filter(|_| self.drain.is_none())
    }

    fn lacking(&self) -> BTreeMap<String, Lack> {
        let core = self.swarm.behaviour().gossip.core();
        let enough = self.config.gossip.mesh_n_low;
        let followed = core.followed().filter(|topic| core.mesh(topic).len() < enough);
        let mut lacking: BTreeMap<_, _> = followed.map(|topic| (topic.to_string(), Lack::Members)).collect();
        let there =
            |topic: &str| There { peers: core.subscriber_count(topic), here: self.topics.hearers(topic) };
        // Who follows the topic, too, announces itself as well.
        for topic in self.pending_publishes.unheard(there) {
            lacking.entry(topic.to_owned()).or_insert(Lack::Subscribers);
        }
        lacking
    }

    fn topic_keys(&self, topic: &str) -> Vec<RecordKey> {
        let keys: Vec<_> = match &self.keyring {
            None => vec![key(topic, None)],
            Some(keyring) => keyring
                .derive(b"topics")
                .iter()
                .take(SECRETS)
                .map(|secret| key(topic, Some(secret)))
                .collect(),
        };
        keys.into_iter().map(RecordKey::from).collect()
    }

    fn look_for(&mut self, topic: String, now: Instant) {
        let keys = self.topic_keys(&topic);
        let kad = &mut self.swarm.behaviour_mut().kad;
        for key in keys {
            let id = kad.get_providers(key);
            self.queries.insert(id, Query::Topic { topic: topic.clone(), lookup: Lookup::Subscribers });
        }
        if !self.queries.looks_for(&topic, Lookup::Subscribers) {
            self.discovery.looked(&topic, now);
        }
    }

    /// Announces this node as a subscriber. Nothing of it stays here: what this node provides for others is kept, and
    /// announced again after a restart, when it may follow other topics.
    fn announce(&mut self, topic: String) {
        let keys = self.topic_keys(&topic);
        let kad = &mut self.swarm.behaviour_mut().kad;
        for key in keys {
            if let Ok(id) = kad.start_providing(key.clone()) {
                self.queries.insert(id, Query::Topic { topic: topic.clone(), lookup: Lookup::Announcement });
            }
            kad.stop_providing(&key);
        }
        if !self.queries.looks_for(&topic, Lookup::Announcement) {
            self.discovery.announced();
        }
    }

    /// A lookup of a topic found subscribers, or is over.
    pub(super) fn on_topic(&mut self, topic: &str, lookup: Lookup, found: Vec<PeerId>, last: bool) {
        let now = self.runtime.now();
        let local = *self.swarm.local_peer_id();
        for peer in found.into_iter().filter(|peer| *peer != local) {
            let is_connected = self.swarm.is_connected(&peer);
            if self.discovery.found(topic, peer, is_connected, now) {
                log::debug!("{peer} is said to follow {topic}: it is dialed");
                self.reach(peer);
            }
        }
        if !last || self.queries.looks_for(topic, lookup) {
            return;
        }
        match lookup {
            Lookup::Subscribers => self.discovery.looked(topic, now),
            Lookup::Announcement => self.discovery.announced(),
        }
    }
}
