//! `smidge demo`, by names and by multicast DNS.

fn demo(args: &[&str]) -> serde_json::Value {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_smidge"))
        .arg("demo")
        .arg("--json")
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.stderr, b"", "no terminal, no progress");
    serde_json::from_str(&text).unwrap()
}

#[test]
#[cfg(feature = "hickory")] // async-dns asks the servers of resolv.conf: a documented limit
fn the_demo_delivers_its_message_once_and_says_how_long_it_took() {
    let result = demo(&[]);
    assert_eq!(result["ok"], true);
    for key in ["name_to_connected_ms", "start_to_delivery_ms", "publish_to_delivery_ms"] {
        assert!(result[key].is_f64(), "{key}: {result}");
    }
    let events = result["events"].as_array().unwrap();
    let messages = events.iter().filter(|e| e["event"] == "message").count();
    assert_eq!(messages, 2, "at peer and bootstrap");
    assert!(events.iter().any(|e| e["event"] == "retrying in"), "bootstrap's record was late");
}

/// Runs its arguments with a terminal for stderr, made with Python's pty module, and prints what that got.
const TERMINAL: &str = r#"
import os, pty, subprocess, sys
ours, theirs = pty.openpty()
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs)
os.close(theirs)
got = b""
try:
    while more := os.read(ours, 4096):
        got += more
except OSError:
    pass
report = child.stdout.read()
assert child.wait() == 0 and b"\x1b" not in report, report
sys.stdout.buffer.write(got)
"#;

#[test]
fn on_a_terminal_the_demo_tells_what_happens_while_it_happens() {
    let demo = ["-c", TERMINAL, env!("CARGO_BIN_EXE_smidge"), "demo", "--mdns", "--json"];
    let out = std::process::Command::new("python3").args(demo).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
    for step in ["node.1 finds the others by multicast", "the sender starts", "does it come twice?"] {
        assert!(said.contains(step), "{step}: {said:?}");
    }
    assert!(said.ends_with("\r\u{1b}[K"), "it is wiped away in the end: {said:?}");
}

#[test]
fn the_demo_works_without_any_name_by_multicast_dns() {
    let result = demo(&["--mdns", "--nodes", "4"]);
    assert!(result["found_ms"].is_f64() && result["name_to_connected_ms"].is_null(), "{result}");
    eprintln!("measured: five nodes found each other {} ms after the last one's start", result["found_ms"]);
    let events = result["events"].as_array().unwrap();
    let count = |event| events.iter().filter(|e| e["event"] == event).count();
    assert_eq!(count("message"), 5);
    assert!(count("discovered") >= 5 * 4, "every node names every other one");
    assert_eq!(count("resolved"), 0);
}

#[test]
#[cfg(feature = "hickory")] // async-dns asks the servers of resolv.conf: a documented limit
fn the_demo_works_with_twenty_peers_behind_one_name() {
    let result = demo(&["--nodes", "20"]);
    let events = result["events"].as_array().unwrap();
    assert_eq!(events.iter().filter(|e| e["event"] == "message").count(), 21);
}

#[test]
#[cfg(feature = "hickory")]
fn the_demo_of_mqtt_has_a_message_a_retained_value_a_will_and_a_node_that_is_killed() {
    let result = demo(&["--mqtt"]);
    assert_eq!(result["ok"], true);
    for key in ["publish_to_delivery_ms", "loss_to_will_ms"] {
        assert!(result[key].is_f64(), "{key}: {result}");
    }
    let events = result["events"].as_array().unwrap();
    for words in [
        "panel hears home/door open",
        "hears home/lamp on",
        "as by a power cut",
        "its will: home/sensor lost",
        "panel hears home/door closed",
    ] {
        assert!(events.iter().any(|e| e["line"].as_str().unwrap().contains(words)), "{words}: {result}");
    }
}
