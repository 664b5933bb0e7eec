//! From what `resolv.conf` writes to the addresses that questions are sent to.
//!
//! A server that cannot be asked is left out, with a reason; it never keeps the others from being asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::resolv_conf::{ResolvConf, Server};
use crate::runtime::Handle;

/// The port that `resolv.conf` means.
const PORT: u16 = 53;

/// The servers that can be asked, in order, and what is wrong with the others and with the file.
pub(super) fn usable(conf: &ResolvConf, runtime: &Handle) -> (Vec<SocketAddr>, Vec<String>) {
    let (mut servers, mut problems) = (Vec::new(), conf.problems.clone());
    for server in &conf.servers {
        match socket(server, |name| index_of(name, runtime)) {
            Ok(server) => {
                if !servers.contains(&server) {
                    servers.push(server);
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    (servers, problems)
}

/// Where a question for `server` is sent to, as glibc and the kernel have it: an unspecified address
/// is this host, and an IPv4 address that is written as an IPv6 one is asked over IPv4. Answers come
/// from there, and from nowhere else.
pub(super) fn canonical(server: SocketAddr) -> SocketAddr {
    match server.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, server.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, server.port()).into(),
        IpAddr::V4(ip) => (ip, server.port()).into(),
        IpAddr::V6(_) => server,
    }
}

fn socket(
    server: &Server,
    index_of: impl Fn(&str) -> Result<Option<u32>, String>,
) -> Result<SocketAddr, String> {
    let ip = match server.ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => ip,
        ip => return Ok(canonical(SocketAddr::new(ip, PORT))),
    };
    let Some(scope) = &server.scope else {
        return Err(format!("the server {ip} is link-local: write its interface behind it, as in {ip}%eth0"));
    };
    let index = match scope.parse() {
        Ok(index) => Some(index),
        Err(_) => index_of(scope)?,
    };
    match index {
        Some(index) => Ok(SocketAddrV6::new(ip, PORT, 0, index).into()),
        None => Err(format!("the server {ip}%{scope} is left out: there is no network interface {scope:?}")),
    }
}

/// The index of an interface, whatever addresses it has.
fn index_of(name: &str, runtime: &Handle) -> Result<Option<u32>, String> {
    if let Ok(links) = runtime.links() {
        return Ok(links.into_iter().find(|link| link.name == name).map(|link| link.index));
    }
    let list = runtime.interfaces().and_then(|watch| watch.list());
    let list = list.map_err(|e| format!("the network interfaces cannot be listed: {e}"))?;
    Ok(list.into_iter().find(|interface| interface.name == name).map(|interface| interface.index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_asked_where_glibc_and_the_kernel_ask_them() {
        let interfaces = |name: &str| Ok((name == "v0").then_some(7));
        for (content, asked) in [
            ("nameserver 10.0.0.1", "10.0.0.1:53"),
            ("nameserver 0.0.0.0", "127.0.0.1:53"),
            ("nameserver ::", "[::1]:53"),
            ("nameserver ::ffff:127.0.0.1", "127.0.0.1:53"),
            ("nameserver ::ffff:0.0.0.0", "127.0.0.1:53"),
            ("nameserver fe80::1%v0", "[fe80::1%7]:53"),
            ("nameserver fe80::1%3", "[fe80::1%3]:53"),
            // Only link-local addresses have a zone.
            ("nameserver fd00::1%v0", "[fd00::1]:53"),
            (
                "nameserver fe80::1%wlan9",
                "the server fe80::1%wlan9 is left out: there is no network interface",
            ),
            ("nameserver fe80::1", "the server fe80::1 is link-local: write its interface"),
        ] {
            let conf = ResolvConf::parse(content.as_bytes());
            let found = socket(&conf.servers[0], interfaces).map_or_else(|e| e, |at| at.to_string());
            assert!(found.starts_with(asked), "{content}: {found}");
        }
    }

    #[test]
    fn one_bad_server_spoils_neither_those_before_nor_those_behind_it() {
        let runtime = crate::runtime::Executor::default().start(1).unwrap();
        for content in [
            "nameserver fe80::1%wlan9\nnameserver 10.0.0.1\nnameserver 10.0.0.1",
            "nameserver 10.0.0.1\nnameserver fe80::1%wlan9\nnameserver localhost",
            "nameserver 127.0.0.1:53\nnameserver 10.0.0.1\nnameserver fe80::1",
        ] {
            let (servers, problems) = usable(&ResolvConf::parse(content.as_bytes()), &runtime);
            assert_eq!(servers, ["10.0.0.1:53".parse().unwrap()], "{content:?}");
            assert!(!problems.is_empty(), "{content:?}");
        }
    }
}
