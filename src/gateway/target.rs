//! What a request is for: its path and its query, parsed once or refused.
//!
//! Decides by the text alone; asks no node.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use libp2p::{Multiaddr, PeerId};

use super::{answer::Refusal, split::Split};
use crate::{
    config::parse_duration,
    node::{Quorum, Start},
};

/// The longest key of a record, of what is provided, or of a value by key, in bytes.
const MAX_KEY: usize = 1024;
/// The longest wait that a request may ask for.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// What can be asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Page,
    Health,
    Ready,
    Metrics,
    Status,
    History,
    Peers,
    Mesh,
    Names,
    Publish(String),
    /// Messages that a body is split into.
    PublishMany(String, Split),
    Follow(String),
    State(String, StateCall),
    /// The values of a topic, or that of one key, as they change.
    StateWatch(String, Option<Vec<u8>>),
    MqttStatus,
    /// Messages of MQTT that match a filter.
    MqttFollow(String),
    MqttPublish(String),
    Put(Vec<u8>),
    Get(Vec<u8>),
    Provide(Vec<u8>),
    Providers(Vec<u8>),
    FindPeer(PeerId),
    Ping(PeerId),
    PingAt(Multiaddr),
}

/// What is asked of the values by key of a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StateCall {
    List,
    Get(Vec<u8>),
    Set(Vec<u8>),
    Delete(Vec<u8>),
}

impl Route {
    /// Whether asking makes the node do something: subscribe, look something up, dial, store, publish.
    pub(super) fn acts(&self) -> bool {
        !matches!(
            self,
            Self::Page
                | Self::Health
                | Self::Ready
                | Self::Metrics
                | Self::Status
                | Self::History
                | Self::Peers
                | Self::Mesh
                | Self::Names
                | Self::MqttStatus
        )
    }
}

/// The paths, for the answer to any other one.
const PATHS: &str = "there are /, /healthz, /readyz, /metrics, /v1/status, /v1/history, /v1/peers, /v1/mesh, /v1/names, \
                     /v1/topics/TOPIC, /v1/state/TOPIC, /v1/state/TOPIC/KEY, /v1/mqtt, /v1/mqtt/TOPIC, /v1/dht/KEY, /v1/dht/KEY/providers, /v1/peers/ID and /v1/peers/ID/ping";

/// A slash that is part of a name.
const SLASH: &str = "a / within a topic, a key or an address is written %2F";

/// What `method` on `path` asks for.
pub(super) fn route(method: &str, path: &str) -> Result<Route, Refusal> {
    let Some(path) = path.strip_prefix('/') else {
        return Err(Refusal::bad("the target is no path", "ask for a path such as /v1/status"));
    };
    let decoded: Vec<Vec<u8>> = path.split('/').map(decode).collect::<Result<_, _>>()?;
    let segments: Vec<&[u8]> = decoded.iter().map(Vec::as_slice).collect();
    let get = || only(method, &["GET", "HEAD"]);
    Ok(match segments[..] {
        [b""] => get().map(|_| Route::Page)?,
        [b"healthz"] => get().map(|_| Route::Health)?,
        [b"readyz"] => get().map(|_| Route::Ready)?,
        [b"metrics"] => get().map(|_| Route::Metrics)?,
        [b"v1", b"status"] => get().map(|_| Route::Status)?,
        [b"v1", b"history"] => get().map(|_| Route::History)?,
        [b"v1", b"peers"] => get().map(|_| Route::Peers)?,
        [b"v1", b"mesh"] => get().map(|_| Route::Mesh)?,
        [b"v1", b"names"] => get().map(|_| Route::Names)?,
        [b"v1", b"topics", name] => match only(method, &["GET", "POST"])? {
            "POST" => Route::Publish(topic(name)?),
            _ => Route::Follow(topic(name)?),
        },
        // Nothing else begins so; where a part is empty, it may be a slip.
        [b"v1", b"topics", ref parts @ ..] if parts.len() > 1 => {
            if parts.iter().any(|part| part.is_empty()) {
                return Err(Refusal::bad("a topic with an empty part", SLASH));
            }
            let name = parts.join(&b'/');
            match only(method, &["GET", "POST"])? {
                "POST" => Route::Publish(topic(&name)?),
                _ => Route::Follow(topic(&name)?),
            }
        }
        [b"v1", b"state", name] => {
            get().and_then(|_| topic(name)).map(|t| Route::State(t, StateCall::List))?
        }
        [b"v1", b"state", name, of] => {
            let call = match only(method, &["GET", "PUT", "DELETE", "HEAD"])? {
                "PUT" => StateCall::Set(key(of)?),
                "DELETE" => StateCall::Delete(key(of)?),
                _ => StateCall::Get(key(of)?),
            };
            Route::State(topic(name)?, call)
        }
        [b"v1", b"mqtt"] => get().map(|_| Route::MqttStatus)?,
        // Every level counts, empty ones, too.
        [b"v1", b"mqtt", ref levels @ ..] => {
            let method = only(method, &["GET", "POST"])?;
            let hint = "a topic or filter of MQTT is 1 to 65535 bytes of text; # is written %23";
            let text = String::from_utf8(levels.join(&b'/'));
            let text = text.map_err(|_| Refusal::bad("the topic is no UTF-8", hint))?;
            if text.is_empty() || text.len() > usize::from(u16::MAX) || text.contains('\0') {
                return Err(Refusal::bad("this is no topic of MQTT", hint));
            }
            if method == "POST" { Route::MqttPublish(text) } else { Route::MqttFollow(text) }
        }
        [b"v1", b"dht", name] => match only(method, &["GET", "PUT", "HEAD"])? {
            "PUT" => Route::Put(key(name)?),
            _ => Route::Get(key(name)?),
        },
        [b"v1", b"dht", name, b"providers"] => match only(method, &["GET", "POST", "HEAD"])? {
            "POST" => Route::Provide(key(name)?),
            _ => Route::Providers(key(name)?),
        },
        [b"v1", b"peers", id] => get().and_then(|_| peer(id)).map(Route::FindPeer)?,
        [b"v1", b"peers", id, b"ping"] => match get().and_then(|_| address(id))? {
            Some(address) => Route::PingAt(address),
            None => Route::Ping(peer(id)?),
        },
        [b"v1", b"dht" | b"peers" | b"state", _, _, ..] => {
            return Err(Refusal::new(404, "there is no such path", format!("{SLASH}; {PATHS}")));
        }
        _ => return Err(Refusal::new(404, "there is no such path", PATHS)),
    })
}

fn only<'a>(method: &str, allowed: &[&'a str]) -> Result<&'a str, Refusal> {
    allowed.iter().find(|a| **a == method).copied().ok_or_else(|| Refusal {
        header: Some(("Allow", allowed.join(", "))),
        ..Refusal::new(405, "this path knows no such method", format!("use {}", allowed.join(" or ")))
    })
}

fn topic(bytes: &[u8]) -> Result<String, Refusal> {
    let hint = "a topic is 1 to 256 bytes of text without control characters";
    let text = String::from_utf8(bytes.to_vec()).map_err(|_| Refusal::bad("the topic is no UTF-8", hint))?;
    crate::config::parse_topic(&text).map_err(|why| Refusal::bad(format!("bad topic: {why}"), hint))
}

fn key(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    match bytes.len() {
        1..=MAX_KEY => Ok(bytes.to_vec()),
        0 => Err(Refusal::bad("an empty key", "a key is 1 to 1024 bytes")),
        n => Err(Refusal::bad(format!("a key of {n} bytes"), "a key is 1 to 1024 bytes")),
    }
}

fn peer(bytes: &[u8]) -> Result<PeerId, Refusal> {
    let text = std::str::from_utf8(bytes).ok();
    text.and_then(|id| id.parse().ok()).ok_or_else(|| {
        Refusal::bad("this is no peer id", "a peer id looks like 12D3KooW…; GET /v1/peers has some")
    })
}

/// An address in place of a peer id, percent-encoded; `None` if it does not look like one.
fn address(bytes: &[u8]) -> Result<Option<Multiaddr>, Refusal> {
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| text.starts_with('/')) else {
        return Ok(None);
    };
    let dialed = crate::config::dialable(text);
    dialed.map(Some).map_err(|why| {
        Refusal::bad(format!("the address {why}"), "such as /ip4/10.0.0.1/udp/4001/quic-v1, encoded")
    })
}

/// Percent-decoding (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => {
                        let hint = "write % itself as %25, and other bytes as % and two hexadecimal digits";
                        return Err(Refusal::bad("a % without two hexadecimal digits", hint));
                    }
                }
            }
            byte => byte,
        });
    }
    Ok(decoded)
}

/// Percent-encoding of everything that has a meaning of its own in a path or a query.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(*byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The parameters of a query. Each is taken once; what is left over at the end is refused.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let mut query = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let text = |part| {
                String::from_utf8(decode(part)?)
                    .map_err(|_| Refusal::bad("the query is no UTF-8", "encode text as UTF-8"))
            };
            if query.insert(text(name)?, text(value)?).is_some() {
                return Err(Refusal::bad("a parameter is given twice", "give each parameter once"));
            }
        }
        Ok(Self(query))
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn take<T>(
        &mut self,
        name: &str,
        hint: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(value) => match parse(&value) {
                Some(value) => Ok(Some(value)),
                None => Err(Refusal::bad(format!("bad value of {name}"), hint)),
            },
        }
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<usize>, Refusal> {
        let parse = |text: &str| text.parse().ok().filter(|n| *n <= 65536);
        self.take(name, "a whole number from 0 to 65536", parse)
    }

    /// A quality of service of MQTT.
    pub(super) fn qos(&mut self, name: &str) -> Result<Option<u8>, Refusal> {
        self.take(name, "0, 1 or 2", |text| text.parse().ok().filter(|qos| *qos <= 2))
    }

    /// How long to wait: seconds, or a number with its unit.
    pub(super) fn wait(&mut self, name: &str) -> Result<Option<Duration>, Refusal> {
        let parse = |text: &str| duration(text).filter(|d| *d <= MAX_WAIT);
        self.take(name, "seconds such as 10, or 500ms, 10s or 5m; at most 1h", parse)
    }

    /// How long something lives: seconds, or a number with its unit.
    pub(super) fn life(&mut self, name: &str) -> Result<Option<Duration>, Refusal> {
        let parse = |text: &str| duration(text).filter(|d| (1..=3650 * 24 * 3600).contains(&d.as_secs()));
        self.take(name, "seconds such as 3600, or 10m, 36h or 7d; 1s to 3650d", parse)
    }

    pub(super) fn quorum(&mut self, name: &str) -> Result<Option<Quorum>, Refusal> {
        self.take(name, "one, majority, all, or a whole number, 1 or more", |text| match text {
            "one" => Some(Quorum::One),
            "majority" => Some(Quorum::Majority),
            "all" => Some(Quorum::All),
            _ => text.parse::<NonZeroUsize>().ok().map(Quorum::Count),
        })
    }

    /// Where a stream of a topic begins, with `now` in milliseconds since 1970.
    pub(super) fn start(&mut self, now: u64) -> Result<Option<Start>, Refusal> {
        let hint = "a time back such as -10m, milliseconds since 1970, or the id of an event that was heard";
        let since = self.take("since", hint, |text| since(text, now))?;
        let last = self.number("last")?.map(Start::Last);
        match (since, last) {
            (Some(_), Some(_)) => Err(Refusal::bad("since and last", "give one of them")),
            (since, last) => Ok(since.or(last)),
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        self.take(name, "true or false", |text| text.parse().ok())
    }

    /// A parameter that may stand alone: `?watch`, `?watch=true`.
    pub(super) fn set(&mut self, name: &str) -> Result<bool, Refusal> {
        let parse = |text: &str| if text.is_empty() { Some(true) } else { text.parse().ok() };
        Ok(self.take(name, "nothing, true or false", parse)?.unwrap_or(false))
    }

    /// How a body is split into messages.
    pub(super) fn split(&mut self) -> Result<Option<Split>, Refusal> {
        self.take("split", "lines or frames", |text| match text {
            "lines" => Some(Split::Lines),
            "frames" => Some(Split::Frames),
            _ => None,
        })
    }

    /// Refuses parameters that were not taken.
    pub(super) fn done(self, known: &str) -> Result<(), Refusal> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => {
                let name: String = name.chars().take(32).collect();
                Err(Refusal::bad(
                    format!("an unknown parameter {name:?}"),
                    format!("this path knows {known}"),
                ))
            }
        }
    }
}

/// A number of milliseconds since 1970 is later than this; what is less is meant otherwise.
const MILLIS: u64 = 100_000_000_000;

fn since(text: &str, now: u64) -> Option<Start> {
    if let Some(back) = text.strip_prefix('-') {
        let back = parse_duration(back).ok()?;
        return Some(Start::At(now.saturating_sub(u64::try_from(back.as_millis()).ok()?)));
    }
    let time = text.parse().ok().filter(|time| *time >= MILLIS).map(Start::At);
    time.or_else(|| text.parse().ok().map(Start::Behind))
}

fn duration(text: &str) -> Option<Duration> {
    match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => parse_duration(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, path: &str) -> u16 {
        route(method, path).map_or_else(|refusal| refusal.status, |_| 200)
    }

    #[test]
    fn a_stream_begins_where_it_is_asked_to() {
        let now = 1_795_000_000_000;
        let start = |query: &str| Query::parse(query).unwrap().start(now).map_err(|refusal| refusal.status);
        assert_eq!(start(""), Ok(None));
        assert_eq!(start("since=-10m"), Ok(Some(Start::At(now - 600_000))));
        assert_eq!(start("since=1794999999999"), Ok(Some(Start::At(now - 1))));
        assert_eq!(start("last=5"), Ok(Some(Start::Last(5))));
        let position = "1795000000000.7.0.42";
        assert_eq!(start(&format!("since={position}")), Ok(Some(Start::Behind(position.parse().unwrap()))));
        for bad in
            ["since=10", "since=10m", "since=", "since=-10", "since=1.2.3", "last=-1", "last=5&since=-1m"]
        {
            assert_eq!(start(bad), Err(400), "{bad}");
        }
    }

    #[test]
    fn paths_lead_where_they_say() {
        let id = PeerId::random();
        assert_eq!(route("GET", "/"), Ok(Route::Page));
        assert_eq!(route("GET", "/v1/topics/a%2Fb%20%C3%A9"), Ok(Route::Follow("a/b é".into())));
        assert_eq!(
            route("GET", "/v1/topics/home/1.%C3%A9/light"),
            Ok(Route::Follow("home/1.é/light".into()))
        );
        assert_eq!(route("POST", "/v1/topics/a/b%2Fc"), Ok(Route::Publish("a/b/c".into())));
        assert_eq!(route("POST", "/v1/topics/t"), Ok(Route::Publish("t".into())));
        let state = |call| Ok(Route::State("a/b".into(), call));
        assert_eq!(route("GET", "/v1/state/a%2Fb"), state(StateCall::List));
        assert_eq!(route("PUT", "/v1/state/a%2Fb/%00%2F"), state(StateCall::Set(vec![0, b'/'])));
        assert_eq!(route("DELETE", "/v1/state/a%2Fb/k"), state(StateCall::Delete(b"k".to_vec())));
        assert_eq!(route("HEAD", "/v1/state/a%2Fb/k"), state(StateCall::Get(b"k".to_vec())));
        assert_eq!(route("PUT", "/v1/dht/%00%ff"), Ok(Route::Put(vec![0, 255])));
        assert_eq!(route("HEAD", "/v1/dht/k"), Ok(Route::Get(b"k".to_vec())));
        assert_eq!(route("POST", "/v1/dht/k/providers"), Ok(Route::Provide(b"k".to_vec())));
        assert_eq!(route("GET", &format!("/v1/peers/{id}/ping")), Ok(Route::Ping(id)));
        let address = "/ip4/10.0.0.1/udp/4001/quic-v1";
        let path = format!("/v1/peers/{}/ping", encode(address.as_bytes()));
        assert_eq!(route("GET", &path), Ok(Route::PingAt(address.parse().unwrap())));
    }

    #[test]
    fn everything_else_is_refused() {
        for (method, path, expected) in [
            ("GET", "", 400),
            ("GET", "http://127.0.0.1/healthz", 400),
            ("GET", "*", 400),
            ("GET", "//", 404),
            ("POST", "/", 405),
            ("GET", "/healthz/", 404),
            ("GET", "/v1", 404),
            ("GET", "/v1//status", 404),
            ("GET", "/v2/status", 404),
            ("GET", "/../healthz", 404),
            ("POST", "/healthz", 405),
            ("DELETE", "/v1/dht/k", 405),
            ("POST", "/v1/state/t", 405),
            ("POST", "/v1/state/t/k", 405),
            ("PUT", "/v1/state/t", 405),
            ("GET", "/v1/state/", 400),
            ("PUT", "/v1/state/t/", 400),
            ("PUT", "/v1/state/a/b/k", 404),
            ("GET", "/v1/state/%ff/k", 400),
            ("get", "/healthz", 405),
            ("HEAD", "/v1/topics/t", 405),
            ("OPTIONS", "/v1/topics/t", 405),
            ("GET", "/v1/topics/", 400),
            ("GET", "/v1/topics/a/", 400),
            ("GET", "/v1/topics/a//b", 400),
            ("GET", "/v1/topics//a", 400),
            ("DELETE", "/v1/topics/a/b", 405),
            ("GET", "/v1/dht/a/b", 404),
            ("GET", "/v1/dht/a/b/providers", 404),
            ("GET", "/v1/topics/%ff", 400),
            ("GET", "/v1/topics/a%0Ab", 400),
            ("GET", "/v1/topics/%", 400),
            ("GET", "/v1/topics/%2", 400),
            ("GET", "/v1/topics/%zz", 400),
            ("GET", "/v1/topics/%+1", 400),
            ("GET", "/v1/dht/", 400),
            ("GET", "/v1/peers/nobody", 400),
            ("GET", "/v1/peers//ping", 400),
            ("GET", "/v1/peers/%2Fip4%2F10.0.0.1%2Ftcp%2F0/ping", 400),
            ("GET", "/v1/peers/%2Fdns4%2Fbootstrap/ping", 400),
            ("GET", "/v1/peers/%2Fip4%2F10.0.0.1%2Fudp%2F4001%2Fquic-v1", 400),
        ] {
            assert_eq!(status(method, path), expected, "{method} {path}");
        }
        for path in ["/v1/topics/a//b", "/v1/dht/a/b"] {
            assert!(route("GET", path).unwrap_err().hint.contains("%2F"), "{path}");
        }
        assert_eq!(status("GET", &format!("/v1/topics/{}", "x".repeat(257))), 400);
        assert_eq!(status("GET", &format!("/v1/dht/{}", "x".repeat(1025))), 400);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
    }

    #[test]
    fn parameters_are_taken_or_refused() {
        let mut query = Query::parse("wait_peers=3&timeout=500ms&&quorum=all&ttl=60").unwrap();
        assert_eq!(query.number("wait_peers"), Ok(Some(3)));
        assert_eq!(query.wait("timeout"), Ok(Some(Duration::from_millis(500))));
        assert_eq!(query.quorum("quorum"), Ok(Some(Quorum::All)));
        assert_eq!(query.life("ttl"), Ok(Some(Duration::from_secs(60))));
        assert_eq!(query.number("other"), Ok(None));
        query.done("").unwrap();
        for bad in ["a=1&a=2", "a=%", "%ff=1"] {
            assert_eq!(Query::parse(bad).unwrap_err().status, 400, "{bad}");
        }
        for bad in ["n=-1", "n=", "n=65537", "n=x"] {
            assert!(Query::parse(bad).unwrap().number("n").is_err(), "{bad}");
        }
        for bad in ["t=2h", "t=-1", "t=soon", "t=", "t=99999999999999999999"] {
            assert!(Query::parse(bad).unwrap().wait("t").is_err(), "{bad}");
        }
        for bad in ["q=0", "q=none", "q="] {
            assert!(Query::parse(bad).unwrap().quorum("q").is_err(), "{bad}");
        }
        assert_eq!(Query::parse("b=false").unwrap().flag("b"), Ok(Some(false)));
        for bad in ["b=0", "b=no", "b"] {
            assert!(Query::parse(bad).unwrap().flag("b").is_err(), "{bad}");
        }
        assert!(Query::parse("t=0").unwrap().life("t").is_err());
        assert!(Query::parse("wat=1").unwrap().done("quorum").is_err());
    }
}
