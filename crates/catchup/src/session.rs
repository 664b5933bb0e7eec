//! One comparison of one topic with one peer: greeting, comparing, asking, delivering, over one stream.
//!
//! Two state machines over frames. The initiator's frames and the responder's alternate, so that neither has to keep
//! more than one frame of the other, and what is live goes in between. Who calls carries frames (each behind its length),
//! and says what time it is.

mod initiator;
mod limits;
mod responder;

use std::time::Instant;

use crate::{
    Item, Violation,
    frame::{DecodeError, Refusal},
};

pub use initiator::Initiator;
pub use limits::Limits;
pub use responder::{Request, Responder};

/// The memory behind a session.
pub trait Store {
    /// The record of a kept item; none if it was let go meanwhile.
    fn record(&self, item: &Item) -> Option<&[u8]>;

    /// Which item a record says it is, as cheaply as can be: its signature is checked later, if it was asked for.
    fn item(&self, record: &[u8]) -> Option<Item>;
}

/// What a session wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// This frame goes to the peer.
    Send(Vec<u8>),
    /// A frame of the peer, or to be polled at that moment.
    Wait(Instant),
    /// Nothing more. The stream may be closed.
    Ended(End),
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// Both have what either had, of what was compared.
    #[error("done")]
    Done,
    /// A bound of the session was reached, at either side; another session may go on.
    #[error("a bound of the session was reached")]
    Enough,
    /// The peer refused it.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// No frame of the peer in the time that it had.
    #[error("the peer fell silent")]
    Silent,
    /// Bytes that are no frame.
    #[error("not a frame")]
    Decode(#[from] DecodeError),
    /// A frame that an honest peer does not send.
    #[error("against the protocol")]
    Violation(#[from] Violation),
}

/// What a session did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of all frames sent.
    pub sent: u64,
    /// Bytes of all frames received.
    pub received: u64,
    /// Frames received.
    pub frames: u64,
    /// Records sent.
    pub given: u64,
    /// Records received.
    pub fetched: u64,
    /// How far the peer's clock is ahead of ours, milliseconds, with half a round trip's error.
    pub skew: i64,
}

/// What both sides of a session have in common.
#[derive(Debug)]
struct Common {
    limits: Limits,
    summary: Summary,
    /// A frame of the peer is due before this.
    deadline: Instant,
    /// The session ends then.
    last: Instant,
    /// No records go out before this.
    paced: Instant,
    ended: Option<End>,
}

impl Common {
    fn new(limits: Limits, now: Instant) -> Self {
        let (deadline, last) = (now + limits.silence, now + limits.session);
        Self { limits, summary: Summary::default(), deadline, last, paced: now, ended: None }
    }

    fn sending(&mut self, frame: Vec<u8>, now: Instant) -> Output {
        self.summary.sent += frame.len() as u64;
        self.deadline = now + self.limits.silence;
        Output::Send(frame)
    }

    /// Counts a frame; an error ends the session.
    fn receiving(&mut self, frame: &[u8]) -> Result<(), End> {
        if let Some(end) = &self.ended {
            return Err(end.clone());
        }
        self.summary.received += frame.len() as u64;
        self.summary.frames += 1;
        if frame.len() > self.limits.longest() {
            return Err(DecodeError::Long.into());
        }
        if self.summary.frames > self.limits.frames { Err(End::Enough) } else { Ok(()) }
    }

    fn waiting(&mut self, now: Instant) -> Output {
        if now >= self.deadline {
            return self.end(End::Silent);
        }
        if now >= self.last {
            return self.end(End::Enough);
        }
        Output::Wait(self.deadline.min(self.last))
    }

    fn end(&mut self, end: End) -> Output {
        Output::Ended(self.ended.get_or_insert(end).clone())
    }

    /// Records of so many bytes go out now; the next ones wait for their rate.
    fn pace(&mut self, bytes: usize, now: Instant) {
        self.paced = now.max(self.paced) + self.limits.time_of(bytes);
    }

    /// Whether so many more records may come in this session.
    fn admit(&mut self, records: &[&[u8]]) -> Result<(), End> {
        self.summary.fetched += records.len() as u64;
        if self.summary.fetched > self.limits.messages { Err(End::Enough) } else { Ok(()) }
    }

    fn skew(&mut self, theirs: u64, ours: u64) {
        self.summary.skew = i64::try_from(i128::from(theirs) - i128::from(ours)).unwrap_or(i64::MAX);
    }
}

/// Fills a frame with records; gives back how many bytes they are. One that the peer would not take, or that was let
/// go, is left out.
fn fill<'s, 'i>(
    items: &mut std::iter::Peekable<impl Iterator<Item = &'i Item>>,
    store: &'s impl Store,
    longest: u64,
    mut room: usize,
) -> Vec<&'s [u8]> {
    let mut records = Vec::new();
    while room > 0 {
        let Some(item) = items.next() else { break };
        let Some(record) = store.record(item).filter(|record| record.len() as u64 <= longest) else {
            continue;
        };
        room = room.saturating_sub(record.len() + 3);
        records.push(record);
    }
    records
}
