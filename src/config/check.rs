//! What a configuration must hold beyond the type of each value: bounds, and keys that depend on
//! each other. Also what it is wise to change ([`Config::warnings`]).

mod identity;
mod publish;
mod relay;

use super::{
    ApiListen, Backend, Config, MessageIds, Problem, Role, Source, Store, TopicRules, TopicScore, Validation,
    kind::Kind,
    quoted,
    table::{Visitor, plain},
};

/// One rule over several keys. The first key is the one to blame, unless a later one was set and
/// it was not.
struct Rule {
    keys: &'static [&'static str],
    broken: bool,
    problem: String,
    expected: Option<String>,
    hint: Option<String>,
}

fn rule(keys: &'static [&'static str], broken: bool, problem: String, expected: &str) -> Rule {
    Rule { keys, broken, problem, expected: Some(expected.into()), hint: None }
}

impl Rule {
    fn hint(self, hint: &str) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Config {
    /// Everything that is wrong, leaving alone rules over keys that were `refused` already.
    pub(super) fn problems(&self, refused: &[&'static str]) -> Vec<Problem> {
        let mut bounds = Bounds { config: self, problems: Vec::new(), broken: refused.to_vec() };
        self.clone().visit(&mut bounds);
        let Bounds { mut problems, broken, .. } = bounds;
        for rule in self.rules() {
            if !rule.broken || rule.keys.iter().any(|key| broken.contains(key)) {
                continue;
            }
            let set = rule.keys.iter().find(|key| self.sources.contains_key(**key));
            let key = set.unwrap_or(&rule.keys[0]);
            problems.push(Problem {
                at: self.source(key),
                key: Some((*key).into()),
                problem: rule.problem,
                expected: rule.expected,
                hint: rule.hint,
            });
        }
        problems
    }

    fn rules(&self) -> Vec<Rule> {
        let Self { gossip, kad, quic, tcp, limits, api, listen, dial, mdns, mqtt, .. } = self;
        let (low, n, high) = (gossip.mesh_n_low, gossip.mesh_n, gossip.mesh_n_high);
        let outbound = gossip.mesh_outbound_min;
        let durable =
            self.topics.iter().find(|(_, rules)| rules.is_durable()).map(|(topic, _)| topic.as_str());
        let mut rules = vec![
            rule(
                &["gossip.mesh_n_low", "gossip.mesh_n"],
                low > n,
                format!("mesh_n_low is {low} and mesh_n is {n}"),
                "mesh_n_low ≤ mesh_n ≤ mesh_n_high",
            ),
            rule(
                &["gossip.mesh_n_high", "gossip.mesh_n"],
                n > high,
                format!("mesh_n is {n} and mesh_n_high is {high}"),
                "mesh_n_low ≤ mesh_n ≤ mesh_n_high",
            ),
            rule(
                &["gossip.mesh_outbound_min", "gossip.mesh_n_low"],
                outbound > low,
                format!("mesh_outbound_min is {outbound} and mesh_n_low is {low}"),
                "mesh_outbound_min ≤ mesh_n_low",
            ),
            rule(
                &["gossip.mesh_outbound_min", "gossip.mesh_n"],
                outbound * 2 > n,
                format!("mesh_outbound_min is {outbound} and mesh_n is {n}"),
                "mesh_outbound_min at most half of mesh_n",
            ),
            rule(
                &["topics", "gossip.message_id"],
                gossip.message_id == MessageIds::Content && self.topics.values().any(|rules| rules.bundle),
                "a topic has bundle = true, and message_id is \"content\"".into(),
                "bundle = true with message_id = \"source\": of the messages in a bundle nobody would see that they are equal",
            ),
            rule(
                &["topics", "gossip.message_id"],
                gossip.message_id == MessageIds::Content && self.topics.values().any(TopicRules::is_kept),
                "a topic has keep, and message_id is \"content\"".into(),
                "keep with message_id = \"source\": what is remembered is told apart by author and number",
            ),
            rule(
                &["topics", "kad.store"],
                self.kad.store == Store::Memory && durable.is_some(),
                format!(
                    "keep of {} has durable = true, and kad.store is \"memory\"",
                    quoted(durable.unwrap_or_default())
                ),
                "durable = true with kad.store = \"/path/of/a/file\": what topics remember lies beside it",
            ),
            rule(
                &["topics"],
                self.topics.values().any(|rules| rules.latest.is_some() && rules.bundle),
                "a topic has keep = \"latest\" and bundle = true".into(),
                "one of them: each value is a message of its own",
            ),
            rule(
                &["topics", "gossip.validation"],
                gossip.validation != Validation::Strict
                    && self.topics.values().any(|rules| rules.latest.is_some()),
                "a topic has keep = \"latest\", and messages need no signature".into(),
                "gossip.validation = \"strict\": of what nobody signed, nobody can say which is the newest",
            ),
            rule(
                &["gossip.topics", "limits.topics"],
                gossip.topics.len() > limits.topics,
                format!("{} topics, and limits.topics is {}", gossip.topics.len(), limits.topics),
                "no more topics than limits.topics, on all nodes",
            ),
            rule(
                &["quic.keep_alive", "quic.idle_timeout"],
                quic.keep_alive >= quic.idle_timeout,
                format!("keep_alive is {:?} and idle_timeout is {:?}", quic.keep_alive, quic.idle_timeout),
                "keep_alive < idle_timeout, or silent connections are lost",
            ),
            rule(
                &["quic.stream_window", "quic.connection_window"],
                quic.stream_window > quic.connection_window,
                format!(
                    "stream_window is {}B and connection_window is {}B",
                    quic.stream_window, quic.connection_window
                ),
                "stream_window ≤ connection_window",
            ),
            rule(
                &["quic.max_mtu", "quic.initial_mtu"],
                quic.initial_mtu > quic.max_mtu,
                format!("initial_mtu is {} and max_mtu is {}", quic.initial_mtu, quic.max_mtu),
                "initial_mtu ≤ max_mtu",
            ),
            rule(
                &["tcp.keep_alive", "tcp.idle_timeout"],
                tcp.keep_alive >= tcp.idle_timeout,
                format!("keep_alive is {:?} and idle_timeout is {:?}", tcp.keep_alive, tcp.idle_timeout),
                "keep_alive < idle_timeout, or silent connections are lost",
            ),
            rule(
                &["dial.transports"],
                (1..dial.transports.len()).any(|i| dial.transports[..i].contains(&dial.transports[i])),
                "the same transport twice".into(),
                "each transport once",
            ),
            rule(
                &["dial.neighbours", "dial.neighbours_max"],
                dial.neighbours > dial.neighbours_max / 2,
                format!("neighbours is {} and neighbours_max is {}", dial.neighbours, dial.neighbours_max),
                "twice neighbours ≤ neighbours_max, or nodes refuse each other",
            ),
            rule(
                &["limits.per_peer", "limits.connections"],
                limits.per_peer > limits.connections,
                format!("per_peer is {} and connections is {}", limits.per_peer, limits.connections),
                "per_peer ≤ connections",
            ),
            rule(
                &["listen.addresses"],
                (1..listen.addresses.len()).any(|i| listen.addresses[..i].contains(&listen.addresses[i])),
                "the same address twice".into(),
                "each address once",
            ),
            rule(
                &["mdns.query_interval", "mdns.ttl"],
                mdns.query_interval >= mdns.ttl,
                format!("query_interval is {:?} and ttl is {:?}", mdns.query_interval, mdns.ttl),
                "query_interval < ttl, or peers are forgotten and found again",
            ),
            rule(
                &["kad.max_value", "kad.max_bytes"],
                kad.max_value > kad.max_bytes / 2,
                format!("max_value is {}B and max_bytes is {}B", kad.max_value, kad.max_bytes),
                "max_value at most half of max_bytes",
            ),
            rule(
                &["mdns.enabled"],
                mdns.enabled && !cfg!(feature = "mdns"),
                "this binary was built without the feature mdns".into(),
                "false",
            ),
            rule(
                &["kad.store"],
                kad.store != Store::Memory && !cfg!(feature = "store"),
                "this binary was built without the feature store".into(),
                "\"memory\"",
            ),
            rule(
                &["mqtt.listen", "mqtt.websocket"],
                mqtt.is_on() && !cfg!(feature = "mqtt"),
                "this binary was built without the feature mqtt".into(),
                "\"off\"",
            ),
            rule(
                &["mqtt.listen", "mqtt.websocket", "mqtt.users", "mqtt.anonymous"],
                mqtt.users.is_none() && !mqtt.anonymous && mqtt.is_exposed(),
                "an address that others can reach needs mqtt.users, or mqtt.anonymous = true".into(),
                "a loopback address, or users",
            )
            .hint("make a file of users: mosquitto_passwd -c /etc/smidge/mqtt-users NAME"),
            rule(
                &["mqtt.max_packet", "gossip.max_message"],
                mqtt.is_on() && mqtt.max_packet + 1024 > gossip.max_message,
                format!(
                    "max_packet is {}B and gossip.max_message is {}B",
                    mqtt.max_packet, gossip.max_message
                ),
                "max_packet at least 1KiB below gossip.max_message, or other nodes do not get the largest",
            ),
            rule(
                &["mqtt.topic", "gossip.message_id"],
                mqtt.is_on() && gossip.message_id == MessageIds::Content,
                "MQTT's messages travel in bundles, and message_id is \"content\"".into(),
                "mqtt.listen with message_id = \"source\"",
            ),
            rule(
                &["mqtt.listen", "gossip.validation"],
                mqtt.is_on() && gossip.validation != Validation::Strict,
                "MQTT's nodes keep retained messages and sessions for each other, and messages need no signature".into(),
                "mqtt.listen with validation = \"strict\"",
            ),
            rule(
                &["mqtt.confirm", "topics"],
                mqtt.is_on()
                    && mqtt.confirm > 0
                    && self.topics.get(&mqtt.topic).is_none_or(|rules| rules.keep.is_none()),
                format!("confirm is {}, and nothing of {} is kept", mqtt.confirm, quoted(&mqtt.topic)),
                "keep in the rules of mqtt.topic, on all nodes with MQTT: what is confirmed is that it is kept",
            ),
            rule(
                &["mqtt.durable", "kad.store"],
                mqtt.is_on() && mqtt.durable && self.kad.store == Store::Memory,
                "durable is true, and kad.store is \"memory\"".into(),
                "durable = true with kad.store = \"/path/of/a/file\": what is kept lies beside it",
            ),
            rule(
                &["mqtt.plain"],
                mqtt.plain.iter().any(|topic| {
                    *topic == mqtt.topic
                        || topic.starts_with('$')
                        || topic.bytes().any(|b| matches!(b, b'+' | b'#' | 0))
                }),
                "a topic that MQTT clients cannot publish on, or mqtt.topic itself".into(),
                "topics without +, # and a $ in front, other than mqtt.topic",
            ),
            rule(
                &["mqtt.tls_cert", "mqtt.tls_key"],
                mqtt.tls_cert.is_some() != mqtt.tls_key.is_some(),
                "a certificate, and the key that it belongs to, go together".into(),
                "both, or neither",
            ),
            rule(
                &["mqtt.tls_ca", "mqtt.tls_cert"],
                mqtt.tls_ca.is_some() && mqtt.tls_cert.is_none(),
                "clients can show certificates where the node shows one".into(),
                "mqtt.tls_ca with mqtt.tls_cert and mqtt.tls_key",
            ),
            rule(
                &["mqtt.origins"],
                mqtt.origins.iter().any(|origin| !is_origin(origin)),
                "an origin is a scheme and a host, and a port where it is not the usual one".into(),
                "such as \"https://panel.example.org\", or \"*\"",
            ),
            rule(
                &["dns.backend"],
                !compiled_in(self.dns.backend),
                format!("this binary was built without the feature {}", self.dns.backend),
                "a backend that was compiled in",
            ),
        ];
        rules.push(
            rule(
                &["api.listen", "api.token"],
                api.token.is_none() && matches!(api.listen, ApiListen::Tcp(a) if !a.ip().is_loopback()),
                "an address that others can reach needs api.token".into(),
                "a loopback address, or a token",
            )
            .hint("listen on 127.0.0.1, or set SMIDGE__API__TOKEN__FILE"),
        );
        rules.push(
            rule(
                &["api.token"],
                // A secret store that gave nothing must not open the API to everyone.
                api.token.is_none() && matches!(self.source("api.token"), Source::EnvFile { .. }),
                "the file is empty".into(),
                "a token",
            )
            .hint("make one: openssl rand -hex 32"),
        );
        let guarded = self.topics.iter().find(|(_, rules)| rules.publish.is_some());
        rules.push(rule(
            &["topics", "gossip.validation"],
            gossip.validation == Validation::Permissive && guarded.is_some(),
            format!("who publishes on {} cannot be known", quoted(guarded.map_or("", |(t, _)| t))),
            "gossip.validation = \"strict\", so that authors sign",
        ));
        rules.extend(self.relay_rules());
        rules.extend(self.identity_rules());
        rules.extend(self.publish_rules());
        rules
    }

    /// What is allowed but is likely not meant, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        let dial = &self.dial;
        let has_targets =
            !(dial.names.is_empty() && dial.addresses.is_empty() && self.relay.through.is_empty());
        if self.role != Role::Bootstrap && !has_targets && !self.mdns.enabled {
            out.push(format!("a {} without dial.names waits until others find it", self.role));
        }
        if self.identity.ephemeral && self.sources.contains_key("identity.key_file") {
            out.push("identity.ephemeral is set: identity.key_file is not used".into());
        }
        if !self.gossip.scoring && self.topics.values().any(|rules| rules.score != TopicScore::default()) {
            out.push("topics are not scored, whatever they say: gossip.scoring is false".into());
        }
        let Self { relay, mqtt, .. } = self;
        let has_authors = self.topics.get(&mqtt.topic).is_some_and(|rules| rules.publish.is_some());
        if mqtt.is_on() && self.network.key_file.is_none() && !has_authors {
            out.push(format!(
                "every peer may speak for MQTT clients, retain and erase: set network.key_file, or publish in [topics.{}]",
                quoted(&mqtt.topic)
            ));
        }
        if relay.server && relay.reservations < 2 * relay.reservations_per_peer {
            out.push(format!(
                "relay.reservations = {} leaves few slots free: when all are taken, none is renewed",
                relay.reservations
            ));
        }
        if self.publish.topic.is_none() && !self.publish.data.is_empty() {
            out.push("publish.data is not published: publish.topic is not set".into());
        }
        out
    }
}

/// Whether this is what a browser says of where a page comes from (RFC 6454, section 7), or any of them.
fn is_origin(text: &str) -> bool {
    let host = text.split_once("://").map(|(_, host)| host);
    text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', '*']))
}

fn compiled_in(backend: Backend) -> bool {
    match backend {
        Backend::Hickory => cfg!(feature = "hickory") || !cfg!(feature = "async-dns"),
        Backend::AsyncDns => cfg!(feature = "async-dns"),
    }
}

/// Checks the bounds of every value.
struct Bounds<'a> {
    config: &'a Config,
    problems: Vec<Problem>,
    broken: Vec<&'static str>,
}

impl Visitor for Bounds<'_> {
    fn key<K: Kind>(
        &mut self,
        name: &'static str,
        field: &mut K::Field,
        outside: &dyn Fn(&K::Field) -> Option<String>,
    ) {
        if let Some(expected) = outside(field) {
            self.broken.push(name);
            self.problems.push(Problem {
                at: self.config.source(name),
                key: Some(name.into()),
                problem: format!("{} is out of range", plain(&K::to_toml(field))),
                expected: Some(expected),
                hint: None,
            });
        }
    }
}
