//! How MQTT clients come in: over TLS, with and without certificates of their own, and over WebSocket.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustix::process::Signal;

use crate::support::{
    PATIENCE,
    daemon::{Daemon, run, smidge},
};

/// An authority, and the folder that its files are in.
struct Authority {
    certificate: Certificate,
    key: KeyPair,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("ca"), certificate.pem()).unwrap();
        Self { certificate, key, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Makes `name`.crt and `name`.key.
    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.certificate, &self.key).unwrap();
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn sets(&self, name: &str) -> [String; 2] {
        [("tls_cert", "crt"), ("tls_key", "key")]
            .map(|(key, end)| format!("mqtt.{key}={}", self.path(&format!("{name}.{end}"))))
    }
}

fn args(sets: &[String]) -> Vec<&str> {
    sets.iter().flat_map(|set| ["--set", set]).collect()
}

/// A node with MQTT over TLS on a free port; the port.
fn over_tls(sets: &[String]) -> (Daemon, String) {
    let node = Daemon::start(&[&["--set", "mqtt.listen=127.0.0.1:0"][..], &args(sets)].concat());
    let port = node.line("mqtt listening on mqtts://127.0.0.1:").split(',').next().unwrap().to_owned();
    (node, port)
}

/// What mosquitto_pub says of one message, with the exit code in front.
fn publish(port: &str, more: &[&str]) -> String {
    let usual = ["-h", "localhost", "-p", port, "-q", "1", "-t", "a", "-m", "x", "-d"];
    let (code, stdout, stderr) = run(Command::new("mosquitto_pub").args(usual).args(more));
    format!("{code} {stdout}{stderr}")
}

#[test]
fn mosquittos_clients_come_over_tls_of_both_versions_and_see_who_it_is() {
    let ours = Authority::new("ours");
    ours.issue("node", ExtendedKeyUsagePurpose::ServerAuth);
    let (_node, port) = over_tls(&ours.sets("node"));
    for version in ["tlsv1.2", "tlsv1.3"] {
        let said = publish(&port, &["--cafile", &ours.path("ca"), "--tls-version", version]);
        assert!(said.starts_with('0') && said.contains("received PUBACK"), "{version}: {said}");
    }
    let foreign = Authority::new("foreign");
    let said = publish(&port, &["--cafile", &foreign.path("ca")]);
    assert!(!said.contains("CONNACK"), "{said}");
    let said = publish(&port, &["--cafile", &ours.path("ca"), "--insecure", "-V", "mqttv5"]);
    assert!(said.contains("received PUBACK (Mid: 1, RC:0)"), "{said}");
}

#[test]
fn a_client_has_to_show_a_certificate_where_there_are_authorities_for_them() {
    let ours = Authority::new("ours");
    ours.issue("node", ExtendedKeyUsagePurpose::ServerAuth);
    let clients = Authority::new("clients");
    clients.issue("sensor", ExtendedKeyUsagePurpose::ClientAuth);
    let foreign = Authority::new("clients");
    foreign.issue("sensor", ExtendedKeyUsagePurpose::ClientAuth);
    let mut sets = ours.sets("node").to_vec();
    sets.push(format!("mqtt.tls_ca={}", clients.path("ca")));
    let (node, port) = over_tls(&sets);
    let by = |authority: &Authority, version: &str| {
        let (cert, key) = (authority.path("sensor.crt"), authority.path("sensor.key"));
        let more = ["--cafile", &ours.path("ca"), "--tls-version", version, "--cert", &cert, "--key", &key];
        publish(&port, &more)
    };
    for version in ["tlsv1.2", "tlsv1.3"] {
        assert!(by(&clients, version).contains("received PUBACK"), "{version}");
        assert!(!by(&foreign, version).contains("CONNACK"), "{version}");
        let without = publish(&port, &["--cafile", &ours.path("ca"), "--tls-version", version]);
        assert!(!without.contains("CONNACK"), "{without}");
    }
    let (_, metrics, _) = run(Command::new("curl").args(["-s", &format!("{}/metrics", node.url)]));
    assert!(metrics.lines().any(|line| line == "smidge_mqtt_not_admitted_total 4"), "{metrics}");
}

#[test]
fn certificates_are_read_again_and_stay_as_they_were_where_they_cannot_be_used() {
    let (ours, next) = (Authority::new("ours"), Authority::new("next"));
    ours.issue("node", ExtendedKeyUsagePurpose::ServerAuth);
    next.issue("node", ExtendedKeyUsagePurpose::ServerAuth);
    let (node, port) = over_tls(&ours.sets("node"));
    let believes = |authority: &Authority| {
        publish(&port, &["--cafile", &authority.path("ca")]).contains("received PUBACK")
    };
    assert!(believes(&ours) && !believes(&next));
    // One of two files is there, the other one not yet.
    fs::copy(next.path("node.crt"), ours.path("node.crt")).unwrap();
    node.signal(Signal::HUP);
    let said = node.line("MQTT's certificates stay as they were: ");
    assert!(said.contains("is not that of the certificate in") && said.contains("node.crt"), "{said}");
    assert!(believes(&ours));
    fs::copy(next.path("node.key"), ours.path("node.key")).unwrap();
    node.signal(Signal::HUP);
    let mut tries = 0;
    while !believes(&next) {
        tries += 1;
        assert!(tries < 600, "the new certificate is not shown");
    }
    assert!(!believes(&ours));
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_reason() {
    let ours = Authority::new("ours");
    ours.issue("node", ExtendedKeyUsagePurpose::ServerAuth);
    ours.issue("other", ExtendedKeyUsagePurpose::ServerAuth);
    fs::write(ours.path("text"), "nothing\n").unwrap();
    fs::write(ours.path("broken"), "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n").unwrap();
    let refused = |cert: &str, key: &str, ca: &str| {
        let mut sets = vec!["mqtt.listen=127.0.0.1:0".to_owned()];
        for (name, file) in [("tls_cert", cert), ("tls_key", key), ("tls_ca", ca)] {
            if !file.is_empty() {
                sets.push(format!("mqtt.{name}={}", ours.path(file)));
            }
        }
        let usual = ["run", "--set", "identity.ephemeral=true", "--api", "off"];
        let (code, _, stderr) = run(&mut smidge(&[&usual[..], &args(&sets)].concat()));
        assert_eq!(code, 78, "{stderr}");
        stderr
    };
    for (cert, key, ca, says) in [
        ("node.crt", "", "", "the key that it belongs to, go together"),
        ("", "", "ca", "clients can show certificates where the node shows one"),
        ("missing", "node.key", "", "mqtt.tls_cert: cannot read"),
        ("text", "node.key", "", "text has no part that begins with -----BEGIN CERTIFICATE-----"),
        ("broken", "node.key", "", "broken is no PEM file"),
        ("node.crt", "node.crt", "", "node.crt has no part that begins with -----BEGIN PRIVATE KEY-----"),
        ("node.crt", "other.key", "", "other.key is not that of the certificate in"),
        ("node.crt", "node.key", "text", "mqtt.tls_ca: "),
    ] {
        let said = refused(cert, key, ca);
        assert!(said.contains(says), "{cert} {key} {ca}: {said}");
    }
}

/// A node with MQTT over WebSocket on a free port; its address.
fn over_websocket(more: &[&str]) -> (Daemon, String) {
    let node = Daemon::start(&[&["--set", "mqtt.websocket=127.0.0.1:0"][..], more].concat());
    let rest = node.line("mqtt listening on ws://");
    let address = rest.split('/').next().unwrap().to_owned();
    (node, address)
}

/// A connection that has asked for WebSocket, and the head of the answer.
fn upgrade(address: &str, more: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n{more}\r\n"
    );
    // Where there is no place, it is closed without a word.
    let _ = stream.write_all(request.as_bytes());
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

/// A short frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let masked = payload.iter().enumerate().map(|(n, byte)| byte ^ mask[n % 4]);
    [first, 0x80 | payload.len() as u8].into_iter().chain(mask).chain(masked).collect()
}

fn read(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, expected);
}

const HELLO: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x";

#[test]
fn mqtt_in_websocket_is_cut_as_it_comes_and_pages_of_elsewhere_are_refused() {
    let (_node, address) = over_websocket(&["--set", "mqtt.origins=https://panel.example.org"]);
    let (_, head) = upgrade(&address, "Origin: https://elsewhere.example.org\r\n");
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let (mut stream, head) = upgrade(&address, "Origin: https://panel.example.org\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    // CONNECT in two frames with a ping between them, then SUBSCRIBE and PUBLISH in one.
    let said = [
        frame(0x02, &HELLO[..5]),
        frame(0x89, b"?"),
        frame(0x80, &HELLO[5..]),
        frame(0x82, b"\x82\x06\x00\x01\x00\x01a\x00\x30\x04\x00\x01ax"),
    ];
    stream.write_all(&said.concat()).unwrap();
    let mut heard = Vec::new();
    let mut data = Vec::new();
    while data.len() < 4 + 5 + 6 {
        let mut head = [0; 2];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[1])];
        stream.read_exact(&mut payload).unwrap();
        match head[0] {
            0x82 => data.extend_from_slice(&payload),
            first => heard.push((first, payload)),
        }
    }
    assert_eq!(data, b"\x20\x02\x00\x00\x90\x03\x00\x01\x00\x30\x04\x00\x01ax");
    assert_eq!(heard, [(0x8a, b"?".to_vec())]);
    stream.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
    read(&mut stream, b"\x88\x02\x03\xe8");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    // Text is none of it [MQTT-6.0.0-1].
    let (mut stream, _) = upgrade(&address, "");
    stream.write_all(&frame(0x81, b"hello")).unwrap();
    read(&mut stream, b"\x88\x02\x03\xeb");
}

#[test]
fn who_says_nothing_or_no_http_gives_way_in_time_and_others_come_in() {
    let sets = ["--set", "mqtt.connections=4", "--set", "mqtt.connect_timeout=1s"];
    let (_node, address) = over_websocket(&sets);
    let mut silent: Vec<_> = (0..4).map(|_| TcpStream::connect(&address).unwrap()).collect();
    silent[0].write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x\r\n\r\n").unwrap();
    silent[1].write_all(b"GET /mqtt HTTP/1.1\r\nHost: ").unwrap();
    for stream in &mut silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The end, or a reset: it sent what nobody read.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let mut tries = 0;
    let (mut stream, _) = loop {
        let (stream, head) = upgrade(&address, "");
        if head.starts_with("HTTP/1.1 101 ") {
            break (stream, head);
        }
        tries += 1;
        assert!(tries < 600, "no place for a client that behaves");
        std::thread::sleep(Duration::from_millis(20));
    };
    stream.write_all(&frame(0x82, HELLO)).unwrap();
    read(&mut stream, b"\x82\x04\x20\x02\x00\x00");
}

#[test]
fn a_websocket_that_is_a_unix_socket_and_one_over_tls_say_so() {
    let ours = Authority::new("ours");
    ours.issue("node", ExtendedKeyUsagePurpose::ServerAuth);
    let socket = ours.path("mqtt.sock");
    let mut sets = ours.sets("node").to_vec();
    sets.extend(["mqtt.websocket=127.0.0.1:0".into(), format!("mqtt.listen=unix:{socket}")]);
    let node = Daemon::start(&args(&sets));
    let said = node.line("mqtt listening on unix:");
    assert!(said.starts_with(&socket), "{said}");
    let rest = node.line("mqtt listening on wss://");
    assert!(rest.split(',').next().unwrap().ends_with("/mqtt"), "{rest}");
    assert!(Path::new(&socket).exists());
    // curl sees the certificate, and what is missing in its request.
    let (port, url) = (rest.split(['/', ':']).nth(1).unwrap(), "https://localhost");
    let url = format!("{url}:{port}/mqtt");
    let (code, answer, stderr) = run(Command::new("curl").args(["-s", "--cacert", &ours.path("ca"), &url]));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(answer, "here is MQTT over WebSocket, and nothing else\n");
}

#[test]
fn ten_thousand_connections_that_say_nothing_whole_do_not_keep_a_client_from_its_acknowledgements() {
    let sets = ["--set", "mqtt.connections=200", "--set", "mqtt.connect_timeout=1s"];
    let node = Daemon::start(&[&["--set", "mqtt.listen=127.0.0.1:0"][..], &sets].concat());
    let address = node.line("mqtt listening on mqtt://").split(',').next().unwrap().to_owned();
    let mut good = TcpStream::connect(&address).unwrap();
    good.set_read_timeout(Some(PATIENCE)).unwrap();
    good.write_all(HELLO).unwrap();
    read(&mut good, b"\x20\x02\x00\x00");
    let mut held = std::collections::VecDeque::new();
    for n in 0..10_000_u32 {
        let mut stream = TcpStream::connect(&address).unwrap();
        // The beginning of a CONNECT; an error says that it was one too many.
        let _ = stream.write_all(&HELLO[..(n as usize % HELLO.len())]);
        held.push_back(stream);
        if held.len() > 300 {
            held.pop_front();
        }
        if n % 100 == 0 {
            good.write_all(b"\x32\x06\x00\x01a\x00\x07x").unwrap();
            read(&mut good, b"\x40\x02\x00\x07");
        }
    }
    drop(held);
    // And others find a place again.
    let mut tries = 0;
    loop {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 4];
        let hello = [&HELLO[..HELLO.len() - 1], b"y"].concat();
        if stream.write_all(&hello).is_ok() && stream.read_exact(&mut answer).is_ok() {
            assert_eq!(answer, [0x20, 2, 0, 0]);
            break;
        }
        tries += 1;
        assert!(tries < 600, "no place for a client that behaves");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_floods_and_never_reads_does_not_keep_others_waiting() {
    let node = Daemon::start(&["--set", "mqtt.listen=127.0.0.1:0"]);
    let address = node.line("mqtt listening on mqtt://").split(',').next().unwrap().to_owned();
    let mut good = TcpStream::connect(&address).unwrap();
    good.set_read_timeout(Some(PATIENCE)).unwrap();
    good.write_all(HELLO).unwrap();
    read(&mut good, b"\x20\x02\x00\x00");
    // Subscribed to itself and everything, a thousand times; then as much as it can say, and nothing read.
    let mut flood = TcpStream::connect(&address).unwrap();
    flood.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    flood.write_all(&[&HELLO[..HELLO.len() - 1], b"f"].concat()).unwrap();
    flood.write_all(&b"\x82\x06\x00\x01\x00\x01#\x00".repeat(1000)).unwrap();
    let publish = [&b"\x30\xe9\x07\x00\x01a"[..], &[b'x'; 998]].concat();
    let burst = publish.repeat(1000);
    for _ in 0..50 {
        // An error says that it is not read for now.
        if flood.write_all(&burst).is_err() {
            break;
        }
    }
    for pid in 1..=50_u8 {
        good.write_all(&[0x32, 6, 0, 1, b'b', 0, pid, b'x']).unwrap();
        read(&mut good, &[0x40, 2, 0, pid]);
    }
}
