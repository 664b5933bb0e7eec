//! MQTT at whole nodes: by a client of the tests' own, and by mosquitto's.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use futures::StreamExt;
use mqtt_proto::{
    QoS,
    v5::{self, Packet, UserProperty},
};
use rustix::process::Signal;
use smidge::{Client, Config, PublishOptions, config::ApiListen, mqtt::Server};

use crate::support::{
    Network, PATIENCE,
    daemon::{Daemon, run as command, smidge},
    mqtt::{Mqtt, message, serve},
    run, text,
};

/// Two nodes in one mesh of MQTT's topic, with a server each.
async fn pair(net: &Network, change: impl Fn(&mut Config)) -> [(Client, Server); 2] {
    net.set("one", [2]);
    let nodes = [(2, &[][..]), (3, &["one"])].map(|(n, names)| {
        let mut config = net.config(n, names);
        config.mqtt.listen = ApiListen::Tcp(([127, 0, 0, 1], 0).into());
        change(&mut config);
        let node = net.spawn(config.clone());
        let server = serve(net, &node, &config);
        (node, server)
    });
    for (node, _) in &nodes {
        net.meshed(node, 1).await;
    }
    nodes
}

#[test]
fn clients_at_two_nodes_hear_each_other_at_each_quality_with_all_properties() {
    run(async |net| {
        let [(_one, at_one), (_two, at_two)] = pair(&net, |_| {}).await;
        let mut writer = Mqtt::connect(&net, &at_one, "writer").await;
        let mut reader = Mqtt::connect(&net, &at_two, "reader").await;
        writer.until_heard(&net, &mut reader, "ready").await;
        reader.subscribe(&net, "home/#", QoS::Level2).await;
        for qos in 0..3 {
            let mut said = message("home/door", qos, 7, &format!("open {qos}"));
            said.properties.user_properties =
                vec![UserProperty { name: "unit".into(), value: "none".into() }];
            said.properties.content_type = Some("text/plain".into());
            writer.send(said.clone()).await;
            let heard = reader.message(&net).await;
            assert_eq!(
                (heard.payload, heard.properties, heard.retain),
                (said.payload, said.properties, false)
            );
            assert_eq!(heard.qos_pid.qos() as u8, qos);
        }
        // And back.
        writer.subscribe(&net, "home/#", QoS::Level1).await;
        reader.publish("home/lamp", 1, "on", false).await;
        assert_eq!(writer.heard(&net).await, ("home/lamp".into(), "on".into()));
    });
}

#[test]
fn messages_at_qos_1_arrive_at_the_other_node_all_and_in_order() {
    const COUNT: u16 = 5000;
    run(async |net| {
        let [(_one, at_one), (_two, at_two)] = pair(&net, |config| config.mqtt.queue_messages = 10_000).await;
        let mut writer = Mqtt::connect(&net, &at_one, "writer").await;
        let mut reader = Mqtt::connect(&net, &at_two, "reader").await;
        writer.until_heard(&net, &mut reader, "ready").await;
        reader.subscribe(&net, "count", QoS::Level1).await;
        for chunk in 0..COUNT / 100 {
            let mut bytes = Vec::new();
            for n in 0..100 {
                let n = 100 * chunk + n;
                let packet = Packet::Publish(message("count", 1, n + 1, &n.to_string()));
                bytes.extend_from_slice(packet.encode().unwrap().as_ref());
            }
            writer.raw(&bytes).await;
        }
        for n in 0..COUNT {
            assert_eq!(reader.heard(&net).await.1, n.to_string());
        }
    });
}

#[test]
fn what_is_retained_is_the_same_at_nodes_that_are_up_and_is_deleted_everywhere() {
    run(async |net| {
        let [(_one, at_one), (_two, at_two)] = pair(&net, |_| {}).await;
        let mut writer = Mqtt::connect(&net, &at_one, "writer").await;
        let mut reader = Mqtt::connect(&net, &at_two, "reader").await;
        writer.until_heard(&net, &mut reader, "ready").await;
        reader.subscribe(&net, "kept/#", QoS::Level1).await;
        for (topic, said) in [("kept/a", "1"), ("kept/b", "2"), ("kept/a", "3"), ("kept/b", "")] {
            writer.publish(topic, 1, said, true).await;
            assert_eq!(reader.heard(&net).await, (topic.into(), said.into()));
        }
        let mut late = Mqtt::connect(&net, &at_two, "late").await;
        late.subscribe(&net, "kept/#", QoS::Level1).await;
        let heard = late.message(&net).await;
        assert_eq!((&*heard.topic_name, &heard.payload[..], heard.retain), ("kept/a", &b"3"[..], true));
        writer.publish("kept/end", 0, "end", false).await;
        assert_eq!(late.heard(&net).await.0, "kept/end", "nothing else was retained");
    });
}

#[test]
fn a_will_is_heard_at_other_nodes_when_its_client_is_lost_and_when_its_node_ends() {
    run(async |net| {
        let [(one, at_one), (_two, at_two)] = pair(&net, |_| {}).await;
        let mut writer = Mqtt::connect(&net, &at_one, "writer").await;
        let mut reader = Mqtt::connect(&net, &at_two, "reader").await;
        writer.until_heard(&net, &mut reader, "ready").await;
        reader.subscribe(&net, "gone/+", QoS::Level1).await;
        for id in ["lost", "there"] {
            let will =
                v5::LastWill::new(QoS::Level1, format!("gone/{id}").as_str().try_into().unwrap(), "x".into());
            let (client, _) =
                Mqtt::try_connect(&net, &at_one, id, |connect| connect.last_will = Some(will)).await;
            if id == "lost" {
                drop(client);
                assert_eq!(reader.heard(&net).await.0, "gone/lost");
            } else {
                at_one.close().await;
                assert_eq!(reader.heard(&net).await.0, "gone/there");
                one.shutdown().await.unwrap();
                break;
            }
        }
    });
}

#[test]
fn a_plain_topic_is_one_for_gossip_and_for_mqtt() {
    run(async |net| {
        let [(one, at_one), (two, at_two)] =
            pair(&net, |config| config.mqtt.plain = vec!["alerts".into()]).await;
        let mut here = Mqtt::connect(&net, &at_one, "here").await;
        let mut there = Mqtt::connect(&net, &at_two, "there").await;
        for client in [&mut here, &mut there] {
            client.subscribe(&net, "#", QoS::Level1).await;
        }
        let mut gossip = two.subscribe("alerts").await.unwrap();
        let options = PublishOptions { wait_peers: Some(1), timeout: PATIENCE, ..PublishOptions::default() };
        one.publish("alerts", "from gossip", options).await.unwrap();
        for client in [&mut here, &mut there] {
            assert_eq!(client.heard(&net).await, ("alerts".into(), "from gossip".into()));
        }
        here.publish("alerts", 1, "from mqtt", false).await;
        for client in [&mut here, &mut there] {
            assert_eq!(client.heard(&net).await, ("alerts".into(), "from mqtt".into()), "once");
        }
        for said in ["from gossip", "from mqtt"] {
            let heard = net.patiently(said, gossip.next()).await.unwrap();
            assert_eq!(text(&heard), said);
        }
    });
}

#[test]
fn hostile_clients_do_not_keep_others_waiting() {
    run(async |net| {
        let mut config = net.config(2, &[]);
        config.mqtt.connections = 20;
        config.mqtt.connect_timeout = Duration::from_millis(500);
        let node = net.spawn(config.clone());
        let server = serve(&net, &node, &config);
        let mut good = Mqtt::connect(&net, &server, "good").await;
        good.subscribe(&net, "#", QoS::Level0).await;
        let addr = server.url().strip_prefix("mqtt://").unwrap().parse().unwrap();
        let mut silent = Vec::new();
        for n in 0..100_u8 {
            use futures::AsyncWriteExt;
            let mut stream = net.rt.connect_tcp(addr, Default::default()).await.unwrap();
            // An error says that it was one too many.
            let _ = stream.write_all(&[0x10, 0xff, 0xff, 0x01, n]).await;
            silent.push(stream);
        }
        // Those that said nothing give way in time.
        net.patiently("a place", async {
            loop {
                use futures::{AsyncReadExt, AsyncWriteExt};
                let mut stream = net.rt.connect_tcp(addr, Default::default()).await.unwrap();
                let hello = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x";
                let publish = b"\x30\x04\x00\x01ax";
                let _ = stream.write_all(&[&hello[..], publish].concat()).await;
                let mut answer = [0; 4];
                if stream.read_exact(&mut answer).await.is_ok() {
                    assert_eq!(answer, [0x20, 2, 0, 0]);
                    return;
                }
                net.rt.sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert_eq!(good.heard(&net).await, ("a".into(), "x".into()));
    });
}

/// A node with MQTT on a free port; the port.
fn daemon(args: &[&str]) -> (Daemon, String) {
    let usual = ["--set", "mqtt.listen=127.0.0.1:0"];
    let node = Daemon::start(&[&usual[..], args].concat());
    let port = node.line("mqtt listening on mqtt://127.0.0.1:").split(',').next().unwrap().to_owned();
    (node, port)
}

/// One of mosquitto's clients.
fn mosquitto(program: &str, args: &[&str]) -> Command {
    let is_here = Command::new(program).arg("--help").output().is_ok();
    assert!(is_here, "{program} is not here: apt-get install mosquitto-clients");
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command
}

#[test]
fn mosquittos_clients_of_each_version_talk_across_nodes() {
    let (one, port) = daemon(&[]);
    let (two, other) = daemon(&["--dial", &one.addr]);
    for (version, qos) in [("mqttv31", "0"), ("mqttv311", "1"), ("mqttv5", "2")] {
        let topic = format!("from/{version}");
        let said = ["-p", &port, "-V", version, "-q", qos, "-r", "-t", &topic, "-m", "hello"];
        let heard =
            ["-p", &other, "-V", version, "-q", qos, "-t", &topic, "-C", "1", "-W", "2", "-F", "%t %p"];
        // Until the nodes have found each other. Retained, it does not matter which client is there first.
        let mut tries = 0;
        loop {
            let (code, _, stderr) = command(&mut mosquitto("mosquitto_pub", &said));
            assert_eq!(code, 0, "{stderr}");
            let (_, stdout, _) = command(&mut mosquitto("mosquitto_sub", &heard));
            if stdout.contains(&format!("{topic} hello")) {
                break;
            }
            tries += 1;
            assert!(tries < 60, "{version}: {stdout:?}");
        }
    }
    drop(two);
}

#[test]
fn users_and_access_are_mosquittos_files_and_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // As mosquitto_passwd wrote them: ada in its newer form, grace in the older.
    let passwords = include_str!("../../crates/mqtt/tests/data/passwords");
    let (ada, _) = passwords.split_once('\n').unwrap();
    fs::write(path("users"), ada).unwrap();
    fs::write(path("acl"), "user ada\ntopic engine/#\n").unwrap();
    let (users, acl) = (format!("mqtt.users={}", path("users")), format!("mqtt.acl={}", path("acl")));
    let (node, port) = daemon(&["--set", &users, "--set", &acl]);
    let publish = |user: &str, password: &str, topic: &str| {
        let args = [
            "-p", &port, "-V", "mqttv5", "-u", user, "-P", password, "-q", "1", "-t", topic, "-m", "x", "-d",
        ];
        let (code, stdout, stderr) = command(&mut mosquitto("mosquitto_pub", &args));
        (code, format!("{stdout}{stderr}"))
    };
    assert!(publish("ada", "lovelace", "engine/x").1.contains("received PUBACK (Mid: 1, RC:0)"));
    assert!(publish("ada", "lovelace", "other").1.contains("RC:135"));
    assert!(
        publish("ada", "wrong", "engine/x").1.contains("Connection error: Bad User Name or Password")
            || publish("ada", "wrong", "engine/x").0 != 0
    );
    assert_ne!(publish("grace", "hopper", "engine/x").0, 0);
    fs::write(path("users"), passwords).unwrap();
    fs::write(path("acl"), "user grace\ntopic engine/#\n").unwrap();
    node.signal(Signal::HUP);
    node.line("reloaded: ");
    let mut tries = 0;
    while publish("grace", "hopper", "engine/x").0 != 0 {
        tries += 1;
        assert!(tries < 600, "the new user is not known");
    }
    assert!(publish("grace", "hopper", "engine/x").1.contains("RC:0"));
    fs::write(path("acl"), "topics engine\n").unwrap();
    node.signal(Signal::HUP);
    let said = node.line("MQTT's users and access stay as they were: ");
    assert!(said.contains("line 1: expected user NAME"), "{said}");
    assert!(publish("grace", "hopper", "engine/x").1.contains("RC:0"));
}

#[test]
fn what_is_counted_is_in_the_metrics_and_a_mesh_of_anybody_is_warned_of() {
    let (node, port) = daemon(&[]);
    node.line("every peer may speak for MQTT clients");
    let (code, _, stderr) =
        command(&mut mosquitto("mosquitto_pub", &["-p", &port, "-t", "a", "-m", "x", "-r", "-q", "1"]));
    assert_eq!(code, 0, "{stderr}");
    let (code, metrics, stderr) =
        command(Command::new("curl").args(["-s", &format!("{}/metrics", node.url)]));
    assert_eq!(code, 0, "{stderr}");
    for line in ["smidge_mqtt_received_total 1", "smidge_mqtt_retained 1", "smidge_mqtt_dropped_slow_total 0"]
    {
        assert!(metrics.lines().any(|one| one == line), "{line}: {metrics}");
    }
}

#[test]
fn what_would_let_anybody_in_or_lose_large_messages_is_refused() {
    let check = |sets: &[&str]| {
        let mut args = vec!["run", "--set", "identity.ephemeral=true", "--api", "off"];
        sets.iter().for_each(|set| args.extend(["--set", *set]));
        let (code, _, stderr) = command(&mut smidge(&args));
        assert_eq!(code, 78, "{sets:?}: {stderr}");
        stderr
    };
    assert!(check(&["mqtt.listen=0.0.0.0:0"]).contains("needs mqtt.users, or mqtt.anonymous = true"));
    assert!(check(&["mqtt.listen=127.0.0.1:0", "mqtt.max_packet=63KiB"]).contains("1KiB below"));
    assert!(check(&["mqtt.plain=mqtt"]).contains("mqtt.topic itself"));
    assert!(check(&["mqtt.plain=a/#"]).contains("cannot publish on"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, "ada:lovelace\n").unwrap();
    let said = check(&["mqtt.listen=127.0.0.1:0", &format!("mqtt.users={}", file.display())]);
    assert!(said.contains("users, line 1: expected a hash that begins with $7$ or $6$"), "{said}");
}
