//! MQTT at several nodes as if they were one: what is retained, whose a client id is, wills, sessions that move, groups.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    time::Duration,
};

use mqtt_proto::{
    QoS,
    v5::{DisconnectReasonCode, Packet},
};
use rustix::process::Signal;
use smidge::{
    Client, Config,
    config::{ApiListen, Keep, Store, TopicRules},
    mqtt::Server,
};

use crate::support::{
    Network,
    daemon::Daemon,
    mqtt::{Mqtt, message, serve},
    run,
};

/// Node `n` with MQTT, which dials `names`, and its server.
fn node(net: &Network, n: u8, names: &[&str], change: impl Fn(&mut Config)) -> (Client, Server) {
    let mut config = net.config(n, names);
    config.mqtt.listen = ApiListen::Tcp(([127, 0, 0, 1], 0).into());
    change(&mut config);
    let node = net.spawn(config.clone());
    let server = serve(net, &node, &config);
    (node, server)
}

/// What is retained under a filter, until it is as expected.
async fn until_retained(net: &Network, server: &Server, filter: &str, expected: &[(&str, &str)]) {
    let mut last = Vec::new();
    for n in 0..200 {
        let mut late = Mqtt::connect(net, server, &format!("late-{n}")).await;
        late.subscribe(net, &format!("end/{n}"), QoS::Level0).await;
        late.subscribe(net, filter, QoS::Level1).await;
        late.publish(&format!("end/{n}"), 0, "end", false).await;
        last.clear();
        loop {
            let (topic, payload) = late.heard(net).await;
            if topic.starts_with("end/") {
                break;
            }
            last.push((topic, payload));
        }
        if last.iter().map(|(topic, payload)| (&**topic, &**payload)).eq(expected.iter().copied()) {
            return;
        }
        net.rt.sleep(Duration::from_millis(200)).await;
    }
    panic!("expected {expected:?}, found {last:?}");
}

#[test]
fn a_node_that_joins_later_learns_what_is_retained_and_deletions_reach_one_that_was_away() {
    run(async |net| {
        net.set("one", [2]);
        let (one, at_one) = node(&net, 2, &[], |_| {});
        let mut writer = Mqtt::connect(&net, &at_one, "writer").await;
        for (topic, said) in [("kept/a", "1"), ("kept/b", "2"), ("kept/a", "3")] {
            writer.publish(topic, 1, said, true).await;
        }
        let (two, at_two) = node(&net, 3, &["one"], |_| {});
        until_retained(&net, &at_two, "kept/#", &[("kept/a", "3"), ("kept/b", "2")]).await;
        // Cut off: node 3 hears neither the deletion nor the new value.
        let key = two.clone();
        at_two.close().await;
        net.stop(&key, 3).await;
        drop(two);
        writer.publish("kept/b", 1, "", true).await;
        writer.publish("kept/c", 1, "4", true).await;
        let (_two, at_two) = node(&net, 3, &["one"], |_| {});
        until_retained(&net, &at_two, "kept/#", &[("kept/a", "3"), ("kept/c", "4")]).await;
        drop(one);
    });
}

#[test]
fn what_is_retained_outlives_all_nodes_where_it_is_on_disk() {
    run(async |net| {
        let folder = tempfile::tempdir().unwrap();
        let durable = |config: &mut Config| {
            config.mqtt.durable = true;
            config.kad.store = Store::File(folder.path().join("records"));
        };
        let (one, at_one) = node(&net, 2, &[], durable);
        let mut writer = Mqtt::connect(&net, &at_one, "writer").await;
        writer.publish("kept/a", 1, "1", true).await;
        writer.publish("kept/b", 1, "2", true).await;
        writer.publish("kept/b", 1, "", true).await;
        // It is in the map of all nodes, and the disk has it before the node has ended.
        net.until("the map", &one, async |one| {
            one.state_list("mqtt/retained").await.unwrap().iter().any(|entry| &*entry.key == b"kept/a")
        })
        .await;
        at_one.close().await;
        net.stop(&one, 2).await;
        let (_one, at_one) = node(&net, 2, &[], durable);
        until_retained(&net, &at_one, "kept/#", &[("kept/a", "1")]).await;
    });
}

/// Until a node knows a client, with that text in what it knows.
async fn until_known(net: &Network, node: &Client, client: &str, text: &str) {
    net.until("the client's record", node, async |node| {
        let all = node.state_list("mqtt/clients").await.unwrap();
        all.iter().any(|entry| {
            let known = String::from_utf8_lossy(entry.value());
            &*entry.key == client.as_bytes() && known.contains(text)
        })
    })
    .await;
}

fn keeps(config: &mut Config) {
    let keep = Keep { messages: Some(10_000), ..Keep::default() };
    config.topics.insert("mqtt".into(), TopicRules { keep: Some(keep), ..TopicRules::default() });
}

async fn lasting(net: &Network, server: &Server, id: &str) -> Mqtt {
    let (client, _) = Mqtt::try_connect(net, server, id, |connect| {
        connect.clean_start = false;
        connect.properties.session_expiry_interval = Some(3600);
    })
    .await;
    client
}

#[test]
fn a_client_id_that_connects_at_another_node_takes_its_session_over() {
    run(async |net| {
        net.set("one", [2]);
        let (one, at_one) = node(&net, 2, &[], |_| {});
        let (two, at_two) = node(&net, 3, &["one"], |_| {});
        net.meshed(&one, 1).await;
        net.meshed(&two, 1).await;
        let mut old = Mqtt::connect(&net, &at_one, "c").await;
        until_known(&net, &two, "c", "").await;
        let mut new = Mqtt::connect(&net, &at_two, "c").await;
        match old.next(&net).await {
            Some(Packet::Disconnect(end)) => {
                assert_eq!(end.reason_code, DisconnectReasonCode::SessionTakenOver);
            }
            other => panic!("{other:?}"),
        }
        assert!(old.next(&net).await.is_none(), "it is closed");
        new.subscribe(&net, "a", QoS::Level0).await;
        new.publish("a", 0, "still there", false).await;
        assert_eq!(new.heard(&net).await.1, "still there");
    });
}

#[test]
fn a_session_goes_on_at_a_third_node_with_what_it_missed() {
    const COUNT: u16 = 500;
    run(async |net| {
        net.set("one", [2]);
        let (one, at_one) = node(&net, 2, &[], keeps);
        let (two, at_two) = node(&net, 3, &["one"], keeps);
        // It stays connected to the other when the first ends.
        net.set("two", [3]);
        let (three, at_three) = node(&net, 4, &["one", "two"], keeps);
        net.meshed(&one, 2).await;
        net.meshed(&two, 2).await;
        net.meshed(&three, 2).await;
        let mut reader = lasting(&net, &at_one, "r").await;
        reader.subscribe(&net, "count", QoS::Level1).await;
        let mut writer = Mqtt::connect(&net, &at_two, "w").await;
        let mut probe = Mqtt::connect(&net, &at_three, "probe").await;
        writer.until_heard(&net, &mut probe, "ready").await;
        until_known(&net, &three, "r", "count").await;
        // Its node ends, and what follows is said while it is nowhere.
        drop(reader);
        at_one.close().await;
        net.stop(&one, 2).await;
        for n in 0..COUNT {
            writer.send(message("count", 1, n + 1, &n.to_string())).await;
        }
        let mut reader = lasting(&net, &at_three, "r").await;
        for n in 0..COUNT {
            assert_eq!(reader.heard(&net).await.1, n.to_string());
        }
        writer.publish("count", 1, "live", false).await;
        assert_eq!(reader.heard(&net).await.1, "live");
        drop((two, three));
    });
}

#[test]
fn each_message_of_a_group_goes_to_one_member_of_all_nodes_once_they_know_each_other() {
    run(async |net| {
        net.set("one", [2]);
        let (one, at_one) = node(&net, 2, &[], |_| {});
        let (two, at_two) = node(&net, 3, &["one"], |_| {});
        net.meshed(&one, 1).await;
        net.meshed(&two, 1).await;
        let mut writer = Mqtt::connect(&net, &at_one, "w").await;
        let mut members =
            [Mqtt::connect(&net, &at_one, "m1").await, Mqtt::connect(&net, &at_two, "m2").await];
        for member in &mut members {
            member.subscribe(&net, "$share/g/work", QoS::Level1).await;
            member.subscribe(&net, "end/+", QoS::Level1).await;
        }
        for round in 0..100 {
            for n in 1..=40 {
                writer.send(message("work", 1, n, &n.to_string())).await;
            }
            writer.publish(&format!("end/{round}"), 1, "end", false).await;
            let mut counts = BTreeMap::new();
            let mut shares = Vec::new();
            for member in &mut members {
                let mut share = 0;
                // A message of the last round may come late where the round was not settled.
                loop {
                    let (topic, text) = member.heard(&net).await;
                    if topic == format!("end/{round}") {
                        break;
                    }
                    share += 1;
                    *counts.entry(text).or_insert(0) += 1;
                }
                shares.push(share);
            }
            if round > 0 && shares.iter().all(|share| *share > 0) && counts.values().all(|count| *count == 1)
            {
                assert_eq!(counts.len(), 40);
                return;
            }
            net.rt.sleep(Duration::from_millis(200)).await;
        }
        panic!("no round was settled");
    });
}

#[test]
fn with_confirm_a_message_is_acknowledged_when_another_node_keeps_it_and_refused_where_none_does() {
    run(async |net| {
        net.set("one", [2]);
        let confirms = |config: &mut Config| {
            keeps(config);
            config.mqtt.confirm = 1;
            config.mqtt.confirm_timeout = Duration::from_secs(2);
        };
        let (one, at_one) = node(&net, 2, &[], confirms);
        let mut writer = Mqtt::connect(&net, &at_one, "w").await;
        let code = async |writer: &mut Mqtt| match writer.next(&net).await {
            Some(Packet::Puback(ack)) => ack.reason_code as u8,
            other => panic!("{other:?}"),
        };
        writer.publish("a", 1, "alone", false).await;
        assert_eq!(code(&mut writer).await, 0x83);
        let (two, _at_two) = node(&net, 3, &["one"], confirms);
        net.meshed(&one, 1).await;
        net.meshed(&two, 1).await;
        // Busy machines may need more than one attempt.
        for _ in 0..50 {
            writer.publish("a", 1, "kept by two", false).await;
            if code(&mut writer).await == 0 {
                return;
            }
        }
        panic!("it was never confirmed");
    });
}

/// A node with MQTT on a free port; the port.
fn daemon(args: &[&str]) -> (Daemon, String) {
    let usual = ["--set", "mqtt.listen=127.0.0.1:0"];
    let node = Daemon::start(&[&usual[..], args].concat());
    let port = node.line("mqtt listening on mqtt://127.0.0.1:").split(',').next().unwrap().to_owned();
    (node, port)
}

/// mosquitto_sub, ended with this.
struct Listening(Child);

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_will_of_a_client_whose_node_is_killed_is_heard_at_another_node() {
    let (one, port) = daemon(&[]);
    let (two, other) = daemon(&["--dial", &one.addr]);
    let mut client = Command::new("mosquitto_sub");
    client.args([
        "-p",
        &port,
        "-i",
        "victim",
        "-t",
        "nothing",
        "--will-topic",
        "gone",
        "--will-payload",
        "killed",
        "--will-retain",
    ]);
    let client = client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let client = Listening(client.expect("mosquitto_sub is not here: apt-get install mosquitto-clients"));
    // Until the other node knows the client.
    let mut tries = 0;
    loop {
        let (_, known, stderr) = two.ask(&["state", "list", "mqtt/clients"]);
        if known.contains("victim") {
            break;
        }
        tries += 1;
        assert!(tries < 600, "{known} {stderr}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut reader = Command::new("mosquitto_sub");
    reader.args(["-p", &other, "-t", "gone", "-C", "1", "-W", "60"]).stdin(Stdio::null());
    let reader = reader.stdout(Stdio::piped()).spawn().unwrap();
    one.signal(Signal::KILL);
    let heard = reader.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&heard.stdout).trim(), "killed");
    drop((client, two));
}
