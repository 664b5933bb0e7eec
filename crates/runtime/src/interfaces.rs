//! Watching the host's network interfaces.
//!
//! On Linux a netlink socket tells *that* something changed (rtnetlink(7)), and `getifaddrs` tells
//! what there is: no netlink message is parsed, and an idle node is never woken. Elsewhere the list
//! is looked at every few seconds.

use std::{
    io,
    net::IpAddr,
    task::{Context, Poll},
};

use super::{Interface, Interfaces};

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
    fn loopback_is_listed_with_its_prefix() {
        let list = watch().unwrap().list().unwrap();
        let lo = list.iter().find(|i| i.addr.to_string() == "127.0.0.1").expect("a loopback address");
        assert_eq!(lo.prefix_len, 8);
    }
}
