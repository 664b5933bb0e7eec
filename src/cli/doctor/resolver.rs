//! Which servers are asked for names: resolv.conf, and whether each of its servers answers.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;

use super::finding::Finding;
use crate::{
    config::{Backend, Config, Target},
    dns::{self, Family, LookupError, ResolvConfSays},
    node::{dns_config, targets},
    runtime::Handle,
};

const FILE: &str = "dns.resolv_conf";
const SERVER: &str = "dns.server";
/// More dots than this, and most names are asked for with each search domain first.
const MANY_DOTS: usize = 2;
/// What is asked where no name is configured: it never exists (RFC 6761), and any answer will do.
/// What ends in `.invalid` would not be asked for at all.
pub(super) const NOBODY: &str = "smidge.test.";

pub(super) async fn check(config: &Config, runtime: &Handle) -> Vec<Finding> {
    let settings = dns_config(config);
    let path = settings.resolv_conf.clone();
    let shown = path.display().to_string();
    let handle = runtime.clone();
    let said = runtime.unblock(move || dns::resolv_conf_says(&path, &handle)).await.unwrap_or_else(Err);
    let servers = match &said {
        _ if !config.dns.servers.is_empty() => config.dns.servers.clone(),
        Ok(Some(said)) => said.usable.clone(),
        _ => Vec::new(),
    };
    let (search, ndots) = (settings.search.clone(), settings.ndots);
    let mut findings = vec![file(&shown, &said, !config.dns.servers.is_empty(), search, ndots)];
    if config.dns.backend == Backend::AsyncDns {
        // It asks whatever servers resolv.conf names: none can be asked alone.
        return findings;
    }
    let names = targets(config);
    let host = names.iter().find_map(Target::host).unwrap_or(NOBODY);
    let answers = join_all(servers.iter().map(|server| ask(&settings, *server, host, runtime))).await;
    let any = answers.iter().any(|(_, answer)| matches!(answer, Heard::Answer(_)));
    findings.extend(answers.into_iter().map(|(server, answer)| judge(server, answer, any)));
    findings
}

/// What came of asking a server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    /// It answered within this time, whatever the answer.
    Answer(Duration),
    /// It is silent for this name, and answers for others.
    SilentFor(String),
    /// It is silent, or cannot be asked.
    Nothing(String),
}

/// Whether `server` answers for `host`, or for anything.
async fn ask(
    settings: &dns::Config,
    server: SocketAddr,
    host: &str,
    runtime: &Handle,
) -> (SocketAddr, Heard) {
    // Without the hosts file: names in it are never asked for.
    let hosts = std::path::PathBuf::new();
    let alone = dns::Config { servers: vec![server], attempts: 1, hosts, ..settings.clone() };
    let resolver = match dns::resolver(alone, runtime.clone()) {
        Ok(resolver) => resolver,
        Err(e) => return (server, Heard::Nothing(e.to_string())),
    };
    let silent = |host| {
        let answer = resolver.settled(host, Family::V4);
        async {
            match answer.await {
                Err(e @ (LookupError::TimedOut { .. } | LookupError::Unreachable { .. })) => {
                    Some(e.to_string())
                }
                // The server was not necessarily asked, for instance for `localhost`.
                Ok(_) | Err(_) => None,
            }
        }
    };
    let start = Instant::now();
    let heard = match silent(host).await {
        None => Heard::Answer(start.elapsed()),
        Some(_) if host != NOBODY && silent(NOBODY).await.is_none() => Heard::SilentFor(host.to_owned()),
        Some(why) => Heard::Nothing(why),
    };
    (server, heard)
}

fn judge(server: SocketAddr, answer: Heard, any: bool) -> Finding {
    let subject = server.to_string();
    match answer {
        Heard::Answer(took) => {
            Finding::ok(SERVER, subject, format!("answers in {:.1} ms", took.as_secs_f64() * 1000.0))
        }
        Heard::SilentFor(host) => {
            let found = format!("silent for {host}, and answers for other names");
            let advice = "it does not know the name, or waits for the servers that it asks itself: look there, not at the network";
            Finding::warn(SERVER, subject, found, advice)
        }
        Heard::Nothing(why) if any => {
            let advice = "take it out: every name that another server does not answer waits for it";
            Finding::warn(SERVER, subject, why, advice)
        }
        Heard::Nothing(why) => {
            let advice =
                "mend or replace this server (dns.servers names others); no name is found without one";
            Finding::fail(SERVER, subject, why, advice)
        }
    }
}

fn file(
    path: &str,
    said: &std::io::Result<Option<ResolvConfSays>>,
    replaced: bool,
    search: Option<Vec<String>>,
    ndots: Option<usize>,
) -> Finding {
    let subject = "resolv.conf";
    let advice = format!("write a line `nameserver ADDRESS` into {path}, or set dns.servers");
    let said = match said {
        _ if replaced => return Finding::ok(FILE, subject, "not asked for servers: dns.servers is set"),
        Err(e) => return Finding::fail(FILE, subject, format!("{path} cannot be read: {e}"), advice),
        Ok(None) => return Finding::fail(FILE, subject, format!("{path} is not there"), advice),
        Ok(Some(said)) if said.usable.is_empty() => {
            let found = match said.problems.as_slice() {
                [] => format!("{path} names no server"),
                problems => format!("{path} names no server that can be asked: {}", problems.join("; ")),
            };
            return Finding::fail(FILE, subject, found, advice);
        }
        Ok(Some(said)) => said,
    };
    let search = search.as_ref().unwrap_or(&said.search);
    let ndots = ndots.or(said.ndots).unwrap_or(1);
    let list = if search.is_empty() { "none".into() } else { search.join(" ") };
    let found = format!("{path}: servers {}, search {list}, ndots {ndots}", said.servers.join(" "));
    if !said.problems.is_empty() {
        let found = format!("{found}; {}", said.problems.join("; "));
        return Finding::warn(FILE, subject, found, format!("mend it: the other lines of {path} hold"));
    }
    if ndots > MANY_DOTS && !search.is_empty() {
        let found = format!(
            "{found}: a name with fewer dots costs up to {} questions; one that ends in a dot costs one",
            search.len() + 1
        );
        return Finding::ok(FILE, subject, found);
    }
    Finding::ok(FILE, subject, found)
}

#[cfg(test)]
mod tests {
    use std::{io, net::IpAddr};

    use super::{super::finding::Verdict, *};

    fn says(servers: &[&str], search: &[&str], ndots: Option<usize>) -> io::Result<Option<ResolvConfSays>> {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let usable = servers.iter().filter_map(|ip| Some((ip.parse::<IpAddr>().ok()?, 53).into())).collect();
        let problems = list(servers).into_iter().filter(|server| server.parse::<IpAddr>().is_err()).collect();
        Ok(Some(ResolvConfSays { servers: list(servers), search: list(search), ndots, usable, problems }))
    }

    #[test]
    fn a_resolver_file_names_servers_or_is_replaced() {
        for (said, replaced, expected) in [
            (says(&["127.0.0.11"], &[], Some(0)), false, Verdict::Ok),
            (says(&["127.0.0.11", "fe80::1%wlan9"], &[], None), false, Verdict::Warn),
            (says(&["fe80::1%wlan9"], &[], None), false, Verdict::Fail),
            (says(&[], &["a"], None), false, Verdict::Fail),
            (says(&[], &[], None), true, Verdict::Ok),
            (Ok(None), false, Verdict::Fail),
            (Ok(None), true, Verdict::Ok),
            (Err(io::ErrorKind::PermissionDenied.into()), false, Verdict::Fail),
        ] {
            let finding = file("/etc/resolv.conf", &said, replaced, None, None);
            assert_eq!(finding.verdict, expected, "{finding:?}");
        }
        let kubernetes = says(&["10.96.0.10"], &["a.svc", "svc"], Some(5));
        let found = file("/r", &kubernetes, false, None, None).found;
        assert!(found.starts_with("/r: servers 10.96.0.10, search a.svc svc, ndots 5: "), "{found}");
        assert!(found.contains("up to 3 questions"), "{found}");
        let found = file("/r", &kubernetes, false, Some(Vec::new()), Some(1)).found;
        assert_eq!(found, "/r: servers 10.96.0.10, search none, ndots 1");
    }

    #[test]
    fn one_silent_server_is_a_warning_and_only_silent_ones_are_a_failure() {
        let server = "10.0.0.1:53".parse().unwrap();
        for (answer, any, expected) in [
            (Heard::Answer(Duration::from_millis(3)), true, Verdict::Ok),
            (Heard::SilentFor("peer".to_owned()), false, Verdict::Warn),
            (Heard::Nothing("silence".to_owned()), true, Verdict::Warn),
            (Heard::Nothing("silence".to_owned()), false, Verdict::Fail),
        ] {
            assert_eq!(judge(server, answer, any).verdict, expected);
        }
    }
}
