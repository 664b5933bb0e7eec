//! Commits changes of the memtable to the journal, one batch at a time, as blocking work off the event loop.

use std::{
    io,
    path::{Path, PathBuf},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt};

use super::{
    Change, FileStatus, Report, Sequence, StoreError,
    disk::{DiskFile, Failed, OpenFile},
    format::{Moment, Row},
    journal::{FIRST, Fault, Journal},
    memtable::Memtable,
};
use crate::runtime::{self, Handle, Timer};

/// First pause after a commit that failed; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A clock that moved this far from where it should be was set.
const CLOCK_SET: Duration = Duration::from_secs(60);

/// See the module's documentation.
pub(super) struct Writer {
    path: PathBuf,
    runtime: Handle,
    timer: Box<dyn Timer>,
    /// Least time between the starts of two commits.
    every: Duration,
    /// Here unless a commit is under way, or was lost with the runtime.
    journal: Option<Journal<DiskFile>>,
    pending: Option<PendingCommit>,
    durable: Sequence,
    /// When the next commit may begin.
    next: Instant,
    failures: u32,
    status: FileStatus,
    /// When this run began, on both clocks.
    began: Moment,
}

struct PendingCommit {
    rows: Vec<Row>,
    sequence: Sequence,
    done: BoxFuture<'static, (Option<Journal<DiskFile>>, io::Result<()>)>,
}

impl Writer {
    /// Opens the file at `path`, made if there is none, and takes what is in it into `memtable`; and a warning for the
    /// operator, if any.
    pub(super) fn open(
        path: &Path,
        memtable: &mut Memtable,
        every: Duration,
        runtime: &Handle,
    ) -> Result<(Self, Option<String>), StoreError> {
        let found = DiskFile::open_or_create(path).map_err(|failed| not_opened(path, failed))?;
        let now = Moment::now();
        let mut warning = None;
        let journal = match found {
            OpenFile::Created(file) => {
                Journal::create(file).map_err(|error| not_opened(path, ("make it", error)))?
            }
            OpenFile::Existing(file) => {
                let opened = Journal::open(file).and_then(|(journal, contents)| {
                    let why = || "a record cannot be read".to_owned();
                    let unreadable = || Fault::Damaged { at: FIRST, why: why() };
                    memtable.load(contents.entries, now).ok_or_else(unreadable)?;
                    Ok((journal, contents.torn))
                });
                let (journal, torn) = opened.map_err(|fault| not_read(path, fault))?;
                warning = (torn > 0).then(|| {
                    let path = path.display();
                    format!("{path}: the last {torn} bytes are an unfinished commit, and were left out")
                });
                journal
            }
        };
        Ok((Self::new(path.into(), journal, every, runtime, now), warning))
    }

    fn new(
        path: PathBuf,
        journal: Journal<DiskFile>,
        every: Duration,
        runtime: &Handle,
        now: Moment,
    ) -> Self {
        Self {
            path,
            timer: runtime.timer(),
            runtime: runtime.clone(),
            every,
            status: FileStatus { bytes: journal.len(), ..FileStatus::default() },
            journal: Some(journal),
            pending: None,
            durable: Sequence(0),
            next: now.now,
            failures: 0,
            began: now,
        }
    }

    /// Drops expired entries and commits changes, one batch at a time.
    pub(super) fn poll(&mut self, memtable: &mut Memtable, cx: &mut Context<'_>) -> Poll<Report> {
        loop {
            if let Some(pending) = &mut self.pending {
                let (journal, result) = ready!(pending.done.poll_unpin(cx));
                if let Some(pending) = self.pending.take() {
                    return Poll::Ready(self.finish_commit(pending, journal, result, memtable));
                }
            }
            let now = Moment::now();
            memtable.expire(now.now);
            self.watch_clock(now, memtable);
            let due = if memtable.unwritten() > 0 { Some(self.next) } else { memtable.next_expiry() };
            if due.is_none_or(|due| due > now.now) {
                self.timer.set(due);
                ready!(self.timer.poll(cx));
                continue;
            }
            self.start_commit(now, memtable);
            if self.pending.is_none() {
                return Poll::Pending; // the runtime has ended
            }
        }
    }

    /// The last change that is on the disk.
    pub(super) fn durable(&self) -> Sequence {
        self.durable
    }

    /// Why the last commit failed, if it did.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.status.last_error.as_deref()
    }

    pub(super) fn place(&self) -> String {
        self.path.display().to_string()
    }

    /// How the file stands, with so many rows that no commit has taken up yet.
    pub(super) fn status(&self, unwritten: usize) -> FileStatus {
        let under_way = self.pending.as_ref().map_or(0, |pending| pending.rows.len());
        FileStatus { unsynced: unwritten + under_way, ..self.status.clone() }
    }

    /// Writes `changes`, and an end.
    pub(super) async fn close(mut self, changes: Vec<Change>) {
        let mut journal = self.journal.take();
        if let Some(pending) = self.pending.take() {
            // If it failed, nothing in it was acknowledged.
            (journal, _) = pending.done.await;
        }
        let Some(mut journal) = journal else { return };
        let close = move || {
            if !changes.is_empty() {
                journal.commit(&changes)?;
            }
            // A frame with nothing in it: whatever is before it was finished.
            journal.commit(&[])?;
            journal.raise_floor()
        };
        if let Ok(Err(error)) = self.runtime.unblock(close).await {
            log::warn!(target: "smidge", "{}: not closed in good order: {error}", self.path.display());
        }
    }

    /// Starts a commit of all changes since the last one.
    fn start_commit(&mut self, now: Moment, memtable: &mut Memtable) {
        let Some(mut journal) = self.journal.take() else { return };
        let sequence = Sequence(memtable.changes());
        let (rows, changes) = memtable.take_changes(now);
        self.next = now.now + self.every;
        let runtime = self.runtime.clone();
        let done = async move {
            let work = move || {
                let result = journal.commit(&changes);
                (journal, result)
            };
            match runtime.unblock(work).await {
                Ok((journal, result)) => (Some(journal), result),
                Err(error) => (None, Err(error)),
            }
        };
        self.pending = Some(PendingCommit { rows, sequence, done: done.boxed() });
    }

    fn finish_commit(
        &mut self,
        pending: PendingCommit,
        journal: Option<Journal<DiskFile>>,
        result: io::Result<()>,
        memtable: &mut Memtable,
    ) -> Report {
        self.status.bytes = journal.as_ref().map_or(self.status.bytes, Journal::len);
        self.journal = journal;
        match result {
            Ok(()) => {
                self.status.commits += 1;
                self.status.changes += pending.rows.len() as u64;
                self.status.last_error = None;
                self.durable = pending.sequence;
                Report::Durable { sequence: pending.sequence, after: std::mem::take(&mut self.failures) }
            }
            Err(error) => {
                memtable.restore_changes(pending.rows);
                self.status.failures += 1;
                let retry_in = RETRY_MAX.min(RETRY_MIN * 2_u32.saturating_pow(self.failures));
                self.failures = self.failures.saturating_add(1);
                self.next = runtime::now() + retry_in;
                let why = format!("{}: {error}", self.path.display());
                let repeated = self.status.last_error.replace(why.clone()).as_ref() == Some(&why);
                Report::Failed { why, retry_in, repeated }
            }
        }
    }

    /// A clock that is set while the node runs (a Pi has none until it has asked for the time) makes
    /// what is written so far look older or younger than it is.
    fn watch_clock(&mut self, now: Moment, memtable: &mut Memtable) {
        let expected = self.began.unix + now.now.saturating_duration_since(self.began.now);
        if expected.abs_diff(now.unix) > CLOCK_SET {
            self.began = now;
            memtable.redate();
        }
    }
}

fn not_opened(path: &Path, (doing, source): Failed) -> StoreError {
    let path = path.into();
    match source.kind() {
        io::ErrorKind::WouldBlock => StoreError::InUse(path),
        _ => StoreError::Io { path, doing, source },
    }
}

fn not_read(path: &Path, fault: Fault) -> StoreError {
    let path = path.into();
    match fault {
        Fault::Foreign => StoreError::Foreign(path),
        Fault::Newer(format) => StoreError::Newer { path, format },
        Fault::Damaged { at, why } => StoreError::Damaged { path, at, why },
        Fault::Io(source) => StoreError::Io { path, doing: "read it", source },
    }
}
