//! Hole punching (libp2p/specs quic/README.md and relay/DCUtR.md): random datagrams open the way
//! through our NAT, and the remote dials us through it.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, channel::oneshot};
use smidge_runtime::{Sleep, Transmit};

use super::{Error, endpoint::Endpoint, incoming::Incoming, lock};

/// The pause between two datagrams, in milliseconds.
const PAUSE: std::ops::Range<u64> = 10..200;
/// Bytes of a punching datagram: random, and too few to be taken for a handshake.
const DATAGRAM: usize = 64;

/// Ready with the connection that the remote opens through the hole.
#[derive(Debug)]
pub(super) struct Punch {
    endpoint: Arc<Endpoint>,
    remote: SocketAddr,
    arrival: oneshot::Receiver<Incoming>,
    pause: Sleep,
    until: Instant,
}

impl Punch {
    pub(super) fn new(endpoint: Arc<Endpoint>, remote: SocketAddr) -> Result<Self, Error> {
        let runtime = &endpoint.shared.runtime;
        let config = &endpoint.shared.built.config;
        let (sender, arrival) = oneshot::channel();
        {
            let mut table = lock(&endpoint.table);
            table.punches.retain(|_, waiting| !waiting.is_canceled());
            if table.punches.contains_key(&remote) {
                return Err(Error::PunchDenied { remote, why: "one is being punched already" });
            }
            if table.punches.len() >= config.max_punches {
                return Err(Error::PunchDenied { remote, why: "too many are being punched (max_punches)" });
            }
            table.punches.insert(remote, sender);
        }
        let now = runtime.now();
        let until = now.checked_add(config.handshake_timeout).unwrap_or(now);
        let pause = runtime.sleep_until(now);
        Ok(Self { endpoint, remote, arrival, pause, until })
    }
}

impl Future for Punch {
    type Output = Result<Incoming, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let remote = self.remote;
        match self.arrival.poll_unpin(cx) {
            Poll::Ready(Ok(incoming)) => return Poll::Ready(Ok(incoming)),
            Poll::Ready(Err(_)) => {
                return Poll::Ready(Err(Error::PunchDenied { remote, why: "the listener was removed" }));
            }
            Poll::Pending => {}
        }
        while self.pause.poll_unpin(cx).is_ready() {
            let runtime = &self.endpoint.shared.runtime;
            let now = runtime.now();
            if now >= self.until {
                let limit = self.endpoint.shared.built.config.handshake_timeout;
                return Poll::Ready(Err(Error::PunchTimeout { remote, limit }));
            }
            let contents: [u8; DATAGRAM] = std::array::from_fn(|_| fastrand::u8(..));
            let transmit = Transmit {
                destination: remote,
                ecn: None,
                contents: &contents,
                segment_size: None,
                src_ip: None,
            };
            // Lost ones are followed by others.
            if let Err(e) = self.endpoint.socket.try_send(&transmit) {
                log::debug!("cannot punch a hole to {remote}: {e}");
            }
            let next = now + Duration::from_millis(fastrand::u64(PAUSE));
            self.pause = runtime.sleep_until(next.min(self.until));
        }
        Poll::Pending
    }
}

impl Drop for Punch {
    fn drop(&mut self) {
        let mut table = lock(&self.endpoint.table);
        if table.punches.get(&self.remote).is_some_and(|waiting| waiting.is_connected_to(&self.arrival)) {
            table.punches.remove(&self.remote);
        }
    }
}
