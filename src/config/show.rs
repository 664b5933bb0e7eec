//! The effective configuration as people and programs read it: TOML with a comment on where each
//! value came from, or JSON. Secrets are masked.

use serde_json::json;

use super::{Config, Secret, Source, kind::Kind, table::Visitor};
use crate::text::steers;

/// One key with its effective value, fit to be shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    /// The key, for instance `gossip.heartbeat`.
    pub(super) key: &'static str,
    /// Its value, masked where it is secret.
    pub(super) value: toml::Value,
    /// Where it came from.
    pub(super) from: Source,
}

impl Config {
    /// Every key with its effective value and its source, in the order of the sections.
    pub(super) fn describe(&self) -> Vec<Shown> {
        let mut show = Show { config: self, out: Vec::new() };
        self.clone().visit(&mut show);
        show.out
    }

    /// The effective configuration as TOML that can be read back (but for masked secrets), each
    /// value with a comment that says where it came from.
    pub(crate) fn toml(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for Shown { key, value, from } in self.describe() {
            let leaf = match key.split_once('.') {
                Some((of, leaf)) => {
                    if of != section {
                        section = of;
                        out += &format!("\n[{section}]\n");
                    }
                    leaf
                }
                None => key,
            };
            let from = match from {
                Source::Default { .. } => from.to_string(),
                _ => format!("from {from}"),
            };
            // A comment ends at a line break; a file's name may hold one.
            let from: String = from.chars().map(|c| if steers(c) { '?' } else { c }).collect();
            out += &format!("{leaf} = {value} # {from}\n");
        }
        out
    }

    /// The effective configuration as JSON: `{KEY: {"value", "from", "line"}}`.
    pub(crate) fn json(&self) -> serde_json::Value {
        let keys = self.describe().into_iter().map(|shown| {
            let from = json!({
                "value": shown.value,
                "from": shown.from.to_string(),
                "line": shown.from.line(),
            });
            (shown.key.to_owned(), from)
        });
        serde_json::Value::Object(keys.collect())
    }
}

struct Show<'a> {
    config: &'a Config,
    out: Vec<Shown>,
}

impl Visitor for Show<'_> {
    fn key<K: Kind>(
        &mut self,
        name: &'static str,
        field: &mut K::Field,
        _: &dyn Fn(&K::Field) -> Option<String>,
    ) {
        let value = match K::to_toml(field) {
            toml::Value::String(text) if K::SECRET && !text.is_empty() => Secret::MASK.into(),
            value => value,
        };
        self.out.push(Shown { key: name, value, from: self.config.source(name) });
    }
}
