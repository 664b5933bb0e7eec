//! What a node keeps for the hash table: records, provider entries, and the peers it has met.
//!
//! kad reads and changes its store from within the event loop, so a memtable answers
//! (`RecordStore`). Where a file is named, every change also goes to a journal: polling the `Store`
//! commits all changes since the last commit as one batch, with one fsync, as blocking work off the loop. A
//! change is acknowledged only when the `Sequence` that it got is durable.
//!
//! While commits fail, nothing new is stored; pending changes are retried, and nothing is
//! acknowledged. The file is never replaced by anything less complete than itself.
//!
//! Beside that, `log.rs` keeps what topics with `durable` remember, in a file of its own: what was promised and what can
//! be had again fail differently.
//!
//! Files are the feature `store`; without it everything is in memory (`absent.rs`).
//!
//! Decides nothing about which node holds which record, and knows nothing of the network.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    path::Path,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt};
use libp2p::{
    Multiaddr, PeerId,
    kad::{self, ProviderRecord, Record, RecordKey, store::RecordStore},
};
use serde::Serialize;

use crate::runtime::{self, Handle};

#[cfg(feature = "store")]
mod disk;
mod error;
mod format;
#[cfg(all(feature = "store", any(test, fuzzing)))]
pub mod fuzz;
#[cfg(feature = "store")]
mod journal;
#[cfg(feature = "store")]
mod log;
#[cfg(not(feature = "store"))]
#[path = "log_absent.rs"]
mod log;
mod memtable;
mod shares;
#[cfg(test)]
#[cfg(feature = "store")]
mod tests;
#[cfg(feature = "store")]
mod writer;
#[cfg(not(feature = "store"))]
#[path = "absent.rs"]
mod writer;

pub(crate) use self::log::{Log, Opened, Rows};
pub use error::StoreError;
use format::Moment;
use memtable::Memtable;
pub(crate) use shares::Source;
use writer::Writer;

/// What becomes of a key: a value, or nothing.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// Bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Records; keys with providers.
    pub(crate) records: usize,
    /// Bytes of a record's value.
    pub(crate) value: usize,
    /// Bytes of all records and provider entries, each with 128 for itself.
    pub(crate) bytes: usize,
    /// Providers of one key.
    pub(crate) providers: usize,
    /// Known peers.
    pub(crate) peers: usize,
}

/// The sequence number of a change; it stands for all changes up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sequence(u64);

/// The outcome of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// All changes up to `sequence` are on the disk.
    Durable {
        /// The last change of the commit.
        sequence: Sequence,
        /// Failed commits since the last one that succeeded.
        after: u32,
    },
    /// It failed, and is tried again. Until it succeeds nothing new is stored.
    Failed {
        /// The cause, with the name of the file.
        why: String,
        /// Time until the next attempt.
        retry_in: Duration,
        /// Whether the previous attempt failed with the same cause.
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
    /// Records and provider entries that gave way to others before they expired: the store is full.
    pub displaced: u64,
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
pub(crate) struct Store {
    memtable: Memtable,
    writer: Option<Writer>,
    /// Where the next changes come from.
    source: Source,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("counts", &self.memtable.counts()).finish_non_exhaustive()
    }
}

impl Store {
    /// A store that keeps everything in memory.
    pub(crate) fn memory(local: PeerId, limits: Limits) -> Self {
        Self { memtable: Memtable::new(local, limits, false), writer: None, source: Source::LOCAL }
    }

    /// Opens the store in the file at `path`, which is created if missing; and a warning for the operator, if any.
    /// Commits start at least `every` apart. Blocks until all of the file is read.
    ///
    /// # Errors
    /// [`StoreError`]; the file stays as it is.
    pub(crate) fn open(
        path: &Path,
        local: PeerId,
        limits: Limits,
        every: Duration,
        runtime: &Handle,
    ) -> Result<(Self, Option<String>), StoreError> {
        let mut memtable = Memtable::new(local, limits, true);
        let (writer, warning) = Writer::open(path, &mut memtable, every, runtime)?;
        Ok((Self { memtable, writer: Some(writer), source: Source::LOCAL }, warning))
    }

    /// Says where the changes from now on come from; `None`: from this node. kad does not hand it on.
    pub(crate) fn set_source(&mut self, source: Option<Source>) {
        self.source = source.unwrap_or(Source::LOCAL);
    }

    /// The sequence number of the latest change.
    pub(crate) fn sequence(&self) -> Sequence {
        Sequence(self.memtable.changes())
    }

    /// Whether all changes up to `sequence` are on the disk; always, for a store in memory.
    pub(crate) fn is_durable(&self, sequence: Sequence) -> bool {
        self.writer.as_ref().is_none_or(|writer| sequence <= writer.durable())
    }

    /// Why nothing new is stored, if the last commit failed.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.writer.as_ref().and_then(Writer::trouble)
    }

    /// Drops expired entries and commits changes; ready with the outcome of each commit.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Report> {
        match &mut self.writer {
            Some(writer) => writer.poll(&mut self.memtable, cx),
            // kad drops expired records when it meets them, and a full store drops its own.
            None => Poll::Pending,
        }
    }

    /// Writes what is not written yet and closes the file. Nothing that is stored from now on is kept.
    pub(crate) fn close(&mut self) -> BoxFuture<'static, ()> {
        match self.writer.take() {
            Some(writer) => writer.close(self.memtable.take_changes(Moment::now()).1).boxed(),
            None => async {}.boxed(),
        }
    }

    /// The store at a glance.
    pub(crate) fn status(&self) -> StoreStatus {
        let counts = self.memtable.counts();
        let place = self.writer.as_ref().map_or_else(|| "memory".into(), Writer::place);
        let file = self.writer.as_ref().map(|writer| writer.status(self.memtable.unwritten()));
        StoreStatus {
            place,
            records: counts.records,
            providers: counts.entries,
            known_peers: counts.peers,
            bytes: counts.bytes,
            refused: counts.refused,
            displaced: counts.displaced,
            file,
        }
    }

    /// Notes that `peer` was found at `addresses`, for the next start of the node.
    pub(crate) fn remember(&mut self, peer: PeerId, addresses: &BTreeSet<Multiaddr>) {
        if self.writer.is_some() {
            self.memtable.remember(peer, addresses, Moment::now());
        }
    }

    /// Forgets a peer, at one address or altogether.
    pub(crate) fn forget(&mut self, peer: &PeerId, address: Option<&Multiaddr>) {
        self.memtable.forget(peer, address);
    }

    /// The peers known, those seen last first.
    pub(crate) fn known(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        self.memtable.known()
    }

    fn refuse(&mut self) -> bool {
        let refused = self.trouble().is_some();
        if refused {
            self.memtable.refuse();
        }
        refused
    }
}

impl RecordStore for Store {
    type RecordsIter<'a> = Box<dyn Iterator<Item = Cow<'a, Record>> + 'a>;
    type ProvidedIter<'a> = Box<dyn Iterator<Item = Cow<'a, ProviderRecord>> + 'a>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.memtable.record(key).map(Cow::Borrowed)
    }

    fn put(&mut self, record: Record) -> kad::store::Result<()> {
        if self.refuse() {
            return Err(kad::store::Error::MaxRecords);
        }
        self.memtable.put(record, self.source, runtime::now())
    }

    fn remove(&mut self, key: &RecordKey) {
        self.memtable.remove(key);
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        Box::new(self.memtable.records().map(Cow::Borrowed))
    }

    fn add_provider(&mut self, entry: ProviderRecord) -> kad::store::Result<()> {
        if self.refuse() {
            return Err(kad::store::Error::MaxProvidedKeys);
        }
        self.memtable.add_provider(entry, self.source, runtime::now())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.memtable.providers(key)
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        Box::new(self.memtable.provided().map(Cow::Borrowed))
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        self.memtable.remove_provider(key, provider);
    }
}
