//! Who is blamed for messages that a topic's rules refuse.

use smidge::{
    Client, PublishOptions,
    config::{KadMode, TopicRules},
};

use crate::support::{Network, PATIENCE, TOPIC, run, text};

fn wait_for(wait_peers: usize) -> PublishOptions {
    PublishOptions { wait_peers: Some(wait_peers), timeout: PATIENCE, ..PublishOptions::default() }
}

async fn score(of: &Client, at: &Client) -> Option<f64> {
    let peers = at.peers().await.unwrap();
    peers.iter().find(|peer| peer.peer == of.peer_id()).and_then(|peer| peer.score)
}

/// A node that lets in what `author` says alone.
fn strict(net: &Network, n: u8, names: &[&str], author: &Client) -> Client {
    let mut config = net.config(n, names);
    let rules = TopicRules { publish: Some([author.peer_id()].into()), ..TopicRules::default() };
    config.topics.insert(TOPIC.into(), rules);
    net.spawn(config)
}

#[test]
fn who_passes_a_refused_message_on_loses_nothing_and_its_author_does() {
    run(async |net| {
        net.set("honest", [2]);
        net.set("all", [2, 3]);
        let honest = net.node(2, &[]);
        let author = net.node(3, &["honest"]);
        let judge = strict(&net, 4, &["all"], &honest);
        let mut at_judge = judge.subscribe(TOPIC).await.unwrap();
        net.everyone(&[honest.clone(), author.clone(), judge.clone()]).await;
        // The honest one passes on what the author says, at the heels of the author's own copy or before it.
        for n in 0..12 {
            author.publish(TOPIC, format!("refused {n}"), wait_for(2)).await.unwrap();
        }
        net.until("a blamed author", &judge, |judge| {
            let author = author.clone();
            async move { score(&author, &judge).await.is_some_and(|score| score < 0.0) }
        })
        .await;
        honest.publish(TOPIC, "let in", wait_for(2)).await.unwrap();
        assert_eq!(text(&net.message(&mut at_judge).await), "let in", "nothing before it");
        let honest_score = score(&honest, &judge).await.unwrap();
        assert!(honest_score >= 0.0, "{honest_score}");
    });
}

#[test]
fn an_author_who_is_known_by_hearsay_alone_is_blamed_when_it_comes() {
    run(async |net| {
        net.set("honest", [2]);
        let mut closed = net.config(2, &[]);
        closed.kad.mode = KadMode::Client; // nobody learns of anybody else
        let honest = net.spawn(closed);
        let mut at_honest = honest.subscribe(TOPIC).await.unwrap();
        let author = net.node(3, &["honest"]);
        let judge = strict(&net, 4, &["honest"], &honest);
        let mut at_judge = judge.subscribe(TOPIC).await.unwrap();
        net.meshed(&honest, 2).await;
        for n in 0..5 {
            author.publish(TOPIC, format!("refused {n}"), wait_for(1)).await.unwrap();
            net.message(&mut at_honest).await;
        }
        honest.publish(TOPIC, "let in", wait_for(2)).await.unwrap();
        assert_eq!(text(&net.message(&mut at_judge).await), "let in", "nothing before it");
        assert!(score(&honest, &judge).await.unwrap() >= 0.0, "it passed them on, alone");
        judge.connect(net.addr(3)).await.unwrap();
        net.until("a blamed author", &judge, |judge| {
            let author = author.clone();
            async move { score(&author, &judge).await.is_some_and(|score| score < 0.0) }
        })
        .await;
    });
}
