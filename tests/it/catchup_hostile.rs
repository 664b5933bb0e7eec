//! Neighbours that speak the protocol of topics' memories (docs/CATCHUP.md) and lie, never end, or fall silent: whoever joins
//! has all that an honest neighbour remembers, once, and hears what is live meanwhile.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{FutureExt, io::AsyncReadExt, io::AsyncWriteExt};
use libp2p::{
    identity::Keypair,
    swarm::{NetworkBehaviour, Stream},
};
use smidge::{
    Client, Config, Message, PublishOptions, Start, Subscription,
    config::{Keep, TopicRules},
    gossip::{self, Authenticity, Author, Topic},
};
use smidge_catchup::{
    Item,
    frame::{Frame, Ranged, Span, Verdict},
};

use crate::support::{
    Network, TOPIC,
    bare::{self, Bare, Streams},
    run,
};

/// What a neighbour says to a frame; nothing: it falls silent.
type Answers = Arc<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// How a neighbour behaves, and how often it was met.
#[derive(Clone)]
struct Manners {
    /// To what it is asked.
    answers: Answers,
    /// What it begins with, and goes on with whatever is said; nothing: it begins nothing.
    begins: Option<Answers>,
    frames: Arc<AtomicUsize>,
}

#[derive(NetworkBehaviour)]
struct Neighbour {
    gossip: gossip::Behaviour,
    memory: Bare<Streams>,
}

async fn read(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let (mut length, mut byte) = (0_usize, [0]);
    for shift in 0.. {
        stream.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << (7 * shift);
        if byte[0] < 0x80 {
            break;
        }
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn converse(mut stream: Stream, manners: Manners, begins: bool) -> io::Result<()> {
    let answers = manners.begins.as_ref().filter(|_| begins).unwrap_or(&manners.answers).clone();
    let mut said = if begins { Vec::new() } else { read(&mut stream).await? };
    loop {
        manners.frames.fetch_add(1, Ordering::Relaxed);
        let Some(answer) = answers(&said) else { return std::future::pending().await };
        stream.write_all(&crate::support::wire::framed(&answer)).await?;
        stream.flush().await?;
        said = read(&mut stream).await?;
    }
}

/// A neighbour that listens as replica `n`, follows the topic, and answers so.
fn neighbour(net: &Network, n: u8, manners: &Manners) {
    let key = Keypair::generate_ed25519();
    let author = Author::new(Authenticity::Signed(key.clone()), 1);
    let config = gossip::Config::default();
    let mut gossip = gossip::Behaviour::new(config, key.public().to_peer_id(), author).unwrap();
    gossip.subscribe(&Topic::from(TOPIC));
    let manners = manners.clone();
    let streams = move || {
        let (begins, manners) = (manners.begins.is_some(), manners.clone());
        let serve = move |stream, is_ours| converse(stream, manners.clone(), is_ours).map(drop).boxed();
        Streams::new("/smidge/catchup/1.0.0", begins, Arc::new(serve))
    };
    let mut swarm = bare::swarm(&net.rt, &key, Neighbour { gossip, memory: Bare::new(streams) });
    swarm.listen_on(net.addr(n)).unwrap();
    bare::drive(&net.rt, swarm);
}

fn keeping(net: &Network, n: u8, names: &[&str]) -> Config {
    let mut config = net.config(n, names);
    let keep = Keep { messages: Some(500), ..Keep::default() };
    config.topics.insert(TOPIC.into(), TopicRules { keep: Some(keep), ..TopicRules::default() });
    config
}

async fn say(client: &Client, numbers: std::ops::Range<u32>) {
    let nobody = PublishOptions { wait_peers: Some(0), ..PublishOptions::default() };
    for n in numbers {
        client.publish(TOPIC, n.to_string(), nobody).await.unwrap();
    }
}

async fn numbers(net: &Network, subscription: &mut Subscription, count: usize) -> Vec<u32> {
    let number = |message: &Message| std::str::from_utf8(&message.data).unwrap().parse().unwrap();
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(number(&net.message(subscription).await));
    }
    numbers
}

/// Joins among an honest neighbour and one that behaves like this; how often that one was asked.
async fn join(net: &Network, answers: Answers, begins: Option<Answers>) -> usize {
    net.set("old", [2, 3]);
    let manners = Manners { answers, begins, frames: Arc::default() };
    neighbour(net, 3, &manners);
    let honest = net.spawn(keeping(net, 2, &[]));
    say(&honest, 0..100).await;
    let joins = net.spawn(keeping(net, 4, &["old"]));
    let mut subscription = joins.subscribe_from(TOPIC, Start::At(0)).await.unwrap();
    assert_eq!(numbers(net, &mut subscription, 100).await, (0..100).collect::<Vec<_>>());
    net.until("the other one", &joins, async |c: Client| c.peers().await.unwrap().len() == 2).await;
    let met = || async { manners.frames.load(Ordering::Relaxed) > 0 };
    net.until("a frame", &joins, |_| met()).await;
    // What is live goes on, and nothing else came.
    say(&honest, 100..120).await;
    assert_eq!(numbers(net, &mut subscription, 20).await, (100..120).collect::<Vec<_>>());
    assert_eq!(joins.status().await.unwrap().remembered.messages, 120);
    manners.frames.load(Ordering::Relaxed)
}

/// To a greeting, that all differs; to ranges and lists as is said.
fn differs(frame: &[u8], to: impl Fn(Frame<'_>) -> Option<Frame<'static>>) -> Option<Vec<u8>> {
    static FROM: Mutex<u64> = Mutex::new(0);
    if let Ok(Frame::Greeting { span, .. }) = Frame::decode(frame, 0) {
        *FROM.lock().unwrap() = span.from;
        return Some(Frame::Welcome { span, verdict: Verdict::Differs }.encode(0));
    }
    let from = *FROM.lock().unwrap();
    to(Frame::decode(frame, from).ok()?).map(|frame| frame.encode(from))
}

#[test]
fn a_neighbour_that_says_that_all_is_equal_withholds_nothing_that_another_has() {
    run(|net| async move {
        let equal = |frame: &[u8]| {
            let Ok(Frame::Greeting { span, .. }) = Frame::decode(frame, 0) else { return None };
            Some(Frame::Welcome { span, verdict: Verdict::Equal }.encode(0))
        };
        join(&net, Arc::new(equal), None).await;
    });
}

#[test]
fn a_neighbour_that_claims_differences_and_gives_nothing_costs_a_bounded_number_of_questions() {
    run(|net| async move {
        let claims = |frame: &[u8]| {
            differs(frame, |frame| match frame {
                Frame::Compare(ranges) => Some(Frame::Verdicts(vec![Verdict::Differs; ranges.len()])),
                Frame::List(ranges) => {
                    let lacks = vec![Vec::new(); ranges.len()];
                    Some(Frame::Answer { lacks, records: Vec::new(), stopped: None })
                }
                _ => None,
            })
        };
        let frames = join(&net, Arc::new(claims), None).await;
        assert!(frames < 500, "{frames} frames");
    });
}

#[test]
fn a_neighbour_that_asks_for_ranges_without_end_is_answered_up_to_a_bound() {
    run(|net| async move {
        let span = Span { from: 0, until: u64::MAX >> 1, messages: 500, record: 9000, now: 1 };
        let endless = move |said: &[u8]| {
            if said.is_empty() {
                let greeting =
                    Frame::Greeting { salt: [7; 16], topic: TOPIC.as_bytes(), span, fingerprint: 1 };
                return Some(greeting.encode(0));
            }
            // A thousand ranges, each time the same; an honest node asks about each of its items a few times.
            let from = match Frame::decode(said, 0) {
                Ok(Frame::Welcome { span, .. }) => span.from,
                _ => return None,
            };
            let ranges = (0..1000)
                .map(|n| Ranged { from: Item::at(from + n), to: Item::at(from + n + 1), of: n })
                .collect();
            Some(Frame::Compare(ranges).encode(from))
        };
        let again = move |said: &[u8]| endless(said).or_else(|| Some(vec![3, 0xff, 0xff, 0xff]));
        join(&net, Arc::new(|_: &[u8]| None), Some(Arc::new(again))).await;
    });
}

#[test]
fn a_neighbour_that_falls_silent_keeps_nobody_waiting() {
    run(|net| async move {
        join(&net, Arc::new(|_: &[u8]| None), None).await;
    });
}

#[test]
fn a_neighbour_that_gives_garbage_is_not_asked_again_soon() {
    run(|net| async move {
        let frames = join(&net, Arc::new(|_: &[u8]| Some(vec![0xff; 2000])), None).await;
        assert!(frames <= 3, "{frames} frames");
    });
}
