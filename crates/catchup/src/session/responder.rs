//! The side that the stream was opened to.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use super::{Common, End, Limits, Output, Store, Summary, fill, initiator::newest};
use crate::{
    Item, Snapshot, Violation,
    frame::{Frame, Listed, MAX_RANGES, Ranged, Refusal, Span, Verdict},
    reconcile::{differences, verdict},
};

/// What a greeting asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The topic's name.
    pub topic: Vec<u8>,
    /// What the key of the snapshot is made of.
    pub salt: [u8; 16],
}

/// Answers a session. Between two frames it has the snapshot, and of what it asked for 8 bytes a message.
#[derive(Debug)]
pub struct Responder {
    common: Common,
    theirs: Span,
    fingerprint: u64,
    span: Span,
    snapshot: Option<Snapshot>,
    answer: Option<Vec<u8>>,
    /// Bytes of records in it, which wait for their rate.
    paced: usize,
    /// Items that were asked for, by their hashes, and ranges that were asked for as a whole, by their lower bounds.
    asked: HashSet<u64>,
    ranges: BTreeMap<Item, Item>,
    /// The last item that was delivered: what follows lies behind it.
    delivered: Option<Item>,
    /// Ranges, and items looked at, for the peer.
    work: u64,
    closing: Option<End>,
}

impl Responder {
    /// Reads a greeting. What it asks for is looked at by the caller: the topic, and whether the peer may read it.
    pub fn new(greeting: &[u8], limits: Limits, now: Instant) -> Result<(Self, Request), End> {
        let mut common = Common::new(limits, now);
        common.receiving(greeting)?;
        let Frame::Greeting { salt, topic, span, fingerprint } = Frame::decode(greeting, 0)? else {
            return Err(Violation::Unexpected.into());
        };
        let this = Self {
            common,
            theirs: span,
            fingerprint,
            span,
            snapshot: None,
            answer: None,
            paced: 0,
            asked: HashSet::new(),
            ranges: BTreeMap::new(),
            delivered: None,
            work: 0,
            closing: None,
        };
        Ok((this, Request { topic: topic.to_vec(), salt }))
    }

    /// Does not begin; the frame is the next that is polled, and the last.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.answer = Some(Frame::Refused(refusal).encode(0));
        self.closing = Some(End::Refused(refusal));
    }

    /// Begins, with what is kept here and a snapshot of it under the request's salt.
    pub fn welcome(&mut self, span: Span, snapshot: Snapshot) {
        let theirs = self.theirs;
        let until = span.until.min(theirs.until);
        let from = span.from.max(theirs.from).max(newest(&snapshot, until, theirs.messages));
        self.common.skew(theirs.now, span.now);
        self.span = Span { from, until, ..span };
        let verdict = if (from, until) == (theirs.from, theirs.until) {
            self.verdict(
                &snapshot,
                &Ranged { from: Item::at(from), to: Item::at(until), of: self.fingerprint },
            )
        } else {
            Verdict::Differs
        };
        self.snapshot = Some(snapshot);
        self.answer = Some(Frame::Welcome { span: self.span, verdict }.encode(0));
    }

    /// What it did so far.
    pub fn summary(&self) -> Summary {
        self.common.summary
    }

    /// What to do now.
    pub fn poll(&mut self, now: Instant) -> Output {
        if let Some(end) = &self.common.ended {
            return Output::Ended(end.clone());
        }
        if self.paced > 0 && now < self.common.paced {
            return Output::Wait(self.common.paced);
        }
        let Some(answer) = self.answer.take() else { return self.common.waiting(now) };
        self.common.ended = self.closing.take();
        let paced = std::mem::take(&mut self.paced);
        self.common.pace(paced, now);
        self.common.sending(answer, now)
    }

    /// Takes a frame of the peer; gives back what was fetched, in order and not verified. An error has ended the
    /// session.
    pub fn receive<'f>(&mut self, frame: &'f [u8], store: &impl Store) -> Result<Vec<(Item, &'f [u8])>, End> {
        let taken = self.common.receiving(frame).and_then(|()| self.take(frame, store));
        match &taken {
            // An honest initiator hears of it in the place of an answer.
            Err(End::Enough) if self.answer.is_none() => {
                self.answer = Some(Frame::Goodbye.encode(0));
                self.closing = Some(End::Enough);
                return Ok(Vec::new());
            }
            Err(End::Done) => return Ok(Vec::new()),
            Err(end) => {
                self.common.ended.get_or_insert(end.clone());
            }
            Ok(_) => {}
        }
        taken
    }

    fn take<'f>(&mut self, frame: &'f [u8], store: &impl Store) -> Result<Vec<(Item, &'f [u8])>, End> {
        let frame = Frame::decode(frame, self.span.from)?;
        // It has not had its answer yet.
        if self.answer.is_some() {
            return Err(Violation::Unexpected.into());
        }
        let Some(snapshot) = self.snapshot.take() else { return Err(Violation::Unexpected.into()) };
        let taken = self.answer(&snapshot, frame, store);
        self.snapshot = Some(snapshot);
        taken
    }

    fn answer<'f>(
        &mut self,
        snapshot: &Snapshot,
        frame: Frame<'f>,
        store: &impl Store,
    ) -> Result<Vec<(Item, &'f [u8])>, End> {
        let mut fetched = Vec::new();
        let answer = match frame {
            Frame::Compare(ranges) => {
                self.inside(ranges.last().map(|range| range.to), ranges.len())?;
                let verdicts = ranges.iter().map(|range| self.verdict(snapshot, range)).collect();
                Frame::Verdicts(verdicts).encode(self.span.from)
            }
            Frame::List(ranges) => {
                self.inside(ranges.last().map(|range| range.to), ranges.len())?;
                self.differences(snapshot, &ranges, store)?
            }
            Frame::Deliver(records) => {
                fetched = self.fetched(snapshot, records, store)?;
                Frame::Taken(fetched.len() as u64).encode(self.span.from)
            }
            Frame::Goodbye => return Err(self.common.ended.insert(End::Done).clone()),
            _ => return Err(Violation::Unexpected.into()),
        };
        self.answer = Some(answer);
        Ok(fetched)
    }

    /// Ranges are in order and begin behind `from`: the last bound is the one to look at.
    fn inside(&mut self, last: Option<Item>, ranges: usize) -> Result<(), End> {
        if last > Some(Item::at(self.span.until)) {
            return Err(Violation::Outside.into());
        }
        self.worked(ranges)
    }

    fn worked(&mut self, work: usize) -> Result<(), End> {
        self.work = self.work.saturating_add(work as u64);
        if self.work > Limits::ranges(&self.span) { Err(End::Enough) } else { Ok(()) }
    }

    fn verdict(&mut self, snapshot: &Snapshot, range: &Ranged<u64>) -> Verdict {
        match verdict(snapshot, range) {
            // Else it is listed, and asked for one by one.
            Verdict::Nothing if self.ranges.len() >= MAX_RANGES => Verdict::Differs,
            Verdict::Nothing => {
                self.ranges.insert(range.from, range.to);
                Verdict::Nothing
            }
            other => other,
        }
    }

    fn differences(
        &mut self,
        snapshot: &Snapshot,
        ranges: &[Ranged<Listed>],
        store: &impl Store,
    ) -> Result<Vec<u8>, End> {
        let mut room = self.common.limits.params.frame;
        let (mut all_lacks, mut records, mut stopped) = (Vec::new(), Vec::new(), None);
        for (index, range) in ranges.iter().enumerate() {
            if !range.of.continued {
                self.worked(snapshot.ranks(&range.from, &range.to).len())?;
            }
            let (lacks, missing) = differences(snapshot, range);
            if !range.of.continued {
                self.asked.extend(lacks.iter().filter_map(|lack| range.of.shorts.get(*lack as usize)));
                room = room.saturating_sub(lacks.len() * 2 + 1);
                all_lacks.push(lacks);
            }
            if stopped.is_some() {
                continue;
            }
            let drawn = Cell::new(0);
            let mut missing = missing.inspect(|_| drawn.set(drawn.get() + 1)).peekable();
            // One record goes even where no room is: an answer that stops has gone on.
            let more =
                fill(&mut missing, store, self.theirs.record, room.max(usize::from(records.is_empty())));
            room = room.saturating_sub(more.iter().map(|record| record.len() + 3).sum());
            self.paced += more.iter().map(|record| record.len()).sum::<usize>();
            records.extend(more);
            stopped = missing.peek().map(|next| (index, **next));
            self.worked(range.of.shorts.len() + drawn.get())?;
        }
        if self.asked.len() as u64 + self.common.summary.fetched > self.common.limits.messages {
            return Err(End::Enough);
        }
        self.common.summary.given += records.len() as u64;
        Ok(Frame::Answer { lacks: all_lacks, records, stopped }.encode(self.span.from))
    }

    fn fetched<'f>(
        &mut self,
        snapshot: &Snapshot,
        records: Vec<&'f [u8]>,
        store: &impl Store,
    ) -> Result<Vec<(Item, &'f [u8])>, End> {
        self.common.admit(&records)?;
        let mut fetched = Vec::with_capacity(records.len());
        for record in records {
            let item = store.item(record).ok_or(Violation::Unasked)?;
            let later = self.delivered < Some(item);
            let asked = || self.ranges.range(..=item).next_back().is_some_and(|(_, to)| item < *to);
            if !later || !(self.asked.remove(&snapshot.short_of(&item)) || asked()) {
                return Err(Violation::Unasked.into());
            }
            self.delivered = Some(item);
            fetched.push((item, record));
        }
        Ok(fetched)
    }
}
