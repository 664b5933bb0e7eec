//! How messages go through, at each quality of service.

use bytes::Bytes;
use mqtt_proto::{
    Protocol, QosPid, v3,
    v5::{self, DisconnectReasonCode as Reason, Packet},
};
use smidge_mqtt::Limits;

use crate::support::{World, pid, publish, subscribe};

#[test]
fn mqtt_4_3_1_at_qos_0_a_message_comes_once_and_needs_no_answer() {
    let mut world = World::new(Limits::default());
    let (reader, writer) = (world.subscriber("r", "a/#", 2), world.client("w"));
    world.send(writer, publish("a/b", 0, 0, "1"));
    assert!(world.got(writer).is_empty());
    let [Packet::Publish(publish)] = &world.got(reader)[..] else { panic!() };
    assert_eq!(
        (&*publish.topic_name, publish.qos_pid, publish.retain, publish.dup),
        ("a/b", QosPid::Level0, false, false)
    );
    assert_eq!(world.mesh.len(), 1, "and the other brokers hear of it");
}

#[test]
fn mqtt_4_3_2_at_qos_1_a_message_is_acknowledged_and_is_sent_until_it_is() {
    let mut world = World::new(Limits::default());
    let (reader, writer) = (world.subscriber("r", "a", 1), world.client("w"));
    world.send(writer, publish("a", 1, 7, "1"));
    assert_eq!(world.got(writer), [Packet::Puback(v5::Puback::new_success(pid(7)))]);
    let [Packet::Publish(publish)] = &world.got(reader)[..] else { panic!() };
    let QosPid::Level1(id) = publish.qos_pid else { panic!() };
    world.send(reader, v5::Puback::new_success(id));
    let client = world.broker.clients().find(|client| &*client.id == "r").unwrap();
    assert_eq!(client.waiting, 0);
}

#[test]
fn mqtt_4_3_3_at_qos_2_a_message_that_is_sent_again_is_not_delivered_again() {
    let mut world = World::new(Limits::default());
    let (reader, writer) = (world.subscriber("r", "a", 2), world.client("w"));
    let mut message = publish("a", 2, 7, "1");
    world.send(writer, message.clone());
    message.dup = true;
    world.send(writer, message.clone());
    let pubrec = Packet::Pubrec(v5::Pubrec::new_success(pid(7)));
    assert_eq!(world.got(writer), [pubrec.clone(), pubrec]);
    world.send(writer, v5::Pubrel::new_success(pid(7)));
    assert_eq!(world.got(writer), [Packet::Pubcomp(v5::Pubcomp::new_success(pid(7)))]);
    // Released, the packet id stands for another message.
    message.dup = false;
    world.send(writer, message);
    assert_eq!(world.heard(reader), ["1", "1"]);
}

#[test]
fn mqtt_4_3_3_to_a_subscriber_at_qos_2_goes_publish_then_pubrel_and_no_more() {
    let mut world = World::new(Limits::default());
    let (reader, writer) = (world.subscriber("r", "a", 2), world.client("w"));
    world.send(writer, publish("a", 2, 7, "1"));
    let [Packet::Publish(publish)] = &world.got(reader)[..] else { panic!() };
    let QosPid::Level2(id) = publish.qos_pid else { panic!() };
    world.send(reader, v5::Pubrec::new_success(id));
    assert_eq!(world.got(reader), [Packet::Pubrel(v5::Pubrel::new_success(id))]);
    world.send(reader, v5::Pubrec::new_success(id));
    assert_eq!(world.got(reader), [Packet::Pubrel(v5::Pubrel::new_success(id))]);
    world.send(reader, v5::Pubcomp::new_success(id));
    world.send(reader, v5::Pubrec::new_success(id));
    let [Packet::Pubrel(unknown)] = &world.got(reader)[..] else { panic!() };
    assert_eq!(unknown.reason_code, v5::PubrelReasonCode::PacketIdentifierNotFound);
}

#[test]
fn mqtt_4_3_3_a_subscriber_that_refuses_a_message_at_qos_2_is_done_with_it() {
    let mut world = World::new(Limits::default());
    let (reader, writer) = (world.subscriber("r", "a", 2), world.client("w"));
    world.send(writer, publish("a", 2, 7, "1"));
    let [Packet::Publish(publish)] = &world.got(reader)[..] else { panic!() };
    let id = publish.qos_pid.pid().unwrap();
    world.send(reader, v5::Pubrec::new(id, v5::PubrecReasonCode::QuotaExceeded));
    assert!(world.got(reader).is_empty());
    assert_eq!(world.broker.stats().queued_bytes, 0);
}

#[test]
fn mqtt_3_8_4_8_the_quality_is_the_lower_of_both() {
    for (sent, asked, expected) in [(0, 2, 0), (1, 0, 0), (2, 1, 1), (1, 2, 1), (2, 2, 2)] {
        let mut world = World::new(Limits::default());
        let (reader, writer) = (world.subscriber("r", "a", asked), world.client("w"));
        world.send(writer, publish("a", sent, 1, "1"));
        let [Packet::Publish(publish)] = &world.got(reader)[..] else { panic!() };
        assert_eq!(publish.qos_pid.qos() as u8, expected, "{sent} {asked}");
    }
}

#[test]
fn mqtt_4_6_0_6_messages_of_one_client_come_in_their_order() {
    let mut world = World::new(Limits { inflight: 3, ..Limits::default() });
    let (reader, writer) = (world.subscriber("r", "a", 1), world.client("w"));
    for n in 0..10 {
        world.send(writer, publish("a", 1, 1 + n, n.to_string()));
    }
    let mut heard = Vec::new();
    loop {
        let packets = world.got(reader);
        if packets.is_empty() {
            break;
        }
        assert!(packets.len() <= 3, "no more than may be in flight");
        for packet in packets {
            let Packet::Publish(publish) = packet else { panic!() };
            heard.push(String::from_utf8_lossy(&publish.payload).into_owned());
            world.send(reader, v5::Puback::new_success(publish.qos_pid.pid().unwrap()));
        }
    }
    assert_eq!(heard, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn mqtt_3_3_4_7_no_more_messages_are_in_flight_than_the_clients_receive_maximum() {
    let mut world = World::new(Limits::default());
    let reader = world.client_with("r", |connect| connect.properties.receive_max = Some(2));
    world.send(reader, subscribe("a", 2));
    let writer = world.client("w");
    for n in 1..=5 {
        world.send(writer, publish("a", 2, n, "x"));
    }
    assert_eq!(world.heard(reader).len(), 2);
    world.send(writer, publish("a", 0, 0, "none"));
    assert_eq!(world.heard(reader), ["none"], "what is at QoS 0 does not count");
}

#[test]
fn mqtt_3_3_4_9_more_than_our_receive_maximum_ends_the_connection_with_0x93() {
    let mut world = World::new(Limits { receive_maximum: 3, ..Limits::default() });
    let (client, connack) = world.hello(v5::Connect::new("w".into(), 0));
    assert_eq!(connack.properties.receive_max, Some(3));
    for n in 1..=3 {
        world.send(client, publish("a", 2, n, "x"));
    }
    assert!(!world.clients[client].closed);
    world.send(client, publish("a", 2, 4, "x"));
    assert_eq!(world.farewell(client), Some(Reason::ReceiveMaximumExceeded));
}

#[test]
fn mqtt_3_1_2_24_a_packet_above_the_clients_maximum_is_not_sent_and_the_next_one_is() {
    let mut world = World::new(Limits::default());
    let reader = world.client_with("r", |connect| connect.properties.max_packet_size = Some(50));
    world.send(reader, subscribe("a", 1));
    let writer = world.client("w");
    world.send(writer, publish("a", 1, 1, "x".repeat(60)));
    world.send(writer, publish("a", 1, 2, "short"));
    assert_eq!(world.heard(reader), ["short"]);
    assert_eq!(world.broker.stats().dropped_large, 1);
}

#[test]
fn mqtt_3_2_2_15_a_packet_above_our_maximum_ends_the_connection_with_0x95() {
    let mut world = World::new(Limits { packet: 100, ..Limits::default() });
    let (client, connack) = world.hello(v5::Connect::new("w".into(), 0));
    assert_eq!(connack.properties.max_packet_size, Some(100));
    world.send(client, publish("a", 0, 0, "x".repeat(100)));
    assert_eq!(world.farewell(client), Some(Reason::PacketTooLarge));
}

#[test]
fn mqtt_3_3_2_7_topic_aliases_stand_for_topics_of_their_connection() {
    let mut world = World::new(Limits { aliases: 2, ..Limits::default() });
    let (reader, writer) = (world.subscriber("r", "#", 0), world.client("w"));
    let with = |topic: &str, alias, payload: &'static str| {
        let mut publish = publish(topic, 0, 0, payload);
        publish.properties.topic_alias = Some(alias);
        publish
    };
    world.send(writer, with("a/b", 1, "1"));
    world.send(writer, with("", 1, "2"));
    world.send(writer, with("c", 1, "3"));
    world.send(writer, with("", 1, "4"));
    let topics: Vec<_> = world
        .got(reader)
        .into_iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => {
                assert_eq!(publish.properties.topic_alias, None);
                publish.topic_name.to_string()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(topics, ["a/b", "a/b", "c", "c"]);
    world.send(writer, with("", 2, "unknown"));
    assert_eq!(world.farewell(writer), Some(Reason::ProtocolError));
    for alias in [0, 3] {
        let writer = world.client("w");
        world.send(writer, with("a", alias, "x"));
        assert_eq!(world.farewell(writer), Some(Reason::TopicAliasInvalid));
    }
}

#[test]
fn mqtt_3_3_2_17_properties_of_a_message_are_passed_on_in_their_order() {
    let mut world = World::new(Limits::default());
    let (reader, writer) = (world.subscriber("r", "a", 0), world.client("w"));
    let mut message = publish("a", 0, 0, "text");
    let property = |name: &str| v5::UserProperty { name: name.into(), value: "v".into() };
    message.properties.user_properties = vec![property("b"), property("a"), property("b")];
    message.properties.payload_is_utf8 = Some(true);
    message.properties.content_type = Some("text/plain".into());
    message.properties.response_topic = Some("answer/here".try_into().unwrap());
    message.properties.correlation_data = Some(vec![0, 255].into());
    world.send(writer, message.clone());
    assert_eq!(world.got(reader), [Packet::Publish(message)]);
}

#[test]
fn mqtt_3_1_1_and_5_hear_each_other_and_so_does_3_1() {
    let mut world = World::new(Limits::default());
    let new = world.subscriber("5", "#", 1);
    let mut readers = vec![new];
    for (protocol, id) in [(Protocol::V311, "4"), (Protocol::V310, "3")] {
        let (client, connack) = world.client_3(protocol, id, true);
        assert_eq!(connack.code, v3::ConnectReturnCode::Accepted);
        let filter = ("#".try_into().unwrap(), mqtt_proto::QoS::Level1);
        world.send_3(client, v3::Subscribe::new(pid(1), vec![filter]));
        let granted = v3::Suback::new(pid(1), vec![v3::SubscribeReturnCode::MaxLevel1]);
        assert_eq!(world.got_3(client), [v3::Packet::Suback(granted)]);
        readers.push(client);
    }
    let topic = "a".try_into().unwrap();
    world.send_3(readers[1], v3::Publish::new(QosPid::Level1(pid(9)), topic, "old".into()));
    world.send(new, publish("a", 1, 9, "new"));
    for reader in &readers[1..] {
        assert_eq!(world.heard(*reader), ["old", "new"]);
    }
    assert_eq!(world.heard(new), ["old", "new"]);
    world.send_3(readers[2], v3::Packet::Pingreq);
    assert_eq!(world.got_3(readers[2]), [v3::Packet::Pingresp]);
}

#[test]
fn packets_come_through_however_they_are_cut() {
    let mut world = World::new(Limits::default());
    let (reader, writer) = (world.subscriber("r", "a", 0), world.client("w"));
    let packet = Packet::Publish(publish("a", 0, 0, "x".repeat(300))).encode().unwrap();
    let stream = packet.as_ref().repeat(5);
    for size in [1, 2, 3, 7, 150, 305, 700] {
        for part in stream.chunks(size) {
            world.bytes(writer, part);
        }
        assert_eq!(world.heard(reader).len(), 5, "{size}");
    }
    assert_eq!(world.broker.stats().queued_bytes, 0);
}

#[test]
fn a_reader_that_is_slow_loses_qos_0_first_and_nobody_else_notices() {
    let limits = Limits { queue_bytes: 10_000, queue_messages: 5, inflight: 10, ..Limits::default() };
    let mut world = World::new(limits);
    let (slow, quick, writer) =
        (world.subscriber("s", "#", 1), world.subscriber("q", "#", 0), world.client("w"));
    world.clients[slow].stalled = true;
    for _ in 0..100 {
        world.send(writer, publish("a", 0, 0, "x".repeat(1000)));
    }
    for n in 1..=20 {
        world.send(writer, publish("a", 1, n, "small"));
    }
    assert_eq!(world.heard(quick).len(), 120);
    let stats = world.broker.stats();
    assert!(stats.dropped_slow > 80 && stats.queued_bytes < 20_000, "{stats:?}");
    assert_eq!(stats.dropped_full, 5, "ten in flight and five queued");
    world.resume(slow);
    let heard = world.heard(slow);
    assert_eq!(heard.iter().filter(|text| *text == "small").count(), 10);
}

#[test]
fn a_client_that_takes_no_answers_is_read_no_more() {
    let mut world = World::new(Limits { queue_bytes: 1000, ..Limits::default() });
    let writer = world.client("w");
    world.clients[writer].stalled = true;
    let id = world.clients[writer].id;
    for _ in 0..300 {
        world.bytes(writer, &[0xc0, 0]);
        world.send(writer, publish("a", 1, 1, "x"));
    }
    assert!(!world.broker.wants_more(id));
    world.resume(writer);
    assert!(world.broker.wants_more(id));
}

#[test]
fn mqtt_3_3_2_5_a_message_that_expires_is_not_delivered_and_its_interval_is_what_is_left() {
    let mut world = World::new(Limits::default());
    let (reader, _) = world.lasting("r");
    world.send(reader, subscribe("a", 1));
    world.cut(reader);
    let writer = world.client("w");
    for (n, interval) in [(1, 10), (2, 100)] {
        let mut message = publish("a", 1, n, interval.to_string());
        message.properties.message_expiry_interval = Some(interval);
        world.send(writer, message);
    }
    world.sleep(crate::support::seconds(30));
    let (reader, present) = world.lasting("r");
    assert!(present);
    let [Packet::Publish(publish)] = &world.got(reader)[..] else { panic!() };
    assert_eq!((&publish.payload[..], publish.properties.message_expiry_interval), (&b"100"[..], Some(70)));
}

#[test]
fn an_acknowledgement_waits_for_others_and_says_where_they_did_not_confirm() {
    let mut world = World::new(Limits::default());
    world.broker.set_confirms(true);
    let reader = world.subscriber("r", "a", 0);
    let writer = world.client("w");
    for (qos, id) in [(0, 0), (1, 1), (2, 2), (1, 3), (2, 4)] {
        world.send(writer, publish("a", qos, id, "x"));
    }
    assert_eq!(world.heard(reader).len(), 5, "nobody else waits");
    assert!(world.got(writer).is_empty());
    let mut again = publish("a", 2, 2, "x");
    again.dup = true;
    world.send(writer, again);
    assert!(world.got(writer).is_empty() && world.heard(reader).is_empty(), "it waits already");
    let tickets = std::mem::take(&mut world.tickets);
    assert_eq!(tickets.len(), 4);
    let now = world.now;
    for (ticket, confirmed) in tickets.iter().zip([true, true, false, false]) {
        world.broker.confirmed(*ticket, confirmed, now);
    }
    world.run();
    let codes: Vec<_> = world
        .got(writer)
        .into_iter()
        .map(|packet| match packet {
            Packet::Puback(ack) => (ack.pid.value(), ack.reason_code as u8),
            Packet::Pubrec(ack) => (ack.pid.value(), ack.reason_code as u8),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(codes, [(1, 0), (2, 0), (3, 0x83), (4, 0x83)]);
    assert_eq!(world.broker.stats().not_confirmed, 2);
    // MQTT 3 has no word for it.
    let (old, _) = world.client_3(Protocol::V311, "old", true);
    let said = v3::Publish::new(QosPid::Level1(pid(9)), "a".try_into().unwrap(), Bytes::from_static(b"x"));
    world.send_3(old, said);
    let ticket = world.tickets[0];
    world.broker.confirmed(ticket, false, now);
    world.run();
    assert!(world.clients[old].closed, "so that it comes back and says it again");
}
