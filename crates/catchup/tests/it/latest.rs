//! Nodes that write values by key, whose messages get lost, whose clocks are an hour apart, and that are cut off: whatever
//! happened, once all have met they have the same.

use std::{sync::Arc, time::Duration};

use crate::support::{Side, session};
use proptest::prelude::*;
use smidge_catchup::{
    Bounds, Clock, End, Id, Item, Key, Keyed, Latest, Limits, Presence, Snapshot, Stamp, Store, Version,
};

const NOW: u64 = 1_795_000_000_000;
const HOUR: u64 = 3_600_000;
const DRIFT: Duration = Duration::from_secs(2 * 3600);

/// A record: who wrote it, and the payload.
struct Node {
    author: u8,
    map: Latest,
    clock: Clock,
    presence: Presence,
    /// What its clock is ahead of the right one, milliseconds.
    ahead: i64,
    now: u64,
}

impl Store for Node {
    fn record(&self, item: &Item) -> Option<&[u8]> {
        self.map.by_item(item).map(|(_, version)| &*version.record)
    }

    fn item(&self, record: &[u8]) -> Option<Item> {
        let keyed = Keyed::decode(record.get(1..)?).ok()?;
        Some(Item { time: keyed.stamp.0, id: Id::of(record) })
    }
}

impl Side for Node {
    fn snapshot(&self, salt: [u8; 16]) -> Snapshot {
        self.map.snapshot(Key::new(salt))
    }

    fn keep(&mut self, record: &[u8]) {
        let (Some(author), Ok(keyed)) = (record.first(), Keyed::decode(&record[1..])) else { return };
        if self.clock.see(keyed.stamp, self.time()).is_err() {
            return;
        }
        let version = Version {
            stamp: keyed.stamp,
            author: Id::of(&[*author]),
            id: Id::of(record),
            mark: keyed.value.is_none(),
            record: record.into(),
        };
        self.map.merge(keyed.key, version);
    }
}

/// A key, when its value was written, and the record of it.
type Held = (Arc<[u8]>, Stamp, Arc<[u8]>);

impl Node {
    fn new(author: u8, bounds: Bounds, ahead: i64) -> Self {
        let (map, clock) = (Latest::new(bounds), Clock::new(DRIFT, None));
        let now = NOW.saturating_add_signed(ahead);
        Self { author, map, clock, presence: Presence::new(bounds.marks, now), ahead, now: NOW }
    }

    fn time(&self) -> u64 {
        self.now.saturating_add_signed(self.ahead)
    }

    /// Sets or deletes a key, if there is room; the record.
    fn write(&mut self, key: &[u8], value: Option<&[u8]>) -> Option<Vec<u8>> {
        let now = self.time();
        let stamp = self.clock.stamp(now);
        let record = [&[self.author][..], &Keyed { stamp, key, value }.encode()].concat();
        let is_there = self.map.get(key).is_some();
        if self.map.admits(key, record.len()).is_err() || (value.is_none() && !is_there) {
            return None;
        }
        self.keep(&record);
        Some(record)
    }

    fn state(&self) -> Vec<Held> {
        self.map.iter().map(|(key, v)| (key.clone(), v.stamp, v.record.clone())).collect()
    }

    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        let version = self.map.get(key)?;
        Keyed::decode(&version.record[1..]).unwrap().value.map(<[u8]>::to_vec)
    }
}

/// A session as nodes have it: the copy that goes back further is the initiator's.
fn meet(nodes: &mut [Node], a: usize, b: usize) {
    let (low, high) = nodes.split_at_mut(a.max(b));
    let (one, other) = (&mut low[a.min(b)], &mut high[0]);
    let (first, second) = if a < b { (one, other) } else { (other, one) };
    let greeting = first.presence.announced(first.time());
    let (first, second) =
        if second.presence.goes_before(greeting, second.time()) { (second, first) } else { (first, second) };
    let greeting = first.presence.announced(first.time());
    first.map.expire(first.time());
    second.map.expire(second.time());
    let now = second.time();
    if let Some(left) = second.presence.greeted(greeting, now) {
        second.map.throw_away(left);
    }
    let spans = (first.map.span(1000, first.time()), second.map.span(1000, second.time()));
    let outcome = session(first, second, spans, Limits::default(), [a as u8 + 1; 16]);
    assert_eq!(outcome.ends, (End::Done, End::Done));
    first.presence.met(None, first.time());
    second.presence.met(Some(greeting), second.time());
}

/// All meet until nothing changes.
fn meet_all(nodes: &mut [Node]) {
    for _ in 0..nodes.len() + 2 {
        for a in 0..nodes.len() {
            (0..nodes.len()).filter(|b| *b != a).for_each(|b| meet(nodes, a, b));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A node sets or deletes a key; live it reaches those in the mask.
    Write {
        node: usize,
        key: u8,
        value: Option<u8>,
        reaches: u8,
    },
    Meet(usize, usize),
    /// Time goes on, milliseconds.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (0usize..4, 0u8..9, proptest::option::weighted(0.7, any::<u8>()), any::<u8>())
        .prop_map(|(node, key, value, reaches)| Step::Write { node, key, value, reaches });
    let meeting = (0usize..4, 0usize..4).prop_filter("two", |(a, b)| a != b);
    let step = prop_oneof![
        6 => write,
        2 => meeting.prop_map(|(a, b)| Step::Meet(a, b)),
        1 => (0u64..60_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_interleaving_of_sets_deletions_losses_and_catching_up_ends_in_the_same_map(
        steps in steps(), keys in 3usize..10, hours in proptest::array::uniform4(-1i64..=1),
    ) {
        let bounds = Bounds { keys, ..Bounds::default() };
        let ahead = |n: usize| hours[n] * HOUR as i64;
        let mut nodes: Vec<_> = (0..4).map(|n| Node::new(n as u8, bounds, ahead(n))).collect();
        for step in steps {
            match step {
                Step::Write { node, key, value, reaches } => {
                    let value = value.map(|byte| [byte]);
                    let record = nodes[node].write(&[key], value.as_ref().map(|value| &value[..]));
                    let record = record.iter().flat_map(|r| (0..4).map(move |n| (n, r)));
                    for (n, record) in record.filter(|(n, _)| reaches >> n & 1 == 1) {
                        nodes[n].keep(record);
                    }
                }
                Step::Meet(a, b) => meet(&mut nodes, a, b),
                Step::Wait(time) => nodes.iter_mut().for_each(|node| node.now += time),
            }
        }
        meet_all(&mut nodes);
        for node in &nodes {
            prop_assert_eq!(node.state(), nodes[0].state());
            prop_assert!(node.map.len() <= keys);
        }
    }
}

#[test]
fn what_was_read_is_overwritten_by_who_read_it_though_its_clock_is_an_hour_behind() {
    let mut nodes: Vec<_> =
        [1, -1].iter().map(|h| Node::new(*h as u8, Bounds::default(), h * HOUR as i64 / 2)).collect();
    nodes[0].write(b"k", Some(b"first")).unwrap();
    meet(&mut nodes, 0, 1);
    nodes[1].write(b"k", Some(b"second")).unwrap();
    meet(&mut nodes, 0, 1);
    assert_eq!(nodes[0].value(b"k").unwrap(), b"second");
    assert_eq!(nodes[0].state(), nodes[1].state());
}

#[test]
fn a_clock_that_is_further_ahead_than_the_drift_wins_nowhere() {
    let mut nodes: Vec<_> =
        [0, 3].map(|h| Node::new(h, Bounds::default(), i64::from(h) * HOUR as i64)).into();
    nodes[1].write(b"k", Some(b"of tomorrow")).unwrap();
    meet(&mut nodes, 0, 1);
    assert_eq!(nodes[0].value(b"k"), None);
    // Once that time has come it is taken.
    nodes.iter_mut().for_each(|node| node.now += HOUR);
    meet(&mut nodes, 0, 1);
    assert_eq!(nodes[0].value(b"k").unwrap(), b"of tomorrow");
}

#[test]
fn two_halves_over_the_bound_lose_the_same_keys() {
    let bounds = Bounds { keys: 20, ..Bounds::default() };
    let mut nodes: Vec<_> = (0..4).map(|n| Node::new(n, bounds, 0)).collect();
    for n in 0..20u8 {
        nodes.iter_mut().for_each(|node| node.now += 10);
        nodes[0].write(&[n], Some(b"one half")).unwrap();
        nodes[2].write(&[100 + n], Some(b"the other")).unwrap();
    }
    assert!(nodes[0].write(b"one more", Some(b"")).is_none());
    meet(&mut nodes, 0, 1);
    meet(&mut nodes, 2, 3);
    meet_all(&mut nodes);
    let newest: Vec<_> = (10..20).chain(110..120).map(|n| vec![n]).collect();
    for node in &nodes {
        assert_eq!(node.map.iter().map(|(key, _)| key.to_vec()).collect::<Vec<_>>(), newest);
    }
}

#[test]
fn a_node_that_was_away_for_longer_than_marks_revives_nothing_and_loses_nothing_of_its_own() {
    let marks = Duration::from_secs(24 * 3600);
    let bounds = Bounds { marks, ..Bounds::default() };
    let mut nodes: Vec<_> = (0..3).map(|n| Node::new(n, bounds, 0)).collect();
    nodes[0].write(b"deleted", Some(b"v")).unwrap();
    nodes[0].write(b"stays", Some(b"v")).unwrap();
    meet_all(&mut nodes);
    let later = |nodes: &mut [Node], hours: u64| nodes.iter_mut().for_each(|node| node.now += hours * HOUR);
    later(&mut nodes, 1);
    // The last one is cut off.
    nodes[0].write(b"deleted", None).unwrap();
    for hours in [10, 10, 10] {
        later(&mut nodes, hours);
        meet(&mut nodes, 0, 1);
        nodes[2].write(format!("own {hours}").as_bytes(), Some(b"v"));
    }
    assert_eq!(nodes[0].map.marks(), 0, "the deletion is forgotten");
    assert!(nodes[2].value(b"deleted").is_some());
    // Whichever of the two greets.
    meet(&mut nodes, 2, 1);
    meet_all(&mut nodes);
    for node in &nodes {
        assert_eq!(node.state(), nodes[0].state());
        assert!(node.value(b"deleted").is_none() && node.value(b"stays").is_some());
        assert!(node.value(b"own 10").is_some());
    }
    // A newcomer that has nothing makes nobody throw anything away.
    nodes[1] = Node::new(7, bounds, 0);
    later(&mut nodes, 100);
    nodes[1].now = nodes[0].now;
    nodes[1].presence = Presence::new(marks, nodes[1].time());
    meet(&mut nodes, 1, 0);
    assert_eq!(nodes[1].state(), nodes[0].state());
    assert!(nodes[0].value(b"stays").is_some());
}
