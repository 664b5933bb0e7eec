//! The HTTP API: many messages in one request, with a receipt for each.

use std::time::Duration;

use crate::{
    gateway::pair,
    support::{http::Answer, run},
};
use futures::{AsyncReadExt, AsyncWriteExt};

/// The lines of an answer of many receipts.
fn receipts(answer: &Answer) -> Vec<serde_json::Value> {
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
