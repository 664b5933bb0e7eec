//! What the fuzz target `mqtt` feeds: any bytes from clients and from other brokers, and any files.
//!
//! Only there under `--cfg fuzzing`, which cargo-fuzz sets, and in tests, which replay the corpus. It panics only when a
//! promise does not hold.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{Access, Acl, Action, Broker, Limits, Map, Message, Users};

/// CONNECT of a client that is there already, by its version.
const HELLO: [&[u8]; 3] = [
    b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01c",
    b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x00\x00\x01c",
    b"\x10\x13\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x00\x3c\x00\x01c",
];

/// One byte says who: clients of each version, one that has not said CONNECT, another broker, files, or several clients and what
/// they do in turn (`events`). The rest is what they say, in pieces behind their length in one byte.
pub fn clients(bytes: &[u8]) {
    let Some((who, mut left)) = bytes.split_first() else { return };
    match who % 8 {
        4 => return other_broker(left),
        5 => {
            let text = String::from_utf8_lossy(left);
            if let Ok(users) = Users::parse("p", &text) {
                assert!(!users.verify("", b"x"));
            }
            if let Ok(acl) = Acl::parse("a", &text) {
                let _ = acl.allows(crate::Operation::Read, Some("u"), "c", "a/b");
            }
            return;
        }
        6 => return events(left),
        _ => {}
    }
    let limits = Limits { queued_bytes: 1 << 20, queue_bytes: 64 << 10, ..Limits::default() };
    let mut now = Instant::now();
    let mut broker = Broker::new(limits, Access::open(), 1, (now, 1), || 7);
    let Ok(client) = broker.connect(now) else { return };
    if let Some(hello) = HELLO.get(usize::from(who % 8)) {
        broker.received(client, hello, now);
        carry_out(&mut broker, now);
        assert_eq!(broker.clients().count(), 1, "it is connected");
    }
    while let Some((length, rest)) = left.split_first() {
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        left = rest;
        broker.received(client, piece, now);
        carry_out(&mut broker, now);
        now += Duration::from_secs(1);
        broker.tick(now);
        carry_out(&mut broker, now);
        assert!(broker.stats().queued_bytes <= limits.queued_bytes + limits.packet, "what waits is bounded");
    }
    broker.closed(client, now);
    carry_out(&mut broker, now);
    broker.tick(now + Duration::from_secs(2 * 86_400));
    let stats = broker.stats();
    assert_eq!((stats.connections, stats.sessions, stats.subscriptions, stats.queued_bytes), (0, 0, 0, 0));
}

/// Clients of several ids and versions that come, go, subscribe, publish, acknowledge and stall, taps, and another broker, two
/// bytes an event, in bounds that are soon reached.
fn events(bytes: &[u8]) {
    const FILTERS: [&str; 8] = ["#", "a", "a/#", "+/b", "$share/g/a/+", "$SYS/#", "a/b", "+"];
    const TOPICS: [&str; 4] = ["a", "a/b", "c", "a/b/c"];
    let limits = Limits {
        connections: 6,
        sessions: 4,
        subscriptions: 3,
        inflight: 2,
        receive_maximum: 2,
        queue_messages: 3,
        queue_bytes: 2048,
        queued_bytes: 8192,
        retained_messages: 2,
        retained_bytes: 1024,
        session_expiry: Duration::from_secs(100),
        ..Limits::default()
    };
    let mut now = Instant::now();
    let mut broker = Broker::new(limits, Access::open(), 1, (now, 1), || 7);
    let (mut open, mut taps, mut stalled) = (Vec::new(), Vec::new(), Vec::new());
    let mut published: Option<(Arc<Message>, u64)> = None;
    for event in bytes.chunks_exact(2) {
        let (what, with) = (event[0], event[1]);
        let one = open.get(usize::from(with) % open.len().max(1)).copied();
        if matches!(what % 12, 2..=6) && !one.is_some_and(|client| broker.wants_more(client)) {
            continue;
        }
        let text = |out: &mut Vec<u8>, text: &str| {
            out.extend_from_slice(&[0, text.len() as u8]);
            out.extend_from_slice(text.as_bytes());
        };
        let pid = 1 + (with >> 4);
        match (what % 12, one) {
            (0, _) => {
                if let Ok(client) = broker.connect(now) {
                    let mut hello = HELLO[usize::from(with % 3)].to_vec();
                    if let Some(id) = hello.last_mut() {
                        *id = b'a' + with / 3 % 5;
                    }
                    broker.received(client, &hello, now);
                    open.push(client);
                }
            }
            (1, Some(client)) => {
                open.retain(|other| *other != client);
                stalled.retain(|other| *other != client);
                broker.closed(client, now);
            }
            // Of MQTT 3.1.1; to a client of MQTT 5 it is malformed.
            (2, Some(client)) => {
                let mut body = vec![0, pid];
                text(&mut body, FILTERS[usize::from(with % 8)]);
                body.push((with >> 5) & 3);
                broker.received(client, &[&[0x82, body.len() as u8], &body[..]].concat(), now);
            }
            (3, Some(client)) => {
                let (qos, retain) = (what / 12 % 3, (what / 36) & 1);
                let mut body = Vec::new();
                text(&mut body, TOPICS[usize::from(with % 4)]);
                if qos > 0 {
                    body.extend_from_slice(&[0, pid]);
                }
                body.resize(body.len() + usize::from(with / 4), 0);
                broker.received(
                    client,
                    &[&[0x30 | qos << 1 | retain, body.len() as u8], &body[..]].concat(),
                    now,
                );
            }
            // PUBACK, PUBREC, PUBREL, PUBCOMP
            (4, Some(client)) => {
                let first = [0x40, 0x50, 0x62, 0x70][usize::from(with % 4)];
                broker.received(client, &[first, 2, 0, pid], now);
            }
            (5, Some(client)) => broker.received(client, &[0xe0, 0], now),
            (6, Some(client)) => broker.received(client, event, now),
            (7, _) => {
                now += Duration::from_secs(u64::from(with));
                broker.tick(now);
            }
            (8, _) => taps.extend(broker.open_tap(FILTERS[usize::from(with % 8)], with & 8 == 0)),
            (9, _) => taps.drain(..).for_each(|tap| {
                let _ = broker.take_tap(tap, now);
                broker.close_tap(tap);
            }),
            (10, Some(client)) => stalled.push(client),
            (11, _) => {
                if let Some((message, stamp)) = &published {
                    let data = Bytes::from(crate::mesh::encode(message, *stamp, now));
                    assert_eq!(broker.from_mesh(u64::from(with), &data, now), Ok(()));
                }
            }
            _ => {}
        }
        while let Some(action) = broker.next_action() {
            match action {
                Action::Wake(id) if !stalled.contains(&id) => while !broker.take(id, now).bytes.is_empty() {},
                Action::Publish { message, stamp, .. } => published = Some((message, stamp)),
                _ => {}
            }
        }
        let stats = broker.stats();
        assert!(stats.connections <= limits.connections && stats.sessions <= limits.sessions);
        assert!(stats.subscriptions <= limits.sessions * limits.subscriptions);
        assert!(stats.retained <= limits.retained_messages && stats.retained_bytes <= limits.retained_bytes);
        assert!(stats.queued_bytes <= 2 * limits.queued_bytes + limits.packet, "what waits is bounded");
    }
    for client in open {
        broker.closed(client, now);
    }
    carry_out(&mut broker, now);
    now += Duration::from_secs(1000);
    broker.tick(now);
    carry_out(&mut broker, now);
    let stats = broker.stats();
    assert_eq!((stats.connections, stats.sessions, stats.subscriptions, stats.queued_bytes), (0, 0, 0, 0));
}

fn other_broker(bytes: &[u8]) {
    let now = Instant::now();
    let mut broker = Broker::new(Limits::default(), Access::open(), 1, (now, 1), || 7);
    let data = Bytes::copy_from_slice(bytes);
    if let Ok((message, stamp)) = crate::mesh::decode(&data, now) {
        let again = Bytes::from(crate::mesh::encode(&message, stamp, now));
        assert_eq!(
            crate::mesh::decode(&again, now),
            Ok((message, stamp)),
            "what was understood can be passed on"
        );
        assert_eq!(broker.from_mesh(2, &data, now), Ok(()));
    }
    broker.share(now);
    broker.hear_node(2, bytes, now);
    for map in Map::ALL {
        let (key, value) = bytes.split_at(bytes.len().min(1));
        broker.learn(map, key, Some(value), (2, 1), now);
        broker.learn(map, b"a", Some(bytes), (2, 2), now);
        broker.learn(map, key, None, (2, 3), now);
    }
    if let Ok(client) = broker.connect(now) {
        // Whose session may have come with that.
        broker.received(client, b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x00\x00\x01a", now);
        carry_out(&mut broker, now);
    }
    broker.tick(now + Duration::from_secs(60));
    carry_out(&mut broker, now);
}

fn carry_out(broker: &mut Broker, now: Instant) {
    while let Some(action) = broker.next_action() {
        if let Action::Wake(id) = action {
            while !broker.take(id, now).bytes.is_empty() {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn whatever_clients_do_in_turn_what_they_hold_is_bounded_and_gone_in_the_end(
            events in prop::collection::vec(any::<[u8; 2]>(), 0..200),
        ) {
            super::events(&events.concat());
        }
    }

    /// The corpus is there in the repository, and not in the package.
    #[test]
    fn the_corpus_breaks_no_promise() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/mqtt");
        let inputs: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty());
        for input in inputs {
            eprintln!("{}", input.display());
            super::clients(&std::fs::read(&input).unwrap());
        }
    }
}
