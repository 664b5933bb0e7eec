//! Who is let in, and what each may do.

use std::sync::Arc;

use mqtt_proto::{
    Protocol, v3,
    v5::{self, ConnectReasonCode, DisconnectReasonCode as Reason, Packet, SubscribeReasonCode},
};
use smidge_mqtt::{Access, Acl, Limits, Users, Verdict};

use crate::support::{World, pid, publish, subscribe};

fn users() -> Option<Arc<Users>> {
    Some(Arc::new(Users::parse("passwords", include_str!("../data/passwords")).unwrap()))
}

fn with(id: &str, user: &str, password: &str) -> v5::Connect {
    let mut connect = v5::Connect::new(id.into(), 0);
    connect.username = Some(user.into());
    connect.password = Some(password.as_bytes().to_vec().into());
    connect
}

fn outcome(world: &mut World, client: usize) -> ConnectReasonCode {
    match world.got(client).first() {
        Some(Packet::Connack(connack)) => connack.reason_code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn mqtt_3_1_4_2_a_password_is_looked_at_elsewhere_and_what_comes_meanwhile_waits() {
    let mut world = World::with(Limits::default(), Access { users: users(), ..Access::default() });
    let client = world.open();
    world.send(client, with("c", "ada", "lovelace"));
    world.send(client, subscribe("a", 0));
    let id = world.clients[client].id;
    assert!(!world.broker.wants_more(id) && world.got(client).is_empty());
    assert_eq!((&*world.asked[0].1.user, &world.asked[0].1.password[..]), ("ada", &b"lovelace"[..]));
    assert!(!format!("{:?}", world.asked).contains("lovelace"), "no password in a log");
    world.decide(Verdict::Accepted);
    let got = world.got(client);
    assert!(matches!(got[..], [Packet::Connack(_), Packet::Suback(_)]), "{got:?}");
    assert_eq!(world.broker.clients().next().unwrap().user.as_deref(), Some("ada"));
    let client = world.open();
    world.send(client, with("d", "ada", "wrong"));
    world.decide(Verdict::Refused);
    assert_eq!(outcome(&mut world, client), ConnectReasonCode::BadUserNameOrPassword);
    assert!(world.clients[client].closed);
}

#[test]
fn who_shows_no_name_is_let_in_where_that_is_allowed() {
    for anonymous in [false, true] {
        let mut world = World::with(Limits::default(), Access { users: users(), anonymous, acl: None });
        let (client, connack) = world.hello(v5::Connect::new("c".into(), 0));
        let expected = if anonymous { ConnectReasonCode::Success } else { ConnectReasonCode::NotAuthorized };
        assert_eq!((connack.reason_code, world.clients[client].closed), (expected, !anonymous));
    }
    let mut world = World::with(Limits::default(), Access::default());
    let (_, connack) = world.client_3(Protocol::V311, "c", true);
    assert_eq!(connack.code, v3::ConnectReturnCode::NotAuthorized);
}

#[test]
fn a_client_id_is_its_users() {
    let mut world = World::with(Limits::default(), Access { users: users(), ..Access::default() });
    let mut connect = with("c", "ada", "lovelace");
    connect.properties.session_expiry_interval = Some(100);
    let first = world.open();
    world.send(first, connect);
    world.decide(Verdict::Accepted);
    let other = world.open();
    world.send(other, with("c", "grace", "hopper"));
    world.decide(Verdict::Accepted);
    assert_eq!(outcome(&mut world, other), ConnectReasonCode::NotAuthorized);
    assert!(!world.clients[first].closed);
}

#[test]
fn what_a_client_may_not_is_refused_where_its_version_can_say_so_and_dropped_otherwise() {
    let acl = Acl::parse("acl", "topic read open/#\ntopic write in").unwrap();
    let access = Access { anonymous: true, acl: Some(Arc::new(acl)), users: None };
    let mut world = World::with(Limits::default(), access);
    let all = world.subscriber("all", "#", 2);
    let client = world.client("c");
    for (qos, n) in [(0, 0), (1, 1), (2, 2)] {
        world.send(client, publish("open/x", qos, n, "no"));
    }
    let got = world.got(client);
    let [Packet::Puback(puback), Packet::Pubrec(pubrec)] = &got[..] else { panic!("{got:?}") };
    assert_eq!(puback.reason_code, v5::PubackReasonCode::NotAuthorized);
    assert_eq!(pubrec.reason_code, v5::PubrecReasonCode::NotAuthorized);
    assert!(puback.properties.reason_string.is_some());
    world.send(client, subscribe("in", 0));
    let [Packet::Suback(suback)] = &world.got(client)[..] else { panic!() };
    assert_eq!(suback.topics, [SubscribeReasonCode::NotAuthorized]);
    let (old, _) = world.client_3(Protocol::V311, "o", true);
    let topic = "open/x".try_into().unwrap();
    world.send_3(old, v3::Publish::new(mqtt_proto::QosPid::Level1(pid(5)), topic, "no".into()));
    assert_eq!(world.got_3(old), [v3::Packet::Puback(pid(5))]);
    // `#` is subscribed to, and brings what may be heard.
    world.send(client, publish("in", 0, 0, "not for you"));
    let message = smidge_mqtt::Message::new("open/y", "for you", smidge_mqtt::Qos::AtMostOnce, true).unwrap();
    world.broker.inject(message, world.now);
    world.run();
    assert_eq!(world.heard(all), ["for you"]);
    assert_eq!(world.broker.stats().refused, 4);
}

#[test]
fn a_will_that_may_not_be_is_not_published_and_what_may_not_be_heard_is_not_retained_for_one() {
    let acl = Acl::parse("acl", "topic write secret").unwrap();
    let access = Access { anonymous: true, acl: Some(Arc::new(acl)), users: None };
    let mut world = World::with(Limits::default(), access);
    let client =
        world.client_with("c", |connect| connect.last_will = Some(crate::support::will("will", "x", 0)));
    world.cut(client);
    assert!(world.mesh.is_empty());
    let writer = world.client("w");
    let mut message = publish("secret", 0, 0, "x");
    message.retain = true;
    world.send(writer, message);
    assert_eq!(world.broker.stats().retained, 1);
    let reader = world.subscriber("r", "#", 0);
    assert!(world.heard(reader).is_empty());
}

#[test]
fn who_is_there_no_more_after_a_change_is_closed() {
    let mut world = World::with(Limits::default(), Access { users: users(), anonymous: true, acl: None });
    let named = world.open();
    world.send(named, with("c", "ada", "lovelace"));
    world.decide(Verdict::Accepted);
    world.got(named);
    let nameless = world.client("n");
    let only_grace: String =
        include_str!("../data/passwords").lines().filter(|line| line.starts_with("grace")).collect();
    let users = Some(Arc::new(Users::parse("passwords", &only_grace).unwrap()));
    world.broker.set_access(Access { users, anonymous: true, acl: None }, world.now);
    world.run();
    assert_eq!(world.farewell(named), Some(Reason::NotAuthorized));
    assert!(!world.clients[nameless].closed);
}
