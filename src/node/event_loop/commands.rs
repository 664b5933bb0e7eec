//! What clients ask for.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, kad, swarm::dial_opts::DialOpts};

use super::{EventLoop, answer, reports::dial_error};
use crate::{
    config::{self, Config},
    gossip::Topic,
    logging,
    node::{
        access::Access,
        command::{Command, Reply},
        error::Error,
        queries::{self, Query},
        replay::Start,
        setup,
        status::{Remembered, StateHeld, Status},
        subscription::Subscription,
        topics::{self, Configured},
    },
    store::Store,
    transport::multiaddr::split_peer,
};

/// The longest key of the hash table, in bytes: it fits into a packet beside the largest value, and beside the
/// peers that come with an answer.
const MAX_KEY: usize = 4 << 10;

/// Longest wait for a ping to come back.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

impl EventLoop {
    pub(super) fn on_command(&mut self, command: Option<Command>) {
        let Some(command) = command else {
            return self.begin_drain(None);
        };
        for topic in self.topics.abandoned() {
            self.leave(&topic);
        }
        match command {
            Command::Peers { reply } => {
                let gossip = &self.swarm.behaviour().gossip;
                answer(reply, Ok(self.peers.status(self.runtime.now(), gossip, &self.watch)));
            }
            Command::Mesh { reply } => {
                let core = self.swarm.behaviour().gossip.core();
                let mesh = |topic: &Topic| {
                    let mut peers = core.mesh(topic);
                    peers.sort();
                    (topic.to_string(), peers)
                };
                answer(reply, Ok(core.followed().map(mesh).collect()));
            }
            Command::Names { reply } => {
                let behaviour = self.swarm.behaviour();
                let mut names = behaviour.dialer.status();
                names.extend(behaviour.mdns.status());
                answer(reply, Ok(names));
            }
            Command::Status { reply } => {
                let status = self.status();
                answer(reply, Ok(status));
            }
            Command::History { reply } => {
                let history = self.history.read(self.runtime.now());
                answer(reply, Ok(history));
            }
            Command::Shutdown { reply } => self.begin_drain(Some(reply)),
            Command::Unfollow { topic } => self.unfollow(&topic),
            command if self.drain.is_some() => refuse(command),
            Command::Dial { target, reply } => {
                let (limit, dialer) = (self.config.limits.records, &mut self.swarm.behaviour_mut().dialer);
                if dialer.targets() >= limit {
                    let error = Error::Limit { what: "names", limit, key: "limits.records" };
                    return answer(reply, Err(error));
                }
                dialer.add_target(target);
                answer(reply, Ok(()));
            }
            Command::Page { topic, cursor, reply } => {
                // Who asked may be gone.
                let _ = reply.send(self.page(&topic, cursor));
            }
            Command::Subscribe { topic, start, reply } => {
                let subscription = self.subscribe(&topic, start);
                answer(reply, subscription);
                // Something may have waited for a subscriber.
                self.publish_ready();
            }
            Command::Unsubscribe { topic, reply } => {
                let was = self.topics.drop_topic(&topic);
                self.leave(&topic);
                answer(reply, Ok(was));
            }
            state @ (Command::StateGet { .. }
            | Command::StateSet { .. }
            | Command::StateList { .. }
            | Command::StateWatch { .. }) => self.on_state_command(state),
            Command::Publish { topic, messages, options, reply } => {
                self.publish(topic, messages, options, reply);
            }
            Command::Ping { peer, reply } => self.ping(peer, reply),
            Command::Connect { address, reply } => self.connect(address, reply),
            Command::Apply { config, reply } => {
                self.apply(*config);
                answer(reply, Ok(()));
            }
            query => self.start_query(query),
        }
    }

    fn subscribe(&mut self, topic: &str, start: Start) -> Result<Subscription, Error> {
        if matches!(start, Start::At(_) | Start::Last(_)) && !self.keeps(topic) {
            topics::check(topic)?;
            return Err(Error::NotKept(topic.to_owned()));
        }
        let commands = self.commander.upgrade().ok_or(Error::Stopped)?;
        let (subscription, fresh) = self.topics.follow(topic, commands.downgrade())?;
        if fresh {
            self.join(topic);
        }
        Ok(self.remembering(subscription, start))
    }

    fn unfollow(&mut self, topic: &str) {
        if self.topics.let_go(topic) {
            self.leave(topic);
        }
    }

    fn join(&mut self, topic: &str) {
        // Before the mesh is made: its members count from then on.
        self.score(topic);
        self.swarm.behaviour_mut().gossip.subscribe(&Topic::from(topic));
    }

    pub(super) fn leave(&mut self, topic: &str) {
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        let name = Topic::from(topic);
        gossip.unsubscribe(&name);
        // A peer that broke the rules of a topic is not forgiven because the topic was left for a moment; of all others, there
        // may be any number.
        if !self.config.topics.contains_key(topic) {
            gossip.core_mut().remove_topic_params(&name);
        }
    }

    /// Scores a topic as its rules say.
    fn score(&mut self, topic: &str) {
        if self.config.gossip.scoring {
            let params = self.config.topics.get(topic).cloned().unwrap_or_default().score.params();
            let core = self.swarm.behaviour_mut().gossip.core_mut();
            if let Err(e) = core.set_topic_params(Topic::from(topic), params) {
                log::debug!("topic {topic} is not scored: {e}");
            }
        }
    }

    pub(super) fn follow_configured(&mut self) {
        // What is to be remembered is followed.
        let mut wanted = self.config.gossip.topics.clone();
        let kept = self.config.topics.iter().filter(|(_, rules)| rules.is_kept()).map(|(topic, _)| topic);
        wanted.extend(kept.filter(|topic| !self.config.gossip.topics.contains(topic)).cloned());
        let Configured { fresh, idle, left_out } = self.topics.configure(&wanted);
        for topic in idle {
            self.leave(&topic);
        }
        for topic in fresh {
            self.join(&topic);
        }
        for topic in left_out {
            log::warn!(target: "smidge", "topic {topic} is not joined: as many are followed as limits.topics lets be");
        }
    }

    fn ping(&mut self, peer: PeerId, reply: Reply<Duration>) {
        let limit = self.config.limits.pending;
        if self.pings.len() >= limit {
            let error = Error::Limit { what: "pings", limit, key: "limits.pending" };
            return answer(reply, Err(error));
        }
        if let Some(reply) = self.search_for_ping(peer, reply) {
            self.send_ping(peer, reply);
        }
    }

    pub(super) fn send_ping(&mut self, peer: PeerId, reply: Reply<Duration>) {
        let request = self.swarm.behaviour_mut().ping.ping(peer, PING_TIMEOUT);
        self.pings.insert(request, reply);
    }

    fn connect(&mut self, address: Multiaddr, reply: Reply<PeerId>) {
        let (bare, expected) = split_peer(address.clone());
        if let Some(peer) = self.peers.at(&bare).filter(|peer| expected.is_none_or(|e| e == *peer)) {
            return answer(reply, Ok(peer));
        }
        let limit = self.config.limits.pending;
        if self.dial_requests.len() >= limit {
            let error = Error::Limit { what: "dials on request", limit, key: "limits.pending" };
            return answer(reply, Err(error));
        }
        let dial = DialOpts::unknown_peer_id().address(address.clone()).build();
        let connection = dial.connection_id();
        match self.swarm.dial(dial) {
            Ok(()) => self.dial_requests.insert(connection, address, reply),
            Err(e) => answer(reply, Err(Error::Connect { address, why: dial_error(&e) })),
        }
    }

    fn start_query(&mut self, command: Command) {
        let limit = self.config.limits.pending;
        if self.queries.len() >= limit {
            return refuse_with(command, &Error::Limit { what: "queries", limit, key: "limits.pending" });
        }
        if let Command::Put { key, .. } | Command::Provide { key, .. } = &command
            && key.len() > MAX_KEY
        {
            let why = format!("its key has {} bytes, and {MAX_KEY} are the most", key.len());
            return refuse_with(command, &Error::Store(why));
        }
        let ttl = self.config.kad.record_ttl;
        let replication = self.config.kad.replication.get();
        let others = self.table_size();
        let now = Instant::now(); // kad's records are dated by its own clock
        let kad = &mut self.swarm.behaviour_mut().kad;
        match command {
            Command::Put { key, value, options, reply } => {
                let quorum = queries::quorum(options.quorum.into(), others, replication);
                let expires = now.checked_add(options.ttl.unwrap_or(ttl));
                let record = kad::Record { expires, ..kad::Record::new(key, value) };
                self.put(record, quorum, reply);
            }
            Command::Get { key, quorum, reply } => {
                let id = kad.get_record(key.into());
                self.queries.insert(id, Query::Get { reply, quorum, found: Vec::new() });
            }
            Command::Provide { key, reply } => match kad.start_providing(key.into()) {
                Ok(id) => {
                    let sequence = kad.store_mut().sequence();
                    self.queries.insert(id, Query::Provide { reply, sequence });
                }
                Err(e) => answer(reply, Err(not_stored(&e, kad.store_mut(), &self.config.kad))),
            },
            Command::StopProviding { key, reply } => {
                kad.stop_providing(&key.into());
                self.queries.promise(kad.store_mut().sequence(), reply);
                self.queries.settle(kad.store_mut());
            }
            Command::Providers { key, reply } => {
                let id = kad.get_providers(key.into());
                self.queries.insert(id, Query::Providers { reply, found: Default::default() });
            }
            Command::FindPeer { peer, reply } => {
                let known = kad.addresses(&peer).into_iter().collect();
                let id = kad.get_closest_peers(peer);
                self.queries.insert(id, Query::FindPeer { reply, peer, known });
            }
            other => refuse(other),
        }
    }

    fn apply(&mut self, mut config: Config) {
        // `relay.through` also yields targets, but changing it needs a restart.
        config.relay = self.config.relay.clone();
        // So do MQTT's keys, and with them its own topics.
        config.mqtt = self.config.mqtt.clone();
        config = config.with_mqtt_topics();
        let behaviour = self.swarm.behaviour_mut();
        behaviour.access.set(Access::new(&config.peers));
        behaviour.dialer.set_targets(setup::targets(&config));
        self.config.dial = config.dial;
        self.config.peers = config.peers;
        self.config.gossip.topics = config.gossip.topics;
        if self.config.topics != config.topics {
            self.config.topics = config.topics;
            let followed: Vec<_> = self.topics.names().cloned().collect();
            followed.iter().for_each(|topic| self.score(topic));
            self.keep_configured();
        }
        self.follow_configured();
    }

    fn status(&mut self) -> Status {
        let table = self.table_size();
        let store = self.swarm.behaviour_mut().kad.store_mut().status();
        let behaviour = self.swarm.behaviour();
        let (messages, bytes) = behaviour.catchup.book().held();
        let (keys, marks, state_bytes) = behaviour.catchup.book().values_held();
        let same_key = [behaviour.dialer.same_key(), behaviour.mdns.same_key()].concat();
        let mut listening: Vec<_> = self.swarm.listeners().cloned().collect();
        listening.sort();
        Status {
            peer: self.swarm.local_peer_id().to_string(),
            name: self.config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            role: self.config.role,
            listening,
            not_listening: self.listeners.missing(),
            same_key,
            peers: self.peers.len(),
            gossip_off: self.watch.off(),
            table,
            topics: self.topics.names().cloned().collect(),
            records: store.records,
            remembered: Remembered { messages, bytes, file: behaviour.catchup.file() },
            state: StateHeld { keys, marks, bytes: state_bytes },
            store,
            uptime_s: self.runtime.now().saturating_duration_since(self.started).as_secs(),
            log_dropped: logging::dropped(),
            traffic: self.metrics.traffic(),
        }
    }
}

/// Why the store did not take something in, with the key to turn.
pub(super) fn not_stored(error: &kad::store::Error, store: &Store, bounds: &config::Kad) -> Error {
    let held = store.status();
    Error::Store(match (store.trouble(), error) {
        (Some(why), _) => format!("the disk takes nothing: {why}"),
        (None, kad::store::Error::ValueTooLarge) => {
            format!("its value is larger than kad.max_value = {} bytes", bounds.max_value)
        }
        (None, _) => format!(
            "the store is full: {} records (kad.max_records = {}), {} bytes (kad.max_bytes = {})",
            held.records, bounds.max_records, held.bytes, bounds.max_bytes
        ),
    })
}

fn refuse(command: Command) {
    refuse_with(command, &Error::ShuttingDown);
}

fn refuse_with(command: Command, error: &Error) {
    let error = error.clone();
    match command {
        Command::Dial { reply, .. } | Command::Apply { reply, .. } | Command::Shutdown { reply } => {
            answer(reply, Err(error));
        }
        Command::Provide { reply, .. } | Command::StopProviding { reply, .. } => answer(reply, Err(error)),
        Command::Subscribe { reply, .. } => answer(reply, Err(error)),
        // Whoever asked for a page hears that there is none.
        Command::Page { .. } => {}
        Command::Unsubscribe { reply, .. } => answer(reply, Err(error)),
        Command::StateGet { reply, .. } => answer(reply, Err(error)),
        Command::StateSet { reply, .. } => answer(reply, Err(error)),
        Command::StateList { reply, .. } => answer(reply, Err(error)),
        Command::StateWatch { reply, .. } => answer(reply, Err(error)),
        Command::Publish { reply, .. } => answer(reply, Err(error)),
        Command::Put { reply, .. } => answer(reply, Err(error)),
        Command::Get { reply, .. } => answer(reply, Err(error)),
        Command::Providers { reply, .. } => answer(reply, Err(error)),
        Command::FindPeer { reply, .. } => answer(reply, Err(error)),
        Command::Ping { reply, .. } => answer(reply, Err(error)),
        Command::Connect { reply, .. } => answer(reply, Err(error)),
        Command::Peers { reply } => answer(reply, Err(error)),
        Command::Mesh { reply } => answer(reply, Err(error)),
        Command::Names { reply } => answer(reply, Err(error)),
        Command::Status { reply } => answer(reply, Err(error)),
        Command::History { reply } => answer(reply, Err(error)),
        Command::Unfollow { .. } => {}
    }
}
