//! The journal on a disk that loses power, fills up, lies and decays.
//!
//! The disk here keeps what was written since the last sync apart: a crash keeps any part of it.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;

use crate::store::{
    Change,
    journal::{Contents, Disk, FIRST, Fault, Journal},
};

type Bytes = Vec<u8>;
type Held = HashMap<Bytes, Bytes>;

/// What is on the platter, and what still is on its way there.
#[derive(Clone, Debug, Default)]
struct Platter {
    durable: Bytes,
    written: Bytes,
    /// A file that is being written beside it, the same way.
    beside: (Bytes, Bytes),
    /// A rename that is not on the disk yet: what was there before.
    before: Option<Bytes>,
    /// Operations until one fails; it and all later ones do.
    fuse: Option<usize>,
    /// Bytes that fit, in both files together.
    room: Option<usize>,
    /// The next sync fails, once; from then on the file's syncs say that they are done, and are not.
    bad_sync: bool,
    lost: bool,
}

impl Platter {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// A file of the platter; the one that is read, or the one beside it.
#[derive(Clone, Debug)]
struct Ram(Arc<Mutex<Platter>>, bool);

impl Ram {
    fn new(bytes: Bytes) -> Self {
        let platter = Platter { durable: bytes.clone(), written: bytes, ..Platter::default() };
        Self(Arc::new(Mutex::new(platter)), false)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Bytes, &mut Bytes) -> T) -> T {
        let mut platter = self.0.lock().unwrap();
        let Platter { durable, written, beside, .. } = &mut *platter;
        if self.1 { work(&mut beside.0, &mut beside.1) } else { work(durable, written) }
    }

    /// The file as a crash leaves it: of what was not synced, the first `kept` bytes that differ in
    /// length or content made it; `renamed` says whether a rename did.
    fn crash(&self, kept: usize, renamed: bool) -> Bytes {
        let platter = self.0.lock().unwrap();
        if let Some(before) = platter.before.clone().filter(|_| !renamed) {
            return before;
        }
        let mut bytes = platter.durable.clone();
        let written = &platter.written;
        let mut left = kept;
        for i in 0..written.len() {
            if left == 0 {
                break;
            }
            if bytes.get(i) != Some(&written[i]) {
                left -= 1;
                bytes.resize(bytes.len().max(i + 1), 0);
                bytes[i] = written[i];
            }
        }
        bytes
    }
}

impl Disk for Ram {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|_, written| written.len() as u64))
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = at as usize;
        self.with(|_, written| match written.get(at..at + buf.len()) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().step()?;
        let platter = self.0.lock().unwrap();
        let other = if self.1 { platter.written.len() } else { platter.beside.1.len() };
        let room = platter.room.map_or(usize::MAX, |room| room.saturating_sub(other));
        drop(platter);
        self.with(|_, written| {
            let end = at as usize + bytes.len();
            let fits = end.min(room.max(written.len()));
            written.resize(written.len().max(fits), 0);
            let part = fits.saturating_sub(at as usize).min(bytes.len());
            written[at as usize..at as usize + part].copy_from_slice(&bytes[..part]);
            if fits < end { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().step()?;
        self.with(|_, written| written.truncate(len as usize));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().step()?;
        let mut platter = self.0.lock().unwrap();
        if std::mem::take(&mut platter.bad_sync) {
            platter.lost = true;
            return Err(io::Error::other("input/output error"));
        }
        if platter.lost && !self.1 {
            return Ok(());
        }
        drop(platter);
        self.with(|safe, written| safe.clone_from(written));
        Ok(())
    }

    fn fresh(&self) -> io::Result<Self> {
        self.0.lock().unwrap().step()?;
        self.0.lock().unwrap().beside = Default::default();
        Ok(Self(self.0.clone(), true))
    }

    fn install(&mut self) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        if self.1 {
            platter.before = Some(platter.durable.clone());
            (platter.durable, platter.written) = std::mem::take(&mut platter.beside);
            self.1 = false;
            platter.lost = false;
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        platter.before = None;
        Ok(())
    }
}

impl Drop for Ram {
    /// What never took the other's place is removed.
    fn drop(&mut self) {
        if self.1 {
            self.0.lock().unwrap().beside = Default::default();
        }
    }
}

fn created() -> (Journal<Ram>, Ram) {
    let mut disk = Ram::new(Vec::new());
    let beside = disk.fresh().unwrap();
    let journal = Journal::create(beside).unwrap();
    disk.1 = false;
    (journal, disk)
}

fn opened(bytes: Bytes) -> Result<(Journal<Ram>, Contents), Fault> {
    Journal::open(Ram::new(bytes))
}

fn held(bytes: Bytes) -> Result<Held, Fault> {
    opened(bytes).map(|(_, contents)| contents.entries)
}

fn change(key: u8, value: Option<&[u8]>) -> Change {
    (vec![key], value.map(<[u8]>::to_vec))
}

fn apply(model: &mut HashMap<Bytes, Bytes>, changes: &[Change]) {
    for (key, value) in changes {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}

fn batch() -> impl Strategy<Value = Vec<Change>> {
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    prop::collection::btree_map(0..12_u8, value, 0..6)
        .prop_map(|map: BTreeMap<_, _>| map.into_iter().map(|(key, value)| (vec![key], value)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// The power fails at any operation, and any part of what was not synced reaches the platter.
    #[test]
    fn after_a_crash_at_any_moment_every_confirmed_commit_is_there_and_none_by_halves(
        batches in prop::collection::vec((batch(), any::<bool>()), 1..12),
        fuse in 0..60_usize,
        kept in prop_oneof![Just(usize::MAX), 0..300_usize],
        renamed: bool,
    ) {
        let (mut journal, disk) = created();
        disk.0.lock().unwrap().fuse = Some(fuse);
        let mut confirmed = HashMap::new();
        let mut maybe = None;
        for (batch, anew) in batches {
            let mut next = confirmed.clone();
            apply(&mut next, &batch);
            let done = if anew { journal.rewrite(&batch) } else { journal.commit(&batch) };
            match done {
                Ok(()) => confirmed = next,
                Err(_) => {
                    maybe = Some(next);
                    break;
                }
            }
        }
        let found = held(disk.crash(kept, renamed));
        let found = found.map_err(|fault| TestCaseError::fail(format!("{fault:?}")))?;
        prop_assert!(found == confirmed || Some(&found) == maybe.as_ref(), "{found:?} {confirmed:?} {maybe:?}");
    }

    #[test]
    fn what_was_committed_is_read_again_and_can_be_gone_on_with(
        batches in prop::collection::vec((batch(), any::<bool>(), any::<bool>()), 0..12),
    ) {
        let (mut journal, disk) = created();
        let mut model = HashMap::new();
        for (batch, anew, reopen) in batches {
            if anew { journal.rewrite(&batch) } else { journal.commit(&batch) }.unwrap();
            apply(&mut model, &batch);
            if reopen {
                drop(journal);
                journal = Journal::open(disk.clone()).unwrap().0;
            }
        }
        prop_assert_eq!(held(disk.crash(0, true)).unwrap(), model);
    }
}

/// A journal of four commits, and what each of them left.
fn four_commits() -> (Bytes, Vec<(usize, Held)>) {
    let (mut journal, disk) = created();
    let (mut model, mut states) = (HashMap::new(), vec![(FIRST as usize, HashMap::new())]);
    let commits: [&[Change]; 4] = [
        &[change(1, Some(b"one")), change(2, Some(b"two"))],
        &[change(3, Some(b"three"))],
        &[change(1, None), change(2, Some(b"second"))],
        &[change(4, Some(b"four"))],
    ];
    for changes in commits {
        journal.commit(changes).unwrap();
        apply(&mut model, changes);
        states.push((journal.len() as usize, model.clone()));
    }
    (disk.crash(0, true), states)
}

#[test]
fn cut_off_anywhere_it_holds_the_commits_that_are_whole() {
    let (bytes, states) = four_commits();
    for len in FIRST as usize..=bytes.len() {
        let (_, expected) = states.iter().rev().find(|(end, _)| *end <= len).unwrap();
        assert_eq!(held(bytes[..len].to_vec()).unwrap(), *expected, "{len} bytes");
    }
    for len in 0..FIRST as usize {
        let fault = held(bytes[..len].to_vec()).unwrap_err();
        assert!(matches!(fault, Fault::Damaged { .. }), "{len} bytes: {fault:?}");
    }
}

#[test]
fn a_bit_that_flipped_anywhere_is_noticed_or_costs_the_unconfirmed_end_at_most() {
    let (bytes, states) = four_commits();
    let (whole, last) = (&states[4].1, states[3].0);
    let mut refused = 0;
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let disk = Ram::new(flipped.clone());
        match Journal::open(disk.clone()) {
            // The zeros of the header and one of the two floors decide nothing.
            Ok((_, contents)) if bit / 8 < FIRST as usize => assert_eq!(contents.entries, *whole),
            // As after a crash in the middle of the last commit: nothing distinguishes the two.
            Ok((_, contents)) => {
                assert!(bit / 8 >= last, "bit {bit} was not noticed");
                assert_eq!(contents.entries, states[3].1);
            }
            Err(fault) => {
                refused += 1;
                assert!(matches!(fault, Fault::Damaged { .. } | Fault::Foreign), "bit {bit}: {fault:?}");
                assert_eq!(disk.crash(usize::MAX, true), flipped, "bit {bit}: it was written to");
            }
        }
    }
    assert!(refused > (last - FIRST as usize) * 8);
}

#[test]
fn once_closed_or_opened_again_its_last_commit_is_no_longer_taken_for_unfinished() {
    let (bytes, states) = four_commits();
    let disk = Ram::new(bytes);
    drop(Journal::open(disk.clone()).unwrap());
    let bytes = disk.crash(0, true);
    for len in [states[3].0, bytes.len() - 1] {
        assert!(matches!(held(bytes[..len].to_vec()), Err(Fault::Damaged { .. })), "{len} bytes");
    }
    let mut flipped = bytes;
    *flipped.last_mut().unwrap() ^= 1;
    assert!(matches!(held(flipped), Err(Fault::Damaged { .. })));
}

#[test]
fn a_value_cannot_pass_for_a_frame() {
    let (mut journal, disk) = created();
    // The second commit holds all of the first one's bytes, and is torn.
    journal.commit(&[change(1, Some(b"one"))]).unwrap();
    let first = disk.crash(0, true)[FIRST as usize..].to_vec();
    let end = journal.len() as usize;
    journal.commit(&[change(2, Some(&first.repeat(3)))]).unwrap();
    let bytes = disk.crash(0, true);
    for len in end..bytes.len() {
        let found = held(bytes[..len].to_vec()).unwrap();
        assert_eq!(found, [(vec![1], b"one".to_vec())].into(), "{len} bytes");
    }
}

#[test]
fn a_full_disk_fails_commits_until_there_is_room() {
    let (mut journal, disk) = created();
    journal.commit(&[change(1, Some(b"one"))]).unwrap();
    let len = journal.len() as usize;
    for room in len..len + 50 {
        disk.0.lock().unwrap().room = Some(room);
        let error = journal.commit(&[change(2, Some(&[7; 100]))]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(held(disk.crash(usize::MAX, true)).unwrap(), [(vec![1], b"one".to_vec())].into());
    }
    disk.0.lock().unwrap().room = None;
    journal.commit(&[change(2, Some(&[7; 100]))]).unwrap();
    let found = held(disk.crash(0, true)).unwrap();
    assert_eq!(found, [(vec![1], b"one".to_vec()), (vec![2], vec![7; 100])].into());
}

#[test]
fn a_sync_that_failed_is_not_believed_the_next_time() {
    let (mut journal, disk) = created();
    journal.commit(&[change(1, Some(b"one"))]).unwrap();
    disk.0.lock().unwrap().bad_sync = true;
    journal.commit(&[change(2, Some(b"two"))]).unwrap_err();
    journal.commit(&[change(2, Some(b"two"))]).unwrap();
    let found = held(disk.crash(0, true)).unwrap();
    assert_eq!(found, [(vec![1], b"one".to_vec()), (vec![2], b"two".to_vec())].into());
}

#[test]
fn a_file_that_is_written_to_again_and_again_stays_small() {
    let (mut journal, disk) = created();
    for n in 0..4000_u32 {
        journal.commit(&[change(1, Some(&[n as u8; 1000])), change(n as u8, Some(b"x"))]).unwrap();
    }
    assert!(journal.len() < (1 << 20) + 4096, "{} bytes", journal.len());
    let found = held(disk.crash(0, true)).unwrap();
    assert_eq!(found.len(), 256);
}

#[test]
fn a_full_disk_in_the_middle_of_writing_anew_loses_nothing() {
    let (mut journal, disk) = created();
    let value = vec![9; 300_000];
    (1..4).for_each(|key| journal.commit(&[change(key, Some(&value))]).unwrap());
    journal.commit(&[change(1, None), change(2, None)]).unwrap();
    journal.commit(&[change(4, Some(&value))]).unwrap();
    // Large enough, and more than half of it out of date; no room for a new file, but for a frame.
    disk.0.lock().unwrap().room = Some(journal.len() as usize + 200);
    let before = journal.len();
    assert!(before > 1 << 20);
    journal.commit(&[change(5, Some(b"five"))]).unwrap();
    assert!(journal.len() > before, "it was written anew");
    let found = held(disk.crash(0, true)).unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(found[&vec![3]], value);
    assert_eq!(found[&vec![5]], b"five");
}
