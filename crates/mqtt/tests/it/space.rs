//! Several brokers of one space: what they say reaches the others, or does not; what they keep is one map.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use mqtt_proto::v5::{self, ConnectReasonCode, DisconnectReasonCode as Reason, Packet};
use smidge_mqtt::{Access, Limits, Map};

use crate::support::{World, pid, publish, seconds, subscribe, will};

type Kept = BTreeMap<(Map, Vec<u8>), (u64, u64, Option<Vec<u8>>)>;

struct Node {
    world: World,
    number: u64,
    /// Those of one side hear each other.
    side: u8,
    alive: bool,
    /// What it has of the maps: when it was written, by which node, and what.
    kept: Kept,
    /// What it remembers of messages.
    memory: Vec<(u64, Bytes)>,
}

struct Space {
    nodes: Vec<Node>,
    written: u64,
    start: Instant,
    remembers: bool,
}

impl Space {
    fn new(count: u64) -> Self {
        let now = Instant::now();
        let mut space = Self { nodes: Vec::new(), written: 0, start: now, remembers: true };
        (0..count).for_each(|_| space.join(now));
        space.sleep(1);
        space
    }

    fn join(&mut self, now: Instant) {
        let number = self.nodes.len() as u64 + 1;
        let mut world = World::of_node(number, now, Limits::default(), Access::open());
        world.broker.set_clock((self.start, 1_000_000_000));
        world.broker.share(now);
        let mut node = Node { world, number, side: 0, alive: true, kept: Kept::new(), memory: Vec::new() };
        if let Some(other) = self.nodes.iter().find(|other| other.alive) {
            node.memory.clone_from(&other.memory);
            give(&other.kept.clone(), &mut node);
        }
        self.nodes.push(node);
    }

    fn world(&mut self, node: usize) -> &mut World {
        &mut self.nodes[node].world
    }

    /// Carries all that brokers say until they say nothing.
    fn carry(&mut self) {
        loop {
            let mut quiet = true;
            for from in 0..self.nodes.len() {
                if !self.nodes[from].alive {
                    continue;
                }
                self.nodes[from].world.run();
                let number = self.nodes[from].number;
                let side = self.nodes[from].side;
                let world = &mut self.nodes[from].world;
                let (out, kept, said, replays) = (
                    std::mem::take(&mut world.out),
                    std::mem::take(&mut world.kept),
                    world.said.take(),
                    std::mem::take(&mut world.replays),
                );
                world.mesh.clear();
                quiet &= out.is_empty() && kept.is_empty() && said.is_none() && replays.is_empty();
                for data in out {
                    for node in self.nodes.iter_mut().filter(|node| node.alive && node.side == side) {
                        if node.number != number {
                            let now = node.world.now;
                            node.world.broker.from_mesh(number, &data, now).unwrap();
                        }
                        node.memory.push((number, data.clone()));
                    }
                }
                for (map, key, value) in kept {
                    self.written += 1;
                    let sent = self.nodes[from].world.now.duration_since(self.start).as_micros();
                    let at = (1_000_000_000 + u64::try_from(sent).unwrap()) * 1000 + self.written % 1000;
                    let written = [((map, key), (at, number, value))].into();
                    for node in self.nodes.iter_mut().filter(|node| node.alive && node.side == side) {
                        give(&written, node);
                    }
                }
                if let Some(said) = said {
                    for node in self.nodes.iter_mut().filter(|node| node.alive && node.side == side) {
                        let now = node.world.now;
                        assert!(node.world.broker.hear_node(number, &said, now));
                    }
                }
                for (session, _) in replays {
                    let node = &mut self.nodes[from];
                    let now = node.world.now;
                    for (number, data) in node.memory.iter().filter(|_| self.remembers) {
                        node.world.broker.replay(session, *number, data, now).unwrap();
                    }
                    node.world.broker.replayed(session, now);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn sleep(&mut self, secs: u64) {
        for _ in 0..secs * 20 {
            for node in self.nodes.iter_mut().filter(|node| node.alive) {
                node.world.sleep(seconds(1) / 20);
            }
            self.carry();
        }
    }

    fn split(&mut self, sides: &[u8]) {
        self.nodes.iter_mut().zip(sides).for_each(|(node, side)| node.side = *side);
    }

    /// All hear each other again, and compare what they keep. Of messages only what is remembered is not lost.
    fn heal(&mut self) {
        self.split(&vec![0; self.nodes.len()]);
        let mut all = Kept::new();
        for node in self.nodes.iter().filter(|node| node.alive) {
            for (key, entry) in &node.kept {
                let known = all.entry(key.clone()).or_insert_with(|| entry.clone());
                if known.0 < entry.0 {
                    known.clone_from(entry);
                }
            }
        }
        self.nodes.iter_mut().filter(|node| node.alive).for_each(|node| give(&all, node));
        self.carry();
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
    }

    fn subscriber(&mut self, node: usize, id: &str, filter: &str) -> usize {
        let client = self.world(node).subscriber(id, filter, 2);
        self.carry();
        client
    }

    fn say(&mut self, node: usize, client: usize, topic: &str, retain: bool, text: &str) {
        let mut said = publish(topic, 1, 1, text.to_owned());
        said.retain = retain;
        self.world(node).send(client, said);
        self.carry();
    }

    /// What a client heard, acknowledged.
    fn heard(&mut self, node: usize, client: usize) -> Vec<String> {
        let packets = self.world(node).got(client);
        let mut heard = Vec::new();
        for packet in packets {
            match packet {
                Packet::Publish(publish) => {
                    heard.push(String::from_utf8_lossy(&publish.payload).into_owned());
                    match publish.qos_pid.qos() as u8 {
                        1 => self
                            .world(node)
                            .send(client, v5::Puback::new_success(publish.qos_pid.pid().unwrap())),
                        2 => self
                            .world(node)
                            .send(client, v5::Pubrec::new_success(publish.qos_pid.pid().unwrap())),
                        _ => {}
                    }
                }
                Packet::Pubrel(pubrel) => self.world(node).send(client, v5::Pubcomp::new_success(pubrel.pid)),
                _ => {}
            }
        }
        heard
    }

    /// What a new client finds retained.
    fn retained(&mut self, node: usize, filter: &str) -> Vec<String> {
        let id = format!("look-{}", self.nodes[node].world.clients.len());
        let client = self.world(node).client(&id);
        self.world(node).send(client, subscribe(filter, 0));
        let found = self.world(node).heard(client);
        self.world(node).cut(client);
        found
    }
}

/// What others wrote, as far as it is newer.
fn give(written: &Kept, node: &mut Node) {
    for ((map, key), (at, by, value)) in written {
        let known = node.kept.get(&(*map, key.clone())).map(|(at, ..)| *at);
        if known.is_none_or(|known| known < *at) {
            node.kept.insert((*map, key.clone()), (*at, *by, value.clone()));
            let now = node.world.now;
            assert!(node.world.broker.learn(*map, key, value.as_deref(), (*by, at / 1000), now));
        }
    }
}

fn with_will(space: &mut Space, node: usize, id: &str, retain: bool) -> usize {
    let client = space.world(node).client_with(id, |connect| {
        let mut will = will(&format!("state/{id}"), "offline", 0);
        will.retain = retain;
        connect.last_will = Some(will);
    });
    space.carry();
    client
}

#[test]
fn one_that_joins_learns_what_is_retained_and_two_halves_agree_in_the_end() {
    let mut space = Space::new(2);
    let writer = space.world(0).client("w");
    space.say(0, writer, "a", true, "1");
    space.say(0, writer, "b", true, "2");
    space.sleep(1);
    let now = space.nodes[0].world.now;
    space.join(now);
    assert_eq!(space.retained(2, "#"), ["1", "2"]);
    space.split(&[0, 1, 1]);
    let other = space.world(1).client("x");
    space.say(0, writer, "a", true, "");
    space.say(1, other, "b", true, "3");
    space.sleep(1);
    space.say(0, writer, "c", true, "4");
    space.sleep(1);
    assert_eq!((space.retained(0, "#").len(), space.retained(2, "#").len()), (2, 2));
    space.heal();
    space.sleep(20);
    for node in 0..3 {
        assert_eq!(space.retained(node, "#"), ["3", "4"], "{node}");
    }
}

#[test]
fn what_a_broker_said_and_died_is_kept_by_those_who_heard_it() {
    let mut space = Space::new(2);
    let writer = space.world(0).client("w");
    space.say(0, writer, "a", true, "1");
    // Before it has written the map.
    space.kill(0);
    space.sleep(15);
    let now = space.nodes[1].world.now;
    space.join(now);
    assert_eq!(space.retained(2, "#"), ["1"]);
}

#[test]
fn a_client_that_connects_elsewhere_takes_its_session_over_and_its_will_is_not_heard() {
    let mut space = Space::new(3);
    let reader = space.subscriber(2, "r", "#");
    let old = with_will(&mut space, 0, "c", false);
    space.sleep(1);
    with_will(&mut space, 1, "c", false);
    space.sleep(1);
    assert_eq!(space.world(0).farewell(old), Some(Reason::SessionTakenOver));
    space.sleep(20);
    assert!(space.heard(2, reader).is_empty());
}

#[test]
fn after_a_partition_the_later_of_two_stays() {
    let mut space = Space::new(2);
    space.split(&[0, 1]);
    let first = space.world(0).client("c");
    space.sleep(2);
    let second = space.world(1).client("c");
    space.sleep(2);
    assert!(!space.world(0).clients[first].closed);
    space.heal();
    space.sleep(2);
    assert_eq!(space.world(0).farewell(first), Some(Reason::SessionTakenOver));
    assert!(!space.world(1).clients[second].closed);
}

#[test]
fn wills_outlive_their_node_and_are_heard_once() {
    let mut space = Space::new(4);
    let readers = [1, 2, 3].map(|node| (node, space.subscriber(node, &format!("r{node}"), "state/#")));
    with_will(&mut space, 0, "c", true);
    with_will(&mut space, 0, "back", false);
    space.sleep(1);
    space.kill(0);
    space.sleep(5);
    with_will(&mut space, 1, "back", false);
    space.sleep(10);
    for (node, reader) in readers {
        assert_eq!(space.heard(node, reader), ["offline"], "{node}: within 15 s, of one client");
        assert_eq!(space.retained(node, "#"), ["offline"]);
    }
    space.sleep(60);
    for (node, reader) in readers {
        assert!(space.heard(node, reader).is_empty());
    }
}

#[test]
fn who_was_cut_off_says_again_who_is_there() {
    let mut space = Space::new(3);
    let client = with_will(&mut space, 0, "c", true);
    space.say(0, client, "state/c", true, "online");
    let reader = space.subscriber(1, "r", "state/#");
    assert_eq!(space.heard(1, reader), ["online"]);
    space.sleep(1);
    space.split(&[1, 0, 0]);
    space.sleep(15);
    assert_eq!(space.heard(1, reader), ["offline"], "each side tells its own truth");
    assert_eq!(space.retained(0, "state/#"), ["online"]);
    space.heal();
    space.sleep(2);
    assert_eq!(space.heard(1, reader), ["online"]);
    space.sleep(20);
    for node in 0..3 {
        assert_eq!(space.retained(node, "state/#"), ["online"], "{node}");
    }
    // And its will is another one.
    space.world(0).cut(client);
    space.sleep(1);
    assert_eq!(space.heard(1, reader), ["offline"]);
}

#[test]
fn one_that_was_asleep_takes_nobody_for_gone() {
    let mut space = Space::new(2);
    let reader = space.subscriber(1, "r", "#");
    with_will(&mut space, 0, "c", false);
    space.sleep(4);
    // Stopped and continued: what came meanwhile is read after it looked at the clock.
    let slept = space.nodes[1].world.now + seconds(60);
    space.nodes[1].world.now = slept;
    space.nodes[1].world.broker.tick(slept);
    space.nodes[0].world.now = slept;
    space.sleep(20);
    assert!(space.heard(1, reader).is_empty());
}

fn lasting(space: &mut Space, node: usize, id: &str) -> (usize, bool) {
    let found = space.world(node).lasting(id);
    space.carry();
    found
}

#[test]
fn a_session_goes_on_at_another_node_with_what_it_missed() {
    let mut space = Space::new(3);
    let writer = space.world(2).client("w");
    let (reader, present) = lasting(&mut space, 0, "r");
    assert!(!present);
    space.world(0).send(reader, subscribe("a/#", 2));
    space.sleep(1);
    space.say(2, writer, "a/b", false, "1");
    assert_eq!(space.heard(0, reader), ["1"]);
    space.sleep(10);
    space.world(0).cut(reader);
    space.sleep(1);
    space.say(2, writer, "a/b", false, "2");
    space.say(2, writer, "b", false, "not subscribed");
    let (reader, present) = lasting(&mut space, 1, "r");
    assert!(present);
    assert_eq!(space.heard(1, reader), ["2"]);
    space.say(2, writer, "a/c", false, "3");
    assert_eq!(space.heard(1, reader), ["3"]);
    space.sleep(2);
    // Its node dies with it, and it comes to one that never had it.
    space.kill(1);
    space.say(2, writer, "a/c", false, "4");
    let (reader, present) = lasting(&mut space, 0, "r");
    assert!(present);
    assert_eq!(space.heard(0, reader), ["4"]);
    space.sleep(30);
    assert!(space.heard(0, reader).is_empty());
}

#[test]
fn at_qos_2_a_message_that_was_under_way_comes_under_its_packet_id_and_one_that_was_received_not_again() {
    let mut space = Space::new(2);
    let writer = space.world(1).client("w");
    let (reader, _) = lasting(&mut space, 0, "r");
    space.world(0).send(reader, subscribe("a", 2));
    space.world(0).got(reader);
    for (n, text) in [(1, "received"), (2, "under way")] {
        space.world(1).send(writer, publish("a", 2, n, text.to_owned()));
    }
    space.carry();
    let sent = space.world(0).got(reader);
    let [Packet::Publish(first), Packet::Publish(second)] = &sent[..] else { panic!("{sent:?}") };
    space.world(0).send(reader, v5::Pubrec::new_success(first.qos_pid.pid().unwrap()));
    space.sleep(2);
    space.kill(0);
    let (reader, present) = lasting(&mut space, 1, "r");
    assert!(present);
    let again = space.world(1).got(reader);
    let [Packet::Pubrel(released), Packet::Publish(repeated)] = &again[..] else { panic!("{again:?}") };
    assert_eq!(released.pid, first.qos_pid.pid().unwrap());
    assert_eq!((repeated.qos_pid, &repeated.payload), (second.qos_pid, &second.payload));
    assert!(repeated.dup);
}

#[test]
fn what_a_client_published_at_qos_2_and_did_not_release_is_not_taken_twice() {
    let mut space = Space::new(2);
    let reader = space.subscriber(1, "r", "a");
    let (writer, _) = lasting(&mut space, 0, "w");
    space.world(0).send(writer, publish("a", 2, 7, "once"));
    space.sleep(2);
    space.kill(0);
    let (writer, present) = lasting(&mut space, 1, "w");
    assert!(present);
    let mut again = publish("a", 2, 7, "once");
    again.dup = true;
    space.world(1).send(writer, again);
    space.world(1).send(writer, v5::Pubrel::new_success(pid(7)));
    space.carry();
    assert_eq!(space.heard(1, reader), ["once"]);
}

#[test]
fn without_a_memory_a_session_has_its_subscriptions_and_not_what_it_missed() {
    let mut space = Space::new(2);
    space.remembers = false;
    let writer = space.world(1).client("w");
    let (reader, _) = lasting(&mut space, 0, "r");
    space.world(0).send(reader, subscribe("a", 1));
    space.sleep(1);
    space.kill(0);
    space.say(1, writer, "a", false, "missed");
    let (reader, present) = lasting(&mut space, 1, "r");
    assert!(present);
    space.say(1, writer, "a", false, "live");
    assert_eq!(space.heard(1, reader), ["live"]);
}

#[test]
fn a_clean_start_elsewhere_ends_the_session_everywhere() {
    let mut space = Space::new(2);
    let (reader, _) = lasting(&mut space, 0, "r");
    space.world(0).send(reader, subscribe("a", 1));
    space.world(0).cut(reader);
    space.sleep(1);
    let clean = space.world(1).client("r");
    space.sleep(1);
    space.world(1).cut(clean);
    space.sleep(1);
    assert_eq!(space.world(0).broker.stats().sessions, 0);
    assert!(!lasting(&mut space, 0, "r").1);
}

#[test]
fn sessions_of_a_dead_node_end_in_their_time_and_what_is_kept_of_them() {
    let mut space = Space::new(2);
    let mut connect = v5::Connect::new("r".into(), 0);
    connect.clean_start = false;
    connect.properties.session_expiry_interval = Some(30);
    let (_, connack) = space.world(0).hello(connect);
    assert_eq!(connack.reason_code, ConnectReasonCode::Success);
    space.sleep(1);
    space.kill(0);
    space.sleep(20);
    let key = (Map::Clients, b"r".to_vec());
    assert!(space.nodes[1].kept[&key].2.is_some());
    space.sleep(30);
    assert!(space.nodes[1].kept[&key].2.is_none());
    assert!(!lasting(&mut space, 1, "r").1);
}

#[test]
fn a_client_that_only_says_something_and_goes_leaves_no_trace() {
    let mut space = Space::new(2);
    let client = space.world(0).client("c");
    space.say(0, client, "a", false, "1");
    space.world(0).send(client, v5::Disconnect::new_normal());
    space.sleep(2);
    assert!(space.nodes[1].kept.is_empty());
}

#[test]
fn each_message_of_a_shared_subscription_goes_to_one_member_wherever_it_is() {
    let mut space = Space::new(3);
    let writer = space.world(0).client("w");
    let members: Vec<_> = [(0, "m0"), (1, "m1"), (1, "m2"), (2, "m3")]
        .map(|(node, id)| (node, space.subscriber(node, id, "$share/g/a/#")))
        .into();
    space.sleep(1);
    for n in 0..200 {
        space.say(0, writer, "a/b", false, &n.to_string());
    }
    let mut all: Vec<u32> = Vec::new();
    let mut counts = Vec::new();
    for (node, member) in &members {
        let heard = space.heard(*node, *member);
        counts.push(heard.len());
        all.extend(heard.iter().map(|text| text.parse::<u32>().unwrap()));
    }
    all.sort_unstable();
    assert_eq!(all, (0..200).collect::<Vec<_>>(), "each once");
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
}

#[test]
fn what_went_to_a_member_that_is_gone_goes_to_another() {
    let mut space = Space::new(3);
    let writer = space.world(0).client("w");
    let members = [1, 2].map(|node| (node, space.subscriber(node, &format!("m{node}"), "$share/g/a")));
    let first = space.subscriber(0, "m0", "$share/g/a");
    space.sleep(1);
    space.kill(2);
    for n in 0..100 {
        space.say(0, writer, "a", false, &n.to_string());
    }
    space.sleep(15);
    let mut all: Vec<u32> = Vec::new();
    for (node, member) in [members[0], (0, first)] {
        all.extend(space.heard(node, member).iter().map(|text| text.parse::<u32>().unwrap()));
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}
