//! What the parts cost: messages a second encoded, decoded and verified, bytes a remembered message.
//!
//! `cargo run --release -p smidge-gossip --example figures`

#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use libp2p::{PeerId, identity::Keypair};
use smidge_gossip::{
    Authenticity, Author, Message, PeerScoreParams, Topic, TopicScoreParams, Validation, Verifier,
    WireMessage,
    parts::{
        DeliveryLimits, Fingerprinter, Frame, Framer, History, HistoryLimits, Limits, MessageIds, Outgoing,
        Queue, QueueLimits, Rpc, Score, SeenSet, decode,
    },
};

/// Seconds of CPU time that this thread used: what others do on the machine does not count.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or(f64::NAN) * 1e-9
}

/// Each figure is measured for so long.
const TIME: Duration = Duration::from_millis(400);

/// Calls `work`, which does `count` of what is measured, until the time is over, and prints what one takes.
fn measure(what: &str, count: usize, mut work: impl FnMut()) {
    work();
    let (mut times, start, before) = (0, Instant::now(), cpu());
    while start.elapsed() < TIME {
        work();
        times += count;
    }
    let each = (cpu() - before) / times as f64;
    println!("{what:<52} {:>9.3} us {:>12.0} a second", each * 1e6, 1.0 / each);
}

fn main() {
    for size in [100, 4096] {
        times(size);
    }
    memory();
}

fn times(size: usize) {
    println!("payloads of {size} bytes");
    let mut rng = fastrand::Rng::with_seed(7);
    let topic = Topic::from("some_topic");
    let data = vec![7; size];
    let author = || Author::new(Authenticity::Signed(Keypair::generate_ed25519()), 1);
    let mut one = author();
    measure("composed and signed", 1, || drop(black_box(one.compose(&topic, &data, &mut rng))));
    let say = |author: &mut Author| author.compose(&topic, &data, &mut fastrand::Rng::with_seed(1)).ok();
    let messages: Vec<WireMessage> = (0..64).filter_map(|_| say(&mut one)).collect();

    let mut out = Vec::new();
    measure("encoded, one in a frame", 64, || {
        out.clear();
        for message in &messages {
            Rpc { publish: vec![message.clone()], ..Rpc::default() }.encode(&mut out);
        }
    });
    let stream = out.clone();
    let fingerprinter = Fingerprinter::new();
    measure("queued for a peer and written into frames", 64, || {
        let mut queue = Queue::new(QueueLimits::default());
        for message in &messages {
            let fingerprint = fingerprinter.id(message.seqno().unwrap_or_default());
            queue.forward(Outgoing { fingerprint, message: message.clone() });
        }
        out.clear();
        while queue.next_frame(&mut out).is_some() {}
    });
    let limits = Limits::default();
    let read = |mut each: Box<dyn FnMut(WireMessage) + '_>| {
        let mut framer = Framer::new(limits.frame);
        for mut block in stream.chunks(16 * 1024) {
            while let Ok(Some(Frame::Rpc(frame))) = framer.next(&mut block) {
                let rpc = decode(&frame, &limits).unwrap_or_default();
                rpc.publish.into_iter().for_each(&mut each);
            }
        }
    };
    measure("framed and decoded", 64, || read(Box::new(|message| drop(black_box(message)))));
    let mut ids = MessageIds::default();
    let mut id = Vec::new();
    measure("framed, decoded, id and fingerprint", 64, || {
        read(Box::new(|message| {
            let Ok(claims) = Validation::Strict.claims(&message) else { return };
            let data = message.data_bytes();
            let message =
                Message { source: claims.source, sequence: claims.sequence, topic: topic.clone(), data };
            id.clear();
            ids.write(&message, &mut id);
            black_box(fingerprinter.id(&id));
        }));
    });
    measure("fingerprint of a whole message", 64, || {
        for message in &messages {
            black_box(fingerprinter.content(message));
        }
    });

    let mut verifier = Verifier::default();
    measure("verified one by one", 64, || {
        for message in &messages {
            assert!(verifier.verify(message));
        }
    });
    for (authors, batch) in [(1, 4), (1, 8), (1, 16), (1, 64), (8, 8), (8, 16), (8, 64)] {
        let mut all: Vec<Author> = (0..authors).map(|_| author()).collect();
        let messages: Vec<WireMessage> = (0..batch).filter_map(|n| say(&mut all[n % authors])).collect();
        for message in messages.iter().cycle().take(64 * authors) {
            assert!(verifier.verify(message));
        }
        measure(&format!("verified, {batch} of {authors} authors together"), batch, || {
            assert!(verifier.verify_batch(&messages).into_iter().all(|holds| holds));
        });
    }
    println!();
}

/// Resident memory of this process, in bytes.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(f64::NAN);
    pages * 4096.0
}

fn memory() {
    const COUNT: u64 = 100_000;
    println!("memory after {COUNT} messages of 100 bytes in a minute (counted; resident beside it)");
    let fingerprinter = Fingerprinter::new();
    let start = Instant::now();
    let at = |n: u64| start + Duration::from_micros(n * 600);
    let print = |what: &str, counted: usize, before: f64| {
        let resident = (resident() - before) / COUNT as f64;
        println!("{what:<52} {:>9.2} bytes each {resident:>9.2} resident", counted as f64 / COUNT as f64);
    };

    let before = resident();
    let mut seen = SeenSet::new(Duration::from_secs(60), 1 << 20);
    for n in 0..COUNT {
        seen.insert(fingerprinter.id(&n.to_le_bytes()), at(n));
    }
    print("seen", seen.bytes(), before);

    let before = resident();
    let topic = Topic::from("some_topic");
    let topics = [(topic.clone(), TopicScoreParams::default())].into();
    let mut score =
        Score::new(PeerScoreParams { topics, ..PeerScoreParams::default() }, DeliveryLimits::default());
    let peers: Vec<PeerId> = (0..8).map(|_| PeerId::random()).collect();
    peers.iter().for_each(|peer| score.add_peer(*peer));
    for n in 0..COUNT {
        let message = fingerprinter.id(&n.to_le_bytes());
        score.validate_message(message, at(n));
        score.deliver_message(&peers[0], message, &topic, at(n));
        for peer in &peers[1..] {
            score.duplicated_message(peer, &message, &topic, at(n));
        }
    }
    print("score's deliveries, copies from 8 peers", score.delivery_bytes(), before);

    let before = resident();
    let mut history = History::new(HistoryLimits::default());
    let mut author = Author::new(Authenticity::Anonymous, 0);
    let mut most = 0;
    for n in 0..COUNT {
        let message = author.compose(&topic, &[7; 230], &mut fastrand::Rng::with_seed(n));
        let Ok(message) = message else { continue };
        let (fingerprint, id) = (fingerprinter.id(&n.to_le_bytes()), n.to_string().into_bytes().into());
        history.put(fingerprint, id, topic.clone(), message);
        // A heartbeat of 700 ms.
        if n % 1166 == 0 {
            history.shift();
        }
        most = most.max(history.bytes());
    }
    print("history of 5 heartbeats, signed messages' size", most, before);
    for _ in 0..5 {
        history.shift();
    }
    score.refresh(at(COUNT) + Duration::from_secs(121));
    seen.expire(at(COUNT) + Duration::from_secs(61));
    let left = seen.bytes() + score.delivery_bytes() + history.bytes();
    println!("all of it two minutes later: {left} bytes");
}
