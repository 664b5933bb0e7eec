//! The command as a black box: what is typed, what comes back, and the exit code.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

/// `smidge ARGS…` with an environment of its own.
fn smidge(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smidge"));
    command.args(args).env_clear().env("COLUMNS", "100");
    command
}

/// Runs it, and returns exit code, stdout and stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn said(args: &[&str]) -> (i32, String, String) {
    run(&mut smidge(args))
}

fn shipped(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name).display().to_string()
}

#[test]
fn every_verb_explains_itself_with_an_example() {
    for verb in [
        &["run"][..],
        &["demo"],
        &["key"],
        &["key", "generate"],
        &["key", "show"],
        &["config"],
        &["config", "check"],
        &["config", "show"],
        &["completions"],
        &["pub"],
        &["sub"],
        &["dht"],
        &["dht", "put"],
        &["dht", "get"],
        &["dht", "provide"],
        &["dht", "providers"],
        &["dht", "find-peer"],
        &["status"],
        &["peers"],
        &["mesh"],
        &["names"],
        &["ping"],
        &["health"],
        &["ready"],
        &["doctor"],
    ] {
        let (code, out, err) = said(&[verb, &["--help"]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{verb:?}");
        assert!(
            out.contains("Example:\n") && out.contains(&format!("smidge {}", verb[0])),
            "{verb:?}: {out}"
        );
    }
    let (code, out, _) = said(&["--help"]);
    assert_eq!(code, 0);
    assert!(out.contains("78 bad configuration"), "{out}");
    assert_eq!(said(&["--version"]), (0, format!("smidge {}\n", env!("CARGO_PKG_VERSION")), String::new()));
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for args in [
        &[][..],
        &["runn"],
        &["run", "--wat"],
        &["demo", "--nodes", "0"],
        &["completions", "cmd"],
        &["key", "generate", "a", "b"],
        &["config", "check", "a", "--config", "b"],
    ] {
        let (code, out, err) = said(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(!err.is_empty(), "{args:?}");
    }
    assert!(said(&["runn"]).2.contains("'run'"), "the nearest verb is named");
}

#[test]
fn config_check_of_what_is_shipped() {
    for name in ["smidge.toml", "bootstrap.toml", "peer.toml", "sender.toml"] {
        let path = shipped(name);
        let (code, out, err) = said(&["config", "check", &path]);
        assert_eq!((code, out), (0, format!("{path}: ok\n")), "{err}");
    }
}

#[test]
fn config_check_of_a_bad_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    fs::write(&path, "[gosip]\n[dial]\nnames = [\"peer:0\"]\n").unwrap();
    let path = path.display().to_string();
    let (code, out, err) = said(&["config", "check", &path]);
    assert_eq!((code, out.as_str()), (78, ""));
    assert_eq!(
        err,
        format!(
            "smidge: bad config: {path}:1: gosip: unknown section\n  hint: did you mean [gossip]?\n\
             smidge: bad config: {path}:3: dial.names: \"peer:0\": port 0 cannot be dialed; expected a list, each item \
             NAME:PORT, IP:PORT or a multiaddr such as /ip4/10.0.0.1/udp/4001/quic-v1\n"
        )
    );
    let (code, out, _) = said(&["config", "check", "--json", &path]);
    let record: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &record["ok"], &record["problems"][1]["line"]), (78, &false.into(), &3.into()));

    let (code, _, err) = said(&["config", "check", "/nowhere/c.toml"]);
    assert_eq!(code, 78);
    assert!(err.starts_with("smidge: bad config: /nowhere/c.toml: cannot be read: No such file"), "{err}");
}

#[test]
fn config_show_tells_what_holds_and_why() {
    let (code, out, _) =
        run(smidge(&["config", "show", "--config", &shipped("peer.toml"), "--set", "kad.replication=3"])
            .env("SMIDGE__LOG__FORMAT", "json")
            .env("SMIDGE__API__TOKEN", "hunter2")
            .env("RUST_LOG", "debug"));
    assert_eq!(code, 0);
    for line in [
        "replication = 3 # from --set",
        "format = \"json\" # from SMIDGE__LOG__FORMAT",
        "level = \"debug\" # from RUST_LOG",
        "token = \"********\" # from SMIDGE__API__TOKEN",
        "mesh_n = 6 # default of role peer",
        &format!("names = [\"bootstrap:4001\"] # from {}:17", shipped("peer.toml")),
    ] {
        assert!(out.lines().any(|is| is == line), "no {line:?} in\n{out}");
    }
    let (_, out, _) = said(&["config", "show", "--json"]);
    let record: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(record["gossip.heartbeat"]["value"], "700ms");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    // As in `smidge config show | head -1`, with the pipe closed before the first byte.
    for args in [&["config", "show"][..], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = smidge(args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        assert_eq!((status.code(), String::from_utf8(stderr).unwrap().as_str()), (Some(0), ""), "{args:?}");
    }
    let mut child = smidge(&["config", "show"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "role = \"peer\" # default of role peer\n");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_network_key_is_made_once_and_never_shown_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("network-key").display().to_string();
    let (code, made, err) = said(&["key", "network", &path]);
    assert_eq!((code, err.as_str(), made.len()), (0, "", 9), "a fingerprint: {made}");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("smidge-network-key-1:"), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(said(&["key", "network", "--show", &path]), (0, made.clone(), String::new()));
    let (_, out, _) = said(&["key", "network", "--show", "--json", &path]);
    let record: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(record, serde_json::json!({ "file": path, "fingerprints": [made.trim()] }));

    let (code, out, err) = said(&["key", "network", &path]);
    assert_eq!((code, out.as_str()), (1, ""));
    let expected = format!(
        "smidge: network key: {path}: a file is there already\n  hint: see what it holds: smidge key network --show {path}; or choose another\n"
    );
    assert_eq!(err, expected);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    let (code, first, err) = said(&["key", "network"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let (_, second, _) = said(&["key", "network"]);
    assert!(first.starts_with("smidge-network-key-1:") && first != second, "{first} {second}");

    fs::write(&path, "damaged").unwrap();
    let (code, _, err) = said(&["key", "network", "--show", &path]);
    assert_eq!(code, 78);
    let expected = format!("smidge: network key: {path}: holds no good key: line 1 does not begin with");
    assert!(err.starts_with(&expected), "{err}");
    assert_eq!(said(&["key", "network", "--show"]).0, 2);
}

#[test]
fn a_key_is_generated_once_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key").display().to_string();
    let (code, out, err) = said(&["key", "show", &path]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        format!("smidge: key: {path}: no such key file\n  hint: make one: smidge key generate {path}\n")
    );

    let (code, made, err) = said(&["key", "generate", &path]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(made.starts_with("12D3KooW"), "{made}");

    let (code, out, err) = said(&["key", "generate", &path]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with(&format!("smidge: key: {path}: a key is there already\n  hint: ")), "{err}");

    assert_eq!(said(&["key", "show", &path]), (0, made.clone(), String::new()));
    let set = format!("identity.key_file={path}");
    assert_eq!(said(&["key", "show", "--set", &set]), (0, made.clone(), String::new()));
    let (_, out, _) = said(&["key", "show", "--json", &path]);
    let record: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(record, serde_json::json!({ "peer_id": made.trim(), "file": path, "type": "ed25519" }));

    fs::write(&path, "damaged").unwrap();
    let (code, _, err) = said(&["key", "show", &path]);
    assert_eq!(code, 78);
    assert!(err.starts_with(&format!("smidge: key: {path}: holds no libp2p key")), "{err}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "damaged");
}

#[test]
fn the_key_that_the_configuration_derives_is_shown() {
    let secret = ["--set", "identity.derive_secret=0123456789abcdef", "--set"];
    let show = |name: &str| said(&[&["key", "show"], &secret[..], &[name]].concat());
    let (code, one, err) = show("identity.derive_name=smidge-0");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(one.starts_with("12D3KooW"), "{one}");
    assert_eq!(show("identity.derive_name=smidge-0").1, one);
    assert_ne!(show("identity.derive_name=smidge-1").1, one);
    let (code, _, err) = said(&["key", "show", "--set", "identity.derive_name=smidge-0"]);
    assert_eq!(code, 78, "{err}");
}

#[test]
fn completions_know_the_verbs() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, err) = said(&["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        assert!(out.contains("smidge") && out.contains("generate"), "{shell}");
    }
}

#[test]
fn run_refuses_a_bad_configuration_before_anything_starts() {
    for (args, why) in [
        (&["--dial", "peer:0"][..], "--dial: dial.names: \"peer:0\": port 0 cannot be dialed"),
        (&["--listen", "0.0.0.0"], "--listen: listen.addresses: \"0.0.0.0\": is no multiaddr: "),
        (&["--topic", ""], "--topic: gossip.topics: an empty topic"),
        (&["--set", "log.level=inof"], "--set: log.level: "),
        (&["--set", "limits.commands=0"], "--set: limits.commands: 0 is out of range"),
    ] {
        let (code, out, err) = said(&[&["run"], args].concat());
        assert_eq!((code, out.as_str()), (78, ""), "{args:?}: {err}");
        assert!(err.starts_with(&format!("smidge: bad config: {why}")), "{args:?}: {err}");
    }
}
