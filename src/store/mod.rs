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
    fmt,
    path::Path,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt};
use libp2p::{
    Multiaddr, PeerId,
    kad::{self, ProviderRecord, Record, RecordKey, store::RecordStore},
};
use serde::Serialize;

use crate::runtime::Handle;

mod disk;
mod error;
mod format;
#[cfg(fuzzing)]
pub mod fuzz;
mod image;
mod journal;
mod keeper;
#[cfg(test)]
mod tests;

use disk::{DiskFile, Found};
pub use error::StoreError;
use format::Moment;
use image::Image;
use journal::Journal;
use keeper::Keeper;

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
        let keeper = Keeper::new(path.into(), journal, every, runtime, now);
        Ok((Self { image, keeper: Some(keeper) }, warning))
    }

    /// Everything stored so far.
    pub fn mark(&self) -> Mark {
        Mark(self.image.changes())
    }

    /// Whether everything up to `mark` is where it is to be kept.
    pub fn is_safe(&self, mark: Mark) -> bool {
        self.keeper.as_ref().is_none_or(|keeper| mark <= keeper.safe())
    }

    /// Why nothing new is stored, if the last commit failed.
    pub fn trouble(&self) -> Option<&str> {
        self.keeper.as_ref().and_then(Keeper::trouble)
    }

    /// Drops what has expired and writes what has changed; tells what became of each commit.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Report> {
        match &mut self.keeper {
            Some(keeper) => keeper.poll(&mut self.image, cx),
            // kad drops expired records when it meets them, and a full store drops its own.
            None => Poll::Pending,
        }
    }

    /// Writes what is not written yet and closes the file. Nothing that is stored from now on is kept.
    pub fn close(&mut self) -> BoxFuture<'static, ()> {
        match self.keeper.take() {
            Some(keeper) => keeper.close(self.image.take_changes(Moment::now()).1).boxed(),
            None => async {}.boxed(),
        }
    }

    /// The store at a glance.
    pub fn status(&self) -> StoreStatus {
        let counts = self.image.counts();
        let place = self.keeper.as_ref().map_or_else(|| "memory".into(), Keeper::place);
        let file = self.keeper.as_ref().map(|keeper| keeper.status(self.image.unwritten()));
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
