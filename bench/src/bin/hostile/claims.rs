//! What a peer may say of itself and of others: addresses without end, and peers that do not exist.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use async_io::Timer;
use futures::AsyncWriteExt;
use libp2p::{
    Multiaddr, PeerId,
    core::{multihash::Multihash, muxing::SubstreamBox},
    multiaddr::Protocol,
};
use serde_json::json;
use smidge_bench::{
    Side, Tuning,
    link::{Endpoint, Link, start},
    nodes::KAD,
};

use crate::{
    Count, Failure,
    wire::{agree, ask_for, field, fields, framed, message, read_frame},
    within,
};

const IDENTIFY: &str = "/ipfs/id/1.0.0";
const PUSH: &str = "/ipfs/id/push/1.0.0";
/// New addresses in a push: what fits into identify's 4 KiB.
const ADDRESSES: u16 = 300;
/// Between two pushes.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two questions that watch what the victim passes on.
const WATCH: Duration = Duration::from_millis(250);
/// The longest answer of the victim's that is read; kad's limit is 16 KiB.
const ANSWER: usize = 1 << 20;
/// Kad's messages (libp2p/specs, `kad-dht/README.md`).
const FIND_NODE: u64 = 4;
const CLOSER_PEERS: u64 = 8;
/// Peers in an answer.
const MADE_UP: usize = 20;

/// One peer pushes identify again and again, each time with new addresses of its own host; another one asks the
/// victim what it tells of that.
pub(crate) async fn pushes(
    side: &dyn Side,
    at: SocketAddr,
    amount: u64,
    count: &Arc<Count>,
) -> Result<(), Failure> {
    let (endpoint, victim, own) = (Endpoint::new(side, &Tuning::default()), quic(at), own_ip(at)?);
    println!("{}", json!({ "peer": endpoint.peer.to_string() }));
    let watch = watch(Endpoint::new(side, &Tuning::default()), victim.clone(), endpoint.peer, count.clone());
    start(&side.spawner(), watch);
    let mut port = 1024_u16;
    while count.tried.load(Relaxed) < amount {
        let Ok(link) = endpoint.dial(victim.clone()).await else {
            Timer::after(20 * PAUSE).await;
            continue;
        };
        let link = Arc::new(link);
        let who = introduction(&endpoint.peer, &[]);
        start(&side.spawner(), answer(side.spawner(), link.clone(), who, own, count.clone()));
        while count.tried.load(Relaxed) < amount {
            let next = port.checked_add(ADDRESSES).unwrap_or(1024);
            let new: Vec<_> = (port..next.max(port)).map(|port| quic((own, port).into())).collect();
            port = next;
            count.tried.fetch_add(1, Relaxed);
            if push(&link, &new).await.is_err() {
                break;
            }
            count.succeeded.fetch_add(1, Relaxed);
            Timer::after(PAUSE).await;
        }
        // The victim had enough of it.
        count.reconnected.fetch_add(1, Relaxed);
    }
    count.finish();
    futures::future::pending().await
}

/// Waits to be asked, and answers with peers that do not exist, at addresses of others.
pub(crate) async fn lies(
    side: &dyn Side,
    at: SocketAddr,
    amount: u64,
    count: &Arc<Count>,
) -> Result<(), Failure> {
    let (endpoint, own) = (Endpoint::new(side, &Tuning::default()), own_ip(at)?);
    while count.succeeded.load(Relaxed) < amount {
        match endpoint.dial(quic(at)).await {
            Ok(link) => {
                let who = introduction(&endpoint.peer, &[quic((own, at.port()).into())]);
                answer(side.spawner(), Arc::new(link), who, own, count.clone()).await;
            }
            Err(_) => drop(Timer::after(20 * PAUSE).await),
        }
        count.reconnected.fetch_add(1, Relaxed);
    }
    count.finish();
    futures::future::pending().await
}

fn quic(at: SocketAddr) -> Multiaddr {
    Multiaddr::from(at.ip()).with(Protocol::Udp(at.port())).with(Protocol::QuicV1)
}

/// Where the victim sees us.
fn own_ip(victim: SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(victim)?;
    Ok(socket.local_addr()?.ip())
}

/// What identify says of a node of the hash table that listens at `addresses`.
fn introduction(peer: &PeerId, addresses: &[Multiaddr]) -> Vec<u8> {
    // The id of an Ed25519 key is the key, behind two bytes that say so.
    let key = field(1, &peer.to_bytes()[2..]);
    let protocol = field(3, KAD.as_ref().as_bytes());
    [key, listening(addresses), protocol, field(5, b"/hostile/1.0.0"), field(6, b"hostile")].concat()
}

/// Identify's fields of addresses; alone, a push of them.
fn listening(addresses: &[Multiaddr]) -> Vec<u8> {
    addresses.iter().flat_map(|address| field(2, address.as_ref())).collect()
}

async fn push(link: &Link, addresses: &[Multiaddr]) -> io::Result<()> {
    let mut stream = within(link.open()).await?;
    within(ask_for(&mut stream, PUSH)).await?;
    within(stream.write_all(&framed(&listening(addresses)))).await?;
    within(stream.close()).await
}

/// Answers identify with `who` and all questions of kad with made-up peers, until the connection ends.
async fn answer(
    spawner: smidge_bench::Spawner,
    link: Arc<Link>,
    who: Vec<u8>,
    own: IpAddr,
    count: Arc<Count>,
) {
    while let Ok(mut stream) = link.accept().await {
        let (who, count) = (who.clone(), count.clone());
        start(&spawner, async move {
            // It ends when the victim has what it wanted.
            let _ = match agree(&mut stream, &[IDENTIFY, KAD.as_ref()]).await {
                Ok(IDENTIFY) => tell(&mut stream, &who).await,
                Ok(_) => make_up(&mut stream, own, &count).await,
                Err(e) => Err(e),
            };
        });
    }
}

async fn tell(stream: &mut SubstreamBox, who: &[u8]) -> io::Result<()> {
    stream.write_all(&framed(who)).await?;
    stream.close().await
}

async fn make_up(stream: &mut SubstreamBox, own: IpAddr, count: &Count) -> io::Result<()> {
    loop {
        let asked = read_frame(stream, ANSWER).await?;
        count.tried.fetch_add(1, Relaxed);
        // The type comes first, unless it is 0.
        let kind = if let [8, kind, ..] = asked[..] { u64::from(kind) } else { 0 };
        let key = fields(&asked).into_iter().find(|(n, _)| *n == 2).map(|(_, key)| key).unwrap_or_default();
        let closer: Vec<u8> = (0..MADE_UP).flat_map(|_| field(CLOSER_PEERS, &made_up_peer(own))).collect();
        stream.write_all(&framed(&message(kind, key, &closer))).await?;
        stream.flush().await?;
        count.succeeded.fetch_add(1, Relaxed);
    }
}

/// A peer that does not exist, at the victim itself, on its link, in a network that only the victim is in (the
/// scenario gives it one), and all over the network that the victim shares with us.
fn made_up_peer(own: IpAddr) -> Vec<u8> {
    let mut digest = [0; 32];
    fastrand::Rng::new().fill(&mut digest);
    let id = Multihash::<64>::wrap(0x12, &digest).map(|id| id.to_bytes()).unwrap_or_default();
    let (port, host) = (fastrand::u16(1024..), fastrand::u8(1..));
    let shared = match own {
        IpAddr::V4(own) => [own.octets()[0], own.octets()[1], fastrand::u8(128..), host],
        IpAddr::V6(_) => [127, 0, 0, host],
    };
    let tcp = |ip: [u8; 4], port| Multiaddr::from(IpAddr::from(ip)).with(Protocol::Tcp(port));
    let addresses = [
        tcp([127, 0, 0, 1], port),
        quic(([127, 0, 0, 1], port).into()),
        tcp([169, 254, 169, 254], 80),
        quic(([169, 254, 169, host], port).into()),
        tcp([172, 30, 0, host], port),
        quic(([172, 30, 0, host], port).into()),
        tcp(shared, port),
        quic((shared, port).into()),
    ];
    let addresses: Vec<u8> = addresses.iter().flat_map(|address| field(2, address.as_ref())).collect();
    [field(1, &id), addresses].concat()
}

/// Asks the victim for `peer` again and again, and notes how much it says.
async fn watch(endpoint: Endpoint, victim: Multiaddr, peer: PeerId, count: Arc<Count>) {
    loop {
        if let Ok(link) = endpoint.dial(victim.clone()).await {
            while look_up(&link, &peer, &count).await.is_ok() {
                Timer::after(WATCH).await;
            }
        }
        Timer::after(WATCH).await;
    }
}

async fn look_up(link: &Link, peer: &PeerId, count: &Count) -> io::Result<()> {
    let id = peer.to_bytes();
    let mut stream = within(link.open()).await?;
    within(ask_for(&mut stream, KAD.as_ref())).await?;
    within(stream.write_all(&framed(&message(FIND_NODE, &id, &[])))).await?;
    within(stream.flush()).await?;
    // What `ask_for` leaves: that the protocol is agreed on.
    within(read_frame(&mut stream, ANSWER)).await?;
    let told = within(read_frame(&mut stream, ANSWER)).await?;
    count.answer.fetch_max(told.len() as u64, Relaxed);
    for (_, closer) in fields(&told).into_iter().filter(|(n, _)| *n == CLOSER_PEERS) {
        let parts = fields(closer);
        if parts.contains(&(1, &id[..])) {
            let addresses = parts.iter().filter(|(n, _)| *n == 2).count();
            count.addresses.fetch_max(addresses as u64, Relaxed);
        }
    }
    Ok(())
}
