use futures::io::Cursor;

use super::*;

fn read<T>(bytes: &str, read: impl AsyncFnOnce(&mut Wire) -> T) -> T {
    let mut wire = Wire::new(Box::new(Cursor::new(bytes.as_bytes().to_vec())));
    futures::executor::block_on(read(&mut wire))
}

fn framing(headers: &str) -> Result<Option<Framing>, WireError> {
    let text = format!("POST / HTTP/1.1\r\n{headers}\r\n");
    read(&text, async |wire| wire.request(4096).await).and_then(|head| head.framing())
}

#[test]
fn what_two_readers_might_take_differently_is_refused() {
    assert_eq!(framing("Content-Length: 3\r\n").unwrap(), Some(Framing::Length(3)));
    assert_eq!(framing("Transfer-Encoding: Chunked\r\n").unwrap(), Some(Framing::Chunked));
    assert_eq!(framing("").unwrap(), None);
    for bad in [
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: -1\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length : 3\r\n",
        "Host: a\r\n folded\r\n",
    ] {
        assert!(matches!(framing(bad), Err(WireError::Malformed(_))), "{bad:?}");
    }
    assert!(matches!(framing("Transfer-Encoding: gzip, chunked\r\n"), Err(WireError::Coding)));
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    let old = read(old, async |wire| wire.request(4096).await).and_then(|head| head.framing());
    assert!(matches!(old, Err(WireError::Malformed(_))), "{old:?}");
}

#[test]
fn chunks_are_joined_and_bounded() {
    let chunks = |text: &str| read(text, async |wire| wire.body(Framing::Chunked, 8).await);
    assert_eq!(chunks("3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\nA: b\r\n\r\n").unwrap(), b"abcdefgh");
    assert_eq!(chunks("0\r\n\r\n").unwrap(), b"");
    assert!(matches!(chunks("9\r\nabcdefghi\r\n0\r\n\r\n"), Err(WireError::BodyTooLarge)));
    assert!(matches!(chunks("ffffffffffffffff\r\n"), Err(WireError::BodyTooLarge)));
    assert!(matches!(chunks("3\r\nabcd\r\n0\r\n\r\n"), Err(WireError::Malformed(_))));
    for line in ["3;x\n\r\nabc", "3;a\nb=c\r\nabc", "3;\0\r\nabc", "3\n\r\nabc"] {
        let text = format!("{line}\r\n0\r\n\r\n");
        assert!(matches!(chunks(&text), Err(WireError::Malformed(_))), "{line:?}");
    }
    assert_eq!(chunks("3 ;x\r\nabc\r\n0\r\n\r\n").unwrap(), b"abc");
    assert!(matches!(chunks("x\r\n"), Err(WireError::Malformed(_))));
    assert!(matches!(chunks(&"1".repeat(600)), Err(WireError::Malformed(_))));
    assert!(matches!(chunks("3\r\nab"), Err(WireError::Ended(true))));
}

#[test]
fn a_body_is_handed_on_as_it_comes_and_ends_where_it_ends() {
    let text = "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET";
    let (parts, rest) = read(text, async |wire| {
        let (mut body, mut parts) = (Body::new(Some(Framing::Chunked), u64::MAX), Vec::new());
        loop {
            let mut part = Vec::new();
            if !wire.read_body(&mut body, &mut part).await.unwrap() {
                return (parts, wire.buf.to_vec());
            }
            parts.push(part);
        }
    });
    assert_eq!((parts.concat(), rest), (b"abcde".to_vec(), b"GET".to_vec()));
    let until_closed = |limit| read("abc", async |wire| wire.body(Framing::UntilClosed, limit).await);
    assert_eq!(until_closed(3).unwrap(), b"abc");
    assert!(matches!(until_closed(2), Err(WireError::BodyTooLarge)));
    let length = |n, limit| read("abcd", async |wire| wire.body(Framing::Length(n), limit).await);
    assert_eq!((length(3, 3).unwrap(), length(0, 0).unwrap()), (b"abc".to_vec(), vec![]));
    assert!(matches!(length(5, 8), Err(WireError::Ended(true))));
    assert!(matches!(length(5, 4), Err(WireError::BodyTooLarge)));
}

#[test]
fn heads_are_bounded_and_name_what_is_too_long() {
    let head = |text: &str| read(text, async |wire| wire.request(64).await.map(|h| h.line.target));
    assert_eq!(head("GET /a HTTP/1.1\r\n\r\n").unwrap(), "/a");
    assert!(matches!(
        head(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(64))),
        Err(WireError::TargetTooLong)
    ));
    assert!(matches!(
        head(&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(64))),
        Err(WireError::HeadTooLarge)
    ));
    assert!(matches!(head("PRI * HTTP/2.0\r\n\r\n"), Err(WireError::Version)));
    assert!(matches!(head("\x16\x03\x01\x02\n"), Err(WireError::Malformed(_))));
    assert!(matches!(head(""), Err(WireError::Ended(false))));
    assert!(matches!(head("GET /"), Err(WireError::Ended(true))));
}

#[test]
fn two_requests_on_one_connection_do_not_run_into_each_other() {
    let both = "PUT /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\n\r\n";
    read(both, async |wire| {
        let head = wire.request(64).await.unwrap();
        let body = wire.body(head.framing().unwrap().unwrap(), 8).await.unwrap();
        assert_eq!((head.line.target.as_str(), body.as_slice()), ("/1", &b"abc"[..]));
        assert_eq!(wire.request(64).await.unwrap().line.target, "/2");
    });
}
