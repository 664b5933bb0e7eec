//! Two sides of a session in one place, with time as a value.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use smidge_catchup::{
    End, Id, Initiator, Item, Key, Limits, Output, Responder, Snapshot, Store, Summary, frame::Span,
};

/// Records whose first eight bytes are their time, and whose identity is their hash.
#[derive(Clone, Default)]
pub(crate) struct Memory(pub(crate) BTreeMap<Item, Arc<[u8]>>);

impl Store for Memory {
    fn record(&self, item: &Item) -> Option<&[u8]> {
        self.0.get(item).map(|record| &**record)
    }

    fn item(&self, record: &[u8]) -> Option<Item> {
        let time = u64::from_le_bytes(record.get(..8)?.try_into().ok()?);
        Some(Item { time, id: Id::of(record) })
    }
}

impl Memory {
    /// `count` messages of 100 bytes, 6 ms apart on average, from a moment of 2026 on.
    pub(crate) fn of(count: u64, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut memory = Self::default();
        let mut time = 1_795_000_000_000;
        for _ in 0..count {
            time += random.u64(0..=12);
            let mut record = vec![0; 100];
            random.fill(&mut record);
            record[..8].copy_from_slice(&time.to_le_bytes());
            memory.keep(&record);
        }
        memory
    }

    pub(crate) fn without(&self, lost: impl Fn(usize) -> bool) -> Self {
        let kept = self.0.iter().enumerate().filter(|(n, _)| !lost(*n));
        Self(kept.map(|(_, (item, record))| (*item, record.clone())).collect())
    }
}

/// A memory behind a session.
pub(crate) trait Side: Store {
    fn snapshot(&self, salt: [u8; 16]) -> Snapshot;
    fn keep(&mut self, record: &[u8]);
}

impl Side for Memory {
    fn snapshot(&self, salt: [u8; 16]) -> Snapshot {
        let mut snapshot = Snapshot::new(Key::new(salt));
        self.0.keys().for_each(|item| assert!(snapshot.push(*item)));
        snapshot
    }

    fn keep(&mut self, record: &[u8]) {
        if let Some(item) = self.item(record) {
            self.0.insert(item, record.into());
        }
    }
}

/// All of it, as far as time goes.
pub(crate) fn span() -> Span {
    Span { from: 1_795_000_000_000, until: 1_796_000_000_000, messages: 1_000_000, record: 65_536, now: 7 }
}

/// What a session came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ends: (End, End),
    pub(crate) initiator: Summary,
    pub(crate) responder: Summary,
}

impl Outcome {
    /// Bytes of all frames, records and their lengths included.
    pub(crate) fn bytes(&self) -> u64 {
        self.initiator.sent + self.initiator.received
    }
}

/// One session to its end, in simulated time.
pub(crate) fn session(
    a: &mut impl Side,
    b: &mut impl Side,
    spans: (Span, Span),
    limits: Limits,
    salt: [u8; 16],
) -> Outcome {
    let mut now = Instant::now();
    let mut initiator = Initiator::new(b"topic", salt, spans.0, a.snapshot(salt), limits, now);
    let greeting = match initiator.poll(a, now) {
        Output::Send(frame) => frame,
        other => panic!("{other:?}"),
    };
    let Ok((mut responder, request)) = Responder::new(&greeting, limits, now) else { panic!("greeted") };
    assert_eq!((&*request.topic, request.salt), (&b"topic"[..], salt));
    responder.welcome(spans.1, b.snapshot(salt));
    let mut ends = (None, None);
    loop {
        let mut wait = None;
        match responder.poll(now) {
            Output::Send(frame) => {
                if let Ok(records) = initiator.receive(&frame, a) {
                    let records: Vec<_> = records.iter().map(|(_, record)| *record).collect();
                    records.into_iter().for_each(|record| a.keep(record));
                }
            }
            Output::Wait(until) => wait = Some(until),
            Output::Ended(end) => ends.1 = Some(end),
        }
        match initiator.poll(a, now) {
            Output::Send(frame) => {
                wait = None;
                if let Ok(records) = responder.receive(&frame, b) {
                    let records: Vec<_> = records.iter().map(|(_, record)| *record).collect();
                    records.into_iter().for_each(|record| b.keep(record));
                }
            }
            Output::Wait(until) => wait = wait.map(|other: Instant| other.min(until)),
            Output::Ended(end) => ends.0 = Some(end),
        }
        if let (Some(a), Some(b)) = &ends {
            let (initiator, responder) = (initiator.summary(), responder.summary());
            return Outcome { ends: (a.clone(), b.clone()), initiator, responder };
        }
        now = wait.unwrap_or(now).max(now) + Duration::from_micros(1);
    }
}
