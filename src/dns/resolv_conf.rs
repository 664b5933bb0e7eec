//! `resolv.conf(5)`: whom to ask, and how short names are completed.
//!
//! Read for `nameserver`, `search`, `domain` and `options ndots`. Time limits and attempts
//! are smidge's own, so its `timeout` and `attempts` are passed over, like every line that is
//! not understood.

use std::net::IpAddr;

use super::name::HostName;

/// Servers that are kept at most; later ones are passed over.
const MAX_SERVERS: usize = 8;
/// Search domains that are kept at most.
const MAX_SEARCH: usize = 32;
/// The largest `ndots` that means anything, as in glibc.
const MAX_NDOTS: usize = 15;

/// What a `resolv.conf` says, in words, for who wants to show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvConfSays {
    pub(crate) servers: Vec<String>,
    pub(crate) search: Vec<String>,
    pub(crate) ndots: Option<usize>,
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
}

impl ResolvConf {
    /// Parses the content of a `resolv.conf`.
    pub(super) fn parse(content: &[u8]) -> Self {
        let mut conf = Self::default();
        for line in String::from_utf8_lossy(content).lines() {
            let mut words =
                line.split_whitespace().take_while(|word| !word.starts_with('#') && !word.starts_with(';'));
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
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
        let ResolvConfSays { servers, search, ndots } = (&conf).into();
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
