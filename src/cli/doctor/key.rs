//! The node's key: there, readable by its owner only, or derivable, or makeable. And the network's keys,
//! where the mesh is private.

use std::path::PathBuf;

use libp2p::PeerId;

use super::{finding::Finding, paths};
use crate::{
    config::Config,
    error::chain,
    identity::{Identity, IdentityError, Origin},
    transport::admission::{KeyFileError, Keyring},
};

const CHECK: &str = "identity.key";

/// The finding, and the node's peer id where it is known.
pub(super) fn check(config: &Config) -> (Finding, Option<PeerId>) {
    let identity = &config.identity;
    let derived = identity.derive_secret.is_some() || identity.derive_name.is_some();
    let loaded = if identity.ephemeral || derived {
        // Neither reads nor makes a file.
        identity.open()
    } else {
        Identity::load(&identity.key_file)
    };
    let peer = loaded.as_ref().ok().map(Identity::peer_id);
    let can_make = paths::can_make(&identity.key_file);
    // An ephemeral one is another each time.
    let peer = peer.filter(|_| derived || !identity.ephemeral);
    (judge(&loaded, can_make), peer)
}

/// The finding about the network's keys; none where the mesh is open.
pub(super) fn network(config: &Config) -> Option<Finding> {
    config.network.key_file.as_deref().map(|file| judge_network(&Keyring::read(file)))
}

/// Files with secrets that others can read.
pub(super) fn secrets(config: &Config) -> Vec<Finding> {
    let exposed = config.exposed_secrets().into_iter();
    let advice =
        "what every user of this machine can read is no secret; make a new one where somebody may have";
    exposed.map(|found| Finding::warn("identity.secrets", "secrets", found, advice)).collect()
}

fn judge_network(read: &Result<Keyring, KeyFileError>) -> Finding {
    let (check, subject) = ("network.key", "network key");
    match read {
        Ok(keys) => {
            let found =
                format!("{}: the first is used, the same on all nodes", keys.fingerprints().join(", "));
            match keys.left_out() {
                None => Finding::ok(check, subject, found),
                Some(left_out) => {
                    let advice = "mend or remove these lines, and send SIGHUP to the node";
                    Finding::warn(check, subject, format!("{found}; {left_out}"), advice)
                }
            }
        }
        Err(error) => {
            let advice = "make one with smidge key network FILE, or copy that of another node";
            Finding::fail(check, subject, chain(error), advice)
        }
    }
}

fn judge(loaded: &Result<Identity, IdentityError>, can_make: Result<(), (PathBuf, String)>) -> Finding {
    let subject = "key";
    match loaded {
        Ok(identity) => match (identity.origin(), identity.warnings()) {
            (_, [warning, ..]) => {
                Finding::warn(CHECK, subject, warning, "chmod 600 it; whoever read it can be this node")
            }
            (Origin::Ephemeral, _) => Finding::ok(CHECK, subject, "ephemeral: another peer id at each start"),
            (Origin::Derived(name), _) => {
                Finding::ok(CHECK, subject, format!("derived for {name}: {}", identity.peer_id()))
            }
            (Origin::Loaded(path) | Origin::Created(path), _) => {
                Finding::ok(CHECK, subject, format!("{}: {}", path.display(), identity.peer_id()))
            }
        },
        Err(error @ IdentityError::Missing(path)) => match can_make {
            Ok(()) => Finding::ok(CHECK, subject, format!("{}: made on first start", path.display())),
            Err((dir, why)) => Finding::fail(
                CHECK,
                subject,
                format!("{error}, and none can be made: {} {why}", dir.display()),
                format!(
                    "put a volume that this user may write to at {}, or set identity.ephemeral = true",
                    dir.display()
                ),
            ),
        },
        Err(error) => Finding::fail(CHECK, subject, chain(error), error.hint()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

    use super::{super::finding::Verdict, *};

    #[test]
    fn the_network_s_keys_have_to_be_readable() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        let mut config = Config::default();
        assert!(network(&config).is_none());
        config.network.key_file = Some(file.clone());
        assert_eq!(network(&config).unwrap().verdict, Verdict::Fail);
        let key = crate::transport::admission::NetworkKey::generate().unwrap();
        fs::write(&file, key.encode().as_str()).unwrap();
        let finding = network(&config).unwrap();
        assert_eq!(finding.verdict, Verdict::Ok);
        assert!(finding.found.contains(&key.fingerprint()), "{}", finding.found);
        fs::write(&file, format!("smidge-network-key-1:?\n{}", *key.encode())).unwrap();
        let finding = network(&config).unwrap();
        assert_eq!(finding.verdict, Verdict::Warn);
        let words = format!("{}: left out: line 1 is not base64", file.display());
        assert!(
            finding.found.starts_with(&key.fingerprint()) && finding.found.ends_with(&words),
            "{}",
            finding.found
        );
    }

    #[test]
    fn every_kind_of_key_has_its_verdict() {
        let missing = || Err(IdentityError::Missing("/k".into()));
        let io = IdentityError::Io {
            path: "/k".into(),
            doing: "open it",
            source: io::ErrorKind::PermissionDenied.into(),
        };
        let no = || Err((PathBuf::from("/"), "cannot be written to: Permission denied".to_owned()));
        for (loaded, can_make, expected) in [
            (Ok(Identity::ephemeral()), Ok(()), Verdict::Ok),
            (Identity::derive(b"a secret of 16 b", "peer.1"), no(), Verdict::Ok),
            (Identity::derive(b"short", "peer.1"), Ok(()), Verdict::Fail),
            (Identity::derive(b"a secret of 16 b", ""), Ok(()), Verdict::Fail),
            (missing(), Ok(()), Verdict::Ok),
            (missing(), no(), Verdict::Fail),
            (Err(io), Ok(()), Verdict::Fail),
            (Err(IdentityError::NotAFile { path: "/k".into(), what: "a directory" }), Ok(()), Verdict::Fail),
        ] {
            let finding = judge(&loaded, can_make);
            assert_eq!(finding.verdict, expected, "{finding:?}");
            assert_eq!(finding.advice.is_some(), expected != Verdict::Ok, "{finding:?}");
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_worth_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        Identity::create(&path).unwrap();
        let look = |path: &Path| judge(&Identity::load(path), Ok(())).verdict;
        assert_eq!(look(&path), Verdict::Ok);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(look(&path), Verdict::Warn);
    }
}
