//! What a node keeps for the hash table: records, provider entries, and the peers it has met.
//!
//! kad asks and changes its store from within the event loop, so an image in memory answers
//! ([`RecordStore`]). Where a file is named, every change also goes to a journal there: whoever polls
//! the [`Store`] has the changes since the last time written as one batch, with one fsync, where
//! blocking work is done. A [`Mark`] tells what is on the disk: who promises something to somebody
//! waits until the mark that stood at that moment is [safe](Store::is_safe).
//!
//! While the disk takes nothing, nothing new is stored; what was stored and not yet written is tried
//! again, and nobody is told that it is safe. The file is never replaced by anything less than itself.
//!
//! Decides nothing about who holds which record, and knows nothing of the network.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt};
use libp2p::{
    Multiaddr, PeerId,
    kad::{self, ProviderRecord, Record, RecordKey, store::RecordStore},
};
use serde::Serialize;

use crate::runtime::{Handle, Timer};

mod disk;
mod error;
mod format;
mod image;
mod journal;
#[cfg(test)]
mod tests;

use disk::{DiskFile, Found};
pub use error::StoreError;
use format::{Moment, Row};
use image::Image;
use journal::Journal;

/// First pause after a commit that failed; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A clock that moved this far from where it should be was set.
const CLOCK_SET: Duration = Duration::from_secs(60);

/// How much is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records; keys with providers.
    pub records: usize,
    /// Bytes of a record's value.
    pub value: usize,
    /// Bytes of all records and provider entries, each with 128 for itself.
    pub bytes: usize,
    /// Providers of one key.
    pub providers: usize,
    /// Known peers.
    pub peers: usize,
}

/// A point in the history of a store: everything that was stored until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Everything up to this mark is on the disk; `after` that many failures in a row.
    Safe {
        /// Up to where.
        mark: Mark,
        /// Failed commits since the last one that succeeded.
        after: u32,
    },
    /// It failed, and is tried again. Until it succeeds nothing new is stored.
    Failed {
        /// Why, with the file's name.
        why: String,
        /// When it is tried again.
        retry_in: Duration,
        /// Whether the last one failed in the same way.
        repeated: bool,
    },
}

/// A store at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreStatus {
    /// Where records are kept: `memory`, or the file.
    pub place: String,
    /// Records.
    pub records: usize,
    /// Provider entries.
    pub providers: usize,
    /// Known peers.
    pub known_peers: usize,
    /// Bytes of records and provider entries, as they count against `kad.max_bytes`.
    pub bytes: usize,
    /// Records and provider entries that were refused: too large, too many, or no room on the disk.
    pub refused: u64,
    /// The file; nothing in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileStatus>,
}

/// The file of a store at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileStatus {
    /// Its length.
    pub bytes: u64,
    /// Changes that are not on the disk yet.
    pub unsynced: usize,
    /// Commits, each with one fsync or more.
    pub commits: u64,
    /// Changes committed.
    pub changes: u64,
    /// Commits that failed.
    pub failures: u64,
    /// Why the last commit failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// See the module's documentation.
pub struct Store {
    image: Image,
    keeper: Option<Keeper>,
}

/// Writes what changed to the journal.
struct Keeper {
    path: PathBuf,
    runtime: Handle,
    timer: Box<dyn Timer>,
    /// The shortest time between the beginnings of two commits.
    every: Duration,
    /// Here unless a commit is under way, or was lost with the runtime.
    journal: Option<Journal<DiskFile>>,
    flight: Option<Flight>,
    safe: Mark,
    /// When the next commit may begin.
    next: Instant,
    failures: u32,
    status: FileStatus,
    /// When this run began, on both clocks.
    began: Moment,
}

struct Flight {
    rows: Vec<Row>,
    mark: Mark,
    done: BoxFuture<'static, (Option<Journal<DiskFile>>, io::Result<()>)>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("counts", &self.image.counts()).finish_non_exhaustive()
    }
}

impl Store {
    /// A store that keeps everything in memory.
    pub fn memory(local: PeerId, limits: Limits) -> Self {
        Self { image: Image::new(local, limits, false), keeper: None }
    }

    /// A store in the file at `path`, made if there is none, and what an operator should hear of it.
    /// Commits begin at least `every` after each other. Blocks until all of the file is read.
    ///
    /// # Errors
    /// [`StoreError`]; the file stays as it is.
    pub fn open(
        path: &Path,
        local: PeerId,
        limits: Limits,
        every: Duration,
        runtime: &Handle,
    ) -> Result<(Self, Option<String>), StoreError> {
        let found = DiskFile::find(path).map_err(|failed| StoreError::failed(path.into(), failed))?;
        let (mut image, now) = (Image::new(local, limits, true), Moment::now());
        let mut warning = None;
        let journal = match found {
            Found::New(file) => {
                Journal::create(file).map_err(|error| StoreError::failed(path.into(), ("make it", error)))?
            }
            Found::Old(file) => {
                let opened = Journal::open(file).and_then(|(journal, contents)| {
                    let why = || "a record cannot be read".to_owned();
                    let unreadable = || journal::Fault::Damaged { at: journal::FIRST, why: why() };
                    image.load(contents.entries, now).ok_or_else(unreadable)?;
                    Ok((journal, contents.torn))
                });
                let (journal, torn) = opened.map_err(|fault| StoreError::fault(path.into(), fault))?;
                warning = (torn > 0).then(|| {
                    let path = path.display();
                    format!("{path}: the last {torn} bytes are an unfinished commit, and were left out")
                });
                journal
            }
        };
        let keeper = Keeper {
            path: path.into(),
            timer: runtime.timer(),
            runtime: runtime.clone(),
            every,
            status: FileStatus { bytes: journal.len(), ..FileStatus::default() },
            journal: Some(journal),
            flight: None,
            safe: Mark(0),
            next: now.now,
            failures: 0,
            began: now,
        };
        Ok((Self { image, keeper: Some(keeper) }, warning))
    }

    /// Everything stored so far.
    pub fn mark(&self) -> Mark {
        Mark(self.image.changes())
    }

    /// Whether everything up to `mark` is where it is to be kept.
    pub fn is_safe(&self, mark: Mark) -> bool {
        self.keeper.as_ref().is_none_or(|keeper| mark <= keeper.safe)
    }

    /// Why nothing new is stored, if the last commit failed.
    pub fn trouble(&self) -> Option<&str> {
        self.keeper.as_ref().and_then(|keeper| keeper.status.last_error.as_deref())
    }

    /// Drops what has expired and writes what has changed; tells what became of each commit.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Report> {
        let Some(keeper) = &mut self.keeper else {
            // kad drops expired records when it meets them, and full stores drop theirs.
            return Poll::Pending;
        };
        loop {
            if let Some(flight) = &mut keeper.flight {
                let Poll::Ready((journal, result)) = flight.done.poll_unpin(cx) else { return Poll::Pending };
                if let Some(flight) = keeper.flight.take() {
                    return Poll::Ready(keeper.landed(flight, journal, result, &mut self.image));
                }
            }
            let now = Moment::now();
            self.image.expire(now.now);
            keeper.watch_clock(now, &mut self.image);
            let pending = self.image.unwritten() > 0;
            let due = if pending { Some(keeper.next) } else { self.image.next_expiry() };
            if due.is_none_or(|due| due > now.now) {
                keeper.timer.set(due);
                match keeper.timer.poll(cx) {
                    Poll::Ready(()) => continue,
                    Poll::Pending => return Poll::Pending,
                }
            }
            keeper.take_off(now, &mut self.image);
            if keeper.flight.is_none() {
                return Poll::Pending; // the runtime has ended
            }
        }
    }

    /// Writes what is not written yet and closes the file. Nothing that is stored from now on is kept.
    pub fn close(&mut self) -> BoxFuture<'static, ()> {
        let Some(mut keeper) = self.keeper.take() else { return async {}.boxed() };
        let (_, changes) = self.image.take_changes(Moment::now());
        async move {
            let mut journal = keeper.journal.take();
            if let Some(flight) = keeper.flight.take() {
                // If it failed, nobody was told that it is safe.
                (journal, _) = flight.done.await;
            }
            let Some(mut journal) = journal else { return };
            let path = keeper.path;
            let close = move || {
                if !changes.is_empty() {
                    journal.commit(&changes)?;
                }
                // A frame with nothing in it: whatever is before it was finished.
                journal.commit(&[])?;
                journal.raise_floor()
            };
            if let Ok(Err(error)) = keeper.runtime.unblock(close).await {
                log::warn!(target: "smidge", "{}: not closed in good order: {error}", path.display());
            }
        }
        .boxed()
    }

    /// The store at a glance.
    pub fn status(&self) -> StoreStatus {
        let counts = self.image.counts();
        let place =
            self.keeper.as_ref().map_or_else(|| "memory".into(), |keeper| keeper.path.display().to_string());
        let file = self.keeper.as_ref().map(|keeper| FileStatus {
            unsynced: self.image.unwritten() + keeper.flight.as_ref().map_or(0, |f| f.rows.len()),
            ..keeper.status.clone()
        });
        StoreStatus {
            place,
            records: counts.records,
            providers: counts.entries,
            known_peers: counts.peers,
            bytes: counts.bytes,
            refused: counts.refused,
            file,
        }
    }

    /// Notes that `peer` was found at `addresses`, for the next start of the node.
    pub fn remember(&mut self, peer: PeerId, addresses: &BTreeSet<Multiaddr>) {
        if self.keeper.is_some() {
            self.image.remember(peer, addresses, Moment::now());
        }
    }

    /// Forgets a peer, at one address or altogether.
    pub fn forget(&mut self, peer: &PeerId, address: Option<&Multiaddr>) {
        self.image.forget(peer, address);
    }

    /// The peers known, those seen last first.
    pub fn known(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        self.image.known()
    }

    fn refuse(&mut self) -> bool {
        let refused = self.trouble().is_some();
        if refused {
            self.image.refuse();
        }
        refused
    }
}

impl Keeper {
    /// Begins a commit of everything that has changed.
    fn take_off(&mut self, now: Moment, image: &mut Image) {
        let Some(mut journal) = self.journal.take() else { return };
        let mark = Mark(image.changes());
        let (rows, changes) = image.take_changes(now);
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
        self.flight = Some(Flight { rows, mark, done: done.boxed() });
    }

    fn landed(
        &mut self,
        flight: Flight,
        journal: Option<Journal<DiskFile>>,
        result: io::Result<()>,
        image: &mut Image,
    ) -> Report {
        self.status.bytes = journal.as_ref().map_or(self.status.bytes, Journal::len);
        self.journal = journal;
        match result {
            Ok(()) => {
                self.status.commits += 1;
                self.status.changes += flight.rows.len() as u64;
                self.status.last_error = None;
                self.safe = flight.mark;
                Report::Safe { mark: flight.mark, after: std::mem::take(&mut self.failures) }
            }
            Err(error) => {
                image.give_back(flight.rows);
                self.status.failures += 1;
                let retry_in = RETRY_MAX.min(RETRY_MIN * 2_u32.saturating_pow(self.failures));
                self.failures = self.failures.saturating_add(1);
                self.next = Instant::now() + retry_in;
                let why = format!("{}: {error}", self.path.display());
                let repeated = self.status.last_error.replace(why.clone()).as_ref() == Some(&why);
                Report::Failed { why, retry_in, repeated }
            }
        }
    }

    /// A clock that is set while the node runs (a Pi has none until it has asked for the time) makes
    /// what is written so far look older or younger than it is.
    fn watch_clock(&mut self, now: Moment, image: &mut Image) {
        let expected = self.began.unix + now.now.saturating_duration_since(self.began.now);
        if expected.abs_diff(now.unix) > CLOCK_SET {
            self.began = now;
            image.date_anew();
        }
    }
}

impl RecordStore for Store {
    type RecordsIter<'a> = Box<dyn Iterator<Item = Cow<'a, Record>> + 'a>;
    type ProvidedIter<'a> = Box<dyn Iterator<Item = Cow<'a, ProviderRecord>> + 'a>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.image.record(key).map(Cow::Borrowed)
    }

    fn put(&mut self, record: Record) -> kad::store::Result<()> {
        if self.refuse() {
            return Err(kad::store::Error::MaxRecords);
        }
        self.image.put(record, Instant::now())
    }

    fn remove(&mut self, key: &RecordKey) {
        self.image.remove(key);
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        Box::new(self.image.records().map(Cow::Borrowed))
    }

    fn add_provider(&mut self, entry: ProviderRecord) -> kad::store::Result<()> {
        if self.refuse() {
            return Err(kad::store::Error::MaxProvidedKeys);
        }
        self.image.add_provider(entry, Instant::now())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.image.providers(key)
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        Box::new(self.image.provided().map(Cow::Borrowed))
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        self.image.remove_provider(key, provider);
    }
}
