//! The request that turns HTTP into WebSocket (RFC 6455, section 4.2), and who may make it.

use std::io;

use data_encoding::BASE64;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::WebSocket;
use crate::{
    config::{ApiListen, Mqtt},
    http::{Head, RequestLine, Wire, is_loopback, is_origin},
    runtime::ByteStream,
};

/// Where MQTT is.
const PATH: &str = "/mqtt";
/// The longest head of a request.
const MAX_HEAD: usize = 8 << 10;
/// What a server adds to a client's key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// How clients call MQTT; the second one is that of MQTT 3.1.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Which web pages may come.
#[derive(Debug)]
pub(in crate::mqtt) struct Pages {
    origins: Vec<String>,
    /// The listener is on loopback, and `Host` has to say so: a name server can make a foreign page look like one's own.
    checks_host: bool,
}

/// An answer that is no upgrade: a status with its reason, a header of its own, and a sentence.
type Refused = (&'static str, &'static str, &'static str);

impl Pages {
    pub(in crate::mqtt) fn new(mqtt: &Mqtt) -> Self {
        let checks_host = matches!(&mqtt.websocket, ApiListen::Tcp(at) if at.ip().is_loopback());
        Self { origins: mqtt.origins.clone(), checks_host }
    }

    fn check(&self, head: &Head<RequestLine>) -> Result<(), Refused> {
        let host = head.all("host").next();
        if self.checks_host && !host.is_none_or(is_loopback) {
            return Err(("403 Forbidden", "", "the Host is neither localhost nor an address of loopback"));
        }
        let may = |origin: &str| {
            host.is_some_and(|host| is_origin(origin, host))
                || self.origins.iter().any(|one| one == "*" || one.eq_ignore_ascii_case(origin))
        };
        if head.all("origin").all(may) {
            return Ok(());
        }
        Err(("403 Forbidden", "", "web pages of this origin may not: mqtt.origins names those that may"))
    }

    /// What is answered to a request for an upgrade.
    fn answer(&self, head: &Head<RequestLine>) -> Result<String, Refused> {
        let bad = |why| ("400 Bad Request", "", why);
        if head.line.method != "GET" {
            return Err((
                "405 Method Not Allowed",
                "Allow: GET\r\n",
                "MQTT over WebSocket begins with a GET",
            ));
        }
        if head.line.target.split('?').next() != Some(PATH) {
            return Err(("404 Not Found", "", "MQTT is at /mqtt"));
        }
        self.check(head)?;
        let asks = |name: &'static str, wanted: &str| {
            head.all(name)
                .flat_map(|value| value.split(','))
                .any(|one| one.trim().eq_ignore_ascii_case(wanted))
        };
        if !asks("upgrade", "websocket") || !asks("connection", "upgrade") {
            let header = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
            return Err(("426 Upgrade Required", header, "here is MQTT over WebSocket, and nothing else"));
        }
        if head.one("sec-websocket-version").ok().flatten() != Some("13") {
            let header = "Sec-WebSocket-Version: 13\r\n";
            return Err(("426 Upgrade Required", header, "WebSocket has version 13 here"));
        }
        let key = head.one("sec-websocket-key").ok().flatten().unwrap_or_default();
        if BASE64.decode(key.as_bytes()).map(|key| key.len()) != Ok(16) {
            return Err(bad("Sec-WebSocket-Key is not 16 bytes in base64"));
        }
        // [MQTT-6.0.0-3]
        let offered = |protocol: &&&str| {
            head.all("sec-websocket-protocol").flat_map(|v| v.split(',')).any(|one| one.trim() == **protocol)
        };
        let protocol = PROTOCOLS.iter().find(offered).ok_or(bad("the subprotocol mqtt is not offered"))?;
        let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
        Ok(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n",
            BASE64.encode(accept.as_ref())
        ))
    }
}

/// Reads the request of a new connection, and answers it.
///
/// # Errors
/// When it is none, or may not be: the client has its answer, where that is possible.
pub(in crate::mqtt) async fn upgrade(
    stream: Box<dyn ByteStream>,
    pages: &Pages,
) -> io::Result<Box<dyn ByteStream>> {
    let mut wire = Wire::new(stream);
    let other = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let answer = match wire.request(MAX_HEAD).await {
        // A client has to wait for the answer before it says more.
        Ok(_) if wire.has_begun() => Err(("400 Bad Request", "", "more than a request for an upgrade")),
        Ok(head) => pages.answer(&head),
        Err(_) => Err(("400 Bad Request", "", "no request of HTTP/1.1, or one that is too large")),
    };
    match answer {
        Ok(answer) => {
            wire.write_all(answer.as_bytes()).await?;
            Ok(Box::new(WebSocket::new(wire.into_parts().0)))
        }
        Err((status, header, why)) => {
            let answer = format!(
                "HTTP/1.1 {status}\r\n{header}Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{why}\n",
                why.len() + 1
            );
            wire.write_all(answer.as_bytes()).await?;
            wire.finish().await?;
            // It gets the answer all the same, if it is still sending.
            wire.drain(MAX_HEAD).await;
            Err(other(why))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    fn head(text: &str) -> Head<RequestLine> {
        let mut wire = Wire::new(Box::new(Cursor::new(text.as_bytes().to_vec())));
        let Ok(head) = block_on(wire.request(MAX_HEAD)) else { panic!("{text:?}") };
        head
    }

    fn status(pages: &Pages, change: impl Fn(&str) -> String) -> &'static str {
        let request = "GET /mqtt HTTP/1.1\r\nHost: localhost:9001\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: x, mqtt\r\n\r\n";
        match pages.answer(&head(&change(request))) {
            Ok(answer) => {
                // RFC 6455, 1.3
                assert!(answer.contains("Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
                assert!(answer.contains("Protocol: mqtt\r\n"), "{answer}");
                "101"
            }
            Err((status, ..)) => &status[..3],
        }
    }

    #[test]
    fn the_request_of_rfc_6455_is_answered_as_it_says_and_any_other_is_refused_with_its_status() {
        let pages = Pages { origins: vec!["https://panel.example.org".into()], checks_host: true };
        assert_eq!(status(&pages, str::to_owned), "101");
        for (from, to, expected) in [
            ("GET", "POST", "405"),
            ("/mqtt", "/", "404"),
            ("/mqtt", "/mqtt?x=1", "101"),
            ("websocket\r\nC", "h2c\r\nC", "426"),
            (", Upgrade", "", "426"),
            ("13", "8", "426"),
            ("b25jZQ==", "b25j", "400"),
            ("x, mqtt", "x, mqtts", "400"),
            ("localhost:9001", "rebound.example:9001", "403"),
            ("\r\n\r\n", "\r\nOrigin: http://localhost:9001\r\n\r\n", "101"),
            ("\r\n\r\n", "\r\nOrigin: http://localhost:8000\r\n\r\n", "403"),
            ("\r\n\r\n", "\r\nOrigin: null\r\n\r\n", "403"),
            ("\r\n\r\n", "\r\nOrigin: https://panel.example.org\r\n\r\n", "101"),
            ("\r\n\r\n", "\r\nOrigin: https://panel.example.org.evil.example\r\n\r\n", "403"),
        ] {
            assert_eq!(status(&pages, |request| request.replacen(from, to, 1)), expected, "{from:?} {to:?}");
        }
        let any = Pages { origins: vec!["*".into()], checks_host: false };
        let foreign =
            |request: &str| request.replace("Host: localhost:9001", "Host: a.example\r\nOrigin: null");
        assert_eq!(status(&any, foreign), "101");
    }
}
