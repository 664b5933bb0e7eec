//! Connections, sessions that outlive them, and wills.

use mqtt_proto::{
    Protocol, v3,
    v5::{self, ConnectReasonCode, DisconnectReasonCode as Reason, Packet},
};
use smidge_mqtt::Limits;

use crate::support::{World, pid, publish, seconds, subscribe, will};

#[test]
fn mqtt_3_1_2_4_a_session_outlives_its_connection_and_has_what_came_meanwhile() {
    let mut world = World::new(Limits::default());
    let (reader, present) = world.lasting("r");
    assert!(!present);
    world.send(reader, subscribe("a", 1));
    world.cut(reader);
    let writer = world.client("w");
    world.send(writer, publish("a", 1, 1, "kept"));
    world.send(writer, publish("a", 0, 0, "not kept"));
    let (reader, present) = world.lasting("r");
    assert!(present, "[MQTT-3.2.2-3]");
    assert_eq!(world.heard(reader), ["kept"]);
    world.send(writer, publish("a", 0, 0, "live"));
    assert_eq!(world.heard(reader), ["live"], "it is still subscribed");
}

#[test]
fn mqtt_4_4_0_1_what_was_not_acknowledged_comes_again_under_its_packet_id_and_in_order() {
    let mut world = World::new(Limits::default());
    let (reader, _) = world.lasting("r");
    world.send(reader, subscribe("a", 2));
    world.got(reader);
    let writer = world.client("w");
    for (n, qos) in [(1, 1), (2, 2), (3, 2)] {
        world.send(writer, publish("a", qos, n, n.to_string()));
    }
    let first = world.got(reader);
    let Packet::Publish(second) = &first[1] else { panic!() };
    world.send(reader, v5::Pubrec::new_success(second.qos_pid.pid().unwrap()));
    world.got(reader);
    world.cut(reader);
    let (reader, _) = world.lasting("r");
    let again = world.got(reader);
    let [Packet::Publish(one), Packet::Pubrel(two), Packet::Publish(three)] = &again[..] else {
        panic!("{again:?}")
    };
    assert!(one.dup && three.dup);
    for (packet, now) in [(&first[0], one), (&first[2], three)] {
        let Packet::Publish(before) = packet else { panic!() };
        assert_eq!((before.qos_pid, &before.payload), (now.qos_pid, &now.payload));
    }
    assert_eq!(two.pid, second.qos_pid.pid().unwrap());
}

#[test]
fn what_was_in_flight_comes_again_within_a_smaller_receive_maximum() {
    let mut world = World::new(Limits::default());
    let (reader, _) = world.lasting("r");
    world.send(reader, subscribe("a", 1));
    let writer = world.client("w");
    for n in 1..=5 {
        world.send(writer, publish("a", 1, n, n.to_string()));
    }
    world.cut(reader);
    let mut connect = v5::Connect::new("r".into(), 0);
    connect.clean_start = false;
    (connect.properties.receive_max, connect.properties.session_expiry_interval) = (Some(2), Some(3600));
    let client = world.open();
    world.send(client, connect);
    let mut heard = Vec::new();
    loop {
        let packets = world.got(client);
        let publishes: Vec<_> = packets
            .into_iter()
            .filter_map(|packet| if let Packet::Publish(publish) = packet { Some(publish) } else { None })
            .collect();
        assert!(publishes.len() <= 2);
        if publishes.is_empty() {
            break;
        }
        for publish in publishes {
            heard.push(String::from_utf8_lossy(&publish.payload).into_owned());
            world.send(client, v5::Puback::new_success(publish.qos_pid.pid().unwrap()));
        }
    }
    assert_eq!(heard, ["1", "2", "3", "4", "5"]);
}

#[test]
fn mqtt_3_1_2_23_a_session_ends_when_it_said_and_clean_start_ends_it_now() {
    let mut world = World::new(Limits::default());
    for (pause, present) in [(3599, true), (3601, false)] {
        let (reader, _) = world.lasting("r");
        world.cut(reader);
        world.sleep(seconds(pause));
        let (reader, found) = world.lasting("r");
        assert_eq!(found, present, "{pause}");
        world.cut(reader);
    }
    world.client("r");
    let (_, present) = world.lasting("r");
    assert!(!present, "[MQTT-3.1.2-4], and one of no length ends when it is taken over");
    assert_eq!(world.broker.stats().sessions, 1);
}

#[test]
fn mqtt_3_1_1_without_a_clean_session_is_kept_and_with_one_is_not() {
    let mut world = World::new(Limits { session_expiry: seconds(60), ..Limits::default() });
    for (clean, pause, present) in [(false, 50, true), (true, 0, false), (false, 70, false)] {
        let (first, _) = world.client_3(Protocol::V311, "r", clean);
        world.cut(first);
        world.sleep(seconds(pause));
        let (second, connack) = world.client_3(Protocol::V311, "r", false);
        assert_eq!(connack.session_present, present, "{clean} {pause}");
        world.send_3(second, v3::Packet::Disconnect);
        world.client_3(Protocol::V311, "r", true);
    }
}

#[test]
fn mqtt_3_2_2_a_longer_expiry_than_ours_is_said_to_be_ours() {
    let mut world = World::new(Limits { session_expiry: seconds(60), ..Limits::default() });
    let mut connect = v5::Connect::new("r".into(), 0);
    connect.properties.session_expiry_interval = Some(u32::MAX);
    let (client, connack) = world.hello(connect);
    assert_eq!(connack.properties.session_expiry_interval, Some(60));
    let mut disconnect = v5::Disconnect::new_normal();
    disconnect.properties.session_expiry_interval = Some(0);
    world.send(client, disconnect);
    assert_eq!(world.broker.stats().sessions, 0, "[MQTT-3.14.2.2.2]");
    // [MQTT-3.1.2-23]
    let client = world.client("x");
    let mut disconnect = v5::Disconnect::new_normal();
    disconnect.properties.session_expiry_interval = Some(10);
    world.send(client, disconnect);
    assert_eq!(world.farewell(client), Some(Reason::ProtocolError));
}

#[test]
fn mqtt_3_1_4_3_a_client_id_that_connects_again_takes_over() {
    let mut world = World::new(Limits::default());
    let (first, _) = world.lasting("c");
    world.send(first, subscribe("a", 0));
    world.got(first);
    let (second, present) = world.lasting("c");
    assert!(present);
    assert_eq!(world.farewell(first), Some(Reason::SessionTakenOver));
    let writer = world.client("w");
    world.send(writer, publish("a", 0, 0, "x"));
    assert_eq!(world.heard(second), ["x"]);
    assert_eq!((world.broker.stats().connections, world.broker.stats().sessions), (2, 2));
}

#[test]
fn mqtt_3_1_3_6_who_has_no_client_id_gets_one() {
    let mut world = World::new(Limits::default());
    let mut ids = std::collections::BTreeSet::new();
    for clean in [true, false, true] {
        // paho-mqtt connects again without a clean start and without an id.
        let mut connect = v5::Connect::new("".into(), 0);
        connect.clean_start = clean;
        let (_, connack) = world.hello(connect);
        ids.insert(connack.properties.assigned_client_id.unwrap());
    }
    assert_eq!(ids.len(), 3);
    // [MQTT-3.1.3-8] of 3.1.1
    let (_, connack) = world.client_3(Protocol::V311, "", true);
    assert_eq!(connack.code, v3::ConnectReturnCode::Accepted);
    for protocol in [Protocol::V311, Protocol::V310] {
        let (client, connack) = world.client_3(protocol, "", false);
        assert_eq!(connack.code, v3::ConnectReturnCode::IdentifierRejected);
        assert!(world.clients[client].closed);
    }
}

#[test]
fn mqtt_3_1_2_8_a_will_is_published_when_its_client_is_lost_and_not_when_it_says_goodbye() {
    for (goodbye, expected) in [
        (None, 1),
        (Some(v5::Disconnect::new_normal()), 0),
        (Some(v5::Disconnect::new(Reason::DisconnectWithWillMessage)), 1),
    ] {
        let mut world = World::new(Limits::default());
        let reader = world.subscriber("r", "will", 1);
        let client = world.client_with("c", |connect| connect.last_will = Some(will("will", "gone", 0)));
        match goodbye {
            Some(goodbye) => world.send(client, goodbye),
            None => world.cut(client),
        }
        assert_eq!(world.heard(reader).len(), expected);
        assert_eq!(world.mesh.len(), expected, "it goes to the other brokers, too");
    }
}

#[test]
fn mqtt_3_1_3_9_a_will_waits_for_its_delay_and_is_not_published_when_the_client_is_back() {
    let mut world = World::new(Limits::default());
    let reader = world.subscriber("r", "will", 1);
    let connect = |world: &mut World| {
        let mut connect = v5::Connect::new("c".into(), 0);
        connect.clean_start = false;
        connect.properties.session_expiry_interval = Some(1000);
        connect.last_will = Some(will("will", "gone", 10));
        world.hello(connect).0
    };
    let client = connect(&mut world);
    world.cut(client);
    world.sleep(seconds(9));
    assert!(world.heard(reader).is_empty());
    let client = connect(&mut world);
    world.sleep(seconds(100));
    assert!(world.heard(reader).is_empty());
    // Taken over, it is the same session that goes on.
    let again = connect(&mut world);
    assert!(world.clients[client].closed);
    assert!(world.heard(reader).is_empty());
    world.cut(again);
    world.sleep(seconds(11));
    assert_eq!(world.heard(reader), ["gone"]);
    world.sleep(seconds(2000));
    assert!(world.heard(reader).is_empty(), "once");
}

#[test]
fn mqtt_3_1_3_9_a_session_that_ends_sooner_than_the_delay_takes_the_will_along() {
    let mut world = World::new(Limits::default());
    let reader = world.subscriber("r", "will", 1);
    let client = world.client_with("c", |connect| connect.last_will = Some(will("will", "now", 10)));
    world.cut(client);
    assert_eq!(world.heard(reader), ["now"]);
    let client = world.client_with("d", |connect| {
        connect.properties.session_expiry_interval = Some(1000);
        connect.last_will = Some(will("will", "ended", 500));
    });
    world.cut(client);
    world.client("d");
    assert_eq!(world.heard(reader), ["ended"], "a clean start ends the session");
}

#[test]
fn a_will_can_be_retained_and_expires_from_when_it_is_published() {
    let mut world = World::new(Limits::default());
    let client = world.client_with("c", |connect| {
        let mut will = will("will", "gone", 0);
        will.retain = true;
        will.properties.message_expiry_interval = Some(10);
        connect.last_will = Some(will);
    });
    world.sleep(seconds(100));
    world.cut(client);
    world.sleep(seconds(9));
    let late = world.subscriber("l", "will", 0);
    assert_eq!(world.heard(late), ["gone"]);
    world.sleep(seconds(2));
    let late = world.subscriber("m", "will", 0);
    assert!(world.heard(late).is_empty());
}

#[test]
fn mqtt_3_1_2_22_a_client_that_is_silent_for_one_and_a_half_keep_alives_is_closed() {
    let mut world = World::new(Limits::default());
    let client = world.client_with("c", |connect| connect.keep_alive = 10);
    for _ in 0..5 {
        world.sleep(seconds(14));
        world.bytes(client, &[0xc0, 0]);
        assert_eq!(world.got(client), [Packet::Pingresp], "[MQTT-3.12.4-1]");
    }
    world.sleep(seconds(16));
    assert_eq!(world.farewell(client), Some(Reason::KeepAliveTimeout));
    let client = world.client_with("d", |connect| connect.keep_alive = 0);
    world.sleep(seconds(100_000));
    assert!(!world.clients[client].closed);
}

#[test]
fn mqtt_3_2_2_21_a_longer_keep_alive_than_ours_is_said_to_be_ours() {
    let mut world = World::new(Limits { keep_alive: 60, ..Limits::default() });
    for (asked, announced) in [(0, Some(60)), (61, Some(60)), (60, None), (10, None)] {
        let (_, connack) = world.hello(v5::Connect::new("c".into(), asked));
        assert_eq!(connack.properties.server_keep_alive, announced);
    }
}

#[test]
fn mqtt_3_1_4_who_says_nothing_is_closed_and_so_is_who_begins_with_something_else() {
    let mut world = World::new(Limits::default());
    let silent = world.open();
    world.sleep(seconds(11));
    assert!(world.clients[silent].closed);
    let client = world.open();
    world.send(client, publish("a", 0, 0, "x"));
    assert!(world.clients[client].closed, "[MQTT-3.1.0-1]");
    assert!(world.raw(client).is_empty());
    // [MQTT-3.1.0-2]
    let client = world.client("c");
    world.send(client, v5::Connect::new("c".into(), 0));
    assert_eq!(world.farewell(client), Some(Reason::ProtocolError));
}

#[test]
fn mqtt_3_1_2_2_an_unknown_version_is_answered_in_a_way_that_all_understand() {
    let mut world = World::new(Limits::default());
    let client = world.open();
    world.bytes(client, b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x00\x00\x00");
    assert_eq!(world.raw(client), [0x20, 2, 0, 1]);
    assert!(world.clients[client].closed);
    let other = world.open();
    world.bytes(other, b"\x10\x0c\x00\x04HTTP\x04\x02\x00\x00\x00\x00");
    assert!(world.clients[other].closed && world.raw(other).is_empty());
}

#[test]
fn mqtt_4_12_an_authentication_method_is_refused_with_0x8c() {
    let mut world = World::new(Limits::default());
    let mut connect = v5::Connect::new("c".into(), 0);
    connect.properties.auth_method = Some("SCRAM-SHA-1".into());
    let (client, connack) = world.hello(connect);
    assert_eq!(connack.reason_code, ConnectReasonCode::BadAuthMethod);
    assert!(world.clients[client].closed);
}

#[test]
fn clients_and_connections_are_as_many_as_may_be() {
    let mut world = World::new(Limits { sessions: 2, connections: 4, ..Limits::default() });
    let (first, _) = world.lasting("a");
    world.cut(first);
    world.client("b");
    let (_, connack) = world.hello(v5::Connect::new("c".into(), 0));
    assert_eq!(connack.reason_code, ConnectReasonCode::QuotaExceeded);
    assert!(world.lasting("a").1, "who has a session comes back");
    world.open();
    world.open();
    assert!(world.broker.connect(world.now).is_err());
}

#[test]
fn all_connections_closed_at_the_end_publish_their_wills() {
    let mut world = World::new(Limits::default());
    let client = world.client_with("c", |connect| connect.last_will = Some(will("will", "gone", 0)));
    world.broker.close_all(world.now);
    world.run();
    assert!(world.clients[client].closed);
    assert!(world.got(client).is_empty(), "a polite goodbye would end some clients for good");
    assert_eq!(world.mesh.len(), 1);
}

#[test]
fn mqtt_4_3_3_a_message_at_qos_2_that_is_sent_again_over_the_next_connection_comes_once() {
    let mut world = World::new(Limits::default());
    let reader = world.subscriber("r", "a", 2);
    let (writer, _) = world.lasting("w");
    world.send(writer, publish("a", 2, 9, "x"));
    world.cut(writer);
    let (writer, _) = world.lasting("w");
    let mut again = publish("a", 2, 9, "x");
    again.dup = true;
    world.send(writer, again);
    world.send(writer, v5::Pubrel::new_success(pid(9)));
    assert_eq!(world.heard(reader).len(), 1);
}
