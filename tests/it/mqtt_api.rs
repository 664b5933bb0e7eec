//! MQTT without an MQTT client: the verbs and the HTTP API, with mosquitto's clients on the other side.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::daemon::{Daemon, run};

/// A node with MQTT on a free port; the port.
fn daemon(args: &[&str]) -> (Daemon, String) {
    let node = Daemon::start(&[&["--set", "mqtt.listen=127.0.0.1:0"][..], args].concat());
    let port = node.line("mqtt listening on mqtt://127.0.0.1:").split(',').next().unwrap().to_owned();
    (node, port)
}

fn curl(node: &Daemon, path: &str, more: &[&str]) -> Value {
    let url = format!("{}{path}", node.url);
    let (code, answer, stderr) = run(Command::new("curl").args(["-s", "-g", &url]).args(more));
    assert_eq!(code, 0, "{path}: {stderr}");
    serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{path}: {e}: {answer}"))
}

#[test]
fn shells_hear_mqtt_clients_and_are_heard_by_them() {
    let (node, port) = daemon(&[]);
    let usual = ["-p", &port, "-q", "1", "-t"];
    let (code, _, stderr) =
        run(Command::new("mosquitto_pub").args(usual).args(["home/door", "-m", "open", "-r"]));
    assert_eq!(code, 0, "{stderr}");
    // What is retained comes first, with its topic, since the filter has wildcards.
    let (code, stdout, stderr) =
        node.ask(&["sub", "--mqtt", "-t", "home/#", "--count", "1", "--timeout", "60"]);
    assert_eq!((code, &*stdout), (0, "home/door: open\n"), "{stderr}");
    let (code, stdout, stderr) =
        node.ask(&["sub", "--mqtt", "-t", "home/door", "--count", "1", "--timeout", "60", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let said: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&said["data"], &said["qos"], &said["retained"], &said["bytes"]),
        (&"open".into(), &1.into(), &true.into(), &4.into())
    );
    // The other way round: what is retained waits for mosquitto_sub.
    let (code, stdout, stderr) =
        node.ask(&["pub", "--mqtt", "-t", "home/lamp", "-m", "on", "--retain", "--qos", "2"]);
    assert_eq!((code, &*stdout), (0, "published to home/lamp\n"), "{stderr}");
    let (code, stdout, stderr) =
        run(Command::new("mosquitto_sub").args(usual).args(["home/lamp", "-C", "1", "-W", "60", "-v"]));
    assert_eq!((code, &*stdout), (0, "home/lamp on\n"), "{stderr}");
    // Each line a message.
    let mut lines = node.asked(&["pub", "--mqtt", "-t", "home/log", "--lines", "--retain"]);
    let mut child = lines.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"one\n\ntwo\n").unwrap();
    assert!(child.wait().unwrap().success());
    let (_, stdout, _) = node.ask(&["sub", "--mqtt", "-t", "home/log", "--count", "1", "--timeout", "60"]);
    assert_eq!(stdout, "two\n");
    let (code, _, stderr) = node.ask(&["pub", "--mqtt", "-t", "home/+", "-m", "x"]);
    assert!(code == 2 && stderr.contains("not a topic that can be published on"), "{stderr}");
    let (code, _, stderr) = node.ask(&["pub", "-t", "home", "-m", "x", "--retain"]);
    assert!(code == 2 && stderr.contains("--mqtt"), "{stderr}");
}

#[test]
fn the_api_lists_clients_publishes_and_follows_filters_and_says_where_mqtt_is_off() {
    let (node, port) = daemon(&[]);
    let mut sub = Command::new("mosquitto_sub");
    let mut client = sub
        .args(["-p", &port, "-i", "hall", "-t", "a", "-t", "b", "-V", "mqttv5"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut tries = 0;
    let status = loop {
        let status = curl(&node, "/v1/mqtt", &[]);
        if status["subscriptions"] == 2 {
            break status;
        }
        tries += 1;
        assert!(tries < 600, "{status}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    client.kill().unwrap();
    client.wait().unwrap();
    let known = &status["clients"][0];
    assert_eq!((&known["id"], &known["version"]), (&"hall".into(), &"5".into()));
    assert_eq!((&known["user"], &known["subscriptions"]), (&Value::Null, &2.into()));
    let receipt = curl(&node, "/v1/mqtt/a//b?qos=2&retain&expiry=1h", &["--data-binary", "said"]);
    let expected = serde_json::json!({ "topic": "a//b", "qos": 2, "retain": true, "bytes": 4 });
    assert_eq!(receipt, expected);
    let url = format!("{}/v1/mqtt/a/+/%23", node.url);
    let mut curl_stream = Command::new("sh");
    curl_stream.args(["-c", "curl -sNg \"$0\" | grep -m1 ^data:", &url]);
    let (_, event, stderr) = run(&mut curl_stream);
    let said: Value = serde_json::from_str(event.trim_start_matches("data: ").trim()).expect(&stderr);
    assert_eq!(
        (&said["topic"], &said["data"], &said["retained"]),
        (&"a//b".into(), &"said".into(), &true.into())
    );
    for (path, more, says) in [
        ("/v1/mqtt/$SYS/broker/uptime", &["-d", "x"][..], "not a topic"),
        ("/v1/mqtt/a%23", &[], "not a filter"),
        ("/v1/mqtt/$share/g/a", &[], "not a filter"),
        ("/v1/mqtt/a?qos=3", &["-d", "x"], "bad value of qos"),
        ("/v1/mqtt/", &[], "no topic of MQTT"),
    ] {
        let refused = curl(&node, path, more);
        assert!(refused["error"].as_str().unwrap().contains(says), "{path}: {refused}");
    }
    let without = Daemon::start(&[]);
    assert_eq!(curl(&without, "/v1/mqtt", &[])["listening"], serde_json::json!([]));
    for (path, more) in [("/v1/mqtt/a", &[][..]), ("/v1/mqtt/a", &["-d", "x"])] {
        assert_eq!(curl(&without, path, more)["error"], "this node has no MQTT");
    }
}
