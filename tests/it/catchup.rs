//! Topics that remember: what was said while a node was away, or before it was there.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::{PeerId, identity::Keypair};
use smidge::{
    Client, Config, Message, PublishOptions, Subscription,
    config::{Keep, PeerRule, TopicRules},
};

use crate::support::{Network, TOPIC, now, run};

/// A config of a node that keeps [`TOPIC`].
fn keeping(net: &Network, n: u8, names: &[&str], keep: Keep) -> Config {
    let mut config = net.config(n, names);
    config.topics.insert(TOPIC.into(), TopicRules { keep: Some(keep), ..TopicRules::default() });
    config.dial.retry_max = std::time::Duration::from_millis(500);
    config
}

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
        let mut subscription = c.subscribe(TOPIC).await.unwrap().no_local();
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
        b.shutdown().await.unwrap();
        // The one that came again gives all of it to the next.
        let c = net.spawn(keeping(&net, 4, &["all"], Keep::default()));
        let mut at_c = c.subscribe(TOPIC).await.unwrap().no_local();
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
        let mut at_c = c.subscribe(TOPIC).await.unwrap().no_local();
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
