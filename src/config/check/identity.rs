//! Where the node's key comes from: one place, and a secret that is long enough.

use super::{Rule, rule};
use crate::{
    config::{Config, Identity, Source},
    identity::SHORTEST_SECRET,
};

impl Config {
    pub(super) fn identity_rules(&self) -> Vec<Rule> {
        let Identity { ephemeral, derive_secret, derive_name, .. } = &self.identity;
        let length = derive_secret.as_ref().map_or(SHORTEST_SECRET, |secret| secret.reveal().len());
        // Of a secret store that gave nothing, the node must not make something up.
        let given = matches!(self.source("identity.derive_secret"), Source::EnvFile { .. });
        vec![
            rule(
                &["identity.derive_secret"],
                given && derive_secret.is_none(),
                "the file is empty".into(),
                &format!("{SHORTEST_SECRET} bytes or more"),
            )
            .hint("make one: openssl rand -hex 32"),
            rule(
                &["identity.derive_secret"],
                length < SHORTEST_SECRET,
                format!("the secret has {length} bytes"),
                &format!("{SHORTEST_SECRET} bytes or more"),
            )
            .hint("make one: openssl rand -hex 32"),
            rule(
                &["identity.derive_secret", "identity.derive_name"],
                derive_secret.is_some() && derive_name.is_none(),
                "all nodes with this secret would have one key".into(),
                "identity.derive_name, too",
            )
            .hint("in a Swarm stack: SMIDGE__IDENTITY__DERIVE_NAME={{.Service.Name}}.{{.Task.Slot}}"),
            rule(
                &["identity.derive_name", "identity.derive_secret"],
                derive_name.is_some() && derive_secret.is_none() && !given,
                "there is no secret to derive a key from".into(),
                "identity.derive_secret, too",
            )
            .hint("set SMIDGE__IDENTITY__DERIVE_SECRET__FILE"),
            rule(
                &["identity.ephemeral"],
                *ephemeral && derive_secret.is_some(),
                "a new key each time, and one derived from identity.derive_secret".into(),
                "one of the two",
            ),
        ]
    }
}
