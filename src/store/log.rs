//! A journal for what can be had again: where it is not right it is set aside and begun anew, and it keeps nobody from
//! starting. What a node puts into its store is promised, and is not kept in one of these.
//!
//! Knows nothing of what the rows mean. One commit at a time, as blocking work off the event loop.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    task::{Context, Poll},
};

use futures::future::{BoxFuture, FutureExt};

use super::{
    Change,
    disk::{DiskFile, OpenFile},
    error::is_full,
    journal::{Fault, Journal},
};
use crate::{identity::directory, runtime::Handle};

/// The rows of a file.
pub(crate) type Rows = HashMap<Vec<u8>, Vec<u8>>;

/// What becomes of a commit: it is on the disk, or has to be given again.
type Committed = (Option<Journal<DiskFile>>, io::Result<()>);

/// See the module's documentation.
pub(crate) struct Log {
    runtime: Handle,
    path: PathBuf,
    /// Here unless a commit is under way, or was lost with the runtime.
    journal: Option<Journal<DiskFile>>,
    pending: Option<BoxFuture<'static, Committed>>,
    bytes: u64,
}

/// A file that was opened.
pub(crate) struct Opened {
    pub(crate) log: Log,
    pub(crate) rows: Rows,
    /// For the operator.
    pub(crate) warning: Option<String>,
}

impl Log {
    /// Opens the file at `path`, made if there is none, and reads it. Blocks.
    ///
    /// # Errors
    /// Why there is none now, with what to do. One that is damaged is none: it is renamed, and a warning says so.
    pub(crate) fn open(path: &Path, runtime: &Handle) -> Result<Opened, String> {
        let cannot = |doing: &str, error: &io::Error| {
            let dir = directory(path).display();
            let hint = match error.kind() {
                io::ErrorKind::WouldBlock => "give each node a kad.store of its own".to_owned(),
                _ if is_full(error) => "make room on that disk".to_owned(),
                _ => format!("put a volume that this user may write to at {dir}"),
            };
            format!("{}: cannot {doing}: {error} (hint: {hint})", path.display())
        };
        let mut warning = None;
        // The second time there is no file.
        for _ in 0..2 {
            let found = DiskFile::open_or_create(path).map_err(|(doing, error)| cannot(doing, &error))?;
            let (journal, rows) = match found {
                OpenFile::Created(file) => {
                    let made = Journal::create(file).map_err(|error| cannot("make it", &error))?;
                    (made, Rows::new())
                }
                OpenFile::Existing(file) => match Journal::open(file) {
                    Ok((journal, contents)) => (journal, contents.entries),
                    Err(Fault::Io(error)) => return Err(cannot("read it", &error)),
                    Err(fault) => {
                        let aside = aside(path);
                        std::fs::rename(path, &aside).map_err(|error| cannot("set it aside", &error))?;
                        warning = Some(format!(
                            "{}: {}, and is set aside as {}: what topics remembered is fetched from neighbours again",
                            path.display(),
                            why(&fault),
                            aside.display()
                        ));
                        continue;
                    }
                },
            };
            let bytes = journal.len();
            let (runtime, path) = (runtime.clone(), path.to_owned());
            let log = Self { runtime, path, journal: Some(journal), pending: None, bytes };
            return Ok(Opened { log, rows, warning });
        }
        Err(cannot("make it", &io::Error::other("another one appears in its place")))
    }

    /// The same, off the event loop.
    pub(crate) fn open_later(path: PathBuf, runtime: &Handle) -> BoxFuture<'static, Result<Opened, String>> {
        let runtime = runtime.clone();
        async move {
            let handle = runtime.clone();
            let opened = runtime.unblock(move || Self::open(&path, &handle)).await;
            opened.unwrap_or_else(|error| Err(error.to_string()))
        }
        .boxed()
    }

    pub(crate) fn place(&self) -> &Path {
        &self.path
    }

    /// Length of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Commits now. Blocks: while nothing runs yet.
    pub(crate) fn commit_now(&mut self, changes: &[Change]) -> io::Result<()> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.commit(changes))
    }

    /// Starts a commit; says whether it could: one at a time.
    pub(crate) fn start(&mut self, changes: Vec<Change>) -> bool {
        let Some(mut journal) = self.journal.take() else { return false };
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
        self.pending = Some(done.boxed());
        true
    }

    /// Ready when the commit that is under way has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(pending) = &mut self.pending else { return Poll::Pending };
        let (journal, result) = std::task::ready!(pending.poll_unpin(cx));
        self.pending = None;
        self.bytes = journal.as_ref().map_or(self.bytes, Journal::len);
        self.journal = journal;
        Poll::Ready(result)
    }

    /// Waits for the commit under way, which may have failed, commits `changes`, and ends the file.
    pub(crate) async fn close(mut self, changes: Vec<Change>) {
        if let Some(pending) = self.pending.take() {
            (self.journal, _) = pending.await;
        }
        let Some(mut journal) = self.journal.take() else { return };
        let close = move || {
            journal.commit(&changes)?;
            journal.raise_floor()
        };
        if let Ok(Err(error)) = self.runtime.unblock(close).await {
            log::warn!(target: "smidge", "{}: not closed in good order: {error}", self.path.display());
        }
    }
}

/// What a file that is not right is called from then on. There is one: it is of use to nobody but who looks into it.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".damaged");
    path.with_file_name(name)
}

fn why(fault: &Fault) -> String {
    match fault {
        Fault::Foreign => "holds something else".into(),
        Fault::Newer(format) => format!("has format {format}, of a later version"),
        Fault::Damaged { at, why } => format!("is damaged at byte {at}: {why}"),
        Fault::Io(error) => error.to_string(),
    }
}
