//! The part of resolving that needs no packets: literals, hosts file, `localhost`, search list.
//!
//! What is left over, one full name at a time, goes to the backend behind [`Ask`].

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
};

use futures::future::{BoxFuture, FutureExt};

use super::{
    Config, ConfigError, Family, LookupError, Resolve, What,
    error::{Asked, Failure},
    file::Watched,
    hosts::Hosts,
    name::HostName,
    resolv_conf::{ResolvConf, Server},
    search,
};
use crate::runtime::Handle;

/// Bytes of the hosts file that are read at most: some block half the web.
const MAX_HOSTS: u64 = 16 << 20;
/// Bytes of `resolv.conf` that are read at most.
pub(super) const MAX_RESOLV_CONF: u64 = 64 << 10;
/// The port that `resolv.conf` means.
const PORT: u16 = 53;

/// What asks the name servers for one full name.
pub(super) trait Ask: fmt::Debug + Send + Sync + 'static {
    /// Its addresses of `family`, never empty.
    fn addresses(
        &self,
        name: HostName,
        family: Family,
        servers: Arc<[SocketAddr]>,
    ) -> BoxFuture<'static, Result<Vec<IpAddr>, Failure>>;

    /// Its texts, never empty.
    fn texts(
        &self,
        name: HostName,
        servers: Arc<[SocketAddr]>,
    ) -> BoxFuture<'static, Result<Vec<String>, Failure>>;
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
            servers: config.servers,
            search: search.transpose().map_err(ConfigError::Search)?,
            ndots: config.ndots,
            hosts: Watched::new(config.hosts, MAX_HOSTS, Hosts::parse),
            resolv_conf: Watched::new(config.resolv_conf, MAX_RESOLV_CONF, ResolvConf::parse),
            backend,
            runtime,
        })))
    }
}

impl Resolve for Stub {
    fn addresses(&self, host: &str, family: Family) -> BoxFuture<'static, Result<Vec<IpAddr>, LookupError>> {
        let (inner, host) = (self.0.clone(), host.to_owned());
        async move { inner.addresses(&host, family).await }.boxed()
    }

    fn texts(&self, host: &str) -> BoxFuture<'static, Result<Vec<String>, LookupError>> {
        let (inner, host) = (self.0.clone(), host.to_owned());
        async move { inner.texts(&host).await }.boxed()
    }
}

impl Inner {
    async fn addresses(self: Arc<Self>, host: &str, family: Family) -> Result<Vec<IpAddr>, LookupError> {
        if let Ok(literal) = host.parse::<IpAddr>() {
            return if family.has(literal) {
                Ok(vec![literal])
            } else {
                Err(LookupError::NoRecords { asked: known_here(host, What::Addresses(family)), note: None })
            };
        }
        let name = HostName::parse(host)?;
        let files = self.clone().files().await;
        if let Some(hosts) = &files.hosts {
            let found = hosts.addresses(name.as_str(), family);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        if name.is_localhost() {
            let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            return Ok(both.into_iter().filter(|addr| family.has(*addr)).collect());
        }
        self.search(host, &name, What::Addresses(family), &files, |name, servers| {
            self.backend.addresses(name, family, servers)
        })
        .await
    }

    async fn texts(self: Arc<Self>, host: &str) -> Result<Vec<String>, LookupError> {
        let name = HostName::parse(host)?;
        if name.is_localhost() {
            return Err(LookupError::NoRecords { asked: known_here(host, What::Texts), note: None });
        }
        let files = self.clone().files().await;
        self.search(host, &name, What::Texts, &files, |name, servers| self.backend.texts(name, servers)).await
    }

    /// Asks for one candidate after the other until one has records.
    async fn search<T>(
        &self,
        host: &str,
        name: &HostName,
        what: What,
        files: &Files,
        ask: impl Fn(HostName, Arc<[SocketAddr]>) -> BoxFuture<'static, Result<Vec<T>, Failure>>,
    ) -> Result<Vec<T>, LookupError> {
        let no_servers = |why| LookupError::NoServers { host: host.into(), why };
        let servers = self.servers(files).map_err(no_servers)?;
        let conf = files.resolv_conf.as_deref().ok();
        let search = self.search.as_deref().or(conf.map(|c| c.search.as_slice())).unwrap_or_default();
        let ndots = self.ndots.or(conf.and_then(|c| c.ndots)).unwrap_or(1);
        let mut names = Vec::new();
        let mut worst: Option<Failure> = None;
        for candidate in search::candidates(name, search, ndots) {
            names.push(candidate.as_str().to_owned());
            let failure = match ask(candidate, servers.clone()).await {
                Ok(records) => return Ok(records),
                Err(failure) => failure,
            };
            log::debug!("{}", failure.clone().about(host, what, names.clone()));
            let fatal = failure.is_fatal();
            worst = Some(match worst {
                Some(worst) => worst.or(failure),
                None => failure,
            });
            if fatal {
                break;
            }
        }
        Err(match worst {
            Some(failure) => failure.about(host, what, names),
            None => no_servers("there was no name to ask for".into()),
        })
    }

    fn servers(&self, files: &Files) -> Result<Arc<[SocketAddr]>, String> {
        if !self.servers.is_empty() {
            return Ok(self.servers.as_slice().into());
        }
        let conf = files.resolv_conf.as_ref().map_err(Clone::clone)?;
        if conf.servers.is_empty() {
            return Err(format!(
                "{} has no line `nameserver ADDRESS`: add one, or configure servers",
                self.resolv_conf.path().display()
            ));
        }
        conf.servers.iter().map(|server| self.server(server)).collect()
    }

    /// The socket address of a server, whose interface, if it has one, is looked up.
    fn server(&self, server: &Server) -> Result<SocketAddr, String> {
        let (IpAddr::V6(ip), Some(scope)) = (server.ip, &server.scope) else {
            return Ok(SocketAddr::new(server.ip, PORT));
        };
        let index = match scope.parse() {
            Ok(index) => Some(index),
            Err(_) => {
                let list = self.runtime.interfaces().and_then(|i| i.list());
                let list = list.map_err(|e| format!("the network interfaces cannot be listed: {e}"))?;
                list.iter().find(|i| i.name == *scope).map(|i| i.index)
            }
        };
        match index {
            Some(index) => Ok(SocketAddrV6::new(ip, PORT, 0, index).into()),
            None => Err(format!(
                "{} names the server {ip}%{scope}, and there is no network interface {scope:?}",
                self.resolv_conf.path().display()
            )),
        }
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
fn known_here(host: &str, what: What) -> Asked {
    Asked { host: host.into(), what, names: Vec::new(), servers: Vec::new() }
}
