//! What holds for single topics: `[topics."NAME"]`, a table of tables that people name themselves.
//!
//! A topic that is not in it follows no rule and is scored by the preset "default".

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p::PeerId;
use toml::Value;

use super::{
    enums::ScorePreset,
    kind::{Kind, Refusal, Size},
    nearest,
    network::parse_topic,
    quoted,
};
use crate::gossip::TopicScoreParams;

/// Topics that rules are kept for, at most.
const MOST_TOPICS: usize = 1024;

/// What holds for one topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicRules {
    /// Authors whose messages are let in; `None`: all of them. Never empty.
    pub publish: Option<BTreeSet<PeerId>>,
    /// How the topic counts for a peer's score.
    pub score: TopicScore,
    /// Whether what is published within a moment travels in one message.
    pub bundle: bool,
    /// How much of it is remembered; `None`: nothing.
    pub keep: Option<Keep>,
    /// Its values by key, of which the newest is kept each: `keep = "latest"`. Never beside the other.
    pub latest: Option<Latest>,
    /// Peers that may compare what they remember of it with this node; `None`: whoever shares the topic. Never empty.
    pub read: Option<BTreeSet<PeerId>>,
}

/// How much of a topic a node remembers. What is beyond any of these bounds goes, the oldest first; `limits.kept` bounds
/// all topics together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Messages.
    pub messages: Option<usize>,
    /// Bytes, 80 for each message beside its own.
    pub bytes: Option<usize>,
    /// By the author's time.
    pub age: Option<Duration>,
    /// Whether it is kept on disk, too, beside the file of `kad.store`.
    pub durable: bool,
}

/// How many values by key are kept of a topic. Nodes of one topic give them the same bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latest {
    /// Keys, those of deleted values included while that is remembered.
    pub keys: usize,
    /// Bytes, 352 for each key beside its own.
    pub bytes: usize,
    /// How long a deletion is remembered.
    pub marks: Duration,
    /// On disk, too, beside `kad.store`.
    pub durable: bool,
}

impl Default for Latest {
    fn default() -> Self {
        Self { keys: 10_000, bytes: 4 << 20, marks: Duration::from_secs(7 * 86_400), durable: false }
    }
}

impl TopicRules {
    /// Whether what is remembered is to be on disk.
    pub(super) fn is_durable(&self) -> bool {
        self.keep.is_some_and(|keep| keep.durable) || self.latest.is_some_and(|latest| latest.durable)
    }

    /// Whether anything of the topic is remembered, so that it is followed.
    pub(crate) fn is_kept(&self) -> bool {
        self.keep.is_some() || self.latest.is_some()
    }
}

/// A preset, and the parameters that differ from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicScore {
    /// Where all other parameters come from.
    pub preset: ScorePreset,
    /// Parameters by gossipsub's own names, each one of [`NAMES`].
    changed: BTreeMap<&'static str, Number>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Real(f64),
    Time(Duration),
}

macro_rules! parameters {
    ($($name:ident: $kind:ident,)*) => {
        /// The parameters there are: gossipsub v1.1, "peer scoring", per topic.
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        fn read_parameter(name: &str, value: &Value) -> Option<Result<(&'static str, Number), Refusal>> {
            match name {
                $(stringify!($name) => Some(parameters!(@read $kind, value).map(|n| (stringify!($name), n))),)*
                _ => None,
            }
        }

        fn set_parameter(params: &mut TopicScoreParams, name: &str, number: Number) {
            match (name, number) {
                $((stringify!($name), Number::$kind(n)) => params.$name = n,)*
                _ => {}
            }
        }
    };
    (@read Real, $value:expr) => { f64::from_toml($value).map(Number::Real) };
    (@read Time, $value:expr) => { Duration::from_toml($value).map(Number::Time) };
}

parameters! {
    topic_weight: Real,
    time_in_mesh_weight: Real,
    time_in_mesh_quantum: Time,
    time_in_mesh_cap: Real,
    first_message_deliveries_weight: Real,
    first_message_deliveries_decay: Real,
    first_message_deliveries_cap: Real,
    mesh_message_deliveries_weight: Real,
    mesh_message_deliveries_decay: Real,
    mesh_message_deliveries_cap: Real,
    mesh_message_deliveries_threshold: Real,
    mesh_message_deliveries_window: Time,
    mesh_message_deliveries_activation: Time,
    mesh_failure_penalty_weight: Real,
    mesh_failure_penalty_decay: Real,
    invalid_message_deliveries_weight: Real,
    invalid_message_deliveries_decay: Real,
}

impl TopicScore {
    /// The parameters for gossipsub.
    pub(crate) fn params(&self) -> TopicScoreParams {
        let mut params = self.preset.params();
        for (name, number) in &self.changed {
            set_parameter(&mut params, name, *number);
        }
        params
    }
}

impl ScorePreset {
    /// How often a topic has messages is its own business: no preset lets silence cost a peer anything
    /// (`mesh_message_deliveries_weight` is 0 in all of them). In a small mesh the author of all
    /// messages never gets one back from its peers, and would turn on every one of them.
    fn params(self) -> TopicScoreParams {
        let default = TopicScoreParams {
            time_in_mesh_weight: 0.01,
            time_in_mesh_quantum: Duration::from_secs(1),
            time_in_mesh_cap: 3600.0,
            first_message_deliveries_weight: 0.5,
            first_message_deliveries_cap: 100.0,
            mesh_message_deliveries_weight: 0.0,
            mesh_failure_penalty_weight: 0.0,
            invalid_message_deliveries_weight: -20.0,
            invalid_message_deliveries_decay: 0.9,
            ..TopicScoreParams::default()
        };
        match self {
            Self::Default => default,
            // One invalid message costs 40: out of the mesh, and no gossip. Two in quick succession cost 160: below the
            // graylist threshold of 80, until the counter has decayed to the root of 2, some six minutes.
            Self::Strict => TopicScoreParams {
                topic_weight: 1.0,
                invalid_message_deliveries_weight: -40.0,
                invalid_message_deliveries_decay: 0.999,
                ..default
            },
            Self::Off => TopicScoreParams { topic_weight: 0.0, ..default },
        }
    }
}

/// How the table of all topics is written.
pub(crate) enum TopicTable {}

impl Kind for TopicTable {
    type Field = BTreeMap<String, TopicRules>;

    fn expected() -> String {
        "tables such as [topics.\"prices\"], with publish = [peer ids], bundle = true, keep = { age = \"10m\" }, and [topics.\"prices\".score]".into()
    }

    fn from_toml(value: &Value) -> Result<Self::Field, Refusal> {
        let table = value.as_table().ok_or_else(|| Refusal::wrong_type(value))?;
        if table.len() > MOST_TOPICS {
            return Err(Refusal::new(format!("{} topics, more than {MOST_TOPICS}", table.len())));
        }
        let mut leaf = 0;
        let mut topics = BTreeMap::new();
        for (topic, rules) in table {
            let of = |refusal: Refusal| Refusal {
                problem: format!("of {}: {}", quoted(topic), refusal.problem),
                item: Some(leaf),
            };
            parse_topic(topic).map_err(|why| of(Refusal::new(why)))?;
            let rules = read_rules(rules, &mut leaf).map_err(|(refusal, item)| Refusal {
                problem: format!("of {}: {}", quoted(topic), refusal.problem),
                item: Some(item),
            })?;
            topics.insert(topic.clone(), rules);
        }
        Ok(topics)
    }

    fn from_text(text: &str) -> Result<Self::Field, Refusal> {
        match text.trim() {
            "" => Ok(BTreeMap::new()),
            text => Self::from_toml(&super::kind::toml_value(text).map_err(|why| {
                Refusal::new(format!(
                    "{} is no TOML table such as {{ prices = {{ publish = […] }} }}: {why}",
                    quoted(text)
                ))
            })?),
        }
    }

    fn to_toml(field: &Self::Field) -> Value {
        Value::Table(field.iter().map(|(topic, rules)| (topic.clone(), write_rules(rules))).collect())
    }
}

/// A refusal, and which value of the whole table it is about, counted depth first; a table without
/// values counts as one.
type At<T> = Result<T, (Refusal, usize)>;

fn read_rules(value: &Value, leaf: &mut usize) -> At<TopicRules> {
    let table = value.as_table().ok_or_else(|| (Refusal::wrong_type(value), *leaf))?;
    let mut rules = TopicRules::default();
    *leaf += usize::from(table.is_empty());
    for (key, value) in table {
        match key.as_str() {
            "publish" => rules.publish = Some(read_peers("publish", value, leaf)?),
            "read" => rules.read = Some(read_peers("read", value, leaf)?),
            "keep" if is_latest(value) => rules.latest = Some(read_latest(value, leaf)?),
            "keep" => rules.keep = Some(read_keep(value, leaf)?),
            "score" => rules.score = read_score(value, leaf)?,
            "bundle" => {
                rules.bundle = bool::from_toml(value).map_err(|r| (inside("bundle", r), *leaf))?;
                *leaf += 1;
            }
            other => return Err((unknown(other, &["bundle", "keep", "publish", "read", "score"]), *leaf)),
        }
    }
    Ok(rules)
}

/// Peers of which there must be one.
fn read_peers(key: &str, value: &Value, leaf: &mut usize) -> At<BTreeSet<PeerId>> {
    let peers = Vec::<PeerId>::from_toml(value).map_err(|r| (inside(key, r), *leaf))?;
    if peers.is_empty() {
        let why = format!("{key} is empty, so that nobody could: leave it out to let everybody");
        return Err((Refusal::new(why), *leaf));
    }
    *leaf += 1;
    Ok(peers.into_iter().collect())
}

fn read_keep(value: &Value, leaf: &mut usize) -> At<Keep> {
    let table = value.as_table().ok_or_else(|| {
        let why = format!("{value} is neither \"latest\" nor a table such as {{ age = \"10m\" }}");
        (inside("keep", Refusal::new(why)), *leaf)
    })?;
    let mut keep = Keep::default();
    if table.is_empty() {
        let why = "keep says nothing: give messages, bytes or age, or several of them";
        return Err((Refusal::new(why), *leaf));
    }
    for (key, value) in table {
        let at = |refusal| (inside(&format!("keep.{key}"), refusal), *leaf);
        let outside =
            |range: &str| Err(at(Refusal::new(format!("{value} is out of range (expected {range})"))));
        match key.as_str() {
            "messages" => match usize::from_toml(value).map_err(at)? {
                0 | 10_000_001.. => return outside("1 to 10000000"),
                messages => keep.messages = Some(messages),
            },
            "bytes" => match Size::from_toml(value).map_err(at)? {
                bytes if !(1 << 10..=1 << 34).contains(&bytes) => return outside("1KiB to 16GiB"),
                bytes => keep.bytes = Some(bytes),
            },
            "age" => match Duration::from_toml(value).map_err(at)? {
                age if age < Duration::from_secs(1) => return outside("1s or more"),
                age => keep.age = Some(age),
            },
            "durable" => keep.durable = bool::from_toml(value).map_err(at)?,
            other => return Err(at(unknown(other, &["age", "bytes", "durable", "messages"]))),
        }
        *leaf += 1;
    }
    if table.keys().all(|key| key == "durable") {
        let why = "keep does not say how much: give messages, bytes or age beside durable";
        return Err((Refusal::new(why), *leaf - 1));
    }
    Ok(keep)
}

/// `keep = "latest"`, or a table that says so.
fn is_latest(value: &Value) -> bool {
    value.as_str() == Some("latest") || value.as_table().is_some_and(|table| table.contains_key("latest"))
}

fn read_latest(value: &Value, leaf: &mut usize) -> At<Latest> {
    let mut latest = Latest::default();
    let Some(table) = value.as_table() else {
        *leaf += 1;
        return Ok(latest);
    };
    for (key, value) in table {
        let at = |refusal| (inside(&format!("keep.{key}"), refusal), *leaf);
        let outside =
            |range: &str| Err(at(Refusal::new(format!("{value} is out of range (expected {range})"))));
        match key.as_str() {
            "latest" if bool::from_toml(value).map_err(at)? => {}
            "latest" => return Err(at(Refusal::new("false says nothing: leave it out, or keep"))),
            "keys" => match usize::from_toml(value).map_err(at)? {
                0 | 100_001.. => return outside("1 to 100000"),
                keys => latest.keys = keys,
            },
            "bytes" => match Size::from_toml(value).map_err(at)? {
                bytes if !(1 << 10..=1 << 30).contains(&bytes) => return outside("1KiB to 1GiB"),
                bytes => latest.bytes = bytes,
            },
            "marks" => match Duration::from_toml(value).map_err(at)? {
                marks if marks < Duration::from_secs(10) => return outside("10s or more"),
                marks => latest.marks = marks,
            },
            "durable" => latest.durable = bool::from_toml(value).map_err(at)?,
            other => return Err(at(unknown(other, &["bytes", "durable", "keys", "latest", "marks"]))),
        }
        *leaf += 1;
    }
    Ok(latest)
}

fn read_score(value: &Value, leaf: &mut usize) -> At<TopicScore> {
    let table = value.as_table().ok_or_else(|| (inside("score", Refusal::wrong_type(value)), *leaf))?;
    let first = *leaf;
    let mut score = TopicScore::default();
    *leaf += usize::from(table.is_empty());
    for (key, value) in table {
        let at = |refusal| (inside(&format!("score.{key}"), refusal), *leaf);
        if key == "preset" {
            score.preset = ScorePreset::from_toml(value).map_err(|r| {
                at(Refusal::new(format!("{} (expected {})", r.problem, ScorePreset::expected())))
            })?;
        } else {
            let (name, number) = read_parameter(key, value)
                .unwrap_or_else(|| {
                    let names: Vec<_> = NAMES.iter().copied().chain(["preset"]).collect();
                    Err(unknown(key, &names))
                })
                .map_err(at)?;
            score.changed.insert(name, number);
        }
        *leaf += 1;
    }
    score.params().validate().map_err(|why| (inside("score", Refusal::new(why.to_string())), first))?;
    Ok(score)
}

fn inside(key: &str, refusal: Refusal) -> Refusal {
    let item = refusal.item.map(|item| format!("[{item}]")).unwrap_or_default();
    Refusal::new(format!("{key}{item}: {}", refusal.problem))
}

fn unknown(key: &str, names: &[&str]) -> Refusal {
    let near = nearest(key, names.iter().copied()).map(|near| format!("; did you mean {near}?"));
    Refusal::new(format!("unknown key {}{}", quoted(key), near.unwrap_or_default()))
}

fn write_rules(rules: &TopicRules) -> Value {
    let mut table = toml::Table::new();
    if let Some(peers) = &rules.publish {
        table.insert("publish".into(), Value::Array(peers.iter().map(PeerId::to_toml).collect()));
    }
    if rules.bundle {
        table.insert("bundle".into(), Value::Boolean(true));
    }
    if let Some(peers) = &rules.read {
        table.insert("read".into(), Value::Array(peers.iter().map(PeerId::to_toml).collect()));
    }
    if let Some(keep) = &rules.keep {
        let messages = keep.messages.map(|n| ("messages", usize::to_toml(&n)));
        let bytes = keep.bytes.map(|n| ("bytes", Size::to_toml(&n)));
        let age = keep.age.map(|age| ("age", Duration::to_toml(&age)));
        let durable = keep.durable.then_some(("durable", Value::Boolean(true)));
        let bounds =
            [messages, bytes, age, durable].into_iter().flatten().map(|(key, value)| (key.into(), value));
        table.insert("keep".into(), Value::Table(bounds.collect()));
    }
    if let Some(latest) = &rules.latest {
        let bounds = [
            ("latest", Value::Boolean(true)),
            ("keys", usize::to_toml(&latest.keys)),
            ("bytes", Size::to_toml(&latest.bytes)),
            ("marks", Duration::to_toml(&latest.marks)),
            ("durable", Value::Boolean(latest.durable)),
        ];
        let bounds = bounds.map(|(key, value)| (key.into(), value));
        table.insert("keep".into(), Value::Table(bounds.into_iter().collect()));
    }
    let mut score = toml::Table::new();
    score.insert("preset".into(), ScorePreset::to_toml(&rules.score.preset));
    for (name, number) in &rules.score.changed {
        let value = match number {
            Number::Real(n) => f64::to_toml(n),
            Number::Time(time) => Duration::to_toml(time),
        };
        score.insert((*name).into(), value);
    }
    table.insert("score".into(), Value::Table(score));
    Value::Table(table)
}
