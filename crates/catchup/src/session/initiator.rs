//! The side that opened the stream.

use std::{collections::VecDeque, time::Instant};

use super::{Common, End, Limits, Output, Store, Summary, fill};
use crate::{
    Comparison, Item, Snapshot, Violation,
    frame::{Frame, Span, Verdict},
};

/// Drives a session.
#[derive(Debug)]
pub struct Initiator {
    common: Common,
    greeting: Option<Vec<u8>>,
    span: Span,
    /// Until the peer is known to keep the topic.
    snapshot: Option<Snapshot>,
    comparison: Option<Comparison>,
    /// The time that bounds are relative to.
    base: u64,
    /// The longest record that the peer takes.
    record: u64,
    /// What the peer lacks, in order.
    given: VecDeque<Item>,
    due: Due,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// A frame of ours.
    Ours,
    Welcome,
    Verdicts,
    Answer,
    Taken(usize),
}

impl Initiator {
    /// About a topic, with what is kept of it and a snapshot under the key that `salt` makes
    /// ([`Key::new`](crate::Key::new)); the salt is fresh and random. `span.from` may be a little later than what is
    /// kept, so that the peer, a moment later, still keeps all of it.
    pub fn new(
        topic: &[u8],
        salt: [u8; 16],
        span: Span,
        snapshot: Snapshot,
        limits: Limits,
        now: Instant,
    ) -> Self {
        let fingerprint = snapshot.fingerprint(&Item::at(span.from), &Item::at(span.until));
        let greeting = Frame::Greeting { salt, topic, span, fingerprint }.encode(0);
        Self {
            common: Common::new(limits, now),
            greeting: Some(greeting),
            span,
            snapshot: Some(snapshot),
            comparison: None,
            base: 0,
            record: 0,
            given: VecDeque::new(),
            due: Due::Ours,
        }
    }

    /// What it did so far.
    pub fn summary(&self) -> Summary {
        self.common.summary
    }

    /// What to do now.
    pub fn poll(&mut self, store: &impl Store, now: Instant) -> Output {
        if let Some(end) = &self.common.ended {
            return Output::Ended(end.clone());
        }
        if self.due != Due::Ours {
            return self.common.waiting(now);
        }
        if let Some(greeting) = self.greeting.take() {
            self.due = Due::Welcome;
            return self.common.sending(greeting, now);
        }
        let Some(comparison) = &mut self.comparison else { return self.common.waiting(now) };
        if let Some(frame) = comparison.next_frame() {
            self.due = if matches!(frame, Frame::Compare(_)) { Due::Verdicts } else { Due::Answer };
            return self.common.sending(frame.encode(self.base), now);
        }
        self.given.extend(comparison.take_given());
        self.deliver(store, now)
    }

    fn deliver(&mut self, store: &impl Store, now: Instant) -> Output {
        if !self.given.is_empty() && now < self.common.paced {
            return Output::Wait(self.common.paced);
        }
        let mut items = self.given.iter().peekable();
        let records = fill(&mut items, store, self.record, self.common.limits.params.frame);
        let left = items.count();
        self.given.drain(..self.given.len() - left);
        if records.is_empty() {
            // The last of all; it is sent, and then this has ended.
            self.common.ended = Some(End::Done);
            return self.common.sending(Frame::Goodbye.encode(self.base), now);
        }
        self.due = Due::Taken(records.len());
        self.common.summary.given += records.len() as u64;
        let frame = Frame::Deliver(records).encode(self.base);
        self.common.pace(frame.len(), now);
        self.common.sending(frame, now)
    }

    /// Takes a frame of the peer; gives back what was fetched, in order and not verified. An error has ended the
    /// session, and says why the peer is not to be trusted or not to be waited for.
    pub fn receive<'f>(&mut self, frame: &'f [u8], store: &impl Store) -> Result<Vec<(Item, &'f [u8])>, End> {
        let taken = self.common.receiving(frame).and_then(|()| self.take(frame, store));
        if let Err(end) = &taken {
            self.common.ended.get_or_insert(end.clone());
        }
        taken
    }

    fn take<'f>(&mut self, frame: &'f [u8], store: &impl Store) -> Result<Vec<(Item, &'f [u8])>, End> {
        let due = std::mem::replace(&mut self.due, Due::Ours);
        match (due, Frame::decode(frame, self.base)?, &mut self.comparison) {
            (Due::Welcome, Frame::Welcome { span, verdict }, _) => self.welcome(&span, verdict)?,
            (Due::Welcome, Frame::Refused(refusal), _) => return Err(End::Refused(refusal)),
            (Due::Ours, ..) => return Err(Violation::Unexpected.into()),
            (_, Frame::Goodbye, _) => return Err(End::Enough),
            (Due::Verdicts, Frame::Verdicts(verdicts), Some(comparison)) => {
                comparison.on_verdicts(&verdicts)?;
            }
            (Due::Answer, Frame::Answer { lacks, records, stopped }, Some(comparison)) => {
                self.common.admit(&records)?;
                let item = |record: &&'f [u8]| store.item(record).ok_or(Violation::Unasked);
                let items = records.iter().map(item).collect::<Result<Vec<_>, _>>()?;
                comparison.on_answer(&lacks, &items, stopped)?;
                return Ok(items.into_iter().zip(records).collect());
            }
            (Due::Taken(most), Frame::Taken(count), _) if count <= most as u64 => {}
            _ => return Err(Violation::Unexpected.into()),
        }
        Ok(Vec::new())
    }

    fn welcome(&mut self, theirs: &Span, verdict: Verdict) -> Result<(), End> {
        let Some(snapshot) = self.snapshot.take() else { return Err(Violation::Unexpected.into()) };
        if theirs.from < self.span.from || theirs.until > self.span.until {
            return Err(Violation::Outside.into());
        }
        self.common.skew(theirs.now, self.span.now);
        (self.base, self.record) = (theirs.from, theirs.record);
        let from = theirs.from.max(newest(&snapshot, theirs.until, theirs.messages));
        let mut comparison = Comparison::new(snapshot, self.common.limits.params, from, theirs.until);
        if (from, theirs.until) == (self.span.from, self.span.until) {
            comparison.whole(verdict);
        }
        self.comparison = Some(comparison);
        Ok(())
    }
}

/// From when on there are not more messages than a peer keeps.
pub(super) fn newest(snapshot: &Snapshot, until: u64, messages: u64) -> u64 {
    let end = snapshot.ranks(&Item::at(0), &Item::at(until)).end;
    let over = end.saturating_sub(usize::try_from(messages).unwrap_or(usize::MAX));
    // The time of the newest that is too many, and more than that.
    over.checked_sub(1).map_or(0, |rank| snapshot.items()[rank].time.saturating_add(1))
}
