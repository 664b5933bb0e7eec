//! Values by key: the newest of each, the same at all nodes.

use std::{collections::BTreeSet, io::Write, process::Stdio, time::Duration};

use libp2p::PeerId;
use smidge::{
    Client, Config, Error, Event, PublishOptions, StateEvent, StateWatch,
    config::{Latest, PeerRule, TopicRules},
};

use crate::support::{
    Network, TOPIC,
    daemon::{self, Daemon},
    http::Api,
    run,
};

/// A config of a node that keeps the newest of [`TOPIC`].
fn keeping(net: &Network, n: u8, names: &[&str], latest: Latest) -> Config {
    let mut config = net.config(n, names);
    config.topics.insert(TOPIC.into(), TopicRules { latest: Some(latest), ..TopicRules::default() });
    config.dial.retry_max = Duration::from_millis(500);
    config
}

/// Nodes that all dial each other, with their configs.
async fn nodes<const N: usize>(net: &Network, latest: Latest) -> ([Client; N], [Config; N]) {
    let numbers: [u8; N] = std::array::from_fn(|n| n as u8 + 2);
    net.set("all", numbers);
    let configs = numbers.map(|n| keeping(net, n, &["all"], latest));
    let nodes = configs.clone().map(|config| net.spawn(config));
    net.everyone(&nodes).await;
    (nodes, configs)
}

/// All keys with their values, as text.
async fn map(client: &Client) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let entries = client.state_list(TOPIC).await.unwrap();
    entries.iter().map(|entry| (text(&entry.key), text(entry.value()))).collect()
}

fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn has(net: &Network, client: &Client, pairs: &[(&str, &str)]) {
    let wanted = &expected(pairs);
    net.until("values", client, |client| async move { map(&client).await == *wanted }).await;
}

async fn set(client: &Client, key: &str, value: &str) {
    client.state_set(TOPIC, key, value).await.unwrap();
}

/// Lets nobody in but `friends`.
async fn stay_with(client: &Client, mut config: Config, friends: &[&Client]) {
    config.peers.allow = friends.iter().map(|friend| PeerRule::Peer(friend.peer_id())).collect();
    config.peers.allow.push(PeerRule::Peer(client.peer_id()));
    client.apply(config).await.unwrap();
}

/// Cuts two sides off from each other.
async fn cut(net: &Network, sides: [&[(&Client, &Config)]; 2]) {
    for side in sides {
        for (node, config) in side {
            let friends: Vec<_> = side.iter().map(|(friend, _)| *friend).collect();
            stay_with(node, (*config).clone(), &friends).await;
        }
    }
    for (one, _) in sides[0] {
        for (other, _) in sides[1] {
            net.disconnected(one, other.peer_id()).await;
            net.disconnected(other, one.peer_id()).await;
        }
    }
}

async fn heard(net: &Network, watch: &mut StateWatch) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match net.patiently("a change", watch.next()).await.expect("the node runs") {
        StateEvent::Set(entry) => format!("{}={}", text(&entry.key), text(entry.value())),
        StateEvent::Deleted { key, .. } => format!("{} deleted", text(&key)),
        StateEvent::GaveWay { key } => format!("{} gave way", text(&key)),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_value_set_at_one_node_is_at_all_others_and_at_one_that_joins_later() {
    run(|net| async move {
        let ([a, b, c], _) = nodes::<3>(&net, Latest::default()).await;
        set(&a, "lamp", "on").await;
        set(&b, "door", "shut").await;
        for node in [&a, &b, &c] {
            has(&net, node, &[("door", "shut"), ("lamp", "on")]).await;
        }
        let entry = c.state_get(TOPIC, "lamp").await.unwrap().unwrap();
        assert_eq!((entry.value(), entry.author), (&b"on"[..], a.peer_id()));
        // Whoever read it overwrites it, and deletes it.
        set(&c, "lamp", "off").await;
        has(&net, &a, &[("door", "shut"), ("lamp", "off")]).await;
        a.state_delete(TOPIC, "lamp").await.unwrap();
        for node in [&a, &b, &c] {
            has(&net, node, &[("door", "shut")]).await;
        }
        assert_eq!(b.state_get(TOPIC, "lamp").await, Ok(None));
        assert!(matches!(b.state_delete(TOPIC, "lamp").await, Err(Error::NotFound(_))));
        let late = net.spawn(keeping(&net, 9, &["all"], Latest::default()));
        has(&net, &late, &[("door", "shut")]).await;
        // It also knows of the deletion, and gives all of it to the next.
        let knows = |c: Client| async move { c.status().await.unwrap().state.marks == 1 };
        net.until("a mark", &late, knows).await;
    });
}

#[test]
fn two_halves_that_set_the_same_key_have_the_same_afterwards_and_deletions_hold() {
    run(|net| async move {
        let ([a, b, c], configs) = nodes::<3>(&net, Latest::default()).await;
        for (key, value) in [("both", "before"), ("gone", "before"), ("stays", "before")] {
            set(&a, key, value).await;
        }
        for node in [&b, &c] {
            has(&net, node, &[("both", "before"), ("gone", "before"), ("stays", "before")]).await;
        }
        cut(&net, [&[(&a, &configs[0]), (&b, &configs[1])], &[(&c, &configs[2])]]).await;
        let mut at_c = c.state_watch(TOPIC).await.unwrap();
        while heard(&net, &mut at_c).await != "Current" {}
        set(&c, "both", "of one half").await;
        assert_eq!(heard(&net, &mut at_c).await, "both=of one half");
        // In one millisecond the authors would decide.
        net.rt.sleep(Duration::from_millis(10)).await;
        set(&b, "both", "of the other").await;
        a.state_delete(TOPIC, "gone").await.unwrap();
        set(&c, "own", "new").await;
        assert_eq!(heard(&net, &mut at_c).await, "own=new");
        for (node, config) in [(&a, &configs[0]), (&b, &configs[1]), (&c, &configs[2])] {
            node.apply(config.clone()).await.unwrap();
        }
        // The one that was set later, by clocks of one machine.
        let after = [("both", "of the other"), ("own", "new"), ("stays", "before")];
        for node in [&a, &b, &c] {
            has(&net, node, &after).await;
        }
        let mut changes = [heard(&net, &mut at_c).await, heard(&net, &mut at_c).await];
        changes.sort();
        assert_eq!(changes, ["both=of the other", "gone deleted"]);
    });
}

#[test]
fn over_its_bound_a_set_is_refused_and_of_two_halves_the_same_keys_give_way() {
    run(|net| async move {
        let latest = Latest { keys: 4, ..Latest::default() };
        let ([a, b], configs) = nodes::<2>(&net, latest).await;
        cut(&net, [&[(&a, &configs[0])], &[(&b, &configs[1])]]).await;
        for n in 0..4 {
            for (node, name) in [(&a, "a"), (&b, "b")] {
                set(node, &format!("{name}{n}"), "v").await;
                // In one millisecond the authors would decide what gives way.
                net.rt.sleep(Duration::from_millis(10)).await;
            }
        }
        let full = a.state_set(TOPIC, "one more", "v").await;
        assert!(matches!(&full, Err(Error::StateFull { why, .. }) if why.contains("4 keys")), "{full:?}");
        set(&a, "a0", "a key that is there is no key more").await;
        let too_large = a.state_set(TOPIC, "a0", vec![7; 64 << 10]).await;
        assert!(matches!(too_large, Err(Error::MessageTooLarge { .. })), "{too_large:?}");
        let mut events = a.events();
        let mut watch = b.state_watch(TOPIC).await.unwrap();
        for (node, config) in [(&a, &configs[0]), (&b, &configs[1])] {
            node.apply(config.clone()).await.unwrap();
        }
        let left = [("a0", "a key that is there is no key more"), ("a3", "v"), ("b2", "v"), ("b3", "v")];
        for node in [&a, &b] {
            has(&net, node, &left).await;
        }
        let said = |event: &Event| match event {
            Event::GaveWay { topic, key, .. } => Some((topic.clone(), key.to_vec())),
            _ => None,
        };
        let (topic, key) = net.event(&mut events, "what gave way", said).await;
        assert!(topic == TOPIC && [&b"a1"[..], b"a2", b"b0", b"b1"].contains(&&*key));
        // What comes of the other half may give way, too, once more has come.
        let mut gone = BTreeSet::new();
        while !(gone.contains("b0") && gone.contains("b1")) {
            let change = heard(&net, &mut watch).await;
            gone.extend(change.strip_suffix(" gave way").map(str::to_owned));
        }
        let held = a.status().await.unwrap().state;
        assert_eq!((held.keys, held.marks), (4, 0));
    });
}

#[test]
fn a_message_without_a_key_is_kept_out_and_said() {
    run(|net| async move {
        let ([a, b], _) = nodes::<2>(&net, Latest::default()).await;
        let foreign = net.node(9, &["all"]);
        net.meshed(&foreign, 2).await;
        let mut events = a.events();
        let mut messages = a.subscribe(TOPIC).await.unwrap();
        foreign.publish(TOPIC, "hello", PublishOptions::default()).await.unwrap();
        let kept_out = |event: &Event| match event {
            Event::KeptOut { topic, author, why, .. } => Some((topic.clone(), *author, why.clone())),
            _ => None,
        };
        let said = net.event(&mut events, "what was kept out", kept_out).await;
        assert_eq!(said, (TOPIC.to_owned(), foreign.peer_id(), "it has no key".to_owned()));
        // A node of the topic does not do so by mistake.
        let refused = a.publish(TOPIC, "hello", PublishOptions::default()).await;
        assert_eq!(refused, Err(Error::ByKey(TOPIC.into())));
        set(&b, "k", "v").await;
        has(&net, &a, &[("k", "v")]).await;
        // Whoever subscribes hears values as they fly, and nothing else.
        let heard = net.message(&mut messages).await;
        assert!(heard.data.starts_with(b"\xffkeyed\x01") && heard.data.ends_with(b"kv"));
        assert_eq!(heard.source, Some(b.peer_id()));
        // A plain peer, too.
        let mut plain = foreign.subscribe(TOPIC).await.unwrap();
        set(&b, "k", "w").await;
        while !net.message(&mut plain).await.data.ends_with(b"kw") {}
    });
}

#[test]
fn whoever_may_not_publish_sets_nothing() {
    run(|net| async move {
        net.set("all", [2, 3]);
        let (one, two) =
            (libp2p::identity::Keypair::generate_ed25519(), libp2p::identity::Keypair::generate_ed25519());
        let rules = |config: &mut Config, who: PeerId| {
            config.topics.get_mut(TOPIC).unwrap().publish = Some([who].into());
        };
        let mut configs = [2, 3].map(|n| keeping(&net, n, &["all"], Latest::default()));
        rules(&mut configs[0], one.public().to_peer_id());
        let a = net.spawn_as(configs[0].clone(), &one);
        // The other one has no rule of its own, and keeps what it says.
        let b = net.spawn_as(configs[1].clone(), &two);
        set(&b, "b", "v").await;
        net.meshed(&a, 1).await;
        set(&a, "a", "v").await;
        has(&net, &b, &[("a", "v"), ("b", "v")]).await;
        set(&b, "b", "w").await;
        set(&a, "a", "w").await;
        has(&net, &b, &[("a", "w"), ("b", "w")]).await;
        assert_eq!(map(&a).await, expected(&[("a", "w")]));
        rules(&mut configs[1], one.public().to_peer_id());
        b.apply(configs[1].clone()).await.unwrap();
        assert_eq!(b.state_set(TOPIC, "b", "x").await, Err(Error::NotAPublisher(TOPIC.into())));
    });
}

#[test]
fn a_node_that_was_away_for_longer_than_deletions_are_remembered_revives_nothing() {
    run(|net| async move {
        let latest = Latest { marks: Duration::from_secs(10), ..Latest::default() };
        let ([a, b, c], configs) = nodes::<3>(&net, latest).await;
        set(&a, "deleted", "v").await;
        set(&a, "stays", "v").await;
        for node in [&b, &c] {
            has(&net, node, &[("deleted", "v"), ("stays", "v")]).await;
        }
        cut(&net, [&[(&a, &configs[0]), (&b, &configs[1])], &[(&c, &configs[2])]]).await;
        a.state_delete(TOPIC, "deleted").await.unwrap();
        has(&net, &b, &[("stays", "v")]).await;
        // Longer than marks, and than c takes to notice that it is alone.
        net.rt.sleep(Duration::from_secs(20)).await;
        set(&c, "own", "v").await;
        let (mut events, mut at_a) = (c.events(), a.state_watch(TOPIC).await.unwrap());
        // Those who had each other were not away.
        assert_eq!(heard(&net, &mut at_a).await, "stays=v");
        assert_eq!(heard(&net, &mut at_a).await, "Current");
        for (node, config) in [(&a, &configs[0]), (&b, &configs[1]), (&c, &configs[2])] {
            node.apply(config.clone()).await.unwrap();
        }
        let thrown = |event: &Event| matches!(event, Event::ThrownAway { .. }).then_some(());
        net.event(&mut events, "what was thrown away", thrown).await;
        for node in [&c, &a, &b] {
            has(&net, node, &[("own", "v"), ("stays", "v")]).await;
        }
        assert_eq!(heard(&net, &mut at_a).await, "own=v");
    });
}

#[test]
fn values_that_are_durable_are_there_after_a_restart_and_deletions_too() {
    run(|net| async move {
        net.set("all", [2, 3]);
        let (dir, key) = (tempfile::tempdir().unwrap(), libp2p::identity::Keypair::generate_ed25519());
        let mut config = keeping(&net, 2, &["all"], Latest { durable: true, ..Latest::default() });
        config.kad.store = smidge::config::Store::File(dir.path().join("records"));
        config.check().unwrap();
        let a = net.spawn_as(config.clone(), &key);
        set(&a, "lamp", "on").await;
        set(&a, "door", "shut").await;
        a.state_delete(TOPIC, "door").await.unwrap();
        let saved = |c: Client| async move {
            c.status()
                .await
                .unwrap()
                .remembered
                .file
                .is_some_and(|file| file.unsynced == 0 && file.commits > 0)
        };
        net.until("a commit", &a, saved).await;
        net.stop(&a, 2).await;
        let again = net.spawn_as(config, &key);
        assert_eq!(map(&again).await, expected(&[("lamp", "on")]), "as soon as it is there");
        assert_eq!(again.status().await.unwrap().state.marks, 1);
        set(&again, "lamp", "off").await;
        let b = net.spawn(keeping(&net, 3, &["all"], Latest::default()));
        has(&net, &b, &[("lamp", "off")]).await;
    });
}

/// `--set` of a topic that keeps the newest.
fn table(topic: &str, more: &str) -> String {
    format!("topics={{ \"{topic}\" = {{ keep = {{ latest = true{more} }} }} }}")
}

#[test]
fn the_verbs_set_read_list_delete_and_watch() {
    let node = Daemon::start(&["--set", &table("home/1", "")]);
    let ok = |args: &[&str]| {
        let (code, out, err) = node.ask(&[&["state"], args].concat());
        assert_eq!(code, 0, "{args:?}: {err}");
        out
    };
    assert_eq!(ok(&["set", "home/1", "lamp", "-m", "on"]), "set here: nobody else is there now\n");
    assert_eq!(ok(&["get", "home/1", "lamp"]), "on");
    ok(&["set", "home/1", "a key/with \u{e9}", "-m", ""]);
    assert_eq!(ok(&["get", "home/1", "a key/with \u{e9}"]), "");
    let listed = ok(&["list", "home/1"]);
    assert!(listed.starts_with("KEY") && listed.lines().count() == 3 && listed.contains("lamp"), "{listed}");
    assert!(ok(&["list", "home/1", "--values"]).contains("on"));
    // Any bytes, through stdin and stdout.
    let bytes: Vec<u8> = (0..=255).collect();
    let mut command = node.asked(&["state", "set", "home/1", "/wA=", "--base64"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(child.wait().unwrap().success());
    let output = node.asked(&["state", "get", "home/1", "/wA=", "--base64"]).output().unwrap();
    assert_eq!(output.stdout, bytes);
    assert!(ok(&["list", "home/1", "--values"]).contains("base64:/wA="));
    let watched = ok(&["watch", "home/1", "--count", "3", "--json"]);
    assert_eq!(watched.lines().count(), 3, "{watched}");
    assert_eq!(ok(&["watch", "home/1", "lamp", "--count", "1"]), "lamp = on\n");
    ok(&["delete", "home/1", "lamp"]);
    for (args, wanted, says) in [
        (&["get", "home/1", "lamp"][..], 1, "nothing has that key"),
        (&["delete", "home/1", "lamp"], 1, "nothing has that key"),
        (&["get", "home/1", ""], 2, "an empty key"),
        (&["get", "home/1", "%%%", "--base64"], 2, "no base64"),
        (&["set", "home/1", &"k".repeat(1025), "-m", "v"], 2, "a key of 1025 bytes"),
        (&["get", "other", "k"], 1, "topics.\"other\".keep"),
        (&["list", "other"], 1, "keep = \"latest\""),
        (&["set", "other", "k", "-m", "v"], 1, "topics.\"other\".keep"),
        (&["watch", "other"], 1, "topics.\"other\".keep"),
        (&["list", "home/1", "more"], 2, "unexpected argument"),
        (&["watch", "home/1", "lamp", "--count", "1", "--timeout", "1"], 75, "did not come in time"),
    ] {
        let (code, out, err) = node.ask(&[&["state"], args].concat());
        assert_eq!((code, out.as_str()), (wanted, ""), "{args:?}: {err}");
        assert!(err.contains(says), "{args:?}: {err}");
    }
    let (code, _, err) = node.ask(&["pub", "-t", "home/1", "-m", "x"]);
    assert!(code == 1 && err.contains("smidge state set"), "{err}");
    let (code, _, err) =
        daemon::run(daemon::smidge(&["state", "list", "t"]).env("SMIDGE_API", "http://127.0.0.1:1"));
    assert_eq!(code, 69, "{err}");
}

#[test]
fn the_api_sets_reads_lists_deletes_and_watches() {
    run(|net| async move {
        let mut config = keeping(&net, 2, &[], Latest { keys: 3, ..Latest::default() });
        config.topics.insert("a/b".into(), config.topics[TOPIC].clone());
        let a = net.spawn(config.clone());
        let api = Api::serve(&net, &a, config).await;
        let path = |rest: &str| format!("/v1/state/{TOPIC}{rest}");
        let receipt = api.ask("PUT", &path("/k"), b"v1").await;
        assert_eq!((receipt.status, &receipt.json()["peers"]), (200, &0.into()));
        let mut all = api.begin_at(&path("?watch")).await;
        let mut one = api.begin_at(&path("/%00%FF?watch=true")).await;
        let event = async |stream: &mut crate::support::http::Stream| stream.event().await.unwrap();
        let (name, data) = event(&mut all).await;
        assert_eq!((name.as_str(), &data["key"], &data["value"]), ("set", &"k".into(), &"v1".into()));
        assert_eq!(data["author"], a.peer_id().to_string());
        assert_eq!(
            (event(&mut all).await.0.as_str(), event(&mut one).await.0.as_str()),
            ("current", "current")
        );
        api.ask("PUT", &path("/k"), b"v2").await;
        api.ask("PUT", &path("/%00%FF"), &[0, 0xff]).await;
        let (_, data) = event(&mut one).await;
        assert_eq!((&data["key_base64"], &data["base64"]), (&true.into(), &true.into()));
        assert_eq!((&data["key"], &data["value"]), (&"AP8=".into(), &"AP8=".into()));
        assert_eq!(event(&mut all).await.1["value"], "v2");
        assert_eq!(api.get(&path("/%00%FF")).await.body, [0, 0xff]);
        assert_eq!(event(&mut all).await.1["value"], "AP8=");
        let deleted = api.ask("DELETE", &path("/%00%FF"), b"").await;
        assert_eq!(deleted.status, 200);
        assert_eq!(
            (event(&mut all).await.0.as_str(), event(&mut one).await.0.as_str()),
            ("deleted", "deleted")
        );
        let listed = api.get(&path("")).await.json();
        assert_eq!((&listed["topic"], listed["keys"].as_array().unwrap().len()), (&TOPIC.into(), 1));
        assert_eq!((&listed["keys"][0]["key"], &listed["keys"][0]["bytes"]), (&"k".into(), &2.into()));
        assert!(listed["keys"][0]["value"].is_null());
        assert_eq!(api.get(&path("?values")).await.json()["keys"][0]["value"], "v2");
        assert_eq!(api.ask("PUT", "/v1/state/a%2Fb/x%2Fy", b"z").await.status, 200);
        assert_eq!(api.get("/v1/state/a%2Fb/x%2Fy").await.text(), "z");
        // Deleted keys count while they are remembered.
        assert_eq!(api.ask("PUT", &path("/l"), b"v").await.status, 200);
        let large = vec![7; 64 << 10];
        let long = format!("/{}", "k".repeat(1025));
        for (method, path, body, status, says) in [
            ("PUT", path("/m"), &b"v"[..], 507, "3 keys"),
            ("PUT", path("/k"), &large, 413, "gossip.max_message"),
            ("PUT", path("/"), b"v", 400, "an empty key"),
            ("PUT", path(&long), b"v", 400, "a key of 1025 bytes"),
            ("GET", path("/none"), b"", 404, "nothing has that key"),
            ("DELETE", path("/none"), b"", 404, "nothing has that key"),
            ("POST", path("/k"), b"", 405, "no such method"),
            ("GET", "/v1/state/a/b/k".into(), b"", 404, "no such path"),
            ("GET", "/v1/state/other".into(), b"", 409, "topics.\"other\".keep"),
            ("GET", "/v1/state/other?watch".into(), b"", 409, "topics.\"other\".keep"),
            ("PUT", "/v1/state/other/k".into(), b"v", 409, "topics.\"other\".keep"),
            ("GET", path("?wach"), b"", 400, "an unknown parameter"),
            ("GET", path("/k?watch=maybe"), b"", 400, "bad value of watch"),
            ("PUT", path("/k?ttl=5"), b"v", 400, "an unknown parameter"),
            ("POST", format!("/v1/topics/{TOPIC}"), b"v", 409, "values by key"),
        ] {
            let answer = api.ask(method, &path, body).await;
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
            let error = answer.json();
            assert!(error["error"].as_str().unwrap().contains(says), "{method} {path}: {error}");
        }
        let metrics = api.get("/metrics").await.text();
        for line in
            ["smidge_state_keys 3\n", "smidge_state_refused_total{why=\"full\"} 1\n", "smidge_state_bytes "]
        {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
        a.apply(net.config(2, &[])).await.unwrap();
        assert_eq!(event(&mut one).await.0, "end");
    });
}
