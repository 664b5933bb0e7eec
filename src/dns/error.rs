//! Why a name could not be resolved, in words that can be logged as they are.
//!
//! Every error says what was asked, of whom, and what came back; where an operator can do
//! something about it, also what. Nothing here decides whether to ask again.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use super::Family;

/// Which records were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Addresses of a family: A, AAAA or both.
    Addresses(Family),
    /// Texts (TXT).
    Texts,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Addresses(Family::Any) => "addresses",
            Self::Addresses(Family::V4) => "IPv4 addresses",
            Self::Addresses(Family::V6) => "IPv6 addresses",
            Self::Texts => "texts (TXT)",
        })
    }
}

/// What was asked, and of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The host name as the caller wrote it.
    pub host: String,
    /// Which records were wanted.
    pub what: What,
    /// The full names that were asked for, in order, as the search list expanded them.
    pub names: Vec<String>,
    /// The name servers that the last of them was asked of; none if none needed asking.
    pub servers: Vec<SocketAddr>,
}

impl Asked {
    fn who(&self) -> String {
        match self.servers.as_slice() {
            [] => "this host".into(),
            servers => servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "),
        }
    }

    fn tried(&self) -> String {
        match self.names.as_slice() {
            [] => String::new(),
            [one] if *one == self.host => String::new(),
            names => format!(" (asked for {})", names.join(", ")),
        }
    }
}

/// Why a name could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The name does not exist (NXDOMAIN).
    #[error("`{}`: no such name, says {}{}", .0.host, .0.who(), .0.tried())]
    NoSuchName(Asked),

    /// The name exists, or may exist, but has no records of the kind asked for.
    #[error("`{}`: no {} under this name, says {}{}{}", .asked.host, .asked.what, .asked.who(), .asked.tried(),
        .note.map(|note| format!("; {note}")).unwrap_or_default())]
    NoRecords {
        /// What was asked.
        asked: Asked,
        /// What the backend cannot tell apart, if it cannot.
        note: Option<&'static str>,
    },

    /// The server answered that it cannot or will not answer.
    #[error("`{}`: {} answered {code} when asked for {}{}: {}", .asked.host, .asked.who(), .asked.what,
        .asked.tried(), hint(.code))]
    ServerFailure {
        /// What was asked.
        asked: Asked,
        /// The response code in words, for instance `SERVFAIL`.
        code: String,
    },

    /// Nothing came back in time.
    #[error("`{}`: no answer from {} within {limit:?} when asked for {}{}: \
        is a name server running there, and is UDP and TCP port 53 let through{}?",
        .asked.host, .asked.who(), .asked.what, .asked.tried(),
        .note.map(|note| format!(" ({note})")).unwrap_or_default())]
    TimedOut {
        /// What was asked.
        asked: Asked,
        /// The time limit that passed.
        limit: Duration,
        /// What else this may be, if the backend cannot tell.
        note: Option<&'static str>,
    },

    /// The name server cannot be reached.
    #[error("`{}`: {} cannot be reached when asked for {}{}: {why}", .asked.host, .asked.who(), .asked.what,
        .asked.tried())]
    Unreachable {
        /// What was asked.
        asked: Asked,
        /// The operating system's words.
        why: String,
    },

    /// The name server sent something that is not an answer.
    #[error("`{}`: {} sent an answer that cannot be used when asked for {}{}: {why}",
        .asked.host, .asked.who(), .asked.what, .asked.tried())]
    BadAnswer {
        /// What was asked.
        asked: Asked,
        /// What is wrong with the answer.
        why: String,
    },

    /// The backend cannot do this; another one can.
    #[error("`{}`: cannot look up {}: {why}", .asked.host, .asked.what)]
    Unsupported {
        /// What was asked.
        asked: Asked,
        /// Which limit was met, and what to do.
        why: String,
    },

    /// There is nobody to ask.
    #[error("`{host}`: no name server to ask: {why}")]
    NoServers {
        /// The host name as the caller wrote it.
        host: String,
        /// Why there is none, and what to do.
        why: String,
    },

    /// The name can never exist.
    #[error("`{name}` is not a host name: {why}")]
    BadName {
        /// The name, shortened and with control characters escaped.
        name: String,
        /// Which rule it breaks.
        why: String,
    },
}

impl LookupError {
    /// Whether the answer is that there are no such records now. Everything else says that the
    /// question was not answered, so that nothing may be concluded about the records.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoSuchName(_) | Self::NoRecords { note: None, .. })
    }
}

fn hint(code: &str) -> &'static str {
    match code {
        "SERVFAIL" => "it could not find out; this often passes",
        "REFUSED" => "it does not serve us; check which servers are configured",
        _ => "ask another server",
    }
}

/// Why a resolver cannot be made as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The backend was not compiled in.
    #[error("this binary was built without the resolver `{0}`: build it with the feature of that name")]
    NotCompiled(&'static str),
    /// async-dns asks the servers of `/etc/resolv.conf` on port 53 only.
    #[error("the resolver `async-dns` cannot be told which servers to ask (servers = {0:?}): use `hickory`")]
    ServersFixed(Vec<SocketAddr>),
    /// async-dns reads `/etc/resolv.conf` only.
    #[error("the resolver `async-dns` reads /etc/resolv.conf and not {}: use `hickory`", .0.display())]
    ResolvConfFixed(PathBuf),
    /// A time limit of zero.
    #[error("timeout = {0:?}: must be more than nothing; 2s is usual")]
    Timeout(Duration),
    /// A number of attempts out of range.
    #[error("attempts = {0}: must be from 1 to {MAX_ATTEMPTS}; 2 is usual")]
    Attempts(usize),
    /// A search domain that is not a name.
    #[error("search list: {0}")]
    Search(LookupError),
}

/// How often one server may be asked the same at most.
pub(super) const MAX_ATTEMPTS: usize = 10;

/// Why one full name could not be resolved: what a backend reports before the search list is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) why: Why,
}

/// The cause in a [`Failure`], from the most to the least definite answer: of two failures the
/// later one here is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    #[cfg_attr(not(feature = "hickory"), allow(dead_code, reason = "async-dns ignores response codes"))]
    NoSuchName,
    NoRecords(Option<&'static str>),
    TimedOut(Duration, Option<&'static str>),
    Unreachable(String),
    #[cfg_attr(not(feature = "hickory"), allow(dead_code, reason = "async-dns ignores response codes"))]
    Code(String),
    BadAnswer(String),
    #[cfg_attr(not(feature = "async-dns"), expect(dead_code, reason = "hickory can do all that is asked"))]
    Unsupported(String),
}

impl Failure {
    fn rank(&self) -> u8 {
        match self.why {
            Why::NoSuchName => 0,
            Why::NoRecords(_) => 1,
            Why::TimedOut(..) => 2,
            Why::Unreachable(_) => 3,
            Why::Code(_) => 4,
            Why::BadAnswer(_) => 5,
            Why::Unsupported(_) => 6,
        }
    }

    /// Whether this is an answer about the name, so that no other server needs asking.
    #[cfg_attr(not(feature = "hickory"), expect(dead_code, reason = "async-dns chooses its servers"))]
    pub(super) fn is_answer(&self) -> bool {
        matches!(self.why, Why::NoSuchName | Why::NoRecords(_))
    }

    /// Whether asking for another name would fail in the same way.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self.why, Why::TimedOut(..) | Why::Unreachable(_))
    }

    /// The more telling of two failures; the first of two alike.
    pub(super) fn or(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    /// The error for the caller who asked for `what` of `host`, which expanded to `names`.
    pub(super) fn about(self, host: &str, what: What, names: Vec<String>) -> LookupError {
        let asked = Asked { host: host.into(), what, names, servers: self.servers };
        match self.why {
            Why::NoSuchName => LookupError::NoSuchName(asked),
            Why::NoRecords(note) => LookupError::NoRecords { asked, note },
            Why::Code(code) => LookupError::ServerFailure { asked, code },
            Why::TimedOut(limit, note) => LookupError::TimedOut { asked, limit, note },
            Why::Unreachable(why) => LookupError::Unreachable { asked, why },
            Why::BadAnswer(why) => LookupError::BadAnswer { asked, why },
            Why::Unsupported(why) => LookupError::Unsupported { asked, why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(why: Why) -> Failure {
        Failure { servers: vec!["127.0.0.11:53".parse().unwrap()], why }
    }

    #[test]
    fn an_error_says_what_was_asked_of_whom_and_what_came_back() {
        let names = || vec!["peer.a".to_owned(), "peer".to_owned()];
        let say = |why| failure(why).about("peer", What::Addresses(Family::Any), names()).to_string();
        assert_eq!(say(Why::NoSuchName), "`peer`: no such name, says 127.0.0.11:53 (asked for peer.a, peer)");
        assert_eq!(
            say(Why::Code("SERVFAIL".into())),
            "`peer`: 127.0.0.11:53 answered SERVFAIL when asked for addresses (asked for peer.a, peer): \
             it could not find out; this often passes"
        );
        assert_eq!(
            failure(Why::NoRecords(None)).about("peer", What::Texts, vec!["peer".into()]).to_string(),
            "`peer`: no texts (TXT) under this name, says 127.0.0.11:53"
        );
    }

    #[test]
    fn of_two_failures_the_less_definite_one_is_reported() {
        let code = failure(Why::Code("SERVFAIL".into()));
        assert_eq!(failure(Why::NoSuchName).or(code.clone()), code);
        assert_eq!(code.clone().or(failure(Why::NoSuchName)), code);
        let no_records = failure(Why::NoRecords(None));
        assert_eq!(failure(Why::NoSuchName).or(no_records.clone()), no_records);
    }

    #[test]
    fn only_an_answer_is_an_absence() {
        let absence = |why| failure(why).about("peer", What::Texts, vec![]).is_absence();
        assert!(absence(Why::NoSuchName) && absence(Why::NoRecords(None)));
        assert!(!absence(Why::NoRecords(Some("the backend cannot tell"))));
        assert!(!absence(Why::Code("SERVFAIL".into())) && !absence(Why::TimedOut(Duration::ZERO, None)));
    }
}
