//! `smidge doctor --exposure`, as it is printed for configurations that let in different people.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use serde_json::Value;

use crate::support::{
    daemon::{Daemon, run, smidge},
    sandbox,
};

/// A host with an address of the world and one of a private network, too. (RFC 5737, RFC 1918.)
const HOST: &str = "ip link set lo up && ip addr add 203.0.113.7/32 dev lo && ip addr add 10.1.2.3/32 dev lo";

const ANYWHERE: [&str; 3] = ["--set=api.listen=off", "--listen", "/ip4/0.0.0.0/udp/4001/quic-v1"];

fn exposure(args: &[&str]) -> Command {
    smidge(&[&["doctor", "--exposure", "--set=identity.ephemeral=true"], args].concat())
}

/// Who can do it, of the only finding about `subject`: group, verdict, what was found, what to do. The same is in both
/// outputs.
fn who(args: &[&str], subject: &str) -> [String; 4] {
    let (code, out, err) = run(exposure(args).arg("--json"));
    assert_eq!((code, err.as_str()), (0, ""), "it says what is so, and judges nothing: {out}");
    let record: Value = serde_json::from_str(&out).unwrap();
    let all = record["checks"].as_array().unwrap();
    let said: Vec<_> = all.iter().filter(|finding| finding["subject"] == subject).collect();
    let [finding] = said[..] else { panic!("{subject}: {record:#}") };
    let said =
        ["group", "verdict", "found", "advice"].map(|key| finding[key].as_str().unwrap_or("").to_owned());
    let (code, text, _) = run(&mut exposure(args));
    let mut lines =
        text.lines().skip_while(|line| *line != said[0]).skip(1).take_while(|line| line.starts_with(' '));
    let shown = |line: &str| {
        line.trim_start().starts_with(&said[1]) && line.contains(subject) && line.ends_with(&said[2])
    };
    assert!(code == 0 && lines.any(shown), "{said:?}: {text}");
    said
}

#[track_caller]
fn says(said: &[String; 4], group: &str, verdict: &str, found: &str) {
    assert_eq!((said[0].as_str(), said[1].as_str()), (group, verdict), "{said:?}");
    assert!(said[2].contains(found), "{said:?}");
    assert_eq!(said[3].is_empty(), verdict == "ok", "what is to be looked at comes with advice: {said:?}");
}

#[test]
fn a_port_is_open_to_whom_its_address_can_be_reached_by() {
    sandbox::inside(HOST, || {
        for (listen, verdict, who_can) in [
            ("/ip4/127.0.0.1/udp/4001/quic-v1", "ok", "programs on this machine can connect"),
            ("/ip4/10.1.2.3/tcp/4001", "ok", "hosts of the private networks that this one is in can connect"),
            ("/ip4/203.0.113.7/udp/4001/quic-v1", "warn", "anybody that no packet filter stops can connect"),
            ("/ip4/0.0.0.0/udp/4001/quic-v1", "warn", "anybody that no packet filter stops can connect"),
        ] {
            let said = who(&["--set=api.listen=off", "--listen", listen], listen);
            says(&said, "who reaches the port", verdict, who_can);
        }
        let said = who(&["--set=api.listen=off", "--set=listen.addresses="], "no listener");
        says(&said, "who reaches the port", "ok", "nobody can connect");
        // A wildcard is what the running node makes of it.
        let node = Daemon::start(&[]);
        let port = node.addr.rsplit(':').next().unwrap();
        let address = format!("/ip4/127.0.0.1/udp/{port}/quic-v1");
        let said = who(&["--listen", ANYWHERE[2], "--api", &node.url], &address);
        says(&said, "who reaches the port", "ok", "programs on this machine");
    });
}

#[test]
fn a_private_mesh_is_open_to_who_has_its_key() {
    sandbox::inside(HOST, || {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let (_, key, _) = run(&mut smidge(&["key", "network"]));
        fs::write(&file, key).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let key = format!("--set=network.key_file={}", file.display());
        let with = |args: &[&str], subject: &str| who(&[&ANYWHERE[..], args].concat(), subject);
        let said = with(&[&key], ANYWHERE[2]);
        says(
            &said,
            "who reaches the port",
            "ok",
            "anybody that no packet filter stops can begin a handshake",
        );
        assert!(said[2].ends_with("no more past network.key_file"), "{said:?}");
        // A relay is for its own nodes then, and for anybody without.
        let relay = "--set=relay.server=true";
        says(&with(&[relay], "relay.server"), "who comes through others", "warn", "for anybody");
        let said = with(&[relay, &key], "relay.server");
        says(&said, "who comes through others", "ok", "slots");
        assert!(!said[2].contains("anybody"), "{said:?}");
    });
}

#[test]
fn the_api_and_the_link_are_open_to_whom_the_configuration_lets_in() {
    sandbox::inside(HOST, || {
        let api = |args: &[&str], subject: &str| who(&[&ANYWHERE[1..], args].concat(), subject);
        let group = "who reaches the API";
        let said = api(&["--set=api.listen=127.0.0.1:8080"], "127.0.0.1:8080");
        says(&said, group, "ok", "every user of this machine");
        assert!(said[2].ends_with(": everything"), "no token is asked for: {said:?}");
        says(&api(&["--set=api.listen=off"], "api.listen"), group, "ok", "nobody");
        let said = api(&["--set=api.listen=unix:/run/smidge.sock"], "/run/smidge.sock");
        says(&said, group, "ok", "mode 0600");
        let token = ["--set=api.listen=0.0.0.0:8080", "--set=api.token=s3cret-s3cret-s3cret"];
        let said = api(&token, "0.0.0.0:8080");
        says(
            &said,
            group,
            "warn",
            "anybody that no packet filter stops: with the token, everything; without",
        );
        let (_, text, _) = run(&mut exposure(&token));
        assert!(!text.contains("s3cret"), "{text}");

        let link =
            |on: &str| who(&[&ANYWHERE[..], &[&format!("--set=mdns.enabled={on}")]].concat(), "mdns.enabled");
        says(&link("true"), "who is on the link", "ok", "everybody on the link hears the peer id");
        says(&link("false"), "who is on the link", "ok", "nothing is said or heard");
    });
}
