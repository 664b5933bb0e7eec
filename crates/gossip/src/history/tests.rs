use proptest::prelude::*;

use super::*;
use crate::{Fingerprinter, MessageParts};

fn fingerprint(n: u32) -> Fingerprint {
    Fingerprinter::with_key([1, 2]).id(&n.to_le_bytes())
}

fn id(n: u32) -> MessageId {
    MessageId::from(&n.to_be_bytes()[..])
}

fn message(size: usize) -> WireMessage {
    WireMessage::new(&MessageParts { data: Some(&vec![7; size]), topic: "t", ..MessageParts::default() })
}

fn put(history: &mut History, n: u32, topic: &str, size: usize) -> bool {
    history.put(fingerprint(n), id(n), Topic::from(topic), message(size))
}

#[test]
fn a_message_can_be_asked_for_during_all_windows_and_is_announced_during_some() {
    let mut history = History::new(HistoryLimits { windows: 3, gossip: 2, ..HistoryLimits::default() });
    assert!(put(&mut history, 1, "a", 10));
    assert!(!put(&mut history, 1, "a", 10), "it is there already");
    assert!(put(&mut history, 2, "b", 10));
    let (a, b) = (Topic::from("a"), Topic::from("b"));
    assert_eq!(history.gossip(&a, 10), [id(1)]);
    assert_eq!(history.shift(), 0);
    assert!(put(&mut history, 3, "a", 10));
    assert_eq!(history.gossip(&a, 10), [id(3), id(1)]);
    assert_eq!(history.gossip(&a, 1), [id(3)], "the newest first");
    assert_eq!(history.gossip_by_topic(), HashMap::from([(a.clone(), vec![id(3), id(1)]), (b, vec![id(2)])]));
    history.shift();
    assert_eq!(history.gossip(&a, 10), [id(3)]);
    assert!(history.get(&fingerprint(1)).is_some());
    assert_eq!(history.shift(), 2);
    assert!(history.get(&fingerprint(1)).is_none());
    assert_eq!(history.shift(), 1);
    assert!(history.is_empty());
    assert_eq!(history.bytes(), 0);
}

#[test]
fn how_often_a_peer_asked_is_known() {
    let mut history = History::new(HistoryLimits::default());
    put(&mut history, 1, "a", 10);
    let counts: Vec<u32> =
        [5u64, 5, 6, 5].map(|peer| history.asked(&fingerprint(1), peer).unwrap().1).to_vec();
    assert_eq!(counts, [1, 2, 1, 3]);
    assert!(history.asked(&fingerprint(2), 5u64).is_none());
}

#[test]
fn what_does_not_fit_alone_pushes_nobody_out() {
    let mut history = History::new(HistoryLimits { bytes: 10_000, ..HistoryLimits::default() });
    assert!(put(&mut history, 1, "a", 100));
    assert!(!put(&mut history, 2, "a", 20_000));
    assert!(history.get(&fingerprint(1)).is_some());
}

#[test]
fn a_message_keeps_no_frame_from_being_freed() {
    let mut history = History::new(HistoryLimits::default());
    let mut frame = Vec::new();
    let publish = vec![message(10), message(50_000)];
    crate::Rpc { publish, ..crate::Rpc::default() }.encode(&mut frame);
    let body = bytes::Bytes::from(frame).slice(3..);
    let rpc = crate::decode(&body, &crate::Limits::default()).unwrap();
    history.put(fingerprint(1), id(1), Topic::from("t"), rpc.publish[0].clone());
    assert!(history.bytes() < 400, "{} bytes", history.bytes());
}

#[test]
fn without_windows_nothing_is_kept() {
    let mut history = History::new(HistoryLimits { windows: 0, ..HistoryLimits::default() });
    assert!(!put(&mut history, 1, "a", 10));
    history.shift();
    assert!(history.is_empty());
}

proptest! {
    #[test]
    fn bounds_hold_and_the_newest_is_there(
        steps in prop::collection::vec(prop::option::weighted(0.9, (0u32..500, 0usize..2_000)), 1..400),
        messages in 1usize..40,
        bytes in 3_000usize..20_000,
    ) {
        let limits = HistoryLimits { messages, bytes, ..HistoryLimits::default() };
        let mut history = History::new(limits);
        let mut last = None;
        for step in steps {
            match step {
                Some((n, size)) => {
                    let new = history.get(&fingerprint(n)).is_none();
                    prop_assert_eq!(put(&mut history, n, "t", size), new);
                    last = Some(n);
                }
                None => {
                    history.shift();
                }
            }
            prop_assert!(history.len() <= messages);
            prop_assert!(history.bytes() <= bytes);
            if step.is_some() {
                prop_assert!(last.is_some_and(|n| history.get(&fingerprint(n)).is_some()));
            }
            let announced = history.gossip(&Topic::from("t"), usize::MAX).len();
            prop_assert!(announced <= history.len());
        }
        for _ in 0..5 {
            history.shift();
        }
        prop_assert_eq!((history.len(), history.bytes()), (0, 0));
    }
}
