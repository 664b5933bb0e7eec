//! Nodes with memories of their own: live messages that reach some, sessions between pairs, nodes that restart.

use std::{collections::BTreeSet, time::Duration};

use crate::support::{Side, session};
use proptest::prelude::*;
use smidge_catchup::{End, Id, Item, Keep, Key, Limits, Memory, Snapshot, Store};

const NOW: u64 = 1_795_000_600_000;

/// A record: its time, its author, anything.
struct Node {
    memory: Memory,
    now: u64,
}

impl Node {
    fn new(keep: Keep) -> Self {
        Self { memory: Memory::new(keep), now: NOW }
    }

    fn items(&self) -> Vec<Item> {
        self.memory.last(usize::MAX).map(|(item, _)| *item).collect()
    }
}

impl Store for Node {
    fn record(&self, item: &Item) -> Option<&[u8]> {
        self.memory.get(item)
    }

    fn item(&self, record: &[u8]) -> Option<Item> {
        let time = u64::from_le_bytes(record.get(..8)?.try_into().ok()?);
        Some(Item { time, id: Id::of(record) })
    }
}

impl Side for Node {
    fn snapshot(&self, salt: [u8; 16]) -> Snapshot {
        self.memory.snapshot(Key::new(salt))
    }

    fn keep(&mut self, record: &[u8]) {
        if let (Some(item), Some(author)) = (self.item(record), record.get(8)) {
            let _ = self.memory.insert(item, Id::of(&[*author]), record, self.now);
        }
    }
}

fn record(time: u64, author: u8, n: u32) -> Vec<u8> {
    [&time.to_le_bytes()[..], &[author], &n.to_le_bytes(), &[7; 20]].concat()
}

fn meet(nodes: &mut [Node], a: usize, b: usize, random: &mut fastrand::Rng) -> u64 {
    if a == b {
        return 0;
    }
    let (low, high) = nodes.split_at_mut(a.max(b));
    let (one, other) = (&mut low[a.min(b)], &mut high[0]);
    let span = |node: &Node| node.memory.span(node.now, Duration::ZERO, 1000);
    let (one, other) = if a < b { (one, other) } else { (other, one) };
    let spans = (span(one), span(other));
    let outcome = session(one, other, spans, Limits::default(), random.u128(..).to_le_bytes());
    assert_eq!(outcome.ends, (End::Done, End::Done));
    outcome.bytes()
}

#[test]
fn a_thousand_nodes_under_churn_have_all_that_bounds_allow_after_the_last_change() {
    let keep = Keep { messages: 100, ..Keep::default() };
    let mut random = fastrand::Rng::with_seed(16);
    let mut nodes: Vec<_> = (0..1000).map(|_| Node::new(keep)).collect();
    let mut said = BTreeSet::new();
    for n in 0..300u32 {
        let record = record(NOW - 3000 + u64::from(n) * 10 + random.u64(..50), random.u8(..20), n);
        // Live it reaches one of two, and a few restart with nothing; never the one that keeps all of it.
        nodes[0].keep(&record);
        nodes.iter_mut().skip(1).filter(|_| random.bool()).for_each(|node| node.keep(&record));
        said.extend(nodes[0].item(&record));
        let restarted = random.usize(1..1000);
        nodes[restarted] = Node::new(keep);
    }
    let newest: Vec<_> = said.into_iter().rev().take(100).rev().collect();
    let (mut rounds, mut bytes, mut sessions) = (0, 0, 0);
    while nodes.iter().any(|node| node.items() != newest) {
        rounds += 1;
        assert!(rounds <= 20);
        for n in 0..1000 {
            let other = random.usize(..1000);
            bytes += meet(&mut nodes, n, other, &mut random);
            sessions += 1;
        }
    }
    println!("1,000 nodes: {rounds} rounds of a session each, {} bytes a session", bytes / sessions);
}

#[test]
fn two_halves_of_a_partition_have_the_same_after_one_session() {
    let keep = Keep { messages: 10_000, bytes: 1 << 24, ..Keep::default() };
    let mut nodes = [Node::new(keep), Node::new(keep)];
    let mut random = fastrand::Rng::with_seed(1);
    for n in 0..4000 {
        nodes[n as usize % 2].keep(&record(NOW - 30_000 + u64::from(n) * 7, n as u8 % 4, n));
    }
    let bytes = meet(&mut nodes, 0, 1, &mut random);
    println!("4,000 messages of 33 bytes said in two halves: {bytes} bytes");
    assert_eq!(nodes[0].items(), nodes[1].items());
    assert_eq!(nodes[0].items().len(), 4000);
}

#[test]
fn neighbours_with_other_bounds_hand_each_other_nothing_that_was_let_go() {
    let mut random = fastrand::Rng::with_seed(1);
    let large = Keep { messages: 1000, ..Keep::default() };
    let small = Keep { messages: 10, ..Keep::default() };
    let short = Keep { age: Duration::from_secs(1), ..large };
    let mut nodes = [Node::new(large), Node::new(small), Node::new(short)];
    for n in 0..500 {
        nodes[0].keep(&record(NOW - 5000 + u64::from(n) * 10, 1, n));
    }
    let newest = nodes[0].items().split_off(490);
    for (a, b) in [(0, 1), (1, 0), (2, 0), (1, 2), (0, 2)] {
        meet(&mut nodes, a, b, &mut random);
        if (a, b) == (0, 1) {
            assert_eq!(nodes[1].items(), newest);
        }
    }
    assert_eq!(nodes[2].items().len(), 100, "of the last second");
    for (a, b) in [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)] {
        let bytes = meet(&mut nodes, a, b, &mut random);
        assert!(bytes < 150, "{a} and {b} have nothing to say: {bytes} bytes");
    }
    assert_eq!(nodes[1].items(), newest);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Live to anybody, in any order, and sessions between any two at any time: in the end all have the newest of all.
    #[test]
    fn any_interleaving_of_live_and_catching_up_ends_in_the_same_memory(
        steps in proptest::collection::vec((0usize..5, 0usize..5, 0u64..3000, 0u8..4), 1..150),
        messages in 1usize..60, seed in any::<u64>(),
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let keep = Keep { messages, age: Duration::from_secs(2), ..Keep::default() };
        let mut nodes: Vec<_> = (0..5).map(|_| Node::new(keep)).collect();
        let mut said = BTreeSet::new();
        for (n, (a, b, ago, what)) in steps.into_iter().enumerate() {
            if what == 0 {
                meet(&mut nodes, a, b, &mut random);
            } else {
                // Each message is its own author's, so that no floor of a reordered one is in the way.
                let record = record(NOW - ago, n as u8, n as u32);
                said.extend(nodes[a].item(&record));
                nodes[a].keep(&record);
                nodes[b].keep(&record);
            }
        }
        for _ in 0..2 {
            for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2), (1, 3), (2, 4), (3, 0), (4, 1)] {
                meet(&mut nodes, a, b, &mut random);
            }
        }
        let fresh = said.into_iter().filter(|item| item.time >= NOW - 2000);
        let newest: Vec<_> = fresh.rev().take(messages).collect();
        for node in &nodes {
            let mut items = node.items();
            items.reverse();
            prop_assert_eq!(&items, &newest);
        }
    }
}
