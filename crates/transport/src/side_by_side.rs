//! Two transports side by side as one, QUIC and TCP: an address says which of the two it means.

use std::{
    error,
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::{BoxFuture, FutureExt, TryFutureExt};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        muxing::{StreamMuxer, StreamMuxerBox},
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    },
};

/// A connection on its way.
type Made<Q, T> = BoxFuture<'static, Result<(PeerId, StreamMuxerBox), Error<Q, T>>>;

/// Why a connection, listener or dial of either transport failed.
#[derive(Debug, thiserror::Error)]
pub enum Error<Q: error::Error + 'static, T: error::Error + 'static> {
    /// Over QUIC.
    #[error(transparent)]
    Quic(Q),
    /// Over TCP.
    #[error(transparent)]
    Tcp(T),
}

/// Both transports. Each listens on its own addresses; dials go to the transports that may dial.
#[derive(Debug)]
pub struct SideBySide<Q, T> {
    quic: Q,
    tcp: T,
    dial_quic: bool,
    dial_tcp: bool,
    /// Who is asked first: neither starves the other.
    tcp_first: bool,
}

impl<Q, T> SideBySide<Q, T> {
    /// Both, and both dial.
    pub fn new(quic: Q, tcp: T) -> Self {
        Self { quic, tcp, dial_quic: true, dial_tcp: true, tcp_first: false }
    }

    /// Says over which of them to dial. An address of the other one is not supported then, as if the
    /// transport were not there: nobody is dialed twice because of what others announce.
    #[must_use]
    pub fn dialing(mut self, quic: bool, tcp: bool) -> Self {
        (self.dial_quic, self.dial_tcp) = (quic, tcp);
        self
    }
}

/// `made` as either transport's, its muxer in a box.
fn boxed<M, E, Q, T>(
    made: impl Future<Output = Result<(PeerId, M), E>> + Send + 'static,
    error: fn(E) -> Error<Q, T>,
) -> Made<Q, T>
where
    M: StreamMuxer + Send + 'static,
    M::Substream: Send + 'static,
    M::Error: Send + Sync + 'static,
    E: 'static,
    Q: error::Error + 'static,
    T: error::Error + 'static,
{
    made.map_ok(|(peer, muxer)| (peer, StreamMuxerBox::new(muxer))).map_err(error).boxed()
}

impl<Q, T, M, N> Transport for SideBySide<Q, T>
where
    Q: Transport<Output = (PeerId, M), Dial: Send + 'static, ListenerUpgrade: Send + 'static> + Unpin,
    T: Transport<Output = (PeerId, N), Dial: Send + 'static, ListenerUpgrade: Send + 'static> + Unpin,
    M: StreamMuxer<Substream: Send + 'static, Error: Send + Sync + 'static> + Send + 'static,
    N: StreamMuxer<Substream: Send + 'static, Error: Send + Sync + 'static> + Send + 'static,
    Q::Error: 'static,
    T::Error: 'static,
{
    type Output = (PeerId, StreamMuxerBox);
    type Error = Error<Q::Error, T::Error>;
    type ListenerUpgrade = Made<Q::Error, T::Error>;
    type Dial = Made<Q::Error, T::Error>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        match self.quic.listen_on(id, address) {
            Err(TransportError::MultiaddrNotSupported(address)) => {
                self.tcp.listen_on(id, address).map_err(|e| e.map(Error::Tcp))
            }
            outcome => outcome.map_err(|e| e.map(Error::Quic)),
        }
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.quic.remove_listener(id) || self.tcp.remove_listener(id)
    }

    fn dial(
        &mut self,
        mut address: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        if self.dial_quic {
            match self.quic.dial(address, opts) {
                Err(TransportError::MultiaddrNotSupported(other)) => address = other,
                Ok(made) => return Ok(boxed(made, Error::Quic)),
                Err(e) => return Err(e.map(Error::Quic)),
            }
        }
        if self.dial_tcp {
            let made = self.tcp.dial(address, opts).map_err(|e| e.map(Error::Tcp))?;
            return Ok(boxed(made, Error::Tcp));
        }
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let this = &mut *self;
        let first = this.tcp_first;
        for tcp in [first, !first] {
            let polled = match tcp {
                true => Pin::new(&mut this.tcp)
                    .poll(cx)
                    .map(|event| event.map_upgrade(|made| boxed(made, Error::Tcp)).map_err(Error::Tcp)),
                false => Pin::new(&mut this.quic)
                    .poll(cx)
                    .map(|event| event.map_upgrade(|made| boxed(made, Error::Quic)).map_err(Error::Quic)),
            };
            if polled.is_ready() {
                this.tcp_first = !tcp;
                return polled;
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{
        core::{Endpoint, muxing::StreamMuxer, transport::PortUse},
        identity::Keypair,
    };

    use super::*;
    use crate::{quic, tcp};
    use smidge_runtime::{Executor, Handle};

    type Both = SideBySide<quic::Transport, tcp::Transport>;

    fn both(rt: &Handle) -> Both {
        let key = Keypair::generate_ed25519();
        let quic = quic::Transport::new(quic::Config::new(&key).unwrap(), rt.clone()).unwrap();
        let tcp = tcp::Transport::new(tcp::Config::new(&key).unwrap(), rt.clone()).unwrap();
        SideBySide::new(quic, tcp)
    }

    async fn listen(on: &mut Both, address: &str) -> Multiaddr {
        on.listen_on(ListenerId::next(), address.parse().unwrap()).unwrap();
        let event = futures::future::poll_fn(|cx| Pin::new(&mut *on).poll(cx)).await;
        event.into_new_address().expect("an address")
    }

    #[test]
    fn each_address_is_served_by_its_transport_and_by_no_other_that_may_not_dial() {
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
        let served = Executor::default().block_on(1, |rt| async move {
            let mut listener = both(&rt);
            for any in ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"] {
                let address = listen(&mut listener, any).await;
                let dial = both(&rt).dial(address.clone(), opts).unwrap();
                let dial = async {
                    let (peer, mut muxer) = dial.await.unwrap();
                    // Driven, as by a swarm: the last of the handshake may be on its way.
                    rt.spawn(futures::future::poll_fn(move |cx| Pin::new(&mut muxer).poll(cx).map(drop)));
                    peer
                };
                let accept = async {
                    let event = futures::future::poll_fn(|cx| Pin::new(&mut listener).poll(cx)).await;
                    event.into_incoming().expect("an incoming connection").0.await
                };
                let (dialed, accepted) = futures::join!(dial, accept);
                assert_ne!(dialed, accepted.unwrap().0);
                let is_tcp = any.contains("tcp");
                let refused = both(&rt).dialing(is_tcp, !is_tcp).dial(address.clone(), opts).err().unwrap();
                assert!(matches!(refused, TransportError::MultiaddrNotSupported(a) if a == address));
            }
            let other: Multiaddr = "/memory/1".parse().unwrap();
            assert!(listener.listen_on(ListenerId::next(), other.clone()).is_err());
            assert!(listener.dial(other, opts).is_err());
            assert!(!listener.remove_listener(ListenerId::next()));
        });
        served.unwrap();
    }
}
