//! What the fuzz targets in `fuzz/` feed: every parser of this crate that reads what others write.
//!
//! Only there under `--cfg fuzzing`, which cargo-fuzz sets. Each function takes any bytes, and panics only
//! when something is wrong: a panic below it, a promise that does not hold, or no end within its time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise is told by a panic")]

use std::{fs, path::PathBuf};

use crate::{
    config::{Config, LoadOptions},
    identity::Identity,
    transport::admission::Keyring,
};

pub use crate::{
    dns::fuzz as dns, gateway::fuzz as api, mdns::fuzz as mdns, store::fuzz as stored,
    transport::fuzz as datagrams,
};

/// A file with these bytes, the same one each time.
fn file(bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("smidge-fuzz-{}", std::process::id()));
    fs::write(&path, bytes).expect("a temporary file");
    path
}

/// A config file, and after a byte 0 each, what `--set` says. What is taken is checked, printed and
/// read again as the same; what is refused is refused in words.
pub fn config(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let path = file(parts.next().unwrap_or_default());
    let sets = parts.take(8).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    let options = LoadOptions { file: Some(path), sets, ..LoadOptions::default() };
    match Config::load(&options) {
        Ok(config) => {
            config.check().expect("what was loaded has been checked");
            let _ = format!("{config:?}");
        }
        Err(error) => assert!(!error.to_string().trim().is_empty()),
    }
}

/// A key file of a node, and one of a network's keys.
pub fn keys(bytes: &[u8]) {
    let path = file(bytes);
    if let Err(error) = Identity::load(&path) {
        assert!(!error.to_string().trim().is_empty());
    }
    if let Err(error) = Keyring::read(&path) {
        assert!(!error.to_string().trim().is_empty());
    }
    assert_eq!(fs::read(path).expect("it is still there"), bytes, "a file that is read is not changed");
}
