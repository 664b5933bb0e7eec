//! The HTTP API: what it answers, and what it does with callers that are wrong, slow, many or hostile.

use std::{fs, time::Duration};

use crate::support::http::{Api, parse};
use crate::support::{Network, TOPIC, run};
use futures::{
    AsyncReadExt, AsyncWriteExt, StreamExt,
    future::{join, join_all},
    stream,
};
use libp2p::identity::Keypair;
use smidge::{
    Config, Message, Node, PublishOptions, Verdict, config::ApiListen, gateway::Bound, runtime::Executor,
};

/// A peer id that nobody has.
const STRANGER: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

/// A node of its own, with an API.
async fn alone(net: &Network, change: impl FnOnce(&mut Config)) -> (smidge::Client, Api) {
    let mut config = net.config(2, &[]);
    change(&mut config);
    let node = net.spawn(config.clone());
    let api = Api::serve(net, &node, config).await;
    (node, api)
}

/// Two nodes in one mesh, and their APIs.
async fn pair(net: &Network, change: impl Fn(&mut Config)) -> [(smidge::Client, Api); 2] {
    net.set("one", [2]);
    let nodes = [(2, &[][..]), (3, &["one"])].map(|(n, names)| {
        let mut config = net.config(n, names);
        change(&mut config);
        (net.spawn(config.clone()), config)
    });
    for (node, _) in &nodes {
        net.meshed(node, 1).await;
        net.table(node, 1).await;
    }
    let [one, two] = nodes.map(async |(node, config)| {
        let api = Api::serve(net, &node, config).await;
        (node, api)
    });
    [one.await, two.await]
}

#[test]
fn every_bad_input_gets_a_status_and_a_hint_and_harms_nobody() {
    run(async |net| {
        let (_node, api) = alone(&net, |config| {
            config.api.max_body = 1000;
            config.api.max_header = 2048;
            config.kad.max_value = 500;
            config.gossip.max_message = 600;
        })
        .await;
        let host = format!("Host: {}\r\nConnection: close\r\n", api.addr);
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\n{host}\r\n");
        let post = |path: &str, headers: &str, body: &str| {
            format!("POST {path} HTTP/1.1\r\n{host}{headers}\r\n{body}")
        };
        let long = "x".repeat(3000);
        let many = "A: b\r\n".repeat(70);
        let big = "x".repeat(501);
        let topic = "/v1/topics/t";
        let chunked = "Transfer-Encoding: chunked\r\n";
        for (input, status, error) in [
            // What is no HTTP.
            ("\r\n\r\nnonsense\r\n\r\n".to_owned(), 400, "no HTTP request"),
            ("\x16\x03\x01\x02\x00\x01\n".to_owned(), 400, "no HTTP request"),
            (format!("GET /healthz HTTP/1.1\r\n{host}A b\r\n\r\n"), 400, "no HTTP request"),
            (format!("GET /healthz HTTP/1.1\r\n{host}A: \0\r\n\r\n"), 400, "no HTTP request"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505, "not HTTP/1.1"),
            // Heads that are too large.
            (get(&format!("/{long}")), 414, "api.max_header = 2048"),
            (format!("GET /healthz HTTP/1.1\r\n{host}A: {long}\r\n\r\n"), 431, "api.max_header = 2048"),
            (format!("GET /healthz HTTP/1.1\r\n{many}{host}\r\n"), 431, "or more than 64"),
            // Who asks.
            ("GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), 400, "no header Host"),
            (format!("GET /healthz HTTP/1.1\r\n{host}{host}\r\n"), 400, "more than one header Host"),
            (
                "GET /v1/status HTTP/1.1\r\nConnection: close\r\nHost: evil.example\r\n\r\n".to_owned(),
                403,
                "the Host",
            ),
            (
                "GET /v1/status HTTP/1.1\r\nConnection: close\r\nHost: 0.0.0.0:4080\r\n\r\n".to_owned(),
                403,
                "the Host",
            ),
            (
                format!("GET /v1/dht/k HTTP/1.1\r\n{host}User-Agent: Mozilla/5.0\r\n\r\n"),
                403,
                "does not say which page",
            ),
            (post(topic, "Origin: http://evil.example\r\nContent-Length: 0\r\n", ""), 403, "another origin"),
            (post(topic, "Origin: null\r\nContent-Length: 0\r\n", ""), 403, "another origin"),
            (post(topic, "Sec-Fetch-Site: cross-site\r\n", ""), 403, "another origin"),
            // Where to.
            (get("//"), 404, "no such path"),
            (get("/?x"), 400, "an unknown parameter"),
            (post("/", "Content-Length: 0\r\n", ""), 405, "no such method"),
            (get("//"), 404, "no such path"),
            (get("/?x"), 400, "an unknown parameter"),
            (post("/", "Content-Length: 0\r\n", ""), 405, "no such method"),
            (get("/v1/status/"), 404, "no such path"),
            (get("/v1/nothing"), 404, "no such path"),
            (get("http://127.0.0.1/healthz"), 400, "no path"),
            (get("/v1/topics/%zz"), 400, "a % without"),
            (get("/v1/topics/%f"), 400, "a % without"),
            (get("/v1/topics/%ff"), 400, "no UTF-8"),
            (get("/v1/topics/"), 400, "bad topic: an empty topic"),
            (get("/v1/topics/a%0Ab"), 400, "bad topic: has a control character"),
            (get(&format!("/v1/topics/{}", "x".repeat(257))), 400, "bad topic: is 257 bytes long"),
            (get("/v1/dht/"), 400, "an empty key"),
            (get(&format!("/v1/dht/{}", "x".repeat(1025))), 400, "a key of 1025 bytes"),
            (get("/v1/peers/nobody"), 400, "no peer id"),
            (get("/v1/peers/nobody/ping"), 400, "no peer id"),
            // How.
            (post("/healthz", "Content-Length: 0\r\n", ""), 405, "no such method"),
            (format!("DELETE {topic} HTTP/1.1\r\n{host}\r\n"), 405, "no such method"),
            (format!("OPTIONS {topic} HTTP/1.1\r\n{host}\r\n"), 405, "no such method"),
            (format!("BREW {topic} HTTP/1.1\r\n{host}\r\n"), 405, "no such method"),
            // With what.
            (get("/v1/status?x=1"), 400, "an unknown parameter \"x\""),
            (get("/readyz?min_peers=few"), 400, "bad value of min_peers"),
            (get("/readyz?min_peers=-1"), 400, "bad value of min_peers"),
            (get("/readyz?min_peers=1&min_peers=2"), 400, "given twice"),
            (get("/readyz?min_mesh=1"), 400, "min_mesh without a topic"),
            (get("/readyz?topic=%ff"), 400, "no UTF-8"),
            (get("/v1/dht/k?quorum=0"), 400, "bad value of quorum"),
            (get("/v1/dht/k?quorum=all"), 400, "bad value of quorum"),
            (get("/v1/topics/t?from=0"), 400, "an unknown parameter"),
            (get("/v1/topics/t?split=lines"), 400, "an unknown parameter"),
            (post(&format!("{topic}?split=words"), "Content-Length: 0\r\n", ""), 400, "bad value of split"),
            (
                post(&format!("{topic}?timeout=soon"), "Content-Length: 0\r\n", ""),
                400,
                "bad value of timeout",
            ),
            (post(&format!("{topic}?timeout=2h"), "Content-Length: 0\r\n", ""), 400, "bad value of timeout"),
            (
                format!("PUT /v1/dht/k?ttl=0 HTTP/1.1\r\n{host}Content-Length: 1\r\n\r\nx"),
                400,
                "bad value of ttl",
            ),
            // Bodies.
            (post(topic, "Content-Length: 1001\r\n", ""), 413, "api.max_body = 1000"),
            (post(topic, "Content-Length: 18446744073709551615\r\n", ""), 413, "api.max_body = 1000"),
            (post(topic, chunked, "3e9\r\n"), 413, "api.max_body = 1000"),
            (post(topic, chunked, "ffffffffffffffff\r\n"), 413, "api.max_body = 1000"),
            (post(topic, chunked, "zz\r\n"), 400, "a chunk without a size"),
            (post(topic, chunked, "1\r\nxy\r\n"), 400, "a chunk longer than its size"),
            (post(topic, chunked, "1;a\nb\r\nx\r\n0\r\n\r\n"), 400, "a control character in a chunk"),
            (
                format!("POST {topic} HTTP/1.0\r\n{host}{chunked}\r\n1\r\nx\r\n0\r\n\r\n"),
                400,
                "Transfer-Encoding in HTTP/1.0",
            ),
            (post(topic, "Content-Length: one\r\n", ""), 400, "Content-Length is no number"),
            (post(topic, "Content-Length: 1\r\nContent-Length: 2\r\n", ""), 400, "more than one header"),
            (
                post(topic, "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", ""),
                400,
                "both Content-Length",
            ),
            (post(topic, "Transfer-Encoding: gzip\r\n", ""), 501, "a transfer coding"),
            (post(topic, "Expect: miracles\r\nContent-Length: 1\r\n", "x"), 417, "an unknown expectation"),
            (
                format!("PUT /v1/dht/k HTTP/1.1\r\n{host}Content-Length: 501\r\n\r\n{big}"),
                413,
                "kad.max_value = 500",
            ),
            (post(topic, "Content-Length: 700\r\n", &"x".repeat(700)), 413, "gossip.max_message"),
            // What the node cannot do.
            (get("/readyz"), 503, "not ready: 0 of 1 peers"),
            (get("/readyz?topic=t"), 503, "not ready: 0 of 1 peers are in the mesh of \"t\""),
            (get("/v1/dht/nothing"), 404, "not found"),
            (get(&format!("/v1/peers/{STRANGER}")), 404, "not found"),
            (get(&format!("/v1/peers/{STRANGER}/ping")), 504, "no ping answer"),
            (
                post(&format!("{topic}?timeout=50ms"), "Content-Length: 1\r\n", "x"),
                504,
                "0 of 1 peers wanted",
            ),
        ] {
            let shown: String = input.chars().take(120).collect();
            let answer = net.patiently(&shown, api.raw(input.as_bytes())).await;
            let record = answer.json();
            let said = record["error"].as_str().unwrap_or_default();
            assert_eq!(answer.status, status, "{shown:?}: {record}");
            assert!(said.contains(error), "{shown:?}: {error:?} is not in {said:?}");
            assert!(record["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{shown:?}: {record}");
            assert!(answer.head.contains("Content-Type: application/json"), "{shown:?}");
        }
        let allowed = api.ask("DELETE", "/v1/dht/k", b"").await;
        assert!(allowed.head.contains("Allow: GET, PUT, HEAD"), "{}", allowed.head);
        assert_eq!(api.get("/healthz").await.json(), serde_json::json!({ "live": true }));
    });
}

#[test]
fn half_open_silent_and_slow_callers_are_let_go() {
    run(async |net| {
        let (_node, api) = alone(&net, |config| {
            config.api.header_timeout = Duration::from_millis(300);
            config.api.body_timeout = Duration::from_millis(300);
        })
        .await;
        let half = net.patiently("half a head", api.raw(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")).await;
        assert_eq!(
            (half.status, half.json()["error"].as_str().unwrap().contains("api.header_timeout")),
            (408, true)
        );
        let request =
            format!("POST /v1/topics/t HTTP/1.1\r\nHost: {}\r\nContent-Length: 9\r\n\r\nhalf", api.addr);
        let half = net.patiently("half a body", api.raw(request.as_bytes())).await;
        assert_eq!(
            (half.status, half.json()["error"].as_str().unwrap().contains("api.body_timeout")),
            (408, true)
        );

        let mut silent = api.connect().await;
        let mut nothing = Vec::new();
        net.patiently("the end of a silent connection", silent.read_to_end(&mut nothing)).await.unwrap();
        assert!(nothing.is_empty());

        // A byte at a time buys no more time than a whole head.
        let (mut answer, mut slow) = api.connect().await.split();
        let trickle = async {
            for byte in b"GET /healthz HTTP/1.1\r\nA: ".iter().chain(std::iter::repeat(&b'x')) {
                if slow.write_all(&[*byte]).await.is_err() {
                    break;
                }
                net.rt.sleep(Duration::from_millis(20)).await;
            }
        };
        let mut answered = Vec::new();
        let both = join(trickle, answer.read_to_end(&mut answered));
        let (_, read) = net.patiently("a slow caller to be let go", both).await;
        read.unwrap();
        let answered = parse(&answered);
        assert_eq!(
            (answered.status, answered.json()["error"].as_str().unwrap().contains("api.header_timeout")),
            (408, true)
        );

        // Closing one's own half is no reason not to be answered.
        let mut closed = api.connect().await;
        closed
            .write_all(format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", api.addr).as_bytes())
            .await
            .unwrap();
        closed.close().await.unwrap();
        let mut answer = Vec::new();
        closed.read_to_end(&mut answer).await.unwrap();
        assert_eq!(parse(&answer).status, 200);
        assert_eq!(api.get("/healthz").await.status, 200);
    });
}

#[test]
fn one_connection_carries_many_requests() {
    run(async |net| {
        let (_node, api) = alone(&net, |_| {}).await;
        let host = format!("Host: {}\r\n", api.addr);
        let last = format!(
            "PUT /v1/dht/k?quorum=one HTTP/1.1\r\n{host}Connection: close\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        );
        let all = format!(
            "GET /healthz HTTP/1.1\r\n{host}\r\nGET /nope HTTP/1.1\r\n{host}\r\nHEAD /v1/status HTTP/1.1\r\n{host}\r\n{last}"
        );
        let mut stream = api.connect().await;
        stream.write_all(all.as_bytes()).await.unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.unwrap();
        let statuses: Vec<_> =
            answers.lines().filter(|l| l.starts_with("HTTP/1.1 ")).map(|l| &l[9..12]).collect();
        assert_eq!(statuses[..4], ["200", "404", "200", "100"], "{answers}");
        assert_eq!(api.get("/v1/dht/k").await.body, b"abc");
        let old = api.raw(b"GET /healthz HTTP/1.0\r\n\r\n").await;
        assert_eq!((old.status, old.head.contains("Connection: close")), (200, true));
    });
}

#[test]
fn where_others_can_ask_they_need_the_token() {
    run(async |net| {
        let (_node, api) = alone(&net, |config| {
            config.api.listen = ApiListen::Tcp(([0, 0, 0, 0], 0).into());
            config.api.token = Some("s3cret".to_owned().into());
        })
        .await;
        let ask = async |path: &str, headers: &str| {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: node-1:4080\r\nConnection: close\r\n{headers}\r\n");
            api.raw(request.as_bytes()).await
        };
        assert_eq!(ask("/v1/status", "Authorization: Bearer s3cret\r\n").await.status, 200);
        assert_eq!(ask("/healthz", "").await.status, 200, "a probe needs no token");
        for wrong in [
            "",
            "Authorization: Bearer s3cre\r\n",
            "Authorization: Basic s3cret\r\n",
            "Authorization: s3cret\r\n",
        ] {
            for path in ["/v1/status", "/metrics", "/readyz", "/v1/topics/t", "/nothing"] {
                let answer = ask(path, wrong).await;
                assert_eq!(answer.status, 401, "{path} {wrong}");
                assert!(answer.head.contains("WWW-Authenticate: Bearer"), "{}", answer.head);
                assert!(!answer.text().contains("s3cre"), "{}", answer.text());
            }
        }
    });
}

#[test]
fn two_nodes_do_through_http_what_they_do_through_rust() {
    run(async |net| {
        let [(one, at_one), (two, at_two)] = pair(&net, |_| {}).await;
        let mut stream = at_two.follow("n%C3%A9ws").await;
        let receipt =
            at_one.ask("POST", "/v1/topics/n%C3%A9ws?wait_peers=1&timeout=60", "é\n\n".as_bytes()).await;
        assert_eq!((receipt.status, &receipt.json()["peers"]), (200, &1.into()));
        let (name, record) = net.patiently("an event", stream.event()).await.unwrap();
        assert_eq!(name, "message");
        assert_eq!(
            (&record["data"], &record["base64"], &record["bytes"]),
            (&"é\n\n".into(), &false.into(), &4.into())
        );
        assert_eq!((&record["id"], &record["topic"]), (&receipt.json()["id"], &"néws".into()));
        assert_eq!(record["source"], one.peer_id().to_string());
        at_one.ask("POST", "/v1/topics/n%C3%A9ws", &[0xff, 0x00]).await;
        let (_, record) = net.patiently("an event", stream.event()).await.unwrap();
        assert_eq!((&record["data"], &record["base64"]), (&"/wA=".into(), &true.into()));

        let value: Vec<u8> = (0..=255).collect();
        let stored = at_one.ask("PUT", "/v1/dht/%00%2F?quorum=one&ttl=60", &value).await;
        assert_eq!(stored.json(), serde_json::json!({ "confirmed": 1 }));
        let found = at_two.get("/v1/dht/%00%2F?quorum=1").await;
        assert_eq!((found.status, found.body), (200, value));
        assert_eq!(at_one.ask("POST", "/v1/dht/k/providers", b"").await.status, 200);
        let id = one.peer_id().to_string();
        assert_eq!(at_two.get("/v1/dht/k/providers").await.json(), serde_json::json!({ "providers": [id] }));
        let pinged = at_two.get(&format!("/v1/peers/{id}/ping")).await;
        assert!(pinged.json()["rtt_us"].as_u64().is_some_and(|rtt| rtt > 0), "{}", pinged.text());
        let found = at_two.get(&format!("/v1/peers/{id}")).await;
        assert_eq!(found.json()["addresses"][0], net.addr(2).to_string());

        assert_eq!(at_one.get("/v1/status").await.json()["peer"], id);
        assert_eq!(at_one.get("/v1/peers").await.json()["peers"][0]["peer"], two.peer_id().to_string());
        assert_eq!(at_two.get("/v1/names").await.json()["names"][0]["records"][0]["state"], "connected");
        assert_eq!(at_two.get("/v1/mesh").await.json()["topics"][TOPIC], serde_json::json!([id]));
        let ready = at_one.get(&format!("/readyz?min_peers=1&topic={TOPIC}&min_mesh=1")).await;
        assert_eq!(
            ready.json(),
            serde_json::json!({ "ready": true, "peers": 1, "gossip_off": 0, "mesh": 1 })
        );

        two.shutdown().await.unwrap();
        let (name, _) = net.patiently("the end", stream.event()).await.unwrap();
        assert_eq!(
            (name.as_str(), stream.line().await.as_deref(), stream.line().await),
            ("end", Some(""), None)
        );
        assert_eq!(at_two.get("/healthz").await.status, 503);
        assert_eq!(at_two.get("/v1/status").await.status, 503);
    });
}

/// The lines of an answer of many receipts.
fn receipts(answer: &crate::support::http::Answer) -> Vec<serde_json::Value> {
    assert!(answer.head.contains("Transfer-Encoding: chunked"), "{}", answer.head);
    let (mut rest, mut text) = (answer.body.as_slice(), Vec::new());
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            assert_eq!(rest, b"\r\n");
            break;
        }
        text.extend_from_slice(&rest[..size]);
        rest = rest[size..].strip_prefix(b"\r\n").unwrap();
    }
    text.split_inclusive(|b| *b == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect()
}

#[test]
fn a_body_of_many_lines_is_as_many_messages_and_each_has_its_receipt_in_order() {
    const LINES: usize = 3000;
    run(async |net| {
        let [(_one, at_one), (two, _)] = pair(&net, |config| {
            config.limits.events = 2 * LINES;
            // Fewer than are under way at once.
            config.limits.pending = 8;
        })
        .await;
        let mut heard = two.subscribe("t").await.unwrap();
        let body: String = (0..LINES).map(|n| format!("line {n}\n\r\n")).collect();
        let path = "/v1/topics/t?split=lines&wait_peers=1&timeout=60";
        let answer = net.patiently("receipts", at_one.ask("POST", path, body.as_bytes())).await;
        assert_eq!(answer.status, 200);
        let receipts = receipts(&answer);
        assert_eq!(receipts.len(), LINES);
        for (n, receipt) in receipts.iter().enumerate() {
            let message = net.message(&mut heard).await;
            assert_eq!(message.data[..], *format!("line {n}").as_bytes());
            assert_eq!(*receipt, serde_json::json!({ "id": message.id, "peers": 1, "local": 0 }));
        }
        assert_eq!(heard.lost(), 0);
    });
}

#[test]
fn what_is_refused_of_many_messages_has_the_refusal_in_its_place() {
    run(async |net| {
        let [(_one, at_one), (two, _)] = pair(&net, |config| {
            config.api.max_body = 1000;
            config.gossip.max_message = 500;
        })
        .await;
        let mut heard = two.subscribe("t").await.unwrap();
        let frame = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
        let path = "/v1/topics/t?split=frames&timeout=60";
        let body =
            [frame(b"\n\0"), frame(&[1; 501]), frame(&[2; 1001]), frame(b""), b"\0\0\0\x09cut".to_vec()]
                .concat();
        let answer = net.patiently("receipts", at_one.ask("POST", path, &body)).await;
        let receipts = receipts(&answer);
        let status = |n: usize| receipts[n]["status"].as_u64();
        assert_eq!((0..5).map(status).collect::<Vec<_>>(), [None, Some(413), Some(413), None, Some(400)]);
        let error = |n: usize| receipts[n]["error"].as_str().unwrap();
        assert!(error(1).contains("gossip.max_message") && error(2).contains("api.max_body"), "{receipts:?}");
        assert!(error(4).contains("ends within a frame"), "{receipts:?}");
        assert_eq!(net.message(&mut heard).await.data[..], *b"\n\0");
        assert_eq!(net.message(&mut heard).await.data[..], *b"");

        // The same connection, chunks that know nothing of lines, and another request after it.
        let host = format!("Host: {}\r\n", at_one.addr);
        let start =
            format!("POST /v1/topics/t?split=lines HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n");
        let rest = format!(
            "2\r\nab\r\n4\r\nc\nde\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
        );
        let answers = net.patiently("both", at_one.raw([start, rest].concat().as_bytes())).await;
        let text = answers.text();
        assert_eq!(
            (text.matches("\"peers\":1").count(), text.matches("{\"live\":true}").count()),
            (2, 1),
            "{text}"
        );
        assert_eq!(net.message(&mut heard).await.data[..], *b"abc");
        assert_eq!(net.message(&mut heard).await.data[..], *b"de");

        for (path, version, status) in
            [("?split=words", "1.1", 400), ("?split=lines&x=1", "1.1", 400), ("?split=lines", "1.0", 505)]
        {
            let request =
                format!("POST /v1/topics/t{path} HTTP/{version}\r\n{host}Content-Length: 0\r\n\r\n");
            assert_eq!(at_one.raw(request.as_bytes()).await.status, status, "{path}");
        }
    });
}

#[test]
fn who_sends_many_messages_and_goes_loses_none_that_has_a_receipt() {
    run(async |net| {
        let [(_one, at_one), (two, _)] =
            pair(&net, |config| config.api.body_timeout = Duration::from_millis(500)).await;
        let mut heard = two.subscribe("t").await.unwrap();
        let start = format!(
            "POST /v1/topics/t?split=lines&timeout=60 HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000000\r\n\r\n",
            at_one.addr
        );
        let mut stream = at_one.connect().await;
        stream.write_all([start.as_str(), "one\ntwo\nthr"].concat().as_bytes()).await.unwrap();
        let mut told = Vec::new();
        while String::from_utf8_lossy(&told).matches("\"peers\":1").count() < 2 {
            let mut some = [0; 512];
            let n = net.patiently("receipts", stream.read(&mut some)).await.unwrap();
            assert!(n > 0, "{:?}", String::from_utf8_lossy(&told));
            told.extend_from_slice(&some[..n]);
        }
        drop(stream);
        assert_eq!(net.message(&mut heard).await.data[..], *b"one");
        assert_eq!(net.message(&mut heard).await.data[..], *b"two");
        // And who stays, and says nothing more, is told so.
        let mut stream = at_one.connect().await;
        stream.write_all([start.as_str(), "three\n"].concat().as_bytes()).await.unwrap();
        let mut told = String::new();
        net.patiently("the end", stream.read_to_string(&mut told)).await.unwrap();
        assert!(told.contains("\"peers\":1") && told.contains("api.body_timeout"), "{told}");
        assert_eq!(net.message(&mut heard).await.data[..], *b"three", "the third line never came whole");
    });
}

#[test]
fn topics_that_were_left_leave_nothing_behind() {
    const TOPICS: usize = 300;
    run(async |net| {
        let (node, api) = alone(&net, |config| {
            config.limits.subscriptions = TOPICS;
            config.api.streams = TOPICS;
            config.api.connections = TOPICS + 10;
            // The loop often has no time to hear of it.
            config.limits.commands = 1;
        })
        .await;
        let before = node.status().await.unwrap().topics;
        for round in 0..2 {
            let names: Vec<_> = (0..TOPICS).map(|n| format!("left-{round}-{n}")).collect();
            let streams = join_all(names.iter().map(|name| api.follow(name))).await;
            assert_eq!(node.status().await.unwrap().topics.len(), before.len() + TOPICS);
            drop(streams);
            let before = &before;
            let left = |c: smidge::Client| async move { c.status().await.unwrap().topics == *before };
            net.until("the topics to be left", &node, left).await;
        }
        assert!(!api.get("/metrics").await.text().contains("left-"));
    });
}

#[test]
fn a_slow_reader_is_told_what_it_lost_and_holds_up_nobody() {
    const TOTAL: u64 = 800;
    run(async |net| {
        let [(one, _), (_two, at_two)] = pair(&net, |config| config.limits.events = 32).await;
        let mut slow = at_two.follow("t").await;
        let mut quick = at_two.follow("t").await;
        let options = PublishOptions { wait_peers: Some(1), timeout: crate::support::PATIENCE };
        for n in 0..TOTAL {
            // More than the sockets between take in, from a reader that does not read.
            one.publish("t", format!("{n:0>40000}"), options).await.unwrap();
            let (name, record) = net.patiently("an event", quick.event()).await.unwrap();
            let said: u64 = record["data"].as_str().unwrap().parse().unwrap();
            assert_eq!((name.as_str(), said), ("message", n), "the quick one gets everything");
        }
        assert_eq!(at_two.get("/healthz").await.status, 200);
        let (mut heard, mut lost, mut next) = (0, 0, 0);
        while heard + lost < TOTAL {
            let (name, record) = net.patiently("an event", slow.event()).await.unwrap();
            if name == "lost" {
                let n = record["lost"].as_u64().unwrap();
                lost += n;
                next += n;
            } else {
                heard += 1;
                assert_eq!(
                    record["data"].as_str().unwrap().parse(),
                    Ok(next),
                    "in order, and lost where it says"
                );
                next += 1;
            }
        }
        assert!(lost > 0 && heard >= 32, "{heard} heard, {lost} lost");
        let metrics = at_two.get("/metrics").await.text();
        for count in
            ["smidge_api_stream_messages_lost_total", "smidge_events_lost_total{stream=\"messages\"}"]
        {
            assert!(metrics.contains(&format!("{count} {lost}\n")), "{metrics}");
        }
    });
}

#[test]
fn a_reader_that_takes_nothing_is_let_go() {
    run(async |net| {
        let [(one, _), (two, at_two)] = pair(&net, |config| {
            config.limits.events = 32;
            config.api.write_timeout = Duration::from_millis(300);
        })
        .await;
        let _stuck = at_two.follow("t").await;
        let options = PublishOptions { wait_peers: Some(1), timeout: Duration::from_millis(500) };
        // Once it is gone nobody follows the topic any more, and nobody is there to publish to.
        net.patiently("nobody to be there", async {
            while one.publish("t", vec![b'x'; 40_000], options).await.is_ok() {}
        })
        .await;
        net.until("the topic to be left", &two, |two| async move {
            !two.status().await.unwrap().topics.contains(&"t".to_owned())
        })
        .await;
    });
}

#[test]
fn a_thousand_idle_streams_are_served_and_bounded() {
    const STREAMS: usize = 1000;
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let more = rustix::process::Rlimit { current: files.maximum, ..files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, more).unwrap();
    run(async |net| {
        let [(one, _), (two, at_two)] = pair(&net, |config| {
            config.api.connections = STREAMS + 50;
            config.api.streams = STREAMS;
            config.limits.subscriptions = STREAMS + 1;
            config.api.keep_alive = Duration::from_millis(500);
        })
        .await;
        let before = resident();
        let mut streams: Vec<_> =
            stream::iter(0..STREAMS).map(|_| at_two.follow("t")).buffer_unordered(20).collect().await;
        let each = (resident().saturating_sub(before)) / STREAMS;
        assert!(each < 64 << 10, "{each} bytes for each idle stream, both of its ends counted");

        let refused = at_two.get("/v1/topics/t").await;
        assert_eq!((refused.status, refused.head.contains("Retry-After: 1")), (429, true));
        assert!(refused.text().contains("api.streams"), "{}", refused.text());
        let metrics = at_two.get("/metrics").await.text();
        assert!(metrics.contains(&format!("smidge_api_streams {STREAMS}\n")), "{metrics}");
        for stream in streams.iter_mut().take(3) {
            assert_eq!(net.patiently("a sign of life", stream.line()).await.as_deref(), Some(": still here"));
        }

        let options = PublishOptions { wait_peers: Some(1), timeout: crate::support::PATIENCE };
        one.publish("t", "to all", options).await.unwrap();
        let all = net
            .patiently(
                "a message everywhere",
                join_all(streams.iter_mut().map(crate::support::http::Stream::event)),
            )
            .await;
        assert!(all.iter().all(|e| e.as_ref().is_some_and(|(_, record)| record["data"] == "to all")));

        drop(streams);
        net.until("the topic to be left by all", &two, |two| async move {
            !two.status().await.unwrap().topics.contains(&"t".to_owned())
        })
        .await;
        at_two.follow("t").await;
    });
}

/// Memory of this process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn connections_are_bounded_and_one_too_many_is_told_but_probes_are_answered() {
    run(async |net| {
        let (_node, api) = alone(&net, |config| config.api.connections = 2).await;
        let idle = [api.follow("t").await, api.follow("t").await];
        let refused = api.get("/v1/status").await;
        assert_eq!(refused.status, 503);
        assert!(refused.text().contains("limit 2, config key api.connections"), "{}", refused.text());
        assert_eq!(api.get("/healthz").await.json(), serde_json::json!({ "live": true }));
        let ready = api.get("/readyz").await;
        assert_eq!((ready.status, ready.text().contains("0 of 1 peers are connected")), (503, true));
        assert_eq!(api.get("/readyz?min_peers=0").await.status, 200);
        drop(idle);
        let answered = async { while api.get("/v1/status").await.status != 200 {} };
        net.patiently("a connection to be free", answered).await;
    });
}

#[test]
fn idle_connections_give_way_and_keep_no_probe_out() {
    run(async |net| {
        // Nobody is let go for being slow.
        let (_node, api) = alone(&net, |config| config.api.header_timeout = Duration::from_secs(3600)).await;
        let refused = b"GET / HTTP/9.9\r\n\r\n";
        for said in [&b""[..], b"GET /healthz HTTP/1.1\r\nHost: ", b"GET /", refused] {
            let open = async || {
                let mut stream = api.connect().await;
                // An error says that it was one too many.
                let _ = stream.write_all(said).await;
                stream
            };
            let mut idle: Vec<_> = stream::iter(0..170).then(|_| open()).collect().await;
            for probe in ["/healthz", "/readyz?min_peers=0"] {
                assert_eq!(api.get(probe).await.status, 200, "{probe} beside {said:?}");
            }
            let served = async { while api.get("/v1/status").await.status != 200 {} };
            net.patiently("the oldest to give way", served).await;
            let mut told = Vec::new();
            // An error says that what it had said was not read any more.
            let _ = net.patiently("the end of the oldest", idle[0].read_to_end(&mut told)).await;
            assert_eq!(told.is_empty(), said != refused, "{:?}", String::from_utf8_lossy(&told));
        }
    });
}

#[test]
fn an_address_in_use_is_named_with_its_key_and_a_hint() {
    run(async |net| {
        let (_node, api) = alone(&net, |_| {}).await;
        let mut config = net.config(3, &[]);
        config.api.listen = ApiListen::Tcp(api.addr);
        let error = Bound::open(&config, &net.rt).unwrap_err();
        assert_eq!(error.to_string(), format!("api.listen: cannot listen on {}", api.addr));
        assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse);
        assert!(error.hint().contains("--set api.listen="), "{}", error.hint());
        config.api.listen = ApiListen::Off;
        assert!(Bound::open(&config, &net.rt).unwrap().is_none());
        api.gateway.close().await;
        config.api.listen = ApiListen::Tcp(api.addr);
        assert!(Bound::open(&config, &net.rt).is_ok(), "a closed API gives its address back");
    });
}

#[test]
fn a_loop_that_is_stuck_is_told_of_by_every_path_that_asks_it_and_then_answers_again() {
    run(async |net| {
        net.set("one", [2]);
        let one = net.node(2, &[]);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        // On a thread of its own, so that its API is not stuck with it.
        let rt = Executor::default().start(1).unwrap();
        let stuck = Node::new(net.config(3, &["one"]), Keypair::generate_ed25519())
            .validator(move |_: &Message| {
                // An error says that it is let for good.
                let _ = wait.lock().unwrap().recv();
                Verdict::Accept
            })
            .spawn(&rt)
            .unwrap();
        let api = Api::serve(&net, &stuck, Config::default()).await;
        let options = PublishOptions { wait_peers: Some(1), timeout: crate::support::PATIENCE };
        one.publish(TOPIC, "x", options).await.unwrap();
        net.patiently("a stuck node", async { while api.get("/healthz").await.status != 503 {} }).await;
        let paths = ["/healthz", "/readyz", "/metrics", "/v1/status", "/v1/peers", "/v1/names", "/v1/mesh"];
        let asked = join_all(paths.map(|path| api.get(path)));
        for (path, answer) in paths.into_iter().zip(net.patiently("answers", asked).await) {
            assert_eq!(answer.status, 503, "{path}");
            assert_eq!(answer.json()["error"], "the node does not answer", "{path}");
        }
        drop(go);
        net.patiently("a ready node", async { while api.get("/readyz").await.status != 200 {} }).await;
    });
}
