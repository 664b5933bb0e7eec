//! Why a name could not be resolved, as text that can be logged as it is.
//!
//! Every error says what was asked, of which servers, and what came back; where an operator can do
//! something about it, also what. Nothing here decides whether to ask again.

use std::{collections::BTreeSet, fmt, net::SocketAddr, path::PathBuf, time::Duration};

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

/// What was asked, and of which servers.
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
    /// What the last of them is an alias (CNAME) of, at the end of a chain, if the answers had one.
    pub alias: Option<String>,
}

impl Asked {
    fn who(&self) -> String {
        match self.servers.as_slice() {
            [] => "this host".into(),
            servers => servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "),
        }
    }

    fn tried(&self) -> String {
        let names = match self.names.as_slice() {
            [] => String::new(),
            [one] if *one == self.host => String::new(),
            names => format!("asked for {}", names.join(", ")),
        };
        match &self.alias {
            None if names.is_empty() => String::new(),
            None => format!(" ({names})"),
            Some(alias) if names.is_empty() => format!(" (it is an alias of {alias})"),
            Some(alias) => format!(" ({names}, which is an alias of {alias})"),
        }
    }

    /// Where a packet filter has to let questions through.
    fn ports(&self) -> String {
        let ports: BTreeSet<_> = self.servers.iter().map(SocketAddr::port).collect();
        let list = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        if ports.len() > 1 { format!("ports {list}") } else { format!("port {list}") }
    }
}

/// How far a silence reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silence {
    /// Nothing came back for other names either, as far as is known.
    #[default]
    All,
    /// The same servers answered for other names within the last minute.
    ThisName,
}

/// Why a name could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The name does not exist (NXDOMAIN).
    #[error("`{}`: no such name, says {}{}", .0.host, .0.who(), .0.tried())]
    NoSuchName(Box<Asked>),

    /// The name exists, or may exist, but has no records of the kind asked for.
    #[error("`{}`: no {} under this name, says {}{}{}", .asked.host, .asked.what, .asked.who(), .asked.tried(),
        .note.map(|note| format!("; {note}")).unwrap_or_default())]
    NoRecords {
        /// What was asked.
        asked: Box<Asked>,
        /// What the backend cannot tell apart, if it cannot.
        note: Option<&'static str>,
    },

    /// The server answered that it cannot or will not answer.
    #[error("`{}`: {} answered {code} when asked for {}{}: {}", .asked.host, .asked.who(), .asked.what,
        .asked.tried(), hint(.code))]
    ServerFailure {
        /// What was asked.
        asked: Box<Asked>,
        /// The response code by name, for instance `SERVFAIL`.
        code: String,
    },

    /// Nothing came back in time.
    #[error("`{}`: no answer from {} within {limit:?} when asked for {}{}{}: {}",
        .asked.host, .asked.who(), .asked.what, .asked.tried(),
        .note.map(|note| format!(" ({note})")).unwrap_or_default(), silence_hint(.asked, *.silence))]
    TimedOut {
        /// What was asked.
        asked: Box<Asked>,
        /// The time limit that passed.
        limit: Duration,
        /// Whether only this name is not answered.
        silence: Silence,
        /// What else is known, or what else this may be if the backend cannot tell.
        note: Option<&'static str>,
    },

    /// The name server cannot be reached.
    #[error("`{}`: {} cannot be reached when asked for {}{}: {why}", .asked.host, .asked.who(), .asked.what,
        .asked.tried())]
    Unreachable {
        /// What was asked.
        asked: Box<Asked>,
        /// The error of the operating system.
        why: String,
    },

    /// The name server sent something that is not an answer.
    #[error("`{}`: {} sent an answer that cannot be used when asked for {}{}: {why}",
        .asked.host, .asked.who(), .asked.what, .asked.tried())]
    BadAnswer {
        /// What was asked.
        asked: Box<Asked>,
        /// What is wrong with the answer.
        why: String,
    },

    /// The backend cannot do this; another one can.
    #[error("`{}`: cannot look up {}: {why}", .asked.host, .asked.what)]
    Unsupported {
        /// What was asked.
        asked: Box<Asked>,
        /// Which limit was met, and what to do.
        why: String,
    },

    /// There is no server to ask.
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

    /// Whether the servers refused to answer.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::ServerFailure { code, .. } if code == REFUSED)
    }
}

/// The name of the code of servers that refuse.
const REFUSED: &str = "REFUSED";

fn hint(code: &str) -> &'static str {
    match code {
        "SERVFAIL" => "it could not find out; this often passes",
        REFUSED => {
            "it does not serve this host, or not this name: dnsmasq without an upstream refuses a name whose \
             records are gone, unless `local=/DOMAIN/` there makes the domain its own"
        }
        _ => "ask another server",
    }
}

fn silence_hint(asked: &Asked, silence: Silence) -> String {
    match silence {
        Silence::All => format!(
            "is a name server running there, and is UDP and TCP {} let through?",
            asked.ports()
        ),
        Silence::ThisName => "it answers for other names, so it is silent for this one only: does the name exist? \
            Docker's name server is silent for a name that it does not know, a service without tasks among them, \
            while its own upstream is dead"
            .into(),
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
    #[error("search list")]
    Search(#[source] LookupError),
}

/// How often one server may be asked the same at most.
pub(super) const MAX_ATTEMPTS: usize = 10;

/// Why one full name could not be resolved: what a backend reports before the search list is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) why: Why,
    /// What the name is an alias of, if the answers had one.
    pub(super) alias: Option<String>,
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
    pub(super) fn new(servers: Vec<SocketAddr>, why: Why) -> Self {
        Self { servers, why, alias: None }
    }

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
    pub(super) fn is_answer(&self) -> bool {
        matches!(self.why, Why::NoSuchName | Why::NoRecords(_))
    }

    /// Whether nothing came back: asking for another name may well take as long.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self.why, Why::TimedOut(..) | Why::Unreachable(_))
    }

    /// Whether the name may have records all the same. A refusal says that it has none here.
    pub(super) fn is_open(&self) -> bool {
        match &self.why {
            Why::NoSuchName | Why::NoRecords(None) => false,
            Why::Code(code) => code != REFUSED,
            _ => true,
        }
    }

    /// The more telling of two failures; the first of two alike.
    pub(super) fn or(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    /// The error for the caller that asked for `what` of `host`, which expanded to `names`.
    pub(super) fn about(self, host: &str, what: What, names: Vec<String>) -> LookupError {
        let asked =
            Box::new(Asked { host: host.into(), what, names, servers: self.servers, alias: self.alias });
        match self.why {
            Why::NoSuchName => LookupError::NoSuchName(asked),
            Why::NoRecords(note) => LookupError::NoRecords { asked, note },
            Why::Code(code) => LookupError::ServerFailure { asked, code },
            Why::TimedOut(limit, note) => {
                LookupError::TimedOut { asked, limit, silence: Silence::default(), note }
            }
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
        Failure::new(vec!["127.0.0.11:53".parse().unwrap()], why)
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
    fn no_hint_sends_anybody_the_wrong_way() {
        let say = |failure: Failure, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            failure.about("peer", What::Addresses(Family::V4), names)
        };
        let elsewhere = Failure::new(
            vec!["127.0.0.1:5353".parse().unwrap()],
            Why::TimedOut(Duration::from_secs(2), None),
        );
        let all = say(elsewhere, &["peer"]);
        assert!(all.to_string().ends_with("is UDP and TCP port 5353 let through?"), "{all}");
        let LookupError::TimedOut { asked, limit, note, .. } = all else { panic!("{all}") };
        let this = LookupError::TimedOut { asked, limit, note, silence: Silence::ThisName }.to_string();
        assert!(this.contains("silent for this one only") && !this.contains("let through"), "{this}");
        let refused =
            Failure { alias: Some("target.example".into()), ..failure(Why::Code("REFUSED".into())) };
        let words = say(refused.clone(), &["peer"]).to_string();
        assert!(
            words.contains("(it is an alias of target.example)") && words.contains("local=/DOMAIN/"),
            "{words}"
        );
        let words = say(refused, &["peer.a", "peer"]).to_string();
        assert!(words.contains("(asked for peer.a, peer, which is an alias of target.example)"), "{words}");
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
