//! What the two sides of a session say, as bytes: docs/CATCHUP.md, "Frames".
//!
//! A frame is decoded in one pass, its records are shares of its bytes, and what is made of it is bounded by its length
//! and by [`MAX_RANGES`]. Bounds are relative to the time that the session starts from, which is handed in.

use crate::{
    Id, Item,
    varint::{Reader, put, put_bound},
};

pub use crate::varint::DecodeError;

/// About the longest frame, bytes: none is begun to be made longer, but the last record in it may be.
pub const FRAME: usize = 64 * 1024;

/// Ranges in one frame.
pub const MAX_RANGES: usize = 4096;

/// The longest name of a topic in a greeting, bytes.
pub const MAX_TOPIC: usize = 1024;

/// Messages that one frame asks about.
pub const MAX_ASKED: usize = 64;

/// What one side keeps of a topic, and of which part of it the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Nothing before this time is kept.
    pub from: u64,
    /// Nothing at or behind this time is compared: it is still on its way.
    pub until: u64,
    /// The most messages that are kept: where bytes are the closer bound, how many of those here would fit.
    pub messages: u64,
    /// The longest record that is taken, bytes.
    pub record: u64,
    /// What the sender's clock says, milliseconds since 1970.
    pub now: u64,
}

/// Two bounds, the upper one excluded, and what is said of what lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranged<T> {
    /// The lower bound.
    pub from: Item,
    /// The upper bound, above the lower one.
    pub to: Item,
    /// What is said.
    pub of: T,
}

/// What the responder has in a range, by its fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same.
    Equal,
    /// Something else.
    Differs,
    /// Nothing: all of it is asked for.
    Nothing,
}

/// What the initiator has in a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// 48 bits of each item's keyed hash, in the order of the items.
    pub shorts: Vec<u64>,
    /// The rest of a range that was not answered to its end: what the responder lacks was asked for before.
    pub continued: bool,
}

/// Why a session does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The topic is not kept here.
    NotKept,
    /// The peer may not read the topic's memory.
    NotAllowed,
    /// Too many sessions; later, perhaps.
    Busy,
}

/// One message of the session's protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The initiator's first.
    Greeting {
        /// Fresh random bytes: the session's key.
        salt: [u8; 16],
        /// The topic's name.
        topic: &'a [u8],
        /// What the initiator keeps.
        span: Span,
        /// Of all it has between `from` and `until`.
        fingerprint: u64,
    },
    /// The responder's answer: what both would keep, and the fingerprint's verdict if that is the greeting's range.
    Welcome {
        /// The range is what both keep; the rest is the responder's.
        span: Span,
        /// [`Verdict::Differs`] also where the ranges do.
        verdict: Verdict,
    },
    /// The responder's other answer.
    Refused(Refusal),
    /// Fingerprints of ranges.
    Compare(Vec<Ranged<u64>>),
    /// One for each range of a [`Compare`](Self::Compare).
    Verdicts(Vec<Verdict>),
    /// All that the initiator has in some ranges.
    List(Vec<Ranged<Listed>>),
    /// To a [`List`](Self::List).
    Answer {
        /// For each range that is not continued: which of the listed items the responder lacks.
        lacks: Vec<Vec<u32>>,
        /// What it has and the lists have not, in order.
        records: Vec<&'a [u8]>,
        /// The range, and the bound in it, from which on there is more.
        stopped: Option<(usize, Item)>,
    },
    /// Records that the responder asked for, in order.
    Deliver(Vec<&'a [u8]>),
    /// To a [`Deliver`](Self::Deliver): how many of them were taken.
    Taken(u64),
    /// Of either side: enough for now.
    Goodbye,
    /// No part of a session: which of these does the other side keep?
    Ask {
        /// The topic's name.
        topic: &'a [u8],
        /// How long the answer may wait for one of them, milliseconds.
        wait: u64,
        /// In order, each once, [`MAX_ASKED`] at most.
        items: Vec<Item>,
    },
    /// To an [`Ask`](Self::Ask): the indices of those that are kept.
    Kept(Vec<u32>),
}

const SKIP: u8 = 0;
const SAID: u8 = 1;
const CONTINUED: u8 = 2;

impl<'a> Frame<'a> {
    /// As bytes, without the length before them. `base` is the time that the session starts from, 0 before it is known.
    pub fn encode(&self, base: u64) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Greeting { salt, topic, span, fingerprint } => {
                out.extend_from_slice(&[0, 1]);
                out.extend_from_slice(salt);
                put(&mut out, topic.len() as u64);
                out.extend_from_slice(topic);
                put_span(&mut out, span);
                out.extend_from_slice(&fingerprint.to_le_bytes());
            }
            Self::Welcome { span, verdict } => {
                out.push(1);
                put_span(&mut out, span);
                out.push(*verdict as u8);
            }
            Self::Refused(refusal) => out.extend_from_slice(&[2, *refusal as u8]),
            Self::Compare(ranges) => {
                out.push(3);
                put_ranges(
                    &mut out,
                    base,
                    ranges,
                    |_| SAID,
                    |out, of| out.extend_from_slice(&of.to_le_bytes()),
                );
            }
            Self::Verdicts(verdicts) => {
                out.push(4);
                put(&mut out, verdicts.len() as u64);
                for four in verdicts.chunks(4) {
                    out.push(four.iter().rev().fold(0, |byte, verdict| byte << 2 | *verdict as u8));
                }
            }
            Self::List(ranges) => {
                out.push(5);
                let kind = |listed: &Listed| if listed.continued { CONTINUED } else { SAID };
                put_ranges(&mut out, base, ranges, kind, |out, listed| {
                    put(out, listed.shorts.len() as u64);
                    listed.shorts.iter().for_each(|short| out.extend_from_slice(&short.to_le_bytes()[..6]));
                });
            }
            Self::Answer { lacks, records, stopped } => {
                out.push(6);
                put(&mut out, lacks.len() as u64);
                lacks.iter().for_each(|indices| put_indices(&mut out, indices));
                put_records(&mut out, records);
                if let Some((range, bound)) = stopped {
                    put(&mut out, *range as u64);
                    put_bound(&mut out, SKIP, &mut { base }, bound);
                }
            }
            Self::Deliver(records) => {
                out.push(7);
                put_records(&mut out, records);
            }
            Self::Taken(count) => {
                out.push(8);
                put(&mut out, *count);
            }
            Self::Goodbye => out.push(9),
            Self::Ask { topic, wait, items } => {
                out.extend_from_slice(&[10, 1]);
                put(&mut out, topic.len() as u64);
                out.extend_from_slice(topic);
                put(&mut out, *wait);
                put(&mut out, items.len() as u64);
                let mut time = 0;
                for item in items {
                    put(&mut out, item.time.saturating_sub(time));
                    out.extend_from_slice(&item.id.0);
                    time = item.time;
                }
            }
            Self::Kept(indices) => {
                out.push(11);
                put_indices(&mut out, indices);
            }
        }
        out
    }

    /// Reads one frame.
    pub fn decode(bytes: &'a [u8], base: u64) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        let frame = match reader.byte()? {
            0 => {
                if reader.byte()? != 1 {
                    return Err(DecodeError::Unknown);
                }
                let salt = reader.array()?;
                let length = reader.count()?;
                if length > MAX_TOPIC {
                    return Err(DecodeError::Number);
                }
                let (topic, span) = (reader.take(length)?, span(&mut reader)?);
                Self::Greeting { salt, topic, span, fingerprint: u64::from_le_bytes(reader.array()?) }
            }
            1 => Self::Welcome { span: span(&mut reader)?, verdict: verdict(reader.byte()?)? },
            2 => Self::Refused(match reader.byte()? {
                0 => Refusal::NotKept,
                1 => Refusal::NotAllowed,
                2 => Refusal::Busy,
                _ => return Err(DecodeError::Unknown),
            }),
            3 => Self::Compare(ranges(&mut reader, base, |kind, reader| match kind {
                SAID => Ok(u64::from_le_bytes(reader.array()?)),
                _ => Err(DecodeError::Unknown),
            })?),
            4 => Self::Verdicts(verdicts(&mut reader)?),
            5 => Self::List(ranges(&mut reader, base, |kind, reader| {
                if kind > CONTINUED {
                    return Err(DecodeError::Unknown);
                }
                let count = reader.count()?;
                let bytes = reader.take(count.checked_mul(6).ok_or(DecodeError::Number)?)?;
                let short = |six: &[u8]| six.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
                Ok(Listed {
                    shorts: bytes.chunks_exact(6).map(short).collect(),
                    continued: kind == CONTINUED,
                })
            })?),
            6 => {
                let count = reader.count()?;
                if count > MAX_RANGES {
                    return Err(DecodeError::Ranges);
                }
                let lacks = (0..count).map(|_| indices(&mut reader)).collect::<Result<_, _>>()?;
                let records = records(&mut reader)?;
                let stopped = if reader.0.is_empty() {
                    None
                } else {
                    let range = usize::try_from(reader.number()?).map_err(|_| DecodeError::Number)?;
                    match reader.bound(&mut { base })? {
                        (SKIP, bound) => Some((range, bound)),
                        _ => return Err(DecodeError::Unknown),
                    }
                };
                Self::Answer { lacks, records, stopped }
            }
            7 => Self::Deliver(records(&mut reader)?),
            8 => Self::Taken(reader.number()?),
            9 => Self::Goodbye,
            10 => {
                if reader.byte()? != 1 {
                    return Err(DecodeError::Unknown);
                }
                let length = reader.count()?;
                if length > MAX_TOPIC {
                    return Err(DecodeError::Number);
                }
                let (topic, wait) = (reader.take(length)?, reader.number()?);
                Self::Ask { topic, wait, items: items(&mut reader)? }
            }
            11 => Self::Kept(indices(&mut reader)?),
            _ => return Err(DecodeError::Unknown),
        };
        reader.end()?;
        Ok(frame)
    }
}

/// Whether bytes are an [`Frame::Ask`], if they are a frame at all.
pub fn is_ask(frame: &[u8]) -> bool {
    frame.first() == Some(&10)
}

fn put_indices(out: &mut Vec<u8>, indices: &[u32]) {
    put(out, indices.len() as u64);
    let mut next = 0;
    for index in indices {
        put(out, u64::from(index.saturating_sub(next)));
        next = index.saturating_add(1);
    }
}

fn items(reader: &mut Reader<'_>) -> Result<Vec<Item>, DecodeError> {
    let count = reader.count()?;
    if count > MAX_ASKED {
        return Err(DecodeError::Number);
    }
    let mut items: Vec<Item> = Vec::with_capacity(count);
    for _ in 0..count {
        let before = items.last().map_or(0, |item| item.time);
        let time = before.checked_add(reader.number()?).ok_or(DecodeError::Number)?;
        let item = Item { time, id: Id(reader.array()?) };
        if items.last() >= Some(&item) {
            return Err(DecodeError::Order);
        }
        items.push(item);
    }
    Ok(items)
}

fn put_span(out: &mut Vec<u8>, span: &Span) {
    let Span { from, until, messages, record, now } = *span;
    [from, until, messages, record, now].into_iter().for_each(|number| put(out, number));
}

fn span(reader: &mut Reader<'_>) -> Result<Span, DecodeError> {
    let mut number = || reader.number();
    Ok(Span { from: number()?, until: number()?, messages: number()?, record: number()?, now: number()? })
}

fn put_ranges<T>(
    out: &mut Vec<u8>,
    base: u64,
    ranges: &[Ranged<T>],
    kind: impl Fn(&T) -> u8,
    put: impl Fn(&mut Vec<u8>, &T),
) {
    let mut at = Item::at(base);
    let mut time = base;
    for range in ranges {
        if range.from != at {
            put_bound(out, SKIP, &mut time, &range.from);
        }
        put_bound(out, kind(&range.of), &mut time, &range.to);
        put(out, &range.of);
        at = range.to;
    }
}

fn ranges<'a, T>(
    reader: &mut Reader<'a>,
    base: u64,
    mut of: impl FnMut(u8, &mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<Ranged<T>>, DecodeError> {
    let mut ranges = Vec::new();
    let (mut at, mut time, mut skipped) = (Item::at(base), base, false);
    while !reader.0.is_empty() {
        let (kind, to) = reader.bound(&mut time)?;
        if to <= at || skipped && kind == SKIP {
            return Err(DecodeError::Order);
        }
        skipped = kind == SKIP;
        if !skipped {
            if ranges.len() == MAX_RANGES {
                return Err(DecodeError::Ranges);
            }
            ranges.push(Ranged { from: at, to, of: of(kind, reader)? });
        }
        at = to;
    }
    if skipped || ranges.is_empty() { Err(DecodeError::Order) } else { Ok(ranges) }
}

fn verdict(code: u8) -> Result<Verdict, DecodeError> {
    match code {
        0 => Ok(Verdict::Equal),
        1 => Ok(Verdict::Differs),
        2 => Ok(Verdict::Nothing),
        _ => Err(DecodeError::Unknown),
    }
}

fn verdicts(reader: &mut Reader<'_>) -> Result<Vec<Verdict>, DecodeError> {
    let count = usize::try_from(reader.number()?).map_err(|_| DecodeError::Number)?;
    if count > MAX_RANGES {
        return Err(DecodeError::Ranges);
    }
    let bytes = reader.take(count.div_ceil(4))?;
    let two = |n: usize| bytes[n / 4] >> (n % 4 * 2) & 3;
    // The rest of the last byte is zero: one encoding.
    if (count..bytes.len() * 4).any(|n| two(n) != 0) {
        return Err(DecodeError::Number);
    }
    (0..count).map(|n| verdict(two(n))).collect()
}

fn indices(reader: &mut Reader<'_>) -> Result<Vec<u32>, DecodeError> {
    let count = reader.count()?;
    let mut indices = Vec::with_capacity(count);
    let mut next = 0;
    for _ in 0..count {
        let step = u32::try_from(reader.number()?).map_err(|_| DecodeError::Number)?;
        let index: u32 = step.checked_add(next).ok_or(DecodeError::Number)?;
        next = index.checked_add(1).ok_or(DecodeError::Number)?;
        indices.push(index);
    }
    Ok(indices)
}

fn put_records(out: &mut Vec<u8>, records: &[&[u8]]) {
    put(out, records.len() as u64);
    for record in records {
        put(out, record.len() as u64);
        out.extend_from_slice(record);
    }
}

fn records<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, DecodeError> {
    let count = reader.count()?;
    let record = |reader: &mut Reader<'a>| {
        let length = reader.count()?;
        reader.take(length)
    };
    (0..count).map(|_| record(reader)).collect()
}
