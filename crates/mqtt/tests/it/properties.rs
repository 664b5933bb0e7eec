//! Clients that do anything, in any order: what a broker promises holds all the same.

use std::collections::{BTreeMap, BTreeSet};

use mqtt_proto::{
    QosPid,
    v5::{self, Packet},
};
use proptest::prelude::*;
use smidge_mqtt::Limits;

use crate::support::{World, publish, subscribe};

const WINDOW: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    /// A message at a quality, from the writer.
    Publish(u8),
    /// A reader acknowledges the oldest that it has not.
    Acknowledge(usize),
    Cut(usize),
    Return(usize),
    Stall(usize),
    Resume(usize),
    Bytes(usize, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let reader = 0_usize..2;
    prop_oneof![
        6 => (0_u8..3).prop_map(Step::Publish),
        6 => reader.clone().prop_map(Step::Acknowledge),
        1 => reader.clone().prop_map(Step::Cut),
        2 => reader.clone().prop_map(Step::Return),
        1 => reader.clone().prop_map(Step::Stall),
        1 => reader.clone().prop_map(Step::Resume),
        1 => (reader, proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(reader, bytes)| Step::Bytes(reader, bytes)),
    ]
}

/// A client with a session that lasts, at the quality of its number and one.
#[derive(Default)]
struct Reader {
    client: usize,
    /// To be answered, in order.
    due: Vec<Packet>,
    heard: BTreeMap<String, usize>,
    /// At QoS 2: packet ids that are not released, which are not heard again.
    known: BTreeSet<u16>,
    unacknowledged: BTreeSet<u16>,
}

impl Reader {
    fn name(n: usize) -> String {
        format!("reader {n}")
    }

    fn connect(&mut self, n: usize, world: &mut World) {
        let mut connect = v5::Connect::new(Self::name(n).as_str().into(), 0);
        connect.clean_start = false;
        connect.properties.session_expiry_interval = Some(1000);
        connect.properties.receive_max = Some(WINDOW as u16);
        if n < world.clients.len() && world.clients[self.client].stalled {
            world.resume(self.client);
        }
        self.client = world.open();
        self.due.clear();
        self.unacknowledged.clear();
        world.send(self.client, connect);
    }

    fn read(&mut self, world: &mut World) {
        for packet in world.got(self.client) {
            match &packet {
                Packet::Publish(publish) => {
                    let said = String::from_utf8_lossy(&publish.payload).into_owned();
                    match publish.qos_pid {
                        QosPid::Level0 => {}
                        QosPid::Level1(pid) => {
                            self.unacknowledged.insert(pid.value());
                            *self.heard.entry(said).or_default() += 1;
                        }
                        QosPid::Level2(pid) => {
                            self.unacknowledged.insert(pid.value());
                            if self.known.insert(pid.value()) {
                                *self.heard.entry(said).or_default() += 1;
                            }
                        }
                    }
                    assert!(self.unacknowledged.len() <= WINDOW, "more in flight than may be");
                    if publish.qos_pid != QosPid::Level0 {
                        self.due.push(packet);
                    }
                }
                Packet::Pubrel(_) => self.due.push(packet),
                _ => {}
            }
        }
    }

    fn acknowledge(&mut self, world: &mut World) {
        if self.due.is_empty() || world.clients[self.client].closed {
            return;
        }
        match self.due.remove(0) {
            Packet::Publish(publish) => match publish.qos_pid {
                QosPid::Level1(pid) => {
                    self.unacknowledged.remove(&pid.value());
                    world.send(self.client, v5::Puback::new_success(pid));
                }
                QosPid::Level2(pid) => world.send(self.client, v5::Pubrec::new_success(pid)),
                QosPid::Level0 => {}
            },
            Packet::Pubrel(pubrel) => {
                self.known.remove(&pubrel.pid.value());
                self.unacknowledged.remove(&pubrel.pid.value());
                world.send(self.client, v5::Pubcomp::new_success(pubrel.pid));
            }
            _ => {}
        }
        self.read(world);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Readers with sessions get each message at QoS 1 at least once and at QoS 2 once, whatever breaks in between; no more
    /// are in flight than may be; and in the end nothing is held.
    #[test]
    fn at_least_once_and_exactly_once_hold(steps in proptest::collection::vec(step(), 1..150)) {
        let mut world = World::new(Limits::default());
        let writer = world.client("writer");
        let mut readers = [Reader::default(), Reader::default()];
        for (n, reader) in readers.iter_mut().enumerate() {
            reader.connect(n, &mut world);
            world.send(reader.client, subscribe("t", n as u8 + 1));
            reader.read(&mut world);
        }
        let mut expected = [BTreeSet::new(), BTreeSet::new()];
        let mut count = 0_u16;
        for step in steps {
            match step {
                Step::Publish(qos) => {
                    count += 1;
                    let said = format!("{qos}:{count}");
                    world.send(writer, publish("t", qos, count, said.clone()));
                    if qos == 2 {
                        world.send(writer, v5::Pubrel::new_success(crate::support::pid(count)));
                    }
                    if qos >= 1 {
                        expected.iter_mut().for_each(|expected| { expected.insert(said.clone()); });
                    }
                }
                Step::Acknowledge(n) => readers[n].acknowledge(&mut world),
                Step::Cut(n) => {
                    readers[n].read(&mut world);
                    world.cut(readers[n].client);
                }
                Step::Return(n) => {
                    readers[n].read(&mut world);
                    readers[n].connect(n, &mut world);
                }
                Step::Stall(n) => world.clients[readers[n].client].stalled = true,
                Step::Resume(n) if !world.clients[readers[n].client].closed => world.resume(readers[n].client),
                Step::Resume(_) => {}
                Step::Bytes(n, bytes) => {
                    // A connection of its own: a packet that makes sense would change the reader's session.
                    let other = world.open();
                    world.bytes(other, &bytes);
                    world.cut(other);
                    readers[n].read(&mut world);
                }
            }
            for reader in &mut readers {
                reader.read(&mut world);
            }
        }
        for (n, reader) in readers.iter_mut().enumerate() {
            reader.connect(n, &mut world);
            reader.read(&mut world);
            while !reader.due.is_empty() {
                reader.acknowledge(&mut world);
            }
        }
        for (n, reader) in readers.iter().enumerate() {
            let heard: BTreeSet<_> = reader.heard.keys().cloned().collect();
            prop_assert_eq!(&heard, &expected[n]);
            if n == 1 {
                let twice: Vec<_> = reader.heard.iter().filter(|(said, times)| said.starts_with('2') && **times != 1).collect();
                prop_assert!(twice.is_empty(), "{:?}", twice);
            }
        }
        prop_assert_eq!(world.broker.stats().queued_bytes, 0);
    }

    /// Any bytes, in any pieces, from any number of clients: no panic, and what is held stays within its bounds.
    #[test]
    fn any_bytes_are_borne(pieces in proptest::collection::vec((0_usize..4, proptest::collection::vec(any::<u8>(), 0..60)), 0..60)) {
        let limits = Limits { queued_bytes: 10_000, queue_bytes: 1000, packet: 500, ..Limits::default() };
        let mut world = World::new(limits);
        let mut clients: Vec<_> = (0..4).map(|n| world.subscriber(&n.to_string(), "#", 2)).collect();
        for (n, bytes) in pieces {
            if world.clients[clients[n]].closed {
                clients[n] = world.client(&n.to_string());
            }
            world.bytes(clients[n], &bytes);
            world.sleep(crate::support::seconds(1));
            prop_assert!(world.broker.stats().queued_bytes < 20_000);
        }
    }
}
