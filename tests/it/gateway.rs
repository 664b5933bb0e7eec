//! The HTTP API: what it answers, and what it refuses.

use crate::support::http::Api;
use crate::support::{Network, TOPIC, run};
use futures::{AsyncReadExt, AsyncWriteExt, future::join_all};
use libp2p::identity::Keypair;
use smidge::{
    Config, Message, Node, PublishOptions, Verdict, config::ApiListen, gateway::Bound, runtime::Executor,
};

/// A peer id that nobody has.
const STRANGER: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

/// A node of its own, with an API.
pub(crate) async fn alone(net: &Network, change: impl FnOnce(&mut Config)) -> (smidge::Client, Api) {
    let mut config = net.config(2, &[]);
    change(&mut config);
    let node = net.spawn(config.clone());
    let api = Api::serve(net, &node, config).await;
    (node, api)
}

/// Two nodes in one mesh, and their APIs.
pub(crate) async fn pair(net: &Network, change: impl Fn(&mut Config)) -> [(smidge::Client, Api); 2] {
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
        let options = PublishOptions {
            wait_peers: Some(1),
            timeout: crate::support::PATIENCE,
            ..PublishOptions::default()
        };
        one.publish(TOPIC, "x", options).await.unwrap();
        net.patiently("a stuck node", async { while api.get("/healthz").await.status != 503 {} }).await;
        let paths = [
            "/healthz",
            "/readyz",
            "/metrics",
            "/v1/status",
            "/v1/history",
            "/v1/peers",
            "/v1/names",
            "/v1/mesh",
        ];
        let asked = join_all(paths.map(|path| api.get(path)));
        for (path, answer) in paths.into_iter().zip(net.patiently("answers", asked).await) {
            assert_eq!(answer.status, 503, "{path}");
            assert_eq!(answer.json()["error"], "the node does not answer", "{path}");
        }
        drop(go);
        net.patiently("a ready node", async { while api.get("/readyz").await.status != 200 {} }).await;
    });
}

#[test]
fn an_event_stream_passes_a_proxy_as_it_comes() {
    run(|net| async move {
        let (_node, api) = alone(&net, |_| {}).await;
        let mut stream = api.connect().await;
        let request = format!("GET /v1/topics/{TOPIC} HTTP/1.1\r\nHost: {}\r\n\r\n", api.addr);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\n\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let (headers, opening) = head.split_once("\r\n\r\n").unwrap();
        // nginx gathers an answer for as long as it likes, unless told not to; a browser comes again after this long.
        assert!(headers.lines().any(|line| line == "X-Accel-Buffering: no"), "{headers}");
        assert_eq!(opening, "retry: 1000\n: messages from now on\n\n");
    });
}
