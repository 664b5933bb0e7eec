//! Asking name servers with hickory-resolver.
//!
//! hickory decodes packets, checks ids, sources and questions, falls back to TCP and follows
//! aliases; which server is asked when is decided here, so that every failure can name its
//! server. Each question gets a resolver of its own: no state outlives it, so nothing is cached.

mod door;
mod heard;
mod trace;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::future::{BoxFuture, Either, FutureExt, join, select};
use hickory_resolver::{
    Resolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
};

use self::{
    door::{Door, Scoped},
    heard::Heard,
    trace::Trace,
};
use super::{
    Family,
    error::{Failure, Why},
    name::{HostName, shown},
    stub::{Ask, Early, Partial},
};
use crate::runtime::Handle;

/// How long what one family has is held back for the other (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// hickory-resolver over the runtime door.
#[derive(Clone, Debug)]
pub(super) struct Hickory {
    runtime: Handle,
    timeout: Duration,
    attempts: usize,
    heard: Arc<Heard>,
}

impl Hickory {
    pub(super) fn new(runtime: Handle, timeout: Duration, attempts: usize) -> Self {
        Self { runtime, timeout, attempts, heard: Arc::default() }
    }
}

impl Ask for Hickory {
    fn addresses(
        &self,
        name: HostName,
        family: Family,
        servers: Arc<[SocketAddr]>,
        early: Early,
    ) -> BoxFuture<'static, Result<Partial, Failure>> {
        let this = self.clone();
        async move {
            match family {
                Family::V4 => this.ips(&name, RecordType::A, &servers).await.map(Partial::all),
                Family::V6 => this.ips(&name, RecordType::AAAA, &servers).await.map(Partial::all),
                Family::Any => this.both(&name, &servers, early).await,
            }
        }
        .boxed()
    }

    fn texts(
        &self,
        name: HostName,
        servers: Arc<[SocketAddr]>,
    ) -> BoxFuture<'static, Result<Vec<String>, Failure>> {
        let this = self.clone();
        async move {
            let text = |data: &RData| match data {
                RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
                _ => None,
            };
            this.records(&name, RecordType::TXT, &servers, text).await
        }
        .boxed()
    }

    fn answers_others(&self, servers: &[SocketAddr], silent_for: &[String]) -> bool {
        self.heard.of_others(servers, silent_for, self.runtime.now())
    }
}

impl Hickory {
    /// Both families at the same time. Once one has answered with addresses, they are reported, and the other
    /// is given one more time limit, rather than all its attempts, to add to them.
    async fn both(&self, name: &HostName, servers: &[SocketAddr], early: Early) -> Result<Partial, Failure> {
        let v4 = std::pin::pin!(self.ips(name, RecordType::A, servers));
        let v6 = std::pin::pin!(self.ips(name, RecordType::AAAA, servers));
        let (v4, v6) = match select(v4, v6).await {
            Either::Left((Ok(v4), v6)) => {
                let v6 = self.rest(v6, servers, || early.tell(v4.clone(), Family::V6)).await;
                (Ok(v4), v6)
            }
            Either::Right((Ok(v6), v4)) => {
                let v4 = self.rest(v4, servers, || early.tell(v6.clone(), Family::V4)).await;
                (v4, Ok(v6))
            }
            Either::Left((v4, v6)) => join(async { v4 }, v6).await,
            Either::Right((v6, v4)) => join(v4, async { v6 }).await,
        };
        match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.extend(v6);
                Ok(Partial::all(v4))
            }
            (Ok(v4), Err(failure)) => Ok(Partial::without(Family::V6, failure, v4)),
            (Err(failure), Ok(v6)) => Ok(Partial::without(Family::V4, failure, v6)),
            (Err(v4), Err(v6)) => Err(v4.or(v6)),
        }
    }

    /// What the other family comes to; `tell` is called when it is slow.
    async fn rest(
        &self,
        mut other: impl Future<Output = Result<Vec<IpAddr>, Failure>> + Unpin,
        servers: &[SocketAddr],
        tell: impl FnOnce(),
    ) -> Result<Vec<IpAddr>, Failure> {
        if let Ok(soon) = self.runtime.timeout(RESOLUTION_DELAY.min(self.timeout), &mut other).await {
            return soon;
        }
        tell();
        let late = self.runtime.timeout(self.timeout, other).await;
        late.unwrap_or_else(|_| Err(Failure::new(servers.to_vec(), Why::TimedOut(self.timeout, None))))
    }

    async fn ips(
        &self,
        name: &HostName,
        kind: RecordType,
        servers: &[SocketAddr],
    ) -> Result<Vec<IpAddr>, Failure> {
        self.records(name, kind, servers, RData::ip_addr).await
    }

    /// Asks one server after the other until one knows.
    async fn records<T: PartialEq>(
        &self,
        name: &HostName,
        kind: RecordType,
        servers: &[SocketAddr],
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, Failure> {
        let mut worst: Option<Failure> = None;
        let mut left = servers.to_vec();
        for _ in 0..self.attempts {
            for server in std::mem::take(&mut left) {
                let failure = match self.ask(name, kind, server).await {
                    Ok((records, alias)) => {
                        let mut found = Vec::new();
                        for item in records.iter().filter_map(|record| read(&record.data)) {
                            if !found.contains(&item) {
                                found.push(item);
                            }
                        }
                        if !found.is_empty() {
                            return Ok(found);
                        }
                        Failure { servers: vec![server], why: Why::NoRecords(None), alias }
                    }
                    Err((why, alias)) => Failure { servers: vec![server], why, alias },
                };
                if !failure.is_silence() {
                    self.heard.note(server, name.as_str(), self.runtime.now());
                }
                if failure.is_answer() {
                    return Err(failure);
                }
                // A packet may have been lost; a refusal would be repeated.
                if matches!(failure.why, Why::TimedOut(..)) {
                    left.push(server);
                }
                worst = Some(match worst {
                    Some(mut worst) if worst.why == failure.why => {
                        if !worst.servers.contains(&server) {
                            worst.servers.push(server);
                        }
                        worst
                    }
                    Some(worst) => worst.or(failure),
                    None => failure,
                });
            }
        }
        let nobody = || Failure::new(Vec::new(), Why::Unreachable("no server was asked".into()));
        Err(worst.unwrap_or_else(nobody))
    }

    /// One question to one server, again without EDNS if it does not understand that.
    async fn ask(
        &self,
        name: &HostName,
        kind: RecordType,
        server: SocketAddr,
    ) -> Result<(Vec<Record>, Option<String>), (Why, Option<String>)> {
        match self.ask_with(name, kind, server, true).await {
            Err((Why::Code(code), _)) if code == "FORMERR" || code == "NOTIMP" => {
                self.ask_with(name, kind, server, false).await
            }
            result => result,
        }
    }

    async fn ask_with(
        &self,
        name: &HostName,
        kind: RecordType,
        server: SocketAddr,
        edns: bool,
    ) -> Result<(Vec<Record>, Option<String>), (Why, Option<String>)> {
        let unusable = |e: NetError| (Why::BadAnswer(e.to_string()), None);
        let mut name =
            Name::from_labels(name.as_str().split('.').map(str::as_bytes)).map_err(|e| unusable(e.into()))?;
        name.set_fqdn(true);

        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        let server_config = NameServerConfig::new(server.ip(), true, connections.into());
        let door = Door::new(self.runtime.clone(), server);
        let trace = door.trace();
        let mut builder =
            Resolver::builder_with_config(ResolverConfig::from_name_servers(vec![server_config]), door);
        let options = builder.options_mut();
        options.timeout = self.timeout;
        options.attempts = 0;
        options.edns0 = edns;
        options.cache_size = 0;
        options.positive_max_ttl = Some(Duration::ZERO);
        options.negative_max_ttl = Some(Duration::ZERO);
        options.use_hosts_file = ResolveHosts::Never;
        options.num_concurrent_reqs = 1;
        // The kernel's range of ephemeral ports keeps clear of the ports that nodes listen on.
        options.os_port_selection = true;
        let resolver = builder.build().map_err(unusable)?;

        // UDP and the TCP fallback have their own time limits; this one bounds the aliases too.
        let limit = self.timeout * 3;
        let lookup = Scoped::new(self.runtime.clone(), resolver.lookup(name.clone(), kind));
        let asked = self.runtime.timeout(limit, lookup).await;
        let alias = trace.alias(&name).map(|alias| {
            let alias = alias.to_string();
            shown(alias.strip_suffix('.').unwrap_or(&alias))
        });
        match asked {
            Ok(Ok(lookup)) => {
                let records = owned_by(name, lookup.answers());
                match trace.code().map(|code| ResponseCode::from(0, code)) {
                    // hickory knows what to make of some codes only.
                    Some(code) if records.is_empty() && !is_answer(code) => {
                        Err((Why::Code(words(code)), alias))
                    }
                    _ => Ok((records, alias)),
                }
            }
            Ok(Err(e)) => Err((self.why(e, &trace), alias)),
            Err(late) => Err((Why::TimedOut(late.0, None), alias)),
        }
    }

    fn why(&self, error: NetError, trace: &Trace) -> Why {
        match (error, trace.take_trouble()) {
            (NetError::Dns(DnsError::NoRecordsFound(none)), _) => match none.response_code {
                ResponseCode::NXDomain => Why::NoSuchName,
                // RFC 2308, section 2.2: what has name servers and no SOA sends somewhere else.
                ResponseCode::NoError if none.soa.is_none() && none.ns.is_some_and(|ns| !ns.is_empty()) => {
                    Why::BadAnswer("it names other servers to ask, and asks nobody itself".into())
                }
                ResponseCode::NoError => Why::NoRecords(None),
                code => Why::Code(words(code)),
            },
            (NetError::Dns(DnsError::ResponseCode(code)), _) => Why::Code(words(code)),
            (NetError::Timeout, trouble) => {
                Why::TimedOut(self.timeout, trouble.map(|_| "the answer does not fit into a datagram"))
            }
            (NetError::Proto(e), _) => Why::BadAnswer(e.to_string()),
            // What is left is of hickory's own making when a socket fails.
            (_, Some(trouble)) => Why::Unreachable(trouble),
            (NetError::Truncated, None) => Why::BadAnswer("it is cut off even over TCP".into()),
            (NetError::Io(e), None) => Why::Unreachable(e.to_string()),
            (other, None) => Why::BadAnswer(other.to_string()),
        }
    }
}

/// Whether a code says something about the name.
fn is_answer(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// The response codes that operators know by name.
fn words(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        other => format!("{other} ({})", u16::from(other)),
    }
}

/// The records that belong to `name` or to what it is an alias of; a server that adds others
/// is not believed.
fn owned_by(name: Name, answers: &[Record]) -> Vec<Record> {
    let mut owners = vec![name];
    for record in answers {
        if let RData::CNAME(target) = &record.data
            && owners.contains(&record.name)
        {
            owners.push(target.0.clone());
        }
    }
    answers.iter().filter(|record| owners.contains(&record.name)).cloned().collect()
}
