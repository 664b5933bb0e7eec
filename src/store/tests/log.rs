//! Files of what can be had again: cut, damaged, foreign, in the way. None keeps anybody from starting.

use std::{fs, future::poll_fn, path::Path};

use crate::{
    runtime::{Executor, Handle},
    store::{Change, Log, Opened},
};

fn run<F: Future<Output = ()>>(test: impl FnOnce(Handle) -> F) {
    Executor::default().block_on(1, test).unwrap();
}

fn row(n: u8) -> Change {
    (vec![b'k', n], Some(vec![n; 9]))
}

async fn commit(log: &mut Log, changes: Vec<Change>) {
    assert!(log.start(changes));
    assert!(!log.start(Vec::new()), "one at a time");
    poll_fn(|cx| log.poll(cx)).await.unwrap();
}

/// A file of three commits, the last of which ends it.
async fn write(path: &Path, rt: &Handle) -> Vec<u8> {
    let mut log = Log::open(path, rt).unwrap().log;
    commit(&mut log, vec![row(1), row(2)]).await;
    commit(&mut log, vec![row(3), (vec![b'k', 2], None)]).await;
    assert_eq!(log.bytes(), fs::metadata(path).unwrap().len());
    log.close(vec![row(4)]).await;
    fs::read(path).unwrap()
}

fn rows(opened: &Opened) -> Vec<u8> {
    let mut rows: Vec<_> = opened.rows.iter().map(|(key, value)| (key[1], value)).collect();
    rows.sort();
    assert!(rows.iter().all(|(n, value)| **value == vec![*n; 9]), "{rows:?}");
    rows.into_iter().map(|(n, _)| n).collect()
}

#[test]
fn what_was_committed_is_there_in_the_next_run_whether_the_file_was_closed_or_not() {
    run(async |rt| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/topics");
        write(&path, &rt).await;
        let mut opened = Log::open(&path, &rt).unwrap();
        assert_eq!((rows(&opened), &opened.warning), (vec![1, 3, 4], &None));
        assert!(Log::open(&path, &rt).is_err_and(|why| why.contains("cannot lock it")), "it is one node's");
        commit(&mut opened.log, vec![row(5)]).await;
        drop(opened);
        assert_eq!(rows(&Log::open_later(path, &rt).await.unwrap()), [1, 3, 4, 5]);
    });
}

#[test]
fn a_file_that_is_cut_or_damaged_at_any_byte_is_read_or_set_aside_and_written_again() {
    run(async |rt| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("topics");
        let (aside, whole) = (dir.path().join("topics.damaged"), write(&path, &rt).await);
        let mut set_aside = 0;
        let cuts = (0..whole.len()).map(|at| whole[..at].to_vec());
        let flips = (0..whole.len()).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            bytes
        });
        for bytes in cuts.chain(flips) {
            fs::write(&path, &bytes).unwrap();
            let mut opened = Log::open(&path, &rt).unwrap();
            let found = rows(&opened);
            match &opened.warning {
                None => assert!([&[1, 3, 4][..], &[1, 3], &[1, 2], &[]].contains(&&found[..]), "{found:?}"),
                Some(warning) => {
                    assert!(found.is_empty() && warning.contains("is set aside as "), "{warning}");
                    assert_eq!(fs::read(&aside).unwrap(), bytes, "as it was");
                    fs::remove_file(&aside).unwrap();
                    set_aside += 1;
                }
            }
            commit(&mut opened.log, vec![row(9)]).await;
            drop(opened);
            assert!(rows(&Log::open(&path, &rt).unwrap()).contains(&9), "it goes on");
            fs::remove_file(&path).unwrap();
        }
        assert!(set_aside > whole.len(), "{set_aside} of {}", 2 * whole.len());
        // Bytes behind its end are an unfinished commit.
        fs::write(&path, [&whole[..], b"\xa5SF1 and so on"].concat()).unwrap();
        assert_eq!(rows(&Log::open(&path, &rt).unwrap()), [1, 3, 4]);
    });
}

#[test]
fn what_is_in_the_way_is_named_with_what_to_do() {
    run(async |rt| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("topics");
        fs::create_dir(&path).unwrap();
        let why = Log::open(&path, &rt).err().unwrap();
        assert!(
            why.contains("cannot open it: is a directory") && why.contains("hint: put a volume"),
            "{why}"
        );
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "somebody's diary, of no more than these words").unwrap();
        let opened = Log::open(&path, &rt).unwrap();
        assert!(opened.warning.unwrap().contains("holds something else, and is set aside"));
        assert!(fs::read_to_string(dir.path().join("topics.damaged")).unwrap().contains("diary"));
        let why = Log::open(Path::new("/proc/nowhere/topics"), &rt).err().unwrap();
        assert!(why.contains("cannot make its directory"), "{why}");
    });
}
