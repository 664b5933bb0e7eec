use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{Fingerprinter, Frame, Framer, Limits, MessageParts, Rpc, decode};

fn outgoing(n: u32, size: usize) -> Outgoing {
    let mut data = vec![0; size.max(4)];
    data[..4].copy_from_slice(&n.to_be_bytes());
    let parts = MessageParts { data: Some(&data), topic: "t", ..MessageParts::default() };
    Outgoing { fingerprint: fingerprint(n), message: WireMessage::new(&parts) }
}

fn fingerprint(n: u32) -> Fingerprint {
    Fingerprinter::with_key([1, 2]).id(&n.to_be_bytes())
}

fn number(message: &WireMessage) -> u32 {
    u32::from_be_bytes(message.data()[..4].try_into().unwrap())
}

/// All that waits, frame by frame, as a peer with stock's limits takes it.
fn drain(queue: &mut Queue) -> Vec<Rpc> {
    let mut rpcs = Vec::new();
    loop {
        let mut out = Vec::new();
        let Some(written) = queue.next_frame(&mut out) else {
            assert!(queue.is_empty());
            assert_eq!(queue.bytes(), 0);
            return rpcs;
        };
        assert_eq!(written.bytes, out.len());
        let mut framer = Framer::new(1 << 20);
        let mut input = &out[..];
        let Ok(Some(Frame::Rpc(frame))) = framer.next(&mut input) else { panic!("no frame") };
        assert!(input.is_empty());
        let rpc = decode(&frame, &Limits { frame: 1 << 20, ..Limits::default() }).unwrap();
        assert_eq!(rpc.ignored, 0);
        assert_eq!(written.messages, rpc.publish.len());
        assert!(!rpc.is_empty() || rpc.control.extensions.is_some());
        rpcs.push(rpc);
    }
}

fn numbers(rpcs: &[Rpc]) -> Vec<u32> {
    rpcs.iter().flat_map(|rpc| &rpc.publish).map(number).collect()
}

fn queue(change: impl FnOnce(&mut QueueLimits)) -> Queue {
    let mut limits = QueueLimits::default();
    change(&mut limits);
    Queue::new(limits)
}

#[test]
fn control_goes_before_our_own_and_that_before_what_is_forwarded() {
    let mut queue = queue(|limits| limits.coalesce = 1);
    assert_eq!(queue.forward(outgoing(1, 100)), 0);
    queue.publish(outgoing(2, 100)).unwrap();
    queue.control(ControlItem::Graft(Topic::from("t")));
    queue.subscription(Topic::from("t"), true);
    queue.control(ControlItem::Extensions(Extensions::default()));
    let rpcs = drain(&mut queue);
    assert_eq!(rpcs.len(), 3);
    assert!(rpcs[0].control.extensions.is_some(), "extensions are in the first frame");
    assert_eq!((rpcs[0].subscriptions.len(), rpcs[0].control.graft.len()), (1, 1));
    assert_eq!(numbers(&rpcs), [2, 1]);
}

#[test]
fn what_is_due_goes_out_in_one_frame_up_to_the_limit() {
    let mut queue = queue(|limits| limits.coalesce = 1000);
    for n in 0..10 {
        queue.forward(outgoing(n, 100));
    }
    queue.control(ControlItem::IWant(vec![MessageId::from("id")]));
    let rpcs = drain(&mut queue);
    assert_eq!(numbers(&rpcs), (0..10).collect::<Vec<_>>());
    assert_eq!(rpcs.len(), 2);
    assert_eq!(rpcs[0].control.iwant.len(), 1);
}

#[test]
fn a_large_message_goes_alone() {
    let mut queue = queue(|_| {});
    queue.publish(outgoing(1, 60_000)).unwrap();
    queue.publish(outgoing(2, 10)).unwrap();
    queue.subscription(Topic::from("t"), true);
    let rpcs = drain(&mut queue);
    assert_eq!(rpcs.iter().map(|rpc| rpc.publish.len()).collect::<Vec<_>>(), [0, 1, 1]);
    let refused = queue.publish(outgoing(3, 70_000)).unwrap_err();
    assert!(matches!(refused, Refused::TooLarge { bytes: 70_011, limit: 65_536 }), "{refused:?}");
    assert_eq!(queue.forward(outgoing(3, 70_000)), 1);
    assert!(queue.is_empty());
}

#[test]
fn a_slow_peer_loses_the_oldest_forwarded_and_ours_are_refused_before_they_are_lost() {
    let each = cost(&outgoing(0, 1000).message);
    let mut queue = queue(|limits| limits.messages = 10 * each);
    for n in 0..15 {
        assert_eq!(queue.forward(outgoing(n, 1000)), usize::from(n >= 10));
    }
    for n in 100..110 {
        assert!(queue.would_publish(&outgoing(n, 1000).message).is_ok());
        queue.publish(outgoing(n, 1000)).unwrap();
    }
    let waiting = 10 * each;
    assert_eq!(queue.publish(outgoing(200, 1000)), Err(Refused::Full { waiting }));
    assert_eq!(queue.would_publish(&outgoing(200, 1000).message), Err(Refused::Full { waiting }));
    assert_eq!(queue.forward(outgoing(16, 1000)), 1, "ours stay");
    assert_eq!(queue.dropped(), 16);
    assert_eq!(numbers(&drain(&mut queue)), (100..110).collect::<Vec<_>>());
}

#[test]
fn what_the_peer_has_already_is_not_sent() {
    let mut queue = queue(|_| {});
    for n in 0..6 {
        queue.forward(outgoing(n, 100));
    }
    queue.publish(outgoing(10, 100)).unwrap();
    let have = [1, 3, 10, 77].map(fingerprint).into_iter().collect();
    assert_eq!(queue.forget(&have), 3);
    assert_eq!(numbers(&drain(&mut queue)), [0, 2, 4, 5]);
}

#[test]
fn of_a_subscription_and_a_link_the_newest_state_waits() {
    let mut queue = queue(|_| {});
    let topics = ["a", "b", "c"].map(Topic::from);
    for topic in &topics {
        queue.subscription(topic.clone(), true);
        queue.control(ControlItem::Graft(topic.clone()));
    }
    queue.subscription(topics[0].clone(), false);
    let backoff = Some(Duration::from_secs(60));
    queue.control(ControlItem::Prune(Prune { topic: topics[1].clone(), peers: Vec::new(), backoff }));
    for _ in 0..100_000 {
        queue.subscription(topics[2].clone(), true);
        queue.control(ControlItem::Graft(topics[2].clone()));
    }
    let rpcs = drain(&mut queue);
    let [rpc] = &rpcs[..] else { panic!("{} frames", rpcs.len()) };
    let said: Vec<_> = rpc.subscriptions.iter().map(|s| (s.topic.as_str(), s.subscribe)).collect();
    assert_eq!(said, [("a", false), ("b", true), ("c", true)]);
    assert_eq!(rpc.control.graft, [topics[0].clone(), topics[2].clone()]);
    assert_eq!(rpc.control.prune.len(), 1);
}

#[test]
fn a_greeting_of_many_topics_is_cut_into_frames_that_stock_peers_take() {
    let mut queue = queue(|_| {});
    for n in 0..1000 {
        queue.subscription(Topic::from(format!("{n:0>200}")), true);
        queue.control(ControlItem::Graft(Topic::from(format!("{n:0>200}"))));
    }
    let mut frames = 0;
    let mut out = Vec::new();
    while let Some(written) = queue.next_frame(&mut out) {
        assert!(written.bytes <= 16 * 1024 + 3, "{} bytes of control", written.bytes);
        frames += 1;
    }
    assert!((25..32).contains(&frames), "{frames} frames");
}

#[test]
fn of_too_many_announcements_the_oldest_go() {
    let mut queue = queue(|limits| limits.announcements = 10_000);
    let ids = |n: u32| vec![MessageId::from(&[n as u8; 46][..]); 10];
    queue.control(ControlItem::IDontWant(ids(1)));
    let mut dropped = 0;
    for n in 0..100 {
        dropped += queue.control(ControlItem::IHave(IHave { topic: Topic::from("t"), ids: ids(n) }));
        assert!(queue.bytes() <= 10_000);
    }
    assert!(dropped > 500);
    let rpcs = drain(&mut queue);
    let idontwant: usize = rpcs.iter().map(|rpc| rpc.control.idontwant.len()).sum();
    let ihave: Vec<_> = rpcs.iter().flat_map(|rpc| &rpc.control.ihave).collect();
    assert_eq!(idontwant, 10);
    assert_eq!(ihave.iter().map(|ihave| ihave.ids.len()).sum::<usize>(), 1000 - dropped);
    assert_eq!(ihave.last().unwrap().ids, ids(99));
}

#[test]
fn who_leaves_leaves_nothing_behind() {
    let mut queue = queue(|_| {});
    queue.publish(outgoing(1, 10)).unwrap();
    queue.forward(outgoing(2, 10));
    queue.subscription(Topic::from("t"), true);
    assert_eq!(queue.clear(), 1);
    assert!(queue.is_empty());
    assert_eq!(queue.bytes(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Forward(u32, usize),
    Forget(Vec<u32>),
    IHave(usize, usize),
    IWant(usize),
    IDontWant(usize),
    Graft(u8),
    Subscribe(u8, bool),
    Frame,
}

fn arb_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..3_000).prop_map(Step::Publish),
        (0u32..100, 0usize..3_000).prop_map(|(n, size)| Step::Forward(n, size)),
        prop::collection::vec(0u32..100, 0..20).prop_map(Step::Forget),
        (1usize..200, 1usize..256).prop_map(|(ids, len)| Step::IHave(ids, len)),
        (1usize..200).prop_map(Step::IWant),
        (1usize..200).prop_map(Step::IDontWant),
        any::<u8>().prop_map(Step::Graft),
        (any::<u8>(), any::<bool>()).prop_map(|(topic, subscribe)| Step::Subscribe(topic, subscribe)),
        Just(Step::Frame),
    ]
}

proptest! {
    #[test]
    fn bounds_hold_and_ours_all_arrive_in_order(steps in prop::collection::vec(arb_step(), 1..200)) {
        let limits = QueueLimits {
            messages: 20_000,
            announcements: 10_000,
            frame: 4_000,
            coalesce: 2_000,
            control: 1_000,
            subscriptions: 20,
            batch: 8,
        };
        let mut queue = Queue::new(limits.clone());
        let (mut expected, mut came) = (Vec::new(), Vec::new());
        let check = |written: Written, out: &[u8], came: &mut Vec<u32>| {
            assert!(written.bytes <= limits.frame + 3, "{written:?}");
            assert!(written.messages <= limits.batch);
            let mut framer = Framer::new(limits.frame);
            let Ok(Some(Frame::Rpc(frame))) = framer.next(&mut &out[..]) else { panic!("no frame") };
            let rpc = decode(&frame, &Limits::default()).unwrap();
            assert!(rpc.subscriptions.len() <= limits.subscriptions);
            came.extend(rpc.publish.iter().map(number).filter(|n| *n >= 1000));
        };
        for (at, step) in (1000u32..).zip(steps) {
            let ids = |count: usize, len: usize| vec![MessageId::from(vec![1; len]); count];
            match step {
                Step::Publish(size) => {
                    if queue.publish(outgoing(at, size)).is_ok() {
                        expected.push(at);
                    }
                }
                Step::Forward(n, size) => {
                    queue.forward(outgoing(n, size));
                }
                Step::Forget(have) => {
                    let before = queue.messages();
                    let gone = queue.forget(&have.into_iter().map(fingerprint).collect());
                    prop_assert_eq!(queue.messages(), before - gone);
                }
                Step::IHave(count, len) => {
                    queue.control(ControlItem::IHave(IHave { topic: Topic::from("t"), ids: ids(count, len) }));
                }
                Step::IWant(count) => {
                    queue.control(ControlItem::IWant(ids(count, 50)));
                }
                Step::IDontWant(count) => {
                    queue.control(ControlItem::IDontWant(ids(count, 50)));
                }
                Step::Graft(topic) => {
                    queue.control(ControlItem::Graft(Topic::from(topic.to_string())));
                }
                Step::Subscribe(topic, subscribe) => {
                    queue.subscription(Topic::from(topic.to_string()), subscribe);
                }
                Step::Frame => {
                    let mut out = Vec::new();
                    if let Some(written) = queue.next_frame(&mut out) {
                        check(written, &out, &mut came);
                    }
                }
            }
            prop_assert!(queue.own.bytes + queue.forwarded.bytes <= limits.messages);
            prop_assert!(queue.bytes() <= limits.messages + limits.announcements + 2 * 256 * 16);
        }
        let mut out = Vec::new();
        while let Some(written) = queue.next_frame(&mut out) {
            check(written, &out, &mut came);
            out.clear();
        }
        prop_assert_eq!(came, expected);
        prop_assert_eq!(queue.bytes(), 0);
    }
}
