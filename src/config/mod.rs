//! A node's configuration: flags, `--set`, environment and file, layered over the defaults of a role,
//! parsed into types once and checked once.
//!
//! A [`Config`] that [`Config::load`] returned is right, or it would have been refused with every
//! problem found ([`ConfigError`]). This module reads files and nothing else: it resolves no name,
//! opens no socket, makes no key, and reads the process's environment only in
//! [`LoadOptions::from_env`].
//!
//! The table of all keys is in `schema.rs`. A role changes defaults only: a sender has a topic and
//! a message to publish; no role dials anything of its own accord, because a name that is right for
//! one network is wrong for the next (the shipped files in `config/` say names).

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

mod check;
mod enums;
mod error;
mod identity;
pub(crate) mod kind;
mod layers;
mod mqtt;
pub(crate) mod mqtt_topics;
mod network;
mod peer_rule;
mod schema;
mod secrets;
mod show;
pub(crate) mod table;
mod target;
#[cfg(test)]
mod tests;
mod topic_rules;
mod transports;
mod units;

pub(crate) use crate::text::{nearest, quoted};
pub use enums::{
    ApiListen, Backend, Encoding, KadMode, LogFormat, MessageIds, Role, ScorePreset, Secret, Store,
    TransportKind, Validation,
};
pub use error::{ConfigError, Problem, Source};
use kind::{Kind, Refusal};
use layers::{Entry, Layers, Raw};
pub use peer_rule::PeerRule;
pub use schema::{
    Api, Config, Dial, Dns, Gossip, Identity, Kad, Limits, Listen, Log, Mdns, Mqtt, Naming, Nat, Network,
    Peers, Publish, Quic, Relay, Runtime, Tcp,
};
use table::{Key, Visitor};
pub use target::{DEFAULT_PORT, Family, Target, TargetError};
pub use topic_rules::{Keep, Latest, TopicRules, TopicScore};
pub(crate) use {
    network::{MAX_NAME, may_be_in_name, parse_topic},
    schema::KEYS,
    target::{check_address, dialable},
    units::parse_duration,
};

/// The file read when no other is named, if it is there.
pub const DEFAULT_FILE: &str = "/etc/smidge/config.toml";

/// What a configuration is made from. `Default` is: nothing but defaults.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The file to read; it must be there.
    pub file: Option<PathBuf>,
    /// The file to read when `file` names none; it may be missing.
    pub default_file: Option<PathBuf>,
    /// `key=value` pairs, later ones before earlier ones.
    pub sets: Vec<String>,
    /// Environment variables; those that are not `SMIDGE__…` or `RUST_LOG` are left alone.
    pub env: Vec<(OsString, OsString)>,
    /// Flags of their own: the flag's name, the key it sets, what it was given.
    pub flags: Vec<(&'static str, &'static str, Given)>,
    /// Where the key is kept if nothing names `identity.key_file`; `None`: at the default of that key.
    pub state: Option<PathBuf>,
}

/// What a flag was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// One value, written as in the environment.
    Text(String),
    /// The items of a flag that may be given more than once.
    Items(Vec<String>),
}

impl LoadOptions {
    /// Reads this process's environment, and [`DEFAULT_FILE`] where `file` is none.
    pub fn from_env(file: Option<PathBuf>, sets: Vec<String>) -> Self {
        Self {
            file,
            default_file: Some(DEFAULT_FILE.into()),
            sets,
            env: std::env::vars_os().collect(),
            flags: Vec::new(),
            state: own_state(),
        }
    }

    /// The file that [`Config::load`] reads, if it reads one.
    pub(crate) fn file_to_read(&self) -> Option<&Path> {
        // One that is there but cannot be read is an error, not a missing one.
        let there = |path: &&Path| {
            !path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        self.file.as_deref().or_else(|| self.default_file.as_deref().filter(there))
    }

    /// What in the environment was meant for a key, and is not read.
    pub fn warnings(&self) -> Vec<String> {
        let meant = |(name, _): &(OsString, OsString)| {
            let name = name.to_str()?;
            let rest = name.strip_prefix("SMIDGE_")?.to_ascii_lowercase();
            let key = KEYS.iter().find(|key| key.name.replace('.', "_") == rest)?;
            Some(format!("{name} is not read: write {}", layers::variable(key.name)))
        };
        self.env.iter().filter_map(meant).collect()
    }

    /// Adds a flag's values, unless there are none; they replace what lower layers say of `key`.
    pub(crate) fn flag(&mut self, flag: &'static str, key: &'static str, values: &[String]) {
        if !values.is_empty() {
            self.flags.push((flag, key, Given::Items(values.to_vec())));
        }
    }

    /// Adds a flag's one value, if it has one.
    pub(crate) fn value(&mut self, flag: &'static str, key: &'static str, value: Option<String>) {
        self.flags.extend(value.map(|value| (flag, key, Given::Text(value))));
    }
}

/// Where a user who is not root keeps state (XDG base directories), unless the system's place is prepared.
fn own_state() -> Option<PathBuf> {
    let system = Config::default().identity.key_file;
    if rustix::process::geteuid().is_root() || system.parent().is_some_and(Path::exists) {
        return None;
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("smidge"))
}

/// What differs between two configurations, by what it takes to apply it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that can be applied while the node runs.
    pub live: Vec<&'static str>,
    /// Keys that need a restart.
    pub restart: Vec<&'static str>,
}

impl Default for Config {
    /// The defaults of a peer.
    fn default() -> Self {
        Self::for_role(Role::Peer)
    }
}

impl Config {
    /// Layers flag over `--set` over environment over file over the role's defaults; `RUST_LOG`
    /// stands above all of them for `log.level`.
    ///
    /// # Errors
    /// Everything that is wrong in any layer, whether a higher layer hides it or not.
    pub fn load(options: &LoadOptions) -> Result<Self, ConfigError> {
        let Layers { mut entries, problems, file_broken } = Layers::collect(options);
        if let Some(flags) = entries.get_mut("log.level") {
            // Stable: RUST_LOG goes last, the others stay as they are.
            flags.sort_by_key(|entry| matches!(&entry.at, Source::Env { name } if name == "RUST_LOG"));
        }
        let mut role = Role::Peer;
        if let Some(said) = entries.get("role").and_then(|said| said.last()) {
            // A role that cannot be read is reported below.
            role = read::<Role>(&said.raw).unwrap_or(role);
        }
        let mut config = Self::for_role(role);
        if let Some(state) = &options.state {
            config.identity.key_file = state.join("key");
        }
        let mut decode = Decode { entries, problems, refused: Vec::new(), sources: Default::default() };
        config.visit(&mut decode);
        let Decode { mut problems, refused, sources, .. } = decode;
        config.sources = sources;
        if !file_broken {
            problems.extend(config.problems(&refused));
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }

    /// Checks bounds and what keys must hold together, for a configuration made in code;
    /// [`Config::load`] has done so.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let problems = self.problems(&[]);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// Where the effective value of a key came from. An unknown key counts as a default.
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or(Source::Default { role: self.role })
    }

    /// The keys whose values differ in `new`, by what it takes to apply them.
    pub fn changes(&self, new: &Self) -> Changes {
        let (live, restart): (Vec<&Key>, Vec<&Key>) =
            self.differing(new).into_iter().partition(|key| key.live);
        let names = |keys: Vec<&Key>| keys.into_iter().map(|key| key.name).collect();
        Changes { live: names(live), restart: names(restart) }
    }
}

/// Reads every entry of every key into its type; the highest one stays.
struct Decode {
    entries: std::collections::BTreeMap<&'static str, Vec<Entry>>,
    problems: Vec<Problem>,
    /// Keys that have a problem already.
    refused: Vec<&'static str>,
    sources: std::collections::BTreeMap<&'static str, Source>,
}

impl Visitor for Decode {
    fn key<K: Kind>(
        &mut self,
        name: &'static str,
        field: &mut K::Field,
        outside: &dyn Fn(&K::Field) -> Option<String>,
    ) {
        self.each(name, &mut |raw| {
            let value = read::<K>(raw).map_err(|refusal| (refusal, K::expected()))?;
            if let Some(range) = outside(&value) {
                let problem = format!("{} is out of range", table::plain(&K::to_toml(&value)));
                return Err((Refusal::new(problem), range));
            }
            *field = value;
            Ok(())
        });
    }
}

/// Why, and what was expected.
type Refused = (Refusal, String);

impl Decode {
    /// Has `take` read what each source says of a key, and keeps where it came from or why it was refused.
    fn each(&mut self, name: &'static str, take: &mut dyn FnMut(&Raw) -> Result<(), Refused>) {
        for entry in self.entries.remove(name).unwrap_or_default() {
            let Err((refusal, expected)) = take(&entry.raw) else {
                self.sources.insert(name, entry.at);
                continue;
            };
            let at = match (entry.at, refusal.item.and_then(|item| entry.item_lines.get(item))) {
                (Source::File { path, .. }, Some(line)) => Source::File { path, line: Some(*line) },
                (at, _) => at,
            };
            self.refused.push(name);
            self.problems.push(Problem {
                at,
                key: Some(name.into()),
                problem: refusal.problem,
                expected: Some(expected),
                hint: None,
            });
        }
    }
}

fn read<K: Kind>(raw: &Raw) -> Result<K::Field, Refusal> {
    match raw {
        Raw::Toml(value) => K::from_toml(value),
        Raw::Text(text) => K::from_text(text),
        Raw::Items(items) => {
            let items = items.iter().map(|item| toml::Value::String(item.clone()));
            K::from_toml(&toml::Value::Array(items.collect()))
        }
    }
}
