//! Bad input, a row each: what is fed, and the exact error.

use proptest::prelude::*;

use super::*;

#[test]
fn a_bad_file_is_refused_with_line_key_and_what_was_expected() {
    let table = [
        // Keys.
        ("\n[gosip]\ntopics = []", "c.toml:2: gosip: unknown section\n  hint: did you mean [gossip]?"),
        ("[gossip]\nmesh-n = 3", "c.toml:2: gossip.mesh-n: unknown key\n  hint: did you mean gossip.mesh_n?"),
        ("[gossip]\ntopix = []", "c.toml:2: gossip.topix: unknown key\n  hint: did you mean gossip.topics?"),
        ("[dial]\nname = []", "c.toml:2: dial.name: unknown key\n  hint: did you mean dial.names?"),
        ("heartbeat = \"1s\"", "c.toml:1: heartbeat: unknown key\n  hint: did you mean gossip.heartbeat?"),
        (
            "[dial]\nkey_file = \"x\"",
            "c.toml:2: dial.key_file: unknown key\n  hint: did you mean identity.key_file?",
        ),
        ("xyzzy = 1", "c.toml:1: xyzzy: unknown key"),
        ("[limits.more]\nx = 1", "c.toml:1: limits.more: unknown key"),
        ("\"a\\nb\" = 1", "c.toml:1: \"a\\nb\": unknown key"),
        (
            "dial = 3",
            "c.toml:1: dial: is a section, not a key; expected a table: a line [dial], and its keys below",
        ),
        // Types.
        (
            "[gossip]\nmesh_n = \"6\"",
            "c.toml:2: gossip.mesh_n: found the text \"6\"; expected a whole number",
        ),
        ("[gossip]\nmesh_n = 6.5", "c.toml:2: gossip.mesh_n: found the number 6.5; expected a whole number"),
        ("[gossip]\nmesh_n = -1", "c.toml:2: gossip.mesh_n: -1 is out of range; expected a whole number"),
        (
            "[gossip]\nscoring = \"yes\"",
            "c.toml:2: gossip.scoring: found the text \"yes\"; expected true or false",
        ),
        (
            "[gossip]\ntopics = \"a\"",
            "c.toml:2: gossip.topics: found the text \"a\"; expected a list, each item a topic of 1 to 256 bytes",
        ),
        ("[log]\nformat = []", "c.toml:2: log.format: found a list; expected \"text\" or \"json\""),
        ("[log.format]\na = 1", "c.toml:1: log.format: found a table; expected \"text\" or \"json\""),
        ("[log]\nformat = 2020-01-01", "c.toml:2: log.format: found a date; expected \"text\" or \"json\""),
        ("role = \"boss\"", "c.toml:1: role: found \"boss\"; expected \"bootstrap\", \"peer\" or \"sender\""),
        (
            "role = \"Peers\"",
            "c.toml:1: role: \"Peers\": did you mean \"peer\"?; expected \"bootstrap\", \"peer\" or \"sender\"",
        ),
        // Durations and sizes.
        (
            "[gossip]\nheartbeat = 5",
            "c.toml:2: gossip.heartbeat: found the number 5; expected a duration such as \"700ms\", \"1s\" or \"36h\"",
        ),
        (
            "[gossip]\nheartbeat = \"5\"",
            "c.toml:2: gossip.heartbeat: \"5\": no unit behind 5 (write \"5s\" for seconds); expected a duration such as \"700ms\", \"1s\" or \"36h\"",
        ),
        (
            "[gossip]\nheartbeat = \"1ms\"",
            "c.toml:2: gossip.heartbeat: 1ms is out of range; expected 50ms to 1m",
        ),
        (
            "[gossip]\nmax_message = \"64kib\"",
            "c.toml:2: gossip.max_message: \"64kib\": unknown unit \"kib\" (known: B, KiB, MiB, GiB, kB, MB, GB); expected a size such as \"64KiB\" or \"64MiB\"",
        ),
        (
            "[gossip]\nmax_message = 99",
            "c.toml:2: gossip.max_message: 99B is out of range; expected 128B to 16MiB",
        ),
        // Bounds.
        ("[limits]\nconnections = 0", "c.toml:2: limits.connections: 0 is out of range; expected 1 to 65536"),
        (
            "[limits]\nmemory = \"1MiB\"",
            "c.toml:2: limits.memory: 1MiB is out of range; expected 8MiB or more",
        ),
        (
            "[kad]\nreplication = 0",
            "c.toml:2: kad.replication: 0 is out of range; expected a whole number, 1 or more",
        ),
        ("[kad]\nreplication = 21", "c.toml:2: kad.replication: 21 is out of range; expected 1 to 20"),
        (
            "[quic]\ninitial_mtu = 70000",
            "c.toml:2: quic.initial_mtu: 70000 is out of range; expected a whole number",
        ),
        // Names and addresses; the line is the item's own.
        (
            "[dial]\nnames = [\n  \"a:1\",\n  \"b:0\",\n]",
            "c.toml:4: dial.names: \"b:0\": port 0 cannot be dialed; expected a list, each item NAME:PORT, IP:PORT or a multiaddr such as /ip4/10.0.0.1/udp/4001/quic-v1",
        ),
        (
            "[dial]\nnames = [\"/ip4//udp/4001\"]",
            "c.toml:2: dial.names: \"/ip4//udp/4001\": has an empty part (\"//\"); expected a list, each item NAME:PORT, IP:PORT or a multiaddr such as /ip4/10.0.0.1/udp/4001/quic-v1",
        ),
        (
            "[dial]\naddresses = [\"peer:4001\"]",
            "c.toml:2: dial.addresses: \"peer:4001\": is no multiaddr with an IP address (names belong into dial.names); expected a list, each item /ip4|ip6/ADDRESS/udp/PORT/quic-v1[/p2p/ID] or /ip4|ip6/ADDRESS/tcp/PORT[/p2p/ID]",
        ),
        (
            "[dial]\naddresses = [\"/ip4/1.2.3.4/udp/0/quic-v1\"]",
            "c.toml:2: dial.addresses: \"/ip4/1.2.3.4/udp/0/quic-v1\": port 0 cannot be dialed; expected a list, each item /ip4|ip6/ADDRESS/udp/PORT/quic-v1[/p2p/ID] or /ip4|ip6/ADDRESS/tcp/PORT[/p2p/ID]",
        ),
        (
            "[listen]\naddresses = [\"/ip4/0.0.0.0/sctp/4001\"]",
            "c.toml:2: listen.addresses: \"/ip4/0.0.0.0/sctp/4001\": has /sctp/4001 where /udp/PORT/quic-v1 or /tcp/PORT belongs; expected a list, each item IP:PORT, /ip4|ip6/ADDRESS/udp/PORT/quic-v1 or /ip4|ip6/ADDRESS/tcp/PORT",
        ),
        (
            "[listen]\naddresses = [\"/ip4/0.0.0.0/udp/1/quic-v1\", \"/ip4/0.0.0.0/udp/1/quic-v1\"]",
            "c.toml:2: listen.addresses: the same address twice; expected each address once",
        ),
        // Relays and NATs.
        (
            "[nat]\npunch = true",
            "c.toml:2: nat.punch: holes are punched where peers are connected through a relay, and this node uses none; expected relay.through or relay.client, too",
        ),
        (
            "[relay]\nthrough = [\"relay\"]\n[nat]\npunch = true\n[listen]\naddresses = []",
            "c.toml:4: nat.punch: a hole is punched from the port of a listener, and there is none; expected listen.addresses, too",
        ),
        (
            "[dial]\naddresses = [\"/ip4/1.2.3.4/tcp/1/p2p/12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz/p2p-circuit/p2p/12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz\"]",
            "c.toml:2: dial.addresses: /ip4/1.2.3.4/tcp/1/p2p/12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz/p2p-circuit/p2p/12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz is behind a relay, and this node dials through none; expected relay.client = true, too",
        ),
        (
            "[relay]\nthrough = [\"/ip4/1.2.3.4/tcp/1/p2p/12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz/p2p-circuit/p2p/12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz\"]",
            "c.toml:2: relay.through: /ip4/1.2.3.4/tcp/1/p2p/12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz/p2p-circuit/p2p/12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz is behind a relay itself; expected the relay's own name or address",
        ),
        (
            "[dial]\naddresses = [\"/ip4/1.2.3.4/tcp/1/p2p-circuit\"]",
            "c.toml:2: dial.addresses: \"/ip4/1.2.3.4/tcp/1/p2p-circuit\": has no relay's peer id before /p2p-circuit; expected a list, each item /ip4|ip6/ADDRESS/udp/PORT/quic-v1[/p2p/ID] or /ip4|ip6/ADDRESS/tcp/PORT[/p2p/ID]",
        ),
        (
            "[dial]\naddresses = [\"/ip4/1.2.3.4/tcp/1/p2p/12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz/p2p-circuit\"]",
            "c.toml:2: dial.addresses: \"/ip4/1.2.3.4/tcp/1/p2p/12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz/p2p-…\": has something else than one /p2p/ID behind /p2p-circuit; expected a list, each item /ip4|ip6/ADDRESS/udp/PORT/quic-v1[/p2p/ID] or /ip4|ip6/ADDRESS/tcp/PORT[/p2p/ID]",
        ),
        (
            "[relay]\nreservations = 2",
            "c.toml:2: relay.reservations: reservations_per_peer is 4 and reservations is 2; expected reservations_per_peer ≤ reservations",
        ),
        (
            "[listen]\nexternal = [\"/ip4/0.0.0.0/tcp/4001\"]",
            "c.toml:2: listen.external: \"/ip4/0.0.0.0/tcp/4001\": is nobody's address; expected a list, each item /ip4|ip6/ADDRESS/udp/PORT/quic-v1 or /ip4|ip6/ADDRESS/tcp/PORT",
        ),
        (
            "[gossip]\ntopics = [\"a\", \"\"]",
            "c.toml:2: gossip.topics: an empty topic; expected a list, each item a topic of 1 to 256 bytes",
        ),
        (
            "[kad]\nprotocol = \"kad\"",
            "c.toml:2: kad.protocol: \"kad\": does not start with \"/\"; expected a protocol such as /smidge/kad/1.0.0",
        ),
        (
            "[kad]\nmax_bytes = \"64KiB\"",
            "c.toml:2: kad.max_bytes: max_value is 65536B and max_bytes is 65536B; expected max_value at most half of max_bytes",
        ),
        (
            "[kad]\nstore = \"redis\"",
            "c.toml:2: kad.store: \"redis\": is neither \"memory\" nor has a \"/\" in it; expected \"memory\" or a path such as \"/var/lib/smidge/records\"",
        ),
        (
            "[dns]\nservers = [\"dns.example\"]",
            "c.toml:2: dns.servers: \"dns.example\": is no address; expected a list, each item IP or IP:PORT",
        ),
        (
            "[api]\nlisten = \"4080\"",
            "c.toml:2: api.listen: \"4080\": is no address with a port; expected IP:PORT, \"unix:/PATH\" or \"off\"",
        ),
        (
            "[api]\nlisten = \"unix:smidge.sock\"",
            "c.toml:2: api.listen: \"unix:smidge.sock\": the path of the socket is not absolute; expected IP:PORT, \"unix:/PATH\" or \"off\"",
        ),
        (
            "[log]\nlevel = \"inof\"",
            "c.toml:2: log.level: \"inof\": no level \"inof\" (did you mean \"info\"?); expected a level, or TARGET=LEVEL with commas between, such as \"info,libp2p_kad=debug\"",
        ),
        (
            "[node]\nname = \"living room\"",
            "c.toml:2: node.name: \"living room\": has a blank or a special character in it; expected a name of 1 to 64 bytes: letters, digits, and any of -_.@+ (or \"\" for none)",
        ),
        (
            "[node]\nname = \"a\\u202eb\"",
            "c.toml:2: node.name: \"a\\u{202e}b\": has a blank or a special character in it; expected a name of 1 to 64 bytes: letters, digits, and any of -_.@+ (or \"\" for none)",
        ),
        (
            "[node]\nname = \"{{.Task.Slot}}\"",
            "c.toml:2: node.name: \"{{.Task.Slot}}\": is a template that nobody filled in; expected a name of 1 to 64 bytes: letters, digits, and any of -_.@+ (or \"\" for none)",
        ),
        // Keys that belong together.
        (
            "[gossip]\nmesh_n_low = 7",
            "c.toml:2: gossip.mesh_n_low: mesh_n_low is 7 and mesh_n is 6; expected mesh_n_low ≤ mesh_n ≤ mesh_n_high",
        ),
        (
            "[gossip]\nmesh_n = 13",
            "c.toml:2: gossip.mesh_n: mesh_n is 13 and mesh_n_high is 12; expected mesh_n_low ≤ mesh_n ≤ mesh_n_high",
        ),
        (
            "[gossip]\nmesh_n = 5\nmesh_outbound_min = 3",
            "c.toml:3: gossip.mesh_outbound_min: mesh_outbound_min is 3 and mesh_n is 5; expected mesh_outbound_min at most half of mesh_n",
        ),
        (
            "[gossip]\nmesh_n_low = 1",
            "c.toml:2: gossip.mesh_n_low: mesh_outbound_min is 2 and mesh_n_low is 1; expected mesh_outbound_min ≤ mesh_n_low",
        ),
        (
            "[quic]\nidle_timeout = \"2s\"",
            "c.toml:2: quic.idle_timeout: keep_alive is 2.5s and idle_timeout is 2s; expected keep_alive < idle_timeout, or silent connections are lost",
        ),
        (
            "[tcp]\nkeep_alive = \"9s\"",
            "c.toml:2: tcp.keep_alive: keep_alive is 9s and idle_timeout is 8s; expected keep_alive < idle_timeout, or silent connections are lost",
        ),
        (
            "[dial]\ntransports = [\"tcp\", \"quic\", \"tcp\"]",
            "c.toml:2: dial.transports: the same transport twice; expected each transport once",
        ),
        (
            "[dial]\ntransports = [\"udp\"]",
            "c.toml:2: dial.transports: found \"udp\"; expected a list, each item \"quic\" or \"tcp\"",
        ),
        (
            "[quic]\nmax_mtu = 1300\ninitial_mtu = 1400",
            "c.toml:2: quic.max_mtu: initial_mtu is 1400 and max_mtu is 1300; expected initial_mtu ≤ max_mtu",
        ),
        (
            "[limits]\nconnections = 1",
            "c.toml:2: limits.connections: per_peer is 2 and connections is 1; expected per_peer ≤ connections",
        ),
        (
            "[api]\nlisten = \"0.0.0.0:4080\"",
            "c.toml:2: api.listen: an address that others can reach needs api.token; expected a loopback address, or a token\n  hint: listen on 127.0.0.1, or set SMIDGE__API__TOKEN__FILE",
        ),
        (
            "[publish]\ndata = \"1,2,300\"",
            "c.toml:2: publish.data: \"300\" is no byte; expected numbers from 0 to 255 with commas between, such as \"1,2,3,4\"",
        ),
        (
            "[publish]\nencoding = \"base64\"\ndata = \"A\"",
            "c.toml:3: publish.data: is not base64: invalid length at 0; expected base64 with its padding, such as \"AQIDBA==\"",
        ),
        (
            "[publish]\nevery = \"1ms\"",
            "c.toml:2: publish.every: 1ms is too often; expected 0s, or 10ms and more",
        ),
        (
            "[relay]\ncircuit_duration = \"1ms\"",
            "c.toml:2: relay.circuit_duration: 1ms is too short; expected 0s for no limit, or 1s and more",
        ),
        // No TOML.
        ("a = \n", "c.toml:1: not TOML, at column 5: string values must be quoted, expected literal string"),
        ("[dial]\nnames = []\nnames = []", "c.toml:3: not TOML, at column 1: duplicate key"),
    ];
    let wrong =
        table.iter().map(|(text, said)| (text, refusal(text), said)).filter(|(_, is, said)| is != **said);
    let wrong: Vec<_> = wrong.map(|(text, is, said)| format!("{text}\n is   {is}\n said {said}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_problem_is_reported_and_none_that_only_follows_from_another() {
    let text = "role = \"x\"\n[gossip]\nmesh_n = \"a\"\nmesh_n_low = 9\ntopics = [\"\"]\nfoo = 1\n[quic]\nkeep_alive = \"1h\"";
    let keys: Vec<_> =
        load(text).unwrap_err().problems.into_iter().map(|p| (p.at.line(), p.key.unwrap())).collect();
    let keys: Vec<_> = keys.iter().map(|(line, key)| (line.unwrap(), key.as_str())).collect();
    // mesh_n_low = 9 is over mesh_n, but mesh_n is not known; mesh_outbound_min is right.
    assert_eq!(
        keys,
        [(6, "gossip.foo"), (1, "role"), (5, "gossip.topics"), (3, "gossip.mesh_n"), (8, "quic.keep_alive")]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let said = |path: &Path| {
        let options = LoadOptions { file: Some(path.into()), ..LoadOptions::default() };
        let text = Config::load(&options).unwrap_err().to_string();
        text.replace(&format!("{}/", dir.path().display()), "")
    };
    assert_eq!(
        said(&path),
        "c.toml: cannot be read: No such file or directory (os error 2)\n  hint: check the path"
    );
    fs::write(&path, b"role = \"peer\"\n# \xff\n").unwrap();
    assert_eq!(said(&path), "c.toml:2: is not UTF-8");
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(said(&path), "c.toml: is larger than 1024 KiB");
    fs::create_dir(dir.path().join("d")).unwrap();
    assert_eq!(said(&dir.path().join("d")), "d: cannot be read: it is a directory");
}

#[test]
fn a_secret_is_never_quoted() {
    let text = refusal("[api]\ntoken = \"hunter2 hunter2\"");
    assert_eq!(
        text,
        "c.toml:2: api.token: has a blank or a special character; expected printable ASCII characters without blanks (or \"\" for none)"
    );
    assert!(!refusal("[api]\ntoken = 31337").contains("31337"));
}

#[test]
fn a_configuration_made_in_code_is_checked_the_same_way() {
    let mut config = Config::default();
    config.check().unwrap();
    config.limits.commands = 0;
    config.gossip.mesh_n = 1;
    assert_eq!(
        config.check().unwrap_err().to_string(),
        "default of role peer: limits.commands: 0 is out of range; expected 1 to 65536\n\
         default of role peer: gossip.mesh_n_low: mesh_n_low is 4 and mesh_n is 1; expected mesh_n_low ≤ mesh_n ≤ mesh_n_high\n\
         default of role peer: gossip.mesh_outbound_min: mesh_outbound_min is 2 and mesh_n is 1; expected mesh_outbound_min at most half of mesh_n"
    );
}

#[test]
fn what_was_not_compiled_in_is_refused() {
    for (backend, there) in
        [("hickory", cfg!(feature = "hickory")), ("async-dns", cfg!(feature = "async-dns"))]
    {
        let text = format!("[dns]\nbackend = {backend:?}");
        let none_at_all = !cfg!(feature = "hickory") && !cfg!(feature = "async-dns");
        if there || (none_at_all && backend == "hickory") {
            load(&text).unwrap();
        } else {
            let said = format!(
                "c.toml:2: dns.backend: this binary was built without the feature {backend}; expected a backend that was compiled in"
            );
            assert_eq!(refusal(&text), said);
        }
    }
    for (text, key, feature, there, expected) in [
        ("[mdns]\nenabled = true", "mdns.enabled", "mdns", cfg!(feature = "mdns"), "false"),
        ("[kad]\nstore = \"/r\"", "kad.store", "store", cfg!(feature = "store"), "\"memory\""),
    ] {
        if there {
            load(text).unwrap();
        } else {
            let said = format!(
                "c.toml:2: {key}: this binary was built without the feature {feature}; expected {expected}"
            );
            assert_eq!(refusal(text), said);
        }
    }
    load("[mdns]\nenabled = false\n[kad]\nstore = \"memory\"").unwrap();
    load("[runtime]\nexecutor = \"smol\"").unwrap();
    if !cfg!(feature = "async-std") {
        assert_eq!(
            refusal("[runtime]\nexecutor = \"async-std\""),
            "c.toml:2: runtime.executor: \"async-std\": this binary was built without the feature async-std; expected \"smol\" or \"async-std\""
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        fs::write(&file, bytes).unwrap();
        let _ = Config::load(&LoadOptions { file: Some(file), ..LoadOptions::default() });
    }

    #[test]
    fn any_value_of_any_key_is_read_or_refused_and_what_is_read_is_shown(
        key in 0..KEYS.len(),
        value in ".{0,30}|[0-9]{1,6}[a-zA-Z]{0,3}|\\[.{0,20}\\]|[a-z0-9./:,\\[\\]\"-]{0,40}",
    ) {
        let set = format!("{}={value}", KEYS[key].name);
        if let Ok(config) = Config::load(&LoadOptions { sets: vec![set], ..LoadOptions::default() }) {
            let again = load(&config.toml().replace("********", "x")).unwrap();
            let differs = config.changes(&again);
            prop_assert!(differs.live.is_empty() && differs.restart.iter().all(|key| *key == "api.token"), "{differs:?}");
        }
    }

    #[test]
    fn any_toml_under_any_section_is_read_or_refused(section in "[a-z.]{0,10}", text in "([a-z_]{1,10} ?= ?.{0,15}\n){0,4}") {
        let _ = load(&format!("[{section}]\n{text}"));
        let _ = load(&format!("[gossip]\n{text}"));
    }
}
