//! UDP sockets for the real runtimes: quinn-udp's system calls, on the readiness that async-io or our
//! own poller tells of.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use async_io::Async;
use futures::future::{BoxFuture, FutureExt};
use quinn_udp::{RecvMeta, Transmit, TransportError, UdpSockRef, UdpSocketState};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::{Interface, UdpOptions, UdpSocket};

/// Reports when a socket can be read or written again.
pub(super) trait Readiness: fmt::Debug + Send + Sync + 'static {
    fn socket(&self) -> &std::net::UdpSocket;

    /// A read is about to be tried: only what arrives from here on is news.
    fn before_read(&self) {}

    /// Whether everything that arrives after [`before_read`](Self::before_read) makes
    /// [`poll_readable`](Self::poll_readable) ready, even if no read has failed meanwhile.
    fn tells_of_arrivals(&self) -> bool {
        false
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    fn writable(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>>;
}

impl Readiness for Async<std::net::UdpSocket> {
    fn socket(&self) -> &std::net::UdpSocket {
        self.get_ref()
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_readable(cx)
    }

    fn writable(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>> {
        self.writable_owned().boxed()
    }
}

#[derive(Debug)]
struct Udp<R> {
    io: Arc<R>,
    state: UdpSocketState,
    local: SocketAddr,
    /// Whether unreachable remotes are reported through the error queue.
    reports_errors: bool,
    /// A system call failed with such a report since the queue was last found empty.
    reported: AtomicBool,
    /// The last read left nothing behind.
    drained: AtomicBool,
}

/// Binds a socket to `addr` that async-io watches.
pub(super) fn bind(addr: SocketAddr, options: UdpOptions) -> io::Result<Arc<dyn UdpSocket>> {
    bind_with(addr, options, Async::new_nonblocking)
}

/// Binds a socket to `addr` that `watch` watches.
pub(super) fn bind_with<R: Readiness>(
    addr: SocketAddr,
    options: UdpOptions,
    watch: impl FnOnce(std::net::UdpSocket) -> io::Result<R>,
) -> io::Result<Arc<dyn UdpSocket>> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if options.reuse {
        socket.set_reuse_address(true)?;
    }
    // The kernel cuts a wish down to its limit in silence; some refuse instead. Neither is fatal:
    // `buffer_sizes` tells what was granted.
    if let Some(bytes) = options.send_buffer
        && let Err(e) = socket.set_send_buffer_size(bytes)
    {
        log::debug!("{addr}: SO_SNDBUF of {bytes} bytes refused: {e}");
    }
    if let Some(bytes) = options.recv_buffer
        && let Err(e) = socket.set_recv_buffer_size(bytes)
    {
        log::debug!("{addr}: SO_RCVBUF of {bytes} bytes refused: {e}");
    }
    socket.bind(&addr.into())?;
    wrap(socket, watch)
}

/// How far a datagram to a group may go; receivers on the link see that it came from there.
const MULTICAST_TTL: u32 = 255;

/// Joins `group` on `interface`, with a socket that async-io watches.
pub(super) fn multicast(group: SocketAddr, interface: &Interface) -> io::Result<Arc<dyn UdpSocket>> {
    multicast_with(group, interface, Async::new_nonblocking)
}

/// Joins `group` on `interface`, with a socket that `watch` watches.
pub(super) fn multicast_with<R: Readiness>(
    group: SocketAddr,
    interface: &Interface,
    watch: impl FnOnce(std::net::UdpSocket) -> io::Result<R>,
) -> io::Result<Arc<dyn UdpSocket>> {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    // Other programs of this host listen to the same group. On Linux this alone lets them; with
    // SO_REUSEPORT, what comes for one socket is handed to any of those that have it.
    socket.set_reuse_address(true)?;
    #[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "netbsd", target_os = "openbsd"))]
    socket.set_reuse_port(true)?;
    let index = interface.index;
    match (group, interface.addr) {
        (SocketAddr::V4(to), IpAddr::V4(own)) => {
            // Bound to the group: what is sent to this host alone, perhaps from far away, is not heard.
            let at = if cfg!(unix) { *to.ip() } else { Ipv4Addr::UNSPECIFIED };
            socket.bind(&SocketAddr::from((at, to.port())).into())?;
            #[cfg(target_os = "linux")]
            socket.set_multicast_all_v4(false)?;
            socket.join_multicast_v4_n(
                to.ip(),
                &match index {
                    0 => InterfaceIndexOrAddress::Address(own),
                    index => InterfaceIndexOrAddress::Index(index),
                },
            )?;
            socket.set_multicast_if_v4(&own)?;
            socket.set_multicast_ttl_v4(MULTICAST_TTL)?;
            socket.set_multicast_loop_v4(true)?;
        }
        (SocketAddr::V6(to), IpAddr::V6(_)) => {
            socket.set_only_v6(true)?;
            let at = if cfg!(unix) { *to.ip() } else { std::net::Ipv6Addr::UNSPECIFIED };
            socket.bind(&SocketAddrV6::new(at, to.port(), 0, index).into())?;
            #[cfg(target_os = "linux")]
            socket.set_multicast_all_v6(false)?;
            socket.join_multicast_v6(to.ip(), index)?;
            socket.set_multicast_if_v6(index)?;
            socket.set_multicast_hops_v6(MULTICAST_TTL)?;
            socket.set_multicast_loop_v6(true)?;
        }
        _ => return Err(io::ErrorKind::AddrNotAvailable.into()),
    }
    wrap(socket, watch)
}

fn wrap<R: Readiness>(
    socket: Socket,
    watch: impl FnOnce(std::net::UdpSocket) -> io::Result<R>,
) -> io::Result<Arc<dyn UdpSocket>> {
    let socket = std::net::UdpSocket::from(socket);
    let local = socket.local_addr()?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    let reports_errors = state
        .enable_transport_errors(UdpSockRef::from(&socket))
        .inspect_err(|e| log::debug!("{local}: no reports of unreachable remotes: {e}"))
        .is_ok();
    Ok(Arc::new(Udp {
        io: Arc::new(watch(socket)?),
        state,
        local,
        reports_errors,
        reported: AtomicBool::new(false),
        drained: AtomicBool::new(false),
    }))
}

impl<R: Readiness> UdpSocket for Udp<R> {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let socket = self.io.socket();
        match self.state.try_send(UdpSockRef::from(socket), transmit) {
            // A queued ICMP report fails the next system call in place of its own one: the
            // report stays in the error queue, and the call is made again.
            Err(e) if self.reports_errors && is_report(&e) => {
                self.reported.store(true, Ordering::Relaxed);
                self.state.try_send(UdpSockRef::from(socket), transmit)
            }
            result => result,
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let socket = self.io.socket();
        if self.drained.swap(false, Ordering::Relaxed) {
            ready!(self.io.poll_readable(cx))?;
        }
        loop {
            self.io.before_read();
            match self.state.recv(UdpSockRef::from(socket), bufs, meta) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if is_report(&e) => {
                    self.reported.store(true, Ordering::Relaxed);
                    continue;
                }
                result => {
                    // Fewer than there was room for: the queue was empty, or a report, which arrives
                    // like a datagram, came in between. There is no need to ask once more.
                    let all = result.as_ref().is_ok_and(|n| *n < bufs.len());
                    self.drained.store(all && self.io.tells_of_arrivals(), Ordering::Relaxed);
                    return Poll::Ready(result);
                }
            }
            ready!(self.io.poll_readable(cx))?;
        }
    }

    fn writable(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>> {
        self.io.clone().writable()
    }

    fn take_error(&self) -> Option<TransportError> {
        if !self.reports_errors {
            return None;
        }
        let socket = self.io.socket();
        let report = self.state.recv_transport_error(UdpSockRef::from(socket)).ok().flatten();
        if report.is_none() {
            self.reported.store(false, Ordering::Relaxed);
        }
        report
    }

    fn may_have_errors(&self) -> bool {
        self.reported.load(Ordering::Relaxed)
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn buffer_sizes(&self) -> Option<(usize, usize)> {
        let socket = self.io.socket();
        let send = self.state.send_buffer_size(UdpSockRef::from(socket)).ok()?;
        let recv = self.state.recv_buffer_size(UdpSockRef::from(socket)).ok()?;
        Some((send, recv))
    }
}

/// Whether an error tells of one remote rather than of the socket.
fn is_report(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transmit(destination: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
    }

    #[test]
    fn a_datagram_arrives_with_its_source_and_destination() {
        let a = bind("127.0.0.1:0".parse().unwrap(), UdpOptions::default()).unwrap();
        let b = bind("0.0.0.0:0".parse().unwrap(), UdpOptions::default()).unwrap();
        let to = SocketAddr::new("127.0.0.1".parse().unwrap(), b.local_addr().port());
        a.try_send(&transmit(to, b"hello")).unwrap();
        let mut buf = [0; 2048];
        let mut meta = [RecvMeta::default()];
        let n = async_io::block_on(futures::future::poll_fn(|cx| {
            b.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta)
        }))
        .unwrap();
        assert_eq!((n, meta[0].len, &buf[..5]), (1, 5, &b"hello"[..]));
        assert_eq!(meta[0].addr, a.local_addr());
        assert_eq!(meta[0].dst_ip, Some("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_sent_to_a_group_is_heard_by_every_member_on_that_interface_and_nowhere_else() {
        let list = crate::interfaces::watch().unwrap().list().unwrap();
        let lo = list.into_iter().find(|i| i.addr.to_string() == "127.0.0.1").unwrap();
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let group = SocketAddr::from(([224, 0, 0, 251], port));
        let members = [multicast(group, &lo).unwrap(), multicast(group, &lo).unwrap()];
        let elsewhere = Interface { addr: "fd00::1".parse().unwrap(), ..lo.clone() };
        assert_eq!(multicast(group, &elsewhere).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        members[0].try_send(&transmit(group, b"hello")).unwrap();
        for member in &members {
            let (mut buf, mut meta) = ([0; 64], [RecvMeta::default()]);
            async_io::block_on(futures::future::poll_fn(|cx| {
                member.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta)
            }))
            .unwrap();
            assert_eq!((&buf[..meta[0].len], meta[0].dst_ip), (&b"hello"[..], Some(group.ip())));
            assert_eq!(meta[0].addr, SocketAddr::new(lo.addr, port), "from the group's port");
            assert!(meta[0].interface_index.is_none_or(|index| index == lo.index));
        }
        // To the host alone, though to the same port.
        let outsider = bind("127.0.0.1:0".parse().unwrap(), UdpOptions::default()).unwrap();
        let to_host = SocketAddr::new(lo.addr, port);
        outsider.try_send(&transmit(to_host, b"unicast")).unwrap();
        members[0].try_send(&transmit(group, b"last")).unwrap();
        let (mut buf, mut meta) = ([0; 64], [RecvMeta::default()]);
        async_io::block_on(futures::future::poll_fn(|cx| {
            members[1].poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta)
        }))
        .unwrap();
        assert_eq!(&buf[..meta[0].len], b"last");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_closed_port_is_reported_and_the_socket_lives_on() {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let a = bind("127.0.0.1:0".parse().unwrap(), UdpOptions::default()).unwrap();
        let b = bind("127.0.0.1:0".parse().unwrap(), UdpOptions::default()).unwrap();
        a.try_send(&transmit(closed, b"x")).unwrap();
        let report = a.take_error().expect("loopback answers immediately");
        assert_eq!(report.addr.map(|a| a.ip()), Some(closed.ip()));
        a.try_send(&transmit(closed, b"x")).unwrap();
        a.try_send(&transmit(b.local_addr(), b"y")).unwrap();
        let mut buf = [0; 64];
        let mut meta = [RecvMeta::default()];
        let n = async_io::block_on(futures::future::poll_fn(|cx| {
            b.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta)
        }));
        assert_eq!(n.unwrap(), 1);
    }
}
