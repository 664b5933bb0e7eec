//! Configurations good and bad, and the exact text of each refusal.

use std::{fs, time::Duration};

use super::*;

mod files;
mod layering;
mod refusals;
mod rules;

/// What the file `text` at the path `c.toml` is read as.
fn load(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    fs::write(&path, text).unwrap();
    let mut loaded = Config::load(&LoadOptions { file: Some(path), ..LoadOptions::default() });
    if let Err(error) = &mut loaded {
        error.problems.iter_mut().for_each(|problem| relative(&mut problem.at, dir.path()));
    }
    loaded
}

/// The refusal of the file `text`, as it is displayed.
fn refusal(text: &str) -> String {
    load(text).expect_err(text).to_string()
}

fn relative(at: &mut Source, dir: &Path) {
    if let Source::File { path, .. } | Source::EnvFile { path, .. } = at
        && let Ok(short) = path.strip_prefix(dir)
    {
        *path = short.into();
    }
}

fn env(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
