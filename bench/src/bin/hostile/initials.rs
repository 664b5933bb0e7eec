//! Handshakes over QUIC that are begun and left, half of them from addresses that nobody answers at.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use async_io::Timer;
use libp2p::Multiaddr;
use smidge_bench::{
    Side, Tuning,
    link::{Endpoint, start},
};

use crate::{Count, Failure};

/// Between two of them: 500 a second.
const PAUSE: Duration = Duration::from_millis(2);
/// How long a client is given here; it sends its first flight once within that.
const GIVEN: Duration = Duration::from_millis(400);
/// What comes later is no first flight any more.
const FIRST: Duration = Duration::from_millis(200);
/// Addresses of our own, and others.
const SOURCES: u8 = 32;
/// Connection ids remembered.
const REMEMBERED: usize = 4096;

/// Real clients dial a socket of ours, which passes their first flights on to the victim and never an answer back.
pub(crate) async fn initials(
    side: &dyn Side,
    victim: SocketAddr,
    amount: u64,
    count: &Arc<Count>,
) -> Result<(), Failure> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let here: Multiaddr = format!("/ip4/127.0.0.1/udp/{}/quic-v1", socket.local_addr()?.port()).parse()?;
    let (sources, passed) = (sources()?, count.clone());
    std::thread::spawn(move || pass_on(&socket, &sources, victim, &passed));
    let tuning = Tuning { handshake_timeout: GIVEN, ..Tuning::default() };
    let endpoint = Arc::new(Endpoint::new(side, &tuning));
    let began = Instant::now();
    for n in 0..amount {
        // Late ones are made up for.
        Timer::at(began + PAUSE * u32::try_from(n)?).await;
        count.tried.fetch_add(1, Relaxed);
        let (endpoint, here) = (endpoint.clone(), here.clone());
        start(&side.spawner(), async move { drop(endpoint.dial(here).await) });
    }
    count.finish();
    futures::future::pending().await
}

/// Sockets at our own address, and at addresses that lead nowhere (the scenario makes them local here).
fn sources() -> io::Result<Vec<UdpSocket>> {
    let own = (0..SOURCES).map(|_| Ipv4Addr::UNSPECIFIED);
    let others = (1..=SOURCES).map(|n| Ipv4Addr::new(10, 77, 9, n));
    own.chain(others).map(|ip| UdpSocket::bind((ip, 0))).collect()
}

fn pass_on(socket: &UdpSocket, sources: &[UdpSocket], victim: SocketAddr, count: &Count) {
    let mut seen: HashMap<Vec<u8>, (Instant, usize)> = HashMap::new();
    let mut packet = [0; 2048];
    while let Ok(length) = socket.recv(&mut packet) {
        let packet = &packet[..length];
        let Some(id) = connection_id(packet) else { continue };
        if seen.len() >= REMEMBERED {
            seen.retain(|_, (since, _)| since.elapsed() < 2 * GIVEN);
        }
        let next = seen.len() % sources.len();
        let (since, source) = *seen.entry(id.to_vec()).or_insert_with(|| (Instant::now(), next));
        if since.elapsed() < FIRST && sources[source].send_to(packet, victim).is_ok() {
            count.succeeded.fetch_add(1, Relaxed);
        }
    }
}

/// The destination of an Initial (RFC 9000, 17.2.2).
fn connection_id(packet: &[u8]) -> Option<&[u8]> {
    let (first, length) = (*packet.first()?, usize::from(*packet.get(5)?));
    (first & 0xf0 == 0xc0).then(|| packet.get(6..6 + length)).flatten()
}
