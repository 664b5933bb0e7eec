//! What nodes call themselves, where it is shown.

use serde_json::Value;

use crate::support::daemon::{Daemon, run, smidge};

fn json(node: &Daemon, verb: &str) -> Value {
    let (code, out, err) = node.ask(&[verb, "--json"]);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn a_node_tells_its_name_and_it_stands_beside_its_id() {
    let messages = ["--topic", "t", "--set", "log.level=smidge::message=info"];
    let one = Daemon::start(&[&messages[..], &["--name", "kitchen"]].concat());
    let two = Daemon::start(&[&messages[..], &["--name", "küche.2", "--dial", &one.addr]].concat());
    let nobody = Daemon::start(&[&messages[..], &["--dial", &one.addr]].concat());
    assert!(one.line("starting ").ends_with(&format!("as peer, named kitchen, peer id {}", one.peer)));
    assert_eq!(two.line(&format!("name of {}: ", one.peer)), "kitchen");
    assert_eq!(one.line(&format!("name of {}: ", two.peer)), "küche.2");
    one.line(&format!("joined mesh t with {}", nobody.peer));

    assert_eq!(json(&one, "status")["name"], "kitchen");
    assert_eq!(json(&nobody, "status")["name"], Value::Null);
    let peers = json(&one, "peers");
    let peers: Vec<_> = peers["peers"].as_array().unwrap().iter().collect();
    let of = |peer: &str| *peers.iter().find(|p| p["peer"] == peer).unwrap();
    assert_eq!((&of(&two.peer)["name"], &of(&nobody.peer)["name"]), (&"küche.2".into(), &Value::Null));
    let agent = of(&two.peer)["agent"].as_str().unwrap();
    assert_eq!(agent, of(&nobody.peer)["agent"].as_str().unwrap(), "its program is told without it");

    let (code, _, err) = one.ask(&["pub", "-t", "t", "-m", "x", "--wait-peers", "2"]);
    assert_eq!(code, 0, "{err}");
    assert!(two.line("message 12D3KooW").ends_with(" on t, 1 bytes [kitchen]"));
    two.stop();
    assert!(one.line("disconnected from ").ends_with(" [küche.2]"));
}

#[test]
fn a_name_that_is_none_is_refused() {
    for bad in ["a b", "a\u{7}b", "{{.Task.Slot}}"] {
        let (code, _, err) = run(&mut smidge(&["run", "--ephemeral", "--name", bad]));
        assert!(code == 78 && err.contains("node.name"), "{bad:?}: {code} {err}");
    }
}
