//! A small authoritative name server, for loopback.
//!
//! It gives `smidge demo` and the tests a name whose records come and go, over UDP and TCP, and
//! can misbehave on demand ([`Fault`]). It never forwards a question, never caches, and is not
//! meant to face a network that is not trusted: it answers every client.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod zone;

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::{
    future::{AbortHandle, BoxFuture, FutureExt, abortable, join},
    io::{AsyncReadExt, AsyncWriteExt},
    stream::{FuturesUnordered, StreamExt},
};

use self::zone::{Via, Zone};
use super::{LookupError, name::HostName};
use crate::runtime::{Handle, RecvMeta, TcpListener, TcpOptions, TcpStream, Transmit, UdpOptions, UdpSocket};

/// Answers over UDP that may be under way at the same time; more questions wait in the kernel.
const MAX_REPLIES: usize = 256;
/// TCP clients at the same time; more wait in the kernel.
const MAX_CLIENTS: usize = 32;
/// How long a TCP client may take for one question or to take one answer.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);
/// How often a port that is free for both UDP and TCP is looked for.
const PORT_TRIES: usize = 16;

/// How a [`NameServer`] misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Answers SERVFAIL.
    ServFail,
    /// Answers REFUSED.
    Refused,
    /// Says nothing.
    Silent,
    /// Answers with bytes that are no DNS message, under the right id.
    Garbage,
    /// Answers under another id than asked.
    WrongId,
    /// Answers so much later.
    Delay(Duration),
    /// Closes TCP connections without a word.
    NoTcp,
}

/// A running name server; it ends when this is dropped.
pub struct NameServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    running: AbortHandle,
}

#[derive(Default)]
struct Shared {
    zone: Mutex<Zone>,
    fault: Mutex<Option<Fault>>,
    questions: AtomicU64,
}

impl fmt::Debug for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameServer").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl NameServer {
    /// A server without records on `addr`; port 0 takes one that is free for UDP and TCP.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(runtime: &Handle, addr: SocketAddr) -> io::Result<Self> {
        let (udp, tcp) = bind(runtime, addr)?;
        let addr = udp.local_addr();
        let shared = Arc::<Shared>::default();
        let serve = {
            let (runtime, shared) = (runtime.clone(), shared.clone());
            async move {
                join(serve_udp(&runtime, udp, &shared), serve_tcp(&runtime, &*tcp, &shared)).await;
            }
        };
        let (serve, running) = abortable(serve);
        // An error is the abort, which is how a server ends.
        runtime.spawn(serve.map(drop));
        Ok(Self { addr, shared, running })
    }

    /// The address that is listened on, over UDP and TCP.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Makes `addresses` the addresses of `name`, in this order. Without any, the name exists
    /// and has none.
    ///
    /// # Errors
    /// [`LookupError::BadName`].
    pub fn set(&self, name: &str, addresses: Vec<IpAddr>) -> Result<(), LookupError> {
        let name = HostName::parse(name)?;
        self.zone().entry(&name).addresses = addresses;
        Ok(())
    }

    /// Makes `texts` the texts (TXT) of `name`, in this order.
    ///
    /// # Errors
    /// [`LookupError::BadName`].
    pub fn set_txt(&self, name: &str, texts: Vec<String>) -> Result<(), LookupError> {
        let name = HostName::parse(name)?;
        self.zone().entry(&name).texts = texts;
        Ok(())
    }

    /// Makes `name` an alias (CNAME) of `target`.
    ///
    /// # Errors
    /// [`LookupError::BadName`].
    pub fn set_alias(&self, name: &str, target: &str) -> Result<(), LookupError> {
        let (name, target) = (HostName::parse(name)?, HostName::parse(target)?);
        self.zone().entry(&name).alias = Some(zone::wire_name(&target));
        Ok(())
    }

    /// Forgets `name`; whether it was there.
    ///
    /// # Errors
    /// [`LookupError::BadName`].
    pub fn remove(&self, name: &str) -> Result<bool, LookupError> {
        let name = HostName::parse(name)?;
        Ok(self.zone().remove(&name))
    }

    /// Misbehaves from now on, or behaves again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// How many datagrams and TCP messages have been received.
    pub fn questions(&self) -> u64 {
        self.shared.questions.load(Ordering::Relaxed)
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.shared.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to answer to `packet`, if anything, and how much later.
    fn answer(&self, packet: &[u8], via: Via) -> Option<(Vec<u8>, Option<Duration>)> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        match self.fault() {
            None | Some(Fault::NoTcp) => Some((zone.answer(packet, via)?, None)),
            Some(Fault::Delay(delay)) => Some((zone.answer(packet, via)?, Some(delay))),
            Some(Fault::Silent) => None,
            Some(Fault::ServFail) => Some((zone::refusal(packet, zone::SERVFAIL)?, None)),
            Some(Fault::Refused) => Some((zone::refusal(packet, zone::REFUSED)?, None)),
            Some(Fault::WrongId) => {
                let mut answer = zone.answer(packet, via)?;
                answer.first_mut().into_iter().for_each(|byte| *byte ^= 0xff);
                Some((answer, None))
            }
            Some(Fault::Garbage) => {
                let id = packet.first_chunk::<2>()?;
                // A reply with a question whose name points at itself, and counts that lie.
                let rest = [0x80, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc0, 12, 0, 1, 0, 1];
                Some(([&id[..], &rest[..]].concat(), None))
            }
        }
    }
}

type Sockets = (Arc<dyn UdpSocket>, Box<dyn TcpListener>);

fn bind(runtime: &Handle, addr: SocketAddr) -> io::Result<Sockets> {
    let mut tries = 0;
    loop {
        tries += 1;
        let udp = runtime.bind_udp(addr, UdpOptions::default())?;
        match runtime.bind_tcp(udp.local_addr(), TcpOptions::default()) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(e) if addr.port() == 0 && e.kind() == io::ErrorKind::AddrInUse && tries < PORT_TRIES => {}
            Err(e) => return Err(e),
        }
    }
}

async fn serve_udp(runtime: &Handle, socket: Arc<dyn UdpSocket>, shared: &Shared) {
    let any = socket.local_addr().ip().is_unspecified();
    let mut replies = FuturesUnordered::<BoxFuture<'static, ()>>::new();
    let mut buf = vec![0; 4096];
    loop {
        let mut meta = [RecvMeta::default()];
        let received = poll_fn(|cx| {
            while let Poll::Ready(Some(())) = replies.poll_next_unpin(cx) {}
            if replies.len() >= MAX_REPLIES {
                return Poll::Pending;
            }
            socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta)
        });
        if let Err(e) = received.await {
            log::warn!("name server {}: no more questions over UDP: {e}", socket.local_addr());
            return;
        }
        let [meta] = meta;
        for packet in buf[..meta.len].chunks(meta.stride.max(1)) {
            if let Some((answer, delay)) = shared.answer(packet, Via::Udp) {
                let (socket, runtime) = (socket.clone(), runtime.clone());
                replies.push(Box::pin(async move {
                    if let Some(delay) = delay {
                        runtime.sleep(delay).await;
                    }
                    let transmit = Transmit {
                        destination: meta.addr,
                        ecn: None,
                        contents: &answer,
                        segment_size: None,
                        src_ip: if any { meta.dst_ip } else { None },
                    };
                    if let Err(e) = send(&socket, &transmit).await {
                        log::debug!("name server: answer to {} not sent: {e}", meta.addr);
                    }
                }));
            }
        }
    }
}

async fn send(socket: &Arc<dyn UdpSocket>, transmit: &Transmit<'_>) -> io::Result<()> {
    loop {
        match socket.try_send(transmit) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => socket.clone().writable().await?,
            result => return result,
        }
    }
}

async fn serve_tcp(runtime: &Handle, listener: &dyn TcpListener, shared: &Shared) {
    let mut clients = FuturesUnordered::new();
    loop {
        let accepted = poll_fn(|cx| {
            while let Poll::Ready(Some(())) = clients.poll_next_unpin(cx) {}
            if clients.len() >= MAX_CLIENTS { Poll::Pending } else { listener.poll_accept(cx) }
        });
        match accepted.await {
            Ok(_) if shared.fault() == Some(Fault::NoTcp) => {}
            Ok((stream, client)) => clients.push(async move {
                if let Err(e) = serve_client(runtime, stream, shared).await {
                    log::debug!("name server: TCP client {client}: {e}");
                }
            }),
            Err(e) => {
                log::debug!("name server {}: a TCP client was not accepted: {e}", listener.local_addr());
                // Out of descriptors, for instance: do not spin.
                runtime.sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers the questions of one TCP client until it leaves.
async fn serve_client(runtime: &Handle, mut stream: Box<dyn TcpStream>, shared: &Shared) -> io::Result<()> {
    loop {
        let read = async {
            let mut len = [0; 2];
            stream.read_exact(&mut len).await?;
            let mut packet = vec![0; u16::from_be_bytes(len).into()];
            stream.read_exact(&mut packet).await?;
            Ok::<_, io::Error>(packet)
        };
        let packet = match runtime.timeout(CLIENT_LIMIT, read).await {
            Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(packet) => packet?,
            Err(late) => return Err(io::Error::new(io::ErrorKind::TimedOut, late)),
        };
        let Some((answer, delay)) = shared.answer(&packet, Via::Tcp) else {
            continue;
        };
        if let Some(delay) = delay {
            runtime.sleep(delay).await;
        }
        let len = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&len.to_be_bytes()[..], &answer].concat();
        match runtime.timeout(CLIENT_LIMIT, stream.write_all(&framed)).await {
            Ok(written) => written?,
            Err(late) => return Err(io::Error::new(io::ErrorKind::TimedOut, late)),
        }
    }
}
