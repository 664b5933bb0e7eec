//! The verbs that talk to a running node, as a person types them.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Instant,
};

use crate::support::{
    PATIENCE,
    daemon::{Daemon, pair, run, smidge},
};
use serde_json::Value;

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Runs a verb with something on its stdin.
pub(crate) fn fed(command: &mut Command, input: &[u8]) -> (i32, String, String) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(input).unwrap();
    drop(writer);
    run(command.stdin(reader))
}

/// A `sub` that runs until it has what it wants; returns when the node streams to it.
pub(crate) fn sub(node: &Daemon, args: &[&str]) -> Child {
    let streams = || {
        let (_, status, _) = node.ask(&["status", "--json"]);
        json(&status)["topics"].to_string()
    };
    let before = streams();
    let child =
        node.asked(&[&["sub"], args].concat()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The topic is not one of the node's own: it is followed as soon as the stream stands.
    let deadline = Instant::now() + PATIENCE;
    while streams() == before {
        assert!(Instant::now() < deadline, "the topic is not followed: {before}");
    }
    child
}

pub(crate) fn ended(child: Child) -> (i32, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn where_no_node_answers_every_verb_says_how_to_start_one() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let peer = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    for args in [
        &["pub", "-t", "t", "-m", "x"][..],
        &["sub", "-t", "t"],
        &["dht", "put", "k", "-m", "v"],
        &["dht", "get", "k"],
        &["dht", "provide", "k"],
        &["dht", "providers", "k"],
        &["dht", "find-peer", peer],
        &["status"],
        &["peers"],
        &["mesh"],
        &["names"],
        &["ping", peer, "--json"],
        &["health"],
        &["ready"],
    ] {
        let (code, out, err) = run(smidge(args).args(["--api", &url]));
        assert_eq!((code, out.as_str()), (69, ""), "{args:?}: {err}");
        let verb = if args[0] == "dht" { args[..2].join(" ") } else { args[0].to_owned() };
        let why = format!("smidge: {verb}: no node answers at {url}: Connection refused (os error 111)\n");
        let hint = "  hint: start one with `smidge run --dial NAME`, or say where it is with --api URL\n";
        assert_eq!(err, why + hint, "{args:?}");
    }
    let (code, _, err) = run(smidge(&["status"]).env("SMIDGE_API", "unix:/nowhere/s.sock"));
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("no node answers at unix:/nowhere/s.sock: No such file"), "{err}");
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for args in [
        &["pub", "-m", "x"][..],
        &["pub", "-t", "t", "-m", "x", "-f", "y"],
        &["pub", "-t", "t", "-m", "x", "--lines"],
        &["pub", "-t", "t", "--timeout", "soon"],
        &["sub"],
        &["dht"],
        &["dht", "get"],
        &["dht", "get", "k", "--quorum", "x"],
        &["ping"],
        &["ping", "nobody"],
        &["ping", "/ip4/10.0.0.1/tcp/0"],
        &["ping", "bootstrap:4001"],
        &["doctor", "--api", "https://127.0.0.1:1"],
        &["ready", "--min-mesh", "1"],
        &["status", "--api", "https://127.0.0.1:1"],
        &["status", "--api", "http://127.0.0.1:x"],
        &["status", "--api", ""],
    ] {
        let (code, out, err) = run(&mut smidge(args));
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(!err.is_empty(), "{args:?}");
    }
}

#[test]
fn a_session_with_two_nodes() {
    let (one, two) = pair("t");
    assert_eq!(one.ask(&["health"]), (0, "live\n".into(), String::new()));
    assert_eq!(
        one.ask(&["ready", "--topic", "t"]),
        (0, "ready: 1 peers, 1 in the mesh\n".into(), String::new())
    );
    let (code, _, err) = one.ask(&["ready", "--min-peers", "2"]);
    assert_eq!(
        (code, err.lines().next()),
        (75, Some("smidge: ready: not ready: 1 of 2 peers are connected"))
    );

    let (_, out, _) = one.ask(&["status"]);
    assert!(out.starts_with(&format!("peer       {}\n", one.peer)), "{out}");
    let (_, out, _) = one.ask(&["status", "--json"]);
    assert_eq!((&json(&out)["peer"], &json(&out)["peers"]), (&one.peer.clone().into(), &1.into()));
    let short = format!("…{}", &two.peer[two.peer.len() - 8..]);
    let (_, out, _) = one.ask(&["peers"]);
    let rows: Vec<Vec<_>> = out.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(
        (rows[0][0], rows[1][0], rows[1][2], rows[1][3]),
        ("PEER", short.as_str(), "direct", "them"),
        "{out}"
    );
    assert!(one.ask(&["peers", "--full"]).1.contains(&two.peer));
    let (_, out, _) = one.ask(&["mesh"]);
    assert_eq!(out, format!("TOPIC  PEERS  WHO\nt      1      {short}\n"));
    let (_, out, _) = two.ask(&["names"]);
    assert!(out.lines().nth(1).is_some_and(|row| row.contains("  connected  ")), "{out}");
    let (_, out, _) = two.ask(&["names", "--json"]);
    assert_eq!(json(&out)["names"][0]["records"][0]["peer"], one.peer.as_str());

    let (code, out, err) = one.ask(&["ping", &two.peer, "-c", "2", "-i", "10ms"]);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!((code, lines.len()), (0, 7), "{out}{err}");
    assert_eq!(lines[0], format!("PING {}: 32 bytes of data", two.peer));
    assert!(lines[1].starts_with(&format!("32 bytes from {short}: seq=1 time=")), "{out}");
    assert_eq!((lines[3], lines[4]), ("", format!("--- {} ping statistics ---", two.peer).as_str()));
    assert!(lines[5].starts_with("2 packets transmitted, 2 received, 0% packet loss, time "), "{out}");
    assert!(lines[6].starts_with("rtt min/avg/max/mdev = ") && lines[6].ends_with(" ms"), "{out}");
}

#[test]
fn ping_takes_addresses_and_learns_who_is_there() {
    let (one, two) = (Daemon::start(&[]), Daemon::start(&[]));
    let address = format!("/ip4/127.0.0.1/udp/{}/quic-v1", two.addr.rsplit(':').next().unwrap());
    let ping = |whom: &str| {
        let (code, out, err) = one.ask(&["ping", whom, "-c", "2", "-i", "1ms", "--json"]);
        (code, json(&out), err)
    };
    // The first node has not heard of the second.
    let (code, record, err) = ping(&address);
    assert_eq!(
        (code, &record["peer"], &record["answered"]),
        (0, &two.peer.clone().into(), &2.into()),
        "{err}"
    );
    assert_eq!(
        (&record["address"], record["rtt_us"]["all"].as_array().map(Vec::len)),
        (&address.clone().into(), Some(2))
    );
    for whom in [
        two.addr.clone(),
        format!("{address}/p2p/{}", two.peer),
        format!("/p2p/{}", two.peer),
        two.peer.clone(),
    ] {
        let (code, record, err) = ping(&whom);
        assert_eq!((code, &record["peer"]), (0, &two.peer.clone().into()), "{whom}: {err}");
    }
    assert_eq!(
        json(&one.ask(&["peers", "--json"]).1)["peers"].as_array().map(Vec::len),
        Some(1),
        "one connection"
    );

    let stranger = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    let (code, out, err) = one.ask(&["ping", &format!("{address}/p2p/{stranger}"), "-c", "1"]);
    assert!(
        code == 1 && out.contains(&format!("is peer {}, expected was {stranger}", two.peer)),
        "{code} {out}{err}"
    );
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, out, err) = one.ask(&["ping", &nobody.to_string(), "-c", "1"]);
    assert!(code == 1 && out.contains("refused the dial"), "{code} {out}");
    assert!(out.contains("1 packets transmitted, 0 received, 100% packet loss"), "{out}");
    assert!(err.starts_with("smidge: ping: no ping was answered\n  hint: "), "{err}");
    let own = format!("/ip4/127.0.0.1/udp/{}/quic-v1", one.addr.rsplit(':').next().unwrap());
    let (code, out, _) = one.ask(&["ping", &own, "-c", "1"]);
    assert!(code == 1 && out.contains("it is this node itself"), "{code} {out}");
}

#[test]
fn ping_goes_over_tcp_where_the_node_dials_over_it_and_is_refused_in_words_elsewhere() {
    const TCP: [&str; 2] = ["--listen", "/ip4/127.0.0.1/tcp/0"];
    let (one, two, quic_only) = (Daemon::start(&TCP), Daemon::start(&TCP), Daemon::start(&[]));
    let status = json(&two.ask(&["status", "--json"]).1);
    let listening = status["listening"].as_array().unwrap().iter().filter_map(|a| a.as_str());
    let tcp = listening.into_iter().find(|a| a.contains("/tcp/")).expect("listening over TCP").to_owned();
    let (code, out, err) = one.ask(&["ping", &tcp, "-c", "1", "--json"]);
    assert_eq!((code, &json(&out)["peer"]), (0, &two.peer.into()), "{err}");
    let peers = json(&one.ask(&["peers", "--json"]).1);
    assert_eq!(peers["peers"][0]["connections"][0]["address"], tcp.as_str());
    let (code, out, _) = quic_only.ask(&["ping", &tcp, "-c", "1"]);
    assert!(code == 1 && out.contains("this node does not dial over tcp (dial.transports)"), "{code} {out}");
}

#[test]
fn what_is_too_large_is_refused_with_the_key_that_bounds_it() {
    let node = Daemon::start(&["--set", "kad.max_value=1KiB", "--set", "api.max_body=2KiB"]);
    let put = |bytes: usize, key: &str| fed(&mut node.asked(&["dht", "put", key]), &vec![b'x'; bytes]);
    for (bytes, key, code, words) in [
        (1025, "k", 1, "kad.max_value = 1024 bytes"),
        (2049, "k", 1, "api.max_body = 2048 bytes"),
        (1, "", 2, "an empty key"),
        (1, &"k".repeat(1025), 2, "a key of 1025 bytes"),
    ] {
        let (got, out, err) = put(bytes, key);
        assert_eq!((got, out.as_str()), (code, ""), "{err}");
        assert!(err.contains(words) && err.contains("  hint: "), "{words}: {err}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len((16 << 20) + 1).unwrap();
    let path = file.path().display().to_string();
    for verb in [&["dht", "put", "k"][..], &["pub", "-t", "t"]] {
        let (code, _, err) = node.ask(&[verb, &["-f", &path]].concat());
        assert!(code == 1 && err.contains("the input is larger than 16MiB"), "{code} {err}");
    }
    let (code, _, err) = node.ask(&["pub", "-t", "t", "-f", "/nowhere/file"]);
    assert!(code == 1 && err.starts_with("smidge: pub: /nowhere/file: No such file"), "{code} {err}");
    let (code, _, err) = node.ask(&["dht", "put", "k", "-m", "v", "--quorum", "some"]);
    assert!(code == 2 && err.contains("bad value of quorum"), "{code} {err}");
}

#[test]
fn a_wrong_api_is_said_to_be_wrong_and_how() {
    for (url, code, words) in [
        ("https://127.0.0.1:4080", 2, "https is not spoken"),
        ("ftp://x", 2, "ftp is not spoken"),
        ("unix:", 2, "an empty path"),
        ("http://nobody.invalid:1", 69, "no node answers at http://nobody.invalid:1"),
    ] {
        let (got, _, err) = run(&mut smidge(&["status", "--api", url]));
        assert!(got == code && err.contains(words) && err.contains("  hint: "), "{url}: {got} {err}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (code, _, err) = run(&mut smidge(&["status", "--api", &format!("unix:{}", path.display())]));
    assert!(
        code == 69 && err.contains("hint: a node that was killed leaves its socket behind"),
        "{code} {err}"
    );
}

#[test]
fn records_and_providers_go_around() {
    let (one, two) = pair("t");
    let value: Vec<u8> = (0..=255).collect();
    let (code, out, err) =
        fed(&mut one.asked(&["dht", "put", "a/b ?", "--quorum", "one", "--ttl", "1h"]), &value);
    assert_eq!((code, out.as_str()), (0, "stored here and confirmed by 1 others\n"), "{err}");
    let got = two.asked(&["dht", "get", "a/b ?"]).output().unwrap();
    assert_eq!((got.status.code(), got.stdout), (Some(0), value));
    let (code, out, err) = two.ask(&["dht", "get", "nothing"]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.starts_with("smidge: dht get: not found: "), "{err}");

    let (code, out, err) = one.ask(&["dht", "provide", "k"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.starts_with("smidge: note: ") && err.contains("--multihash"), "{err}");
    assert_eq!(two.ask(&["dht", "providers", "k"]), (0, format!("{}\n", one.peer), String::new()));
    let (_, out, _) = two.ask(&["dht", "providers", "k", "--json"]);
    assert_eq!(json(&out), serde_json::json!({ "providers": [one.peer] }));
    // Another key, which the API takes as bytes.
    let (code, out, _) = two.ask(&["dht", "providers", "k", "--multihash"]);
    assert_eq!((code, out.as_str()), (0, ""));
    assert_eq!(one.ask(&["dht", "provide", "k", "--multihash"]), (0, String::new(), String::new()));
    let found = (0, format!("{}\n", one.peer), String::new());
    assert_eq!(two.ask(&["dht", "providers", "k", "--multihash"]), found);
    let (code, out, _) = two.ask(&["dht", "find-peer", &one.peer]);
    assert_eq!(code, 0);
    assert!(out.contains(one.addr.rsplit(':').next().unwrap()), "{out}");
    let (code, _, err) = two.ask(&["dht", "find-peer", "nobody"]);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn messages_go_around() {
    let (one, two) = pair("t");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m").display().to_string();
    fs::write(&file, [0xff, 0x00]).unwrap();

    let sub_text = sub(&two, &["-t", "news", "--count", "5"]);
    let (code, out, err) = one.ask(&["pub", "-t", "news", "-m", "first", "--timeout", "60"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("published ") && out.ends_with(" to 1 peers\n"), "{out}");
    let (_, out, _) = one.ask(&["pub", "-t", "news", "-f", &file, "--json"]);
    assert_eq!(json(&out)["peers"], 1);
    fed(&mut one.asked(&["pub", "-t", "news"]), b"from stdin");
    let (code, out, err) = fed(&mut one.asked(&["pub", "-t", "news", "--lines"]), b"line 1\n\nline 2\r\n");
    assert_eq!((code, out.lines().count()), (0, 2), "{err}");
    let heard = ended(sub_text);
    assert_eq!(heard, (0, "first\nbase64:/wA=\nfrom stdin\nline 1\nline 2\n".into(), String::new()));

    let both = sub(&two, &["-t", "x", "-t", "y", "--count", "1", "--json"]);
    one.ask(&["pub", "-t", "y", "-m", "why", "--timeout", "60"]);
    let (code, out, _) = ended(both);
    let record = json(&out);
    assert_eq!((code, &record["topic"], &record["data"]), (0, &"y".into(), &"why".into()));
    assert_eq!(record["source"], one.peer.as_str());
}

#[test]
fn nobody_there_is_a_time_out_and_a_bad_topic_is_not() {
    let node = Daemon::start(&[]);
    let (code, out, err) = node.ask(&["pub", "-t", "lonely", "-m", "x", "--timeout", "100ms"]);
    assert_eq!((code, out.as_str()), (75, ""));
    assert!(err.starts_with("smidge: pub: 0 of 1 peers wanted had subscribed to \"lonely\""), "{err}");
    let (code, _, err) = node.ask(&["pub", "-t", "a\nb", "-m", "x"]);
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = node.ask(&["sub", "-t", "silent", "--count", "1", "--timeout", "100ms"]);
    assert_eq!((code, err.lines().next()), (75, Some("smidge: sub: 0 of 1 messages came in time")));
    let (code, _, err) = node.ask(&["sub", "-t", "silent", "--timeout", "100ms"]);
    assert!(code == 0 && err.starts_with("0 messages, 0 lost, in "), "{code} {err}");
    let stranger = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    let (code, out, _) = node.ask(&["ping", stranger, "-c", "1"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("1 packets transmitted, 0 received, 100% packet loss"), "{out}");
}

#[test]
fn the_node_is_named_before_the_verb_or_behind_it_and_help_is_a_verb() {
    let node = Daemon::start(&[]);
    let live = (0, "live\n".to_owned(), String::new());
    assert_eq!(run(&mut smidge(&["--api", &node.url, "health"])), live);
    assert_eq!(run(&mut smidge(&["health", "--api", &node.url])), live);
    let free = "http://127.0.0.1:1";
    assert_eq!(
        run(&mut smidge(&["--api", free, "health", "--api", &node.url])),
        live,
        "the nearer one holds"
    );
    for verb in [&["run"][..], &["key", "show"], &["demo"]] {
        let (code, _, err) = run(&mut smidge(&[&["--api", free], verb].concat()));
        assert!(code == 2 && err.contains("--api before the verb"), "{verb:?}: {err}");
    }
    let (code, out, _) = run(&mut smidge(&["help", "pub"]));
    assert!(code == 0 && out.contains("smidge pub -t some_topic -m hello"), "{out}");
}

#[test]
fn a_peer_is_named_as_tables_print_it() {
    let (one, two) = pair("t");
    let short = format!("…{}", &two.peer[two.peer.len() - 8..]);
    let (_, out, _) = one.ask(&["peers"]);
    assert!(out.contains(&short), "{out}");
    for part in [&short, &short[3..], &format!("...{}", &two.peer[two.peer.len() - 5..])] {
        let (code, out, err) = one.ask(&["ping", part, "-c", "1"]);
        assert!(code == 0 && out.starts_with(&format!("PING {}: ", two.peer)), "{out}{err}");
    }
    let (code, out, err) = one.ask(&["dht", "find-peer", &short]);
    assert!(code == 0 && out.contains(two.addr.rsplit(':').next().unwrap()), "{out}{err}");
    // All ids begin so.
    let (code, _, err) = one.ask(&["ping", "12D3KooW", "-c", "1"]);
    assert!(code == 2 && err.contains("in the ids of 2 peers") && err.contains(&two.peer), "{err}");
    let (code, _, err) = one.ask(&["ping", "…zzzzzzzz", "-c", "1"]);
    assert!(code == 2 && err.contains("`smidge peers` tells who is connected"), "{err}");
}

#[test]
fn hints_are_in_the_words_of_verbs() {
    let node = Daemon::start(&[]);
    let (_, _, err) = node.ask(&["pub", "-t", "lonely", "-m", "x", "--timeout", "0"]);
    assert!(
        err.contains("`smidge peers` tells who is connected") && err.contains("--timeout 30 waits longer"),
        "{err}"
    );
    assert!(!err.contains("GET "), "{err}");
}

#[test]
fn a_token_is_read_where_the_node_reads_it_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token").display().to_string();
    fs::write(&file, "s3cret\n").unwrap();
    let node = Daemon::start_at("0.0.0.0:0", &["--set", "api.token=s3cret"]);
    let url = node.url.replace("0.0.0.0", "127.0.0.1");
    let asked = |env: &[(&str, &str)]| run(smidge(&["status", "--api", &url]).envs(env.iter().copied()));
    let (code, _, err) = asked(&[]);
    assert_eq!((code, err.lines().next()), (1, Some("smidge: status: this node asks for a token")));
    let (code, out, err) = asked(&[("SMIDGE__API__TOKEN", "wr0ng")]);
    assert!(code == 1 && !out.contains("wr0ng") && !err.contains("wr0ng"), "{out}{err}");
    assert!(
        err.starts_with("smidge: status: this is not the token\n  hint: set SMIDGE__API__TOKEN"),
        "{err}"
    );
    assert_eq!(asked(&[("SMIDGE__API__TOKEN", "s3cret")]).0, 0);
    assert_eq!(asked(&[("SMIDGE__API__TOKEN__FILE", &file)]).0, 0);
    assert_eq!(run(&mut smidge(&["health", "--api", &url])).0, 0, "a probe needs no token");
}

#[test]
fn a_taken_address_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let set = format!("api.listen={addr}");
    let (code, _, err) = run(&mut smidge(&["run", "--set", "identity.ephemeral=true", "--set", &set]));
    assert_eq!(code, 1);
    let why =
        format!("smidge: api: api.listen: cannot listen on {addr}: Address already in use (os error 98)\n");
    assert!(err.contains(&why) && err.contains("hint: another node on this host?"), "{err}");
}

#[test]
fn a_unix_socket_is_private_and_survives_a_killed_node() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let api = format!("unix:{}", path.display());
    let node = Daemon::start_at(&api, &[]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(node.ask(&["health"]).0, 0);
    let (code, _, err) =
        run(&mut smidge(&["run", "--set", "identity.ephemeral=true", "--set", &format!("api.listen={api}")]));
    assert_eq!(code, 1);
    assert!(err.contains("another process answers there"), "{err}");
    drop(node); // killed: its file stays
    assert!(path.exists());
    let node = Daemon::start_at(&api, &[]);
    assert_eq!(node.ask(&["health"]).0, 0);
    assert_eq!(node.stop(), Some(0));
    assert!(!path.exists(), "a node that ends in good order leaves nothing behind");
}

#[test]
fn what_is_no_node_is_said_to_be_none() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", other.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for answer in ["SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"] {
            let (mut stream, _) = other.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let (code, _, err) = run(&mut smidge(&["status", "--api", &url]));
    assert!(code == 69 && err.contains("what answers there speaks no HTTP/1.1"), "{code} {err}");
    let (code, _, err) = run(&mut smidge(&["status", "--api", &url]));
    assert!(code == 69 && err.contains("it closed the connection"), "{code} {err}");
    server.join().unwrap();
}

#[test]
fn what_asks_for_nobody_gets_by_with_nobody() {
    let node = Daemon::start(&[]);
    for quorum in ["one", "majority", "all"] {
        let (code, out, err) = node.ask(&["dht", "put", "k", "-m", "v", "--quorum", quorum]);
        assert_eq!((code, &*out), (0, "stored here and confirmed by 0 others\n"), "{quorum}: {err}");
    }
    let (code, _, err) = node.ask(&["dht", "put", "k", "-m", "v", "--quorum", "1"]);
    assert!(code == 75 && err.contains("0 nodes confirmed the record, 1 had to"), "{code} {err}");
    let (code, out, err) = node.ask(&["pub", "-t", "t", "-m", "hello", "--wait-peers", "0"]);
    assert_eq!((code, &*out), (0, "published to 0 peers: nobody follows t\n"), "{err}");
    let args = ["pub", "-t", "t", "-m", "hello", "--wait-peers", "0", "--json"];
    assert_eq!(node.ask(&args).1.trim_end(), r#"{"id":"","peers":0,"local":0}"#);
    let (code, ..) = node.ask(&["pub", "-t", "t", "-m", "hello", "--timeout", "0"]);
    assert_eq!(code, 75, "one has to be there by default");
}
