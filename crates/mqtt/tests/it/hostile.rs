//! Clients that mean no good.

use mqtt_proto::v5::{self, DisconnectReasonCode as Reason, Packet};
use smidge_mqtt::Limits;

use crate::support::{World, pid, publish, subscribe};

/// Sends bytes after CONNECT, in both versions, and says what MQTT 5 was closed with.
fn after_connect(bytes: &[u8]) -> Option<Reason> {
    let mut world = World::new(Limits::default());
    let (old, _) = world.client_3(mqtt_proto::Protocol::V311, "3", true);
    world.bytes(old, bytes);
    assert!(world.clients[old].closed, "MQTT 3 goes on after {bytes:x?}");
    let new = world.client("5");
    world.bytes(new, bytes);
    let reason = world.farewell(new);
    assert_eq!(world.broker.stats().faults, 2);
    reason
}

#[test]
fn malformed_packets_of_each_kind_close_their_connection() {
    let cases: &[(&str, &[u8], Reason)] = &[
        ("a type that there is not", &[0x00, 0], Reason::MalformedPacket),
        ("flags of PINGREQ", &[0xc1, 0], Reason::MalformedPacket),
        ("PINGREQ with a body", &[0xc0, 1, 0], Reason::MalformedPacket),
        ("QoS 3", &[0x36, 5, 0, 1, b'a', 0, 1], Reason::MalformedPacket),
        ("DUP at QoS 0 [MQTT-3.3.1-2]", &[0x38, 4, 0, 1, b'a', 0], Reason::MalformedPacket),
        ("packet id 0", &[0x32, 6, 0, 1, b'a', 0, 0, 0], Reason::MalformedPacket),
        ("a topic longer than its packet", &[0x30, 3, 0xff, 0xff, b'a'], Reason::MalformedPacket),
        ("a wildcard in a name [MQTT-3.3.2-2]", &[0x30, 4, 0, 1, b'#', 0], Reason::TopicNameInvalid),
        ("a topic that is no UTF-8", &[0x30, 4, 0, 1, 0xff, 0], Reason::MalformedPacket),
        ("U+0000 [MQTT-1.5.4-2]", &[0x30, 4, 0, 1, 0, 0], Reason::TopicNameInvalid),
        ("SUBSCRIBE of nothing [MQTT-3.8.3-2]", &[0x82, 3, 0, 1, 0], Reason::ProtocolError),
        ("flags of SUBSCRIBE [MQTT-3.8.1-1]", &[0x80, 7, 0, 1, 0, 0, 1, b'a', 0], Reason::MalformedPacket),
        ("PUBACK without a packet id", &[0x40, 1, 0], Reason::MalformedPacket),
        ("CONNACK from a client", &[0x20, 2, 0, 0], Reason::ProtocolError),
        ("a length of five bytes", &[0x30, 0xff, 0xff, 0xff, 0xff, 1], Reason::MalformedPacket),
        ("a length that is too long [MQTT-1.5.5-1]", &[0xc0, 0x80, 0], Reason::MalformedPacket),
        ("256 MiB", &[0x30, 0xff, 0xff, 0xff, 0x7f], Reason::PacketTooLarge),
    ];
    for (what, bytes, reason) in cases {
        assert_eq!(after_connect(bytes), Some(*reason), "{what}");
    }
}

#[test]
fn malformed_packets_of_mqtt_5_say_what_is_wrong() {
    let cases: &[(&str, &[u8], Reason)] = &[
        ("a filter without options", &[0x82, 8, 0, 1, 0, 0, 3, b'a', b'/', b'#'], Reason::MalformedPacket),
        ("+a", &[0x82, 8, 0, 1, 0, 0, 2, b'+', b'a', 0], Reason::TopicFilterInvalid),
        ("a#", &[0x82, 8, 0, 1, 0, 0, 2, b'a', b'#', 0], Reason::TopicFilterInvalid),
        (
            "a share without a group",
            &[0x82, 14, 0, 1, 0, 0, 8, b'$', b's', b'h', b'a', b'r', b'e', b'/', b'/', 0],
            Reason::TopicFilterInvalid,
        ),
        ("an option that is reserved", &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0xc0], Reason::MalformedPacket),
        (
            "a subscription identifier of 0",
            &[0x82, 9, 0, 1, 2, 0x0b, 0, 0, 1, b'a', 0],
            Reason::ProtocolError,
        ),
        ("one in a PUBLISH [MQTT-3.3.4-6]", &[0x30, 6, 0, 1, b'a', 2, 0x0b, 1], Reason::ProtocolError),
        ("an unknown property", &[0x30, 6, 0, 1, b'a', 2, 0x7f, 1], Reason::MalformedPacket),
        ("a property twice", &[0x30, 8, 0, 1, b'a', 4, 0x01, 0, 0x01, 0], Reason::ProtocolError),
        ("a property longer than said", &[0x30, 6, 0, 1, b'a', 1, 0x01, 1], Reason::MalformedPacket),
        (
            "a wildcard in a response topic [MQTT-3.3.2-14]",
            &[0x30, 8, 0, 1, b'a', 4, 0x08, 0, 1, b'#'],
            Reason::TopicNameInvalid,
        ),
        (
            "no UTF-8 where it is said to be",
            &[0x30, 7, 0, 1, b'a', 2, 0x01, 1, 0xff],
            Reason::PayloadFormatInvalid,
        ),
        ("no topic and no alias", &[0x30, 3, 0, 0, 0], Reason::ProtocolError),
        ("an unknown reason", &[0x40, 3, 0, 1, 0x77], Reason::MalformedPacket),
        ("AUTH", &[0xf0, 0], Reason::ProtocolError),
    ];
    for (what, bytes, reason) in cases {
        let mut world = World::new(Limits::default());
        let client = world.client("c");
        world.bytes(client, bytes);
        assert!(world.clients[client].closed, "{what}");
        assert_eq!(world.farewell(client), Some(*reason), "{what}");
    }
}

#[test]
fn malformed_connects_are_closed_without_a_word() {
    let cases: &[(&str, &[u8])] = &[
        ("a reserved flag [MQTT-3.1.2-3]", b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01a"),
        (
            "a password without a name [MQTT-3.1.2-22]",
            b"\x10\x10\x00\x04MQTT\x04\x42\x00\x00\x00\x01a\x00\x01p",
        ),
        ("a will's quality without a will [MQTT-3.1.2-13]", b"\x10\x0d\x00\x04MQTT\x04\x0a\x00\x00\x00\x01a"),
        ("a will's retain without a will [MQTT-3.1.2-15]", b"\x10\x0d\x00\x04MQTT\x04\x22\x00\x00\x00\x01a"),
        ("bytes behind its end", b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x01ab"),
        ("a client id that is cut", b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x09a"),
        ("flags of its header", b"\x11\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a"),
        ("a receive maximum of 0", b"\x10\x11\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x00\x00\x01a"),
        (
            "a maximum packet size of 0",
            b"\x10\x13\x00\x04MQTT\x05\x02\x00\x00\x05\x27\x00\x00\x00\x00\x00\x01a",
        ),
        ("U+0000 in its id [MQTT-1.5.4-2]", b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01\x00"),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n"),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ];
    for (what, bytes) in cases {
        let mut world = World::new(Limits::default());
        let client = world.open();
        world.bytes(client, bytes);
        assert!(world.clients[client].closed, "{what}");
        assert!(world.raw(client).is_empty(), "{what}");
    }
}

#[test]
fn topics_of_65535_bytes_and_of_as_many_levels_cost_what_they_are_long() {
    let mut world = World::new(Limits::default());
    let reader = world.subscriber("r", "#", 0);
    let writer = world.client("w");
    world.send(writer, publish(&"x".repeat(65_535), 0, 0, "long"));
    assert_eq!(world.heard(reader), ["long"]);
    for topic in ["/".repeat(65_534), "a/".repeat(200)] {
        world.send(writer, publish(&topic, 1, 1, "deep"));
        let [Packet::Puback(puback)] = &world.got(writer)[..] else { panic!() };
        assert_eq!(puback.reason_code, v5::PubackReasonCode::TopicNameInvalid);
        world.send(reader, subscribe(&format!("{topic}#"), 0));
        let [Packet::Suback(suback)] = &world.got(reader)[..] else { panic!() };
        assert_eq!(suback.topics, [v5::SubscribeReasonCode::TopicFilterInvalid]);
    }
}

#[test]
fn everything_a_thousand_times_is_one_subscription_and_brings_one_copy() {
    let mut world = World::new(Limits::default());
    let (reader, writer) = (world.client("r"), world.client("w"));
    let mut message = publish("a", 0, 0, "kept");
    message.retain = true;
    world.send(writer, message);
    let mut all = subscribe("#", 0);
    all.topics = vec![all.topics[0].clone(); 1000];
    world.send(reader, all);
    assert_eq!(world.heard(reader), ["kept"]);
    world.send(writer, publish("b", 0, 0, "live"));
    assert_eq!(world.heard(reader), ["live"]);
    assert_eq!(world.broker.stats().subscriptions, 1);
}

#[test]
fn a_qos_2_that_never_ends_takes_no_more_than_its_packet_ids() {
    let mut world = World::new(Limits { receive_maximum: 20, ..Limits::default() });
    let reader = world.subscriber("r", "a", 2);
    let writer = world.client("w");
    for n in 1..=20 {
        world.send(writer, publish("a", 2, n, "x"));
        world.send(writer, v5::Pubrec::new_success(pid(n)));
        world.send(writer, v5::Pubcomp::new_success(pid(n)));
    }
    // The reader releases nothing either.
    assert_eq!(world.heard(reader).len(), 20);
    for n in 1..=100 {
        world.send(reader, v5::Pubrec::new_success(pid(n)));
    }
    world.send(writer, publish("a", 2, 21, "x"));
    assert_eq!(world.farewell(writer), Some(Reason::ReceiveMaximumExceeded));
    assert_eq!(world.broker.stats().queued_bytes, 0);
}

#[test]
fn many_packets_that_never_end_take_no_more_than_waits_for_all_clients() {
    let limits = Limits { queued_bytes: 300_000, connections: 100, ..Limits::default() };
    let mut world = World::new(limits);
    let bystander = world.subscriber("b", "#", 0);
    for n in 0..50 {
        let client = world.client(&n.to_string());
        let mut part = vec![0x30, 0xa0, 0x9c, 0x01, 0, 1, b'a'];
        part.resize(19_000, 0);
        world.bytes(client, &part);
        assert!(world.broker.stats().queued_bytes < 330_000);
    }
    assert!(world.broker.stats().faults > 20);
    assert!(!world.clients[bystander].closed);
}

#[test]
fn a_client_that_asks_and_never_reads_holds_no_more_than_its_queue() {
    let limits = Limits { queue_bytes: 50_000, ..Limits::default() };
    let mut world = World::new(limits);
    let writer = world.client("w");
    for n in 0..1000 {
        let mut message = publish(&format!("t/{n}"), 0, 0, "x".repeat(1000));
        message.retain = true;
        world.send(writer, message);
    }
    let reader = world.client("r");
    world.clients[reader].stalled = true;
    for n in 0..300 {
        world.send(reader, subscribe(&format!("{}#", "+/".repeat(n % 2)), 2));
        world.send(writer, publish("t/x", 2, 1, "x".repeat(1000)));
        world.send(writer, v5::Pubrel::new_success(pid(1)));
        world.sleep(crate::support::seconds(1));
        let waits = world.broker.stats().queued_bytes;
        assert!(waits < 250_000, "{waits}");
    }
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let mut world = World::new(Limits::default());
    for n in 0..1000 {
        let client = world.client_with("c", |connect| {
            connect.keep_alive = 60_000;
            connect.clean_start = n % 3 == 0;
            connect.properties.session_expiry_interval = Some(80_000);
            connect.last_will = Some(crate::support::will("will", "x", 70_000));
        });
        world.cut(client);
    }
    let due = std::iter::from_fn(|| {
        let due = world.broker.deadline(world.now)?;
        world.sleep(due - world.now);
        Some(due)
    });
    assert!(due.take(100).count() <= 3, "a will and a session");
    assert_eq!(world.broker.stats().sessions, 0);
}
