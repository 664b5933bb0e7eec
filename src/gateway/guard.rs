//! Who may ask: browsers on foreign pages, rebinding host names and callers without the token may not.
//!
//! A page that a browser shows can send requests to this machine, and a name server under its
//! author's control can make them look as if they were of the same origin ("DNS rebinding"). Such
//! requests tell on themselves by their `Origin`, `Sec-Fetch-Site` or `Host`. This file decides; it
//! reads nothing.

use std::net::IpAddr;

use super::{
    answer::Refusal,
    wire::{Head, RequestLine},
};
use crate::config::{ApiListen, Secret};

/// What a listener asks of its callers.
#[derive(Debug)]
pub(super) struct Guard {
    /// Whether `Host` has to be this machine or an address: no name server can change those.
    checks_host: bool,
    token: Option<Secret>,
}

impl Guard {
    pub(super) fn new(listen: &ApiListen, token: Option<Secret>) -> Self {
        // Through a Unix socket comes no browser. Where others reach the listener, by whatever name
        // they know it, they need the token, which no page has.
        let checks_host = matches!(listen, ApiListen::Tcp(addr) if addr.ip().is_loopback());
        Self { checks_host, token }
    }

    /// Whether this request may be answered. `open` requests need no token.
    pub(super) fn check(&self, head: &Head<RequestLine>, open: bool) -> Result<(), Refusal> {
        let host = match head.all("host").collect::<Vec<_>>()[..] {
            [host] => Some(host),
            [] if !head.is_11 => None,
            [] => return Err(Refusal::bad("no header Host", "HTTP/1.1 asks for one")),
            _ => return Err(Refusal::bad("more than one header Host", "send one")),
        };
        if self.checks_host && !host.is_none_or(is_fixed) {
            let why = "the Host of this request is neither localhost nor an address";
            return Err(Refusal::new(403, why, "ask for http://127.0.0.1:PORT/ or http://localhost:PORT/"));
        }
        let foreign_site = head.all("sec-fetch-site").any(|site| !matches!(site, "same-origin" | "none"));
        let same = |origin: &str| {
            let host_of = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            host_of.is_some_and(|o| host.is_some_and(|h| o.eq_ignore_ascii_case(h)))
        };
        if foreign_site || !head.all("origin").all(same) {
            let why = "a page on another origin may not ask this node";
            return Err(Refusal::new(
                403,
                why,
                "call the API from a program; open the page by its address, not by a link",
            ));
        }
        match &self.token {
            Some(token) if !open => authorize(token, head),
            _ => Ok(()),
        }
    }
}

fn authorize(token: &Secret, head: &Head<RequestLine>) -> Result<(), Refusal> {
    let hint = "send the header Authorization: Bearer TOKEN, with TOKEN as api.token has it";
    let given = head.all("authorization").collect::<Vec<_>>();
    let [given] = given[..] else {
        return Err(Refusal::new(401, "this node asks for a token", hint));
    };
    let bearer = given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match bearer {
        Some((_, given)) if token.matches(given.trim()) => Ok(()),
        _ => Err(Refusal::new(401, "this is not the token", hint)),
    }
}

/// Whether a host is what no name server can change: an address, or this machine by its reserved name
/// (RFC 6761).
fn is_fixed(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;
    use crate::gateway::wire::Wire;

    fn status(guard: &Guard, headers: &str, open: bool) -> u16 {
        let text = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        let mut wire = Wire::new(Box::new(Cursor::new(text.into_bytes())));
        let Ok(head) = futures::executor::block_on(wire.request(4096)) else { panic!("{headers:?}") };
        guard.check(&head, open).map_or_else(|refusal| refusal.status, |()| 200)
    }

    #[test]
    fn browsers_on_foreign_pages_and_rebinding_names_are_kept_out() {
        let guard = Guard::new(&ApiListen::Tcp(([127, 0, 0, 1], 4080).into()), None);
        for (headers, expected) in [
            ("Host: 127.0.0.1:4080\r\n", 200),
            ("Host: localhost\r\n", 200),
            ("Host: LOCALHOST:4080\r\n", 200),
            ("Host: [::1]:4080\r\n", 200),
            ("Host: [::1]\r\n", 200),
            ("Host: 10.0.0.9:8080\r\n", 200),
            ("", 400),
            ("Host: a\r\nHost: a\r\n", 400),
            ("Host: evil.example\r\n", 403),
            ("Host: evil.example:4080\r\n", 403),
            ("Host: 127.0.0.1.evil.example\r\n", 403),
            ("Host: localhost.evil.example\r\n", 403),
            ("Host: \r\n", 403),
            ("Host: localhost:4080\r\nOrigin: http://localhost:4080\r\n", 200),
            ("Host: localhost:4080\r\nOrigin: http://localhost:8080\r\n", 403),
            ("Host: localhost:4080\r\nOrigin: http://evil.example\r\n", 403),
            ("Host: localhost:4080\r\nOrigin: null\r\n", 403),
            ("Host: localhost:4080\r\nSec-Fetch-Site: same-origin\r\n", 200),
            ("Host: localhost:4080\r\nSec-Fetch-Site: none\r\n", 200),
            ("Host: localhost:4080\r\nSec-Fetch-Site: cross-site\r\n", 403),
            ("Host: localhost:4080\r\nSec-Fetch-Site: same-site\r\n", 403),
        ] {
            assert_eq!(status(&guard, headers, false), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_token_is_asked_for_where_there_is_one() {
        let everywhere = ApiListen::Tcp(([0, 0, 0, 0], 4080).into());
        let guard = Guard::new(&everywhere, Some("s3cret".to_owned().into()));
        for (headers, expected) in [
            ("Host: bootstrap:4080\r\nAuthorization: Bearer s3cret\r\n", 200),
            ("Host: bootstrap:4080\r\nAuthorization: bearer  s3cret\r\n", 200),
            ("Host: bootstrap:4080\r\n", 401),
            ("Host: bootstrap:4080\r\nAuthorization: Bearer s3cre\r\n", 401),
            ("Host: bootstrap:4080\r\nAuthorization: Bearer s3crett\r\n", 401),
            ("Host: bootstrap:4080\r\nAuthorization: Bearer\r\n", 401),
            ("Host: bootstrap:4080\r\nAuthorization: Basic s3cret\r\n", 401),
            ("Host: bootstrap:4080\r\nAuthorization: Bearer a\r\nAuthorization: Bearer s3cret\r\n", 401),
            ("Host: bootstrap:4080\r\nOrigin: http://evil.example\r\nAuthorization: Bearer s3cret\r\n", 403),
        ] {
            assert_eq!(status(&guard, headers, false), expected, "{headers:?}");
        }
        assert_eq!(status(&guard, "Host: bootstrap\r\n", true), 200);
    }
}
