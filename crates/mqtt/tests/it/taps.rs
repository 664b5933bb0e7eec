//! Programs beside the broker that are no clients.

use std::sync::Arc;

use smidge_mqtt::{Limits, Message, Qos, Refused, TapId, Tapped};

use crate::support::{World, publish};

fn message(topic: &str, payload: &str, retain: bool) -> Message {
    Message::new(topic, payload.to_owned(), Qos::AtLeastOnce, retain).unwrap()
}

/// All that a tap has got, as TOPIC=PAYLOAD, those that were retained with a star.
fn taken(world: &mut World, tap: TapId) -> (Vec<String>, u64) {
    let (mut all, mut lost) = (Vec::new(), 0);
    world.run();
    while world.tapped.pop().is_some() {
        let Tapped { messages, lost: more } = world.broker.take_tap(tap, world.now);
        let shown = |(message, retained): (Arc<Message>, bool)| {
            let star = if retained { "*" } else { "" };
            format!("{star}{}={}", &*message.topic, String::from_utf8_lossy(&message.payload))
        };
        all.extend(messages.into_iter().map(shown));
        lost += more;
        world.run();
    }
    (all, lost)
}

#[test]
fn a_tap_has_what_is_retained_and_then_what_is_said_and_says_things_itself() {
    let mut world = World::new(Limits::default());
    let writer = world.client("w");
    let reader = world.subscriber("r", "said", 0);
    for n in 0..1200 {
        world.broker.publish_here(message(&format!("kept/{n:04}"), "x", true), world.now).unwrap();
    }
    world.run();
    let tap = world.broker.open_tap("kept/#", true).unwrap();
    let first = world.broker.take_tap(tap, world.now);
    assert!(!first.messages.is_empty() && first.messages.len() < 1200, "a look is bounded");
    world.send(writer, publish("kept/new", 0, 1, "y"));
    world.send(writer, publish("elsewhere", 0, 1, "z"));
    let (all, lost) = taken(&mut world, tap);
    assert_eq!((first.messages.len() + all.len(), lost), (1201, 0));
    assert_eq!(all.last().unwrap(), "kept/new=y");
    world.broker.close_tap(tap);
    world.send(writer, publish("kept/new", 0, 1, "y"));
    world.run();
    assert!(world.tapped.is_empty());
    assert_eq!(world.broker.take_tap(tap, world.now), Tapped::default());
    // What it says goes to clients and to the other brokers.
    world.broker.publish_here(message("said", "here", false), world.now).unwrap();
    world.run();
    assert_eq!(world.heard(reader), ["here"]);
    assert_eq!(&*world.mesh.last().unwrap().0.topic, "said");
}

#[test]
fn a_tap_that_is_slow_loses_its_oldest_and_is_told_how_many() {
    let mut world = World::new(Limits { queue_bytes: 100_000, ..Limits::default() });
    let tap = world.broker.open_tap("#", false).unwrap();
    for n in 0..5000 {
        world.broker.publish_here(message("a", &n.to_string(), false), world.now).unwrap();
    }
    let (all, lost) = taken(&mut world, tap);
    assert_eq!(all.len() as u64 + lost, 5000);
    assert!(all.len() <= 1024 && lost > 0);
    assert_eq!(all.last().unwrap(), "a=4999");
}

#[test]
fn what_cannot_be_published_or_followed_is_refused_and_taps_are_bounded() {
    let mut world = World::new(Limits { retained_messages: 1, levels: 4, ..Limits::default() });
    let mut say = |topic: &str, retain| world.broker.publish_here(message(topic, "x", retain), world.now);
    assert_eq!(say("$SYS/broker/uptime", false), Err(Refused::Topic));
    assert_eq!(say("a/b/c/d/e", false), Err(Refused::Topic));
    assert_eq!(say("a", true), Ok(()));
    assert!(matches!(say("b", true), Err(Refused::Retained(_))));
    for filter in ["", "a/#/b", "a+", "$share/g/a", "a/b/c/d/#"] {
        assert_eq!(world.broker.open_tap(filter, true), Err(Refused::Filter), "{filter}");
    }
    let opened = (0..1000).filter(|_| world.broker.open_tap("#", false).is_ok()).count();
    assert_eq!(opened, 256);
}
