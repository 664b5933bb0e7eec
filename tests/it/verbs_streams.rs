//! The verbs that go on until something ends them: their input, their reader, a signal, a time limit.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Instant,
};

use crate::{
    support::{
        PATIENCE,
        daemon::{Daemon, pair, run, send, smidge},
    },
    verbs::{ended, fed, sub},
};
use rustix::process::Signal;

#[test]
fn ctrl_c_ends_ping_and_pub_lines_with_a_summary() {
    let (one, two) = pair("t");
    let mut ping = one.asked(&["ping", &two.peer, "-c", "1000000", "-i", "1ms"]);
    let mut ping = ping.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(ping.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.contains("seq=2 ")));
    send(&ping, Signal::INT);
    let rest: Vec<_> = lines.collect();
    let (code, _, err) = ended(ping);
    assert_eq!((code, err.as_str()), (0, ""), "{rest:?}");
    assert!(rest.last().unwrap().starts_with("rtt min/avg/max/mdev = "), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains(" packets transmitted, ")), "{rest:?}");

    // Its input stays open: it would wait for more.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut lines = one.asked(&["pub", "-t", "t", "--lines"]);
    let mut lines = lines.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    writer.write_all(b"one\ntwo\n").unwrap();
    let receipts = BufReader::new(lines.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(receipts.take(2).filter(|line| line.ends_with(" to 1 peers")).count(), 2);
    send(&lines, Signal::INT);
    let (code, _, err) = ended(lines);
    assert!(
        code == 0 && err.starts_with("2 messages published, in ") && err.lines().count() == 1,
        "{code} {err}"
    );
    drop(writer);
}

/// Publishes a line through a terminal made with Python's pty module, waits there for what `pub` says of its
/// progress while its input stays open, and prints what the terminal got.
const TERMINAL: &str = r#"
import os, pty, subprocess, sys
ours, theirs = pty.openpty()
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs)
os.close(theirs)
child.stdin.write(b"only\n")
child.stdin.flush()
got = b""
while b"1 messages published" not in got:
    got += os.read(ours, 4096)
child.stdin.close()
receipts = child.stdout.read()
assert child.wait() == 0 and receipts.count(b"\n") == 1 and b"\x1b" not in receipts, receipts
try:
    while more := os.read(ours, 4096):
        got += more
except OSError:
    pass
sys.stdout.buffer.write(got)
"#;

#[test]
fn progress_is_shown_on_a_terminal_and_only_there() {
    let (one, _two) = pair("t");
    let mut python = Command::new("python3");
    python.args(["-c", TERMINAL, env!("CARGO_BIN_EXE_smidge"), "pub", "-t", "t", "--lines"]);
    let (code, out, err) = run(python.env("SMIDGE_API", &one.url));
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.starts_with("\r\u{1b}[K") && out.ends_with("\r\u{1b}[K"),
        "it is wiped away in the end: {out:?}"
    );

    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut plain = one.asked(&["pub", "-t", "t", "--lines"]);
    let mut plain = plain.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    writer.write_all(b"only\n").unwrap();
    let mut receipt = String::new();
    BufReader::new(plain.stdout.as_mut().unwrap()).read_line(&mut receipt).unwrap();
    // As long as it takes until a terminal would have had a hint.
    std::thread::sleep(std::time::Duration::from_millis(800));
    drop(writer);
    assert_eq!(ended(plain), (0, String::new(), String::new()));
}

#[test]
fn sub_ends_with_its_reader_and_with_ctrl_c() {
    let (one, two) = pair("t");
    // As in `smidge sub -t news | head -1`: one message is enough.
    let mut first = sub(&two, &["-t", "news"]);
    one.ask(&["pub", "-t", "news", "-m", "only", "--timeout", "60"]);
    let mut line = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!((line.as_str(), ended(first).0), ("only\n", 0));

    let interrupted = sub(&two, &["-t", "other"]);
    send(&interrupted, Signal::INT);
    let (code, out, err) = ended(interrupted);
    assert!(code == 0 && out.is_empty() && err.starts_with("0 messages, 0 lost, in "), "{code} {out} {err}");
    let (code, out, err) = two.ask(&["sub", "-t", "t", "--count", "0"]);
    assert_eq!((code, &*out, &*err), (0, "", ""));
}

#[test]
fn sub_waits_for_its_node_to_come_back_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let api = format!("unix:{}", dir.path().join("api").display());
    for killed in [false, true] {
        let node = Daemon::start_at(&api, &[]);
        let mut child = sub(&node, &["-t", "b", "--count", "1", "--verbose"]);
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            said.read_line(&mut line).unwrap();
            line
        };
        match killed {
            false => assert_eq!(node.stop(), Some(0)),
            true => drop(node),
        }
        assert_eq!(line(), "smidge: note: the node went away: it is waited for\n");
        let node = Daemon::start_at(&api, &["--name", "kitchen"]);
        assert_eq!(line(), "smidge: note: the node is back: what was said meanwhile was missed\n");
        let (code, _, err) = node.ask(&["pub", "-t", "b", "-m", "hello"]);
        assert_eq!(code, 0, "{err}");
        let (code, out, _) = ended(child);
        assert!(code == 0 && out.ends_with("Z this-node kitchen hello\n"), "{code} {out}");
    }
}

/// A verb whose stdout is a pipe that is full, and that nobody reads.
fn stuffed(node: &Daemon, publisher: &Daemon, args: &[&str]) -> Child {
    let child = node.asked(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = format!("{}\n", "x".repeat(4000));
    let waiting = || rustix::io::ioctl_fionread(child.stdout.as_ref().unwrap()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while waiting() < 60_000 {
        assert!(Instant::now() < deadline, "{} bytes were printed", waiting());
        let (code, _, err) = fed(&mut publisher.asked(&["pub", "-t", "t", "--lines"]), lines.as_bytes());
        assert_eq!(code, 0, "{err}");
    }
    // One more, that is certain to find no room.
    for _ in 0..4 {
        fed(&mut publisher.asked(&["pub", "-t", "t", "--lines"]), lines.as_bytes());
    }
    child
}

#[test]
fn a_reader_that_does_not_read_keeps_sub_neither_from_a_signal_nor_from_its_time_limit() {
    let (one, two) = pair("t");
    let mut signalled = stuffed(&two, &one, &["sub", "-t", "t"]);
    send(&signalled, Signal::TERM);
    assert!(signalled.wait().unwrap().success());
    let mut limited = stuffed(&two, &one, &["sub", "-t", "t", "--timeout", "5"]);
    assert!(limited.wait().unwrap().success());
}

/// A node that takes one message a request, and does not know `split`; what it was asked.
fn old_node(requests: usize) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut asked = Vec::new();
        while asked.len() < requests {
            let (mut path, mut length) = (String::new(), 0);
            reader.read_line(&mut path).unwrap();
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).unwrap();
                match header.trim_end().split_once(": ") {
                    Some(("Content-Length", n)) => length = n.parse().unwrap(),
                    Some(_) => {}
                    None => break,
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let (status, answer) = if path.contains("split=") {
                (
                    400,
                    r#"{"error":"an unknown parameter \"split\"","hint":"this path knows wait_peers and timeout"}"#,
                )
            } else {
                (200, r#"{"id":"7","peers":2}"#)
            };
            let length = answer.len();
            write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{answer}").unwrap();
            asked.push(String::from_utf8(body).unwrap());
        }
        asked
    });
    (url, asked)
}

#[test]
fn lines_are_published_through_a_node_that_takes_one_message_a_request_too() {
    let (url, asked) = old_node(4);
    let mut publish = smidge(&["pub", "-t", "t", "--lines", "--api", &url]);
    let (code, out, err) = fed(&mut publish, b"a\n\nb\r\nlast");
    assert_eq!((code, &*out), (0, &*"published 7 to 2 peers\n".repeat(3)), "{err}");
    assert_eq!(err, "smidge: note: this node takes one message a request: a newer one takes many\n");
    assert_eq!(asked.join().unwrap(), ["", "a", "b", "last"]);
}

#[test]
fn lines_that_come_in_pauses_and_halves_are_published_whole_and_a_refusal_ends_the_verb() {
    let (one, two) = pair("t");
    let heard = sub(&two, &["-t", "u", "--count", "4"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut lines = one.asked(&["pub", "-t", "u", "--lines"]);
    let mut lines = lines.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut receipts = BufReader::new(lines.stdout.take().unwrap()).lines().map_while(Result::ok);
    writer.write_all(b"first\nsec").unwrap();
    assert!(receipts.next().unwrap().ends_with(" to 1 peers"));
    // Long enough for the request to end.
    std::thread::sleep(std::time::Duration::from_millis(700));
    writer.write_all(b"ond\n\nthird\n").unwrap();
    assert_eq!(receipts.by_ref().take(2).count(), 2);
    writer.write_all(b"fourth").unwrap();
    drop(writer);
    assert_eq!(receipts.count(), 1, "the last line needs no end");
    assert_eq!(ended(lines), (0, String::new(), String::new()));
    assert_eq!(ended(heard).1, "first\nsecond\nthird\nfourth\n");

    // Its input stays open, and is not waited for.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut refused = one.asked(&["pub", "-t", "u", "--lines", "--timeout", "0"]);
    let refused = refused.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    writer.write_all(b"nobody hears\n").unwrap();
    let (code, out, err) = ended(refused);
    assert!(code == 75 && out.is_empty() && err.contains("0 of 1 peers wanted"), "{code} {out} {err}");
}
