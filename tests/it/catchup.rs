//! Topics that remember: what was said while a node was away, or before it was there.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::{PeerId, identity::Keypair};
use smidge::{
    Client, Config, Delivery, Error, Message, PublishOptions, Start, Subscription,
    config::{Keep, PeerRule, TopicRules},
};

use crate::support::{Network, TOPIC, daemon::Daemon, http::Api, now, run};

/// A config of a node that keeps [`TOPIC`].
fn keeping(net: &Network, n: u8, names: &[&str], keep: Keep) -> Config {
    let mut config = net.config(n, names);
    config.topics.insert(TOPIC.into(), TopicRules { keep: Some(keep), ..TopicRules::default() });
    config.dial.retry_max = std::time::Duration::from_millis(500);
    config
}

// Who joins may have been given what it lacks before it subscribes: it begins with what is remembered.

/// Publishes `numbers` as text, whoever is there.
async fn say(client: &Client, numbers: std::ops::Range<u32>) {
    let nobody = PublishOptions { wait_peers: Some(0), ..PublishOptions::default() };
    for n in numbers {
        let receipt = client.publish(TOPIC, n.to_string(), nobody).await.unwrap();
        assert!(!receipt.id.is_empty(), "it is kept if nobody is there");
    }
}

/// The next `count` messages by author, each once; the late ones of an author in order.
async fn hear(
    net: &Network,
    subscription: &mut Subscription,
    count: usize,
) -> BTreeMap<PeerId, BTreeSet<u32>> {
    let mut heard: BTreeMap<PeerId, BTreeSet<u32>> = BTreeMap::new();
    let mut last: BTreeMap<PeerId, (u64, u32)> = BTreeMap::new();
    for _ in 0..count {
        let message = net.message(subscription).await;
        let (author, n) = (message.source.unwrap(), number(&message));
        assert!(heard.entry(author).or_default().insert(n), "{n} of {author} twice");
        let sent = message.sent.expect("the time is signed");
        if message.late {
            assert!(last.insert(author, (sent, n)) < Some((sent, n)), "{n} of {author} is out of order");
        }
    }
    assert_eq!(now(subscription), None);
    heard
}

fn number(message: &Message) -> u32 {
    std::str::from_utf8(&message.data).unwrap().parse().unwrap()
}

fn all(numbers: std::ops::Range<u32>) -> BTreeSet<u32> {
    numbers.collect()
}

/// Lets nobody in but `friends`.
async fn stay_with(client: &Client, mut config: Config, friends: &[&Client]) {
    config.peers.allow = friends.iter().map(|friend| PeerRule::Peer(friend.peer_id())).collect();
    config.peers.allow.push(PeerRule::Peer(client.peer_id()));
    client.apply(config).await.unwrap();
}

#[test]
fn a_node_that_joins_hears_all_that_was_said_before_each_once_and_in_order() {
    run(|net| async move {
        net.set("old", [2, 3]);
        let [a, b] = [2, 3].map(|n| net.spawn(keeping(&net, n, &["old"], Keep::default())));
        net.meshed(&a, 1).await;
        net.meshed(&b, 1).await;
        say(&a, 0..200).await;
        say(&b, 1000..1150).await;
        let c = net.spawn(keeping(&net, 4, &["old"], Keep::default()));
        let mut subscription = c.subscribe_from(TOPIC, Start::At(0)).await.unwrap().no_local();
        let heard = hear(&net, &mut subscription, 350).await;
        assert_eq!(heard, [(a.peer_id(), all(0..200)), (b.peer_id(), all(1000..1150))].into());
        // What is live goes on.
        say(&a, 200..201).await;
        assert_eq!(number(&net.message(&mut subscription).await), 200);
    });
}

#[test]
fn two_sides_that_were_apart_hear_what_the_other_said() {
    run(|net| async move {
        net.set("all", [2, 3, 4]);
        let configs = [2, 3, 4].map(|n| keeping(&net, n, &["all"], Keep::default()));
        let nodes = configs.clone().map(|config| net.spawn(config));
        let [a, b, c] = &nodes;
        net.everyone(&nodes).await;
        // a and b on one side, c alone on the other.
        stay_with(a, configs[0].clone(), &[b]).await;
        stay_with(b, configs[1].clone(), &[a]).await;
        for (one, other) in [(a, c), (b, c), (c, a), (c, b)] {
            net.disconnected(one, other.peer_id()).await;
        }
        net.meshed(a, 1).await;
        let mut at_a = a.subscribe(TOPIC).await.unwrap().no_local();
        let mut at_b = b.subscribe(TOPIC).await.unwrap().no_local();
        let mut at_c = c.subscribe(TOPIC).await.unwrap().no_local();
        say(a, 0..50).await;
        say(c, 1000..1080).await;
        assert_eq!(hear(&net, &mut at_b, 50).await, [(a.peer_id(), all(0..50))].into());
        assert_eq!(now(&mut at_c), None);
        a.apply(configs[0].clone()).await.unwrap();
        b.apply(configs[1].clone()).await.unwrap();
        assert_eq!(hear(&net, &mut at_c, 50).await, [(a.peer_id(), all(0..50))].into());
        for subscription in [&mut at_a, &mut at_b] {
            assert_eq!(hear(&net, subscription, 80).await, [(c.peer_id(), all(1000..1080))].into());
        }
    });
}

#[test]
fn what_a_node_said_outlives_it_at_its_neighbours_and_comes_back_to_it() {
    run(|net| async move {
        net.set("all", [2, 3]);
        let key = Keypair::generate_ed25519();
        let config = keeping(&net, 2, &["all"], Keep::default());
        let a = net.spawn_as(config.clone(), &key);
        let b = net.spawn(keeping(&net, 3, &["all"], Keep::default()));
        let mut at_b = b.subscribe(TOPIC).await.unwrap().no_local();
        net.meshed(&a, 1).await;
        say(&a, 0..20).await;
        hear(&net, &mut at_b, 20).await;
        a.shutdown().await.unwrap();
        net.disconnected(&b, a.peer_id()).await;
        let again = net.spawn_as(config, &key);
        let mut at_again = again.subscribe(TOPIC).await.unwrap().no_local();
        net.meshed(&again, 1).await;
        // Its own words are no news to it, and the numbers of the new ones are above those of before.
        say(&b, 100..101).await;
        assert_eq!(number(&net.message(&mut at_again).await), 100);
        say(&again, 20..25).await;
        assert_eq!(hear(&net, &mut at_b, 5).await, [(a.peer_id(), all(20..25))].into());
        let has_all = async |c: Client| c.status().await.unwrap().remembered.messages == 26;
        net.until("what it said before", &again, has_all).await;
        b.shutdown().await.unwrap();
        // The one that came again gives all of it to the next.
        let c = net.spawn(keeping(&net, 4, &["all"], Keep::default()));
        let mut at_c = c.subscribe_from(TOPIC, Start::At(0)).await.unwrap().no_local();
        let heard = hear(&net, &mut at_c, 26).await;
        assert_eq!(heard, [(a.peer_id(), all(0..25)), (b.peer_id(), all(100..101))].into());
    });
}

#[test]
fn a_node_takes_no_more_than_it_keeps_and_nothing_of_who_may_not_speak() {
    run(|net| async move {
        net.set("old", [2, 3]);
        let [a, b] = [2, 3].map(|n| net.spawn(keeping(&net, n, &["old"], Keep::default())));
        net.meshed(&a, 1).await;
        net.meshed(&b, 1).await;
        let mut at_a = a.subscribe(TOPIC).await.unwrap().no_local();
        say(&b, 1000..1020).await;
        hear(&net, &mut at_a, 20).await;
        say(&a, 0..100).await;
        let keep = Keep { messages: Some(30), ..Keep::default() };
        let mut config = keeping(&net, 4, &["old"], keep);
        config.topics.get_mut(TOPIC).unwrap().publish = Some([a.peer_id()].into());
        let c = net.spawn(config);
        let mut at_c = c.subscribe_from(TOPIC, Start::At(0)).await.unwrap().no_local();
        let first = net.message(&mut at_c).await;
        let mut heard = BTreeSet::from([number(&first)]);
        while !heard.contains(&99) {
            let message = net.message(&mut at_c).await;
            assert_eq!(message.source, Some(a.peer_id()));
            heard.insert(number(&message));
        }
        // Where 70 was sent in the millisecond of 69, it is left out with that.
        assert!(heard.is_superset(&all(75..100)), "{heard:?}");
    });
}

/// The numbers of what comes next, so many.
async fn numbers(net: &Network, subscription: &mut Subscription, count: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(number(&net.message(subscription).await));
    }
    numbers
}

#[test]
fn a_subscriber_resumes_where_it_was_and_nothing_comes_twice_or_is_left_out() {
    run(|net| async move {
        net.set("all", [2, 3]);
        let [a, b] = [2, 3].map(|n| net.spawn(keeping(&net, n, &["all"], Keep::default())));
        net.meshed(&a, 1).await;
        let mut first = b.subscribe(TOPIC).await.unwrap();
        say(&a, 0..300).await;
        let mut position = None;
        for n in 0..100 {
            let message = net.message(&mut first).await;
            assert_eq!(number(&message), n);
            position = message.position;
        }
        drop(first);
        let start = Start::Behind(position.unwrap());
        // Also while it is live.
        let mut again = b.subscribe_from(TOPIC, start).await.unwrap();
        say(&a, 300..600).await;
        assert_eq!(numbers(&net, &mut again, 500).await, (100..600).collect::<Vec<_>>());
        let mut newest = b.subscribe_from(TOPIC, Start::Last(7)).await.unwrap();
        assert_eq!(numbers(&net, &mut newest, 7).await, (593..600).collect::<Vec<_>>());
        let mut whole = b.subscribe_from(TOPIC, Start::At(0)).await.unwrap();
        say(&a, 600..601).await;
        assert_eq!(numbers(&net, &mut whole, 601).await, (0..601).collect::<Vec<_>>());
        // The one who said it all remembers it, too.
        let mut own = a.subscribe_from(TOPIC, Start::Last(2)).await.unwrap();
        assert_eq!(numbers(&net, &mut own, 2).await, [599, 600]);
        assert_eq!([now(&mut again), now(&mut newest)].map(|m| m.map(|m| number(&m))), [Some(600); 2]);
        let unkept = b.subscribe_from("other", Start::Last(1)).await.map(drop);
        assert_eq!(unkept, Err(Error::NotKept("other".into())));
    });
}

#[test]
fn a_subscriber_hears_that_what_it_asks_for_is_gone() {
    run(|net| async move {
        let keep = Keep { messages: Some(50), ..Keep::default() };
        let a = net.spawn(keeping(&net, 2, &[], keep));
        let mut first = a.subscribe(TOPIC).await.unwrap();
        say(&a, 0..1).await;
        let position = net.message(&mut first).await.position.unwrap();
        let next = async |subscription: &mut Subscription| {
            net.patiently("a delivery", subscription.next_delivery()).await.unwrap()
        };
        say(&a, 1..51).await;
        let mut whole = a.subscribe_from(TOPIC, Start::Behind(position)).await.unwrap();
        assert_eq!(numbers(&net, &mut whole, 50).await, (1..51).collect::<Vec<_>>());
        say(&a, 51..100).await;
        let mut late = a.subscribe_from(TOPIC, Start::Behind(position)).await.unwrap();
        assert_eq!(next(&mut late).await, Delivery::Gone);
        assert_eq!(numbers(&net, &mut late, 50).await, (50..100).collect::<Vec<_>>());
        // A position of another node, or of a run before this one.
        let other = Client::peer_id(&a);
        let elsewhere = net.spawn(keeping(&net, 3, &[], keep));
        assert_ne!(elsewhere.peer_id(), other);
        let mut unknown = elsewhere.subscribe_from(TOPIC, Start::Behind(position)).await.unwrap();
        assert_eq!(next(&mut unknown).await, Delivery::Gone);
    });
}

#[test]
fn a_slow_subscriber_is_given_what_it_lost_where_it_is_remembered() {
    run(|net| async move {
        let mut config = keeping(&net, 2, &[], Keep { messages: Some(100), ..Keep::default() });
        config.limits.events = 10;
        let a = net.spawn(config);
        let mut slow = a.subscribe(TOPIC).await.unwrap();
        say(&a, 0..90).await;
        assert_eq!(numbers(&net, &mut slow, 90).await, (0..90).collect::<Vec<_>>());
        assert_eq!(slow.lost(), 0);
        // More than is remembered.
        say(&a, 90..300).await;
        let (mut heard, mut lost) = (Vec::new(), 0);
        while heard.last() != Some(&299) {
            match net.patiently("a delivery", slow.next_delivery()).await.unwrap() {
                Delivery::Item(message) => heard.push(number(&message)),
                Delivery::Lost(more) => lost += more,
                Delivery::Gone => panic!("it is counted"),
            }
        }
        assert_eq!((heard, lost, slow.lost()), ((200..300).collect::<Vec<_>>(), 110, 110));
    });
}

#[test]
fn the_api_and_the_command_line_begin_in_the_past() {
    let table = format!("topics={{ {TOPIC} = {{ keep = {{ messages = 20 }} }} }}");
    let node = Daemon::start(&["--set", &table]);
    for n in 0..30 {
        let (code, _, err) = node.ask(&["pub", "-t", TOPIC, "-m", &n.to_string(), "--wait-peers", "0"]);
        assert_eq!(code, 0, "{err}");
    }
    let (code, out, err) = node.ask(&["sub", "-t", TOPIC, "--last", "3", "--count", "3"]);
    assert_eq!((code, out.as_str()), (0, "27\n28\n29\n"), "{err}");
    let (code, out, err) = node.ask(&["sub", "-t", TOPIC, "--since", "1h", "--count", "20", "--json"]);
    assert_eq!(code, 0, "{err}");
    let records: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records[0], serde_json::json!({ "gone": true }));
    assert_eq!((records.len(), &records[1]["data"]), (21, &"10".into()));
    assert_eq!((&records[1]["late"], &records[1]["local"]), (&true.into(), &true.into()));
    let position = records[18]["position"].as_str().unwrap();
    let (code, out, err) = node.ask(&["sub", "-t", TOPIC, "--since", position, "--count", "2"]);
    assert_eq!((code, out.as_str()), (0, "28\n29\n"), "{err}");
    let (code, _, err) = node.ask(&["sub", "-t", "other", "--last", "3"]);
    assert_ne!(code, 0);
    assert!(err.contains("keep"), "{err}");
}

#[test]
fn an_event_stream_goes_on_behind_the_last_event_that_was_heard() {
    run(|net| async move {
        let config = keeping(&net, 2, &[], Keep::default());
        let a = net.spawn(config.clone());
        let api = Api::serve(&net, &a, config).await;
        say(&a, 0..30).await;
        let mut first = api.begin(TOPIC, "?last=30", "").await;
        let mut last = None;
        for n in 0..20 {
            let (id, data) = first.said().await;
            assert_eq!(data["data"], n.to_string());
            last = id;
        }
        // The header goes before what the address still says.
        let header = format!("Last-Event-ID: {}\r\n", last.unwrap());
        let mut again = api.begin(TOPIC, "?last=30", &header).await;
        for n in 20..30 {
            assert_eq!(again.said().await.1["data"], n.to_string());
        }
        say(&a, 30..31).await;
        assert_eq!(again.said().await.1["data"], "30");
    });
}

#[test]
fn a_node_that_joins_a_topic_of_10_000_messages_has_them_all() {
    run(|net| async move {
        const COUNT: u32 = 10_000;
        net.set("old", [2]);
        let keep = Keep { messages: Some(COUNT as usize), ..Keep::default() };
        let a = net.spawn(keeping(&net, 2, &[], keep));
        let nobody = PublishOptions { wait_peers: Some(0), ..PublishOptions::default() };
        for n in 0..COUNT {
            a.publish(TOPIC, format!("{n:0>100}"), nobody).await.unwrap();
        }
        let held = a.status().await.unwrap().remembered;
        let began = std::time::Instant::now();
        let mut config = keeping(&net, 3, &["old"], keep);
        config.limits.events = COUNT as usize;
        let b = net.spawn(config);
        let mut subscription = b.subscribe_from(TOPIC, Start::At(0)).await.unwrap();
        let mut first = None;
        for n in 0..COUNT {
            assert_eq!(number(&net.message(&mut subscription).await), n);
            first.get_or_insert_with(|| began.elapsed());
        }
        println!(
            "{COUNT} messages of 100 bytes, {} bytes each as counted: all {:?} after the node was started, the first after {:?}",
            held.bytes / held.messages,
            began.elapsed(),
            first.unwrap(),
        );
    });
}

#[test]
fn a_topic_is_kept_from_when_the_configuration_says_so() {
    run(|net| async move {
        net.set("old", [2, 3]);
        let plain = [2, 3].map(|n| net.config(n, &["old"]));
        let nodes = plain.map(|config| net.spawn(config));
        let [a, b] = &nodes;
        net.everyone(&nodes).await;
        net.meshed(a, 1).await;
        say_live(a, 0).await;
        for (n, node) in [(2, a), (3, b)] {
            node.apply(keeping(&net, n, &["old"], Keep::default())).await.unwrap();
        }
        say(a, 1..20).await;
        let c = net.spawn(keeping(&net, 4, &["old"], Keep::default()));
        let mut at_c = c.subscribe_from(TOPIC, Start::At(0)).await.unwrap();
        let mut heard = BTreeSet::new();
        while !heard.is_superset(&all(1..20)) {
            heard.insert(number(&net.message(&mut at_c).await));
        }
        a.apply(net.config(2, &["old"])).await.unwrap();
        assert_eq!(a.status().await.unwrap().remembered.messages, 0);
    });
}

/// Publishes a number once somebody is there.
async fn say_live(client: &Client, n: u32) {
    client.publish(TOPIC, n.to_string(), PublishOptions::default()).await.unwrap();
}
