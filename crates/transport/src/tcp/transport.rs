//! libp2p's face of it all: listen, dial, poll.

use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
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

use super::{
    Config, Connecting, Connection, Error, addr,
    listener::{Event, Listener},
    pending::PendingUpgrades,
    upgrade::Route,
};
use crate::listening::Watch;

/// libp2p over TCP, Noise and Yamux.
pub struct Transport {
    config: Arc<Config>,
    runtime: Handle,
    listeners: Vec<Listener>,
    half_made: PendingUpgrades,
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
        config.check()?;
        Ok(Self {
            half_made: PendingUpgrades::new(config.max_half_made),
            config: Arc::new(config),
            interfaces: Watch::new(runtime.clone()),
            runtime,
            listeners: Vec::new(),
            events: VecDeque::new(),
            turn: 0,
            waker: None,
        })
    }

    /// Who we are to those we connect to.
    pub fn local_peer_id(&self) -> PeerId {
        self.config.local_peer
    }

    fn start_dial(
        &self,
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
        let listening = self.listeners.iter().map(|l| &l.announced).find(|a| a.reaches(remote));
        let from = match (opts.role, opts.port_use) {
            (Role::Listener, _) => Some(listening.ok_or(Error::NoListener { remote })?.bound()),
            (Role::Dialer, PortUse::Reuse) => listening.map(|a| a.bound()),
            (Role::Dialer, PortUse::New) => None,
        };
        // A port of ours on this very host is no way to itself: TCP would connect it with itself.
        let from = from.filter(|from| from.port() != remote.port() || !self.is_ours(remote));
        let route = Route { remote, from, role: opts.role };
        Ok(Connecting::dial(route, expected, &self.config, &self.runtime))
    }

    /// Whether a listener is bound to just this address.
    fn is_ours(&self, remote: SocketAddr) -> bool {
        self.listeners.iter().any(|listener| listener.announced.is_at(remote))
    }

    /// The interfaces there are now; `None`, and an event for `listener`, when they cannot be listed.
    fn list_interfaces(&mut self, listener: &Listener) -> Option<Vec<Interface>> {
        if !listener.announced.follows_interfaces() {
            return None;
        }
        let listed = self.interfaces.list().map_err(|source| {
            let error = Error::Interfaces { addr: listener.announced.bound(), source };
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

    fn wake(&mut self) {
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
        let mut listener =
            Listener::bind(id, bind, &self.config, &self.runtime).map_err(TransportError::Other)?;
        let interfaces = self.list_interfaces(&listener);
        self.events.extend(listener.refresh(interfaces.as_deref()));
        self.listeners.push(listener);
        // The next poll registers with the new listener.
        self.wake();
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let Some(at) = self.listeners.iter().position(|listener| listener.id == id) else {
            return false;
        };
        self.listeners.remove(at);
        self.events.push_back(Event::ListenerClosed { listener_id: id, reason: Ok(()) });
        self.wake();
        true
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Connecting, TransportError<Error>> {
        let Some((remote, expected)) = addr::parse_dial(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        self.start_dial(remote, expected, opts).map_err(TransportError::Other)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Connecting, Error>> {
        let this = &mut *self;
        this.poll_interfaces(cx);
        if let Some(event) = this.events.pop_front() {
            return Poll::Ready(event);
        }
        let listeners = this.listeners.len();
        for n in 0..listeners {
            let at = (this.turn + n) % listeners;
            let polled = this.listeners[at].poll(&this.half_made, &this.config, &this.runtime, cx);
            if polled.is_ready() {
                this.turn = (at + 1) % listeners;
                return polled;
            }
        }
        this.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
impl Transport {
    /// Incoming connections that are not made yet.
    pub(super) fn half_made(&self) -> usize {
        self.half_made.len()
    }
}
