//! The part of resolving that needs no packets: literals, hosts file, `localhost`, search list.
//!
//! What is left over, one full name at a time, goes to the backend behind [`Ask`].

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use futures::{
    channel::oneshot,
    future::{BoxFuture, FutureExt},
    stream::{self, BoxStream, StreamExt},
};

use super::{
    Config, ConfigError, Family, Found, LookupError, Open, Resolve, Silence, What,
    error::{Asked, Failure},
    file::Watched,
    hosts::Hosts,
    name::HostName,
    resolv_conf::ResolvConf,
    search, servers,
};
use crate::runtime::Handle;

/// Bytes of the hosts file that are read at most: some block half the web.
const MAX_HOSTS: u64 = 16 << 20;
/// Bytes of `resolv.conf` that are read at most.
pub(super) const MAX_RESOLV_CONF: u64 = 64 << 10;
/// Full names that are asked for at the same time, once one was not answered.
const PARALLEL: usize = 8;

/// What asks the name servers for one full name.
pub(super) trait Ask: fmt::Debug + Send + Sync + 'static {
    /// Its addresses of `family`, never empty. `early` receives those that are there while the others are
    /// waited for.
    fn addresses(
        &self,
        name: HostName,
        family: Family,
        servers: Arc<[SocketAddr]>,
        early: Early,
    ) -> BoxFuture<'static, Result<Partial, Failure>>;

    /// Its texts, never empty.
    fn texts(
        &self,
        name: HostName,
        servers: Arc<[SocketAddr]>,
    ) -> BoxFuture<'static, Result<Vec<String>, Failure>>;

    /// Whether all of `servers` answered lately for other names than these.
    fn answers_others(&self, _servers: &[SocketAddr], _silent_for: &[String]) -> bool {
        false
    }
}

/// Addresses, and which family could not be asked for.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) missing: Option<(Family, Failure)>,
}

impl Partial {
    pub(super) fn all(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, missing: None }
    }

    /// Addresses of one family; the other came to a failure, which may be that it has none.
    #[cfg_attr(not(feature = "hickory"), expect(dead_code, reason = "async-dns does not ask for both"))]
    pub(super) fn without(family: Family, failure: Failure, addresses: Vec<IpAddr>) -> Self {
        let missing = (!failure.is_answer()).then_some((family, failure));
        Self { addresses, missing }
    }
}

/// Takes the addresses that are there first, once.
#[derive(Clone, Debug, Default)]
pub(super) struct Early(Arc<Mutex<Option<oneshot::Sender<Found>>>>);

impl Early {
    fn new(sender: oneshot::Sender<Found>) -> Self {
        Self(Arc::new(Mutex::new(Some(sender))))
    }

    /// There are these so far, and those of the family `awaited` are still waited for.
    #[cfg_attr(not(feature = "hickory"), expect(dead_code, reason = "async-dns does not ask for both"))]
    pub(super) fn tell(&self, addresses: Vec<IpAddr>, awaited: Family) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The receiver may be gone.
            let _ = sender.send(Found { addresses, open: Some(Open { family: awaited, why: None }) });
        }
    }
}

/// A [`Resolve`] that leaves only packets to its backend.
#[derive(Clone, Debug)]
pub(super) struct Stub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    servers: Vec<SocketAddr>,
    search: Option<Vec<HostName>>,
    ndots: Option<usize>,
    hosts: Watched<Hosts>,
    resolv_conf: Watched<ResolvConf>,
    backend: Arc<dyn Ask>,
    runtime: Handle,
    /// What was wrong with the servers when they were looked at last.
    problems: Mutex<Vec<String>>,
}

/// What the files say at the moment of a question.
struct Files {
    hosts: Option<Arc<Hosts>>,
    resolv_conf: Result<Arc<ResolvConf>, String>,
}

impl Stub {
    pub(super) fn new(config: Config, backend: Arc<dyn Ask>, runtime: Handle) -> Result<Self, ConfigError> {
        let search = config.search.as_deref().map(|domains| {
            domains.iter().filter(|d| *d != ".").map(|d| HostName::parse(d)).collect::<Result<_, _>>()
        });
        Ok(Self(Arc::new(Inner {
            servers: config.servers.into_iter().map(servers::canonical).collect(),
            search: search.transpose().map_err(ConfigError::Search)?,
            ndots: config.ndots,
            hosts: Watched::new(config.hosts, MAX_HOSTS, Hosts::parse),
            resolv_conf: Watched::new(config.resolv_conf, MAX_RESOLV_CONF, ResolvConf::parse),
            backend,
            runtime,
            problems: Mutex::default(),
        })))
    }
}

impl Resolve for Stub {
    fn addresses(&self, host: &str, family: Family) -> BoxStream<'static, Result<Found, LookupError>> {
        let (inner, host) = (self.0.clone(), host.to_owned());
        let (sender, early) = oneshot::channel();
        let all = async move { inner.addresses(&host, family, Early::new(sender)).await };
        // Nothing is there early if the sender is gone.
        let early = early.into_stream().filter_map(|found| async { found.ok().map(Ok) });
        stream::select(early, all.boxed().into_stream()).boxed()
    }

    fn texts(&self, host: &str) -> BoxFuture<'static, Result<Vec<String>, LookupError>> {
        let (inner, host) = (self.0.clone(), host.to_owned());
        async move { inner.texts(&host).await }.boxed()
    }
}

impl Inner {
    async fn addresses(
        self: Arc<Self>,
        host: &str,
        family: Family,
        early: Early,
    ) -> Result<Found, LookupError> {
        if let Ok(literal) = host.parse::<IpAddr>() {
            return if family.has(literal) {
                Ok(Found::all(vec![literal]))
            } else {
                Err(LookupError::NoRecords { asked: known_here(host, What::Addresses(family)), note: None })
            };
        }
        let name = HostName::parse(host)?;
        let files = self.clone().files().await;
        if let Some(hosts) = &files.hosts {
            let found = hosts.addresses(name.as_str(), family);
            if !found.is_empty() {
                return Ok(Found::all(found));
            }
        }
        if name.is_localhost() {
            let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            return Ok(Found::all(both.into_iter().filter(|addr| family.has(*addr)).collect()));
        }
        let what = What::Addresses(family);
        let ask = |name, servers, settled: bool| {
            // What comes behind in the search list counts only when it is settled that nothing before it does.
            let early = if settled { early.clone() } else { Early::default() };
            self.backend.addresses(name, family, servers, early)
        };
        let (found, skipped) = self.search(host, &name, what, &files, ask).await?;
        let Partial { addresses, missing } = found;
        let open = match (skipped, missing) {
            (Some(why), _) => Some(Open { family: Family::Any, why: Some(why) }),
            (None, Some((family, failure))) => {
                let names = vec![name.as_str().to_owned()];
                let why = self.about(failure, host, What::Addresses(family), names.clone(), &names);
                Some(Open { family, why: Some(why) })
            }
            (None, None) => None,
        };
        Ok(Found { addresses, open })
    }

    async fn texts(self: Arc<Self>, host: &str) -> Result<Vec<String>, LookupError> {
        let name = HostName::parse(host)?;
        if name.is_localhost() {
            return Err(LookupError::NoRecords { asked: known_here(host, What::Texts), note: None });
        }
        let files = self.clone().files().await;
        let ask = |name, servers, _| self.backend.texts(name, servers);
        Ok(self.search(host, &name, What::Texts, &files, ask).await?.0)
    }

    /// Asks for one candidate after the other until one has records. Once one is not answered, the others
    /// are asked for at the same time: each may take as long. With the records comes why a candidate before
    /// them may have some all the same.
    async fn search<T: Send + 'static>(
        &self,
        host: &str,
        name: &HostName,
        what: What,
        files: &Files,
        ask: impl Fn(HostName, Arc<[SocketAddr]>, bool) -> BoxFuture<'static, Result<T, Failure>>,
    ) -> Result<(T, Option<LookupError>), LookupError> {
        let no_servers = |why| LookupError::NoServers { host: host.into(), why };
        let servers = self.servers(files).map_err(no_servers)?;
        let conf = files.resolv_conf.as_deref().ok();
        let search = self.search.as_deref().or(conf.map(|c| c.search.as_slice())).unwrap_or_default();
        let ndots = self.ndots.or(conf.and_then(|c| c.ndots)).unwrap_or(1);
        let mut candidates = search::candidates(name, search, ndots).into_iter();
        let (mut names, mut silent) = (Vec::new(), Vec::new());
        let (mut worst, mut skipped): (Option<Failure>, Option<Failure>) = (None, None);
        let worse = |worst: Option<Failure>, failure: Failure| match worst {
            Some(worst) => worst.or(failure),
            None => failure,
        };
        // Candidates with what became of them, in order.
        let mut others = stream::empty().boxed();
        loop {
            let (candidate, result) = match (others.next().await, candidates.next()) {
                (Some(done), _) => done,
                (None, None) => break,
                (None, Some(candidate)) => {
                    let result = ask(candidate.clone(), servers.clone(), skipped.is_none()).await;
                    (candidate, result)
                }
            };
            names.push(candidate.as_str().to_owned());
            let failure = match result {
                Ok(records) => {
                    let skipped = skipped.map(|failure| self.about(failure, host, what, names, &silent));
                    return Ok((records, skipped));
                }
                Err(failure) => failure,
            };
            log::debug!("{}", failure.clone().about(host, what, names.clone()));
            if failure.is_silence() {
                silent.push(candidate.as_str().to_owned());
                let rest: Vec<_> = candidates
                    .by_ref()
                    .map(|name| ask(name.clone(), servers.clone(), false).map(|result| (name, result)))
                    .collect();
                if !rest.is_empty() {
                    others = stream::iter(rest).buffered(PARALLEL).boxed();
                }
            }
            if failure.is_open() {
                skipped = Some(worse(skipped, failure.clone()));
            }
            worst = Some(worse(worst, failure));
        }
        Err(match worst {
            Some(failure) => self.about(failure, host, what, names, &silent),
            None => no_servers("there was no name to ask for".into()),
        })
    }

    /// The error for the caller; `silent_for` are the names that were not answered.
    fn about(
        &self,
        failure: Failure,
        host: &str,
        what: What,
        names: Vec<String>,
        silent_for: &[String],
    ) -> LookupError {
        let mut error = failure.about(host, what, names);
        if let LookupError::TimedOut { asked, silence, .. } = &mut error
            && self.backend.answers_others(&asked.servers, silent_for)
        {
            *silence = Silence::ThisName;
        }
        error
    }

    fn servers(&self, files: &Files) -> Result<Arc<[SocketAddr]>, String> {
        if !self.servers.is_empty() {
            return Ok(self.servers.as_slice().into());
        }
        let conf = files.resolv_conf.as_ref().map_err(Clone::clone)?;
        let (servers, problems) = servers::usable(conf, &self.runtime);
        let path = self.resolv_conf.path().display();
        if !servers.is_empty() {
            let mut reported = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
            if *reported != problems {
                problems.iter().for_each(|problem| log::warn!("{path}: {problem}"));
                *reported = problems;
            }
            return Ok(servers.into());
        }
        Err(match problems.as_slice() {
            [] => format!("{path} has no line `nameserver ADDRESS`: add one, or configure servers"),
            problems => format!("{path} has no server that can be asked: {}", problems.join("; ")),
        })
    }

    /// Reads the files, where blocking is allowed, if they have changed.
    async fn files(self: Arc<Self>) -> Files {
        let runtime = self.runtime.clone();
        let files = runtime.unblock(move || Files {
            hosts: self.hosts.read().unwrap_or_else(|e| {
                // A resolver that cannot read the hosts file is as good as one without it.
                log::debug!("{} cannot be read: {e}", self.hosts.path().display());
                None
            }),
            resolv_conf: match self.resolv_conf.read() {
                Ok(Some(conf)) => Ok(conf),
                Ok(None) => Err(format!(
                    "{} does not exist: create it with a line `nameserver ADDRESS`, or configure servers",
                    self.resolv_conf.path().display()
                )),
                Err(e) => Err(format!("{} cannot be read: {e}", self.resolv_conf.path().display())),
            },
        });
        files.await.unwrap_or_else(|e| Files { hosts: None, resolv_conf: Err(e.to_string()) })
    }
}

/// A question that needs no server.
fn known_here(host: &str, what: What) -> Box<Asked> {
    Box::new(Asked { host: host.into(), what, names: Vec::new(), servers: Vec::new(), alias: None })
}
