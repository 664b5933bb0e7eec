//! A transport whose connections are admitted or closed.

use std::{
    fmt,
    future::poll_fn,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId,
    core::{
        muxing::StreamMuxer,
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    },
};
use smidge_runtime::Handle;

use super::{
    ChannelBinding, Keyring, NotAdmitted,
    exchange::exchange,
    proof::{Role, Session},
    throttle::{Limits, Throttle},
};
use crate::{
    half_open::{Bounds, HalfOpen, Ticket},
    multiaddr::peer_ip,
};

/// How a private mesh admits.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The keys: the first proves, all are accepted.
    pub keys: Keyring,
    /// Longest time for both proofs, after the handshake.
    pub timeout: Duration,
    /// Connections from one address (of IPv6, from one /64) that may fail in a burst; after that, one more
    /// every `forgive`.
    pub failures: u32,
    /// How long until one failure of an address is forgiven.
    pub forgive: Duration,
    /// Incoming connections that may be proving themselves simultaneously, half of them from one address (of IPv6, from one
    /// /64); one more, and the oldest is closed that has had a second, or else the newcomer is.
    pub proving: usize,
}

/// How long a connection is left alone that is proving itself, when there are too many.
const GRACE: Duration = Duration::from_secs(1);

/// Why a connection did not come to stand.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error<E: std::error::Error + 'static> {
    /// The transport below says so.
    #[error(transparent)]
    Transport(#[from] E),
    /// The remote is not one of this network.
    #[error("not admitted {peer}")]
    NotAdmitted {
        /// Who it is.
        peer: PeerId,
        /// What it did not do.
        source: NotAdmitted,
    },
    /// Too many connections from this address were not admitted.
    #[error("not admitted: {address} failed too often, and may try again in {wait:?}")]
    Throttled {
        /// Where it came from.
        address: IpAddr,
        /// How long it has to wait.
        wait: Duration,
    },
}

/// `T`, with an exchange of proofs after each handshake.
#[derive(Debug)]
pub struct Admitted<T> {
    pub(super) inner: T,
    gate: Arc<Gate>,
}

/// Decides who gets in, for every transport of a node: what fails over one of them counts for all.
#[derive(Debug)]
pub struct Gate {
    local: PeerId,
    rules: Rules,
    throttle: Mutex<Throttle>,
    /// Incoming connections whose handshake is made and that have proved nothing yet: counted apart from handshakes,
    /// which nobody without a key then keeps others from.
    proving: Mutex<HalfOpen>,
    runtime: Handle,
}

/// One of the connections that are proving themselves.
struct Proving<'a> {
    gate: &'a Gate,
    ticket: Ticket,
}

impl Drop for Proving<'_> {
    fn drop(&mut self) {
        lock(&self.gate.proving).end(self.ticket.number);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is consistent between calls.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

type Admission<M, E> = BoxFuture<'static, Result<(PeerId, M), Error<E>>>;

impl<T> Admitted<T> {
    /// Admits to `inner` through `gate`.
    pub fn new(inner: T, gate: Arc<Gate>) -> Self {
        Self { inner, gate }
    }
}

impl Gate {
    /// The gate of the node whose peer id is `local`.
    pub fn new(local: PeerId, rules: Rules, runtime: Handle) -> Arc<Self> {
        let limits = Limits { failures: rules.failures, forgive: rules.forgive };
        let bounds = Bounds {
            total: rules.proving.max(1),
            per_address: rules.proving.div_ceil(2).max(1),
            grace: GRACE,
        };
        Arc::new(Self {
            local,
            rules,
            throttle: Mutex::new(Throttle::new(limits)),
            proving: Mutex::new(HalfOpen::new(bounds)),
            runtime,
        })
    }

    /// `from` is where an incoming connection came from.
    async fn admit<M, E>(
        self: Arc<Self>,
        upgrade: impl Future<Output = Result<(PeerId, M), E>>,
        from: Option<IpAddr>,
    ) -> Result<(PeerId, M), Error<E>>
    where
        M: StreamMuxer + ChannelBinding + Unpin,
        M::Substream: Unpin,
        E: std::error::Error + 'static,
    {
        let (peer, mut muxer) = upgrade.await?;
        match self.prove(peer, &mut muxer, from).await {
            Ok(()) => Ok((peer, muxer)),
            Err(why) => {
                muxer.refuse();
                // Who was not even asked did nothing wrong.
                if let (Some(from), false) = (from, why == NotAdmitted::Crowded) {
                    self.failed(from, &peer, why);
                }
                Err(Error::NotAdmitted { peer, source: why })
            }
        }
    }

    /// The exchange, with the bounds on those that come from somewhere.
    async fn prove<M>(&self, peer: PeerId, muxer: &mut M, from: Option<IpAddr>) -> Result<(), NotAdmitted>
    where
        M: StreamMuxer + ChannelBinding + Unpin,
        M::Substream: Unpin,
    {
        let Some(from) = from else { return self.exchange(peer, muxer).await };
        let ticket = lock(&self.proving).begin(from, true, self.runtime.now());
        let proving = Proving { gate: self, ticket: ticket.ok_or(NotAdmitted::Crowded)? };
        let mut exchange = pin!(self.exchange(peer, muxer));
        poll_fn(|cx| match exchange.as_mut().poll(cx) {
            Poll::Pending if proving.ticket.cut.poll(cx) => Poll::Ready(Err(NotAdmitted::Silent)),
            polled => polled,
        })
        .await
    }

    async fn exchange<M>(&self, peer: PeerId, muxer: &mut M) -> Result<(), NotAdmitted>
    where
        M: StreamMuxer + ChannelBinding + Unpin,
        M::Substream: Unpin,
    {
        let binding = muxer.binding().ok_or(NotAdmitted::Unbound)?;
        let (role, initiator, responder) = match muxer.is_initiator() {
            true => (Role::Initiator, self.local, peer),
            false => (Role::Responder, peer, self.local),
        };
        let session = Session { binding, initiator, responder };
        let keys = self.rules.keys.keys();
        let exchange = exchange(muxer, role, &session, &keys);
        self.runtime.timeout(self.rules.timeout, exchange).await.unwrap_or(Err(NotAdmitted::Silent))
    }

    fn failed(&self, from: IpAddr, peer: &PeerId, why: NotAdmitted) {
        let now = self.runtime.now();
        let first = lock(&self.throttle).failed(from, now);
        // Once an address: the next ones are not news before it has kept quiet for a while.
        let level = if first { log::Level::Warn } else { log::Level::Debug };
        log::log!(target: "smidge", level, "not admitted {peer} from {from}: {why}");
    }

    fn wait(&self, from: Option<IpAddr>) -> Option<(IpAddr, Duration)> {
        let throttle = lock(&self.throttle);
        from.and_then(|from| throttle.wait(from, self.runtime.now()).map(|wait| (from, wait)))
    }
}

impl<T, M> libp2p::Transport for Admitted<T>
where
    T: libp2p::Transport<Output = (PeerId, M)> + Unpin,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
    T::Error: fmt::Debug + Send + 'static,
    M: StreamMuxer + ChannelBinding + Unpin + Send + 'static,
    M::Substream: Unpin + Send,
{
    type Output = (PeerId, M);
    type Error = Error<T::Error>;
    type ListenerUpgrade = Admission<M, T::Error>;
    type Dial = Admission<M, T::Error>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, address).map_err(|e| e.map(Error::Transport))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        let dial = self.inner.dial(address, opts).map_err(|e| e.map(Error::Transport))?;
        Ok(self.gate.clone().admit(dial, None).boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let gate = self.gate.clone();
        Pin::new(&mut self.inner).poll(cx).map(|event| match event {
            TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr } => {
                let from = peer_ip(&send_back_addr);
                let upgrade = match gate.wait(from) {
                    Some((address, wait)) => async move { Err(Error::Throttled { address, wait }) }.boxed(),
                    None => gate.admit(upgrade, from).boxed(),
                };
                TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr }
            }
            other => other
                .map_err(Error::Transport)
                // Not an incoming one: there is nothing to map.
                .map_upgrade(|upgrade| gate.admit(upgrade, None).boxed()),
        })
    }
}
