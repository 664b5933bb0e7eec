//! The files that are shipped.

use super::*;

fn shipped(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

fn read(name: &str) -> Config {
    let file = Some(shipped(name).0);
    Config::load(&LoadOptions { file, ..LoadOptions::default() }).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_shipped_file_is_right_and_comments_every_key() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".toml"));
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let config = read(&name);
        if name != "smidge.toml" {
            assert_eq!(config.warnings(), [""; 0], "{name}");
        }
        let text = shipped(&name).1;
        let mut before = "";
        for line in text.lines() {
            if !line.starts_with(['#', '[']) && line.contains(" = ") {
                assert!(before.starts_with("# "), "{name}: no comment in front of: {line}");
            }
            before = line;
        }
    }
}

#[test]
fn smidge_toml_has_every_key_with_its_default() {
    // What depends on how the binary was built, and a table that is written elsewhere, is there as a
    // comment.
    let text = shipped("smidge.toml")
        .1
        .replace("\n# backend = ", "\nbackend = ")
        .replace("\n# executor = ", "\nexecutor = ")
        .replace("\n# topics = ", "\ntopics = ");
    let table: toml::Table = text.parse().unwrap();
    for key in KEYS {
        let value = match key.name.split_once('.') {
            Some((section, leaf)) => table.get(section).and_then(|section| section.get(leaf)),
            None => table.get(key.name),
        };
        assert!(value.is_some(), "{} is not in smidge.toml", key.name);
        let marked = text.lines().collect::<Vec<_>>();
        let leaf = format!("{} = ", key.name.rsplit('.').next().unwrap());
        let section = key.name.split_once('.').map_or("", |(section, _)| section);
        let start = marked.iter().position(|line| *line == format!("[{section}]")).unwrap_or(0);
        let at = start + marked[start..].iter().position(|line| line.starts_with(&leaf)).unwrap();
        let comment = marked[..at].iter().rev().take_while(|line| line.starts_with('#'));
        assert_eq!(comment.clone().any(|line| line.starts_with("# [live] ")), key.live, "{}", key.name);
    }
    assert_eq!(read("smidge.toml").changes(&Config::default()), Changes::default());
    for key in read("smidge.toml").describe() {
        let commented = ["topics", "dns.backend", "runtime.executor"].contains(&key.key);
        assert_eq!(matches!(key.from, Source::Default { .. }), commented, "{}", key.key);
    }
}

#[test]
fn the_seed_s_three_nodes_do_what_the_seed_s_did() {
    let (bootstrap, peer, sender) = (read("bootstrap.toml"), read("peer.toml"), read("sender.toml"));
    assert_eq!((bootstrap.role, peer.role, sender.role), (Role::Bootstrap, Role::Peer, Role::Sender));
    assert!(bootstrap.dial.names.is_empty());
    assert_eq!(peer.dial.names, ["bootstrap:4001".parse().unwrap()]);
    assert_eq!(sender.dial.names, ["peer:4001".parse().unwrap()]);
    assert_eq!(sender.publish.topic.as_deref(), Some("some_topic"));
    assert_eq!(sender.publish.payload(), Ok(vec![1, 2, 3, 4]));
    for node in [bootstrap, peer, sender] {
        assert_eq!(node.gossip.topics, ["some_topic"]);
    }
}
