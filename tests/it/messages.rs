//! What becomes of a message: whether it is published, delivered and passed on.

use std::time::Duration;

use crate::{
    mesh::wait_for,
    support::{TOPIC, run, text},
};
use libp2p::{PeerId, identity::Keypair};
use smidge::{
    Client, Error, Node, PeerStatus, PublishOptions, Verdict,
    config::{MessageIds, TopicRules},
};

#[test]
fn a_validator_decides_what_is_delivered_and_forwarded() {
    run(async |net| {
        net.set("middle", [3]);
        let strict =
            |m: &smidge::Message| if m.data.starts_with(b"good") { Verdict::Accept } else { Verdict::Ignore };
        let key = Keypair::generate_ed25519();
        let middle = Node::new(net.config(3, &[]), key).validator(strict).spawn(&net.rt).unwrap();
        let (left, right) = (net.node(2, &["middle"]), net.node(4, &["middle"]));
        let mut at_middle = middle.subscribe(TOPIC).await.unwrap();
        let mut at_right = right.subscribe(TOPIC).await.unwrap();
        net.meshed(&middle, 2).await;
        for payload in ["bad one", "good one", "bad two", "good two"] {
            left.publish(TOPIC, payload, wait_for(1)).await.unwrap();
        }
        for subscription in [&mut at_middle, &mut at_right] {
            assert_eq!(text(&net.message(subscription).await), "good one");
            assert_eq!(text(&net.message(subscription).await), "good two");
        }
    });
}

#[test]
fn equal_payloads_are_two_messages_by_source_and_one_by_content() {
    run(async |net| {
        for (n, ids) in [(10, MessageIds::Source), (20, MessageIds::Content)] {
            let config = |n: u8, names: &[&str]| {
                let mut config = net.config(n, names);
                config.gossip.message_id = ids;
                config
            };
            net.set("one", [n]);
            let one = net.spawn(config(n, &[]));
            let two = net.spawn(config(n + 1, &["one"]));
            let mut at_one = one.subscribe(TOPIC).await.unwrap();
            net.meshed(&one, 1).await;
            two.publish(TOPIC, "same", wait_for(1)).await.unwrap();
            let again = two.publish(TOPIC, "same", wait_for(1)).await;
            two.publish(TOPIC, "other", wait_for(1)).await.unwrap();
            let first = net.message(&mut at_one).await;
            let second = net.message(&mut at_one).await;
            match ids {
                MessageIds::Source => {
                    assert_eq!((text(&first), text(&second)), ("same".into(), "same".into()));
                }
                MessageIds::Content => {
                    assert_eq!(again, Err(Error::Duplicate));
                    assert_eq!((text(&first), text(&second)), ("same".into(), "other".into()));
                }
            }
        }
    });
}

#[test]
fn a_publish_says_how_many_were_there_when_it_was_too_few() {
    run(async |net| {
        let lonely = net.node(2, &[]);
        let options = PublishOptions {
            wait_peers: Some(2),
            timeout: Duration::from_millis(20),
            ..PublishOptions::default()
        };
        let refused = lonely.publish(TOPIC, "x", options).await;
        assert!(matches!(refused, Err(Error::NoPeers { there: 0, wanted: 2, .. })), "{refused:?}");
        assert!(matches!(lonely.publish("", "x", options).await, Err(Error::BadTopic { .. })));
        assert!(matches!(lonely.subscribe("a\nb").await, Err(Error::BadTopic { .. })));
        net.set("lonely", [2]);
        let other = net.node(3, &["lonely"]);
        net.meshed(&other, 1).await;
        let large = vec![0; 100 << 10];
        let refused = other.publish(TOPIC, large, wait_for(1)).await;
        assert!(matches!(refused, Err(Error::MessageTooLarge { bytes: 102_400, .. })), "{refused:?}");
    });
}

#[test]
fn a_message_on_a_topic_of_others_is_dropped_and_only_its_author_loses_score() {
    run(async |net| {
        // good ─┐
        //       relay ─ guard      guard alone has the rule; bad is not on its list.
        // bad ──┘
        net.set("relay", [2]);
        net.set("guard", [3]);
        let (good_key, bad_key) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let rules =
            TopicRules { publish: Some([good_key.public().to_peer_id()].into()), ..TopicRules::default() };
        let relay = net.node(2, &[]);
        let mut config = net.config(3, &["relay"]);
        config.topics.insert(TOPIC.into(), rules.clone());
        let guard = net.spawn(config.clone());
        let good = net.spawn_as(net.config(4, &["relay"]), &good_key);
        let bad = net.spawn_as(net.config(5, &["relay"]), &bad_key);
        net.meshed(&relay, 3).await;
        net.meshed(&guard, 1).await;
        let mut heard = relay.subscribe(TOPIC).await.unwrap();
        let mut guarded = guard.subscribe(TOPIC).await.unwrap();

        bad.publish(TOPIC, "bad", PublishOptions::default()).await.unwrap();
        assert_eq!(&*net.message(&mut heard).await.data, b"bad", "the relay has no such rule");
        good.publish(TOPIC, "good", PublishOptions::default()).await.unwrap();
        assert_eq!(&*net.message(&mut guarded).await.data, b"good", "and not what came before");
        let score = |peers: Vec<PeerStatus>, of: PeerId| peers.iter().find(|p| p.peer == of).unwrap().score;
        let relayed = score(guard.peers().await.unwrap(), relay.peer_id());
        assert!(relayed.is_none_or(|score| score >= 0.0), "an honest relay is not punished: {relayed:?}");

        // The guard itself may not publish there either.
        let refused = guard.publish(TOPIC, "mine", PublishOptions::default()).await;
        assert_eq!(refused, Err(Error::NotAPublisher(TOPIC.into())));

        // With the rule, the relay blames the author, and passes nothing of it on.
        let mut config = net.config(2, &[]);
        config.topics.insert(TOPIC.into(), rules);
        relay.apply(config).await.unwrap();
        bad.publish(TOPIC, "worse", PublishOptions::default()).await.unwrap();
        let sinks = |c: Client| {
            let bad = bad.peer_id();
            async move { score(c.peers().await.unwrap(), bad).is_some_and(|score| score < 0.0) }
        };
        net.until("the author's score below zero", &relay, sinks).await;
        good.publish(TOPIC, "again", PublishOptions::default()).await.unwrap();
        assert_eq!(&*net.message(&mut heard).await.data, b"good");
        assert_eq!(&*net.message(&mut heard).await.data, b"again");
    });
}

#[test]
fn floodsub_peers_are_served_when_configured() {
    run(async |net| {
        net.set("one", [2]);
        let mut config = net.config(2, &[]);
        config.gossip.floodsub = true;
        config.gossip.flood_publish = false;
        let one = net.spawn(config);
        let two = net.node(3, &["one"]);
        let mut at_two = two.subscribe(TOPIC).await.unwrap();
        let receipt = one.publish(TOPIC, "x", wait_for(1)).await.unwrap();
        assert_eq!(receipt.peers, 1);
        assert_eq!(text(&net.message(&mut at_two).await), "x");
    });
}
