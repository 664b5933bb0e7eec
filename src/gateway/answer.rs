//! What the API says: answers, and refusals that name what was wrong and what helps.
//!
//! A refusal never repeats a header: one of them is the token.

use serde::Serialize;
use serde_json::json;

use crate::{http::WireError, node::Error, text};

/// An answer with its whole body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) body: Vec<u8>,
    /// What a cache may do with it.
    pub(super) caching: &'static str,
    /// Headers beyond those that every answer has.
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub(super) fn new(kind: &'static str, body: Vec<u8>) -> Self {
        Self { status: 200, kind, body, caching: NO_STORE, headers: Vec::new() }
    }

    /// A JSON object, and a line's end for terminals.
    pub(super) fn json(value: &impl Serialize) -> Self {
        // Maps with text keys only: nothing in them cannot be written as JSON.
        let mut body = serde_json::to_string(value).unwrap_or_default();
        body.push('\n');
        // It may be looked at in a terminal.
        Self::new("application/json", text::json(&body).into_owned().into_bytes())
    }

    /// The answer as bytes; without its body if only the head was asked for.
    pub(super) fn bytes(&self, keep_alive: bool, head_only: bool) -> Vec<u8> {
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut text = head(self.status, self.kind, connection, self.caching);
        // 304 has no body, and a length would be that of the body which it spares.
        if self.status != 304 {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if !head_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// Answers of the API hold at the moment they are given, and for their caller.
pub(super) const NO_STORE: &str = "no-store";

/// The first line and the headers that every answer has, open at the end.
pub(super) fn head(status: u16, kind: &str, connection: &str, caching: &str) -> String {
    format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nConnection: {connection}\r\n\
         Cache-Control: {caching}\r\nX-Content-Type-Options: nosniff\r\n",
        reason(status)
    )
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Internal Server Error",
    }
}

/// Why a request was not answered as asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) error: String,
    pub(super) hint: String,
    pub(super) header: Option<(&'static str, String)>,
}

impl Refusal {
    pub(super) fn new(status: u16, error: impl Into<String>, hint: impl Into<String>) -> Self {
        let header = match status {
            401 => Some(("WWW-Authenticate", "Bearer".into())),
            429 | 503 => Some(("Retry-After", "1".into())),
            _ => None,
        };
        Self { status, error: error.into(), hint: hint.into(), header }
    }

    pub(super) fn bad(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(400, error, hint)
    }

    pub(super) fn answer(self) -> Answer {
        let body = json!({ "error": self.error, "hint": self.hint });
        Answer { status: self.status, headers: self.header.into_iter().collect(), ..Answer::json(&body) }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, hint) = match &error {
            Error::Stopped | Error::ShuttingDown => (503, "ask another node, or this one when it is back"),
            Error::BadTopic { .. } => (400, "a topic is 1 to 256 bytes of text without control characters"),
            Error::Limit { .. } => (429, "ask again in a moment, or raise the key"),
            Error::NoPeers { .. } => (
                504,
                "GET /v1/peers tells who is connected; a subscriber at this node would do, too; timeout=30 waits longer",
            ),
            Error::MessageTooLarge { .. } => (413, "send less, or raise gossip.max_message on all nodes"),
            Error::Duplicate => (409, "change the payload, or set gossip.message_id = \"source\""),
            Error::Congested(_) => (429, "publish again in a moment, or let it wait longer with timeout="),
            Error::Store(_) => (507, "GET /v1/status says how the store stands; the bounds are kad.max_*"),
            Error::Quorum { .. } => {
                (503, "ask for fewer with quorum=, or try again when more nodes are there")
            }
            Error::NotFound(_) => (404, "it may have expired, or never have been there"),
            Error::TimedOut(_) => (504, "try again: the nodes that know may be on their way"),
            Error::Connect { .. } => (504, "is a node listening there? `smidge doctor` tells more"),
            Error::Ping { .. } => (504, "GET /v1/peers tells who is connected"),
            Error::NotAPublisher(_) => (
                403,
                "GET /v1/status tells its id; the list is topics.\"TOPIC\".publish, the same on all nodes",
            ),
            Error::NotByKey(_) => {
                (409, "set keep = \"latest\" in the topic's table, on every node that is to have the values")
            }
            Error::ByKey(_) => (409, "PUT /v1/state/TOPIC/KEY sets a value"),
            Error::BadKey { .. } => (400, "a key is 1 to 1024 bytes"),
            Error::StateFull { .. } => (
                507,
                "the bounds are keep.keys and keep.bytes of the topic, and limits.kept; the same on all nodes",
            ),
            Error::NotKept(_) => (
                409,
                "set keep in the topic's table, such as { age = \"10m\" }; without it, there is what is live, unconfirmed",
            ),
            Error::Unconfirmed { .. } => (
                504,
                "it is on its way all the same; timeout=30 waits longer, and more nodes may have to keep the topic",
            ),
            Error::Publish(_) => (500, "the node's log tells more"),
        };
        Self::new(status, error.to_string(), hint)
    }
}

/// What to answer when a request could not be read; nothing if there is no reader.
pub(super) fn unreadable(error: WireError, max_header: usize, max_body: usize) -> Option<Refusal> {
    Some(match error {
        WireError::Io(_) | WireError::Ended(false) => return None,
        WireError::Ended(true) => Refusal::bad("the request ended in the middle", "send all of it"),
        WireError::TargetTooLong => Refusal::new(
            414,
            format!("the first line is longer than api.max_header = {max_header} bytes lets it be"),
            "put large values into the body",
        ),
        WireError::HeadTooLarge => Refusal::new(
            431,
            format!("the headers are larger than api.max_header = {max_header} bytes, or more than 64"),
            "send fewer headers",
        ),
        WireError::BodyTooLarge => too_large(max_body),
        WireError::Version => Refusal::new(505, "this is not HTTP/1.1", "use HTTP/1.1"),
        WireError::Coding => {
            Refusal::new(501, "a transfer coding other than chunked", "send Content-Length or chunked")
        }
        WireError::Malformed(why) => {
            Refusal::bad(format!("this is no HTTP request: {why}"), "see RFC 9112; TLS is not spoken here")
        }
    })
}

/// The refusal of a body larger than `api.max_body`.
pub(super) fn too_large(max_body: usize) -> Refusal {
    Refusal::new(
        413,
        format!("the body is larger than api.max_body = {max_body} bytes lets it be"),
        "send less, or raise the key",
    )
}
