//! What the fuzz targets in `fuzz/` feed: every parser of this crate that reads what others write.
//!
//! Only there under `--cfg fuzzing`, which cargo-fuzz sets, and in unit tests, which replay `fuzz/corpus/`. Each
//! function takes any bytes, and panics only when something is wrong: a panic below it, a promise that does not
//! hold, or no end within its time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise is a panic")]

use std::{fs, path::PathBuf};

use crate::{
    config::{Config, LoadOptions},
    identity::Identity,
    transport::admission::Keyring,
};

#[cfg(fuzzing)]
pub use crate::transport::fuzz as datagrams;
pub use crate::{dns::fuzz as dns, gateway::fuzz as api, mdns::fuzz as mdns, store::fuzz as stored};

/// A file with these bytes, the same one each time that a target asks.
fn file(target: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("smidge-fuzz-{target}-{}", std::process::id()));
    fs::write(&path, bytes).expect("a temporary file");
    path
}

/// A config file, and after a byte 0 each, what `--set` says. What is taken is checked, printed and
/// read again as the same; what is refused is refused with a message.
pub fn config(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let path = file("config", parts.next().unwrap_or_default());
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
    let path = file("keys", bytes);
    if let Err(error) = Identity::load(&path) {
        assert!(!error.to_string().trim().is_empty());
    }
    if let Err(error) = Keyring::read(&path) {
        assert!(!error.to_string().trim().is_empty());
    }
    assert_eq!(fs::read(path).expect("it is still there"), bytes, "a file that is read is not changed");
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    type Feed = fn(&[u8]);

    /// The targets that are fed here, by the names of their files.
    const HERE: [(&str, Feed); 6] = [
        ("api", super::api::requests),
        ("config", super::config),
        ("dns", super::dns::packet),
        ("keys", super::keys),
        ("mdns", super::mdns::packet),
        ("stored", super::stored::file),
    ];
    /// Those whose corpora crates/transport replays, and crates/gossip, crates/catchup and crates/mqtt.
    const ELSEWHERE: [&str; 6] = ["certificate", "noise", "quic", "gossip", "catchup", "mqtt"];

    fn names(folder: &str) -> BTreeSet<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn each_fuzz_target_is_replayed_and_has_a_corpus() {
        let replayed: BTreeSet<_> =
            HERE.iter().map(|(name, _)| *name).chain(ELSEWHERE).map(str::to_owned).collect();
        assert_eq!(replayed, names("fuzz/fuzz_targets"));
        assert_eq!(replayed, names("fuzz/corpus"));
    }

    #[test]
    fn the_corpus_of_each_fuzz_target_breaks_no_promise() {
        for (name, feed) in HERE {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let mut inputs: Vec<_> =
                fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            inputs.sort();
            assert!(!inputs.is_empty(), "{name} has a corpus");
            for input in inputs {
                // The last line before a panic says which it was.
                eprintln!("{}", input.display());
                feed(&fs::read(&input).unwrap());
            }
        }
    }
}
