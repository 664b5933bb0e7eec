//! Asking name servers with async-dns 0.1, its limits guarded or explained in errors.
//!
//! Guarded here: its hosts file matches parts of names (the name is asked for in a spelling
//! that does not occur there; the real lookup is ours); it ignores search list and `ndots` for
//! short names (full names are all it is asked for); it has no time limit over TCP (ours is
//! around everything); servers cannot be chosen (a [`ConfigError`]).
//!
//! Not to be guarded, so explained when met: more than 16 records; no TCP answers worth the
//! name (up to 1024 bytes it waits for bytes that do not come, above it the 16 records are
//! full); IPv4 servers only; AAAA asked for only when there is no A; no TXT; response codes
//! ignored, so that NXDOMAIN, SERVFAIL and an empty answer look alike; a missing `/etc/hosts`
//! is fatal; one dead server among several fails the question.
//!
//! Not to be noticed at all: it tells records apart by their length, so that an alias (CNAME)
//! whose target packs into 4 or 16 bytes adds an address that does not exist; it takes an answer from any source that knows the 16-bit id; with
//! a search list in `/etc/resolv.conf`, a name with at least `ndots` dots is asked for under
//! the search domains first; and it opens sockets by itself, not through the runtime door.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt, ready};

use super::{
    Config, ConfigError, Family, RESOLV_CONF,
    error::{Failure, Why},
    name::HostName,
    stub::{Ask, Early, Partial},
};
use crate::runtime::Handle;

/// The file that async-dns reads whatever it is asked.
const HOSTS: &str = "/etc/hosts";
/// What an empty answer may mean.
const EMPTY: &str =
    "or its server failed: the resolver `async-dns` ignores response codes, `hickory` does not";
/// What silence may mean.
const MUTE: &str =
    "or the answer has 513 to 1024 bytes, for which the resolver `async-dns` waits for ever: use `hickory`";

/// async-dns.
#[derive(Clone, Debug)]
pub(super) struct AsyncDns {
    runtime: Handle,
    /// For one full name with everything.
    limit: Duration,
}

impl AsyncDns {
    pub(super) fn new(config: &Config, runtime: Handle) -> Result<Self, ConfigError> {
        if !config.servers.is_empty() {
            return Err(ConfigError::ServersFixed(config.servers.clone()));
        }
        if config.resolv_conf != *RESOLV_CONF {
            return Err(ConfigError::ResolvConfFixed(config.resolv_conf.clone()));
        }
        let attempts = config.attempts.try_into().unwrap_or(u32::MAX);
        Ok(Self { runtime, limit: config.timeout.saturating_mul(attempts) })
    }

    async fn ask(&self, name: &HostName, family: Family, servers: &[SocketAddr]) -> Result<Vec<IpAddr>, Why> {
        if let Some(server) = servers.iter().find(|server| server.is_ipv6()) {
            return Err(Why::Unsupported(format!(
                "the resolver `async-dns` cannot ask an IPv6 server ({}): use `hickory`",
                server.ip()
            )));
        }
        let hosts = self.runtime.unblock(|| fs::read_to_string(HOSTS)).await.and_then(|read| read);
        let hosts = hosts.map_err(|e| {
            Why::Unsupported(format!(
                "the resolver `async-dns` needs a readable {HOSTS} ({e}): create it, or use `hickory`"
            ))
        })?;
        let Some(spelling) = spelling(name.as_str(), &hosts) else {
            return Err(Why::Unsupported(format!(
                "the resolver `async-dns` would answer with another line of {HOSTS}, of which this \
                 name is a part: use `hickory`"
            )));
        };
        let lookup = async_dns::lookup(&spelling);
        let found = match self.runtime.timeout(self.limit, lookup).await {
            Ok(found) => found.map_err(why)?,
            Err(late) => return Err(Why::TimedOut(late.0, Some(MUTE))),
        };
        let mut ips = Vec::new();
        let mut others = false;
        for ip in found.map(|info| info.ip_address) {
            others |= !family.has(ip);
            if family.has(ip) && !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        match (ips.is_empty(), others) {
            (false, _) => Ok(ips),
            (true, false) => Err(Why::NoRecords(Some(EMPTY))),
            (true, true) if family == Family::V4 => Err(Why::NoRecords(None)),
            (true, true) => Err(Why::Unsupported(
                "there are IPv4 addresses, and the resolver `async-dns` asks for IPv6 addresses only when \
                 there are none: use `hickory`"
                    .into(),
            )),
        }
    }
}

impl Ask for AsyncDns {
    fn addresses(
        &self,
        name: HostName,
        family: Family,
        servers: Arc<[SocketAddr]>,
        _early: Early,
    ) -> BoxFuture<'static, Result<Partial, Failure>> {
        let this = self.clone();
        async move {
            let asked = this.ask(&name, family, &servers).await;
            asked.map(Partial::all).map_err(|why| Failure::new(servers.to_vec(), why))
        }
        .boxed()
    }

    fn texts(
        &self,
        _name: HostName,
        servers: Arc<[SocketAddr]>,
    ) -> BoxFuture<'static, Result<Vec<String>, Failure>> {
        let why = Why::Unsupported("the resolver `async-dns` knows no TXT records: use `hickory`".into());
        ready(Err(Failure::new(servers.to_vec(), why))).boxed()
    }
}

/// A spelling of `name` that does not occur in `hosts`: DNS ignores case, async-dns's search
/// for the name in that file does not. The final dot comes last, since async-dns then asks
/// under the search domains first.
fn spelling(name: &str, hosts: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let spellings = [name.to_owned(), upper.clone(), format!("{name}."), format!("{upper}.")];
    spellings.into_iter().find(|spelling| !hosts.contains(spelling.as_str()))
}

fn why(error: io::Error) -> Why {
    // async-dns hides its decoder's error type; its text is all there is.
    if format!("{error:?}").contains("NotEnoughWriteSpace") {
        return Why::Unsupported(
            "there are more than 16 records, and the resolver `async-dns` holds no more: use `hickory`"
                .into(),
        );
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Why::Unsupported(
            "the answer does not fit into a datagram, and the resolver `async-dns` cannot read it over TCP: \
             use `hickory`"
                .into(),
        ),
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::PermissionDenied => {
            Why::Unreachable(format!("no answer over UDP, and over TCP: {error}"))
        }
        _ => Why::BadAnswer(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_spelled_so_that_no_line_of_the_hosts_file_holds_it() {
        for (name, hosts, expected) in [
            ("peer", "127.0.0.1 localhost", Some("peer")),
            ("peer", "10.9.9.9 peer-1", Some("PEER")),
            ("peer", "10.9.9.9 peer.example PEER-1", Some("PEER.")),
            ("1", "10.9.9.9 host", Some("1.")),
            ("peer", "10.9.9.9 peer. PEER.", None),
        ] {
            assert_eq!(spelling(name, hosts).as_deref(), expected, "{name} in {hosts:?}");
        }
    }
}
