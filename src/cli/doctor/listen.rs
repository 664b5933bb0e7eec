//! Whether the addresses to listen on are free, and which process has them otherwise.

use std::{fs, io, net::SocketAddr, os::unix::fs::FileTypeExt};

use libp2p::Multiaddr;

use super::{finding::Finding, paths};
use crate::{
    config::{ApiListen, Config, TransportKind, check_address},
    runtime::{Handle, TcpOptions, UdpOptions},
};

const CHECK: &str = "listen.address";
const API: &str = "listen.api";
const MQTT: &str = "listen.mqtt";
const WEBSOCKET: &str = "listen.websocket";
/// Where the kernel lists its sockets.
const UDP: &[&str] = &["/proc/net/udp", "/proc/net/udp6"];
const TCP: &[&str] = &["/proc/net/tcp", "/proc/net/tcp6"];
/// Processes whose descriptors are looked through for a socket's owner.
const PROCESSES: usize = 4096;
/// Descriptors of one process that are looked through.
const DESCRIPTORS: usize = 4096;

/// Our own node, if it runs: where it listens.
#[derive(Clone, Debug, Default)]
pub(super) struct Running {
    pub(super) listening: Vec<Multiaddr>,
    /// Whether it is this configuration's API that answers.
    pub(super) api: bool,
}

pub(super) async fn check(config: &Config, runtime: &Handle, running: &Running) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.listen.addresses.is_empty() {
        findings.push(Finding::ok(CHECK, "addresses", "none: this node dials, and is dialed by nobody"));
    }
    for address in &config.listen.addresses {
        let Ok((over, socket, _)) = check_address(address) else { continue };
        // Without a wish for buffers or a backlog: only the address counts.
        let (bound, tables) = match over {
            TransportKind::Quic => (runtime.bind_udp(socket, UdpOptions::default()).map(|_| ()), UDP),
            TransportKind::Tcp => (runtime.bind_tcp(socket, TcpOptions::default()).map(|_| ()), TCP),
        };
        let holder = holder_of(runtime, &bound, socket, tables).await;
        let ours = running.listening.iter().any(|other| is_same(over, socket, other));
        findings.push(judge(CHECK, "listen.addresses", &address.to_string(), &bound, socket, ours, holder));
    }
    findings.extend(local("api.listen", &config.api.listen, runtime, running.api).await);
    findings
}

/// A listener of this node's for programs, which `key` asks for. `ours`: this configuration's node runs.
pub(super) async fn local(
    key: &'static str,
    listen: &ApiListen,
    runtime: &Handle,
    ours: bool,
) -> Option<Finding> {
    let (check, name) = match key {
        "api.listen" => (API, "api"),
        "mqtt.listen" => (MQTT, "mqtt"),
        _ => (WEBSOCKET, "mqtt over websocket"),
    };
    match listen {
        ApiListen::Off => None,
        ApiListen::Tcp(socket) => {
            let bound = runtime.bind_tcp(*socket, TcpOptions::default()).map(|_| ());
            let holder = holder_of(runtime, &bound, *socket, TCP).await;
            Some(judge(check, key, &format!("{name} {socket}"), &bound, *socket, ours, holder))
        }
        ApiListen::Unix(path) => {
            let subject = format!("{name} unix:{}", path.display());
            let there = path.symlink_metadata();
            Some(match there {
                Err(e) if e.kind() == io::ErrorKind::NotFound => match paths::can_make(path) {
                    Ok(()) => Finding::ok(check, subject, "can be made"),
                    Err((dir, why)) => Finding::fail(
                        check,
                        subject,
                        format!("{} {why}", dir.display()),
                        format!("let this user write there, or set {key} to another path"),
                    ),
                },
                Err(e) => Finding::fail(check, subject, e.to_string(), format!("set {key} to another path")),
                Ok(metadata) if !metadata.file_type().is_socket() => {
                    let advice = format!("remove it if nobody needs it, or set {key} to another path");
                    Finding::fail(check, subject, "something else than a socket is there", advice)
                }
                Ok(_) if ours => Finding::ok(check, subject, "our own node answers there"),
                Ok(_) => match runtime.connect_unix(path.clone()).await {
                    Ok(_) => {
                        let advice = format!("end it, or give this node another path: {key}");
                        Finding::fail(check, subject, "another process answers there", advice)
                    }
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                        Finding::ok(check, subject, "left behind by a node that was killed: it is replaced")
                    }
                    Err(e) => Finding::fail(
                        check,
                        subject,
                        format!("a socket is there, but cannot be reached: {e}"),
                        format!("let this user reach it, or set {key} to another path"),
                    ),
                },
            })
        }
    }
}

/// The process that holds a socket, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    name: String,
}

fn judge(
    check: &'static str,
    key: &str,
    subject: &str,
    bound: &io::Result<()>,
    socket: SocketAddr,
    ours: bool,
    holder: Option<Holder>,
) -> Finding {
    let error = match bound {
        Ok(()) => return Finding::ok(check, subject, "free"),
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::AddrInUse if ours => Finding::ok(check, subject, "our own node listens there"),
        io::ErrorKind::AddrInUse => {
            let (by, advice) = match holder {
                Some(Holder { pid, name }) if name == "smidge" => (
                    format!("taken by a smidge node, process {pid}"),
                    format!(
                        "if it is this one, say where its API is with --api; otherwise end it, or set {key}"
                    ),
                ),
                Some(Holder { pid, name }) => (
                    format!("taken by {name}, process {pid}"),
                    format!("end it (kill {pid}), or set {key} to another port"),
                ),
                None => (
                    "taken by a process that cannot be seen from here".into(),
                    format!(
                        "find it as root (ss -lnp sport = :{}), or set {key} to another port",
                        socket.port()
                    ),
                ),
            };
            Finding::fail(check, subject, by, advice)
        }
        io::ErrorKind::AddrNotAvailable => Finding::fail(
            check,
            subject,
            "no interface of this host has this address",
            format!("set {key} to an address of `ip address`, or to 0.0.0.0 for all of them"),
        ),
        io::ErrorKind::PermissionDenied if socket.port() < 1024 => Finding::fail(
            check,
            subject,
            format!("port {} is for root only: {error}", socket.port()),
            format!("set {key} to a port from 1024 on"),
        ),
        _ => Finding::fail(check, subject, error.to_string(), format!("set {key} to another address")),
    }
}

/// Whether a node that listens at `other` has what `socket` asks for.
fn is_same(over: TransportKind, socket: SocketAddr, other: &Multiaddr) -> bool {
    check_address(other).is_ok_and(|(kind, other, _)| {
        kind == over
            && other.port() == socket.port()
            && (other.ip() == socket.ip()
                || (socket.ip().is_unspecified() && socket.is_ipv4() == other.is_ipv4()))
    })
}

async fn holder_of(
    runtime: &Handle,
    bound: &io::Result<()>,
    socket: SocketAddr,
    tables: &'static [&'static str],
) -> Option<Holder> {
    if !bound.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse) {
        return None;
    }
    let look = move || {
        let read = |path: &&str| fs::read_to_string(path).unwrap_or_default();
        owner(&tables.iter().flat_map(|path| inodes(&read(path), socket.port())).collect::<Vec<_>>())
    };
    runtime.unblock(look).await.ok().flatten()
}

/// The sockets in a table such as /proc/net/udp that have this local port and no other side.
fn inodes(table: &str, port: u16) -> Vec<u64> {
    let row = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (_, local) = words.get(1)?.rsplit_once(':')?;
        let (_, remote) = words.get(2)?.rsplit_once(':')?;
        let is_it =
            u16::from_str_radix(local, 16).ok()? == port && u16::from_str_radix(remote, 16).ok()? == 0;
        words.get(9)?.parse().ok().filter(|_| is_it)
    };
    table.lines().filter_map(row).collect()
}

/// The process that has one of these sockets open. Those of other users cannot be looked through.
fn owner(inodes: &[u64]) -> Option<Holder> {
    let wanted: Vec<_> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten().take(PROCESSES);
    for process in processes {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let links = descriptors.flatten().take(DESCRIPTORS).filter_map(|fd| fs::read_link(fd.path()).ok());
        if links.into_iter().any(|link| wanted.iter().any(|wanted| link.as_os_str() == wanted.as_str())) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(Holder { pid, name: name.trim().to_owned() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::{super::finding::Verdict, *};

    fn error(kind: io::ErrorKind) -> io::Result<()> {
        Err(kind.into())
    }

    #[test]
    fn an_address_is_free_ours_or_taken_by_somebody() {
        let holder = |name: &str| Some(Holder { pid: 7, name: name.into() });
        let low: SocketAddr = "0.0.0.0:53".parse().unwrap();
        let high: SocketAddr = "0.0.0.0:4001".parse().unwrap();
        for (bound, socket, ours, holder, expected, words) in [
            (Ok(()), high, false, None, Verdict::Ok, "free"),
            (error(io::ErrorKind::AddrInUse), high, true, holder("smidge"), Verdict::Ok, "our own node"),
            (error(io::ErrorKind::AddrInUse), high, false, holder("smidge"), Verdict::Fail, "--api"),
            (error(io::ErrorKind::AddrInUse), high, false, holder("dnsmasq"), Verdict::Fail, "kill 7"),
            (error(io::ErrorKind::AddrInUse), high, false, None, Verdict::Fail, "ss -lnp sport = :4001"),
            (error(io::ErrorKind::AddrNotAvailable), high, false, None, Verdict::Fail, "ip address"),
            (error(io::ErrorKind::PermissionDenied), low, false, None, Verdict::Fail, "from 1024 on"),
            (error(io::ErrorKind::Unsupported), high, false, None, Verdict::Fail, "listen.addresses"),
        ] {
            let finding = judge(CHECK, "listen.addresses", "a", &bound, socket, ours, holder);
            assert_eq!(finding.verdict, expected, "{finding:?}");
            let text = format!("{} {}", finding.found, finding.advice.unwrap_or_default());
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn a_node_that_listens_everywhere_says_so_by_its_addresses() {
        let at = |text: &str| text.parse::<Multiaddr>().unwrap();
        let any: SocketAddr = "0.0.0.0:4001".parse().unwrap();
        use TransportKind::{Quic, Tcp};
        assert!(is_same(Tcp, any, &at("/ip4/10.0.0.1/tcp/4001")));
        assert!(!is_same(Tcp, any, &at("/ip4/10.0.0.1/udp/4001/quic-v1")));
        assert!(!is_same(Quic, any, &at("/ip4/10.0.0.1/tcp/4001")));
        assert!(is_same(Quic, any, &at("/ip4/10.0.0.1/udp/4001/quic-v1")));
        assert!(!is_same(Quic, any, &at("/ip6/::1/udp/4001/quic-v1")));
        assert!(!is_same(Quic, any, &at("/ip4/10.0.0.1/udp/4002/quic-v1")));
        assert!(!is_same(Quic, "10.0.0.2:4001".parse().unwrap(), &at("/ip4/10.0.0.1/udp/4001/quic-v1")));
    }

    #[test]
    fn tables_of_sockets_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            14: 00000000:0FA1 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4242 2 0 0\n\
            15: 0100007F:0FA1 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 4243 2 0 0\n\
            16: 00000000:0FA2 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4244 2 0 0\n\
            garbage\n";
        assert_eq!(inodes(table, 4001), [4242]);
        assert_eq!(inodes("", 4001), Vec::<u64>::new());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_owner_of_a_socket_is_found() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = owner(&inodes(&fs::read_to_string("/proc/net/udp").unwrap(), port)).unwrap();
        assert_eq!(found.pid, std::process::id());
        assert_eq!(owner(&[]), None);
    }
}
