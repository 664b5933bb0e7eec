//! Which files secrets are read from, and whether others on this machine can read them, too. Looks at the files' modes,
//! not into them.

use std::{os::unix::fs::PermissionsExt, path::Path};

use super::{Config, Source};

/// Where engines mount secrets, for the container alone; Docker's own default mode there is 0444.
const MOUNTED: &str = "/run/secrets/";

impl Config {
    /// Files with secrets that every user of this machine can read, one sentence each. The node's own key is not among
    /// them: opening the file warns ([`Identity::warnings`](crate::identity::Identity::warnings)).
    pub fn exposed_secrets(&self) -> Vec<String> {
        let set = [
            ("identity.derive_secret", self.identity.derive_secret.is_some()),
            ("api.token", self.api.token.is_some()),
        ];
        let sources = set.map(|(key, is_set)| (key, is_set.then(|| self.source(key))));
        let files = sources.iter().filter_map(|(key, source)| match source {
            Some(Source::File { path, .. } | Source::EnvFile { path, .. }) => Some((*key, path.as_path())),
            _ => None,
        });
        let network = self.network.key_file.as_deref().map(|path| ("network.key_file", path));
        files.chain(network).filter_map(|(key, path)| exposed(key, path)).collect()
    }
}

fn exposed(key: &str, path: &Path) -> Option<String> {
    // One that cannot be looked at is found wanting where it is read.
    let mode = path.metadata().ok()?.permissions().mode() & 0o777;
    let is_exposed = mode & 0o004 != 0 && !path.starts_with(MOUNTED);
    is_exposed
        .then(|| format!("{}: {key} can be read by others (mode {mode:03o}): chmod o-rwx it", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;
    use crate::config::LoadOptions;

    #[test]
    fn secrets_that_others_can_read_are_named_with_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        };
        let key = file("keys", "", 0o644);
        let secret = file("secret", "0123456789abcdef\n", 0o640);
        let config = file("config.toml", "[api]\ntoken = \"t\"\n", 0o604);
        let env = |name: &str, value: &Path| (name.into(), value.into());
        let options = LoadOptions {
            file: Some(config.clone()),
            sets: vec!["identity.derive_name=a".into(), format!("network.key_file={}", key.display())],
            env: vec![env("SMIDGE__IDENTITY__DERIVE_SECRET__FILE", &secret)],
            ..Default::default()
        };
        let exposed = || Config::load(&options).unwrap().exposed_secrets();
        let line = |path: &Path, key: &str, mode: &str| {
            format!("{}: {key} can be read by others (mode {mode}): chmod o-rwx it", path.display())
        };
        let first = [line(&config, "api.token", "604"), line(&key, "network.key_file", "644")];
        assert_eq!(exposed(), first);
        for path in [&config, &key] {
            fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
        }
        assert_eq!(exposed(), [""; 0], "a group may be the node's own");
        fs::set_permissions(&secret, Permissions::from_mode(0o444)).unwrap();
        assert_eq!(exposed(), [line(&secret, "identity.derive_secret", "444")]);
        assert_eq!(Config::default().exposed_secrets(), [""; 0]);
    }
}
