//! The host's network links, how large a packet each of them carries, and whether it carries multicast.
//!
//! One rtnetlink(7) dump: `/sys` may be that of another network namespace, and is not mounted everywhere.
//! Only asks; never changes a link.

/// A network link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name, for instance `eth0`.
    pub name: String,
    /// Its index, 0 where the system has none.
    pub index: u32,
    /// The largest IP packet that it carries, in bytes (MTU).
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether it leads to this host only.
    pub loopback: bool,
    /// Whether it carries multicast to others. Loopback does within the host, and does not say so.
    pub multicast: bool,
}

#[cfg(not(target_os = "linux"))]
pub(super) fn list() -> std::io::Result<Vec<Link>> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "links are only listed on Linux"))
}

#[cfg(target_os = "linux")]
pub(super) use linux::list;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
    };

    use super::Link;

    /// Parts of an answer that are read at most: the kernel sends some 20 links in each.
    const READS: usize = 1024;
    /// The kernel never sends larger parts.
    const PART: usize = 32 << 10;

    // linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if.h
    const RTM_NEWLINK: u16 = 16;
    const RTM_GETLINK: u16 = 18;
    const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    const HEADER: usize = 16;
    const IFINFOMSG: usize = 16;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFF_UP: u32 = 0x1;
    const IFF_LOOPBACK: u32 = 0x8;
    const IFF_MULTICAST: u32 = 0x1000;

    pub(in super::super) fn list() -> io::Result<Vec<Link>> {
        // NETLINK_ROUTE is protocol 0. The kernel answers in the call itself: nothing is waited for.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        let mut request = [0; HEADER + IFINFOMSG];
        request[..4].copy_from_slice(&((HEADER + IFINFOMSG) as u32).to_ne_bytes());
        request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
        request[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
        send(&socket, &request, SendFlags::empty())?;
        let mut links = Vec::new();
        let mut part = vec![0_u8; PART];
        for _ in 0..READS {
            let (_, length) = recv(&socket, &mut part[..], RecvFlags::empty())?;
            if parse(&part[..length.min(PART)], &mut links)? {
                break;
            }
        }
        Ok(links)
    }

    /// Adds the links of one part of the answer; says whether it was the last one.
    pub(super) fn parse(mut part: &[u8], links: &mut Vec<Link>) -> io::Result<bool> {
        while let (Some(length), Some(kind)) = (u32_at(part, 0), u16_at(part, 4)) {
            let length = length as usize;
            let Some(body) = part.get(HEADER..length) else { break };
            match kind {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => {
                    let errno = u32_at(body, 0).map_or(0, |code| (code as i32).saturating_neg());
                    return Err(io::Error::from_raw_os_error(errno));
                }
                RTM_NEWLINK => links.extend(link(body)),
                _ => {}
            }
            part = part.get(aligned(length)..).unwrap_or_default();
        }
        Ok(false)
    }

    fn link(body: &[u8]) -> Option<Link> {
        let (index, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
        let (mut name, mut mtu) = (None, None);
        let mut rest = body.get(IFINFOMSG..)?;
        while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
            let Some(value) = rest.get(4..usize::from(length)) else { break };
            match kind {
                IFLA_IFNAME => {
                    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
                    name = Some(String::from_utf8_lossy(text).into_owned());
                }
                IFLA_MTU => mtu = u32_at(value, 0),
                _ => {}
            }
            rest = rest.get(aligned(length.into())..).unwrap_or_default();
        }
        let has = |flag| flags & flag != 0;
        let (up, loopback, multicast) = (has(IFF_UP), has(IFF_LOOPBACK), has(IFF_MULTICAST));
        Some(Link { name: name?, index, mtu: mtu?, up, loopback, multicast })
    }

    fn aligned(length: usize) -> usize {
        length.saturating_add(3) & !3
    }

    fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
    }

    fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn loopback_is_a_link_that_is_up() {
        let links = list().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").expect("loopback");
        assert!(lo.up && lo.loopback && lo.mtu >= 1280 && lo.index > 0, "{links:?}");
        assert!(links.iter().all(|link| link.name != "lo" || link.loopback), "{links:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_to_their_end(bytes in any::<Vec<u8>>(), length in 0_u32..80, kind in 0_u16..20) {
            let mut message = length.to_ne_bytes().to_vec();
            message.extend(kind.to_ne_bytes());
            message.extend([0; 10]);
            message.extend(bytes);
            let mut links = Vec::new();
            let _ = linux::parse(&message, &mut links);
            prop_assert!(links.len() <= message.len() / 16);
        }
    }
}
