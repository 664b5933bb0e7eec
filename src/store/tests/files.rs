//! Files that are refused, with the exact errors, and files that are shared, locked and full.

use std::{fs, future::poll_fn, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use libp2p::{
    PeerId,
    kad::{Record, store::RecordStore},
};

use crate::{
    error::chain,
    runtime::{Executor, Handle},
    store::{Limits, Report, Store, StoreError},
};

const LIMITS: Limits = Limits { records: 100, value: 1 << 16, bytes: 1 << 20, providers: 3, peers: 4 };

fn peer() -> PeerId {
    libp2p::identity::Keypair::ed25519_from_bytes([1; 32]).unwrap().public().to_peer_id()
}

fn open(path: &Path, rt: &Handle) -> Result<(Store, Option<String>), StoreError> {
    Store::open(path, peer(), LIMITS, Duration::ZERO, rt)
}

/// Stores records of these keys and closes the file.
async fn write(path: &Path, rt: &Handle, keys: &[&str]) {
    let (mut store, _) = open(path, rt).unwrap();
    for key in keys {
        store.put(Record::new(key.as_bytes().to_vec(), vec![7; 20])).unwrap();
    }
    store.close().await;
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Handle) -> F) {
    Executor::default().block_on(1, test).unwrap();
}

#[test]
fn what_was_stored_is_there_in_the_next_run() {
    run(async |rt| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/records");
        let (mut store, warning) = open(&path, &rt).unwrap();
        assert_eq!(warning, None);
        store.put(Record::new(b"k".to_vec(), b"v".to_vec())).unwrap();
        let sequence = store.sequence();
        assert!(!store.is_durable(sequence), "nothing was written yet");
        let report = poll_fn(|cx| store.poll(cx)).await;
        assert_eq!(report, Report::Durable { sequence, after: 0 });
        assert!(store.is_durable(sequence));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(store); // as after SIGKILL: nothing is closed
        let (store, warning) = open(&path, &rt).unwrap();
        assert_eq!(warning, None);
        assert_eq!(store.get(&b"k".to_vec().into()).unwrap().value, b"v");
        let left: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["records"], "nothing lies beside it");
    });
}

#[test]
fn a_file_that_cannot_be_used_is_refused_in_words_and_left_as_it_is() {
    run(async |rt| {
        let dir = tempfile::tempdir().unwrap();
        let good = dir.path().join("good");
        write(&good, &rt, &["one", "two"]).await;
        let good = fs::read(&good).unwrap();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            bytes
        };
        let newer = with(&|bytes| {
            use sha2::{Digest, Sha256};
            bytes[16] = 2;
            let sum = Sha256::digest(&bytes[..36]);
            bytes[36..52].copy_from_slice(&sum[..16]);
        });
        let cases: [(&str, Vec<u8>, &str, &str); 8] = [
            ("empty", Vec::new(), "is damaged at byte 0: is empty", "restore it from a backup"),
            (
                "garbage",
                b"#!/bin/sh\necho hello\n".to_vec(),
                "holds something else than records of smidge",
                "nothing is yet",
            ),
            (
                "garbage of some length",
                vec![0x5a; 5000],
                "holds something else than records of smidge",
                "nothing is yet",
            ),
            (
                "newer",
                newer,
                "has format 2, and this version of smidge knows none above 1",
                "run the version that wrote it",
            ),
            (
                "cut off in its header",
                good[..100].to_vec(),
                "is damaged at byte 100: is cut off after 100 bytes",
                "restore",
            ),
            ("cut off", good[..good.len() - 1].to_vec(), "bytes had been written", "restore"),
            (
                "a bit of the header",
                with(&|b| b[25] ^= 4),
                "is damaged at byte 0: its header is not as it was written",
                "mv ",
            ),
            (
                "a bit of a record",
                with(&|b| b[128 + 60] ^= 4),
                "is damaged at byte 128: a commit is not as it was written",
                "mv ",
            ),
        ];
        for (what, bytes, why, hint) in cases {
            let path = dir.path().join("bad");
            fs::write(&path, &bytes).unwrap();
            let error = open(&path, &rt).map(|_| ()).expect_err(what);
            let said = chain(&error);
            assert!(said.starts_with(path.to_str().unwrap()) && said.contains(why), "{what}: {said}");
            assert!(error.hint().contains(hint), "{what}: {}", error.hint());
            assert!(error.is_config(), "{what}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "{what} was written to");
        }
    });
}

#[test]
fn a_place_that_cannot_be_used_is_refused_in_words() {
    run(async |rt| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        for (path, why) in [
            (dir.path().to_path_buf(), "cannot open it: is a directory"),
            (file.join("records"), "cannot look at it: Not a directory"),
            (dir.path().join("link"), "is a link to nothing"),
            ("/proc/smidge/records".into(), "cannot make its directory: No such file or directory"),
            ("/dev/null".into(), "cannot open it: is a device, pipe or socket"),
        ] {
            let error = open(&path, &rt).map(|_| ()).expect_err(why);
            let said = chain(&error);
            assert!(said.starts_with(path.to_str().unwrap()) && said.contains(why), "{said}");
            assert!(error.is_config() && error.hint().contains("kad.store = \"memory\""), "{}", error.hint());
        }
    });
}

#[test]
fn a_file_belongs_to_one_node_at_a_time() {
    run(async |rt| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let (mut store, _) = open(&path, &rt).unwrap();
        let refused = || {
            let error = open(&path, &rt).map(|_| ()).unwrap_err();
            assert!(matches!(error, StoreError::InUse(_)) && error.is_config());
            assert_eq!(error.to_string(), format!("{}: another node has this file open", path.display()));
            assert_eq!(error.hint(), "give each node a kad.store of its own");
        };
        refused();
        // Also when it was written anew meanwhile.
        for n in 0..100_u32 {
            store.put(Record::new(b"k".to_vec(), vec![n as u8; 60_000])).unwrap();
            poll_fn(|cx| store.poll(cx)).await;
        }
        assert!(fs::metadata(&path).unwrap().len() < 2 << 20);
        refused();
        store.close().await;
        open(&path, &rt).unwrap();
    });
}

#[test]
fn an_unfinished_commit_at_the_end_is_left_out_and_said() {
    run(async |rt| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        write(&path, &rt, &["one"]).await;
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(b"\xa5SF1 the beginning of a commit");
        fs::write(&path, &bytes).unwrap();
        let (store, warning) = open(&path, &rt).unwrap();
        let said = "the last 30 bytes are an unfinished commit, and were left out";
        assert_eq!(warning, Some(format!("{}: {said}", path.display())));
        assert_eq!(store.records().count(), 1);
    });
}
