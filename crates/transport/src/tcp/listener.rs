//! A listener: a socket that accepts connections, and the addresses it has by now.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::FutureExt;
use libp2p::core::transport::{ListenerId, TransportEvent};
use smidge_runtime::{Handle, Interface, Sleep, TcpListener, TcpOptions};

use super::{Config, Connecting, Error, addr::to_multiaddr, pending::PendingUpgrades};
use crate::listening::{Announced, Change};

/// How long a listener rests when the host has nothing to accept connections with.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) type Event = TransportEvent<Connecting, Error>;

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) id: ListenerId,
    pub(super) announced: Announced,
    socket: Box<dyn TcpListener>,
    pause: Option<Sleep>,
}

impl Listener {
    pub(super) fn bind(
        id: ListenerId,
        addr: SocketAddr,
        config: &Config,
        runtime: &Handle,
    ) -> Result<Self, Error> {
        let options =
            TcpOptions { share: true, backlog: config.backlog, from: None, keep_alive: Some(config.alive()) };
        let socket = runtime.bind_tcp(addr, options).map_err(|source| Error::Bind { addr, source })?;
        Ok(Self { id, announced: Announced::new(socket.local_addr()), socket, pause: None })
    }

    /// What is new about the addresses, given the interfaces there are now.
    pub(super) fn refresh(&mut self, interfaces: Option<&[Interface]>) -> Vec<Event> {
        let listener_id = self.id;
        let event = |change| match change {
            Change::Gone(at) => Event::AddressExpired { listener_id, listen_addr: to_multiaddr(at) },
            Change::New(at) => Event::NewAddress { listener_id, listen_addr: to_multiaddr(at) },
        };
        self.announced.refresh(interfaces).into_iter().map(event).collect()
    }

    /// The next connection someone opens, or why there can be none now.
    pub(super) fn poll(
        &mut self,
        half_made: &PendingUpgrades,
        config: &Arc<Config>,
        runtime: &Handle,
        cx: &mut Context<'_>,
    ) -> Poll<Event> {
        let listener_id = self.id;
        if let Some(pause) = &mut self.pause {
            match pause.poll_unpin(cx) {
                Poll::Ready(()) => self.pause = None,
                Poll::Pending => return Poll::Pending,
            }
        }
        loop {
            match self.socket.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok((stream, remote))) => {
                    let bound = self.announced.bound();
                    return Poll::Ready(Event::Incoming {
                        listener_id,
                        local_addr: to_multiaddr(stream.local_addr().unwrap_or(bound)),
                        send_back_addr: to_multiaddr(remote),
                        upgrade: Connecting::incoming(stream, remote, half_made, config, runtime),
                    });
                }
                // The fate of one connection, not the listener's: on to the next.
                Poll::Ready(Err(e)) if is_of_one_connection(&e) => {}
                Poll::Ready(Err(source)) => {
                    self.pause = Some(runtime.sleep(PAUSE));
                    cx.waker().wake_by_ref();
                    let error = Error::Accept { addr: self.announced.bound(), source };
                    return Poll::Ready(Event::ListenerError { listener_id, error });
                }
            }
        }
    }
}

fn is_of_one_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::InvalidInput
    )
}
