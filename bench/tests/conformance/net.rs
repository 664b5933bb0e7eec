//! A UDP hop of the tests' own: it can fall silent, change its port, and count what passes.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// How often its threads look whether it still lives.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Shared {
    silent: AtomicBool,
    ended: AtomicBool,
    retries: AtomicUsize,
    client: Mutex<Option<SocketAddr>>,
}

/// Carries the datagrams of one client to a server and back.
pub(crate) struct Hop {
    shared: Arc<Shared>,
    front: Arc<UdpSocket>,
    back: Arc<Mutex<Arc<UdpSocket>>>,
    server: SocketAddr,
}

/// A socket of loopback with room for bursts.
fn socket() -> Arc<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LOOK)).unwrap();
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    Arc::new(socket)
}

impl Hop {
    /// A hop in front of `server`.
    pub(crate) fn new(server: &Multiaddr) -> Self {
        let (front, back) = (socket(), socket());
        let shared = Arc::<Shared>::default();
        let hop =
            Self { shared, front, back: Arc::new(Mutex::new(back.clone())), server: socket_addr(server) };
        let (shared, front, out, to) = (hop.shared.clone(), hop.front.clone(), hop.back.clone(), hop.server);
        thread::spawn(move || {
            pump(&shared, &front, |from, bytes| {
                *shared.client.lock().unwrap() = Some(from);
                let out = out.lock().unwrap().clone();
                let _ = out.send_to(bytes, to);
            });
        });
        hop.answers(back);
        hop
    }

    /// Carries back what arrives on `back`.
    fn answers(&self, back: Arc<UdpSocket>) {
        let (shared, front) = (self.shared.clone(), self.front.clone());
        thread::spawn(move || {
            pump(&shared, &back, |_, bytes| {
                // Long header, version 1, type Retry (RFC 9000, 17.2.5).
                if bytes.len() > 5 && bytes[0] & 0xf0 == 0xf0 && bytes[1..5] == [0, 0, 0, 1] {
                    shared.retries.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(client) = *shared.client.lock().unwrap() {
                    let _ = front.send_to(bytes, client);
                }
            });
        });
    }

    /// Where clients dial.
    pub(crate) fn address(&self) -> Multiaddr {
        quic(self.front.local_addr().unwrap())
    }

    /// Drops everything from now on.
    pub(crate) fn silence(&self) {
        self.shared.silent.store(true, Ordering::Relaxed);
    }

    /// Comes from another port from now on, as behind a NAT that forgot; returns it.
    pub(crate) fn rebind(&self) -> Multiaddr {
        let back = socket();
        *self.back.lock().unwrap() = back.clone();
        let new = quic(back.local_addr().unwrap());
        self.answers(back);
        new
    }

    /// Retry packets that came from the server.
    pub(crate) fn retries(&self) -> usize {
        self.shared.retries.load(Ordering::Relaxed)
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

fn pump(shared: &Shared, socket: &UdpSocket, mut carry: impl FnMut(SocketAddr, &[u8])) {
    let mut buffer = [0; 2048];
    while !shared.ended.load(Ordering::Relaxed) {
        let Ok((n, from)) = socket.recv_from(&mut buffer) else { continue };
        if !shared.silent.load(Ordering::Relaxed) {
            carry(from, &buffer[..n]);
        }
    }
}

/// `/ip4/…/udp/…/quic-v1`.
pub(crate) fn quic(at: SocketAddr) -> Multiaddr {
    Multiaddr::from(at.ip()).with(Protocol::Udp(at.port())).with(Protocol::QuicV1)
}

/// The other way round.
pub(crate) fn socket_addr(address: &Multiaddr) -> SocketAddr {
    let mut parts = address.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Udp(port))) => (ip, port).into(),
        (Some(Protocol::Ip6(ip)), Some(Protocol::Udp(port))) => (ip, port).into(),
        _ => panic!("{address} is no UDP address"),
    }
}
