//! What is published at a node is heard by those who subscribe at it.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use futures::{StreamExt, future::join_all, stream};
use serde_json::Value;
use smidge::{Event, Message, Node, PublishOptions, Verdict, config::TopicRules};

use crate::support::{
    PATIENCE, TOPIC,
    daemon::{Daemon, pair},
    now, run, text,
};

fn patient(wait_peers: Option<usize>) -> PublishOptions {
    PublishOptions { wait_peers, timeout: PATIENCE, ..PublishOptions::default() }
}

#[test]
fn publish_and_subscribe_at_a_lone_node_hear_each_other() {
    run(async |net| {
        let node = net.node(2, &[]);
        let mut events = node.events();
        // The configuration's topics alone have no subscriber.
        let nobody = PublishOptions { wait_peers: Some(0), ..PublishOptions::default() };
        let receipt = node.publish(TOPIC, "x", nobody).await.unwrap();
        assert_eq!((&*receipt.id, receipt.peers, receipt.local), ("", 0, 0));
        let mut others_only = node.subscribe(TOPIC).await.unwrap().no_local();
        let receipt = node.publish(TOPIC, "x", nobody).await.unwrap();
        assert_eq!((&*receipt.id, receipt.local), ("", 0), "who leaves out local messages is nobody");

        // It waits for whoever comes first.
        let waiting = node.publish(TOPIC, "first", patient(None));
        let subscribing = async {
            net.rt.sleep(std::time::Duration::from_millis(1)).await;
            [node.subscribe(TOPIC).await.unwrap(), node.subscribe(TOPIC).await.unwrap()]
        };
        let (receipt, heard) = futures::join!(waiting, subscribing);
        let receipt = receipt.unwrap();
        assert_eq!((receipt.peers, receipt.local), (0, 1), "the second one came later");
        let [mut one, mut two] = heard;
        let message = net.message(&mut one).await;
        let own = node.peer_id();
        assert_eq!((text(&message), message.id), ("first".into(), receipt.id));
        assert_eq!((message.source, message.from, message.local), (Some(own), own, true));
        let receipt = node.publish(TOPIC, "second", PublishOptions::default()).await.unwrap();
        assert_eq!((receipt.peers, receipt.local), (0, 2));
        for subscription in [&mut one, &mut two] {
            assert_eq!(text(&net.message(subscription).await), "second");
        }
        assert_eq!(now(&mut others_only), None);

        net.event(&mut events, "a publish", |event| match event {
            Event::Message(message) => panic!("{message:?} did not arrive from elsewhere"),
            Event::Published { .. } => Some(()),
            _ => None,
        })
        .await;
        let traffic = node.status().await.unwrap().traffic;
        assert_eq!((traffic.received, traffic.published, traffic.handed), (0, 0, 0), "of and to other nodes");
    });
}

#[test]
fn subscribers_here_and_elsewhere_hear_the_same_once_also_of_a_bundle() {
    run(async |net| {
        for bundle in [false, true] {
            let [n, m] = if bundle { [4, 5] } else { [2, 3] };
            net.set("one", [n]);
            let config = |n, names: &[&str]| {
                let mut config = net.config(n, names);
                config.limits.commands = 1024;
                config.topics.insert(TOPIC.into(), TopicRules { bundle, ..TopicRules::default() });
                config
            };
            let one = net.spawn(config(n, &[]));
            let two = net.spawn(config(m, &["one"]));
            net.meshed(&two, 1).await;
            let mut here = two.subscribe(TOPIC).await.unwrap();
            let mut there = one.subscribe(TOPIC).await.unwrap();
            let said: Vec<_> = (0..100).map(|n| n.to_string()).collect();
            let publish = |said: String| two.publish(TOPIC, said, patient(Some(1)));
            let receipts: Vec<_> = stream::iter(said.clone()).map(publish).buffered(100).collect().await;
            let receipts: Vec<_> = receipts.into_iter().map(Result::unwrap).collect();
            assert!(receipts.iter().all(|receipt| (receipt.peers, receipt.local) == (1, 1)));
            let [here, there] = [&mut here, &mut there].map(async |subscription| {
                let mut heard = Vec::new();
                while heard.len() < said.len() {
                    heard.push(net.message(subscription).await);
                }
                assert_eq!(now(subscription), None);
                heard
            });
            let (here, there) = futures::join!(here, there);
            let words = |heard: &[Message]| heard.iter().map(|m| (m.id.clone(), text(m))).collect::<Vec<_>>();
            let ids = receipts.iter().map(|receipt| receipt.id.clone());
            assert_eq!(words(&here), ids.zip(said).collect::<Vec<_>>());
            assert_eq!(words(&here), words(&there));
            assert!(here.iter().all(|m| m.local) && there.iter().all(|m| !m.local));
            join_all([&one, &two].map(|node| node.shutdown())).await;
        }
    });
}

#[test]
fn a_validator_stands_before_the_nodes_own_subscribers_too() {
    run(async |net| {
        let polite = |message: &Message| match &*message.data {
            b"rude" => Verdict::Reject,
            _ => Verdict::Accept,
        };
        let key = libp2p::identity::Keypair::generate_ed25519();
        let node = Node::new(net.config(2, &[]), key).validator(polite).spawn(&net.rt).unwrap();
        let mut heard = node.subscribe(TOPIC).await.unwrap();
        let receipt = node.publish(TOPIC, "rude", PublishOptions::default()).await.unwrap();
        assert_eq!(receipt.local, 0);
        let receipt = node.publish(TOPIC, "kind", PublishOptions::default()).await.unwrap();
        assert_eq!(receipt.local, 1);
        assert_eq!(text(&net.message(&mut heard).await), "kind");
    });
}

/// The first line that it prints, once it listens: what is said before that is repeated.
fn first_heard(node: &Daemon, sub: &[&str], publish: impl Fn() -> (i32, String, String)) -> (Value, String) {
    let mut child = node.asked(sub).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let hear = std::thread::spawn(move || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        line
    });
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut said = String::new();
    while !hear.is_finished() {
        assert!(std::time::Instant::now() < deadline, "nothing is heard");
        let (code, out, err) = publish();
        if code == 0 {
            said = out;
        } else {
            assert_eq!(code, 75, "{err}");
        }
    }
    child.wait().unwrap();
    (serde_json::from_str(&hear.join().unwrap()).unwrap(), said)
}

#[test]
fn at_one_node_sub_hears_pub_and_both_say_so() {
    let node = Daemon::start(&["--set", "log.level=info,smidge::message=info"]);
    let publish = || node.ask(&["pub", "-t", "home", "-m", "hello", "--timeout", "1"]);
    let (heard, said) = first_heard(&node, &["sub", "-t", "home", "--count", "1", "--json"], publish);
    assert_eq!((&heard["data"], &heard["local"]), (&"hello".into(), &true.into()));
    assert_eq!((&heard["source"], &heard["from"]), (&Value::from(&*node.peer), &Value::from(&*node.peer)));
    let id = heard["id"].as_str().unwrap();
    assert!(said.ends_with(" to 0 peers and 1 subscriber here\n"), "{said}");
    assert!(node.line("published ").starts_with(id), "the log has the first");
}

#[test]
fn messages_are_counted_in_the_log_and_have_a_line_each_where_that_is_asked_for() {
    let quiet = Daemon::start(&["--topic", "t"]);
    let loud =
        Daemon::start(&["--topic", "t", "--dial", &quiet.addr, "--set", "log.level=smidge::message=info"]);
    for node in [&quiet, &loud] {
        node.line("joined mesh");
    }
    let (code, out, err) = loud.ask(&["pub", "-t", "t", "-m", "hello"]);
    assert_eq!(code, 0, "{err}");
    let id = out.split(' ').nth(1).unwrap();
    assert_eq!(loud.line("INFO  smidge::message: published "), format!("{id} to 1 peers on t"));
    let counted = quiet.line("INFO  smidge: counted ");
    assert!(counted.starts_with("1 messages received, 5 bytes, and 0 published; "), "{counted}");
    let (code, out, err) = quiet.ask(&["pub", "-t", "t", "-m", "answer"]);
    assert_eq!(code, 0, "{err}");
    let id = out.split(' ').nth(1).unwrap();
    let line = loud.line("INFO  smidge::message: message ");
    assert_eq!(line, format!("{id} from {} on t, 6 bytes", quiet.peer));
    assert_eq!(quiet.count("smidge::message: "), 0, "neither is logged where nobody asks");
}

#[test]
fn sub_without_local_messages_hears_those_of_others() {
    let (one, two) = pair("t");
    let publish = || {
        let (code, out, err) = one.ask(&["pub", "-t", "t", "-m", "its own", "--wait-peers", "1"]);
        assert_eq!((code, out.contains("subscriber")), (0, false), "{out}{err}");
        two.ask(&["pub", "-t", "t", "-m", "another's"])
    };
    let args = ["sub", "-t", "t", "--no-local", "--count", "1", "--json"];
    let (heard, _) = first_heard(&one, &args, publish);
    assert_eq!((&heard["data"], &heard["local"]), (&"another's".into(), &false.into()));
}
