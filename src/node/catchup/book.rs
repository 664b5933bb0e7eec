//! The memories of all topics that are kept, bounded together. Time is handed in, in milliseconds since 1970.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use libp2p::PeerId;
use smidge_catchup::{Item, Keep, Memory, Snapshot, Unkept, frame::Span};

use super::{
    clock::Clock,
    maps::{Maps, Times, Values},
    number::Numbers,
    record::{Record, Shelf, Shelves},
};
use crate::config::{self, TopicRules};

/// How far an author's clock may be ahead of everybody's.
pub(super) const AHEAD: Duration = Duration::from_secs(2 * 3600);
/// A bound that is not set.
const NO_AGE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// How long a message may be on its way as live.
pub(super) const SETTLE: Duration = Duration::from_secs(2);
/// Messages remembered of a topic that the rules refused.
pub(super) const REFUSED: usize = 1024;
/// Messages remembered of a topic that were delivered and could not be kept.
const PASSED: usize = 1024;
/// A session begins a little later than what is kept: the other side, a moment later, still keeps all of it.
const MARGIN: u64 = 500;

/// Where a message stands among all that this node's memory of its topic took: what a subscriber resumes from.
///
/// Written as four numbers with points between. At another node, and after a restart, only its time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Milliseconds since 1970, as the author signed them.
    pub(crate) time: u64,
    /// The number of its record in the memory.
    pub(crate) number: u64,
    /// Which message of the record.
    pub(crate) part: u32,
    /// Which memory.
    pub(crate) memory: u32,
}

impl Position {
    /// Of one of the messages in a record that has no place yet.
    pub(crate) fn of_part(part: usize) -> Self {
        Self { time: 0, number: 0, part: part as u32, memory: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, number, part, memory } = self;
        write!(f, "{time}.{number}.{part}.{memory}")
    }
}

impl FromStr for Position {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHY: &str = "no position of a message: it is four numbers with points between";
        // `parse` would take a sign.
        if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(WHY);
        }
        let mut fields = text.split('.');
        let mut next = || fields.next().and_then(|field| field.parse::<u64>().ok()).ok_or(WHY);
        let (time, number, part, memory) = (next()?, next()?, next()?, next()?);
        let short = |n: u64| u32::try_from(n).map_err(|_| WHY);
        let position = Self { time, number, part: short(part)?, memory: short(memory)? };
        if fields.next().is_none() { Ok(position) } else { Err(WHY) }
    }
}

/// What a message is to the memory of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It may be delivered.
    New,
    /// It is there, and was delivered.
    Known,
    /// It is not newer than what was let go, by its author's word.
    Old,
}

pub(super) struct Kept {
    pub(super) memory: Memory,
    pub(super) keep: config::Keep,
    /// The memory's name in positions: that of the run before, where it is on the disk.
    pub(super) name: u32,
    /// Numbers up to here are not given out again by the next run: as it is to be on the disk, and as it is.
    pub(super) reserved: u64,
    pub(super) numbered: u64,
    read: Option<BTreeSet<PeerId>>,
    /// What neighbours keep and the rules here refuse: it counts as there in comparisons, or it would be given each time.
    refused: BTreeSet<Item>,
    /// What was delivered and is not kept, as this node's clock says that its time has not come, or there is no room: a neighbour
    /// that keeps it may give it once the clock is set right.
    passed: BTreeSet<Item>,
}

/// What this node remembers.
pub(crate) struct Book {
    pub(super) topics: BTreeMap<String, Kept>,
    /// Topics of values by key.
    pub(super) maps: Maps,
    /// Bytes of all topics of messages, and how many those of all topics may be.
    bytes: usize,
    limit: usize,
    /// Tells this memory from that of another node, and of a run before.
    name: u32,
    pub(super) clock: Clock,
    pub(super) numbers: Numbers,
    /// Whether there is a file for what is durable.
    pub(super) writes: bool,
    /// Keys of rows that are to be taken out of it.
    pub(super) stale: Vec<Vec<u8>>,
}

impl Book {
    pub(crate) fn new(name: u32, limit: usize) -> Self {
        Self {
            topics: BTreeMap::new(),
            maps: Maps::new(limit),
            bytes: 0,
            limit,
            name,
            clock: Clock::default(),
            numbers: Numbers::default(),
            writes: false,
            stale: Vec::new(),
        }
    }

    /// Keeps what the rules say, and nothing else. What is kept already stays as far as it may.
    pub(crate) fn configure(&mut self, rules: &BTreeMap<String, TopicRules>, now: u64) {
        let durable =
            |topic: &str| rules.get(topic).and_then(|rules| rules.keep).is_some_and(|keep| keep.durable);
        let left = self.topics.iter_mut().filter(|(topic, kept)| kept.keep.durable && !durable(topic));
        for (topic, kept) in left {
            kept.memory.untrack();
            if self.writes {
                self.stale.extend(kept.rows(topic));
            }
        }
        self.topics.retain(|topic, _| rules.get(topic).is_some_and(|rules| rules.keep.is_some()));
        let (name, writes) = (self.name, self.writes);
        for (topic, rules) in rules {
            let Some(keep) = rules.keep else { continue };
            let bounds = bounds(&keep, self.limit, &self.clock);
            let kept = self.topics.entry(topic.clone()).or_insert_with(|| Kept {
                memory: Memory::new(bounds),
                // As it was before: it is to be written, all of it.
                keep: config::Keep { durable: false, ..keep },
                name,
                reserved: 0,
                numbered: 0,
                read: None,
                refused: BTreeSet::new(),
                passed: BTreeSet::new(),
            });
            if keep.durable && !kept.keep.durable && writes {
                kept.memory.track(false);
            }
            kept.refused.clear();
            (kept.keep, kept.read) = (keep, rules.read.clone());
        }
        self.stale.extend(self.maps.configure(rules, writes, self.times(now)));
        self.adjust(now);
    }

    /// Bounds follow the clock's correction.
    pub(super) fn adjust(&mut self, now: u64) {
        let earlier = self.clock.earlier(now);
        for kept in self.topics.values_mut() {
            kept.memory.set_keep(bounds(&kept.keep, self.limit, &self.clock), earlier);
        }
        self.bytes = self.topics.values().map(|kept| kept.memory.bytes()).sum();
    }

    /// The number of this node's next message.
    pub(crate) fn next_number(&mut self, now: u64) -> u64 {
        self.numbers.next(self.clock.common(now))
    }

    /// A neighbour's clock is so far ahead.
    pub(super) fn heard(&mut self, peer: PeerId, skew: i64, now: u64) {
        if self.clock.heard(peer, skew, now) {
            log::debug!("neighbours' clocks: this one is corrected by {} ms", self.clock.apart());
            self.adjust(now);
        }
    }

    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.clock.forget(peer);
    }

    /// What this node's clock and its neighbours' say.
    pub(super) fn times(&self, now: u64) -> Times {
        Times { own: now, common: self.clock.common(now) }
    }

    /// Whether anything of a topic is kept, be it messages or values by key.
    pub(crate) fn keeps(&self, topic: &str) -> bool {
        self.topics.contains_key(topic) || self.maps.keeps(topic)
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &String> {
        self.topics.keys().chain(self.maps.topics())
    }

    /// Whether a peer may compare its memory of a topic with ours.
    pub(super) fn may_read(&self, topic: &str, peer: &PeerId) -> bool {
        let Some(kept) = self.topics.get(topic) else { return self.maps.may_read(topic, peer) };
        kept.read.as_ref().is_none_or(|peers| peers.contains(peer))
    }

    pub(crate) fn memory(&self, topic: &str) -> Option<&Memory> {
        self.topics.get(topic).map(|kept| &kept.memory)
    }

    pub(super) fn shelf<'a>(&'a self, topic: &'a str) -> Option<Shelves<'a>> {
        let messages = self.memory(topic).map(|memory| Shelves::Messages(Shelf { topic, memory }));
        messages.or_else(|| Some(Shelves::Values(Values { topic, map: self.maps.map(topic)? })))
    }

    /// Messages and bytes that are kept of all topics.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.topics.values().map(|kept| kept.memory.len()).sum(), self.bytes)
    }

    /// What a message is, before it is delivered.
    pub(crate) fn judge(&self, record: &Record, now: u64) -> Judgement {
        let Some(kept) = self.topics.get(record.wire.topic()) else { return Judgement::New };
        if kept.passed.contains(&record.item()) {
            return Judgement::Known;
        }
        match kept.memory.admits(&record.item(), record.author_id(), self.clock.earlier(now)) {
            Err(Unkept::Known) => Judgement::Known,
            // Of numbers that are no times nobody knows what is old.
            Err(Unkept::BelowFloor | Unkept::TooOld) if record.place.timed => Judgement::Old,
            _ => Judgement::New,
        }
    }

    /// Whether a message that a neighbour remembers was delivered already, when it could not be kept: now perhaps it can.
    pub(crate) fn was_passed(&mut self, record: &Record, now: u64) -> bool {
        let was_passed = |kept: &mut Kept| kept.passed.contains(&record.item());
        if !self.topics.get_mut(record.wire.topic()).is_some_and(was_passed) {
            return false;
        }
        if self.insert(record, now).is_some()
            && let Some(kept) = self.topics.get_mut(record.wire.topic())
        {
            kept.passed.remove(&record.item());
        }
        true
    }

    /// Keeps a message that is delivered in any case, as [`insert`](Self::insert) does.
    pub(crate) fn insert_delivered(&mut self, record: &Record, now: u64) -> Option<Position> {
        let position = self.insert(record, now);
        if position.is_none()
            && let Some(kept) = self.topics.get_mut(record.wire.topic())
            && kept.memory.get(&record.item()).is_none()
        {
            kept.passed.insert(record.item());
            if kept.passed.len() > PASSED {
                kept.passed.pop_first();
            }
        }
        position
    }

    /// Keeps a message that was verified and let in; says where, if it is kept.
    pub(crate) fn insert(&mut self, record: &Record, now: u64) -> Option<Position> {
        let now = self.clock.earlier(now);
        let kept = self.topics.get_mut(record.wire.topic())?;
        let before = kept.memory.bytes();
        let inserted = kept.memory.insert(record.item(), record.author_id(), record.bytes(), now);
        let number = kept.memory.last_number();
        self.bytes = self.bytes - before + kept.memory.bytes();
        self.make_room();
        inserted.ok()?;
        Some(self.position(record.wire.topic(), record.item().time, number, 0))
    }

    /// Bytes that all topics may have.
    pub(super) fn bound(&self) -> usize {
        self.limit
    }

    pub(crate) fn position(&self, topic: &str, time: u64, number: u64, part: u32) -> Position {
        // A number that the next run would give out again does not outlive this one.
        let kept = self.topics.get(topic).filter(|kept| number <= kept.numbered);
        Position { time, number, part, memory: kept.map_or(self.name, |kept| kept.name) }
    }

    /// Whether a position is one of this memory.
    pub(crate) fn is_own(&self, topic: &str, position: &Position) -> bool {
        let kept = self.topics.get(topic);
        position.memory == self.name || kept.is_some_and(|kept| kept.name == position.memory)
    }

    pub(super) fn make_room(&mut self) {
        let limit = self.limit.saturating_sub(self.maps.bytes());
        while self.bytes > limit {
            let most = self.topics.values_mut().max_by_key(|kept| kept.memory.bytes());
            let Some(kept) = most else { return };
            let before = kept.memory.bytes();
            if !kept.memory.let_go_oldest() {
                return;
            }
            self.bytes = self.bytes - before + kept.memory.bytes();
        }
    }

    /// What a session compares: all, or all but what may be on its way as live. The own clock is given as it is.
    pub(super) fn span(&mut self, topic: &str, settled: bool, record: usize, now: u64) -> Option<Span> {
        let (earlier, common) = (self.clock.earlier(now), self.clock.common(now));
        if self.maps.keeps(topic) {
            return self.maps.span(topic, record, self.times(now));
        }
        let kept = self.topics.get_mut(topic)?;
        let before = kept.memory.bytes();
        kept.memory.expire(earlier);
        self.bytes = self.bytes - before + kept.memory.bytes();
        let mut span = kept.memory.span(earlier, Duration::ZERO, record as u64);
        if settled {
            span.until = span.until.min(common.saturating_sub(SETTLE.as_millis() as u64));
        }
        span.now = now;
        Some(span)
    }

    /// The span of a greeting.
    pub(super) fn greeting(&mut self, topic: &str, settled: bool, record: usize, now: u64) -> Option<Span> {
        let mut span = self.span(topic, settled, record, now)?;
        if span.from > 0 {
            span.from = (span.from + MARGIN).min(span.until);
        }
        Some(span)
    }

    /// Puts up to `most` items behind the last of a snapshot into it; says whether that was all.
    pub(super) fn fill(&self, topic: &str, snapshot: &mut Snapshot, most: usize) -> bool {
        let Some(kept) = self.topics.get(topic) else { return self.maps.fill(topic, snapshot, most) };
        let last = snapshot.items().last().copied();
        let from = last.unwrap_or(Item::at(0));
        let mut memory = kept.memory.from(from).map(|kept| kept.item).peekable();
        let mut refused = kept.refused.range(from..).copied().peekable();
        for _ in 0..most {
            let next = match (memory.peek(), refused.peek()) {
                (Some(one), Some(other)) if one > other => refused.next(),
                (Some(_), _) => memory.next(),
                (None, _) => refused.next(),
            };
            let Some(next) = next else { return true };
            // The last of before is passed over.
            snapshot.push(next);
        }
        false
    }

    /// The rules refuse a message that a neighbour keeps.
    pub(crate) fn refuse(&mut self, record: &Record) {
        let Some(kept) = self.topics.get_mut(record.wire.topic()) else { return };
        kept.refused.insert(record.item());
        if kept.refused.len() > REFUSED {
            kept.refused.pop_first();
        }
    }

    /// Whether something was sent before what is still on its way as live.
    pub(super) fn is_settled(&self, item: &Item, now: u64) -> bool {
        item.time.saturating_add(SETTLE.as_millis() as u64) < self.clock.common(now)
    }
}

fn bounds(keep: &config::Keep, limit: usize, clock: &Clock) -> Keep {
    Keep {
        messages: keep.messages.unwrap_or(usize::MAX),
        bytes: keep.bytes.unwrap_or(limit).min(limit),
        age: keep.age.unwrap_or(NO_AGE),
        // The earlier clock counts for what is old: what is ahead of it may be that of everybody.
        ahead: AHEAD + Duration::from_millis(clock.apart().min(NO_AGE.as_millis() as u64)),
        ..Keep::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::{Authenticity, Author, Topic};

    const NOW: u64 = 1_795_000_000_000;
    const MINUTE: u64 = 60_000;

    struct Said(Author, Numbers);

    impl Said {
        fn new() -> Self {
            let key = libp2p::identity::Keypair::generate_ed25519();
            Self(Author::new(Authenticity::Signed(key), 0), Numbers::default())
        }

        fn at(&mut self, topic: &str, now: u64) -> Record {
            self.0.number_above(self.1.next(now) - 1);
            let wire = self.0.compose(&Topic::from(topic), &[7; 100], &mut fastrand::Rng::new()).unwrap();
            Record::of(&wire).unwrap()
        }
    }

    fn book(limit: usize, topics: &[(&str, config::Keep)]) -> Book {
        let mut book = Book::new(1, limit);
        let rules = |keep| TopicRules { keep: Some(keep), ..TopicRules::default() };
        let rules = topics.iter().map(|(topic, keep)| ((*topic).to_owned(), rules(*keep))).collect();
        book.configure(&rules, NOW);
        book
    }

    fn minutes(n: u64) -> config::Keep {
        config::Keep { age: Some(Duration::from_millis(n * MINUTE)), ..config::Keep::default() }
    }

    #[test]
    fn what_was_let_go_is_not_new_again_and_a_command_of_last_week_never_is() {
        let (mut book, mut said) = (book(1 << 20, &[("t", minutes(10))]), Said::new());
        let record = said.at("t", NOW);
        assert_eq!(book.judge(&record, NOW), Judgement::New);
        assert!(book.insert(&record, NOW).is_some());
        assert_eq!(book.judge(&record, NOW), Judgement::Known);
        let later = NOW + 11 * MINUTE;
        assert!(book.insert(&said.at("t", later), later).is_some());
        assert_eq!(book.held().0, 1);
        assert_eq!(book.judge(&record, later), Judgement::Old);
        let last_week = Said::new().at("t", NOW - 7 * 24 * 60 * MINUTE);
        assert_eq!((book.judge(&last_week, NOW), book.insert(&last_week, NOW)), (Judgement::Old, None));
        assert_eq!(book.judge(&said.at("other", NOW), NOW), Judgement::New, "a topic that is not kept");
    }

    #[test]
    fn what_was_delivered_when_the_clock_was_wrong_is_kept_and_not_new_once_it_is_right() {
        let (mut book, mut said) = (book(1 << 20, &[("t", minutes(10))]), Said::new());
        let (record, unheard) = (said.at("t", NOW), said.at("t", NOW + 1));
        // Six hours behind.
        let wrong = NOW - 360 * MINUTE;
        assert_eq!(book.judge(&record, wrong), Judgement::New);
        assert_eq!(book.insert_delivered(&record, wrong), None, "its time has not come");
        for now in [wrong, NOW] {
            assert_eq!(book.judge(&record, now), Judgement::Known, "it was delivered");
        }
        assert!(book.was_passed(&record, wrong) && book.held().0 == 0);
        assert!(book.was_passed(&record, NOW) && book.held().0 == 1, "and is kept for others");
        assert!(!book.was_passed(&record, NOW));
        assert_eq!(book.judge(&unheard, NOW), Judgement::New);
        for n in 0..2 * PASSED as u64 {
            book.insert_delivered(&said.at("t", NOW + n), wrong);
        }
        assert_eq!(book.topics["t"].passed.len(), PASSED);
    }

    #[test]
    fn numbers_that_are_no_times_refuse_nothing() {
        let book = book(1 << 20, &[("t", minutes(10))]);
        let key = libp2p::identity::Keypair::generate_ed25519();
        let mut author = Author::new(Authenticity::Signed(key), (NOW - 60 * MINUTE) * 1_000_000);
        let wire = author.compose(&Topic::from("t"), b"stock", &mut fastrand::Rng::new()).unwrap();
        assert_eq!(book.judge(&Record::of(&wire).unwrap(), NOW), Judgement::New);
    }

    #[test]
    fn a_clock_an_hour_off_keeps_what_others_say_once_it_heard_them() {
        for skew in [-60 * MINUTE as i64, 60 * MINUTE as i64] {
            // Ours is ahead by an hour, or behind.
            let mut book = book(1 << 20, &[("t", minutes(10))]);
            let ours = NOW.saturating_add_signed(-skew);
            for _ in 0..3 {
                book.heard(PeerId::random(), skew, ours);
            }
            let record = Said::new().at("t", NOW);
            assert_eq!(book.judge(&record, ours), Judgement::New);
            assert!(book.insert(&record, ours).is_some(), "{skew}");
            let number = book.next_number(ours);
            assert!(super::super::number::place(&PeerId::random(), number).item.time.abs_diff(NOW) < 10);
        }
    }

    #[test]
    fn all_topics_together_are_bounded_and_the_largest_lets_go() {
        let mut book = book(100 << 10, &[("loud", minutes(10)), ("quiet", minutes(10))]);
        let (mut loud, mut quiet) = (Said::new(), Said::new());
        let rare = quiet.at("quiet", NOW);
        book.insert(&rare, NOW);
        for n in 0..1000 {
            book.insert(&loud.at("loud", NOW + n), NOW + n);
            assert!(book.held().1 <= 100 << 10);
        }
        assert_eq!(book.judge(&rare, NOW), Judgement::Known);
        assert!(book.memory("loud").unwrap().len() > 300);
        book.configure(&BTreeMap::new(), NOW);
        assert_eq!(book.held(), (0, 0));
    }

    #[test]
    fn what_the_rules_refuse_is_compared_as_if_it_were_there() {
        let (mut book, mut said) = (book(1 << 20, &[("t", minutes(10))]), Said::new());
        let all: Vec<_> = (0..10).map(|n| said.at("t", NOW + n)).collect();
        for (n, record) in all.iter().enumerate() {
            if n % 3 == 0 { book.refuse(record) } else { assert!(book.insert(record, NOW + 9).is_some()) }
        }
        for slice in [1, 2, 3, 100] {
            let mut snapshot = Snapshot::new(smidge_catchup::Key::new([0; 16]));
            while !book.fill("t", &mut snapshot, slice + 1) {}
            let items: Vec<_> = all.iter().map(Record::item).collect();
            assert_eq!(snapshot.items(), items);
        }
        for n in 0..2 * REFUSED as u64 {
            book.refuse(&said.at("t", NOW + n));
        }
        assert_eq!(book.topics["t"].refused.len(), REFUSED);
        assert_eq!(book.held().0, 6, "and is not kept");
    }

    #[test]
    fn positions_are_read_as_they_are_written() {
        let position = Position { time: NOW, number: 7, part: 2, memory: u32::MAX };
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in ["", "1", "1.2.3", "1.2.3.4.5", "1.2.3.x", "+1.2.3.4", "1.2.3.4294967296", "1..2.3"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }
}
