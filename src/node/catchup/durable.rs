//! Writes what durable topics remember to their file, a batch at a time, and opens that again where it could not be.
//!
//! Never in the way: while nothing can be written, topics remember in memory alone, and that is said. What is on the
//! disk is asked of [`Durable::is_kept`].

use std::{
    path::PathBuf,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, ready as done},
};
use libp2p::PeerId;
use smidge_catchup::Item;

use super::{book::Book, saved::Batch, touched::Touched, wall};
use crate::{
    runtime::{Handle, Timer},
    store::{FileStatus, Log, Opened},
};

/// First pause after something failed; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[allow(clippy::large_enum_variant, reason = "a node has one, and it is open nearly all of the time")]
enum State {
    /// Not open, until it is tried again.
    Closed,
    Opening(BoxFuture<'static, Result<Opened, String>>),
    Open {
        log: Log,
        under_way: Option<Batch>,
    },
}

/// What became of a commit, or of opening the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// All is well.
    Written {
        /// Failures since the last time that it was.
        after: u32,
    },
    /// It failed, and is tried again.
    Failed {
        /// Why, with the name of the file.
        why: String,
        retry_in: Duration,
        /// It failed for the same reason before.
        repeated: bool,
    },
}

/// See the module's documentation.
pub(super) struct Durable {
    path: PathBuf,
    own: PeerId,
    runtime: Handle,
    timer: Box<dyn Timer>,
    /// Least time between the starts of two commits.
    every: Duration,
    state: State,
    /// When something may begin next.
    next: Instant,
    failures: u32,
    status: FileStatus,
}

impl Durable {
    /// Reads the file at `path` into the book, if it is to have one; nothing runs yet, and this blocks until all is read.
    pub(super) fn new(
        path: PathBuf,
        every: Duration,
        own: PeerId,
        runtime: &Handle,
        book: &mut Book,
    ) -> Self {
        let next = runtime.now();
        let (timer, runtime) = (runtime.timer(), runtime.clone());
        let (state, status) = (State::Closed, FileStatus::default());
        let mut this = Self { path, own, runtime, timer, every, state, next, failures: 0, status };
        if book.is_durable() {
            match Log::open(&this.path, &this.runtime) {
                Ok(opened) => this.open(opened, true, book),
                Err(why) => {
                    log::warn!(target: "smidge", "topics remember in memory only until it can be mended: {why}");
                    this.fail(why);
                }
            }
        }
        this
    }

    fn open(&mut self, opened: Opened, start: bool, book: &mut Book) {
        let Opened { mut log, rows, warning } = opened;
        if let Some(warning) = warning {
            log::warn!(target: "smidge", "{warning}");
        }
        book.load(rows, start, &self.own, wall());
        if start {
            let (messages, _) = book.held();
            log::info!(target: "smidge", "loaded {messages} remembered messages from {}", log.place().display());
            // Before a number of this run is given out. If it fails, positions do not outlive this run until it succeeds.
            match log.commit_now(&book.heads()) {
                Ok(()) => book.heads_written(),
                Err(error) => log::warn!(target: "smidge", "{}: {error}", log.place().display()),
            }
        }
        self.status.bytes = log.bytes();
        self.state = State::Open { log, under_way: None };
    }

    fn fail(&mut self, why: String) -> Report {
        let retry_in = RETRY_MAX.min(RETRY_MIN * 2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.status.failures += 1;
        self.next = self.runtime.now() + retry_in;
        let repeated = self.status.last_error.replace(why.clone()).as_ref() == Some(&why);
        Report::Failed { why, retry_in, repeated }
    }

    fn succeed(&mut self) -> Report {
        self.status.last_error = None;
        Report::Written { after: std::mem::take(&mut self.failures) }
    }

    /// Ready with what became of each commit.
    pub(super) fn poll(&mut self, book: &mut Touched<Book>, cx: &mut Context<'_>) -> Poll<Report> {
        loop {
            match &mut self.state {
                State::Opening(opening) => {
                    let opened = ready!(opening.poll_unpin(cx));
                    self.state = State::Closed;
                    return Poll::Ready(match opened {
                        Ok(opened) => {
                            self.open(opened, false, book);
                            self.succeed()
                        }
                        Err(why) => self.fail(why),
                    });
                }
                State::Open { log, under_way: under_way @ Some(_) } => {
                    let result = ready!(log.poll(cx));
                    let Some(batch) = under_way.take() else { continue };
                    self.status.bytes = log.bytes();
                    return Poll::Ready(match result {
                        Ok(()) => {
                            self.status.commits += 1;
                            self.status.changes += batch.changed as u64;
                            book.written(batch);
                            self.succeed()
                        }
                        Err(error) => {
                            let why = format!("{}: {error}", log.place().display());
                            book.not_written(batch);
                            self.fail(why)
                        }
                    });
                }
                // All topics are asked, which is too much for each turn of a node that keeps nothing new.
                State::Open { .. } if !book.is_touched() => return Poll::Pending,
                State::Open { .. } if book.unwritten() == 0 => {
                    book.settle();
                    return Poll::Pending;
                }
                State::Closed if !book.is_durable() => return Poll::Pending,
                _ => {}
            }
            let now = self.runtime.now();
            if self.next > now {
                self.timer.set(Some(self.next));
                ready!(self.timer.poll(cx));
                continue;
            }
            match &mut self.state {
                State::Open { log, under_way } => {
                    let mut batch = book.take();
                    self.next = now + self.every;
                    if !log.start(std::mem::take(&mut batch.changes)) {
                        // It went with the runtime.
                        return Poll::Pending;
                    }
                    *under_way = Some(batch);
                }
                state => *state = State::Opening(Log::open_later(self.path.clone(), &self.runtime)),
            }
        }
    }

    /// Whether a message is kept: on the disk, where that is asked for.
    pub(super) fn is_kept(&self, book: &Book, topic: &str, item: &Item) -> bool {
        let batch = match &self.state {
            State::Open { under_way, .. } => under_way.as_ref(),
            _ => None,
        };
        book.is_kept(topic, item, batch)
    }

    /// The file at a glance; `None` where nothing is to be in one.
    pub(super) fn status(&self, book: &Book) -> Option<FileStatus> {
        let under_way = match &self.state {
            State::Open { under_way, .. } => under_way.as_ref().map_or(0, |batch| batch.changed),
            _ => 0,
        };
        book.is_durable()
            .then(|| FileStatus { unsynced: book.unwritten() + under_way, ..self.status.clone() })
    }

    /// Writes what is not written, and ends the file. Nothing that is remembered from now on is in it.
    pub(super) fn close(self, book: &mut Book) -> BoxFuture<'static, ()> {
        let State::Open { log, under_way } = self.state else { return done(()).boxed() };
        // It may fail: it is written again.
        under_way.into_iter().for_each(|batch| book.not_written(batch));
        log.close(book.take_all().changes).boxed()
    }
}
