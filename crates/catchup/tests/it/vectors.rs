//! The frames of docs/CATCHUP.md, "Vectors", made by both sides.

use std::time::Instant;

use smidge_catchup::{
    End, Id, Initiator, Item, Key, Limits, Output, Responder, Snapshot, Store,
    frame::{Frame, Span},
};

struct Bare(Vec<(Item, Vec<u8>)>);

impl Store for Bare {
    fn record(&self, item: &Item) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == item).map(|(_, record)| &**record)
    }

    fn item(&self, record: &[u8]) -> Option<Item> {
        let (time, id) = record.split_first_chunk()?;
        Some(Item { time: u64::from_le_bytes(*time), id: Id(id.try_into().ok()?) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_specification_has_the_frames_that_both_sides_make() {
    let specification = include_str!("../../../../docs/CATCHUP.md");
    let salt = std::array::from_fn(|n| n as u8);
    let first = Item { time: 1000, id: Id(std::array::from_fn(|n| 16 + n as u8)) };
    let hash = Snapshot::of(Key::new(salt), vec![first]).fingerprint(&Item::at(0), &Item::at(u64::MAX));
    println!("hash 0x{hash:016x}");
    assert!(specification.contains(&format!("`0x{hash:016x}`")), "0x{hash:016x}");

    let item = |n: u8| Item { time: 1000 + u64::from(n), id: Id([16 + n; 16]) };
    let bare = |all: &[u8]| {
        let record = |n: &u8| [&item(*n).time.to_le_bytes()[..], &item(*n).id.0].concat();
        Bare(all.iter().map(|n| (item(*n), record(n))).collect())
    };
    let (a, b) = (bare(&[0, 3]), bare(&[0, 1, 2]));
    let snapshot = |bare: &Bare| Snapshot::of(Key::new(salt), bare.0.iter().map(|(item, _)| *item).collect());
    let span = Span { from: 1000, until: 2000, messages: 10, record: 100, now: 0 };
    let (now, mut said) = (Instant::now(), Vec::new());
    let mut initiator = Initiator::new(b"t", salt, span, snapshot(&a), Limits::default(), now);
    let Output::Send(greeting) = initiator.poll(&a, now) else { panic!("no greeting") };
    let (mut responder, _) = Responder::new(&greeting, Limits::default(), now).unwrap();
    responder.welcome(span, snapshot(&b));
    said.push(("greeting", greeting));
    let (mut a_learned, mut b_learned) = (Vec::new(), Vec::new());
    // Far enough that no rate is in the way.
    let mut now = now;
    while let Output::Send(frame) = responder.poll(now) {
        now += std::time::Duration::from_secs(1);
        a_learned.extend(initiator.receive(&frame, &a).unwrap().iter().map(|(item, _)| *item));
        said.push(("responder", frame));
        let Output::Send(frame) = initiator.poll(&a, now) else { panic!("no frame") };
        b_learned.extend(responder.receive(&frame, &b).unwrap().iter().map(|(item, _)| *item));
        said.push(("initiator", frame));
    }
    assert_eq!(responder.poll(now), Output::Ended(End::Done));
    assert_eq!((a_learned, b_learned), (vec![item(1), item(2)], vec![item(3)]));
    let lines: String = said.iter().map(|(_, frame)| format!("{}\n", hex(frame))).collect();
    println!("{lines}");
    assert!(specification.contains(&lines), "the frames are\n{lines}");

    let ask = Frame::Ask { topic: b"t", wait: 200, items: vec![item(0), item(1)] };
    let kept = Frame::Kept(vec![1]);
    for frame in [&ask, &kept] {
        assert_eq!(Frame::decode(&frame.encode(0), 0).as_ref(), Ok(frame));
    }
    let lines = format!("{}\n{}\n", hex(&ask.encode(0)), hex(&kept.encode(0)));
    assert!(specification.contains(&lines), "the frames are\n{lines}");
    let backwards = Frame::Ask { topic: b"t", wait: 0, items: vec![item(1), item(0)] };
    let many = Frame::Ask { topic: b"t", wait: 0, items: (0..65).map(Item::at).collect() };
    for bad in [backwards, many] {
        assert!(Frame::decode(&bad.encode(0), 0).is_err(), "{bad:?}");
    }
}
