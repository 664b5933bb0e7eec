//! The hosts file (`hosts(5)`): names that are known without asking a server.
//!
//! A name matches whole or not at all, whatever its case. A line that is not understood is
//! passed over; it never spoils the others.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::Family;

/// The addresses of a parsed hosts file, by name in lower case, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Parses the content of a hosts file.
    pub(super) fn parse(content: &[u8]) -> Self {
        let mut hosts = Self::default();
        let text = String::from_utf8_lossy(content);
        for line in text.strip_prefix('\u{feff}').unwrap_or(&text).lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(addr) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
                continue;
            };
            for name in words {
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                hosts.0.entry(name).or_default().push(addr);
            }
        }
        for addrs in hosts.0.values_mut() {
            let mut seen = HashSet::new();
            addrs.retain(|addr| seen.insert(*addr));
        }
        hosts
    }

    /// The addresses of `name` (lower case, no final dot) of the given family.
    pub(super) fn addresses(&self, name: &str, family: Family) -> Vec<IpAddr> {
        let addrs = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        addrs.iter().copied().filter(|addr| family.has(*addr)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &[u8] = b"# a comment\n\
        127.0.0.1\tlocalhost\r\n\
        10.9.9.9 peer-1 Alias # trailing peer\n\
        10.9.9.10 peer-1\n\
        10.9.9.9 peer-1\n\
        fd00::1 peer-1 absolute.\n\
        nonsense peer\n\
        fe80::1%eth0 scoped\n\
        10.9.9.11\n\
        \xff\xfe peer\n";

    #[test]
    fn a_name_matches_whole_and_in_any_case() {
        let hosts = Hosts::parse(FILE);
        let text = |name, family| {
            hosts.addresses(name, family).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        for (name, family, expected) in [
            ("peer-1", Family::Any, "10.9.9.9 10.9.9.10 fd00::1"),
            ("peer-1", Family::V4, "10.9.9.9 10.9.9.10"),
            ("peer-1", Family::V6, "fd00::1"),
            ("alias", Family::Any, "10.9.9.9"),
            ("absolute", Family::Any, "fd00::1"),
            ("localhost", Family::Any, "127.0.0.1"),
            ("peer", Family::Any, ""),
            ("peer-", Family::Any, ""),
            ("eer-1", Family::Any, ""),
            ("trailing", Family::Any, ""),
            ("scoped", Family::Any, ""),
            ("10.9.9.11", Family::Any, ""),
        ] {
            assert_eq!(text(name, family), expected, "{name} {family:?}");
        }
    }

    #[test]
    fn no_line_spoils_another() {
        let good = "10.0.0.1 first";
        for bad in [
            "nonsense",
            "10.0.0",
            "10.0.0.300 first",
            "\u{0}",
            "#",
            "10.0.0.9",
            "fe80::1%eth0 first",
            "= first",
        ] {
            for content in
                [format!("{good}\n{bad}\n10.0.0.2 last"), format!("{bad}\n{good}\n10.0.0.2 last\n{bad}")]
            {
                let hosts = Hosts::parse(content.as_bytes());
                let found = ["first", "last"].map(|name| hosts.addresses(name, Family::Any).len());
                assert_eq!(found, [1, 1], "{content:?}");
            }
        }
        // A mark in front, as editors on other systems leave it.
        assert_eq!(Hosts::parse("\u{feff}10.0.0.1 first".as_bytes()).addresses("first", Family::V4).len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_hosts_file(content in any::<Vec<u8>>(), name in "\\PC*") {
            Hosts::parse(&content).addresses(&name, Family::Any);
        }
    }
}
