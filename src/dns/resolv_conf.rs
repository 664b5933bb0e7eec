//! `resolv.conf(5)`: which servers to ask, and how short names are completed.
//!
//! Read for `nameserver`, `search`, `domain` and `options ndots`. Time limits and attempts
//! are smidge's own, so its `timeout` and `attempts` are passed over, like every line that is
//! not understood. What was meant as a server and is none is a problem that can be shown.

use std::net::{IpAddr, SocketAddr};

use super::name::{HostName, shown};

/// Servers that are kept at most; later ones are passed over.
const MAX_SERVERS: usize = 8;
/// Search domains that are kept at most.
const MAX_SEARCH: usize = 32;
/// The largest `ndots` that means anything, as in glibc.
const MAX_NDOTS: usize = 15;
/// Problems that are kept at most.
const MAX_PROBLEMS: usize = 8;

/// What a `resolv.conf` says, as text to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvConfSays {
    pub(crate) servers: Vec<String>,
    pub(crate) search: Vec<String>,
    pub(crate) ndots: Option<usize>,
    /// The servers that can be asked.
    pub(crate) usable: Vec<SocketAddr>,
    /// What is wrong with the file, and with servers that cannot be asked.
    pub(crate) problems: Vec<String>,
}

impl From<&ResolvConf> for ResolvConfSays {
    fn from(conf: &ResolvConf) -> Self {
        let server = |server: &Server| match &server.scope {
            Some(scope) => format!("{}%{scope}", server.ip),
            None => server.ip.to_string(),
        };
        Self {
            servers: conf.servers.iter().map(server).collect(),
            search: conf.search.iter().map(|domain| domain.as_str().to_owned()).collect(),
            ndots: conf.ndots,
            usable: Vec::new(),
            problems: conf.problems.clone(),
        }
    }
}

/// A name server as `resolv.conf` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) ip: IpAddr,
    /// The interface of a link-local address, by name or number: what follows `%`.
    pub(super) scope: Option<String>,
}

/// A parsed `resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<Server>,
    pub(super) search: Vec<HostName>,
    pub(super) ndots: Option<usize>,
    /// What is wrong with lines that were meant to name a server and do not.
    pub(super) problems: Vec<String>,
}

impl ResolvConf {
    /// Parses the content of a `resolv.conf`.
    pub(super) fn parse(content: &[u8]) -> Self {
        let mut conf = Self::default();
        let text = String::from_utf8_lossy(content);
        let unmarked = text.strip_prefix('\u{feff}');
        if unmarked.is_some() {
            let problem = "it begins with a byte order mark, for which the C library passes over line 1: save it as \
                           plain UTF-8";
            conf.problems.push(problem.into());
        }
        for (n, line) in unmarked.unwrap_or(&text).lines().enumerate() {
            let mut words =
                line.split_whitespace().take_while(|word| !word.starts_with('#') && !word.starts_with(';'));
            match words.next() {
                Some("nameserver") => {
                    match words.next().ok_or("").and_then(|word| server(word).ok_or(word)) {
                        Ok(server) => conf.servers.push(server),
                        Err(word) => conf.problems.push(format!("line {}: {}", n + 1, no_server(word))),
                    }
                }
                // The last of these lines counts.
                Some("search") => conf.search = search_list(words),
                Some("domain") => conf.search = search_list(words.take(1)),
                Some("options") => {
                    for value in words.filter_map(|word| word.strip_prefix("ndots:")) {
                        conf.ndots = value.parse().ok().map(|n: usize| n.min(MAX_NDOTS)).or(conf.ndots);
                    }
                }
                _ => {}
            }
        }
        conf.servers.truncate(MAX_SERVERS);
        conf.problems.truncate(MAX_PROBLEMS);
        conf
    }
}

fn server(word: &str) -> Option<Server> {
    let (ip, scope) = match word.split_once('%') {
        Some((ip, scope)) => (ip, Some(scope.to_owned())),
        None => (word, None),
    };
    Some(Server { ip: ip.parse().ok()?, scope })
}

/// Why what follows `nameserver` names none.
fn no_server(word: &str) -> String {
    let bare = word.strip_prefix('[').map_or(word, |rest| rest.split(']').next().unwrap_or(rest));
    let without_port = word.parse::<SocketAddr>().map(|at| at.ip()).or_else(|_| bare.parse());
    match without_port {
        _ if word.is_empty() => "`nameserver` without an address".into(),
        Ok(ip) => format!("`nameserver {}`: write {ip}; the port is always 53 here", shown(word)),
        Err(_) => {
            format!("`nameserver {}`: that is no IP address, and names are not looked up here", shown(word))
        }
    }
}

/// Parses search domains; `.`, which stands for none, and what is no name are passed over.
fn search_list<'a>(words: impl Iterator<Item = &'a str>) -> Vec<HostName> {
    words.filter_map(|word| HostName::parse(word).ok()).take(MAX_SEARCH).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(content: &str) -> (String, String, Option<usize>) {
        let conf = ResolvConf::parse(content.as_bytes());
        let ResolvConfSays { servers, search, ndots, .. } = (&conf).into();
        (servers.join(" "), search.join(" "), ndots)
    }

    #[test]
    fn the_files_of_real_platforms_are_understood() {
        for (content, servers, search, ndots) in [
            ("nameserver 127.0.0.11\noptions ndots:0\n", "127.0.0.11", "", Some(0)),
            (
                "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n",
                "10.96.0.10",
                "ns.svc.cluster.local svc.cluster.local cluster.local",
                Some(5),
            ),
            ("nameserver 127.0.0.53\noptions edns0 trust-ad ndots:2\nsearch .\n", "127.0.0.53", "", Some(2)),
            (
                "# c\n; c\ndomain Home.Arpa.\nnameserver\tfe80::1%eth0 # why\nnameserver ::1\n",
                "fe80::1%eth0 ::1",
                "home.arpa",
                None,
            ),
            (
                "search a\nsearch b c\r\nnameserver x\nnameserver\noptions ndots:99 ndots:x",
                "",
                "b c",
                Some(15),
            ),
            ("search a\ndomain b c", "", "b", None),
            ("nameserver10.0.0.1\n\u{feff}search a", "", "", None),
            ("", "", "", None),
        ] {
            assert_eq!(shown(content), (servers.into(), search.into(), ndots), "{content:?}");
        }
    }

    #[test]
    fn a_line_that_was_meant_to_name_a_server_is_said_to_name_none() {
        for (content, problem) in [
            (
                "nameserver 10.0.0.1\nnameserver 127.0.0.1:53",
                "line 2: `nameserver 127.0.0.1:53`: write 127.0.0.1;",
            ),
            ("nameserver [::1]", "line 1: `nameserver [::1]`: write ::1;"),
            ("nameserver [::1]:53", "line 1: `nameserver [::1]:53`: write ::1;"),
            ("# c\nnameserver localhost # why", "line 2: `nameserver localhost`: that is no IP address"),
            ("nameserver", "line 1: `nameserver` without an address"),
            ("\u{feff}nameserver 10.0.0.1", "it begins with a byte order mark"),
            ("nameserver 10.0.0.1\nsearch a..b\nnonsense", ""),
        ] {
            let problems = ResolvConf::parse(content.as_bytes()).problems.join("; ");
            assert!(
                problems.starts_with(problem) && problems.is_empty() == problem.is_empty(),
                "{content:?}: {problems}"
            );
        }
        assert_eq!(shown("\u{feff}nameserver 10.0.0.1"), ("10.0.0.1".into(), String::new(), None));
        assert_eq!(ResolvConf::parse("nameserver x\n".repeat(99).as_bytes()).problems.len(), MAX_PROBLEMS);
    }

    #[test]
    fn one_bad_domain_does_not_spoil_the_others() {
        assert_eq!(shown("search a..b good - bücher.example \u{0} other").1, "good - other");
    }

    #[test]
    fn long_lists_are_cut() {
        let content = "nameserver 10.0.0.1\n".repeat(100) + "search" + &" a".repeat(100);
        let conf = ResolvConf::parse(content.as_bytes());
        assert_eq!((conf.servers.len(), conf.search.len()), (MAX_SERVERS, MAX_SEARCH));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_resolv_conf(content in any::<Vec<u8>>()) {
            ResolvConf::parse(&content);
        }

        #[test]
        fn any_words_are_a_resolv_conf(
            content in "((nameserver|search|domain|options|ndots:|[0-9.:%]|#|;|[a-z]{1,70}| |\t|\n){0,40}){0,4}"
        ) {
            let conf = ResolvConf::parse(content.as_bytes());
            prop_assert!(conf.servers.len() <= MAX_SERVERS && conf.ndots.is_none_or(|n| n <= MAX_NDOTS));
        }
    }
}
