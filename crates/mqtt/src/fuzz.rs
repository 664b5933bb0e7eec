//! What the fuzz target `mqtt` feeds: any bytes from clients and from other brokers, and any files.
//!
//! Only there under `--cfg fuzzing`, which cargo-fuzz sets, and in tests, which replay the corpus. It panics only when a
//! promise does not hold.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{Access, Acl, Action, Broker, Limits, Users};

/// CONNECT of a client that is there already, by its version.
const HELLO: [&[u8]; 3] = [
    b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01c",
    b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x00\x00\x01c",
    b"\x10\x13\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x00\x3c\x00\x01c",
];

/// One byte says who: clients of each version, one that has not said CONNECT, another broker, files. The rest is what they say,
/// in pieces behind their length in one byte.
pub fn clients(bytes: &[u8]) {
    let Some((who, mut left)) = bytes.split_first() else { return };
    match who % 6 {
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
        _ => {}
    }
    let limits = Limits { queued_bytes: 1 << 20, queue_bytes: 64 << 10, ..Limits::default() };
    let mut now = Instant::now();
    let mut broker = Broker::new(limits, Access::open(), 1, (now, 1), || 7);
    let Ok(client) = broker.connect(now) else { return };
    if let Some(hello) = HELLO.get(usize::from(who % 6)) {
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
