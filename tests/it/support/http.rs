//! A caller of the HTTP API that writes whatever a test gives it, right or wrong, and reads what comes back.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    task::{Poll, ready},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use serde_json::Value;
use smidge::{
    Client, Config,
    config::ApiListen,
    gateway::{Bound, Gateway},
    runtime::{Handle, TcpOptions, TcpStream},
};

use crate::support::Network;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// An API and where it is.
pub(crate) struct Api {
    pub(crate) rt: Handle,
    pub(crate) addr: SocketAddr,
    pub(crate) gateway: Gateway,
}

impl Api {
    /// Serves `client`, once it listens, on a free port of loopback, unless `config` names another address.
    pub(crate) async fn serve(net: &Network, client: &Client, mut config: Config) -> Self {
        net.listening(client).await;
        let rt = &net.rt;
        if config.api.listen == Config::default().api.listen {
            config.api.listen = ApiListen::Tcp(([127, 0, 0, 1], 0).into());
        }
        let bound = Bound::open(&config, rt).unwrap().unwrap();
        let mut addr: SocketAddr = bound.url().strip_prefix("http://").unwrap().parse().unwrap();
        if addr.ip().is_unspecified() {
            addr.set_ip([127, 0, 0, 1].into());
        }
        Self { rt: rt.clone(), addr, gateway: bound.serve(client.clone(), &config, rt) }
    }

    pub(crate) async fn connect(&self) -> Box<dyn TcpStream> {
        self.rt.connect_tcp(self.addr, TcpOptions::default()).await.unwrap()
    }

    /// Writes `bytes` and reads until the node closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        // The node may refuse, and close, before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        parse(&answer)
    }

    /// A request as a well-behaved caller makes it.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let mut bytes = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            self.addr,
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        self.raw(&bytes).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, b"").await
    }

    /// An event stream of `topic`, from its first line on.
    pub(crate) async fn follow(&self, topic: &str) -> Stream {
        self.begin(topic, "", "").await
    }

    /// An event stream at any path, behind its first lines.
    pub(crate) async fn begin_at(&self, path: &str) -> Stream {
        let mut stream = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.addr);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Stream { stream, buf: Vec::new() };
        while !stream.line().await.expect("the stream is open").starts_with(": ") {}
        stream
    }

    /// The same, with a query and headers.
    pub(crate) async fn begin(&self, topic: &str, query: &str, headers: &str) -> Stream {
        let mut stream = self.connect().await;
        let request =
            format!("GET /v1/topics/{topic}{query} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.addr);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Stream { stream, buf: Vec::new() };
        while !stream.line().await.expect("the stream is open").starts_with(": messages") {}
        assert_eq!(stream.line().await.as_deref(), Some(""));
        stream
    }
}

/// What an answer's bytes say.
pub(crate) fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let Some(end) = end else { panic!("no answer: {:?}", String::from_utf8_lossy(bytes)) };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// A stream of server-sent events.
pub(crate) struct Stream {
    pub(crate) stream: Box<dyn TcpStream>,
    buf: Vec<u8>,
}

impl Stream {
    /// The next event that has data: its id, and that.
    pub(crate) async fn said(&mut self) -> (Option<String>, Value) {
        let mut id = None;
        loop {
            let line = self.line().await.expect("the stream is open");
            match line.split_once(": ") {
                Some(("id", text)) => id = Some(text.to_owned()),
                Some(("data", data)) => return (id, serde_json::from_str(data).unwrap()),
                _ => {}
            }
        }
    }

    /// The next line without its end; `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buf.iter().position(|b| *b == b'\n') {
                let line = self.buf.drain(..=at).collect::<Vec<_>>();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            if fill(&mut self.stream, &mut self.buf).await == 0 {
                return None;
            }
        }
    }

    /// The next event's name and record; comments are skipped.
    pub(crate) async fn event(&mut self) -> Option<(String, Value)> {
        let mut name = String::new();
        loop {
            let line = self.line().await?;
            match line.split_once(": ") {
                Some(("event", is)) => name = is.to_owned(),
                Some(("data", data)) => return Some((name, serde_json::from_str(data).unwrap())),
                _ => {}
            }
        }
    }
}

/// Reads some more; 0 at the end. The room to read into is not part of the future: there are a thousand.
async fn fill(stream: &mut (impl AsyncRead + Unpin), buf: &mut Vec<u8>) -> usize {
    poll_fn(|cx| {
        let mut chunk = [0; 16384];
        let n = ready!(Pin::new(&mut *stream).poll_read(cx, &mut chunk)).unwrap_or(0);
        buf.extend_from_slice(&chunk[..n]);
        Poll::Ready(n)
    })
    .await
}
