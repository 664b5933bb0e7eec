//! Which callers may ask: browsers on foreign pages, rebinding host names and callers without the token may not.
//!
//! A page that a browser shows can send requests to this machine, and a name server under its
//! author's control can make them look as if they were of the same origin ("DNS rebinding"). Such
//! requests tell on themselves by their `Origin`, `Sec-Fetch-Site` or `Host`. This file decides; it
//! reads nothing.

use super::answer::Refusal;
use crate::{
    config::{ApiListen, Secret},
    http::{Head, RequestLine, is_loopback, is_origin},
};

/// What a listener asks of its callers.
#[derive(Debug)]
pub(super) struct Guard {
    /// The listener is on loopback, and `Host` has to say so.
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
        if self.checks_host && !host.is_none_or(is_loopback) {
            let why = "the Host of this request is neither localhost nor an address of loopback";
            return Err(Refusal::new(403, why, "ask for http://127.0.0.1:PORT/ or http://localhost:PORT/"));
        }
        let foreign_site = head.all("sec-fetch-site").any(|site| !matches!(site, "same-origin" | "none"));
        let same = |origin| host.is_some_and(|host| is_origin(origin, host));
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

    /// Whether a request that makes the node do something may be answered, beyond [`check`](Self::check). A browser of
    /// before 2023 may leave `Sec-Fetch-Site` out, and none sends `Origin` with a GET for an image: those have to come
    /// from this node's own page.
    pub(super) fn check_browser(&self, head: &Head<RequestLine>) -> Result<(), Refusal> {
        let is_browser = head.all("user-agent").any(|agent| agent.starts_with("Mozilla/"));
        let says_where = ["sec-fetch-site", "origin"].into_iter().any(|name| head.all(name).next().is_some());
        if !self.checks_host || !is_browser || says_where {
            return Ok(());
        }
        let host = head.all("host").next();
        let own = |page: &str| {
            let origin = page.match_indices('/').nth(2).map_or(page, |(at, _)| &page[..at]);
            host.is_some_and(|host| is_origin(origin, host))
        };
        if head.all("referer").any(own) {
            return Ok(());
        }
        let why = "a browser that does not say which page asks may not make this node do anything";
        Err(Refusal::new(403, why, "use a newer browser; a program says another User-Agent than a browser's"))
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

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;
    use crate::http::Wire;

    fn head(headers: &str) -> Head<RequestLine> {
        let text = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        let mut wire = Wire::new(Box::new(Cursor::new(text.into_bytes())));
        let Ok(head) = futures::executor::block_on(wire.request(4096)) else { panic!("{headers:?}") };
        head
    }

    fn status(guard: &Guard, headers: &str, open: bool) -> u16 {
        guard.check(&head(headers), open).map_or_else(|refusal| refusal.status, |()| 200)
    }

    #[test]
    fn a_browser_that_hides_which_page_asks_makes_the_node_do_nothing() {
        let guard = Guard::new(&ApiListen::Tcp(([127, 0, 0, 1], 4080).into()), None);
        let old = "Host: localhost:4080\r\nUser-Agent: Mozilla/5.0 (Macintosh)\r\n";
        for (headers, expected) in [
            ("Host: localhost:4080\r\nUser-Agent: curl/8.0\r\n".to_owned(), 200),
            ("Host: localhost:4080\r\n".to_owned(), 200),
            (old.to_owned(), 403),
            (format!("{old}Sec-Fetch-Site: same-origin\r\n"), 200),
            (format!("{old}Origin: http://localhost:4080\r\n"), 200),
            (format!("{old}Referer: http://localhost:4080/\r\n"), 200),
            (format!("{old}Referer: http://localhost:4080\r\n"), 200),
            (format!("{old}Referer: http://localhost:4081/\r\n"), 403),
            (format!("{old}Referer: http://evil.example/http://localhost:4080/\r\n"), 403),
            (format!("{old}Referer: http://localhost:4080.evil.example/\r\n"), 403),
        ] {
            let checked = guard.check_browser(&head(&headers));
            assert_eq!(checked.map_or_else(|refusal| refusal.status, |()| 200), expected, "{headers:?}");
        }
        let everywhere =
            Guard::new(&ApiListen::Tcp(([0, 0, 0, 0], 4080).into()), Some("t".to_owned().into()));
        assert_eq!(everywhere.check_browser(&head(old)), Ok(()), "the token is what no page has");
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
            ("Host: 127.8.9.1\r\n", 200),
            ("Host: [::ffff:127.0.0.1]:4080\r\n", 200),
            ("Host: 10.0.0.9:8080\r\n", 403),
            ("Host: 0.0.0.0:4080\r\n", 403),
            ("Host: [::]:4080\r\n", 403),
            ("Host: [::ffff:0.0.0.0]:4080\r\n", 403),
            ("Host: 203.0.113.5\r\n", 403),
            ("Host: 0\r\n", 403),
            ("Host: 2130706433\r\n", 403),
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
