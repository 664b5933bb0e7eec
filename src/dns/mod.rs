//! Resolving names into all of their addresses.
//!
//! A question is answered from what is true now: an address literal stands for itself, then
//! the hosts file, then `localhost`, then the name servers, with search list and `ndots`
//! honoured. Both address families are asked for at the same time.
//!
//! Two backends ask the servers: hickory-resolver (the default) and async-dns (with the limits that
//! `async_dns.rs` lists).
//! [`NameServer`] is the other side: a small authoritative server for loopback.
//!
//! Nothing is cached, neither answers nor failures: a record that appears is found by the next
//! question, one that goes is gone. Nothing is retried beyond one question's attempts either;
//! when to ask again is decided by the reconciler.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures::{
    future::{BoxFuture, FutureExt},
    stream::{BoxStream, StreamExt},
};

use crate::runtime::Handle;

#[cfg(feature = "async-dns")]
mod async_dns;
#[cfg(test)]
mod contract;
mod error;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(feature = "hickory")]
mod hickory;
mod hosts;
mod name;
mod resolv_conf;
mod search;
mod server;
mod servers;
mod stub;

pub use error::{Asked, ConfigError, LookupError, Silence, What};
pub(crate) use resolv_conf::ResolvConfSays;
pub use server::{Fault, NameServer};

#[cfg(not(any(feature = "hickory", feature = "async-dns")))]
compile_error!(
    "smidge needs a resolver: build with the feature `hickory` (the default) or with \
     `--no-default-features --features async-dns`"
);

/// Resolves names. Made by [`resolver`]; tests make their own.
pub(crate) trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// The addresses of `host`: one item, or two when one family answers well before the other. The last
    /// item is the answer.
    ///
    /// # Errors
    /// Why there is none, see [`LookupError`]. If only one family has addresses, those are the
    /// answer, and [`Found::open`] says whether the other was answered.
    fn addresses(&self, host: &str, family: Family) -> BoxStream<'static, Result<Found, LookupError>>;

    /// The last item of [`addresses`](Self::addresses), however long it takes.
    ///
    /// # Errors
    /// As there.
    fn settled(&self, host: &str, family: Family) -> BoxFuture<'static, Result<Found, LookupError>> {
        let nothing = LookupError::NoServers { host: host.into(), why: "the question was dropped".into() };
        let last = self.addresses(host, family).fold(Err(nothing), |_, item| async { item });
        last.boxed()
    }

    /// The texts (TXT records) of `host`, each with its strings joined; never empty. What
    /// libp2p's `/dnsaddr` is made of (libp2p/specs addressing/README.md), under `_dnsaddr.` + name.
    ///
    /// # Errors
    /// Why there is none, see [`LookupError`].
    fn texts(&self, host: &str) -> BoxFuture<'static, Result<Vec<String>, LookupError>>;
}

/// What a question for addresses came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// IPv4 before IPv6 and otherwise in the order of the answer, without repetition; never empty.
    pub(crate) addresses: Vec<IpAddr>,
    /// What was not answered: nothing may be concluded about it.
    pub(crate) open: Option<Open>,
}

impl Found {
    /// These are all.
    pub(crate) fn all(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, open: None }
    }
}

/// A part of a question that was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Which addresses there may be beside those that were found: those of a family, or any, where a name
    /// that comes first in the search list was not answered.
    pub(crate) family: Family,
    /// Why; `None` while it is still waited for.
    pub(crate) why: Option<LookupError>,
}

/// Which addresses are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4 and IPv6 (`/dns`).
    #[default]
    Any,
    /// IPv4 only (`/dns4`).
    V4,
    /// IPv6 only (`/dns6`).
    V6,
}

impl Family {
    /// Whether `addr` is of this family.
    pub fn has(self, addr: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => addr.is_ipv4(),
            Self::V6 => addr.is_ipv6(),
        }
    }
}

/// What asks the name servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Backend {
    /// hickory-resolver over the runtime door (feature `hickory`).
    Hickory,
    /// async-dns (feature `async-dns`).
    AsyncDns,
}

impl Default for Backend {
    /// hickory, unless only async-dns was compiled in.
    fn default() -> Self {
        if cfg!(feature = "hickory") { Self::Hickory } else { Self::AsyncDns }
    }
}

/// How names are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Name servers to ask, in this order; empty for those of `resolv_conf`.
    pub(crate) servers: Vec<SocketAddr>,
    /// Domains that complete short names; `None` for those of `resolv_conf`.
    pub(crate) search: Option<Vec<String>>,
    /// Dots from which on a name is asked for as it is first; `None` for what `resolv_conf`
    /// says, or 1.
    pub(crate) ndots: Option<usize>,
    /// How long one server may take for one try.
    pub(crate) timeout: Duration,
    /// How often each server is asked while none answers, 1 to 10.
    pub(crate) attempts: usize,
    /// The hosts file; it may be missing.
    pub(crate) hosts: PathBuf,
    /// The file that names the servers. It may be missing too: then every name that would have
    /// to be asked for is [`LookupError::NoServers`], rather than asked of 127.0.0.1 as glibc does.
    pub(crate) resolv_conf: PathBuf,
    /// What asks the servers.
    pub(crate) backend: Backend,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            search: None,
            ndots: None,
            timeout: Duration::from_secs(2),
            attempts: 2,
            hosts: "/etc/hosts".into(),
            resolv_conf: RESOLV_CONF.into(),
            backend: Backend::default(),
        }
    }
}

/// Where the system names its servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A resolver as `config` says. Files are read when they are needed and again when they change.
///
/// # Errors
/// What is wrong with `config`. No file and no server is looked at yet.
pub(crate) fn resolver(config: Config, runtime: Handle) -> Result<Arc<dyn Resolve>, ConfigError> {
    if config.timeout.is_zero() {
        return Err(ConfigError::Timeout(config.timeout));
    }
    if !(1..=error::MAX_ATTEMPTS).contains(&config.attempts) {
        return Err(ConfigError::Attempts(config.attempts));
    }
    let backend: Arc<dyn stub::Ask> = match config.backend {
        #[cfg(feature = "hickory")]
        Backend::Hickory => Arc::new(hickory::Hickory::new(runtime.clone(), config.timeout, config.attempts)),
        #[cfg(not(feature = "hickory"))]
        Backend::Hickory => return Err(ConfigError::NotCompiled("hickory")),
        #[cfg(feature = "async-dns")]
        Backend::AsyncDns => Arc::new(async_dns::AsyncDns::new(&config, runtime.clone())?),
        #[cfg(not(feature = "async-dns"))]
        Backend::AsyncDns => return Err(ConfigError::NotCompiled("async-dns")),
    };
    Ok(Arc::new(stub::Stub::new(config, backend, runtime)?))
}

/// What the resolver file at `path` says now, and which of its servers can be asked; nothing if there is
/// none. Blocks on the disk.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn resolv_conf_says(
    path: &std::path::Path,
    runtime: &Handle,
) -> std::io::Result<Option<ResolvConfSays>> {
    let file = file::Watched::new(path.into(), stub::MAX_RESOLV_CONF, resolv_conf::ResolvConf::parse);
    Ok(file.read()?.map(|conf| {
        let (usable, problems) = servers::usable(&conf, runtime);
        ResolvConfSays { usable, problems, ..(&*conf).into() }
    }))
}
