//! The host's network interfaces, and watching them.
//!
//! On Linux a netlink socket tells *that* something changed (rtnetlink(7)), and `getifaddrs` tells
//! what there is: no netlink message is parsed, and an idle node is never woken. Elsewhere the list
//! is looked at every few seconds.

use std::{
    io,
    net::IpAddr,
    task::{Context, Poll},
};

/// One address of one network interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface {
    /// The interface's name, for instance `eth0`.
    pub name: String,
    /// The interface's index, 0 where the system has none.
    pub index: u32,
    /// The address.
    pub addr: IpAddr,
    /// The length of the subnet's prefix in bits.
    pub prefix_len: u8,
}

impl Interface {
    /// Whether `addr` lies in this interface's subnet.
    pub fn contains(&self, addr: IpAddr) -> bool {
        fn prefix(bits: u128, width: u32, len: u8) -> u128 {
            let len = u32::from(len).min(width);
            if len == 0 { 0 } else { bits >> (width - len) }
        }
        match (self.addr, addr) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                prefix(u32::from(own).into(), 32, self.prefix_len)
                    == prefix(u32::from(other).into(), 32, self.prefix_len)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                prefix(own.into(), 128, self.prefix_len) == prefix(other.into(), 128, self.prefix_len)
            }
            _ => false,
        }
    }
}

/// A watch over the host's network interfaces.
pub trait Interfaces: Send + Sync + Unpin {
    /// The addresses of all interfaces that are up.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    fn list(&self) -> io::Result<Vec<Interface>>;

    /// Ready when something may have changed since the last time; [`list`](Self::list) tells what.
    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

pub(super) fn watch() -> io::Result<Box<dyn Interfaces>> {
    Ok(Box::new(Watch(Changes::new()?)))
}

struct Watch(Changes);

impl Interfaces for Watch {
    fn list(&self) -> io::Result<Vec<Interface>> {
        let mut all: Vec<_> = if_addrs::get_if_addrs()?
            .into_iter()
            .filter(|i| i.is_oper_up())
            .map(|i| Interface {
                index: i.index.unwrap_or(0),
                addr: i.ip(),
                prefix_len: match &i.addr {
                    if_addrs::IfAddr::V4(v4) => v4.prefixlen,
                    if_addrs::IfAddr::V6(v6) => v6.prefixlen,
                },
                name: i.name,
            })
            // Link-local IPv6 addresses need a zone, which a multiaddr of QUIC has no place for.
            .filter(|i| !matches!(i.addr, IpAddr::V6(v6) if v6.is_unicast_link_local()))
            .collect();
        all.sort();
        all.dedup();
        Ok(all)
    }

    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

#[cfg(target_os = "linux")]
use linux::Changes;
#[cfg(not(target_os = "linux"))]
use polled::Changes;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        io,
        os::fd::OwnedFd,
        task::{Context, Poll},
    };

    use async_io::Async;
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with};

    /// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR` of `linux/rtnetlink.h`.
    const GROUPS: u32 = 0x1 | 0x10 | 0x100;
    /// Messages read in one go before other tasks get their turn.
    const READS: usize = 64;

    pub(super) struct Changes(Async<OwnedFd>);

    impl Changes {
        pub(super) fn new() -> io::Result<Self> {
            let socket = socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                None, // NETLINK_ROUTE, protocol 0
            )?;
            bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUPS))?;
            Async::new_nonblocking(socket).map(Self)
        }

        pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            // Asked first: it costs no system call, and this is polled whenever anything happens to a node.
            if !matches!(self.0.poll_readable(cx), Poll::Ready(Ok(()))) {
                return Poll::Pending;
            }
            let mut changed = false;
            let mut buf = [0_u8; 4096];
            for _ in 0..READS {
                match recv(self.0.get_ref(), &mut buf, RecvFlags::empty()) {
                    Ok(_) => changed = true,
                    // Messages were lost for want of room: something changed all the same.
                    Err(rustix::io::Errno::NOBUFS) => changed = true,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::AGAIN) if changed => break,
                    Err(rustix::io::Errno::AGAIN) => match self.0.poll_readable(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) | Poll::Pending => return Poll::Pending,
                    },
                    Err(e) => {
                        log::warn!("network interfaces are no longer watched: netlink socket: {e}");
                        return Poll::Pending;
                    }
                }
            }
            if changed { Poll::Ready(()) } else { Poll::Pending }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod polled {
    use std::{
        io,
        task::{Context, Poll},
        time::{Duration, Instant},
    };

    use crate::{Timer, reactor::ReactorTimer};

    const EVERY: Duration = Duration::from_secs(5);

    pub(super) struct Changes(Box<dyn Timer>);

    impl Changes {
        pub(super) fn new() -> io::Result<Self> {
            let mut timer = ReactorTimer::boxed();
            timer.set(Some(Instant::now() + EVERY));
            Ok(Self(timer))
        }

        pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            let rang = self.0.poll(cx);
            if rang.is_ready() {
                self.0.set(Some(Instant::now() + EVERY));
            }
            rang
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_contains_its_addresses_and_no_others() {
        let interface = |addr: &str, prefix_len| Interface {
            name: "eth0".into(),
            index: 2,
            addr: addr.parse().unwrap(),
            prefix_len,
        };
        for (own, len, other, expected) in [
            ("10.0.11.5", 24, "10.0.11.250", true),
            ("10.0.11.5", 24, "10.0.12.5", false),
            ("10.0.11.5", 32, "10.0.11.5", true),
            ("10.0.11.5", 0, "8.8.8.8", true),
            ("fd00::1", 64, "fd00::ffff", true),
            ("fd00::1", 64, "fd00:0:0:1::1", false),
            ("10.0.0.1", 8, "fd00::1", false),
            ("10.0.0.1", 200, "10.0.0.1", true),
        ] {
            assert_eq!(interface(own, len).contains(other.parse().unwrap()), expected, "{own}/{len} {other}");
        }
    }

    #[test]
    fn loopback_is_listed_with_its_prefix() {
        let list = watch().unwrap().list().unwrap();
        let lo = list.iter().find(|i| i.addr.to_string() == "127.0.0.1").expect("a loopback address");
        assert_eq!(lo.prefix_len, 8);
    }
}
