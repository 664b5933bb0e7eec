//! Peers that lie, ask without end, send what nobody asked for, or fall silent: what they cost is bounded.

use std::time::{Duration, Instant};

use crate::support::{Memory, Side as _, span};
use proptest::prelude::*;
use smidge_catchup::{
    End, Id, Initiator, Item, Limits, Output, Responder, Violation,
    frame::{Frame, Listed, Ranged, Refusal, Verdict},
};

const SALT: [u8; 16] = [5; 16];
const FROM: u64 = 1_795_000_000_000;
const UNTIL: u64 = 1_796_000_000_000;

fn honest_initiator(memory: &Memory, now: Instant) -> Initiator {
    let mut initiator = Initiator::new(b"topic", SALT, span(), memory.snapshot(SALT), Limits::default(), now);
    assert!(matches!(initiator.poll(memory, now), Output::Send(_)));
    initiator
}

fn honest_responder(memory: &Memory, messages: u64, record: u64, now: Instant) -> Responder {
    let theirs = smidge_catchup::frame::Span { record, ..span() };
    let greeting = Frame::Greeting { salt: SALT, topic: b"topic", span: theirs, fingerprint: 1 }.encode(0);
    let Ok((mut responder, _)) = Responder::new(&greeting, Limits::default(), now) else { panic!("greeted") };
    responder.welcome(smidge_catchup::frame::Span { messages, ..span() }, memory.snapshot(SALT));
    assert!(matches!(responder.poll(now), Output::Send(_)));
    responder
}

fn welcome(verdict: Verdict) -> Vec<u8> {
    Frame::Welcome { span: span(), verdict }.encode(0)
}

/// Feeds a responder one frame again and again, until it has had enough; gives back how many it answered, and how.
fn insist(responder: &mut Responder, memory: &Memory, frame: &[u8], mut now: Instant) -> (u32, End) {
    for count in 0..1_000_000 {
        if let Err(end) = responder.receive(frame, memory) {
            return (count, end);
        }
        loop {
            match responder.poll(now) {
                Output::Send(answer) if Frame::decode(&answer, FROM) == Ok(Frame::Goodbye) => {}
                Output::Send(_) => break,
                Output::Wait(until) => now = until,
                Output::Ended(end) => return (count, end),
            }
        }
    }
    panic!("it goes on without end");
}

#[test]
fn a_peer_that_says_that_all_differs_is_found_out() {
    let (memory, now) = (Memory::of(100_000, 1), Instant::now());
    let mut initiator = honest_initiator(&memory, now);
    let mut answer = welcome(Verdict::Differs);
    let end = loop {
        if let Err(end) = initiator.receive(&answer, &memory) {
            break end;
        }
        let Output::Send(frame) = initiator.poll(&memory, now) else { panic!("it asks on") };
        answer = match Frame::decode(&frame, FROM).unwrap() {
            Frame::Compare(ranges) => Frame::Verdicts(vec![Verdict::Differs; ranges.len()]).encode(FROM),
            Frame::List(ranges) => {
                let lacks = vec![Vec::new(); ranges.len()];
                Frame::Answer { lacks, records: Vec::new(), stopped: None }.encode(FROM)
            }
            other => panic!("{other:?}"),
        };
    };
    println!(
        "{} bytes, {} answers, of 100,000 messages",
        initiator.summary().sent,
        initiator.summary().frames
    );
    assert_eq!(end, End::Violation(Violation::Lies));
    assert!(initiator.summary().sent < 100_000 * 8);
}

#[test]
fn a_peer_that_asks_for_all_is_given_it_once() {
    let (memory, mut now) = (Memory::of(1000, 1), Instant::now());
    let mut initiator = honest_initiator(&memory, now);
    initiator.receive(&welcome(Verdict::Nothing), &memory).unwrap();
    loop {
        match initiator.poll(&memory, now) {
            // Not faster than its rate.
            Output::Wait(until) => now = until,
            Output::Ended(end) => panic!("{end:?}"),
            Output::Send(frame) => match Frame::decode(&frame, FROM).unwrap() {
                Frame::Deliver(records) => {
                    let taken = Frame::Taken(records.len() as u64).encode(FROM);
                    assert_eq!(initiator.receive(&taken, &memory), Ok(Vec::new()));
                }
                Frame::Goodbye => break,
                other => panic!("{other:?}"),
            },
        }
    }
    assert_eq!(initiator.summary().given, 1000);
    assert_eq!(initiator.poll(&memory, now), Output::Ended(End::Done));
}

#[test]
fn answers_that_no_honest_peer_gives_end_the_session() {
    let (memory, other, now) = (Memory::of(8, 1), Memory::of(9, 2), Instant::now());
    let known = memory.0.values().next().unwrap().to_vec();
    let unknown = other.0.values().next().unwrap().to_vec();
    let mut early = unknown.clone();
    early[..8].copy_from_slice(&(FROM - 1).to_le_bytes());
    let two: Vec<&[u8]> = other.0.values().rev().take(2).map(|record| &**record).collect();
    let answer = |lacks: Vec<Vec<u32>>, records: Vec<&[u8]>, stopped| {
        Frame::Answer { lacks, records, stopped }.encode(FROM)
    };
    let bad = [
        (answer(vec![vec![8]], vec![], None), Violation::Index),
        (answer(vec![], vec![], None), Violation::Count),
        (answer(vec![vec![], vec![]], vec![], None), Violation::Count),
        (answer(vec![vec![]], vec![&known], None), Violation::Unasked),
        (answer(vec![vec![]], vec![&early], None), Violation::Unasked),
        (answer(vec![vec![]], vec![b"short"], None), Violation::Unasked),
        (answer(vec![vec![]], vec![&unknown, &unknown], None), Violation::Unasked),
        (answer(vec![vec![]], two, None), Violation::Unasked),
        (answer(vec![vec![]], vec![], Some((0, Item::at(FROM)))), Violation::Backwards),
        (answer(vec![vec![]], vec![&unknown], Some((0, Item::at(FROM)))), Violation::Backwards),
        (answer(vec![vec![]], vec![&unknown], Some((0, Item::at(UNTIL)))), Violation::Backwards),
        (answer(vec![vec![]], vec![&unknown], Some((1, Item::at(UNTIL - 1)))), Violation::Backwards),
        (Frame::Verdicts(vec![Verdict::Equal]).encode(FROM), Violation::Unexpected),
        (Frame::Taken(0).encode(FROM), Violation::Unexpected),
        (welcome(Verdict::Equal), Violation::Unexpected),
    ];
    for (bad, why) in bad {
        let mut initiator = honest_initiator(&memory, now);
        initiator.receive(&welcome(Verdict::Differs), &memory).unwrap();
        let Output::Send(list) = initiator.poll(&memory, now) else { panic!("no list") };
        assert!(matches!(Frame::decode(&list, FROM), Ok(Frame::List(_))));
        assert_eq!(initiator.receive(&bad, &memory), Err(End::Violation(why)), "{bad:02x?}");
        assert_eq!(initiator.poll(&memory, now), Output::Ended(End::Violation(why)));
    }
}

#[test]
fn ranges_without_end_are_answered_a_bounded_number_of_times() {
    let (memory, now) = (Memory::of(1000, 1), Instant::now());
    let bound = |n: u64| Item::at(FROM + n * 1000);
    let compare: Vec<_> = (0..4096).map(|n| Ranged { from: bound(n), to: bound(n + 1), of: 77 }).collect();
    let mut responder = honest_responder(&memory, 1000, 65_536, now);
    let answered = insist(&mut responder, &memory, &Frame::Compare(compare).encode(FROM), now);
    println!("4096 ranges again and again: {answered:?}");
    assert_eq!(answered.1, End::Enough);
    assert!(answered.0 <= 2, "{answered:?}");

    // All of it again and again, with and without asking; and records that would be too long for it.
    for (continued, record) in [(false, 65_536), (true, 65_536), (true, 0)] {
        for shorts in [vec![], vec![1, 2, 3]] {
            let list = Listed { shorts, continued };
            let whole = Ranged { from: Item::at(FROM), to: Item::at(UNTIL), of: list };
            let mut responder = honest_responder(&memory, 1000, record, now);
            let answered = insist(&mut responder, &memory, &Frame::List(vec![whole]).encode(FROM), now);
            println!("all of 1,000, continued {continued}, records of {record}: {answered:?}");
            assert_eq!(answered.1, End::Enough);
            assert!(answered.0 <= 20, "{answered:?}");
        }
    }
}

#[test]
fn what_an_initiator_may_not_send_ends_the_session() {
    let (memory, now) = (Memory::of(9, 1), Instant::now());
    let foreign = Memory::of(1, 2).0.into_values().next().unwrap();
    let record: &[u8] = &foreign;
    let to = Item::at(UNTIL + 1);
    let listed = Ranged { from: Item::at(FROM), to, of: Listed { shorts: vec![], continued: false } };
    let whole = |to, of| vec![Ranged { from: Item::at(FROM), to: Item::at(to), of }];
    for (frame, why) in [
        (Frame::Deliver(vec![record]), Violation::Unasked),
        (Frame::Compare(whole(UNTIL + 1, 0)), Violation::Outside),
        (Frame::List(vec![listed]), Violation::Outside),
        (Frame::Taken(1), Violation::Unexpected),
    ] {
        let mut responder = honest_responder(&memory, 1000, 65_536, now);
        let bytes = frame.encode(FROM);
        assert_eq!(responder.receive(&bytes, &memory), Err(End::Violation(why)), "{frame:?}");
        assert_eq!(responder.poll(now), Output::Ended(End::Violation(why)));
    }
    // A second frame before the answer to the first.
    let mut responder = honest_responder(&memory, 1000, 65_536, now);
    let frame = Frame::Compare(whole(UNTIL, 0)).encode(FROM);
    responder.receive(&frame, &memory).unwrap();
    assert_eq!(responder.receive(&frame, &memory), Err(End::Violation(Violation::Unexpected)));
    // Longer than any.
    let mut responder = honest_responder(&memory, 1000, 65_536, now);
    assert!(matches!(responder.receive(&vec![3; 200_000], &memory), Err(End::Decode(_))));
}

#[test]
fn a_record_that_was_asked_for_is_taken_once() {
    let (memory, now) = (Memory::of(9, 1), Instant::now());
    let foreign = Memory::of(1, 2).0.into_values().next().unwrap();
    let record: &[u8] = &foreign;
    let mut responder = honest_responder(&memory, 1000, 65_536, now);
    let early = Frame::Compare(vec![Ranged { from: Item::at(UNTIL - 9), to: Item::at(UNTIL), of: 1 }]);
    responder.receive(&early.encode(FROM), &memory).unwrap();
    assert!(matches!(responder.poll(now), Output::Send(_)));
    let mut late = record.to_vec();
    late[..8].copy_from_slice(&(UNTIL - 5).to_le_bytes());
    let deliver = Frame::Deliver(vec![&late]).encode(FROM);
    assert_eq!(responder.receive(&deliver, &memory).map(|records| records.len()), Ok(1));
    let mut later = now;
    while let Output::Wait(until) = responder.poll(later) {
        later = until;
    }
    assert_eq!(responder.receive(&deliver, &memory), Err(End::Violation(Violation::Unasked)));
}

#[test]
fn silence_and_dribbling_end_in_a_stated_time() {
    let (memory, now) = (Memory::of(1000, 1), Instant::now());
    let mut initiator = honest_initiator(&memory, now);
    let due = now + Limits::default().silence;
    assert_eq!(initiator.poll(&memory, now), Output::Wait(due));
    assert_eq!(initiator.poll(&memory, due), Output::Ended(End::Silent));
    let mut responder = honest_responder(&memory, 1000, 65_536, now);
    assert_eq!(responder.poll(now), Output::Wait(due));
    assert_eq!(responder.poll(due), Output::Ended(End::Silent));

    // One who is never silent for long has the whole session, and no more.
    let mut responder = honest_responder(&memory, 100_000, 65_536, now);
    let range = Ranged { from: Item::at(FROM), to: Item::at(UNTIL), of: 1 };
    let frame = Frame::Compare(vec![range]).encode(FROM);
    let mut later = now;
    let end = loop {
        match responder.poll(later) {
            Output::Send(_) => {}
            Output::Ended(end) => break end,
            Output::Wait(_) => {
                later += Duration::from_secs(9);
                if responder.poll(later) == Output::Ended(End::Enough) {
                    break End::Enough;
                }
                responder.receive(&frame, &memory).unwrap();
            }
        }
    };
    assert_eq!(end, End::Enough);
    assert!(later - now <= Limits::default().session + Duration::from_secs(9));

    for refusal in [Refusal::NotKept, Refusal::NotAllowed, Refusal::Busy] {
        let mut initiator = honest_initiator(&memory, now);
        let refused = Frame::Refused(refusal).encode(0);
        assert_eq!(initiator.receive(&refused, &memory), Err(End::Refused(refusal)));
    }
}

fn item() -> impl Strategy<Value = Item> {
    (FROM..FROM + 5000, prop_oneof![Just([0; 16]), any::<[u8; 16]>()])
        .prop_map(|(time, id)| Item { time, id: Id(id) })
}

fn ranges<T: Clone + std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<Ranged<T>>> {
    let said = (proptest::collection::btree_set(item(), 2..20), proptest::collection::vec(of, 20));
    said.prop_map(|(bounds, of)| {
        let bounds: Vec<_> = bounds.into_iter().collect();
        let pairs = bounds.chunks_exact(2).zip(of);
        pairs.map(|(two, of)| Ranged { from: two[0], to: two[1], of }).collect()
    })
}

proptest! {
    #[test]
    fn any_bytes_are_a_frame_or_an_error_and_a_frame_has_one_encoding(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..10, base in any::<u64>(),
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Ok(frame) = Frame::decode(&bytes, base) {
            prop_assert_eq!(frame.encode(base), bytes);
        }
    }

    #[test]
    fn ranges_come_out_as_they_went_in(
        compare in ranges(any::<u64>()),
        list in ranges((proptest::collection::vec(0u64..1 << 48, 0..5), any::<bool>())
            .prop_map(|(shorts, continued)| Listed { shorts, continued })),
        lacks in proptest::collection::vec(proptest::collection::btree_set(0u32..900, 0..9), 0..9),
        stopped in proptest::option::of((0usize..9, item())),
        verdicts in proptest::collection::vec(prop_oneof![
            Just(Verdict::Equal), Just(Verdict::Differs), Just(Verdict::Nothing)], 0..20),
    ) {
        let lacks = lacks.into_iter().map(|all| all.into_iter().collect()).collect();
        let answer = Frame::Answer { lacks, records: vec![b"one", b""], stopped };
        for frame in [Frame::Compare(compare), Frame::List(list), answer, Frame::Verdicts(verdicts)] {
            let bytes = frame.encode(FROM);
            prop_assert_eq!(Frame::decode(&bytes, FROM), Ok(frame));
        }
    }

    /// Whatever frames come, an initiator ends within what its own memory bounds.
    #[test]
    fn an_initiator_ends_whatever_it_is_answered(seed in any::<u64>()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (memory, other) = (Memory::of(300, seed), Memory::of(50, !seed));
        let records: Vec<&[u8]> = other.0.values().map(|record| &**record).collect();
        let mut now = Instant::now();
        let mut initiator = honest_initiator(&memory, now);
        let mut answer = welcome(Verdict::Differs);
        let mut frames = 0;
        loop {
            frames += 1;
            prop_assert!(frames < 2000);
            if initiator.receive(&answer, &memory).is_err() {
                break;
            }
            let frame = loop {
                match initiator.poll(&memory, now) {
                    Output::Send(frame) => break Some(frame),
                    Output::Wait(until) => now = until,
                    Output::Ended(_) => break None,
                }
            };
            let Some(frame) = frame else { break };
            let verdict = |random: &mut fastrand::Rng| match random.u8(..4) {
                0 => Verdict::Equal,
                1 => Verdict::Nothing,
                _ => Verdict::Differs,
            };
            answer = match Frame::decode(&frame, FROM).unwrap() {
                Frame::Compare(ranges) => {
                    Frame::Verdicts(ranges.iter().map(|_| verdict(&mut random)).collect()).encode(FROM)
                }
                Frame::List(ranges) => {
                    let asked = ranges.iter().filter(|range| !range.of.continued);
                    let lack = |most: usize, random: &mut fastrand::Rng| {
                        (0..most as u32).filter(|_| random.bool()).collect()
                    };
                    let lacks = asked.map(|range| lack(range.of.shorts.len(), &mut random)).collect();
                    let stopped = random.bool().then(|| (0, ranges[0].from));
                    let start = random.usize(..records.len());
                    Frame::Answer { lacks, records: records[start..].to_vec(), stopped }.encode(FROM)
                }
                Frame::Deliver(_) => Frame::Taken(0).encode(FROM),
                _ => break,
            };
        }
        prop_assert!(initiator.summary().given <= 300);
    }
}
