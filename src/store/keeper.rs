//! Has what changed written to the journal, a batch after the other, where blocking work is done.

use std::{
    io,
    path::PathBuf,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt};

use super::{
    FileStatus, Mark, Report,
    disk::DiskFile,
    format::{Moment, Row},
    image::Image,
    journal::{Change, Journal},
};
use crate::runtime::{Handle, Timer};

/// First pause after a commit that failed; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A clock that moved this far from where it should be was set.
const CLOCK_SET: Duration = Duration::from_secs(60);

/// See the module's documentation.
pub(super) struct Keeper {
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

impl Keeper {
    pub(super) fn new(
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
            flight: None,
            safe: Mark(0),
            next: now.now,
            failures: 0,
            began: now,
        }
    }

    /// Drops what has expired and writes what has changed, a batch after the other.
    pub(super) fn poll(&mut self, image: &mut Image, cx: &mut Context<'_>) -> Poll<Report> {
        loop {
            if let Some(flight) = &mut self.flight {
                let (journal, result) = ready!(flight.done.poll_unpin(cx));
                if let Some(flight) = self.flight.take() {
                    return Poll::Ready(self.landed(flight, journal, result, image));
                }
            }
            let now = Moment::now();
            image.expire(now.now);
            self.watch_clock(now, image);
            let due = if image.unwritten() > 0 { Some(self.next) } else { image.next_expiry() };
            if due.is_none_or(|due| due > now.now) {
                self.timer.set(due);
                ready!(self.timer.poll(cx));
                continue;
            }
            self.take_off(now, image);
            if self.flight.is_none() {
                return Poll::Pending; // the runtime has ended
            }
        }
    }

    /// Up to where everything is on the disk.
    pub(super) fn safe(&self) -> Mark {
        self.safe
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
        let under_way = self.flight.as_ref().map_or(0, |flight| flight.rows.len());
        FileStatus { unsynced: unwritten + under_way, ..self.status.clone() }
    }

    /// Writes `changes`, and an end.
    pub(super) async fn close(mut self, changes: Vec<Change>) {
        let mut journal = self.journal.take();
        if let Some(flight) = self.flight.take() {
            // If it failed, nobody was told that it is safe.
            (journal, _) = flight.done.await;
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
