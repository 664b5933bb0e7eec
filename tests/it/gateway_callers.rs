//! The HTTP API: callers that are slow, silent or many.

use std::{fs, time::Duration};

use crate::{
    gateway::{alone, pair},
    support::{http::parse, run},
};
use futures::{
    AsyncReadExt, AsyncWriteExt, StreamExt,
    future::{join, join_all},
    stream,
};
use smidge::PublishOptions;

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
fn a_slow_reader_is_told_what_it_lost_and_holds_up_nobody() {
    const TOTAL: u64 = 800;
    run(async |net| {
        let [(one, _), (_two, at_two)] = pair(&net, |config| config.limits.events = 32).await;
        let mut slow = at_two.follow("t").await;
        let mut quick = at_two.follow("t").await;
        let options = PublishOptions {
            wait_peers: Some(1),
            timeout: crate::support::PATIENCE,
            ..PublishOptions::default()
        };
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
        let options = PublishOptions {
            wait_peers: Some(1),
            timeout: Duration::from_millis(500),
            ..PublishOptions::default()
        };
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

        let options = PublishOptions {
            wait_peers: Some(1),
            timeout: crate::support::PATIENCE,
            ..PublishOptions::default()
        };
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
