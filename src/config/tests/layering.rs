//! Which source wins, and how each of them is named.

use super::*;

#[test]
fn a_higher_layer_wins_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    fs::write(&file, "[gossip]\n\ntopics = [\"file\"]").unwrap();
    let secret = dir.path().join("topics");
    fs::write(&secret, "from-a-file\n").unwrap();

    let mut options = LoadOptions::default();
    let topics = |options: &LoadOptions| {
        let config = Config::load(options).unwrap();
        (config.gossip.topics.join("+"), config.source("gossip.topics").to_string())
    };
    let said = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(topics(&options), said("", "default of role peer"));
    options.default_file = Some(dir.path().join("not-there"));
    assert_eq!(topics(&options), said("", "default of role peer"));
    // There, yet not readable: an error, even though it was not asked for by name.
    let dangling = dir.path().join("dangling");
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
    let dangling = LoadOptions { default_file: Some(dangling), ..LoadOptions::default() };
    assert!(Config::load(&dangling).is_err());
    options.default_file = Some(file.clone());
    assert_eq!(topics(&options), said("file", &format!("{}:3", file.display())));
    options.env = env(&[("SMIDGE__GOSSIP__TOPICS", "env,two"), ("SMIDGE_API", "x"), ("PATH", "/bin")]);
    assert_eq!(topics(&options), said("env+two", "SMIDGE__GOSSIP__TOPICS"));
    options.env = env(&[("SMIDGE__GOSSIP__TOPICS__FILE", secret.to_str().unwrap())]);
    let (value, source) = topics(&options);
    assert_eq!(value, "from-a-file");
    assert_eq!(source, format!("SMIDGE__GOSSIP__TOPICS__FILE ({})", secret.display()));
    options.sets = vec!["gossip.topics=one".into(), "gossip.topics=[\"set\", 'x']".into()];
    assert_eq!(topics(&options), said("set+x", "--set"));
    options.flag("--topic", "gossip.topics", &[]);
    assert_eq!(topics(&options), said("set+x", "--set"));
    options.flag("--topic", "gossip.topics", &["flag".into(), "a,b".into()]);
    assert_eq!(topics(&options), said("flag+a,b", "--topic"));
}

#[test]
fn text_is_read_as_the_key_s_type_asks() {
    let set =
        |set: &str| Config::load(&LoadOptions { sets: vec![set.into()], ..Default::default() }).unwrap();
    let names = |config: Config| config.dial.names.iter().map(|t| t.to_string()).collect::<Vec<_>>();
    assert_eq!(names(set("dial.names=a:1,b:2")), ["a:1", "b:2"]);
    assert_eq!(names(set("dial.names=[\"a:1\"]")), ["a:1"]);
    assert_eq!(names(set("dial.names=\"a:1\"")), ["a:1"]);
    assert_eq!(names(set("dial.names=[::1]:1, [::2]:2")), ["[::1]:1", "[::2]:2"]);
    assert!(names(set("dial.names=")).is_empty());
    assert!(names(set("dial.names=[]")).is_empty());
    assert_eq!(set("kad.replication=3").kad.replication.get(), 3);
    assert!(set("gossip.floodsub=true").gossip.floodsub);
    assert_eq!(set("quic.idle_timeout=1m").quic.idle_timeout, secs(60));
    assert_eq!(set("quic.idle_timeout=\"1m\"").quic.idle_timeout, secs(60));
    assert_eq!(set("limits.memory=128MiB").limits.memory, 128 << 20);
    assert_eq!(set("publish.data=1,2").publish.payload(), Ok(vec![1, 2]));
    assert_eq!(set("publish.topic=").publish.topic, None);
    assert_eq!(set("dns.ndots=5").dns.ndots, Some(5));
    assert_eq!(set("dns.ndots=").dns.ndots, None);
    assert_eq!(
        set("dns.servers=10.0.0.1,[::1]:5").dns.servers,
        ["10.0.0.1:53".parse().unwrap(), "[::1]:5".parse().unwrap()]
    );
    assert_eq!(set("api.listen=off").api.listen, ApiListen::Off);
    assert_eq!(set("api.listen=localhost:0").api.listen, ApiListen::Tcp(([127, 0, 0, 1], 0).into()));
    assert_eq!(set("api.listen=unix:/a").api.listen, ApiListen::Unix("/a".into()));
    assert_eq!(
        set("listen.addresses=127.0.0.1:4002,[::1]:0").listen.addresses,
        ["/ip4/127.0.0.1/udp/4002/quic-v1".parse().unwrap(), "/ip6/::1/udp/0/quic-v1".parse().unwrap()]
    );
    assert_eq!(set("identity.key_file=/data/k").identity.key_file, Path::new("/data/k"));
}

#[test]
fn a_variable_that_was_meant_for_a_key_is_warned_of_and_no_other() {
    let env = env(&[
        ("SMIDGE_GOSSIP_TOPICS", "a"),
        ("SMIDGE_API_TOKEN", "b"),
        ("SMIDGE__GOSSIP__TOPICS", "c"),
        // The verbs' own, and what Kubernetes sets for a service of that name.
        ("SMIDGE_API", "http://127.0.0.1:4080"),
        ("SMIDGE_SERVICE_HOST", "10.0.0.1"),
    ]);
    assert_eq!(
        LoadOptions { env, ..Default::default() }.warnings(),
        [
            "SMIDGE_GOSSIP_TOPICS is not read: write SMIDGE__GOSSIP__TOPICS",
            "SMIDGE_API_TOKEN is not read: write SMIDGE__API__TOKEN",
        ]
    );
}

#[test]
fn a_user_s_own_state_directory_has_the_key_unless_something_names_another() {
    let mut options = LoadOptions { state: Some("/home/u/.local/state/smidge".into()), ..Default::default() };
    let key_file = |options: &LoadOptions| {
        let config = Config::load(options).unwrap();
        (config.identity.key_file.clone(), config.source("identity.key_file").to_string())
    };
    assert_eq!(key_file(&options), ("/home/u/.local/state/smidge/key".into(), "default of role peer".into()));
    options.value("--data-dir", "identity.key_file", Some("here/key".into()));
    assert_eq!(key_file(&options), ("here/key".into(), "--data-dir".into()));
}

#[test]
fn a_bad_word_in_the_environment_or_a_set_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("v");
    fs::write(&file, "boss\n").unwrap();
    let (file, none) = (file.to_str().unwrap(), dir.path().join("none"));
    for (variables, said) in [
        (&[("SMIDGE__GOSIP__TOPICS", "a")][..], "SMIDGE__GOSIP__TOPICS: unknown key\n  hint: did you mean SMIDGE__GOSSIP__TOPICS?".to_owned()),
        (&[("SMIDGE__ROLE", "boss")], "SMIDGE__ROLE: role: found \"boss\"; expected \"bootstrap\", \"peer\" or \"sender\"".into()),
        (&[("SMIDGE__ROLE__FILE", file)], format!("SMIDGE__ROLE__FILE ({file}): role: found \"boss\"; expected \"bootstrap\", \"peer\" or \"sender\"")),
        (&[("SMIDGE__ROLE__FILE", none.to_str().unwrap())], format!("SMIDGE__ROLE__FILE ({}): role: cannot be read: No such file or directory (os error 2)\n  hint: check the path", none.display())),
        (
            &[("SMIDGE__ROLE__FILE", file), ("SMIDGE__ROLE", "peer")],
            format!("SMIDGE__ROLE__FILE ({file}): role: found \"boss\"; expected \"bootstrap\", \"peer\" or \"sender\"\nSMIDGE__ROLE: role: SMIDGE__ROLE__FILE is set, too\n  hint: unset SMIDGE__ROLE or SMIDGE__ROLE__FILE"),
        ),
        (&[("SMIDGE__GOSSIP__SCORING", "yes")], "SMIDGE__GOSSIP__SCORING: gossip.scoring: found \"yes\"; expected true or false".into()),
        (&[("RUST_LOG", "smidge=loud")], "RUST_LOG: log.level: \"smidge=loud\": no level \"loud\" in \"smidge=loud\"; expected a level, or TARGET=LEVEL with commas between, such as \"info,libp2p_kad=debug\"".into()),
    ] {
        let mut error = Config::load(&LoadOptions { env: env(variables), ..Default::default() }).unwrap_err();
        // In the order of the variables' reading.
        error.problems.sort_by_key(|problem| matches!(problem.at, Source::Env { .. }));
        assert_eq!(error.to_string(), said);
    }
    for (set, said) in [
        ("x", "--set: no \"=\" in \"x\"; expected KEY=VALUE, for instance --set kad.replication=3"),
        ("dial.nmaes=a", "--set: dial.nmaes: unknown key\n  hint: did you mean dial.names?"),
        ("dial=a", "--set: dial: is a section, not a key; expected a key of it, for instance dial.names"),
        (
            "kad.replication=many",
            "--set: kad.replication: found the text \"many\"; expected a whole number, 1 or more",
        ),
        (
            "dial.names=[\"a\"",
            "--set: dial.names: \"[\\\"a\\\"\" is no TOML list: unclosed array, expected `]`; expected a list, each item NAME:PORT, IP:PORT or a multiaddr such as /ip4/10.0.0.1/udp/4001/quic-v1",
        ),
    ] {
        let error = Config::load(&LoadOptions { sets: vec![set.into()], ..Default::default() }).unwrap_err();
        assert_eq!(error.to_string(), said);
    }
    use std::os::unix::ffi::OsStringExt;
    let env = vec![("SMIDGE__ROLE".into(), OsString::from_vec(vec![0xff]))];
    let error = Config::load(&LoadOptions { env, ..Default::default() }).unwrap_err();
    assert_eq!(error.to_string(), "SMIDGE__ROLE: role: is not UTF-8");
}

#[test]
fn a_bad_value_is_reported_though_a_higher_layer_hides_it() {
    let options = LoadOptions {
        env: env(&[("SMIDGE__KAD__REPLICATION", "0")]),
        sets: vec!["kad.replication=3".into()],
        ..Default::default()
    };
    let error = Config::load(&options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "SMIDGE__KAD__REPLICATION: kad.replication: 0 is out of range; expected a whole number, 1 or more"
    );
}

#[test]
fn rust_log_wins_over_every_other_word_on_levels() {
    let mut options = LoadOptions { sets: vec!["log.level=warn".into()], ..Default::default() };
    assert_eq!(Config::load(&options).unwrap().log.level.to_string(), "warn");
    options.env = env(&[("RUST_LOG", "debug")]);
    let config = Config::load(&options).unwrap();
    assert_eq!(
        (config.log.level.to_string(), config.source("log.level").to_string()),
        ("debug".into(), "RUST_LOG".into())
    );
    options.env = env(&[("RUST_LOG", "")]);
    assert_eq!(Config::load(&options).unwrap().log.level.to_string(), "warn");
}

#[test]
fn a_role_changes_defaults_and_nothing_that_was_said() {
    let sender = load("role = \"sender\"\n[publish]\ndata = \"5\"").unwrap();
    assert_eq!(
        (sender.publish.topic.as_deref(), sender.publish.payload()),
        (Some("some_topic"), Ok(vec![5]))
    );
    assert_eq!(sender.source("publish.topic").to_string(), "default of role sender");
    let peer = load("").unwrap();
    assert_eq!((peer.role, peer.publish.topic), (Role::Peer, None));
    for role in [Role::Bootstrap, Role::Peer, Role::Sender] {
        let config = Config::for_role(role);
        config.check().unwrap();
        assert!(config.dial.names.is_empty(), "no role dials of its own accord");
    }
}

#[test]
fn changes_are_told_apart_by_what_it_takes_to_apply_them() {
    let old = Config::default();
    assert_eq!(old.changes(&old.clone()), Changes::default());
    let new = load(
        "[dial]\nnames = [\"a\"]\naddresses = [\"/ip4/10.0.0.1/udp/1/quic-v1\"]\n[gossip]\ntopics = [\"t\"]\nheartbeat = \"1s\"\n\
         [log]\nlevel = \"debug\"\nformat = \"json\"\n[api]\ntoken = \"s3cret\"\n\
         [peers]\ndeny = [\"12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz\"]\n\
         [topics.t.score]\npreset = \"off\"",
    )
    .unwrap();
    let changes = old.changes(&new);
    assert_eq!(
        changes.live,
        ["topics", "dial.names", "dial.addresses", "gossip.topics", "log.level", "peers.deny"]
    );
    assert_eq!(changes.restart, ["gossip.heartbeat", "api.token", "log.format"]);
    let mut other = new.clone();
    other.api.token = Some(Secret::from("0ther".to_owned()));
    assert_eq!(new.changes(&other).restart, ["api.token"], "secrets are compared, though never shown");
}

#[test]
fn what_is_shown_names_every_key_masks_secrets_and_can_be_read_back() {
    let config = load("[api]\ntoken = \"s3cret\"\n[gossip]\ntopics = [\"a\"]").unwrap();
    let text = config.toml();
    assert!(text.contains("\ntoken = \"********\" # from "), "{text}");
    assert!(text.contains("c.toml:2\n"), "{text}");
    assert!(text.contains("mesh_n = 6 # default of role peer\n"), "{text}");
    let (json, debug) = (config.json(), format!("{config:?}"));
    for shown in [&text, &json.to_string(), &debug] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }
    assert_eq!(json.as_object().unwrap().len(), KEYS.len());
    assert_eq!(json["gossip.topics"]["value"], serde_json::json!(["a"]));
    assert_eq!(json["gossip.topics"]["line"], 4);
    assert_eq!(
        json["kad.mode"],
        serde_json::json!({ "value": "server", "from": "default of role peer", "line": null })
    );
    assert_eq!(config.api.token.as_ref().map(Secret::reveal), Some("s3cret"));
    for (given, same) in
        [("s3cret", true), ("s3cres", false), ("s3cre", false), ("s3crets3cret", false), ("", false)]
    {
        assert_eq!(config.api.token.as_ref().unwrap().matches(given), same, "{given}");
    }
    assert_eq!(serde_json::to_string(&config.api.token).unwrap(), "\"********\"");
    let again = load(&text).unwrap();
    assert_eq!(config.changes(&again), Changes { live: vec![], restart: vec!["api.token"] });
}

#[test]
fn what_is_likely_not_meant_is_warned_of() {
    assert_eq!(Config::for_role(Role::Bootstrap).warnings(), [""; 0]);
    assert_eq!(load("").unwrap().warnings(), ["a peer without dial.names waits until others find it"]);
    let text =
        "role = \"bootstrap\"\n[identity]\nephemeral = true\nkey_file = \"/k\"\n[publish]\ndata = \"1\"";
    assert_eq!(
        load(text).unwrap().warnings(),
        [
            "identity.ephemeral is set: identity.key_file is not used",
            "publish.data is not published: publish.topic is not set"
        ]
    );
}

#[test]
fn a_derived_identity_is_whole_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, empty) = (file("good", "0123456789abcdef\n"), file("empty", "\n"));
    const SECRET: &str = "SMIDGE__IDENTITY__DERIVE_SECRET";
    const IN_FILE: &str = "SMIDGE__IDENTITY__DERIVE_SECRET__FILE";
    const NAME: &str = "SMIDGE__IDENTITY__DERIVE_NAME";
    let load = |variables: &[(&str, &str)]| {
        let options = LoadOptions { env: env(variables), ..Default::default() };
        Config::load(&options).map(|config| config.identity).map_err(|e| e.to_string())
    };
    let derived = load(&[(IN_FILE, &good), (NAME, "p2p_peer.1")]).unwrap();
    assert_eq!(derived.derive_secret.as_ref().map(Secret::reveal), Some("0123456789abcdef"));
    assert_eq!(derived.derive_name.as_deref(), Some("p2p_peer.1"));
    for (variables, said) in [
        (
            &[(SECRET, "0123456789abcde"), (NAME, "a")][..],
            "identity.derive_secret: the secret has 15 bytes; expected 16 bytes or more",
        ),
        (
            &[(SECRET, "0123456789abcdef")],
            "identity.derive_secret: all nodes with this secret would have one key; expected identity.derive_name, too",
        ),
        (
            &[(NAME, "a")],
            "identity.derive_name: there is no secret to derive a key from; expected identity.derive_secret, too",
        ),
        (
            &[(IN_FILE, &empty), (NAME, "a")],
            "identity.derive_secret: the file is empty; expected 16 bytes or more",
        ),
        (&[(IN_FILE, &empty)], "identity.derive_secret: the file is empty; expected 16 bytes or more"),
        (
            &[(IN_FILE, &good), (NAME, "{{.Service.Name}}.{{.Task.Slot}}")],
            "is a template that nobody filled in; expected a name of 1 to 256 bytes without blanks",
        ),
        (
            &[(IN_FILE, &good), (NAME, "a b")],
            "identity.derive_name: \"a b\": has a blank in it; expected a name of 1 to 256 bytes without blanks",
        ),
        (
            &[(IN_FILE, &good), (NAME, "a"), ("SMIDGE__IDENTITY__EPHEMERAL", "true")],
            "identity.ephemeral: a new key each time, and one derived from identity.derive_secret; expected one of the two",
        ),
    ] {
        let error = load(variables).unwrap_err();
        assert!(error.contains(said) && !error.contains("0123456789"), "{error}\nshould say: {said}");
        assert_eq!(error.lines().filter(|line| !line.starts_with("  hint")).count(), 1, "{error}");
    }
}

#[test]
fn a_token_file_that_holds_none_is_refused_and_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    for (content, token) in [("", None), ("\n", None), ("\r\n", None), ("let-me-in\n", Some("let-me-in"))] {
        let file = dir.path().join("token");
        fs::write(&file, content).unwrap();
        let env = env(&[("SMIDGE__API__TOKEN__FILE", file.to_str().unwrap())]);
        let config = Config::load(&LoadOptions { env, ..Default::default() });
        match (token, config) {
            (None, Err(e)) => assert!(
                e.to_string().ends_with(
                    "api.token: the file is empty; expected a token\n  hint: make one: openssl rand -hex 32"
                ),
                "{e}"
            ),
            (Some(token), Ok(config)) => assert_eq!(config.api.token.unwrap().reveal(), token),
            (_, config) => panic!("{content:?}: {config:?}"),
        }
    }
}
