//! A host name, checked once.
//!
//! Takes what container platforms use (underscores, single labels, `tasks.peer`), and refuses
//! what no name server could hold. It never asks a server.

use super::LookupError;

/// Longest label in bytes (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;
/// Longest name in bytes as text, without the final dot (255 on the wire).
const MAX_NAME: usize = 253;

/// A host name without its final dot, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostName {
    text: String,
    absolute: bool,
}

impl HostName {
    /// Checks `host`; a final dot makes it absolute, so that the search list does not apply.
    pub(super) fn parse(host: &str) -> Result<Self, LookupError> {
        let bad = |why: String| Err(LookupError::BadName { name: shown(host), why });
        let (text, absolute) = match host.strip_suffix('.') {
            Some(text) => (text, true),
            None => (host, false),
        };
        if text.is_empty() {
            return bad("it is empty".into());
        }
        if text.len() > MAX_NAME {
            return bad(format!("it has {} bytes, and {MAX_NAME} is the most", text.len()));
        }
        for label in text.split('.') {
            if label.is_empty() {
                return bad("two dots in a row, or a dot in front, leave a part empty".into());
            }
            if label.len() > MAX_LABEL {
                return bad(format!(
                    "a part between dots has {} bytes, and {MAX_LABEL} is the most",
                    label.len()
                ));
            }
        }
        if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.')) {
            return bad(if c.is_ascii() {
                format!("{c:?} cannot be in one; letters, digits, `-`, `_` and `.` can")
            } else {
                format!("{c:?} is not ASCII; write an international name in its `xn--` form")
            });
        }
        if text.split('.').count() == 4 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return bad("it looks like an IPv4 address, but is none".into());
        }
        Ok(Self { text: text.to_ascii_lowercase(), absolute })
    }

    /// The name in lower case, without a final dot.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the name was written with a final dot.
    pub(super) fn is_absolute(&self) -> bool {
        self.absolute
    }

    /// How many dots are inside the name.
    pub(super) fn dots(&self) -> usize {
        self.text.bytes().filter(|b| *b == b'.').count()
    }

    /// The name with `domain` behind it, unless that grows too long to exist.
    pub(super) fn under(&self, domain: &Self) -> Option<Self> {
        let text = format!("{}.{}", self.text, domain.text);
        (text.len() <= MAX_NAME).then_some(Self { text, absolute: true })
    }

    /// Whether this is `localhost` or a name under it, which never leave the host (RFC 6761, 6.3).
    pub(super) fn is_localhost(&self) -> bool {
        self.text == "localhost" || self.text.ends_with(".localhost")
    }
}

/// `name` as it can be shown: escaped, so that it cannot forge log lines, and not too long.
pub(super) fn shown(name: &str) -> String {
    const MOST: usize = 80;
    let mut shown: String = name.chars().take(MOST).flat_map(char::escape_debug).collect();
    if name.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_platforms_use_are_names() {
        for (host, text, absolute) in [
            ("peer", "peer", false),
            ("tasks.peer", "tasks.peer", false),
            ("my_service", "my_service", false),
            ("_dnsaddr.Example.ORG.", "_dnsaddr.example.org", true),
            ("1", "1", false),
            ("-odd-", "-odd-", false),
            ("10.0.0.1.nip.io", "10.0.0.1.nip.io", false),
        ] {
            let name = HostName::parse(host).unwrap();
            assert_eq!((name.as_str(), name.is_absolute()), (text, absolute), "{host}");
        }
        assert!(HostName::parse(&format!("{}.{}", "a".repeat(63), "b".repeat(63))).is_ok());
    }

    #[test]
    fn names_that_cannot_exist_are_refused_in_words() {
        let long_label = "a".repeat(64);
        let long_name = ["a".repeat(60).as_str(); 5].join(".");
        for (host, why) in [
            ("", "it is empty"),
            (".", "it is empty"),
            ("..", "two dots in a row"),
            (".peer", "two dots in a row, or a dot in front"),
            ("a..b", "two dots in a row"),
            (&long_label, "64 bytes, and 63 is the most"),
            (&long_name, "304 bytes, and 253 is the most"),
            ("a b", "' ' cannot be in one"),
            ("a\nINFO forged", "'\\n' cannot be in one"),
            ("a\0b", "'\\0' cannot be in one"),
            ("peer:4001", "':' cannot be in one"),
            ("bücher.example", "'ü' is not ASCII"),
            ("300.1.1.1", "looks like an IPv4 address"),
            ("*.peer", "'*' cannot be in one"),
        ] {
            let words = HostName::parse(host).unwrap_err().to_string();
            assert!(words.contains(why) && !words.contains('\n'), "{host:?}: {words}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_can_be_asked(host in any::<String>()) {
            if let Ok(name) = HostName::parse(&host) {
                prop_assert!(name.as_str().len() <= MAX_NAME);
                prop_assert!(name.as_str().split('.').all(|l| (1..=MAX_LABEL).contains(&l.len())));
                let again = HostName::parse(name.as_str()).unwrap();
                prop_assert_eq!(again.as_str(), name.as_str());
            }
        }
    }
}
