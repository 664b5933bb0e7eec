//! libp2p's face of it all: listen, dial, poll.

use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{
        Endpoint as Role,
        transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
    },
};
use smidge_runtime::{Handle, Interface};

use crate::listening::Watch;

use super::{
    Config, Connecting, Connection, Error, addr,
    endpoint::{Endpoint, Shared},
    hole_punch::Punch,
    listener::{Event, Listener},
};

/// libp2p over QUIC version 1.
pub struct Transport {
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    /// Sockets for dials that leave from no listener, made when first needed.
    dialer_v4: Option<Arc<Endpoint>>,
    dialer_v6: Option<Arc<Endpoint>>,
    /// Opened with the first listener whose addresses may change.
    interfaces: Watch,
    events: VecDeque<Event>,
    /// Which listener is asked first: no busy one starves the others.
    turn: usize,
    waker: Option<Waker>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl Transport {
    /// A transport that neither listens nor dials yet: it opens nothing.
    ///
    /// # Errors
    /// [`Error::Config`] when a value of `config` cannot work.
    pub fn new(config: Config, runtime: Handle) -> Result<Self, Error> {
        Ok(Self {
            shared: Arc::new(Shared::new(config.build()?, runtime.clone())),
            listeners: Vec::new(),
            dialer_v4: None,
            dialer_v6: None,
            interfaces: Watch::new(runtime),
            events: VecDeque::new(),
            turn: 0,
            waker: None,
        })
    }

    /// Who we are to those we connect to.
    pub fn local_peer_id(&self) -> PeerId {
        self.shared.built.config.local_peer
    }

    /// Ready when this transport is gone and all its sockets are closed, so that their addresses can
    /// be bound again. Connections keep a socket open.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.shared.closed()
    }

    /// The listening endpoint that a dial to `remote` may leave from.
    fn listening(&self, remote: SocketAddr) -> Option<&Arc<Endpoint>> {
        self.listeners
            .iter()
            .find(|listener| listener.announced.reaches(remote))
            .map(|listener| &listener.endpoint)
    }

    /// The endpoint for dials that leave from no listener.
    fn dialer(&mut self, remote: SocketAddr) -> Result<Arc<Endpoint>, Error> {
        let (slot, any): (_, IpAddr) = if remote.is_ipv4() {
            (&mut self.dialer_v4, Ipv4Addr::UNSPECIFIED.into())
        } else {
            (&mut self.dialer_v6, Ipv6Addr::UNSPECIFIED.into())
        };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let endpoint = Endpoint::bind(&self.shared, SocketAddr::new(any, 0), false)?;
        *slot = Some(endpoint.clone());
        Ok(endpoint)
    }

    fn start_dial(
        &mut self,
        remote: SocketAddr,
        expected: Option<PeerId>,
        opts: DialOpts,
    ) -> Result<Connecting, Error> {
        if remote.ip().is_unspecified() {
            return Err(Error::Undialable { remote, why: "an unspecified address is nobody's" });
        }
        if remote.port() == 0 {
            return Err(Error::Undialable { remote, why: "nobody listens on port 0" });
        }
        if opts.role == Role::Listener {
            let endpoint = self.listening(remote).ok_or(Error::NoListener { remote })?;
            return Ok(Connecting::punch(Punch::new(endpoint.clone(), remote)?, expected));
        }
        let reused = match opts.port_use {
            PortUse::Reuse => self.listening(remote).cloned(),
            PortUse::New => None,
        };
        let endpoint = match reused {
            Some(endpoint) => endpoint,
            None => self.dialer(remote)?,
        };
        Connecting::dial(&endpoint, remote, expected)
    }

    /// The interfaces there are now; `None`, and an event for `listener`, when they cannot be listed.
    fn list_interfaces(&mut self, listener: &Listener) -> Option<Vec<Interface>> {
        if !listener.announced.follows_interfaces() {
            return None;
        }
        let listed = self.interfaces.list().map_err(|source| {
            let error = Error::Interfaces { addr: listener.endpoint.local_addr(), source };
            self.events.push_back(Event::ListenerError { listener_id: listener.id, error });
        });
        listed.ok()
    }

    fn poll_interfaces(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(list) = self.interfaces.poll(cx) {
            let listeners = self.listeners.iter_mut();
            let following = listeners.filter(|listener| listener.announced.follows_interfaces());
            self.events.extend(following.flat_map(|listener| listener.refresh(Some(&list))));
        }
    }

    fn push(&mut self, event: Event) {
        self.events.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl libp2p::Transport for Transport {
    type Output = (PeerId, Connection);
    type Error = Error;
    type ListenerUpgrade = Connecting;
    type Dial = Connecting;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Error>> {
        let Some(bind) = addr::parse_listen(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let endpoint = Endpoint::bind(&self.shared, bind, true).map_err(TransportError::Other)?;
        let mut listener = Listener::new(id, endpoint);
        let interfaces = self.list_interfaces(&listener);
        for event in listener.refresh(interfaces.as_deref()) {
            self.push(event);
        }
        self.listeners.push(listener);
        // The next poll registers with the new listener.
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let Some(at) = self.listeners.iter().position(|listener| listener.id == id) else {
            return false;
        };
        let listener = self.listeners.remove(at);
        listener.endpoint.stop_listening();
        self.push(Event::ListenerClosed { listener_id: id, reason: Ok(()) });
        true
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Connecting, TransportError<Error>> {
        let Some((remote, expected)) = addr::parse_dial(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        self.start_dial(remote, expected, opts).map_err(TransportError::Other)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Connecting, Error>> {
        self.poll_interfaces(cx);
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        let listeners = self.listeners.len();
        for n in 0..listeners {
            let at = (self.turn + n) % listeners;
            if let Poll::Ready(event) = self.listeners[at].poll(cx) {
                self.turn = (at + 1) % listeners;
                return Poll::Ready(event);
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.endpoint.stop_listening();
        }
    }
}

#[cfg(test)]
impl Transport {
    /// The settings of this transport: another one with the same key is the same peer after a restart.
    pub(super) fn config(&self) -> Config {
        self.shared.built.config.clone()
    }

    fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let endpoints = self.listeners.iter().map(|listener| &listener.endpoint);
        endpoints.chain(&self.dialer_v4).chain(&self.dialer_v6)
    }

    /// Connections in all endpoints that are not closed.
    pub(crate) fn open_connections(&self) -> usize {
        self.endpoints().map(|endpoint| endpoint.open_connections()).sum()
    }

    /// Connections in all endpoints that are closed and not forgotten yet.
    pub(super) fn closing(&self) -> usize {
        self.endpoints().map(|endpoint| endpoint.closing()).sum()
    }

    /// Bytes that each connection may hold now in each direction.
    pub(super) fn allowance(&self) -> u64 {
        self.shared.allowance()
    }

    /// Incoming handshakes under way in all endpoints.
    pub(super) fn handshakes(&self) -> usize {
        let endpoints = self.listeners.iter().map(|listener| &listener.endpoint);
        endpoints.map(|e| super::lock(&e.handshakes).len()).sum()
    }
}
