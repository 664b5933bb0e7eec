//! Subscriptions, and retained messages.

use mqtt_proto::{
    Protocol, QosPid, v3,
    v5::{self, DisconnectReasonCode as Reason, Packet, SubscribeReasonCode, UnsubscribeReasonCode},
};
use smidge_mqtt::{Limits, Message, Qos, mesh};

use crate::support::{World, pid, publish, subscribe};

fn retained(topic: &str, payload: &str) -> v5::Publish {
    let mut publish = publish(topic, 1, 1, payload.to_owned());
    publish.retain = true;
    publish
}

fn codes(packets: &[Packet]) -> Vec<SubscribeReasonCode> {
    match packets.first() {
        Some(Packet::Suback(suback)) => suback.topics.clone(),
        other => panic!("no SUBACK but {other:?}"),
    }
}

#[test]
fn mqtt_3_3_1_5_a_retained_message_is_for_who_subscribes_later_and_the_last_one_counts() {
    let mut world = World::new(Limits::default());
    let writer = world.client("w");
    world.send(writer, retained("a/b", "1"));
    world.send(writer, retained("a/b", "2"));
    world.send(writer, retained("a/c", "3"));
    let reader = world.client("r");
    world.send(reader, subscribe("a/#", 0));
    let packets = world.got(reader);
    assert_eq!(codes(&packets), [SubscribeReasonCode::GrantedQoS0]);
    let said: Vec<_> = packets[1..]
        .iter()
        .map(|packet| match packet {
            // [MQTT-3.3.1-8]
            Packet::Publish(publish) => (publish.retain, publish.payload.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(said, [(true, "2".into()), (true, "3".into())]);
    // [MQTT-3.3.1-12]: what is live is not marked.
    world.send(writer, retained("a/b", "4"));
    let [Packet::Publish(live)] = &world.got(reader)[..] else { panic!() };
    assert!(!live.retain);
}

#[test]
fn mqtt_3_3_1_6_an_empty_payload_deletes_what_is_retained_and_is_delivered() {
    let mut world = World::new(Limits::default());
    let (writer, reader) = (world.client("w"), world.subscriber("r", "a", 0));
    world.send(writer, retained("a", "1"));
    world.send(writer, retained("a", ""));
    assert_eq!(world.heard(reader), ["1", ""]);
    assert_eq!(world.broker.stats().retained, 0);
    let late = world.subscriber("l", "a", 0);
    assert!(world.heard(late).is_empty());
}

#[test]
fn mqtt_3_8_3_5_options_say_which_retained_messages_come_and_how() {
    let mut world = World::new(Limits::default());
    let writer = world.client("w");
    world.send(writer, retained("a", "1"));
    let reader = world.client("r");
    let ask = |world: &mut World, handling, as_published| {
        let mut subscribe = subscribe("a", 0);
        subscribe.topics[0].1.retain_handling = handling;
        subscribe.topics[0].1.retain_as_published = as_published;
        world.send(reader, subscribe);
        world.heard(reader)
    };
    use v5::RetainHandling::{DoNotSend, SendAtSubscribe, SendAtSubscribeIfNotExist};
    assert!(ask(&mut world, DoNotSend, false).is_empty());
    assert!(ask(&mut world, SendAtSubscribeIfNotExist, false).is_empty(), "it is subscribed");
    assert_eq!(ask(&mut world, SendAtSubscribe, true), ["1"]);
    world.send(writer, retained("a", "2"));
    let [Packet::Publish(live)] = &world.got(reader)[..] else { panic!() };
    assert!(live.retain, "as it was published");
    let other = world.client("o");
    let mut subscribe = subscribe("a", 0);
    subscribe.topics[0].1.retain_handling = SendAtSubscribeIfNotExist;
    world.send(other, subscribe);
    assert_eq!(world.heard(other), ["2"]);
}

#[test]
fn many_retained_messages_come_as_fast_as_they_are_read_and_are_all_there() {
    let mut world = World::new(Limits { inflight: 10, ..Limits::default() });
    let writer = world.client("w");
    for n in 0..2000 {
        let mut message = retained(&format!("a/{n:04}"), &n.to_string());
        message.qos_pid = QosPid::Level0;
        world.send(writer, message);
    }
    // Others have to be looked through before these are found.
    for qos in [0, 1] {
        let reader = world.client(&format!("r{qos}"));
        world.clients[reader].stalled = true;
        world.send(reader, subscribe("a/#", qos));
        assert!(world.broker.stats().queued_bytes < 200_000);
        world.resume(reader);
        world.sleep(crate::support::seconds(1));
        assert_eq!(world.heard(reader), (0..2000).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn retained_messages_are_as_many_as_may_be_and_mqtt_5_says_0x97() {
    let mut world = World::new(Limits { retained_messages: 2, ..Limits::default() });
    let writer = world.client("w");
    for topic in ["a", "b", "c"] {
        world.send(writer, retained(topic, "1"));
    }
    let acks: Vec<_> = world
        .got(writer)
        .into_iter()
        .map(|packet| match packet {
            Packet::Puback(puback) => puback.reason_code,
            other => panic!("{other:?}"),
        })
        .collect();
    use v5::PubackReasonCode::{QuotaExceeded, Success};
    assert_eq!(acks, [Success, Success, QuotaExceeded]);
    assert_eq!((world.broker.stats().retained, world.broker.stats().refused), (2, 1));
}

#[test]
fn mqtt_4_7_2_1_wildcards_have_nothing_of_topics_with_a_dollar() {
    let mut world = World::new(Limits::default());
    let (all, dollar) = (world.subscriber("a", "#", 0), world.subscriber("d", "$x/#", 0));
    let writer = world.client("w");
    world.send(writer, publish("$x/y", 0, 0, "1"));
    assert!(world.heard(all).is_empty());
    assert_eq!(world.heard(dollar), ["1"]);
}

#[test]
fn clients_do_not_publish_on_sys_topics() {
    let mut world = World::new(Limits::default());
    let (reader, writer) = (world.subscriber("r", "$SYS/#", 0), world.client("w"));
    world.send(writer, publish("$SYS/broker/x", 1, 1, "lie"));
    let [Packet::Puback(puback)] = &world.got(writer)[..] else { panic!() };
    assert_eq!(puback.reason_code, v5::PubackReasonCode::TopicNameInvalid);
    assert!(world.heard(reader).is_empty());
    world.broker.inject(Message::new("$SYS/broker/x", "true", Qos::AtMostOnce, true).unwrap(), world.now);
    world.run();
    assert_eq!(world.heard(reader), ["true"]);
    assert!(world.mesh.is_empty(), "what a broker says of itself stays there");
}

#[test]
fn dashboards_find_the_figures_of_mosquitto_and_only_what_changed_is_said_again() {
    let mut world = World::new(Limits::default());
    let reader = world.subscriber("r", "$SYS/broker/clients/#", 0);
    world.sleep(crate::support::seconds(1));
    let mut heard = world.heard(reader);
    heard.sort();
    assert_eq!(heard, ["0", "1", "1"]);
    world.client("another");
    world.sleep(crate::support::seconds(11));
    assert_eq!(world.heard(reader), ["2", "2"], "connected and total");
    let late = world.subscriber("l", "$SYS/broker/uptime", 0);
    assert!(world.heard(late)[0].ends_with(" seconds"));
    assert!(world.mesh.is_empty());
}

#[test]
fn mqtt_3_3_4_3_all_subscription_identifiers_come_with_the_one_copy() {
    let mut world = World::new(Limits::default());
    let (reader, writer) = (world.client("r"), world.client("w"));
    let ask = |world: &mut World, filter: &str, id: u32| {
        let mut subscribe = subscribe(filter, 1);
        subscribe.properties.subscription_id = Some(id.try_into().unwrap());
        world.send(reader, subscribe);
        world.got(reader);
    };
    ask(&mut world, "a/#", 1);
    world.send(writer, publish("a/b", 1, 1, "x"));
    let [Packet::Publish(one)] = &world.got(reader)[..] else { panic!() };
    assert_eq!(one.properties.subscription_id.map(v5::VarByteInt::value), Some(1));
    ask(&mut world, "a/b", 268_435_455);
    let mut message = publish("a/b", 1, 1, "x");
    message.properties.content_type = Some("t".into());
    world.send(writer, message);
    // The codec reads no more than one of them.
    let identifiers = [&[0x0b, 1][..], &[0x0b, 0xff, 0xff, 0xff, 0x7f]];
    let raw = world.raw(reader);
    assert_eq!(raw[1] as usize, raw.len() - 2, "one packet: {raw:x?}");
    assert_eq!(&raw[2..9], [&[0, 3][..], b"a/b", &raw[7..9]].concat());
    assert_eq!(raw[9] as usize, 4 + 2 + 5);
    let properties = &raw[10..21];
    for id in identifiers {
        assert!(properties.windows(id.len()).any(|part| part == id), "{id:x?} in {properties:x?}");
    }
    assert_eq!(&raw[21..], b"x");
}

#[test]
fn mqtt_3_1_1_3_3_5_1_overlapping_subscriptions_bring_one_copy_at_the_highest_quality() {
    let mut world = World::new(Limits::default());
    let (reader, _) = world.client_3(Protocol::V311, "r", true);
    let of = |filter: &str, qos| (filter.try_into().unwrap(), qos);
    let filters = vec![of("a/#", mqtt_proto::QoS::Level0), of("a/+", mqtt_proto::QoS::Level2)];
    world.send_3(reader, v3::Subscribe::new(pid(1), filters));
    world.got_3(reader);
    let writer = world.client("w");
    world.send(writer, publish("a/b", 2, 1, "x"));
    let [v3::Packet::Publish(publish)] = &world.got_3(reader)[..] else { panic!() };
    assert_eq!(publish.qos_pid.qos(), mqtt_proto::QoS::Level2);
}

#[test]
fn mqtt_3_8_4_3_a_subscription_again_has_the_new_options() {
    let mut world = World::new(Limits::default());
    let (reader, writer) = (world.subscriber("r", "a", 0), world.client("w"));
    world.send(reader, subscribe("a", 1));
    world.got(reader);
    world.send(writer, publish("a", 1, 1, "x"));
    let [Packet::Publish(publish)] = &world.got(reader)[..] else { panic!() };
    assert_eq!(publish.qos_pid.qos() as u8, 1);
    assert_eq!(world.broker.stats().subscriptions, 1);
}

#[test]
fn mqtt_3_10_4_unsubscribed_is_unsubscribed_and_what_was_not_is_said_so() {
    let mut world = World::new(Limits::default());
    let (reader, writer) = (world.subscriber("r", "a", 0), world.client("w"));
    let filters = vec!["a".try_into().unwrap(), "b".try_into().unwrap()];
    world.send(reader, v5::Unsubscribe::new(pid(3), filters));
    let [Packet::Unsuback(unsuback)] = &world.got(reader)[..] else { panic!() };
    use UnsubscribeReasonCode::{NoSubscriptionExisted, Success};
    assert_eq!(unsuback.topics, [Success, NoSubscriptionExisted]);
    world.send(writer, publish("a", 0, 0, "x"));
    assert!(world.heard(reader).is_empty());
}

#[test]
fn mqtt_3_8_3_3_with_no_local_a_client_does_not_hear_itself() {
    let mut world = World::new(Limits::default());
    let client = world.client("c");
    let mut subscribe = subscribe("a", 0);
    subscribe.topics[0].1.no_local = true;
    world.send(client, subscribe.clone());
    world.got(client);
    world.send(client, publish("a", 0, 0, "own"));
    assert!(world.got(client).is_empty());
    // [MQTT-3.8.3-4]
    subscribe.topics[0].0 = "$share/g/a".try_into().unwrap();
    world.send(client, subscribe);
    assert_eq!(world.farewell(client), Some(Reason::ProtocolError));
}

#[test]
fn mqtt_4_8_2_a_group_shares_and_who_is_away_has_no_turn() {
    let mut world = World::new(Limits::default());
    let members = ["1", "2", "3"].map(|id| world.subscriber(id, "$share/g/a/#", 1));
    let writer = world.client("w");
    for n in 0..6 {
        world.send(writer, publish("a/b", 0, 0, n.to_string()));
    }
    assert_eq!(members.map(|member| world.heard(member).len()), [2, 2, 2]);
    world.cut(members[1]);
    for n in 0..6 {
        world.send(writer, publish("a/b", 0, 0, n.to_string()));
    }
    assert_eq!([members[0], members[2]].map(|member| world.heard(member).len()), [3, 3]);
    // [MQTT-3.8.4-4] and 4.8.2: what is retained is not for groups.
    world.send(writer, retained("a/b", "r"));
    world.heard(members[0]);
    world.heard(members[2]);
    let late = world.subscriber("4", "$share/g/a/#", 1);
    assert!(world.heard(late).is_empty());
}

#[test]
fn subscriptions_of_a_client_are_as_many_as_may_be() {
    let mut world = World::new(Limits { subscriptions: 2, levels: 3, ..Limits::default() });
    let reader = world.client("r");
    let mut all = subscribe("a", 0);
    for filter in ["b", "c", "a", "1/2/3/4"] {
        all.topics.push((filter.try_into().unwrap(), all.topics[0].1));
    }
    world.send(reader, all);
    use SubscribeReasonCode::{GrantedQoS0, QuotaExceeded, TopicFilterInvalid};
    assert_eq!(
        codes(&world.got(reader)),
        [GrantedQoS0, GrantedQoS0, QuotaExceeded, GrantedQoS0, TopicFilterInvalid]
    );
    let (old, _) = world.client_3(Protocol::V311, "o", true);
    let filters = ["a", "b", "c"].map(|filter| (filter.try_into().unwrap(), mqtt_proto::QoS::Level0));
    world.send_3(old, v3::Subscribe::new(pid(1), filters.to_vec()));
    let [v3::Packet::Suback(suback)] = &world.got_3(old)[..] else { panic!() };
    // [MQTT-3.9.3-2] of 3.1.1
    assert_eq!(suback.topics[2], v3::SubscribeReturnCode::Failure);
}

#[test]
fn two_brokers_that_hear_each_other_retain_the_same_in_whatever_order_they_hear() {
    let mut worlds = [World::new(Limits::default()), World::new(Limits::default())];
    for (n, world) in worlds.iter_mut().enumerate() {
        let writer = world.client("w");
        world.send(writer, retained("same", &format!("of {n}")));
        world.send(writer, retained("gone", &format!("of {n}")));
    }
    let deleter = worlds[1].clients.len() - 1;
    worlds[1].send(deleter, retained("gone", ""));
    let said: Vec<Vec<_>> = worlds
        .iter()
        .map(|world| {
            world.mesh.iter().map(|(message, stamp)| mesh::encode(message, *stamp, world.now)).collect()
        })
        .collect();
    for (n, world) in worlds.iter_mut().enumerate() {
        for message in said[1 - n].iter().rev() {
            // Each broker is 1 to itself; of the other it hears as 2 or 0, and both agree who is greater.
            let node = if n == 0 { 2 } else { 0 };
            world.broker.from_mesh(node, &message.clone().into(), world.now).unwrap();
        }
        world.run();
        let late = world.subscriber("late", "#", 0);
        world.run();
        let heard = world.heard(late);
        assert_eq!(heard, ["of 1"], "at {n}");
    }
}
