//! What `--json` prints is what docs/VERBS.md and the verbs' help say that it prints.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::support::daemon::{Daemon, run, smidge};
use serde_json::Value;

/// A field as documented: its type in words, and whether it may be absent.
#[derive(Debug)]
struct Field {
    kind: String,
    absent: bool,
}

/// The documented fields of each verb.
fn documented() -> BTreeMap<String, BTreeMap<String, Field>> {
    let mut verbs: BTreeMap<String, BTreeMap<String, Field>> = BTreeMap::new();
    let mut verb = String::new();
    let mut in_fields = false;
    for line in include_str!("../../docs/VERBS.md").lines() {
        if let Some(heading) = line.strip_prefix("## smidge ") {
            verb = heading.to_owned();
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        match cells[..] {
            ["", "field", ..] => in_fields = true,
            ["", name, kind, meaning, ""] if in_fields && name.starts_with('`') => {
                let field = Field { kind: kind.to_owned(), absent: meaning.contains("absent") };
                verbs.entry(verb.clone()).or_default().insert(name.trim_matches('`').to_owned(), field);
            }
            ["", ..] => {}
            _ => in_fields = false,
        }
    }
    verbs
}

/// The fields of a record with the types of their values, `null` among them.
fn fields(value: &Value, path: &str, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Object(map) => {
            for (name, value) in map {
                // Keys that vary: topics, and the configuration's own keys.
                let name = match (path, name.as_str()) {
                    ("topics", _) => "TOPIC",
                    ("", _) if value.get("from").is_some_and(|from| from.is_string()) => "KEY",
                    (_, name) => name,
                };
                fields(value, &if path.is_empty() { name.into() } else { format!("{path}.{name}") }, found);
            }
            return;
        }
        Value::Array(items) => {
            for item in items {
                fields(item, &format!("{path}[]"), found);
            }
            return;
        }
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
    };
    found.entry(path.to_owned()).or_default().insert(kind);
}

/// Holds what was printed against what is documented.
fn compare(verb: &str, outputs: &[String]) {
    let all = documented();
    let fields_of =
        all.get(verb).unwrap_or_else(|| panic!("docs/VERBS.md has no section `## smidge {verb}`"));
    let mut found = BTreeMap::new();
    for output in outputs {
        let record = serde_json::from_str(output).unwrap_or_else(|e| panic!("{verb}: {e}: {output}"));
        fields(&record, "", &mut found);
    }
    for (name, kinds) in &found {
        // Values of configuration keys are of any type, some of them lists.
        let name = if name.starts_with("KEY.value") { "KEY.value" } else { name };
        let field =
            fields_of.get(name).unwrap_or_else(|| panic!("{verb}: `{name}` is printed and not documented"));
        for kind in kinds {
            let fits = field.kind == "any" || field.kind.split(" or ").any(|k| k == *kind);
            assert!(fits, "{verb}: `{name}` is {kind}, documented is {}", field.kind);
        }
    }
    for (name, field) in fields_of {
        let there =
            found.keys().any(|key| key == name || (name == "KEY.value" && key.starts_with(name.as_str())));
        assert!(there || field.absent, "{verb}: `{name}` is documented and not printed: {outputs:?}");
    }
    let words: Vec<_> = verb.split(' ').collect();
    let (_, help, _) = run(smidge(&words).arg("--help"));
    for name in
        fields_of.keys().map(|name| name.split(['[', '.']).next().unwrap()).filter(|name| *name != "KEY")
    {
        assert!(help.contains(&format!("\"{name}\"")), "{verb} --help does not mention {name:?}:\n{help}");
    }
}

/// A mesh of three: the others dial the first.
fn mesh() -> [Daemon; 3] {
    let first = Daemon::start(&["--topic", "t"]);
    let mut rest = [(); 2].map(|()| Daemon::start(&["--topic", "t", "--dial", &first.addr]));
    for node in &mut rest {
        node.line("added to kademlia");
        node.line("joined mesh");
    }
    first.line("joined mesh");
    let [second, third] = rest;
    let nodes = [first, second, third];
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    // The first one knows both, and how far away they are.
    loop {
        let peers: Value = serde_json::from_str(&nodes[0].ask(&["peers", "--json"]).1).unwrap();
        let known = peers["peers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["agent"].is_string() && p["rtt_us"].is_number());
        if known.count() == 2 {
            return nodes;
        }
        assert!(std::time::Instant::now() < deadline, "{peers}");
    }
}

#[test]
fn every_verb_prints_the_fields_that_are_documented() {
    let [one, two, three] = mesh();
    // A record that nobody is behind, too.
    let lonely = Daemon::start(&["--dial", "127.0.0.1:1"]);
    let printed = |node: &Daemon, args: &[&str]| {
        let (_, out, err) = node.ask(&[args, &["--json"]].concat());
        assert!(!out.is_empty(), "{args:?}: {err}");
        out
    };
    compare("status", &[printed(&one, &["status"])]);
    compare("peers", &[printed(&one, &["peers"])]);
    compare("mesh", &[printed(&one, &["mesh"])]);
    compare("names", &[printed(&two, &["names"]), printed(&lonely, &["names"])]);
    compare(
        "ping",
        &[printed(&one, &["ping", &two.addr, "-c", "1"]), printed(&one, &["ping", "127.0.0.1:1", "-c", "1"])],
    );
    compare("health", &[printed(&one, &["health"])]);
    compare("ready", &[printed(&one, &["ready"]), printed(&one, &["ready", "--topic", "t"])]);
    compare("dht put", &[printed(&one, &["dht", "put", "k", "-m", "v", "--quorum", "one"])]);
    compare("dht provide", &[printed(&one, &["dht", "provide", "k"])]);
    compare("dht providers", &[printed(&two, &["dht", "providers", "k"])]);
    compare("dht find-peer", &[printed(&three, &["dht", "find-peer", &one.peer])]);
    let keeping = Daemon::start(&["--set", "topics={ s = { keep = \"latest\" } }"]);
    compare("state set", &[printed(&keeping, &["state", "set", "s", "k", "-m", "v"])]);
    let listed = [&["state", "list", "s"][..], &["state", "list", "s", "--values"]];
    compare("state list", &listed.map(|args| printed(&keeping, args)));
    compare("state watch", &[printed(&keeping, &["state", "watch", "s", "--count", "1"])]);
    compare("state delete", &[printed(&keeping, &["state", "delete", "s", "k"])]);
    compare("doctor", &[printed(&one, &["doctor", "--dial", &two.addr, "--dial", "127.0.0.1:1"])]);

    let mut sub =
        two.asked(&["sub", "-t", "t", "--count", "1", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut heard = String::new();
    let mut out = BufReader::new(sub.stdout.take().unwrap());
    // The stream stands some time after its start: messages are sent until one is heard.
    let hear = std::thread::spawn(move || {
        out.read_line(&mut heard).unwrap();
        heard
    });
    let mut receipt = String::new();
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while !hear.is_finished() {
        assert!(std::time::Instant::now() < deadline, "nothing is heard");
        receipt = printed(&one, &["pub", "-t", "t", "-m", "hello"]);
    }
    sub.wait().unwrap();
    compare("pub", &[receipt]);
    compare("sub", &[hear.join().unwrap()]);
}

#[test]
fn verbs_without_a_node_print_the_fields_that_are_documented() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key").display().to_string();
    let printed = |args: &[&str]| run(smidge(args).arg("--json")).1;
    compare("key generate", &[printed(&["key", "generate", &file])]);
    let file = dir.path().join("network").display().to_string();
    compare(
        "key network",
        &[printed(&["key", "network", &file]), printed(&["key", "network", "--show", &file])],
    );
    compare("config show", &[printed(&["config", "show"])]);
    let bad = dir.path().join("bad.toml").display().to_string();
    std::fs::write(&bad, "[gossip]\nmesh = 1\n").unwrap();
    let said = [
        &["config", "check"][..],
        &["config", "check", &bad],
        &["config", "check", "--set", "kad.max_records=x"],
    ];
    compare("config check", &said.map(printed));
    // async-dns cannot be pointed at the demo's name server: a documented limit.
    if cfg!(feature = "hickory") {
        compare("demo", &[printed(&["demo"])]);
    }
}

#[test]
fn human_tables_are_aligned_with_short_ids_and_ages() {
    let [one, two, three] = mesh();
    let columns = |text: &str| {
        // Columns begin where the heading's words do; nothing of a row reaches over from the one before.
        let heading = text.lines().next().unwrap().to_owned();
        let starts =
            heading.char_indices().filter(|(i, c)| *c != ' ' && (*i == 0 || heading[..*i].ends_with("  ")));
        let starts: Vec<_> = starts.map(|(i, _)| i).collect();
        for row in text.lines().skip(1) {
            let chars: Vec<_> = row.chars().collect();
            for start in starts.iter().filter(|start| **start > 0 && **start < chars.len()) {
                assert_eq!(chars[start - 1], ' ', "{text}");
                assert_ne!(chars[*start], ' ', "{text}");
            }
        }
    };
    for (node, verb) in [(&one, "peers"), (&one, "mesh"), (&two, "names"), (&three, "peers")] {
        let (_, text, _) = node.ask(&[verb]);
        columns(&text);
        assert!(text.contains('…') && !text.contains("12D3KooW"), "{text}");
        assert!(node.ask(&[verb, "--full"]).1.contains("12D3KooW"));
    }
    let (_, text, _) = one.ask(&["peers"]);
    assert_eq!(text.lines().count(), 3, "{text}");
    for row in text.lines().skip(1) {
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!(words[2], "direct", "{text}");
        assert!(words[4].ends_with('s') && words[5].contains('.'), "an age and a time: {text}");
    }
}
